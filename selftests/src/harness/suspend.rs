// SPDX-License-Identifier: GPL-2.0-only
//! Suspend and hibernation tests.

use anyhow::{Context, Result};
use std::fs;

/// Starts `how` (`freeze` or `disk`), stops once user space is frozen (`pm_test`), and resumes.
/// Drivers get the real notifications.
pub fn rehearse(how: &str) -> Result<()> {
    let module = match how {
        "disk" => "hibernate",
        _ => "suspend",
    };
    let delay = format!("/sys/module/{module}/parameters/pm_test_delay");
    for (file, text) in [
        (&*delay, "0"),
        ("/sys/power/pm_test", "freezer"),
        ("/sys/power/state", how),
        ("/sys/power/pm_test", "none"),
    ] {
        fs::write(file, text).with_context(|| format!("write {text} to {file}"))?;
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0
//! The machine goes to sleep, nearly.

use anyhow::{Context, Result};
use std::fs;

/// A rehearsal of `how`, which is `freeze` or `disk`, up to where user space is frozen, and back.
/// The notification that drivers get is the real one.
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

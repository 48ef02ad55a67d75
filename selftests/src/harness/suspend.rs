// SPDX-License-Identifier: GPL-2.0
//! The machine goes to sleep, nearly.

use anyhow::{Context, Result};
use std::fs;

/// A rehearsal of `how`, which is `freeze` or `disk`, up to where user space is frozen, and back.
/// The notification that drivers get is the real one.
pub fn rehearse(how: &str) -> Result<()> {
    for (file, text) in [
        ("/sys/module/suspend/parameters/pm_test_delay", "0"),
        ("/sys/module/hibernate/parameters/pm_test_delay", "0"),
        ("/sys/power/pm_test", "freezer"),
        ("/sys/power/state", how),
        ("/sys/power/pm_test", "none"),
    ] {
        fs::write(file, text).with_context(|| format!("write {text} to {file}"))?;
    }
    Ok(())
}

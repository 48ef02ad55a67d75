// SPDX-License-Identifier: GPL-2.0-only
//! What is said on standard error, and failures that have been said there.

use std::fmt;
use std::io::{self, Write};

/// A line on standard error. That nobody reads it is no reason to stop half-way.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The exit status of a failure whose reason has been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Failed(pub i32);

impl Failed {
    /// Says why, in a line of its own.
    pub fn saying(status: i32, why: impl fmt::Display) -> Self {
        say(why);
        Failed(status)
    }
}

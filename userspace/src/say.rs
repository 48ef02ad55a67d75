// SPDX-License-Identifier: GPL-2.0-only
//! What is said on standard error, and failures that have been said there.

use std::fmt;
use std::io::{self, Write};

/// A failure whose reason has been said; the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Failed(pub i32);

/// What a command returns.
pub type CommandResult = Result<(), Failed>;

impl Failed {
    /// The usual one.
    pub const USUAL: Self = Self(1);

    /// Says why, in a line of its own.
    pub fn saying(status: i32, why: impl fmt::Display) -> Self {
        say(why);
        Self(status)
    }
}

/// A line on standard error. That nobody reads it is no reason to stop half-way.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The same for what need not be UTF-8.
pub fn say_bytes(line: &[u8]) {
    let _ = io::stderr().write_all(&[line, b"\n"].concat());
}

/// What to do about the last message.
pub fn hint(text: impl fmt::Display) {
    say(format_args!("  hint: {text}"));
}

/// The C library's words for an errno.
pub fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// The C library's words for an error of the system.
pub fn os_message(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), strerror)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_numbers() {
        let missing = std::fs::read("/nonexistent").unwrap_err();
        assert_eq!(os_message(&missing), "No such file or directory");
        assert_eq!(os_message(&io::Error::other("x")), "x");
    }
}

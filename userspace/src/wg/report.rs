// SPDX-License-Identifier: GPL-2.0-only
//! What is said on standard error.

use super::{Context, Failed, Voice};
use crate::config::{Fault, Kind, Place, Problem, Warning, HIDDEN};
use crate::genl;
use crate::key::SecretKey;
use std::io::{self, Write};
use std::path::Path;

/// Longest part of a line that is shown below a fault, in characters.
const SNIPPET: usize = 100;

/// Writes a line to standard error.
pub fn say(line: &[u8]) {
    say_raw(&[line, b"\n"].concat());
}

/// Writes to standard error. There is no place to complain about a failure.
pub fn say_raw(text: &[u8]) {
    let _ = io::stderr().write_all(text);
}

/// The C library's words for an errno.
pub fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.strip_suffix(&format!(" (os error {errno})"))
        .map(str::to_owned)
        .unwrap_or(text)
}

/// The C library's words for an error of the system.
pub fn os_message(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), strerror)
}

/// `WHAT: ERROR`, as `perror` says it.
pub fn perror(what: &str, error: &io::Error) -> Failed {
    say(format!("{what}: {}", os_message(error)).as_bytes());
    Failed
}

/// An error of the kernel about an interface, and what it means.
pub fn kernel(context: &Context, what: &str, interface: &str, error: &io::Error) -> Failed {
    perror(what, error);
    if context.voice == Voice::WgRs {
        if let Some(text) = genl::explain(error, interface) {
            hint(&text);
        }
    }
    Failed
}

/// What to do about the last message.
pub fn hint(text: &str) {
    say(format!("  hint: {text}").as_bytes());
}

/// The text, unless it is a key: a secret one may have come to the wrong place.
pub fn unless_key(text: &[u8]) -> &[u8] {
    if SecretKey::from_base64(text).is_some() {
        HIDDEN
    } else {
        text
    }
}

/// What is wrong with the value of a keyword.
pub fn problem(context: &Context, problem: &Problem, keyword: &[u8], value: &[u8]) -> Failed {
    let text = value.get(problem.at.clone()).unwrap_or(value);
    say(&problem.kind.wg_message(unless_key(text)));
    if context.voice == Voice::WgRs {
        say(&[b"  in: ", keyword, b" ", unless_key(value)].concat());
        if let Some(text) = problem.kind.hint() {
            hint(text);
        }
    }
    Failed
}

/// What is wrong with a file, and where.
pub fn fault(context: &Context, path: &Path, input: &[u8], fault: &Fault) -> Failed {
    match context.voice {
        Voice::Wg => say(&fault.wg_message()),
        Voice::WgRs => {
            // The text is below, and may be long.
            let mut message = fault.wg_message();
            if fault.text.len() > SNIPPET {
                message.truncate(message.len() - fault.text.len() - 4);
            }
            say(&[place(path, fault.place).as_slice(), &message].concat());
            if fault.kind != Kind::SecretKey && !fault.text.ends_with(crate::config::HIDDEN) {
                snippet(input, fault.place);
            }
            if let Some(text) = fault.kind.hint() {
                hint(text);
            }
        }
    }
    say(if fault.kind == Kind::NoPublicKey {
        b"Invalid configuration"
    } else {
        b"Configuration parsing error"
    });
    Failed
}

/// A warning about a file.
pub fn warning(context: &Context, path: &Path, warning: &Warning) {
    let place = match context.voice {
        Voice::Wg => Vec::new(),
        Voice::WgRs => place(path, warning.place),
    };
    say(&[place.as_slice(), &warning.wg_message()].concat());
}

fn place(path: &Path, place: Place) -> Vec<u8> {
    format!("{}:{}:{}: ", path.display(), place.line, place.column).into_bytes()
}

/// Shows the line, and marks the part of it that is wrong.
pub fn snippet(input: &[u8], place: Place) {
    let Some(line) = input
        .split(|&c| c == b'\n')
        .nth(place.line.saturating_sub(1))
    else {
        return;
    };
    let line: Vec<char> = String::from_utf8_lossy(line)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let column = place.column.saturating_sub(1).min(line.len());
    // A long line is shown from a little before the fault on.
    let from = if line.len() > SNIPPET {
        column.saturating_sub(SNIPPET / 4)
    } else {
        0
    };
    let shown: String = line.iter().skip(from).take(SNIPPET).collect();
    let marks = place.len.min(SNIPPET.saturating_sub(column - from)).max(1);
    let number = place.line.to_string();
    say(format!("  {number} | {}", shown.trim_end()).as_bytes());
    say(format!(
        "  {} | {}{}",
        " ".repeat(number.len()),
        " ".repeat(column - from),
        "^".repeat(marks)
    )
    .as_bytes());
}

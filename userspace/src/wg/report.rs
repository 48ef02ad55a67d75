// SPDX-License-Identifier: GPL-2.0-only
//! What is said about values, files and interfaces.

use super::{Context, Voice};
use crate::config::{Fault, Kind, Place, Problem, Warning, HIDDEN};
use crate::finding::{explain, Finding, Purpose};
use crate::genl;
use crate::key::SecretKey;
use crate::say::{hint, os_message, say, say_bytes, Failed};
use std::io::{self, Write};
use std::path::Path;

/// `WHAT: ERROR`, as `perror` says it.
pub fn perror(what: &str, error: &io::Error) -> Failed {
    say(format_args!("{what}: {}", os_message(error)));
    Failed::USUAL
}

/// An error of the kernel about an interface, and what it means.
pub fn kernel(context: &Context, what: &str, interface: &str, error: &io::Error) -> Failed {
    let failed = perror(what, error);
    if context.voice == Voice::WgRs {
        if let Some(text) = genl::explain(error, interface) {
            hint(&text);
        }
    }
    failed
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
    say_bytes(&problem.kind.wg_message(unless_key(text)));
    if context.voice == Voice::WgRs {
        say_bytes(&[b"  in: ", keyword, b" ", unless_key(value)].concat());
        if let Some(text) = problem.kind.hint() {
            hint(text);
        }
    }
    Failed::USUAL
}

/// What is wrong with a file, and where.
pub fn fault(
    context: &Context,
    path: &Path,
    input: &[u8],
    fault: &Fault,
    purpose: Purpose,
) -> Failed {
    match context.voice {
        Voice::Wg => {
            say_bytes(&fault.wg_message());
            say(if fault.kind == Kind::NoPublicKey {
                "Invalid configuration"
            } else {
                "Configuration parsing error"
            });
        }
        Voice::WgRs => {
            let lines: Vec<_> = input.split(|c| *c == b'\n').collect();
            show(path, &explain(fault, &lines, purpose), &lines);
        }
    }
    Failed::USUAL
}

/// A warning about a file.
pub fn warning(context: &Context, path: &Path, warning: &Warning) {
    match context.voice {
        Voice::Wg => say_bytes(&warning.wg_message()),
        Voice::WgRs => {
            let Place { line, column, .. } = warning.place;
            let place = format!("{}:{line}:{column}: ", path.display());
            say_bytes(&[place.as_bytes(), &warning.wg_message()].concat());
        }
    }
}

fn show(path: &Path, finding: &Finding, lines: &[&[u8]]) {
    let text = finding.show(&path.to_string_lossy(), lines, false);
    let _ = io::stderr().write_all(text.as_bytes());
}

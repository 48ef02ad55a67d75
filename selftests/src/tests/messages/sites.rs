// SPDX-License-Identifier: GPL-2.0-only
//! Dynamic debug's list of a module's messages, and its control file.

use anyhow::{Context, Result};
use std::fs;

const CONTROL: &str = "/sys/kernel/debug/dynamic_debug/control";

/// A place in the code that logs a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// The message with its printf conversions.
    format: String,
    /// Whether it is enabled.
    pub(super) on: bool,
}

/// All sites of a module.
pub(super) fn of(module: &str) -> Result<Vec<Site>> {
    let list = fs::read_to_string(CONTROL).context(CONTROL)?;
    let lines = list.lines();
    Ok(lines.filter_map(|line| parse(line, module)).collect())
}

/// Enables or disables what the query `which` matches.
pub(super) fn switch(which: &str, on: bool) -> Result<()> {
    let sign = if on { '+' } else { '-' };
    fs::write(CONTROL, format!("{which} {sign}p")).context(CONTROL)
}

/// A line of the list: `FILE:LINE [MODULE]FUNCTION =FLAGS "FORMAT"`, a line break as `\n`.
fn parse(line: &str, module: &str) -> Option<Site> {
    let (place, rest) = line.split_once(" =")?;
    if !place.contains(&format!(" [{module}]")) {
        return None;
    }
    let (flags, format) = rest.split_once(' ')?;
    let format = format.strip_prefix('"')?.strip_suffix('"')?;
    Some(Site {
        format: format.trim_end_matches("\\n").to_owned(),
        on: flags.contains('p'),
    })
}

impl Site {
    /// Whether `text`, which follows the device's name, can be this message.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(format) = self.format.strip_prefix("%s: ") else {
            return false;
        };
        let parts = literals(format);
        let Some((first, others)) = parts.split_first() else {
            return false;
        };
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        for part in others {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.is_empty() || others.last().is_some_and(|part| part.is_empty())
    }
}

/// The text between the conversions.
fn literals(format: &str) -> Vec<&str> {
    let mut parts = format.split('%');
    let mut literals = vec![parts.next().unwrap_or("")];
    for part in parts {
        let part = part.trim_start_matches(['.', '*', 'l']);
        let pointer = part.starts_with('p');
        let len = if pointer {
            part.find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(part.len())
        } else {
            1
        };
        literals.push(part.get(len..).unwrap_or(""));
    }
    literals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(format: &str) -> Site {
        Site {
            format: format.to_owned(),
            on: false,
        }
    }

    #[test]
    fn lines_of_the_list() {
        let line = r#"net/x.c:63 [x]f =pmf "%s: Peer %llu created\n""#;
        let wanted = Site {
            on: true,
            ..site("%s: Peer %llu created")
        };
        assert_eq!(parse(line, "x"), Some(wanted));
        assert_eq!(parse(line, "y"), None);
        let off = r#"net/x.c:63 [x]f =_ "a""#;
        assert_eq!(parse(off, "x"), Some(site("a")));
    }

    #[test]
    fn what_a_site_says() {
        let peer = site("%s: Peer %llu (%pISpfsc) destroyed");
        assert!(peer.matches("Peer 1 (192.0.2.1:5) destroyed"));
        assert!(!peer.matches("Peer 1 (192.0.2.1:5) destroyed at last"));
        assert!(!peer.matches("A Peer 1 (192.0.2.1:5) destroyed"));
        let reason = site("%s: Dropping packet from %pISpfsc: %.*s");
        assert!(reason.matches("Dropping packet from [::1]:5: queue full"));
        assert!(!reason.matches("Dropping packet from x"));
        assert!(site("%s: Interface created").matches("Interface created"));
        assert!(!site("%s: Interface created").matches("Interface created."));
    }
}

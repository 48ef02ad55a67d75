// SPDX-License-Identifier: GPL-2.0-only
//! What there is to say about a file, and how it is shown: `FILE:LINE:COLUMN`, what is wrong, the
//! line with a mark below the place.

mod explain;

pub use explain::{explain, foreign, Purpose};

use std::fmt::Write as _;

use crate::config::Place;

/// The widest excerpt of a line that is shown.
const WIDTH: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but probably does not do what was intended.
    Warning,
}

/// Something to say about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where; none if it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Finding {
    /// An error at a place.
    pub fn error(place: Place, message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: Some(place),
            message: message.into(),
            help,
        }
    }

    /// A warning at a place.
    pub fn warning(place: Place, message: impl Into<String>, help: &str) -> Self {
        Self {
            severity: Severity::Warning,
            place: Some(place),
            message: message.into(),
            help: Some(help.into()),
        }
    }

    /// The text of the finding, ending in a line break. `source` is the file's lines.
    pub fn show(&self, name: &str, source: &[&[u8]], colour: bool) -> String {
        let paint = |code: &str, text: &str| match colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let severity = match self.severity {
            Severity::Error => paint("1;31", "error"),
            Severity::Warning => paint("1;33", "warning"),
        };
        let Some(place) = self.place else {
            let help = self
                .help
                .as_ref()
                .map_or(String::new(), |help| format!(" ({help})"));
            return format!("{}: {severity}: {}{help}\n", printable(name), self.message);
        };
        let Place { line, column, len } = place;
        let mut text = format!(
            "{}:{line}:{column}: {severity}: {}\n",
            printable(name),
            self.message
        );
        let raw = line
            .checked_sub(1)
            .and_then(|index| source.get(index))
            .copied()
            .unwrap_or_default();
        let characters = masked(raw);
        // A window around the place, for lines that nobody could read otherwise.
        let start = if column > WIDTH * 2 / 3 {
            column - WIDTH / 3
        } else {
            1
        };
        let shown: String = characters.iter().skip(start - 1).take(WIDTH).collect();
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(column - start);
        let mark = "^".repeat(len.min(WIDTH.saturating_sub(column - start)).max(1));
        let help = self
            .help
            .as_ref()
            .map_or(String::new(), |help| format!(" {help}"));
        let _ = writeln!(text, " {number} | {}", shown.trim_end());
        let _ = writeln!(text, " {margin} | {indent}{}{help}", paint("1;32", &mark));
        text
    }
}

/// Fewer characters tell nothing about a key.
const SHORT: usize = 8;

/// Characters that can be in a key.
fn is_key_like(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=-_".contains(c)
}

/// The characters of a line as they may be shown: whatever could be a key, or most of one, becomes
/// stars, and what a terminal would act on question marks. One for one, so that columns stay true.
pub fn masked(raw: &[u8]) -> Vec<char> {
    let plain = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '?',
        c => c,
    };
    // All the room at once, so that growing leaves no copy behind.
    let mut characters = Vec::with_capacity(raw.len());
    characters.extend(String::from_utf8_lossy(raw).chars().map(plain));
    let name = raw
        .split(|c| *c == b'=')
        .next()
        .filter(|name| name.len() < 30)
        .unwrap_or_default();
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    // These may hold anything, and public keys are too near to private ones when something is wrong
    // with the line.
    let about_key = name.contains("key") || name.contains("priv") || name.contains("shared");
    let equals = characters.iter().position(|c| *c == '=');
    let value = equals.map_or(0, |at| {
        let value = characters.iter().skip(at + 1);
        value.filter(|c| !c.is_whitespace()).count()
    });
    if let Some(equals) = equals.filter(|_| about_key && value >= SHORT) {
        for c in characters
            .iter_mut()
            .skip(equals + 1)
            .filter(|c| !c.is_whitespace())
        {
            *c = '*';
        }
    }
    let mut start = 0;
    while start < characters.len() {
        let len = characters
            .iter()
            .skip(start)
            .take_while(|c| is_key_like(**c))
            .count();
        if len >= 30 {
            characters
                .iter_mut()
                .skip(start)
                .take(len)
                .for_each(|c| *c = '*');
        }
        start += len.max(1);
    }
    characters
}

/// Text of the file, or a file's name, in a message: short, without keys and control characters.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Bytes of the file for a message; none if they could be a key.
pub fn quoted(text: &[u8]) -> Option<String> {
    let text = masked(text);
    (!text.contains(&'*') && text.len() <= 64)
        .then(|| format!("`{}'", text.into_iter().collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn show(line: &str, column: usize, len: usize) -> Vec<String> {
        let finding = Finding::error(
            Place {
                line: 1,
                column,
                len,
            },
            "wrong",
            Some("do this".into()),
        );
        finding
            .show("f", &[line.as_bytes()], false)
            .lines()
            .map(String::from)
            .collect()
    }

    #[test]
    fn marks_the_place() {
        assert_eq!(
            show("\tMTU = x\u{1b}[2J", 8, 4),
            [
                "f:1:8: error: wrong",
                " 1 |  MTU = x?[2J",
                "   |        ^^^^ do this"
            ]
        );
        assert_eq!(
            show("", 1, 1),
            ["f:1:1: error: wrong", " 1 | ", "   | ^ do this"]
        );
        // A place that is not in the file harms nobody.
        assert_eq!(show("a", 9, 9)[2], "   |         ^^^^^^^^^ do this");
    }

    #[test]
    fn shows_a_part_of_long_lines() {
        let line = format!("{}bad{}", ".".repeat(100_000), " ".repeat(100_000));
        let lines = show(&line, 100_001, 3);
        assert!(
            lines[1].ends_with("..bad") && lines[1].len() < 120,
            "{lines:?}"
        );
        assert_eq!(lines[1].find("bad"), lines[2].find('^'));
        assert!(show(&line, 1, 200_000)[2].len() < 120);
    }

    #[test]
    fn never_shows_a_key() {
        for line in [
            format!("PrivateKey = {KEY}"),
            format!("PrivateKey = {}", &KEY[..20]),
            "PresharedKey = yAnz5TF+lXX Jte14tji3 zlMNq".into(),
            format!("PublicKey = {}", &KEY[1..]),
            KEY.into(),
            format!("{}x", &KEY[..43]),
            format!("Endpoint = {KEY}"),
            format!("wg set wg0 peer {KEY}"),
            format!("# {KEY}"),
        ] {
            let shown = show(&line, 1, 1).join("\n");
            for part in KEY.as_bytes().windows(6) {
                assert!(
                    !shown.contains(std::str::from_utf8(part).unwrap()),
                    "{line}: {shown}"
                );
            }
            assert!(shown.contains("***"), "{shown}");
        }
        for harmless in ["AllowedIPs = 10.0.0.0/33, fd00::/64", "rekey=no"] {
            assert!(show(harmless, 1, 1)[1].contains(harmless));
        }
    }

    #[test]
    fn files_without_a_place() {
        let finding = Finding {
            severity: Severity::Warning,
            place: None,
            message: "m".into(),
            help: Some("h".into()),
        };
        assert_eq!(finding.show("a\nb", &[], false), "a?b: warning: m (h)\n");
        assert!(finding.show("f", &[], true).contains("\x1b[1;33mwarning"));
    }
}

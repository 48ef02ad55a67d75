// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs check`: everything that is wrong with a configuration file, each fault with its place and
//! in plain words, and a few things that are valid but probably unintended.

mod warnings;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::Item;
use crate::finding::{explain, foreign, printable, Finding, Purpose, Severity};
use crate::quick::{name_in, Judged, Settings};
use crate::say::os_message;

/// More of them would not be read.
const MOST: usize = 100;
/// The interface's name where the file has none.
const NAME: &str = "wg0";

/// Everything there is to say about a configuration, in the order of the file, errors before
/// warnings in each line. An error is what `up` refuses before it does anything.
fn findings(judged: &Judged, lines: &[&[u8]]) -> Vec<Finding> {
    let foreign_lines = judged.faults.iter().filter(|fault| foreign(fault, lines));
    let others = foreign_lines.count().saturating_sub(1);
    let mut told = HashSet::new();
    let mut findings = Vec::new();
    for fault in &judged.faults {
        let is_foreign = foreign(fault, lines);
        if is_foreign && !told.insert(String::new()) {
            continue;
        }
        let mut finding = explain(fault, lines, Purpose::Tunnel);
        if is_foreign && others > 0 {
            finding.message += &format!(", as are those of {others} more lines");
        }
        // A list of all keys is read once.
        let list = |help: &String| help.starts_with("the keys here are");
        finding.help = finding
            .help
            .filter(|help| !list(help) || told.insert(help.clone()));
        findings.push(finding);
    }
    findings.extend(warnings::warnings(judged));
    findings.sort_by_key(|finding| {
        (
            finding.place.map(|place| place.line),
            finding.severity,
            finding.place,
        )
    });
    findings
}

/// Whether there is anything in the file that others must not see.
fn has_secrets(judged: &Judged) -> bool {
    let mut items = judged.statements.iter().map(|statement| &statement.item);
    items.any(|item| matches!(item, Ok(Item::PrivateKey(_) | Item::PresharedKey(_))))
}

/// What is wrong with the file's name, if it is one of a tunnel's files.
fn name_fault(path: &Path) -> Option<Finding> {
    if path.extension().is_none_or(|extension| extension != "conf") || name_in(path).is_some() {
        return None;
    }
    Some(Finding {
        severity: Severity::Error,
        place: None,
        message: "no interface can have the name of this file".into(),
        help: Some("1 to 15 letters, digits and any of _ = + . - in front of .conf".into()),
    })
}

/// A file's contents, never to be left in memory, and its mode.
fn read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, Option<u32>)> {
    let (mut file, mode): (Box<dyn Read>, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        (Box::new(file), Some(mode))
    };
    // A vector that grows leaves its old self behind.
    let mut source = Zeroizing::new(Vec::with_capacity(64 * 1024));
    loop {
        if source.len() == source.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(source.capacity() * 4));
            larger.extend_from_slice(&source);
            source = larger;
        }
        let room = (source.capacity() - source.len()) as u64;
        if file.by_ref().take(room).read_to_end(&mut source)? == 0 {
            return Ok((source, mode));
        }
    }
}

/// The file that is meant: a path, or the name of an interface as `wg-rs up` takes it.
fn locate(name: &Path) -> PathBuf {
    let in_etc = Path::new("/etc/wireguard").join(format!("{}.conf", name.to_string_lossy()));
    let bare = name.components().count() == 1 && name != Path::new("-");
    if bare && !name.exists() && in_etc.exists() {
        in_etc
    } else {
        name.to_owned()
    }
}

/// Writes everything there is to say about a file, judged by its text alone. Returns the numbers of
/// errors and warnings.
pub fn report(
    source: &[u8],
    name: &str,
    mode: Option<u32>,
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<(usize, usize)> {
    let judged = Judged::new(Settings::parse(source), true);
    write(&judged, source, Path::new(name), mode, colour, out)
}

fn write(
    judged: &Judged,
    source: &[u8],
    path: &Path,
    mode: Option<u32>,
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<(usize, usize)> {
    let name = printable(&path.to_string_lossy());
    let lines: Vec<&[u8]> = source.split(|c| *c == b'\n').collect();
    let mut found = findings(judged, &lines);
    if mode.is_some_and(|mode| mode & 0o007 != 0) && has_secrets(judged) {
        let message = "anyone can read the keys in this file".to_owned();
        let help = Some(format!("chmod 600 {name}"));
        found.insert(
            0,
            Finding {
                severity: Severity::Warning,
                place: None,
                message,
                help,
            },
        );
    }
    if let Some(fault) = name_fault(path) {
        found.insert(0, fault);
    }
    for finding in found.iter().take(MOST) {
        out.write_all(finding.show(&name, &lines, colour).as_bytes())?;
    }
    let errors = found
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    let warnings = found.len() - errors;
    let more = if found.len() > MOST {
        format!(" (the first {MOST} are shown)")
    } else {
        String::new()
    };
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let verdict = match (errors, warnings) {
        (0, 0) => "good".into(),
        (0, _) => format!("good, {}", count(warnings, "warning")),
        (_, 0) => count(errors, "error"),
        _ => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    writeln!(out, "{name}: {verdict}{more}")?;
    Ok((errors, warnings))
}

/// Checks the files and writes what there is to say; false if one of them cannot be used.
pub fn run(files: &[PathBuf], colour: bool, out: &mut dyn Write) -> io::Result<bool> {
    let mut good = true;
    for file in files {
        let path = locate(file);
        good &= match read(&path) {
            Ok((source, mode)) => {
                let name = name_in(&path).unwrap_or_else(|| NAME.to_owned());
                let judged = Judged::new(Settings::parse(&source), true).with_system(&name);
                write(&judged, &source, &path, mode, colour, out)?.0 == 0
            }
            Err(error) => {
                let name = printable(&path.to_string_lossy());
                writeln!(out, "{name}: error: {}", os_message(&error))?;
                false
            }
        };
    }
    Ok(good)
}

#[cfg(test)]
mod tests;

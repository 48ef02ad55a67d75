// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs check`: everything that is wrong with a configuration file, each fault with its place and
//! in plain words, and a few things that are allowed but hardly meant.

mod explain;
mod quick;
mod report;
mod warnings;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{faults, parse, Dialect};
use report::{printable, Finding, Severity};

/// More of them would not be read.
const MOST: usize = 100;

/// Everything there is to say about a configuration, in the order of the file, errors before
/// warnings in each line.
fn findings(source: &[u8]) -> Vec<Finding> {
    let lines: Vec<&[u8]> = source.split(|c| *c == b'\n').collect();
    let statements = parse(
        source,
        Dialect {
            quick: true,
            strict: true,
        },
    );
    let mut findings: Vec<Finding> = faults(&statements)
        .iter()
        .map(|fault| explain::explain(fault, &lines))
        .collect();
    findings.extend(quick::findings(&statements));
    findings.extend(warnings::warnings(&statements));
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
fn has_secrets(source: &[u8]) -> bool {
    use crate::config::Item;
    let statements = parse(
        source,
        Dialect {
            quick: true,
            strict: true,
        },
    );
    statements.iter().any(|statement| {
        matches!(
            statement.item,
            Ok(Item::PrivateKey(_) | Item::PresharedKey(_))
        )
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

/// Writes everything there is to say about a file. Returns the numbers of errors and warnings.
pub fn report(
    source: &[u8],
    name: &str,
    mode: Option<u32>,
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<(usize, usize)> {
    let name = printable(name);
    let mut found = findings(source);
    if mode.is_some_and(|mode| mode & 0o007 != 0) && has_secrets(source) {
        let message = "everybody may read the keys in this file".to_owned();
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
    let lines: Vec<&[u8]> = source.split(|c| *c == b'\n').collect();
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
        let name = path.to_string_lossy();
        good &= match read(&path) {
            Ok((source, mode)) => report(&source, &name, mode, colour, out)?.0 == 0,
            Err(error) => {
                writeln!(out, "{}: error: {error}", printable(&name))?;
                false
            }
        };
    }
    Ok(good)
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: GPL-2.0
//! The kernel's own checkers that must be asked: kmemleak, lockdep, the reference trackers.

use anyhow::{ensure, Context, Result};
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// True on a kernel with kmemleak.
pub fn kmemleak_watches() -> bool {
    Path::new(KMEMLEAK).exists()
}

fn scan() -> Result<()> {
    // EPERM here: kmemleak has switched itself off.
    fs::write(KMEMLEAK, "scan").context("kmemleak: scan")
}

/// The objects that nothing points to any more, one text each. Two scans: an object must be
/// unreferenced in both, and older than 5 s, to count.
pub fn leaks() -> Result<Vec<String>> {
    sleep(Duration::from_secs(6));
    scan()?;
    sleep(Duration::from_secs(1));
    scan()?;
    let text = fs::read_to_string(KMEMLEAK).context(KMEMLEAK)?;
    Ok(reports(&text))
}

/// Splits kmemleak's text at its `unreferenced object` lines.
fn reports(text: &str) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("unreferenced object") {
            list.push(String::new());
        }
        if let Some(last) = list.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    list
}

/// An error unless lockdep still works: after its first report, or when it has run out of room,
/// it goes silent, and everything that follows would be unproven.
pub fn lockdep_alive() -> Result<()> {
    let text = fs::read_to_string("/proc/lockdep_stats").context("/proc/lockdep_stats")?;
    let line = text.lines().find(|line| line.contains("debug_locks:"));
    let value = line.and_then(|line| line.split_whitespace().last());
    ensure!(
        value == Some("1"),
        "lockdep has gone silent (debug_locks: {value:?})"
    );
    Ok(())
}

/// The references that are held now to devices and namespaces by those whose devices or
/// namespaces are called `name`, as (file, contents).
pub fn references(name: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let dir = "/sys/kernel/debug/ref_tracker";
    for entry in fs::read_dir(dir).context(dir)?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if file.contains(name) || text.contains(name) {
            found.push((file, text));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leak_reports() {
        let text = "unreferenced object 0xff (size 64):\n  comm \"a\"\nunreferenced object 0xfe (size 8):\n  x\n";
        let list = reports(text);
        assert_eq!(list.len(), 2);
        assert!(list[0].contains("comm"));
        assert!(reports("").is_empty());
    }
}

// SPDX-License-Identifier: GPL-2.0
//! The kernel's own checkers that must be asked: kmemleak, lockdep, the reference trackers.

use anyhow::{ensure, Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
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

/// Where each device and namespace, until its memory is freed, has a file: who refers to it.
const TRACKERS: &str = "/sys/kernel/debug/ref_tracker";

/// The trackers that there were before the first test: those of the initial namespace and its devices.
static AT_START: OnceLock<BTreeSet<String>> = OnceLock::new();

/// What the trackers say now, by name; nothing on a kernel without them.
fn trackers() -> BTreeMap<String, String> {
    let entries = fs::read_dir(TRACKERS).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // One that has just gone cannot be read.
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            (name, text)
        })
        .collect()
}

/// To be called before the first test, for [`trackers_left`].
pub fn note_trackers() {
    AT_START.get_or_init(|| trackers().into_keys().collect());
}

/// The trackers that were not there before the first test, by name: devices and namespaces whose
/// memory is still held.
pub fn trackers_left() -> Result<BTreeMap<String, String>> {
    let before = AT_START.get().context("the first trackers are not known")?;
    ensure!(!before.is_empty(), "{TRACKERS} is empty");
    let mut left = trackers();
    left.retain(|name, _| !before.contains(name));
    Ok(left)
}

/// The references that a module has taken which is not loaded any more: (tracker, where).
pub fn orphaned_references() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in trackers() {
        for line in text.lines().filter(|line| is_nowhere(line)) {
            found.push((name.clone(), line.trim().to_owned()));
        }
    }
    found
}

/// True for a line of a stack that is a bare address: there is no code with a name any more.
fn is_nowhere(line: &str) -> bool {
    line.trim_start().starts_with("0x")
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

    #[test]
    fn stacks() {
        assert!(is_nowhere("     0xffffffffc0001234"));
        assert!(!is_nowhere("     wg_open+0x12/0x34 [wireguard_rs]"));
        assert!(!is_nowhere("netdev@00000000d1d2d3d4 has 1/1 users at"));
    }
}

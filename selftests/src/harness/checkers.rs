// SPDX-License-Identifier: GPL-2.0-only
//! Kernel checkers that report only when read: kmemleak, lockdep, the reference trackers.

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
    // EPERM: kmemleak has disabled itself.
    fs::write(KMEMLEAK, "scan").context("kmemleak: scan")
}

/// kmemleak's unreferenced objects, one report each. Scans twice: only objects that are
/// unreferenced in both scans and older than 5 s count.
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

/// An error unless lockdep is still active: after its first report, or when its tables are full, it
/// disables itself, and later tests would prove nothing.
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

/// Has a file for each device and namespace until it is freed, with the references held on it.
const TRACKERS: &str = "/sys/kernel/debug/ref_tracker";

/// The trackers before the first test: those of the initial namespace and its devices.
static AT_START: OnceLock<BTreeSet<String>> = OnceLock::new();

/// The trackers' reports by name; empty on a kernel without them.
fn trackers() -> BTreeMap<String, String> {
    let entries = fs::read_dir(TRACKERS).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // It may have been removed since the directory was read.
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            (name, text)
        })
        .collect()
}

/// Remembers the present trackers for [`trackers_left`]; to be called before the first test.
pub fn note_trackers() {
    AT_START.get_or_init(|| trackers().into_keys().collect());
}

/// The trackers that did not exist before the first test, by name: devices and namespaces that are
/// still referenced.
pub fn trackers_left() -> Result<BTreeMap<String, String>> {
    let before = AT_START.get().context("the first trackers are not known")?;
    ensure!(!before.is_empty(), "{TRACKERS} is empty");
    let mut left = trackers();
    left.retain(|name, _| !before.contains(name));
    Ok(left)
}

/// References taken by a module that is no longer loaded: (tracker, stack line).
pub fn orphaned_references() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in trackers() {
        for line in text.lines().filter(|line| is_nowhere(line)) {
            found.push((name.clone(), line.trim().to_owned()));
        }
    }
    found
}

/// True for a stack line that is a bare address, because the module with its symbols is unloaded.
fn is_nowhere(line: &str) -> bool {
    line.trim_start().starts_with("0x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leak_reports() {
        let text = "unreferenced object 0xff (size 64):\n  comm \"a\"\n\
                    unreferenced object 0xfe (size 8):\n  x\n";
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

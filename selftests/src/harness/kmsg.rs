// SPDX-License-Identifier: GPL-2.0-only
//! The kernel log, read between tests.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

/// Substrings of messages that report a kernel defect.
const BAD: &[&str] = &[
    "WARNING:",
    "BUG:",
    "kernel BUG",
    "Oops",
    "------------[ cut here ]",
    "Kernel panic",
    "general protection fault",
    "Unable to handle kernel",
    "unable to handle page fault",
    "rust_kernel: panicked",
    "panicked at",
    "detected stall",
    "self-detected stall",
    "rcu_preempt detected",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "scheduling while atomic",
    "sleeping function called",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "unregister_netdevice: waiting",
    "Objects remaining",
    "still has objects",
    "page allocation failure",
    "KASAN:",
    "UBSAN:",
    "new suspected memory leaks",
    "kmemleak: Cannot",
    "kmemleak: Kernel memory leak detector disabled",
    "ref_tracker:",
    "ODEBUG:",
    "Tainted: G      D",
    "NETDEV WATCHDOG",
    "hw csum failure",
    "protocol 0800 is buggy",
    // Our module's own reports.
    "objects leaked",
    "dropped before its release",
    "skb_over_panic",
    "skb_under_panic",
];

/// Exact messages that match the list above but are no defect.
const HARMLESS: &[&str] = &[
    // Printed once when a reference tracker gets no memory, which the fault tests cause.
    "ref_tracker: memory allocation failure, unreliable refcount tracker.",
    // The same for kmemleak; it then scans more than necessary.
    "kmemleak: Cannot allocate a scan area, scanning the full object",
];

/// Warnings of the module loader when one of its own allocations fails, as in fault tests, whatever
/// module it loads.
const OF_THE_LOADER: &str = " at ddebug_module_notify+";

/// True if the log line reports a kernel defect.
fn is_bad(line: &str) -> bool {
    // The module loader's taint notice for an out-of-tree or unsigned module is expected.
    BAD.iter().any(|bad| line.contains(bad)) && !HARMLESS.contains(&line)
}

/// The lines that report a kernel defect.
pub fn bad_lines(lines: &[String]) -> Vec<&str> {
    let loaders = |line: &String| line.starts_with("WARNING: ") && line.contains(OF_THE_LOADER);
    let bad = lines.iter().enumerate().filter(|(n, line)| {
        // The warning's text stands between its first line and the one that names the function.
        let opens = line.contains("[ cut here ]") && lines.iter().skip(n + 1).take(3).any(loaders);
        is_bad(line) && !opens && !loaders(line)
    });
    bad.map(|(_, line)| line.as_str()).collect()
}

/// The text of one `/dev/kmsg` record: what follows the `prio,seq,usec,flags;` prefix, without
/// the indented key=value lines after it.
pub fn text(record: &str) -> &str {
    let body = record.split_once(';').map_or(record, |(_, body)| body);
    body.lines().next().unwrap_or("")
}

/// A reader of the kernel log, with a position.
pub struct Kmsg {
    file: File,
}

impl Kmsg {
    /// Opens the log at its current end.
    pub fn at_end() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("open /dev/kmsg")?;
        let kmsg = Kmsg { file };
        nix::unistd::lseek(&kmsg.file, 0, nix::unistd::Whence::SeekEnd)?;
        Ok(kmsg)
    }

    /// All message texts since the last call (or since the opening).
    pub fn drain(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut buf = vec![0u8; 16384];
        loop {
            match self.file.read(&mut buf) {
                Ok(0) => return Ok(lines),
                Ok(n) => {
                    let record = String::from_utf8_lossy(buf.get(..n).unwrap_or(&[]));
                    lines.push(text(&record).to_owned());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // Records were overwritten; the next read continues with the oldest one.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {
                    lines.push("WARNING: wgrs-selftests: kernel log overrun".to_owned());
                }
                Err(e) => return Err(e).context("read /dev/kmsg"),
            }
        }
    }
}

/// Writes a marker line into the kernel log, to find a test in a console log.
pub fn mark(text: &str) {
    if let Ok(mut file) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // Level 7 (debug): in the buffer, not on a quiet console.
        // One write is one record.
        let _ = file.write_all(format!("<7>wgrs-selftests: {text}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_bad_lines() {
        for bad in [
            "WARNING: CPU: 1 PID: 77 at net/core/dev.c:1 foo+0x1/0x2",
            "BUG: kernel NULL pointer dereference, address: 0",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "unregister_netdevice: waiting for wg0 to become free. Usage count = 2",
            "INFO: task rmmod:12 blocked for more than 120 seconds.",
            "WARNING: possible circular locking dependency detected",
            "Oops: 0000 [#1] SMP",
        ] {
            assert!(is_bad(bad), "{bad}");
        }
        for good in [
            "wireguard_rs: loading out-of-tree module taints kernel.",
            "wireguard_rs: module verification failed: signature and/or required key missing",
            "wireguard: WireGuard 1.0.0 loaded. See www.wireguard.com for information.",
            "wgrs-selftests: start basic-ping-v4-outer@rs",
        ] {
            assert!(!is_bad(good), "{good}");
        }
    }

    #[test]
    fn tells_the_loaders_warnings() {
        let log = |function: &str| {
            [
                "------------[ cut here ]------------".to_owned(),
                "Failed to allocate memory: dyndbg may not work properly.".to_owned(),
                format!("WARNING: lib/dynamic_debug.c:1354 at {function}+0x47/0x1d0, CPU#1: x/927"),
            ]
        };
        assert!(bad_lines(&log("ddebug_module_notify")).is_empty());
        assert_eq!(bad_lines(&log("another")).len(), 2);
    }

    #[test]
    fn record_text() {
        assert_eq!(text("6,339,5140900,-;NET: up\n SUBSYSTEM=net\n"), "NET: up");
        assert_eq!(text("no prefix"), "no prefix");
    }
}

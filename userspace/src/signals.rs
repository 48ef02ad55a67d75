// SPDX-License-Identifier: GPL-2.0-only
//! What becomes of signals that whoever started us ignores: they stay ignored, in hooks as well.

use signal_hook::consts::SIGPIPE;
use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// Whether this process was started with the signal ignored.
pub fn ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Has writing to a closed pipe fail: a helper program that does not read must not end us. Where
/// the signal is ignored it fails anyway.
pub fn catch_broken_pipe() {
    if !ignored(SIGPIPE) {
        let _ = signal_hook::flag::register(SIGPIPE, Arc::new(AtomicBool::new(false)));
    }
}

/// Output cannot be written, as its reader is gone: ends the program by the signal that says so,
/// unless that is ignored.
pub fn end_by_broken_pipe() {
    if !ignored(SIGPIPE) {
        let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
    }
}

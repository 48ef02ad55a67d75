// SPDX-License-Identifier: GPL-2.0-only
//! Fault injection: makes the kernel's memory allocations fail (`Documentation/fault-injection`).

use anyhow::{ensure, Context, Result};
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

const DEBUGFS: &str = "/sys/kernel/debug";

/// The two kinds of allocation that can fail. Pages only from order 1 on: the test's own memory
/// consists of single pages.
const KINDS: [&str; 2] = ["failslab", "fail_page_alloc"];

/// No limit on the number of failures.
const TIMES: i64 = 1_000_000_000;

fn write(kind: &str, name: &str, value: &str) -> Result<()> {
    let path = Path::new(DEBUGFS).join(kind).join(name);
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}

/// Fault injection, disabled on drop.
pub struct Faults(());

impl Faults {
    /// Prepares [`Faults::nth`]: allocations that may sleep fail too, and nothing is logged.
    pub fn new() -> Result<Self> {
        let faults = Faults(());
        for kind in KINDS {
            for (name, value) in [
                ("probability", "0"),
                ("task-filter", "Y"),
                ("ignore-gfp-wait", "N"),
                ("interval", "1"),
                ("times", "-1"),
                ("space", "0"),
                ("verbose", "0"),
                ("stacktrace-depth", "32"),
            ] {
                write(kind, name, value)?;
            }
        }
        write("fail_page_alloc", "min-order", "1")?;
        Ok(faults)
    }

    /// Runs `f` with the `n`-th allocation of the calling thread failing (from 1). The second value
    /// is true if it made that many.
    pub fn nth<T>(&self, n: u32, f: impl FnOnce() -> T) -> Result<(T, bool)> {
        let path = "/proc/thread-self/fail-nth";
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .context(path)?;
        file.write_at(n.to_string().as_bytes(), 0)?;
        let value = f();
        let left = pending(&file)?;
        if left != 0 {
            file.write_at(b"0", 0)?;
        }
        Ok((value, left == 0))
    }

    /// From now on only allocations with code of `module` on their call stack fail.
    pub fn within(&self, module: &str) -> Result<()> {
        let modules = fs::read_to_string("/proc/modules")?;
        let text = text_of(&modules, module).with_context(|| format!("where is {module}?"))?;
        for kind in KINDS {
            write(kind, "require-start", &format!("{:#x}", text.start))?;
            write(kind, "require-end", &format!("{:#x}", text.end))?;
        }
        Ok(())
    }

    /// From now on this percentage of atomic allocations fails, in every task and interrupt.
    pub fn atomic(&self, percent: u32) -> Result<()> {
        for kind in KINDS {
            write(kind, "task-filter", "N")?;
            write(kind, "ignore-gfp-wait", "Y")?;
            write(kind, "times", &TIMES.to_string())?;
            write(kind, "probability", &percent.to_string())?;
        }
        Ok(())
    }

    /// From now on this percentage of all allocations of the kernel worker threads that exist now
    /// fails.
    pub fn workers(&self, percent: u32) -> Result<usize> {
        let mut marked = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if comm.starts_with("kworker/")
                && fs::write(entry.path().join("make-it-fail"), "1").is_ok()
            {
                marked += 1;
            }
        }
        for kind in KINDS {
            write(kind, "task-filter", "Y")?;
            write(kind, "ignore-gfp-wait", "N")?;
            write(kind, "times", &TIMES.to_string())?;
            write(kind, "probability", &percent.to_string())?;
        }
        ensure!(marked > 0, "no kernel worker threads to be seen");
        Ok(marked)
    }

    /// Stops injection; returns the number of failures since the last [`Faults::atomic`] or
    /// [`Faults::workers`].
    pub fn stop(&self) -> Result<u32> {
        let mut count = 0;
        for kind in KINDS {
            write(kind, "probability", "0")?;
            let path = Path::new(DEBUGFS).join(kind).join("times");
            let left = fs::read_to_string(&path)?;
            let left: i64 = left.trim().parse().unwrap_or(-1);
            count += (left >= 0).then(|| TIMES - left).unwrap_or(0);
            write(kind, "times", "-1")?;
        }
        Ok(count as u32)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = self.stop();
        for kind in KINDS {
            let _ = write(kind, "require-start", "0");
            let _ = write(kind, "require-end", &u64::MAX.to_string());
        }
    }
}

/// The address range of `module`'s code, from `/proc/modules`.
fn text_of(modules: &str, module: &str) -> Option<Range<u64>> {
    let line = modules.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.first() == Some(&module)).then_some(fields)
    })?;
    let size: u64 = line.get(1)?.parse().ok()?;
    let start = u64::from_str_radix(line.get(5)?.strip_prefix("0x")?, 16).ok()?;
    Some(start..start + size)
}

/// The remaining count.
fn pending(file: &File) -> Result<u32> {
    let mut buf = [0; 16];
    let n = file.read_at(&mut buf, 0)?;
    let text = String::from_utf8_lossy(buf.get(..n).unwrap_or(&[])).into_owned();
    text.trim()
        .parse()
        .with_context(|| format!("fail-nth reads {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn finds_the_code_of_a_module() {
        let modules = "wireguard_rs 200704 0 - Live 0xffffffffa0040000 (OE)\n\
                       wireguard 131072 2 tun,nat, Live 0xffffffffa0010000\n";
        let text = text_of(modules, "wireguard");
        assert_eq!(text, Some(0xffff_ffff_a001_0000..0xffff_ffff_a003_0000));
        assert_eq!(text_of(modules, "wire"), None);
    }
}

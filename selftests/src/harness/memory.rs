// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's memory use.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// Bytes in use, by kind.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Everything that is neither free nor mapped by processes nor page cache.
    pub all: i64,
    /// Slabs that cannot be reclaimed.
    pub slab: i64,
    /// Per-CPU memory, of all processors.
    pub percpu: i64,
    /// Stacks of all threads, kernel threads included.
    pub stacks: i64,
    /// Active bytes of each slab cache.
    caches: BTreeMap<String, i64>,
}

impl Memory {
    /// Reads the present values.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let of = |key: &str| -> Result<i64> {
            let line = text.lines().find(|l| l.split(':').next() == Some(key));
            let value = line.and_then(|l| l.split_whitespace().nth(1));
            let kib: i64 = value
                .with_context(|| format!("no {key} in meminfo"))?
                .parse()?;
            Ok(kib << 10)
        };
        let elsewhere = of("MemFree")?
            + of("Cached")?
            + of("Buffers")?
            + of("AnonPages")?
            + of("SReclaimable")?;
        Ok(Memory {
            all: of("MemTotal")? - elsewhere,
            slab: of("SUnreclaim")?,
            percpu: of("Percpu")?,
            stacks: of("KernelStack")?,
            caches: caches()?,
        })
    }

    /// Reads the values once they no longer shrink: when deferred frees have run.
    pub fn settled() -> Result<Self> {
        let mut last = Self::now()?;
        for _ in 0..20 {
            fs::write("/proc/sys/vm/drop_caches", "2")?;
            sleep(Duration::from_millis(150));
            let now = Self::now()?;
            let steady = last.all - now.all < 64 << 10;
            last = now;
            if steady {
                break;
            }
        }
        Ok(last)
    }

    /// As [`Memory::settled`], but before that takes the free objects from the processors' own
    /// lists, where they count as in use.
    pub fn shrunk() -> Result<Self> {
        let caches = fs::read_dir("/sys/kernel/slab").context("/sys/kernel/slab")?;
        for cache in caches.flatten() {
            // A cache may have been removed since the folder was read.
            let _ = fs::write(cache.path().join("shrink"), "1");
        }
        Self::settled()
    }

    /// The growth since `before`.
    pub fn since(&self, before: &Memory) -> Memory {
        let grown = |(name, bytes): (&String, &i64)| {
            (name.clone(), bytes - before.caches.get(name).unwrap_or(&0))
        };
        Memory {
            all: self.all - before.all,
            slab: self.slab - before.slab,
            percpu: self.percpu - before.percpu,
            stacks: self.stacks - before.stacks,
            caches: self.caches.iter().map(grown).collect(),
        }
    }

    /// Active bytes of all slab caches: unlike [`Memory::slab`] without the gaps between objects.
    pub fn objects(&self) -> i64 {
        self.caches.values().sum()
    }

    /// The `n` largest slab caches: (name, bytes).
    pub fn top_caches(&self, n: usize) -> Vec<(&str, i64)> {
        let mut list: Vec<(&str, i64)> =
            self.caches.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        list.sort_by_key(|(_, bytes)| -bytes);
        list.truncate(n);
        list
    }
}

/// Active objects times their size for each cache in `/proc/slabinfo`.
fn caches() -> Result<BTreeMap<String, i64>> {
    let text = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    let cache = |line: &str| -> Option<(String, i64)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, active, _, size, ..] = fields.as_slice() else {
            return None;
        };
        Some((
            (*name).to_owned(),
            active.parse::<i64>().ok()? * size.parse::<i64>().ok()?,
        ))
    };
    Ok(text.lines().filter_map(cache).collect())
}

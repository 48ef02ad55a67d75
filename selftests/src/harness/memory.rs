// SPDX-License-Identifier: GPL-2.0
//! What the kernel uses memory for.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// Bytes in use, by kind.
#[derive(Clone, Debug)]
pub struct Memory {
    /// All that is neither free nor a process's nor a cache of files.
    pub all: i64,
    /// Slabs that cannot be reclaimed.
    pub slab: i64,
    /// Per-CPU memory, of all processors.
    pub percpu: i64,
    /// The stacks of threads, kernel threads included.
    pub stacks: i64,
    /// Active bytes of each slab cache.
    caches: BTreeMap<String, i64>,
}

impl Memory {
    /// Reads it once.
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

    /// Reads it when delayed frees have run: when it has stopped to shrink.
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

    /// What has been added since `before`.
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

    /// The `n` slab caches with the most bytes, and how many.
    pub fn top_caches(&self, n: usize) -> Vec<(&str, i64)> {
        let mut list: Vec<(&str, i64)> =
            self.caches.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        list.sort_by_key(|(_, bytes)| -bytes);
        list.truncate(n);
        list
    }
}

/// Objects in use times their size, from `/proc/slabinfo`.
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

// SPDX-License-Identifier: GPL-2.0-only
//! A sampling profiler: the program counter of every CPU by the kernel's `cpu-clock` event, which
//! needs no hardware counter, and the names of the functions.
//!
//! Samples cost time: never compare figures taken with and without it. What runs with interrupts
//! disabled is attributed to the place where they are enabled again.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::mman::{mmap, MapFlags, ProtFlags};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Acquire};

/// Time between two samples of a CPU, ns.
const PERIOD: u64 = 100_000;
/// Size of a CPU's ring buffer, pages; a sample takes 16 bytes.
const PAGES: usize = 512;
const PAGE: usize = 4096;
/// `data_head` in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;

/// Functions by address.
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Reads `/proc/kallsyms`.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let parse = |line: &str| {
            let (addr, rest) = line.split_once(' ')?;
            let name = rest.split_once(' ')?.1.replace('\t', " ");
            Some((u64::from_str_radix(addr, 16).ok()?, name))
        };
        Ok(Symbols(text.lines().filter_map(parse).collect()))
    }

    fn name(&self, ip: u64) -> &str {
        if ip >> 63 == 0 {
            return "[user space]";
        }
        self.0
            .range(..=ip)
            .next_back()
            .map_or("?", |(_, name)| name)
    }
}

/// A running sampler.
pub struct Sampler(Vec<(OwnedFd, *mut u8)>);

impl Sampler {
    /// Starts on all CPUs.
    pub fn start() -> Result<Self> {
        let cpus = std::thread::available_parallelism()?.get();
        (0..cpus)
            .map(open)
            .collect::<Result<_, Errno>>()
            .map(Sampler)
            .context("perf_event_open")
    }

    /// Stops, and returns the functions with their share of all samples, most frequent first.
    pub fn stop(self, symbols: &Symbols) -> Vec<(String, f64)> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        let mut total = 0u32;
        for (fd, base) in self.0 {
            drop(fd);
            // SAFETY: the mapping is PAGES + 1 pages long and lives as long as this process.
            let (head, data) = unsafe {
                let head = &*base.add(DATA_HEAD).cast::<AtomicU64>();
                let head = (head.load(Acquire) as usize).min(PAGES * PAGE);
                (head, std::slice::from_raw_parts(base.add(PAGE), head))
            };
            let mut at = 0;
            while let Some(record) = data.get(at..head) {
                // struct perf_event_header: type, misc, size. Type 9 is PERF_RECORD_SAMPLE, with
                // only the IP here.
                let Some(header) = record.first_chunk::<8>() else {
                    break;
                };
                let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
                let size = usize::from(u16::from_ne_bytes([header[6], header[7]]));
                if let (9, Some(ip)) = (kind, record.get(8..).and_then(|r| r.first_chunk::<8>())) {
                    *counts
                        .entry(symbols.name(u64::from_ne_bytes(*ip)))
                        .or_default() += 1;
                    total += 1;
                }
                at += size.max(8);
            }
        }
        let part = |n: u32| f64::from(n) / f64::from(total.max(1));
        let mut list: Vec<(String, f64)> = counts
            .into_iter()
            .map(|(name, n)| (name.to_owned(), part(n)))
            .collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
        list
    }
}

/// Opens and maps the event of one CPU; it starts counting at once.
fn open(cpu: usize) -> Result<(OwnedFd, *mut u8), Errno> {
    const SOFTWARE: u64 = 1;
    const CPU_CLOCK: u64 = 0;
    const SAMPLE_IP: u64 = 1;
    const SIZE: u64 = 64; // PERF_ATTR_SIZE_VER0
    let attr: [u64; 8] = [
        SOFTWARE | (SIZE << 32),
        CPU_CLOCK,
        PERIOD,
        SAMPLE_IP,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: the attribute block has the size it states.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, cpu, -1, 0) };
    // SAFETY: a new descriptor that nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(Errno::result(fd)? as i32) };
    let length = NonZeroUsize::new((PAGES + 1) * PAGE).ok_or(Errno::EINVAL)?;
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping; nothing else refers to it.
    let base = unsafe { mmap(None, length, rights, MapFlags::MAP_SHARED, &fd, 0)? };
    Ok((fd, base.as_ptr().cast()))
}

// SPDX-License-Identifier: GPL-2.0-only
//! Searches physical memory for secrets, through `/proc/kcore`.
//!
//! Pages of the searching process are excluded (it knows the secrets), through
//! `/proc/self/pagemap`: call [`keep_pages`] before the process learns its first secret, and keep
//! secrets out of other processes.

use anyhow::{ensure, Context, Result};
use nix::sys::mman::{mlockall, MlockAllFlags};
use std::collections::{BTreeMap, HashSet};
use std::fs::{read_to_string, write, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;

/// A segment of physical memory in `/proc/kcore`.
struct Segment {
    /// Offset in the file, in bytes.
    offset: u64,
    /// Physical address.
    address: u64,
    len: u64,
}

/// From now on this process keeps the memory that it frees, and its pages do not move, so that they
/// can be told apart from kernel memory: frames whose content was migrated, by compaction or into a
/// huge page, are not cleared.
pub fn keep_pages() -> Result<()> {
    // SAFETY: sets two parameters of the allocator.
    let done = unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX)
            & libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 25)
    };
    ensure!(done == 1, "mallopt");
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT); // which nix does not name
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
        .context("mlockall")?;
    // For the whole guest, permanently. Kernels without these features lack the files.
    for (file, value) in [
        ("/proc/sys/vm/compact_unevictable_allowed", "0"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
    ] {
        if Path::new(file).exists() {
            write(file, value).with_context(|| format!("{value} to {file}"))?;
        }
    }
    Ok(())
}

/// Clears this thread's vector registers and makes the kernel save them: it keeps a copy of their
/// last content, which may come from this program's own cipher or search.
fn forget_registers() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") {
        #[target_feature(enable = "avx")]
        unsafe fn clear() {
            // SAFETY: the processor has AVX; the compiler knows that the registers change.
            unsafe { std::arch::x86_64::_mm256_zeroall() }
        }
        // SAFETY: just asked for.
        unsafe { clear() }
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
}

/// The 8 bytes at `at` as a number.
fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The segments of an ELF core header that are plain memory.
fn segments(header: &[u8]) -> Option<Vec<Segment>> {
    const PT_LOAD: u64 = 1;
    const KERNEL_IMAGE: u64 = 0xffff_ffff_8000_0000;
    let start = usize::try_from(long(header, 0x20)?).ok()?;
    let count = long(header, 0x38)? as u16;
    let mut list = Vec::new();
    for n in 0..usize::from(count) {
        let at = start + n * 56;
        let kind = long(header, at)? & 0xffff_ffff;
        let [offset, vaddr, address, len] = [
            long(header, at + 8)?,
            long(header, at + 16)?,
            long(header, at + 24)?,
            long(header, at + 32)?,
        ];
        // Other areas have no physical address; the kernel image appears twice.
        if kind == PT_LOAD && address != u64::MAX && vaddr < KERNEL_IMAGE {
            list.push(Segment {
                offset,
                address,
                len,
            });
        }
    }
    Some(list)
}

/// The numbers of the page frames that are mapped by this process.
fn own_frames() -> Result<HashSet<u64>> {
    let map = File::open("/proc/self/pagemap").context("pagemap")?;
    let mut frames = HashSet::new();
    for line in read_to_string("/proc/self/maps")?.lines() {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let Some((from, to)) = range else { continue };
        let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap_or(0) / PAGE as u64);
        if from >= 1 << 36 {
            continue; // vsyscall
        }
        let mut entries = vec![0; (to - from) as usize * 8];
        map.read_exact_at(&mut entries, from * 8)
            .with_context(|| format!("pagemap of {line}"))?;
        for entry in entries.chunks_exact(8) {
            let entry = long(entry, 0).unwrap_or(0);
            if entry >> 63 == 1 {
                frames.insert(entry & ((1 << 55) - 1));
            }
        }
    }
    ensure!(!frames.contains(&0), "pagemap does not tell frame numbers");
    Ok(frames)
}

/// Reads the header with no secret in a register: the kernel copies this thread's state into it and
/// frees the buffer uncleared.
fn open() -> Result<(File, Vec<Segment>)> {
    forget_registers();
    let mut core = File::open("/proc/kcore").context("kcore")?;
    let mut header = vec![0; 1 << 16];
    let n = core.read(&mut header)?;
    let segments = segments(&header[..n]).context("kcore's header")?;
    ensure!(!segments.is_empty(), "kcore shows no memory");
    Ok((core, segments))
}

/// The bytes around `address`, one that [`find`] returned: `reach` bytes to either side, fewer at
/// the edges of a segment.
pub fn around(address: u64, reach: usize) -> Result<Vec<u8>> {
    let (core, segments) = open()?;
    let has = |s: &&Segment| (s.address..s.address + s.len).contains(&address);
    let segment = segments.iter().find(has).context("not in memory")?;
    let at = address - segment.address;
    let from = at.saturating_sub(reach as u64);
    let wanted = segment.len.min(at + reach as u64) - from;
    // Reads far beyond: the kernel's buffer keeps the last page that it copied.
    let len = segment.len.min(from + CHUNK as u64) - from;
    let mut bytes = vec![1; usize::try_from(len)?];
    let read = core.read_exact_at(&mut bytes, segment.offset + from);
    read.with_context(|| format!("kcore at {address:x}"))?;
    bytes.truncate(usize::try_from(wanted)?);
    Ok(bytes)
}

/// The physical addresses of the secrets outside this process, by name. Each half of a 32-byte
/// secret is searched for separately, at every multiple of 4.
pub fn find(secrets: &[(String, [u8; 32])]) -> Result<BTreeMap<String, Vec<u64>>> {
    let (core, segments) = open()?;
    let mut halves: Vec<(&str, &[u8])> = Vec::new();
    for (name, secret) in secrets {
        secret.chunks(16).for_each(|half| halves.push((name, half)));
    }
    // The first words that call for a full comparison.
    let mut first = vec![false; 1 << 16];
    for (_, half) in &halves {
        first[usize::from(u16::from_le_bytes([half[0], half[1]]))] = true;
    }
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut chunk = vec![1u8; CHUNK];
    let own = own_frames()?;
    for segment in &segments {
        let mut done = 0;
        while done < segment.len {
            let len = CHUNK.min(usize::try_from(segment.len - done)?);
            let chunk = &mut chunk[..len];
            core.read_exact_at(chunk, segment.offset + done)
                .with_context(|| format!("kcore at {:x}", segment.address + done))?;
            for at in (0..len).step_by(PAGE) {
                let address = segment.address + done + at as u64;
                if own.contains(&(address / PAGE as u64)) || is_zero(&chunk[at..len.min(at + PAGE)])
                {
                    continue;
                }
                for place in candidates(chunk, at, &first) {
                    for (name, half) in &halves {
                        if chunk[place..].starts_with(half) {
                            let address = address + (place - at) as u64;
                            found.entry((*name).to_owned()).or_default().push(address);
                        }
                    }
                }
            }
            done += len as u64;
        }
    }
    Ok(found)
}

/// The use of the page frame at `address`: its flags in `/proc/kpageflags`.
fn flags(address: u64) -> Result<u64> {
    let mut entry = [0; 8];
    let file = File::open("/proc/kpageflags").context("kpageflags")?;
    file.read_exact_at(&mut entry, address / PAGE as u64 * 8)?;
    Ok(u64::from_le_bytes(entry))
}

/// A description of `address`, to find out why a secret is there.
pub fn describe(address: u64) -> String {
    const NEAR: usize = 256;
    let flags = flags(address).map_or_else(|e| e.to_string(), |flags| format!("{flags:#x}"));
    let near = around(address, NEAR).map_or_else(
        |e| format!("{e:#}"),
        |near| {
            let lines = near.chunks(32).map(|l| format!("{l:02x?}"));
            lines.collect::<Vec<_>>().join("\n")
        },
    );
    format!("{address:x}, page flags {flags}; from {NEAR} bytes before it:\n{near}")
}

fn is_zero(page: &[u8]) -> bool {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    page == &ZEROS[..page.len()]
}

/// The offsets in the page at `at` of `chunk` whose first two bytes are marked in `first`.
fn candidates(chunk: &[u8], at: usize, first: &[bool]) -> Vec<usize> {
    let page = &chunk[at..chunk.len().min(at + PAGE)];
    let mut places = Vec::new();
    for (n, word) in page.chunks_exact(4).enumerate() {
        if first[usize::from(u16::from_le_bytes([word[0], word[1]]))] {
            places.push(at + n * 4);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_headers() {
        let mut header = vec![0; 64 + 3 * 56];
        header[0x20] = 64;
        header[0x38] = 3;
        let parts = [
            (1u64, 0x1000u64, 0xffff_8880_0000_0000u64, 0u64, 4096u64),
            (1, 0x3000, 0xffff_c900_0000_0000, u64::MAX, 4096),
            (1, 0x4000, 0xffff_ffff_8100_0000, 0x100_0000, 4096),
        ];
        for (n, part) in parts.iter().enumerate() {
            for (m, value) in [part.0, part.1, part.2, part.3, part.4]
                .into_iter()
                .enumerate()
            {
                let at = 64 + n * 56 + m * 8;
                header[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        let list = segments(&header).unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(
            (list[0].offset, list[0].address, list[0].len),
            (0x1000, 0, 4096)
        );
        assert!(segments(&header[..80]).is_none());
    }

    #[test]
    fn words_are_found_at_multiples_of_four() {
        let mut chunk = vec![0u8; 2 * PAGE];
        chunk[PAGE + 8] = 7;
        chunk[PAGE + 13] = 7;
        let mut first = vec![false; 1 << 16];
        first[7] = true;
        assert_eq!(candidates(&chunk, PAGE, &first), [PAGE + 8]);
        assert!(candidates(&chunk, 0, &first).is_empty());
        assert!(is_zero(&chunk[..PAGE]) && !is_zero(&chunk[PAGE..]));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! What the machine does to the drivers on it.

use super::place::Place;
use anyhow::{Context, Result};
use harness::suspend::rehearse;
use nix::sys::mman::{mmap_anonymous, munmap, MapFlags, ProtFlags};
use rand::rngs::StdRng;
use rand::Rng;
use std::ffi::c_void;
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::thread::sleep;
use std::time::{Duration, Instant};

const CPU1: &str = "/sys/devices/system/cpu/cpu1/online";
/// How long the machine may begin to suspend.
const PATIENCE: Duration = Duration::from_secs(20);

/// Brings CPU 1 back.
struct BackOnline;

impl Drop for BackOnline {
    fn drop(&mut self) {
        let _ = set_online(true);
    }
}

/// Takes CPU 1 off line or back.
fn set_online(on: bool) -> Result<()> {
    let state = if on { "1" } else { "0" };
    let begin = Instant::now();
    loop {
        match fs::write(CPU1, state) {
            // Refused while the machine begins to suspend.
            Err(e) if e.kind() == ErrorKind::ResourceBusy && begin.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(5));
            }
            other => return other.with_context(|| format!("{state} to {CPU1}")),
        }
    }
}

/// Takes CPU 1 off line and back.
pub fn hotplug(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let _back = BackOnline;
    let mut done = 0;
    while place.busy() {
        for on in [false, true] {
            set_online(on)?;
            sleep(Duration::from_millis(rng.random_range(0..100)));
        }
        done += 1;
    }
    Ok(done)
}

/// How much memory is left to everyone else.
const LEFT: u64 = 64 << 20;
const CHUNK: usize = 8 << 20;

/// Touched memory, given back on drop.
struct Hog(Vec<NonNull<c_void>>);

impl Hog {
    /// Takes another [`CHUNK`]; false if there is none.
    fn grow(&mut self) -> bool {
        let size = NonZeroUsize::new(CHUNK).expect("not zero");
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping, anywhere.
        let map = unsafe { mmap_anonymous(None, size, ProtFlags::PROT_WRITE, flags) };
        map.map(|at| self.0.push(at)).is_ok()
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        for at in &self.0 {
            // SAFETY: mapped by `grow`, and nobody points there.
            let _ = unsafe { munmap(*at, CHUNK) };
        }
    }
}

/// Bytes that can be had without swapping.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"));
    let value = line.and_then(|l| l.split_whitespace().nth(1));
    let kib: u64 = value.context("no MemAvailable")?.parse()?;
    Ok(kib << 10)
}

/// Takes nearly all memory, keeps it for a moment, and lets go; counts the chunks.
pub fn pressure(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let mut taken = 0;
    while place.busy() {
        let mut hog = Hog(Vec::new());
        while place.busy() && available()? > LEFT && hog.grow() {
            taken += 1;
        }
        sleep(Duration::from_millis(rng.random_range(50..300)));
        drop(hog);
        sleep(Duration::from_millis(rng.random_range(0..50)));
    }
    Ok(taken)
}

/// Starts to suspend the machine, and resumes when all processes are frozen.
pub fn suspend(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let mut done = 0;
    while place.busy() {
        match rehearse("freeze") {
            Ok(()) => done += 1,
            // A process could not be frozen in time.
            Err(e) if busy(&e) => {}
            Err(e) => return Err(e),
        }
        sleep(Duration::from_millis(rng.random_range(50..500)));
    }
    Ok(done)
}

fn busy(e: &anyhow::Error) -> bool {
    let kind = e.root_cause().downcast_ref::<std::io::Error>();
    kind.is_some_and(|e| e.kind() == ErrorKind::ResourceBusy)
}

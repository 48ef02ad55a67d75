// SPDX-License-Identifier: GPL-2.0-only
//! The wall clock, for what depends on it.

use anyhow::{Context, Result};
use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, clock_settime, ClockId};

/// Moves the wall clock, and restores it when dropped.
pub struct Clock {
    /// Wall-clock time at boot, seconds.
    offset: i64,
}

impl Clock {
    /// The clock as it is now.
    pub fn new() -> Result<Self> {
        let now = clock_gettime(ClockId::CLOCK_REALTIME)?.tv_sec();
        let up = clock_gettime(ClockId::CLOCK_MONOTONIC)?.tv_sec();
        Ok(Clock { offset: now - up })
    }

    /// Sets it so far ahead of what it would be without this.
    pub fn ahead(&self, secs: i64) -> Result<()> {
        let up = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let time = TimeSpec::new(up.tv_sec() + self.offset + secs, up.tv_nsec());
        clock_settime(ClockId::CLOCK_REALTIME, time).context("set the clock")
    }

    /// Sets it to a time, in seconds since 1970.
    pub fn to(&self, secs: i64) -> Result<()> {
        self.ahead(0)?;
        let real = clock_gettime(ClockId::CLOCK_REALTIME)?.tv_sec();
        self.ahead(secs - real)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = self.ahead(0);
    }
}

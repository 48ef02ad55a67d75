// SPDX-License-Identifier: GPL-2.0
//! How patient a test is, and how much it sends: the sanitizer kernel is many times slower.
//!
//! `WGRS_SLOW=N` multiplies the upper bounds of time, `WGRS_LESS=N` divides the amounts of
//! traffic. Both are 1 when not set, which is how the tests are meant to run on a stock kernel.

use anyhow::{Context, Result};
use nix::errno::Errno;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

/// Long enough for a device to be done with what it has sent already: the in-tree driver begins to
/// expect an answer only then. With [`slow`] where time is real.
pub const SENT: Duration = Duration::from_millis(5);

fn factor(cell: &'static OnceLock<u32>, name: &str) -> u32 {
    *cell.get_or_init(|| {
        let text = std::env::var(name).ok();
        text.and_then(|n| n.parse().ok()).unwrap_or(1).max(1)
    })
}

/// The factor for upper bounds of time.
fn slowness() -> u32 {
    static SLOW: OnceLock<u32> = OnceLock::new();
    factor(&SLOW, "WGRS_SLOW")
}

/// True on a kernel that is many times slower.
pub fn is_slow() -> bool {
    slowness() > 1
}

/// An upper bound of time that holds on this kernel too. Not for times that the protocol sets,
/// nor for waits that prove that nothing comes.
pub fn slow(limit: Duration) -> Duration {
    limit.saturating_mul(slowness())
}

/// An amount of traffic, of which `least` suffices for what the test is about.
pub fn amount(much: u64, least: u64) -> u64 {
    static LESS: OnceLock<u32> = OnceLock::new();
    let less = u64::from(factor(&LESS, "WGRS_LESS"));
    (much / less).max(least).min(much)
}

/// How many rounds a repeating test makes: `WGRS_ROUNDS`, or else `usual`.
pub fn rounds(usual: u32) -> u32 {
    let wanted = std::env::var("WGRS_ROUNDS").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// How many of an operation's many allocations are tried to fail: each of the first hundred, then
/// every `WGRS_STRIDE`-th only.
pub fn next_allocation(n: u32) -> u32 {
    static STRIDE: OnceLock<u32> = OnceLock::new();
    if n < 100 {
        n + 1
    } else {
        n + factor(&STRIDE, "WGRS_STRIDE")
    }
}

/// From now on a thread that runs goes on until it sleeps, or for 100 ms; only real-time threads
/// and softirqs come between. For the one processor of a slow kernel in virtual time: where a
/// worker of the in-tree driver waits for the processor between sending a message and arming the
/// timer of its answer, the answer may be there before, and the timer then expires in vain.
pub fn no_preemption() -> Result<()> {
    for (file, value) in [
        ("features", "NO_WAKEUP_PREEMPTION"),
        ("base_slice_ns", "100000000"),
    ] {
        let file = format!("/sys/kernel/debug/sched/{file}");
        fs::write(&file, value).with_context(|| format!("{value} to {file}"))?;
    }
    Ok(())
}

/// Runs `f` at a real-time priority: on the one processor of this boot no kernel thread with an
/// ordinary priority, as the workers of work queues are, runs before it is done or sleeps. What
/// it sends is delivered in its own time nevertheless (softirqs).
pub fn alone<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // Or they would have 50 ms of each second.
    let server = "/sys/kernel/debug/sched/fair_server/cpu0/runtime";
    fs::write(server, "0").context(server)?;
    set_policy(libc::SCHED_FIFO, 10).context("SCHED_FIFO")?;
    let result = f();
    set_policy(libc::SCHED_OTHER, 0).context("SCHED_OTHER")?;
    result
}

fn set_policy(policy: i32, priority: i32) -> Result<(), Errno> {
    // SAFETY: A zeroed parameter is a valid one, and the kernel only reads it.
    let done = unsafe {
        let mut param: libc::sched_param = std::mem::zeroed();
        param.sched_priority = priority;
        libc::sched_setscheduler(0, policy, &raw const param)
    };
    Errno::result(done).map(drop)
}

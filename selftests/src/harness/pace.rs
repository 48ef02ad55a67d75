// SPDX-License-Identifier: GPL-2.0-only
//! Scaling of time limits and traffic for the sanitizer kernel, which is many times slower.
//!
//! `WGRS_SLOW=N` multiplies upper bounds of time, `WGRS_LESS=N` divides amounts of traffic. Both
//! default to 1, for the stock kernel.

use anyhow::{Context, Result};
use nix::errno::Errno;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

/// Long enough for a device to finish sending: the in-tree driver arms the timer for the answer
/// only then. Use with [`slow`] in real time.
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

/// True on a slow kernel (`WGRS_SLOW` above 1).
pub fn is_slow() -> bool {
    slowness() > 1
}

/// `limit` scaled by `WGRS_SLOW`. For upper bounds only: not for times that the protocol sets, nor
/// for waits that prove that nothing arrives.
pub fn slow(limit: Duration) -> Duration {
    limit.saturating_mul(slowness())
}

/// An amount of traffic divided by `WGRS_LESS`, but at least `least`, the minimum for the test's
/// purpose.
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

/// Which of an operation's allocations to fail: each of the first hundred, then every
/// `WGRS_STRIDE`-th.
pub fn next_allocation(n: u32) -> u32 {
    static STRIDE: OnceLock<u32> = OnceLock::new();
    if n < 100 {
        n + 1
    } else {
        n + factor(&STRIDE, "WGRS_STRIDE")
    }
}

/// From now on a running thread is preempted only after 100 ms, or by real-time threads and
/// softirqs. For the single CPU of a slow kernel in virtual time: if a worker of the in-tree driver
/// were preempted between sending a message and arming the timer for the answer, the answer could
/// arrive first, and the timer would expire without cause.
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

/// Runs `f` at a real-time priority: on the single CPU of a virtual-time boot no ordinary thread,
/// workqueue workers included, runs until it returns or sleeps. Softirqs still run, so what it
/// sends is delivered.
pub fn alone<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // Without this, ordinary threads get 50 ms of each second.
    let server = "/sys/kernel/debug/sched/fair_server/cpu0/runtime";
    fs::write(server, "0").context(server)?;
    set_policy(libc::SCHED_FIFO, 10).context("SCHED_FIFO")?;
    let result = f();
    set_policy(libc::SCHED_OTHER, 0).context("SCHED_OTHER")?;
    result
}

/// Gives the calling thread a real-time priority for the rest of its life, to measure latencies by.
pub fn realtime() -> Result<()> {
    set_policy(libc::SCHED_FIFO, 10).context("SCHED_FIFO")
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

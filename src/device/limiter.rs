// SPDX-License-Identifier: GPL-2.0-only

//! The limiter of handshake messages, for all devices, and what makes it forget.

use core::net::IpAddr;

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::SHARED,
    kapi::{
        mm,
        sync::{
            atomic::{AtomicBool, Ordering::SeqCst},
            rcu::RcuArc,
        },
        time,
        timer::{self, HasTimers, Timer, TimerCallback},
        workqueue::{impl_has_work, new_work, Work, WorkItem},
    },
    new_timer,
    tables::ratelimiter::{Ratelimiter, FORGOTTEN_AFTER_MS},
};

/// A [`Ratelimiter`] that is empty again soon after the last message.
#[pin_data]
pub(crate) struct Limiter {
    sources: Ratelimiter,
    /// The timer is armed, or has expired and its work is to come.
    armed: AtomicBool,
    #[pin]
    timer: Timer<Self>,
    #[pin]
    work: Work<Self>,
}

impl Limiter {
    /// A limiter for a machine with as much memory as this one. Process context.
    pub(crate) fn new() -> Result<RcuArc<Self>> {
        let max_sources = Ratelimiter::max_sources_for_memory(mm::total_bytes());
        let sources = Ratelimiter::new(max_sources, GFP_KERNEL)?;
        RcuArc::pin_init(
            pin_init!(Self {
                sources,
                armed: AtomicBool::new(false),
                timer <- new_timer!(),
                work <- new_work!(),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether a message from `addr` in `netns` may be handled at `now`. Process context.
    pub(crate) fn allow(this: &RcuArc<Self>, netns: u64, addr: IpAddr, now_ns: u64) -> bool {
        let allowed = this.sources.allow(netns, addr, now_ns, GFP_KERNEL);
        Self::arm(this);
        allowed
    }

    /// Has the sources forgotten after a while; one timer for all messages until then.
    fn arm(this: &RcuArc<Self>) {
        if !this.armed.load(SeqCst) && !this.armed.swap(true, SeqCst) {
            timer::arm(this, 0, FORGOTTEN_AFTER_MS);
        }
    }

    /// Stops it. No device may be left. Sleeps.
    pub(crate) fn stop(this: &RcuArc<Self>) {
        timer::cancel_all_sync(this);
    }
}

impl HasTimers for Limiter {
    #[inline(always)]
    fn timers(&self) -> &[Timer<Self>] {
        core::slice::from_ref(&self.timer)
    }
}

impl_has_work! {
    impl HasWork<Self> for Limiter { self.work }
}

impl TimerCallback for Limiter {
    fn expired(this: RcuArc<Self>, _index: usize) {
        // There may be many to forget: not in softirq context.
        if let Some(shared) = SHARED.get() {
            shared.0.queues.handshake_tx.enqueue::<_, 0>(this);
        }
    }
}

impl WorkItem for Limiter {
    type Pointer = RcuArc<Self>;

    fn run(this: RcuArc<Self>) {
        // Before it looks: whoever adds a source after that arms the timer again.
        this.armed.store(false, SeqCst);
        let is_left = this.sources.forget(time::boottime_coarse_ns());
        // At the end of the module nobody cancels the timer any more.
        if is_left && SHARED.get().is_some() {
            Self::arm(&this);
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The limiter of handshake messages, for all devices, and what makes it forget.

use core::net::IpAddr;

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::SHARED,
    impl_has_timer, impl_has_work,
    kapi::{
        mm,
        sync::rcu::RcuArc,
        time,
        timer::{self, Timer, TimerCallback},
        workqueue::{Work, WorkItem},
    },
    new_timer, new_work,
    tables::ratelimiter::{Ratelimiter, FORGOTTEN_AFTER_MS},
};

/// A [`Ratelimiter`] that is empty again soon after the last message.
#[pin_data]
pub(crate) struct Limiter {
    sources: Ratelimiter,
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
            pin_init!(Self { sources, timer <- new_timer!(), work <- new_work!() }),
            GFP_KERNEL,
        )
    }

    /// Whether a message from `addr` in `netns` may be handled at `now`. Process context.
    pub(crate) fn allow(this: &RcuArc<Self>, netns: u64, addr: IpAddr, now_ns: u64) -> bool {
        let allowed = this.sources.allow(netns, addr, now_ns, GFP_KERNEL);
        timer::arm(this, FORGOTTEN_AFTER_MS);
        allowed
    }

    /// Stops it. No device may be left. Sleeps.
    pub(crate) fn stop(this: &RcuArc<Self>) {
        timer::cancel_sync(this);
    }
}

impl_has_timer! {
    impl HasTimer<Self> for Limiter { self.timer }
}

impl_has_work! {
    impl HasWork<Self> for Limiter { self.work }
}

impl TimerCallback for Limiter {
    fn expired(this: RcuArc<Self>) {
        // There may be many to forget: not here, in an interrupt's wake.
        if let Some(shared) = SHARED.get() {
            shared.0.queues.handshake_tx.queue::<Self, 0>(&this);
        }
    }
}

impl WorkItem for Limiter {
    fn run(this: RcuArc<Self>) {
        this.sources.forget(time::boottime_coarse_ns());
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The driver's side of [`crate::proto::timers`]: reports events, arms timers, does as told.

use kernel::prelude::*;

use crate::{
    device::{peer::Peer, send},
    impl_has_timer,
    kapi::{
        debug::{self, PeerEvent},
        random,
        sync::rcu::RcuArc,
        time,
        timer::{self, TimerCallback},
    },
    proto::{
        consts::{
            MAX_INITIATIONS, NEW_HANDSHAKE_TIMEOUT_MS, REKEY_TIMEOUT_MS, ZERO_KEY_MATERIAL_MS,
        },
        timers::{Actions, Event, Timer},
    },
};

/// The kernel timers of a peer, numbered as [`Timer::index`].
#[pin_data]
pub(crate) struct PeerTimers {
    #[pin]
    retransmit_handshake: timer::Timer<Peer, 0>,
    #[pin]
    send_keepalive: timer::Timer<Peer, 1>,
    #[pin]
    new_handshake: timer::Timer<Peer, 2>,
    #[pin]
    zero_key_material: timer::Timer<Peer, 3>,
    #[pin]
    persistent_keepalive: timer::Timer<Peer, 4>,
}

impl PeerTimers {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            retransmit_handshake <- crate::new_timer!(),
            send_keepalive <- crate::new_timer!(),
            new_handshake <- crate::new_timer!(),
            zero_key_material <- crate::new_timer!(),
            persistent_keepalive <- crate::new_timer!(),
        })
    }
}

impl_has_timer! {
    impl HasTimer<Self, 0> for Peer { self.timers.retransmit_handshake }
    impl HasTimer<Self, 1> for Peer { self.timers.send_keepalive }
    impl HasTimer<Self, 2> for Peer { self.timers.new_handshake }
    impl HasTimer<Self, 3> for Peer { self.timers.zero_key_material }
    impl HasTimer<Self, 4> for Peer { self.timers.persistent_keepalive }
}

impl TimerCallback<0> for Peer {
    fn expired(this: RcuArc<Self>) {
        Peer::expired(&this, Timer::RetransmitHandshake);
    }
}

impl TimerCallback<1> for Peer {
    fn expired(this: RcuArc<Self>) {
        Peer::expired(&this, Timer::SendKeepalive);
    }
}

impl TimerCallback<2> for Peer {
    fn expired(this: RcuArc<Self>) {
        Peer::expired(&this, Timer::NewHandshake);
    }
}

impl TimerCallback<3> for Peer {
    fn expired(this: RcuArc<Self>) {
        Peer::expired(&this, Timer::ZeroKeyMaterial);
    }
}

impl TimerCallback<4> for Peer {
    fn expired(this: RcuArc<Self>) {
        Peer::expired(&this, Timer::PersistentKeepalive);
    }
}

impl Peer {
    /// Reports an event to the timers and does what comes of it. Any context but hard interrupts.
    pub(crate) fn on(this: &RcuArc<Self>, event: Event) {
        let actions = this
            .timer_state
            .on(event, time::boottime_coarse_ns(), random::u32_below);
        if !actions.is_empty() {
            Self::perform(this, actions);
        }
    }

    fn expired(this: &RcuArc<Self>, timer: Timer) {
        if !this.may_run() {
            return;
        }
        let actions = this.timer_state.on(
            Event::Expired(timer),
            time::boottime_coarse_ns(),
            random::u32_below,
        );
        let event = match timer {
            Timer::RetransmitHandshake if actions.purge_staged() => {
                Some(PeerEvent::GiveUpHandshake {
                    attempts: MAX_INITIATIONS,
                })
            }
            Timer::RetransmitHandshake if actions.send_initiation() => {
                Some(PeerEvent::RetryHandshake {
                    after_ms: REKEY_TIMEOUT_MS,
                    attempt: this.timer_state.attempts().saturating_add(1),
                })
            }
            Timer::NewHandshake if actions.send_initiation() => Some(PeerEvent::NoResponseRetry {
                after_ms: NEW_HANDSHAKE_TIMEOUT_MS,
            }),
            Timer::ZeroKeyMaterial if actions.zero_keys() => Some(PeerEvent::ZeroKeys {
                after_ms: ZERO_KEY_MATERIAL_MS,
            }),
            _ => None,
        };
        if let Some(event) = event {
            debug::peer(this.netdev(), event, this.id(), Some(&this.endpoint()));
        }
        Self::perform(this, actions);
    }

    fn perform(this: &RcuArc<Self>, actions: Actions) {
        for (timer, ms) in actions.arm() {
            Self::arm(this, timer, ms);
        }
        if actions.clear_source() {
            this.clear_source();
        }
        if actions.purge_staged() {
            this.purge_staged();
        }
        if actions.zero_keys() {
            // Takes the handshake mutex, which a timer must not.
            this.device()
                .shared()
                .queues
                .handshake_tx
                .queue::<Peer, 1>(this);
        }
        if actions.send_initiation() {
            Self::queue_initiation(this);
        }
        if actions.send_keepalive() {
            Self::send_keepalive(this);
        }
    }

    /// Arms a timer, unless the peer is going away. Whoever marks it dead cancels the timers
    /// afterwards; if that happens between our look and our arming, we see it the second time.
    fn arm(this: &RcuArc<Self>, timer: Timer, ms: u32) {
        if !this.may_run() {
            return;
        }
        match timer {
            Timer::RetransmitHandshake => timer::arm::<Peer, 0>(this, ms),
            Timer::SendKeepalive => timer::arm::<Peer, 1>(this, ms),
            Timer::NewHandshake => timer::arm::<Peer, 2>(this, ms),
            Timer::ZeroKeyMaterial => timer::arm::<Peer, 3>(this, ms),
            Timer::PersistentKeepalive => timer::arm::<Peer, 4>(this, ms),
        }
        if !this.may_run() {
            Self::cancel_timers(this);
        }
    }

    fn cancel_timers(this: &RcuArc<Self>) {
        timer::cancel::<Peer, 0>(this);
        timer::cancel::<Peer, 1>(this);
        timer::cancel::<Peer, 2>(this);
        timer::cancel::<Peer, 3>(this);
        timer::cancel::<Peer, 4>(this);
    }

    /// Stops all timers; one that is firing right now may still be at it, and finds that the
    /// peer may not run. Process context.
    pub(crate) fn stop_timers(this: &RcuArc<Self>) {
        Self::on(this, Event::Down);
        Self::cancel_timers(this);
    }

    /// The device came up: sends what is staged, or a keepalive if there shall be any.
    pub(crate) fn resume(this: &RcuArc<Self>) {
        Self::on(this, Event::Up);
        send::send_staged(this);
    }
}

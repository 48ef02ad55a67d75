// SPDX-License-Identifier: GPL-2.0-only

//! The driver's side of [`crate::proto::timers`]: what a peer's timers do when they expire.

use crate::{
    device::{
        counters::Happening,
        events,
        peer::{Peer, SILENCE_TIMER},
        send,
    },
    kapi::{
        debug::{self, PeerEvent},
        sync::rcu::RcuArc,
        time,
        timer::TimerCallback,
    },
    proto::{
        consts::{
            MAX_INITIATIONS, NEW_HANDSHAKE_TIMEOUT_MS, REKEY_TIMEOUT_MS, ZERO_KEY_MATERIAL_MS,
        },
        timers::{Actions, Timer},
    },
};

impl TimerCallback for Peer {
    fn expired(this: RcuArc<Self>, index: usize) {
        if index == SILENCE_TIMER {
            look_for_silence(&this);
        }
        if let Some(timer) = Timer::ALL.get(index) {
            expired(&this, *timer);
        }
    }
}

/// Tells of a peer that has become silent, and looks again later.
fn look_for_silence(peer: &RcuArc<Peer>) {
    if peer.look_for_silence() {
        let (endpoint, limit_s) = (peer.endpoint(), peer.silence.limit_s());
        events::peer_silent(peer.device(), peer.public_key(), &endpoint, limit_s);
    }
    Peer::arm_silence(peer);
}

fn expired(peer: &RcuArc<Peer>, timer: Timer) {
    if !peer.may_run() {
        return;
    }
    let actions = peer.timer_state.expired(timer, time::boottime_coarse_ns());
    let event = match timer {
        Timer::RetransmitHandshake if actions.purge_staged() => Some(PeerEvent::GiveUpHandshake {
            attempts: MAX_INITIATIONS,
        }),
        Timer::RetransmitHandshake if actions.send_initiation() => {
            Some(PeerEvent::RetryHandshake {
                after_ms: REKEY_TIMEOUT_MS,
                attempt: peer.timer_state.attempts().saturating_add(1),
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
        let endpoint = peer.endpoint();
        debug::peer(peer.netdev(), event, peer.id(), Some(endpoint.remote()));
        let (device, key) = (peer.device(), peer.public_key());
        match event {
            PeerEvent::RetryHandshake { .. } | PeerEvent::NoResponseRetry { .. } => {
                peer.counters.note(Happening::Retry);
            }
            PeerEvent::GiveUpHandshake { attempts } => {
                events::handshake_given_up(device, key, &endpoint, attempts);
            }
            PeerEvent::ZeroKeys { .. } => events::session_expired(device, key, &endpoint),
            _ => {}
        }
    }
    perform(peer, actions);
}

fn perform(peer: &RcuArc<Peer>, actions: Actions) {
    Peer::arm_timers(peer, actions.arm);
    if actions.clear_source() {
        peer.clear_source();
    }
    if actions.purge_staged() {
        peer.purge_staged();
    }
    if actions.zero_keys() {
        // Takes the handshake mutex, which a timer must not.
        Peer::queue_erase(peer);
    }
    if actions.send_initiation() {
        Peer::queue_initiation(peer);
    }
    if actions.send_keepalive() {
        send::send_keepalive(peer);
    }
}

/// The device came up: sends what is staged, or a keepalive if there are persistent ones.
pub(crate) fn resume(peer: &RcuArc<Peer>) {
    perform(peer, peer.timer_state.up());
    send::send_staged(peer);
    Peer::arm_silence(peer);
}

// SPDX-License-Identifier: GPL-2.0

//! Debug messages, as call sites of dynamic debug.
//!
//! The texts and the rate limits are in `src/helpers/dyndbg.c`. A message that is switched off
//! costs a call and a branch that is patched out. All functions may be called in any context.

use kernel::error::Error;

use crate::{
    bindings,
    kapi::net::{endpoint::Endpoint, netdevice::NetDevice, skbuff::Skb},
};

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevEvent {
    /// It is there.
    Created,
    /// It is gone.
    Destroyed,
    /// The namespace that its sockets are in ends.
    NetnsExit,
    /// Its IPv4 socket cannot be opened. An error: always said.
    NoSocketV4,
    /// The same of its IPv6 socket.
    NoSocketV6,
}

/// What happens with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// It is there.
    Created,
    /// It is gone.
    Destroyed,
    /// A session begins; for [`keypair`].
    KeypairCreated,
    /// A session ends; for [`keypair`].
    KeypairDestroyed,
    /// We send an initiation.
    SendInitiation,
    /// We send a response.
    SendResponse,
    /// We send a keepalive.
    SendKeepalive,
    /// An initiation was accepted.
    RecvInitiation,
    /// A response was accepted.
    RecvResponse,
    /// A keepalive was accepted.
    RecvKeepalive,
    /// There was no response; the initiation is repeated.
    RetryHandshake {
        /// How long it was waited for.
        after_ms: u32,
        /// The number of the initiation that follows, from 2.
        attempt: u32,
    },
    /// There was no response, and that is it.
    GiveUpHandshake {
        /// The number of initiations sent.
        attempts: u32,
    },
    /// The peer has fallen silent; a handshake is tried.
    NoResponseRetry {
        /// How long it has been silent.
        after_ms: u32,
    },
    /// The session has outlived itself, its keys are wiped.
    ZeroKeys {
        /// How old it is.
        after_ms: u32,
    },
    /// It is somewhere else now.
    Roamed,
    /// A packet cannot be sent as there is no endpoint.
    NoEndpoint,
    /// A decrypted packet is shorter than it says.
    InvalidSize,
    /// A decrypted packet is neither IPv4 nor IPv6.
    InvalidType,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkbEvent {
    /// To send: not an IP packet.
    InvalidIp,
    /// To send: no peer has its destination among its allowed IPs. The network header is there.
    NoPeer,
    /// Received: not a message.
    InvalidHeader,
    /// Received: a handshake message that is not looked at any further.
    DropHandshake {
        /// Why, in plain words.
        reason: &'static str,
    },
    /// Received: a handshake message without a valid MAC.
    InvalidMac,
    /// Received: a handshake message that is answered by a cookie reply.
    SendCookie,
    /// Received: a cookie reply.
    RecvCookie,
    /// Received: a cookie reply that is refused.
    InvalidCookie {
        /// Why, in plain words.
        reason: &'static str,
    },
    /// Received: an initiation that is refused.
    InvalidInitiation {
        /// Why, in plain words.
        reason: &'static str,
    },
    /// Received: a response that is refused.
    InvalidResponse {
        /// Why, in plain words.
        reason: &'static str,
    },
}

/// Says what happens to a device.
pub fn dev(dev: &NetDevice, event: DevEvent) {
    let event = match event {
        DevEvent::Created => bindings::wg_debug_dev_event_WG_DEBUG_DEV_CREATED,
        DevEvent::Destroyed => bindings::wg_debug_dev_event_WG_DEBUG_DEV_DESTROYED,
        DevEvent::NetnsExit => bindings::wg_debug_dev_event_WG_DEBUG_DEV_NETNS_EXIT,
        DevEvent::NoSocketV4 => bindings::wg_debug_dev_event_WG_DEBUG_DEV_NO_SOCKET4,
        DevEvent::NoSocketV6 => bindings::wg_debug_dev_event_WG_DEBUG_DEV_NO_SOCKET6,
    };
    // SAFETY: The device is valid for the call.
    unsafe { bindings::wg_debug_dev(event, dev.as_raw()) };
}

/// Says what happens with a peer; `endpoint` where the message names one.
pub fn peer(dev: &NetDevice, event: PeerEvent, peer: u64, endpoint: Option<&Endpoint>) {
    let (mut tries, mut ms) = (0, 0);
    let event = match event {
        PeerEvent::Created => bindings::wg_debug_peer_event_WG_DEBUG_PEER_CREATED,
        PeerEvent::Destroyed => bindings::wg_debug_peer_event_WG_DEBUG_PEER_DESTROYED,
        PeerEvent::KeypairCreated | PeerEvent::KeypairDestroyed => return,
        PeerEvent::SendInitiation => bindings::wg_debug_peer_event_WG_DEBUG_PEER_SEND_INITIATION,
        PeerEvent::SendResponse => bindings::wg_debug_peer_event_WG_DEBUG_PEER_SEND_RESPONSE,
        PeerEvent::SendKeepalive => bindings::wg_debug_peer_event_WG_DEBUG_PEER_SEND_KEEPALIVE,
        PeerEvent::RecvInitiation => bindings::wg_debug_peer_event_WG_DEBUG_PEER_RECV_INITIATION,
        PeerEvent::RecvResponse => bindings::wg_debug_peer_event_WG_DEBUG_PEER_RECV_RESPONSE,
        PeerEvent::RecvKeepalive => bindings::wg_debug_peer_event_WG_DEBUG_PEER_RECV_KEEPALIVE,
        PeerEvent::RetryHandshake { after_ms, attempt } => {
            (tries, ms) = (attempt, after_ms);
            bindings::wg_debug_peer_event_WG_DEBUG_PEER_RETRY_HANDSHAKE
        }
        PeerEvent::GiveUpHandshake { attempts } => {
            tries = attempts;
            bindings::wg_debug_peer_event_WG_DEBUG_PEER_GIVE_UP_HANDSHAKE
        }
        PeerEvent::NoResponseRetry { after_ms } => {
            ms = after_ms;
            bindings::wg_debug_peer_event_WG_DEBUG_PEER_NO_RESPONSE_RETRY
        }
        PeerEvent::ZeroKeys { after_ms } => {
            ms = after_ms;
            bindings::wg_debug_peer_event_WG_DEBUG_PEER_ZERO_KEYS
        }
        PeerEvent::NoEndpoint => bindings::wg_debug_peer_event_WG_DEBUG_PEER_NO_ENDPOINT,
        PeerEvent::Roamed => bindings::wg_debug_peer_event_WG_DEBUG_PEER_ROAMED,
        PeerEvent::InvalidSize => bindings::wg_debug_peer_event_WG_DEBUG_PEER_INVALID_SIZE,
        PeerEvent::InvalidType => bindings::wg_debug_peer_event_WG_DEBUG_PEER_INVALID_TYPE,
    };
    let endpoint = endpoint.map_or(&[][..], |endpoint| endpoint.sockaddr_bytes());
    // SAFETY: The device is valid for the call; the pointer and the length are those of a slice.
    unsafe {
        bindings::wg_debug_peer(
            event,
            dev.as_raw(),
            peer,
            tries,
            ms / 1000,
            endpoint.as_ptr().cast(),
            endpoint.len(),
        )
    };
}

/// Says that a keypair of a peer was created or destroyed; other events say nothing.
pub fn keypair(dev: &NetDevice, event: PeerEvent, keypair: u64, peer: u64) {
    let created = match event {
        PeerEvent::KeypairCreated => true,
        PeerEvent::KeypairDestroyed => false,
        _ => return,
    };
    // SAFETY: The device is valid for the call.
    unsafe { bindings::wg_debug_keypair(created, dev.as_raw(), keypair, peer) };
}

/// Says what happens to a packet.
pub fn skb(dev: &NetDevice, event: SkbEvent, skb: &Skb) {
    let mut reason = "";
    let event = match event {
        SkbEvent::InvalidIp => bindings::wg_debug_skb_event_WG_DEBUG_SKB_INVALID_IP,
        SkbEvent::NoPeer => bindings::wg_debug_skb_event_WG_DEBUG_SKB_NO_PEER,
        SkbEvent::InvalidHeader => bindings::wg_debug_skb_event_WG_DEBUG_SKB_INVALID_HEADER,
        SkbEvent::DropHandshake { reason: why } => {
            reason = why;
            bindings::wg_debug_skb_event_WG_DEBUG_SKB_DROP_HANDSHAKE
        }
        SkbEvent::InvalidMac => bindings::wg_debug_skb_event_WG_DEBUG_SKB_INVALID_MAC,
        SkbEvent::SendCookie => bindings::wg_debug_skb_event_WG_DEBUG_SKB_SEND_COOKIE,
        SkbEvent::RecvCookie => bindings::wg_debug_skb_event_WG_DEBUG_SKB_RECV_COOKIE,
        SkbEvent::InvalidCookie { reason: why } => {
            reason = why;
            bindings::wg_debug_skb_event_WG_DEBUG_SKB_INVALID_COOKIE
        }
        SkbEvent::InvalidInitiation { reason: why } => {
            reason = why;
            bindings::wg_debug_skb_event_WG_DEBUG_SKB_INVALID_INITIATION
        }
        SkbEvent::InvalidResponse { reason: why } => {
            reason = why;
            bindings::wg_debug_skb_event_WG_DEBUG_SKB_INVALID_RESPONSE
        }
    };
    // SAFETY: The device and the packet are valid for the call. Of the packet, the headers are read
    // that the event is documented to imply; a received message has IP and UDP headers. The last
    // pointer and length are those of a slice.
    unsafe {
        bindings::wg_debug_skb(
            event,
            dev.as_raw(),
            skb.as_raw(),
            reason.as_ptr().cast(),
            reason.len(),
        )
    };
}

/// Says that the source of a packet that came from `peer`, at `endpoint`, does not belong to it.
/// The packet's network header is that of the inner packet.
pub fn unallowed_src(dev: &NetDevice, skb: &Skb, peer: u64, endpoint: &Endpoint) {
    let endpoint = endpoint.sockaddr_bytes();
    // SAFETY: The device and the packet are valid for the call, and the packet has the header that
    // is read; the pointer and the length are those of a slice.
    unsafe {
        bindings::wg_debug_unallowed_src(
            dev.as_raw(),
            skb.as_raw(),
            peer,
            endpoint.as_ptr().cast(),
            endpoint.len(),
        )
    };
}

/// Says that the counter of a decrypted packet is replayed or too old; `max` is one more than the
/// greatest one accepted.
pub fn invalid_nonce(dev: &NetDevice, nonce: u64, max: u64) {
    // SAFETY: The device is valid for the call.
    unsafe { bindings::wg_debug_invalid_nonce(dev.as_raw(), nonce, max) };
}

/// Says that a message cannot be sent to `endpoint`, and why.
pub fn no_route(dev: &NetDevice, endpoint: &Endpoint, error: Error) {
    let endpoint = endpoint.sockaddr_bytes();
    // SAFETY: The device is valid for the call; the pointer and the length are those of a slice.
    unsafe {
        bindings::wg_debug_no_route(
            dev.as_raw(),
            endpoint.as_ptr().cast(),
            endpoint.len(),
            error.to_errno(),
        )
    };
}

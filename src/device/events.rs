// SPDX-License-Identifier: GPL-2.0-only

//! What is told to those who listen to the module's netlink group: see [`proto::extension`].
//!
//! Any context but hard interrupts. Nobody is waited for, and none of it is on the way of a data
//! packet; where nobody listens, an event costs a test of one bit.
//!
//! [`proto::extension`]: crate::proto::extension

use kernel::prelude::*;

use crate::{
    device::{endpoint::Endpoint, Device},
    kapi::{
        net::genetlink::AttrWriter,
        sync::{
            atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
            rcu,
        },
        time,
    },
    proto::{
        crypto::PublicKey,
        extension::{attr, event, role},
        noise::Role,
    },
};

/// The place of the group in the family's table.
const GROUP: u8 = 0;
/// An unknown initiator is told of once in this time, in nanoseconds.
const UNKNOWN_INTERVAL_NS: u64 = 1_000_000_000;

/// A device's events.
pub(crate) struct Events {
    /// Counts them.
    sequence: AtomicU32,
    /// When the last unknown initiator was told of; boot time in nanoseconds, 0 for never.
    unknown_at: AtomicU64,
    under_load: AtomicBool,
}

impl Events {
    pub(crate) const fn new() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            unknown_at: AtomicU64::new(0),
            under_load: AtomicBool::new(false),
        }
    }
}

/// A session has begun.
pub(crate) fn handshake_completed(
    device: &Device,
    peer: &PublicKey,
    endpoint: &Endpoint,
    session: Option<u64>,
    own: Role,
) {
    send(device, event::HANDSHAKE_COMPLETED, |message| {
        put_peer(message, peer, Some(endpoint))?;
        let own = match own {
            Role::Initiator => role::INITIATOR,
            Role::Responder => role::RESPONDER,
        };
        message.put_u32(attr::ROLE, own)?;
        match session {
            Some(session) => message.put_u64(attr::SESSION, session, attr::PAD),
            None => Ok(()),
        }
    });
}

/// There was no response to so many initiations.
pub(crate) fn handshake_given_up(
    device: &Device,
    peer: &PublicKey,
    endpoint: &Endpoint,
    attempts: u32,
) {
    send(device, event::HANDSHAKE_GIVEN_UP, |message| {
        put_peer(message, peer, Some(endpoint))?;
        message.put_u32(attr::ATTEMPTS, attempts)
    });
}

/// The keys of all sessions are erased.
pub(crate) fn session_expired(device: &Device, peer: &PublicKey, endpoint: &Endpoint) {
    send(device, event::SESSION_EXPIRED, |message| {
        put_peer(message, peer, Some(endpoint))
    });
}

/// No data came from the peer for so many seconds.
pub(crate) fn peer_silent(device: &Device, peer: &PublicKey, endpoint: &Endpoint, seconds: u16) {
    send(device, event::PEER_SILENT, |message| {
        put_peer(message, peer, Some(endpoint))?;
        message.put_u32(attr::SECONDS, seconds.into())
    });
}

/// The peer has moved.
pub(crate) fn endpoint_changed(
    device: &Device,
    peer: &PublicKey,
    before: &Endpoint,
    now: &Endpoint,
) {
    send(device, event::ENDPOINT_CHANGED, |message| {
        put_peer(message, peer, Some(now))?;
        put_endpoint(message, attr::OLD_ENDPOINT, before)
    });
}

/// The peer is in the tables.
pub(crate) fn peer_added(device: &Device, peer: &PublicKey) {
    send(device, event::PEER_ADDED, |message| {
        put_peer(message, peer, None)
    });
}

/// The peer is out of the tables.
pub(crate) fn peer_removed(device: &Device, peer: &PublicKey) {
    send(device, event::PEER_REMOVED, |message| {
        put_peer(message, peer, None)
    });
}

/// A request has set something of a peer: flags of [`changed`](crate::proto::extension::changed).
pub(crate) fn peer_changed(device: &Device, peer: &PublicKey, changed: u32) {
    if changed != 0 {
        send(device, event::PEER_CHANGED, |message| {
            put_peer(message, peer, None)?;
            message.put_u32(attr::CHANGED, changed)
        });
    }
}

/// A request has set something of the device: flags as above.
pub(crate) fn device_changed(device: &Device, changed: u32) {
    if changed != 0 {
        send(device, event::DEVICE_CHANGED, |message| {
            message.put_u32(attr::CHANGED, changed)
        });
    }
}

/// An initiation came from somebody who is no peer.
pub(crate) fn unknown_initiator(device: &Device, key: &PublicKey, endpoint: &Endpoint) {
    let now = time::boottime_coarse_ns();
    let last = device.events.unknown_at.load(Relaxed);
    if last != 0 && now.wrapping_sub(last) < UNKNOWN_INTERVAL_NS {
        return;
    }
    device.events.unknown_at.store(now.max(1), Relaxed);
    send(device, event::UNKNOWN_INITIATOR, |message| {
        put_peer(message, key, Some(endpoint))
    });
}

/// A handshake message has found the device under load, or not.
#[inline]
pub(crate) fn note_load(device: &Device, under_load: bool) {
    if device.events.under_load.load(Relaxed) != under_load
        && device.events.under_load.swap(under_load, Relaxed) != under_load
    {
        send(device, event::LOAD_CHANGED, |message| {
            message.put_u32(attr::UNDER_LOAD, under_load.into())
        });
    }
}

/// Sends an event to those who listen in the namespace that the device is in. None of a device that
/// is not registered: it comes into being, or goes.
#[inline(never)]
fn send(device: &Device, kind: u8, fill: impl FnOnce(&mut AttrWriter<'_>) -> Result) {
    let guard = rcu::read_lock();
    let Some(net) = device.netdev().net(&guard) else {
        return;
    };
    let family = &device.shared().family;
    if !family.has_listeners(net, GROUP) {
        return;
    }
    let sequence = device.events.sequence.fetch_add(1, Relaxed);
    // What cannot be sent is missed, and the next number says so.
    let _ = family.notify(net, GROUP, kind, |message| {
        message.put_u32(attr::IFINDEX, device.netdev().ifindex() as u32)?;
        message.put_str(attr::IFNAME, &device.netdev().name())?;
        message.put_u32(attr::SEQUENCE, sequence)?;
        fill(message)
    });
}

fn put_peer(message: &mut AttrWriter<'_>, key: &PublicKey, endpoint: Option<&Endpoint>) -> Result {
    message.put(attr::PUBLIC_KEY, key)?;
    match endpoint {
        Some(endpoint) => put_endpoint(message, attr::ENDPOINT, endpoint),
        None => Ok(()),
    }
}

/// Writes an endpoint, if there is one.
fn put_endpoint(message: &mut AttrWriter<'_>, kind: u16, endpoint: &Endpoint) -> Result {
    match endpoint.remote().as_bytes() {
        [] => Ok(()),
        bytes => message.put(kind, bytes),
    }
}

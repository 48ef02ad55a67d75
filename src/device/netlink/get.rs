// SPDX-License-Identifier: GPL-2.0-only

//! The GET command: a dump of one interface with its peers and their allowed IPs.
//!
//! An interface may take many messages. All of it is one list of peers, continued from message to
//! message; a peer with many allowed IPs may itself be continued, and then repeats only its key.

use core::{mem::size_of, net::IpAddr};

use kernel::prelude::*;

use super::{requested_device, GET_POLICY};
use crate::{
    device::{
        config::{self, UpdateGuard},
        link::WireGuardLink,
        peer::Peer,
        Device,
    },
    kapi::net::{
        genetlink::{AttrWriter, Dump, DumpBuffer, Permission, Policy, Progress, Request},
        rtnl,
    },
    proto::{
        crypto::burn_stack,
        uapi::{self, allowedip, device, peer},
    },
    tables::allowedips::Prefix,
};

/// `AF_INET` and `AF_INET6` of Linux.
pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;

/// Peers that are not shown and are passed by for one message.
const MAX_PASSED: usize = 4096;
/// Peers that are looked up at once.
const LOOKED_UP: usize = 16;

/// The type of a list's elements, and of the padding that some architectures need.
const UNSPEC: u16 = 0;

/// `WG_CMD_GET_DEVICE`.
pub(super) struct GetDevice;

/// How far the dump has come.
///
/// Nothing but numbers: a receiver that stops reading must not keep a device from going away.
/// Peer numbers are never used twice, not even by another device.
pub(super) struct Cursor {
    ifindex: i32,
    place: Place,
}

/// A place among the peers of a device.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The last peer that is complete, 0 if none is.
    last_peer: u64,
    /// Where to go on in the peer after that.
    split: Option<Split>,
}

impl Place {
    pub(super) const START: Self = Self {
        last_peer: 0,
        split: None,
    };
}

/// What a dump shows of the peers.
pub(super) trait Show {
    /// The list's attribute.
    const PEERS: u16;

    /// The id of the only peer to be shown, if it is one.
    fn only(&self) -> Option<u64>;

    /// Whether the peer is to be shown.
    fn wants(&self, peer: &Peer) -> bool;

    /// Writes all of a peer but its public key and its allowed IPs.
    fn put_peer(&self, nest: &mut AttrWriter<'_>, peer: &Peer) -> Result;

    /// Whether allowed IPs are shown.
    fn shows_allowed_ips(&self) -> bool;
}

/// All, as the in-tree driver shows it.
struct ShowAll;

impl Show for ShowAll {
    const PEERS: u16 = device::PEERS;

    #[inline]
    fn only(&self) -> Option<u64> {
        None
    }

    #[inline]
    fn wants(&self, _peer: &Peer) -> bool {
        true
    }

    #[inline]
    fn put_peer(&self, nest: &mut AttrWriter<'_>, peer: &Peer) -> Result {
        put_peer_state(nest, peer)
    }

    #[inline]
    fn shows_allowed_ips(&self) -> bool {
        true
    }
}

/// A place in a peer's allowed IPs.
#[derive(Clone, Copy)]
struct Split {
    peer: u64,
    /// The state of the device's allowed IPs that the place is of.
    version: u64,
    /// The first allowed IP that is still missing.
    next: u64,
}

impl Dump for GetDevice {
    type Cursor = Cursor;

    const CMD: u8 = uapi::cmd::GET_DEVICE;
    const PERMISSION: Permission = Permission::NetnsAdmin;
    const POLICY: &'static [Policy] = &GET_POLICY;

    fn start(request: &Request<'_>) -> Result<Cursor> {
        let rtnl = rtnl::lock();
        let device = requested_device(request, &rtnl)?;
        Ok(Cursor {
            ifindex: device.netdev().ifindex(),
            place: Place::START,
        })
    }

    fn fill(cursor: &mut Cursor, buffer: &mut DumpBuffer<'_>) -> Result<Progress> {
        let progress = put_message(cursor, buffer);
        burn_stack();
        progress
    }
}

/// Writes one message, as long as the buffer allows.
#[inline(never)]
fn put_message(cursor: &mut Cursor, buffer: &mut DumpBuffer<'_>) -> Result<Progress> {
    let rtnl = rtnl::lock();
    // The in-tree driver would hold on to a device that has gone or moved away.
    let device = rtnl
        .device_by_index::<WireGuardLink>(buffer.net(), cursor.ifindex)
        .map_err(|_| ENODEV)?;
    let mut update = config::lock(&device);

    let mut message = buffer.message(uapi::cmd::GET_DEVICE, update.generation())?;
    // As in the in-tree driver: again as long as the first peer is not complete.
    if cursor.place.last_peer == 0 {
        put_device(&mut message, &device)?;
    }
    let progress = put_peers(&mut message, &mut update, &mut cursor.place, &ShowAll)?;
    message.end();
    Ok(progress)
}

/// Writes what is not about peers.
fn put_device(message: &mut AttrWriter<'_>, device: &Device) -> Result {
    message.put_u16(device::LISTEN_PORT, device.port())?;
    message.put_u32(device::FWMARK, device.fwmark())?;
    message.put_u32(device::IFINDEX, device.netdev().ifindex() as u32)?;
    message.put_str(device::IFNAME, &device.netdev().name())?;
    if let Some((private, public)) = device.identity() {
        message.put(device::PRIVATE_KEY, private.expose())?;
        message.put(device::PUBLIC_KEY, &public)?;
    }
    Ok(())
}

/// Writes as many peers as fit, from the place on, and moves the place.
pub(super) fn put_peers<S: Show>(
    message: &mut AttrWriter<'_>,
    update: &mut UpdateGuard<'_>,
    place: &mut Place,
    show: &S,
) -> Result<Progress> {
    // Without peers there is no list. If the last complete peer has been removed meanwhile, its
    // place in the list is lost: the dump ends, and the receiver knows from the generation.
    let here = update.peer_after(place.last_peer.saturating_sub(1));
    if !here.is_some_and(|here| place.last_peer == 0 || place.last_peer == here.id()) {
        return Ok(Progress::Done);
    }

    let mut list = message.nest(S::PEERS)?;
    let mut passed = 0_usize;
    while passed < MAX_PASSED {
        let mut peers = [const { None }; LOOKED_UP];
        match show.only() {
            None => update.peers_after(place.last_peer, &mut peers),
            Some(only) if only > place.last_peer => {
                let one = peers.get_mut(..1).unwrap_or_default();
                update.peers_after(only.saturating_sub(1), one);
            }
            Some(_) => {}
        }
        if peers.first().is_none_or(|first| first.is_none()) {
            list.end()?;
            return Ok(Progress::Done);
        }
        for peer in peers.iter().flatten() {
            if !show.wants(peer) {
                passed = passed.saturating_add(1);
                place.last_peer = peer.id();
                continue;
            }
            match put_peer(&mut list, update, peer, place.split, show) {
                Ok(None) => {
                    place.split = None;
                    place.last_peer = peer.id();
                }
                full => {
                    // A peer of which nothing fits comes, or goes on, in the next message as
                    // planned.
                    place.split = full.unwrap_or(place.split);
                    list.end()?;
                    return Ok(Progress::More);
                }
            }
        }
    }
    list.end()?;
    Ok(Progress::More)
}

/// Writes a peer, or the rest of it from `split` on. Returns where to go on if not all of it fits,
/// and [`EMSGSIZE`] if nothing does.
fn put_peer(
    list: &mut AttrWriter<'_>,
    update: &mut UpdateGuard<'_>,
    peer: &Peer,
    split: Option<Split>,
    show: &impl Show,
) -> Result<Option<Split>> {
    let version = update.allowed_ips_version();
    let mut nest = list.nest(UNSPEC)?;
    nest.put(peer::PUBLIC_KEY, peer.public_key())?;

    let missing = match split {
        None => {
            show.put_peer(&mut nest, peer)?;
            if show.shows_allowed_ips() {
                put_allowed_ips(&mut nest, update, peer, 0)?
            } else {
                None
            }
        }
        Some(split) if split.peer == peer.id() && split.version == version => {
            put_allowed_ips(&mut nest, update, peer, split.next)?
        }
        // The place has lost its meaning; the receiver knows from the generation.
        Some(_) => None,
    };
    nest.end()?;
    Ok(missing.map(|next| Split {
        peer: peer.id(),
        version,
        next,
    }))
}

/// Writes all of a peer but its allowed IPs.
fn put_peer_state(nest: &mut AttrWriter<'_>, peer: &Peer) -> Result {
    nest.put(peer::PRESHARED_KEY, peer.preshared_key().expose())?;
    nest.put(peer::LAST_HANDSHAKE_TIME, &timespec(peer.last_handshake()))?;
    nest.put_u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, peer.keepalive_s())?;
    nest.put_u64(peer::TX_BYTES, peer.tx_bytes(), UNSPEC)?;
    nest.put_u64(peer::RX_BYTES, peer.rx_bytes(), UNSPEC)?;
    nest.put_u32(peer::PROTOCOL_VERSION, uapi::PROTOCOL_VERSION)?;
    match peer.endpoint().remote().as_bytes() {
        [] => Ok(()),
        sockaddr => nest.put(peer::ENDPOINT, sockaddr),
    }
}

/// Writes the allowed IPs of `peer` from number `first` on, and returns the number of the first
/// that does not fit.
fn put_allowed_ips(
    nest: &mut AttrWriter<'_>,
    update: &mut UpdateGuard<'_>,
    peer: &Peer,
    first: u64,
) -> Result<Option<u64>> {
    let mut prefixes = update.allowed_ips_from(peer, first).peekable();
    if prefixes.peek().is_none() {
        return Ok(None);
    }
    let mut list = nest.nest(peer::ALLOWEDIPS)?;
    for (number, prefix) in prefixes {
        if put_allowed_ip(&mut list, prefix).is_err() {
            list.end()?;
            return Ok(Some(number));
        }
    }
    list.end()?;
    Ok(None)
}

/// Writes one allowed IP.
fn put_allowed_ip(list: &mut AttrWriter<'_>, prefix: Prefix) -> Result {
    let mut nest = list.nest(UNSPEC)?;
    nest.put_u8(allowedip::CIDR_MASK, prefix.cidr())?;
    match prefix.addr() {
        IpAddr::V4(address) => {
            nest.put_u16(allowedip::FAMILY, AF_INET)?;
            nest.put(allowedip::IPADDR, &address.octets())?;
        }
        IpAddr::V6(address) => {
            nest.put_u16(allowedip::FAMILY, AF_INET6)?;
            nest.put(allowedip::IPADDR, &address.octets())?;
        }
    }
    nest.end()
}

/// A `__kernel_timespec`: seconds and nanoseconds, 64 bits each.
pub(super) fn timespec((secs, nanos): (i64, u32)) -> [u8; uapi::TIMESPEC_LEN] {
    let mut bytes = [0; uapi::TIMESPEC_LEN];
    let (secs_bytes, nanos_bytes) = bytes.split_at_mut(size_of::<i64>());
    secs_bytes.copy_from_slice(&secs.to_ne_bytes());
    nanos_bytes.copy_from_slice(&i64::from(nanos).to_ne_bytes());
    bytes
}

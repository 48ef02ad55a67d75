// SPDX-License-Identifier: GPL-2.0-only

//! Peers and their counters, a command of our own family: all of them, one, or those whose settings
//! have changed; with or without what takes long to write.

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use super::{
    get::{self, Place, Show},
    requested_device, PEERS_POLICY,
};
use crate::{
    device::{
        config::{self, UpdateGuard},
        counters::Happening,
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
        extension::{cmd, device, peer, show},
        uapi, Rejection,
    },
};

/// The type of padding among the counters of reasons.
const REFUSED_PAD: u16 = Rejection::COUNT as u16 + 1;

/// The command.
pub(super) struct GetPeers;

/// How far the dump has come, and what it shows. Nothing but numbers, as in [`get::Cursor`].
pub(super) struct Cursor {
    ifindex: i32,
    place: Place,
    is_first: bool,
    selection: Selection,
}

/// Which peers, and what of them.
#[derive(Clone, Copy)]
struct Selection {
    /// See [`show`].
    show: u32,
    /// Only the one with this id.
    only: Option<u64>,
    /// Only those changed since.
    since: Option<u32>,
}

impl Selection {
    fn shows(&self, what: u32) -> bool {
        self.show & what != 0
    }
}

impl Dump for GetPeers {
    type Cursor = KBox<Cursor>;

    const CMD: u8 = cmd::PEERS_GET;
    const PERMISSION: Permission = Permission::NetnsAdmin;
    const POLICY: &'static [Policy] = &PEERS_POLICY;

    fn start(request: &Request<'_>) -> Result<Self::Cursor> {
        let rtnl = rtnl::lock();
        let of = requested_device(request, &rtnl)?;
        let u32_of = |attr| request.attr(attr).and_then(|a| a.u32());
        let only = match request.attr(device::PEER) {
            Some(key) => {
                let key: [u8; uapi::KEY_LEN] = key.bytes().ok_or(EINVAL)?;
                Some(of.find_peer(&key).ok_or(ENOENT)?.id())
            }
            None => None,
        };
        let cursor = Cursor {
            ifindex: of.netdev().ifindex(),
            place: Place::START,
            is_first: true,
            selection: Selection {
                show: u32_of(device::SHOW).unwrap_or(u32::MAX),
                only,
                since: u32_of(device::CHANGED_SINCE),
            },
        };
        Ok(KBox::new(cursor, GFP_KERNEL)?)
    }

    fn fill(cursor: &mut Self::Cursor, buffer: &mut DumpBuffer<'_>) -> Result<Progress> {
        let progress = put_message(cursor, buffer);
        burn_stack();
        progress
    }
}

/// Writes one message, as long as the buffer allows.
#[inline(never)]
fn put_message(cursor: &mut Cursor, buffer: &mut DumpBuffer<'_>) -> Result<Progress> {
    let rtnl = rtnl::lock();
    let of = rtnl
        .device_by_index::<WireGuardLink>(buffer.net(), cursor.ifindex)
        .map_err(|_| ENODEV)?;
    let mut update = config::lock(&of);

    let mut message = buffer.message(cmd::PEERS_GET, update.generation())?;
    if cursor.is_first {
        put_device(&mut message, &of, &update, cursor.selection)?;
    }
    let progress = get::put_peers(
        &mut message,
        &mut update,
        &mut cursor.place,
        &cursor.selection,
    )?;
    message.end();
    cursor.is_first = false;
    Ok(progress)
}

/// Writes what is not about peers.
fn put_device(
    message: &mut AttrWriter<'_>,
    of: &Device,
    update: &UpdateGuard<'_>,
    selection: Selection,
) -> Result {
    message.put_u32(device::IFINDEX, of.netdev().ifindex() as u32)?;
    message.put_str(device::IFNAME, &of.netdev().name())?;
    message.put_u32(device::GENERATION, update.generation())?;
    if let Some(generation) = update.removed_in() {
        message.put_u32(device::REMOVED_IN, generation)?;
    }
    if selection.shows(show::SETTINGS) {
        message.put_u16(device::LISTEN_PORT, of.port())?;
    }
    if selection.shows(show::COUNTERS) {
        put_count(message, device::COOKIES_SENT, of.counters.cookies_sent())?;
        let refused = |reason| of.counters.refused(reason);
        put_refused(message, device::REFUSED, Rejection::COUNT, refused)?;
    }
    Ok(())
}

impl Show for Selection {
    const PEERS: u16 = device::PEERS;

    fn only(&self) -> Option<u64> {
        self.only
    }

    fn wants(&self, peer: &Peer) -> bool {
        self.only.is_none_or(|only| peer.id() == only)
            && self.since.is_none_or(|since| peer.changed_since(since))
    }

    fn put_peer(&self, nest: &mut AttrWriter<'_>, of: &Peer) -> Result {
        if self.shows(show::SETTINGS) {
            put_settings(nest, of)?;
        }
        if self.shows(show::COUNTERS) {
            put_counters(nest, of)?;
        }
        Ok(())
    }

    fn shows_allowed_ips(&self) -> bool {
        self.shows(show::ALLOWED_IPS)
    }
}

fn put_settings(nest: &mut AttrWriter<'_>, of: &Peer) -> Result {
    nest.put(peer::PRESHARED_KEY, of.preshared_key().expose())?;
    nest.put_u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, of.keepalive_s())?;
    nest.put_u32(peer::PROTOCOL_VERSION, uapi::PROTOCOL_VERSION)?;
    nest.put_u8(peer::FIXED_ENDPOINT, of.has_fixed_endpoint().into())?;
    nest.put_u16(peer::SILENCE, of.silence.limit_s())?;
    match of.endpoint().remote().as_bytes() {
        [] => Ok(()),
        sockaddr => nest.put(peer::ENDPOINT, sockaddr),
    }
}

fn put_counters(nest: &mut AttrWriter<'_>, of: &Peer) -> Result {
    // Whatever is sent or received is counted; before, all below is 0.
    if !of.counters.used() && of.tx_bytes() == 0 && of.rx_bytes() == 0 {
        return Ok(());
    }
    match of.last_handshake() {
        (0, 0) => {}
        last => nest.put(peer::LAST_HANDSHAKE_TIME, &get::timespec(last))?,
    }
    let happened = |what| of.counters.count(what);
    for (attr, count) in [
        (peer::RX_BYTES, of.rx_bytes()),
        (peer::TX_BYTES, of.tx_bytes()),
        (peer::RX_PACKETS, of.rx_packets()),
        (peer::TX_PACKETS, of.tx_packets()),
        (peer::INITIATIONS_SENT, happened(Happening::InitiationSent)),
        (
            peer::INITIATIONS_RECEIVED,
            happened(Happening::InitiationReceived),
        ),
        (peer::RESPONSES_SENT, happened(Happening::ResponseSent)),
        (
            peer::RESPONSES_RECEIVED,
            happened(Happening::ResponseReceived),
        ),
        (peer::COOKIES_RECEIVED, happened(Happening::CookieReceived)),
        (
            peer::KEEPALIVES_RECEIVED,
            happened(Happening::KeepaliveReceived),
        ),
        (peer::RETRIES, happened(Happening::Retry)),
        (peer::ENDPOINT_CHANGES, happened(Happening::Roam)),
    ] {
        put_count(nest, attr, count)?;
    }
    if !of.counters.refused_any() {
        return Ok(());
    }
    let refused = |reason| of.counters.refused(reason);
    put_refused(nest, peer::REFUSED, Rejection::OF_PEERS, refused)
}

fn put_count(nest: &mut AttrWriter<'_>, attr: u16, count: u64) -> Result {
    if count == 0 {
        return Ok(());
    }
    nest.put_u64(attr, count, peer::PAD)
}

/// Writes those of the first `reasons` counters that are not 0.
fn put_refused(
    message: &mut AttrWriter<'_>,
    attr: u16,
    reasons: usize,
    refused: impl Fn(Rejection) -> u64,
) -> Result {
    let all = Rejection::ALL.get(..reasons).unwrap_or_default();
    let mut nest = message.nest(attr)?;
    for reason in all {
        let count = refused(*reason);
        if count != 0 {
            let number = (reason.index() as u16).saturating_add(1);
            nest.put_u64(number, count, REFUSED_PAD)?;
        }
    }
    nest.end()
}

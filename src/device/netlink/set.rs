// SPDX-License-Identifier: GPL-2.0-only

//! The SET command: changes of one interface, its peers and their allowed IPs.
//!
//! It is no transaction. Changes are made in a fixed order; the first that fails ends the command,
//! and those before it stay.

use core::net::IpAddr;

use kernel::prelude::*;

use super::{
    get::{AF_INET, AF_INET6},
    requested_device, SET_POLICY,
};
use crate::{
    device::{
        config::{self, UpdateGuard},
        endpoint::Endpoint,
        events,
        peer::Peer,
        Device,
    },
    kapi::{
        net::{
            genetlink::{Attr, Attrs, Do, Permission, Policy, Request},
            rtnl,
            sockaddr::SockAddr,
        },
        sync::rcu::RcuArc,
    },
    proto::{
        crypto::{burn_stack, SymmetricKey},
        extension::changed,
        uapi::{self, allowedip, device, peer},
    },
};

/// Bytes of `sockaddr_in` and `sockaddr_in6`.
pub(super) const SOCKADDR_IN_LEN: usize = 16;
pub(super) const SOCKADDR_IN6_LEN: usize = 28;

/// The attributes of a peer, and of an allowed IP.
type PeerAttrs<'a> = Attrs<'a, { peer::MAX as usize + 1 }>;
pub(super) type AllowedIpAttrs<'a> = Attrs<'a, { allowedip::MAX as usize + 1 }>;

/// `WG_CMD_SET_DEVICE`.
pub(super) struct SetDevice;

impl Do for SetDevice {
    const CMD: u8 = uapi::cmd::SET_DEVICE;
    const PERMISSION: Permission = Permission::NetnsAdmin;
    const POLICY: &'static [Policy] = &SET_POLICY;

    fn run(request: &Request<'_>) -> Result {
        let result = set_device(request);
        burn_stack();
        result
    }
}

/// Does the whole command.
#[inline(never)]
fn set_device(request: &Request<'_>) -> Result {
    // First of all, so that the key is gone from the request however this ends.
    let private_key = request.attr(device::PRIVATE_KEY).and_then(take_key);

    let rtnl = rtnl::lock();
    let device = requested_device(request, &rtnl)?;
    let mut update = config::lock(&device);
    let mut changed = 0;
    let result = apply(&device, &mut update, request, private_key, &mut changed);
    events::device_changed(&device, changed);
    update.settle();
    result
}

/// Makes the changes, up to the first that fails; notes in `changed` what of the device itself it
/// has set.
fn apply(
    device: &Device,
    update: &mut UpdateGuard<'_>,
    request: &Request<'_>,
    private_key: Option<SymmetricKey>,
    changed: &mut u32,
) -> Result {
    let port = request.attr(device::LISTEN_PORT).and_then(|a| a.u16());
    let fwmark = request.attr(device::FWMARK).and_then(|a| a.u32());
    let flags = request.attr(device::FLAGS).and_then(|a| a.u32());
    // Both change the sockets, which are in the namespace that the device was created in.
    if (port.is_some() || fwmark.is_some()) && !device.may_manage_creating_net() {
        return Err(EPERM);
    }

    update.bump_generation();
    if let Some(fwmark) = fwmark {
        update.set_fwmark(fwmark)?;
        *changed |= changed::FWMARK;
    }
    if let Some(port) = port {
        update.set_port(port)?;
        *changed |= changed::LISTEN_PORT;
    }
    if flags.unwrap_or(0) & device::F_REPLACE_PEERS != 0 {
        update.remove_all_peers();
    }
    if let Some(private_key) = private_key {
        update.set_private_key(private_key.expose())?;
        *changed |= changed::PRIVATE_KEY;
    }
    if let Some(peers) = request.attr(device::PEERS) {
        for element in peers.elements() {
            set_peer(update, &element.nested()?)?;
        }
    }
    Ok(())
}

/// Adds, changes or removes one peer.
fn set_peer(update: &mut UpdateGuard<'_>, attrs: &PeerAttrs<'_>) -> Result {
    // First of all, as above.
    let preshared_key = attrs.get(peer::PRESHARED_KEY).and_then(take_key);

    let public_key: [u8; uapi::KEY_LEN] = attrs
        .get(peer::PUBLIC_KEY)
        .and_then(|a| a.bytes())
        .ok_or(EINVAL)?;
    let mut flags = attrs.get(peer::FLAGS).and_then(|a| a.u32()).unwrap_or(0);
    let version = attrs.get(peer::PROTOCOL_VERSION).and_then(|a| a.u32());
    if version.is_some_and(|version| version != uapi::PROTOCOL_VERSION) {
        return Err(EPFNOSUPPORT);
    }

    let peer = match update.find_peer(&public_key) {
        Some(peer) => {
            if flags & peer::F_REMOVE_ME != 0 {
                update.remove_peer(&peer);
                return Ok(());
            }
            if let Some(preshared_key) = &preshared_key {
                peer.set_preshared_key(preshared_key);
            }
            peer
        }
        None => {
            if flags & (peer::F_REMOVE_ME | peer::F_UPDATE_ONLY) != 0 {
                return Ok(());
            }
            // A new peer has none that could be replaced.
            flags &= !peer::F_REPLACE_ALLOWEDIPS;
            let preshared_key = preshared_key.unwrap_or_default();
            match update.add_peer(&public_key, &preshared_key)? {
                Some(peer) => peer,
                // Our own key: ignored, so that all members of a mesh can be given one list.
                None => return Ok(()),
            }
        }
    };

    update.touch(&peer);
    let mut changed = 0;
    if attrs.get(peer::PRESHARED_KEY).is_some() {
        changed |= changed::PRESHARED_KEY;
    }
    let result = configure(update, &peer, attrs, flags, &mut changed);
    events::peer_changed(peer.device(), peer.public_key(), changed);
    result
}

/// Sets what can be changed of a peer, but for the preshared key; notes in `changed` what it has
/// set.
fn configure(
    update: &mut UpdateGuard<'_>,
    peer: &RcuArc<Peer>,
    attrs: &PeerAttrs<'_>,
    flags: u32,
    changed: &mut u32,
) -> Result {
    if let Some(endpoint) = attrs.get(peer::ENDPOINT).and_then(endpoint) {
        peer.roam(&endpoint)?;
        *changed |= changed::ENDPOINT;
        config::begin_if_eager(peer);
    }
    if flags & peer::F_REPLACE_ALLOWEDIPS != 0 {
        update.remove_allowed_ips(peer);
        *changed |= changed::ALLOWED_IPS;
    }
    if let Some(allowed_ips) = attrs.get(peer::ALLOWEDIPS) {
        for element in allowed_ips.elements() {
            set_allowed_ip(update, peer, &element.nested()?)?;
            *changed |= changed::ALLOWED_IPS;
        }
    }
    let keepalive = attrs.get(peer::PERSISTENT_KEEPALIVE_INTERVAL);
    if let Some(keepalive_s) = keepalive.and_then(|a| a.u16()) {
        config::set_keepalive(peer, keepalive_s);
        *changed |= changed::KEEPALIVE;
    }
    config::flush_staged(peer);
    Ok(())
}

/// Adds or removes one allowed IP of `peer`.
fn set_allowed_ip(
    update: &mut UpdateGuard<'_>,
    peer: &RcuArc<Peer>,
    attrs: &AllowedIpAttrs<'_>,
) -> Result {
    apply_allowed_ip(update, peer, &allowed_ip(attrs)?)
}

/// An allowed IP of a request.
pub(super) struct AllowedIp {
    address: IpAddr,
    cidr: u8,
    removes: bool,
}

/// Reads one.
///
/// # Errors
///
/// [`EINVAL`]: something is missing, the family is unknown, the address has another length, or the
/// prefix is longer than it.
pub(super) fn allowed_ip(attrs: &AllowedIpAttrs<'_>) -> Result<AllowedIp> {
    let family = attrs.get(allowedip::FAMILY).and_then(|a| a.u16());
    let cidr = attrs.get(allowedip::CIDR_MASK).and_then(|a| a.u8());
    let (Some(family), Some(ipaddr), Some(cidr)) = (family, attrs.get(allowedip::IPADDR), cidr)
    else {
        return Err(EINVAL);
    };
    let (address, max_cidr) = match family {
        AF_INET => (ipaddr.bytes::<4>().map(IpAddr::from), 32),
        AF_INET6 => (ipaddr.bytes::<16>().map(IpAddr::from), 128),
        _ => return Err(EINVAL),
    };
    let address = address.ok_or(EINVAL)?;
    if cidr > max_cidr {
        return Err(EINVAL);
    }

    let flags = attrs.get(allowedip::FLAGS).and_then(|a| a.u32());
    Ok(AllowedIp {
        address,
        cidr,
        removes: flags.unwrap_or(0) & allowedip::F_REMOVE_ME != 0,
    })
}

pub(super) fn apply_allowed_ip(
    update: &mut UpdateGuard<'_>,
    peer: &RcuArc<Peer>,
    ip: &AllowedIp,
) -> Result {
    if ip.removes {
        update.remove_allowed_ip(peer, ip.address, ip.cidr)
    } else {
        update.insert_allowed_ip(peer, ip.address, ip.cidr)
    }
}

/// Takes a key out of the request, where zeros remain.
pub(super) fn take_key(attr: Attr<'_>) -> Option<SymmetricKey> {
    let key = attr.bytes().map(SymmetricKey::from_bytes);
    attr.erase();
    key
}

/// The endpoint in an attribute. One of another family or length is no error but ignored.
pub(super) fn endpoint(attr: Attr<'_>) -> Option<Endpoint> {
    let remote = if let Some(sockaddr) = attr.bytes::<SOCKADDR_IN_LEN>() {
        SockAddr::from_bytes(&sockaddr)
    } else if let Some(sockaddr) = attr.bytes::<SOCKADDR_IN6_LEN>() {
        SockAddr::from_bytes(&sockaddr)
    } else {
        None
    };
    remote.map(Endpoint::new)
}

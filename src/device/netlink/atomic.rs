// SPDX-License-Identifier: GPL-2.0-only

//! The SET command of our own family: a change of an interface and its peers that is made as a
//! whole or not at all.
//!
//! First everything is checked, and what may be refused or needs much memory is prepared: sockets,
//! new peers. Then the change is made; what it still allocates are a few small objects, which are
//! waited for.

use kernel::prelude::*;

use super::{
    options::switch,
    requested_device,
    set::{allowed_ip, apply_allowed_ip, endpoint, take_key, SOCKADDR_IN6_LEN, SOCKADDR_IN_LEN},
    ATOMIC_POLICY,
};
use crate::{
    device::{
        config::{self, Prepared, UpdateGuard},
        events,
        peer::Peer,
        Device,
    },
    kapi::{
        crypto::KernelCrypto,
        net::{
            genetlink::{Attr, Attrs, Do, Permission, Policy, Request},
            rtnl,
        },
        sync::rcu::RcuArc,
        time,
    },
    proto::{
        consts::MAX_PEERS,
        crypto::{burn_stack, SecretKey, SymmetricKey},
        extension::{changed, cmd, device, peer},
        noise::Identity,
        uapi,
    },
};

type PeerAttrs<'a> = Attrs<'a, { peer::SILENCE as usize + 1 }>;

/// The command.
pub(super) struct Set;

impl Do for Set {
    const CMD: u8 = cmd::SET;
    const PERMISSION: Permission = Permission::NetnsAdmin;
    const POLICY: &'static [Policy] = &ATOMIC_POLICY;

    fn run(request: &Request<'_>) -> Result {
        let result = set(request);
        erase_preshared_keys(request);
        burn_stack();
        result
    }
}

/// Those that were not taken: the request goes back to its sender when it is refused.
fn erase_preshared_keys(request: &Request<'_>) {
    for list in request.attrs(device::PEERS) {
        for element in list.elements() {
            for attr in element.elements() {
                if attr.attr_type() == peer::PRESHARED_KEY {
                    attr.erase();
                }
            }
        }
    }
}

/// Does the whole command.
#[inline(never)]
fn set(request: &Request<'_>) -> Result {
    // First of all, so that the key is gone from the request however this ends.
    let private_key = request.attr(device::PRIVATE_KEY).and_then(take_key);

    let rtnl = rtnl::lock();
    let of = requested_device(request, &rtnl)
        .inspect_err(|_| request.explain(None, format_args!("no such interface of ours")))?;
    let mut update = config::lock(&of);
    let mut prepared = Prepared::new();
    let ready =
        prepare(&of, &update, request, private_key.as_ref(), &mut prepared).and_then(|()| {
            update.bump_generation();
            update.wait_for_memory();
            // Changes nothing if it fails.
            match &private_key {
                Some(private_key) => update.set_private_key(private_key.expose()),
                None => Ok(()),
            }
        });
    let mut noted = 0;
    let result = ready.and_then(|()| {
        if private_key.is_some() {
            noted |= changed::PRIVATE_KEY;
        }
        commit(&of, &mut update, request, &mut prepared, &mut noted)
    });
    events::device_changed(&of, noted);
    update.settle();
    prepared.give_up();
    result
}

/// Checks the request, and prepares what may be refused.
fn prepare(
    of: &Device,
    update: &UpdateGuard<'_>,
    request: &Request<'_>,
    private_key: Option<&SymmetricKey>,
    prepared: &mut Prepared,
) -> Result {
    for kind in [device::LISTEN_PORT, device::FWMARK] {
        // Both change the sockets, which are in the namespace that the device was created in.
        if let Some(attr) = request.attr(kind).filter(|_| !of.may_manage_creating_net()) {
            let why = "port and mark belong to the namespace that the interface was created in";
            request.explain(Some(&attr), format_args!("{why}"));
            return Err(EPERM);
        }
    }
    let given = private_key
        .and_then(|key| Identity::new::<KernelCrypto>(SecretKey::from_bytes(*key.expose())));
    let present = of.identity.get();
    let identity = match private_key {
        Some(_) => given.as_ref(),
        None => present.as_deref(),
    };
    prepare_peers(update, request, identity, prepared)?;
    // The last: somebody else may be told that the port is taken.
    if let Some(attr) = request.attr(device::LISTEN_PORT) {
        let port = attr.u16().ok_or(EINVAL)?;
        update.prepare_port(port, prepared).inspect_err(|_| {
            request.explain(Some(&attr), format_args!("cannot use port {port}"))
        })?;
    }
    Ok(())
}

/// Calls `each` with the number, from 1, of each peer in the request.
fn for_each_peer<'a>(
    request: &Request<'a>,
    mut each: impl FnMut(usize, Attr<'a>, &PeerAttrs<'a>) -> Result,
) -> Result {
    let mut number = 0_usize;
    for list in request.attrs(device::PEERS) {
        for element in list.elements() {
            number = number.saturating_add(1);
            let attrs = element.nested().inspect_err(|_| {
                request.explain(Some(&element), format_args!("peer {number} is malformed"));
            })?;
            each(number, element, &attrs)?;
            time::cond_resched();
        }
    }
    Ok(())
}

fn public_key(attrs: &PeerAttrs<'_>) -> Option<[u8; uapi::KEY_LEN]> {
    attrs.get(peer::PUBLIC_KEY)?.bytes()
}

fn flags(attrs: &PeerAttrs<'_>) -> u32 {
    attrs.get(peer::FLAGS).and_then(|a| a.u32()).unwrap_or(0)
}

fn replaces_peers(request: &Request<'_>) -> bool {
    let flags = request.attr(device::FLAGS).and_then(|a| a.u32());
    flags.unwrap_or(0) & uapi::device::F_REPLACE_PEERS != 0
}

fn prepare_peers(
    update: &UpdateGuard<'_>,
    request: &Request<'_>,
    identity: Option<&Identity>,
    prepared: &mut Prepared,
) -> Result {
    let replaces = replaces_peers(request);
    let mut removes_any = replaces;
    let mut count = 0;
    for_each_peer(request, |number, element, attrs| {
        check_peer(request, number, &element, attrs)?;
        count = number;
        removes_any |= flags(attrs) & uapi::peer::F_REMOVE_ME != 0;
        Ok(())
    })?;
    prepared.reserve_peers(count)?;
    let kept = if replaces { 0 } else { update.num_peers() };
    for_each_peer(request, |number, element, attrs| {
        let public_key = public_key(attrs).ok_or(EINVAL)?;
        if flags(attrs) & (uapi::peer::F_REMOVE_ME | uapi::peer::F_UPDATE_ONLY) != 0
            || identity.is_some_and(|own| *own.public() == public_key)
            || (!removes_any && update.find_peer(&public_key).is_some())
        {
            return Ok(());
        }
        update.prepare_peer(&public_key, identity, prepared)?;
        if kept.saturating_add(prepared.peers()) > MAX_PEERS {
            request.explain(
                Some(&element),
                format_args!("peer {number}: more than {MAX_PEERS} peers"),
            );
            return Err(ENOSPC);
        }
        Ok(())
    })
}

/// Checks all that is said of a peer.
fn check_peer(
    request: &Request<'_>,
    number: usize,
    element: &Attr<'_>,
    attrs: &PeerAttrs<'_>,
) -> Result {
    if public_key(attrs).is_none() {
        request.explain(
            Some(element),
            format_args!("peer {number} has no public key"),
        );
        return Err(EINVAL);
    }
    if let Some(attr) = attrs.get(peer::PROTOCOL_VERSION) {
        if attr.u32() != Some(uapi::PROTOCOL_VERSION) {
            request.explain(
                Some(&attr),
                format_args!("peer {number}: unknown version of the protocol"),
            );
            return Err(EPFNOSUPPORT);
        }
    }
    if let Some(attr) = attrs.get(peer::ENDPOINT) {
        let known_len = [SOCKADDR_IN_LEN, SOCKADDR_IN6_LEN].contains(&attr.len());
        if !known_len || endpoint(attr).is_none() {
            request.explain(
                Some(&attr),
                format_args!("peer {number}: no endpoint of IPv4 or IPv6"),
            );
            return Err(EINVAL);
        }
    }
    if let Some(attr) = attrs.get(peer::FIXED_ENDPOINT) {
        switch(&attr).inspect_err(|_| {
            request.explain(
                Some(&attr),
                format_args!("peer {number}: a switch is 0 or 1"),
            );
        })?;
    }
    let Some(list) = attrs.get(peer::ALLOWEDIPS) else {
        return Ok(());
    };
    let mut ip_number = 0_usize;
    for element in list.elements() {
        ip_number = ip_number.saturating_add(1);
        let checked = element.nested().and_then(|attrs| allowed_ip(&attrs));
        if let Err(error) = checked {
            request.explain(
                Some(&element),
                format_args!("peer {number}, allowed IP {ip_number}: no prefix of IPv4 or IPv6"),
            );
            return Err(error);
        }
        time::cond_resched();
    }
    Ok(())
}

/// Makes the change. It cannot fail: all was checked, and memory is waited for.
fn commit(
    of: &Device,
    update: &mut UpdateGuard<'_>,
    request: &Request<'_>,
    prepared: &mut Prepared,
    noted: &mut u32,
) -> Result {
    if let Some(fwmark) = request.attr(device::FWMARK).and_then(|a| a.u32()) {
        update.set_fwmark(fwmark)?;
        *noted |= changed::FWMARK;
    }
    if let Some(port) = request.attr(device::LISTEN_PORT).and_then(|a| a.u16()) {
        update.apply_port(port, prepared);
        *noted |= changed::LISTEN_PORT;
    }
    if replaces_peers(request) {
        update.remove_all_peers();
    }
    for_each_peer(request, |_, _, attrs| {
        commit_peer(of, update, attrs, prepared)
    })
}

/// Adds, changes or removes a peer.
fn commit_peer(
    of: &Device,
    update: &mut UpdateGuard<'_>,
    attrs: &PeerAttrs<'_>,
    prepared: &mut Prepared,
) -> Result {
    let preshared_key = attrs.get(peer::PRESHARED_KEY).and_then(take_key);
    let public_key = public_key(attrs).ok_or(EINVAL)?;
    let flags = flags(attrs);
    let found = update.find_peer(&public_key);
    if flags & uapi::peer::F_REMOVE_ME != 0 {
        if let Some(peer) = found {
            update.remove_peer(&peer);
        }
        return Ok(());
    }
    let peer = match found {
        Some(peer) => peer,
        None => {
            // As in the drop-in's SET, our own key is passed over.
            let is_own = of
                .identity
                .get()
                .is_some_and(|own| *own.public() == public_key);
            if is_own || flags & uapi::peer::F_UPDATE_ONLY != 0 {
                return Ok(());
            }
            let peer = prepared.take_peer(&public_key).ok_or(EINVAL)?;
            update.add_prepared(&peer)?;
            peer
        }
    };
    update.touch(&peer);
    let mut noted = 0;
    if let Some(preshared_key) = &preshared_key {
        peer.set_preshared_key(preshared_key);
        noted |= changed::PRESHARED_KEY;
    }
    let result = configure(update, &peer, attrs, &mut noted);
    events::peer_changed(of, peer.public_key(), noted);
    result
}

/// Sets what can be changed of a peer, but for the preshared key.
fn configure(
    update: &mut UpdateGuard<'_>,
    peer: &RcuArc<Peer>,
    attrs: &PeerAttrs<'_>,
    noted: &mut u32,
) -> Result {
    if let Some(endpoint) = attrs.get(peer::ENDPOINT).and_then(endpoint) {
        if peer.endpoint() != endpoint {
            peer.move_to(&endpoint, update.memory_flags())?;
        }
        *noted |= changed::ENDPOINT;
        config::begin_if_eager(peer);
    }
    if let Some(attr) = attrs.get(peer::FIXED_ENDPOINT) {
        peer.set_fixed_endpoint(switch(&attr)?);
        *noted |= changed::FIXED_ENDPOINT;
    }
    if let Some(seconds) = attrs.get(peer::SILENCE).and_then(|a| a.u16()) {
        config::set_silence(peer, seconds);
        *noted |= changed::SILENCE;
    }
    if flags(attrs) & uapi::peer::F_REPLACE_ALLOWEDIPS != 0 {
        update.remove_allowed_ips(peer);
        *noted |= changed::ALLOWED_IPS;
    }
    if let Some(list) = attrs.get(peer::ALLOWEDIPS) {
        for element in list.elements() {
            apply_allowed_ip(update, peer, &allowed_ip(&element.nested()?)?)?;
            *noted |= changed::ALLOWED_IPS;
            time::cond_resched();
        }
    }
    let keepalive = attrs.get(peer::PERSISTENT_KEEPALIVE_INTERVAL);
    if let Some(keepalive_s) = keepalive.and_then(|a| a.u16()) {
        config::set_keepalive(peer, keepalive_s);
        *noted |= changed::KEEPALIVE;
    }
    config::flush_staged(peer);
    Ok(())
}

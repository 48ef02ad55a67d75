// SPDX-License-Identifier: GPL-2.0-only
//! Requests: a GET, and a SET split over as many messages as it needs.

use super::message::{Full, Message};
use super::Link;
use crate::model::{SetAllowedIp, SetDevice, SetPeer};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6};
use std::io;
use std::net::{IpAddr, SocketAddr};
use wireguard_rs::proto::uapi::{allowedip, cmd, device, peer};

/// Asks for a device.
pub fn get(family: u16, link: Link<'_>) -> io::Result<Message> {
    let mut message = Message::generic(
        family,
        NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP,
        cmd::GET_DEVICE,
    );
    message.link(link)?;
    Ok(message)
}

/// Hands the messages of a SET to `send` one by one, reusing nothing: each is zeroed when sent.
///
/// A peer with more allowed IPs than fit goes on in the next message, where it has its key, the
/// flags that must hold for every part (REMOVE_ME, UPDATE_ONLY) and more allowed IPs, but none of
/// the things that are done once.
pub fn write_requests(
    family: u16,
    link: Link<'_>,
    change: &SetDevice,
    send: &mut dyn FnMut(Message) -> io::Result<()>,
) -> io::Result<()> {
    let start = || {
        let mut message = Message::generic(family, NLM_F_REQUEST | NLM_F_ACK, cmd::SET_DEVICE);
        message.link(link)?;
        io::Result::Ok(message)
    };
    write_parts(&start, change, send)
}

/// As [`write_requests`], with messages that begin as `start` makes them.
pub fn write_parts(
    start: &dyn Fn() -> io::Result<Message>,
    change: &SetDevice,
    send: &mut dyn FnMut(Message) -> io::Result<()>,
) -> io::Result<()> {
    let too_long = |Full| io::Error::from(Errno::EMSGSIZE);
    let mut message = start()?;
    once(&mut message, change).map_err(too_long)?;
    let mut rest = &change.peers[..];
    // Allowed IPs of the first peer of `rest` that are sent already; `None` before its first
    // message.
    let mut sent = None;
    while !rest.is_empty() {
        let peers = message.nest(device::PEERS).map_err(too_long)?;
        let mut written = false;
        while let Some(peer) = rest.first() {
            match put_peer(&mut message, peer, sent) {
                Ok(Some(count)) => {
                    sent = Some(count);
                    written = true;
                    break;
                }
                Ok(None) => {
                    (rest, sent, written) = (&rest[1..], None, true);
                }
                Err(Full) => break,
            }
        }
        if !written {
            return Err(too_long(Full));
        }
        message.end(peers);
        if !rest.is_empty() {
            send(std::mem::replace(&mut message, start()?))?;
        }
    }
    send(message)
}

/// What is done once, in the first message.
fn once(message: &mut Message, change: &SetDevice) -> Result<(), Full> {
    if let Some(key) = &change.private_key {
        message.put(device::PRIVATE_KEY, key.as_bytes())?;
    }
    if let Some(port) = change.listen_port {
        message.put(device::LISTEN_PORT, &port.to_ne_bytes())?;
    }
    if let Some(mark) = change.fwmark {
        message.put(device::FWMARK, &mark.to_ne_bytes())?;
    }
    if change.replace_peers {
        message.put(device::FLAGS, &device::F_REPLACE_PEERS.to_ne_bytes())?;
    }
    Ok(())
}

/// Adds a peer, or the rest of it after `sent` allowed IPs. Returns how many allowed IPs are sent
/// if some are left, and leaves the message as it was if nothing fits.
fn put_peer(
    message: &mut Message,
    set: &SetPeer,
    sent: Option<usize>,
) -> Result<Option<usize>, Full> {
    let nest = message.nest(0)?;
    if let Err(Full) = put_peer_head(message, set, sent.is_none()) {
        message.cancel(nest);
        return Err(Full);
    }
    let before = sent.unwrap_or(0);
    let mut count = before;
    if count < set.allowed_ips.len() {
        if let Ok(list) = message.nest(peer::ALLOWEDIPS) {
            count += set.allowed_ips[count..]
                .iter()
                .take_while(|ip| put_allowed_ip(message, ip).is_ok())
                .count();
            message.end(list);
        }
    }
    if sent.is_some() && count == before && count < set.allowed_ips.len() {
        message.cancel(nest);
        return Err(Full);
    }
    message.end(nest);
    Ok((count < set.allowed_ips.len()).then_some(count))
}

fn put_peer_head(message: &mut Message, set: &SetPeer, first: bool) -> Result<(), Full> {
    message.put(peer::PUBLIC_KEY, set.public_key.as_bytes())?;
    let mut flags = 0;
    if set.remove {
        flags |= peer::F_REMOVE_ME;
    }
    if set.update_only {
        flags |= peer::F_UPDATE_ONLY;
    }
    if first {
        if set.replace_allowed_ips {
            flags |= peer::F_REPLACE_ALLOWEDIPS;
        }
        if let Some(key) = &set.preshared_key {
            message.put(peer::PRESHARED_KEY, key.as_bytes())?;
        }
        if let Some(endpoint) = set.endpoint {
            put_endpoint(message, endpoint)?;
        }
        if let Some(seconds) = set.persistent_keepalive {
            message.put(peer::PERSISTENT_KEEPALIVE_INTERVAL, &seconds.to_ne_bytes())?;
        }
    }
    if flags != 0 {
        message.put(peer::FLAGS, &flags.to_ne_bytes())?;
    }
    Ok(())
}

/// A `sockaddr_in` or `sockaddr_in6`.
fn put_endpoint(message: &mut Message, endpoint: SocketAddr) -> Result<(), Full> {
    let family = |family: i32| (family as u16).to_ne_bytes();
    let port = endpoint.port().to_be_bytes();
    match endpoint {
        SocketAddr::V4(addr) => {
            let parts: [&[u8]; 4] = [&family(AF_INET), &port, &addr.ip().octets(), &[0; 8]];
            message.put(peer::ENDPOINT, &parts.concat())
        }
        SocketAddr::V6(addr) => {
            let (flow, scope) = (addr.flowinfo().to_ne_bytes(), addr.scope_id().to_ne_bytes());
            let parts: [&[u8]; 5] = [&family(AF_INET6), &port, &flow, &addr.ip().octets(), &scope];
            message.put(peer::ENDPOINT, &parts.concat())
        }
    }
}

/// Adds an allowed IP, or leaves the message as it was if it does not fit.
fn put_allowed_ip(message: &mut Message, set: &SetAllowedIp) -> Result<(), Full> {
    let nest = message.nest(0)?;
    let mut put = || {
        let (family, octets): (i32, &[u8]) = match &set.ip.addr {
            IpAddr::V4(addr) => (AF_INET, &addr.octets()),
            IpAddr::V6(addr) => (AF_INET6, &addr.octets()),
        };
        message.put(allowedip::FAMILY, &(family as u16).to_ne_bytes())?;
        message.put(allowedip::IPADDR, octets)?;
        message.put(allowedip::CIDR_MASK, &[set.ip.cidr])?;
        if set.remove {
            message.put(allowedip::FLAGS, &allowedip::F_REMOVE_ME.to_ne_bytes())?;
        }
        Ok(())
    };
    match put() {
        Ok(()) => message.end(nest),
        Err(Full) => {
            message.cancel(nest);
            return Err(Full);
        }
    }
    Ok(())
}

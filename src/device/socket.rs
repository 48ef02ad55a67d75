// SPDX-License-Identifier: GPL-2.0-only

//! The sockets of a device, and the way of a finished message to its peer.
//!
//! [`send_to_peer`] takes the messages of one peer, [`send_to_endpoint`] each one of them;
//! [`route`] does the rest.

use core::net::{IpAddr, SocketAddr};

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::{
        binding::Binding,
        endpoint::Endpoint,
        packet,
        peer::Peer,
        route::{self, Outer},
        Device,
    },
    kapi::{
        debug,
        net::{
            skbuff::{SkBuff, Skb, SkbList},
            sockaddr::Family,
            udp_tunnel::{self, UdpSocket},
        },
        sync::{
            atomic::Ordering::Relaxed,
            bh,
            rcu::{self, RcuArc},
        },
    },
    proto::Rejection,
};

/// How often another random port is tried when IPv6 refuses the one that IPv4 was given.
const PORT_RETRIES: u32 = 100;

/// The sockets of a device that is up: the same port for both families.
pub(crate) struct Sockets {
    port: u16,
    /// Absent when only an address of IPv6 is bound.
    v4: Option<UdpSocket<Device>>,
    /// Absent when only an address of IPv4 is bound, or the kernel runs without IPv6.
    v6: Option<UdpSocket<Device>>,
}

impl Sockets {
    /// Opens a pair on `port`, 0 for any.
    fn open(device: &RcuArc<Device>, port: u16, binding: &Binding) -> Result<Self> {
        let net = device.creating_net.get().ok_or(ENONET)?;
        let ifindex = match binding.interface() {
            Some(name) => net.ifindex_of(name).ok_or(ENODEV)?,
            None => 0,
        };
        let open = |addr: Option<IpAddr>, port| match addr {
            Some(addr) => {
                let addr = SocketAddr::new(addr, port);
                UdpSocket::open(&net, addr, ifindex, device.clone()).map(Some)
            }
            None => Ok(None),
        };
        let v4_addr = binding.address(Family::V4);
        let v6_addr = binding
            .address(Family::V6)
            .filter(|_| udp_tunnel::ipv6_enabled());
        let mut retries = 0;
        loop {
            let v4 = open(v4_addr, port)
                .inspect_err(|_| debug::no_socket(device.netdev(), Family::V4))?;
            let v4_port = v4.as_ref().map(UdpSocket::port);
            let error = match open(v6_addr, v4_port.unwrap_or(port)) {
                Ok(v6) => {
                    let port = v6.as_ref().map(UdpSocket::port).or(v4_port);
                    let port = port.ok_or(EAFNOSUPPORT)?;
                    return Ok(Self { port, v4, v6 });
                }
                Err(error) => error,
            };
            if let Some(v4) = v4 {
                v4.release();
            }
            if error != EADDRINUSE || port != 0 || retries == PORT_RETRIES {
                debug::no_socket(device.netdev(), Family::V6);
                return Err(error);
            }
            retries += 1;
        }
    }

    /// Closes both. Sleeps.
    pub(crate) fn release(&self) {
        match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => UdpSocket::release_all(&[v4, v6]),
            (Some(only), None) | (None, Some(only)) => only.release(),
            (None, None) => {}
        }
    }
}

/// Opens sockets on `port` (0: any) in the creating namespace and puts them in place of the ones
/// before, which stay if this fails. Process context, under the update lock.
///
/// # Errors
///
/// `ENONET` when the creating namespace is gone, `EADDRINUSE` when the port is taken; `ENODEV` and
/// `EADDRNOTAVAIL` when the interface or an address of the binding is not there.
pub(crate) fn open(device: &RcuArc<Device>, port: u16, binding: &Binding) -> Result {
    install(device, prepare(device, port, binding)?);
    Ok(())
}

/// Opens sockets for [`install`]. Process context.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn prepare(
    device: &RcuArc<Device>,
    port: u16,
    binding: &Binding,
) -> Result<RcuArc<Sockets>> {
    let sockets = Sockets::open(device, port, binding)?;
    Ok(RcuArc::new(sockets, GFP_KERNEL)?)
}

/// Puts sockets in place of the ones before. Process context, under the update lock.
pub(crate) fn install(device: &Device, sockets: RcuArc<Sockets>) {
    device.port.store(sockets.port.into(), Relaxed);
    replace(device, Some(sockets));
}

/// Closes the sockets. Process context.
pub(crate) fn close(device: &Device) {
    replace(device, None);
}

fn replace(device: &Device, new: Option<RcuArc<Sockets>>) {
    if let Some(old) = device.sockets.swap(new) {
        old.release();
    }
}

/// Sends a message that is no peer's to where another came from.
pub(crate) fn reply(device: &Device, endpoint: &Endpoint, message: &[u8]) -> Result {
    let skb = packet::from_message(message)?;
    let outer = Outer {
        bh: &bh::disable(),
        dev: device.netdev(),
        mark: device.fwmark(),
        ds: 0,
        cache: None,
        bulk_limit: None,
    };
    send_to_endpoint(device, skb, &mut endpoint.clone(), &outer)
}

/// Sends a finished message. Clears the endpoint's source if that has gone.
fn send_to_endpoint(
    device: &Device,
    skb: SkBuff,
    endpoint: &mut Endpoint,
    outer: &Outer<'_>,
) -> Result {
    let to = endpoint.remote().to_core().ok_or(EAFNOSUPPORT)?;
    let guard = rcu::read_lock();
    let sockets = device.sockets.load(&guard).ok_or(ENONET)?;
    match to {
        SocketAddr::V4(to) => {
            let socket = sockets.v4.as_ref().ok_or(ENONET)?;
            route::send4(socket, to, skb, endpoint, outer)
        }
        SocketAddr::V6(to) => {
            let socket = sockets.v6.as_ref().ok_or(ENONET)?;
            route::send6(socket, to, skb, endpoint, outer)
        }
    }
    .inspect_err(|error| debug::no_route(device.netdev(), endpoint.remote(), *error))
}

/// Sends finished messages to the peer, and gives the bytes that went out. `ds` is the traffic
/// class of each. Process or softirq context; no lock is held while a message is on its way,
/// because it may come back to another tunnel of ours.
pub(crate) fn send_to_peer(
    peer: &Peer,
    mut messages: SkbList,
    ds: impl Fn(&SkBuff) -> u8,
) -> usize {
    let device = peer.device();
    // Whoever removes the peer waits for this guard's end.
    let guard = rcu::read_lock();
    if peer.is_dead() {
        peer.discard_all(Rejection::SendGoingAway, messages);
        return 0;
    }
    let seen = peer.remote.read(&guard);
    let before = seen.endpoint();
    let mut endpoint = before;
    let (mut sent, mut sent_messages, mut failed) = (0_usize, 0_usize, 0_usize);
    // One visit of the softirq handler for the run, not one for each message: whoever
    // receives the messages on this machine gets them together then.
    let bh = bh::disable();
    let mut outer = Outer {
        bh: &bh,
        dev: device.netdev(),
        mark: device.fwmark(),
        ds: 0,
        cache: Some(&peer.route),
        bulk_limit: None,
    };
    // The limit is of interest only to who sends several at a time.
    if device.may_bulk() && (messages.len() > 1 || messages.front().is_some_and(Skb::is_gso)) {
        outer.bulk_limit = Some(&peer.tx.bulk_limit);
    }
    while let Some(skb) = messages.pop_front() {
        let (len, count) = (skb.len(), packet::messages(&skb));
        outer.ds = ds(&skb);
        if send_to_endpoint(device, skb, &mut endpoint, &outer).is_ok() {
            sent = sent.wrapping_add(len);
            sent_messages = sent_messages.wrapping_add(count);
        } else {
            failed = failed.wrapping_add(count);
        }
        outer.bulk_limit = None;
    }
    // If the endpoint moved meanwhile, the route just cached may be to the old one; and if its
    // source address was gone, the next message needs none either.
    let moved = if endpoint == before {
        peer.remote.read(&guard) != seen
    } else {
        !peer.clear_source_of(&seen, &guard)
    };
    if moved {
        peer.route.reset();
    }
    if failed != 0 {
        peer.refuse(Rejection::SendFailed, failed);
    }
    peer.tx.bytes.fetch_add(sent as u64, Relaxed);
    peer.tx.packets.fetch_add(sent_messages as u64, Relaxed);
    sent
}

/// Sends a small message, copied into a packet of its own.
pub(crate) fn send_message(peer: &Peer, message: &[u8], ds: u8) -> Result {
    send_to_peer(peer, SkbList::from(packet::from_message(message)?), |_| ds);
    Ok(())
}

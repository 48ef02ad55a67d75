// SPDX-License-Identifier: GPL-2.0-only

//! The route of a message to an endpoint, and its source address.
//!
//! A peer is answered from the address that it talks to ("sticky" source), as long as this host
//! has that address and, for IPv4, the route still leaves by the interface that it came in by. A
//! socket that is bound to an address sends from that.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use kernel::prelude::*;

use crate::{
    device::{endpoint::Endpoint, Device},
    kapi::{
        net::{
            dst_cache::DstCache,
            netdevice::NetDevice,
            route::{Route4, Route6},
            skbuff::SkBuff,
            udp_tunnel::{Sock4, Sock6, UdpSocket},
        },
        sync::{
            atomic::{AtomicU32, Ordering::Relaxed},
            bh::BhGuard,
        },
    },
};

/// How a message is sent, apart from where to.
#[derive(Clone, Copy)]
pub(crate) struct Outer<'a> {
    pub(crate) bh: &'a BhGuard,
    /// The tunnel's device, which counts the message.
    pub(crate) dev: &'a NetDevice,
    /// The mark of the outer packet, which routing takes into account.
    pub(crate) mark: u32,
    /// The traffic class of the outer packet.
    pub(crate) ds: u8,
    /// The cache of the route to the endpoint and its source address.
    pub(crate) cache: Option<&'a DstCache>,
    /// Where to note how long a message on this route may be to be sent together with others.
    pub(crate) bulk_limit: Option<&'a AtomicU32>,
}

impl Outer<'_> {
    /// Drops the source, which is of no use any more: routing chooses one.
    fn forget_source(&self, endpoint: &mut Endpoint) {
        endpoint.clear_source();
        if let Some(cache) = self.cache {
            cache.reset();
        }
    }

    fn note_bulk_limit(&self, to: IpAddr, limit: impl FnOnce() -> u32) {
        if let Some(noted) = self.bulk_limit {
            let limit = if to.is_multicast() { 0 } else { limit() };
            if noted.load(Relaxed) != limit {
                noted.store(limit, Relaxed);
            }
        }
    }
}

/// Sends a message to an IPv4 address. The endpoint's source is cleared if it is of no use any
/// more.
///
/// # Errors
///
/// `ENONET` if the socket has been released or the device is on its way out, and what routing says.
/// What happens to the packet after that is not known here.
pub(crate) fn send4(
    socket: &UdpSocket<Device>,
    to: SocketAddrV4,
    skb: SkBuff,
    endpoint: &mut Endpoint,
    outer: &Outer<'_>,
) -> Result {
    let sock = socket.v4(outer.bh).ok_or(ENONET)?;
    let dev = outer.dev.registered(outer.bh).ok_or(ENONET)?;
    let cached = outer.cache.and_then(|cache| cache.v4(outer.bh));
    let route = match cached {
        Some(route) => route,
        None => {
            let route = match socket.bound4() {
                Some(source) => Route4::lookup(sock, source, to, outer.mark)?,
                None => sticky4(sock, to, endpoint, outer)?,
            };
            if let Some(cache) = outer.cache {
                cache.set_v4(&route);
            }
            route
        }
    };
    outer.note_bulk_limit((*to.ip()).into(), || route.bulk_limit());
    sock.transmit(route, dev, skb, to, outer.mark, outer.ds);
    Ok(())
}

/// The route to an IPv4 endpoint from the address that it talks to, or else from any.
fn sticky4<'a>(
    sock: Sock4<'a>,
    to: SocketAddrV4,
    endpoint: &mut Endpoint,
    outer: &Outer<'_>,
) -> Result<Route4<'a>> {
    let lookup = |source| Route4::lookup(sock, source, to, outer.mark);

    let (mut source, ifindex) = endpoint.source4();
    if !source.is_unspecified() && !sock.is_local(source) {
        outer.forget_source(endpoint);
        source = Ipv4Addr::UNSPECIFIED;
    }
    let sticky = endpoint.source4().1 != 0;
    let mut route = lookup(source);
    let gone = match &route {
        Ok(route) => route.ifindex(sock) != ifindex,
        Err(error) => *error == EINVAL,
    };
    if sticky && gone {
        outer.forget_source(endpoint);
        route = lookup(Ipv4Addr::UNSPECIFIED);
    }
    route
}

/// Sends a message to an IPv6 address, as [`send4`].
///
/// # Errors
///
/// As [`send4`].
pub(crate) fn send6(
    socket: &UdpSocket<Device>,
    to: SocketAddrV6,
    skb: SkBuff,
    endpoint: &mut Endpoint,
    outer: &Outer<'_>,
) -> Result {
    let sock = socket.v6(outer.bh).ok_or(ENONET)?;
    let dev = outer.dev.registered(outer.bh).ok_or(ENONET)?;
    let cached = outer.cache.and_then(|cache| cache.v6(outer.bh));
    let route = match cached {
        Some(route) => route,
        None => {
            let source = match socket.bound6() {
                Some(source) => source,
                None => sticky6(sock, endpoint, outer),
            };
            let route = Route6::lookup(sock, source, to, outer.mark)?;
            if let Some(cache) = outer.cache {
                cache.set_v6(&route);
            }
            route
        }
    };
    outer.note_bulk_limit((*to.ip()).into(), || route.bulk_limit());
    sock.transmit(route, dev, skb, to, outer.mark, outer.ds);
    Ok(())
}

/// The address that an IPv6 endpoint talks to, if it is one of this host.
fn sticky6(sock: Sock6<'_>, endpoint: &mut Endpoint, outer: &Outer<'_>) -> Ipv6Addr {
    let source = endpoint.source6();
    if source.is_unspecified() || sock.is_local(source) {
        return source;
    }
    outer.forget_source(endpoint);
    Ipv6Addr::UNSPECIFIED
}

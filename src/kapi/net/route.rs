// SPDX-License-Identifier: GPL-2.0

//! The way of an encapsulated packet: source address, route, UDP and IP headers.
//!
//! A peer is answered from the address that it talks to ("sticky" source), as long as this host
//! has that address and, of IPv4, the route still leaves by the interface that it came in by.

use core::ptr;

use kernel::{error::from_err_ptr, prelude::*};

use super::{
    dst_cache::DstCache,
    endpoint::{Endpoint, Family},
    netdevice::NetDevice,
    skbuff::SkBuff,
    udp_tunnel::UdpSocket,
};
use crate::bindings;

/// The lock that keeps routes, sockets and per-CPU caches where they are.
///
/// # Invariants
///
/// While it exists, this thread is in an RCU read section with BH disabled.
struct RcuBh;

impl RcuBh {
    fn lock() -> Self {
        // SAFETY: Undone on drop.
        unsafe { bindings::wg_rcu_read_lock_bh() };
        Self
    }
}

impl Drop for RcuBh {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_rcu_read_unlock_bh() };
    }
}

/// Sends a message to an endpoint, from a socket of the endpoint's family. The endpoint's source
/// is cleared if it is of no use any more. `dev` is the tunnel's device, which counts the message;
/// `ds` the traffic class and `mark` the mark for the outer packet. Fragmentation is permitted.
///
/// Process context, softirq context or BH disabled.
///
/// # Errors
///
/// `EAFNOSUPPORT` if the endpoint has no address, `ENONET` if the socket has been released or the
/// device is on its way out, and what routing says. What happens to the packet after that is not
/// known here.
pub fn send<T>(
    socket: &UdpSocket<T>,
    dev: &NetDevice,
    skb: SkBuff,
    endpoint: &mut Endpoint,
    ds: u8,
    mark: u32,
    cache: Option<&DstCache>,
) -> Result {
    let family = endpoint.family().ok_or(EAFNOSUPPORT)?;
    let _rcu = RcuBh::lock();
    let sock = socket.sock();
    // SAFETY: The device is valid. Its counters, which transmission uses, stay until a grace
    // period after it is no longer registered.
    if sock.is_null() || !unsafe { bindings::wg_netdev_registered(dev.as_raw()) } {
        return Err(ENONET);
    }
    // SAFETY: The socket is valid during this RCU read section, BH is disabled.
    unsafe {
        match family {
            Family::V4 => send4(sock, dev, skb, endpoint, ds, mark, cache),
            Family::V6 => send6(sock, dev, skb, endpoint, ds, mark, cache),
        }
    }
}

/// # Safety
///
/// RCU read section with BH disabled; `sock` must be a valid IPv4 socket.
unsafe fn send4(
    sock: *mut bindings::sock,
    dev: &NetDevice,
    skb: SkBuff,
    endpoint: &mut Endpoint,
    ds: u8,
    mark: u32,
    cache: Option<&DstCache>,
) -> Result {
    let daddr = u32::from_ne_bytes(endpoint.addr4());
    let dport = endpoint.port_be();
    let mut saddr = 0;
    let cached = cache.map_or(ptr::null_mut(), |cache| {
        // SAFETY: BH is disabled; the cache is valid.
        cache.with(|cache| unsafe { bindings::dst_cache_get_ip4(cache, &mut saddr) })
    });
    let rt = if cached.is_null() {
        // SAFETY: As required of the caller.
        let (rt, chosen) = unsafe { route4(sock, endpoint, mark, cache) }?;
        saddr = chosen;
        rt
    } else {
        cached
    };
    // SAFETY: The route is valid, and its reference and the packet are given away.
    unsafe {
        bindings::wg_udp_xmit4(
            rt,
            sock,
            skb.into_raw(),
            dev.as_raw(),
            mark,
            saddr,
            daddr,
            dport,
            ds,
        );
    }
    Ok(())
}

/// Looks up a route to an IPv4 endpoint; gives a reference to it, and the source address.
///
/// # Safety
///
/// As [`send4`].
unsafe fn route4(
    sock: *mut bindings::sock,
    endpoint: &mut Endpoint,
    mark: u32,
    cache: Option<&DstCache>,
) -> Result<(*mut bindings::rtable, u32)> {
    let daddr = u32::from_ne_bytes(endpoint.addr4());
    let dport = endpoint.port_be();
    let forget_source = |endpoint: &mut Endpoint| {
        endpoint.clear_source();
        if let Some(cache) = cache {
            cache.reset();
        }
    };
    let lookup = |saddr| {
        let mut chosen = 0;
        // SAFETY: The socket is valid.
        let rt = unsafe { bindings::wg_route4(sock, saddr, daddr, dport, mark, &mut chosen) };
        from_err_ptr(rt).map(|rt| (rt, chosen))
    };

    let (source, ifindex) = endpoint.source4();
    let mut saddr = u32::from_ne_bytes(source);
    // SAFETY: The socket is valid.
    if saddr != 0 && !unsafe { bindings::wg_is_local4(sock, saddr) } {
        forget_source(endpoint);
        saddr = 0;
    }
    let sticky = endpoint.source4().1 != 0;
    let mut found = lookup(saddr);
    let gone = match &found {
        // SAFETY: The route is valid.
        Ok((rt, _)) => ifindex != unsafe { bindings::wg_route4_ifindex(*rt) },
        Err(error) => *error == EINVAL,
    };
    if sticky && gone {
        forget_source(endpoint);
        if let Ok((rt, _)) = found {
            // SAFETY: The reference is ours.
            unsafe { bindings::wg_route4_put(rt) };
        }
        found = lookup(0);
    }
    let (rt, chosen) = found?;
    if let Some(cache) = cache {
        // SAFETY: Both are valid; the cache takes a reference of its own.
        cache.with(|cache| unsafe { bindings::wg_dst_cache_set4(cache, rt, chosen) });
    }
    Ok((rt, chosen))
}

/// # Safety
///
/// RCU read section with BH disabled; `sock` must be a valid IPv6 socket.
unsafe fn send6(
    sock: *mut bindings::sock,
    dev: &NetDevice,
    skb: SkBuff,
    endpoint: &mut Endpoint,
    ds: u8,
    mark: u32,
    cache: Option<&DstCache>,
) -> Result {
    let daddr = in6_addr(endpoint.addr6());
    let dport = endpoint.port_be();
    let mut saddr = in6_addr([0; 16]);
    let cached = cache.map_or(ptr::null_mut(), |cache| {
        // SAFETY: BH is disabled; the cache is valid.
        cache.with(|cache| unsafe { bindings::dst_cache_get_ip6(cache, &mut saddr) })
    });
    let dst = if cached.is_null() {
        let source = endpoint.source6();
        let mut wanted = in6_addr(source);
        // SAFETY: The socket is valid.
        if source != [0; 16] && !unsafe { bindings::wg_is_local6(sock, &wanted) } {
            endpoint.clear_source();
            if let Some(cache) = cache {
                cache.reset();
            }
            wanted = in6_addr([0; 16]);
        }
        // SAFETY: The socket is valid.
        let dst = from_err_ptr(unsafe {
            bindings::wg_route6(
                sock,
                &wanted,
                &daddr,
                dport,
                mark,
                endpoint.scope_id(),
                &mut saddr,
            )
        })?;
        if let Some(cache) = cache {
            // SAFETY: Both are valid; the cache takes a reference of its own.
            cache.with(|cache| unsafe { bindings::dst_cache_set_ip6(cache, dst, &saddr) });
        }
        dst
    } else {
        cached
    };
    // SAFETY: The route is valid, and its reference and the packet are given away.
    unsafe {
        bindings::wg_udp_xmit6(
            dst,
            sock,
            skb.into_raw(),
            dev.as_raw(),
            mark,
            &saddr,
            &daddr,
            dport,
            ds,
        );
    }
    Ok(())
}

fn in6_addr(octets: [u8; 16]) -> bindings::in6_addr {
    let mut addr = bindings::in6_addr::default();
    addr.in6_u.u6_addr8 = octets;
    addr
}

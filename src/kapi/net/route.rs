// SPDX-License-Identifier: GPL-2.0-only

//! Routes of UDP datagrams.
//!
//! C headers: [`include/net/route.h`](srctree/include/net/route.h),
//! [`include/net/ip6_route.h`](srctree/include/net/ip6_route.h)

use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
};

use kernel::{error::from_err_ptr, prelude::*};

use super::udp_tunnel::{Sock4, Sock6};
use crate::{bindings, kapi::sync::bh::BhGuard};

/// A route to an IPv4 address, and the source address that goes with it.
///
/// # Invariants
///
/// The route is valid, and this has a reference to it. During `'a` bottom halves are disabled.
pub struct Route4<'a> {
    rt: *mut bindings::rtable,
    source: Ipv4Addr,
    _bh: PhantomData<&'a BhGuard>,
}

impl<'a> Route4<'a> {
    /// Takes over a reference of C.
    ///
    /// # Safety
    ///
    /// The reference is to a valid route, and the caller gives it up. Bottom halves are disabled
    /// during `'a`.
    #[inline]
    pub(super) unsafe fn from_raw(rt: *mut bindings::rtable, source: Ipv4Addr) -> Self {
        // INVARIANT: The requirements of this function.
        Self {
            rt,
            source,
            _bh: PhantomData,
        }
    }

    /// Looks up the route of a datagram from a socket. `source` may be unspecified: routing chooses
    /// one then.
    ///
    /// # Errors
    ///
    /// What routing says: `EINVAL` if `source` is not an address of this host, `ENETUNREACH`, ….
    pub fn lookup(sock: Sock4<'a>, source: Ipv4Addr, to: SocketAddrV4, mark: u32) -> Result<Self> {
        let mut chosen = 0;
        // SAFETY: The socket is valid by its type invariant.
        let rt = from_err_ptr(unsafe {
            bindings::wg_route4(
                sock.as_raw(),
                be32(source),
                be32(*to.ip()),
                to.port().to_be(),
                mark,
                &mut chosen,
            )
        })?;
        let source = chosen.to_ne_bytes().into();
        // SAFETY: Routing gives a reference; the socket's lifetime says that BH is disabled.
        Ok(unsafe { Self::from_raw(rt, source) })
    }

    /// The source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.source
    }

    /// The index of the interface that the route leaves by; that of its VRF if `sock`, by which the
    /// route was looked up, is bound to that.
    #[inline]
    pub fn ifindex(&self, sock: Sock4<'a>) -> i32 {
        // SAFETY: The route is valid by the type invariant, and its device until the end of this
        // RCU read section; the socket by its own.
        unsafe { bindings::wg_route4_ifindex(self.rt, sock.as_raw()) }
    }

    /// Bytes of UDP payload that a datagram may have to be sent on this route as part of a packet
    /// that stands for many ([`UdpBulk`](super::skbuff::UdpBulk)); 0 if none may be.
    #[inline]
    pub fn bulk_limit(&self) -> u32 {
        // SAFETY: The route is valid by the type invariant, and its device until the end of this
        // RCU read section.
        unsafe { bindings::wg_route4_bulk_limit(self.rt) }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::rtable {
        self.rt
    }

    /// Hands the reference over to C.
    #[inline]
    pub(super) fn into_raw(self) -> *mut bindings::rtable {
        ManuallyDrop::new(self).rt
    }
}

impl Drop for Route4<'_> {
    fn drop(&mut self) {
        // SAFETY: The reference is ours by the type invariant.
        unsafe { bindings::wg_route4_put(self.rt) };
    }
}

/// A route to an IPv6 address, and the source address that goes with it.
///
/// # Invariants
///
/// The route is valid, and this has a reference to it. During `'a` bottom halves are disabled.
pub struct Route6<'a> {
    dst: *mut bindings::dst_entry,
    source: bindings::in6_addr,
    _bh: PhantomData<&'a BhGuard>,
}

impl<'a> Route6<'a> {
    /// Takes over a reference of C.
    ///
    /// # Safety
    ///
    /// As [`Route4::from_raw`].
    #[inline]
    pub(super) unsafe fn from_raw(
        dst: *mut bindings::dst_entry,
        source: bindings::in6_addr,
    ) -> Self {
        // INVARIANT: The requirements of this function.
        Self {
            dst,
            source,
            _bh: PhantomData,
        }
    }

    /// As [`Route4::lookup`]. The scope of `to` is the interface that the route has to leave by.
    ///
    /// # Errors
    ///
    /// As [`Route4::lookup`].
    pub fn lookup(sock: Sock6<'a>, source: Ipv6Addr, to: SocketAddrV6, mark: u32) -> Result<Self> {
        let mut chosen = bindings::in6_addr::default();
        // SAFETY: The socket is valid by its type invariant, the addresses during the call.
        let dst = from_err_ptr(unsafe {
            bindings::wg_route6(
                sock.as_raw(),
                &in6_addr(source),
                &in6_addr(*to.ip()),
                to.port().to_be(),
                mark,
                to.scope_id() as i32,
                &mut chosen,
            )
        })?;
        // SAFETY: Routing gives a reference; the socket's lifetime says that BH is disabled.
        Ok(unsafe { Self::from_raw(dst, chosen) })
    }

    /// The source address.
    #[inline]
    pub(super) fn source(&self) -> &bindings::in6_addr {
        &self.source
    }

    /// As [`Route4::bulk_limit`].
    #[inline]
    pub fn bulk_limit(&self) -> u32 {
        // SAFETY: The route is valid by the type invariant, and its device until the end of this
        // RCU read section.
        unsafe { bindings::wg_route6_bulk_limit(self.dst) }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::dst_entry {
        self.dst
    }

    /// Hands the reference over to C.
    #[inline]
    pub(super) fn into_raw(self) -> *mut bindings::dst_entry {
        ManuallyDrop::new(self).dst
    }
}

impl Drop for Route6<'_> {
    fn drop(&mut self) {
        // SAFETY: The reference is ours by the type invariant.
        unsafe { bindings::dst_release(self.dst) };
    }
}

/// An IPv4 address as C has it.
#[inline]
pub(super) fn be32(addr: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(addr.octets())
}

/// An IPv6 address as C has it.
#[inline]
pub(super) fn in6_addr(addr: Ipv6Addr) -> bindings::in6_addr {
    let mut raw = bindings::in6_addr::default();
    raw.in6_u.u6_addr8 = addr.octets();
    raw
}

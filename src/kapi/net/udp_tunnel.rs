// SPDX-License-Identifier: GPL-2.0-only

//! UDP sockets of a tunnel, and sending from them.
//!
//! C header: [`include/net/udp_tunnel.h`](srctree/include/net/udp_tunnel.h)

use core::{
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ptr::{self, NonNull},
};

use kernel::{error::to_result, prelude::*};

use super::{
    namespace::NetRef,
    netdevice::RegisteredDevice,
    route::{be32, in6_addr, Route4, Route6},
    skbuff::SkBuff,
};
use crate::{
    bindings,
    kapi::sync::{
        atomic::{AtomicPtr, Ordering},
        bh::BhGuard,
        rcu::{self, RcuArc, RcuRef},
    },
};

/// The receiver of the datagrams of a tunnel's sockets.
pub trait UdpReceive: Send + Sync + Sized + 'static {
    /// Takes a datagram with valid UDP checksum, from behind its UDP header on; the outer headers
    /// are linear. It may stand for many datagrams of one sender: see [`Skb::pieces`]. Softirq
    /// context or BH disabled; under RCU, which keeps `this` valid.
    ///
    /// [`Skb::pieces`]: super::skbuff::Skb::pieces
    fn receive(this: RcuRef<'_, Self>, skb: SkBuff);
}

/// Packets that one notice of the stack takes off the socket at most. The stack gives a notice for
/// each packet, so that one is what there is, but for what came before the socket was set up.
const RECEIVE_PACKETS: usize = 16;

/// Whether IPv6 is enabled in this kernel.
pub fn ipv6_enabled() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::wg_ipv6_enabled() }
}

/// A kernel UDP socket for a tunnel.
///
/// It is owned by the tunnel, to which it has a reference in turn until it is released.
///
/// # Invariants
///
/// `sock` is null after the release; until then it is a socket of the family of `local`, made by
/// [`UdpSocket::open`], with `_owner` as its user data. It is closed a grace period after it has
/// become null.
pub struct UdpSocket<T> {
    sock: AtomicPtr<bindings::sock>,
    /// What it is bound to.
    local: SocketAddr,
    _owner: RcuArc<T>,
}

impl<T: UdpReceive> UdpSocket<T> {
    /// Opens a socket on an address and a port (0 for any that is free) in a namespace, for that
    /// family only; an unspecified address stands for all. If `ifindex` is not 0, it is for packets
    /// of that interface alone. Process context.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` when the port is taken, `EADDRNOTAVAIL` when the host has not that address, and
    /// what else binding a socket can say.
    pub fn open(net: &NetRef, local: SocketAddr, ifindex: u32, owner: RcuArc<T>) -> Result<Self> {
        let mut sock = ptr::null_mut();
        let (addr4, addr6) = match local.ip() {
            IpAddr::V4(addr) => (be32(addr), None),
            IpAddr::V6(addr) => (0, Some(in6_addr(addr))),
        };
        let addr6 = addr6.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: The namespace is valid, the address during the call. The owner is valid for as
        // long as the socket refers to it, and a grace period longer, as the socket has a reference
        // of its own.
        to_result(unsafe {
            bindings::wg_udp_sock_create(
                net.as_raw(),
                addr4,
                addr6,
                local.port().to_be(),
                ifindex as i32,
                RcuArc::as_ptr(&owner).cast_mut().cast(),
                Some(Self::receive),
                &mut sock,
            )
        })?;
        // SAFETY: The socket has just been made.
        let port = u16::from_be(unsafe { bindings::wg_sock_port(sock) });
        // INVARIANT: As just done.
        Ok(Self {
            sock: AtomicPtr::new(sock),
            local: SocketAddr::new(local.ip(), port),
            _owner: owner,
        })
    }

    /// # Safety
    ///
    /// For C, as `sk_data_ready` of a socket of [`UdpSocket::open`].
    unsafe extern "C" fn receive(sock: *mut bindings::sock) {
        // SAFETY: The socket is valid during the call, which is under RCU.
        let owner = unsafe { bindings::wg_sock_owner(sock) };
        if owner.is_null() {
            return;
        }
        for _ in 0..RECEIVE_PACKETS {
            // SAFETY: The socket is valid, and this is softirq context.
            let skb = unsafe { bindings::wg_udp_recv(sock) };
            let Some(skb) = NonNull::new(skb) else { return };
            // SAFETY: The stack gives the packet away.
            let skb = unsafe { SkBuff::from_raw(skb) };
            // SAFETY: The user data of our sockets is the object of an `RcuArc<T>`. The socket
            // gives its reference up only after it has cleared the user data, so that the object
            // is there until the end of this RCU read section at least.
            T::receive(unsafe { RcuRef::from_raw(owner.cast()) }, skb);
        }
    }
}

impl<T> UdpSocket<T> {
    /// The local port in host byte order.
    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// The IPv4 address that the socket is bound to, if it is.
    #[inline]
    pub fn bound4(&self) -> Option<Ipv4Addr> {
        match self.local.ip() {
            IpAddr::V4(addr) if !addr.is_unspecified() => Some(addr),
            _ => None,
        }
    }

    /// The IPv6 address that the socket is bound to, if it is.
    #[inline]
    pub fn bound6(&self) -> Option<Ipv6Addr> {
        match self.local.ip() {
            IpAddr::V6(addr) if !addr.is_unspecified() => Some(addr),
            _ => None,
        }
    }

    /// The socket, to send from; [`None`] if it is not for IPv4 or has been released.
    #[inline]
    pub fn v4<'a>(&self, _bh: &'a BhGuard) -> Option<Sock4<'a>> {
        let sock = self.sock.load(Ordering::Acquire);
        // INVARIANT: By the type invariant it is valid until the end of this RCU read section.
        (self.local.is_ipv4() && !sock.is_null()).then_some(Sock4(sock, PhantomData))
    }

    /// The socket, to send from; [`None`] if it is not for IPv6 or has been released.
    #[inline]
    pub fn v6<'a>(&self, _bh: &'a BhGuard) -> Option<Sock6<'a>> {
        let sock = self.sock.load(Ordering::Acquire);
        // INVARIANT: By the type invariant it is valid until the end of this RCU read section.
        (self.local.is_ipv6() && !sock.is_null()).then_some(Sock6(sock, PhantomData))
    }

    /// Closes the socket, after all who are sending on it or receiving from it have left. Sleeps.
    pub fn release(&self) {
        Self::release_all(&[self]);
    }

    /// Closes sockets, with one wait for all of them. Sleeps.
    pub fn release_all(sockets: &[&Self]) {
        const MAX: usize = 2;
        for sockets in sockets.chunks(MAX) {
            let mut closing = [ptr::null_mut(); MAX];
            for (sock, socket) in closing.iter_mut().zip(sockets) {
                *sock = socket.sock.swap(ptr::null_mut(), Ordering::AcqRel);
            }
            if closing.iter().all(|sock| sock.is_null()) {
                continue;
            }
            for sock in closing.into_iter().filter(|sock| !sock.is_null()) {
                // SAFETY: By the type invariant it is ours, and nobody else has closed it.
                unsafe { bindings::wg_udp_sock_unhash(sock) };
            }
            rcu::synchronize_net();
            for sock in closing.into_iter().filter(|sock| !sock.is_null()) {
                // SAFETY: As above, and no sender can have it now, nor anybody be receiving: it was
                // unhashed before the grace period.
                unsafe { bindings::wg_udp_sock_release(sock) };
            }
        }
    }
}

impl<T> Drop for UdpSocket<T> {
    fn drop(&mut self) {
        if self.sock.get_mut().is_null() {
            return;
        }
        // SAFETY: No requirements.
        if unsafe { bindings::wg_in_task() } {
            self.release();
        } else {
            // Closing sleeps. Better leaked than that; but it must find no owner any more.
            pr_err!("a tunnel socket was dropped before its release\n");
            let sock = self.sock.swap(ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: The socket is valid.
            unsafe { bindings::wg_sock_disown(sock) };
        }
    }
}

/// An IPv4 UDP socket, to send from.
///
/// # Invariants
///
/// During `'a` the socket is valid and bottom halves are disabled.
#[derive(Clone, Copy)]
pub struct Sock4<'a>(*mut bindings::sock, PhantomData<&'a BhGuard>);

impl<'a> Sock4<'a> {
    #[inline]
    pub(super) fn as_raw(self) -> *mut bindings::sock {
        self.0
    }

    /// Whether an address is one of this host, in the socket's namespace.
    #[inline]
    pub fn is_local(self, addr: Ipv4Addr) -> bool {
        // SAFETY: The socket is valid by the type invariant.
        unsafe { bindings::wg_is_local4(self.0, be32(addr)) }
    }

    /// Sends `skb` as a UDP datagram. `dev` is the tunnel's device, which counts it; `mark` and
    /// `ds` are the mark and the traffic class of the outer packet, which may be fragmented. What
    /// happens to it is not known here.
    #[inline]
    pub fn transmit(
        self,
        route: Route4<'a>,
        dev: RegisteredDevice<'a>,
        skb: SkBuff,
        to: SocketAddrV4,
        mark: u32,
        ds: u8,
    ) {
        let source = be32(route.source());
        // SAFETY: Socket and device are valid by their type invariants, and BH is disabled. The
        // reference to the route and the packet are given away.
        unsafe {
            bindings::wg_udp_xmit4(
                route.into_raw(),
                self.0,
                skb.into_raw(),
                dev.as_raw(),
                mark,
                source,
                be32(*to.ip()),
                to.port().to_be(),
                ds,
            );
        }
    }
}

/// An IPv6 UDP socket, to send from.
///
/// # Invariants
///
/// During `'a` the socket is valid and bottom halves are disabled.
#[derive(Clone, Copy)]
pub struct Sock6<'a>(*mut bindings::sock, PhantomData<&'a BhGuard>);

impl<'a> Sock6<'a> {
    #[inline]
    pub(super) fn as_raw(self) -> *mut bindings::sock {
        self.0
    }

    /// Whether an address is one of this host, in the socket's namespace.
    #[inline]
    pub fn is_local(self, addr: Ipv6Addr) -> bool {
        // SAFETY: The socket is valid by the type invariant, the address during the call.
        unsafe { bindings::wg_is_local6(self.0, &in6_addr(addr)) }
    }

    /// As [`Sock4::transmit`].
    #[inline]
    pub fn transmit(
        self,
        route: Route6<'a>,
        dev: RegisteredDevice<'a>,
        skb: SkBuff,
        to: SocketAddrV6,
        mark: u32,
        ds: u8,
    ) {
        let source = *route.source();
        // SAFETY: Socket and device are valid by their type invariants, and BH is disabled; the
        // addresses are valid during the call. The reference to the route and the packet are given
        // away.
        unsafe {
            bindings::wg_udp_xmit6(
                route.into_raw(),
                self.0,
                skb.into_raw(),
                dev.as_raw(),
                mark,
                &source,
                &in6_addr(*to.ip()),
                to.port().to_be(),
                ds,
            );
        }
    }
}

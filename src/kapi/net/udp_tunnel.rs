// SPDX-License-Identifier: GPL-2.0

//! UDP sockets of a tunnel.
//!
//! C header: [`include/net/udp_tunnel.h`](srctree/include/net/udp_tunnel.h)

use core::{
    ffi::c_int,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, Ordering},
};

use kernel::{error::to_result, prelude::*};

use super::{endpoint::Family, namespace::NetRef, skbuff::SkBuff};
use crate::{
    bindings,
    kapi::sync::rcu::{self, RcuArc, RcuRef},
};

/// Who receives the datagrams of a tunnel's sockets.
pub trait EncapReceive: Send + Sync + Sized + 'static {
    /// Takes a datagram with valid UDP checksum, from its UDP header on. Softirq context or BH
    /// disabled; under RCU, which is what keeps `this`.
    fn receive(this: RcuRef<'_, Self>, skb: SkBuff);
}

/// Whether this kernel runs with IPv6.
pub fn ipv6_enabled() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::wg_ipv6_enabled() }
}

/// A kernel UDP socket for a tunnel.
///
/// Owned by whoever tunnels, and owning a reference to it in turn until it is released.
///
/// # Invariants
///
/// `sock` is null after the release; until then it is a socket made by [`UdpSocket::open`], with
/// `owner` as its user data. It is closed a grace period after it has become null.
pub struct UdpSocket<T> {
    sock: AtomicPtr<bindings::sock>,
    port: u16,
    owner: RcuArc<T>,
}

impl<T: EncapReceive> UdpSocket<T> {
    /// Opens a socket on a port (host byte order; 0 for any that is free) of all addresses of the
    /// family, and that family only, in a namespace. Process context.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` when the port is taken, and what else binding a socket can say.
    pub fn open(net: &NetRef, family: Family, port: u16, owner: RcuArc<T>) -> Result<Self> {
        let mut sock = ptr::null_mut();
        // SAFETY: The namespace is valid. The owner is valid for as long as the socket refers to
        // it, and a grace period longer, as the socket has a reference of its own.
        to_result(unsafe {
            bindings::wg_udp_sock_create(
                net.as_raw(),
                family == Family::V6,
                port.to_be(),
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
            port,
            owner,
        })
    }

    /// # Safety
    ///
    /// For C, as `encap_rcv` of a socket of [`UdpSocket::open`].
    unsafe extern "C" fn receive(sock: *mut bindings::sock, skb: *mut bindings::sk_buff) -> c_int {
        let Some(skb) = NonNull::new(skb) else {
            return 0;
        };
        // SAFETY: The stack gives the packet away.
        let skb = unsafe { SkBuff::from_raw(skb) };
        // SAFETY: The socket is valid during the call, which is under RCU.
        let owner = unsafe { bindings::wg_sock_owner(sock) };
        if !owner.is_null() {
            // SAFETY: The user data of our sockets is the object of an `RcuArc<T>`. The socket
            // gives its reference up only after it has cleared the user data, so that the object
            // is there until the end of this RCU read section at least.
            T::receive(unsafe { RcuRef::from_raw(owner.cast()) }, skb);
        }
        0
    }
}

impl<T> UdpSocket<T> {
    /// The local port in host byte order.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The owner that the socket was opened with.
    pub fn owner(&self) -> &RcuArc<T> {
        &self.owner
    }

    /// The socket, if it has not been released. Valid until the end of the RCU read section that
    /// the caller is in.
    #[inline]
    pub(super) fn sock(&self) -> *mut bindings::sock {
        self.sock.load(Ordering::Acquire)
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
            rcu::synchronize_net();
            for sock in closing.into_iter().filter(|sock| !sock.is_null()) {
                // SAFETY: By the type invariant it is ours, and nobody else has closed it. No
                // sender can have it now.
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

// SPDX-License-Identifier: GPL-2.0

//! The way of a finished message to its peer, and where the peer is.

use core::sync::atomic::Ordering::Relaxed;

use kernel::prelude::*;

use crate::{
    device::{peer::Peer, receive, Device},
    kapi::{
        net::{endpoint::Endpoint, skbuff::SkBuff, udp_tunnel::EncapReceive},
        sync::rcu::{RcuArc, RcuRef},
    },
};

impl EncapReceive for Device {
    fn receive(this: RcuRef<'_, Self>, skb: SkBuff) {
        receive::receive(&this, skb);
    }
}

impl Device {
    /// Opens sockets on `port` (0: any) in the creating namespace and puts them in place of the
    /// ones before, which stay if this fails. Process context, under the update lock.
    ///
    /// # Errors
    ///
    /// `ENONET` when the creating namespace is gone, `EADDRINUSE` when the port is taken.
    pub(crate) fn open_sockets(this: &RcuArc<Self>, port: u16) -> Result {
        let net = this.creating_net.get().ok_or(ENONET)?;
        let port = this.sockets.open(&net, port, this)?;
        this.port.store(port.into(), Relaxed);
        Ok(())
    }

    /// Sends a message that is no peer's to where another came from.
    pub(crate) fn reply_to(&self, endpoint: &Endpoint, message: &[u8]) -> Result {
        let mut endpoint = *endpoint;
        self.sockets.send(
            &self.netdev,
            SkBuff::with_payload(message)?,
            &mut endpoint,
            0,
            self.fwmark(),
            None,
        )
    }
}

impl Peer {
    /// Sends a finished message to the peer. Process or softirq context; no lock is held while it
    /// is on its way, because the packet may come back to another tunnel of ours.
    ///
    /// # Errors
    ///
    /// `EAFNOSUPPORT` without an endpoint, `ENONET` without sockets, and what routing says.
    pub(crate) fn send_skb(&self, skb: SkBuff, ds: u8) -> Result {
        let device = self.device();
        let len = skb.len();
        let (mut endpoint, version) = {
            let remote = self.remote.lock();
            (remote.endpoint, remote.version)
        };
        let before = endpoint;
        let sent = device.sockets.send(
            device.netdev(),
            skb,
            &mut endpoint,
            ds,
            device.fwmark(),
            Some(&self.route),
        );
        let mut remote = self.remote.lock();
        if remote.version != version {
            // The endpoint moved meanwhile: the route just cached may be to the old one.
            self.route.reset();
        } else if endpoint != before {
            // Its source address was gone.
            remote.endpoint = endpoint;
        }
        drop(remote);
        if sent.is_ok() {
            self.tx_bytes.fetch_add(len as u64, Relaxed);
        }
        sent
    }

    /// Sends a small message, copied into a packet of its own.
    pub(crate) fn send_message(&self, message: &[u8], ds: u8) -> Result {
        self.send_skb(SkBuff::with_payload(message)?, ds)
    }

    /// Whether it is known where the peer is.
    pub(crate) fn has_endpoint(&self) -> bool {
        self.remote.lock().endpoint.family().is_some()
    }

    /// Where the peer is, and which source address reaches it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.remote.lock().endpoint
    }

    /// Moves the peer to the place an authenticated message came from; or, without a source, to
    /// where the user says it is.
    pub(crate) fn roam(&self, endpoint: &Endpoint) {
        let mut remote = self.remote.lock();
        if *endpoint != remote.endpoint {
            remote.endpoint = *endpoint;
            remote.version = remote.version.wrapping_add(1);
            self.route.reset();
        }
    }

    /// Forgets the source address and interface, to be chosen by routing again.
    pub(crate) fn clear_source(&self) {
        let mut remote = self.remote.lock();
        remote.endpoint.clear_src();
        remote.version = remote.version.wrapping_add(1);
        self.route.reset_now();
    }
}

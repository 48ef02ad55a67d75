// SPDX-License-Identifier: GPL-2.0

//! The way of a finished message to its peer, and where the peer is.

use core::sync::atomic::Ordering::Relaxed;

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::{peer::Peer, receive, Device},
    kapi::{
        debug::{self, DevEvent, PeerEvent},
        net::{
            dst_cache::DstCache,
            endpoint::{Endpoint, Family},
            route,
            skbuff::{SkBuff, SkbList},
            udp_tunnel::{self, EncapReceive, UdpSocket},
        },
        sync::{
            bh,
            rcu::{self, RcuArc, RcuRef},
        },
    },
};

/// How often another random port is tried when IPv6 refuses the one that IPv4 was given.
const PORT_RETRIES: u32 = 100;

/// The sockets of a device that is up: the same port for both families.
pub(crate) struct Sockets {
    v4: UdpSocket<Device>,
    /// Absent when the kernel runs without IPv6.
    v6: Option<UdpSocket<Device>>,
}

impl Sockets {
    /// Opens a pair on `port`, 0 for any.
    fn open(device: &RcuArc<Device>, port: u16) -> Result<Self> {
        let net = device.creating_net.get().ok_or(ENONET)?;
        let mut retries = 0;
        loop {
            let v4 = UdpSocket::open(&net, Family::V4, port, device.clone()).inspect_err(|_| {
                debug::dev(device.netdev(), DevEvent::NoSocketV4);
            })?;
            if !udp_tunnel::ipv6_enabled() {
                return Ok(Self { v4, v6: None });
            }
            match UdpSocket::open(&net, Family::V6, v4.port(), device.clone()) {
                Ok(v6) => return Ok(Self { v4, v6: Some(v6) }),
                Err(EADDRINUSE) if port == 0 && retries < PORT_RETRIES => {
                    v4.release();
                    retries += 1;
                }
                Err(error) => {
                    v4.release();
                    debug::dev(device.netdev(), DevEvent::NoSocketV6);
                    return Err(error);
                }
            }
        }
    }

    /// Closes both. Sleeps.
    fn release(&self) {
        match &self.v6 {
            Some(v6) => UdpSocket::release_all(&[&self.v4, v6]),
            None => self.v4.release(),
        }
    }

    fn of(&self, family: Family) -> Option<&UdpSocket<Device>> {
        match family {
            Family::V4 => Some(&self.v4),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

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
        let sockets = RcuArc::new(Sockets::open(this, port)?, GFP_KERNEL)?;
        this.port.store(sockets.v4.port().into(), Relaxed);
        this.replace_sockets(Some(sockets));
        Ok(())
    }

    /// Closes the sockets. Process context.
    pub(crate) fn close_sockets(&self) {
        self.replace_sockets(None);
    }

    fn replace_sockets(&self, new: Option<RcuArc<Sockets>>) {
        if let Some(old) = self.sockets.swap(new) {
            old.release();
        }
    }

    /// Sends a message that is no peer's to where another came from.
    pub(crate) fn reply_to(&self, endpoint: &Endpoint, message: &[u8]) -> Result {
        let mut endpoint = *endpoint;
        self.transmit(SkBuff::with_payload(message)?, &mut endpoint, 0, None)
    }

    /// Sends a finished message. Clears the endpoint's source if that has gone.
    fn transmit(
        &self,
        skb: SkBuff,
        endpoint: &mut Endpoint,
        ds: u8,
        cache: Option<&DstCache>,
    ) -> Result {
        let family = endpoint.family().ok_or(EAFNOSUPPORT)?;
        let guard = rcu::read_lock();
        let sockets = self.sockets.load(&guard).ok_or(ENONET)?;
        let socket = sockets.of(family).ok_or(ENONET)?;
        route::send(
            socket,
            self.netdev(),
            skb,
            endpoint,
            ds,
            self.fwmark(),
            cache,
        )
        .inspect_err(|error| debug::no_route(self.netdev(), endpoint, *error))
    }
}

impl Peer {
    /// Sends finished messages to the peer, and gives the bytes that went out. `ds` is the traffic
    /// class of each. Process or softirq context; no lock is held while a message is on its way,
    /// because it may come back to another tunnel of ours.
    pub(crate) fn send(&self, mut messages: SkbList, ds: impl Fn(&SkBuff) -> u8) -> usize {
        let device = self.device();
        let (mut endpoint, version) = {
            let remote = self.remote.lock();
            (remote.endpoint, remote.version)
        };
        let before = endpoint;
        let mut sent = 0_usize;
        // One visit of the softirq handler for the run, not one for each message: whoever
        // receives the messages on this machine gets them together then.
        let _bh = bh::disable();
        while let Some(skb) = messages.pop_front() {
            let (len, ds) = (skb.len(), ds(&skb));
            if device
                .transmit(skb, &mut endpoint, ds, Some(&self.route))
                .is_ok()
            {
                sent = sent.wrapping_add(len);
            }
        }
        let mut remote = self.remote.lock();
        if remote.version != version {
            // The endpoint moved meanwhile: the route just cached may be to the old one.
            self.route.reset();
        } else if endpoint != before {
            // Its source address was gone.
            remote.endpoint = endpoint;
        }
        drop(remote);
        self.tx_bytes.fetch_add(sent as u64, Relaxed);
        sent
    }

    /// Sends a small message, copied into a packet of its own.
    pub(crate) fn send_message(&self, message: &[u8], ds: u8) -> Result {
        self.send(SkbList::from(SkBuff::with_payload(message)?), |_| ds);
        Ok(())
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
        if *endpoint == remote.endpoint {
            return;
        }
        let moved = endpoint.sockaddr_bytes() != remote.endpoint.sockaddr_bytes();
        remote.endpoint = *endpoint;
        remote.version = remote.version.wrapping_add(1);
        self.route.reset();
        drop(remote);
        if moved {
            debug::peer(self.netdev(), PeerEvent::Roamed, self.id(), Some(endpoint));
        }
    }

    /// Forgets the source address and interface, to be chosen by routing again.
    pub(crate) fn clear_source(&self) {
        let mut remote = self.remote.lock();
        remote.endpoint.clear_source();
        remote.version = remote.version.wrapping_add(1);
        self.route.reset_now();
    }
}

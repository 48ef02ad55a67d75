// SPDX-License-Identifier: GPL-2.0-only
//! Floods of handshake messages that cost the sender little: initiations with a right mac1 and
//! random content, made in advance, many by one system call.

use super::netns::Netns;
use super::noise::{cookie, handshake::INITIATION};
use super::traffic::{set_option, udp};
use super::wgdev::Key;
use anyhow::Result;
use std::net::{SocketAddr, UdpSocket};

/// Messages of one burst, which is one system call.
pub const BURST: usize = 32;
/// Different bursts; they are sent again and again.
const BURSTS: usize = 16;

/// A socket and the bursts that it sends.
pub struct Flooder {
    socket: UdpSocket,
    bursts: Vec<Vec<u8>>,
    next: usize,
}

impl Flooder {
    /// Sends from `from` in `ns` to the device at `to`, whose public key is `key`.
    pub fn new(ns: &Netns, from: SocketAddr, to: SocketAddr, key: &Key) -> Result<Self> {
        let message = || {
            let mut message = vec![1, 0, 0, 0];
            message.extend((0..112).map(|_| rand::random::<u8>()));
            message.extend(cookie::mac1(&message, key));
            message.extend([0; 16]);
            message
        };
        let socket = udp(ns, from)?;
        socket.connect(to)?;
        set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, INITIATION as i32)?;
        let burst = || (0..BURST).flat_map(|_| message()).collect();
        Ok(Flooder {
            socket,
            bursts: (0..BURSTS).map(|_| burst()).collect(),
            next: 0,
        })
    }

    /// Sends [`BURST`] messages; false if the kernel did not take them.
    pub fn burst(&mut self) -> bool {
        self.next = (self.next + 1) % BURSTS;
        self.bursts
            .get(self.next)
            .is_some_and(|burst| self.socket.send(burst).is_ok())
    }
}

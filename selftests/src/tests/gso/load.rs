// SPDX-License-Identifier: GPL-2.0-only
//! Bulk traffic between two namespaces, all of whose content is compared.

use super::receive::next_heard;
use super::APP;
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::pace::{amount, slow};
use harness::topo::inner;
use harness::traffic::{pattern, set_option, tcp, udp};
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// No progress for so long is a failure.
const STALL: Duration = Duration::from_secs(10);
/// Datagrams that are sent together.
const TOGETHER: usize = 40;

/// What passes in each direction.
#[derive(Clone, Copy)]
pub struct Load {
    /// Bytes over TCP.
    pub stream: u64,
    /// Length of a datagram.
    pub datagram: usize,
    /// How often [`TOGETHER`] of them are sent.
    pub sends: usize,
}

/// Enough for many packets of 64 KiB.
pub const USUAL: Load = Load {
    stream: 1 << 18,
    datagram: 1150,
    sends: 2,
};

impl Load {
    /// Passes from each tunnel end to the other: one way over IPv4, back over IPv6.
    pub fn pass(&self, ends: [&Netns; 2]) -> Result<()> {
        for (n, v6) in [(0, false), (1, true)] {
            let to = inner(v6, 1 - n);
            let [from, into] = [n, 1 - n].map(|n| ends[usize::from(n)]);
            let at = SocketAddr::new(to, APP);
            tcp(from, into, at, amount(self.stream, 1 << 17), STALL)
                .with_context(|| format!("from end {n} to {to}"))?;
        }
        self.pass_datagrams(ends, [false, true])
    }

    /// The same, of datagrams only, each way to a socket that takes many at once or not.
    pub fn pass_datagrams(&self, ends: [&Netns; 2], takes_many: [bool; 2]) -> Result<()> {
        for (n, v6) in [(0, false), (1, true)] {
            let [from, into] = [n, 1 - n].map(|n| (ends[usize::from(n)], inner(v6, n)));
            self.datagrams(from, into, takes_many[usize::from(v6)])
                .with_context(|| format!("from end {n} to {}", into.1))?;
        }
        Ok(())
    }

    /// Datagrams that are sent together arrive, each as it was, once, and in order; `takes_many`:
    /// read by a socket that takes many at once.
    fn datagrams(
        &self,
        (from, source): (&Netns, IpAddr),
        (into, to): (&Netns, IpAddr),
        takes_many: bool,
    ) -> Result<()> {
        let to = SocketAddr::new(to, APP + 1);
        let sink = udp(into, to)?;
        setsockopt(&sink, sockopt::RcvBufForce, &(8 << 20))?;
        set_option(&sink, libc::SOL_UDP, libc::UDP_GRO, takes_many.into())?;
        sink.set_read_timeout(Some(slow(STALL)))?;
        let socket = udp(from, SocketAddr::new(source, APP + 1))?;
        set_option(
            &socket,
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            self.datagram as i32,
        )?;
        for n in 0..self.sends {
            let data = pattern(1 + n as u64, TOGETHER * self.datagram);
            ensure!(socket.send_to(&data, to)? == data.len(), "not all sent");
            let mut arrived = Vec::new();
            while arrived.len() < TOGETHER {
                let Some(got) = next_heard(&sink) else { break };
                let place = |got: &Vec<u8>| data.chunks(self.datagram).position(|sent| sent == got);
                arrived.extend(got.iter().map(place));
            }
            let is_right = arrived.iter().copied().eq((0..TOGETHER).map(Some));
            ensure!(is_right, "of datagrams 0 to {TOGETHER} came {arrived:?}");
        }
        Ok(())
    }
}

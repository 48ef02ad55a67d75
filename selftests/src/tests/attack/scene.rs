// SPDX-License-Identifier: GPL-2.0
//! The scene of the attacks: one device, and around it clients of the harness' own protocol
//! implementation as its peers.

use crate::harness::capture::Capture;
use crate::harness::noise::{Client, Keys, Session};
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, outer, port, End, Link, PLAIN};
use crate::harness::wgdev::{Peer, PeerConf};
use crate::harness::wire::{self, Frame};
use anyhow::{ensure, Context, Result};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// Time for what must not happen to happen, after a fence (see [`Scene::silent`]).
const SETTLE: Duration = Duration::from_millis(60);

/// The device under test is end 0 of `link`; the clients sit in end 1's namespace.
pub struct Scene {
    /// The underlay.
    pub link: Link,
    /// The device.
    pub end: End,
    /// The clients, all known to the device, with their endpoints. The last one is the fence:
    /// tests leave it alone.
    pub clients: Vec<Client>,
    /// The device's side of the underlay.
    pub watch: Capture,
}

/// The inside address of client `k`.
pub fn inside(v6: bool, k: usize) -> IpAddr {
    inner(v6, k as u8 + 1)
}

/// The outside address of client `k`, and the first port that no client has.
pub fn outside(k: usize) -> SocketAddr {
    SocketAddr::new(outer(false, 1), port(1) + k as u16)
}

/// The device's outside address.
pub fn device() -> SocketAddr {
    SocketAddr::new(outer(false, 0), port(0))
}

impl Scene {
    /// The device with `count` clients as peers, and the fence.
    pub fn new(ctx: &Ctx, count: usize) -> Result<Self> {
        let mut link = Link::new()?;
        let mut end = End::new(&mut link, 0, PLAIN, None)?;
        let mut clients = Vec::new();
        for k in 0..=count {
            let client = Client::new(
                link.end(1),
                Keys::random(),
                end.public_key,
                outside(k),
                device(),
            )?;
            end.set_peer(&link, conf(k, &client))?;
            clients.push(client);
        }
        let watch = Capture::start(link.end(0), "v0")?;
        ctx.keep("v0", watch.frames(), 1);
        Ok(Scene {
            link,
            end,
            clients,
            watch,
        })
    }

    /// A session with client `k` as initiator, confirmed by a ping.
    pub fn session(&self, k: usize) -> Result<Session> {
        let client = &self.clients[k];
        let mut session = client.handshake()?;
        client.ping(&mut session, inside(false, k), inner(false, 0))?;
        Ok(session)
    }

    /// A ping through `session` of client `k`.
    pub fn ping(&self, k: usize, session: &mut Session) -> Result<()> {
        let client = &self.clients[k];
        client.ping(session, inside(false, k), inner(false, 0))
    }

    /// The device's idea of client `k`.
    pub fn peer(&mut self, k: usize) -> Result<Peer> {
        let key = self.clients[k].keys.public;
        let device = self.end.get(&self.link)?;
        let peer = device.peers.into_iter().find(|p| p.public_key == key);
        peer.context("the peer is gone")
    }

    /// Runs `attack`, then a handshake of the fence client, and checks that the device sent not
    /// one packet but the fence's response. The neighbour talk of the link is left out.
    pub fn silent(&self, what: &str, attack: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.watch.frames().lock().expect("poisoned").len();
        attack()?;
        let fence = self.clients.last().context("no fence")?;
        fence.handshake()?;
        sleep(SETTLE);
        fence.handshake()?;
        let to = fence.socket.local_addr()?;
        let frames = self.watch.frames();
        let frames = frames.lock().expect("poisoned");
        let mut out = Vec::new();
        for frame in frames.iter().skip(before).filter(|f| f.outgoing) {
            match wire::frame(&frame.bytes) {
                Frame::Neighbour => {}
                Frame::Udp { dst, .. } if dst == to => {}
                other => out.push(format!("{other:?}")),
            }
        }
        ensure!(
            out.is_empty(),
            "{what}: the device sent {} packets, the first: {:.200}",
            out.len(),
            out[0]
        );
        Ok(())
    }
}

/// The configuration of client `k` as a peer.
pub fn conf(k: usize, client: &Client) -> PeerConf {
    PeerConf {
        public_key: client.keys.public,
        endpoint: Some(outside(k)),
        allowed_ips: vec![(inside(false, k), 32), (inside(true, k), 128)],
        ..PeerConf::default()
    }
}

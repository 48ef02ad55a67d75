// SPDX-License-Identifier: GPL-2.0
//! The scene of the attacks: one device, and around it clients of the harness' own protocol
//! implementation as its peers.

use crate::harness::capture::{self, Capture, Seen};
use crate::harness::noise::{packet, Client, Keys, Session};
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, outer, port, End, Link, PLAIN};
use crate::harness::traffic::{drain, udp};
use crate::harness::wgdev::{uapi, Peer, PeerConf};
use crate::harness::wire::{self, Frame};
use anyhow::{ensure, Context, Result};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time for what must not happen to happen, after a fence (see [`Scene::silent`]).
const SETTLE: Duration = Duration::from_millis(60);
/// The inner port of [`Sink`].
const SINK: u16 = 9000;
/// What [`Scene::wake`] sends.
pub const WAKE: &[u8] = b"wake up, there is something to send";
/// How long to wait for what must come.
pub const WAIT: Duration = Duration::from_secs(20);

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

    /// The device forgets client `k` and knows it anew, without a session.
    pub fn reset(&mut self, k: usize) -> Result<()> {
        for flags in [uapi::PEER_REMOVE_ME, 0] {
            let mut conf = conf(k, &self.clients[k]);
            conf.flags = flags;
            self.end.set_peer(&self.link, conf)?;
        }
        self.clients[k].flush()?;
        Ok(())
    }

    /// The device has something to send to client `k`: an initiation, if there is no session.
    pub fn wake(&self, k: usize) -> Result<()> {
        let from = udp(self.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
        from.send_to(WAKE, SocketAddr::new(inside(false, k), 9))?;
        Ok(())
    }

    /// A fresh initiation by the device to client `k`, which waits for a response.
    pub fn initiation(&mut self, k: usize) -> Result<Vec<u8>> {
        self.reset(k)?;
        self.wake(k)?;
        self.clients[k].wait_initiation(WAIT)
    }

    /// The link's counters (`struct rtnl_link_stats64`) that tell of refused packets.
    pub fn errors(&mut self) -> Result<Errors> {
        let data = self.link.rt(0).link_attr("wg0", libc::IFLA_STATS64)?;
        let data = data.context("no counters")?;
        let at = |n: usize| {
            let bytes = data.get(n * 8..n * 8 + 8).and_then(|b| b.try_into().ok());
            bytes.map(u64::from_ne_bytes).context("short counters")
        };
        Ok(Errors {
            errors: at(4)?,
            length: at(10)?,
            frame: at(13)?,
        })
    }

    /// Runs `attack`, then two handshakes of the fence client, and checks that the device sent
    /// not one packet but the fence's responses. The neighbour talk of the link is left out.
    pub fn silent(&self, what: &str, attack: impl FnOnce() -> Result<()>) -> Result<()> {
        self.silent_but(what, |_| false, attack)
    }

    /// As [`Scene::silent`], but the device may send what is `allowed`.
    pub fn silent_but(
        &self,
        what: &str,
        allowed: impl Fn(&Seen) -> bool,
        attack: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let start = wall_clock()?;
        attack()?;
        self.fence()?;
        let to = self.fence_at()?;
        let frames = self.watch.frames();
        let frames = frames.lock().expect("poisoned");
        let mut out = Vec::new();
        for frame in frames.iter().filter(|f| f.outgoing && f.at >= start) {
            match wire::frame(&frame.bytes) {
                Frame::Neighbour => {}
                Frame::Udp { dst, .. } if dst == to => {}
                _ if capture::seen(frame).is_some_and(|seen| allowed(&seen)) => {}
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

    /// What was sent to the device before is done with, and what it sent is captured: two
    /// handshakes of the fence client (there is a worker for each processor), and some time.
    pub fn fence(&self) -> Result<()> {
        let fence = self.clients.last().context("no fence")?;
        fence.handshake()?;
        sleep(SETTLE);
        let start = wall_clock()?;
        fence.handshake()?;
        let to = self.fence_at()?;
        let last = |seen: &Seen| seen.outgoing && seen.dst == to && seen.at >= start;
        self.watch.wait(1, WAIT, last).map(drop)
    }

    fn fence_at(&self) -> Result<SocketAddr> {
        let fence = self.clients.last().context("no fence")?;
        Ok(fence.socket.local_addr()?)
    }

    /// A socket behind the device for [`tagged`] datagrams.
    pub fn sink(&self) -> Result<Sink> {
        let at = SocketAddr::new(inner(false, 0), SINK);
        Ok(Sink(udp(self.link.end(0), at)?))
    }
}

/// The time as captures tell it.
pub fn wall_clock() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// What the device counts as refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors {
    /// All.
    pub errors: u64,
    /// False inner lengths.
    pub length: u64,
    /// Not IP, or another's source.
    pub frame: u64,
}

/// An inner datagram from client `k` to the sink, of 36 bytes.
pub fn tagged(k: usize, tag: u64) -> Vec<u8> {
    let [src, dst] = [inside(false, k), inner(false, 0)].map(|ip| SocketAddr::new(ip, SINK));
    packet::udp(src, dst, &tag.to_le_bytes())
}

/// What arrives of [`tagged`] datagrams.
pub struct Sink(UdpSocket);

impl Sink {
    /// The tag of the next datagram.
    pub fn next(&self) -> Result<u64> {
        self.0.set_read_timeout(Some(WAIT))?;
        let mut tag = [0; 8];
        self.0.recv(&mut tag).context("no datagram arrives")?;
        Ok(u64::from_le_bytes(tag))
    }

    /// The tags that came, up to `last`.
    pub fn until(&self, last: u64) -> Result<Vec<u64>> {
        let mut tags = Vec::new();
        while tags.last() != Some(&last) {
            let tag = self.next();
            tags.push(tag.with_context(|| format!("waiting for {last} after {tags:?}"))?);
        }
        Ok(tags)
    }

    /// How many have come; they are consumed.
    pub fn count(&self) -> Result<usize> {
        let count = drain(&self.0)?;
        self.0.set_nonblocking(false)?;
        Ok(count)
    }
}

/// The configuration of client `k` as a peer.
pub fn conf(k: usize, client: &Client) -> PeerConf {
    PeerConf {
        public_key: client.keys.public,
        preshared_key: Some(client.psk),
        endpoint: Some(outside(k)),
        allowed_ips: vec![(inside(false, k), 32), (inside(true, k), 128)],
        ..PeerConf::default()
    }
}

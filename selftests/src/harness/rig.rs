// SPDX-License-Identifier: GPL-2.0-only
//! A device whose peers are protocol clients in the test's own process ([`super::noise`]): they
//! send what no real peer would, exactly when the test wants.

use super::capture::{self, initiations, Capture, Seen};
use super::driver::{Driver, PLAIN};
use super::noise::{packet, Client, Keys, Pending, Session, Tweak};
use super::pace::{alone, SENT};
use super::runner::Ctx;
use super::topo::{inner, outer, port, End, Link};
use super::traffic::{drain, udp};
use super::wgdev::{uapi, DeviceConf, Peer, PeerConf};
use super::wire::{self, Frame, Message};
use anyhow::{ensure, Context, Result};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Long enough for a message to be answered.
pub const MOMENT: Duration = Duration::from_millis(60);
/// How long to wait for a message that must arrive.
pub const WAIT: Duration = Duration::from_secs(20);
/// What [`Rig::say`] sends.
pub const SAID: &[u8] = b"tick";
/// The port of [`Rig::app`], and of the clients' ends inside the tunnel.
const APP: u16 = 9000;

/// The device `wg0` under test is end 0 of a [`Link`]; the clients sit in end 1's namespace.
pub struct Rig {
    /// The underlay.
    pub link: Link,
    /// The device.
    pub end: End,
    /// The clients, each a peer of the device with its endpoint. After [`Rig::fenced`] the last one
    /// is the fence, which tests leave alone.
    pub clients: Vec<Client>,
    /// A socket behind the device: what it sends to a client goes through the tunnel.
    pub app: UdpSocket,
    /// The device's side of the underlay.
    pub underlay: Capture,
    flood: UdpSocket,
}

/// The address of client `k` in the tunnel.
pub fn inside(v6: bool, k: usize) -> IpAddr {
    inner(v6, k as u8 + 1)
}

/// The address and port of client `k` on the underlay; `k` may be greater than the number of
/// clients.
pub fn outside(k: usize) -> SocketAddr {
    SocketAddr::new(outer(false, 1), 7000 + k as u16)
}

/// The address and port of the device on the underlay.
pub fn device(v6: bool) -> SocketAddr {
    SocketAddr::new(outer(v6, 0), port(0))
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

impl Rig {
    /// A device with `count` clients as its peers, no handshake done yet.
    pub fn new(ctx: &Ctx, count: usize) -> Result<Self> {
        Self::of(ctx, PLAIN, count)
    }

    /// As [`Rig::new`], with a device of this driver.
    pub fn of(ctx: &Ctx, driver: Driver, count: usize) -> Result<Self> {
        let mut link = Link::new()?;
        let mut end = End::new(&mut link, 0, driver, None)?;
        let client = |k| {
            let keys = Keys::random();
            Client::new(link.end(1), keys, end.public_key, outside(k), device(false))
        };
        let clients: Vec<Client> = (0..count).map(client).collect::<Result<_>>()?;
        let peers = clients.iter().enumerate().map(|(k, c)| conf(k, c));
        let conf = DeviceConf {
            peers: peers.collect(),
            ..DeviceConf::default()
        };
        end.set(&link, &conf)?;
        let app = udp(link.end(0), SocketAddr::new(inner(false, 0), APP))?;
        let flood = udp(link.end(1), SocketAddr::new(outer(false, 1), 6999))?;
        let underlay = Capture::start(link.end(0), "v0")?;
        ctx.keep("v0", underlay.frames(), 1);
        Ok(Rig {
            link,
            end,
            clients,
            app,
            underlay,
            flood,
        })
    }

    /// As [`Rig::new`], with one more client, the fence (see [`Rig::fence`]).
    pub fn fenced(ctx: &Ctx, count: usize) -> Result<Self> {
        Rig::new(ctx, count + 1)
    }

    /// A session that client `k` has initiated, confirmed by a ping: data went in both directions.
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

    /// A session that client `k` has initiated, confirmed by one datagram: the device has sent no
    /// data in it.
    pub fn confirmed(&self, k: usize) -> Result<Session> {
        let mut session = self.clients[k].handshake()?;
        ensure!(
            self.accepts(k, &mut session)?,
            "data under a new session of client {k} is not accepted"
        );
        Ok(session)
    }

    /// A new session with client `k` carries data both ways.
    pub fn works(&self, k: usize) -> Result<()> {
        let session = self.confirmed(k)?;
        ensure!(
            self.sends_under(k, &[&session])? == Some(0),
            "no data to client {k} under a new session"
        );
        Ok(())
    }

    /// A session that the device has initiated to send a datagram to client `k`.
    pub fn initiated(&self, k: usize) -> Result<Session> {
        self.clients[k].flush()?;
        self.say(k)?;
        let mut session = self.clients[k].answer(Duration::from_secs(10))?;
        self.clients[k]
            .wait_data(&session, Duration::from_secs(5))
            .with_context(|| format!("the datagram that client {k} gets a session for"))?;
        // Answer with a keepalive, or the device starts a new handshake after 15 s. It arms that
        // timer after sending, which on a slow kernel may be after the datagram has arrived here.
        sleep(SENT);
        self.clients[k].send(&session.data(&[]))?;
        Ok(session)
    }

    /// Sends a datagram from behind the device to client `k`: a data message of 64 bytes, after an
    /// initiation if there is no session.
    pub fn say(&self, k: usize) -> Result<()> {
        let to = SocketAddr::new(inside(false, k), APP);
        self.app.send_to(SAID, to).context("send a datagram")?;
        Ok(())
    }

    /// A datagram of client `k` under `session`.
    pub fn send_data(&self, k: usize, session: &mut Session) -> Result<()> {
        let to = SocketAddr::new(inner(false, 0), APP);
        let inner = packet::udp(SocketAddr::new(inside(false, k), APP), to, b"tock");
        self.clients[k].send(&session.data(&inner))
    }

    /// Whether a datagram that client `k` sends under `session` arrives behind the device.
    pub fn accepts(&self, k: usize, session: &mut Session) -> Result<bool> {
        drain(&self.app)?;
        self.send_data(k, session)?;
        sleep(MOMENT);
        Ok(drain(&self.app)? == 1)
    }

    /// The index of the one among `sessions` that the device uses to send to client `k` now; `None`
    /// if it uses none of them.
    pub fn sends_under(&self, k: usize, sessions: &[&Session]) -> Result<Option<usize>> {
        self.clients[k].flush()?;
        self.say(k)?;
        sleep(MOMENT);
        while let Some((bytes, _)) = self.clients[k].receive(Duration::ZERO)? {
            let place = sessions.iter().position(|s| s.open(&bytes).is_ok());
            if place.is_some() {
                return Ok(place);
            }
        }
        Ok(None)
    }

    /// The unconfirmed session of an initiation by client `k`; `None` if no response has arrived
    /// after [`MOMENT`].
    pub fn respond(&self, k: usize, tweak: &Tweak) -> Result<Option<Session>> {
        self.clients[k].flush()?;
        let pending = self.clients[k].initiate(tweak)?;
        self.finish(k, &pending)
    }

    /// The session from the response to `pending`, if one has arrived after [`MOMENT`].
    pub fn finish(&self, k: usize, pending: &Pending) -> Result<Option<Session>> {
        match self.answer(k, pending)? {
            Some(bytes) if bytes.len() == 92 => {
                pending.finish(&bytes, &self.clients[k].psk).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The response or cookie reply to `pending` that has arrived after [`MOMENT`].
    pub fn answer(&self, k: usize, pending: &Pending) -> Result<Option<Vec<u8>>> {
        sleep(MOMENT);
        answer(&self.clients[k], pending)
    }

    /// A new initiation from the device to client `k`; the device waits for the response.
    pub fn initiation(&mut self, k: usize) -> Result<Vec<u8>> {
        self.reset(k)?;
        self.say(k)?;
        self.clients[k].wait_initiation(WAIT)
    }

    /// Removes client `k` from the device and adds it again, without a session.
    pub fn reset(&mut self, k: usize) -> Result<()> {
        for flags in [uapi::peer::F_REMOVE_ME, 0] {
            let mut conf = conf(k, &self.clients[k]);
            conf.flags = flags;
            self.end.set_peer(&self.link, conf)?;
        }
        self.clients[k].flush()?;
        Ok(())
    }

    /// The device's view of client `k`.
    pub fn peer(&mut self, k: usize) -> Result<Peer> {
        let key = self.clients[k].keys.public;
        let peers = self.end.get(&self.link)?.peers;
        let found = peers.into_iter().find(|p| p.public_key == key);
        found.with_context(|| format!("client {k} is no peer"))
    }

    /// The counters of refused packets (`struct rtnl_link_stats64`).
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

    /// What the device and client `k` sent each other, in order.
    pub fn seen(&self, k: usize) -> Vec<Seen> {
        let at = outside(k);
        let mut seen = self.underlay.seen();
        seen.retain(|s| s.src == at || s.dst == at);
        seen
    }

    /// The times of the device's initiations to client `k`.
    pub fn initiations(&self, k: usize) -> Vec<Duration> {
        initiations(&self.seen(k))
    }

    /// Fills the device's handshake queue with exactly `count` messages before its worker handles
    /// any, then waits for [`MOMENT`]. They are initiations with a wrong mac1.
    pub fn flood(&self, count: usize) -> Result<()> {
        self.flood_with(&[&[1, 0, 0, 0][..], &[0x5a; 144]].concat(), count)?;
        sleep(MOMENT);
        Ok(())
    }

    /// Sends `message` to the device `count` times before its worker handles any.
    pub fn flood_with(&self, message: &[u8], count: usize) -> Result<()> {
        alone(|| {
            for _ in 0..count {
                let sent = self.flood.send_to(message, device(false));
                sent.context("flood")?;
            }
            Ok(())
        })
    }

    /// Runs `attack`, then [`Rig::fence`], and checks that the device sent no packet but the
    /// responses to the fence. ARP and neighbour discovery are ignored.
    pub fn silent(&self, what: &str, attack: impl FnOnce() -> Result<()>) -> Result<()> {
        self.silent_but(what, |_| false, attack)
    }

    /// As [`Rig::silent`], but the device may send what is `allowed`.
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
        let frames = self.underlay.frames();
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

    /// Waits until the device has handled everything sent to it before, and its answers are
    /// captured: two handshakes of the fence client (each CPU has a worker), [`MOMENT`] apart.
    pub fn fence(&self) -> Result<()> {
        let fence = self.clients.last().context("no fence")?;
        fence.handshake()?;
        sleep(MOMENT);
        let start = wall_clock()?;
        fence.handshake()?;
        let to = self.fence_at()?;
        let last = |seen: &Seen| seen.outgoing && seen.dst == to && seen.at >= start;
        self.underlay.wait(1, WAIT, last).map(drop)
    }

    fn fence_at(&self) -> Result<SocketAddr> {
        let fence = self.clients.last().context("no fence")?;
        Ok(fence.socket.local_addr()?)
    }

    /// Receives [`tagged`] datagrams from now on.
    pub fn sink(&self) -> Result<Sink> {
        drain(&self.app)?;
        self.app.set_nonblocking(false)?;
        Ok(Sink(self.app.try_clone()?))
    }
}

/// The response or cookie reply to `pending` that `client` has already received.
pub fn answer(client: &Client, pending: &Pending) -> Result<Option<Vec<u8>>> {
    while let Some((bytes, _)) = client.receive(Duration::ZERO)? {
        let to = match wire::message(&bytes) {
            Some(Message::Response { receiver, .. } | Message::Cookie { receiver }) => receiver,
            _ => continue,
        };
        if to == pending.index {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// The wall clock, as in captures.
pub fn wall_clock() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// The device's counters of refused packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors {
    /// All of them (`rx_errors`).
    pub errors: u64,
    /// Wrong inner lengths (`rx_length_errors`).
    pub length: u64,
    /// Not IP, or an inner source that is not the peer's (`rx_frame_errors`).
    pub frame: u64,
}

/// An inner IP packet of 36 bytes from client `k` to the [`Sink`], with `tag` as its payload.
pub fn tagged(k: usize, tag: u64) -> Vec<u8> {
    let [src, dst] = [inside(false, k), inner(false, 0)].map(|ip| SocketAddr::new(ip, APP));
    packet::udp(src, dst, &tag.to_le_bytes())
}

/// Receives [`tagged`] datagrams behind the device.
pub struct Sink(UdpSocket);

impl Sink {
    /// The tag of the next datagram.
    pub fn next(&self) -> Result<u64> {
        self.0.set_read_timeout(Some(WAIT))?;
        let mut tag = [0; 8];
        self.0.recv(&mut tag).context("no datagram arrives")?;
        Ok(u64::from_le_bytes(tag))
    }

    /// The tags that arrive, up to `last`.
    pub fn until(&self, last: u64) -> Result<Vec<u64>> {
        let mut tags = Vec::new();
        while tags.last() != Some(&last) {
            let tag = self.next();
            tags.push(tag.with_context(|| format!("waiting for {last} after {tags:?}"))?);
        }
        Ok(tags)
    }

    /// How many datagrams are waiting; they are consumed.
    pub fn count(&self) -> Result<usize> {
        let count = drain(&self.0)?;
        self.0.set_nonblocking(false)?;
        Ok(count)
    }
}

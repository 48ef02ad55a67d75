// SPDX-License-Identifier: GPL-2.0
//! A device whose peers are protocol clients of the tests' own: they do what no real peer would,
//! at the moment the test wants.

use super::SEC;
use crate::harness::capture::{Capture, Seen};
use crate::harness::noise::{packet, Client, Keys, Pending, Session, Tweak};
use crate::harness::pace::{alone, SENT};
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, outer, port, End, Link};
use crate::harness::traffic::{drain, udp};
use crate::harness::wgdev::{DeviceConf, Peer, PeerConf};
use crate::harness::wire::{self, Message};
use anyhow::{ensure, Context, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

/// Long enough for a message to be answered.
pub(super) const MOMENT: Duration = Duration::from_millis(60);
/// The port of the application's socket, and of those that it talks to.
const APP: u16 = 9000;

/// The device `wg0` of end 0 under test, and the clients at end 1.
pub(super) struct Rig {
    pub(super) link: Link,
    pub(super) end: End,
    pub(super) clients: Vec<Client>,
    /// Behind the device: what is sent to a client goes through the tunnel.
    pub(super) app: UdpSocket,
    pub(super) underlay: Capture,
    flood: UdpSocket,
}

/// The inside address of client `k`.
pub(super) fn inside(k: usize) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, 10 + k as u8).into()
}

/// Where the device is.
pub(super) fn device(v6: bool) -> SocketAddr {
    SocketAddr::new(outer(v6, 0), port(0))
}

/// Where client `k` is.
pub(super) fn outside(k: usize) -> SocketAddr {
    SocketAddr::new(outer(false, 1), 7000 + k as u16)
}

/// The peer that client `k` is to the device.
pub(super) fn conf(k: usize, client: &Client) -> PeerConf {
    PeerConf {
        public_key: client.keys.public,
        endpoint: Some(outside(k)),
        allowed_ips: vec![(inside(k), 32)],
        ..PeerConf::default()
    }
}

impl Rig {
    /// A device with `count` clients as its peers, no handshake done yet.
    pub(super) fn new(ctx: &Ctx, count: usize) -> Result<Self> {
        let mut link = Link::new()?;
        let mut end = End::new(&mut link, 0, ctx.plain()[0], None)?;
        let mut clients = Vec::new();
        for k in 0..count {
            let keys = Keys::random();
            let key = end.public_key;
            clients.push(Client::new(
                link.end(1),
                keys,
                key,
                outside(k),
                device(false),
            )?);
        }
        let peers = clients
            .iter()
            .enumerate()
            .map(|(k, c)| conf(k, c))
            .collect();
        let conf = DeviceConf {
            peers,
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

    /// A datagram from behind the device to client `k`: a data message of 64 bytes.
    pub(super) fn say(&self, k: usize) -> Result<()> {
        let to = SocketAddr::new(inside(k), APP);
        self.app.send_to(b"tick", to).context("send a datagram")?;
        Ok(())
    }

    /// Whether a datagram that client `k` sends under `session` arrives behind the device.
    pub(super) fn accepts(&self, k: usize, session: &mut Session) -> Result<bool> {
        drain(&self.app)?;
        self.send_data(k, session)?;
        sleep(MOMENT);
        Ok(drain(&self.app)? == 1)
    }

    /// A datagram of client `k` under `session`.
    pub(super) fn send_data(&self, k: usize, session: &mut Session) -> Result<()> {
        let to = SocketAddr::new(inner(false, 0), APP);
        let inner = packet::udp(SocketAddr::new(inside(k), APP), to, b"tock");
        self.clients[k].send(&session.data(&inner))
    }

    /// Under which of `sessions` (their place) the device sends to client `k` now; `None` if under
    /// none of them.
    pub(super) fn sends_under(&self, k: usize, sessions: &[&Session]) -> Result<Option<usize>> {
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

    /// A confirmed session that client `k` has initiated.
    pub(super) fn session(&self, k: usize) -> Result<Session> {
        let mut session = self.clients[k].handshake()?;
        ensure!(
            self.accepts(k, &mut session)?,
            "data under a new session of client {k} is not accepted"
        );
        Ok(session)
    }

    /// A new session with client `k` carries data both ways.
    pub(super) fn works(&self, k: usize) -> Result<()> {
        let session = self.session(k)?;
        ensure!(
            self.sends_under(k, &[&session])? == Some(0),
            "no data to client {k} under a new session"
        );
        Ok(())
    }

    /// A session that the device has initiated, for a datagram to client `k`.
    pub(super) fn initiated(&self, k: usize) -> Result<Session> {
        self.clients[k].flush()?;
        self.say(k)?;
        let mut session = self.clients[k].answer(10 * SEC)?;
        self.clients[k]
            .wait_data(&session, 5 * SEC)
            .with_context(|| format!("the datagram that client {k} gets a session for"))?;
        // Or the device would take the silence for a fault. It begins to wait when it is done with
        // sending, which on a slow kernel is after the datagram has come here.
        sleep(SENT);
        self.clients[k].send(&session.data(&[]))?;
        Ok(session)
    }

    /// The unconfirmed session of an initiation by client `k`, answered at once; `None` if it gets
    /// no response.
    pub(super) fn respond(&self, k: usize, tweak: &Tweak) -> Result<Option<Session>> {
        self.clients[k].flush()?;
        let pending = self.clients[k].initiate(tweak)?;
        self.finish(k, &pending)
    }

    /// The session that the response to `pending` makes, if one has come a moment from now.
    pub(super) fn finish(&self, k: usize, pending: &Pending) -> Result<Option<Session>> {
        match self.answer(k, pending)? {
            Some(bytes) if bytes.len() == 92 => {
                pending.finish(&bytes, &self.clients[k].psk).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The response or cookie reply to `pending` that has come a moment from now.
    pub(super) fn answer(&self, k: usize, pending: &Pending) -> Result<Option<Vec<u8>>> {
        sleep(MOMENT);
        answer(&self.clients[k], pending)
    }

    /// The device's view of client `k`.
    pub(super) fn peer(&mut self, k: usize) -> Result<Peer> {
        let key = self.clients[k].keys.public;
        let peers = self.end.get(&self.link)?.peers;
        let found = peers.into_iter().find(|p| p.public_key == key);
        found.with_context(|| format!("client {k} is no peer"))
    }

    /// What the device and client `k` sent each other, in order.
    pub(super) fn seen(&self, k: usize) -> Vec<Seen> {
        let at = outside(k);
        let mut seen = self.underlay.seen();
        seen.retain(|s| s.src == at || s.dst == at);
        seen
    }

    /// The times of the device's initiations to client `k`.
    pub(super) fn initiations(&self, k: usize) -> Vec<Duration> {
        super::initiations(&self.seen(k))
    }

    /// Puts exactly `count` handshake messages into the device's queue before its worker gets to
    /// any of them, and waits until it is through. They are initiations with a wrong mac1.
    pub(super) fn flood(&self, count: usize) -> Result<()> {
        self.flood_with(&[&[1, 0, 0, 0][..], &[0x5a; 144]].concat(), count)?;
        sleep(MOMENT);
        Ok(())
    }

    /// Sends `message` to the device `count` times before its worker gets to any of them.
    pub(super) fn flood_with(&self, message: &[u8], count: usize) -> Result<()> {
        alone(|| {
            for _ in 0..count {
                let sent = self.flood.send_to(message, device(false));
                sent.context("flood")?;
            }
            Ok(())
        })
    }
}

/// The response or cookie reply to `pending` that has come to `client` already.
pub(super) fn answer(client: &Client, pending: &Pending) -> Result<Option<Vec<u8>>> {
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

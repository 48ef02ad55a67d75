// SPDX-License-Identifier: GPL-2.0-only
//! A UDP socket with keys: the common things in one call.

use super::handshake::{self, Keys, Pending, Tweak};
use super::session::Session;
use super::{cookie, packet};
use crate::netns::Netns;
use crate::wgdev::Key;
use crate::wire::{self, Message};
use anyhow::{bail, ensure, Context, Result};
use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the common things wait for an answer. Wide: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// When a handshake's initiation is sent again.
const RETRY: Duration = Duration::from_millis(1500);
/// A peer's initiations that come closer than 20 ms are refused.
const INITIATION_GAP: Duration = Duration::from_millis(25);

/// One WireGuard peer in user space, talking to one other.
pub struct Client {
    /// Its own keys.
    pub keys: Keys,
    /// The other's public key.
    pub peer: Key,
    /// The preshared key; zeros: none.
    pub psk: Key,
    /// Where it sends to.
    pub to: SocketAddr,
    /// The cookie for mac2 that the last cookie reply to [`Client::handshake`] brought.
    pub cookie: Cell<Option<[u8; 16]>>,
    /// Its socket.
    pub socket: UdpSocket,
    seq: Cell<u16>,
}

impl Client {
    /// Opens a socket at `from` in `ns`, to talk to the holder of `peer` at `to`.
    pub fn new(
        ns: &Netns,
        keys: Keys,
        peer: Key,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Self> {
        Ok(Client {
            keys,
            peer,
            psk: [0; 32],
            to,
            cookie: Cell::new(None),
            socket: crate::traffic::udp(ns, from)?,
            seq: Cell::new(0),
        })
    }

    /// Sends `message` as it is.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        let sent = self.socket.send_to(message, self.to).context("send")?;
        ensure!(sent == message.len(), "only {sent} bytes were sent");
        Ok(())
    }

    /// The next datagram, and who sent it; `None` if none comes within `limit`.
    pub fn receive(&self, limit: Duration) -> Result<Option<(Vec<u8>, SocketAddr)>> {
        let end = Instant::now() + limit;
        let mut buf = vec![0; 1 << 16];
        self.socket.set_nonblocking(false)?;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // Zero would mean for ever; what is there already is always taken.
            let left = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv_from(&mut buf) {
                Ok((n, from)) => {
                    buf.truncate(n);
                    return Ok(Some((buf, from)));
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= end {
                        return Ok(None);
                    }
                }
                // An ICMP error on the socket.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(e).context("receive"),
            }
        }
    }

    /// The first message that `want`s, within `limit`; others before it are dropped.
    pub fn wait(
        &self,
        limit: Duration,
        what: &str,
        want: impl Fn(&Message, &[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some((bytes, _)) = self.receive(left)? else {
                bail!("{what} did not come within {limit:?}");
            };
            if wire::message(&bytes).is_some_and(|message| want(&message, &bytes)) {
                return Ok(bytes);
            }
        }
    }

    /// The counter and plaintext of the next data message under `session`, keepalives left out.
    pub fn wait_data(&self, session: &Session, limit: Duration) -> Result<(u64, Vec<u8>)> {
        let bytes = self.wait(limit, "transport data", |message, _| {
            matches!(message, Message::Data { receiver, len, .. }
                if *receiver == session.own && *len > 32)
        })?;
        session.open(&bytes)
    }

    /// Nothing at all comes during `time`, nor has come before and not been taken.
    pub fn silence(&self, time: Duration) -> Result<()> {
        match self.receive(time)? {
            None => Ok(()),
            Some((bytes, from)) => bail!(
                "{} bytes came from {from}: {:?}",
                bytes.len(),
                wire::message(&bytes)
            ),
        }
    }

    /// Drops what has come so far; gives its number.
    pub fn flush(&self) -> Result<usize> {
        crate::traffic::drain(&self.socket)
    }

    /// Makes an initiation and sends it.
    pub fn initiate(&self, tweak: &Tweak) -> Result<Pending> {
        let pending = handshake::initiate(&self.keys, &self.peer, tweak);
        self.send(&pending.message)?;
        Ok(pending)
    }

    /// The response to `pending`, within `limit`.
    pub fn wait_response(&self, pending: &Pending, limit: Duration) -> Result<Vec<u8>> {
        self.wait(limit, "the response", |message, _| {
            matches!(message, Message::Response { receiver, .. } if *receiver == pending.index)
        })
    }

    /// A whole handshake as initiator, retried and with mac2 if asked for. The session is not
    /// confirmed: the peer has not seen data under it yet.
    pub fn handshake(&self) -> Result<Session> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            sleep(INITIATION_GAP);
            let pending = self.initiate(&Tweak {
                cookie: self.cookie.get(),
                ..Tweak::default()
            })?;
            let answer = self.wait(RETRY, "", |message, _| match message {
                Message::Response { receiver, .. } | Message::Cookie { receiver } => {
                    *receiver == pending.index
                }
                _ => false,
            });
            match answer {
                Ok(bytes) if bytes.len() == cookie::REPLY => {
                    let cookie = cookie::open_reply(&bytes, &self.peer, &pending.message)?;
                    self.cookie.set(Some(cookie));
                }
                Ok(bytes) => return pending.finish(&bytes, &self.psk),
                Err(_) => {} // lost, or refused for coming too soon
            }
        }
        bail!("no handshake with {} in {PATIENCE:?}", self.to)
    }

    /// Waits for the peer's initiation; gives the message.
    pub fn wait_initiation(&self, limit: Duration) -> Result<Vec<u8>> {
        self.wait(limit, "an initiation", |message, _| {
            matches!(message, Message::Initiation { .. })
        })
    }

    /// A whole handshake as responder to the peer's next initiation.
    pub fn answer(&self, limit: Duration) -> Result<Session> {
        let initiation = self.wait_initiation(limit)?;
        let received = handshake::receive(&self.keys, &initiation)?;
        ensure!(received.initiator == self.peer, "another peer's initiation");
        let (session, response) = received.respond(&self.psk, &Tweak::default());
        self.send(&response)?;
        Ok(session)
    }

    /// One echo request from `src` to `dst` through `session`, and its reply; then a keepalive,
    /// so that the peer does not wait for an answer to its reply.
    pub fn ping(&self, session: &mut Session, src: IpAddr, dst: IpAddr) -> Result<()> {
        self.seq.set(self.seq.get().wrapping_add(1));
        let (seq, data) = (self.seq.get(), rand::random::<[u8; 24]>());
        self.send(&session.data(&packet::echo(src, dst, seq, &data)))?;
        let what = format!("{dst}'s answer to {src}");
        self.wait(PATIENCE, &what, |_, bytes| {
            session
                .open(bytes)
                .is_ok_and(|(_, plain)| packet::answers(&plain, src, dst, seq, &data))
        })?;
        self.send(&session.data(&[]))
    }
}

// SPDX-License-Identifier: GPL-2.0
//! The debug messages: which events are told, with which prefix and which names of the objects.
//!
//! Each event is given by parts that occur in this order in one line on both modules; the words in
//! between are each module's own. In virtual time, because some events take minutes.

use super::{side_by_side, Test};
use crate::harness::kmsg::Kmsg;
use crate::harness::modules::{INTREE, OURS};
use crate::harness::runner::{Boot, Ctx, Subject};
use crate::harness::topo::{inner, outer, port, Opts, Tunnel};
use crate::harness::traffic::{ping, ping_all, udp};
use crate::harness::wgdev::{uapi, PeerConf};
use anyhow::{bail, ensure, Context, Result};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    side_by_side(list, "messages-events", Boot::Vtime, 1200, events);
    side_by_side(list, "messages-switch", Boot::Vtime, 120, switch);
}

const CONTROL: &str = "/sys/kernel/debug/dynamic_debug/control";
const COST: &str = "/proc/sys/net/core/message_cost";

/// The subject's debug messages, on and not rate limited until this is dropped.
struct Log {
    kmsg: Kmsg,
    /// Lines about device 0 that were not asked for yet.
    lines: Vec<String>,
    module: &'static str,
    cost: String,
}

impl Log {
    fn new(ctx: &Ctx) -> Result<Self> {
        let module = match ctx.subject {
            Subject::Rs if !ctx.env.stand_in => OURS,
            _ => INTREE,
        };
        let log = Log {
            kmsg: Kmsg::at_end()?,
            lines: Vec::new(),
            module,
            cost: fs::read_to_string(COST).context(COST)?,
        };
        fs::write(COST, "0")?;
        log.switch(true)?;
        Ok(log)
    }

    fn switch(&self, on: bool) -> Result<()> {
        let sign = if on { '+' } else { '-' };
        fs::write(CONTROL, format!("module {} {sign}p", self.module)).context(CONTROL)
    }

    /// Waits for a line about device 0 with these parts, in this order, and takes it away.
    fn expect(&mut self, what: &str, parts: &[&str]) -> Result<()> {
        for _ in 0..50 {
            self.read()?;
            if let Some(at) = self.lines.iter().position(|line| has(line, parts)) {
                self.lines.remove(at);
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        bail!(
            "no message when {what}: wanted {parts:?} in a line of {:#?}",
            self.lines
        )
    }

    fn read(&mut self) -> Result<()> {
        let new = self.kmsg.drain()?.into_iter();
        self.lines
            .extend(new.filter(|line| line.starts_with("wireguard: wg0: ")));
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.switch(false);
        let _ = fs::write(COST, &self.cost);
    }
}

fn has(line: &str, parts: &[&str]) -> bool {
    let mut rest = line;
    parts.iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Every event of a device's, a peer's and a session's life, of messages and of drops.
fn events(ctx: &Ctx) -> Result<()> {
    let mut log = Log::new(ctx)?;
    let mut tunnel = Tunnel::new(ctx, &Opts::new(ctx.against_intree()))?;
    let there = format!("({})", SocketAddr::new(outer(false, 1), port(1)));
    let there = there.as_str();
    log.expect("the link is made", &["Interface created"])?;
    log.expect("a peer is made", &["Peer ", " created"])?;

    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let initiation = ["handshake initiation to peer ", there];
    log.expect("a handshake begins", &initiation)?;
    let response = ["handshake response from peer ", there];
    log.expect("the response comes", &response)?;
    log.expect("the session begins", &["Keypair ", " created for peer "])?;

    // The passive keepalive, ten seconds after data that was not answered.
    let _listener = udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9000))?;
    let socket = udp(tunnel.ns(1), SocketAddr::new(inner(false, 1), 9000))?;
    socket.send_to(b"x", SocketAddr::new(inner(false, 0), 9000))?;
    sleep(Duration::from_secs(12));
    let keepalive = ["keepalive packet to peer ", there];
    log.expect("a keepalive is sent", &keepalive)?;
    socket.send_to(b"x", SocketAddr::new(inner(false, 0), 9000))?;
    tunnel.set_peer(1, keepalive_of(25))?;
    let keepalive = ["keepalive packet from peer ", there];
    log.expect("a keepalive comes", &keepalive)?;
    tunnel.set_peer(1, keepalive_of(0))?;

    // Drops: no owner, no endpoint, a source that is not the peer's, a forged handshake message.
    let stranger = IpAddr::from([10, 9, 0, 77]);
    ping(tunnel.ns(0), stranger, 1, 8, Duration::from_millis(100))?;
    log.expect("nobody owns the destination", &["No peer ", "10.9.0.77"])?;
    let homeless = PeerConf {
        public_key: [9; 32],
        allowed_ips: vec![(stranger, 32)],
        ..PeerConf::default()
    };
    tunnel.ends[0].set_peer(&tunnel.link, homeless)?;
    ping(tunnel.ns(0), stranger, 1, 8, Duration::from_millis(100))?;
    log.expect("the peer has no endpoint", &["endpoint", "for peer "])?;
    let odd = IpAddr::from([10, 9, 0, 66]);
    tunnel.rt(1).addr_add("wg1", odd, 32)?;
    udp(tunnel.ns(1), SocketAddr::new(odd, 0))?
        .send_to(b"x", SocketAddr::new(inner(false, 0), 9000))?;
    log.expect(
        "the source is not allowed",
        &["Packet has", "src IP", "10.9.0.66"],
    )?;
    let forger = udp(tunnel.ns(1), SocketAddr::new(outer(false, 1), 4444))?;
    let mut forged = [0; 148];
    forged[0] = 1;
    forger.send_to(&forged, SocketAddr::new(outer(false, 0), port(0)))?;
    let mac = ["Invalid MAC of handshake", "192.0.2.2:4444"];
    log.expect("a handshake message is forged", &mac)?;

    log.lines.clear();
    // Silence: neither end hears the other; a new handshake after 15 s, tried again after 5 s, given
    // up after 90 s; the keys are wiped after 540 s.
    tunnel.mute(0, true)?;
    tunnel.mute(1, true)?;
    let sender = udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9001))?;
    sender.send_to(b"x", SocketAddr::new(inner(false, 1), 9000))?;
    sleep(Duration::from_secs(130));
    let events: [(&str, &[&str]); 3] = [
        (
            "the peer is silent",
            &["etrying handshake with peer ", there],
        ),
        (
            "an initiation is lost",
            &["andshake for peer ", there, "retrying (try 2)"],
        ),
        (
            "there is no response at all",
            &["andshake for peer ", there, "giving up"],
        ),
    ];
    for (what, parts) in events {
        log.expect(what, parts)?;
    }
    sleep(Duration::from_secs(520));
    log.expect("the keys are wiped", &["all keys for peer ", there])?;
    tunnel.mute(0, false)?;
    tunnel.mute(1, false)?;

    // The end of it all.
    log.lines.clear();
    sender.send_to(b"x", SocketAddr::new(inner(false, 1), 9000))?;
    log.expect(
        "there is a session again",
        &["Keypair ", " created for peer "],
    )?;
    let remove = PeerConf {
        flags: uapi::PEER_REMOVE_ME,
        ..PeerConf::default()
    };
    tunnel.set_peer(0, remove)?;
    // The one comes with the removal, the other when the last reader has gone, in either order.
    let told = |log: &Log, parts: &[&str]| log.lines.iter().any(|line| has(line, parts));
    for _ in 0..100 {
        log.read()?;
        if told(&log, &["Keypair ", " destroyed for peer "])
            && told(&log, &["Peer ", there, "destroyed"])
        {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    ensure!(
        told(&log, &["Keypair ", " destroyed for peer "]),
        "a peer with a session was removed, but told is only {:#?}",
        log.lines
    );
    log.expect("the peer is removed", &["Peer ", there, "destroyed"])?;
    tunnel.rt(0).link_del("wg0")?;
    log.expect("the link is removed", &["Interface destroyed"])
}

fn keepalive_of(secs: u16) -> PeerConf {
    PeerConf {
        keepalive: Some(secs),
        ..PeerConf::default()
    }
}

/// Switched off, nothing is said; switched on in the middle, what follows is.
fn switch(ctx: &Ctx) -> Result<()> {
    let mut log = Log::new(ctx)?;
    log.switch(false)?;
    let tunnel = Tunnel::new(ctx, &Opts::new(ctx.against_intree()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    log.read()?;
    ensure!(
        log.lines.is_empty(),
        "said though switched off: {:#?}",
        log.lines
    );
    log.switch(true)?;
    ping(
        tunnel.ns(0),
        IpAddr::from([10, 9, 0, 77]),
        1,
        8,
        Duration::from_millis(100),
    )?;
    log.expect("switched on", &["No peer ", "10.9.0.77"])
}

#[cfg(test)]
mod tests {
    use super::has;

    #[test]
    fn parts_in_order() {
        assert!(has("a Peer 1 (x) created", &["Peer ", "created"]));
        assert!(!has("created Peer 1", &["Peer ", "created"]));
        assert!(!has("", &["x"]));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs stats`: what an interface and its peers count, and why packets were refused.

use crate::genl::peers::{Counters, PeerCounters, Refused};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// Writes the counters for people; those that are 0 are left out.
///
/// # Errors
///
/// Those of `out`.
pub fn write(interfaces: &[Counters], out: &mut impl Write) -> io::Result<()> {
    for (number, of) in interfaces.iter().enumerate() {
        if number != 0 {
            writeln!(out)?;
        }
        write_interface(of, now(), out)?;
    }
    out.flush()
}

fn write_interface(of: &Counters, now: i64, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "interface: {}", of.interface)?;
    if of.cookies_sent != 0 {
        writeln!(out, "  cookie replies sent: {}", of.cookies_sent)?;
    }
    write_refused(&of.refused, out)?;
    for peer in &of.peers {
        writeln!(out, "\npeer: {}", peer.public_key)?;
        write_peer(peer, now, out)?;
    }
    Ok(())
}

fn write_peer(peer: &PeerCounters, now: i64, out: &mut impl Write) -> io::Result<()> {
    match peer.last_handshake {
        Some(then) => writeln!(out, "  latest handshake: {} s ago", (now - then).max(0))?,
        None => writeln!(out, "  latest handshake: never")?,
    }
    writeln!(
        out,
        "  received: {} messages, {} bytes; {} keepalives",
        peer.rx_packets, peer.rx_bytes, peer.keepalives_received
    )?;
    writeln!(
        out,
        "  sent: {} messages, {} bytes",
        peer.tx_packets, peer.tx_bytes
    )?;
    writeln!(
        out,
        "  handshakes: {} begun here ({} retries), {} of them answered; {} begun there, {} of them \
         answered",
        peer.initiations_sent,
        peer.retries,
        peer.responses_received,
        peer.initiations_received,
        peer.responses_sent
    )?;
    if peer.cookies_received != 0 {
        writeln!(out, "  cookie replies received: {}", peer.cookies_received)?;
    }
    if peer.endpoint_changes != 0 {
        writeln!(out, "  endpoint changes: {}", peer.endpoint_changes)?;
    }
    write_refused(&peer.refused, out)
}

fn write_refused(refused: &Refused, out: &mut impl Write) -> io::Result<()> {
    for (reason, count) in refused {
        writeln!(out, "  refused, {reason}: {count}")?;
    }
    Ok(())
}

/// Writes the counters as JSON: an object with a member for each interface.
///
/// # Errors
///
/// Those of `out`.
pub fn write_json(interfaces: &[Counters], out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Interfaces(interfaces))?;
    writeln!(out)?;
    out.flush()
}

struct Interfaces<'a>(&'a [Counters]);

impl Serialize for Interfaces<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|of| (&of.interface, Interface(of))))
    }
}

struct Interface<'a>(&'a Counters);

impl Serialize for Interface<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ifindex", &self.0.ifindex)?;
        map.serialize_entry("cookiesSent", &self.0.cookies_sent)?;
        map.serialize_entry("refused", &RefusedJson(&self.0.refused))?;
        map.serialize_entry("peers", &Peers(&self.0.peers))?;
        map.end()
    }
}

struct RefusedJson<'a>(&'a Refused);

impl Serialize for RefusedJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(reason, count)| (reason.name(), count)))
    }
}

struct Peers<'a>(&'a [PeerCounters]);

impl Serialize for Peers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let peers = self.0.iter();
        serializer.collect_map(peers.map(|peer| (peer.public_key.to_string(), PeerJson(peer))))
    }
}

struct PeerJson<'a>(&'a PeerCounters);

impl Serialize for PeerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let peer = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("latestHandshake", &peer.last_handshake)?;
        for (name, count) in [
            ("rxBytes", peer.rx_bytes),
            ("txBytes", peer.tx_bytes),
            ("rxPackets", peer.rx_packets),
            ("txPackets", peer.tx_packets),
            ("initiationsSent", peer.initiations_sent),
            ("initiationsReceived", peer.initiations_received),
            ("responsesSent", peer.responses_sent),
            ("responsesReceived", peer.responses_received),
            ("cookiesReceived", peer.cookies_received),
            ("keepalivesReceived", peer.keepalives_received),
            ("retries", peer.retries),
            ("endpointChanges", peer.endpoint_changes),
        ] {
            map.serialize_entry(name, &count)?;
        }
        map.serialize_entry("refused", &RefusedJson(&peer.refused))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;
    use serde_json::{json, Value};
    use wireguard_rs::proto::Rejection;

    fn interface() -> Counters {
        let full = PeerCounters {
            public_key: PublicKey::new([0; 32]),
            last_handshake: Some(100),
            rx_bytes: 320,
            rx_packets: 10,
            keepalives_received: 1,
            initiations_sent: 3,
            retries: 1,
            responses_received: 2,
            endpoint_changes: 4,
            refused: vec![(Rejection::ReplayedData, 5)],
            ..PeerCounters::default()
        };
        Counters {
            interface: "wg0".into(),
            ifindex: 7,
            generation: Some(3),
            cookies_sent: 2,
            refused: vec![(Rejection::ReplayedData, 5), (Rejection::InvalidMac1, 9)],
            peers: vec![full],
        }
    }

    #[test]
    fn for_people() {
        let mut out = Vec::new();
        write_interface(&interface(), 160, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted = "\
interface: wg0
  cookie replies sent: 2
  refused, replayed data: 5
  refused, invalid mac1: 9

peer: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
  latest handshake: 60 s ago
  received: 10 messages, 320 bytes; 1 keepalives
  sent: 0 messages, 0 bytes
  handshakes: 3 begun here (1 retries), 2 of them answered; 0 begun there, 0 of them answered
  endpoint changes: 4
  refused, replayed data: 5
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn for_programs() {
        let mut out = Vec::new();
        write_json(&[interface()], &mut out).unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        let of = &value["wg0"];
        assert_eq!(of["cookiesSent"], 2);
        assert_eq!(
            of["refused"],
            json!({"replayed-data": 5, "invalid-mac1": 9})
        );
        let peer = &of["peers"]["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];
        assert_eq!(peer["latestHandshake"], 100);
        assert_eq!(peer["rxBytes"], 320);
        assert_eq!(peer["refused"]["replayed-data"], 5);
    }
}

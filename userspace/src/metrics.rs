// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs metrics`: the counters of all interfaces as OpenMetrics text, for a file that
//! `node_exporter` collects, or as an answer to a request by HTTP.
//!
//! The names are those of the exporters that are in use for WireGuard where these have one
//! (`wireguard_received_bytes_total`, `wireguard_latest_handshake_seconds`).

use crate::genl::peers::{Counters, PeerCounters, Refused};
use crate::model::Device;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};

/// What is told of an interface, whoever drives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub interface: String,
    /// Its peers: public key, bytes received and sent, time of the last handshake or 0.
    pub peers: Vec<(String, u64, u64, i64)>,
    /// What only the module `wireguard_rs` counts.
    pub counters: Option<Counters>,
}

impl Source {
    /// What every driver tells.
    pub fn of(device: &Device) -> Self {
        let peers = device.peers.iter().map(|peer| {
            let (key, last) = (peer.public_key.to_string(), peer.last_handshake.sec);
            (key, peer.rx_bytes, peer.tx_bytes, last)
        });
        Self {
            interface: device.name.clone(),
            peers: peers.collect(),
            counters: None,
        }
    }

    /// What the module `wireguard_rs` tells.
    pub fn of_counters(counters: Counters) -> Self {
        let peers = counters.peers.iter().map(|peer| {
            let (key, last) = (peer.public_key.to_string(), peer.last_handshake);
            (key, peer.rx_bytes, peer.tx_bytes, last.unwrap_or(0))
        });
        Self {
            interface: counters.interface.clone(),
            peers: peers.collect(),
            counters: Some(counters),
        }
    }
}

/// A counter of a peer.
type Counter = (&'static str, &'static str, fn(&PeerCounters) -> u64);

const COUNTERS: [Counter; 10] = [
    (
        "wireguard_received_packets",
        "Messages accepted from the peer.",
        |peer| peer.rx_packets,
    ),
    (
        "wireguard_sent_packets",
        "Messages sent to the peer.",
        |peer| peer.tx_packets,
    ),
    (
        "wireguard_initiations_sent",
        "Handshake initiations sent.",
        |peer| peer.initiations_sent,
    ),
    (
        "wireguard_initiations_received",
        "Handshake initiations accepted.",
        |peer| peer.initiations_received,
    ),
    (
        "wireguard_responses_sent",
        "Handshake responses sent.",
        |peer| peer.responses_sent,
    ),
    (
        "wireguard_responses_received",
        "Handshake responses accepted.",
        |peer| peer.responses_received,
    ),
    (
        "wireguard_cookies_received",
        "Cookie replies accepted.",
        |peer| peer.cookies_received,
    ),
    (
        "wireguard_keepalives_received",
        "Keepalives accepted.",
        |peer| peer.keepalives_received,
    ),
    (
        "wireguard_handshake_retries",
        "Initiations sent for want of a response.",
        |peer| peer.retries,
    ),
    (
        "wireguard_endpoint_changes",
        "Times that a message of the peer came from elsewhere.",
        |peer| peer.endpoint_changes,
    ),
];

/// The whole text.
pub fn text(sources: &[Source]) -> String {
    let mut text = String::new();
    let peers = || {
        sources.iter().flat_map(|source| {
            let of = label(&source.interface);
            source.peers.iter().map(move |peer| {
                let labels = format!("interface=\"{of}\",public_key=\"{}\"", label(&peer.0));
                (labels, peer)
            })
        })
    };
    family(
        &mut text,
        "wireguard_received_bytes",
        "counter",
        Some("bytes"),
        "Bytes of messages accepted from the peer.",
    );
    for (labels, peer) in peers() {
        sample(&mut text, "wireguard_received_bytes_total", &labels, peer.1);
    }
    family(
        &mut text,
        "wireguard_sent_bytes",
        "counter",
        Some("bytes"),
        "Bytes of messages sent to the peer.",
    );
    for (labels, peer) in peers() {
        sample(&mut text, "wireguard_sent_bytes_total", &labels, peer.2);
    }
    family(
        &mut text,
        "wireguard_latest_handshake_seconds",
        "gauge",
        Some("seconds"),
        "Time of the last handshake, in seconds since 1970; 0 if there was none.",
    );
    for (labels, peer) in peers() {
        let name = "wireguard_latest_handshake_seconds";
        sample(&mut text, name, &labels, peer.3);
    }
    let own: Vec<&Counters> = sources.iter().filter_map(|s| s.counters.as_ref()).collect();
    if !own.is_empty() {
        own_families(&mut text, &own);
    }
    text.push_str("# EOF\n");
    text
}

/// What only the module `wireguard_rs` counts.
fn own_families(text: &mut String, own: &[&Counters]) {
    for (name, help, count) in COUNTERS {
        family(text, name, "counter", None, help);
        for of in own {
            for peer in &of.peers {
                let labels = peer_labels(of, peer);
                sample(text, &format!("{name}_total"), &labels, count(peer));
            }
        }
    }
    let help = "Messages and packets of a peer that were refused or lost, by reason.";
    family(
        text,
        "wireguard_peer_refused_packets",
        "counter",
        None,
        help,
    );
    for of in own {
        for peer in &of.peers {
            let name = "wireguard_peer_refused_packets_total";
            refused(text, name, &peer_labels(of, peer), &peer.refused);
        }
    }
    let help = "Messages and packets of an interface that were refused or lost, by reason; those \
                of its peers included.";
    family(text, "wireguard_refused_packets", "counter", None, help);
    for of in own {
        let labels = format!("interface=\"{}\"", label(&of.interface));
        refused(
            text,
            "wireguard_refused_packets_total",
            &labels,
            &of.refused,
        );
    }
    family(
        text,
        "wireguard_cookies_sent",
        "counter",
        None,
        "Cookie replies sent.",
    );
    for of in own {
        let labels = format!("interface=\"{}\"", label(&of.interface));
        sample(
            text,
            "wireguard_cookies_sent_total",
            &labels,
            of.cookies_sent,
        );
    }
}

fn peer_labels(of: &Counters, peer: &PeerCounters) -> String {
    let (interface, key) = (label(&of.interface), peer.public_key);
    format!("interface=\"{interface}\",public_key=\"{key}\"")
}

fn family(text: &mut String, name: &str, kind: &str, unit: Option<&str>, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# TYPE {name} {kind}");
    if let Some(unit) = unit {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = writeln!(text, "# HELP {name} {help}");
}

fn sample(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

fn refused(text: &mut String, name: &str, labels: &str, list: &Refused) {
    for (reason, count) in list {
        let labels = format!("{labels},reason=\"{}\"", reason.name());
        sample(text, name, &labels, count);
    }
}

/// A value of a label: names of interfaces may have quotes in them.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The longest head of a request that is read.
const LONGEST_REQUEST: u64 = 16 * 1024;

/// Answers one request by HTTP that comes from `input`: for a socket unit, which starts a process
/// for each connection.
///
/// # Errors
///
/// Those of `input` and `out`, and of `make`.
pub fn answer(
    input: impl Read,
    out: &mut impl Write,
    make: impl FnOnce() -> io::Result<String>,
) -> io::Result<()> {
    let mut lines = io::BufReader::new(input.take(LONGEST_REQUEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let words: Vec<&str> = request.split_whitespace().collect();
    let (status, body) = match words.as_slice() {
        ["GET" | "HEAD", "/metrics" | "/", _] => ("200 OK", make()?),
        ["GET" | "HEAD", _, _] => ("404 Not Found", "There is only /metrics.\n".to_owned()),
        [_, _, _] => ("405 Method Not Allowed", "Only GET.\n".to_owned()),
        _ => ("400 Bad Request", "This is no request.\n".to_owned()),
    };
    let kind = if status == "200 OK" {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    };
    let head = words.first() == Some(&"HEAD");
    write!(
        out,
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{}",
        body.len(),
        if head { "" } else { &body }
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;
    use wireguard_rs::proto::Rejection;

    #[test]
    fn families_of_metrics() {
        let peer = PeerCounters {
            public_key: PublicKey::new([0; 32]),
            rx_bytes: 5,
            rx_packets: 1,
            refused: vec![(Rejection::ReplayedData, 3)],
            ..PeerCounters::default()
        };
        let counters = Counters {
            interface: "wg\"0".into(),
            refused: vec![(Rejection::InvalidMac1, 2)],
            peers: vec![peer],
            ..Counters::default()
        };
        let text = text(&[Source::of_counters(counters)]);
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let labels = format!("interface=\"wg\\\"0\",public_key=\"{key}\"");
        for line in [
            "# TYPE wireguard_received_bytes counter".to_owned(),
            "# UNIT wireguard_received_bytes bytes".to_owned(),
            format!("wireguard_received_bytes_total{{{labels}}} 5"),
            format!("wireguard_latest_handshake_seconds{{{labels}}} 0"),
            format!("wireguard_received_packets_total{{{labels}}} 1"),
            format!("wireguard_peer_refused_packets_total{{{labels},reason=\"replayed-data\"}} 3"),
            "wireguard_refused_packets_total{interface=\"wg\\\"0\",reason=\"invalid-mac1\"} 2"
                .to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        // Each family once, its samples right behind it.
        let mut families = std::collections::HashSet::new();
        let mut current = "";
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().unwrap();
                assert!(families.insert(current), "{current} twice");
            } else {
                let name = line
                    .trim_start_matches("# UNIT ")
                    .trim_start_matches("# HELP ");
                assert!(name.starts_with(current), "{line} below {current}");
            }
        }
    }

    #[test]
    fn requests_by_http() {
        let ask = |request: &str| {
            let mut out = Vec::new();
            answer(request.as_bytes(), &mut out, || Ok("text".to_owned())).unwrap();
            String::from_utf8(out).unwrap()
        };
        let good = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.0 200 OK\r\n"), "{good}");
        assert!(good.contains("application/openmetrics-text"), "{good}");
        assert!(good.ends_with("\r\n\r\ntext"), "{good}");
        let head = ask("HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 4") && head.ends_with("\r\n\r\n"));
        assert!(ask("GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 404"));
        assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 405"));
        for bad in ["", "\r\n", "x", &"y".repeat(100_000)] {
            assert!(ask(bad).starts_with("HTTP/1.0 400"), "{bad:.9}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The rows of the table: which, in what order, and what each tells.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::SystemTime;

use super::growth::Growth;
use super::reading::{DeviceReading, Handshake, Traffic};
use crate::genl::peers::Refused;
use crate::key::PublicKey;

/// One row.
pub struct Row {
    /// Name of the device.
    pub device: String,
    pub of: Of,
    pub total: Traffic,
    /// None at the first reading of the peer, or of all peers of the device.
    pub rate: Option<Traffic>,
    /// In the last interval.
    pub refused: Refused,
}

/// What a row tells of.
pub enum Of {
    Device {
        listen_port: u16,
        peers: usize,
    },
    Peer {
        public_key: PublicKey,
        endpoint: Option<SocketAddr>,
        handshake: Handshake,
        /// Seconds, 0 when off.
        keepalive: u16,
        /// The name of an event.
        trouble: Option<&'static str>,
    },
}

/// The rows: devices by name, each with its peers, the busiest first, then those with the newest
/// handshake.
pub fn rows<'a>(
    devices: impl Iterator<Item = &'a DeviceReading>,
    growth: &Growth,
    now: SystemTime,
) -> Vec<Row> {
    let mut devices: Vec<_> = devices.collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rows = Vec::new();
    for device in devices {
        let mut peers: Vec<_> = device
            .peers
            .iter()
            .map(|(key, peer)| (*key, peer, growth.rate(device.ifindex, *key)))
            .collect();
        peers.sort_by_key(|(key, peer, rate)| {
            let busy = rate.map_or(0, |r| r.rx.saturating_add(r.tx));
            (Reverse((busy, peer.handshake)), *key)
        });
        let rates = || peers.iter().filter_map(|(_, _, rate)| *rate);
        rows.push(Row {
            device: device.name.clone(),
            of: Of::Device {
                listen_port: device.listen_port,
                peers: peers.len(),
            },
            total: sum(peers.iter().map(|(_, peer, _)| peer.total)),
            rate: rates().next().map(|_| sum(rates())),
            refused: growth.refused(device.ifindex, None),
        });
        rows.extend(peers.into_iter().map(|(key, peer, rate)| Row {
            device: device.name.clone(),
            of: Of::Peer {
                public_key: key,
                endpoint: peer.endpoint,
                handshake: peer.age(now),
                keepalive: peer.keepalive,
                trouble: peer.trouble.map(|trouble| trouble.name),
            },
            total: peer.total,
            rate,
            refused: growth.refused(device.ifindex, Some(key)),
        }));
    }
    rows
}

fn sum(traffic: impl Iterator<Item = Traffic>) -> Traffic {
    traffic.fold(Traffic::default(), |a, b| Traffic {
        rx: a.rx.saturating_add(b.rx),
        tx: a.tx.saturating_add(b.tx),
    })
}

#[cfg(test)]
mod tests {
    use super::super::growth::Totals;
    use super::super::reading::tests::{device, peer};
    use super::*;
    use std::time::{Duration, Instant};

    /// (device, first byte of the key if a peer, rate)
    type Shown = (String, Option<u8>, Option<Traffic>);

    fn shown(before: &[DeviceReading], now: &[DeviceReading]) -> Vec<Shown> {
        let start = Instant::now();
        let growth = Growth::new(
            &Totals::new(start, before.iter()),
            &Totals::new(start + Duration::from_secs(2), now.iter()),
        );
        let row = |row: Row| match row.of {
            Of::Device { .. } => (row.device, None, row.rate),
            Of::Peer { public_key, .. } => (row.device, Some(public_key.as_bytes()[0]), row.rate),
        };
        let rows = rows(now.iter(), &growth, SystemTime::now());
        rows.into_iter().map(row).collect()
    }

    #[test]
    fn busiest_first_then_newest_handshake() {
        let devices = |rx, tx| {
            let peers = vec![peer(1, 0, 0, 5), peer(2, 0, 0, 9), peer(3, rx, tx, 0)];
            [device("wg1", 2, peers), device("wg0", 3, vec![])]
        };
        let rate = |rx, tx| Some(Traffic { rx, tx });
        let wanted = [
            ("wg0".into(), None, None),
            ("wg1".into(), None, rate(100, 2)),
            ("wg1".into(), Some(3), rate(100, 2)),
            ("wg1".into(), Some(2), rate(0, 0)),
            ("wg1".into(), Some(1), rate(0, 0)),
        ];
        assert_eq!(shown(&devices(100, 100), &devices(300, 104)), wanted);
        // A device that went is not shown.
        assert_eq!(shown(&devices(0, 0), &[]), []);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! What the monitor keeps of a device: counters and addresses, no secret; and what changed between
//! two readings.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::key::PublicKey;
use crate::model::{Device, Timestamp};

/// All devices at one moment.
pub struct Reading {
    pub at: Instant,
    pub wall: SystemTime,
    pub devices: Vec<DeviceReading>,
}

pub struct DeviceReading {
    /// Tells a device from a later one of the same name.
    pub ifindex: u32,
    pub name: String,
    pub listen_port: u16,
    pub peers: Vec<PeerReading>,
}

pub struct PeerReading {
    pub public_key: PublicKey,
    pub endpoint: Option<SocketAddr>,
    /// Zero before the first handshake.
    pub handshake: Timestamp,
    pub rx: u64,
    pub tx: u64,
    /// Seconds, 0 when off.
    pub keepalive: u16,
}

/// Received and sent, both in bytes or both in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    pub rx: u64,
    pub tx: u64,
}

/// When a peer last shook hands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Handshake {
    Never,
    Ago(Duration),
    /// The clock has been set back since.
    InTheFuture,
}

/// One line of the table.
pub enum Row {
    Device {
        name: String,
        listen_port: u16,
        peers: usize,
        total: Traffic,
        rate: Option<Traffic>,
    },
    Peer(PeerRow),
}

pub struct PeerRow {
    pub device: String,
    pub public_key: PublicKey,
    pub endpoint: Option<SocketAddr>,
    pub handshake: Handshake,
    pub total: Traffic,
    /// None at the first reading of the peer.
    pub rate: Option<Traffic>,
    pub keepalive: u16,
}

impl Reading {
    /// Keeps what the monitor shows of `devices`, as read just now.
    pub fn new(devices: &[Device]) -> Self {
        Self {
            at: Instant::now(),
            wall: SystemTime::now(),
            devices: devices.iter().map(DeviceReading::new).collect(),
        }
    }

    /// The table: devices by name, each with its peers, the busiest first, then those with the
    /// newest handshake.
    pub fn rows(&self, before: Option<&Reading>) -> Vec<Row> {
        let elapsed = before.map_or(Duration::ZERO, |b| self.at.saturating_duration_since(b.at));
        let old: HashMap<_, _> = before
            .into_iter()
            .flat_map(|b| &b.devices)
            .flat_map(|d| d.peers.iter().map(|p| ((d.ifindex, p.public_key), p)))
            .collect();
        let mut devices: Vec<_> = self.devices.iter().collect();
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rows = Vec::new();
        for device in devices {
            let mut peers: Vec<_> = device
                .peers
                .iter()
                .map(|peer| {
                    let old = old.get(&(device.ifindex, peer.public_key));
                    (peer, old.and_then(|old| rate(old, peer, elapsed)))
                })
                .collect();
            peers.sort_by_key(|(peer, rate)| {
                let busy = rate.map_or(0, |r| r.rx.saturating_add(r.tx));
                (Reverse((busy, peer.handshake)), peer.public_key)
            });
            let sum = |traffic: &mut dyn Iterator<Item = Traffic>| {
                traffic.fold(Traffic::default(), |a, b| Traffic {
                    rx: a.rx.saturating_add(b.rx),
                    tx: a.tx.saturating_add(b.tx),
                })
            };
            let rates: Vec<_> = peers.iter().filter_map(|(_, rate)| *rate).collect();
            rows.push(Row::Device {
                name: device.name.clone(),
                listen_port: device.listen_port,
                peers: peers.len(),
                total: sum(&mut peers.iter().map(|(peer, _)| peer.total())),
                rate: (!rates.is_empty()).then(|| sum(&mut rates.into_iter())),
            });
            rows.extend(peers.into_iter().map(|(peer, rate)| {
                Row::Peer(PeerRow {
                    device: device.name.clone(),
                    public_key: peer.public_key,
                    endpoint: peer.endpoint,
                    handshake: peer.age(self.wall),
                    total: peer.total(),
                    rate,
                    keepalive: peer.keepalive,
                })
            }));
        }
        rows
    }
}

impl DeviceReading {
    fn new(device: &Device) -> Self {
        let peers = device.peers.iter().map(|peer| PeerReading {
            public_key: peer.public_key,
            endpoint: peer.endpoint,
            handshake: peer.last_handshake,
            rx: peer.rx_bytes,
            tx: peer.tx_bytes,
            keepalive: peer.persistent_keepalive,
        });
        Self {
            ifindex: device.ifindex,
            name: device.name.clone(),
            listen_port: device.listen_port,
            peers: peers.collect(),
        }
    }
}

impl PeerReading {
    fn total(&self) -> Traffic {
        Traffic {
            rx: self.rx,
            tx: self.tx,
        }
    }

    fn age(&self, now: SystemTime) -> Handshake {
        if self.handshake == Timestamp::default() {
            return Handshake::Never;
        }
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = u64::try_from(self.handshake.sec).unwrap_or(0);
        let nanos = u32::try_from(self.handshake.nsec.clamp(0, 999_999_999)).unwrap_or(0);
        now.checked_sub(Duration::new(seconds, nanos))
            .map_or(Handshake::InTheFuture, Handshake::Ago)
    }
}

/// Bytes per second between two readings; none when the counters began anew (the peer was removed
/// and added again).
fn rate(before: &PeerReading, now: &PeerReading, elapsed: Duration) -> Option<Traffic> {
    let nanos = elapsed.as_nanos();
    let per_second =
        |bytes: u64| u64::try_from((u128::from(bytes) * 1_000_000_000).checked_div(nanos)?).ok();
    Some(Traffic {
        rx: per_second(now.rx.checked_sub(before.rx)?)?,
        tx: per_second(now.tx.checked_sub(before.tx)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Peer;

    fn peer(key: u8, rx_bytes: u64, tx_bytes: u64, sec: i64) -> Peer {
        let last_handshake = Timestamp { sec, nsec: 0 };
        Peer {
            public_key: PublicKey::new([key; 32]),
            rx_bytes,
            tx_bytes,
            last_handshake,
            ..Peer::default()
        }
    }

    fn device(name: &str, ifindex: u32, peers: Vec<Peer>) -> Device {
        Device {
            name: name.into(),
            ifindex,
            peers,
            ..Device::default()
        }
    }

    /// (device, first byte of the key if a peer, rate)
    fn shown(before: &Reading, now: &Reading) -> Vec<(String, Option<u8>, Option<Traffic>)> {
        let row = |row| match row {
            Row::Device { name, rate, .. } => (name, None, rate),
            Row::Peer(peer) => (peer.device, Some(peer.public_key.as_bytes()[0]), peer.rate),
        };
        now.rows(Some(before)).into_iter().map(row).collect()
    }

    /// Readings of these devices two seconds apart.
    fn readings(before: &[Device], now: &[Device]) -> (Reading, Reading) {
        let before = Reading::new(before);
        let mut now = Reading::new(now);
        now.at = before.at + Duration::from_secs(2);
        (before, now)
    }

    #[test]
    fn busiest_first_then_newest_handshake() {
        let old = [
            device(
                "wg1",
                2,
                vec![peer(1, 0, 0, 5), peer(2, 0, 0, 9), peer(3, 100, 100, 0)],
            ),
            device("wg0", 3, vec![]),
        ];
        let new = [
            device(
                "wg1",
                2,
                vec![peer(1, 0, 0, 5), peer(2, 0, 0, 9), peer(3, 300, 104, 0)],
            ),
            device("wg0", 3, vec![]),
        ];
        let (old, new) = readings(&old, &new);
        let rate = |rx, tx| Some(Traffic { rx, tx });
        let wanted = [
            ("wg0".into(), None, None),
            ("wg1".into(), None, rate(100, 2)),
            ("wg1".into(), Some(3), rate(100, 2)),
            ("wg1".into(), Some(2), rate(0, 0)),
            ("wg1".into(), Some(1), rate(0, 0)),
        ];
        assert_eq!(shown(&old, &new), wanted);
    }

    #[test]
    fn what_began_anew_has_no_rate_yet() {
        // A peer that came, one that was removed and added again, a device made again under its old
        // name.
        let old = [
            device("wg0", 2, vec![peer(1, 900, 900, 0)]),
            device("wg1", 3, vec![peer(1, 0, 0, 0)]),
        ];
        let new = [
            device("wg0", 2, vec![peer(1, 100, 1000, 0), peer(2, 7, 7, 0)]),
            device("wg1", 4, vec![peer(1, 5, 5, 0)]),
        ];
        let (old, new) = readings(&old, &new);
        assert!(shown(&old, &new).iter().all(|(_, _, rate)| rate.is_none()));
        // And a device that went is not shown.
        assert_eq!(shown(&new, &Reading::new(&[])), []);
    }

    #[test]
    fn no_time_between_readings_is_no_division_by_zero() {
        let (old, mut new) = readings(
            &[device("wg0", 2, vec![peer(1, 0, 0, 0)])],
            &[device("wg0", 2, vec![peer(1, u64::MAX, u64::MAX, 0)])],
        );
        assert_eq!(
            shown(&old, &new)[0].2,
            Some(Traffic {
                rx: u64::MAX / 2,
                tx: u64::MAX / 2
            })
        );
        new.at = old.at;
        assert_eq!(shown(&old, &new)[1].2, None);
    }

    #[test]
    fn age_of_a_handshake() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let age = |sec, now| {
            DeviceReading::new(&device("", 1, vec![peer(1, 0, 0, sec)])).peers[0].age(at(now))
        };
        assert_eq!(age(0, 100), Handshake::Never);
        assert_eq!(age(90, 100), Handshake::Ago(Duration::from_secs(10)));
        assert_eq!(age(110, 100), Handshake::InTheFuture);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! What the monitor keeps of a device: counters and addresses, no secret.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::genl::peers::{Counters, PeerCounters, Refused};
use crate::genl::settings::Settings;
use crate::key::PublicKey;
use crate::model::{Device, Timestamp};

/// A device.
#[derive(Debug, Default, PartialEq)]
pub struct DeviceReading {
    /// Tells a device from a later one of the same name.
    pub ifindex: u32,
    pub name: String,
    pub listen_port: u16,
    /// That of the settings, if their driver counts it; none also if they have to be read as a
    /// whole.
    pub generation: Option<u32>,
    pub refused: Refused,
    pub peers: HashMap<PublicKey, PeerReading>,
}

#[derive(Debug, Default, PartialEq)]
pub struct PeerReading {
    pub endpoint: Option<SocketAddr>,
    /// Zero before the first handshake.
    pub handshake: Timestamp,
    pub total: Traffic,
    /// Seconds, 0 when off.
    pub keepalive: u16,
    pub refused: Refused,
    pub trouble: Option<Trouble>,
}

/// What an event has told of a peer, true until there is a handshake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trouble {
    /// The event's name.
    pub name: &'static str,
    /// When it came.
    pub at: SystemTime,
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

impl DeviceReading {
    /// What every driver tells.
    pub fn new(device: &Device) -> Self {
        let peers = device.peers.iter().map(|peer| {
            let reading = PeerReading {
                endpoint: peer.endpoint,
                handshake: peer.last_handshake,
                total: Traffic {
                    rx: peer.rx_bytes,
                    tx: peer.tx_bytes,
                },
                keepalive: peer.persistent_keepalive,
                ..PeerReading::default()
            };
            (peer.public_key, reading)
        });
        Self {
            ifindex: device.ifindex,
            name: device.name.clone(),
            listen_port: device.listen_port,
            peers: peers.collect(),
            ..Self::default()
        }
    }

    /// Takes in counters. They are of all peers: others are gone.
    pub fn count(&mut self, counters: Counters) {
        self.refused = counters.refused;
        let mut old = std::mem::take(&mut self.peers);
        self.peers.reserve(counters.peers.len());
        for peer in counters.peers {
            let mut reading = old.remove(&peer.public_key).unwrap_or_default();
            let key = peer.public_key;
            reading.count(peer);
            self.peers.insert(key, reading);
        }
    }

    /// Takes in settings: of all peers, or of some, among them new ones.
    pub fn set(&mut self, settings: Settings) {
        self.generation = settings.generation;
        self.listen_port = settings.listen_port;
        for peer in settings.peers {
            let reading = self.peers.entry(peer.public_key).or_default();
            reading.endpoint = peer.endpoint;
            reading.keepalive = peer.persistent_keepalive;
        }
    }
}

impl PeerReading {
    fn count(&mut self, counters: PeerCounters) {
        let sec = counters.last_handshake.unwrap_or(0);
        self.handshake = Timestamp { sec, nsec: 0 };
        self.total = Traffic {
            rx: counters.rx_bytes,
            tx: counters.tx_bytes,
        };
        self.refused = counters.refused;
        // The event that told of the handshake may have been lost.
        let over = |trouble: &Trouble| self.handshake.sec > since_epoch(trouble.at).sec;
        if self.trouble.as_ref().is_some_and(over) {
            self.trouble = None;
        }
    }

    /// How long ago the last handshake was at `now`.
    pub fn age(&self, now: SystemTime) -> Handshake {
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

/// As the kernel tells it.
pub fn since_epoch(time: SystemTime) -> Timestamp {
    let time = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nsec: time.subsec_nanos().into(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::genl::settings::PeerSettings;

    pub fn peer(key: u8, rx: u64, tx: u64, sec: i64) -> (PublicKey, PeerReading) {
        let reading = PeerReading {
            total: Traffic { rx, tx },
            handshake: Timestamp { sec, nsec: 0 },
            ..PeerReading::default()
        };
        (PublicKey::new([key; 32]), reading)
    }

    pub fn device(name: &str, ifindex: u32, peers: Vec<(PublicKey, PeerReading)>) -> DeviceReading {
        DeviceReading {
            name: name.into(),
            ifindex,
            peers: peers.into_iter().collect(),
            ..DeviceReading::default()
        }
    }

    #[test]
    fn age_of_a_handshake() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let age = |sec, now| peer(1, 0, 0, sec).1.age(at(now));
        assert_eq!(age(0, 100), Handshake::Never);
        assert_eq!(age(90, 100), Handshake::Ago(Duration::from_secs(10)));
        assert_eq!(age(110, 100), Handshake::InTheFuture);
        assert_eq!(since_epoch(at(90)).sec, 90);
    }

    #[test]
    fn counters_and_settings_come_together() {
        let [one, two] = [1, 2].map(|byte| PublicKey::new([byte; 32]));
        let counters = |keys: &[PublicKey]| Counters {
            peers: keys
                .iter()
                .map(|key| PeerCounters {
                    public_key: *key,
                    rx_bytes: 5,
                    last_handshake: Some(100),
                    ..PeerCounters::default()
                })
                .collect(),
            ..Counters::default()
        };
        let settings = |key, seconds| Settings {
            generation: Some(seconds),
            listen_port: 9,
            peers: vec![PeerSettings {
                public_key: key,
                endpoint: Some(([192, 0, 2, 1], 7).into()),
                persistent_keepalive: seconds as u16,
            }],
        };
        let mut reading = device("wg0", 2, vec![]);
        reading.count(counters(&[one]));
        reading.set(settings(one, 25));
        // Settings of a peer that is new, before its counters.
        reading.set(settings(two, 26));
        assert_eq!((reading.generation, reading.listen_port), (Some(26), 9));
        assert_eq!(reading.peers[&one].keepalive, 25);
        assert_eq!(reading.peers[&one].total.rx, 5);
        assert_eq!(reading.peers[&two].total.rx, 0);
        // Counters keep the settings, and tell who is gone.
        reading.count(counters(&[two]));
        assert_eq!(reading.peers.len(), 1);
        assert_eq!(reading.peers[&two].keepalive, 26);
        assert_eq!(reading.peers[&two].total.rx, 5);
    }

    #[test]
    fn a_handshake_ends_trouble() {
        let mut reading = peer(1, 0, 0, 0).1;
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let name = "session-expired";
        reading.trouble = Some(Trouble { name, at });
        let counters = |last| PeerCounters {
            last_handshake: Some(last),
            ..PeerCounters::default()
        };
        reading.count(counters(99));
        assert!(reading.trouble.is_some());
        reading.count(counters(101));
        assert!(reading.trouble.is_none());
    }
}

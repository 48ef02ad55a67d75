// SPDX-License-Identifier: GPL-2.0-only
//! What grew over an interval: bytes per second, and what was refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::reading::{DeviceReading, Traffic};
use crate::genl::peers::Refused;
use crate::key::PublicKey;

/// A peer of a device, or the device itself.
type Place = (u32, Option<PublicKey>);

/// All counters at one moment.
pub struct Totals {
    at: Instant,
    places: HashMap<Place, (Traffic, Refused)>,
}

/// What grew between two moments. Without an earlier moment it is empty.
#[derive(Default)]
pub struct Growth {
    rates: HashMap<Place, Traffic>,
    refused: HashMap<Place, Refused>,
}

impl Totals {
    /// Those of `devices`, read at `at`.
    pub fn new<'a>(at: Instant, devices: impl Iterator<Item = &'a DeviceReading>) -> Self {
        let mut places = HashMap::new();
        for device in devices {
            let refused = (Traffic::default(), device.refused.clone());
            places.insert((device.ifindex, None), refused);
            places.extend(device.peers.iter().map(|(key, peer)| {
                let place = (device.ifindex, Some(*key));
                (place, (peer.total, peer.refused.clone()))
            }));
        }
        Self { at, places }
    }
}

impl Growth {
    /// What grew from `before` to `now`.
    pub fn new(before: &Totals, now: &Totals) -> Self {
        let elapsed = now.at.saturating_duration_since(before.at);
        let mut growth = Self::default();
        for (place, (total, refused)) in &now.places {
            let old = before.places.get(place);
            if let Some(rate) = old.and_then(|(old, _)| rate(*old, *total, elapsed)) {
                growth.rates.insert(*place, rate);
            }
            // Of a device that is new it is not known when.
            if !before.places.contains_key(&(place.0, None)) {
                continue;
            }
            let grown = grown(old.map_or(&[], |(_, refused)| refused), refused);
            if !grown.is_empty() {
                growth.refused.insert(*place, grown);
            }
        }
        growth
    }

    /// Bytes per second of a peer, if it was there before.
    pub fn rate(&self, ifindex: u32, peer: PublicKey) -> Option<Traffic> {
        self.rates.get(&(ifindex, Some(peer))).copied()
    }

    /// What was refused, of a peer or of the device.
    pub fn refused(&self, ifindex: u32, peer: Option<PublicKey>) -> Refused {
        let refused = self.refused.get(&(ifindex, peer));
        refused.cloned().unwrap_or_default()
    }
}

/// None when the counters began anew (the peer was removed and added again).
fn rate(before: Traffic, now: Traffic, elapsed: Duration) -> Option<Traffic> {
    let nanos = elapsed.as_nanos();
    let per_second =
        |bytes: u64| u64::try_from((u128::from(bytes) * 1_000_000_000).checked_div(nanos)?).ok();
    Some(Traffic {
        rx: per_second(now.rx.checked_sub(before.rx)?)?,
        tx: per_second(now.tx.checked_sub(before.tx)?)?,
    })
}

/// Counters that are less than before began anew.
fn grown(before: &[(wireguard_rs::proto::Rejection, u64)], now: &Refused) -> Refused {
    let grown = now.iter().map(|(reason, count)| {
        let old = before.iter().find(|(old, _)| old == reason);
        let old = old.map_or(0, |(_, count)| *count);
        (*reason, count.checked_sub(old).unwrap_or(*count))
    });
    grown.filter(|(_, count)| *count != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::super::reading::tests::{device, peer};
    use super::*;
    use wireguard_rs::proto::Rejection::{InvalidData, ReplayedData, UnknownIndex};

    /// From the one to the other in two seconds.
    fn growth(before: &[DeviceReading], now: &[DeviceReading]) -> Growth {
        let start = Instant::now();
        let before = Totals::new(start, before.iter());
        let now = Totals::new(start + Duration::from_secs(2), now.iter());
        Growth::new(&before, &now)
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey::new([byte; 32])
    }

    #[test]
    fn bytes_per_second() {
        let growth = growth(
            &[device("wg0", 2, vec![peer(1, 100, 100, 0)])],
            &[device("wg0", 2, vec![peer(1, 300, 104, 0)])],
        );
        let rate = Some(Traffic { rx: 100, tx: 2 });
        assert_eq!(growth.rate(2, key(1)), rate);
        assert_eq!(growth.rate(3, key(1)), None);
    }

    #[test]
    fn what_began_anew_has_no_rate_yet() {
        // A peer that came, one that was removed and added again, a device made again under its old
        // name.
        let growth = growth(
            &[
                device("wg0", 2, vec![peer(1, 900, 900, 0)]),
                device("wg1", 3, vec![peer(1, 0, 0, 0)]),
            ],
            &[
                device("wg0", 2, vec![peer(1, 100, 1000, 0), peer(2, 7, 7, 0)]),
                device("wg1", 4, vec![peer(1, 5, 5, 0)]),
            ],
        );
        for (ifindex, peer) in [(2, 1), (2, 2), (3, 1), (4, 1)] {
            assert_eq!(growth.rate(ifindex, key(peer)), None);
        }
    }

    #[test]
    fn no_time_between_readings_is_no_division_by_zero() {
        let devices = |bytes| [device("wg0", 2, vec![peer(1, bytes, bytes, 0)])];
        let (old, new) = (devices(0), devices(u64::MAX));
        let half = u64::MAX / 2;
        let rate = Some(Traffic { rx: half, tx: half });
        assert_eq!(growth(&old, &new).rate(2, key(1)), rate);
        let now = Instant::now();
        let [old, new] = [old, new].map(|devices| Totals::new(now, devices.iter()));
        assert_eq!(Growth::new(&old, &new).rate(2, key(1)), None);
    }

    #[test]
    fn what_was_refused_in_the_interval() {
        let with = |count: u64, of_device: u64| {
            let mut of = device("wg0", 2, vec![peer(1, 0, 0, 0)]);
            of.refused = vec![(ReplayedData, count), (UnknownIndex, of_device)];
            let peer = of.peers.get_mut(&key(1)).unwrap();
            peer.refused = vec![(InvalidData, 7), (ReplayedData, count)];
            of
        };
        let first = growth(&[], &[with(3, 9)]);
        assert_eq!(first.refused(2, None), []);
        assert_eq!(first.refused(2, Some(key(1))), []);

        let more = growth(&[with(3, 9)], &[with(5, 9)]);
        assert_eq!(more.refused(2, None), [(ReplayedData, 2)]);
        assert_eq!(more.refused(2, Some(key(1))), [(ReplayedData, 2)]);

        // The peer is new, or new again: all of it is of this interval.
        let new = growth(&[device("wg0", 2, vec![])], &[with(5, 0)]);
        let all = [(InvalidData, 7), (ReplayedData, 5)];
        assert_eq!(new.refused(2, Some(key(1))), all);
        let anew = growth(&[with(6, 0)], &[with(5, 0)]);
        assert_eq!(anew.refused(2, Some(key(1))), [(ReplayedData, 5)]);
    }
}

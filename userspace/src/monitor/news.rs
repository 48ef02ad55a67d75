// SPDX-License-Identifier: GPL-2.0-only
//! What events change in what the monitor knows, and which of them it has to read more for.

use std::time::SystemTime;

use super::reading::{since_epoch, DeviceReading, PeerReading, Trouble};
use crate::genl::events::Event;

/// What has to be done about a device, each with what is before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    #[default]
    Nothing,
    /// Draw what is known.
    Draw,
    /// Read the settings that have changed.
    Settings,
    /// Read the counters, which tell what peers there are.
    Peers,
    /// Read all settings.
    Everything,
}

/// What is shown of what a request can set.
const SHOWN: [&str; 3] = ["listen-port", "endpoint", "persistent-keepalive"];

/// Takes in an event of the device that came at `now`, after so many that did not come.
pub fn take(event: &Event, missing: u32, device: &mut DeviceReading, now: SystemTime) -> Need {
    let need = apply(event, device, now);
    match missing {
        0 => need,
        _ => Need::Everything,
    }
}

fn apply(event: &Event, device: &mut DeviceReading, now: SystemTime) -> Need {
    let trouble = |name| Some(Trouble { name, at: now });
    let change: &dyn Fn(&mut PeerReading) = match event.name.as_str() {
        "peer-added" => return Need::Settings,
        "peer-removed" => return Need::Peers,
        "peer-changed" | "device-changed" => {
            let changed = event.changed.iter().flatten();
            return match changed.filter(|what| SHOWN.contains(what)).count() {
                0 => Need::Nothing,
                _ => Need::Settings,
            };
        }
        "endpoint-changed" => &|_| {},
        "handshake-completed" => &|peer| {
            peer.handshake = since_epoch(now);
            peer.trouble = None;
        },
        "handshake-given-up" => &|peer| peer.trouble = trouble("handshake-given-up"),
        "session-expired" => &|peer| peer.trouble = trouble("session-expired"),
        _ => return Need::Nothing,
    };
    let peer = event.public_key.and_then(|key| device.peers.get_mut(&key));
    let Some(peer) = peer else {
        return Need::Peers;
    };
    peer.endpoint = event.endpoint.or(peer.endpoint);
    change(peer);
    Need::Draw
}

#[cfg(test)]
mod tests {
    use super::super::reading::tests::{device, peer};
    use super::*;
    use crate::key::PublicKey;
    use std::time::Duration;

    /// That of the only peer.
    const KEY: [u8; 32] = [1; 32];

    fn event(name: &str) -> Event {
        Event {
            name: name.into(),
            public_key: Some(PublicKey::new(KEY)),
            ..Event::default()
        }
    }

    #[test]
    fn what_each_event_causes() {
        let changed = |name: &str, what: &[&'static str]| Event {
            changed: Some(what.to_vec()),
            ..event(name)
        };
        for (event, wanted) in [
            (event("peer-added"), Need::Settings),
            (event("peer-removed"), Need::Peers),
            (
                changed("peer-changed", &["allowed-ips", "endpoint"]),
                Need::Settings,
            ),
            (changed("device-changed", &["listen-port"]), Need::Settings),
            // Nothing of this is shown.
            (
                changed("peer-changed", &["preshared-key", "allowed-ips"]),
                Need::Nothing,
            ),
            (changed("device-changed", &["fwmark"]), Need::Nothing),
            (event("unknown-initiator"), Need::Nothing),
            (event("load-changed"), Need::Nothing),
            (event("of a later version"), Need::Nothing),
            // They say all that there is to know.
            (event("endpoint-changed"), Need::Draw),
            (event("handshake-completed"), Need::Draw),
            (event("handshake-given-up"), Need::Draw),
            (event("session-expired"), Need::Draw),
        ] {
            let mut device = device("wg0", 2, vec![peer(1, 0, 0, 0)]);
            let need = take(&event, 0, &mut device, SystemTime::now());
            assert_eq!(need, wanted, "{event:?}");
        }
        for (missing, wanted) in [(0, Need::Peers), (1, Need::Everything)] {
            let mut nobody = device("wg0", 2, vec![]);
            let event = event("endpoint-changed");
            let need = take(&event, missing, &mut nobody, SystemTime::now());
            assert_eq!(need, wanted);
        }
    }

    #[test]
    fn what_events_say_is_known() {
        let mut device = device("wg0", 2, vec![peer(1, 0, 0, 0)]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let mut hear = |name, endpoint: Option<&str>| {
            let endpoint = endpoint.map(|text| text.parse().unwrap());
            let event = Event {
                endpoint,
                ..event(name)
            };
            take(&event, 0, &mut device, now);
            let peer = &device.peers[&PublicKey::new(KEY)];
            let trouble = peer.trouble.map(|trouble| trouble.name);
            let endpoint = peer.endpoint.map(|endpoint| endpoint.to_string());
            (endpoint, peer.handshake.sec, trouble)
        };
        let (one, two) = ("192.0.2.1:7", "192.0.2.2:7");
        let at = |endpoint: &str| Some(endpoint.to_owned());
        let given_up = Some("handshake-given-up");
        assert_eq!(hear("endpoint-changed", Some(one)), (at(one), 0, None));
        assert_eq!(hear("handshake-given-up", None), (at(one), 0, given_up));
        assert_eq!(hear("handshake-completed", Some(two)), (at(two), 7, None));
        let expired = (at(two), 7, Some("session-expired"));
        assert_eq!(hear("session-expired", Some(two)), expired);
    }
}

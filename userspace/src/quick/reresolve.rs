// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs reresolve`: asks for the addresses of endpoints that a file has by name again, where the
//! peer does not answer any more.

use super::file;
use super::settings::Settings;
use crate::config::value::EndpointText;
use crate::config::{self, Item};
use crate::driver;
use crate::key::PublicKey;
use crate::model::{Device, SetDevice, SetPeer};
use crate::say::{say, CommandResult, Failed};
use crate::wg::{endpoint_now, kernel, Context};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A session that is in use is renewed before it is this old, in seconds: two minutes, and what a
/// handshake may take.
const SILENT: i64 = 135;

/// Sets the endpoints of silent peers to what their names mean now.
///
/// # Errors
///
/// There is no such file or interface, or the endpoints cannot be set. A name that does not resolve
/// is only told of.
pub fn run(context: &Context, config: &OsStr) -> CommandResult {
    let file = file::read(config).map_err(|why| Failed::saying(1, why))?;
    let settings = Settings::parse(&file.text);
    let named = named(config::statements(&settings.blanked, true));
    if named.is_empty() {
        return Ok(());
    }
    let (name, family) = (file.name.as_str(), context.family.as_deref());
    let device = driver::get(name, family)
        .map_err(|error| kernel(context, "Unable to access interface", name, &error))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let mut resolve = |text: &EndpointText| match endpoint_now(text) {
        Ok(addr) => Some(addr),
        Err(reason) => {
            let name = String::from_utf8_lossy(text.text());
            say(format_args!("{reason}: `{name}'"));
            None
        }
    };
    let change = change(&device, &named, now, &mut resolve);
    if change.peers.is_empty() {
        return Ok(());
    }
    driver::set(name, &change, family)
        .map_err(|error| kernel(context, "Unable to modify interface", name, &error))
}

/// The peers whose endpoints are names, and these.
fn named(
    statements: impl IntoIterator<Item = config::Statement>,
) -> Vec<(PublicKey, EndpointText)> {
    let mut found = Vec::new();
    let (mut key, mut endpoint) = (None, None);
    let mut end = |key: &mut Option<PublicKey>, endpoint: &mut Option<EndpointText>| {
        if let (Some(key), Some(endpoint)) = (key.take(), endpoint.take()) {
            found.push((key, endpoint));
        }
    };
    for statement in statements {
        match statement.item {
            Ok(Item::Peer | Item::Interface) => {
                end(&mut key, &mut endpoint);
                (key, endpoint) = (None, None);
            }
            Ok(Item::PublicKey(public_key)) => key = Some(public_key),
            Ok(Item::Endpoint(text)) => {
                endpoint = Some(text).filter(|text| text.numeric().is_none());
            }
            _ => {}
        }
    }
    end(&mut key, &mut endpoint);
    found
}

/// New endpoints for the peers that are silent now.
fn change(
    device: &Device,
    named: &[(PublicKey, EndpointText)],
    now: i64,
    resolve: &mut dyn FnMut(&EndpointText) -> Option<SocketAddr>,
) -> SetDevice {
    let mut change = SetDevice::default();
    for (public_key, text) in named {
        let mut peers = device.peers.iter();
        let Some(peer) = peers.find(|peer| peer.public_key == *public_key) else {
            continue;
        };
        if now - peer.last_handshake.sec <= SILENT {
            continue;
        }
        let Some(endpoint) = resolve(text).filter(|addr| peer.endpoint != Some(*addr)) else {
            continue;
        };
        change.peers.push(SetPeer {
            public_key: *public_key,
            update_only: true,
            endpoint: Some(endpoint),
            ..SetPeer::default()
        });
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Peer, Timestamp};

    #[test]
    fn silent_peers_with_names_get_new_endpoints() {
        let key = |n: u8| PublicKey::new([n; 32]);
        let file = [
            (1, "one.example:1"),
            (2, "two.example:2"),
            (3, "192.0.2.3:3"),
            (4, "four.example:4"),
            (5, "five.example:5"),
            (6, "six.example:6"),
        ]
        .map(|(n, endpoint)| format!("[Peer]\nEndpoint = {endpoint}\nPublicKey = {}\n", key(n)))
        .concat();
        let named = named(config::statements(file.as_bytes(), true));
        let keys: Vec<PublicKey> = named.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [1, 2, 4, 5, 6].map(key));
        let peer = |n: u8, sec: i64, endpoint: &str| Peer {
            public_key: key(n),
            last_handshake: Timestamp { sec, nsec: 0 },
            endpoint: endpoint.parse().ok(),
            ..Peer::default()
        };
        let device = Device {
            peers: vec![
                // Silent, in use, never, silent but where it was, silent and unknown.
                peer(1, 1000, "198.51.100.1:1"),
                peer(2, 1900, "198.51.100.2:2"),
                peer(4, 0, ""),
                peer(5, 1000, "203.0.113.5:5"),
                peer(6, 1000, ""),
            ],
            ..Device::default()
        };
        let mut asked = Vec::new();
        let mut resolve = |text: &EndpointText| {
            let text = String::from_utf8_lossy(text.text()).into_owned();
            let port = text.rsplit(':').next().unwrap().to_owned();
            asked.push(text);
            (port != "6").then(|| format!("203.0.113.{port}:{port}").parse().unwrap())
        };
        let change = change(&device, &named, 2000, &mut resolve);
        let set: Vec<_> = change
            .peers
            .iter()
            .map(|p| (p.public_key, p.endpoint))
            .collect();
        let wanted = [1, 4].map(|n| (key(n), format!("203.0.113.{n}:{n}").parse().ok()));
        assert_eq!(set, wanted);
        assert!(change.peers.iter().all(|peer| peer.update_only));
        assert_eq!(asked.len(), 4, "{asked:?}");
    }
}

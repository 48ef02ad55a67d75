// SPDX-License-Identifier: GPL-2.0-only
//! The settings of an interface and its peers that a table shows, as the module `wireguard_rs`
//! tells them: all, or those that have changed.

use super::extension::Extension;
use super::message::Message;
use super::reply::read_endpoint;
use super::Link;
use crate::key::PublicKey;
use crate::netlink::attributes;
use std::io;
use std::net::SocketAddr;
use wireguard_rs::proto::extension::{cmd, device, peer, show};

/// The settings of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Their generation; `None` if they changed while this was read.
    pub generation: Option<u32>,
    /// UDP port, 0 while none was chosen.
    pub listen_port: u16,
    /// Its peers.
    pub peers: Vec<PeerSettings>,
}

/// The settings of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSettings {
    /// Which peer.
    pub public_key: PublicKey,
    /// Where packets are sent to.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives, 0 when off.
    pub persistent_keepalive: u16,
}

impl Extension {
    /// Reads the settings; only of peers that a request has changed since a generation, if one is
    /// given.
    ///
    /// # Errors
    ///
    /// As for other requests.
    pub fn settings(&mut self, link: Link<'_>, since: Option<u32>) -> io::Result<Settings> {
        let which = |request: &mut Message| {
            request.put(device::SHOW, &show::SETTINGS.to_ne_bytes())?;
            match since {
                Some(since) => request.put(device::CHANGED_SINCE, &since.to_ne_bytes()),
                None => Ok(()),
            }
        };
        let (mut found, whole) = self.dump(link, cmd::PEERS_GET, &which, &read)?;
        if !whole {
            found.generation = None;
        }
        Ok(found)
    }
}

/// Adds what a message says.
fn read(payload: &[u8], to: &mut Settings) {
    for (kind, value) in attributes(payload) {
        match kind {
            device::GENERATION => to.generation = value.try_into().ok().map(u32::from_ne_bytes),
            device::LISTEN_PORT => to.listen_port = value.try_into().map_or(0, u16::from_ne_bytes),
            device::PEERS => to
                .peers
                .extend(attributes(value).filter_map(|(_, nest)| read_peer(nest))),
            _ => {}
        }
    }
}

fn read_peer(nest: &[u8]) -> Option<PeerSettings> {
    let (mut found, mut key) = (PeerSettings::default(), None);
    for (kind, value) in attributes(nest) {
        match kind {
            peer::PUBLIC_KEY => key = value.try_into().ok().map(PublicKey::new),
            peer::ENDPOINT => found.endpoint = read_endpoint(value),
            peer::PERSISTENT_KEEPALIVE_INTERVAL => {
                found.persistent_keepalive = value.try_into().map_or(0, u16::from_ne_bytes);
            }
            _ => {}
        }
    }
    found.public_key = key?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let mut message = Message::new(0, 0, &[]);
        message
            .put(device::GENERATION, &7u32.to_ne_bytes())
            .unwrap();
        message
            .put(device::LISTEN_PORT, &51820u16.to_ne_bytes())
            .unwrap();
        let list = message.nest(device::PEERS).unwrap();
        for (key, seconds) in [(Some([5; 32]), 25u16), (None, 9)] {
            let nest = message.nest(0).unwrap();
            if let Some(key) = key {
                message.put(peer::PUBLIC_KEY, &key).unwrap();
            }
            let kind = peer::PERSISTENT_KEEPALIVE_INTERVAL;
            message.put(kind, &seconds.to_ne_bytes()).unwrap();
            message.put(peer::ENDPOINT, &[9]).unwrap();
            message.end(nest);
        }
        message.end(list);
        let mut found = Settings::default();
        read(
            &message.finish()[crate::netlink::NETLINK_HEADER_LEN..],
            &mut found,
        );
        let wanted = Settings {
            generation: Some(7),
            listen_port: 51820,
            // Who has no key is nobody.
            peers: vec![PeerSettings {
                public_key: PublicKey::new([5; 32]),
                endpoint: None,
                persistent_keepalive: 25,
            }],
        };
        assert_eq!(found, wanted);
    }
}

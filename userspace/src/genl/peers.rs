// SPDX-License-Identifier: GPL-2.0-only
//! The counters of an interface and its peers that only the module `wireguard_rs` has.

use super::extension::Extension;
use super::message::Message;
use super::Link;
use crate::key::PublicKey;
use crate::netlink::attributes;
use std::io;
use wireguard_rs::proto::extension::{cmd, device, peer, show};
use wireguard_rs::proto::Rejection;

/// What was refused or lost: how often, and why.
pub type Refused = Vec<(Rejection, u64)>;

/// The counters of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Name of the interface.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// The generation of the settings; `None` if they changed while this was read.
    pub generation: Option<u32>,
    /// Cookie replies that were sent.
    pub cookies_sent: u64,
    /// What was refused, by peers and by the interface.
    pub refused: Refused,
    /// Its peers.
    pub peers: Vec<PeerCounters>,
}

/// The counters of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Which peer.
    pub public_key: PublicKey,
    /// When the last handshake was, in seconds since 1970.
    pub last_handshake: Option<i64>,
    /// Bytes of messages that were accepted.
    pub rx_bytes: u64,
    /// Bytes of messages that were sent.
    pub tx_bytes: u64,
    /// Messages that were accepted.
    pub rx_packets: u64,
    /// Messages that were sent.
    pub tx_packets: u64,
    /// Initiations that were sent.
    pub initiations_sent: u64,
    /// Initiations that were accepted.
    pub initiations_received: u64,
    /// Responses that were sent.
    pub responses_sent: u64,
    /// Responses that were accepted.
    pub responses_received: u64,
    /// Cookie replies that were accepted.
    pub cookies_received: u64,
    /// Keepalives that were accepted.
    pub keepalives_received: u64,
    /// Initiations that were sent for want of a response.
    pub retries: u64,
    /// Changes of the endpoint.
    pub endpoint_changes: u64,
    /// What was refused.
    pub refused: Refused,
}

/// Reads the counters of an interface.
///
/// # Errors
///
/// `EPROTONOSUPPORT` if the driver has none; otherwise as for other requests.
pub fn counters(interface: &str) -> io::Result<Counters> {
    let link = Link::Name(interface);
    Extension::open_for(link)?.counters(link)
}

impl Extension {
    /// Reads the counters of an interface, and nothing else.
    ///
    /// # Errors
    ///
    /// As for other requests.
    pub fn counters(&mut self, link: Link<'_>) -> io::Result<Counters> {
        let show = |request: &mut Message| request.put(device::SHOW, &show::COUNTERS.to_ne_bytes());
        let (mut found, whole) = self.dump(link, cmd::PEERS_GET, &show, &read)?;
        if !whole {
            found.generation = None;
        }
        Ok(found)
    }
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_ne_bytes)
}

/// Adds what a message says.
fn read(payload: &[u8], to: &mut Counters) {
    for (kind, value) in attributes(payload) {
        match kind {
            device::IFINDEX => to.ifindex = value.try_into().map_or(0, u32::from_ne_bytes),
            device::IFNAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                to.interface = String::from_utf8_lossy(name).into_owned();
            }
            device::GENERATION => to.generation = value.try_into().ok().map(u32::from_ne_bytes),
            device::COOKIES_SENT => to.cookies_sent = number(value),
            device::REFUSED => to.refused = refused(value),
            device::PEERS => to
                .peers
                .extend(attributes(value).filter_map(|(_, nest)| read_peer(nest))),
            _ => {}
        }
    }
}

fn read_peer(nest: &[u8]) -> Option<PeerCounters> {
    let mut found = PeerCounters::default();
    let mut key = None;
    for (kind, value) in attributes(nest) {
        let counter = match kind {
            peer::PUBLIC_KEY => {
                key = value.try_into().ok().map(PublicKey::new);
                continue;
            }
            peer::LAST_HANDSHAKE_TIME => {
                found.last_handshake = value.first_chunk().map(|secs| i64::from_ne_bytes(*secs));
                continue;
            }
            peer::REFUSED => {
                found.refused = refused(value);
                continue;
            }
            peer::RX_BYTES => &mut found.rx_bytes,
            peer::TX_BYTES => &mut found.tx_bytes,
            peer::RX_PACKETS => &mut found.rx_packets,
            peer::TX_PACKETS => &mut found.tx_packets,
            peer::INITIATIONS_SENT => &mut found.initiations_sent,
            peer::INITIATIONS_RECEIVED => &mut found.initiations_received,
            peer::RESPONSES_SENT => &mut found.responses_sent,
            peer::RESPONSES_RECEIVED => &mut found.responses_received,
            peer::COOKIES_RECEIVED => &mut found.cookies_received,
            peer::KEEPALIVES_RECEIVED => &mut found.keepalives_received,
            peer::RETRIES => &mut found.retries,
            peer::ENDPOINT_CHANGES => &mut found.endpoint_changes,
            _ => continue,
        };
        *counter = number(value);
    }
    found.public_key = key?;
    Some(found)
}

fn refused(nest: &[u8]) -> Refused {
    attributes(nest)
        .filter_map(|(kind, value)| {
            let reason = Rejection::ALL.get(usize::from(kind).checked_sub(1)?)?;
            Some((*reason, number(value)))
        })
        .collect()
}

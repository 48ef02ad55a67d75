// SPDX-License-Identifier: GPL-2.0-only
//! What is allowed, but not what anybody wants.

use std::collections::{HashMap, HashSet};
use std::mem::{discriminant, Discriminant};
use std::net::IpAddr;

use super::report::{quoted, Finding};
use crate::config::{Item, Place, QuickKey, Statement};
use crate::key::PublicKey;
use crate::model::AllowedIp;

/// A peer's section, as far as it can be read.
struct Peer<'a> {
    place: Place,
    key: Option<(PublicKey, Place)>,
    /// Its allowed IPs, each with its line.
    allowed: Vec<(AllowedIp, Place)>,
    /// No line about allowed IPs, not even a faulty one.
    silent: bool,
    items: Vec<(&'a Item, Place)>,
}

/// All warnings, in no order.
pub fn warnings(statements: &[Statement]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut interface: Vec<(&Item, Place)> = Vec::new();
    let mut peers: Vec<Peer> = Vec::new();
    let mut broken_peer_key = false;
    for statement in statements {
        let place = statement.place;
        for warning in &statement.warnings {
            let text = quoted(&warning.text).unwrap_or_default();
            let help = "the bits after the prefix are ignored";
            found.push(Finding::warning(
                warning.place,
                format!("{text} is an address, not a network"),
                help,
            ));
        }
        match (&statement.item, peers.last_mut()) {
            (Ok(Item::Peer), _) => {
                peers.push(Peer {
                    place,
                    key: None,
                    allowed: Vec::new(),
                    silent: true,
                    items: Vec::new(),
                });
            }
            // A second [Interface] is an error already.
            (Ok(Item::Interface), _) => {}
            (Ok(item), Some(peer)) if !of_interface(item) => {
                peer.items.push((item, place));
                match item {
                    Item::PublicKey(key) => peer.key = Some((*key, place)),
                    Item::AllowedIps(list) => {
                        peer.silent = false;
                        let added = list.ips.iter().filter(|ip| !ip.remove);
                        peer.allowed.extend(added.map(|ip| (network(ip.ip), place)));
                    }
                    Item::Endpoint(endpoint) if endpoint.numeric().is_none() => {
                        let text = quoted(endpoint.host()).unwrap_or_default();
                        let help = "a later change of its address goes unnoticed";
                        found.push(Finding::warning(
                            place,
                            format!("{text} is looked up only once, when the tunnel is set up"),
                            help,
                        ));
                    }
                    _ => {}
                }
            }
            (Ok(item), _) => interface.push((item, place)),
            // Something about this peer cannot be read: no conclusions from what is missing.
            (Err(_), Some(peer)) => peer.silent = false,
            (Err(_), None) => broken_peer_key = true,
        }
    }
    found.extend(repeated(&interface));
    for peer in &peers {
        found.extend(repeated(&peer.items));
        if peer.silent {
            let help = "nothing is sent to it, and nothing accepted from it";
            found.push(Finding::warning(
                peer.place,
                "this peer has no AllowedIPs",
                help,
            ));
        }
    }
    found.extend(private_key(&interface, &peers, broken_peer_key));
    found.extend(shared(&peers));
    found
}

/// Whether the item stands in an `[Interface]` section.
fn of_interface(item: &Item) -> bool {
    matches!(
        item,
        Item::PrivateKey(_) | Item::ListenPort(_) | Item::FwMark(_) | Item::Quick(..)
    )
}

/// Keys of which only the last counts, given more than once.
fn repeated(items: &[(&Item, Place)]) -> Vec<Finding> {
    let single = |item: &Item| match item {
        Item::AllowedIps(_) | Item::Interface | Item::Peer => None,
        Item::Quick(key @ (QuickKey::Mtu | QuickKey::Table | QuickKey::SaveConfig), _) => {
            Some((discriminant(item), Some(*key)))
        }
        Item::Quick(..) => None,
        _ => Some((discriminant(item), None)),
    };
    let mut seen: HashMap<(Discriminant<Item>, Option<QuickKey>), Place> = HashMap::new();
    let mut found = Vec::new();
    for (item, place) in items {
        let Some(before) = single(item).and_then(|name| seen.insert(name, *place)) else {
            continue;
        };
        let message = format!("this takes the place of line {}", before.line);
        found.push(Finding::warning(
            *place,
            message,
            "only the last of them counts",
        ));
    }
    found
}

/// No private key at all, or a peer that is the interface itself.
fn private_key(interface: &[(&Item, Place)], peers: &[Peer], unreadable: bool) -> Vec<Finding> {
    let own = interface.iter().rev().find_map(|(item, _)| match item {
        Item::PrivateKey(key) => Some(key.public_key()),
        _ => None,
    });
    let Some(own) = own else {
        // A hook may set it.
        let hooks = interface
            .iter()
            .any(|(item, _)| matches!(item, Item::Quick(QuickKey::PreUp | QuickKey::PostUp, _)));
        let missing = !hooks && !unreadable && !peers.is_empty();
        let message = "there is no PrivateKey: the interface will not send or accept anything";
        let severity = super::report::Severity::Warning;
        return missing
            .then(|| Finding {
                severity,
                place: None,
                message: message.into(),
                help: None,
            })
            .into_iter()
            .collect();
    };
    let same = peers
        .iter()
        .filter_map(|peer| peer.key)
        .filter(|(key, _)| *key == own);
    same.map(|(_, place)| {
        Finding::warning(
            place,
            "this is the interface's own key",
            "the kernel leaves such a peer out",
        )
    })
    .collect()
}

/// One public key in two sections, and one network with two peers.
fn shared(peers: &[Peer]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut keys: HashMap<PublicKey, Place> = HashMap::new();
    for (key, place) in peers.iter().filter_map(|peer| peer.key) {
        if let Some(before) = keys.insert(key, place) {
            let message = format!("the same peer as in line {}", before.line);
            found.push(Finding::warning(
                place,
                message,
                "its AllowedIPs take the place of those above",
            ));
        }
    }
    let mut owners: HashMap<(IpAddr, u8), (usize, Place)> = HashMap::new();
    for (index, peer) in peers.iter().enumerate() {
        let mut told = HashSet::new();
        for (ip, place) in &peer.allowed {
            let Some((owner, before)) = owners.insert((ip.addr, ip.cidr), (index, *place)) else {
                continue;
            };
            let same_peer = owner == index
                || peers
                    .get(owner)
                    .is_some_and(|other| other.key.map(|k| k.0) == peer.key.map(|k| k.0));
            if !same_peer && told.insert((ip.addr, ip.cidr)) {
                let message = format!("{ip} belongs to the peer of line {}, too", before.line);
                found.push(Finding::warning(
                    *place,
                    message,
                    "only one peer can have it: this one, the last",
                ));
            }
        }
    }
    found
}

/// The allowed IP without the bits after its prefix.
fn network(ip: AllowedIp) -> AllowedIp {
    let host = |bits: u32| u32::from(ip.cidr).min(bits);
    let addr = match ip.addr {
        IpAddr::V4(addr) => {
            IpAddr::V4((addr.to_bits() & u32::MAX.checked_shl(32 - host(32)).unwrap_or(0)).into())
        }
        IpAddr::V6(addr) => IpAddr::V6(
            (addr.to_bits() & u128::MAX.checked_shl(128 - host(128)).unwrap_or(0)).into(),
        ),
    };
    AllowedIp { addr, ..ip }
}

// SPDX-License-Identifier: GPL-2.0-only
//! What is valid but probably unintended.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::mem::discriminant;
use std::net::IpAddr;

use crate::config::{Item, Place};
use crate::finding::{quoted, Finding, Severity};
use crate::key::PublicKey;
use crate::model::AllowedIp;
use crate::quick::{Judged, Key, Routing, Settings, Table};

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
pub fn warnings(judged: &Judged) -> Vec<Finding> {
    let mut found = tunnel(&judged.settings);
    let mut interface: Vec<(&Item, Place)> = Vec::new();
    let mut peers: Vec<Peer> = Vec::new();
    let mut broken_peer_key = false;
    let mut interfaces = 0;
    for statement in &judged.statements {
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
            (Ok(Item::Interface), _) => {
                interfaces += 1;
                if interfaces > 1 {
                    let message = "another [Interface] section";
                    let help = "all of them are read as one";
                    found.push(Finding::warning(place, message, help));
                }
            }
            (Ok(item), Some(peer)) if !of_interface(item) => {
                peer.items.push((item, place));
                match item {
                    Item::PublicKey(key) => peer.key = Some((*key, place)),
                    Item::AllowedIps(list) => {
                        peer.silent = false;
                        let added = list.ips.iter().filter(|ip| !ip.remove);
                        peer.allowed.extend(added.map(|ip| (network(ip.ip), place)));
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
    let hooks = &judged.settings.hooks;
    let by_hook = hooks
        .iter()
        .any(|hook| matches!(hook.key, Key::PreUp | Key::PostUp));
    found.extend(private_key(&interface, &peers, broken_peer_key || by_hook));
    found.extend(shared(&peers));
    found
}

/// Whether the item stands in an `[Interface]` section.
fn of_interface(item: &Item) -> bool {
    matches!(
        item,
        Item::PrivateKey(_) | Item::ListenPort(_) | Item::FwMark(_)
    )
}

/// What there is to say about wg-quick's keys.
fn tunnel(settings: &Settings) -> Vec<Finding> {
    let single = |key: &Key| matches!(key, Key::Mtu | Key::Table | Key::SaveConfig);
    let lines = settings.lines.iter().copied();
    let mut found = overridden(lines.filter(|(key, _)| single(key)));
    let mut tables = settings.lines.iter().rev();
    let table = tables.find(|(key, _)| *key == Key::Table);
    if let (Routing::Into(name), Some((_, place))) = (&settings.routing, table) {
        if Table::find(name).is_none() {
            let name = quoted(name.as_bytes()).unwrap_or_else(|| "this".into());
            let message = format!("no routing table is called {name} now");
            let help = "write off, auto, a number, or a name in rt_tables";
            found.push(Finding::warning(*place, message, help));
        }
    }
    found
}

/// Keys of which only the last counts, given more than once.
fn repeated(items: &[(&Item, Place)]) -> Vec<Finding> {
    let single = items
        .iter()
        .filter(|(item, _)| !matches!(item, Item::AllowedIps(_)));
    overridden(single.map(|(item, place)| (discriminant(*item), *place)))
}

fn overridden<T: Eq + Hash>(lines: impl Iterator<Item = (T, Place)>) -> Vec<Finding> {
    let mut seen = HashMap::new();
    let mut found = Vec::new();
    for (key, place) in lines {
        if let Some(Place { line, .. }) = seen.insert(key, place) {
            let help = "only the last of them counts";
            found.push(Finding::warning(
                place,
                format!("this overrides line {line}"),
                help,
            ));
        }
    }
    found
}

/// No private key at all, or a peer that is the interface itself.
/// `unknown`: a hook may set one, or a line cannot be read.
fn private_key(interface: &[(&Item, Place)], peers: &[Peer], unknown: bool) -> Vec<Finding> {
    let own = interface.iter().rev().find_map(|(item, _)| match item {
        Item::PrivateKey(key) => Some(key.public_key()),
        _ => None,
    });
    let Some(own) = own else {
        let missing = !unknown && !peers.is_empty();
        let message = "there is no PrivateKey: the interface will not send or accept anything";
        let severity = Severity::Warning;
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
                "its AllowedIPs replace those above",
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

// SPDX-License-Identifier: GPL-2.0-only
//! Options of an interface and its peers that only the module `wireguard_rs` has.

use super::extension::Extension;
use super::message::{Full, Message};
use super::Link;
use crate::key::PublicKey;
use crate::netlink::attributes;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use wireguard_rs::proto::extension::{cmd, device, options, peer, show};
use wireguard_rs::proto::uapi;

/// The options of an interface that are on or off: names and attributes.
pub const SWITCHES: [(&str, u16); 3] = [
    ("udp-gso", options::UDP_GSO),
    ("copy-dscp", options::COPY_DSCP),
    ("eager-handshake", options::EAGER_HANDSHAKE),
];

/// The options, or those of them that are to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// As in [`SWITCHES`].
    pub switches: [Option<bool>; SWITCHES.len()],
    /// What the sockets are bound to.
    pub binding: Binding,
    /// Those of peers.
    pub peers: Vec<(PublicKey, PeerOptions)>,
}

/// What the sockets of an interface are bound to, or are to be bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The name of an interface; empty for any.
    pub interface: Option<String>,
    /// Unspecified for any.
    pub v4: Option<Ipv4Addr>,
    /// Unspecified for any.
    pub v6: Option<Ipv6Addr>,
}

impl Binding {
    fn read(&mut self, kind: u16, value: &[u8]) {
        match kind {
            options::BIND_INTERFACE => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                self.interface = Some(String::from_utf8_lossy(name).into_owned());
            }
            options::BIND_ADDRESS4 => self.v4 = <[u8; 4]>::try_from(value).ok().map(Into::into),
            options::BIND_ADDRESS6 => self.v6 = <[u8; 16]>::try_from(value).ok().map(Into::into),
            _ => {}
        }
    }

    fn write(&self, request: &mut Message) -> Result<(), Full> {
        if let Some(name) = &self.interface {
            let name = [name.as_bytes(), &[0]].concat();
            request.put(options::BIND_INTERFACE, &name)?;
        }
        if let Some(addr) = self.v4 {
            request.put(options::BIND_ADDRESS4, &addr.octets())?;
        }
        if let Some(addr) = self.v6 {
            request.put(options::BIND_ADDRESS6, &addr.octets())?;
        }
        Ok(())
    }
}

/// The options of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerOptions {
    /// Whether it stays where it was said to be.
    pub fixed_endpoint: Option<bool>,
    /// After how many seconds without data an event tells of it; 0 for never.
    pub silence: Option<u16>,
}

/// Reads the options of an interface.
///
/// # Errors
///
/// `EPROTONOSUPPORT` if the driver has none; otherwise as for other requests.
pub fn get(interface: &str) -> io::Result<Options> {
    let link = Link::Name(interface);
    let mut extension = Extension::open_for(link)?;
    let mut found = Options::default();
    extension.ask(
        link,
        cmd::OPTIONS_GET,
        NLM_F_DUMP,
        &|_| Ok(()),
        &mut |payload| {
            for (kind, value) in attributes(payload) {
                let switches = SWITCHES.iter().zip(&mut found.switches);
                for (_, to) in switches.filter(|((_, attr), _)| *attr == kind) {
                    *to = value.first().map(|value| *value != 0);
                }
                found.binding.read(kind, value);
            }
        },
    )?;
    let settings = |request: &mut Message| request.put(device::SHOW, &show::SETTINGS.to_ne_bytes());
    extension.ask(
        link,
        cmd::PEERS_GET,
        NLM_F_DUMP,
        &settings,
        &mut |payload| {
            for (_, list) in attributes(payload).filter(|(kind, _)| *kind == device::PEERS) {
                let peers = attributes(list).filter_map(|(_, nest)| read_peer(nest));
                found.peers.extend(peers);
            }
        },
    )?;
    Ok(found)
}

fn read_peer(nest: &[u8]) -> Option<(PublicKey, PeerOptions)> {
    let (mut key, mut of) = (None, PeerOptions::default());
    for (kind, value) in attributes(nest) {
        match kind {
            peer::PUBLIC_KEY => key = value.try_into().ok().map(PublicKey::new),
            peer::FIXED_ENDPOINT => of.fixed_endpoint = value.first().map(|value| *value != 0),
            peer::SILENCE => of.silence = value.try_into().ok().map(u16::from_ne_bytes),
            _ => {}
        }
    }
    Some((key?, of))
}

/// Sets options of an interface.
///
/// # Errors
///
/// As for [`get`]; `ENOENT` for a peer that is not there.
pub fn set(interface: &str, change: &Options) -> io::Result<()> {
    let link = Link::Name(interface);
    let mut extension = Extension::open_for(link)?;
    // Otherwise it would be passed over in silence.
    for (key, _) in &change.peers {
        let only = |request: &mut Message| {
            request.put(device::SHOW, &0_u32.to_ne_bytes())?;
            request.put(device::PEER, key.as_bytes())
        };
        extension.ask(link, cmd::PEERS_GET, NLM_F_DUMP, &only, &mut |_| ())?;
    }
    let switches = |request: &mut Message| {
        for ((_, attr), value) in SWITCHES.iter().zip(change.switches) {
            if let Some(on) = value {
                request.put(*attr, &[on.into()])?;
            }
        }
        change.binding.write(request)
    };
    extension.ask(link, cmd::OPTIONS_SET, NLM_F_ACK, &switches, &mut |_| ())?;
    if change.peers.is_empty() {
        return Ok(());
    }
    let peers = |request: &mut Message| {
        let list = request.nest(device::PEERS)?;
        for (key, of) in &change.peers {
            let nest = request.nest(0)?;
            request.put(peer::PUBLIC_KEY, key.as_bytes())?;
            request.put(peer::FLAGS, &uapi::peer::F_UPDATE_ONLY.to_ne_bytes())?;
            if let Some(fixed) = of.fixed_endpoint {
                request.put(peer::FIXED_ENDPOINT, &[fixed.into()])?;
            }
            if let Some(seconds) = of.silence {
                request.put(peer::SILENCE, &seconds.to_ne_bytes())?;
            }
            request.end(nest);
        }
        request.end(list);
        Ok(())
    };
    extension.ask(link, cmd::SET, NLM_F_ACK, &peers, &mut |_| ())?;
    Ok(())
}

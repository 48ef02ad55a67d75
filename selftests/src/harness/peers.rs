// SPDX-License-Identifier: GPL-2.0-only
//! Peers and counters, through the family that only our module has.

use super::netlink::{attrs, family_id, Attrs, Netlink};
use super::wgdev::Key;
use nix::errno::Errno;
use std::collections::BTreeMap;
use wireguard_rs::proto::extension::{cmd, device, peer};
use wireguard_rs::proto::Rejection;

/// The counters of reasons, by reason.
pub type Refused = BTreeMap<&'static str, u64>;

/// What is told of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// All attributes.
    pub attrs: BTreeMap<u16, Vec<u8>>,
    /// What was refused.
    pub refused: Refused,
}

impl Peer {
    /// A counter.
    pub fn count(&self, kind: u16) -> u64 {
        number(&self.attrs, kind).unwrap_or(0)
    }

    /// The public key.
    pub fn key(&self) -> Option<Key> {
        let key = self.attrs.get(&peer::PUBLIC_KEY)?;
        key.as_slice().try_into().ok()
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The attributes of the device, but for its peers.
    pub attrs: BTreeMap<u16, Vec<u8>>,
    /// What the device refused.
    pub refused: Refused,
    /// The peers. One that goes on in the next message is there twice.
    pub peers: Vec<Peer>,
}

impl Answer {
    /// A 32-bit attribute.
    pub fn u32(&self, kind: u16) -> Option<u32> {
        let value = self.attrs.get(&kind)?;
        value.as_slice().try_into().ok().map(u32::from_ne_bytes)
    }

    /// A counter.
    pub fn count(&self, kind: u16) -> u64 {
        number(&self.attrs, kind).unwrap_or(0)
    }
}

fn number(from: &BTreeMap<u16, Vec<u8>>, kind: u16) -> Option<u64> {
    let value = from.get(&kind)?;
    value.as_slice().try_into().ok().map(u64::from_ne_bytes)
}

fn refused(bytes: Option<&Vec<u8>>) -> Result<Refused, Errno> {
    let mut refused = Refused::new();
    for (kind, value) in attrs(bytes.map_or(&[], Vec::as_slice)) {
        let at = usize::from(kind).checked_sub(1).ok_or(Errno::EBADMSG)?;
        let Some(reason) = Rejection::ALL.get(at) else {
            // Padding.
            continue;
        };
        let value = value.as_slice().try_into().map_err(|_| Errno::EBADMSG)?;
        refused.insert(reason.as_str(), u64::from_ne_bytes(value));
    }
    Ok(refused)
}

/// Asks for the peers of a device in this namespace, with what `fill` wants of them.
pub fn get(family: &str, name: &str, fill: impl FnOnce(&mut Attrs)) -> Result<Answer, Errno> {
    let mut socket = Netlink::generic()?;
    let id = family_id(&mut socket, family)?;
    let mut body = Attrs::after(&[cmd::PEERS_GET, 1, 0, 0]);
    body.str(device::IFNAME, name);
    fill(&mut body);
    let mut answer = Answer::default();
    for reply in socket.request(id, libc::NLM_F_DUMP, body.bytes())? {
        for (kind, value) in attrs(reply.body.get(4..).unwrap_or_default()) {
            if kind != device::PEERS {
                answer.attrs.insert(kind, value);
                continue;
            }
            for (_, element) in attrs(&value) {
                let attrs: BTreeMap<u16, Vec<u8>> = attrs(&element).into_iter().collect();
                let refused = refused(attrs.get(&peer::REFUSED))?;
                answer.peers.push(Peer { attrs, refused });
            }
        }
    }
    answer.refused = refused(answer.attrs.get(&device::REFUSED))?;
    Ok(answer)
}

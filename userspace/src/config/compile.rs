// SPDX-License-Identifier: GPL-2.0-only
//! From [`Statement`]s to the change of a device that they describe.

use super::fault::{Fault, Kind, Place, Warning};
use super::parse::{showable, Item, Statement};
use super::value::{EndpointText, Port};
use crate::model::{SetDevice, SetPeer};
use std::net::SocketAddr;

/// Looks up what a configuration leaves to be looked up.
pub trait Lookup {
    /// The address of an endpoint, or the reason why there is none.
    fn endpoint(&mut self, endpoint: &EndpointText) -> Result<SocketAddr, LookupError>;
    /// Whether endpoints can be looked up at all; asked before a fault in one is told.
    fn ready(&mut self) -> Result<(), LookupError> {
        Ok(())
    }
    /// The port of a service, or the reason why there is none.
    fn port(&mut self, service: &[u8]) -> Result<u16, LookupError>;
    /// Called for each warning, in the order of the file.
    fn warn(&mut self, warning: &Warning);
}

/// Why a lookup failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// The name did not resolve, in the C library's words.
    Unresolved(String),
    /// Nothing can be looked up; this has been reported already.
    Reported,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileError {
    /// A fault in the text.
    Fault(Fault),
    /// See [`LookupError::Reported`].
    Reported,
}

/// Adds what the statements say to `device` (empty for `addconf`, [`SetDevice::whole`] for
/// `setconf`). Stops at the first fault, so that lookups and warnings come in the order of the file
/// and nothing is half-done.
pub fn compile(
    statements: impl IntoIterator<Item = Statement>,
    mut device: SetDevice,
    lookup: &mut dyn Lookup,
) -> Result<SetDevice, CompileError> {
    // Where each peer's section starts, and whether it has a key yet.
    let mut sections: Vec<(Place, bool)> = Vec::new();
    for statement in statements {
        for warning in &statement.warnings {
            lookup.warn(warning);
        }
        let item = match statement.item {
            Ok(item) => item,
            Err(faults) => {
                let Some(fault) = faults.into_iter().next() else {
                    continue;
                };
                if fault.kind.of_endpoint() {
                    lookup.ready().map_err(|_| CompileError::Reported)?;
                }
                return Err(CompileError::Fault(fault));
            }
        };
        let unresolved = |error, text: &[u8]| match error {
            LookupError::Unresolved(reason) => CompileError::Fault(Fault {
                kind: Kind::Unresolved(reason),
                place: statement.place,
                text: showable(text),
            }),
            LookupError::Reported => CompileError::Reported,
        };
        match item {
            Item::Interface => continue,
            Item::PrivateKey(key) => device.private_key = Some(key),
            Item::FwMark(mark) => device.fwmark = Some(mark),
            Item::ListenPort(Port::Number(port)) => device.listen_port = Some(port),
            Item::ListenPort(Port::Name(name)) => {
                device.listen_port = Some(
                    lookup
                        .port(&name)
                        .map_err(|error| unresolved(error, &name))?,
                );
            }
            Item::Peer => {
                device.peers.push(SetPeer {
                    replace_allowed_ips: true,
                    ..SetPeer::default()
                });
                sections.push((statement.place, false));
            }
            // Only a `[Peer]` line leads to the items of a peer.
            _ => {
                let (Some(peer), Some((_, has_key))) =
                    (device.peers.last_mut(), sections.last_mut())
                else {
                    continue;
                };
                match item {
                    Item::PublicKey(key) => (peer.public_key, *has_key) = (key, true),
                    Item::PresharedKey(key) => peer.preshared_key = Some(key),
                    Item::PersistentKeepalive(seconds) => peer.persistent_keepalive = Some(seconds),
                    Item::AllowedIps(list) => {
                        peer.replace_allowed_ips = !list.incremental;
                        if peer.allowed_ips.is_empty() {
                            peer.allowed_ips = list.ips;
                        } else {
                            peer.allowed_ips.extend(list.ips);
                        }
                    }
                    Item::Endpoint(endpoint) => {
                        let addr = lookup
                            .endpoint(&endpoint)
                            .map_err(|error| unresolved(error, endpoint.text()))?;
                        peer.endpoint = Some(addr);
                    }
                    _ => {}
                }
            }
        }
    }
    match sections.iter().find(|(_, has_key)| !has_key) {
        Some((place, _)) => Err(CompileError::Fault(Fault {
            kind: Kind::NoPublicKey,
            place: *place,
            text: Vec::new(),
        })),
        None => Ok(device),
    }
}

/// All faults: those of the text, and peers without a key.
pub fn faults(statements: &[Statement]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut open: Option<Place> = None;
    let no_key = |place: Place| Fault {
        kind: Kind::NoPublicKey,
        place,
        text: Vec::new(),
    };
    for statement in statements {
        match &statement.item {
            Ok(Item::Peer) => faults.extend(open.replace(statement.place).map(no_key)),
            Ok(Item::PublicKey(_)) => open = None,
            Err(found) => {
                if found.iter().any(|fault| fault.kind == Kind::PublicKey) {
                    open = None;
                }
                faults.extend(found.iter().cloned());
            }
            Ok(_) => {}
        }
    }
    faults.extend(open.map(no_key));
    faults.sort_by_key(|fault| fault.place);
    faults
}

// SPDX-License-Identifier: GPL-2.0-only
//! Listens to the events of the module `wireguard_rs`.

use super::find_extension;
use super::message::GENL_HEADER;
use super::reply::read_endpoint;
use crate::key::PublicKey;
use crate::netlink::{attributes, Error, Socket};
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use wireguard_rs::proto::extension::{attr, changed, event, role, GROUP_EVENTS};

/// The kernel keeps so many bytes of events for us.
const BACKLOG: usize = 1 << 20;

/// An event, by name and with what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub name: String,
    /// Number of the interface.
    pub ifindex: u32,
    /// Name of the interface.
    pub interface: String,
    /// Its number among the events of the interface.
    pub sequence: u32,
    /// The peer, or who wants to be one.
    pub public_key: Option<PublicKey>,
    /// Where the peer is.
    pub endpoint: Option<SocketAddr>,
    /// Where it was.
    pub old_endpoint: Option<SocketAddr>,
    /// Who began the handshake: `initiator` if we did.
    pub role: Option<&'static str>,
    /// The number of the session.
    pub session: Option<u64>,
    /// How many initiations were sent.
    pub attempts: Option<u32>,
    /// What a request has set.
    pub changed: Option<Vec<&'static str>>,
    /// Whether handshake messages need a cookie.
    pub under_load: Option<bool>,
    /// How long the peer has been silent.
    pub seconds: Option<u32>,
}

/// The names of events, as in the description of the family.
const EVENTS: [(u8, &str); 11] = [
    (event::HANDSHAKE_COMPLETED, "handshake-completed"),
    (event::HANDSHAKE_GIVEN_UP, "handshake-given-up"),
    (event::SESSION_EXPIRED, "session-expired"),
    (event::ENDPOINT_CHANGED, "endpoint-changed"),
    (event::PEER_ADDED, "peer-added"),
    (event::PEER_REMOVED, "peer-removed"),
    (event::PEER_CHANGED, "peer-changed"),
    (event::DEVICE_CHANGED, "device-changed"),
    (event::UNKNOWN_INITIATOR, "unknown-initiator"),
    (event::LOAD_CHANGED, "load-changed"),
    (event::PEER_SILENT, "peer-silent"),
];

/// The names of what a request has set.
const CHANGED: [(u32, &str); 13] = [
    (changed::PRIVATE_KEY, "private-key"),
    (changed::LISTEN_PORT, "listen-port"),
    (changed::FWMARK, "fwmark"),
    (changed::PRESHARED_KEY, "preshared-key"),
    (changed::ENDPOINT, "endpoint"),
    (changed::KEEPALIVE, "persistent-keepalive"),
    (changed::ALLOWED_IPS, "allowed-ips"),
    (changed::UDP_GSO, "udp-gso"),
    (changed::COPY_DSCP, "copy-dscp"),
    (changed::EAGER_HANDSHAKE, "eager-handshake"),
    (changed::FIXED_ENDPOINT, "fixed-endpoint"),
    (changed::SILENCE, "silence"),
    (changed::BINDING, "binding"),
];

impl Event {
    /// Reads what follows the netlink header; `None` for what is no event that we know.
    fn read(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<GENL_HEADER>()?;
        let (_, name) = EVENTS.iter().find(|(number, _)| *number == header[0])?;
        let mut event = Event {
            name: (*name).to_owned(),
            ..Event::default()
        };
        let u32_of = |value: &[u8]| value.first_chunk().map(|b| u32::from_ne_bytes(*b));
        for (kind, value) in attributes(rest) {
            match kind {
                attr::IFINDEX => event.ifindex = u32_of(value)?,
                attr::IFNAME => {
                    let name = value.strip_suffix(&[0]).unwrap_or(value);
                    event.interface = String::from_utf8_lossy(name).into_owned();
                }
                attr::SEQUENCE => event.sequence = u32_of(value)?,
                attr::PUBLIC_KEY => event.public_key = Some(PublicKey::new(value.try_into().ok()?)),
                attr::ENDPOINT => event.endpoint = read_endpoint(value),
                attr::OLD_ENDPOINT => event.old_endpoint = read_endpoint(value),
                attr::ROLE => {
                    event.role = match u32_of(value)? {
                        role::INITIATOR => Some("initiator"),
                        role::RESPONDER => Some("responder"),
                        _ => None,
                    }
                }
                attr::SESSION => event.session = value.try_into().ok().map(u64::from_ne_bytes),
                attr::ATTEMPTS => event.attempts = u32_of(value),
                attr::CHANGED => {
                    let flags = u32_of(value)?;
                    let set = CHANGED.iter().filter(|(flag, _)| flags & flag != 0);
                    event.changed = Some(set.map(|(_, name)| *name).collect());
                }
                attr::SECONDS => event.seconds = u32_of(value),
                attr::UNDER_LOAD => event.under_load = u32_of(value).map(|value| value != 0),
                _ => {}
            }
        }
        Some(event)
    }
}

/// What a listener hears.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Events, in order.
    Events(Vec<Event>),
    /// There were more than we could read.
    Lost,
}

/// Hears of the events in this network namespace.
pub struct Listener(Socket);

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` if the loaded driver tells of no events, `EPERM` without the right to
    /// configure interfaces.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::open(NETLINK_GENERIC)?;
        let groups = find_extension(&mut socket)?.groups;
        let group = groups.iter().find(|(name, _)| name == GROUP_EVENTS);
        let (_, group) = group.ok_or(Errno::EPROTONOSUPPORT)?;
        socket.listen(*group, BACKLOG)?;
        Ok(Self(socket))
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn hear(&mut self) -> io::Result<Heard> {
        let mut events = Vec::new();
        let heard = self
            .0
            .hear(&mut |payload| events.extend(Event::read(payload)));
        Ok(lost(heard)?.map_or(Heard::Lost, |()| Heard::Events(events)))
    }

    /// What has come, without waiting for more; `None` if nothing.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn hear_waiting(&mut self) -> io::Result<Option<Heard>> {
        let mut events = Vec::new();
        let heard = self
            .0
            .hear_waiting(&mut |payload| events.extend(Event::read(payload)));
        Ok(match lost(heard)? {
            None => Some(Heard::Lost),
            Some(true) => Some(Heard::Events(events)),
            Some(false) => None,
        })
    }
}

/// `None` if the kernel had more than it could keep for us.
fn lost<T>(heard: Result<T, Error>) -> io::Result<Option<T>> {
    match heard {
        Ok(heard) => Ok(Some(heard)),
        Err(error) if error.errno == Errno::ENOBUFS as i32 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The numbers of the events that come next, by interface.
#[derive(Default)]
pub struct Sequence(BTreeMap<u32, u32>);

impl Sequence {
    /// How many events of its interface were lost before this one.
    pub fn missing(&mut self, event: &Event) -> u32 {
        let next = event.sequence.wrapping_add(1);
        let wanted = self.0.insert(event.ifindex, next);
        wanted.map_or(0, |wanted| event.sequence.wrapping_sub(wanted))
    }

    /// Forgets the other interfaces.
    pub fn retain(&mut self, stays: impl Fn(u32) -> bool) {
        self.0.retain(|ifindex, _| stays(*ifindex));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn events_are_read() {
        let mut payload = vec![event::PEER_CHANGED, 1, 0, 0];
        payload.extend(attribute(attr::IFINDEX, &3u32.to_ne_bytes()));
        payload.extend(attribute(attr::IFNAME, b"wg0\0"));
        payload.extend(attribute(attr::SEQUENCE, &7u32.to_ne_bytes()));
        payload.extend(attribute(attr::PUBLIC_KEY, &[5; 32]));
        let flags = changed::ENDPOINT | changed::ALLOWED_IPS;
        payload.extend(attribute(attr::CHANGED, &flags.to_ne_bytes()));
        payload.extend(attribute(999, b"of a later version"));
        let event = Event::read(&payload).unwrap();
        assert_eq!(
            event,
            Event {
                name: "peer-changed".into(),
                ifindex: 3,
                interface: "wg0".into(),
                sequence: 7,
                public_key: Some(PublicKey::new([5; 32])),
                changed: Some(vec!["endpoint", "allowed-ips"]),
                ..Event::default()
            }
        );
    }

    #[test]
    fn what_is_no_event_is_passed_over() {
        assert_eq!(Event::read(&[]), None);
        assert_eq!(Event::read(&[event::PEER_ADDED]), None);
        assert_eq!(Event::read(&[0, 1, 0, 0]), None);
        let mut short = vec![event::PEER_ADDED, 1, 0, 0];
        short.extend(attribute(attr::PUBLIC_KEY, &[5; 31]));
        assert_eq!(Event::read(&short), None);
    }
}

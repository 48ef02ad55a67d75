// SPDX-License-Identifier: GPL-2.0-only
//! A tc program on the underlay: classifies all messages, and disturbs those that a rule selects.
//!
//! ```ignore
//! let mut underlay = Underlay::attach(tunnel.ns(0), "v0")?;
//! let lost = underlay.disturb(Rule::new(Direction::Out, &[Class::Initiation], Action::Drop))?;
//! ping_all(tunnel.ns(0), inner(false, 1), 1)?;
//! ensure!(underlay.hits(lost)? == 1);
//! underlay.only_wireguard()?;
//! ```
//!
//! Both directions are watched at one end of the veth pair: *out* is what the namespace sends
//! there. Outgoing frames pass the programs before packet captures, incoming ones after them.
//! Injected and duplicated frames are not counted and match no rule.

use super::inject::{complete_checksum, spoil_checksum, Injector};
use super::object::{attach, get, load, map, number, set, Direction};
use crate::netns::Netns;
use crate::topo;
use anyhow::{ensure, Context, Result};
use libbpf_rs::{libbpf_sys, MapCore, MapFlags, MapHandle, Object, RingBuffer, RingBufferBuilder};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/underlay.bpf.o"));

const MAX_RULES: u32 = 8;
const CLASSES: usize = 8;

/// The class of a frame, or of one message of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Handshake initiation, 148 bytes.
    Initiation,
    /// Handshake response, 92 bytes.
    Response,
    /// Cookie reply, 64 bytes.
    Cookie,
    /// Transport data with a packet inside.
    Data,
    /// Transport data without: 32 bytes.
    Keepalive,
    /// ARP, neighbour discovery, multicast listener reports.
    Neighbour,
    /// An ICMP error, such as port unreachable.
    IcmpError,
    /// Anything else.
    Stranger,
}

impl Class {
    /// The four types of messages (data with and without a packet counted as two).
    pub const MESSAGES: [Class; 5] = [
        Class::Initiation,
        Class::Response,
        Class::Cookie,
        Class::Data,
        Class::Keepalive,
    ];
}

/// Why a frame does not belong on the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither IP nor ARP.
    NotIp,
    /// A fragment of an IP packet.
    Fragment,
    /// An unexpected IP protocol.
    NotUdp,
    /// UDP, but not between the tunnel's ports.
    Ports,
    /// Not a message type of WireGuard.
    Type,
    /// Reserved bytes that are not zero.
    Reserved,
    /// An invalid length for this message type, or bytes beyond the datagram.
    Length,
    /// Transport data that is not padded to 16 bytes (nor as long as the MTU allows).
    Padding,
    /// An inner address in the clear: in the outer header, or where data should be encrypted.
    Inner,
    /// A code that the program should not report.
    Unknown,
}

/// What happens to the messages that match a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dropped.
    Drop,
    /// Duplicated.
    Duplicate,
    /// Held back, see [`Underlay::held`].
    Hold,
    /// One byte, at `offset` in the message (negative: from its end), is XORed with `mask`. The
    /// receiver's UDP accepts it: the checksum is never verified on a veth. For a message that UDP
    /// refuses, hold it and use [`Underlay::release_spoiled`].
    Corrupt {
        /// In bytes.
        offset: i32,
        /// The bits to change.
        mask: u8,
    },
}

/// Which messages are disturbed, and how: the first one after [`Underlay::disturb`] by default.
///
/// If a frame is an aggregate (outer segmentation offload), all its messages are counted one by
/// one, but it is dropped, duplicated or held as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    direction: Direction,
    classes: u32,
    action: Action,
    first: u64,
    every: u64,
    times: u64,
}

impl Rule {
    /// Acts on the first message of these `classes` in this direction, once.
    pub fn new(direction: Direction, classes: &[Class], action: Action) -> Self {
        Rule {
            direction,
            classes: classes.iter().fold(0, |mask, c| mask | (1 << *c as u32)),
            action,
            first: 0,
            every: 1,
            times: 1,
        }
    }

    /// Acts on the `n`-th one instead (from 1).
    pub fn nth(mut self, n: u64) -> Self {
        self.first = n.saturating_sub(1);
        self
    }

    /// Acts `times` times.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Acts on all from the first (or [`Rule::nth`]) on.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Acts on each `k`-th from the first (or [`Rule::nth`]) on.
    pub fn every(mut self, k: u64) -> Self {
        self.every = k.max(1);
        self.always()
    }

    fn bytes(&self) -> Vec<u8> {
        let (action, offset, mask) = match self.action {
            Action::Drop => (1, 0, 0),
            Action::Duplicate => (2, 0, 0),
            Action::Hold => (3, 0, 0),
            Action::Corrupt { offset, mask } => (4, offset, mask),
        };
        let mut out = Vec::with_capacity(56);
        for n in [self.first, self.every, self.times, 0, 0] {
            out.extend_from_slice(&n.to_ne_bytes());
        }
        out.extend_from_slice(&self.classes.to_ne_bytes());
        out.extend_from_slice(&offset.to_ne_bytes());
        out.extend_from_slice(&[self.direction as u8, action, mask, 0, 0, 0, 0, 0]);
        out
    }
}

/// Identifies an active rule.
#[derive(Clone, Copy, Debug)]
pub struct RuleId(u32);

/// How many of each [`Class`] passed in one direction, and their bytes (the UDP payload of
/// messages, the whole frame of others).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    frames: [u64; CLASSES],
    bytes: [u64; CLASSES],
}

impl Counts {
    /// Number of frames or messages.
    pub fn of(&self, class: Class) -> u64 {
        self.frames[class as usize]
    }

    /// Their bytes.
    pub fn bytes(&self, class: Class) -> u64 {
        self.bytes[class as usize]
    }

    /// Number of WireGuard messages of all types.
    pub fn messages(&self) -> u64 {
        Class::MESSAGES.iter().map(|c| self.of(*c)).sum()
    }
}

/// A frame that should not be on the underlay.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// Its direction.
    pub direction: Direction,
    /// What is wrong with it.
    pub reason: Reason,
    /// Its first 2048 bytes.
    pub bytes: Vec<u8>,
}

/// A frame that a rule held back.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its direction.
    pub direction: Direction,
    /// The whole frame, with a complete UDP checksum.
    pub bytes: Vec<u8>,
}

impl Held {
    /// The WireGuard message in it.
    pub fn message(&self) -> &[u8] {
        match crate::wire::frame(&self.bytes) {
            crate::wire::Frame::Udp { payload, .. } => payload,
            _ => &[],
        }
    }
}

#[derive(Default)]
struct Events {
    strangers: Vec<Stranger>,
    held: Vec<Held>,
}

/// A watched interface. All programs are detached on drop.
pub struct Underlay {
    ports: MapHandle,
    inner: MapHandle,
    mtu: MapHandle,
    counts: MapHandle,
    rules: MapHandle,
    lost: MapHandle,
    events: Arc<Mutex<Events>>,
    ring: RingBuffer<'static>,
    injector: Injector,
    used: u32,
    /// The programs are detached when these are closed.
    _links: [OwnedFd; 2],
    _object: Object,
}

impl Underlay {
    /// Watches `ifname` of `ns`. The tunnel's ports, inside addresses and MTU are those of
    /// [`topo`]; see [`Underlay::expect`] for others. Rules are about single messages: from now on
    /// what leaves there does not travel together.
    pub fn attach(ns: &Netns, ifname: &str) -> Result<Self> {
        ns.sh(&format!("ethtool -K {ifname} gso off"))?;
        let object = load("underlay", IMAGE)?;
        let events = Arc::new(Mutex::new(Events::default()));
        let ring = {
            let (map, events) = (map(&object, "events")?, events.clone());
            let mut builder = RingBufferBuilder::new();
            builder.add(&map, move |bytes| {
                sort(bytes, &mut events.lock().expect("poisoned"));
                0
            })?;
            builder.build().context("BPF ring buffer")?
        };
        let links = ns.run(|| {
            let index = nix::net::if_::if_nametoindex(ifname)?;
            Ok([
                attach(&object, "leaving", index, libbpf_sys::BPF_TCX_EGRESS)?,
                attach(&object, "arriving", index, libbpf_sys::BPF_TCX_INGRESS)?,
            ])
        });
        let underlay = Underlay {
            ports: map(&object, "ports")?,
            inner: map(&object, "inner")?,
            mtu: map(&object, "mtu")?,
            counts: map(&object, "counts")?,
            rules: map(&object, "rules")?,
            lost: map(&object, "lost")?,
            events,
            ring,
            injector: Injector::open(ns, ifname)?,
            used: 0,
            _links: links.with_context(|| format!("attach to {ifname} of {}", ns.name()))?,
            _object: object,
        };
        let inner = [false, true].map(|v6| [topo::inner(v6, 0), topo::inner(v6, 1)]);
        underlay.expect(&[topo::port(0), topo::port(1)], inner.as_flattened(), 1420)?;
        Ok(underlay)
    }

    /// Tells what a proper message looks like: both its ports are among `ports`, none of the
    /// `inner` addresses can be read in it, and transport data is padded as for this `mtu` of the
    /// tunnel.
    pub fn expect(&self, ports: &[u16], inner: &[IpAddr], mtu: u32) -> Result<()> {
        let ports: Vec<_> = ports.iter().map(|port| port.to_ne_bytes()).collect();
        fill(&self.ports, &ports)?;
        let inner: Vec<_> = inner.iter().copied().map(octets).collect();
        fill(&self.inner, &inner)?;
        set(&self.mtu, 0, &u64::from(mtu).to_ne_bytes())
    }

    /// Puts a rule into force. Each rule counts the messages it is about from now on; if several
    /// hit one message, the first one's action counts (corruptions all happen).
    pub fn disturb(&mut self, rule: Rule) -> Result<RuleId> {
        let free = (0..MAX_RULES).find(|n| self.used & (1 << n) == 0);
        let n = free.context("too many rules at once")?;
        set(&self.rules, n, &rule.bytes())?;
        self.used |= 1 << n;
        Ok(RuleId(n))
    }

    /// Ends a rule.
    pub fn lift(&mut self, rule: RuleId) -> Result<()> {
        self.used &= !(1 << rule.0);
        set(&self.rules, rule.0, &[0; 56])
    }

    /// How many messages of its kind passed since the rule is in force.
    pub fn seen(&self, rule: RuleId) -> Result<u64> {
        Ok(number(&get(&self.rules, rule.0)?, 3))
    }

    /// How many of them the rule acted on.
    pub fn hits(&self, rule: RuleId) -> Result<u64> {
        Ok(number(&get(&self.rules, rule.0)?, 4))
    }

    /// What passed in this direction since the attachment.
    pub fn counts(&self, direction: Direction) -> Result<Counts> {
        let value = get(&self.counts, direction as u32)?;
        Ok(Counts {
            frames: std::array::from_fn(|n| number(&value, n)),
            bytes: std::array::from_fn(|n| number(&value, CLASSES + n)),
        })
    }

    /// The frames since the last call that should not be there.
    pub fn strangers(&self) -> Result<Vec<Stranger>> {
        Ok(std::mem::take(&mut self.events()?.strangers))
    }

    /// An error if there was a frame that should not be there (and that [`Underlay::strangers`]
    /// has not given yet).
    pub fn only_wireguard(&self) -> Result<()> {
        let strangers = self.strangers()?;
        let Some(first) = strangers.first() else {
            return Ok(());
        };
        let shown: String = first.bytes.iter().take(80).map(hex).collect();
        anyhow::bail!(
            "{} frames on the underlay are no WireGuard messages; the first goes {:?}, {:?}, \
             {} bytes: {shown}",
            strangers.len(),
            first.direction,
            first.reason,
            first.bytes.len()
        )
    }

    /// The frames since the last call that rules took out, in the order in which they came.
    pub fn held(&self) -> Result<Vec<Held>> {
        Ok(std::mem::take(&mut self.events()?.held))
    }

    /// Lets a frame go on that was held back. (Again, if it was released before.)
    pub fn release(&self, held: &Held) -> Result<()> {
        self.injector.send(held.direction, &held.bytes)
    }

    /// The same, with a wrong UDP checksum.
    pub fn release_spoiled(&self, held: &Held) -> Result<()> {
        let mut bytes = held.bytes.clone();
        spoil_checksum(&mut bytes).context("no UDP frame")?;
        self.injector.send(held.direction, &bytes)
    }

    fn events(&self) -> Result<std::sync::MutexGuard<'_, Events>> {
        self.ring.consume().context("read the BPF ring buffer")?;
        let lost = number(&get(&self.lost, 0)?, 0);
        ensure!(lost == 0, "{lost} frames could not be shown or held back");
        Ok(self.events.lock().expect("poisoned"))
    }
}

/// An address as the program has it: 16 bytes, IPv4 mapped.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// Makes `keys` the keys of a map. A key that was there and stays is there all the time.
fn fill<const N: usize>(map: &MapHandle, keys: &[[u8; N]]) -> Result<()> {
    let old: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        map.update(key, &[1], MapFlags::ANY)
            .context("fill a BPF map")?;
    }
    for key in old.iter().filter(|old| !keys.iter().any(|k| k == &old[..])) {
        map.delete(key).context("clear a BPF map")?;
    }
    Ok(())
}

fn hex(byte: &u8) -> String {
    format!("{byte:02x}")
}

/// Takes one `struct event`.
fn sort(bytes: &[u8], events: &mut Events) {
    let word = |n: usize| {
        let bytes = bytes.get(n * 4..n * 4 + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    let direction = if word(3) == 0 {
        Direction::Out
    } else {
        Direction::In
    };
    let data = bytes.get(24..).unwrap_or(&[]);
    let mut bytes = data[..data.len().min(word(5) as usize)].to_vec();
    if word(2) == 1 {
        let _ = complete_checksum(&mut bytes);
        events.held.push(Held { direction, bytes });
    } else {
        const REASONS: [Reason; 9] = [
            Reason::NotIp,
            Reason::Fragment,
            Reason::NotUdp,
            Reason::Ports,
            Reason::Type,
            Reason::Reserved,
            Reason::Length,
            Reason::Padding,
            Reason::Inner,
        ];
        let reason = REASONS.get(word(4) as usize);
        events.strangers.push(Stranger {
            direction,
            reason: reason.copied().unwrap_or(Reason::Unknown),
            bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_layout() {
        let classes = [Class::Data, Class::Keepalive];
        let action = Action::Corrupt {
            offset: -1,
            mask: 0x80,
        };
        let rule = Rule::new(Direction::In, &classes, action).nth(3).every(2);
        let bytes = rule.bytes();
        assert_eq!(bytes.len(), 56);
        assert_eq!((number(&bytes, 0), number(&bytes, 1)), (2, 2));
        assert_eq!(number(&bytes, 2), u64::MAX);
        assert_eq!(bytes[40..44], 0b11000u32.to_ne_bytes());
        assert_eq!(bytes[44..51], [0xff, 0xff, 0xff, 0xff, 1, 4, 0x80]);
    }

    #[test]
    fn event_layout() {
        let mut bytes = vec![0; 24 + 2048];
        for (at, value) in [(8, 0), (12, 1), (16, 8), (20, 3)] {
            bytes[at] = value;
        }
        let mut events = Events::default();
        sort(&bytes, &mut events);
        let stranger = &events.strangers[0];
        assert_eq!(stranger.reason, Reason::Inner);
        assert_eq!(stranger.direction, Direction::In);
        assert_eq!(stranger.bytes.len(), 3);
    }
}

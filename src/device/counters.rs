// SPDX-License-Identifier: GPL-2.0-only

//! What a peer and an interface count beside packets and bytes: handshakes, and what was refused
//! or lost, by its reason.
//!
//! Every message that comes to an interface's port, and every packet that the network stack hands
//! it, is sent, accepted, or counted here once. None of it is counted on the way of a packet that
//! arrives.

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::Device,
    kapi::{
        cpu,
        net::skbuff::{DropReason, SkBuff, Skb},
        sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
        trace::{self, TracedPeer},
    },
    proto::Rejection,
};

/// What a peer does and undergoes that is no refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Happening {
    InitiationSent,
    InitiationReceived,
    ResponseSent,
    ResponseReceived,
    CookieReceived,
    KeepaliveReceived,
    /// An initiation was sent because there was no response to the last.
    Retry,
    /// The peer has roamed: a message of it came from elsewhere.
    Roam,
}

const HAPPENINGS: usize = 8;

/// The counters of a peer.
pub(crate) struct PeerCounters {
    /// Whether any of them was ever counted: of most of many peers, none.
    used: AtomicBool,
    /// The same of `refused`.
    refused_any: AtomicBool,
    happenings: [AtomicU64; HAPPENINGS],
    refused: [AtomicU64; Rejection::OF_PEERS],
}

impl PeerCounters {
    pub(crate) const fn new() -> Self {
        Self {
            used: AtomicBool::new(false),
            refused_any: AtomicBool::new(false),
            happenings: [const { AtomicU64::new(0) }; HAPPENINGS],
            refused: [const { AtomicU64::new(0) }; Rejection::OF_PEERS],
        }
    }

    pub(crate) fn note(&self, what: Happening) {
        if let Some(counter) = self.happenings.get(what as usize) {
            counter.fetch_add(1, Relaxed);
            self.used.store(true, Relaxed);
        }
    }

    /// Whether any of them is not 0.
    pub(crate) fn used(&self) -> bool {
        self.used.load(Relaxed)
    }

    pub(crate) fn count(&self, what: Happening) -> u64 {
        self.happenings
            .get(what as usize)
            .map_or(0, |counter| counter.load(Relaxed))
    }

    /// How many handshake messages and keepalives were accepted.
    pub(crate) fn without_data(&self) -> u64 {
        [
            Happening::InitiationReceived,
            Happening::ResponseReceived,
            Happening::KeepaliveReceived,
        ]
        .into_iter()
        .fold(0, |sum, what| sum.wrapping_add(self.count(what)))
    }

    /// Counts packets that were refused. A reason that only an interface has is none of the peer's.
    pub(crate) fn refuse(&self, reason: Rejection, packets: usize) {
        if let Some(counter) = self.refused.get(reason.index()) {
            counter.fetch_add(packets as u64, Relaxed);
            self.used.store(true, Relaxed);
            self.refused_any.store(true, Relaxed);
        }
    }

    /// How many packets were refused for that reason.
    pub(crate) fn refused(&self, reason: Rejection) -> u64 {
        self.refused
            .get(reason.index())
            .map_or(0, |counter| counter.load(Relaxed))
    }

    /// Whether any packet was refused.
    pub(crate) fn refused_any(&self) -> bool {
        self.refused_any.load(Relaxed)
    }
}

/// Whether a peer is silent: nothing but keepalives and handshake messages comes from it.
pub(crate) struct Silence {
    /// Seconds; 0 if nobody wants to know.
    limit_s: AtomicU32,
    /// How many messages with data there were when somebody last looked.
    heard: AtomicU64,
    /// How often there was none more since.
    looks: AtomicU32,
}

/// How often is looked within the limit.
const LOOKS: u32 = 4;

impl Silence {
    pub(crate) const fn new() -> Self {
        Self {
            limit_s: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            looks: AtomicU32::new(0),
        }
    }

    pub(crate) fn limit_s(&self) -> u16 {
        self.limit_s.load(Relaxed) as u16
    }

    /// Sets the limit in seconds; 0 for none.
    pub(crate) fn set_limit(&self, seconds: u16) {
        self.limit_s.store(seconds.into(), Relaxed);
        self.looks.store(0, Relaxed);
    }

    /// Milliseconds until it is looked again; [`None`] if nobody wants to know.
    pub(crate) fn delay_ms(&self) -> Option<u32> {
        match self.limit_s.load(Relaxed) {
            0 => None,
            seconds => Some(seconds.saturating_mul(1000) / LOOKS),
        }
    }

    /// Looks: `heard` messages with data have come in all. True once for each silence.
    pub(crate) fn look(&self, heard: u64) -> bool {
        if self.heard.swap(heard, Relaxed) != heard {
            self.looks.store(0, Relaxed);
            return false;
        }
        let looks = self.looks.load(Relaxed).saturating_add(1);
        self.looks.store(looks, Relaxed);
        looks == LOOKS
    }
}

/// The counters of an interface: a set for each CPU, as a flood of what is refused may come in on
/// all of them.
pub(crate) struct DeviceCounters {
    by_cpu: KVVec<OfCpu>,
}

#[repr(align(64))]
struct OfCpu {
    refused: [AtomicU64; Rejection::COUNT],
    cookies_sent: AtomicU64,
}

impl DeviceCounters {
    pub(crate) fn new() -> Result<Self> {
        let mut by_cpu = KVVec::with_capacity(cpu::nr_ids() as usize, GFP_KERNEL)?;
        for _ in 0..cpu::nr_ids() {
            let counters = OfCpu {
                refused: [const { AtomicU64::new(0) }; Rejection::COUNT],
                cookies_sent: AtomicU64::new(0),
            };
            by_cpu.push_within_capacity(counters).map_err(|_| ENOMEM)?;
        }
        Ok(Self { by_cpu })
    }

    fn here(&self) -> Option<&OfCpu> {
        self.by_cpu.get(cpu::current() as usize)
    }

    /// Counts packets that were refused. Any context.
    pub(crate) fn refuse(&self, reason: Rejection, packets: usize) {
        let counter = self
            .here()
            .and_then(|here| here.refused.get(reason.index()));
        if let Some(counter) = counter {
            counter.fetch_add(packets as u64, Relaxed);
        }
    }

    pub(crate) fn note_cookie_sent(&self) {
        if let Some(here) = self.here() {
            here.cookies_sent.fetch_add(1, Relaxed);
        }
    }

    /// How many packets were refused for that reason.
    pub(crate) fn refused(&self, reason: Rejection) -> u64 {
        self.sum(|counters| counters.refused.get(reason.index()))
    }

    pub(crate) fn cookies_sent(&self) -> u64 {
        self.sum(|counters| Some(&counters.cookies_sent))
    }

    fn sum(&self, counter: impl Fn(&OfCpu) -> Option<&AtomicU64>) -> u64 {
        let mut sum = 0_u64;
        for counters in &self.by_cpu {
            if let Some(counter) = counter(counters) {
                sum = sum.wrapping_add(counter.load(Relaxed));
            }
        }
        sum
    }
}

impl Device {
    /// Counts packets of no peer that are refused or lost. Any context.
    #[cold]
    pub(crate) fn refuse(&self, reason: Rejection, packets: usize) {
        self.note_refused(None, reason, None, packets);
    }

    /// Counts a packet of no peer as refused. Any context.
    #[cold]
    pub(crate) fn refuse_packet(&self, reason: Rejection, packet: &Skb) {
        self.note_refused(None, reason, Some(packet), 1);
    }

    /// Drops a packet of no peer, which counts as refused. Any context.
    #[cold]
    pub(crate) fn discard(&self, reason: Rejection, packet: SkBuff) {
        self.refuse_packet(reason, &packet);
        packet.discard(drop_reason(reason));
    }

    /// Counts what is refused or lost for the interface, and tells those who trace it. `peer` is
    /// whose it is.
    #[cold]
    pub(crate) fn note_refused(
        &self,
        peer: Option<TracedPeer<'_>>,
        reason: Rejection,
        packet: Option<&Skb>,
        count: usize,
    ) {
        if count == 0 {
            return;
        }
        self.counters.refuse(reason, count);
        // Attribute types begin with 1.
        let number = (reason.index() as u32).saturating_add(1);
        trace::refused(self.netdev(), peer, (number, reason.name()), packet, count);
    }
}

/// What the network stack is told when a packet is dropped for this reason.
pub(crate) fn drop_reason(reason: Rejection) -> DropReason {
    match reason {
        Rejection::NoMemory | Rejection::SendNoMemory => DropReason::NoMemory,
        Rejection::DecryptQueueFull
        | Rejection::DeliveryQueueFull
        | Rejection::EncryptQueueFull
        | Rejection::HandshakeQueueFull
        | Rejection::StagedOverflow => DropReason::FullRing,
        Rejection::StagedPurged => DropReason::QueuePurge,
        Rejection::InvalidInner => DropReason::IpHeader,
        Rejection::GoingAway | Rejection::SendGoingAway => DropReason::DeviceNotReady,
        Rejection::CannotSegment => DropReason::Segmentation,
        Rejection::NoEndpoint | Rejection::NoAllowedIp => DropReason::NoTarget,
        Rejection::NotIp | Rejection::UnknownType => DropReason::UnhandledProtocol,
        _ => DropReason::NotSpecified,
    }
}

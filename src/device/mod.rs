// SPDX-License-Identifier: GPL-2.0-only

//! The driver: what happens when, in safe Rust over [`crate::kapi`] and [`crate::proto`].
//!
//! # Vocabulary
//!
//! - [`Device`]: one interface. [`peer::Peer`]: one remote party of it.
//! - [`keypair::Keypair`]: the keys of one session; a peer has up to three (previous, current,
//!   next).
//! - *run*: packets of one peer and one keypair that travel together ([`peer::Run`]).
//! - *staged*: waiting for a session.
//!
//! # Floors
//!
//! State below, verbs above; a file names only files below it, and [`Device`] and [`Shared`], which
//! are declared here: keypair, delivery, counters, events < peer < sessions < queueing, socket <
//! send < handshake < receive < pipeline, timers < config < link < netlink < registration.
//! `scripts/check-rules` has the whole order.
//!
//! # Locks
//!
//! Outermost first; a context takes them in this order only.
//!
//! 1. RTNL: links come and go, up and down, netlink.
//! 2. [`Device::update`] (mutex): the configuration: peers, keys, allowed IPs, port.
//! 3. [`peer::Peer::handshake`] (mutex): one peer's handshake slot and preshared key; and
//!    `Device::checker_writer` (mutex): who changes the cookie checker. Neither within the other.
//! 4. bh spin locks, of which only a FIFO's surrounds others (its runs').
//!
//! The data path takes no lock of the first three: it reads under RCU.
//!
//! # Shares
//!
//! Nobody waits for the work of another device or of a stranger. A device has queues of its own,
//! and its items on the module's work queues do a bounded share and queue themselves again:
//! [`queueing`] (runs), [`handshake_queue`] (a share for each source address), [`delivery`] (one
//! for each peer). Nothing waits under RTNL for work that is under way: taking a device down, or
//! removing a peer, empties the queues, and what a worker has in hand is refused where it would
//! commit a handshake, a session or a packet ([`peer::Peer::may_run`]).
//!
//! # References
//!
//! Everything that is looked up under RCU is an [`RcuArc`]. A peer holds its device; queued work,
//! armed timers, runs and table entries hold their peer. Removing a peer takes it out of the
//! tables, marks it dead and cancels its timers; what is still under way sees the mark, ends and
//! drops its reference. A [`Device`] goes with the last of them, and its network device after it.

#![forbid(unsafe_code)]

mod admission;
mod binding;
mod config;
mod counters;
mod delivery;
mod endpoint;
mod events;
mod handshake;
mod handshake_queue;
mod joining;
mod keypair;
mod limiter;
mod link;
mod netlink;
mod packet;
mod peer;
mod pipeline;
mod queueing;
mod receive;
pub(crate) mod registration;
mod route;
mod send;
mod sessions;
mod socket;
mod staging;
mod timers;
mod workers;

use kernel::{
    prelude::*,
    sync::{Arc, Mutex},
};

use crate::{
    device::{
        config::Config,
        counters::DeviceCounters,
        delivery::RxContext,
        events::Events,
        handshake_queue::HandshakeQueue,
        limiter::Limiter,
        peer::Peer,
        queueing::{CryptQueue, Queues},
        sessions::Sessions,
        socket::Sockets,
    },
    kapi::{
        net::{
            genetlink,
            namespace::WeakNet,
            netdevice::{NetDevice, NetDeviceRef},
            skbuff::FragPool,
        },
        random,
        sync::{
            atomic::{
                AtomicBool, AtomicU32, AtomicU64,
                Ordering::{Relaxed, SeqCst},
            },
            rcu::{self, RcuArc, RcuCell},
            spinlock_bh::SpinLockBh,
        },
    },
    proto::{
        consts::KEY_LEN,
        cookie::CookieChecker,
        crypto::{PublicKey, Secret, SecretKey},
        noise::Identity,
    },
    tables::{allowedips::AllowedIps, peerlookup::PubkeyTable},
};

/// What all devices share. Made and dropped with the module, in process context.
pub(crate) struct Shared {
    /// Whether messages of new devices may be sent together in one packet (UDP segmentation
    /// offload).
    pub(crate) bulk: bool,
    pub(crate) queues: Queues,
    /// Dropped after the queues, whose workers take memory from it.
    _frags: FragPool,
    pub(crate) limiter: RcuArc<Limiter>,
    /// The netlink family whose group [`events`] go to.
    family: genetlink::Registration,
    /// When a handshake queue was last that full; boot time in nanoseconds, 0 for never.
    pub(crate) under_load_since: AtomicU64,
}

impl Shared {
    fn new(bulk: bool, family: genetlink::Registration) -> Result<Self> {
        Ok(Self {
            bulk,
            queues: Queues::new()?,
            _frags: FragPool::new(),
            limiter: Limiter::new()?,
            family,
            under_load_since: AtomicU64::new(0),
        })
    }
}

/// How a new device finds [`Shared`]; empty while the module is not loaded.
static SHARED: RcuCell<SharedHandle> = RcuCell::empty();

struct SharedHandle(Arc<Shared>);

/// One interface.
#[pin_data]
pub(crate) struct Device {
    netdev: NetDeviceRef,
    /// The namespace the device was made in; its sockets live there. Empty once that is gone.
    creating_net: WeakNet,
    shared: Arc<Shared>,
    /// Packets may flow and timers may run.
    up: AtomicBool,
    /// Whether messages may be sent together in one packet.
    bulk: AtomicBool,
    /// Whether the DSCP of a packet is copied to the message that it travels in.
    copy_dscp: AtomicBool,
    /// Whether a handshake begins as soon as a peer's endpoint is set.
    eager: AtomicBool,
    port: AtomicU32,
    fwmark: AtomicU32,
    /// Our static key pair, if there is one.
    identity: RcuCell<Identity>,
    /// Checks the MACs of handshake messages; never empty. Changed under `checker_writer`.
    cookie_checker: RcuCell<CookieChecker>,
    #[pin]
    checker_writer: Mutex<()>,
    /// Open while the device is up and its namespace there.
    sockets: RcuCell<Sockets>,
    events: Events,
    pub(crate) counters: DeviceCounters,
    peers_by_key: PubkeyTable<Peer>,
    sessions: Sessions,
    allowed_ips: RcuArc<AllowedIps<Peer>>,
    handshakes: HandshakeQueue,
    crypt: CryptQueue,
    /// Empty once the device is dismantled.
    #[pin]
    rx_contexts: SpinLockBh<KVec<RcuArc<RxContext<Peer>>>>,
    /// The configuration; netlink, notifiers, up and down serialise on it.
    #[pin]
    update: Mutex<Config>,
}

impl Device {
    /// The receive context for a new peer.
    fn rx_context(&self, peer_id: u64) -> Result<RcuArc<RxContext<Peer>>> {
        let contexts = self.rx_contexts.lock();
        let place = peer_id.checked_rem(contexts.len() as u64).ok_or(ENODEV)?;
        contexts.get(place as usize).cloned().ok_or(ENODEV)
    }

    pub(crate) fn netdev(&self) -> &NetDevice {
        &self.netdev
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) fn allowed_ips(&self) -> &AllowedIps<Peer> {
        &self.allowed_ips
    }

    /// Whether packets may flow and timers may run.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(SeqCst)
    }

    /// Whether messages may be sent together in one packet.
    #[inline]
    pub(crate) fn may_bulk(&self) -> bool {
        self.bulk.load(Relaxed)
    }

    /// Whether a handshake begins as soon as a peer's endpoint is set.
    pub(crate) fn is_eager(&self) -> bool {
        self.eager.load(Relaxed)
    }

    /// The port we listen on, or shall listen on once up; 0 for any.
    pub(crate) fn port(&self) -> u16 {
        self.port.load(Relaxed) as u16
    }

    /// The mark of the packets we send.
    pub(crate) fn fwmark(&self) -> u32 {
        self.fwmark.load(Relaxed)
    }

    /// Our key pair as netlink shows it.
    pub(crate) fn identity(&self) -> Option<(SecretKey, PublicKey)> {
        let identity = self.identity.get()?;
        Some((identity.private().duplicate(), *identity.public()))
    }

    /// Whether `identity` is still ours.
    fn is_identity(&self, identity: &RcuArc<Identity>) -> bool {
        self.identity
            .get()
            .is_some_and(|now| RcuArc::ptr_eq(&now, identity))
    }

    /// The peer with this public key. Any context.
    pub(crate) fn find_peer(&self, public_key: &PublicKey) -> Option<RcuArc<Peer>> {
        let guard = rcu::read_lock();
        self.peers_by_key.lookup(&guard, public_key).cloned()
    }

    /// Whether the caller may change what touches the namespace of the sockets: the port and the
    /// mark. Nobody may once that is gone.
    pub(crate) fn may_manage_creating_net(&self) -> bool {
        self.creating_net
            .get()
            .is_some_and(|net| net.caller_is_admin())
    }
}

/// A fresh random key.
fn random_secret() -> Secret<KEY_LEN> {
    let mut secret = Secret::zeroed();
    random::fill(secret.expose_mut());
    secret
}

// SPDX-License-Identifier: GPL-2.0

//! The driver: what happens when, in safe Rust over [`crate::kapi`] and [`crate::proto`].
//!
//! # Vocabulary
//!
//! - [`Device`]: one interface. [`peer::Peer`]: one remote party of it.
//! - [`keypairs::Keypair`]: the keys of one session; a peer has up to three (previous, current, next).
//! - *run*: packets of one peer and one keypair that travel together ([`queueing`]).
//! - *staged*: waiting for a session.
//!
//! # Locks
//!
//! Outermost first; a context takes them in this order only.
//!
//! 1. RTNL: links come and go, up and down, netlink.
//! 2. [`Device::update`] (mutex): the configuration: peers, keys, allowed IPs, port.
//! 3. [`peer::Peer::handshake`] (mutex): one peer's handshake slot and preshared key.
//! 4. bh spin locks, of which only a FIFO's ever surrounds another (its runs').
//!
//! The data path takes no lock of the first three: it reads under RCU.
//!
//! # References
//!
//! Everything that is looked up under RCU is an [`RcuArc`]. A peer holds its device; queued work,
//! armed timers, runs and table entries hold their peer. Removing a peer takes it out of the
//! tables, marks it dead and cancels its timers; what is still under way sees the mark, ends and
//! drops its reference. [`Device::dismantle`] waits for all of them.

#![forbid(unsafe_code)]

pub(crate) mod config;
pub(crate) mod handshake;
pub(crate) mod keypairs;
pub(crate) mod limiter;
pub(crate) mod link;
pub(crate) mod netlink;
pub(crate) mod peer;
pub(crate) mod queueing;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod socket;
pub(crate) mod timers;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use kernel::{
    alloc::flags::GFP_KERNEL,
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

use crate::{
    device::{
        config::Config,
        handshake::HandshakeQueue,
        keypairs::{IndexEntry, Sessions},
        limiter::Limiter,
        peer::Peer,
        queueing::Queues,
        receive::RxContext,
        socket::Sockets,
    },
    kapi::{
        cpu,
        net::{
            namespace::{Net, WeakNet},
            netdevice::{NetDevice, NetDeviceRef},
        },
        random,
        sync::{
            rcu::{RcuArc, RcuCell},
            spinlock_bh::SpinLockBh,
        },
        time,
    },
    new_spinlock_bh,
    proto::{
        cookie::CookieChecker,
        crypto::{PublicKey, Secret, SecretKey},
        noise::Identity,
        Drop as Reason,
    },
    tables::{allowedips::AllowedIps, peerlookup::PubkeyTable},
};

/// Receive contexts that a device has at most. Peers are spread over them, so that neither one
/// peer nor ten thousand of them need one each.
const MAX_RX_CONTEXTS: u32 = 8;

/// What all devices share. Made and dropped with the module, in process context.
pub(crate) struct Shared {
    pub(crate) queues: Queues,
    pub(crate) limiter: RcuArc<Limiter>,
    /// When a handshake queue was last that full; boot time in nanoseconds, 0 for never.
    pub(crate) under_load_since: AtomicU64,
}

impl Shared {
    fn new() -> Result<Self> {
        Ok(Self {
            queues: Queues::new()?,
            limiter: Limiter::new()?,
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
    port: AtomicU32,
    fwmark: AtomicU32,
    /// Our static key pair, if there is one.
    identity: RcuCell<Identity>,
    /// Checks the MACs of handshake messages.
    #[pin]
    cookie_checker: SpinLockBh<CookieChecker>,
    /// Open while the device is up and its namespace there.
    sockets: RcuCell<Sockets>,
    peers_by_key: PubkeyTable<Peer>,
    sessions: Sessions,
    allowed_ips: RcuArc<AllowedIps<Peer>>,
    handshakes: HandshakeQueue,
    /// Empty once the device is dismantled.
    #[pin]
    rx_contexts: SpinLockBh<KVec<RcuArc<RxContext>>>,
    /// The configuration; netlink, notifiers, up and down serialise on it.
    #[pin]
    update: Mutex<Config>,
}

impl Device {
    /// Makes a device for a link that is about to be registered. Under RTNL.
    fn new(netdev: &NetDevice, link_net: &Net, shared: Arc<Shared>) -> Result<RcuArc<Self>> {
        let (allowed_ips, writer) = AllowedIps::new(GFP_KERNEL)?;
        let peers_by_key = PubkeyTable::new(GFP_KERNEL)?;
        let sessions = Sessions::new(GFP_KERNEL)?;
        let handshakes = HandshakeQueue::new()?;
        let creating_net = WeakNet::new(link_net)?;
        let mut secret = Secret::zeroed();
        random::fill(secret.expose_mut());
        let checker = CookieChecker::new(secret, time::boottime_coarse_ns());
        let netdev_ref = netdev.handle();
        let device = RcuArc::pin_init(
            try_pin_init!(Self {
                netdev: netdev_ref,
                creating_net,
                shared,
                up: AtomicBool::new(false),
                port: AtomicU32::new(0),
                fwmark: AtomicU32::new(0),
                identity: RcuCell::empty(),
                cookie_checker <- new_spinlock_bh!(checker),
                sockets: RcuCell::empty(),
                peers_by_key,
                sessions,
                allowed_ips,
                handshakes,
                rx_contexts <- new_spinlock_bh!(KVec::new()),
                update <- new_mutex!(Config::new(writer)),
            }? Error),
            GFP_KERNEL,
        )?;
        let started = device
            .start_contexts()
            .and_then(|()| device.handshakes.start(&device));
        match started {
            Ok(()) => Ok(device),
            Err(error) => {
                Self::dismantle(&device);
                Err(error)
            }
        }
    }

    /// Makes the receive contexts. Those made before an error are there too, to be dismantled.
    fn start_contexts(&self) -> Result {
        let count = cpu::nr_ids().min(MAX_RX_CONTEXTS);
        let mut contexts = KVec::with_capacity(count as usize, GFP_KERNEL)?;
        let made = (0..count).try_for_each(|_| {
            let context = RxContext::new(&self.netdev)?;
            contexts.push_within_capacity(context).map_err(|_| ENOMEM)
        });
        *self.rx_contexts.lock() = contexts;
        made
    }

    /// The receive context for a new peer.
    fn rx_context(&self, peer_id: u64) -> Result<RcuArc<RxContext>> {
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

    /// A fresh index for a handshake or session.
    fn new_index(&self, entry: IndexEntry) -> Result<u32, Reason> {
        self.sessions
            .insert(entry, random::u32, GFP_KERNEL)
            .map_err(|_| Reason::NoMemory)
    }

    /// Whether the caller may change what touches the namespace of the sockets: the port and the
    /// mark. Nobody may once that is gone.
    pub(crate) fn may_manage_creating_net(&self) -> bool {
        self.creating_net
            .get()
            .is_some_and(|net| net.caller_is_admin())
    }
}

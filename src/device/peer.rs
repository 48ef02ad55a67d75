// SPDX-License-Identifier: GPL-2.0

//! One remote party of a device.

use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use kernel::{alloc::flags::GFP_KERNEL, new_mutex, prelude::*, sync::Mutex};

use crate::{
    device::{
        handshake::Handshake, keypairs::Keypairs, queueing::Run, receive::RxContext,
        timers::PeerTimers, Device,
    },
    impl_has_work,
    kapi::{
        crypto::KernelCrypto,
        debug::{self, PeerEvent},
        net::{dst_cache::DstCache, endpoint::Endpoint, netdevice::NetDevice, skbuff::SkbList},
        sync::{rcu::RcuArc, spinlock_bh::SpinLockBh},
        workqueue::{Work, WorkItem},
    },
    new_spinlock_bh, new_work,
    proto::{
        cookie::CookieJar,
        crypto::{burn_stack, PublicKey, SymmetricKey},
        timers::TimerState,
    },
    tables::runqueue::{Fifo, InlineBudget},
};

/// Where a peer is, and how often that has changed.
pub(crate) struct Remote {
    pub(crate) endpoint: Endpoint,
    /// Counts changes, so that a sender sees that its copy is out of date.
    pub(crate) version: u32,
    /// For the message when the peer is finally gone.
    device: RcuArc<Device>,
    id: u64,
}

impl Drop for Remote {
    fn drop(&mut self) {
        let endpoint = Some(&self.endpoint);
        debug::peer(
            self.device.netdev(),
            PeerEvent::Destroyed,
            self.id,
            endpoint,
        );
    }
}

/// When a handshake was last completed, by the wall clock. Survives everything.
#[derive(Clone, Copy, Default)]
pub(crate) struct LastHandshake {
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
}

/// One remote party of a device.
#[pin_data]
pub(crate) struct Peer {
    device: RcuArc<Device>,
    /// The device's receive context that this peer's packets go through.
    rx_context: RcuArc<RxContext>,
    /// Ascends in the order of creation, over all devices.
    id: u64,
    public_key: PublicKey,
    /// Taken out of the tables; nothing may start any more. Set once, never cleared.
    dead: AtomicBool,

    /// The handshake slot, the preshared key and the shared point. Process context.
    #[pin]
    pub(crate) handshake: Mutex<Handshake>,
    /// The MACs of the handshake messages we send.
    #[pin]
    pub(crate) cookies: SpinLockBh<CookieJar>,
    #[pin]
    pub(crate) keypairs: Keypairs,

    #[pin]
    pub(crate) remote: SpinLockBh<Remote>,
    /// The route to the endpoint.
    pub(crate) route: DstCache,

    /// Packets that wait for a session.
    #[pin]
    pub(crate) staged: SpinLockBh<SkbList>,
    #[pin]
    pub(crate) tx: SpinLockBh<Fifo<Run>>,
    #[pin]
    pub(crate) rx: SpinLockBh<Fifo<Run>>,
    pub(crate) tx_inline: InlineBudget,
    pub(crate) rx_inline: InlineBudget,

    pub(crate) timer_state: TimerState,
    #[pin]
    pub(crate) timers: PeerTimers,
    /// Sends an initiation.
    #[pin]
    initiation_work: Work<Peer, 0>,
    /// Erases handshake and keypairs.
    #[pin]
    erase_work: Work<Peer, 1>,

    pub(crate) rx_bytes: AtomicU64,
    pub(crate) tx_bytes: AtomicU64,
    #[pin]
    pub(crate) last_handshake: SpinLockBh<LastHandshake>,
}

impl_has_work! {
    impl HasWork<Self, 0> for Peer { self.initiation_work }
    impl HasWork<Self, 1> for Peer { self.erase_work }
}

impl WorkItem<0> for Peer {
    fn run(this: RcuArc<Self>) {
        Peer::send_initiation(&this);
        burn_stack();
    }
}

impl WorkItem<1> for Peer {
    fn run(this: RcuArc<Self>) {
        Peer::clear_handshake(&this);
        this.keypairs.clear(&this);
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Peer {
    /// Makes a peer; it is in no table yet. Process context, under the update lock.
    #[inline(never)]
    pub(crate) fn new(
        device: &RcuArc<Device>,
        public_key: PublicKey,
        psk: &SymmetricKey,
    ) -> Result<RcuArc<Self>> {
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let rx_context = device.rx_context(id)?;
        let identity = device.identity.get();
        let handshake = Handshake::new(identity.as_deref(), public_key, psk);
        let route = DstCache::new()?;
        let peer = RcuArc::pin_init(
            pin_init!(Self {
                device: device.clone(),
                rx_context,
                id,
                public_key,
                dead: AtomicBool::new(false),
                handshake <- new_mutex!(handshake),
                cookies <- new_spinlock_bh!(CookieJar::new::<KernelCrypto>(public_key)),
                keypairs <- Keypairs::new(),
                remote <- new_spinlock_bh!(Remote {
                    endpoint: Endpoint::none(),
                    version: 0,
                    device: device.clone(),
                    id: *id,
                }),
                route,
                staged <- new_spinlock_bh!(SkbList::new()),
                tx <- new_spinlock_bh!(Fifo::new()),
                rx <- new_spinlock_bh!(Fifo::new()),
                tx_inline: InlineBudget::new(),
                rx_inline: InlineBudget::new(),
                timer_state: TimerState::new(),
                timers <- PeerTimers::new(),
                initiation_work <- new_work!(),
                erase_work <- new_work!(),
                rx_bytes: AtomicU64::new(0),
                tx_bytes: AtomicU64::new(0),
                last_handshake <- new_spinlock_bh!(LastHandshake::default()),
            }),
            GFP_KERNEL,
        )?;
        debug::peer(peer.netdev(), PeerEvent::Created, id, None);
        Ok(peer)
    }

    pub(crate) fn device(&self) -> &RcuArc<Device> {
        &self.device
    }

    pub(crate) fn netdev(&self) -> &NetDevice {
        self.device.netdev()
    }

    pub(crate) fn rx_context(&self) -> &RxContext {
        &self.rx_context
    }

    /// Ascends in the order of creation.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Whether the peer has been removed.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(SeqCst)
    }

    /// Marks the peer removed. Whoever does so cancels its timers afterwards.
    pub(crate) fn mark_dead(&self) {
        self.dead.store(true, SeqCst);
    }

    /// Whether timers may run and handshakes may start: the peer is alive and its device up.
    pub(crate) fn may_run(&self) -> bool {
        !self.is_dead() && self.device.is_up()
    }
}

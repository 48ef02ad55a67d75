// SPDX-License-Identifier: GPL-2.0-only

//! One remote party of a device: its state, and what changes that state and nothing else.
//!
//! What happens with a peer is above: [`sessions`](super::sessions), [`send`](super::send),
//! [`receive`](super::receive), [`handshake`](super::handshake), [`timers`](super::timers).

use core::ptr;

use kernel::{
    alloc::{
        flags::{GFP_ATOMIC, GFP_KERNEL},
        Flags,
    },
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

use crate::{
    device::{
        counters::{drop_reason, Happening, PeerCounters, Silence},
        delivery::{RxContext, RxFlow},
        endpoint::Endpoint,
        events,
        keypair::{Keypair, Keypairs},
        packet,
        staging::Staged,
        Device,
    },
    kapi::{
        crypto::KernelCrypto,
        debug::{self, PeerEvent},
        net::{
            dst_cache::DstCache,
            netdevice::NetDevice,
            skbuff::{SkBuff, Skb, SkbList},
        },
        random,
        sync::{
            atomic::{
                AtomicBool, AtomicU32, AtomicU64,
                Ordering::{Relaxed, SeqCst},
            },
            bh::BhGuard,
            locked_by::LockedBy,
            rcu::{self, Guard, RcuArc, RcuCell, RcuRef},
            spinlock_bh::SpinLockBh,
        },
        time,
        timer::{self, HasTimers},
        trace::TracedPeer,
        workqueue::{self, impl_has_work, new_work, Work},
    },
    new_spinlock_bh, new_timer,
    proto::{
        consts::NS_PER_SEC,
        cookie::CookieJar,
        crypto::{PublicKey, SymmetricKey},
        handshake::HandshakeSlot,
        noise::{Identity, PeerStatic, Role},
        timers::{Arm, Event, Timer, TimerState},
        Rejection,
    },
    tables::{
        cpulists::{CpuLists, Link, Listed},
        runqueue::{Body, Fifo, InlineBudget, Packets},
        turns::HasFlow,
    },
};

/// Where a peer is. Senders read it without a lock.
pub(crate) struct Remote {
    /// Empty until it is known. Replaced as a whole, under `Peer::remote_writer`.
    place: RcuCell<Endpoint>,
    /// The source address in `place` is of no use any more: routing chooses one.
    source_void: AtomicBool,
    /// For the message when the peer is finally gone.
    device: RcuArc<Device>,
    id: u64,
}

impl Remote {
    /// Where the peer is now.
    #[inline]
    pub(crate) fn read<'g>(&'g self, guard: &'g Guard) -> RemoteSnapshot<'g> {
        RemoteSnapshot {
            place: self.place.load(guard),
            source_void: self.source_void.load(Relaxed),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let endpoint = self.read(&rcu::read_lock()).endpoint();
        debug::peer(
            self.device.netdev(),
            PeerEvent::Destroyed,
            self.id,
            Some(endpoint.remote()),
        );
    }
}

/// Where a peer was at some moment.
pub(crate) struct RemoteSnapshot<'g> {
    place: Option<RcuRef<'g, Endpoint>>,
    source_void: bool,
}

impl RemoteSnapshot<'_> {
    /// The endpoint; [`Endpoint::NONE`] if it is not known.
    #[inline]
    pub(crate) fn endpoint(&self) -> Endpoint {
        let mut endpoint = self.place.map_or(Endpoint::NONE, |place| *place);
        if self.source_void {
            endpoint.clear_source();
        }
        endpoint
    }
}

/// Whether nothing has changed in between.
impl PartialEq for RemoteSnapshot<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let place = |of: &Self| of.place.map(|place| ptr::from_ref(place.get()));
        place(self) == place(other) && self.source_void == other.source_void
    }
}

/// What sending changes, on cache lines of its own: another CPU may be receiving.
#[pin_data]
#[repr(align(64))]
pub(crate) struct TxState {
    #[pin]
    pub(crate) staged: Staged,
    #[pin]
    pub(crate) fifo: SpinLockBh<Fifo<Run>>,
    pub(crate) inline: InlineBudget,
    pub(crate) bytes: AtomicU64,
    pub(crate) packets: AtomicU64,
    /// How long a message may be to be sent together with others in one packet; 0 if none may be.
    /// As of the last message that was sent.
    pub(crate) bulk_limit: AtomicU32,
}

impl TxState {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            staged <- Staged::new(),
            fifo <- new_spinlock_bh!(Fifo::new()),
            inline: InlineBudget::new(),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            bulk_limit: AtomicU32::new(0),
        })
    }
}

/// What receiving changes, on cache lines of its own.
#[pin_data]
#[repr(align(64))]
pub(crate) struct RxState {
    #[pin]
    pub(crate) fifo: SpinLockBh<Fifo<Run>>,
    pub(crate) inline: InlineBudget,
    /// Accepted packets that wait in the receive context.
    flow: RxFlow<Peer>,
    bytes: AtomicU64,
    packets: AtomicU64,
}

impl RxState {
    fn new(flow: RxFlow<Peer>) -> impl PinInit<Self> {
        pin_init!(Self {
            fifo <- new_spinlock_bh!(Fifo::new()),
            inline: InlineBudget::new(),
            flow,
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
        })
    }
}

/// One remote party of a device.
#[pin_data]
pub(crate) struct Peer {
    device: RcuArc<Device>,
    /// The device's receive context that this peer's packets go through.
    rx_context: RcuArc<RxContext<Peer>>,
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

    pub(crate) remote: Remote,
    #[pin]
    remote_writer: SpinLockBh<()>,
    /// The route to the endpoint.
    pub(crate) route: DstCache,

    #[pin]
    pub(crate) tx: TxState,
    #[pin]
    pub(crate) rx: RxState,

    pub(crate) timer_state: TimerState,
    /// By [`Timer::index`].
    #[pin]
    timers: [timer::Timer<Peer>; TIMERS],
    /// Sends an initiation.
    #[pin]
    initiation_work: Work<Peer, 0>,
    /// Erases handshake and keypairs.
    #[pin]
    erase_work: Work<Peer, 1>,
    /// Among those whose runs a worker is to go on delivering: by direction.
    unfinished: [Unfinished; 2],

    /// When a handshake was last completed: nanoseconds of the wall clock, 0 if none was. Survives
    /// everything.
    last_handshake: AtomicU64,
    pub(crate) counters: PeerCounters,
    pub(crate) silence: Silence,
    /// It stays where it was said to be.
    fixed: AtomicBool,
    /// The generation in which a request last changed it.
    changed_in: AtomicU32,
}

impl HasTimers for Peer {
    #[inline(always)]
    fn timers(&self) -> &[timer::Timer<Self>] {
        &self.timers
    }
}

/// A peer's place among those whose runs wait for a worker.
pub(crate) type Unfinished = LockedBy<Link<Peer>, CpuLists<Peer>>;

impl Listed for Peer {
    type Role = Direction;

    #[inline(always)]
    fn link(&self, role: Direction) -> &Unfinished {
        let [tx, rx] = &self.unfinished;
        match role {
            Direction::Encrypt => tx,
            Direction::Decrypt => rx,
        }
    }
}

impl HasFlow for Peer {
    type Items = SkbList;

    #[inline(always)]
    fn flow(&self) -> &RxFlow<Self> {
        &self.rx.flow
    }
}

impl_has_work! {
    impl HasWork<Self, 0> for Peer { self.initiation_work }
    impl HasWork<Self, 1> for Peer { self.erase_work }
}

/// The timer that looks for silence: after those of the protocol.
pub(crate) const SILENCE_TIMER: usize = Timer::COUNT;
const TIMERS: usize = Timer::COUNT + 1;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Peer {
    /// Makes a peer of a device with this identity; it is in no table yet. Process context, under
    /// the update lock.
    #[inline(never)]
    pub(crate) fn new(
        device: &RcuArc<Device>,
        public_key: PublicKey,
        psk: &SymmetricKey,
        identity: Option<&Identity>,
    ) -> Result<RcuArc<Self>> {
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let rx_context = device.rx_context(id)?;
        let flow = rx_context.new_flow();
        let handshake = Handshake::new(identity, public_key, psk);
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
                remote: Remote {
                    place: RcuCell::empty(),
                    source_void: AtomicBool::new(false),
                    device: device.clone(),
                    id: *id,
                },
                remote_writer <- new_spinlock_bh!(()),
                route,
                tx <- TxState::new(),
                rx <- RxState::new(flow),
                timer_state: TimerState::new(),
                timers <- pin_init::pin_init_array_from_fn(|_| new_timer!()),
                initiation_work <- new_work!(),
                erase_work <- new_work!(),
                unfinished: device.crypt.new_links(),
                last_handshake: AtomicU64::new(0),
                counters: PeerCounters::new(),
                silence: Silence::new(),
                fixed: AtomicBool::new(false),
                changed_in: AtomicU32::new(0),
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

    /// Queues accepted packets for the network stack. Any context but hard interrupts.
    pub(crate) fn deliver(this: &RcuArc<Self>, packets: SkbList) {
        if let Err(refused) = this.rx_context.queue(this, packets) {
            this.netdev().add_rx_dropped(refused.len());
            this.discard_all(Rejection::DeliveryQueueFull, refused);
        }
    }

    /// Takes what waits off the work queues: the peer or its device goes away.
    pub(crate) fn cancel_work(this: &RcuArc<Self>) {
        workqueue::cancel::<Self, 0>(this);
        workqueue::cancel::<Self, 1>(this);
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

    /// Notes an event for the timers and arms those that must be. Any context but hard interrupts.
    pub(crate) fn note(this: &RcuArc<Self>, event: Event) {
        let now = time::boottime_coarse_ns();
        let arm = this.timer_state.note(event, now, random::u32_below);
        if !arm.is_empty() {
            Self::arm_timers(this, arm);
        }
    }

    /// Arms timers, unless the peer is going away. Whoever marks it dead cancels the timers
    /// afterwards; if that happens between the check and the arming, the second check sees it.
    pub(crate) fn arm_timers(this: &RcuArc<Self>, arm: Arm) {
        for (timer, ms) in arm.iter() {
            if !this.may_run() {
                return;
            }
            timer::arm(this, timer.index(), ms);
            if !this.may_run() {
                timer::cancel_all(this);
            }
        }
    }

    /// Has it looked for silence after a while, if somebody wants to know.
    pub(crate) fn arm_silence(this: &RcuArc<Self>) {
        let Some(ms) = this.silence.delay_ms().filter(|_| this.may_run()) else {
            return;
        };
        timer::arm(this, SILENCE_TIMER, ms);
        // As in `arm_timers`.
        if !this.may_run() {
            timer::cancel_all(this);
        }
    }

    /// Whether the peer has become silent just now.
    pub(crate) fn look_for_silence(&self) -> bool {
        let without = self.counters.without_data();
        self.silence.look(self.rx_packets().wrapping_sub(without))
    }

    /// Stops all timers; one that is firing right now may still be running, and finds that the peer
    /// may not run. Process context.
    pub(crate) fn stop_timers(this: &RcuArc<Self>) {
        this.timer_state.down();
        timer::cancel_all(this);
    }

    /// Asks for a new handshake: there is no session, or it is nearly used up. Any context but
    /// hard interrupts.
    pub(crate) fn request_handshake(this: &RcuArc<Self>) {
        if this
            .timer_state
            .request_initiation(time::boottime_coarse_ns())
        {
            Self::queue_initiation(this);
        }
    }

    /// Has an initiation made on the work queue, unless one was sent a moment ago. Any context.
    pub(crate) fn queue_initiation(this: &RcuArc<Self>) {
        if this.timer_state.may_initiate(time::boottime_coarse_ns()) && !this.is_dead() {
            this.device()
                .shared()
                .queues
                .handshake_tx
                .enqueue::<_, 0>(this.clone());
        }
    }

    /// Has the handshake and all keypairs erased on the work queue. Any context.
    pub(crate) fn queue_erase(this: &RcuArc<Self>) {
        this.device()
            .shared()
            .queues
            .handshake_tx
            .enqueue::<_, 1>(this.clone());
    }

    /// Throws away what is staged.
    pub(crate) fn purge_staged(&self) {
        let purged = self.tx.staged.take();
        self.netdev().add_tx_dropped(purged.len());
        self.discard_all(Rejection::StagedPurged, purged);
    }

    /// Counts packets that are refused or lost, here and for the interface. Any context.
    #[cold]
    pub(crate) fn refuse(&self, reason: Rejection, packets: usize) {
        self.note_refused(reason, None, packets);
    }

    /// Counts a packet, or the messages in it, as refused. Any context.
    #[cold]
    pub(crate) fn refuse_packet(&self, reason: Rejection, packet: &Skb) {
        self.note_refused(reason, Some(packet), packet::messages(packet));
    }

    /// Drops a packet, which counts as refused. Any context.
    #[cold]
    pub(crate) fn discard(&self, reason: Rejection, packet: SkBuff) {
        self.refuse_packet(reason, &packet);
        packet.discard(drop_reason(reason));
    }

    /// As [`Peer::discard`], for a packet that the driver has noted nothing in yet.
    #[cold]
    pub(crate) fn discard_one(&self, reason: Rejection, packet: SkBuff) {
        self.note_refused(reason, Some(&packet), 1);
        packet.discard(drop_reason(reason));
    }

    /// Drops packets, which count as refused. Any context.
    #[cold]
    pub(crate) fn discard_all(&self, reason: Rejection, mut packets: SkbList) {
        while let Some(packet) = packets.pop_front() {
            self.discard(reason, packet);
        }
    }

    /// Counts `count` messages or packets as refused, all in one `packet`, if that is there.
    #[cold]
    pub(crate) fn note_refused(&self, reason: Rejection, packet: Option<&Skb>, count: usize) {
        self.counters.refuse(reason, count);
        let of = TracedPeer {
            id: self.id,
            public_key: &self.public_key,
        };
        self.device.note_refused(Some(of), reason, packet, count);
    }

    /// Counts messages for the peer and the device.
    pub(crate) fn count_received(&self, bh: &BhGuard, counted: Counted) {
        if counted.messages != 0 {
            self.netdev().sw_rx_add(bh, counted.messages, counted.bytes);
            self.rx.bytes.fetch_add(counted.bytes as u64, Relaxed);
            self.rx.packets.fetch_add(counted.messages as u64, Relaxed);
        }
    }

    /// Notes the time of a completed handshake.
    pub(crate) fn note_completed(&self) {
        let (secs, nanos) = time::real();
        // The kernel's clock is neither set to before 1970 nor to beyond 2262.
        let ns = (secs as u64)
            .wrapping_mul(NS_PER_SEC)
            .wrapping_add(nanos.into());
        self.last_handshake.store(ns, Relaxed);
    }

    /// Tells those who listen that a session has begun.
    pub(crate) fn tell_completed(&self, session: Option<u64>, own: Role) {
        let endpoint = self.endpoint();
        events::handshake_completed(&self.device, &self.public_key, &endpoint, session, own);
    }

    pub(crate) fn preshared_key(&self) -> SymmetricKey {
        self.handshake.lock().psk.duplicate()
    }

    /// Sets the preshared key for the handshakes to come.
    pub(crate) fn set_preshared_key(&self, psk: &SymmetricKey) {
        self.handshake.lock().psk = psk.duplicate();
    }

    /// Seconds between persistent keepalives; 0 for none.
    pub(crate) fn keepalive_s(&self) -> u16 {
        self.timer_state.persistent_keepalive_interval()
    }

    /// When a handshake was last completed: seconds and nanoseconds of the wall clock, or zeros.
    pub(crate) fn last_handshake(&self) -> (i64, u32) {
        let ns = self.last_handshake.load(Relaxed);
        ((ns / NS_PER_SEC) as i64, (ns % NS_PER_SEC) as u32)
    }

    pub(crate) fn rx_bytes(&self) -> u64 {
        self.rx.bytes.load(Relaxed)
    }

    pub(crate) fn tx_bytes(&self) -> u64 {
        self.tx.bytes.load(Relaxed)
    }

    /// Messages that were accepted.
    pub(crate) fn rx_packets(&self) -> u64 {
        self.rx.packets.load(Relaxed)
    }

    /// Messages that were sent.
    pub(crate) fn tx_packets(&self) -> u64 {
        self.tx.packets.load(Relaxed)
    }

    /// How long a message may be to be sent together with others; 0 if none may be.
    #[inline]
    pub(crate) fn bulk_limit(&self) -> u32 {
        if self.device.may_bulk() {
            self.tx.bulk_limit.load(Relaxed)
        } else {
            0
        }
    }

    /// Notes that a request changes the settings, in this generation.
    pub(crate) fn note_changed(&self, generation: u32) {
        self.changed_in.store(generation, Relaxed);
    }

    /// Whether a request has changed the settings after that generation.
    pub(crate) fn changed_since(&self, generation: u32) -> bool {
        let ahead = self.changed_in.load(Relaxed).wrapping_sub(generation);
        ahead != 0 && ahead <= u32::MAX / 2
    }

    /// Whether it is known where the peer is.
    #[inline]
    pub(crate) fn has_endpoint(&self) -> bool {
        !self.remote.place.is_none()
    }

    /// Where the peer is, and which source address reaches it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.remote.read(&rcu::read_lock()).endpoint()
    }

    /// Moves the peer to where the user says it is. Any context but hard interrupts.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the peer stays where it was.
    #[inline]
    pub(crate) fn roam(&self, endpoint: &Endpoint) -> Result {
        if self.endpoint() == *endpoint {
            return Ok(());
        }
        self.move_to(endpoint, GFP_ATOMIC)
    }

    /// As [`Peer::roam`] for who has sent a message; but a peer with a fixed endpoint stays.
    #[inline]
    pub(crate) fn follow(&self, sender: &Endpoint) -> Result {
        if self.endpoint() == *sender {
            return Ok(());
        }
        self.follow_to(sender)
    }

    #[inline(never)]
    fn follow_to(&self, sender: &Endpoint) -> Result {
        let before = self.endpoint();
        let elsewhere = before.remote().as_bytes() != sender.remote().as_bytes();
        if elsewhere && self.has_fixed_endpoint() {
            return Ok(());
        }
        self.move_to(sender, GFP_ATOMIC)?;
        if elsewhere && !before.remote().as_bytes().is_empty() {
            self.counters.note(Happening::Roam);
        }
        Ok(())
    }

    pub(crate) fn has_fixed_endpoint(&self) -> bool {
        self.fixed.load(Relaxed)
    }

    pub(crate) fn set_fixed_endpoint(&self, fixed: bool) {
        self.fixed.store(fixed, Relaxed);
    }

    /// As [`Peer::roam`], with memory asked for in this way.
    #[inline(never)]
    pub(crate) fn move_to(&self, endpoint: &Endpoint, flags: Flags) -> Result {
        let place = RcuArc::new(*endpoint, flags)?;
        let writer = self.remote_writer.lock();
        let before = self.endpoint();
        // A sender that reads in between has the new place, perhaps without its source.
        let old = self.remote.place.swap(Some(place));
        self.remote.source_void.store(false, Relaxed);
        self.route.reset();
        drop(writer);
        drop(old);
        if endpoint.remote().as_bytes() != before.remote().as_bytes() {
            let to = Some(endpoint.remote());
            debug::peer(self.netdev(), PeerEvent::Roamed, self.id(), to);
            events::endpoint_changed(&self.device, &self.public_key, &before, endpoint);
        }
        Ok(())
    }

    /// Forgets the source address and interface, to be chosen by routing again.
    pub(crate) fn clear_source(&self) {
        let _writer = self.remote_writer.lock();
        self.remote.source_void.store(true, Relaxed);
        self.route.reset_now();
    }

    /// As [`Peer::clear_source`], unless the peer has moved since `seen`. False if it has.
    pub(crate) fn clear_source_of(&self, seen: &RemoteSnapshot<'_>, guard: &Guard) -> bool {
        let _writer = self.remote_writer.lock();
        let same = self.remote.read(guard) == *seen;
        if same {
            self.remote.source_void.store(true, Relaxed);
        }
        same
    }
}

/// What a peer's handshake mutex guards.
pub(crate) struct Handshake {
    pub(crate) slot: HandshakeSlot,
    pub(crate) keys: PeerStatic,
    pub(crate) psk: SymmetricKey,
}

impl Handshake {
    #[inline(never)]
    pub(crate) fn new(
        identity: Option<&Identity>,
        public_key: PublicKey,
        psk: &SymmetricKey,
    ) -> Self {
        Self {
            slot: HandshakeSlot::new(),
            keys: PeerStatic::new::<KernelCrypto>(identity, public_key),
            psk: psk.duplicate(),
        }
    }
}

/// What a worker has to do with a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

/// Packets of one peer that are encrypted or decrypted together.
#[pin_data]
pub(crate) struct Run {
    pub(crate) peer: RcuArc<Peer>,
    pub(crate) keypair: RcuArc<Keypair>,
    pub(crate) direction: Direction,
    #[pin]
    pub(crate) body: SpinLockBh<Body<Run>>,
}

impl Run {
    /// A run of these packets. Without memory they are lost, and counted.
    pub(crate) fn new(
        peer: &RcuArc<Peer>,
        keypair: &RcuArc<Keypair>,
        direction: Direction,
        packets: SkbList,
    ) -> Option<Arc<Self>> {
        let count = packets.count();
        let run = Arc::pin_init(
            pin_init!(Self {
                peer: peer.clone(),
                keypair: keypair.clone(),
                direction,
                body <- new_spinlock_bh!(Body::new(packets, count)),
            }),
            GFP_ATOMIC,
        );
        if run.is_err() {
            let reason = match direction {
                Direction::Encrypt => Rejection::SendNoMemory,
                Direction::Decrypt => Rejection::NoMemory,
            };
            peer.refuse(reason, count);
        }
        run.ok()
    }

    /// Why packets on the queues are lost.
    pub(crate) fn reason_of_loss(&self) -> Rejection {
        match (self.direction, self.peer.may_run()) {
            (Direction::Encrypt, true) => Rejection::EncryptQueueFull,
            (Direction::Encrypt, false) => Rejection::SendGoingAway,
            (Direction::Decrypt, true) => Rejection::DecryptQueueFull,
            (Direction::Decrypt, false) => Rejection::GoingAway,
        }
    }
}

/// The peer's FIFO of one direction.
#[inline]
pub(crate) fn fifo(peer: &Peer, direction: Direction) -> &SpinLockBh<Fifo<Run>> {
    match direction {
        Direction::Encrypt => &peer.tx.fifo,
        Direction::Decrypt => &peer.rx.fifo,
    }
}

/// Messages that count as received.
#[derive(Default)]
pub(crate) struct Counted {
    messages: usize,
    bytes: usize,
}

impl Counted {
    /// Adds `messages`, which have `bytes` together.
    pub(crate) fn add(&mut self, messages: usize, bytes: usize) {
        self.messages = self.messages.wrapping_add(messages);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

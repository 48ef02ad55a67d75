// SPDX-License-Identifier: GPL-2.0

//! Handshake messages, in and out. All of it in process context, on the handshake work queue:
//! a Diffie-Hellman is too long for anything else.
//!
//! Functions that handle secrets are not inlined: the frames stay small, and lie where
//! [`burn_stack`], called at the end of the work, overwrites them.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::{
        keypairs::{IndexEntry, Keypair},
        limiter::Limiter,
        peer::{LastHandshake, Peer},
        receive::Counted,
        Device,
    },
    impl_has_work,
    kapi::{
        cpu,
        crypto::KernelCrypto,
        debug::{self, PeerEvent, SkbEvent},
        net::{
            endpoint::Endpoint,
            skbuff::{SkBuff, SkbList},
        },
        random,
        sync::{
            bh,
            rcu::{self, RcuArc},
            spinlock_bh::SpinLockBh,
        },
        time,
        workqueue::{Work, WorkItem},
    },
    new_spinlock_bh, new_work,
    proto::{
        consts::{
            HANDSHAKE_TOS, KEY_LEN, MAX_QUEUED_HANDSHAKES, UNDER_LOAD_HANDSHAKES,
            UNDER_LOAD_HOLD_NS, XNONCE_LEN,
        },
        cookie::{MacState, Source},
        crypto::{burn_stack, PublicKey, Secret, SymmetricKey},
        handshake::{HandshakeSlot, ReleasedIndex},
        messages::{CookieReply, HandshakeMessage, Initiation, Message, Response},
        noise::{self, Established, Identity, PeerStatic},
        tai64n::Tai64n,
        timers::Event,
        Drop as Reason,
    },
};

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

fn random_secret() -> Secret<KEY_LEN> {
    let mut secret = Secret::zeroed();
    random::fill(secret.expose_mut());
    secret
}

/// Handshake messages that wait for a worker, and the workers, one per CPU.
pub(crate) struct HandshakeQueue {
    packets: Pin<KBox<SpinLockBh<SkbList>>>,
    /// Messages that workers have taken out and not done with: they count as waiting.
    in_hand: AtomicU64,
    workers: Pin<KBox<SpinLockBh<KVec<RcuArc<HandshakeWorker>>>>>,
    last_cpu: AtomicU64,
}

/// One CPU's worker for the handshake messages of one device.
#[pin_data]
struct HandshakeWorker {
    device: RcuArc<Device>,
    #[pin]
    work: Work<HandshakeWorker, 0>,
}

impl_has_work! {
    impl HasWork<Self, 0> for HandshakeWorker { self.work }
}

impl WorkItem<0> for HandshakeWorker {
    fn run(this: RcuArc<Self>) {
        while let Some(skb) = this.device.handshakes.pop() {
            this.device.receive_handshake(&skb);
            skb.consume();
            this.device.handshakes.done();
            time::cond_resched();
        }
        burn_stack();
    }
}

impl HandshakeQueue {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            packets: KBox::pin_init(new_spinlock_bh!(SkbList::new()), GFP_KERNEL)?,
            in_hand: AtomicU64::new(0),
            workers: KBox::pin_init(new_spinlock_bh!(KVec::new()), GFP_KERNEL)?,
            last_cpu: AtomicU64::new(0),
        })
    }

    /// Makes the workers. They refer to the device until [`HandshakeQueue::stop`].
    pub(crate) fn start(&self, device: &RcuArc<Device>) -> Result {
        let mut workers = KVec::with_capacity(cpu::nr_ids() as usize, GFP_KERNEL)?;
        for _ in 0..cpu::nr_ids() {
            let device = device.clone();
            let worker = RcuArc::pin_init(
                pin_init!(HandshakeWorker { device, work <- new_work!() }),
                GFP_KERNEL,
            )?;
            workers.push_within_capacity(worker).map_err(|_| ENOMEM)?;
        }
        *self.workers.lock() = workers;
        Ok(())
    }

    /// Lets the workers go. None may be queued any more.
    pub(crate) fn stop(&self) {
        let workers = core::mem::replace(&mut *self.workers.lock(), KVec::new());
        drop(workers);
    }

    /// Throws away what waits.
    pub(crate) fn clear(&self) {
        let packets = core::mem::replace(&mut *self.packets.lock(), SkbList::new());
        drop(packets);
    }

    fn len(&self) -> u64 {
        let waiting = self.packets.lock().len() as u64;
        waiting.saturating_add(self.in_hand.load(Relaxed))
    }

    /// Takes out the next message; [`HandshakeQueue::done`] with it is to follow.
    fn pop(&self) -> Option<SkBuff> {
        let mut packets = self.packets.lock();
        let skb = packets.pop_front()?;
        self.in_hand.fetch_add(1, Relaxed);
        Some(skb)
    }

    fn done(&self) {
        self.in_hand.fetch_sub(1, Relaxed);
    }
}

impl Device {
    /// Queues a received handshake message. Softirq context.
    pub(crate) fn queue_handshake(&self, skb: SkBuff) {
        let rejected = if random::is_ready() {
            let mut packets = self.handshakes.packets.lock();
            if packets.len() < MAX_QUEUED_HANDSHAKES as usize {
                packets.push_back(skb);
                None
            } else {
                Some((skb, Reason::QueueFull))
            }
        } else {
            Some((skb, Reason::NotReady))
        };
        if let Some((skb, reason)) = rejected {
            self.report_drop(&skb, reason);
            return;
        }
        let cpu = cpu::next_online(self.handshakes.last_cpu.load(Relaxed) as u32);
        self.handshakes.last_cpu.store(cpu.into(), Relaxed);
        let worker = self.handshakes.workers.lock().get(cpu as usize).cloned();
        if let Some(worker) = worker {
            self.shared()
                .queues
                .handshake_rx
                .queue_on::<HandshakeWorker, 0>(cpu, &worker);
        }
    }

    fn report_drop(&self, skb: &SkBuff, reason: Reason) {
        let reason = reason.as_str();
        debug::skb(self.netdev(), SkbEvent::DropHandshake { reason }, skb);
    }

    #[inline(never)]
    fn receive_handshake(&self, skb: &SkBuff) {
        match Message::parse(skb.data()) {
            Ok(Message::Initiation(message)) => {
                if self.admit(skb, message) {
                    self.receive_initiation(skb, message);
                }
            }
            Ok(Message::Response(message)) => {
                if self.admit(skb, message) {
                    self.receive_response(skb, message);
                }
            }
            Ok(Message::CookieReply(message)) => self.receive_cookie_reply(skb, message),
            Ok(Message::Data(..)) | Err(_) => {}
        }
    }

    /// Whether so much is waiting that senders must show that they own their address. One
    /// verdict for all devices, and it holds on for a moment, so that it does not flutter.
    fn is_under_load(&self, now: u64) -> bool {
        let shared = self.shared();
        if self.handshakes.len() >= UNDER_LOAD_HANDSHAKES.into() {
            shared.under_load_since.store(now.max(1), Relaxed);
            return true;
        }
        let since = shared.under_load_since.load(Relaxed);
        since != 0 && now.saturating_sub(since) < UNDER_LOAD_HOLD_NS
    }

    /// Checks the MACs of a message; under load also where it comes from. Answers with a cookie
    /// when that is what is missing.
    #[inline(never)]
    fn admit<M: HandshakeMessage>(&self, skb: &SkBuff, message: &M) -> bool {
        let now = time::boottime_coarse_ns();
        let Some(endpoint) = Endpoint::from_skb(skb) else {
            return false;
        };
        let Some(source) = source_of(&endpoint) else {
            return false;
        };
        let under_load = self.is_under_load(now);
        let mut reply = None;
        let state = {
            let mut checker = self.cookie_checker.lock();
            if under_load && checker.needs_rotation(now) {
                checker.rotate(random_secret(), now);
            }
            let state = checker.validate_macs::<KernelCrypto, M>(message, &source, under_load, now);
            if under_load && state == MacState::ValidMac1 {
                let mut nonce = [0; XNONCE_LEN];
                random::fill(&mut nonce);
                reply = checker
                    .create_reply::<KernelCrypto, M>(message, &source, nonce, now)
                    .ok();
            }
            state
        };
        match state {
            MacState::ValidMac1 if !under_load => true,
            MacState::ValidWithCookie => {
                let allowed = endpoint.ip().is_some_and(|address| {
                    let netns = self.netdev().net().cookie();
                    Limiter::allow(&self.shared().limiter, netns, address, now)
                });
                if !allowed {
                    self.report_drop(skb, Reason::RateLimited);
                }
                allowed
            }
            MacState::ValidMac1 => {
                if let Some(reply) = reply {
                    debug::skb(self.netdev(), SkbEvent::SendCookie, skb);
                    let _ = self.reply_to(&endpoint, reply.as_bytes());
                }
                false
            }
            MacState::Invalid => {
                debug::skb(self.netdev(), SkbEvent::InvalidMac, skb);
                false
            }
        }
    }

    fn receive_cookie_reply(&self, skb: &SkBuff, message: &CookieReply) {
        debug::skb(self.netdev(), SkbEvent::RecvCookie, skb);
        let guard = rcu::read_lock();
        let peer = self.sessions().lookup(&guard, message.receiver_index());
        let Some(peer) = peer.map(|entry| entry.peer().clone()) else {
            return;
        };
        drop(guard);
        let now = time::boottime_coarse_ns();
        let consumed = peer
            .cookies
            .lock()
            .consume_reply::<KernelCrypto>(message, now);
        if let Err(reason) = consumed {
            let reason = reason.as_str();
            debug::skb(self.netdev(), SkbEvent::InvalidCookie { reason }, skb);
        }
    }

    fn receive_initiation(&self, skb: &SkBuff, message: &Initiation) {
        let (peer, response) = match self.consume_initiation(message) {
            Ok(accepted) => accepted,
            Err(reason) => {
                let reason = reason.as_str();
                debug::skb(self.netdev(), SkbEvent::InvalidInitiation { reason }, skb);
                return;
            }
        };
        let endpoint = peer.roam_to_sender(skb);
        debug::peer(
            self.netdev(),
            PeerEvent::RecvInitiation,
            peer.id(),
            endpoint.as_ref(),
        );
        if let Ok(response) = response {
            Peer::send_response(&peer, response);
        }
        peer.count_handshake(skb.len());
        Peer::on(&peer, Event::InitiationReceived);
    }

    /// Authenticates an initiation, puts it into its peer's slot and answers it: all under the
    /// slot's lock, so that an initiation of our own cannot come in between and void the answer.
    #[inline(never)]
    fn consume_initiation(
        &self,
        message: &Initiation,
    ) -> Result<(RcuArc<Peer>, Result<Response, Reason>), Reason> {
        let identity = self.identity.get().ok_or(Reason::NoIdentity)?;
        let opened = noise::open_initiation::<KernelCrypto>(&identity, message)?;
        let peer = self
            .find_peer(opened.remote_static())
            .ok_or(Reason::UnknownPeer)?;
        let mut handshake = peer.handshake.lock();
        let consumed = opened.finish::<KernelCrypto>(&handshake.keys)?;
        // The private key may have been replaced since; then the slot is not for this message.
        if peer.is_dead() || !self.is_identity(&identity) {
            return Err(Reason::Superseded);
        }
        let now = time::boottime_coarse_ns();
        handshake.slot.accept_initiation(consumed, now)?;
        peer.timer_state.note_handshake_sent(now);
        let response = Peer::create_response(&peer, &mut handshake);
        drop(handshake);
        Ok((peer, response))
    }

    fn receive_response(&self, skb: &SkBuff, message: &Response) {
        let peer = match self.consume_response(message) {
            Ok(peer) => peer,
            Err(reason) => {
                let reason = reason.as_str();
                debug::skb(self.netdev(), SkbEvent::InvalidResponse { reason }, skb);
                return;
            }
        };
        let endpoint = peer.roam_to_sender(skb);
        debug::peer(
            self.netdev(),
            PeerEvent::RecvResponse,
            peer.id(),
            endpoint.as_ref(),
        );
        peer.note_completed();
        Peer::on(&peer, Event::ResponseReceived);
        // Confirms the session at once, with data if there is any.
        Peer::send_keepalive(&peer);
        peer.count_handshake(skb.len());
    }

    /// Authenticates a response and begins the session that comes of it.
    #[inline(never)]
    fn consume_response(&self, message: &Response) -> Result<RcuArc<Peer>, Reason> {
        let identity = self.identity.get().ok_or(Reason::NoIdentity)?;
        let peer = {
            let guard = rcu::read_lock();
            match self.sessions().lookup(&guard, message.receiver_index()) {
                Some(IndexEntry::Handshake(peer)) => peer.clone(),
                _ => return Err(Reason::UnknownIndex),
            }
        };
        let mut handshake = peer.handshake.lock();
        let initiator = handshake.slot.initiator()?;
        let established = noise::consume_response::<KernelCrypto>(
            &identity,
            &initiator,
            &handshake.psk,
            message,
        )?;
        if !self.is_identity(&identity) {
            return Err(Reason::Superseded);
        }
        Peer::begin_session(&peer, &mut handshake, established)?;
        drop(handshake);
        Ok(peer)
    }
}

/// What cookies are bound to.
fn source_of(endpoint: &Endpoint) -> Option<Source> {
    match endpoint.ip()? {
        core::net::IpAddr::V4(address) => {
            Some(Source::v4(address.octets(), endpoint.port().to_be_bytes()))
        }
        core::net::IpAddr::V6(address) => {
            Some(Source::v6(address.octets(), endpoint.port().to_be_bytes()))
        }
    }
}

impl Peer {
    fn roam_to_sender(&self, skb: &SkBuff) -> Option<Endpoint> {
        let endpoint = Endpoint::from_skb(skb)?;
        self.roam(&endpoint);
        Some(endpoint)
    }

    fn count_handshake(&self, len: usize) {
        let mut counted = Counted::default();
        counted.add(len);
        let _bh = bh::disable();
        self.count_received(counted);
    }

    /// Notes the time of a completed handshake.
    pub(crate) fn note_completed(&self) {
        let (secs, nanos) = time::real();
        *self.last_handshake.lock() = LastHandshake { secs, nanos };
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

    /// Queues the making of an initiation, unless one was sent a moment ago.
    pub(crate) fn queue_initiation(this: &RcuArc<Self>) {
        if this.timer_state.may_initiate(time::boottime_coarse_ns()) && !this.is_dead() {
            this.device()
                .shared()
                .queues
                .handshake_tx
                .queue::<Peer, 0>(this);
        }
    }

    /// Makes and sends an initiation, at most one in five seconds. Process context.
    #[inline(never)]
    pub(crate) fn send_initiation(this: &RcuArc<Self>) {
        let now = time::boottime_coarse_ns();
        if !this.may_run() || !this.timer_state.claim_initiation(now) {
            return;
        }
        debug::peer(
            this.netdev(),
            PeerEvent::SendInitiation,
            this.id(),
            Some(&this.endpoint()),
        );
        let Ok(mut message) = Self::create_initiation(this) else {
            return;
        };
        Self::on(this, Event::InitiationSent);
        this.seal_and_send(&mut message);
    }

    #[inline(never)]
    fn create_initiation(this: &RcuArc<Self>) -> Result<Initiation, Reason> {
        let device = this.device();
        let mut handshake = this.handshake.lock();
        let identity = device.identity.get().ok_or(Reason::NoIdentity)?;
        let index = device.new_index(IndexEntry::Handshake(this.clone()))?;
        let (secs, nanos) = time::real();
        let created = noise::create_initiation::<KernelCrypto>(
            &identity,
            &handshake.keys,
            random_secret(),
            Tai64n::new(secs, nanos),
            index,
        );
        match created {
            // Dead peers' slots are cleared after the mark, under the same mutex.
            Ok((message, initiator)) if !this.is_dead() => {
                let released = handshake.slot.commit_initiation(initiator);
                Self::release_index(this, released);
                Ok(message)
            }
            Ok(_) => {
                Self::release_index(this, ReleasedIndex(Some(index)));
                Err(Reason::GoingAway)
            }
            Err(reason) => {
                Self::release_index(this, ReleasedIndex(Some(index)));
                Err(reason)
            }
        }
    }

    /// Sends the response to an initiation. Process context.
    fn send_response(this: &RcuArc<Self>, mut response: Response) {
        debug::peer(
            this.netdev(),
            PeerEvent::SendResponse,
            this.id(),
            Some(&this.endpoint()),
        );
        Self::on(this, Event::ResponseSent);
        this.seal_and_send(&mut response);
    }

    /// Makes the response to the initiation in the slot, and begins the session.
    #[inline(never)]
    fn create_response(this: &RcuArc<Self>, handshake: &mut Handshake) -> Result<Response, Reason> {
        let responder = handshake.slot.responder()?;
        let index = this
            .device()
            .new_index(IndexEntry::Handshake(this.clone()))?;
        let created = noise::create_response::<KernelCrypto>(
            &responder,
            random_secret(),
            &handshake.psk,
            index,
        )
        .and_then(|(message, established)| {
            Self::begin_session(this, handshake, established)?;
            Ok(message)
        });
        if created.is_err() {
            Self::release_index(this, ReleasedIndex(Some(index)));
        }
        created
    }

    /// Turns a finished handshake into a session and puts that to use.
    #[inline(never)]
    fn begin_session(
        this: &RcuArc<Self>,
        handshake: &mut Handshake,
        established: Established,
    ) -> Result<(), Reason> {
        let (session, released) = handshake.slot.establish(established)?;
        Self::release_index(this, released);
        let (index, role) = (session.local_index, session.role);
        let keypair = Keypair::new(session, time::boottime_coarse_ns())
            .map_err(|_| Self::drop_index(this, index, Reason::NoMemory))?;
        let entry = IndexEntry::Session {
            peer: this.clone(),
            keypair: keypair.clone(),
        };
        let replaced = this.device().sessions().replace(
            index,
            |entry| entry.is_handshake_of(this),
            entry,
            GFP_KERNEL,
        );
        match replaced {
            Ok(true) => {}
            Ok(false) => return Err(Reason::Superseded),
            Err(_) => return Err(Self::drop_index(this, index, Reason::NoMemory)),
        }
        debug::keypair(
            this.netdev(),
            PeerEvent::KeypairCreated,
            keypair.id(),
            this.id(),
        );
        this.keypairs.install(this, keypair, role)
    }

    fn drop_index(this: &RcuArc<Self>, index: u32, reason: Reason) -> Reason {
        Self::release_index(this, ReleasedIndex(Some(index)));
        reason
    }

    /// Takes an index that the handshake slot no longer uses out of the table.
    fn release_index(this: &RcuArc<Self>, released: ReleasedIndex) {
        if let Some(index) = released.0 {
            this.device()
                .sessions()
                .remove(index, |entry| entry.is_handshake_of(this));
        }
    }

    fn seal_and_send<M: HandshakeMessage>(&self, message: &mut M) {
        let now = time::boottime_coarse_ns();
        self.cookies
            .lock()
            .add_macs::<KernelCrypto, M>(message, now);
        let _ = self.send_message(message.as_bytes(), HANDSHAKE_TOS);
    }

    /// Erases the handshake in progress. Process context.
    pub(crate) fn clear_handshake(this: &RcuArc<Self>) {
        let released = this.handshake.lock().slot.clear();
        Self::release_index(this, released);
    }

    /// Follows a change of the device's identity: the shared point is computed again, the
    /// handshake in progress is void, and the sessions there are may only receive.
    pub(crate) fn follow_identity(this: &RcuArc<Self>, identity: Option<&Identity>) {
        let released = {
            let mut handshake = this.handshake.lock();
            handshake.keys.set_identity::<KernelCrypto>(identity);
            handshake.slot.clear()
        };
        Self::release_index(this, released);
        this.keypairs.stop_sending();
        this.timer_state.forget_handshake_sent();
    }

    /// The sessions there are may only receive, the handshake in progress is void, and the next
    /// may start at once. Process context.
    pub(crate) fn stop_sending(this: &RcuArc<Self>) {
        Self::clear_handshake(this);
        this.timer_state.forget_handshake_sent();
        this.keypairs.stop_sending();
    }
}

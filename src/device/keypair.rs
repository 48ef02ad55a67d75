// SPDX-License-Identifier: GPL-2.0-only

//! The keys of one session, and a peer's three places for them.
//!
//! [`proto::keypair`](crate::proto::keypair) with what the kernel adds: identity, the replay
//! window's lock, publication by RCU.

use core::mem;

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::packet::PacketCb,
    kapi::{
        net::skbuff::SkbList,
        sync::{
            atomic::{
                AtomicBool, AtomicU64,
                Ordering::{Acquire, Relaxed, Release},
            },
            rcu::{self, RcuArc, RcuCell},
            spinlock_bh::SpinLockBh,
        },
    },
    new_spinlock_bh,
    proto::{
        crypto::SymmetricKey,
        keypair::{self, NonceRange},
        noise::{Role, Session},
        replay::ReplayWindow,
        Rejection,
    },
};

/// Sessions that fell out of their places; see [`keypair::Retired`].
pub(crate) type Retired = keypair::Retired<RcuArc<Keypair>>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A session in use. Reached through RCU from the index table and from the peer's current place.
#[pin_data]
pub(crate) struct Keypair {
    /// For debug messages.
    id: u64,
    session: keypair::Keypair,
    /// The peer has shown that it has the keys too: we may send. Set once.
    confirmed: AtomicBool,
    #[pin]
    received: Received,
}

/// What receiving changes, on cache lines of its own.
#[pin_data]
#[repr(align(64))]
struct Received {
    /// [`ReplayWindow::next`] as of the last packet, to be read without the lock.
    next: AtomicU64,
    #[pin]
    replay: SpinLockBh<ReplayWindow>,
}

impl Received {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            next: AtomicU64::new(0),
            replay <- new_spinlock_bh!(ReplayWindow::new()),
        })
    }
}

impl Keypair {
    /// Puts a session to use. `now` is boot time in nanoseconds.
    pub(crate) fn new(session: Session, now: u64) -> Result<RcuArc<Self>> {
        let confirmed = session.role == Role::Initiator;
        let session = keypair::Keypair::new(session, now);
        RcuArc::pin_init(
            pin_init!(Self {
                id: NEXT_ID.fetch_add(1, Relaxed),
                session,
                confirmed: AtomicBool::new(confirmed),
                received <- Received::new(),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn local_index(&self) -> u32 {
        self.session.local_index()
    }

    pub(crate) fn remote_index(&self) -> u32 {
        self.session.remote_index()
    }

    pub(crate) fn sending_key(&self) -> &SymmetricKey {
        self.session.sending_key()
    }

    pub(crate) fn receiving_key(&self) -> &SymmetricKey {
        self.session.receiving_key()
    }

    /// Nonces for `count` packets; see [`keypair::Keypair::reserve`].
    pub(crate) fn reserve(&self, count: usize, now: u64) -> Result<NonceRange, Rejection> {
        self.session.reserve(count as u64, now)
    }

    pub(crate) fn rekey_after_send(&self, now: u64) -> bool {
        self.session.rekey_after_send(now)
    }

    pub(crate) fn rekey_after_receive(&self, now: u64) -> bool {
        self.session.rekey_after_receive(now)
    }

    /// Whether packets may still be decrypted with the session; see
    /// [`keypair::Keypair::check_receive`].
    pub(crate) fn may_receive(&self, now: u64) -> Result<(), Rejection> {
        self.session
            .check_receive(self.received.next.load(Relaxed), now)
    }

    /// The replay check of authentic packets: takes those out whose counter was seen before or is
    /// too old, and tells `refused` that counter and one more than the greatest one accepted. Gives
    /// those that came in several messages and have such a counter among theirs: they are to be
    /// taken apart and checked again.
    pub(crate) fn accept_counters(
        &self,
        packets: &mut SkbList,
        refused: impl Fn(u64, u64),
    ) -> SkbList {
        let mut apart = SkbList::new();
        let mut replay = self.received.replay.lock();
        let mut all = mem::take(packets);
        while let Some(packet) = all.pop_front() {
            let &PacketCb {
                nonce, messages, ..
            } = packet.cb();
            if messages > 1 {
                if replay.check_and_update_all(nonce, messages.into()) {
                    packets.push_back(packet);
                } else {
                    apart.push_back(packet);
                }
            } else if replay.check_and_update(nonce) {
                packets.push_back(packet);
            } else {
                refused(nonce, replay.next());
            }
        }
        self.received.next.store(replay.next(), Relaxed);
        apart
    }
}

/// A peer's keypairs: previous, current and next (whitepaper, section 6.3).
#[pin_data]
pub(crate) struct Keypairs {
    /// A copy of what `places` has as current, for the data path.
    current: RcuCell<Keypair>,
    #[pin]
    places: SpinLockBh<keypair::Keypairs<RcuArc<Keypair>>>,
}

impl Keypairs {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            current: RcuCell::empty(),
            places <- new_spinlock_bh!(keypair::Keypairs::new()),
        })
    }

    /// The keypair to send with.
    pub(crate) fn current(&self) -> Option<RcuArc<Keypair>> {
        self.current.get()
    }

    /// Asks something about the keypair to send with; false without one.
    pub(crate) fn with_current(&self, question: impl FnOnce(&Keypair) -> bool) -> bool {
        let guard = rcu::read_lock();
        self.current
            .load(&guard)
            .is_some_and(|keypair| question(&keypair))
    }

    /// Puts a new session in its place, if `may_run` says so: whoever ends the peer, or takes its
    /// device down, clears the places afterwards, under the same lock.
    pub(crate) fn install(
        &self,
        keypair: RcuArc<Keypair>,
        role: Role,
        may_run: impl FnOnce() -> bool,
    ) -> Result<Retired, Rejection> {
        let mut places = self.places.lock();
        if !may_run() {
            return Err(Rejection::GoingAway);
        }
        let retired = places.install(keypair, role);
        self.publish(&places);
        Ok(retired)
    }

    /// A packet was received with `keypair`. If that confirms a new session, it is current from now
    /// on, and what fell out of its place is returned.
    pub(crate) fn confirm(&self, keypair: &RcuArc<Keypair>) -> Option<Retired> {
        if keypair.confirmed.load(Acquire) {
            return None;
        }
        let mut places = self.places.lock();
        let retired = places.confirm(|next| RcuArc::ptr_eq(next, keypair))?;
        keypair.confirmed.store(true, Release);
        self.publish(&places);
        Some(retired)
    }

    /// Takes all keypairs out. Their keys are erased when the last packet under way is done.
    pub(crate) fn clear(&self) -> Retired {
        let mut places = self.places.lock();
        let retired = places.clear();
        self.publish(&places);
        retired
    }

    /// Stops sending with the sessions there are; receiving goes on.
    pub(crate) fn stop_sending(&self) {
        let places = self.places.lock();
        for keypair in places.sending() {
            keypair.session.stop_sending();
        }
    }

    fn publish(&self, places: &keypair::Keypairs<RcuArc<Keypair>>) {
        self.current.swap(places.current.clone());
    }
}

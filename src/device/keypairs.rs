// SPDX-License-Identifier: GPL-2.0

//! Sessions in use: the protocol's keypair with what the kernel adds, and a peer's three places
//! for them.

use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::peer::Peer,
    kapi::{
        debug::{self, PeerEvent},
        net::skbuff::SkbList,
        sync::{
            rcu::{self, RcuArc, RcuCell},
            spinlock_bh::SpinLockBh,
        },
    },
    new_spinlock_bh,
    proto::{
        crypto::SymmetricKey,
        keypair::{self, NonceRange, Retired},
        noise::{Role, Session},
        replay::ReplayWindow,
        Drop as Reason,
    },
    tables::peerlookup::IndexTable,
};

/// What an index of ours stands for.
#[derive(Clone)]
pub(crate) enum IndexEntry {
    /// A handshake in progress: responses and cookie replies come for it.
    Handshake(RcuArc<Peer>),
    /// A session: transport data comes for it.
    Session {
        peer: RcuArc<Peer>,
        keypair: RcuArc<Keypair>,
    },
}

impl IndexEntry {
    pub(crate) fn peer(&self) -> &RcuArc<Peer> {
        match self {
            Self::Handshake(peer) | Self::Session { peer, .. } => peer,
        }
    }

    pub(crate) fn is_handshake_of(&self, other: &RcuArc<Peer>) -> bool {
        matches!(self, Self::Handshake(peer) if RcuArc::ptr_eq(peer, other))
    }

    fn is_session_of(&self, other: &RcuArc<Keypair>) -> bool {
        matches!(self, Self::Session { keypair, .. } if RcuArc::ptr_eq(keypair, other))
    }
}

/// The device's table of indices.
pub(crate) type Sessions = IndexTable<IndexEntry>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A session in use. Reached through RCU from the index table and from the peer's current place.
#[pin_data]
pub(crate) struct Keypair {
    /// For messages to people.
    id: u64,
    session: keypair::Keypair,
    /// The peer has shown that it has the keys too: we may send. Set once.
    confirmed: AtomicBool,
    /// [`ReplayWindow::next`] as of the last packet, to be read without the lock.
    received: AtomicU64,
    #[pin]
    replay: SpinLockBh<ReplayWindow>,
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
                received: AtomicU64::new(0),
                replay <- new_spinlock_bh!(ReplayWindow::new()),
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
    pub(crate) fn reserve(&self, count: usize, now: u64) -> Result<NonceRange, Reason> {
        self.session.reserve(count as u64, now)
    }

    pub(crate) fn rekey_after_send(&self, now: u64) -> bool {
        self.session.rekey_after_send(now)
    }

    pub(crate) fn rekey_after_receive(&self, now: u64) -> bool {
        self.session.rekey_after_receive(now)
    }

    /// Whether packets may still be decrypted with the session.
    pub(crate) fn may_receive(&self, now: u64) -> bool {
        self.session
            .check_receive(self.received.load(Relaxed), now)
            .is_ok()
    }

    /// The replay check of authentic packets: takes those out whose counter was seen before or is
    /// too old, and tells `refused` that counter and one more than the greatest one accepted.
    pub(crate) fn accept_counters(&self, packets: &mut SkbList, refused: impl Fn(u64, u64)) {
        let mut replay = self.replay.lock();
        packets.retain_mut(|packet| {
            let nonce = packet.cb().nonce;
            let accepted = replay.check_and_update(nonce);
            if !accepted {
                refused(nonce, replay.next());
            }
            accepted
        });
        self.received.store(replay.next(), Relaxed);
    }
}

/// A peer's keypairs: previous, current and next.
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

    /// Puts a new session in its place, unless the peer died meanwhile: whoever marks it dead
    /// clears the places afterwards, under the same lock.
    pub(crate) fn install(
        &self,
        peer: &RcuArc<Peer>,
        keypair: RcuArc<Keypair>,
        role: Role,
    ) -> Result<(), Reason> {
        let mut places = self.places.lock();
        if peer.is_dead() {
            drop(places);
            remove(peer, &keypair);
            return Err(Reason::GoingAway);
        }
        let retired = places.install(keypair, role);
        self.publish(&places);
        drop(places);
        retire(peer, retired);
        Ok(())
    }

    /// A packet was received with `keypair`. True if that confirmed a new session, with which we
    /// may send from now on.
    pub(crate) fn confirm(&self, peer: &Peer, keypair: &RcuArc<Keypair>) -> bool {
        if keypair.confirmed.load(Acquire) {
            return false;
        }
        let mut places = self.places.lock();
        let Some(retired) = places.confirm(|next| RcuArc::ptr_eq(next, keypair)) else {
            return false;
        };
        keypair.confirmed.store(true, Release);
        self.publish(&places);
        drop(places);
        retire(peer, retired);
        true
    }

    /// Ends all sessions. Their keys are erased when the last packet under way is done.
    pub(crate) fn clear(&self, peer: &Peer) {
        let mut places = self.places.lock();
        let retired = places.clear();
        self.publish(&places);
        drop(places);
        retire(peer, retired);
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

/// Takes sessions that fell out of their places out of the index table.
fn retire(peer: &Peer, retired: Retired<RcuArc<Keypair>>) {
    for keypair in retired {
        remove(peer, &keypair);
    }
}

fn remove(peer: &Peer, keypair: &RcuArc<Keypair>) {
    peer.device()
        .sessions()
        .remove(keypair.local_index(), |entry| entry.is_session_of(keypair));
    debug::keypair(
        peer.netdev(),
        PeerEvent::KeypairDestroyed,
        keypair.id(),
        peer.id(),
    );
}

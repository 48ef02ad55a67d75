// SPDX-License-Identifier: GPL-2.0-only

//! Sessions in use: the keys, the limits on their age and number of messages, and the three
//! slots that a session moves through (whitepaper, sections 6.1, 6.2 and 6.3).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::consts::{
    REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME_NS, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME_NS,
    REKEY_ON_RECEIVE_NS,
};
use super::crypto::SymmetricKey;
use super::noise::{Role, Session};
use super::Rejection;

/// A message counter that is handed out only once: the nonce of one encryption.
///
/// It cannot be copied, and the encryption takes it by value.
#[derive(Debug, PartialEq, Eq)]
pub struct Nonce(u64);

impl Nonce {
    /// Consumes the nonce.
    pub const fn consume(self) -> u64 {
        self.0
    }
}

/// Consecutive nonces for a run of packets. Unused ones are skipped, which is harmless.
#[derive(Debug, PartialEq, Eq)]
pub struct NonceRange {
    next: u64,
    end: u64,
}

impl NonceRange {
    /// The first nonce, for a log line.
    pub const fn first(&self) -> u64 {
        self.next
    }

    /// Consumes `count` nonces and gives the first; [`None`] if fewer are left.
    pub fn take_front(&mut self, count: u64) -> Option<u64> {
        let end = self.next.checked_add(count)?;
        if end > self.end {
            return None;
        }
        Some(core::mem::replace(&mut self.next, end))
    }

    /// How many are left.
    pub const fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }
}

impl Iterator for NonceRange {
    type Item = Nonce;

    fn next(&mut self) -> Option<Nonce> {
        if self.next >= self.end {
            return None;
        }
        let nonce = Nonce(self.next);
        self.next = self.next.saturating_add(1);
        Some(nonce)
    }
}

/// The counter of the messages sent in a session, on a cache line of its own, apart from the keys,
/// which all CPUs read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct SendCounter(AtomicU64);

impl SendCounter {
    /// A counter that has handed out all nonces below `next`. For a session, `next` is 0.
    pub const fn starting_at(next: u64) -> Self {
        Self(AtomicU64::new(next))
    }

    /// Takes `count` nonces, all or none: `None` if any of them would not lie below
    /// [`REJECT_AFTER_MESSAGES`]. May be called on several CPUs at once.
    pub fn reserve(&self, count: u64) -> Option<NonceRange> {
        // Not a plain addition: refused attempts must not push the counter past the limit.
        let next = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                next.checked_add(count)
                    .filter(|end| *end <= REJECT_AFTER_MESSAGES)
            })
            .ok()?;
        Some(NonceRange {
            next,
            end: next.saturating_add(count),
        })
    }

    /// How many nonces were handed out.
    pub fn sent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a session of this age may no longer send or receive.
pub const fn is_expired(age: u64) -> bool {
    age >= REJECT_AFTER_TIME_NS
}

/// Whether a new handshake is due after sending: for the initiator by age, for both by count.
pub const fn should_rekey_sender(age: u64, sent: u64, role: Role) -> bool {
    sent > REKEY_AFTER_MESSAGES || (matches!(role, Role::Initiator) && age >= REKEY_AFTER_TIME_NS)
}

/// Whether a new handshake is due after receiving. Done once per session
/// ([`super::timers::TimerState::claim_receive_rekey`]).
pub const fn should_rekey_receiver(age: u64, role: Role) -> bool {
    matches!(role, Role::Initiator) && age >= REKEY_ON_RECEIVE_NS
}

/// The sending half of a session.
#[derive(Debug)]
pub struct Sending {
    key: SymmetricKey,
    valid: AtomicBool,
    counter: SendCounter,
}

/// The receiving half of a session, without its replay window, which the driver keeps under a
/// lock.
#[derive(Debug)]
pub struct Receiving {
    key: SymmetricKey,
    valid: AtomicBool,
}

/// A session in use. May be used on several CPUs at once.
#[derive(Debug)]
pub struct Keypair {
    role: Role,
    local_index: u32,
    remote_index: u32,
    birthdate: u64,
    sending: Sending,
    receiving: Receiving,
}

impl Keypair {
    /// Starts using a session.
    pub fn new(session: Session, now: u64) -> Self {
        Self {
            role: session.role,
            local_index: session.local_index,
            remote_index: session.remote_index,
            birthdate: now,
            sending: Sending {
                key: session.sending,
                valid: AtomicBool::new(true),
                counter: SendCounter::starting_at(0),
            },
            receiving: Receiving {
                key: session.receiving,
                valid: AtomicBool::new(true),
            },
        }
    }

    /// The index under which our index table finds the session.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index that goes into the messages that we send.
    pub const fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// The key for what we send. Only for nonces from [`Keypair::reserve`].
    pub const fn sending_key(&self) -> &SymmetricKey {
        &self.sending.key
    }

    /// The key for what we receive. Only after [`Keypair::check_receive`].
    pub const fn receiving_key(&self) -> &SymmetricKey {
        &self.receiving.key
    }

    /// Nanoseconds since the session was established.
    pub const fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.birthdate)
    }

    /// How many nonces were handed out.
    pub fn sent(&self) -> u64 {
        self.sending.counter.sent()
    }

    /// Whether the sending half has not been stopped. The age is checked only when nonces are
    /// reserved.
    pub fn can_send(&self) -> bool {
        self.sending.valid.load(Ordering::Relaxed)
    }

    /// Takes nonces for a run of `count` packets. If that fails, the session never sends again
    /// and a new handshake is due.
    ///
    /// # Errors
    ///
    /// [`Rejection::KeyExpired`], [`Rejection::CounterExhausted`].
    pub fn reserve(&self, count: u64, now: u64) -> Result<NonceRange, Rejection> {
        if !self.can_send() {
            return Err(Rejection::KeyExpired);
        }
        if is_expired(self.age(now)) {
            self.stop_sending();
            return Err(Rejection::KeyExpired);
        }
        self.sending.counter.reserve(count).ok_or_else(|| {
            self.stop_sending();
            Rejection::CounterExhausted
        })
    }

    /// Stops the sending half for good: the private key changed, or the machine was cloned.
    pub fn stop_sending(&self) {
        self.sending.valid.store(false, Ordering::Relaxed);
    }

    /// Whether a received packet may be decrypted at all. `received` is
    /// [`super::replay::ReplayWindow::next`], which may be read without the lock here.
    ///
    /// # Errors
    ///
    /// [`Rejection::KeyExpired`], [`Rejection::CounterExhausted`]; the session then never receives
    /// again.
    pub fn check_receive(&self, received: u64, now: u64) -> Result<(), Rejection> {
        if !self.receiving.valid.load(Ordering::Relaxed) {
            return Err(Rejection::KeyExpired);
        }
        let refused = if is_expired(self.age(now)) {
            Rejection::KeyExpired
        } else if received >= REJECT_AFTER_MESSAGES {
            Rejection::CounterExhausted
        } else {
            return Ok(());
        };
        self.receiving.valid.store(false, Ordering::Relaxed);
        Err(refused)
    }

    /// Whether sending with this session should start a new handshake.
    pub fn rekey_after_send(&self, now: u64) -> bool {
        self.can_send() && should_rekey_sender(self.age(now), self.sent(), self.role)
    }

    /// Whether receiving, with this as the current session, should start a new handshake.
    pub fn rekey_after_receive(&self, now: u64) -> bool {
        self.can_send() && should_rekey_receiver(self.age(now), self.role)
    }
}

/// The three slots for a peer's sessions.
///
/// - `current`: the session that we send with.
/// - `previous`: for packets that are still in flight.
/// - `next`: a session that we established as responder and that the initiator has not confirmed
///   yet by sending data. We must not send with it before that.
///
/// `K` is a handle to a keypair: the driver keeps this under the peer's keypair lock and
/// publishes `current` to its lockless readers after each change; tests use numbers. Every
/// change returns the handles that were displaced, which the driver removes from its index table.
#[derive(Debug, PartialEq, Eq)]
pub struct Keypairs<K> {
    /// For packets that are still in flight.
    pub previous: Option<K>,
    /// The session that we send with.
    pub current: Option<K>,
    /// A session that is not confirmed yet.
    pub next: Option<K>,
}

/// The sessions that were displaced from the three slots.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Retired<K>(pub [Option<K>; 3]);

impl<K> Retired<K> {
    fn new(first: Option<K>, second: Option<K>) -> Self {
        Self([first, second, None])
    }
}

impl<K> IntoIterator for Retired<K> {
    type Item = K;
    type IntoIter = core::iter::Flatten<core::array::IntoIter<Option<K>, 3>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl<K> Keypairs<K> {
    /// No sessions.
    pub const fn new() -> Self {
        Self {
            previous: None,
            current: None,
            next: None,
        }
    }

    /// Installs a new session, established in either role.
    pub fn install(&mut self, keypair: K, role: Role) -> Retired<K> {
        match role {
            Role::Initiator => self.install_initiator(keypair),
            Role::Responder => self.install_responder(keypair),
        }
    }

    /// Installs a session established as initiator. The response has confirmed it, so it becomes
    /// current at once. An unconfirmed next becomes previous, because the peer may be sending with
    /// it; otherwise current becomes previous.
    pub fn install_initiator(&mut self, keypair: K) -> Retired<K> {
        let current = self.current.replace(keypair);
        match self.next.take() {
            Some(next) => Retired::new(self.previous.replace(next), current),
            None => Retired::new(core::mem::replace(&mut self.previous, current), None),
        }
    }

    /// Installs a session established as responder: it stays next until the first packet confirms
    /// it. Previous is dropped, since current may soon need its slot.
    pub fn install_responder(&mut self, keypair: K) -> Retired<K> {
        Retired::new(self.next.replace(keypair), self.previous.take())
    }

    /// A packet was received with the session that `is_received` matches. If that is next, it
    /// becomes current and current becomes previous. Otherwise nothing changes and the result is
    /// `None`.
    pub fn confirm(&mut self, is_received: impl FnOnce(&K) -> bool) -> Option<Retired<K>> {
        let next = self.next.take_if(|next| is_received(next))?;
        let current = self.current.replace(next);
        Some(Retired::new(
            core::mem::replace(&mut self.previous, current),
            None,
        ))
    }

    /// Empties all slots.
    pub fn clear(&mut self) -> Retired<K> {
        Retired([self.next.take(), self.previous.take(), self.current.take()])
    }

    /// The sessions that must stop sending when the private key changes or the machine was cloned:
    /// next and current.
    pub fn sending(&self) -> impl Iterator<Item = &K> {
        self.next.iter().chain(&self.current)
    }
}

impl<K> Default for Keypairs<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::consts::NS_PER_SEC;

    fn pair(role: Role) -> Keypair {
        let session = Session {
            role,
            local_index: 1,
            remote_index: 2,
            sending: SymmetricKey::from_bytes([3; 32]),
            receiving: SymmetricKey::from_bytes([4; 32]),
        };
        Keypair::new(session, 1000 * NS_PER_SEC)
    }

    fn at(age: u64) -> u64 {
        1000 * NS_PER_SEC + age
    }

    #[test]
    fn nonces_come_in_order_and_end_before_the_limit() {
        let counter = SendCounter::starting_at(0);
        let run: Vec<u64> = counter.reserve(3).unwrap().map(Nonce::consume).collect();
        assert_eq!(run, [0, 1, 2]);
        let one = counter.reserve(1).unwrap();
        assert_eq!((one.first(), one.remaining()), (3, 1));
        assert_eq!(counter.sent(), 4);
        assert_eq!(counter.reserve(0).unwrap().count(), 0);

        let counter = SendCounter::starting_at(REJECT_AFTER_MESSAGES - 3);
        assert!(counter.reserve(4).is_none());
        assert_eq!(counter.sent(), REJECT_AFTER_MESSAGES - 3);
        let last: Vec<u64> = counter.reserve(3).unwrap().map(Nonce::consume).collect();
        assert_eq!(last.last(), Some(&(u64::MAX - 8129 - 1)));
        for _ in 0..20_000 {
            assert!(counter.reserve(1).is_none());
            assert!(counter.reserve(u64::MAX).is_none());
        }
    }

    #[test]
    fn nonces_are_handed_out_once_among_threads() {
        let counter = SendCounter::starting_at(0);
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| -> Vec<u64> {
                        (0..500u64)
                            .filter_map(|i| counter.reserve(i % 5))
                            .flatten()
                            .map(Nonce::consume)
                            .collect()
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..4000));
    }

    #[test]
    fn ages() {
        for (age, expired, sender, receiver) in [
            (0, false, false, false),
            (120 * NS_PER_SEC - 1, false, false, false),
            (120 * NS_PER_SEC, false, true, false),
            (165 * NS_PER_SEC - 1, false, true, false),
            (165 * NS_PER_SEC, false, true, true),
            (180 * NS_PER_SEC - 1, false, true, true),
            (180 * NS_PER_SEC, true, true, true),
        ] {
            assert_eq!(is_expired(age), expired);
            let (ours, theirs) = (pair(Role::Initiator), pair(Role::Responder));
            assert_eq!(ours.rekey_after_send(at(age)), sender);
            assert_eq!(ours.rekey_after_receive(at(age)), receiver);
            assert!(!theirs.rekey_after_send(at(age)));
            assert!(!theirs.rekey_after_receive(at(age)));
            assert_eq!(theirs.check_receive(0, at(age)).is_err(), expired);
            assert_eq!(theirs.reserve(1, at(age)).is_err(), expired);
            // Once expired, it stays expired, whatever the clock says.
            assert_eq!(theirs.check_receive(0, at(0)).is_err(), expired);
            assert_eq!(theirs.reserve(1, at(0)).is_err(), expired);
        }
        // A clock that went back gives age 0.
        assert_eq!(pair(Role::Initiator).age(0), 0);
    }

    #[test]
    fn message_limits() {
        for role in [Role::Initiator, Role::Responder] {
            assert!(!should_rekey_sender(0, 1 << 60, role));
            assert!(should_rekey_sender(0, (1 << 60) + 1, role));
            let mut keypair = pair(role);
            keypair.sending.counter = SendCounter::starting_at(REJECT_AFTER_MESSAGES - 1);
            assert!(keypair.rekey_after_send(at(0)));
            assert!(keypair.reserve(1, at(0)).is_ok());
            assert_eq!(keypair.reserve(1, at(0)), Err(Rejection::CounterExhausted));
            assert!(!keypair.can_send());
            assert_eq!(keypair.reserve(1, at(0)), Err(Rejection::KeyExpired));
            assert_eq!(keypair.check_receive(0, at(0)), Ok(()));
            assert_eq!(
                keypair.check_receive(REJECT_AFTER_MESSAGES, at(0)),
                Err(Rejection::CounterExhausted)
            );
            assert_eq!(keypair.check_receive(0, at(0)), Err(Rejection::KeyExpired));
        }
    }

    #[test]
    fn a_stopped_session_receives_but_neither_sends_nor_renews() {
        let keypair = pair(Role::Initiator);
        keypair.stop_sending();
        assert_eq!(keypair.reserve(1, at(0)), Err(Rejection::KeyExpired));
        assert!(!keypair.rekey_after_send(at(130 * NS_PER_SEC)));
        assert!(!keypair.rekey_after_receive(at(170 * NS_PER_SEC)));
        assert_eq!(keypair.check_receive(0, at(0)), Ok(()));
    }

    /// Every combination of the three slots and the result of each operation: slots as
    /// (previous, current, next) with 0 for none; the new session is 9.
    #[test]
    fn rotation_table() {
        let option = |k: u8| (k != 0).then_some(k);
        let places = |[previous, current, next]: [u8; 3]| Keypairs {
            previous: option(previous),
            current: option(current),
            next: option(next),
        };
        for (before, initiator, responder, confirmed) in [
            ([0, 0, 0], [0, 9, 0], [0, 0, 9], None),
            ([1, 0, 0], [0, 9, 0], [0, 0, 9], None),
            ([0, 2, 0], [2, 9, 0], [0, 2, 9], None),
            ([1, 2, 0], [2, 9, 0], [0, 2, 9], None),
            ([0, 0, 3], [3, 9, 0], [0, 0, 9], Some([0, 3, 0])),
            ([1, 0, 3], [3, 9, 0], [0, 0, 9], Some([0, 3, 0])),
            ([0, 2, 3], [3, 9, 0], [0, 2, 9], Some([2, 3, 0])),
            ([1, 2, 3], [3, 9, 0], [0, 2, 9], Some([2, 3, 0])),
        ] {
            // Every session that left the slots must have been returned, exactly once.
            let check = |after: Keypairs<u8>, expected: [u8; 3], retired: Vec<u8>| {
                assert_eq!(after, places(expected), "from {before:?}");
                let mut gone: Vec<u8> = before
                    .into_iter()
                    .filter(|k| *k != 0 && !expected.contains(k))
                    .collect();
                gone.sort_unstable();
                let mut retired = retired;
                retired.sort_unstable();
                assert_eq!(retired, gone, "from {before:?}");
            };
            let mut keypairs = places(before);
            let retired = keypairs.install(9, Role::Initiator).into_iter().collect();
            check(keypairs, initiator, retired);

            let mut keypairs = places(before);
            let retired = keypairs.install(9, Role::Responder).into_iter().collect();
            check(keypairs, responder, retired);

            let mut keypairs = places(before);
            assert!(keypairs.confirm(|k| *k == 2 || *k == 1).is_none());
            assert_eq!(keypairs, places(before));
            match (keypairs.confirm(|k| *k == 3), confirmed) {
                (Some(retired), Some(expected)) => {
                    check(keypairs, expected, retired.into_iter().collect());
                }
                (None, None) => {}
                other => panic!("{other:?}"),
            }

            let mut keypairs = places(before);
            let retired = keypairs.clear().into_iter().collect();
            check(keypairs, [0; 3], retired);
            assert_eq!(
                places(before).sending().copied().collect::<Vec<_>>(),
                [before[2], before[1]]
                    .into_iter()
                    .filter(|k| *k != 0)
                    .collect::<Vec<_>>()
            );
        }
    }
}

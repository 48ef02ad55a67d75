// SPDX-License-Identifier: GPL-2.0-only

//! The timers of a peer as data (whitepaper, section 6).
//!
//! The driver reports what happened ([`TimerState::note`]), which at most arms its timers
//! ([`Arm`]), and does what it is told when one of them expires ([`Actions`]). The only clock here
//! is the `now` it hands in, the only randomness the jitter.
//!
//! # Deadlines and the driver's timers
//!
//! A deadline is a number in [`TimerState`]; the driver's timer is only what wakes us up to look
//! at it. So an event on the data path moves or clears a deadline without touching the driver's
//! timer, which may then fire early, find nothing due and be armed again for the rest. What must
//! never happen is that it fires late or not at all: whenever it would, [`Arm`] says when it has
//! to. Deadlines are written before the wake-up time is read, and when the driver's
//! timer fires they are read after the wake-up time is cleared, all sequentially consistent, so
//! that of two CPUs doing these at once one sees the other.
//!
//! All of it may be called on several CPUs at once and in any context.

use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::consts::{
    KEEPALIVE_TIMEOUT_MS, MAX_INITIATIONS, NEW_HANDSHAKE_TIMEOUT_MS, NS_PER_MS, NS_PER_SEC,
    REKEY_TIMEOUT_JITTER_MAX_MS, REKEY_TIMEOUT_MS, REKEY_TIMEOUT_NS, ZERO_KEY_MATERIAL_MS,
};

/// The five timers of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Timer {
    /// No response to our initiation: send another, or give up.
    RetransmitHandshake,
    /// Data was received and nothing sent: send a keepalive.
    SendKeepalive,
    /// Data was sent and nothing received: start a new handshake.
    NewHandshake,
    /// No new session for long: erase all keys.
    ZeroKeyMaterial,
    /// Nothing was sent or received for the time the user has set: send a keepalive.
    PersistentKeepalive,
}

impl Timer {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Every timer, in the order of [`Timer::index`].
    pub const ALL: [Timer; Timer::COUNT] = [
        Timer::RetransmitHandshake,
        Timer::SendKeepalive,
        Timer::NewHandshake,
        Timer::ZeroKeyMaterial,
        Timer::PersistentKeepalive,
    ];

    /// A dense number from 0.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What happened. One event per run of packets is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Transport data, keepalives included, is about to be handed to the socket. Reported before,
    /// because the answer may come in before the socket returns.
    Sending,
    /// The socket took transport data with something in it.
    DataSent,
    /// Transport data with something in it was received and authenticated.
    DataReceived,
    /// A keepalive was received and authenticated.
    KeepaliveReceived,
    /// An initiation is being sent.
    InitiationSent,
    /// A response is being sent; its session is installed.
    ResponseSent,
    /// An initiation was received, authenticated and committed.
    InitiationReceived,
    /// A response was received and authenticated; its session is installed.
    ResponseReceived,
    /// The first transport data of a session that we made as responder was received: reported
    /// before [`Event::DataReceived`] or [`Event::KeepaliveReceived`] of the same packet.
    SessionConfirmed,
}

/// The driver's timers to arm, whether or not they are armed already, and in how many milliseconds
/// each must fire. Not while the interface is down or the peer is going away.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm(
    /// Milliseconds; 0 leaves the timer as it is.
    [u32; Timer::COUNT],
);

impl Arm {
    /// No timer to arm: the usual case on the data path.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; Timer::COUNT]
    }

    /// The timers, each with its milliseconds.
    pub fn iter(&self) -> impl Iterator<Item = (Timer, u32)> {
        Timer::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, ms)| *ms != 0)
    }

    fn set(&mut self, timer: Timer, ms: Option<u32>) {
        if let (Some(slot), Some(ms)) = (self.0.get_mut(timer.index()), ms) {
            *slot = ms.max(1);
        }
    }
}

/// What to do when a timer has expired, in the order: arm, clear the source, purge, erase, send.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// The driver's timers to arm.
    pub arm: Arm,
    flags: u8,
}

impl Actions {
    const SEND_INITIATION: u8 = 1;
    const SEND_KEEPALIVE: u8 = 1 << 1;
    const PURGE_STAGED: u8 = 1 << 2;
    const ZERO_KEYS: u8 = 1 << 3;
    const CLEAR_SOURCE: u8 = 1 << 4;

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.flags == 0 && self.arm.is_empty()
    }

    /// Send an initiation, if [`TimerState::claim_initiation`] allows it.
    pub const fn send_initiation(&self) -> bool {
        self.flags & Self::SEND_INITIATION != 0
    }

    /// Send what is staged, or a keepalive if nothing is.
    pub const fn send_keepalive(&self) -> bool {
        self.flags & Self::SEND_KEEPALIVE != 0
    }

    /// Drop what is staged.
    pub const fn purge_staged(&self) -> bool {
        self.flags & Self::PURGE_STAGED != 0
    }

    /// Clear the handshake slot and all keypairs.
    pub const fn zero_keys(&self) -> bool {
        self.flags & Self::ZERO_KEYS != 0
    }

    /// Forget the source address that packets to the peer have: it may be what is wrong.
    pub const fn clear_source(&self) -> bool {
        self.flags & Self::CLEAR_SOURCE != 0
    }

    fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }
}

/// How far the driver's timer may be behind its time before it is taken for lost.
const LOST_AFTER_NS: u64 = 2 * NS_PER_SEC;

/// One deadline and the wake-up that it relies on; see the module's documentation.
#[derive(Debug, Default)]
struct Deadline {
    /// When it is due; 0 is never.
    due: AtomicU64,
    /// When the driver's timer will fire; 0 if it is not armed.
    wakes: AtomicU64,
}

impl Deadline {
    fn is_pending(&self) -> bool {
        self.due.load(Ordering::Relaxed) != 0
    }

    fn cancel(&self) {
        if self.is_pending() {
            self.due.store(0, Ordering::SeqCst);
        }
    }

    fn reset(&self) {
        self.due.store(0, Ordering::SeqCst);
        self.wakes.store(0, Ordering::SeqCst);
    }

    /// Sets the deadline. Gives the milliseconds to arm the driver's timer with, if it must be.
    fn set(&self, now: u64, ms: u32) -> Option<u32> {
        let due = now.saturating_add(u64::from(ms).saturating_mul(NS_PER_MS));
        if self.due.load(Ordering::Relaxed) != due {
            self.due.store(due, Ordering::SeqCst);
        }
        self.ensure_wake(now, due)
    }

    /// As [`Deadline::set`], but only if no deadline is set. False if one was.
    fn set_if_idle(&self, now: u64, ms: impl FnOnce() -> u32) -> (bool, Option<u32>) {
        if self.is_pending() {
            return (false, None);
        }
        let due = now.saturating_add(u64::from(ms()).saturating_mul(NS_PER_MS));
        match self
            .due
            .compare_exchange(0, due, Ordering::SeqCst, Ordering::Relaxed)
        {
            Ok(_) => (true, self.ensure_wake(now, due)),
            Err(_) => (false, None),
        }
    }

    fn ensure_wake(&self, now: u64, due: u64) -> Option<u32> {
        let wakes = self.wakes.load(Ordering::SeqCst);
        let armed = wakes != 0 && wakes <= due && now < wakes.saturating_add(LOST_AFTER_NS);
        if armed {
            return None;
        }
        self.wakes.store(due, Ordering::SeqCst);
        let ms = due.saturating_sub(now).div_ceil(NS_PER_MS);
        Some(u32::try_from(ms).unwrap_or(u32::MAX).max(1))
    }

    /// The driver's timer fired. Whether the deadline is due; if it lies ahead, the
    /// milliseconds to arm the timer with again.
    fn fired(&self, now: u64) -> (bool, Option<u32>) {
        self.wakes.store(0, Ordering::SeqCst);
        let due = self.due.load(Ordering::SeqCst);
        if due == 0 {
            return (false, None);
        }
        if now < due {
            return (false, self.ensure_wake(now, due));
        }
        // Fails if it was moved or cancelled this very moment.
        match self
            .due
            .compare_exchange(due, 0, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => (true, None),
            Err(0) => (false, None),
            Err(moved) => (false, self.ensure_wake(now, moved)),
        }
    }
}

/// All that a peer's timers know. See the module's documentation.
#[derive(Debug, Default)]
pub struct TimerState {
    /// By [`Timer::index`].
    deadlines: [Deadline; Timer::COUNT],
    /// Retries since the last handshake that was not one.
    attempts: AtomicU32,
    /// Data was received again while a keepalive was already due.
    need_another_keepalive: AtomicBool,
    /// The handshake at 165 s was started for the current session.
    receive_rekey_sent: AtomicBool,
    /// Seconds; 0 is off.
    persistent_interval: AtomicU16,
    /// When an initiation or response was last sent; 0 is long ago.
    last_handshake_sent: AtomicU64,
}

impl TimerState {
    /// The state of a peer that has heard and sent nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an event. `now` is in nanoseconds; `jitter` gives a random number of milliseconds
    /// below its argument and is called only when one is needed.
    pub fn note(&self, event: Event, now: u64, jitter: impl FnOnce(u32) -> u32) -> Arm {
        let mut arm = Arm::default();
        match event {
            Event::Sending => self.authenticated_sent(now, &mut arm),
            Event::DataSent => {
                let ms = || NEW_HANDSHAKE_TIMEOUT_MS.saturating_add(bounded(jitter));
                let (_, wake) = self.deadline(Timer::NewHandshake).set_if_idle(now, ms);
                arm.set(Timer::NewHandshake, wake);
            }
            Event::DataReceived => {
                self.authenticated_received(now, &mut arm);
                let (idle, wake) = self
                    .deadline(Timer::SendKeepalive)
                    .set_if_idle(now, || KEEPALIVE_TIMEOUT_MS);
                arm.set(Timer::SendKeepalive, wake);
                if !idle && !self.need_another_keepalive.load(Ordering::Relaxed) {
                    self.need_another_keepalive.store(true, Ordering::Relaxed);
                }
            }
            Event::KeepaliveReceived | Event::InitiationReceived => {
                self.authenticated_received(now, &mut arm);
            }
            Event::InitiationSent => {
                self.note_handshake_sent(now);
                self.authenticated_sent(now, &mut arm);
                let ms = REKEY_TIMEOUT_MS.saturating_add(bounded(jitter));
                let wake = self.deadline(Timer::RetransmitHandshake).set(now, ms);
                arm.set(Timer::RetransmitHandshake, wake);
            }
            Event::ResponseSent => {
                self.note_handshake_sent(now);
                self.session_derived(now, &mut arm);
                self.authenticated_sent(now, &mut arm);
            }
            Event::ResponseReceived => {
                self.session_derived(now, &mut arm);
                self.handshake_complete();
                self.authenticated_received(now, &mut arm);
            }
            Event::SessionConfirmed => self.handshake_complete(),
        }
        arm
    }

    /// The driver's timer fired: what is to be done. `now` as in [`TimerState::note`].
    pub fn expired(&self, timer: Timer, now: u64) -> Actions {
        let mut actions = Actions::default();
        let (due, wake) = self.deadline(timer).fired(now);
        actions.arm.set(timer, wake);
        if due {
            self.due(timer, now, &mut actions);
        }
        actions
    }

    /// The interface was brought up: sends a persistent keepalive at once, if there are any.
    pub fn up(&self) -> Actions {
        self.down();
        let mut actions = Actions::default();
        if self.persistent_keepalive_interval() != 0 {
            actions.set(Actions::SEND_KEEPALIVE);
        }
        actions
    }

    /// The interface went down or the peer is being removed: nothing is due any more. The driver
    /// stops its own timers.
    pub fn down(&self) {
        for deadline in &self.deadlines {
            deadline.reset();
        }
        self.attempts.store(0, Ordering::Relaxed);
        self.need_another_keepalive.store(false, Ordering::Relaxed);
        self.receive_rekey_sent.store(false, Ordering::Relaxed);
        self.forget_handshake_sent();
    }

    /// A new handshake is wanted for a reason other than a retry: there is no session, or it
    /// is nearly used up. Starts the count of tries again, and says whether an initiation may
    /// be sent now.
    pub fn request_initiation(&self, now: u64) -> bool {
        if self.attempts.load(Ordering::Relaxed) != 0 {
            self.attempts.store(0, Ordering::Relaxed);
        }
        self.may_initiate(now)
    }

    /// Whether the last handshake message was sent long enough ago to send an initiation.
    pub fn may_initiate(&self, now: u64) -> bool {
        let last = self.last_handshake_sent.load(Ordering::Relaxed);
        last == 0 || now.saturating_sub(last) >= REKEY_TIMEOUT_NS
    }

    /// As [`TimerState::may_initiate`], and if so, nobody else may for the time to come. To be
    /// asked just before an initiation is made; report [`Event::InitiationSent`] when it is.
    pub fn claim_initiation(&self, now: u64) -> bool {
        let last = self.last_handshake_sent.load(Ordering::Relaxed);
        (last == 0 || now.saturating_sub(last) >= REKEY_TIMEOUT_NS)
            && self
                .last_handshake_sent
                .compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// A response is about to be made: it too holds back initiations, even if it fails.
    pub fn note_handshake_sent(&self, now: u64) {
        self.last_handshake_sent
            .store(now.max(1), Ordering::Relaxed);
    }

    /// Lets the next initiation go out at once: the private key changed.
    pub fn forget_handshake_sent(&self) {
        self.last_handshake_sent.store(0, Ordering::Relaxed);
    }

    /// All keys were erased for another reason than their age.
    pub fn forget_keys(&self) {
        self.deadline(Timer::ZeroKeyMaterial).cancel();
    }

    /// Whether to start the handshake of [`super::keypair::Keypair::rekey_after_receive`]:
    /// true once per session. Ask for the keypair only if [`Self::receive_rekey_is_due`].
    pub fn claim_receive_rekey(&self) -> bool {
        !self.receive_rekey_sent.swap(true, Ordering::Relaxed)
    }

    /// Whether [`TimerState::claim_receive_rekey`] was not claimed for the current session yet.
    pub fn receive_rekey_is_due(&self) -> bool {
        !self.receive_rekey_sent.load(Ordering::Relaxed)
    }

    /// How many retries were made since the last handshake that was not one.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Seconds between persistent keepalives; 0 if they are off.
    pub fn persistent_keepalive_interval(&self) -> u16 {
        self.persistent_interval.load(Ordering::Relaxed)
    }

    /// Sets the seconds between persistent keepalives; 0 turns them off. True if they were off
    /// and are on now: then the driver sends one at once if the interface is up. Any other
    /// change counts from the next packet on.
    pub fn set_persistent_keepalive_interval(&self, seconds: u16) -> bool {
        let before = self.persistent_interval.swap(seconds, Ordering::Relaxed);
        before == 0 && seconds != 0
    }

    /// Any authenticated packet is on its way out.
    fn authenticated_sent(&self, now: u64, arm: &mut Arm) {
        self.deadline(Timer::SendKeepalive).cancel();
        self.traversal(now, arm);
    }

    /// Any authenticated packet came in.
    fn authenticated_received(&self, now: u64, arm: &mut Arm) {
        self.deadline(Timer::NewHandshake).cancel();
        self.traversal(now, arm);
    }

    /// Any authenticated packet, either way.
    fn traversal(&self, now: u64, arm: &mut Arm) {
        let seconds = self.persistent_keepalive_interval();
        if seconds != 0 {
            let ms = u32::from(seconds).saturating_mul(1000);
            let wake = self.deadline(Timer::PersistentKeepalive).set(now, ms);
            arm.set(Timer::PersistentKeepalive, wake);
        }
    }

    /// There are new keys that will have to be erased.
    fn session_derived(&self, now: u64, arm: &mut Arm) {
        let wake = self
            .deadline(Timer::ZeroKeyMaterial)
            .set(now, ZERO_KEY_MATERIAL_MS);
        arm.set(Timer::ZeroKeyMaterial, wake);
    }

    /// Both sides have the session.
    fn handshake_complete(&self) {
        self.deadline(Timer::RetransmitHandshake).cancel();
        self.attempts.store(0, Ordering::Relaxed);
        self.receive_rekey_sent.store(false, Ordering::Relaxed);
    }

    fn due(&self, timer: Timer, now: u64, actions: &mut Actions) {
        match timer {
            Timer::RetransmitHandshake => self.retransmit(now, actions),
            Timer::SendKeepalive => {
                actions.set(Actions::SEND_KEEPALIVE);
                if self.need_another_keepalive.swap(false, Ordering::Relaxed) {
                    let wake = self
                        .deadline(Timer::SendKeepalive)
                        .set(now, KEEPALIVE_TIMEOUT_MS);
                    actions.arm.set(timer, wake);
                }
            }
            Timer::NewHandshake => {
                self.attempts.store(0, Ordering::Relaxed);
                actions.set(Actions::CLEAR_SOURCE | Actions::SEND_INITIATION);
            }
            Timer::ZeroKeyMaterial => actions.set(Actions::ZERO_KEYS),
            Timer::PersistentKeepalive => {
                if self.persistent_keepalive_interval() != 0 {
                    actions.set(Actions::SEND_KEEPALIVE);
                }
            }
        }
    }

    fn retransmit(&self, now: u64, actions: &mut Actions) {
        // If a response that we sent meanwhile holds the initiation back, then this run of tries
        // ends here, as in the in-tree driver: the peer is at it itself, and what is still to be
        // sent after that starts another.
        let sent = self.attempts.load(Ordering::Relaxed).saturating_add(1);
        if sent < MAX_INITIATIONS {
            self.attempts.store(sent, Ordering::Relaxed);
            actions.set(Actions::CLEAR_SOURCE | Actions::SEND_INITIATION);
            return;
        }
        // The peer is given up, until there is something to send again.
        self.deadline(Timer::SendKeepalive).cancel();
        actions.set(Actions::PURGE_STAGED);
        // What is left of half a handshake goes in due time.
        let (_, wake) = self
            .deadline(Timer::ZeroKeyMaterial)
            .set_if_idle(now, || ZERO_KEY_MATERIAL_MS);
        actions.arm.set(Timer::ZeroKeyMaterial, wake);
    }

    fn deadline(&self, timer: Timer) -> &Deadline {
        // By pattern, not by index: there is no bound to check.
        let [retransmit, keepalive, new_handshake, zero_keys, persistent] = &self.deadlines;
        match timer {
            Timer::RetransmitHandshake => retransmit,
            Timer::SendKeepalive => keepalive,
            Timer::NewHandshake => new_handshake,
            Timer::ZeroKeyMaterial => zero_keys,
            Timer::PersistentKeepalive => persistent,
        }
    }
}

/// The jitter, whatever the source of randomness thinks of its bound.
fn bounded(jitter: impl FnOnce(u32) -> u32) -> u32 {
    jitter(REKEY_TIMEOUT_JITTER_MAX_MS).min(REKEY_TIMEOUT_JITTER_MAX_MS)
}

// SPDX-License-Identifier: GPL-2.0

//! The handshake slot: the one handshake that a peer may have in progress, as plain data that
//! the driver keeps under the peer's handshake lock.
//!
//! There is one slot for both roles. When both sides initiate at the same moment, consuming
//! theirs replaces ours, and the response to ours, should it come, finds nothing any more.

use super::consts::INITIATION_INTERVAL_NS;
use super::noise::{
    ConsumedInitiation, Established, InitiatorHandshake, ResponderHandshake, Session,
};
use super::tai64n::Tai64n;
use super::Drop;

/// What is in progress.
#[derive(Debug)]
enum State {
    /// Nothing.
    Empty,
    /// We have sent an initiation and wait for the response.
    CreatedInitiation(InitiatorHandshake),
    /// We have accepted an initiation and are about to respond.
    ConsumedInitiation(ResponderHandshake),
}

/// A peer's handshake in progress, and what must be remembered from one to the next.
///
/// Finishing a handshake ([`HandshakeSlot::establish`]) empties the slot in the same step, so
/// that no ephemeral key outlives its session's beginning.
#[derive(Debug)]
pub struct HandshakeSlot {
    state: State,
    /// Counts changes of `state`: what was computed from an older state is refused.
    generation: u64,
    /// The index under which the driver's index table finds this slot. It stays until another
    /// takes its place, so that a late cookie reply still finds the peer.
    local_index: Option<u32>,
    /// The greatest timestamp accepted. Survives [`HandshakeSlot::clear`].
    latest_timestamp: Tai64n,
    /// When the last initiation was accepted. Survives [`HandshakeSlot::clear`].
    last_initiation_consumption: u64,
}

/// An index that the slot no longer uses: the driver takes it out of its index table.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedIndex(pub Option<u32>);

impl HandshakeSlot {
    /// The slot of a peer of which nothing was heard yet.
    pub const fn new() -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            local_index: None,
            latest_timestamp: Tai64n::ZERO,
            last_initiation_consumption: 0,
        }
    }

    /// The index under which the index table finds this slot.
    pub const fn local_index(&self) -> Option<u32> {
        self.local_index
    }

    /// The greatest timestamp accepted so far.
    pub const fn latest_timestamp(&self) -> Tai64n {
        self.latest_timestamp
    }

    /// Whether no handshake is in progress.
    pub const fn is_empty(&self) -> bool {
        matches!(self.state, State::Empty)
    }

    /// Commits an initiation of ours, just before it is sent. It replaces whatever was there.
    pub fn commit_initiation(&mut self, mut handshake: InitiatorHandshake) -> ReleasedIndex {
        let released = self.local_index.replace(handshake.local_index());
        handshake.generation = self.next_generation();
        self.state = State::CreatedInitiation(handshake);
        ReleasedIndex(released.filter(|index| self.local_index != Some(*index)))
    }

    /// Commits an authentic initiation of the peer, unless it is a replay or comes too soon
    /// after the last one. It replaces whatever was there. The index stays.
    ///
    /// # Errors
    ///
    /// [`Drop::ReplayedInitiation`], [`Drop::InitiationFlood`]; the slot is as it was then.
    pub fn accept_initiation(
        &mut self,
        consumed: ConsumedInitiation,
        now: u64,
    ) -> Result<(), Drop> {
        if consumed.timestamp <= self.latest_timestamp {
            return Err(Drop::ReplayedInitiation);
        }
        let earliest = self
            .last_initiation_consumption
            .saturating_add(INITIATION_INTERVAL_NS);
        if now < earliest {
            return Err(Drop::InitiationFlood);
        }
        self.latest_timestamp = consumed.timestamp;
        self.last_initiation_consumption = now;
        let mut handshake = consumed.handshake;
        handshake.generation = self.next_generation();
        self.state = State::ConsumedInitiation(handshake);
        Ok(())
    }

    /// A snapshot of our initiation, to compute what comes of a response without the lock.
    ///
    /// # Errors
    ///
    /// [`Drop::WrongState`] if no initiation of ours waits for a response.
    pub fn initiator(&self) -> Result<InitiatorHandshake, Drop> {
        match &self.state {
            State::CreatedInitiation(handshake) => Ok(handshake.duplicate()),
            _ => Err(Drop::WrongState),
        }
    }

    /// A snapshot of the peer's initiation, to compute a response without the lock.
    ///
    /// # Errors
    ///
    /// [`Drop::WrongState`] if there is none to respond to.
    pub fn responder(&self) -> Result<ResponderHandshake, Drop> {
        match &self.state {
            State::ConsumedInitiation(handshake) => Ok(handshake.duplicate()),
            _ => Err(Drop::WrongState),
        }
    }

    /// Commits a finished handshake: the slot is emptied and the session comes out. The
    /// session takes its local index with it; if the slot had another, that is released.
    ///
    /// # Errors
    ///
    /// [`Drop::Superseded`] if the slot changed since the snapshot; it stays as it is then.
    pub fn establish(
        &mut self,
        established: Established,
    ) -> Result<(Session, ReleasedIndex), Drop> {
        if self.is_empty() || established.generation != self.generation {
            return Err(Drop::Superseded);
        }
        self.next_generation();
        self.state = State::Empty;
        let session = established.session;
        let released = self
            .local_index
            .take()
            .filter(|index| *index != session.local_index);
        Ok((session, ReleasedIndex(released)))
    }

    /// Erases the handshake in progress. What guards against replays stays.
    pub fn clear(&mut self) -> ReleasedIndex {
        self.next_generation();
        self.state = State::Empty;
        ReleasedIndex(self.local_index.take())
    }

    fn next_generation(&mut self) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }
}

impl Default for HandshakeSlot {
    fn default() -> Self {
        Self::new()
    }
}

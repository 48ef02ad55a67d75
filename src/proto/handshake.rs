// SPDX-License-Identifier: GPL-2.0-only

//! The handshake slot: the one handshake that a peer may have in progress, as plain data that
//! the driver keeps under the peer's handshake lock.
//!
//! There is one slot for both roles. When both sides initiate at the same moment, accepting their
//! initiation replaces ours, and a response to ours no longer finds a handshake.

use super::consts::INITIATION_INTERVAL_NS;
use super::noise::{
    ConsumedInitiation, Established, InitiatorHandshake, ResponderHandshake, Session,
};
use super::tai64n::Tai64n;
use super::Rejection;

/// The handshake in progress.
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
/// that the ephemeral keys are gone once the session exists.
#[derive(Debug)]
pub struct HandshakeSlot {
    state: State,
    /// Counts changes of `state`: results computed from an older state are refused.
    generation: u64,
    /// The index under which the driver's index table finds this slot. It stays until it is
    /// replaced, so that a late cookie reply still finds the peer.
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
    /// The slot of a peer from which nothing was received yet.
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

    /// Commits an initiation of ours, just before it is sent. It replaces what the slot held.
    pub fn commit_initiation(&mut self, mut handshake: InitiatorHandshake) -> ReleasedIndex {
        let released = self.local_index.replace(handshake.local_index());
        handshake.generation = self.next_generation();
        self.state = State::CreatedInitiation(handshake);
        ReleasedIndex(released.filter(|index| self.local_index != Some(*index)))
    }

    /// Commits an authentic initiation of the peer, unless it is a replay or comes too soon
    /// after the last one. It replaces what the slot held, except for the local index.
    ///
    /// # Errors
    ///
    /// [`Rejection::ReplayedInitiation`], [`Rejection::InitiationFlood`]; the slot is then
    /// unchanged.
    pub fn accept_initiation(
        &mut self,
        consumed: ConsumedInitiation,
        now: u64,
    ) -> Result<(), Rejection> {
        if consumed.timestamp <= self.latest_timestamp {
            return Err(Rejection::ReplayedInitiation);
        }
        let earliest = self
            .last_initiation_consumption
            .saturating_add(INITIATION_INTERVAL_NS);
        if now < earliest {
            return Err(Rejection::InitiationFlood);
        }
        self.latest_timestamp = consumed.timestamp;
        self.last_initiation_consumption = now;
        let mut handshake = consumed.handshake;
        handshake.generation = self.next_generation();
        self.state = State::ConsumedInitiation(handshake);
        Ok(())
    }

    /// A snapshot of our initiation, to process the response without the lock.
    ///
    /// # Errors
    ///
    /// [`Rejection::WrongState`] if no initiation of ours waits for a response.
    pub fn initiator(&self) -> Result<InitiatorHandshake, Rejection> {
        match &self.state {
            State::CreatedInitiation(handshake) => Ok(handshake.duplicate()),
            _ => Err(Rejection::WrongState),
        }
    }

    /// A snapshot of the peer's initiation, to compute a response without the lock.
    ///
    /// # Errors
    ///
    /// [`Rejection::WrongState`] if there is none to respond to.
    pub fn responder(&self) -> Result<ResponderHandshake, Rejection> {
        match &self.state {
            State::ConsumedInitiation(handshake) => Ok(handshake.duplicate()),
            _ => Err(Rejection::WrongState),
        }
    }

    /// Commits a finished handshake: empties the slot and returns the session. The session
    /// keeps its local index; if the slot had another one, that is released.
    ///
    /// # Errors
    ///
    /// [`Rejection::Superseded`] if the slot changed since the snapshot; it is then left unchanged.
    pub fn establish(
        &mut self,
        established: Established,
    ) -> Result<(Session, ReleasedIndex), Rejection> {
        if self.is_empty() || established.generation != self.generation {
            return Err(Rejection::Superseded);
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

    /// Erases the handshake in progress, but keeps the state that guards against replays.
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

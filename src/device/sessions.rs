// SPDX-License-Identifier: GPL-2.0-only

//! The device's sessions: the table of indices, and sessions as they begin and end.

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::{
        keypair::{Keypair, Retired},
        peer::Peer,
    },
    kapi::{
        debug::{self, KeypairEvent},
        random,
        sync::rcu::RcuArc,
    },
    proto::{handshake::ReleasedIndex, noise::Role, Rejection},
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

/// A fresh random index for a handshake of the peer. Process context.
pub(crate) fn new_index(peer: &RcuArc<Peer>) -> Result<u32, Rejection> {
    let entry = IndexEntry::Handshake(peer.clone());
    peer.device()
        .sessions()
        .insert(entry, random::u32, GFP_KERNEL)
        .map_err(|_| Rejection::NoMemory)
}

/// Takes an index that the handshake slot no longer uses out of the table.
pub(crate) fn release_index(peer: &RcuArc<Peer>, released: ReleasedIndex) {
    if let Some(index) = released.0 {
        peer.device()
            .sessions()
            .remove(index, |entry| entry.is_handshake_of(peer));
    }
}

/// Puts a new session to use: its index leads to it instead of to the handshake, and the keypair
/// takes its place, unless the peer died or its device went down meanwhile.
///
/// # Errors
///
/// [`Rejection::Superseded`] if the index is the handshake's no more, [`Rejection::NoMemory`],
/// [`Rejection::GoingAway`]. The index is out of the table then.
pub(crate) fn install(
    peer: &RcuArc<Peer>,
    keypair: RcuArc<Keypair>,
    role: Role,
) -> Result<(), Rejection> {
    let index = keypair.local_index();
    let entry = IndexEntry::Session {
        peer: peer.clone(),
        keypair: keypair.clone(),
    };
    let replaced = peer.device().sessions().replace(
        index,
        |entry| entry.is_handshake_of(peer),
        entry,
        GFP_KERNEL,
    );
    match replaced {
        Ok(true) => {}
        Ok(false) => return Err(Rejection::Superseded),
        Err(_) => {
            release_index(peer, ReleasedIndex(Some(index)));
            return Err(Rejection::NoMemory);
        }
    }
    debug::keypair(
        peer.netdev(),
        KeypairEvent::Created,
        keypair.id(),
        peer.id(),
    );
    match peer
        .keypairs
        .install(keypair.clone(), role, || peer.may_run())
    {
        Ok(retired) => retire(peer, retired),
        Err(rejection) => {
            remove(peer, &keypair);
            return Err(rejection);
        }
    }
    Ok(())
}

/// A packet was received with `keypair`. True if that confirmed a new session, with which we may
/// send from now on. Any context but hard interrupts.
pub(crate) fn confirm(peer: &Peer, keypair: &RcuArc<Keypair>) -> bool {
    match peer.keypairs.confirm(keypair) {
        Some(retired) => {
            retire(peer, retired);
            true
        }
        None => false,
    }
}

/// Ends all sessions of the peer. Any context but hard interrupts.
pub(crate) fn clear(peer: &Peer) {
    retire(peer, peer.keypairs.clear());
}

fn retire(peer: &Peer, retired: Retired) {
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
        KeypairEvent::Destroyed,
        keypair.id(),
        peer.id(),
    );
}

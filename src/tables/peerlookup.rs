// SPDX-License-Identifier: GPL-2.0-only

//! Finds whom a message is for: peers by public key, sessions by index.
//!
//! Lookups run under RCU, in any context. Changes lock internally; process or softirq context.

#[cfg(test)]
mod tests;

use crate::{
    kapi::{
        alloc::{AllocError, Flags},
        siphash::SipKey,
        sync::rcu::{Guard, RcuArc},
    },
    tables::hashtable::HashTable,
};

const PUBKEY_BUCKETS: usize = 2048;
const INDEX_BUCKETS: usize = 8192;

/// Attempts to find a free index. With 2^24 indices in use, all of them fail once in 2^512.
const INDEX_TRIES: usize = 64;

/// The peers of a device by static public key.
///
/// The hash is keyed, because attackers can choose public keys.
pub struct PubkeyTable<P: Send + Sync + 'static> {
    key: SipKey,
    table: HashTable<[u8; 32], RcuArc<P>>,
}

impl<P: Send + Sync + 'static> PubkeyTable<P> {
    /// An empty table. Process context.
    pub fn new(flags: Flags) -> Result<Self, AllocError> {
        Self::with_buckets(PUBKEY_BUCKETS, flags)
    }

    fn with_buckets(buckets: usize, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            key: SipKey::random(),
            table: HashTable::new(buckets, flags)?,
        })
    }

    /// Finds the peer with this key; clone the result to keep it beyond the guard.
    pub fn lookup<'g>(&'g self, guard: &'g Guard, public: &[u8; 32]) -> Option<&'g RcuArc<P>> {
        self.table.lookup(guard, self.key.hash(public), public)
    }

    /// Adds a peer. `false`, and nothing changed, if one with this key exists.
    pub fn insert(
        &self,
        public: [u8; 32],
        peer: RcuArc<P>,
        flags: Flags,
    ) -> Result<bool, AllocError> {
        self.table
            .insert(self.key.hash(&public), public, peer, flags)
    }

    /// Removes this peer. `false`, and nothing changed, if it is not the one with this key.
    pub fn remove(&self, public: &[u8; 32], peer: &P) -> bool {
        self.table.remove(self.key.hash(public), public, |it| {
            core::ptr::eq::<P>(&**it, peer)
        })
    }
}

/// Handshakes and sessions by the index that we gave the other side (whitepaper, section 5.4).
///
/// `V` says what an index stands for: a handshake in progress or a keypair.
pub struct IndexTable<V: Clone + Send + Sync + 'static> {
    /// Indices are random, so each is its own hash.
    table: HashTable<u32, V>,
}

impl<V: Clone + Send + Sync + 'static> IndexTable<V> {
    /// An empty table. Process context.
    pub fn new(flags: Flags) -> Result<Self, AllocError> {
        Self::with_buckets(INDEX_BUCKETS, flags)
    }

    fn with_buckets(buckets: usize, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            table: HashTable::new(buckets, flags)?,
        })
    }

    /// Finds the entry of `index`; clone it to keep it beyond the guard.
    #[inline]
    pub fn lookup<'g>(&'g self, guard: &'g Guard, index: u32) -> Option<&'g V> {
        self.table.lookup(guard, index.into(), &index)
    }

    /// Adds an entry under a new index, drawn from `random` until one is free.
    pub fn insert(
        &self,
        value: V,
        mut random: impl FnMut() -> u32,
        flags: Flags,
    ) -> Result<u32, AllocError> {
        for _ in 0..INDEX_TRIES {
            let index = random();
            if self
                .table
                .insert(index.into(), index, value.clone(), flags)?
            {
                return Ok(index);
            }
        }
        Err(AllocError)
    }

    /// Replaces the entry of `index` by `new`: a handshake becomes a session. Readers find either
    /// the old entry or the new one.
    ///
    /// `false`, and nothing changed, if the entry is gone or `is_old` rejects it: the peer was
    /// removed in the meantime, and the session must not be created.
    pub fn replace(
        &self,
        index: u32,
        is_old: impl FnOnce(&V) -> bool,
        new: V,
        flags: Flags,
    ) -> Result<bool, AllocError> {
        self.table.replace(index.into(), index, is_old, new, flags)
    }

    /// Removes the entry of `index` if `is_it` accepts it: a handshake must not remove the index
    /// once that belongs to its session.
    pub fn remove(&self, index: u32, is_it: impl FnOnce(&V) -> bool) -> bool {
        self.table.remove(index.into(), &index, is_it)
    }
}

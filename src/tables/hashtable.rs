// SPDX-License-Identifier: GPL-2.0-only

//! A chained hash table with RCU readers, one writers' lock and a fixed number of buckets.
//!
//! # Removal
//!
//! A removed node drops its reference to its successor at once, so that it never keeps a chain
//! alive. A reader that stands on it then sees the chain end too early. Therefore each bucket
//! counts its removals, and a reader that found nothing retries if the count has changed. A reader
//! that found its entry need not.

use core::pin::Pin;

use crate::{
    kapi::{
        alloc::{AllocError, Flags, InPlaceInit, KBox, KVVec},
        sync::{
            atomic::{
                fence, AtomicU32,
                Ordering::{Acquire, Relaxed, Release},
            },
            rcu::{read_lock, Guard, RcuArc, RcuCell},
            spinlock_bh::SpinLockBh,
        },
    },
    new_spinlock_bh,
};

/// An entry. Reachable under RCU; only `next` changes.
struct Node<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    key: K,
    value: V,
    next: RcuCell<Node<K, V>>,
}

/// An entry and the place that it is in.
type Found<'g, K, V> = (&'g RcuCell<Node<K, V>>, &'g Node<K, V>);

struct Bucket<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    head: RcuCell<Node<K, V>>,
    removals: AtomicU32,
}

impl<K: Eq + Send + Sync + 'static, V: Send + Sync + 'static> Bucket<K, V> {
    fn find<'g>(&'g self, guard: &'g Guard, key: &K) -> Option<Found<'g, K, V>> {
        let mut place = &self.head;
        while let Some(node) = place.load(guard) {
            let node = node.get();
            if node.key == *key {
                return Some((place, node));
            }
            place = &node.next;
        }
        None
    }

    /// Puts `successor` in the place of `node`. The writers' lock is held.
    fn unlink(
        &self,
        place: &RcuCell<Node<K, V>>,
        node: &Node<K, V>,
        successor: Option<RcuArc<Node<K, V>>>,
    ) {
        place.swap(successor);
        // The order matters: a reader that sees the cut below also sees the new count, and one that
        // starts with the new count does not reach the node.
        self.removals.fetch_add(1, Release);
        node.next.swap(None);
    }
}

/// The table. Callers pass the hash along with the key; its low bits select the bucket.
pub(super) struct HashTable<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    /// A power of two of them.
    buckets: KVVec<Bucket<K, V>>,
    /// Held while the chains are changed.
    writers: Pin<KBox<SpinLockBh<()>>>,
}

impl<K: Eq + Send + Sync + 'static, V: Send + Sync + 'static> HashTable<K, V> {
    /// An empty table of `buckets` (a power of two) buckets. Process context.
    pub(super) fn new(buckets: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut empty = KVVec::with_capacity(buckets, flags)?;
        for _ in 0..buckets {
            empty
                .push_within_capacity(Bucket {
                    head: RcuCell::empty(),
                    removals: AtomicU32::new(0),
                })
                .map_err(|_| AllocError)?;
        }
        Ok(Self {
            buckets: empty,
            writers: KBox::pin_init(new_spinlock_bh!(()), flags).map_err(|_| AllocError)?,
        })
    }

    fn bucket(&self, hash: u64) -> Option<&Bucket<K, V>> {
        let mask = self.buckets.len().wrapping_sub(1);
        self.buckets.get(hash as usize & mask)
    }

    /// Finds the value of `key`. Any context; takes no lock.
    #[inline]
    pub(super) fn lookup<'g>(&'g self, guard: &'g Guard, hash: u64, key: &K) -> Option<&'g V> {
        let bucket = self.bucket(hash)?;
        loop {
            let removals = bucket.removals.load(Acquire);
            if let Some((_, node)) = bucket.find(guard, key) {
                return Some(&node.value);
            }
            fence(Acquire);
            if bucket.removals.load(Relaxed) == removals {
                return None;
            }
        }
    }

    /// Adds an entry; `false` if one with this key exists already.
    pub(super) fn insert(
        &self,
        hash: u64,
        key: K,
        value: V,
        flags: Flags,
    ) -> Result<bool, AllocError> {
        let next = RcuCell::empty();
        let node = RcuArc::new(Node { key, value, next }, flags)?;
        let Some(bucket) = self.bucket(hash) else {
            return Err(AllocError);
        };
        let guard = read_lock();
        let _writers = self.writers.lock();
        if bucket.find(&guard, &node.key).is_some() {
            return Ok(false);
        }
        node.next.swap(bucket.head.get());
        bucket.head.swap(Some(node));
        Ok(true)
    }

    /// Replaces the entry of `key`, if there is one and `is_old` accepts it. Readers find either
    /// the old entry or the new one.
    pub(super) fn replace(
        &self,
        hash: u64,
        key: K,
        is_old: impl FnOnce(&V) -> bool,
        new: V,
        flags: Flags,
    ) -> Result<bool, AllocError> {
        let next = RcuCell::empty();
        let new = RcuArc::new(
            Node {
                key,
                value: new,
                next,
            },
            flags,
        )?;
        let Some(bucket) = self.bucket(hash) else {
            return Ok(false);
        };
        let guard = read_lock();
        let _writers = self.writers.lock();
        match bucket.find(&guard, &new.key) {
            Some((place, old)) if is_old(&old.value) => {
                new.next.swap(old.next.get());
                bucket.unlink(place, old, Some(new));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Removes the entry of `key`, if there is one and `is_it` accepts it.
    pub(super) fn remove(&self, hash: u64, key: &K, is_it: impl FnOnce(&V) -> bool) -> bool {
        let Some(bucket) = self.bucket(hash) else {
            return false;
        };
        let guard = read_lock();
        let _writers = self.writers.lock();
        match bucket.find(&guard, key) {
            Some((place, node)) if is_it(&node.value) => {
                bucket.unlink(place, node, node.next.get());
                true
            }
            _ => false,
        }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Drop for HashTable<K, V> {
    fn drop(&mut self) {
        // One by one, so that no node drops a whole chain.
        for bucket in self.buckets.iter() {
            while let Some(node) = bucket.head.swap(None) {
                bucket.head.swap(node.next.swap(None));
            }
        }
    }
}

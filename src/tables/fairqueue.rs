// SPDX-License-Identifier: GPL-2.0-only

//! A bounded queue that strangers share.
//!
//! Each source has a bucket, by a keyed hash of its address; buckets are served in turn. A full
//! queue takes a newcomer all the same if its bucket is not the longest, at the cost of the oldest
//! entry of the longest one. So whoever fills the queue competes with himself, and with the few
//! whose addresses share his bucket.

#[cfg(all(test, not(loom)))]
mod tests;

use crate::kapi::alloc::{AllocError, Flags, KVVec};

/// Buckets of a queue.
pub const BUCKETS: usize = 64;

/// A first-in first-out list.
pub trait List: Default {
    /// What is on it.
    type Item;

    /// How many there are.
    fn count(&self) -> usize;

    /// Adds an item at the end.
    fn push(&mut self, item: Self::Item);

    /// Takes the first item.
    fn pop(&mut self) -> Option<Self::Item>;
}

/// The bit of a bucket in [`FairQueue::filled`].
fn bit(index: usize) -> u64 {
    1_u64.wrapping_shl(index as u32)
}

/// The queue. Not synchronised: callers lock it.
pub struct FairQueue<L> {
    buckets: KVVec<L>,
    /// Bit n: bucket n has something.
    filled: u64,
    /// The bucket to be served next.
    next: u32,
    len: usize,
    max: usize,
}

impl<L: List> FairQueue<L> {
    /// An empty queue for at most `max` items.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new(max: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut buckets = KVVec::with_capacity(BUCKETS, flags)?;
        for _ in 0..BUCKETS {
            buckets
                .push_within_capacity(L::default())
                .map_err(|_| AllocError)?;
        }
        Ok(Self {
            buckets,
            filled: 0,
            next: 0,
            len: 0,
            max,
        })
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item of the source with this hash. Returns the item that had to make room, which is
    /// the new one itself if its own bucket is the longest.
    pub fn push(&mut self, hash: u64, item: L::Item) -> Option<L::Item> {
        let own = (hash % BUCKETS as u64) as usize;
        let mut evicted = None;
        if self.len >= self.max {
            let (longest, _) = (0..BUCKETS)
                .zip(self.buckets.iter())
                .max_by_key(|(_, bucket)| bucket.count())?;
            let count = |index: usize| self.buckets.get(index).map_or(0, L::count);
            if count(longest) <= count(own).saturating_add(1) {
                return Some(item);
            }
            evicted = self.take(longest);
        }
        let Some(bucket) = self.buckets.get_mut(own) else {
            return Some(item);
        };
        bucket.push(item);
        self.filled |= bit(own);
        self.len = self.len.saturating_add(1);
        evicted
    }

    /// Takes the next item: one of each source in turn.
    pub fn pop(&mut self) -> Option<L::Item> {
        if self.filled == 0 {
            return None;
        }
        let ahead = self.filled.rotate_right(self.next).trailing_zeros();
        let index = self.next.wrapping_add(ahead) % BUCKETS as u32;
        self.next = index.wrapping_add(1) % BUCKETS as u32;
        self.take(index as usize)
    }

    fn take(&mut self, index: usize) -> Option<L::Item> {
        let bucket = self.buckets.get_mut(index)?;
        let item = bucket.pop()?;
        if bucket.count() == 0 {
            self.filled &= !bit(index);
        }
        self.len = self.len.saturating_sub(1);
        Some(item)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Limits the handshakes of each source while the device is under load (whitepaper, section 5.3).
//!
//! Every source has a token bucket that gains [`PER_SECOND`] tokens a second and holds up to
//! [`BURST`]; a packet takes one. A bucket that was unused for a second is full and need not be
//! remembered. So sources are kept in two generations of one second each: a source that sends moves
//! into the current one. After a second the current generation becomes the previous one, and the
//! sources of the old previous one are forgotten.

#[cfg(test)]
mod tests;

use core::{mem, net::IpAddr, pin::Pin};

use crate::{
    kapi::{
        alloc::{AllocError, Flags, InPlaceInit, KBox, KVVec},
        rbtree::{RBTree, RBTreeNode},
        siphash::SipKey,
        sync::spinlock_bh::SpinLockBh,
    },
    new_spinlock_bh,
};

/// Tokens that a source gains in a second.
pub const PER_SECOND: u64 = 20;
/// Tokens that a source may accumulate.
pub const BURST: u64 = 5;

/// Called this long after the last message, [`Ratelimiter::forget`] forgets all sources: two
/// generations, and some ticks for a coarse clock.
pub const FORGOTTEN_AFTER_MS: u32 = 2100;

const SECOND_NS: u64 = 1_000_000_000;
/// Credit is counted in nanoseconds of waiting; this much is one token.
const TOKEN_NS: u64 = SECOND_NS / PER_SECOND;
const FULL_NS: u64 = TOKEN_NS * BURST;

/// What is limited together: one IPv4 address, or one IPv6 /64, in one network namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    netns: u64,
    net: Net,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Net {
    V4(u32),
    V6(u64),
}

impl Source {
    fn new(netns: u64, addr: IpAddr) -> Self {
        let net = match addr {
            IpAddr::V4(addr) => Net::V4(addr.into()),
            IpAddr::V6(addr) => Net::V6((u128::from(addr) >> 64) as u64),
        };
        Self { netns, net }
    }
}

#[derive(Clone, Copy)]
struct Bucket {
    credit_ns: u64,
    last_ns: u64,
}

impl Bucket {
    fn full(now_ns: u64) -> Self {
        Self {
            credit_ns: FULL_NS,
            last_ns: now_ns,
        }
    }

    fn take(&mut self, now_ns: u64) -> bool {
        // Callers read the clock before they take the lock, so it may seem to run backwards.
        let waited = now_ns.saturating_sub(self.last_ns);
        self.last_ns = self.last_ns.max(now_ns);
        self.credit_ns = self.credit_ns.saturating_add(waited).min(FULL_NS);
        match self.credit_ns.checked_sub(TOKEN_NS) {
            Some(rest) => {
                self.credit_ns = rest;
                true
            }
            None => false,
        }
    }
}

#[derive(Default)]
struct Generation {
    sources: RBTree<Source, Bucket>,
    len: usize,
}

#[derive(Default)]
struct Inner {
    current: Generation,
    previous: Generation,
    /// When the current generation began.
    since_ns: u64,
}

impl Inner {
    /// Ends the current generation when it is due, and returns the sources to forget.
    fn turn(&mut self, now_ns: u64) -> Option<(Generation, Generation)> {
        let age = now_ns.saturating_sub(self.since_ns);
        if age < SECOND_NS {
            return None;
        }
        self.since_ns = now_ns;
        let current = mem::take(&mut self.current);
        Some(if age < 2 * SECOND_NS {
            let previous = mem::replace(&mut self.previous, current);
            (previous, Generation::default())
        } else {
            (mem::take(&mut self.previous), current)
        })
    }

    /// Takes a token from the bucket of a source. [`None`] if the source is new and there is room
    /// for it among `max` others.
    fn take(&mut self, source: &Source, now_ns: u64, max: usize) -> Option<bool> {
        if let Some(bucket) = self.current.sources.get_mut(source) {
            return Some(bucket.take(now_ns));
        }
        if let Some(&(mut bucket)) = self.previous.sources.get(source) {
            let granted = bucket.take(now_ns);
            // It sends again: move it, with its memory, into the current generation.
            let node = self.previous.sources.remove_node(source)?;
            self.previous.len = self.previous.len.wrapping_sub(1);
            self.add(node.into_reservation().into_node(*source, bucket));
            return Some(granted);
        }
        let len = self.current.len.saturating_add(self.previous.len);
        (len >= max).then_some(false)
    }

    fn add(&mut self, node: RBTreeNode<Source, Bucket>) {
        self.current.sources.insert(node);
        self.current.len = self.current.len.wrapping_add(1);
    }
}

/// Parts of a big limiter, each with a lock and a share of the sources.
const SHARDS: usize = 16;
/// A limiter of fewer sources is not divided.
const MIN_DIVIDED: usize = 1 << 10;

type Shard = Pin<KBox<SpinLockBh<Inner>>>;

/// The limiter. One serves all devices, concurrently.
pub struct Ratelimiter {
    /// Of each shard.
    max_sources: usize,
    /// Spreads the sources over the shards.
    key: SipKey,
    shards: KVVec<Shard>,
}

impl Ratelimiter {
    /// A limiter that remembers at most `max_sources` sources. Process context.
    pub fn new(max_sources: usize, flags: Flags) -> Result<Self, AllocError> {
        let count = if max_sources < MIN_DIVIDED { 1 } else { SHARDS };
        let mut shards = KVVec::with_capacity(count, flags)?;
        for _ in 0..count {
            let shard = KBox::pin_init(new_spinlock_bh!(Inner::default()), flags)
                .map_err(|_| AllocError)?;
            shards.push_within_capacity(shard).map_err(|_| AllocError)?;
        }
        Ok(Self {
            max_sources: max_sources.checked_div(count).unwrap_or(0),
            key: SipKey::random(),
            shards,
        })
    }

    fn shard(&self, source: &Source) -> Option<&Shard> {
        let hash = match source.net {
            Net::V4(net) => self.key.hash(&net.to_ne_bytes()),
            Net::V6(net) => self.key.hash(&net.to_ne_bytes()),
        };
        let index = hash.checked_rem(self.shards.len() as u64)?;
        self.shards.get(index as usize)
    }

    /// The limit for a machine with this much memory: 65,536 above one GiB and proportionally less
    /// below, as in the in-tree driver.
    pub fn max_sources_for_memory(bytes: u64) -> usize {
        const MAX: u64 = 1 << 16;
        const MIN: u64 = 1 << 7;
        let fitting = if bytes > 1 << 30 {
            MAX
        } else {
            (bytes >> 14).clamp(MIN, MAX).next_power_of_two()
        };
        usize::try_from(fitting).unwrap_or(1 << 16)
    }

    /// Forgets the sources that need not be remembered any more, as [`Self::allow`] does too. True
    /// if some are left. Process context.
    pub fn forget(&self, now_ns: u64) -> bool {
        let mut is_left = false;
        for shard in self.shards.iter() {
            let mut inner = shard.lock();
            let forgotten = inner.turn(now_ns);
            is_left |= inner.current.len != 0 || inner.previous.len != 0;
            drop(inner);
            // Perhaps many: not under the lock.
            drop(forgotten);
        }
        is_left
    }

    /// Takes a token for a packet from `addr` in `netns`, and returns whether there was one.
    ///
    /// `now_ns` is of a monotonic clock. `false` too if the source is new and the table is full or
    /// memory is short: under load new sources have to wait. Any context that `flags` allow.
    pub fn allow(&self, netns: u64, addr: IpAddr, now_ns: u64, flags: Flags) -> bool {
        let source = Source::new(netns, addr);
        let Some(shard) = self.shard(&source) else {
            return false;
        };
        let (forgotten, known) = {
            let mut inner = shard.lock();
            let forgotten = inner.turn(now_ns);
            (forgotten, inner.take(&source, now_ns, self.max_sources))
        };
        // There may be many: not under the lock.
        drop(forgotten);
        if let Some(granted) = known {
            return granted;
        }
        let mut bucket = Bucket::full(now_ns);
        let granted = bucket.take(now_ns);
        let Ok(node) = RBTreeNode::new(source, bucket, flags) else {
            return false;
        };
        let mut inner = shard.lock();
        // Meanwhile, another caller may have added this source or filled the table.
        if let Some(granted) = inner.take(&source, now_ns, self.max_sources) {
            return granted;
        }
        inner.add(node);
        granted
    }
}

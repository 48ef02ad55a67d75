// SPDX-License-Identifier: GPL-2.0

//! Limits the handshakes of each source while the device is under load (whitepaper, section 5.3).
//!
//! Every source has a token bucket that gets [`PER_SECOND`] tokens a second and holds
//! [`BURST`]; a packet takes one. A bucket that was left alone for a second is full and need not be
//! remembered. So sources are kept in two generations of one second each: a source that is heard
//! of moves into the current one, and when that has lasted for a second it becomes the previous
//! one, whose sources are forgotten.

#[cfg(test)]
mod tests;

use core::{mem, net::IpAddr, pin::Pin};

use crate::{
    kapi::{
        alloc::{AllocError, Flags, InPlaceInit, KBox},
        rbtree::{RBTree, RBTreeNode},
        sync::spinlock_bh::SpinLockBh,
    },
    new_spinlock_bh,
};

/// Tokens that a source gets in a second.
pub const PER_SECOND: u64 = 20;
/// Tokens that a source may save up.
pub const BURST: u64 = 5;

/// [`Ratelimiter::forget`] forgets all sources when called so long after the last message. Two
/// generations, and some ticks for a coarse clock.
pub const FORGOTTEN_AFTER_MS: u32 = 2100;

const SECOND_NS: u64 = 1_000_000_000;
/// Credit is counted in nanoseconds of waiting; this much is one token.
const TOKEN_NS: u64 = SECOND_NS / PER_SECOND;
const FULL_NS: u64 = TOKEN_NS * BURST;

/// Who is limited together: one IPv4 address, or one IPv6 network of 64 bits, in one network
/// namespace.
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
        // Callers read the clock before they get the lock: it may seem to run backwards.
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
    /// Ends the current generation if it is time, and returns the sources to forget.
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
            // It is heard of again: move it, memory and all, into the current generation.
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

/// The limiter. One serves all devices; concurrent callers are welcome.
pub struct Ratelimiter {
    max_sources: usize,
    inner: Pin<KBox<SpinLockBh<Inner>>>,
}

impl Ratelimiter {
    /// A limiter that remembers at most `max_sources` sources. Process context.
    pub fn new(max_sources: usize, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            max_sources,
            inner: KBox::pin_init(new_spinlock_bh!(Inner::default()), flags)
                .map_err(|_| AllocError)?,
        })
    }

    /// The bound that suits a machine with so much memory: 65,536 above one GiB and
    /// proportionally less below, as in the in-tree driver.
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

    /// Forgets the sources that need not be remembered any more, as [`Self::allow`] does by the way.
    /// Process context.
    pub fn forget(&self, now_ns: u64) {
        let forgotten = self.inner.lock().turn(now_ns);
        // Perhaps many: not under the lock.
        drop(forgotten);
    }

    /// Takes a token for a packet from `addr` in `netns`, and returns whether there was one.
    ///
    /// `now_ns` is a monotonic clock. `false` also if the source is new and the table is full or
    /// there is no memory: under load the unknown have to wait. Any context that `flags` allow.
    pub fn allow(&self, netns: u64, addr: IpAddr, now_ns: u64, flags: Flags) -> bool {
        let source = Source::new(netns, addr);
        let (forgotten, known) = {
            let mut inner = self.inner.lock();
            let forgotten = inner.turn(now_ns);
            (forgotten, inner.take(&source, now_ns, self.max_sources))
        };
        // Perhaps many: not under the lock.
        drop(forgotten);
        if let Some(granted) = known {
            return granted;
        }
        let mut bucket = Bucket::full(now_ns);
        let granted = bucket.take(now_ns);
        let Ok(node) = RBTreeNode::new(source, bucket, flags) else {
            return false;
        };
        let mut inner = self.inner.lock();
        // Somebody else may have come first, with this source or with others.
        if let Some(granted) = inner.take(&source, now_ns, self.max_sources) {
            return granted;
        }
        inner.add(node);
        granted
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! A binary trie of prefixes with compressed paths, read under RCU.
//!
//! A node covers the addresses that begin with its `cidr` bits; its children cover longer prefixes
//! of these, distinguished by the next bit. So `cidr` grows along every path, and no path has more
//! nodes than the address has bits, plus one. A node without a peer is a fork: it always has two
//! children.
//!
//! # Writers
//!
//! The methods that change a trie take `&self` because readers share it. Only one of them may run
//! at a time: their only caller is the unique [`super::AllowedIpsWriter`].
//!
//! A removed node keeps pointing to its child, so readers that stand on it still find everything
//! below; the child has a reference from its new parent by then. Nothing recurses: a trie is
//! cleared leaf by leaf, and [`RcuArc`] defers what the drop of a node drops.

use core::ops::{BitAnd, BitXor};

use super::Owner;
use crate::kapi::{
    alloc::{AllocError, Flags},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        rcu::{read_lock, Guard, RcuArc, RcuCell, RcuRef},
    },
};

/// An address as a number: its first bit is the most significant one.
pub(super) trait Key:
    Copy + Eq + BitAnd<Output = Self> + BitXor<Output = Self> + Send + Sync + 'static
{
    /// A number whose first `cidr` bits are ones and whose other bits are zeros.
    fn ones(cidr: u32) -> Self;

    /// The number of leading zeros.
    fn leading_zeros(self) -> u32;

    /// Bit number `at`, counted from the most significant; unspecified beyond the last one.
    fn bit(self, at: u32) -> bool;
}

macro_rules! impl_key {
    ($int:ty) => {
        impl Key for $int {
            #[inline]
            fn ones(cidr: u32) -> Self {
                let zeros = <$int>::BITS.saturating_sub(cidr);
                <$int>::MAX.checked_shl(zeros).unwrap_or(0)
            }

            #[inline]
            fn leading_zeros(self) -> u32 {
                <$int>::leading_zeros(self)
            }

            #[inline]
            fn bit(self, at: u32) -> bool {
                self.wrapping_shl(at) >> (<$int>::BITS - 1) != 0
            }
        }
    };
}

impl_key!(u32);
impl_key!(u128);

/// `key` with all but its first `cidr` bits zeroed.
pub(super) fn mask<K: Key>(key: K, cidr: u32) -> K {
    key & K::ones(cidr)
}

/// A prefix that has a peer, or a fork. Only `children`, `peer` and `seq` change.
struct Node<K: Key, P: Send + Sync + 'static> {
    bits: K,
    cidr: u32,
    children: [RcuCell<Node<K, P>>; 2],
    peer: RcuCell<P>,
    /// The sequence number of the prefix, if it has a peer. Used by the writer only.
    seq: AtomicU64,
}

impl<K: Key, P: Send + Sync + 'static> Node<K, P> {
    fn new(
        bits: K,
        cidr: u32,
        peer: Option<RcuArc<P>>,
        seq: u64,
        flags: Flags,
    ) -> Result<RcuArc<Self>, AllocError> {
        RcuArc::new(
            Self {
                bits,
                cidr,
                children: [RcuCell::empty(), RcuCell::empty()],
                peer: RcuCell::new(peer),
                seq: AtomicU64::new(seq),
            },
            flags,
        )
    }

    #[inline]
    fn covers(&self, key: K) -> bool {
        (self.bits ^ key).leading_zeros() >= self.cidr
    }

    /// The child for longer prefixes of `key`. At full length both children stay empty.
    #[inline]
    fn towards(&self, key: K) -> &RcuCell<Self> {
        let [zero, one] = &self.children;
        if key.bit(self.cidr) {
            one
        } else {
            zero
        }
    }

    fn owner(&self, guard: &Guard) -> Option<Owner> {
        Some(Owner::of::<P>(self.peer.load(guard)?.get()))
    }
}

/// Where a prefix is or would be inserted: the result of a walk from the root.
enum Spot<'g, K: Key, P: Send + Sync + 'static> {
    /// At this node, which may lack a peer.
    At(&'g Node<K, P>),
    /// In this empty place.
    Under(&'g RcuCell<Node<K, P>>),
    /// In this place, above the node that is there now.
    Above(&'g RcuCell<Node<K, P>>, &'g Node<K, P>),
    /// Beside the node that is in this place now, both under a new one with that many bits.
    Beside(&'g RcuCell<Node<K, P>>, &'g Node<K, P>, u32),
}

/// The prefixes of one address family.
pub(super) struct Trie<K: Key, P: Send + Sync + 'static> {
    root: RcuCell<Node<K, P>>,
}

impl<K: Key, P: Send + Sync + 'static> Trie<K, P> {
    pub(super) fn new() -> Self {
        Self {
            root: RcuCell::empty(),
        }
    }

    /// The peer of the longest prefix of `key` that has one.
    #[inline]
    pub(super) fn lookup<'g>(&'g self, guard: &'g Guard, key: K) -> Option<RcuRef<'g, P>> {
        let mut best = None;
        let mut place = &self.root;
        while let Some(node) = place.load(guard) {
            let node = node.get();
            if !node.covers(key) {
                break;
            }
            best = node.peer.load(guard).or(best);
            place = node.towards(key);
        }
        best
    }

    fn find<'g>(&'g self, bits: K, cidr: u32, guard: &'g Guard) -> Spot<'g, K, P> {
        let mut place = &self.root;
        while let Some(node) = place.load(guard) {
            let node = node.get();
            let common = (node.bits ^ bits).leading_zeros();
            if common < node.cidr.min(cidr) {
                return Spot::Beside(place, node, common);
            }
            if node.cidr == cidr {
                return Spot::At(node);
            }
            if node.cidr > cidr {
                return Spot::Above(place, node);
            }
            place = node.towards(bits);
        }
        Spot::Under(place)
    }

    /// Gives a prefix, whose bits behind `cidr` are zero, to `peer` under `seq`.
    ///
    /// Returns the owner and the sequence number that it had before, if any. On an error nothing
    /// has changed.
    pub(super) fn insert(
        &self,
        bits: K,
        cidr: u32,
        peer: &RcuArc<P>,
        seq: u64,
        flags: Flags,
    ) -> Result<Option<(RcuArc<P>, u64)>, AllocError> {
        // The read section must not sleep, so nodes are allocated outside of it, once it is known
        // which are needed. Nobody else changes the trie: the second walk ends where the first did.
        let mut leaf = None;
        let mut fork = None;
        loop {
            let missing = {
                let guard = read_lock();
                match (self.find(bits, cidr, &guard), leaf.take(), fork.take()) {
                    (Spot::At(node), ..) => {
                        let old_seq = node.seq.load(Relaxed);
                        node.seq.store(seq, Relaxed);
                        let old = node.peer.swap(Some(peer.clone()));
                        return Ok(old.map(|owner| (owner, old_seq)));
                    }
                    (Spot::Under(place), Some(leaf), _) => {
                        place.swap(Some(leaf));
                        return Ok(None);
                    }
                    (Spot::Above(place, node), Some(leaf), _) => {
                        let leaf: RcuArc<Node<K, P>> = leaf;
                        leaf.towards(node.bits).swap(place.get());
                        place.swap(Some(leaf));
                        return Ok(None);
                    }
                    (Spot::Beside(place, node, _), Some(leaf), Some(fork)) => {
                        let fork: RcuArc<Node<K, P>> = fork;
                        fork.towards(node.bits).swap(place.get());
                        fork.towards(bits).swap(Some(leaf));
                        place.swap(Some(fork));
                        return Ok(None);
                    }
                    (Spot::Beside(_, _, common), ..) => Some(common),
                    (Spot::Under(_) | Spot::Above(..), None, _) => None,
                }
            };
            leaf = Some(Node::new(bits, cidr, Some(peer.clone()), seq, flags)?);
            if let Some(common) = missing {
                fork = Some(Node::new(mask(bits, common), common, None, 0, flags)?);
            }
        }
    }

    /// Takes exactly this prefix away from `owner` and returns its sequence number, or [`None`] if
    /// the owner does not have it.
    pub(super) fn remove(&self, bits: K, cidr: u32, owner: Owner) -> Option<u64> {
        let guard = read_lock();
        let mut above = None;
        let mut place = &self.root;
        let node = loop {
            let node = place.load(&guard)?.get();
            if node.cidr > cidr || !node.covers(bits) {
                return None;
            }
            if node.cidr == cidr {
                break node;
            }
            above = Some((place, node));
            place = node.towards(bits);
        };
        if node.owner(&guard)? != owner {
            return None;
        }
        node.peer.swap(None);
        Self::collapse(place, node);
        // If that was a leaf, its parent may now be a fork with a single child.
        if let Some((place, parent)) = above {
            Self::collapse(place, parent);
        }
        Some(node.seq.load(Relaxed))
    }

    /// Replaces the node in `place` by its only child, or by nothing, unless it has a peer or two
    /// children.
    fn collapse(place: &RcuCell<Node<K, P>>, node: &Node<K, P>) {
        let [zero, one] = &node.children;
        if node.peer.is_none() && (zero.is_none() || one.is_none()) {
            place.swap(zero.get().or_else(|| one.get()));
        }
    }

    /// Removes everything. New readers see an empty trie at once.
    pub(super) fn clear(&self) {
        let top = RcuCell::new(self.root.swap(None));
        loop {
            let guard = read_lock();
            let Some(node) = top.load(&guard) else {
                return;
            };
            let mut node = node.get();
            let mut place = &top;
            while let Some((child_place, child)) = node
                .children
                .iter()
                .find_map(|place| Some((place, place.load(&guard)?.get())))
            {
                place = child_place;
                node = child;
            }
            node.peer.swap(None);
            place.swap(None);
        }
    }
}

#[cfg(test)]
impl<K: Key, P: Send + Sync + 'static> Trie<K, P> {
    /// Checks the structure and returns the number of nodes with and without a peer.
    pub(super) fn check(&self) -> (usize, usize) {
        let guard = read_lock();
        let mut todo: Vec<_> = self.root.load(&guard).into_iter().collect();
        let (mut with, mut without) = (0, 0);
        while let Some(node) = todo.pop() {
            let node = node.get();
            assert!(node.bits == mask(node.bits, node.cidr));
            let mut children = 0;
            for (at, place) in node.children.iter().enumerate() {
                if let Some(child) = place.load(&guard) {
                    children += 1;
                    assert!(child.cidr > node.cidr);
                    assert!(node.covers(child.bits));
                    assert_eq!(child.bits.bit(node.cidr), at == 1);
                    todo.push(child);
                }
            }
            if node.peer.is_none() {
                assert_eq!(children, 2, "a fork has two ways to go");
                without += 1;
            } else {
                with += 1;
            }
        }
        (with, without)
    }
}

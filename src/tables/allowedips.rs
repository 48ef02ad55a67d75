// SPDX-License-Identifier: GPL-2.0-only

//! Allowed IPs: which peer an inner address belongs to (whitepaper, section 2, cryptokey routing).
//!
//! The data path reads [`AllowedIps`], the configuration changes it through [`AllowedIpsWriter`].
//! There is exactly one writer per table and its methods take `&mut self`, so changes are exclusive
//! by construction.

mod trie;

#[cfg(test)]
mod loom_models;
#[cfg(test)]
mod tests;

use core::{net::IpAddr, ptr};

use crate::kapi::{
    alloc::{AllocError, Flags},
    rbtree::{CursorMut, RBTree, RBTreeNode},
    sync::rcu::{Guard, RcuArc, RcuRef},
};
use trie::Trie;

/// An IP network in canonical form: all bits after the prefix are zero.
///
/// IPv4-mapped IPv6 addresses are ordinary IPv6 addresses here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    addr: IpAddr,
    cidr: u8,
}

impl Prefix {
    /// The network of `addr` with `cidr` leading bits; the other bits of `addr` are dropped.
    ///
    /// [`None`] if the address does not have that many bits.
    pub fn new(addr: IpAddr, cidr: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(_) if cidr > 32 => return None,
            IpAddr::V6(_) if cidr > 128 => return None,
            IpAddr::V4(addr) => IpAddr::V4(trie::mask(u32::from(addr), cidr.into()).into()),
            IpAddr::V6(addr) => IpAddr::V6(trie::mask(u128::from(addr), cidr.into()).into()),
        };
        Some(Self { addr, cidr })
    }

    /// The network's address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length: at most 32 (IPv4) or 128 (IPv6).
    pub fn cidr(&self) -> u8 {
        self.cidr
    }
}

/// The readers' side: finds the peer that owns the longest prefix of an address.
///
/// Every prefix holds a reference to its peer.
pub struct AllowedIps<P: Send + Sync + 'static> {
    v4: Trie<u32, P>,
    v6: Trie<u128, P>,
}

impl<P: Send + Sync + 'static> AllowedIps<P> {
    /// Makes an empty table and the only handle that can change it.
    pub fn new(flags: Flags) -> Result<(RcuArc<Self>, AllowedIpsWriter<P>), AllocError> {
        let table = RcuArc::new(
            Self {
                v4: Trie::new(),
                v6: Trie::new(),
            },
            flags,
        )?;
        let writer = AllowedIpsWriter {
            table: table.clone(),
            lists: RBTree::new(),
            next_seq: 1,
        };
        Ok((table, writer))
    }

    /// Finds the owner of `addr`. Any context; takes no lock and no reference.
    pub fn lookup<'g>(&'g self, guard: &'g Guard, addr: IpAddr) -> Option<RcuRef<'g, P>> {
        match addr {
            IpAddr::V4(addr) => self.v4.lookup(guard, addr.into()),
            IpAddr::V6(addr) => self.v6.lookup(guard, addr.into()),
        }
    }
}

/// The only handle that can change an [`AllowedIps`]; keep it in the lock of the configuration.
///
/// Besides the trie it keeps each peer's prefixes in the order in which they were last added, for
/// dumps. A prefix's *sequence number* is its place in that order: numbers only grow and are never
/// reused, so a dump can resume at a number whatever has happened to the table since.
///
/// Dropping the writer empties the table. Drivers call [`AllowedIpsWriter::remove_all`] before
/// that: the drop may happen in softirq context and the table may be large.
pub struct AllowedIpsWriter<P: Send + Sync + 'static> {
    table: RcuArc<AllowedIps<P>>,
    /// All prefixes by owner and sequence number; one entry for each valued node of the tries.
    lists: RBTree<(Owner, u64), Prefix>,
    next_seq: u64,
}

impl<P: Send + Sync + 'static> AllowedIpsWriter<P> {
    /// Gives `prefix` to `peer`, at the end of its list; its previous owner loses it, atomically
    /// for readers, and is returned. The context is that of `flags`. On an error nothing has
    /// changed.
    pub fn insert(
        &mut self,
        prefix: Prefix,
        peer: &RcuArc<P>,
        flags: Flags,
    ) -> Result<Option<RcuArc<P>>, AllocError> {
        let seq = self.next_seq;
        let entry =
            RBTreeNode::new((Owner::of::<P>(peer), seq), prefix, flags).map_err(|_| AllocError)?;
        let cidr = prefix.cidr.into();
        let replaced = match prefix.addr {
            IpAddr::V4(addr) => self.table.v4.insert(addr.into(), cidr, peer, seq, flags)?,
            IpAddr::V6(addr) => self.table.v6.insert(addr.into(), cidr, peer, seq, flags)?,
        };
        let before = replaced.map(|(owner, seq)| {
            self.lists.remove(&(Owner::of::<P>(&owner), seq));
            owner
        });
        self.lists.insert(entry);
        // At one per microsecond it wraps after half a million years.
        self.next_seq = seq.wrapping_add(1);
        Ok(before)
    }

    /// Takes exactly this prefix away from `peer`. Returns whether the peer had it; if not,
    /// nothing has changed.
    pub fn remove(&mut self, prefix: Prefix, peer: &P) -> bool {
        let owner = Owner::of::<P>(peer);
        match self.unlink(prefix, owner) {
            Some(seq) => self.lists.remove(&(owner, seq)).is_some(),
            None => false,
        }
    }

    /// Takes all of its prefixes away from `peer`.
    pub fn remove_by_peer(&mut self, peer: &P) {
        let owner = Owner::of::<P>(peer);
        while let Some((seq, prefix)) = self.prefixes_from(peer, 0).next() {
            self.unlink(prefix, owner);
            self.lists.remove(&(owner, seq));
        }
    }

    /// Empties the table.
    pub fn remove_all(&mut self) {
        self.table.v4.clear();
        self.table.v6.clear();
        self.lists = RBTree::new();
    }

    /// The prefixes of `peer` whose sequence number is `seq` or greater, with their numbers, in
    /// ascending order. A dump starts at 0 and resumes at the last number plus one.
    pub fn prefixes_from(&mut self, peer: &P, seq: u64) -> Prefixes<'_> {
        let owner = Owner::of::<P>(peer);
        Prefixes {
            owner,
            cursor: self.lists.cursor_lower_bound_mut(&(owner, seq)),
        }
    }

    fn unlink(&mut self, prefix: Prefix, owner: Owner) -> Option<u64> {
        let cidr = prefix.cidr.into();
        match prefix.addr {
            IpAddr::V4(addr) => self.table.v4.remove(addr.into(), cidr, owner),
            IpAddr::V6(addr) => self.table.v6.remove(addr.into(), cidr, owner),
        }
    }
}

impl<P: Send + Sync + 'static> Drop for AllowedIpsWriter<P> {
    fn drop(&mut self) {
        self.remove_all();
    }
}

/// The prefixes of one peer from some number on, see [`AllowedIpsWriter::prefixes_from`]. Looks up
/// the first and then walks from one to the next.
pub struct Prefixes<'a> {
    owner: Owner,
    /// At the next one, if that is the owner's.
    cursor: Option<CursorMut<'a, (Owner, u64), Prefix>>,
}

impl Iterator for Prefixes<'_> {
    type Item = (u64, Prefix);

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = self.cursor.take()?;
        let (&(owner, seq), &prefix) = cursor.current();
        if owner != self.owner {
            return None;
        }
        self.cursor = cursor.move_next();
        Some((seq, prefix))
    }
}

/// A peer's identity: its address, which is not reused while a prefix refers to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner(usize);

impl Owner {
    /// Name the type of the peer: an [`RcuArc`] to it has an address of its own.
    fn of<P>(peer: &P) -> Self {
        Self(ptr::from_ref(peer).addr())
    }
}

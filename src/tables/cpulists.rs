// SPDX-License-Identifier: GPL-2.0-only

//! Who is to be served on a certain CPU: a list for each CPU, each owner on one of them at most, in
//! the order in which they came.
//!
//! An owner may be listed in several roles, each for itself.

#[cfg(all(test, not(loom)))]
mod tests;

use core::mem;

use crate::kapi::{
    alloc::{AllocError, Flags, KVVec},
    sync::{locked_by::LockedBy, rcu::RcuArc},
};

/// An object that can be listed.
pub trait Listed: Send + Sync + Sized + 'static {
    /// What it is listed for.
    type Role: Copy + Send;

    /// The link of a role.
    fn link(&self, role: Self::Role) -> &LockedBy<Link<Self>, CpuLists<Self>>;
}

/// An owner, and what it is listed for.
type Entry<T> = (RcuArc<T>, <T as Listed>::Role);

/// What an owner has for each role.
pub struct Link<T: Listed> {
    listed: bool,
    next: Option<Entry<T>>,
}

impl<T: Listed> Link<T> {
    /// A link for those lists.
    pub fn new(lists: &CpuLists<T>) -> LockedBy<Self, CpuLists<T>> {
        LockedBy::new(
            lists,
            Self {
                listed: false,
                next: None,
            },
        )
    }
}

struct List<T: Listed> {
    head: Option<Entry<T>>,
    tail: Option<Entry<T>>,
}

/// The lists. Not synchronised: callers lock them, and with them the links.
pub struct CpuLists<T: Listed> {
    lists: KVVec<List<T>>,
    closed: bool,
}

impl<T: Listed> CpuLists<T> {
    /// Empty lists of so many CPUs.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new(cpus: u32, flags: Flags) -> Result<Self, AllocError> {
        let mut lists = KVVec::with_capacity(cpus as usize, flags)?;
        for _ in 0..cpus {
            lists
                .push_within_capacity(List {
                    head: None,
                    tail: None,
                })
                .map_err(|_| AllocError)?;
        }
        Ok(Self {
            lists,
            closed: false,
        })
    }

    /// Takes nobody in any more.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nobody waits on the list of a CPU.
    pub fn is_empty(&self, cpu: u32) -> bool {
        self.lists
            .get(cpu as usize)
            .is_none_or(|list| list.head.is_none())
    }

    /// Puts an owner on the list of a CPU, unless it is on one already. False if nobody is taken in
    /// any more, or there is no such CPU.
    pub fn add(&mut self, cpu: u32, owner: &RcuArc<T>, role: T::Role) -> bool {
        if self.closed || cpu as usize >= self.lists.len() {
            return false;
        }
        let Some(link) = owner.link(role).access_mut(self) else {
            return false;
        };
        if mem::replace(&mut link.listed, true) {
            return true;
        }
        let Some(list) = self.lists.get_mut(cpu as usize) else {
            return false;
        };
        match list.tail.replace((owner.clone(), role)) {
            None => list.head = Some((owner.clone(), role)),
            Some((last, its_role)) => {
                if let Some(link) = last.link(its_role).access_mut(self) {
                    link.next = Some((owner.clone(), role));
                }
            }
        }
        true
    }

    /// Takes the first off the list of a CPU; it may be listed again from now on.
    pub fn take(&mut self, cpu: u32) -> Option<(RcuArc<T>, T::Role)> {
        let (owner, role) = self.lists.get_mut(cpu as usize)?.head.take()?;
        let link = owner.link(role).access_mut(self)?;
        link.listed = false;
        let next = link.next.take();
        let list = self.lists.get_mut(cpu as usize)?;
        if next.is_none() {
            list.tail = None;
        }
        list.head = next;
        Some((owner, role))
    }

    /// Takes the first off any list.
    pub fn take_any(&mut self) -> Option<(RcuArc<T>, T::Role)> {
        let cpus = self.lists.len() as u32;
        (0..cpus).find_map(|cpu| self.take(cpu))
    }
}

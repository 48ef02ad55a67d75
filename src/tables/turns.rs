// SPDX-License-Identifier: GPL-2.0-only

//! Who has something waiting, in turn.
//!
//! Each owner has a queue of its own, its [`Flow`]; those that have something are served one after
//! the other. Whoever adds much competes with itself, and delays others by one turn at most.

#[cfg(all(test, not(loom)))]
mod tests;

use core::mem;

use super::runqueue::Packets;
use crate::kapi::sync::{locked_by::LockedBy, rcu::RcuArc};

/// A list of packets that can be taken in parts.
pub trait Items: Packets {
    /// Takes the first `most`, or all if there are not so many.
    fn split_front(&mut self, most: usize) -> Self;
}

/// An object that has a [`Flow`].
pub trait HasFlow: Send + Sync + Sized + 'static {
    /// What waits.
    type Items: Items;

    /// The flow.
    fn flow(&self) -> &LockedBy<Flow<Self>, Turns<Self>>;
}

/// What waits for its owner's turn.
pub struct Flow<T: HasFlow> {
    waiting: T::Items,
    /// Its count: counting may mean to look at each.
    count: usize,
    /// Among those that have something.
    listed: bool,
    /// The next of them.
    next: Option<RcuArc<T>>,
}

impl<T: HasFlow> Flow<T> {
    /// A flow for those that have their turns by `turns`.
    pub fn new(turns: &Turns<T>) -> LockedBy<Self, Turns<T>> {
        LockedBy::new(
            turns,
            Self {
                waiting: T::Items::default(),
                count: 0,
                listed: false,
                next: None,
            },
        )
    }
}

/// The owners that have something waiting. Not synchronised: callers lock it, and with it the
/// flows.
pub struct Turns<T: HasFlow> {
    head: Option<RcuArc<T>>,
    tail: Option<RcuArc<T>>,
    closed: bool,
}

impl<T: HasFlow> Turns<T> {
    /// Nobody has anything.
    pub const fn new() -> Self {
        Self {
            head: None,
            tail: None,
            closed: false,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Takes nothing in any more.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Adds what waits for `owner`.
    ///
    /// # Errors
    ///
    /// It is given back if `most` of the owner's wait already, or nothing is taken in any more.
    #[inline]
    pub fn add(&mut self, owner: &RcuArc<T>, items: T::Items, most: usize) -> Result<(), T::Items> {
        if self.closed {
            return Err(items);
        }
        let Some(flow) = owner.flow().access_mut(self) else {
            return Err(items);
        };
        if flow.count >= most {
            return Err(items);
        }
        flow.count = flow.count.saturating_add(items.count());
        flow.waiting.append(items);
        if !mem::replace(&mut flow.listed, true) {
            self.push(owner.clone());
        }
        Ok(())
    }

    /// Takes the first `most`, which is not 0, of the next owner, whose turn comes again after
    /// those of the others.
    #[inline]
    pub fn take(&mut self, most: usize) -> Option<T::Items> {
        let owner = self.head.take()?;
        let (items, more) = {
            let flow = owner.flow().access_mut(self)?;
            let items = flow.waiting.split_front(most);
            flow.count = flow.count.saturating_sub(items.count());
            flow.listed = flow.count != 0;
            let (next, more) = (flow.next.take(), flow.listed);
            self.head = next;
            (items, more)
        };
        if self.head.is_none() {
            self.tail = None;
        }
        if more {
            self.push(owner);
        }
        Some(items)
    }

    fn push(&mut self, owner: RcuArc<T>) {
        match self.tail.replace(owner.clone()) {
            Some(last) => {
                if let Some(flow) = last.flow().access_mut(self) {
                    flow.next = Some(owner);
                }
            }
            None => self.head = Some(owner),
        }
    }
}

impl<T: HasFlow> Default for Turns<T> {
    fn default() -> Self {
        Self::new()
    }
}

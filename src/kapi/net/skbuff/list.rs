// SPDX-License-Identifier: GPL-2.0-only

//! Lists of packets.

use core::{
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ptr::{self, NonNull},
};

use super::{DropReason, SkBuff, Skb};
use crate::bindings;

/// What becomes of a packet.
pub enum Fate {
    /// It stays.
    Keep,
    /// It has been processed.
    Consume,
    /// It is dropped.
    Drop(DropReason),
}

/// Packets that travel together, in order.
///
/// # Invariants
///
/// `head` starts a chain of `len` packets linked by `skb->next`, the last of which is `tail` and
/// has a null `next`; all are ours and nobody else refers to them. Without packets both pointers
/// are null.
pub struct SkbList {
    head: *mut bindings::sk_buff,
    tail: *mut bindings::sk_buff,
    len: usize,
}

// SAFETY: Packets are not tied to a thread or CPU.
unsafe impl Send for SkbList {}
// SAFETY: Shared references only read.
unsafe impl Sync for SkbList {}

/// The link of a packet of a list to the next.
///
/// # Safety
///
/// `skb` must be valid.
#[inline]
unsafe fn next_of(skb: *mut bindings::sk_buff) -> *mut *mut bindings::sk_buff {
    // SAFETY: By the requirement of this function.
    unsafe { &raw mut (*skb).__bindgen_anon_1.__bindgen_anon_1.next }
}

impl SkbList {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self {
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            len: 0,
        }
    }

    /// The number of packets.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no packets.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Adds a packet at the end.
    #[inline]
    pub fn push_back(&mut self, skb: SkBuff) {
        self.append(&mut Self::from(skb));
    }

    /// Adds a packet of C at the end, without its route; a copy if it is shared. It is dropped if
    /// there is no memory for the copy.
    ///
    /// # Safety
    ///
    /// The packet must be valid, and the caller must have a reference to it, which it gives up.
    pub(super) unsafe fn push_unshared(&mut self, skb: *mut bindings::sk_buff) {
        // SAFETY: By the requirements of this function.
        let skb = unsafe { bindings::wg_skb_share_check(skb) };
        if let Some(skb) = NonNull::new(skb) {
            // SAFETY: The packet is not shared now, and the reference is ours.
            let mut skb = unsafe { SkBuff::from_raw(skb) };
            skb.drop_dst();
            self.push_back(skb);
        }
    }

    /// The first packet.
    #[inline]
    pub fn front(&self) -> Option<&Skb> {
        self.iter().next()
    }

    /// Removes the first packet and returns it.
    #[inline]
    pub fn pop_front(&mut self) -> Option<SkBuff> {
        let skb = NonNull::new(self.head)?;
        // SAFETY: The packets of the list are valid by the type invariant.
        self.head = unsafe { *next_of(skb.as_ptr()) };
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        self.len = self.len.wrapping_sub(1);
        // SAFETY: By the type invariant it is ours alone; it is off the list now.
        Some(unsafe { SkBuff::from_raw(skb) })
    }

    /// Moves all packets of `other` to the end.
    #[inline]
    pub fn append(&mut self, other: &mut Self) {
        let other = ManuallyDrop::new(mem::take(other));
        if other.head.is_null() {
            return;
        }
        if self.tail.is_null() {
            self.head = other.head;
        } else {
            // SAFETY: The packets of the list are valid and ours by the type invariant.
            unsafe { *next_of(self.tail) = other.head };
        }
        self.tail = other.tail;
        self.len = self.len.wrapping_add(other.len);
    }

    /// Splits off the first `count` packets, or all if there are fewer.
    pub fn split_front(&mut self, count: usize) -> Self {
        if count >= self.len {
            return mem::take(self);
        }
        let mut front = Self::new();
        if count == 0 {
            return front;
        }
        let mut last = self.head;
        for _ in 1..count {
            // SAFETY: There are `len` valid packets by the type invariant, more than `count`.
            last = unsafe { *next_of(last) };
        }
        front.head = self.head;
        front.tail = last;
        front.len = count;
        // SAFETY: `last` is one of the valid packets of the list, which are ours.
        unsafe {
            self.head = *next_of(last);
            *next_of(last) = ptr::null_mut();
        }
        self.len = self.len.wrapping_sub(count);
        front
    }

    /// Keeps the packets of which `fate` says so.
    pub fn retain_mut(&mut self, mut fate: impl FnMut(&mut Skb) -> Fate) {
        let mut all = mem::take(self);
        while let Some(mut skb) = all.pop_front() {
            match fate(&mut skb) {
                Fate::Keep => self.push_back(skb),
                Fate::Consume => skb.consume(),
                Fate::Drop(reason) => skb.discard(reason),
            }
        }
    }

    /// The packets in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            next: self.head,
            _list: PhantomData,
        }
    }

    /// The packets in order, to be changed.
    #[inline]
    pub fn iter_mut(&mut self) -> IterMut<'_> {
        IterMut {
            next: self.head,
            _list: PhantomData,
        }
    }
}

impl From<SkBuff> for SkbList {
    #[inline]
    fn from(skb: SkBuff) -> Self {
        let skb = skb.into_raw();
        // INVARIANT: `next` is null by the invariant of `SkBuff`.
        Self {
            head: skb,
            tail: skb,
            len: 1,
        }
    }
}

impl Default for SkbList {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SkbList {
    fn drop(&mut self) {
        while self.pop_front().is_some() {}
    }
}

/// Iterator of [`SkbList::iter`].
pub struct Iter<'a> {
    next: *mut bindings::sk_buff,
    _list: PhantomData<&'a SkbList>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Skb;

    #[inline]
    fn next(&mut self) -> Option<&'a Skb> {
        let skb = NonNull::new(self.next)?.as_ptr();
        // SAFETY: A packet of the list, which is borrowed for `'a`.
        unsafe {
            self.next = *next_of(skb);
            Some(&*Skb::cast(skb))
        }
    }
}

/// Iterator of [`SkbList::iter_mut`].
pub struct IterMut<'a> {
    next: *mut bindings::sk_buff,
    _list: PhantomData<&'a mut SkbList>,
}

impl<'a> Iterator for IterMut<'a> {
    type Item = &'a mut Skb;

    #[inline]
    fn next(&mut self) -> Option<&'a mut Skb> {
        let skb = NonNull::new(self.next)?.as_ptr();
        // SAFETY: A packet of the list, which is borrowed exclusively for `'a`; each is handed out
        // once.
        unsafe {
            self.next = *next_of(skb);
            Some(&mut *Skb::cast(skb))
        }
    }
}

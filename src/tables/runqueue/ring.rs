// SPDX-License-Identifier: GPL-2.0-only

//! What waits for the workers of a device, and which of them sleep.
//!
//! A worker is woken only when more waits than the workers that are awake, and have nothing in
//! hand, will look at: both are known under the same lock, so no wake-up is lost.

use crate::kapi::alloc::{AllocError, Flags, KVVec};

/// The CPUs there are; hints, as they come and go.
pub trait Cpus {
    /// This one.
    fn current(&self) -> u32;

    /// How many are online; at least one.
    fn online(&self) -> u32;

    /// The next online CPU after `after`, wrapping around after the last.
    fn next_online(&self, after: u32) -> u32;
}

/// What a worker is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worker {
    /// It has to be woken.
    Asleep,
    /// It was woken, or has ended its turn, and will call [`Ring::take`].
    Coming,
    /// It has an item in hand, and will call [`Ring::take`] or [`Ring::end_turn`] after it.
    Busy,
}

/// A ring buffer of what waits for a worker, oldest first.
pub struct Ring<T> {
    slots: KVVec<Option<T>>,
    /// Free-running positions; their difference is the number of items.
    pub(super) head: usize,
    pub(super) tail: usize,
    /// By number. Numbers are those of the CPUs that the workers are meant for.
    workers: KVVec<Worker>,
    /// How many of them are [`Worker::Coming`], and how many [`Worker::Asleep`].
    coming: usize,
    asleep: usize,
    /// Nothing is taken in any more.
    closed: bool,
}

impl<T> Ring<T> {
    /// A ring for `capacity` items, a power of two, and as many workers, all asleep.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new(capacity: usize, workers: u32, flags: Flags) -> Result<Self, AllocError> {
        let mut slots = KVVec::with_capacity(capacity, flags)?;
        for _ in 0..capacity {
            slots.push_within_capacity(None).map_err(|_| AllocError)?;
        }
        let count = workers as usize;
        let mut workers = KVVec::with_capacity(count, flags)?;
        for _ in 0..count {
            workers
                .push_within_capacity(Worker::Asleep)
                .map_err(|_| AllocError)?;
        }
        Ok(Self {
            slots,
            head: 0,
            tail: 0,
            workers,
            coming: 0,
            asleep: count,
            closed: false,
        })
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes nothing in any more.
    pub fn close(&mut self) {
        self.closed = true;
    }

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// Adds an item, or gives it back if the ring is full or closed.
    pub(super) fn push(&mut self, item: T) -> Result<(), T> {
        if self.closed || self.len() >= self.slots.len() {
            return Err(item);
        }
        let place = self.tail & self.mask();
        match self.slots.get_mut(place) {
            Some(slot) => *slot = Some(item),
            None => return Err(item),
        }
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let place = self.head & self.mask();
        let item = self.slots.get_mut(place).and_then(Option::take);
        self.head = self.head.wrapping_add(1);
        item
    }

    fn set(&mut self, number: u32, now: Worker) {
        let Some(worker) = self.workers.get_mut(number as usize) else {
            return;
        };
        let before = core::mem::replace(worker, now);
        for (kind, count) in [
            (Worker::Coming, &mut self.coming),
            (Worker::Asleep, &mut self.asleep),
        ] {
            if before == kind {
                *count = count.wrapping_sub(1);
            }
            if now == kind {
                *count = count.wrapping_add(1);
            }
        }
    }

    /// Chooses a worker to be woken for what waits, if one is needed and sleeps: that of the next
    /// online CPU, and of the CPU that the item comes from as the last choice.
    pub(super) fn wake(&mut self, cpus: &impl Cpus) -> Option<u32> {
        let awake = self.workers.len().saturating_sub(self.asleep);
        if self.coming >= self.len() || awake >= cpus.online() as usize && awake != 0 {
            return None;
        }
        let mut number = cpus.current();
        for _ in 0..cpus.online() {
            number = cpus.next_online(number);
            if self.is_asleep(number) {
                self.set(number, Worker::Coming);
                return Some(number);
            }
        }
        None
    }

    fn is_asleep(&self, number: u32) -> bool {
        self.workers.get(number as usize) == Some(&Worker::Asleep)
    }

    /// The next item for worker `number`; without one it sleeps.
    pub(super) fn take(&mut self, number: u32) -> Option<T> {
        let item = self.pop();
        let now = if item.is_some() {
            Worker::Busy
        } else {
            Worker::Asleep
        };
        self.set(number, now);
        item
    }

    /// Worker `number` has used up its turn. True if it must come again, since something waits;
    /// else it sleeps.
    pub(super) fn end_turn(&mut self, number: u32) -> bool {
        let more = !self.is_empty();
        let now = if more { Worker::Coming } else { Worker::Asleep };
        self.set(number, now);
        more
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The queues that runs travel through.
//!
//! A [`Run`] is put on two queues at once: a [`Fifo`], which keeps the order of one peer's packets
//! in one direction, and a [`Ring`], from which all workers take whatever comes next. A run leaves
//! its FIFO when it has been worked on *and* all runs before it have left.
//!
//! A FIFO has one consumer at a time, whoever finds it idle and its head finished. That may be a
//! worker that has just finished a run, or a context that handles packets inline, with a
//! [`Claim`]; both hold the FIFO's `busy` mark meanwhile, so packets never overtake each other.
//! Who ends a run while the FIFO is busy may leave it there: who clears the mark looks again.

mod budget;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod loom_models;
#[cfg(test)]
mod tests;

use core::mem;

pub use self::budget::InlineBudget;
use crate::{
    kapi::{
        alloc::{AllocError, Flags, KVVec},
        sync::{spinlock_bh::SpinLockBh, Arc},
    },
    proto::consts::MAX_QUEUED_PACKETS,
};

/// A queued run takes no more packets when it has this many, so that several CPUs share a bulk
/// transfer.
const MAX_SHARED_RUN: usize = 32;

/// A list of packets.
pub trait Packets: Default + Send + Unpin {
    /// How many there are.
    fn count(&self) -> usize;

    /// Moves all of `other` to the end.
    fn append(&mut self, other: Self);
}

/// Packets that are worked on together.
pub trait Run: Sized {
    /// The packets.
    type Packets: Packets;

    /// The packets' place and the run's state. Taken inside the FIFO's lock, never around it.
    fn body(&self) -> &SpinLockBh<Body<Self>>;

    /// The FIFO of the run.
    fn fifo(&self) -> &SpinLockBh<Fifo<Self>>;

    /// Works on the packets: on whatever worker, in no order.
    fn work(&self, packets: &mut Self::Packets);

    /// Takes the packets when they have been worked on: run by run in the FIFO's order, by one
    /// caller at a time.
    fn deliver(&self, packets: Self::Packets);
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the queues; it still takes packets.
    Open,
    /// A worker has it.
    Claimed,
    /// Worked on; `packets` holds what is left of it, in order.
    Done,
}

/// What a run's lock guards.
pub struct Body<R: Run> {
    packets: R::Packets,
    /// Packets put in so far; what the run counts for in its FIFO.
    queued: usize,
    state: State,
    /// The next run of the same FIFO; written and read under the FIFO's lock only.
    next: Option<Arc<R>>,
}

impl<R: Run> Body<R> {
    /// The body of a run that is about to be queued.
    pub fn new(packets: R::Packets) -> Self {
        Self {
            queued: packets.count(),
            packets,
            state: State::Open,
            next: None,
        }
    }
}

/// Works on a run and delivers what is ready.
fn work<R: Run>(run: &R) {
    let mut packets = {
        let mut body = run.body().lock();
        body.state = State::Claimed;
        mem::take(&mut body.packets)
    };
    run.work(&mut packets);
    finish(run, packets);
}

/// Ends a run with what is left of it, and delivers what is ready.
fn finish<R: Run>(run: &R, packets: R::Packets) {
    let dropped = {
        let mut body = run.body().lock();
        body.state = State::Done;
        mem::replace(&mut body.packets, packets)
    };
    drop(dropped);
    let done = run.fifo().lock().pop_done();
    deliver(run.fifo(), done);
}

/// Delivers runs that [`Fifo::pop_done`] or [`Fifo::release`] gave out, until no other is ready.
fn deliver<R: Run>(fifo: &SpinLockBh<Fifo<R>>, mut done: Option<(Arc<R>, R::Packets)>) {
    while let Some((run, packets)) = done {
        run.deliver(packets);
        done = fifo.lock().release();
    }
}

/// A peer's runs in order, one such queue per direction.
pub struct Fifo<R: Run> {
    head: Option<Arc<R>>,
    tail: Option<Arc<R>>,
    /// Packets in all queued runs.
    packets: usize,
    /// Somebody is consuming.
    busy: bool,
}

impl<R: Run> Fifo<R> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            head: None,
            tail: None,
            packets: 0,
            busy: false,
        }
    }

    /// Takes the head and the mark of the one consumer, if the head is finished and nobody has the
    /// mark.
    fn pop_done(&mut self) -> Option<(Arc<R>, R::Packets)> {
        if self.busy {
            return None;
        }
        let head = self.head.as_ref()?;
        let (packets, queued, next) = {
            let mut body = head.body().lock();
            if body.state != State::Done {
                return None;
            }
            (mem::take(&mut body.packets), body.queued, body.next.take())
        };
        let head = mem::replace(&mut self.head, next)?;
        if self.head.is_none() {
            self.tail = None;
        }
        self.packets = self.packets.saturating_sub(queued);
        self.busy = true;
        Some((head, packets))
    }

    /// Gives the mark of the one consumer back, or keeps it for what has become ready meanwhile.
    #[inline]
    fn release(&mut self) -> Option<(Arc<R>, R::Packets)> {
        self.busy = false;
        // After inline work there is rarely anything.
        self.head.as_ref()?;
        self.pop_done()
    }

    fn push(&mut self, run: Arc<R>) {
        self.packets = self.packets.saturating_add(run.body().lock().queued);
        match self.tail.replace(run.clone()) {
            Some(last) => last.body().lock().next = Some(run),
            None => self.head = Some(run),
        }
    }

    /// Adds packets to the last run, if `joins` and no worker has it yet.
    fn extend_last(
        &mut self,
        packets: R::Packets,
        joins: impl FnOnce(&R) -> bool,
    ) -> Result<(), R::Packets> {
        let Some(last) = self.tail.as_ref().filter(|last| joins(last)) else {
            return Err(packets);
        };
        let count = packets.count();
        let mut body = last.body().lock();
        if body.state != State::Open || body.packets.count().saturating_add(count) > MAX_SHARED_RUN
        {
            return Err(packets);
        }
        body.queued = body.queued.saturating_add(count);
        self.packets = self.packets.saturating_add(count);
        body.packets.append(packets);
        Ok(())
    }
}

impl<R: Run> Default for Fifo<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts packets at the end of a FIFO: into the last run if it still takes packets and `joins`, or
/// else into a run of their own, made by `make`, which the caller has to [`submit`]. Frees them when
/// there is no room, and when `make` fails.
pub fn add<R: Run>(
    fifo: &SpinLockBh<Fifo<R>>,
    packets: R::Packets,
    joins: impl FnOnce(&R) -> bool,
    make: impl FnOnce(R::Packets) -> Option<Arc<R>>,
) -> Option<Arc<R>> {
    let mut queue = fifo.lock();
    if queue.packets >= MAX_QUEUED_PACKETS {
        return None;
    }
    let packets = queue.extend_last(packets, joins).err()?;
    let run = make(packets)?;
    queue.push(run.clone());
    Some(run)
}

impl<R: Run> Drop for Fifo<R> {
    fn drop(&mut self) {
        // One by one: dropping the head alone would recurse down the chain.
        let mut next = self.head.take();
        while let Some(run) = next {
            next = run.body().lock().next.take();
        }
    }
}

/// The right to deliver packets past the queues, for as long as the value lives.
#[must_use = "without it others may deliver at the same time"]
pub struct Claim<'a, R: Run>(&'a SpinLockBh<Fifo<R>>);

impl<'a, R: Run> Claim<'a, R> {
    /// Takes a FIFO for inline work, if nothing is queued and nobody is consuming.
    #[inline]
    pub fn idle(fifo: &'a SpinLockBh<Fifo<R>>) -> Option<Self> {
        let mut queue = fifo.lock();
        if queue.busy || queue.head.is_some() {
            return None;
        }
        queue.busy = true;
        drop(queue);
        Some(Self(fifo))
    }
}

impl<R: Run> Drop for Claim<'_, R> {
    /// Lets others deliver again, after what has become ready meanwhile.
    #[inline]
    fn drop(&mut self) {
        let done = self.0.lock().release();
        deliver(self.0, done);
    }
}

/// What waits for a worker, oldest first.
pub struct Ring<T> {
    slots: KVVec<Option<T>>,
    /// Free-running positions; their difference is the number of those that wait.
    head: usize,
    tail: usize,
}

impl<T> Ring<T> {
    /// A ring with room for `capacity`, a power of two.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut slots = KVVec::with_capacity(capacity, flags)?;
        for _ in 0..capacity {
            slots.push_within_capacity(None).map_err(|_| AllocError)?;
        }
        Ok(Self {
            slots,
            head: 0,
            tail: 0,
        })
    }

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    fn push(&mut self, item: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head) >= self.slots.len() {
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

    fn pop(&mut self) -> Option<T> {
        if self.head == self.tail {
            return None;
        }
        let place = self.head & self.mask();
        let item = self.slots.get_mut(place).and_then(Option::take);
        self.head = self.head.wrapping_add(1);
        item
    }
}

/// Puts a run that [`add`] made where workers find it, and has a worker woken. Without room
/// the run is given up: its packets are freed, its place in the FIFO passes on.
pub fn submit<R: Run>(ring: &SpinLockBh<Ring<Arc<R>>>, run: Arc<R>, wake: impl FnOnce()) {
    let pushed = ring.lock().push(run);
    match pushed {
        Ok(()) => wake(),
        Err(run) => finish(&*run, R::Packets::default()),
    }
}

/// What a worker does once woken: works on all that waits. It must have been woken anew when
/// something comes in after it has begun; a worker that is awake in vain does no harm. `pause` is
/// called after each run.
pub fn work_off<R: Run>(ring: &SpinLockBh<Ring<Arc<R>>>, pause: impl Fn()) {
    loop {
        let next = ring.lock().pop();
        let Some(run) = next else { return };
        work(&*run);
        pause();
    }
}

/// Waits until all that was submitted before has been worked on, although others go on submitting.
/// `pass` waits for every worker that was woken before it is called.
///
/// One pass is not enough: the worker that a run has woken may find that another, woken by others
/// during the pass, has taken the run. But by the end of a pass somebody has.
pub fn flush(pass: impl Fn()) {
    pass();
    pass();
}

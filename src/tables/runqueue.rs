// SPDX-License-Identifier: GPL-2.0-only

//! The queues that runs travel through.
//!
//! A [`Run`] is on two queues at once: a [`Fifo`], which keeps the order of one peer's packets in
//! one direction, and a [`Ring`], from which all workers take the next run. A run leaves its FIFO
//! when it has been worked on *and* all runs before it have left.
//!
//! A FIFO has one consumer at a time: a worker that has just finished a run and finds the FIFO idle
//! with its head finished, or a context that handles packets inline, with a [`Claim`]. Both hold
//! the FIFO's `busy` mark meanwhile, so packets never overtake each other. A run that is finished
//! while the FIFO is busy stays queued; the consumer rechecks when it clears `busy`. Where runs
//! must leave on one CPU, its [`Home`], consumers on others leave them to [`resume`] there.
//!
//! Nobody works without end, whatever others add: a worker takes runs of [`TURN_PACKETS`] off the
//! ring before it lets other work queued on its CPU run, and a consumer delivers as many before it
//! clears the mark and leaves the rest to [`resume`].

mod budget;
#[cfg(test)]
mod harness;
mod home;
#[cfg(test)]
mod loom_models;
mod ring;
#[cfg(test)]
mod tests;

use core::mem;

pub use self::{
    budget::InlineBudget,
    home::{Caller, Home},
    ring::{Cpus, Ring},
};
use crate::kapi::sync::{spinlock_bh::SpinLockBh, Arc};

/// A queued run accepts no more packets than this, so that several CPUs share a bulk transfer.
const MAX_SHARED_RUN: usize = 64;

/// Packets that a worker works on in one turn, and that a consumer delivers in one; the run that
/// reaches the number is still whole. (Loom's models need turns that end.)
pub const TURN_PACKETS: usize = if cfg!(loom) { 1 } else { 64 };

/// A list of packets.
pub trait Packets: Default + Send + Unpin {
    /// The number of packets.
    fn count(&self) -> usize;

    /// Appends all of `other`.
    fn append(&mut self, other: Self);
}

/// Packets that are processed together.
pub trait Run: Sized {
    /// The packets.
    type Packets: Packets;

    /// The packets and the run's state. Nests inside the FIFO's lock, never around it.
    fn body(&self) -> &SpinLockBh<Body<Self>>;

    /// The FIFO of the run.
    fn fifo(&self) -> &SpinLockBh<Fifo<Self>>;

    /// Processes the packets: on any worker, in any order.
    fn work(&self, packets: &mut Self::Packets);

    /// Takes the packets when they have been processed: run by run in the FIFO's order, one call at
    /// a time.
    fn deliver(&self, packets: Self::Packets);

    /// Takes packets that nobody will process: there was no room, or the queue is being emptied.
    fn lose(&self, packets: Self::Packets);

    /// Who asks, if all runs of the FIFO must be delivered on one CPU.
    fn caller(&self) -> Option<Caller>;

    /// Has a worker call [`resume`] for the run's FIFO: on this CPU, as there is more to deliver
    /// than one turn's share, or on another. False if there are no workers any more.
    fn defer(&self, cpu: Option<u32>) -> bool;
}

/// The state of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the queues; still accepts packets.
    Open,
    /// Taken by a worker.
    Claimed,
    /// Processed; `packets` holds what is left, in order.
    Done,
}

/// What a run's lock protects.
pub struct Body<R: Run> {
    packets: R::Packets,
    /// Packets added so far: the run's share of its FIFO's count.
    queued: usize,
    state: State,
    /// The next run of the same FIFO; protected by the FIFO's lock.
    next: Option<Arc<R>>,
}

impl<R: Run> Body<R> {
    /// The body of a run of `count` packets that is about to be queued.
    pub fn new(packets: R::Packets, count: usize) -> Self {
        Self {
            queued: count,
            packets,
            state: State::Open,
            next: None,
        }
    }
}

/// Processes a run and delivers what is ready. Gives the number of packets in the run.
fn work<R: Run>(run: &R) -> usize {
    let (mut packets, count) = {
        let mut body = run.body().lock();
        body.state = State::Claimed;
        (mem::take(&mut body.packets), body.queued)
    };
    run.work(&mut packets);
    // The worker took all that the run had.
    let _ = finish(run, packets);
    deliver_ready(run);
    count
}

/// Finishes a run with what is left of it. Gives what nobody has taken out of it.
fn finish<R: Run>(run: &R, packets: R::Packets) -> R::Packets {
    let mut body = run.body().lock();
    body.state = State::Done;
    mem::replace(&mut body.packets, packets)
}

/// Finishes a run that nobody has worked on, and delivers what waited behind it.
fn give_up_run<R: Run>(run: &R) {
    run.lose(finish(run, R::Packets::default()));
    deliver_ready(run);
}

fn deliver_ready<R: Run>(run: &R) {
    let next = run.fifo().lock().pop_done(false);
    drain_done(run.fifo(), next);
}

/// What a consumer finds.
enum Next<R: Run> {
    /// Nothing that is ready.
    Nothing,
    /// A run to deliver, which makes it the consumer.
    Head(Arc<R>, R::Packets),
    /// A run to deliver on another CPU.
    Elsewhere(Arc<R>, u32),
}

/// Delivers runs that [`Fifo::pop_done`] or [`Fifo::release`] gave out, until no other is ready or
/// this turn's share is used up; all of them, and here, if there are no workers any more.
fn drain_done<R: Run>(fifo: &SpinLockBh<Fifo<R>>, mut next: Next<R>) {
    let mut left = TURN_PACKETS;
    loop {
        let (run, packets) = match next {
            Next::Nothing => return,
            Next::Head(run, packets) => (run, packets),
            Next::Elsewhere(run, cpu) => {
                if run.defer(Some(cpu)) {
                    return;
                }
                next = fifo.lock().pop_done(true);
                continue;
            }
        };
        // A run that is empty by now is work, too.
        left = left.saturating_sub(packets.count().max(1));
        run.deliver(packets);
        if left != 0 {
            next = fifo.lock().release();
            continue;
        }
        let more = fifo.lock().end_turn();
        if !more || run.defer(None) {
            return;
        }
        left = TURN_PACKETS;
        next = fifo.lock().pop_done(true);
    }
}

/// Goes on delivering where a consumer has ended its turn.
pub fn resume<R: Run>(fifo: &SpinLockBh<Fifo<R>>) {
    let next = fifo.lock().pop_done(false);
    drain_done(fifo, next);
}

/// A peer's runs in order, one such queue per direction.
pub struct Fifo<R: Run> {
    head: Option<Arc<R>>,
    tail: Option<Arc<R>>,
    /// Packets in all queued runs.
    packets: usize,
    /// There is a consumer.
    busy: bool,
    home: Home,
}

impl<R: Run> Fifo<R> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            head: None,
            tail: None,
            packets: 0,
            busy: false,
            home: Home::NONE,
        }
    }

    /// Takes the head and becomes the consumer, if the head is finished, there is no consumer, and
    /// the head may leave on this CPU, or `anywhere`.
    fn pop_done(&mut self, anywhere: bool) -> Next<R> {
        let Some(head) = self.head.as_ref().filter(|_| !self.busy) else {
            return Next::Nothing;
        };
        let (packets, queued, next) = {
            let mut body = head.body().lock();
            if body.state != State::Done {
                return Next::Nothing;
            }
            let caller = head.caller().filter(|_| !anywhere);
            if let Some(Err(cpu)) = caller.map(|caller| self.home.enter(caller)) {
                return Next::Elsewhere(head.clone(), cpu);
            }
            (mem::take(&mut body.packets), body.queued, body.next.take())
        };
        let Some(head) = mem::replace(&mut self.head, next) else {
            return Next::Nothing;
        };
        if self.head.is_none() {
            self.tail = None;
        }
        self.packets = self.packets.saturating_sub(queued);
        self.busy = true;
        Next::Head(head, packets)
    }

    /// Stops being the consumer, or takes the next run if one has become ready meanwhile.
    #[inline]
    fn release(&mut self) -> Next<R> {
        self.busy = false;
        // After inline work there rarely is one.
        if self.head.is_none() {
            return Next::Nothing;
        }
        self.pop_done(false)
    }

    /// Clears the mark at the end of a turn. True if there is something to deliver: whoever is told
    /// so sees to it that somebody does.
    fn end_turn(&mut self) -> bool {
        self.busy = false;
        self.head
            .as_ref()
            .is_some_and(|head| head.body().lock().state == State::Done)
    }

    fn push(&mut self, run: Arc<R>) {
        self.packets = self.packets.saturating_add(run.body().lock().queued);
        match self.tail.replace(run.clone()) {
            Some(last) => last.body().lock().next = Some(run),
            None => self.head = Some(run),
        }
    }

    /// Adds packets to the last run, if `joins` accepts it and no worker has taken it.
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
        if body.state != State::Open || body.queued.saturating_add(count) > MAX_SHARED_RUN {
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

/// Adds packets to the end of a FIFO: to the last run if it still accepts packets and `joins`
/// accepts it, or else as a run of their own, created by `make`, which the caller has to
/// [`submit`]. `make` sees to them if it fails.
///
/// # Errors
///
/// Gives the packets back if `limit` are queued already.
pub fn add<R: Run>(
    fifo: &SpinLockBh<Fifo<R>>,
    limit: usize,
    packets: R::Packets,
    joins: impl FnOnce(&R) -> bool,
    make: impl FnOnce(R::Packets) -> Option<Arc<R>>,
) -> Result<Option<Arc<R>>, R::Packets> {
    let mut queue = fifo.lock();
    if queue.packets >= limit {
        return Err(packets);
    }
    let run = queue.extend_last(packets, joins).err().and_then(make);
    if let Some(run) = &run {
        queue.push(run.clone());
    }
    Ok(run)
}

impl<R: Run> Drop for Fifo<R> {
    fn drop(&mut self) {
        // One by one: dropping just the head would recurse down the chain.
        let mut next = self.head.take();
        while let Some(run) = next {
            next = run.body().lock().next.take();
        }
    }
}

/// The right to bypass the queues, for as long as the value lives.
#[must_use = "without it others may deliver at the same time"]
pub struct Claim<'a, R: Run>(&'a SpinLockBh<Fifo<R>>);

impl<'a, R: Run> Claim<'a, R> {
    /// Claims a FIFO for inline work, if nothing is queued, there is no consumer, and packets may
    /// leave where the caller is ([`Run::caller`]).
    #[inline]
    pub fn idle(fifo: &'a SpinLockBh<Fifo<R>>, caller: Option<Caller>) -> Option<Self> {
        let mut queue = fifo.lock();
        if queue.busy || queue.head.is_some() {
            return None;
        }
        if let Some(caller) = caller {
            queue.home.enter(caller).ok()?;
        }
        queue.busy = true;
        drop(queue);
        Some(Self(fifo))
    }
}

impl<R: Run> Drop for Claim<'_, R> {
    /// Delivers what has become ready meanwhile, then lets others deliver again.
    #[inline]
    fn drop(&mut self) {
        let next = self.0.lock().release();
        drain_done(self.0, next);
    }
}

/// Queues a run that [`add`] created for the workers. If none is about to look at the ring anyway,
/// `wake` must have the one with the number that it is told run [`work_off`]. Without room the run
/// is finished without packets, which are lost, and the FIFO moves on.
pub fn submit<R: Run>(
    ring: &SpinLockBh<Ring<Arc<R>>>,
    run: Arc<R>,
    cpus: &impl Cpus,
    wake: impl FnOnce(u32),
) {
    let pushed = {
        let mut ring = ring.lock();
        ring.push(run).map(|()| ring.wake(cpus))
    };
    match pushed {
        Ok(Some(worker)) => wake(worker),
        Ok(None) => {}
        Err(run) => give_up_run(&*run),
    }
}

/// One turn of a worker that has been woken: works on runs that wait, until they had
/// [`TURN_PACKETS`] packets. True if something is left for another turn, which the caller must see
/// to; else the worker sleeps.
/// `pause` is called after each run.
#[must_use]
pub fn work_off<R: Run>(ring: &SpinLockBh<Ring<Arc<R>>>, worker: u32, pause: impl Fn()) -> bool {
    let mut left = TURN_PACKETS;
    while left > 0 {
        let next = ring.lock().take(worker);
        let Some(run) = next else { return false };
        left = left.saturating_sub(work(&*run).max(1));
        pause();
    }
    ring.lock().end_turn(worker)
}

/// Gives up the runs that wait: their packets are lost, and what waited behind them is delivered.
/// Ends although others go on submitting.
pub fn give_up<R: Run>(ring: &SpinLockBh<Ring<Arc<R>>>) {
    let waiting = ring.lock().len();
    for _ in 0..waiting {
        let next = ring.lock().pop();
        let Some(run) = next else { return };
        give_up_run(&*run);
    }
}

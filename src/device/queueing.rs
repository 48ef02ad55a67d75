// SPDX-License-Identifier: GPL-2.0

//! Runs and the queues they travel through.
//!
//! A *run* is a list of packets of one peer under one keypair: the unit of work of the data path.
//! Bulk runs are put on two queues at once: the peer's [`Fifo`], which keeps the order, and the
//! module's [`CryptQueue`], from which the workers of all CPUs take whatever comes next. A run leaves
//! its FIFO when it has been worked on *and* all runs before it have left.
//!
//! A FIFO has one consumer at a time, whoever finds it idle and its head finished. That may be a
//! worker that has just finished a run, or a context that handles a short run inline; both hold the
//! FIFO's `busy` mark meanwhile, so packets of one peer never overtake each other.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kernel::{
    alloc::flags::{GFP_ATOMIC, GFP_KERNEL},
    prelude::*,
    sync::Arc,
};

use crate::{
    device::{keypairs::Keypair, peer::Peer, receive, send},
    impl_has_work,
    kapi::{
        cpu,
        net::skbuff::SkbList,
        sync::{rcu::RcuArc, spinlock_bh::SpinLockBh},
        time,
        workqueue::{Work, WorkItem, Workqueue},
    },
    new_spinlock_bh, new_work,
    proto::consts::MAX_QUEUED_PACKETS,
};

/// A run of at most this many packets is encrypted where it comes from, within the
/// [`InlineBudget`] and if nothing is queued before it.
pub(crate) const INLINE_PACKETS: usize = 2;
/// Runs that an [`InlineBudget`] allows in each jiffy.
const INLINE_RUNS: u32 = 4;
/// Runs that may wait for a worker, over all peers; more are dropped. A power of two.
const MAX_QUEUED_RUNS: usize = 4096;
/// A queued run takes no more packets when it has this many, so that several CPUs share a bulk
/// transfer.
const MAX_SHARED_RUN: usize = 32;

/// What a worker has to do with a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
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

struct Body {
    packets: SkbList,
    /// Packets put in so far; what the run counts for in its FIFO.
    queued: usize,
    state: State,
    /// The next run of the same FIFO; written and read under the FIFO's lock only.
    next: Option<Arc<Run>>,
}

/// Packets of one peer that are encrypted or decrypted together.
#[pin_data]
pub(crate) struct Run {
    peer: RcuArc<Peer>,
    keypair: RcuArc<Keypair>,
    direction: Direction,
    /// Guards the packets and the state. Taken inside a FIFO's lock, never around one.
    #[pin]
    body: SpinLockBh<Body>,
}

impl Run {
    fn new(
        peer: RcuArc<Peer>,
        keypair: RcuArc<Keypair>,
        direction: Direction,
        packets: SkbList,
    ) -> Result<Arc<Self>> {
        let queued = packets.len();
        Arc::pin_init(
            pin_init!(Self {
                peer,
                keypair,
                direction,
                body <- new_spinlock_bh!(Body { packets, queued, state: State::Open, next: None }),
            }),
            GFP_ATOMIC,
        )
    }

    /// Encrypts or decrypts the run and hands on what is ready. Process context.
    fn work(&self) {
        let mut packets = {
            let mut body = self.body.lock();
            body.state = State::Claimed;
            core::mem::replace(&mut body.packets, SkbList::new())
        };
        match self.direction {
            Direction::Encrypt => send::encrypt(&self.keypair, &mut packets),
            Direction::Decrypt => receive::decrypt(&self.keypair, &mut packets),
        }
        {
            let mut body = self.body.lock();
            body.packets = packets;
            body.state = State::Done;
        }
        self.drain();
    }

    fn drain(&self) {
        match self.direction {
            Direction::Encrypt => send::drain(&self.peer),
            Direction::Decrypt => receive::drain(&self.peer),
        }
    }

    /// Gives the run up: its packets are freed, its place in the FIFO passes on.
    fn kill(&self) {
        let dropped = {
            let mut body = self.body.lock();
            body.state = State::Done;
            core::mem::replace(&mut body.packets, SkbList::new())
        };
        drop(dropped);
        self.drain();
    }

    pub(crate) fn keypair(&self) -> &RcuArc<Keypair> {
        &self.keypair
    }
}

/// A peer's runs in order, one such queue per direction. Lives in a [`SpinLockBh`].
pub(crate) struct Fifo {
    head: Option<Arc<Run>>,
    tail: Option<Arc<Run>>,
    /// Packets in all queued runs.
    packets: usize,
    /// Somebody is consuming.
    busy: bool,
}

impl Fifo {
    pub(crate) const fn new() -> Self {
        Self {
            head: None,
            tail: None,
            packets: 0,
            busy: false,
        }
    }

    /// Takes the FIFO for inline work, if nothing is queued and nobody is consuming. Ends with
    /// [`Fifo::release`].
    pub(crate) fn try_claim_idle(&mut self) -> bool {
        let idle = self.head.is_none() && !self.busy;
        if idle {
            self.busy = true;
        }
        idle
    }

    /// Ends the consumption that [`Fifo::try_claim_idle`] or [`Fifo::pop_done`] began. True when
    /// something may have become ready meanwhile.
    pub(crate) fn release(&mut self) -> bool {
        self.busy = false;
        self.head.is_some()
    }

    /// Takes the head, if it is finished and nobody else is consuming.
    pub(crate) fn pop_done(&mut self) -> Option<(Arc<Run>, SkbList)> {
        if self.busy {
            return None;
        }
        let head = self.head.as_ref()?;
        let (packets, queued, next) = {
            let mut body = head.body.lock();
            if body.state != State::Done {
                return None;
            }
            let packets = core::mem::replace(&mut body.packets, SkbList::new());
            (packets, body.queued, body.next.take())
        };
        let head = core::mem::replace(&mut self.head, next)?;
        if self.head.is_none() {
            self.tail = None;
        }
        self.packets = self.packets.saturating_sub(queued);
        self.busy = true;
        Some((head, packets))
    }

    fn has_room(&self) -> bool {
        self.packets < MAX_QUEUED_PACKETS
    }

    fn push(&mut self, run: Arc<Run>) {
        self.packets = self.packets.saturating_add(run.body.lock().queued);
        match self.tail.replace(run.clone()) {
            Some(last) => last.body.lock().next = Some(run),
            None => self.head = Some(run),
        }
    }

    /// Adds packets to the last run, if no worker has it yet and it is of the same keypair.
    fn extend_last(
        &mut self,
        keypair: &RcuArc<Keypair>,
        mut packets: SkbList,
    ) -> Result<(), SkbList> {
        let Some(last) = self.tail.as_ref() else {
            return Err(packets);
        };
        if !RcuArc::ptr_eq(&last.keypair, keypair) {
            return Err(packets);
        }
        let mut body = last.body.lock();
        let together = body.packets.len().saturating_add(packets.len());
        if body.state != State::Open || together > MAX_SHARED_RUN {
            return Err(packets);
        }
        body.queued = body.queued.saturating_add(packets.len());
        self.packets = self.packets.saturating_add(packets.len());
        body.packets.append(&mut packets);
        Ok(())
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // One by one: dropping the head alone would recurse down the chain.
        let mut next = self.head.take();
        while let Some(run) = next {
            next = run.body.lock().next.take();
        }
    }
}

/// Puts packets on the queues, in a run that already waits there or in one of their own. Frees
/// them when there is no room.
pub(crate) fn enqueue(
    peer: &RcuArc<Peer>,
    keypair: RcuArc<Keypair>,
    direction: Direction,
    packets: SkbList,
) {
    let run = {
        let mut fifo = match direction {
            Direction::Encrypt => peer.tx.lock(),
            Direction::Decrypt => peer.rx.lock(),
        };
        if !fifo.has_room() {
            return;
        }
        let packets = match fifo.extend_last(&keypair, packets) {
            Ok(()) => return,
            Err(packets) => packets,
        };
        let Ok(run) = Run::new(peer.clone(), keypair, direction, packets) else {
            return;
        };
        fifo.push(run.clone());
        run
    };
    peer.device().shared().queues.submit(run);
}

/// How many runs of a peer may be worked on right where they come from, which saves the way over
/// a worker. A trickle may, and what answers a packet the other way; of a one-way stream only the
/// first few of each jiffy, the rest goes in longer runs, to all CPUs.
///
/// Kept without a lock: a miscount only means that a packet takes the other way.
pub(crate) struct InlineBudget {
    jiffy: AtomicU32,
    used: AtomicU32,
}

impl InlineBudget {
    pub(crate) const fn new() -> Self {
        Self {
            jiffy: AtomicU32::new(0),
            used: AtomicU32::new(0),
        }
    }

    /// Whether one more run may be worked on inline.
    pub(crate) fn take(&self) -> bool {
        let jiffy = time::jiffies() as u32;
        if self.jiffy.load(Relaxed) != jiffy {
            self.jiffy.store(jiffy, Relaxed);
            self.used.store(1, Relaxed);
            return true;
        }
        let used = self.used.load(Relaxed);
        if used >= INLINE_RUNS {
            return false;
        }
        self.used.store(used.wrapping_add(1), Relaxed);
        true
    }

    /// Something went the other way: what comes now may well be the answer.
    pub(crate) fn renew(&self) {
        if self.used.load(Relaxed) != 0 {
            self.used.store(0, Relaxed);
        }
    }
}

/// The runs that wait for a worker, oldest first. Lives in a [`SpinLockBh`].
struct Ring {
    slots: KVVec<Option<Arc<Run>>>,
    /// Free-running positions; their difference is the number of queued runs.
    head: usize,
    tail: usize,
}

impl Ring {
    fn new() -> Result<Self> {
        let mut slots = KVVec::with_capacity(MAX_QUEUED_RUNS, GFP_KERNEL)?;
        for _ in 0..MAX_QUEUED_RUNS {
            slots.push_within_capacity(None).map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            slots,
            head: 0,
            tail: 0,
        })
    }

    fn push(&mut self, run: Arc<Run>) -> Result<(), Arc<Run>> {
        if self.tail.wrapping_sub(self.head) >= MAX_QUEUED_RUNS {
            return Err(run);
        }
        match self.slots.get_mut(self.tail & (MAX_QUEUED_RUNS - 1)) {
            Some(slot) => *slot = Some(run),
            None => return Err(run),
        }
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    fn pop(&mut self) -> Option<Arc<Run>> {
        if self.head == self.tail {
            return None;
        }
        let run = self
            .slots
            .get_mut(self.head & (MAX_QUEUED_RUNS - 1))
            .and_then(Option::take);
        self.head = self.head.wrapping_add(1);
        run
    }
}

/// The module's queue of runs, shared by the workers of all CPUs.
#[pin_data]
pub(crate) struct CryptQueue {
    #[pin]
    ring: SpinLockBh<Ring>,
}

impl CryptQueue {
    fn pop(&self) -> Option<Arc<Run>> {
        self.ring.lock().pop()
    }
}

/// One CPU's worker.
#[pin_data]
struct CryptWorker {
    queue: Arc<CryptQueue>,
    #[pin]
    work: Work<CryptWorker, 0>,
}

impl_has_work! {
    impl HasWork<Self, 0> for CryptWorker { self.work }
}

impl WorkItem<0> for CryptWorker {
    fn run(this: RcuArc<Self>) {
        while let Some(run) = this.queue.pop() {
            run.work();
            time::cond_resched();
        }
    }
}

/// The module's work queues and crypto workers; devices share them.
///
/// Dropped in process context, when no device is left.
pub(crate) struct Queues {
    /// Received handshake messages: long computations, on the CPU they are put on.
    pub(crate) handshake_rx: Workqueue,
    /// Initiations to be sent, and keys to be erased.
    pub(crate) handshake_tx: Workqueue,
    crypt: Workqueue,
    queue: Arc<CryptQueue>,
    /// One per possible CPU.
    workers: KVVec<RcuArc<CryptWorker>>,
    /// Where the last run was sent; a hint, races are harmless.
    last_cpu: AtomicU32,
}

impl Queues {
    pub(crate) fn new() -> Result<Self> {
        use crate::kapi::workqueue::WqFlags;

        let queue = Arc::pin_init(
            try_pin_init!(CryptQueue {
                ring <- new_spinlock_bh!(Ring::new()?),
            }? Error),
            GFP_KERNEL,
        )?;
        let mut workers = KVVec::with_capacity(cpu::nr_ids() as usize, GFP_KERNEL)?;
        for _ in 0..cpu::nr_ids() {
            let queue = queue.clone();
            let worker = RcuArc::pin_init(
                pin_init!(CryptWorker { queue, work <- new_work!() }),
                GFP_KERNEL,
            )?;
            workers.push_within_capacity(worker).map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            handshake_rx: Workqueue::alloc(
                c"wg-kex-rx",
                WqFlags::CPU_INTENSIVE | WqFlags::FREEZABLE | WqFlags::PERCPU,
            )?,
            handshake_tx: Workqueue::alloc(c"wg-kex-tx", WqFlags::UNBOUND | WqFlags::FREEZABLE)?,
            crypt: Workqueue::alloc(
                c"wg-crypt",
                WqFlags::CPU_INTENSIVE | WqFlags::MEM_RECLAIM | WqFlags::PERCPU,
            )?,
            queue,
            workers,
            last_cpu: AtomicU32::new(0),
        })
    }

    /// Hands a run to the next CPU's worker.
    fn submit(&self, run: Arc<Run>) {
        let submitted = self.queue.ring.lock().push(run);
        if let Err(run) = submitted {
            run.kill();
            return;
        }
        let cpu = cpu::next_online(self.last_cpu.load(Relaxed));
        self.last_cpu.store(cpu, Relaxed);
        if let Some(worker) = self.workers.get(cpu as usize) {
            self.crypt.queue_on(cpu, worker);
        }
    }

    /// Waits until everything queued so far has been worked on. Sleeps.
    pub(crate) fn flush(&self) {
        // Twice: the first pass may queue handshakes, whose keypairs let packets through.
        self.crypt.flush();
        self.handshake_rx.flush();
        self.handshake_tx.flush();
        self.crypt.flush();
    }
}

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
        net::skbuff::{SkBuff, SkbList},
        sync::{rcu::RcuArc, spinlock_bh::SpinLockBh},
        time,
        workqueue::{Work, WorkItem, Workqueue},
    },
    new_spinlock_bh, new_work,
    proto::consts::MAX_QUEUED_PACKETS,
};

/// A run of at most this many packets is encrypted where it comes from, if nothing is queued
/// before it: a worker would cost more than it saves.
pub(crate) const INLINE_PACKETS: usize = 2;
/// So many packets of a peer are decrypted where they arrive in each jiffy; see [`receive`].
pub(crate) const INLINE_RECEIVES: u32 = 4;
/// Runs that may wait for a worker, over all peers; more are dropped. A power of two.
const MAX_QUEUED_RUNS: usize = 4096;
/// A receive run takes no more packets than this, so that several CPUs share a bulk transfer.
const MAX_RECEIVE_RUN: usize = 32;

/// What a worker has to do with a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the queues; a receive run still takes packets.
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

    /// Adds a packet to the last run, if no worker has it yet and it is of the same keypair.
    fn extend_last(&mut self, keypair: &RcuArc<Keypair>, skb: SkBuff) -> Result<(), SkBuff> {
        let Some(last) = self.tail.as_ref() else {
            return Err(skb);
        };
        if !RcuArc::ptr_eq(&last.keypair, keypair) {
            return Err(skb);
        }
        let mut body = last.body.lock();
        if body.state != State::Open || body.packets.len() >= MAX_RECEIVE_RUN {
            return Err(skb);
        }
        body.packets.push_back(skb);
        body.queued = body.queued.saturating_add(1);
        drop(body);
        self.packets = self.packets.saturating_add(1);
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

/// Puts a run for encryption on the queues. Frees the packets when there is no room.
pub(crate) fn enqueue_encrypt(peer: &RcuArc<Peer>, keypair: RcuArc<Keypair>, packets: SkbList) {
    let Ok(run) = Run::new(peer.clone(), keypair, Direction::Encrypt, packets) else {
        return;
    };
    {
        let mut fifo = peer.tx.lock();
        if !fifo.has_room() {
            return;
        }
        fifo.push(run.clone());
    }
    peer.device().shared().queues.submit(run);
}

/// Puts a received packet on the queues. Frees it when there is no room.
pub(crate) fn enqueue_decrypt(peer: &RcuArc<Peer>, keypair: RcuArc<Keypair>, skb: SkBuff) {
    let run = {
        let mut fifo = peer.rx.lock();
        if !fifo.has_room() {
            return;
        }
        let skb = match fifo.extend_last(&keypair, skb) {
            Ok(()) => return,
            Err(skb) => skb,
        };
        let Ok(run) = Run::new(
            peer.clone(),
            keypair,
            Direction::Decrypt,
            SkbList::from(skb),
        ) else {
            return;
        };
        fifo.push(run.clone());
        run
    };
    peer.device().shared().queues.submit(run);
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
    last_cpu: core::sync::atomic::AtomicU32,
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
            last_cpu: core::sync::atomic::AtomicU32::new(0),
        })
    }

    /// Hands a run to the next CPU's worker.
    fn submit(&self, run: Arc<Run>) {
        use core::sync::atomic::Ordering::Relaxed;

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

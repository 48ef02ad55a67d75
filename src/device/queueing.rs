// SPDX-License-Identifier: GPL-2.0

//! Runs, and the workers that encrypt and decrypt them.
//!
//! A *run* is a list of packets of one peer under one keypair: the unit of work of the data path.
//! Bulk runs travel through the queues of [`runqueue`], which keep each peer's order while all CPUs
//! work on them.

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
    tables::runqueue::{self, Body, Fifo, Ring},
};

/// A run of at most this many packets is encrypted where it comes from, within the
/// [`InlineBudget`](runqueue::InlineBudget) and if nothing is queued before it.
pub(crate) const INLINE_PACKETS: usize = 2;
/// Runs that may wait for a worker, over all peers; more are dropped. A power of two.
const MAX_QUEUED_RUNS: usize = 4096;

/// What a worker has to do with a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

/// Packets of one peer that are encrypted or decrypted together.
#[pin_data]
pub(crate) struct Run {
    peer: RcuArc<Peer>,
    keypair: RcuArc<Keypair>,
    direction: Direction,
    #[pin]
    body: SpinLockBh<Body<Run>>,
}

impl Run {
    fn new(
        peer: &RcuArc<Peer>,
        keypair: &RcuArc<Keypair>,
        direction: Direction,
        packets: SkbList,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                peer: peer.clone(),
                keypair: keypair.clone(),
                direction,
                body <- new_spinlock_bh!(Body::new(packets)),
            }),
            GFP_ATOMIC,
        )
    }
}

impl runqueue::Packets for SkbList {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn append(&mut self, mut other: Self) {
        SkbList::append(self, &mut other);
    }
}

impl runqueue::Run for Run {
    type Packets = SkbList;

    #[inline]
    fn body(&self) -> &SpinLockBh<Body<Self>> {
        &self.body
    }

    #[inline]
    fn fifo(&self) -> &SpinLockBh<Fifo<Self>> {
        fifo(&self.peer, self.direction)
    }

    fn work(&self, packets: &mut SkbList) {
        match self.direction {
            Direction::Encrypt => send::encrypt(&self.keypair, packets),
            Direction::Decrypt => receive::decrypt(&self.keypair, packets),
        }
    }

    fn deliver(&self, packets: SkbList) {
        match self.direction {
            Direction::Encrypt => send::transmit(&self.peer, packets),
            Direction::Decrypt => receive::accept_run(&self.peer, &self.keypair, packets),
        }
    }
}

fn fifo(peer: &Peer, direction: Direction) -> &SpinLockBh<Fifo<Run>> {
    match direction {
        Direction::Encrypt => &peer.tx,
        Direction::Decrypt => &peer.rx,
    }
}

/// Puts packets on the queues, in a run that already waits there or in one of their own. Frees
/// them when there is no room.
pub(crate) fn enqueue(
    peer: &RcuArc<Peer>,
    keypair: &RcuArc<Keypair>,
    direction: Direction,
    packets: SkbList,
) {
    let run = runqueue::add(
        fifo(peer, direction),
        packets,
        |last| RcuArc::ptr_eq(&last.keypair, keypair),
        |packets| Run::new(peer, keypair, direction, packets).ok(),
    );
    if let Some(run) = run {
        peer.device().shared().queues.submit(run);
    }
}

/// The module's queue of runs, shared by the workers of all CPUs.
#[pin_data]
struct CryptQueue {
    #[pin]
    ring: SpinLockBh<Ring<Arc<Run>>>,
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
        runqueue::work_off(&this.queue.ring, time::cond_resched);
    }
}

/// The module's work queues and crypto workers; devices share them.
///
/// Dropped in process context, when no device is left.
pub(crate) struct Queues {
    /// Received handshake messages: long computations, on the CPU they are put on.
    pub(crate) handshake_rx: Workqueue,
    /// Initiations to be sent, keys to be erased, the rate limiter's sources to be forgotten.
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
                ring <- new_spinlock_bh!(Ring::new(MAX_QUEUED_RUNS, GFP_KERNEL)?),
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
        runqueue::submit(&self.queue.ring, run, || {
            let cpu = cpu::next_online(self.last_cpu.load(Relaxed));
            self.last_cpu.store(cpu, Relaxed);
            if let Some(worker) = self.workers.get(cpu as usize) {
                self.crypt.queue_on(cpu, worker);
            }
        });
    }

    /// Waits until everything queued so far has been worked on. Sleeps.
    pub(crate) fn flush(&self) {
        let flush_crypt = || runqueue::flush(|| self.crypt.flush());
        flush_crypt();
        self.handshake_rx.flush();
        self.handshake_tx.flush();
        // Handshakes make keypairs, which let packets through.
        flush_crypt();
    }
}

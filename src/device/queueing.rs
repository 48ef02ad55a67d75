// SPDX-License-Identifier: GPL-2.0-only

//! The queues of bulk runs and the workers that encrypt and decrypt them.
//!
//! Runs travel through the queues of [`runqueue`], which keep each peer's order while all CPUs
//! work on them. What is done with a run is in [`pipeline`](super::pipeline).

use kernel::{alloc::flags::GFP_KERNEL, prelude::*, sync::Arc};

use crate::{
    device::{
        keypair::Keypair,
        peer::{fifo, Direction, Peer, Run, Unfinished},
        workers::Workers,
        Device,
    },
    kapi::{
        cpu,
        net::skbuff::SkbList,
        sync::{rcu::RcuArc, spinlock_bh::SpinLockBh},
        time,
        workqueue::{impl_has_work, new_work, Work, WorkItem, Workqueue, WqFlags},
    },
    new_spinlock_bh,
    proto::{consts::MAX_QUEUED_PACKETS, Rejection},
    tables::{
        cpulists::{CpuLists, Link},
        runqueue::{self, Caller, Cpus, Ring},
    },
};

/// A run of at most this many packets is encrypted where it comes from, within the
/// [`InlineBudget`](runqueue::InlineBudget) and if nothing is queued before it.
pub(crate) const INLINE_PACKETS: usize = 2;
/// Whether runs may be processed where they come from. Not on PREEMPT_RT: there whoever has a FIFO
/// to itself may be preempted, and those behind it, of whatever priority, would wait.
pub(crate) const MAY_BE_INLINE: bool = !cfg!(CONFIG_PREEMPT_RT);
/// Runs of a device that may wait for a worker; more are dropped. A power of two.
const MAX_QUEUED_RUNS: usize = 1024;

/// Messages of one peer that may wait to be encrypted: as many as the send buffers of a few sockets
/// hold, which slow their senders, where a full queue would have them send what is dropped.
const MAX_QUEUED_OUTGOING: usize = 8 * MAX_QUEUED_PACKETS;

/// Items that run at once on each CPU. They do not sleep: with more, devices would only take the
/// CPU from each other in the middle of their turns, a thread each.
const CRYPT_ITEMS: u16 = 1;

/// Puts packets on the queues, in a run that already waits there or in one of their own. They are
/// lost, and counted, when there is no room.
pub(crate) fn enqueue(
    peer: &RcuArc<Peer>,
    keypair: &RcuArc<Keypair>,
    direction: Direction,
    packets: SkbList,
) {
    let (limit, full) = match direction {
        Direction::Encrypt => (MAX_QUEUED_OUTGOING, Rejection::EncryptQueueFull),
        Direction::Decrypt => (MAX_QUEUED_PACKETS, Rejection::DecryptQueueFull),
    };
    let added = runqueue::add(
        fifo(peer, direction),
        limit,
        packets,
        |last| RcuArc::ptr_eq(&last.keypair, keypair),
        |packets| Run::new(peer, keypair, direction, packets),
    );
    match added {
        Ok(Some(run)) => submit(peer.device(), run),
        Ok(None) => {}
        Err(refused) => peer.discard_all(full, refused),
    }
}

/// Has the device's worker of that CPU, or of this one, go on delivering the peer's runs. False if
/// it has none any more. Any context.
pub(crate) fn defer(run: &Run, cpu: Option<u32>) -> bool {
    let device = run.peer.device();
    let cpu = cpu.unwrap_or_else(cpu::current);
    let listed = device
        .crypt
        .unfinished
        .lock()
        .add(cpu, &run.peer, run.direction);
    if listed {
        let queue = &device.shared().queues.crypt;
        device.crypt.workers.queue(cpu, queue);
    }
    listed
}

/// Who asks to transmit. In process context the CPU is a hint; only one or two packets that waited
/// for a session are transmitted there.
#[inline]
pub(crate) fn caller() -> Caller {
    Caller {
        cpu: cpu::current(),
        now: time::jiffies() as u32,
        is_online: cpu::is_online,
    }
}

/// Hands a run to a worker; gives it up if the device has none any more.
fn submit(device: &Device, run: Arc<Run>) {
    let (ring, workers) = (&device.crypt.ring, &device.crypt.workers);
    runqueue::submit(ring, run, &OnlineCpus, |worker| {
        workers.queue(worker, &device.shared().queues.crypt);
    });
}

/// The CPUs of this machine.
struct OnlineCpus;

impl Cpus for OnlineCpus {
    #[inline]
    fn current(&self) -> u32 {
        cpu::current()
    }

    #[inline]
    fn online(&self) -> u32 {
        cpu::online_count()
    }

    #[inline]
    fn next_online(&self, after: u32) -> u32 {
        cpu::next_online(after)
    }
}

/// A device's queue of runs, and its workers.
pub(crate) struct CryptQueue {
    ring: Pin<KBox<SpinLockBh<Ring<Arc<Run>>>>>,
    /// Peers with encrypted or decrypted runs, by the CPU that is to go on delivering them.
    unfinished: Pin<KBox<SpinLockBh<CpuLists<Peer>>>>,
    workers: Workers<CryptWorker>,
}

/// One CPU's worker for the runs of one device.
#[pin_data]
struct CryptWorker {
    device: RcuArc<Device>,
    /// Its number: that of the CPU.
    number: u32,
    #[pin]
    work: Work<CryptWorker, 0>,
}

impl_has_work! {
    impl HasWork<Self, 0> for CryptWorker { self.work }
}

impl WorkItem<0> for CryptWorker {
    type Pointer = RcuArc<Self>;

    fn run(this: RcuArc<Self>) {
        let (crypt, number) = (&this.device.crypt, this.number);
        let next = crypt.unfinished.lock().take(number);
        if let Some((peer, direction)) = next {
            runqueue::resume(fifo(&peer, direction));
        }
        let more = runqueue::work_off(&crypt.ring, number, time::cond_resched);
        if more || !crypt.unfinished.lock().is_empty(number) {
            // Behind what else waits for this CPU.
            let device = this.device.clone();
            device.shared().queues.crypt.enqueue_on(number, this);
        }
    }
}

impl CryptQueue {
    pub(crate) fn new() -> Result<Self> {
        let ring = Ring::new(MAX_QUEUED_RUNS, cpu::nr_ids(), GFP_KERNEL)?;
        let unfinished = CpuLists::new(cpu::nr_ids(), GFP_KERNEL)?;
        Ok(Self {
            ring: KBox::pin_init(new_spinlock_bh!(ring), GFP_KERNEL)?,
            unfinished: KBox::pin_init(new_spinlock_bh!(unfinished), GFP_KERNEL)?,
            workers: Workers::empty(),
        })
    }

    /// Creates the workers. They refer to the device until [`CryptQueue::stop`].
    pub(crate) fn start(&self, device: &RcuArc<Device>) -> Result {
        self.workers.start(|number| {
            let device = device.clone();
            RcuArc::pin_init(
                pin_init!(CryptWorker { device, number, work <- new_work!() }),
                GFP_KERNEL,
            )
        })
    }

    /// The links of a new peer: for its encrypted runs, and for its decrypted ones.
    pub(crate) fn new_links(&self) -> [Unfinished; 2] {
        let lists = self.unfinished.lock();
        [Link::new(&lists), Link::new(&lists)]
    }

    /// Gives up the runs that wait. Any context.
    pub(crate) fn give_up(&self) {
        runqueue::give_up(&self.ring);
    }

    /// Ends the workers; what is submitted from now on is given up.
    pub(crate) fn stop(&self) {
        self.ring.lock().close();
        self.unfinished.lock().close();
        self.workers.stop();
        // What was left to the workers just cancelled.
        self.give_up();
        loop {
            let next = self.unfinished.lock().take_any();
            let Some((peer, direction)) = next else {
                return;
            };
            runqueue::resume(fifo(&peer, direction));
        }
    }
}

/// The module's work queues; devices share them. Items on them do a bounded share of their work and
/// queue themselves again, so that nobody waits for what others have queued.
///
/// Dropped in process context, when no device is left.
pub(crate) struct Queues {
    /// Received handshake messages: long computations, on the CPU they are put on.
    pub(crate) handshake_rx: Workqueue,
    /// Initiations to be sent, keys to be erased, the rate limiter's sources to be forgotten.
    pub(crate) handshake_tx: Workqueue,
    /// Runs to be encrypted, decrypted or delivered.
    crypt: Workqueue,
}

impl Queues {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            handshake_rx: Workqueue::alloc(
                c"wg-kex-rx",
                WqFlags::CPU_INTENSIVE | WqFlags::FREEZABLE | WqFlags::PERCPU,
                0,
            )?,
            handshake_tx: Workqueue::alloc(c"wg-kex-tx", WqFlags::UNBOUND | WqFlags::FREEZABLE, 0)?,
            crypt: Workqueue::alloc(
                c"wg-crypt",
                WqFlags::CPU_INTENSIVE | WqFlags::MEM_RECLAIM | WqFlags::PERCPU,
                CRYPT_ITEMS,
            )?,
        })
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! The queue of received handshake messages of a device, and its workers.

use core::net::IpAddr;

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::{admission::report_drop, counters::drop_reason, handshake, workers::Workers, Device},
    kapi::{
        net::skbuff::{SkBuff, SkbList},
        random,
        siphash::SipKey,
        sync::{
            atomic::{AtomicUsize, Ordering::Relaxed},
            rcu::RcuArc,
            spinlock_bh::SpinLockBh,
        },
        time,
        workqueue::{impl_has_work, new_work, Work, WorkItem},
    },
    new_spinlock_bh,
    proto::{consts::MAX_QUEUED_HANDSHAKES, crypto::burn_stack, Rejection},
    tables::fairqueue::{self, FairQueue},
};

/// Messages that a worker handles in one turn.
const TURN_MESSAGES: usize = 8;

/// Handshake messages that wait for a worker, and the workers, one per CPU.
pub(crate) struct HandshakeQueue {
    packets: Pin<KBox<SpinLockBh<FairQueue<SkbList>>>>,
    /// Spreads the sources over the queue's buckets.
    key: SipKey,
    /// Messages that wait or that a worker has in hand.
    count: AtomicUsize,
    workers: Workers<HandshakeWorker>,
}

/// One CPU's worker for the handshake messages of one device.
#[pin_data]
struct HandshakeWorker {
    device: RcuArc<Device>,
    #[pin]
    work: Work<HandshakeWorker, 0>,
}

impl_has_work! {
    impl HasWork<Self, 0> for HandshakeWorker { self.work }
}

impl WorkItem<0> for HandshakeWorker {
    type Pointer = RcuArc<Self>;

    fn run(this: RcuArc<Self>) {
        let queue = &this.device.handshakes;
        for _ in 0..TURN_MESSAGES {
            let next = queue.packets.lock().pop();
            let Some(skb) = next else { break };
            handshake::receive(&this.device, &skb);
            skb.consume();
            queue.count.fetch_sub(1, Relaxed);
            time::cond_resched();
        }
        burn_stack();
        if !queue.packets.lock().is_empty() {
            // Behind what else waits for this CPU.
            let device = this.device.clone();
            device.shared().queues.handshake_rx.enqueue(this);
        }
    }
}

impl fairqueue::List for SkbList {
    type Item = SkBuff;

    fn count(&self) -> usize {
        self.len()
    }

    fn push(&mut self, skb: SkBuff) {
        self.push_back(skb);
    }

    fn pop(&mut self) -> Option<SkBuff> {
        self.pop_front()
    }
}

impl HandshakeQueue {
    pub(crate) fn new() -> Result<Self> {
        let packets = FairQueue::new(MAX_QUEUED_HANDSHAKES as usize, GFP_KERNEL)?;
        Ok(Self {
            packets: KBox::pin_init(new_spinlock_bh!(packets), GFP_KERNEL)?,
            key: SipKey::random(),
            count: AtomicUsize::new(0),
            workers: Workers::empty(),
        })
    }

    /// Creates the workers. They refer to the device until [`HandshakeQueue::stop`].
    pub(crate) fn start(&self, device: &RcuArc<Device>) -> Result {
        self.workers.start(|_| {
            let device = device.clone();
            RcuArc::pin_init(
                pin_init!(HandshakeWorker { device, work <- new_work!() }),
                GFP_KERNEL,
            )
        })
    }

    /// Ends the workers and throws away what waits.
    pub(crate) fn stop(&self, device: &Device) {
        self.workers.stop();
        self.clear(device);
    }

    /// Throws away what waits.
    pub(crate) fn clear(&self, device: &Device) {
        loop {
            let next = self.packets.lock().pop();
            let Some(skb) = next else { return };
            self.count.fetch_sub(1, Relaxed);
            device.discard(Rejection::GoingAway, skb);
        }
    }

    /// How many messages wait or are being worked on.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// The hash of where a message comes from: an IPv4 address or an IPv6 network of 64 bits.
    fn hash_source(&self, skb: &SkBuff) -> u64 {
        match skb.src_addr() {
            Some(IpAddr::V4(address)) => self.key.hash(&address.octets()),
            Some(IpAddr::V6(address)) => {
                let network = (u128::from(address) >> 64) as u64;
                self.key.hash(&network.to_be_bytes())
            }
            None => 0,
        }
    }
}

fn discard(device: &Device, skb: SkBuff, reason: Rejection) {
    report_drop(device, &skb, reason);
    skb.discard(drop_reason(reason));
}

/// Queues a received handshake message. Softirq context.
pub(crate) fn queue(device: &Device, skb: SkBuff) {
    if !random::is_ready() {
        discard(device, skb, Rejection::NotReady);
        return;
    }
    // The sockets may still give out what came in before they were closed.
    if !device.is_up() {
        discard(device, skb, Rejection::GoingAway);
        return;
    }
    let queue = &device.handshakes;
    let hash = queue.hash_source(&skb);
    queue.count.fetch_add(1, Relaxed);
    let evicted = queue.packets.lock().push(hash, skb);
    if let Some(skb) = evicted {
        queue.count.fetch_sub(1, Relaxed);
        discard(device, skb, Rejection::HandshakeQueueFull);
    }
    queue
        .workers
        .queue_next(&device.shared().queues.handshake_rx);
}

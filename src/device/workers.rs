// SPDX-License-Identifier: GPL-2.0-only

//! The workers of one device: a work item per CPU, so that devices have their turns on the module's
//! work queues as if each had queues of its own.

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::kapi::{
    cpu,
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        rcu::{self, RcuArc, RcuCell},
    },
    workqueue::{self, HasWork, WorkItem, Workqueue},
};

/// A work item per possible CPU, each in an object that refers to the device. Empty before
/// [`Workers::start`] and after [`Workers::stop`].
pub(crate) struct Workers<T> {
    set: RcuCell<Set<T>>,
    /// Where the last item was queued; a hint, races are harmless.
    last_cpu: AtomicU32,
}

struct Set<T>(KVVec<RcuArc<T>>);

impl<T> Workers<T>
where
    T: WorkItem<Pointer = RcuArc<T>> + HasWork<T> + Send + Sync + 'static,
{
    pub(crate) const fn empty() -> Self {
        Self {
            set: RcuCell::empty(),
            last_cpu: AtomicU32::new(0),
        }
    }

    /// Creates the workers. They refer to the device until [`Workers::stop`].
    pub(crate) fn start(&self, create: impl Fn(u32) -> Result<RcuArc<T>>) -> Result {
        let mut workers = KVVec::with_capacity(cpu::nr_ids() as usize, GFP_KERNEL)?;
        for cpu in 0..cpu::nr_ids() {
            workers
                .push_within_capacity(create(cpu)?)
                .map_err(|_| ENOMEM)?;
        }
        self.set.swap(Some(RcuArc::new(Set(workers), GFP_KERNEL)?));
        Ok(())
    }

    /// Queues the worker of the next CPU in turn, if there are workers. Any context.
    pub(crate) fn queue_next(&self, queue: &Workqueue) {
        let cpu = cpu::next_online(self.last_cpu.load(Relaxed));
        self.last_cpu.store(cpu, Relaxed);
        self.queue(cpu, queue);
    }

    /// Queues the worker of a CPU, if there are workers. Any context.
    pub(crate) fn queue(&self, cpu: u32, queue: &Workqueue) {
        let guard = rcu::read_lock();
        let Some(set) = self.set.load(&guard) else {
            return;
        };
        if let Some(worker) = set.0.get(cpu as usize) {
            queue.enqueue_on(cpu, worker.clone());
        }
    }

    /// Takes the workers away and their items off the queue, and waits for nothing. Whoever is
    /// submitting right now may still queue a worker, which finds nothing to do then: what was
    /// submitted is given up by the caller, or by that worker.
    pub(crate) fn stop(&self) {
        let Some(set) = self.set.swap(None) else {
            return;
        };
        for worker in set.0.iter() {
            workqueue::cancel::<T, 0>(worker);
        }
    }
}

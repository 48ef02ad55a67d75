// SPDX-License-Identifier: GPL-2.0

//! Every interleaving of those who put packets on the queues with those who take them off. How to
//! run them: see the models in `peerlookup/tests.rs`.
//!
//! The kernel's part is [`Item`], which does what a work item is documented to do.

#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::{
    sync::{Condvar, Mutex},
    thread::{self, JoinHandle},
};

use super::{
    harness::{batch, ring, Flow, TestRun},
    *,
};

/// A work item: it never runs twice at a time, and being queued while it runs it runs again.
struct Item {
    times: Mutex<Times>,
    changed: Condvar,
}

#[derive(Default)]
struct Times {
    queued: usize,
    begun: usize,
    ended: usize,
    closed: bool,
}

impl Item {
    fn new() -> Self {
        Self {
            times: Mutex::new(Times::default()),
            changed: Condvar::new(),
        }
    }

    fn queue(&self) {
        let mut times = self.times.lock().unwrap();
        if times.queued == times.begun {
            times.queued += 1;
            self.changed.notify_all();
        }
    }

    /// Lives through the item's runs, until it is closed.
    fn live(&self, run: impl Fn()) {
        let mut times = self.times.lock().unwrap();
        loop {
            if times.queued != times.begun {
                times.begun = times.queued;
                drop(times);
                run();
                times = self.times.lock().unwrap();
                times.ended = times.begun;
                self.changed.notify_all();
            } else if times.closed {
                return;
            } else {
                times = self.changed.wait(times).unwrap();
            }
        }
    }

    fn queued(&self) -> usize {
        self.times.lock().unwrap().queued
    }

    fn wait(&self, queued: usize) {
        let mut times = self.times.lock().unwrap();
        while times.ended < queued {
            times = self.changed.wait(times).unwrap();
        }
    }

    fn close(&self) {
        self.times.lock().unwrap().closed = true;
        self.changed.notify_all();
    }
}

/// The module's workers.
struct Workers {
    ring: SpinLockBh<Ring<Arc<TestRun>>>,
    items: Vec<Item>,
    next: AtomicUsize,
}

impl Workers {
    fn start(count: usize, capacity: usize) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let workers = Arc::new(Self {
            ring: ring(capacity),
            items: (0..count).map(|_| Item::new()).collect(),
            next: AtomicUsize::new(0),
        });
        let threads = (0..count)
            .map(|i| {
                let workers = workers.clone();
                thread::spawn(move || {
                    workers.items[i].live(|| work_off(&workers.ring, || ()));
                })
            })
            .collect();
        (workers, threads)
    }

    fn enqueue(&self, flow: &Arc<Flow>, key: u32, id: u32) {
        if let Some(run) = flow.add(key, batch([id])) {
            submit(&self.ring, run, || {
                let next = self.next.fetch_add(1, Relaxed);
                self.items[next % self.items.len()].queue();
            });
        }
    }

    fn send(&self, flow: &Arc<Flow>, id: u32) {
        if !flow.inline(id) {
            self.enqueue(flow, id, id);
        }
    }

    /// Waits for what was queued before: for one item after the other, as the kernel does.
    fn pass(&self) {
        let queued: Vec<_> = self.items.iter().map(Item::queued).collect();
        for (item, queued) in self.items.iter().zip(queued) {
            item.wait(queued);
        }
    }

    fn stop(&self, threads: Vec<JoinHandle<()>>) {
        self.items.iter().for_each(Item::close);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
}

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(f);
}

#[test]
fn runs_leave_in_order_whoever_works_on_them() {
    model(2, || {
        let (workers, threads) = Workers::start(2, 4);
        let flow = Flow::new();
        (1..=3).for_each(|id| workers.enqueue(&flow, id, id));
        flush(|| workers.pass());
        assert_eq!(flow.finished(), [1, 2, 3]);
        workers.stop(threads);
    });
}

#[test]
fn packets_join_a_run_while_a_worker_takes_it() {
    model(3, || {
        let (workers, threads) = Workers::start(1, 4);
        let flow = Flow::new();
        (1..=3).for_each(|id| workers.enqueue(&flow, 0, id));
        flush(|| workers.pass());
        assert_eq!(flow.finished(), [1, 2, 3]);
        workers.stop(threads);
    });
}

#[test]
fn inline_work_overtakes_nothing_that_is_queued() {
    model(3, || {
        let (workers, threads) = Workers::start(1, 4);
        let flow = Flow::new();
        workers.enqueue(&flow, 1, 1);
        workers.send(&flow, 2);
        workers.send(&flow, 3);
        flush(|| workers.pass());
        assert_eq!(flow.finished(), [1, 2, 3]);
        workers.stop(threads);
    });
}

/// One is at inline work while the other queues: what is finished meanwhile must not be left.
#[test]
fn two_senders_leave_nothing_to_each_other() {
    model(2, || {
        let (workers, threads) = Workers::start(1, 4);
        let flow = Flow::new();
        let (other, its_flow) = (workers.clone(), flow.clone());
        let sender = thread::spawn(move || (11..=12).for_each(|id| other.send(&its_flow, id)));
        (1..=2).for_each(|id| workers.send(&flow, id));
        sender.join().unwrap();
        flush(|| workers.pass());
        let (ones, tens): (Vec<_>, Vec<_>) = flow.finished().into_iter().partition(|&id| id < 10);
        assert_eq!((ones, tens), (vec![1, 2], vec![11, 12]));
        workers.stop(threads);
    });
}

#[test]
fn a_full_ring_costs_packets_but_blocks_nobody() {
    model(3, || {
        let (workers, threads) = Workers::start(1, 1);
        let flow = Flow::new();
        (1..=3).for_each(|id| workers.enqueue(&flow, id, id));
        flush(|| workers.pass());
        let delivered = flow.finished();
        assert_eq!(delivered.first(), Some(&1));
        assert!(delivered.is_sorted());
        workers.stop(threads);
    });
}

/// A peer's end: its packets are on the queues, and other peers go on sending.
fn end_of_a_peer(wait: fn(&Workers)) {
    model(2, move || {
        let (workers, threads) = Workers::start(2, 4);
        let flow = Flow::new();
        workers.enqueue(&flow, 1, 1);
        let other = workers.clone();
        let sender = thread::spawn(move || {
            let flow = Flow::new();
            other.enqueue(&flow, 1, 1);
            flow
        });
        wait(&workers);
        assert_eq!(flow.finished(), [1]);
        let flow = sender.join().unwrap();
        flush(|| workers.pass());
        assert_eq!(flow.finished(), [1]);
        workers.stop(threads);
    });
}

#[test]
fn nothing_is_left_at_the_end_of_a_peer() {
    end_of_a_peer(|workers| flush(|| workers.pass()));
}

/// The models can fail, and [`flush`] does need its second pass.
#[test]
#[should_panic(expected = "is left")]
fn one_pass_is_not_enough() {
    end_of_a_peer(|workers| workers.pass());
}

// SPDX-License-Identifier: GPL-2.0-only

//! Every interleaving of those who put packets on the queues with those who take them off. How to
//! run them: see the models in `peerlookup/tests.rs`.
//!
//! The kernel's part is [`Item`], which does what a work item is documented to do.

#![cfg(loom)]

use loom::{
    sync::{Condvar, Mutex},
    thread::{self, JoinHandle},
};

use super::{
    harness::{batch, ring, Flow, TestCpus, TestRun, CPU},
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
            } else if times.closed {
                return;
            } else {
                times = self.changed.wait(times).unwrap();
            }
        }
    }

    fn close(&self) {
        self.times.lock().unwrap().closed = true;
        self.changed.notify_all();
    }

    /// Whether it was queued when it was closed already; if so it runs now.
    fn begin_late(&self) -> bool {
        let mut times = self.times.lock().unwrap();
        let late = times.queued != times.begun;
        times.begun = times.queued;
        late
    }
}

/// A device's workers. Each also goes on delivering for the flows that were left to it.
struct Workers {
    ring: SpinLockBh<Ring<Arc<TestRun>>>,
    deferred: Vec<Mutex<Vec<Arc<Flow>>>>,
    items: Vec<Item>,
    cpus: TestCpus,
}

impl Workers {
    fn start(count: usize, capacity: usize) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let cpus = TestCpus(count as u32);
        let workers = Arc::new(Self {
            ring: ring(capacity, &cpus),
            deferred: (0..count).map(|_| Mutex::new(Vec::new())).collect(),
            items: (0..count).map(|_| Item::new()).collect(),
            cpus,
        });
        let threads = (0..count)
            .map(|i| {
                let workers = workers.clone();
                thread::spawn(move || {
                    CPU.with(|cpu| cpu.set(i as u32));
                    workers.items[i].live(|| workers.run(i));
                })
            })
            .collect();
        (workers, threads)
    }

    /// What worker `i` does when its item runs.
    fn run(&self, i: usize) {
        if work_off(&self.ring, i as u32, || ()) {
            self.items[i].queue();
        }
        // Whoever defers here goes on itself; the kernel queues another item.
        loop {
            let next = self.deferred[i].lock().unwrap().pop();
            let Some(flow) = next else { break };
            resume(&flow.fifo);
        }
    }

    fn enqueue(&self, flow: &Arc<Flow>, key: u32, id: u32) {
        if let Some(run) = flow.add(key, batch([id])) {
            submit(&self.ring, run, &self.cpus, |worker| {
                self.items[worker as usize].queue();
            });
        }
    }

    fn send(&self, flow: &Arc<Flow>, id: u32) {
        if !flow.inline(id) {
            self.enqueue(flow, id, id);
        }
    }

    /// A flow whose deliveries are deferred to the workers.
    fn flow(self: &Arc<Self>) -> Arc<Flow> {
        self.make_flow(false)
    }

    /// `at_home`: and that leaves on one CPU.
    fn make_flow(self: &Arc<Self>, at_home: bool) -> Arc<Flow> {
        let workers = self.clone();
        let on_defer = move |flow, cpu: u32| {
            workers.deferred[cpu as usize].lock().unwrap().push(flow);
            workers.items[cpu as usize].queue();
        };
        Flow::deferring(Some(Box::new(on_defer)), at_home)
    }

    /// Ends the workers when all that was submitted has been worked on.
    fn stop(&self, threads: Vec<JoinHandle<()>>) {
        self.items.iter().for_each(Item::close);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        // What one has left to another that had ended.
        for (i, item) in self.items.iter().enumerate() {
            CPU.with(|cpu| cpu.set(i as u32));
            while item.begin_late() {
                self.run(i);
            }
        }
        CPU.with(|cpu| cpu.set(0));
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
        let flow = workers.flow();
        (1..=3).for_each(|id| workers.enqueue(&flow, id, id));
        workers.stop(threads);
        assert_eq!(flow.finished(), [1, 2, 3]);
    });
}

#[test]
fn packets_join_a_run_while_a_worker_takes_it() {
    model(3, || {
        let (workers, threads) = Workers::start(1, 4);
        let flow = workers.flow();
        (1..=3).for_each(|id| workers.enqueue(&flow, 0, id));
        workers.stop(threads);
        assert_eq!(flow.finished(), [1, 2, 3]);
    });
}

#[test]
fn inline_work_overtakes_nothing_that_is_queued() {
    model(3, || {
        let (workers, threads) = Workers::start(1, 4);
        let flow = workers.flow();
        workers.enqueue(&flow, 1, 1);
        workers.send(&flow, 2);
        workers.send(&flow, 3);
        workers.stop(threads);
        assert_eq!(flow.finished(), [1, 2, 3]);
    });
}

/// Whichever CPU has worked on a run, all leave on one.
#[test]
fn runs_leave_on_one_cpu_whoever_works_on_them() {
    model(2, || {
        let (workers, threads) = Workers::start(2, 4);
        let flow = workers.make_flow(true);
        workers.send(&flow, 1);
        (2..=3).for_each(|id| workers.enqueue(&flow, id, id));
        workers.stop(threads);
        assert_eq!(flow.finished(), [1, 2, 3]);
    });
}

/// One is at inline work while the other queues: what is finished meanwhile must not be left.
#[test]
fn two_senders_leave_nothing_to_each_other() {
    model(2, || {
        let (workers, threads) = Workers::start(1, 4);
        let flow = workers.flow();
        let (other, its_flow) = (workers.clone(), flow.clone());
        let sender = thread::spawn(move || (11..=12).for_each(|id| other.send(&its_flow, id)));
        (1..=2).for_each(|id| workers.send(&flow, id));
        sender.join().unwrap();
        workers.stop(threads);
        let (ones, tens): (Vec<_>, Vec<_>) = flow.finished().into_iter().partition(|&id| id < 10);
        assert_eq!((ones, tens), (vec![1, 2], vec![11, 12]));
    });
}

#[test]
fn a_full_ring_costs_packets_but_blocks_nobody() {
    model(3, || {
        let (workers, threads) = Workers::start(1, 1);
        let flow = workers.flow();
        (1..=3).for_each(|id| workers.enqueue(&flow, id, id));
        workers.stop(threads);
        let delivered = flow.finished();
        assert_eq!(delivered.first(), Some(&1));
        assert!(delivered.is_sorted());
    });
}

/// The device goes down: what waits is given up, although somebody still submits.
#[test]
fn giving_up_leaves_nothing_and_loses_the_order_of_nothing() {
    model(2, || {
        let (workers, threads) = Workers::start(1, 4);
        let flow = workers.flow();
        workers.enqueue(&flow, 1, 1);
        let (other, its_flow) = (workers.clone(), flow.clone());
        let sender = thread::spawn(move || (2..=3).for_each(|id| other.enqueue(&its_flow, id, id)));
        give_up(&workers.ring);
        sender.join().unwrap();
        workers.stop(threads);
        assert!(flow.finished().is_sorted());
    });
}

/// The models can fail: a worker whose turn has ended must be queued again.
#[test]
#[should_panic(expected = "is left")]
fn a_turn_that_ends_unheard_leaves_runs() {
    model(2, || {
        let cpus = TestCpus(1);
        let (flow, ring) = (Flow::new(), ring(4, &cpus));
        for id in 1..=2 {
            submit(&ring, flow.add(id, batch([id])).unwrap(), &cpus, |_| ());
        }
        let _more = work_off(&ring, 0, || ());
        flow.finished();
    });
}

/// And a worker that was woken must come.
#[test]
#[should_panic(expected = "is left")]
fn a_worker_that_is_not_woken_leaves_runs() {
    model(2, || {
        let (workers, threads) = Workers::start(2, 4);
        let flow = workers.flow();
        workers.enqueue(&flow, 1, 1);
        submit(
            &workers.ring,
            flow.add(2, batch([2])).unwrap(),
            &workers.cpus,
            |_| (),
        );
        workers.stop(threads);
        flow.finished();
    });
}

/// So must a consumer that has ended its turn have somebody go on.
#[test]
#[should_panic(expected = "is left")]
fn a_consumer_that_defers_to_nobody_leaves_runs() {
    model(2, || {
        let flow = Flow::new();
        let runs = [1, 2].map(|id| flow.add(id, batch([id])).unwrap());
        work(&*runs[1]);
        work(&*runs[0]);
        drop(runs);
        flow.finished();
    });
}

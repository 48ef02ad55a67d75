// SPDX-License-Identifier: GPL-2.0-only

//! A peer and its packets, for the tests and for the models: packets are numbers, work counts how
//! often it was done.

use std::{cell::Cell, sync::Mutex};

use super::*;
use crate::{
    kapi::{
        alloc::GFP_KERNEL,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    },
    new_spinlock_bh,
};

/// Packets that a FIFO takes.
pub const LIMIT: usize = 1024;

/// A packet, and how often it was worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet(pub u32, u32);

#[derive(Default)]
pub struct Batch(Vec<Packet>);

impl Packets for Batch {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

pub fn batch(ids: impl IntoIterator<Item = u32>) -> Batch {
    Batch(ids.into_iter().map(|id| Packet(id, 0)).collect())
}

/// A peer with one FIFO.
pub struct Flow {
    pub fifo: SpinLockBh<Fifo<TestRun>>,
    delivered: Mutex<Vec<u32>>,
    /// How many were delivered, in memory that only the mark of the one consumer guards.
    guarded: AtomicUsize,
    /// How often a consumer has left the rest to [`resume`].
    pub deferred: AtomicUsize,
    /// What the kernel's work item is: called at each of those, with the CPU.
    on_defer: Option<OnDefer>,
    /// All packets must leave on one CPU, the first that one leaves on.
    at_home: bool,
    left_on: Mutex<Option<u32>>,
    /// There are no workers.
    pub alone: bool,
    /// How many had no room.
    lost: Mutex<usize>,
}

pub type OnDefer = Box<dyn Fn(Arc<Flow>, u32) + Send + Sync>;

#[cfg(not(loom))]
use std::thread_local;

#[cfg(loom)]
use loom::thread_local;

thread_local! {
    /// The CPU that a thread stands for.
    #[allow(clippy::missing_const_for_thread_local)] // loom's has none
    pub static CPU: Cell<u32> = Cell::new(0);
}

impl Flow {
    pub fn new() -> Arc<Self> {
        Self::deferring(None, false)
    }

    /// One that nothing can be left to anybody of.
    #[cfg(not(loom))]
    pub fn alone() -> Arc<Self> {
        let mut flow = Self::deferring(None, true);
        if let Some(flow) = Arc::get_mut(&mut flow) {
            flow.alone = true;
        }
        flow
    }

    pub fn deferring(on_defer: Option<OnDefer>, at_home: bool) -> Arc<Self> {
        Arc::new(Self {
            fifo: new_spinlock_bh!(Fifo::new()),
            delivered: Mutex::new(Vec::new()),
            guarded: AtomicUsize::new(0),
            deferred: AtomicUsize::new(0),
            on_defer,
            at_home,
            left_on: Mutex::new(None),
            alone: false,
            lost: Mutex::new(0),
        })
    }

    /// Puts packets on the FIFO: with those before, if they wait and have the same key.
    pub fn add(self: &Arc<Self>, key: u32, packets: Batch) -> Option<Arc<TestRun>> {
        let make = |packets: Batch| {
            let count = packets.count();
            Some(Arc::new(TestRun {
                flow: self.clone(),
                key,
                body: new_spinlock_bh!(Body::new(packets, count)),
            }))
        };
        add(&self.fifo, LIMIT, packets, |last| last.key == key, make).unwrap_or_else(|refused| {
            self.lose(refused);
            None
        })
    }

    fn lose(&self, packets: Batch) {
        *self.lost.lock().unwrap() += packets.count();
    }

    /// How many packets had no room.
    #[cfg(not(loom))]
    pub fn lost(&self) -> usize {
        *self.lost.lock().unwrap()
    }

    /// What a consumer does. Whoever does it must see what the consumer before has done, and
    /// nobody may be at it meanwhile.
    pub fn consume(&self, packets: Batch) {
        let cpu = CPU.with(Cell::get);
        let first = *self.left_on.lock().unwrap().get_or_insert(cpu);
        assert!(!self.at_home || cpu == first || self.alone, "not at home");
        let before = self.guarded.load(Relaxed);
        let after = before + packets.0.len();
        self.guarded.store(after, Relaxed);
        let mut delivered = self.delivered.lock().unwrap();
        assert_eq!(before, delivered.len(), "two consumers at once");
        for Packet(id, worked) in packets.0 {
            assert_eq!(worked, 1, "packet {id} was worked on {worked} times");
            delivered.push(id);
        }
        drop(delivered);
        assert_eq!(self.guarded.load(Relaxed), after, "two consumers at once");
    }

    /// Works on a packet right here if that is possible.
    pub fn inline(&self, id: u32) -> bool {
        let Some(claim) = Claim::idle(&self.fifo, self.caller()) else {
            return false;
        };
        self.consume(Batch(vec![Packet(id, 1)]));
        drop(claim);
        true
    }

    /// Time stands still, so that no home moves.
    fn caller(&self) -> Option<Caller> {
        self.at_home.then(|| Caller {
            cpu: CPU.with(Cell::get),
            now: 1000,
            is_online: |cpu| cpu != u32::MAX,
        })
    }

    /// What has come out. Nothing is left, nobody refers to a run any more.
    pub fn finished(self: &Arc<Self>) -> Vec<u32> {
        let fifo = self.fifo.lock();
        assert!(fifo.head.is_none() && fifo.tail.is_none(), "a run is left");
        assert!(!fifo.busy, "the mark is left");
        assert_eq!(fifo.packets, 0);
        drop(fifo);
        assert_eq!(Arc::strong_count(self), 1, "somebody has a run");
        self.delivered.lock().unwrap().clone()
    }

    #[cfg(not(loom))]
    pub fn delivered(&self) -> Vec<u32> {
        self.delivered.lock().unwrap().clone()
    }
}

/// A run, which keeps its flow alive as a run does its peer.
pub struct TestRun {
    pub flow: Arc<Flow>,
    key: u32,
    body: SpinLockBh<Body<TestRun>>,
}

impl Run for TestRun {
    type Packets = Batch;

    fn body(&self) -> &SpinLockBh<Body<Self>> {
        &self.body
    }

    fn fifo(&self) -> &SpinLockBh<Fifo<Self>> {
        &self.flow.fifo
    }

    fn work(&self, packets: &mut Batch) {
        packets.0.iter_mut().for_each(|packet| packet.1 += 1);
    }

    fn deliver(&self, packets: Batch) {
        self.flow.consume(packets);
    }

    fn lose(&self, packets: Batch) {
        self.flow.lose(packets);
    }

    fn caller(&self) -> Option<Caller> {
        self.flow.caller()
    }

    fn defer(&self, cpu: Option<u32>) -> bool {
        if self.flow.alone {
            return false;
        }
        self.flow.deferred.fetch_add(1, Relaxed);
        if let Some(on_defer) = &self.flow.on_defer {
            on_defer(
                self.flow.clone(),
                cpu.unwrap_or_else(|| CPU.with(Cell::get)),
            );
        }
        true
    }
}

/// A ring, with as many workers as there are `cpus`.
pub fn ring(capacity: usize, cpus: &TestCpus) -> SpinLockBh<Ring<Arc<TestRun>>> {
    new_spinlock_bh!(Ring::new(capacity, cpus.0, GFP_KERNEL).unwrap())
}

/// So many CPUs; all that is submitted comes from the first.
pub struct TestCpus(pub u32);

impl Cpus for TestCpus {
    fn current(&self) -> u32 {
        0
    }

    fn online(&self) -> u32 {
        self.0
    }

    fn next_online(&self, after: u32) -> u32 {
        (after + 1) % self.0
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! The run queues: order, limits, runs that are given up, and threads.

#![cfg(not(loom))]

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use super::{
    harness::{batch, ring, Flow, TestCpus, CPU, LIMIT},
    *,
};
use crate::kapi::alloc::{fail_after, AllocError, GFP_KERNEL};

#[test]
fn finished_runs_wait_for_those_before() {
    let flow = Flow::new();
    let runs: Vec<_> = (1..=3)
        .map(|id| flow.add(id, batch([id])).unwrap())
        .collect();
    work(&*runs[2]);
    work(&*runs[1]);
    assert_eq!(flow.delivered(), []);
    work(&*runs[0]);
    drop(runs);
    assert_eq!(flow.finished(), [1, 2, 3]);
}

#[test]
fn packets_join_the_last_run_of_their_key_until_it_is_taken() {
    let flow = Flow::new();
    let first = flow.add(1, batch([1, 2])).unwrap();
    assert!(flow.add(1, batch([3])).is_none());
    let second = flow.add(2, batch([4])).unwrap();
    let third = flow.add(1, batch([5])).unwrap();
    assert_eq!(flow.fifo.lock().packets, 5);
    for run in [&first, &second, &third] {
        work(&**run);
    }
    let fourth = flow.add(1, batch([6])).unwrap();
    work(&*fourth);
    drop([first, second, third, fourth]);
    assert_eq!(flow.finished(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn long_runs_take_no_more() {
    let flow = Flow::new();
    let most = MAX_SHARED_RUN as u32;
    let first = flow.add(1, batch(1..most)).unwrap();
    assert!(flow.add(1, batch([most])).is_none());
    let second = flow.add(1, batch([most + 1])).unwrap();
    work(&*first);
    work(&*second);
    drop([first, second]);
    assert!(flow.finished().into_iter().eq(1..=most + 1));
}

#[test]
fn a_fifo_is_full_until_a_run_leaves() {
    let flow = Flow::new();
    let most = LIMIT as u32;
    let run = flow.add(1, batch(1..=most)).unwrap();
    assert!(flow.add(2, batch([0])).is_none());
    assert_eq!(flow.lost(), 1);
    work(&*run);
    let last = flow.add(2, batch([most + 1])).unwrap();
    work(&*last);
    drop([run, last]);
    assert!(flow.finished().into_iter().eq(1..=most + 1));
}

#[test]
fn without_memory_for_a_run_its_packets_go() {
    let flow = Flow::new();
    let made = add(&flow.fifo, LIMIT, batch([1]), |_| true, |_| None);
    assert!(made.is_ok_and(|run| run.is_none()));
    assert_eq!(flow.finished(), []);
}

#[test]
fn a_claim_is_for_one_and_only_while_nothing_waits() {
    let flow = Flow::new();
    let claim = Claim::idle(&flow.fifo, None).unwrap();
    assert!(Claim::idle(&flow.fifo, None).is_none());
    // Finished while the FIFO is busy: whoever has it looks again.
    let run = flow.add(1, batch([1])).unwrap();
    work(&*run);
    drop(run);
    assert_eq!(flow.delivered(), []);
    drop(claim);
    assert_eq!(flow.finished(), [1]);

    let run = flow.add(2, batch([2])).unwrap();
    assert!(!flow.inline(3));
    work(&*run);
    drop(run);
    assert!(flow.inline(3));
    assert_eq!(flow.finished(), [1, 2, 3]);
}

#[test]
fn runs_leave_on_one_cpu() {
    let flow = Flow::deferring(None, true);
    let on = |cpu| CPU.with(|current| current.set(cpu));
    on(1);
    assert!(flow.inline(1));
    on(0);
    assert!(!flow.inline(2));
    let run = flow.add(2, batch([2])).unwrap();
    work(&*run);
    drop(run);
    assert_eq!(flow.delivered(), [1]);
    assert_eq!(flow.deferred.load(SeqCst), 1);
    // Somebody else asks for it meanwhile.
    resume(&flow.fifo);
    assert_eq!(flow.delivered(), [1]);
    on(1);
    resume(&flow.fifo);
    assert!(flow.inline(3));
    assert_eq!(flow.finished(), [1, 2, 3]);
}

#[test]
fn a_run_without_room_in_the_ring_is_given_up() {
    let cpus = TestCpus(8);
    let (flow, ring) = (Flow::new(), ring(2, &cpus));
    let mut woken = 0;
    for id in 1..=4 {
        let run = flow.add(id, batch([id])).unwrap();
        submit(&ring, run, &cpus, |_| woken += 1);
    }
    assert_eq!(woken, 2);
    assert!(!work_off(&ring, 1, || ()));
    assert_eq!(flow.finished(), [1, 2]);
}

#[test]
fn a_ring_keeps_the_order_all_the_way_round() {
    let mut ring = Ring::new(4, 1, GFP_KERNEL).unwrap();
    (ring.head, ring.tail) = (usize::MAX - 5, usize::MAX - 5);
    let mut out = 0;
    for n in 0..100 {
        assert_eq!(ring.push(2 * n), Ok(()));
        assert_eq!(ring.push(2 * n + 1), Ok(()));
        if n % 2 == 1 {
            assert_eq!(ring.push(0), Err(0));
            for _ in 0..4 {
                assert_eq!(ring.pop(), Some(out));
                out += 1;
            }
            assert_eq!(ring.pop(), None);
        }
    }
}

#[test]
fn a_ring_needs_memory() {
    for allocations in 0..2 {
        fail_after(Some(allocations));
        let made = Ring::<u32>::new(4, 2, GFP_KERNEL);
        fail_after(None);
        assert!(matches!(made, Err(AllocError)));
    }
}

/// A queue may go with what is in it, however long it is.
#[test]
fn a_long_fifo_ends_without_recursion() {
    let flow = Flow::new();
    let runs: Vec<_> = (0..1000).map(|id| flow.add(id, batch([id]))).collect();
    let fifo = core::mem::take(&mut *flow.fifo.lock());
    drop(runs);
    thread::Builder::new()
        .stack_size(1 << 16)
        .spawn(move || drop(fifo))
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(flow.finished(), []);
}

/// Workers that poll, two that send, on a ring that is too small now and then.
#[test]
fn order_holds_under_threads() {
    const EACH: u32 = 20_000;
    let cpus = TestCpus(2);
    let (flow, ring) = (Flow::new(), ring(16, &cpus));
    let woken = [const { AtomicBool::new(false) }; 2];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..2 {
            let (woken, ring, flow, done) = (&woken, &ring, &flow, &done);
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    let mine = &woken[number];
                    if mine.swap(false, SeqCst) && work_off(ring, number as u32, || ()) {
                        mine.store(true, SeqCst);
                    }
                    resume(&flow.fifo);
                    thread::yield_now();
                }
            });
        }
        let send = |id: u32| {
            if id % 3 != 0 || !flow.inline(id) {
                if let Some(run) = flow.add(id / 8, batch([id])) {
                    submit(&ring, run, &cpus, |worker| {
                        assert!(!woken[worker as usize].swap(true, SeqCst), "woken twice");
                    });
                }
            }
        };
        let other = scope.spawn(move || (EACH..2 * EACH).for_each(send));
        (0..EACH).for_each(send);
        other.join().unwrap();
        done.store(true, SeqCst);
    });
    for (number, woken) in woken.into_iter().enumerate() {
        if woken.into_inner() {
            while work_off(&ring, number as u32, || ()) {}
        }
    }
    assert!(ring.lock().is_empty(), "nobody was woken for what is left");
    (0..1000).for_each(|_| resume(&flow.fifo));
    let lost = flow.lost();
    let (low, high): (Vec<_>, Vec<_>) = flow.finished().into_iter().partition(|&id| id < EACH);
    assert!(low.is_sorted() && high.is_sorted());
    assert!(!low.is_empty() && !high.is_empty());
    assert_eq!(low.len() + high.len() + lost, 2 * EACH as usize);
}

#[test]
fn a_worker_and_a_consumer_stop_after_their_turn() {
    let cpus = TestCpus(1);
    let (flow, ring) = (Flow::new(), ring(128, &cpus));
    let count = TURN_PACKETS as u32 + 4;
    for id in 0..count {
        submit(&ring, flow.add(id, batch([id])).unwrap(), &cpus, |_| ());
    }
    assert!(work_off(&ring, 0, || ()));
    assert_eq!(flow.delivered().len(), TURN_PACKETS);
    assert!(!work_off(&ring, 0, || ()));
    assert!(flow.finished().into_iter().eq(0..count));

    // All are finished when the first one is: too many for one turn.
    let flow = Flow::new();
    let most = TURN_PACKETS as u32 + 10;
    let runs: Vec<_> = (0..most)
        .map(|id| flow.add(id, batch([id])).unwrap())
        .collect();
    runs.iter().rev().for_each(|run| {
        work(&**run);
    });
    drop(runs);
    assert_eq!(flow.delivered().len(), TURN_PACKETS);
    assert_eq!(flow.deferred.load(SeqCst), 1);
    // What comes meanwhile does not overtake the rest.
    assert!(!flow.inline(most));
    resume(&flow.fifo);
    assert!(flow.inline(most));
    assert!(flow.finished().into_iter().eq(0..=most));
}

#[test]
fn without_workers_all_is_delivered_at_once() {
    let flow = Flow::alone();
    let on = |cpu| CPU.with(|current| current.set(cpu));
    on(1);
    assert!(flow.inline(0));
    on(0);
    let most = 3 * TURN_PACKETS as u32;
    let runs: Vec<_> = (1..=most)
        .map(|id| flow.add(id, batch([id])).unwrap())
        .collect();
    runs.iter().rev().for_each(|run| {
        work(&**run);
    });
    drop(runs);
    assert!(flow.finished().into_iter().eq(0..=most));
}

#[test]
fn what_is_given_up_keeps_nobody_waiting() {
    let cpus = TestCpus(1);
    let (flow, ring) = (Flow::new(), ring(8, &cpus));
    let [first, second, third] = [1, 2, 3].map(|id| flow.add(id, batch([id])).unwrap());
    submit(&ring, first, &cpus, |_| ());
    work(&*second);
    submit(&ring, third, &cpus, |_| ());
    drop(second);
    give_up(&ring);
    assert_eq!(flow.finished(), [2]);
    assert!(ring.lock().is_empty());
}

/// Who is woken: one for each run that nobody who is awake will look at, the submitter's CPU last.
#[test]
fn workers_are_woken_when_there_is_work_for_them() {
    let cpus = TestCpus(3);
    let mut ring = Ring::new(8, 3, GFP_KERNEL).unwrap();
    let submit = |ring: &mut Ring<u32>| {
        ring.push(0).unwrap();
        ring.wake(&cpus)
    };
    assert_eq!(submit(&mut ring), Some(1));
    // One is coming: for one run.
    assert_eq!(submit(&mut ring), Some(2));
    assert_eq!(ring.take(1), Some(0));
    assert_eq!(ring.take(2), Some(0));
    // Both are busy.
    assert_eq!(submit(&mut ring), Some(0));
    assert_eq!(submit(&mut ring), None, "all are awake");
    assert_eq!(ring.take(1), Some(0));
    assert_eq!(ring.take(1), Some(0));
    assert_eq!(ring.take(0), None);
    assert_eq!(ring.take(1), None);
    assert_eq!(submit(&mut ring), Some(1));
    assert_eq!(ring.take(1), Some(0));
    assert!(!ring.end_turn(1));
    assert!(!ring.end_turn(2));
    for expected in [Some(1), Some(2), Some(0), None] {
        assert_eq!(submit(&mut ring), expected);
    }
    assert_eq!(ring.take(1), Some(0));
    assert!(ring.end_turn(1), "three wait");
    assert_eq!(submit(&mut ring), None);
    ring.close();
    assert_eq!(ring.push(0), Err(0));
}

// SPDX-License-Identifier: GPL-2.0

//! The run queues: order, limits, runs that are given up, and threads.

#![cfg(not(loom))]

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use super::{
    harness::{batch, ring, Flow},
    *,
};
use crate::kapi::alloc::{fail_after, GFP_KERNEL};

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
    [&first, &second, &third].map(|run| work(&**run));
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
    let most = MAX_QUEUED_PACKETS as u32;
    let run = flow.add(1, batch(1..=most)).unwrap();
    assert!(flow.add(2, batch([0])).is_none());
    work(&*run);
    let last = flow.add(2, batch([most + 1])).unwrap();
    work(&*last);
    drop([run, last]);
    assert!(flow.finished().into_iter().eq(1..=most + 1));
}

#[test]
fn without_memory_for_a_run_its_packets_go() {
    let flow = Flow::new();
    assert!(add(&flow.fifo, batch([1]), |_| true, |_| None).is_none());
    assert_eq!(flow.finished(), []);
}

#[test]
fn a_claim_is_for_one_and_only_while_nothing_waits() {
    let flow = Flow::new();
    let claim = Claim::idle(&flow.fifo).unwrap();
    assert!(Claim::idle(&flow.fifo).is_none());
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
fn a_run_without_room_in_the_ring_is_given_up() {
    let (flow, ring) = (Flow::new(), ring(2));
    let mut woken = 0;
    for id in 1..=4 {
        let run = flow.add(id, batch([id])).unwrap();
        submit(&ring, run, || woken += 1);
    }
    assert_eq!(woken, 2);
    work_off(&ring, || ());
    assert_eq!(flow.finished(), [1, 2]);
}

#[test]
fn a_ring_keeps_the_order_all_the_way_round() {
    let mut ring = Ring::new(4, GFP_KERNEL).unwrap();
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
    fail_after(Some(0));
    let made = Ring::<u32>::new(4, GFP_KERNEL);
    fail_after(None);
    assert!(matches!(made, Err(AllocError)));
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
    let (flow, ring) = (Flow::new(), ring(16));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    work_off(&ring, || ());
                    thread::yield_now();
                }
            });
        }
        let send = |id: u32| {
            if id % 3 != 0 || !flow.inline(id) {
                if let Some(run) = flow.add(id / 8, batch([id])) {
                    submit(&ring, run, || ());
                }
            }
        };
        let other = scope.spawn(move || (EACH..2 * EACH).for_each(send));
        (0..EACH).for_each(send);
        other.join().unwrap();
        done.store(true, SeqCst);
    });
    work_off(&ring, || ());
    let (low, high): (Vec<_>, Vec<_>) = flow.finished().into_iter().partition(|&id| id < EACH);
    assert!(low.is_sorted() && high.is_sorted());
    assert!(!low.is_empty() && !high.is_empty());
}

// SPDX-License-Identifier: GPL-2.0-only

//! Order, bounds and shares, against a naive queue.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::kapi::alloc::{fail_after, GFP_KERNEL};

impl List for VecDeque<(u64, u32)> {
    type Item = (u64, u32);

    fn count(&self) -> usize {
        self.len()
    }

    fn push(&mut self, item: Self::Item) {
        self.push_back(item);
    }

    fn pop(&mut self) -> Option<Self::Item> {
        self.pop_front()
    }
}

type Queue = FairQueue<VecDeque<(u64, u32)>>;

#[test]
fn one_source_may_fill_it_and_keeps_its_order() {
    let mut queue = Queue::new(8, GFP_KERNEL).unwrap();
    for n in 0..8 {
        assert_eq!(queue.push(5, (5, n)), None);
    }
    assert_eq!(queue.push(5, (5, 8)), Some((5, 8)));
    for n in 0..8 {
        assert_eq!(queue.pop(), Some((5, n)));
    }
    assert_eq!(queue.pop(), None);
}

#[test]
fn whoever_fills_it_makes_room_for_others_and_does_not_delay_them() {
    let mut queue = Queue::new(64, GFP_KERNEL).unwrap();
    (0..64).for_each(|n| assert_eq!(queue.push(1, (1, n)), None));
    assert_eq!(queue.push(2, (2, 0)), Some((1, 0)));
    assert_eq!(queue.len(), 64);
    let first_two = [queue.pop().unwrap(), queue.pop().unwrap()];
    assert!(first_two.contains(&(2, 0)), "{first_two:?}");
    assert_eq!(queue.push(1, (1, 64)), None);
}

#[test]
fn two_that_fill_it_share_it_evenly() {
    let mut queue = Queue::new(64, GFP_KERNEL).unwrap();
    for n in 0..1000 {
        let _ = queue.push(3, (3, n));
    }
    for n in 0..1000 {
        let _ = queue.push(4, (4, n));
    }
    let (mut threes, mut fours) = (0, 0);
    while let Some((source, _)) = queue.pop() {
        *(if source == 3 { &mut threes } else { &mut fours }) += 1;
    }
    assert_eq!((threes, fours), (32, 32));
}

#[test]
fn it_needs_memory() {
    fail_after(Some(0));
    let made = Queue::new(8, GFP_KERNEL);
    fail_after(None);
    assert!(matches!(made, Err(AllocError)));
}

proptest! {
    /// Nothing is lost but what `push` gives back, each source keeps its order, the bound holds,
    /// and a source waits for at most one item of each other.
    #[test]
    fn behaves(steps in prop::collection::vec((0u64..70, prop::bool::weighted(0.6)), 1..400)) {
        let max = 40;
        let mut queue = Queue::new(max, GFP_KERNEL).unwrap();
        let mut waiting: Vec<VecDeque<(u64, u32)>> = vec![VecDeque::new(); BUCKETS];
        for (n, (source, is_push)) in (0..).zip(steps) {
            if is_push {
                let item = (source, n);
                let evicted = queue.push(source, item);
                let own = source as usize % BUCKETS;
                if evicted != Some(item) {
                    waiting[own].push_back(item);
                    if let Some(evicted) = evicted {
                        let longest = waiting.iter().map(VecDeque::len).max().unwrap();
                        let theirs = &mut waiting[evicted.0 as usize % BUCKETS];
                        prop_assert!(theirs.len() + 1 >= longest);
                        prop_assert_eq!(theirs.pop_front(), Some(evicted));
                    }
                }
            } else if let Some(item) = queue.pop() {
                prop_assert_eq!(waiting[item.0 as usize % BUCKETS].pop_front(), Some(item));
            } else {
                prop_assert!(waiting.iter().all(VecDeque::is_empty));
            }
            prop_assert_eq!(queue.len(), waiting.iter().map(VecDeque::len).sum::<usize>());
            prop_assert!(queue.len() <= max);
        }
        let sources = waiting.iter().filter(|bucket| !bucket.is_empty()).count();
        let next = |_| queue.pop().unwrap().0 % BUCKETS as u64;
        let mut first: Vec<_> = (0..sources).map(next).collect();
        first.sort_unstable();
        first.dedup();
        prop_assert_eq!(first.len(), sources);
    }
}

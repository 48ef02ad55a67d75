// SPDX-License-Identifier: GPL-2.0-only

//! Turns: shares, limits, order, the end.

use std::collections::VecDeque;

use super::*;
use crate::{
    kapi::{alloc::GFP_KERNEL, sync::spinlock_bh::SpinLockBh},
    new_spinlock_bh,
};

/// Numbers.
#[derive(Debug, Default, PartialEq)]
struct List(VecDeque<u32>);

impl Packets for List {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl Items for List {
    fn split_front(&mut self, most: usize) -> Self {
        Self(self.0.drain(..most.min(self.0.len())).collect())
    }
}

fn list(numbers: impl IntoIterator<Item = u32>) -> List {
    List(numbers.into_iter().collect())
}

struct Peer(LockedBy<Flow<Peer>, Turns<Peer>>);

impl HasFlow for Peer {
    type Items = List;

    fn flow(&self) -> &LockedBy<Flow<Self>, Turns<Self>> {
        &self.0
    }
}

type Context = Box<SpinLockBh<Turns<Peer>>>;

fn context() -> Context {
    Box::new(new_spinlock_bh!(Turns::new()))
}

fn peers<const N: usize>(context: &Context) -> [RcuArc<Peer>; N] {
    [(); N].map(|()| RcuArc::new(Peer(Flow::new(&context.lock())), GFP_KERNEL).unwrap())
}

const MOST: usize = 100;

#[test]
fn whoever_has_much_waits_for_those_that_have_little() {
    let context = context();
    let [heavy, light, third] = peers(&context);
    let mut turns = context.lock();
    turns.add(&heavy, list(0..10), MOST).unwrap();
    turns.add(&light, list([100]), MOST).unwrap();
    turns.add(&heavy, list(10..12), MOST).unwrap();
    turns.add(&third, list([200, 201]), MOST).unwrap();
    assert_eq!(turns.take(4), Some(list(0..4)));
    assert_eq!(turns.take(4), Some(list([100])));
    turns.add(&light, list([101]), MOST).unwrap();
    assert_eq!(turns.take(1), Some(list([200])));
    assert_eq!(turns.take(4), Some(list(4..8)));
    assert_eq!(turns.take(4), Some(list([101])));
    assert_eq!(turns.take(4), Some(list([201])));
    assert_eq!(turns.take(4), Some(list(8..12)));
    assert!(turns.is_empty());
    assert_eq!(turns.take(4), None);
    // And again from the start.
    turns.add(&light, list([7]), MOST).unwrap();
    assert_eq!(turns.take(4), Some(list([7])));
}

#[test]
fn a_full_flow_costs_its_owner_only() {
    let context = context();
    let [heavy, light] = peers(&context);
    let mut turns = context.lock();
    turns.add(&heavy, list(0..MOST as u32), MOST).unwrap();
    assert_eq!(turns.add(&heavy, list([1]), MOST), Err(list([1])));
    turns.add(&light, list([100]), MOST).unwrap();
    assert_eq!(turns.take(1), Some(list([0])));
    turns.add(&heavy, list([1000]), MOST).unwrap();
}

#[test]
fn nothing_is_kept_when_all_is_over() {
    let context = context();
    let [one, two, stranger] = peers(&context);
    context.lock().add(&one, list([1]), MOST).unwrap();
    context.lock().add(&two, list([2]), MOST).unwrap();
    context.lock().close();
    assert_eq!(context.lock().add(&two, list([3]), MOST), Err(list([3])));
    while context.lock().take(usize::MAX).is_some() {}
    for peer in [&one, &two] {
        assert_eq!(RcuArc::ref_count(peer), 1);
    }
    // A flow goes with the turns that it was made for.
    let other = self::context();
    assert_eq!(other.lock().add(&stranger, list([4]), MOST), Err(list([4])));
}

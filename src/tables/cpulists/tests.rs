// SPDX-License-Identifier: GPL-2.0-only

//! Order, one place at a time, the end.

use super::*;
use crate::{
    kapi::{alloc::GFP_KERNEL, sync::spinlock_bh::SpinLockBh},
    new_spinlock_bh,
};

struct Peer {
    id: u32,
    links: [LockedBy<Link<Peer>, CpuLists<Peer>>; 2],
}

impl Listed for Peer {
    type Role = usize;

    fn link(&self, role: usize) -> &LockedBy<Link<Self>, CpuLists<Self>> {
        &self.links[role]
    }
}

type Lists = Box<SpinLockBh<CpuLists<Peer>>>;

fn lists(cpus: u32) -> Lists {
    Box::new(new_spinlock_bh!(CpuLists::new(cpus, GFP_KERNEL).unwrap()))
}

fn peers<const N: usize>(lists: &Lists) -> [RcuArc<Peer>; N] {
    let mut id = 0;
    [(); N].map(|()| {
        id += 1;
        let lists = lists.lock();
        let links = [Link::new(&lists), Link::new(&lists)];
        RcuArc::new(Peer { id, links }, GFP_KERNEL).unwrap()
    })
}

fn all(lists: &Lists, cpu: u32) -> Vec<(u32, usize)> {
    let mut all = Vec::new();
    loop {
        let taken = lists.lock().take(cpu);
        let Some((peer, role)) = taken else {
            return all;
        };
        all.push((peer.id, role));
    }
}

fn empty(lists: &Lists) -> [bool; 2] {
    let lists = lists.lock();
    [0, 1].map(|cpu| lists.is_empty(cpu))
}

#[test]
fn each_is_listed_once_in_a_role_and_comes_in_order() {
    let lists = lists(2);
    let [one, two, three] = peers(&lists);
    for (cpu, peer, role) in [
        (0, &one, 0),
        (0, &two, 0),
        (0, &one, 1),
        // Again, on the same list and on another.
        (0, &one, 0),
        (1, &two, 0),
        (1, &three, 1),
        (0, &three, 0),
    ] {
        assert!(lists.lock().add(cpu, peer, role));
    }
    assert_eq!(empty(&lists), [false, false]);
    assert_eq!(all(&lists, 0), [(1, 0), (2, 0), (1, 1), (3, 0)]);
    assert_eq!(all(&lists, 1), [(3, 1)]);
    assert_eq!(empty(&lists), [true, true]);
    // Taken off one, it may be on another.
    assert!(lists.lock().add(1, &two, 0));
    assert_eq!(all(&lists, 1), [(2, 0)]);
    assert_eq!([&one, &two, &three].map(|peer| peer.ref_count()), [1; 3]);
}

#[test]
fn whoever_is_taken_may_come_again_behind_the_others() {
    let lists = lists(1);
    let [one, two] = peers(&lists);
    for peer in [&one, &two] {
        assert!(lists.lock().add(0, peer, 0));
    }
    for _ in 0..3 {
        for peer in [&one, &two] {
            let taken = lists.lock().take(0).map(|(peer, _)| peer.id);
            assert_eq!(taken, Some(peer.id));
            assert!(lists.lock().add(0, peer, 0));
        }
    }
    assert_eq!(all(&lists, 0), [(1, 0), (2, 0)]);
}

#[test]
fn in_the_end_nobody_is_taken_in() {
    let lists = lists(2);
    let [one, two] = peers(&lists);
    assert!(lists.lock().add(1, &one, 0));
    assert!(!lists.lock().add(2, &two, 0), "there is no such CPU");
    lists.lock().close();
    assert!(!lists.lock().add(0, &two, 0));
    let taken = lists.lock().take_any().map(|(peer, _)| peer.id);
    assert_eq!(taken, Some(1));
    assert!(lists.lock().take_any().is_none());
    assert_eq!([&one, &two].map(|peer| peer.ref_count()), [1; 2]);
}

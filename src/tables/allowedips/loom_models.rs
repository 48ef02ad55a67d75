// SPDX-License-Identifier: GPL-2.0-only

//! Every interleaving of a lookup with a change of the trie. How to run them: see the models in
//! `peerlookup/tests.rs`.

#![cfg(loom)]

use loom::thread;

use super::*;
use crate::kapi::{alloc::GFP_KERNEL, sync::rcu::read_lock};

type Writer = AllowedIpsWriter<usize>;

fn net(addr: [u8; 4], cidr: u8) -> Prefix {
    Prefix::new(addr.into(), cidr).unwrap()
}

/// Looks up 10.0.0.1 while `change` runs on a table with these prefixes of peers 0, 1, …; returns
/// whose the address was.
fn race(prefixes: &[Prefix], change: impl FnOnce(&mut Writer, &[RcuArc<usize>])) -> usize {
    let (table, mut writer) = AllowedIps::new(GFP_KERNEL).unwrap();
    let peers: Vec<_> = (0..3)
        .map(|id| RcuArc::new(id, GFP_KERNEL).unwrap())
        .collect();
    for (prefix, peer) in prefixes.iter().zip(&peers) {
        writer.insert(*prefix, peer, GFP_KERNEL).unwrap();
    }
    let reader = thread::spawn(move || {
        let guard = read_lock();
        let found = table.lookup(&guard, [10, 0, 0, 1].into());
        *found.expect("the address always has an owner").get()
    });
    change(&mut writer, &peers);
    writer.table.v4.check();
    reader.join().unwrap()
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(f);
}

#[test]
fn a_prefix_changes_hands_without_a_gap() {
    model(|| {
        let prefixes = [net([0, 0, 0, 0], 0), net([10, 0, 0, 0], 8)];
        let found = race(&prefixes, |writer, peers| {
            writer.insert(prefixes[1], &peers[2], GFP_KERNEL).unwrap();
        });
        assert!(found == 1 || found == 2);
    });
}

#[test]
fn nodes_around_a_prefix_come_and_go() {
    model(|| {
        let found = race(&[net([10, 0, 0, 0], 24)], |writer, peers| {
            // A fork above it, and its end.
            let beside = net([10, 0, 1, 0], 24);
            writer.insert(beside, &peers[1], GFP_KERNEL).unwrap();
            assert!(writer.remove(beside, &peers[1]));
        });
        assert_eq!(found, 0);
    });
    model(|| {
        let found = race(&[net([10, 0, 0, 0], 24)], |writer, peers| {
            let above = net([10, 0, 0, 0], 8);
            writer.insert(above, &peers[1], GFP_KERNEL).unwrap();
            assert!(writer.remove(above, &peers[1]));
        });
        assert_eq!(found, 0);
    });
}

#[test]
fn removing_a_chain_hides_nothing_below() {
    model(|| {
        let prefixes = [
            net([10, 0, 0, 1], 32),
            net([10, 0, 0, 0], 8),
            net([10, 0, 0, 0], 16),
        ];
        let found = race(&prefixes, |writer, peers| {
            assert!(writer.remove(prefixes[1], &peers[1]));
            assert!(writer.remove(prefixes[2], &peers[2]));
        });
        assert_eq!(found, 0);
    });
}

// SPDX-License-Identifier: GPL-2.0-only

//! The hash tables: oracles, races, failing allocations, and models of their races for loom.

use super::*;
use crate::kapi::{alloc::GFP_KERNEL, sync::rcu::read_lock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Handshake(u32),
    Keypair(u32),
}
use Entry::{Handshake, Keypair};

fn is(expected: Entry) -> impl FnOnce(&Entry) -> bool {
    move |entry| *entry == expected
}

/// One bucket: everything collides.
fn crowded() -> IndexTable<Entry> {
    IndexTable::with_buckets(1, GFP_KERNEL).unwrap()
}

impl IndexTable<Entry> {
    fn at(&self, index: u32) -> Option<Entry> {
        self.lookup(&read_lock(), index).copied()
    }

    fn add(&self, index: u32, entry: Entry) {
        assert_eq!(self.insert(entry, || index, GFP_KERNEL), Ok(index));
    }
}

#[cfg(not(loom))]
mod host {
    use core::sync::atomic::{
        AtomicBool, AtomicU32, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    };
    use std::{collections::HashMap, sync::Barrier};

    use proptest::{
        collection::vec,
        prelude::*,
        test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
    };

    use super::*;
    use crate::kapi::{alloc::fail_after, sync::rcu::barrier};

    #[test]
    fn indices_are_drawn_until_one_is_free() {
        let table = IndexTable::new(GFP_KERNEL).unwrap();
        table.add(7, Handshake(1));
        // The same bucket, another index.
        table.add(7 + 8192, Handshake(2));
        let mut draws = [7, 7 + 8192, 7, 0].into_iter();
        let index = table.insert(Handshake(3), || draws.next().unwrap(), GFP_KERNEL);
        assert_eq!(index, Ok(0), "zero is an index like any other");
        assert_eq!(draws.next(), None);
        assert_eq!(table.at(7), Some(Handshake(1)));
        assert_eq!(table.at(7 + 8192), Some(Handshake(2)));
        assert_eq!(table.at(0), Some(Handshake(3)));
        assert_eq!(table.at(8192), None);
        assert_eq!(table.at(u32::MAX), None);
        // A broken random number generator does not hang the machine.
        let mut draws = 0;
        let draw = || {
            draws += 1;
            7
        };
        assert_eq!(
            table.insert(Handshake(4), draw, GFP_KERNEL),
            Err(AllocError)
        );
        assert_eq!(draws, INDEX_TRIES);
        assert_eq!(table.at(7), Some(Handshake(1)));
    }

    #[test]
    fn an_index_passes_from_handshake_to_keypair() {
        let table = crowded();
        for index in [4, 5, 6] {
            table.add(index, Handshake(index));
        }
        let replaced = table.replace(5, is(Handshake(5)), Keypair(50), GFP_KERNEL);
        assert_eq!(replaced, Ok(true));
        assert_eq!(table.at(5), Some(Keypair(50)));
        // The handshake ends; the index is no longer its own.
        assert!(!table.remove(5, is(Handshake(5))));
        assert_eq!(table.at(5), Some(Keypair(50)));
        // Nor can it become another session.
        let replaced = table.replace(5, is(Handshake(5)), Keypair(51), GFP_KERNEL);
        assert_eq!(replaced, Ok(false));
        assert_eq!(table.at(5), Some(Keypair(50)));
        assert!(table.remove(5, is(Keypair(50))));
        assert!(!table.remove(5, |_| true));
        assert_eq!(table.at(5), None);
        // What is gone cannot be replaced: that would bring a removed peer back.
        let replaced = table.replace(5, |_| true, Keypair(52), GFP_KERNEL);
        assert_eq!(replaced, Ok(false));
        assert_eq!(table.at(5), None);
        assert_eq!(table.at(4), Some(Handshake(4)));
        assert_eq!(table.at(6), Some(Handshake(6)));
    }

    #[test]
    fn without_memory_nothing_changes() {
        fail_after(Some(0));
        assert!(IndexTable::<Entry>::new(GFP_KERNEL).is_err());
        fail_after(Some(1));
        assert!(PubkeyTable::<u32>::new(GFP_KERNEL).is_err());
        fail_after(None);
        let table = crowded();
        let peers = PubkeyTable::new(GFP_KERNEL).unwrap();
        let peer = RcuArc::new(5, GFP_KERNEL).unwrap();
        table.add(1, Handshake(1));
        fail_after(Some(0));
        assert!(table.insert(Handshake(2), || 2, GFP_KERNEL).is_err());
        assert!(table.replace(1, |_| true, Keypair(1), GFP_KERNEL).is_err());
        assert!(peers.insert([1; 32], peer.clone(), GFP_KERNEL).is_err());
        assert_eq!(table.at(1), Some(Handshake(1)));
        assert_eq!(table.at(2), None);
        barrier();
        assert_eq!(peer.ref_count(), 1);
        assert!(table.remove(1, |_| true));
        fail_after(None);
    }

    #[test]
    fn entries_are_freed_when_their_readers_are_gone() {
        let table = IndexTable::with_buckets(1, GFP_KERNEL).unwrap();
        let value = RcuArc::new(0, GFP_KERNEL).unwrap();
        for index in 0..100 {
            table.insert(value.clone(), || index, GFP_KERNEL).unwrap();
        }
        assert_eq!(value.ref_count(), 101);
        let guard = read_lock();
        let found = table.lookup(&guard, 50).unwrap();
        for index in 0..50 {
            assert!(table.remove(index, |_| true));
            assert!(table.remove(99 - index, |_| true));
        }
        assert_eq!(found.ref_count(), 101);
        drop(guard);
        barrier();
        assert_eq!(value.ref_count(), 1);
        for index in 0..10_000 {
            table.insert(value.clone(), || index, GFP_KERNEL).unwrap();
        }
        drop(table);
        barrier();
        assert_eq!(value.ref_count(), 1);
    }

    #[test]
    fn peers_by_public_key() {
        for buckets in [1, PUBKEY_BUCKETS] {
            let table = PubkeyTable::with_buckets(buckets, GFP_KERNEL).unwrap();
            let key = |n: usize| core::array::from_fn(|at| (n >> (at % 4 * 8)) as u8);
            let peers: Vec<_> = (0..500)
                .map(|n| RcuArc::new(n, GFP_KERNEL).unwrap())
                .collect();
            for (n, peer) in peers.iter().enumerate() {
                let inserted = table.insert(key(n), peer.clone(), GFP_KERNEL);
                assert_eq!(inserted, Ok(true));
            }
            let guard = read_lock();
            for (n, peer) in peers.iter().enumerate() {
                let found = table.lookup(&guard, &key(n)).unwrap();
                assert!(RcuArc::ptr_eq(found, peer));
            }
            assert!(table.lookup(&guard, &key(500)).is_none());
            drop(guard);
            // A key is taken only once, and given back only by its peer.
            let again = table.insert(key(3), peers[4].clone(), GFP_KERNEL);
            assert_eq!(again, Ok(false));
            assert!(!table.remove(&key(3), &peers[4]));
            assert!(table.remove(&key(3), &peers[3]));
            assert!(!table.remove(&key(3), &peers[3]));
            barrier();
            assert_eq!(peers[3].ref_count(), 1);
            assert!(table.lookup(&read_lock(), &key(3)).is_none());
            assert_eq!(table.insert(key(3), peers[4].clone(), GFP_KERNEL), Ok(true));
            assert_eq!(peers[4].ref_count(), 3);
            drop(table);
            barrier();
            assert!(peers.iter().all(|peer| peer.ref_count() == 1));
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u32, u32),
        Replace(u32, u32, u32),
        Remove(u32, u32),
    }

    #[test]
    fn the_table_agrees_with_the_oracle() {
        let op = prop_oneof![
            (0..40_u32, 0..3_u32).prop_map(|(i, v)| Op::Insert(i, v)),
            (0..40_u32, 0..3_u32, 0..3_u32).prop_map(|(i, old, v)| Op::Replace(i, old, v)),
            (0..40_u32, 0..3_u32).prop_map(|(i, v)| Op::Remove(i, v)),
        ];
        let config = Config {
            cases: 200,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, rng)
            .run(&vec(op, 1..300), |ops| {
                let table = IndexTable::with_buckets(4, GFP_KERNEL).unwrap();
                let mut oracle = HashMap::new();
                for op in ops {
                    match op {
                        Op::Insert(index, value) => {
                            let free = !oracle.contains_key(&index);
                            let inserted = table.insert(value, || index, GFP_KERNEL);
                            prop_assert_eq!(inserted.is_ok(), free);
                            oracle.entry(index).or_insert(value);
                        }
                        Op::Replace(index, old, value) => {
                            let meant = oracle.get(&index) == Some(&old);
                            let replaced = table.replace(index, |v| *v == old, value, GFP_KERNEL);
                            prop_assert_eq!(replaced, Ok(meant));
                            if meant {
                                oracle.insert(index, value);
                            }
                        }
                        Op::Remove(index, value) => {
                            let meant = oracle.get(&index) == Some(&value);
                            prop_assert_eq!(table.remove(index, |v| *v == value), meant);
                            if meant {
                                oracle.remove(&index);
                            }
                        }
                    }
                }
                for index in 0..41 {
                    let guard = read_lock();
                    prop_assert_eq!(table.lookup(&guard, index), oracle.get(&index));
                }
                Ok(())
            })
            .unwrap();
    }

    /// A peer is removed while its handshake becomes a session: whoever comes first, nothing of
    /// the peer is left in the table.
    #[test]
    fn replacing_races_with_removing() {
        const ROUNDS: u32 = 5000;
        let table = crowded();
        let barrier = Barrier::new(2);
        let replaced = AtomicUsize::new(0);
        std::thread::scope(|s| {
            s.spawn(|| {
                for round in 0..ROUNDS {
                    table.add(round, Handshake(round));
                    barrier.wait();
                    let done =
                        table.replace(round, is(Handshake(round)), Keypair(round), GFP_KERNEL);
                    if done == Ok(true) {
                        replaced.fetch_add(1, Relaxed);
                        // The session that came into being is the one to clean up.
                        assert!(table.remove(round, is(Keypair(round))));
                    }
                    barrier.wait();
                    assert_eq!(table.at(round), None);
                }
            });
            s.spawn(|| {
                for round in 0..ROUNDS {
                    barrier.wait();
                    let removed = table.remove(round, is(Handshake(round)));
                    barrier.wait();
                    let sessions = replaced.swap(0, Relaxed);
                    assert_eq!(usize::from(removed) + sessions, 1, "round {round}");
                }
            });
        });
    }

    #[test]
    fn readers_find_their_entry_whatever_happens_beside_it() {
        let table = crowded();
        let (done, state) = (AtomicBool::new(false), AtomicU32::new(0));
        for index in [10, 20, 30] {
            table.add(index, Keypair(index));
        }
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    while !done.load(SeqCst) {
                        for index in [10, 20, 30] {
                            assert_eq!(table.at(index), Some(Keypair(index)));
                        }
                        // This one is replaced all the time, upwards, and never absent.
                        let before = state.load(SeqCst);
                        match table.at(15) {
                            Some(Handshake(n)) => assert!(n >= before),
                            found => assert!(before == 0 && found.is_none()),
                        }
                    }
                });
            }
            s.spawn(|| {
                for n in 1..20_000 {
                    // New entries come first: 15 and the others take turns before each other.
                    table.add(40, Handshake(n));
                    if n == 1 {
                        table.add(15, Handshake(1));
                    } else {
                        let replaced =
                            table.replace(15, is(Handshake(n - 1)), Handshake(n), GFP_KERNEL);
                        assert_eq!(replaced, Ok(true));
                    }
                    state.store(n, SeqCst);
                    table.add(50, Handshake(n));
                    assert!(table.remove(40, is(Handshake(n))));
                    assert!(table.remove(50, is(Handshake(n))));
                    let index = [10, 20, 30][n as usize % 3];
                    let replaced = table.replace(index, |_| true, Keypair(index), GFP_KERNEL);
                    assert_eq!(replaced, Ok(true));
                }
                done.store(true, SeqCst);
            });
        });
    }
}

/// Every interleaving, up to the bound that loom is given: `RUSTFLAGS="--cfg loom" cargo test
/// --release --lib loom`.
#[cfg(loom)]
mod loom_models {
    use loom::{sync::Arc, thread};

    use super::*;

    fn model(f: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(3);
        builder.check(f);
    }

    #[test]
    fn replace_or_remove_wins() {
        model(|| {
            let table = Arc::new(crowded());
            table.add(5, Handshake(5));
            let other = table.clone();
            let removing = thread::spawn(move || other.remove(5, is(Handshake(5))));
            let replaced = table.replace(5, is(Handshake(5)), Keypair(5), GFP_KERNEL);
            let removed = removing.join().unwrap();
            assert_eq!(replaced, Ok(!removed));
            assert_eq!(table.at(5), (!removed).then_some(Keypair(5)));
        });
    }

    #[test]
    fn a_replaced_entry_is_never_absent() {
        model(|| {
            let table = Arc::new(crowded());
            table.add(5, Handshake(5));
            let other = table.clone();
            let reading = thread::spawn(move || other.at(5));
            let replaced = table.replace(5, is(Handshake(5)), Keypair(5), GFP_KERNEL);
            assert_eq!(replaced, Ok(true));
            let found = reading.join().unwrap();
            assert!(matches!(found, Some(Handshake(5) | Keypair(5))));
        });
    }

    /// The reader stands on entries that lose their successors: 7, then 6, come before 5.
    #[test]
    fn removing_others_hides_nothing() {
        model(|| {
            let table = Arc::new(crowded());
            table.add(5, Handshake(5));
            table.add(6, Handshake(6));
            table.add(7, Handshake(7));
            let other = table.clone();
            let reading = thread::spawn(move || other.at(5));
            assert!(table.remove(6, |_| true));
            assert!(table.remove(7, |_| true));
            assert_eq!(reading.join().unwrap(), Some(Handshake(5)));
            assert_eq!(table.at(6), None);
        });
    }

    #[test]
    fn replacing_others_hides_nothing() {
        model(|| {
            let table = Arc::new(crowded());
            table.add(5, Handshake(5));
            table.add(6, Handshake(6));
            let other = table.clone();
            let reading = thread::spawn(move || other.at(5));
            let replaced = table.replace(6, |_| true, Keypair(6), GFP_KERNEL);
            assert_eq!(replaced, Ok(true));
            assert!(table.remove(6, is(Keypair(6))));
            assert_eq!(reading.join().unwrap(), Some(Handshake(5)));
        });
    }
}

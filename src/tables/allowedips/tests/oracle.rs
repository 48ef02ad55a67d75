// SPDX-License-Identifier: GPL-2.0-only

//! Random operations on the trie and on a plain list of prefixes.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Insert(usize, Prefix),
    Remove(usize, Prefix),
    RemovePeer(usize),
    RemoveAll,
}

const PEERS: usize = 4;

/// Prefixes that often share their beginnings: a few bits set, anywhere.
fn prefix() -> impl Strategy<Value = Prefix> {
    (
        any::<bool>(),
        vec(0..128_u32, 0..4),
        any::<bool>(),
        0..=128_u8,
    )
        .prop_map(|(v6, bits, inverted, cidr)| {
            let mut key = bits.into_iter().fold(0_u128, |key, bit| key | (1 << bit));
            if inverted {
                key = !key;
            }
            if v6 {
                Prefix::new(Ipv6Addr::from(key).into(), cidr).unwrap()
            } else {
                // All 128 places of a bit fold into 32.
                let key = key as u32 ^ (key >> 32) as u32 ^ (key >> 64) as u32 ^ (key >> 96) as u32;
                Prefix::new(Ipv4Addr::from(key).into(), cidr % 33).unwrap()
            }
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (0..PEERS, prefix()).prop_map(|(peer, prefix)| Op::Insert(peer, prefix)),
        30 => (0..PEERS, prefix()).prop_map(|(peer, prefix)| Op::Remove(peer, prefix)),
        2 => (0..PEERS).prop_map(Op::RemovePeer),
        1 => Just(Op::RemoveAll),
    ]
}

/// The prefixes in the order of their insertion, and nothing clever.
#[derive(Default)]
struct Oracle(Vec<(usize, Prefix)>);

impl Oracle {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Insert(peer, prefix) => {
                self.0.retain(|entry| entry.1 != prefix);
                self.0.push((peer, prefix));
            }
            Op::Remove(peer, prefix) => self.0.retain(|entry| *entry != (peer, prefix)),
            Op::RemovePeer(peer) => self.0.retain(|entry| entry.0 != peer),
            Op::RemoveAll => self.0.clear(),
        }
    }

    fn lookup(&self, addr: IpAddr) -> Option<usize> {
        self.0
            .iter()
            .filter(|(_, prefix)| Prefix::new(addr, prefix.cidr()) == Some(*prefix))
            .max_by_key(|(_, prefix)| prefix.cidr())
            .map(|(peer, _)| *peer)
    }

    fn list(&self, peer: usize) -> Vec<Prefix> {
        let of_peer = self.0.iter().filter(|entry| entry.0 == peer);
        of_peer.map(|entry| entry.1).collect()
    }
}

/// The first and the last address of a network and their neighbours outside.
fn boundaries(prefix: Prefix) -> Vec<IpAddr> {
    match prefix.addr() {
        IpAddr::V4(addr) => {
            let first = u32::from(addr);
            let last = first | u32::MAX.checked_shr(prefix.cidr().into()).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|addr| Ipv4Addr::from(addr).into())
                .into()
        }
        IpAddr::V6(addr) => {
            let first = u128::from(addr);
            let last = first | u128::MAX.checked_shr(prefix.cidr().into()).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|addr| Ipv6Addr::from(addr).into())
                .into()
        }
    }
}

#[test]
fn the_trie_agrees_with_the_oracle() {
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng)
        .run(&vec(op(), 1..120), |ops| {
            let mut f = Fixture::new(PEERS);
            let mut oracle = Oracle::default();
            let mut seen = Vec::new();
            for op in &ops {
                let had = oracle.0.len();
                oracle.apply(op);
                match *op {
                    Op::Insert(peer, prefix) => {
                        seen.push(prefix);
                        let result = f.writer.insert(prefix, &f.peers[peer], GFP_KERNEL);
                        prop_assert!(result.is_ok());
                    }
                    Op::Remove(peer, prefix) => {
                        let removed = f.writer.remove(prefix, &f.peers[peer]);
                        prop_assert_eq!(removed, oracle.0.len() < had);
                    }
                    Op::RemovePeer(peer) => f.writer.remove_by_peer(&f.peers[peer]),
                    Op::RemoveAll => f.writer.remove_all(),
                }
                let (with, without) = f.check();
                prop_assert_eq!(with, oracle.0.len());
                prop_assert!(without < with.max(1), "no empty node is left over");
            }
            for addr in seen.into_iter().flat_map(boundaries) {
                prop_assert_eq!(f.lookup(addr), oracle.lookup(addr), "{}", addr);
            }
            for peer in 0..PEERS {
                let list = oracle.list(peer);
                prop_assert_eq!(f.peers[peer].ref_count(), 1 + list.len());
                prop_assert_eq!(f.list(peer), list);
            }
            Ok(())
        })
        .unwrap();
}

/// Removals hit what is there: half of the operations remove a known prefix.
#[test]
fn a_long_life_of_one_table() {
    let mut f = Fixture::new(PEERS);
    let mut oracle = Oracle::default();
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for step in 0..20_000 {
        let op = if oracle.0.len() < 400 && random(2) == 0 || oracle.0.is_empty() {
            // Few different bits, so that every kind of spot is common.
            let key = ((random(64) as u32) << 26) | ((random(8) as u32) << 10);
            let addr = Ipv4Addr::from(key).into();
            let prefix = Prefix::new(addr, random(33) as u8).unwrap();
            Op::Insert(random(PEERS), prefix)
        } else {
            let (peer, prefix) = oracle.0[random(oracle.0.len())];
            Op::Remove(peer, prefix)
        };
        oracle.apply(&op);
        match op {
            Op::Insert(peer, prefix) => {
                f.writer.insert(prefix, &f.peers[peer], GFP_KERNEL).unwrap();
            }
            Op::Remove(peer, prefix) => assert!(f.writer.remove(prefix, &f.peers[peer])),
            _ => unreachable!(),
        }
        if step % 100 == 0 {
            let (with, without) = f.check();
            assert_eq!(with, oracle.0.len());
            assert!(without < with.max(1));
            for &(_, prefix) in &oracle.0 {
                for addr in boundaries(prefix) {
                    assert_eq!(f.lookup(addr), oracle.lookup(addr));
                }
            }
        }
    }
    for peer in 0..PEERS {
        assert_eq!(f.list(peer), oracle.list(peer));
    }
}

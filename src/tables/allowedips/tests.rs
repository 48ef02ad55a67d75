// SPDX-License-Identifier: GPL-2.0-only

//! The trie at its edges, with failing allocations and concurrent readers, and ([`oracle`])
//! against a naive one.

#![cfg(not(loom))]

mod oracle;

use core::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};
use std::sync::Arc;

use super::*;
use crate::kapi::{
    alloc::{fail_after, GFP_KERNEL},
    sync::rcu::{barrier, read_lock},
};

struct Peer {
    id: usize,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// A table with some peers, and the number of them that have been freed.
struct Fixture {
    table: RcuArc<AllowedIps<Peer>>,
    writer: AllowedIpsWriter<Peer>,
    peers: Vec<RcuArc<Peer>>,
    dropped: Arc<AtomicUsize>,
}

impl Fixture {
    fn new(peers: usize) -> Self {
        let dropped = Arc::new(AtomicUsize::new(0));
        let peer = |id| Peer {
            id,
            dropped: dropped.clone(),
        };
        let (table, writer) = AllowedIps::new(GFP_KERNEL).unwrap();
        let peers = (0..peers)
            .map(|id| RcuArc::new(peer(id), GFP_KERNEL).unwrap())
            .collect();
        Self {
            table,
            writer,
            peers,
            dropped,
        }
    }

    fn insert(&mut self, prefix: &str, peer: usize) {
        self.replace(prefix, peer);
    }

    /// Gives a prefix to a peer and tells which had it before.
    fn replace(&mut self, prefix: &str, peer: usize) -> Option<usize> {
        let before = self
            .writer
            .insert(net(prefix), &self.peers[peer], GFP_KERNEL)
            .unwrap()?;
        self.peers
            .iter()
            .position(|peer| RcuArc::ptr_eq(peer, &before))
    }

    fn remove(&mut self, prefix: &str, peer: usize) -> bool {
        self.writer.remove(net(prefix), &self.peers[peer])
    }

    fn lookup(&self, addr: IpAddr) -> Option<usize> {
        self.table
            .lookup(&read_lock(), addr)
            .map(|peer| peer.get().id)
    }

    #[track_caller]
    fn expect(&self, addr: &str, peer: Option<usize>) {
        assert_eq!(self.lookup(addr.parse().unwrap()), peer, "{addr}");
    }

    fn list(&mut self, peer: usize) -> Vec<Prefix> {
        let peer = &self.peers[peer];
        let mut list = Vec::new();
        let mut seq = 0;
        while let Some((found, prefix)) = self.writer.prefixes_from(peer, seq).next() {
            assert!(found >= seq);
            list.push(prefix);
            seq = found + 1;
        }
        // At one go it is the same.
        let walked = self.writer.prefixes_from(peer, 0).map(|(_, prefix)| prefix);
        assert!(walked.eq(list.iter().copied()));
        list
    }

    /// Checks the tries and returns the numbers of prefixes and of nodes without one.
    fn check(&self) -> (usize, usize) {
        let (v4, v6) = (self.table.v4.check(), self.table.v6.check());
        (v4.0 + v6.0, v4.1 + v6.1)
    }

    /// All that can be observed, for comparisons.
    fn snapshot(&mut self) -> (Vec<Vec<Prefix>>, (usize, usize)) {
        let lists = (0..self.peers.len()).map(|peer| self.list(peer)).collect();
        (lists, self.check())
    }
}

#[track_caller]
fn net(prefix: &str) -> Prefix {
    let (addr, cidr) = prefix.split_once('/').unwrap();
    Prefix::new(addr.parse().unwrap(), cidr.parse().unwrap()).unwrap()
}

fn nets(prefixes: &[&str]) -> Vec<Prefix> {
    prefixes.iter().map(|prefix| net(prefix)).collect()
}

#[test]
fn prefixes_are_canonical_and_in_range() {
    let show = |p: Prefix| format!("{}/{}", p.addr(), p.cidr());
    for (given, canonical) in [
        ("192.168.77.255/24", "192.168.77.0/24"),
        ("255.255.255.255/0", "0.0.0.0/0"),
        ("255.255.255.255/1", "128.0.0.0/1"),
        ("10.1.2.3/31", "10.1.2.2/31"),
        ("10.1.2.3/32", "10.1.2.3/32"),
        ("ffff::1/0", "::/0"),
        ("ffff::1/1", "8000::/1"),
        ("1:2:3:4:5:6:7:8/64", "1:2:3:4::/64"),
        ("1:2:3:4:5:6:7:9/127", "1:2:3:4:5:6:7:8/127"),
        ("1:2:3:4:5:6:7:9/128", "1:2:3:4:5:6:7:9/128"),
    ] {
        assert_eq!(show(net(given)), canonical);
    }
    for (addr, bits) in [("10.1.2.3", 32), ("fe80::1", 128)] {
        let addr: IpAddr = addr.parse().unwrap();
        assert!(Prefix::new(addr, bits).is_some());
        assert!(Prefix::new(addr, bits + 1).is_none());
        assert!(Prefix::new(addr, 255).is_none());
    }
}

#[test]
fn longest_prefix_wins() {
    let mut f = Fixture::new(6);
    f.expect("10.0.0.1", None);
    for (prefix, peer) in [
        ("0.0.0.0/0", 0),
        ("10.0.0.0/8", 1),
        ("10.1.0.0/16", 2),
        ("10.1.2.0/24", 3),
        ("10.1.2.3/32", 4),
        ("10.1.128.0/17", 5),
        ("::/0", 0),
        ("2001:db8::/32", 1),
        ("2001:db8:0:1::/64", 2),
        ("2001:db8:0:1::5/128", 3),
        ("::ffff:10.1.2.3/128", 4),
    ] {
        f.insert(prefix, peer);
    }
    for (addr, peer) in [
        ("9.255.255.255", 0),
        ("10.0.0.0", 1),
        ("10.255.255.255", 1),
        ("11.0.0.0", 0),
        ("10.0.255.255", 1),
        ("10.1.0.0", 2),
        ("10.1.127.255", 2),
        ("10.1.128.0", 5),
        ("10.1.255.255", 5),
        ("10.2.0.0", 1),
        ("10.1.2.2", 3),
        ("10.1.2.3", 4),
        ("10.1.2.4", 3),
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", 0),
        ("2001:db8::", 1),
        ("2001:db8:0:1::4", 2),
        ("2001:db8:0:1::5", 3),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", 2),
        ("2001:db8:0:2::", 1),
        ("::ffff:10.1.2.3", 4),
        ("::ffff:10.1.2.4", 0),
    ] {
        f.expect(addr, Some(peer));
    }
    assert!(f.remove("0.0.0.0/0", 0));
    f.expect("11.0.0.0", None);
    f.expect("11::", Some(0));
    assert_eq!(f.check().0, 10);
}

#[test]
fn the_shortest_and_the_longest_prefixes() {
    let mut f = Fixture::new(4);
    f.insert("0.0.0.0/0", 0);
    f.expect("0.0.0.0", Some(0));
    f.expect("255.255.255.255", Some(0));
    f.expect("::", None);
    f.insert("0.0.0.0/1", 1);
    f.insert("128.0.0.0/1", 2);
    f.expect("127.255.255.255", Some(1));
    f.expect("128.0.0.0", Some(2));
    f.insert("255.255.255.255/32", 3);
    f.insert("255.255.255.254/32", 1);
    f.expect("255.255.255.255", Some(3));
    f.expect("255.255.255.254", Some(1));
    f.expect("255.255.255.253", Some(2));
    f.insert("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 3);
    f.insert("::/128", 2);
    f.expect("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(3));
    f.expect("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", None);
    f.expect("::", Some(2));
    f.expect("::1", None);
    f.check();
}

#[test]
fn removing_takes_exactly_what_was_meant() {
    let mut f = Fixture::new(2);
    f.insert("10.0.0.0/8", 0);
    f.insert("10.0.0.0/24", 0);
    f.insert("10.0.1.0/24", 1);
    assert_eq!(f.check(), (3, 1), "the two /24 part under a fork");
    let before = f.snapshot();
    for (prefix, peer) in [
        ("10.0.0.0/9", 0),
        ("10.0.0.0/23", 0),
        ("10.0.0.0/25", 0),
        ("10.0.0.0/8", 1),
        ("10.0.1.0/24", 0),
        ("0.0.0.0/0", 0),
        ("11.0.0.0/8", 0),
        ("10.0.0.0/32", 0),
        ("::/0", 0),
    ] {
        assert!(!f.remove(prefix, peer), "{prefix} of {peer}");
        assert_eq!(f.snapshot(), before);
    }
    assert!(
        f.remove("10.0.0.77/24", 0),
        "bits behind the prefix do not count"
    );
    assert_eq!(f.check(), (2, 0), "the fork went with its branch");
    assert!(!f.remove("10.0.0.0/24", 0));
    f.expect("10.0.0.1", Some(0));
    f.expect("10.0.1.1", Some(1));
    assert!(f.remove("10.0.0.0/8", 0));
    f.expect("10.0.0.1", None);
    f.expect("10.0.1.1", Some(1));
    assert!(f.remove("10.0.1.0/24", 1));
    assert_eq!(f.check(), (0, 0));
}

#[test]
fn a_prefix_moves_to_the_end_of_its_new_owners_list() {
    let mut f = Fixture::new(2);
    for prefix in ["10.0.0.0/8", "fd00::/8", "10.1.0.0/16", "192.168.0.1/32"] {
        f.insert(prefix, 0);
    }
    assert_eq!(f.replace("1.1.1.1/32", 1), None);
    assert_eq!(f.replace("fd00::1/8", 1), Some(0));
    assert_eq!(
        f.list(0),
        nets(&["10.0.0.0/8", "10.1.0.0/16", "192.168.0.1/32"])
    );
    assert_eq!(f.list(1), nets(&["1.1.1.1/32", "fd00::/8"]));
    f.expect("fd00::5", Some(1));
    // Again for the same peer: it moves as well.
    f.insert("10.0.0.0/8", 0);
    assert_eq!(
        f.list(0),
        nets(&["10.1.0.0/16", "192.168.0.1/32", "10.0.0.0/8"])
    );
    // Its own reference, and one for each of its prefixes.
    assert_eq!(f.peers[0].ref_count(), 4);
    assert_eq!(f.peers[1].ref_count(), 3);
    f.writer.remove_by_peer(&f.peers[0]);
    assert_eq!(f.list(0), []);
    assert_eq!(f.peers[0].ref_count(), 1);
    assert_eq!(f.list(1), nets(&["1.1.1.1/32", "fd00::/8"]));
    assert_eq!(f.check(), (2, 0));
    f.writer.remove_all();
    assert_eq!(f.peers[1].ref_count(), 1);
    assert_eq!(f.check(), (0, 0));
    assert_eq!(f.list(1), []);
}

#[test]
fn a_dump_goes_on_whatever_happens_between_its_steps() {
    let mut f = Fixture::new(2);
    let prefix = |n: u8| Prefix::new([10, 0, 0, n].into(), 32).unwrap();
    for n in 0..6 {
        f.writer.insert(prefix(n), &f.peers[0], GFP_KERNEL).unwrap();
    }
    let (first, found) = f.writer.prefixes_from(&f.peers[0], 0).next().unwrap();
    assert_eq!(found, prefix(0));
    let (second, found) = f
        .writer
        .prefixes_from(&f.peers[0], first + 1)
        .next()
        .unwrap();
    assert_eq!(found, prefix(1));
    // Asking again gives the same.
    assert_eq!(
        f.writer.prefixes_from(&f.peers[0], second).next(),
        Some((second, prefix(1)))
    );
    // The last one seen goes, the next one goes to the other peer, one to the end of the list.
    assert!(f.writer.remove(prefix(1), &f.peers[0]));
    f.writer.insert(prefix(2), &f.peers[1], GFP_KERNEL).unwrap();
    f.writer.insert(prefix(3), &f.peers[0], GFP_KERNEL).unwrap();
    let mut rest = Vec::new();
    let mut seq = second + 1;
    while let Some((found, prefix)) = f.writer.prefixes_from(&f.peers[0], seq).next() {
        rest.push(prefix);
        seq = found + 1;
    }
    assert_eq!(rest, [prefix(4), prefix(5), prefix(3)]);
    // Everything goes while the dump stands in the middle.
    f.writer.remove_all();
    assert_eq!(f.writer.prefixes_from(&f.peers[0], second).next(), None);
    f.writer.insert(prefix(9), &f.peers[0], GFP_KERNEL).unwrap();
    let (again, found) = f.writer.prefixes_from(&f.peers[0], seq).next().unwrap();
    assert!(again >= seq, "numbers are never used twice");
    assert_eq!(found, prefix(9));
    assert_eq!(f.writer.prefixes_from(&f.peers[0], u64::MAX).next(), None);
}

/// All 129 prefixes of one IPv6 address.
fn nested() -> impl Iterator<Item = Prefix> {
    (0..=128).map(|cidr| Prefix::new(Ipv6Addr::from(u128::MAX / 3).into(), cidr).unwrap())
}

#[test]
fn the_deepest_path_works_and_goes_without_recursion() {
    let addr = IpAddr::from(Ipv6Addr::from(u128::MAX / 3));
    for order in 0..4 {
        let mut f = Fixture::new(2);
        let mut prefixes: Vec<_> = nested().collect();
        if order % 2 == 1 {
            prefixes.reverse();
        }
        for prefix in &prefixes {
            let owner = usize::from(prefix.cidr() != 128);
            f.writer
                .insert(*prefix, &f.peers[owner], GFP_KERNEL)
                .unwrap();
        }
        assert_eq!(f.check(), (129, 0));
        assert_eq!(f.lookup(addr), Some(0));
        // A reader is inside all the while: what is unlinked piles up until it leaves.
        let guard = read_lock();
        let table = f.table.clone();
        let inside = table.lookup(&guard, addr).unwrap();
        if order < 2 {
            for (n, prefix) in prefixes.iter().enumerate() {
                let owner = usize::from(prefix.cidr() != 128);
                assert!(f.writer.remove(*prefix, &f.peers[owner]));
                assert_eq!(f.check(), (128 - n, 0));
            }
        } else {
            f.writer.remove_all();
        }
        f.expect("::", None);
        assert_eq!(f.lookup(addr), None);
        let dropped = f.dropped.clone();
        drop(f);
        assert_eq!(dropped.load(SeqCst), 0, "while the reader is there");
        assert_eq!(inside.get().id, 0);
        assert!(inside.upgrade().is_none());
        drop(guard);
        barrier();
        assert_eq!(dropped.load(SeqCst), 2);
    }
}

#[test]
fn dropping_the_writer_empties_the_table() {
    // As deep as can be, and on a stack on which a recursive drop would not get far.
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(|| {
            let mut f = Fixture::new(1);
            for prefix in nested() {
                f.writer.insert(prefix, &f.peers[0], GFP_KERNEL).unwrap();
            }
            for n in 0..20_000_u32 {
                let addr = Ipv4Addr::from(n.wrapping_mul(0x9e37_79b9)).into();
                let prefix = Prefix::new(addr, (n % 33) as u8).unwrap();
                f.writer.insert(prefix, &f.peers[0], GFP_KERNEL).unwrap();
            }
            let Fixture {
                table,
                writer,
                peers,
                dropped,
            } = f;
            drop(writer);
            assert_eq!(table.v4.check(), (0, 0));
            assert_eq!(table.v6.check(), (0, 0));
            assert_eq!(peers[0].ref_count(), 1);
            drop(table);
            drop(peers);
            barrier();
            assert_eq!(dropped.load(SeqCst), 1);
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn many_prefixes_on_one_peer() {
    const MANY: u32 = 130_000;
    let mut f = Fixture::new(2);
    let prefix = |n: u32| {
        let addr = (u128::from(n.wrapping_mul(0x9e37_79b9)) << 64) | u128::from(n);
        Prefix::new(Ipv6Addr::from(addr).into(), 128).unwrap()
    };
    for n in 0..MANY {
        f.writer.insert(prefix(n), &f.peers[0], GFP_KERNEL).unwrap();
    }
    assert_eq!(f.check().0, MANY as usize);
    for (n, found) in f.list(0).into_iter().enumerate() {
        assert_eq!(found, prefix(n as u32));
    }
    for n in (0..MANY).step_by(3) {
        assert!(f.writer.remove(prefix(n), &f.peers[0]));
    }
    for n in (1..MANY).step_by(3) {
        f.writer.insert(prefix(n), &f.peers[1], GFP_KERNEL).unwrap();
    }
    for n in 0..100 {
        let owner = [None, Some(1), Some(0)][n as usize % 3];
        assert_eq!(f.lookup(prefix(n).addr()), owner);
    }
    f.writer.remove_by_peer(&f.peers[0]);
    assert_eq!(f.peers[0].ref_count(), 1);
    assert_eq!(f.check().0, f.list(1).len());
    f.writer.remove_all();
    assert_eq!(f.peers[1].ref_count(), 1);
}

#[test]
fn without_memory_nothing_changes() {
    let mut f = Fixture::new(2);
    for prefix in ["10.0.0.0/16", "10.128.0.0/16", "fd00::/64"] {
        f.insert(prefix, 0);
    }
    // The entry of the list; a leaf; a fork.
    for (prefix, allocations) in [
        ("10.0.0.0/16", 1), // at a prefix of the other peer
        ("10.0.0.0/8", 1),  // at the fork
        ("10.0.1.0/24", 2), // under a prefix
        ("0.0.0.0/0", 2),   // above all
        ("10.1.0.0/16", 3), // beside another
        ("fd00:1::/64", 3),
    ] {
        let before = f.snapshot();
        for enough in 0..allocations {
            fail_after(Some(enough));
            let result = f.writer.insert(net(prefix), &f.peers[1], GFP_KERNEL);
            fail_after(None);
            assert!(matches!(result, Err(AllocError)), "{prefix} {enough}");
            assert_eq!(f.snapshot(), before);
            barrier();
            assert_eq!(f.peers[1].ref_count(), 1 + f.list(1).len());
        }
        fail_after(Some(allocations));
        let result = f.writer.insert(net(prefix), &f.peers[1], GFP_KERNEL);
        fail_after(Some(0));
        assert!(result.is_ok(), "{prefix}");
        // Taking away needs no memory.
        assert!(f.writer.remove(net("10.128.0.0/16"), &f.peers[0]));
        fail_after(None);
        f.insert("10.128.0.0/16", 0);
        assert_eq!(f.peers[1].ref_count(), 1 + f.list(1).len());
    }
    fail_after(Some(0));
    f.writer.remove_by_peer(&f.peers[0]);
    f.writer.remove_all();
    assert!(AllowedIps::<Peer>::new(GFP_KERNEL).is_err());
    fail_after(None);
    assert_eq!(f.check(), (0, 0));
}

#[test]
fn readers_see_no_gap_while_the_trie_changes() {
    let mut f = Fixture::new(4);
    f.insert("0.0.0.0/0", 3);
    f.insert("10.1.2.0/24", 0);
    let table = f.table.clone();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (table, done) = (table.clone(), done.clone());
            std::thread::spawn(move || {
                let mut lookups = 0_u64;
                while !done.load(SeqCst) || lookups < 100 {
                    let guard = read_lock();
                    // It changes hands between peers 0 and 1, and never is without one.
                    let moving = table.lookup(&guard, [10, 1, 2, 3].into()).unwrap();
                    assert!(moving.id <= 1, "{}", moving.id);
                    // A longer prefix of peer 2 comes and goes.
                    let id = table.lookup(&guard, [10, 1, 2, 99].into()).unwrap().id;
                    assert!(id <= 2, "{id}");
                    let other = table.lookup(&guard, [192, 168, 0, 1].into()).unwrap();
                    assert!(other.id >= 2);
                    if let Some(peer) = other.upgrade() {
                        assert!(peer.id >= 2);
                    }
                    lookups += 1;
                }
            })
        })
        .collect();
    for n in 0..4000 {
        f.insert("10.1.2.0/24", n % 2);
        // Nodes come and go above, beside and below.
        f.insert("10.0.0.0/8", 0);
        f.insert("10.1.3.0/24", 2);
        f.insert("10.1.2.99/32", 2);
        f.insert("10.1.2.98/32", 0);
        f.insert("192.168.0.0/16", 2);
        if n % 3 == 0 {
            f.writer.remove_by_peer(&f.peers[2]);
        }
        assert!(f.remove("10.0.0.0/8", 0));
        assert!(f.remove("10.1.2.98/32", 0));
    }
    done.store(true, SeqCst);
    for reader in readers {
        reader.join().unwrap();
    }
    f.check();
}

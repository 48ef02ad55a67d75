// SPDX-License-Identifier: GPL-2.0-only

//! The rate limiter in virtual time.

#![cfg(not(loom))]

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::kapi::alloc::{fail_after, GFP_ATOMIC, GFP_KERNEL};

const MS: u64 = 1_000_000;
/// The clock need not start at zero.
const START: u64 = 12_345 * SECOND_NS + 678;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn limiter(max_sources: usize) -> Ratelimiter {
    Ratelimiter::new(max_sources, GFP_KERNEL).unwrap()
}

impl Ratelimiter {
    fn sources(&self) -> usize {
        let sources = self.shards.iter().map(|shard| {
            let inner = shard.lock();
            inner.current.len + inner.previous.len
        });
        sources.sum()
    }

    /// How many of `packets` at this moment pass.
    fn burst(&self, text: &str, now: u64, packets: usize) -> usize {
        (0..packets)
            .filter(|_| self.allow(1, addr(text), now, GFP_KERNEL))
            .count()
    }
}

#[test]
fn five_at_once_then_one_each_twentieth_of_a_second() {
    for source in ["192.0.2.1", "2001:db8::1"] {
        let l = limiter(8);
        assert_eq!(l.burst(source, START, 10), 5);
        assert_eq!(l.burst(source, START + 50 * MS - 1, 10), 0);
        assert_eq!(l.burst(source, START + 50 * MS, 10), 1);
        assert_eq!(l.burst(source, START + 150 * MS, 10), 2);
        assert_eq!(l.burst(source, START + 399 * MS, 10), 4);
        assert_eq!(l.burst(source, START + 400 * MS, 10), 1);
        // What is saved up is bounded, however long it takes.
        assert_eq!(l.burst(source, START + 990 * MS, 10), 5);
        assert_eq!(l.burst(source, START + 3600 * SECOND_NS, 10), 5);
    }
}

#[test]
fn a_flood_gets_its_rate_and_no_more_across_generations() {
    for interval in [MS / 3, MS, 7 * MS, 49 * MS] {
        let l = limiter(8);
        let mut passed = 0;
        let mut now = START;
        while now < START + 30 * SECOND_NS {
            passed += l.burst("192.0.2.1", now, 1);
            now += interval;
        }
        let expected = 30 * PER_SECOND as usize + BURST as usize;
        assert!((expected - 7..=expected).contains(&passed), "{passed}");
    }
}

#[test]
fn at_the_rate_nothing_is_lost() {
    let l = limiter(8);
    for n in 0..1000 {
        assert_eq!(l.burst("192.0.2.1", START + n * 50 * MS, 1), 1);
    }
}

#[test]
fn sources_are_apart_and_networks_together() {
    let l = limiter(100);
    for (source, passes) in [
        ("192.0.2.1", 5),
        ("192.0.2.2", 5),
        ("192.0.2.1", 0),
        ("2001:db8:1:2::1", 5),
        ("2001:db8:1:2:ffff::", 0),
        ("2001:db8:1:3::1", 5),
        ("2001:db8:1:1:ffff:ffff:ffff:ffff", 5),
        // Not the IPv4 address, but the network ::/64.
        ("::ffff:192.0.2.1", 5),
        ("::1", 0),
        // The same number as ::/64 has.
        ("0.0.0.0", 5),
    ] {
        assert_eq!(l.burst(source, START, 9), passes, "{source}");
    }
    // Another namespace has the same addresses.
    assert!(l.allow(2, addr("192.0.2.1"), START, GFP_ATOMIC));
    assert_eq!(l.sources(), 8);
}

#[test]
fn the_table_is_bounded_and_makes_room() {
    let l = limiter(16);
    let source = |n: u32| IpAddr::from(n.to_be_bytes());
    let allow = |n, now| l.allow(1, source(n), now, GFP_KERNEL);
    for n in 0..40 {
        assert_eq!(allow(n, START), n < 16);
    }
    assert_eq!(l.sources(), 16);
    // Those that are in it are still served.
    assert!(allow(0, START + 999 * MS));
    // The others not: that one was heard of within the last second, and so may others have been.
    assert!(!allow(100, START + SECOND_NS));
    assert_eq!(l.sources(), 16);
    assert!(allow(1, START + 1500 * MS));
    // Now all but 1 have been silent for long enough.
    assert!(allow(100, START + 2000 * MS));
    assert_eq!(l.sources(), 2);
    for n in 200..214 {
        assert!(allow(n, START + 2000 * MS));
    }
    assert!(!allow(300, START + 2000 * MS));
    // After a long silence everything goes at once.
    assert!(allow(300, START + 9000 * MS));
    assert_eq!(l.sources(), 1);
    assert!(!limiter(0).allow(1, source(1), START, GFP_KERNEL));
}

#[test]
fn the_clock_may_step_back_and_be_extreme() {
    let l = limiter(8);
    assert_eq!(l.burst("192.0.2.1", START, 5), 5);
    assert_eq!(l.burst("192.0.2.1", START - SECOND_NS, 5), 0);
    assert_eq!(l.burst("192.0.2.1", 0, 5), 0);
    // The steps back have not been counted as time that went by.
    assert_eq!(l.burst("192.0.2.1", START + 49 * MS, 5), 0);
    assert_eq!(l.burst("192.0.2.1", START + 50 * MS, 5), 1);
    assert_eq!(l.burst("192.0.2.1", u64::MAX, 9), 5);
    assert_eq!(l.burst("192.0.2.1", u64::MAX, 9), 0);
    assert_eq!(l.burst("192.0.2.2", 0, 9), 5);
}

#[test]
fn without_memory_the_unknown_wait() {
    assert!(Ratelimiter::new(8, GFP_KERNEL).is_ok());
    fail_after(Some(0));
    assert!(Ratelimiter::new(8, GFP_KERNEL).is_err());
    fail_after(None);
    let l = limiter(8);
    assert_eq!(l.burst("192.0.2.1", START, 1), 1);
    fail_after(Some(0));
    assert_eq!(l.burst("192.0.2.2", START, 9), 0);
    assert_eq!(l.burst("192.0.2.1", START, 9), 4);
    // Moving to the next generation takes no memory.
    assert_eq!(l.burst("192.0.2.1", START + SECOND_NS, 9), 5);
    fail_after(None);
    assert_eq!(l.sources(), 1);
}

#[test]
fn concurrent_callers_share_one_bucket() {
    let l = limiter(8);
    let passed = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for step in 0..2000 {
                    // A second in all.
                    let now = START + step * MS / 2;
                    passed.fetch_add(l.burst("192.0.2.1", now, 1), SeqCst);
                }
            });
        }
    });
    let passed = passed.load(SeqCst);
    assert!(passed <= (PER_SECOND + BURST) as usize, "{passed}");
    assert!(passed >= BURST as usize);
    assert_eq!(l.sources(), 1);
}

#[test]
fn all_are_forgotten_once_it_is_quiet() {
    let limiter = limiter(100);
    let quiet = u64::from(FORGOTTEN_AFTER_MS) * MS;
    // Whenever within a generation the last message comes.
    for (round, last) in [0, 1, 400, 999, 1000, 1001, 1999, 2500]
        .into_iter()
        .enumerate()
    {
        let start = START + round as u64 * 100 * SECOND_NS;
        for n in 0..10 {
            limiter.burst(&format!("192.0.2.{n}"), start, 1);
        }
        limiter.burst("192.0.2.99", start + last * MS, 1);
        limiter.forget(start + last * MS);
        assert!(limiter.sources() > 0);
        limiter.forget(start + last * MS + quiet);
        assert_eq!(limiter.sources(), 0, "the last after {last} ms");
    }
    // Empty as it is.
    limiter.forget(u64::MAX);
}

#[test]
fn the_bound_grows_with_the_memory() {
    for (memory, max) in [
        (0, 128),
        (1 << 20, 128),
        (64 << 20, 4096),
        (100 << 20, 8192),
        (512 << 20, 32_768),
        (1 << 30, 65_536),
        ((1 << 30) + 1, 65_536),
        (u64::MAX, 65_536),
    ] {
        assert_eq!(Ratelimiter::max_sources_for_memory(memory), max);
    }
}

#[test]
fn a_big_limiter_is_divided_and_limits_all_the_same() {
    let l = limiter(MIN_DIVIDED);
    assert_eq!(l.shards.len(), SHARDS);
    for n in 0..100 {
        assert_eq!(l.burst(&format!("192.0.2.{n}"), START, 10), 5);
    }
    assert_eq!(l.sources(), 100);
    assert!(l.forget(START + SECOND_NS));
    assert!(!l.forget(START + 2 * SECOND_NS));
    // A flood of addresses stays within the bound of its shards.
    for n in 0..10 * MIN_DIVIDED as u32 {
        let address = IpAddr::V4(n.into());
        l.allow(1, address, START + 3 * SECOND_NS, GFP_KERNEL);
    }
    assert_eq!(l.sources(), MIN_DIVIDED);
}

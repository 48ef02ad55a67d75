// SPDX-License-Identifier: GPL-2.0-only
//! The soak test: in each round some [`ACTORS`], drawn at random, disturb one tunnel side by side
//! for a few seconds. After each round everything that they made is gone, the tunnel carries
//! packets without having been configured anew, the kernel has logged no warning, and no memory is
//! missing.
//!
//! The seed decides who acts in which round, for how long, and with which values; how the threads
//! interleave it cannot decide.

mod config;
mod flood;
mod links;
mod machine;
mod place;
mod traffic;

use anyhow::{anyhow, bail, ensure, Context, Result};
use harness::checkers::kmemleak_watches;
use harness::kmsg::{bad_lines, Kmsg};
use harness::memory::Memory;
use harness::pace::slow;
use harness::runner::Ctx;
use place::Place;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long, at least.
    pub time: Duration,
    /// The seed.
    pub seed: u64,
}

/// Does one thing again and again while the place is busy; returns how often. It removes what it
/// has added, except from the tunnel's two devices, which [`Place::restore`] takes care of.
type Act = fn(&Place, &mut StdRng) -> Result<u64>;

/// Everyone who may act in a round, by name.
const ACTORS: [(&str, Act); 16] = [
    ("flood of initiations", flood::initiations),
    ("flood of responses", flood::responses),
    ("flood of garbage", flood::garbage),
    ("datagrams", traffic::datagrams),
    ("TCP stream", traffic::stream),
    ("handshakes", traffic::handshakes),
    ("peers", config::peers),
    ("allowed IPs", config::allowed_ips),
    ("keys and ports", config::settings),
    ("dumps", config::dumps),
    ("up and down", links::up_down),
    ("link add and del", links::add_del),
    ("namespaces", links::namespaces),
    ("CPU hotplug", machine::hotplug),
    ("memory pressure", machine::pressure),
    ("suspend", machine::suspend),
];

/// The number of actors of a round.
const SIDE_BY_SIDE: std::ops::RangeInclusive<usize> = 3..=6;
/// How long they act, in milliseconds.
const SPAN: std::ops::Range<u64> = 500..3000;

/// How much more memory may be in use than after the first rounds, in bytes: objects in slabs and
/// per-CPU memory, and everything. What is leaked adds up from round to round.
const GROWTH: [i64; 2] = [1 << 20, 64 << 20];

/// How long a run may take beyond its time, for actors that have done nothing yet.
const GRACE: Duration = Duration::from_secs(120);

/// Runs rounds until the time is over and every actor has done something.
pub fn run(ctx: &Ctx, plan: Plan) -> Result<()> {
    ctx.note(format!("seed {}", plan.seed));
    let mut soak = Soak {
        place: Place::new(ctx)?,
        log: Kmsg::at_end()?,
        deck: Deck::new(plan.seed),
        done: BTreeMap::new(),
        base: None,
        caches: String::new(),
    };
    let start = Instant::now();
    let mut round = 0;
    let mut result = Ok(());
    while result.is_ok() {
        let late = start.elapsed().saturating_sub(plan.time);
        if !late.is_zero() && (soak.idle().is_none() || late > slow(GRACE)) {
            break;
        }
        round += 1;
        result = soak.round(ctx, plan.seed, round);
    }
    let rows: Vec<Vec<String>> = std::iter::zip(ACTORS, 0..)
        .map(|((name, _), n)| {
            let (rounds, strokes) = soak.done.get(&n).copied().unwrap_or_default();
            vec![name.to_owned(), rounds.to_string(), strokes.to_string()]
        })
        .collect();
    ctx.table("soak: rounds and operations of each actor", &rows);
    let secs = start.elapsed().as_secs();
    ctx.note(format!("{round} rounds in {secs} s, seed {}", plan.seed));
    ctx.note(format!("slab caches that grew, bytes: {}", soak.caches));
    result.with_context(|| format!("seed {}, round {round}", plan.seed))?;
    match soak.idle() {
        Some(name) => bail!("{name}: never done"),
        None => Ok(()),
    }
}

struct Soak {
    place: Place,
    log: Kmsg,
    deck: Deck,
    /// Rounds and operations of each actor.
    done: BTreeMap<usize, (u64, u64)>,
    /// Memory in use after the rounds in which every actor acted once.
    base: Option<Memory>,
    /// The slab caches that have grown most since.
    caches: String,
}

impl Soak {
    /// An actor who has done nothing yet.
    fn idle(&self) -> Option<&'static str> {
        let done = |n| self.done.get(&n).is_some_and(|done| done.1 > 0);
        let mut idle = (0..ACTORS.len()).filter(|n| !done(*n));
        idle.next().map(|n| ACTORS[n].0)
    }

    fn round(&mut self, ctx: &Ctx, seed: u64, round: u64) -> Result<()> {
        let (actors, span) = self.deck.deal();
        let names: Vec<&str> = actors.iter().map(|n| ACTORS[*n].0).collect();
        let names = names.join(", ");
        // Printed first: a hang ends the test from outside.
        ctx.note(format!("round {round}, {} ms: {names}", span.as_millis()));
        self.act(&actors, span, seed, round).context(names)?;
        let recovery = self.place.restore()?;
        let bad = self.log.drain()?;
        let bad = bad_lines(&bad);
        ensure!(bad.is_empty(), "kernel log: {}", bad.join("; "));
        let memory = self.memory()?;
        ctx.note(format!(
            "  the tunnel works after {:.2} s; memory: {memory}",
            recovery.as_secs_f64()
        ));
        Ok(())
    }

    /// Lets `actors` act side by side.
    fn act(&mut self, actors: &[usize], span: Duration, seed: u64, round: u64) -> Result<()> {
        self.place.begin(span);
        let place = &self.place;
        let strokes: Vec<Result<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = actors
                .iter()
                .map(|n| {
                    let own = seed ^ (round << 8) ^ (*n as u64);
                    scope.spawn(move || {
                        let result = ACTORS[*n].1(place, &mut StdRng::seed_from_u64(own));
                        if result.is_err() {
                            place.stop();
                        }
                        result.context(ACTORS[*n].0)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| {
                    t.join()
                        .unwrap_or_else(|_| Err(anyhow!("an actor panicked")))
                })
                .collect()
        });
        for (n, strokes) in std::iter::zip(actors, strokes) {
            let done = self.done.entry(*n).or_default();
            done.0 += 1;
            done.1 += strokes?;
        }
        Ok(())
    }

    /// Compares the memory in use with that of earlier rounds.
    fn memory(&mut self) -> Result<String> {
        let now = Memory::shrunk()?;
        let Some(base) = &self.base else {
            if self.done.len() == ACTORS.len() {
                self.base = Some(now);
                return Ok("base".to_owned());
            }
            return Ok("not yet compared".to_owned());
        };
        let grown = now.since(base);
        let kib = |bytes: i64| bytes >> 10;
        let text = format!(
            "objects {:+}, per CPU {:+}, all {:+} KiB",
            kib(grown.objects()),
            kib(grown.percpu),
            kib(grown.all)
        );
        self.caches = format!("{:?}", grown.top_caches(8));
        // A kernel that delays the reuse of freed memory has kmemleak instead.
        let too_much = grown.objects() + grown.percpu > GROWTH[0] || grown.all > GROWTH[1];
        if too_much && !kmemleak_watches() {
            bail!("memory in use has grown: {text}");
        }
        Ok(text)
    }
}

/// Deals the actors: everyone acts once before anyone acts again.
struct Deck {
    rng: StdRng,
    left: Vec<usize>,
}

impl Deck {
    fn new(seed: u64) -> Self {
        Deck {
            rng: StdRng::seed_from_u64(seed),
            left: Vec::new(),
        }
    }

    /// The actors of the next round, and how long they act.
    fn deal(&mut self) -> (Vec<usize>, Duration) {
        let count = self.rng.random_range(SIDE_BY_SIDE);
        let mut hand: Vec<usize> = Vec::new();
        while hand.len() < count {
            if self.left.is_empty() {
                self.left = (0..ACTORS.len()).filter(|n| !hand.contains(n)).collect();
                self.left.shuffle(&mut self.rng);
            }
            hand.extend(self.left.pop());
        }
        let span = Duration::from_millis(self.rng.random_range(SPAN));
        (hand, span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everyone_acts() {
        let mut deck = Deck::new(3);
        let mut seen = BTreeSet::new();
        for _ in 0..ACTORS.len().div_ceil(*SIDE_BY_SIDE.start()) {
            let (hand, _) = deck.deal();
            let distinct: BTreeSet<_> = hand.iter().collect();
            assert_eq!(distinct.len(), hand.len());
            seen.extend(hand);
        }
        assert_eq!(seen.len(), ACTORS.len());
    }

    #[test]
    fn the_seed_decides() {
        let hands = |seed| -> Vec<_> {
            let mut deck = Deck::new(seed);
            (0..5).map(|_| deck.deal()).collect()
        };
        assert_eq!(hands(1), hands(1));
        assert_ne!(hands(1), hands(2));
    }
}

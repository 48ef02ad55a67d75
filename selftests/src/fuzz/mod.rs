// SPDX-License-Identifier: GPL-2.0-only
//! The differential fuzzer of the netlink interface: the same requests go to a device of the
//! in-tree driver and to one of ours, and every answer and every dump must be identical.
//!
//! A disagreement is minimised on fresh devices and printed with the seed that leads to it.

mod generate;
mod message;
mod shrink;
mod whole;

pub use whole::fuzz_whole;

use anyhow::{Context, Result};
use generate::{Generator, TAKEN_PORT};
use harness::gnl::{Answer, Part, Request};
use harness::netlink::attrs;
use harness::pair::{get, Answers, Pair, SIDES};
use harness::wgdev::uapi::{device, peer};
use message::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Requests on the same devices before fresh ones are created.
const ROUND: usize = 2500;
/// Requests in one system call, each followed by a GET.
const BATCH: usize = 25;
/// How many candidates the minimiser tries.
const BUDGET: usize = 500;

/// Two devices that should behave alike.
pub trait Twins {
    /// Creates them again, unconfigured.
    fn fresh(&mut self, up: bool) -> Result<()>;
    /// Sends the same requests to both.
    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Answers>>;
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of requests.
    pub cases: usize,
    /// Seed of the first round; each later round uses the next number.
    pub seed: u64,
}

/// A list of requests that the devices answer differently.
#[derive(Debug)]
pub struct Finding {
    /// The seed of the round that found it, and the request's number in that round.
    pub seed: u64,
    pub case: usize,
    /// The devices were up.
    pub up: bool,
    /// The smallest list found; the last one shows the difference.
    pub messages: Vec<Message>,
    /// How the answers differ, in words.
    pub difference: String,
    /// False if fresh devices do not reproduce it: then the list is what was sent last.
    pub reproduced: bool,
}

/// The outcome.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of requests sent.
    pub cases: usize,
    /// How often each result occurred.
    pub tally: BTreeMap<String, usize>,
    /// The first disagreement, if there was one.
    pub finding: Option<Finding>,
    pub took: Duration,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.up { "up" } else { "down" };
        writeln!(
            f,
            "the modules disagree at case {} of seed {} (devices {state}); {}:",
            self.case,
            self.seed,
            if self.reproduced {
                "the smallest list that reproduces it on fresh devices"
            } else {
                "not reproduced on fresh devices; the last requests"
            }
        )?;
        for message in &self.messages {
            write!(f, "{}", message.pretty())?;
        }
        write!(f, "{}", self.difference)?;
        write!(
            f,
            "\nreproduce: wgrs-selftests fuzz-netlink --seed {} --cases {}",
            self.seed,
            self.case + 1
        )
    }
}

/// Runs the plan until the first disagreement.
pub fn fuzz(twins: &mut dyn Twins, plan: Plan) -> Result<Report> {
    let start = Instant::now();
    let mut report = Report::default();
    let mut seed = plan.seed;
    while report.cases < plan.cases && report.finding.is_none() {
        let cases = ROUND.min(plan.cases - report.cases);
        round(twins, seed, cases, &mut report)?;
        seed = seed.wrapping_add(1);
    }
    report.took = start.elapsed();
    Ok(report)
}

fn round(twins: &mut dyn Twins, seed: u64, cases: usize, report: &mut Report) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let up = rng.random_bool(0.25);
    twins.fresh(up)?;
    let mut generator = Generator::new(rng, up);
    let mut sent: Vec<Message> = Vec::with_capacity(cases);
    while sent.len() < cases {
        let count = BATCH.min(cases - sent.len());
        let messages: Vec<Message> = (0..count).map(|_| generator.message()).collect();
        let first = sent.len();
        sent.extend_from_slice(&messages);
        let found = play(twins, up, &messages, &mut |answer| {
            let result = answer.result();
            let name = result.map_or_else(|e| format!("{e:?}"), |()| "OK".to_owned());
            *report.tally.entry(name).or_default() += 1;
        })?;
        report.cases += count;
        if let Some((at, difference)) = found {
            let case = first + at;
            sent.truncate(case + 1);
            report.finding = Some(explain(twins, seed, up, sent, difference)?);
            return Ok(());
        }
    }
    Ok(())
}

/// Sends `messages`, each followed by a GET. Returns the first one that is answered differently,
/// or after which the dumps differ, and how.
fn play(
    twins: &mut dyn Twins,
    up: bool,
    messages: &[Message],
    seen: &mut dyn FnMut(&Answer),
) -> Result<Option<(usize, String)>> {
    for (n, chunk) in messages.chunks(BATCH).enumerate() {
        let requests: Vec<Request> = chunk.iter().flat_map(|m| [m.encode(), get()]).collect();
        let answers = twins.batch(&requests)?;
        for (at, pair) in answers.iter().enumerate() {
            if at % 2 == 0 {
                seen(&pair[0]);
            }
            if !alike(pair, up) {
                let what = if at % 2 == 0 {
                    "answer"
                } else {
                    "dump afterwards"
                };
                let differ = |side: usize| {
                    let Answer { parts, datagrams } = &pair[side];
                    format!("  {what}, {}: {parts:?} in {datagrams:?}", SIDES[side])
                };
                let difference = format!("{}\n{}", differ(0), differ(1));
                return Ok(Some((n * BATCH + at / 2, difference)));
            }
        }
    }
    Ok(None)
}

/// Minimises the list.
fn explain(
    twins: &mut dyn Twins,
    seed: u64,
    up: bool,
    sent: Vec<Message>,
    mut difference: String,
) -> Result<Finding> {
    let case = sent.len() - 1;
    let mut replay = |messages: &[Message]| -> Result<Option<(usize, String)>> {
        twins.fresh(up)?;
        play(twins, up, messages, &mut |_| ())
    };
    // Most need little before them: the cheap tries first.
    let mut least = None;
    for len in [1, 10, 100, sent.len()] {
        let tail = &sent[sent.len().saturating_sub(len)..];
        if let Some((at, _)) = replay(tail)? {
            least = Some(tail[..=at].to_vec());
            break;
        }
    }
    let Some(mut least) = least else {
        return Ok(Finding {
            seed,
            case,
            up,
            messages: sent[sent.len().saturating_sub(10)..].to_vec(),
            difference,
            reproduced: false,
        });
    };
    least = shrink::shrink(least, BUDGET, &mut |messages| {
        Ok(replay(messages)?.is_some())
    })?;
    if let Some((at, now)) = replay(&least)? {
        least.truncate(at + 1);
        difference = now;
    }
    Ok(Finding {
        seed,
        case,
        up,
        messages: least,
        difference,
        reproduced: true,
    })
}

/// Whether both answers are the same, apart from what depends on chance or time while up.
fn alike([a, b]: &Answers, up: bool) -> bool {
    a == b || up && masked(a) == masked(b)
}

/// The answer without random ports and transmit counters.
fn masked(answer: &Answer) -> Vec<Part> {
    let mask = |part: &Part| match part {
        Part::Message { flags, body } => {
            let mut body = body.clone();
            let list = attrs(body.get(4..).unwrap_or(&[]));
            let mut at = 4;
            for (kind, data) in list {
                if kind == device::LISTEN_PORT {
                    blank(&mut body, at, data.len());
                }
                if kind == device::PEERS {
                    mask_peers(&mut body, at + 4, &data);
                }
                at += (data.len() + 4).next_multiple_of(4);
            }
            Part::Message {
                flags: *flags,
                body,
            }
        }
        other => other.clone(),
    };
    answer.parts.iter().map(mask).collect()
}

fn mask_peers(body: &mut [u8], mut at: usize, list: &[u8]) {
    for (_, peer) in attrs(list) {
        let mut inner = at + 4;
        for (kind, data) in attrs(&peer) {
            if kind == peer::TX_BYTES {
                blank(body, inner, data.len());
            }
            inner += (data.len() + 4).next_multiple_of(4);
        }
        at += (peer.len() + 4).next_multiple_of(4);
    }
}

/// Zeroes the payload of the attribute at `at`.
fn blank(body: &mut [u8], at: usize, len: usize) {
    if let Some(payload) = body.get_mut(at + 4..at + 4 + len) {
        payload.fill(0);
    }
}

/// The two modules' devices. Another socket occupies a port in both their namespaces.
pub struct Modules {
    pair: Pair,
    _taken: [UdpSocket; 2],
}

impl Modules {
    /// Occupies the port.
    pub fn new(pair: Pair) -> Result<Self> {
        let take = |n: usize| {
            pair.ns(n).run(|| {
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, TAKEN_PORT)).context("bind the port")
            })
        };
        let taken = [take(0)?, take(1)?];
        Ok(Modules {
            pair,
            _taken: taken,
        })
    }

    /// The devices.
    pub fn pair(&mut self) -> &mut Pair {
        &mut self.pair
    }
}

impl Twins for Modules {
    fn fresh(&mut self, up: bool) -> Result<()> {
        self.pair.remake()?;
        self.pair.unthread()?;
        if up {
            self.pair.set_up(true)?;
        }
        Ok(())
    }

    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Answers>> {
        self.pair.batch(requests)
    }
}

#[cfg(test)]
mod tests;

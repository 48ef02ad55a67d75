// SPDX-License-Identifier: GPL-2.0-only
//! The same requests to the command of our own family that makes a change as a whole: what it
//! refuses changes nothing, and what it makes is what the ordinary command makes of a device that
//! is as this one was. Other commands of the family get noise.

use super::generate::Generator;
use anyhow::{ensure, Context, Result};
use harness::gnl::{Answer, Gnl, Part, Request, DO, DUMP};
use harness::netlink::{attrs, family_id, Netlink};
use harness::netns::Netns;
use harness::pair::{get, INDEX, NAME};
use harness::wgdev::uapi::{self, device};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use wireguard_rs::proto::extension::{cmd, GENL_NAME};

/// Requests on the same devices before fresh ones are created.
const ROUND: usize = 1000;

/// A device, and how to ask for it.
struct Side {
    ns: Netns,
    ordinary: Gnl,
    own: Gnl,
}

impl Side {
    fn new(name: &str) -> Result<Self> {
        let ns = Netns::new(name)?;
        ns.rtnl()?.link_add_at(INDEX, NAME, "wireguard")?;
        let open =
            |family: &str| ns.run(|| Ok(Gnl::open(family_id(&mut Netlink::generic()?, family)?)?));
        Ok(Side {
            ordinary: open("wireguard")?,
            own: open(GENL_NAME)?,
            ns,
        })
    }

    fn fresh(&self) -> Result<()> {
        let mut rt = self.ns.rtnl()?;
        rt.link_del(NAME)?;
        Ok(rt.link_add_at(INDEX, NAME, "wireguard")?)
    }

    fn dump(&mut self) -> Result<Vec<Part>> {
        Ok(self.ordinary.ask(&get())?.parts)
    }
}

/// Sends so many requests, from this seed on. Gives how often each result occurred.
pub fn fuzz_whole(cases: usize, seed: u64) -> Result<BTreeMap<String, usize>> {
    let (mut one, mut other) = (Side::new("whole")?, Side::new("parts")?);
    let mut tally = BTreeMap::new();
    let mut seed = seed;
    let mut left = cases;
    while left > 0 {
        one.fresh()?;
        other.fresh()?;
        let count = ROUND.min(left);
        round(&mut one, &mut other, count, seed, &mut tally)
            .with_context(|| format!("seed {seed}"))?;
        (left, seed) = (left - count, seed.wrapping_add(1));
    }
    Ok(tally)
}

fn round(
    one: &mut Side,
    other: &mut Side,
    count: usize,
    seed: u64,
    tally: &mut BTreeMap<String, usize>,
) -> Result<()> {
    let mut noise = StdRng::seed_from_u64(!seed);
    let mut generator = Generator::new(StdRng::seed_from_u64(seed), false);
    let mut before = one.dump()?;
    for case in 0..count {
        let message = generator.message();
        let request = message.encode();
        let is_set = message.header == (uapi::cmd::SET_DEVICE, 1, 0) && request.flags == DO;
        let what = || format!("case {case}:\n{}", message.pretty());
        if !is_set {
            // What it answers is all the same; but nothing may change.
            let flags = if noise.random_bool(0.5) { DO } else { DUMP };
            let command = [cmd::OPTIONS_GET, cmd::PEERS_GET, noise.random()];
            let body = with_command(&request, command[noise.random_range(0..3)]);
            if body.first() == Some(&cmd::SET) || body.first() == Some(&cmd::OPTIONS_SET) {
                continue;
            }
            let _ = one.own.ask(&Request { flags, body })?;
            ensure!(one.dump()? == before, "{}", what());
            continue;
        }
        let whole = Request {
            flags: DO,
            body: with_command(&request, cmd::SET),
        };
        let answer: Answer = one.own.ask(&whole)?;
        let name = answer
            .result()
            .map_or_else(|e| format!("{e:?}"), |()| "OK".to_owned());
        *tally.entry(name).or_default() += 1;
        let after = one.dump()?;
        if answer.result().is_err() {
            ensure!(
                after == before,
                "{}refused ({}), but changed:\n{after:?}\nnot\n{before:?}",
                what(),
                answer.summary()
            );
            continue;
        }
        // Of several lists the ordinary command takes the last: they go one after the other.
        for body in parts(&request.body) {
            let answer = other.ordinary.ask(&Request { flags: DO, body })?;
            ensure!(
                answer.result().is_ok(),
                "{}made as a whole, but in parts {}",
                what(),
                answer.summary()
            );
        }
        let wanted = other.dump()?;
        ensure!(after == wanted, "{}{after:?}\nnot\n{wanted:?}", what());
        before = after;
    }
    Ok(())
}

fn with_command(request: &Request, command: u8) -> Vec<u8> {
    let mut body = request.body.clone();
    if let Some(first) = body.first_mut() {
        *first = command;
    }
    body
}

/// The request with one list of peers at most, and one for each further list. Flags are of the
/// first alone.
fn parts(body: &[u8]) -> Vec<Vec<u8>> {
    let (header, rest) = body.split_at(body.len().min(4));
    let put = |to: &mut Vec<u8>, kind: u16, data: &[u8]| {
        let kind = if kind == device::PEERS {
            kind | (1 << 15)
        } else {
            kind
        };
        to.extend_from_slice(&((data.len() + 4) as u16).to_ne_bytes());
        to.extend_from_slice(&kind.to_ne_bytes());
        to.extend_from_slice(data);
        to.resize(to.len().next_multiple_of(4), 0);
    };
    let (mut first, mut identity) = (header.to_vec(), header.to_vec());
    let mut lists = Vec::new();
    for (kind, data) in attrs(rest) {
        match kind {
            device::PEERS => lists.push(data),
            _ => {
                put(&mut first, kind, &data);
                if [device::IFNAME, device::IFINDEX].contains(&kind) {
                    put(&mut identity, kind, &data);
                }
            }
        }
    }
    let mut all = vec![first];
    for (n, list) in lists.iter().enumerate() {
        if n > 0 {
            all.push(identity.clone());
        }
        if let Some(last) = all.last_mut() {
            put(last, device::PEERS, list);
        }
    }
    all
}

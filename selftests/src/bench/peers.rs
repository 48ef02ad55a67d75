// SPDX-License-Identifier: GPL-2.0-only
//! `bench-peers`: what it takes to configure a device, against its number of peers: this driver
//! beside the in-tree one, in time and in memory.

use super::pair::Impl;
use super::report::{figures, metric, quoted, run_line, Metric, Summary};
use super::{cpus, Setup};
use anyhow::{ensure, Context, Result};
use harness::memory::Memory;
use harness::netlink::{family_id, Attrs, Netlink};
use harness::netns::Netns;
use harness::peers::get;
use harness::rtnl::Rtnl;
use harness::runner::Boot;
use harness::wgdev::{random_key, uapi, whole, DeviceConf, PeerConf, Wg, PEERS_PER_REQUEST};
use nix::sys::mman::munlockall;
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use wireguard_rs::proto::extension::{cmd, device, show, GENL_NAME_COEXIST};

const CREATE: Metric = metric("create_ms", "create them", false, true);
const DUMP: Metric = metric("dump_ms", "dump", false, true);
const COUNTERS: Metric = metric("counters_ms", "dump of the counters", false, false);
const DUMP_USED: Metric = metric("dump_used_ms", "dump, all in use", false, true);
const COUNTERS_USED: Metric = metric("counters_used_ms", "counters, all in use", false, false);
const CHANGED: Metric = metric("changed_ms", "dump of one changed", false, false);
const CHANGE: Metric = metric("change_ms", "change one", false, true);
const REMOVE: Metric = metric("remove_ms", "remove all", false, true);
const DELETE: Metric = metric("delete_ms", "delete the link", false, true);
const MEMORY: Metric = metric("memory_bytes", "memory per peer, bytes", false, true);
const METRICS: [Metric; 10] = [
    CREATE,
    DUMP,
    COUNTERS,
    DUMP_USED,
    COUNTERS_USED,
    CHANGED,
    CHANGE,
    REMOVE,
    DELETE,
    MEMORY,
];

/// With more, their handshakes take longer than all else.
const MOST_USED: usize = 10_000;
/// Handshakes are attempted for so long: twice each.
const ATTEMPTS: Duration = Duration::from_secs(8);

/// A driver's most peers on one device.
const LIMIT: usize = 1 << 20;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kind of guest this is.
    #[arg(long)]
    boot: Boot,
    /// How many times each contender is measured.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Numbers of peers.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000")]
    peers: Vec<usize>,
    /// The in-tree driver is measured with up to so many: it takes minutes beyond.
    #[arg(long, default_value_t = 10_000)]
    intree_most: usize,
    /// Where to write the results as JSON lines.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One measured value.
struct Sample {
    peers: usize,
    who: Impl,
    metric: Metric,
    value: f64,
}

/// Measures and prints the table.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0 && !args.peers.is_empty(), "nothing to do");
    ensure!(
        args.peers.iter().all(|n| (1..=LIMIT).contains(n)),
        "1 to {LIMIT} peers"
    );
    let setup = Setup::new(&[Impl::C, Impl::Rs])?;
    // This process grows and shrinks by the requests, which must not stay in memory.
    munlockall()?;
    let facts = setup.facts(args.boot == Boot::Vtime, &cpus().to_string())?;
    let mut samples = Vec::new();
    for peers in &args.peers {
        for round in 0..args.rounds {
            let mut contenders = [Impl::C, Impl::Rs];
            contenders.rotate_left(round % 2);
            for who in contenders {
                if who == Impl::C && *peers > args.intree_most {
                    continue;
                }
                let kind = setup.kind(who).context("a contender without a driver")?;
                let mut keep = |metric: Metric, value| {
                    eprintln!("{} {peers} peers: {} {value:.1}", who.label(), metric.title);
                    samples.push(Sample {
                        peers: *peers,
                        who,
                        metric,
                        value,
                    });
                };
                measure(who, kind, *peers, &mut keep)
                    .with_context(|| format!("{}, {peers} peers", who.label()))?;
            }
        }
    }
    for (key, text) in &facts {
        println!("{key:<10}{text}");
    }
    print!("{}", table(&samples));
    if let Some(path) = &args.json {
        let lines = json_lines(&facts, &samples);
        fs::write(path, lines).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Any 32 bytes are a public key.
fn key(n: usize) -> [u8; 32] {
    let word = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0x40; 32];
    key[..8].copy_from_slice(&word.to_le_bytes());
    key
}

/// A peer as most are: an endpoint, an address of each family.
fn peer(n: usize) -> PeerConf {
    let bits = n as u32;
    PeerConf {
        public_key: key(n),
        endpoint: Some(SocketAddr::from((
            Ipv4Addr::from_bits(0xc612_0000_u32.wrapping_add(bits)),
            51820,
        ))),
        allowed_ips: vec![
            (Ipv4Addr::from_bits(0x0a00_0000 + bits).into(), 32),
            (
                Ipv6Addr::from_bits((0xfd09_u128 << 112) | u128::from(bits)).into(),
                128,
            ),
        ],
        ..PeerConf::default()
    }
}

/// A device in its own namespace.
struct Scene {
    ns: Netns,
    rt: Rtnl,
    wg: Wg,
    extension: Option<(Netlink, u16)>,
}

impl Scene {
    fn new(who: Impl, kind: &str) -> Result<Self> {
        let ns = Netns::new("peers")?;
        let (mut rt, wg) = (ns.rtnl()?, Wg::open(&ns, kind)?);
        rt.link_add("wg0", kind)?;
        rt.set_up("wg0", true)?;
        // Where what is sent goes.
        ns.sh("ip link add d0 up type dummy")?;
        ns.sh("ip address add 198.18.0.1/15 dev d0")?;
        ns.sh("ip address add 10.255.255.254/8 dev wg0")?;
        let extension = (who == Impl::Rs)
            .then(|| {
                ns.run(|| {
                    let mut socket = Netlink::generic()?;
                    let id = family_id(&mut socket, GENL_NAME_COEXIST)?;
                    Ok((socket, id))
                })
            })
            .transpose()?;
        Ok(Scene {
            ns,
            rt,
            wg,
            extension,
        })
    }

    /// Has something to be counted for each peer: what was sent, attempts, what was dropped.
    /// Nothing is under way afterwards.
    fn use_all(&mut self, peers: usize) -> Result<()> {
        self.set(&DeviceConf {
            private_key: Some(random_key()),
            ..DeviceConf::default()
        })?;
        let socket = self.ns.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        for n in 0..peers {
            socket.send_to(&[0], (Ipv4Addr::from_bits(0x0a00_0000 + n as u32), 9))?;
        }
        sleep(ATTEMPTS);
        self.rt.set_up("wg0", false)?;
        Ok(())
    }

    /// Milliseconds that it takes to create the peers, without those for making the requests.
    fn create(&mut self, peers: usize) -> Result<f64> {
        let mut took = 0.0;
        for first in (0..peers).step_by(PEERS_PER_REQUEST) {
            let conf = DeviceConf {
                peers: (first..peers.min(first + PEERS_PER_REQUEST))
                    .map(peer)
                    .collect(),
                ..DeviceConf::default()
            };
            let request = whole("wg0", &conf);
            took += millis(|| Ok(self.wg.set_raw(&request)?))?;
        }
        Ok(took)
    }

    fn set(&mut self, conf: &DeviceConf) -> Result<f64> {
        let request = whole("wg0", conf);
        millis(|| Ok(self.wg.set_raw(&request)?))
    }

    /// Milliseconds for a dump of our family, of what `show` says and changed since a generation.
    fn peers_get(&mut self, show: u32, since: Option<u32>) -> Result<Option<f64>> {
        let Some((socket, id)) = &mut self.extension else {
            return Ok(None);
        };
        let mut request = Attrs::after(&[cmd::PEERS_GET, 1, 0, 0]);
        request.str(device::IFNAME, "wg0").u32(device::SHOW, show);
        if let Some(generation) = since {
            request.u32(device::CHANGED_SINCE, generation);
        }
        let took = millis(|| Ok(socket.drain(*id, request.bytes())?))?;
        Ok(Some(took))
    }

    /// The generation of the settings, in our family.
    fn generation(&self) -> Result<Option<u32>> {
        if self.extension.is_none() {
            return Ok(None);
        }
        let answer = self.ns.run(|| {
            let one = |fill: &mut Attrs| {
                fill.u32(device::SHOW, 0).put(device::PEER, &key(0));
            };
            Ok(get(GENL_NAME_COEXIST, "wg0", one)?)
        })?;
        let value = answer.attrs.get(&device::GENERATION);
        let value = value.and_then(|value| value.as_slice().try_into().ok());
        Ok(Some(
            value.map(u32::from_ne_bytes).context("no generation")?,
        ))
    }
}

/// Milliseconds that `work` takes.
fn millis(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn measure(who: Impl, kind: &str, peers: usize, keep: &mut dyn FnMut(Metric, f64)) -> Result<()> {
    let mut scene = Scene::new(who, kind)?;
    let before = Memory::settled()?;
    keep(CREATE, scene.create(peers)?);
    let used = Memory::settled()?.since(&before);
    // All memory in use also shrinks by what others free meanwhile, and the parts lack large
    // tables: the larger of the two. With few peers both are noise.
    let parts = used.slab + used.percpu + used.stacks;
    if peers >= 1000 {
        keep(MEMORY, used.all.max(parts) as f64 / peers as f64);
    }
    keep(DUMP, millis(|| Ok(scene.wg.drain("wg0")?))?);
    if let Some(took) = scene.peers_get(show::COUNTERS, None)? {
        keep(COUNTERS, took);
    }
    let generation = scene.generation()?;
    if who == Impl::Rs && peers <= MOST_USED {
        scene.use_all(peers)?;
        keep(DUMP_USED, millis(|| Ok(scene.wg.drain("wg0")?))?);
        if let Some(took) = scene.peers_get(show::COUNTERS, None)? {
            keep(COUNTERS_USED, took);
        }
    }
    let change = DeviceConf {
        peers: vec![PeerConf {
            public_key: key(peers / 2),
            keepalive: Some(25),
            flags: uapi::peer::F_UPDATE_ONLY,
            ..PeerConf::default()
        }],
        ..DeviceConf::default()
    };
    keep(CHANGE, scene.set(&change)?);
    if let Some(took) = scene.peers_get(show::SETTINGS, generation)? {
        keep(CHANGED, took);
    }
    let none = DeviceConf {
        flags: uapi::device::F_REPLACE_PEERS,
        ..DeviceConf::default()
    };
    keep(REMOVE, scene.set(&none)?);
    // The in-tree driver waits for a grace period or two per peer.
    if who == Impl::Rs || peers <= 1000 {
        scene.create(peers)?;
        keep(DELETE, millis(|| Ok(scene.rt.link_del("wg0")?))?);
    }
    Ok(())
}

fn summary(samples: &[Sample], peers: usize, who: Impl, metric: Metric) -> Option<Summary> {
    let wanted = |s: &&Sample| (s.peers, s.who, s.metric) == (peers, who, metric);
    let values = samples.iter().filter(wanted).map(|s| s.value);
    Summary::of(values.collect())
}

fn counts(samples: &[Sample]) -> Vec<usize> {
    let mut counts: Vec<usize> = samples.iter().map(|s| s.peers).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Milliseconds against the number of peers.
fn table(samples: &[Sample]) -> String {
    let mut out = format!(
        "\n{:<24} {:>8} {:>10} {:>10} {:>7}\n",
        "median, ms", "peers", "C", "RS", "RS/C"
    );
    for metric in METRICS {
        for peers in counts(samples) {
            let [c, rs] = [Impl::C, Impl::Rs].map(|who| summary(samples, peers, who, metric));
            if c.or(rs).is_none() {
                continue;
            }
            let cell = |s: Option<Summary>| s.map_or("-".to_owned(), |s| figures(s.median));
            let ratio = c.zip(rs).map(|(c, rs)| rs.median / c.median);
            let _ = writeln!(
                out,
                "{:<24} {peers:>8} {:>10} {:>10} {:>7}",
                metric.title,
                cell(c),
                cell(rs),
                ratio.map_or("-".to_owned(), figures)
            );
        }
    }
    out
}

/// One JSON object per line: the facts, every sample.
fn json_lines(facts: &[(&str, String)], samples: &[Sample]) -> String {
    let mut out = run_line(facts);
    for s in samples {
        let _ = writeln!(
            out,
            "{{\"type\":\"sample\",\"peers\":{},\"impl\":{},\"metric\":{},\"value\":{}}}",
            s.peers,
            quoted(s.who.label()),
            quoted(s.metric.key),
            s.value
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_metric_and_count() {
        let sample = |peers, who, value| Sample {
            peers,
            who,
            metric: DUMP,
            value,
        };
        let samples = [
            sample(100, Impl::C, 4.0),
            sample(100, Impl::Rs, 1.0),
            sample(10, Impl::Rs, 0.5),
        ];
        let text = table(&samples);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("dump"))
            .map(|line| line.split_whitespace().skip(1).collect())
            .collect();
        assert_eq!(
            rows,
            [["10", "-", "0.50", "-"], ["100", "4.00", "1.00", "0.25"]]
        );
        assert_eq!(json_lines(&[], &samples).lines().count(), 1 + 3);
    }
}

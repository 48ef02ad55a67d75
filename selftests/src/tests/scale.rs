// SPDX-License-Identifier: GPL-2.0-only
//! Thousands of peers: time and memory of both modules side by side, and what must not grow with
//! the number of peers.

use super::{both, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::Calls;
use harness::memory::Memory;
use harness::netns::Netns;
use harness::rtnl::Rtnl;
use harness::runner::Ctx;
use harness::wgdev::{parse_dump, uapi, DeviceConf, PeerConf, Prefix, Wg, PEERS_PER_REQUEST};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

mod removal;
mod traffic;

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check, u64); 3] = [
        ("scale-curve", curve, 600),
        ("scale-24000-peers", twenty_four_thousand, 300),
        ("scale-traffic-10000-peers", traffic::ten_thousand, 400),
    ];
    for (name, body, secs) in tests {
        both(list, name, secs, body);
    }
    removal::register(list);
}

/// The link kinds side by side: the in-tree driver's, and ours.
const KINDS: [&str; 2] = ["wireguard", "wireguard_rs"];

/// All functions that wait for RCU readers or callbacks; `synchronize_net` uses the first two.
const WAITS: [&str; 3] = [
    "synchronize_rcu",
    "synchronize_rcu_expedited",
    "rcu_barrier",
];

/// Allowed IPs of each peer: seven of IPv4 and three of IPv6.
const IPS_PER_PEER: usize = 10;

/// Peer number `n`; any 32 bytes are a public key.
fn peer(n: usize, allowed_ips: usize) -> PeerConf {
    let word = (n as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_le_bytes();
    let mut public_key = [0x40; 32];
    public_key[..8].copy_from_slice(&word);
    PeerConf {
        public_key,
        endpoint: Some(SocketAddr::from((
            Ipv4Addr::from_bits(0xc612_0000 + n as u32),
            51820,
        ))),
        allowed_ips: (0..allowed_ips).map(|k| allowed_ip(n, k)).collect(),
        ..PeerConf::default()
    }
}

/// Allowed IP number `k` of peer `n`: all are distinct, with several prefix lengths.
fn allowed_ip(n: usize, k: usize) -> Prefix {
    let place = (n * IPS_PER_PEER + k) as u32;
    if k < 7 {
        let cidr = if k % 2 == 0 { 32 } else { 30 };
        (Ipv4Addr::from_bits(0x0a00_0000 + place * 4).into(), cidr)
    } else {
        let bits = (0xfd09_u128 << 112) | (u128::from(place) << 64);
        (
            Ipv6Addr::from_bits(bits).into(),
            if k == 7 { 128 } else { 64 },
        )
    }
}

/// One device in its own namespace.
struct Scene {
    _ns: Netns,
    rt: Rtnl,
    wg: Wg,
}

impl Scene {
    fn new(kind: &str) -> Result<Self> {
        let ns = Netns::new("scale")?;
        let (rt, wg) = (ns.rtnl()?, Wg::open(&ns, kind)?);
        let mut scene = Scene { _ns: ns, rt, wg };
        scene.add_link(kind)?;
        Ok(scene)
    }

    fn add_link(&mut self, kind: &str) -> Result<()> {
        self.rt.link_add("wg0", kind)?;
        Ok(self.rt.set_up("wg0", true)?)
    }

    fn set(&mut self, flags: u32, peers: &[PeerConf]) -> Result<()> {
        let conf = DeviceConf {
            flags,
            peers: peers.to_vec(),
            ..DeviceConf::default()
        };
        Ok(self.wg.set("wg0", &conf)?)
    }

    /// Fails unless the device has exactly these peers, in order, with all their allowed IPs.
    fn check(&mut self, peers: &[PeerConf]) -> Result<()> {
        let got = parse_dump(&self.wg.get_raw("wg0")?).peers;
        ensure!(
            got.len() == peers.len(),
            "{} peers, not {}",
            got.len(),
            peers.len()
        );
        for (n, (got, set)) in got.iter().zip(peers).enumerate() {
            ensure!(
                got.public_key == set.public_key,
                "another peer at index {n}"
            );
            ensure!(
                got.allowed_ips == set.allowed_ips,
                "allowed IPs of peer {n}: {:?}, not {:?}",
                got.allowed_ips,
                set.allowed_ips
            );
            ensure!(got.endpoint == set.endpoint, "endpoint of peer {n}");
        }
        Ok(())
    }
}

/// The ways to remove all peers.
#[derive(Clone, Copy, Debug)]
enum Removal {
    Each,
    Replace,
    LinkDel,
}

const REMOVALS: [(Removal, &str); 3] = [
    (Removal::Each, "REMOVE_ME each"),
    (Removal::Replace, "REPLACE_PEERS"),
    (Removal::LinkDel, "link deletion"),
];

/// What was measured for one driver and number of peers.
struct Figures {
    peers: usize,
    set: Duration,
    dump: Duration,
    messages: usize,
    memory: Memory,
    /// Bytes of slabs and per-CPU memory still in use after [`Removal::Replace`].
    left: i64,
    /// In the order of [`REMOVALS`]: the time, and the number of grace periods waited for.
    removals: Vec<Option<(Duration, u64)>>,
}

/// Configures, dumps and removes `count` peers of a driver, in each way.
fn measure(ctx: &Ctx, calls: &Calls, kind: &str, count: usize) -> Result<Figures> {
    let peers: Vec<PeerConf> = (0..count).map(|n| peer(n, IPS_PER_PEER)).collect();
    let mut scene = Scene::new(kind)?;
    let before = Memory::settled()?;
    let start = Instant::now();
    scene.set(0, &peers)?;
    let set = start.elapsed();
    let memory = Memory::settled()?.since(&before);
    let start = Instant::now();
    let messages = scene.wg.get_raw("wg0")?.len();
    let dump = start.elapsed();
    scene.check(&peers)?;
    ctx.note(format!(
        "{kind}, {count} peers: set {}, dump {}",
        millis(set),
        millis(dump)
    ));

    let (mut removals, mut left) = (Vec::new(), None);
    for (removal, name) in REMOVALS {
        if takes_too_long(kind, count, removal) {
            removals.push(None);
            continue;
        }
        scene.set(0, &peers)?;
        let waits = waits_so_far(calls)?;
        let start = Instant::now();
        remove(&mut scene, removal, &peers)?;
        let took = start.elapsed();
        removals.push(Some((took, waits_so_far(calls)? - waits)));
        ctx.note(format!("{kind}, {count} peers: {name} {}", millis(took)));
        if matches!(removal, Removal::Each | Removal::Replace) {
            scene.check(&[]).with_context(|| format!("after {name}"))?;
        }
        if !matches!(removal, Removal::LinkDel) {
            let gone = Memory::settled()?.since(&before);
            let (still, used) = (gone.slab + gone.percpu, memory.slab + memory.percpu);
            // With few peers the difference is lost in the noise.
            ensure!(
                still < used / 8 || count < 10_000,
                "{kind}: {still} of {used} bytes are still in use after removing {count} peers by \
                 {name}"
            );
            left = Some(still);
        }
    }
    let caches = memory.top_caches(8);
    let caches: Vec<String> = caches
        .iter()
        .map(|(name, bytes)| format!("{name} {}", bytes / count as i64))
        .collect();
    ctx.note(format!(
        "{kind}, {count} peers: slab bytes per peer: {}",
        caches.join(", ")
    ));
    Ok(Figures {
        peers: count,
        set,
        dump,
        messages,
        memory,
        left: left.context("no removal that leaves the device")?,
        removals,
    })
}

/// The number of waits so far.
fn waits_so_far(calls: &Calls) -> Result<u64> {
    WAITS.iter().map(|function| calls.of(function)).sum()
}

/// The in-tree driver waits for a grace period or two per peer. All removals are measured where
/// that is bearable or `WGRS_SCALE` is set; beyond, only the fastest (link deletion takes minutes).
fn takes_too_long(kind: &str, count: usize, removal: Removal) -> bool {
    kind == KINDS[0]
        && count > 1_000
        && !matches!(removal, Removal::Replace)
        && std::env::var_os("WGRS_SCALE").is_none()
}

/// Removes all peers.
fn remove(scene: &mut Scene, removal: Removal, peers: &[PeerConf]) -> Result<()> {
    match removal {
        Removal::Each => {
            let gone = |p: &PeerConf| PeerConf {
                public_key: p.public_key,
                flags: uapi::peer::F_REMOVE_ME,
                ..PeerConf::default()
            };
            scene.set(0, &peers.iter().map(gone).collect::<Vec<_>>())?;
        }
        Removal::Replace => scene.set(uapi::device::F_REPLACE_PEERS, &[])?,
        Removal::LinkDel => scene.rt.link_del("wg0")?,
    }
    Ok(())
}

/// The numbers of peers; `WGRS_SCALE` overrides them.
fn counts() -> Result<Vec<usize>> {
    match std::env::var("WGRS_SCALE") {
        Ok(list) => list.split(',').map(|n| Ok(n.parse()?)).collect(),
        Err(_) => Ok(vec![100, 1_000, 10_000]),
    }
}

fn millis(d: Duration) -> String {
    format!("{:.0} ms", d.as_secs_f64() * 1e3)
}

/// Both drivers with 100, 1,000 and 10,000 peers of ten allowed IPs. The number of grace periods
/// waited for must not depend on the number of peers removed, but on that of requests: a request is
/// acknowledged when nothing is sent to the peers any more that it has removed.
fn curve(ctx: &Ctx) -> Result<()> {
    let counts = counts()?;
    let calls = Calls::attach(&WAITS)?;
    let mut all = Vec::new();
    for kind in KINDS {
        let mut of_kind = Vec::new();
        for &count in &counts {
            let figures = measure(ctx, &calls, kind, count);
            of_kind.push(figures.with_context(|| format!("{kind} with {count} peers"))?);
        }
        all.push(of_kind);
    }
    report(ctx, &all);
    let ours = &all[1];
    let (few, many) = (&ours[0], &ours[ours.len() - 1]);
    for (n, (removal, name)) in REMOVALS.iter().enumerate() {
        let waits = |figures: &Figures| figures.removals[n].map(|(_, waits)| waits);
        let few = waits(few).context("not measured")?;
        let many = waits(many).context("not measured")?;
        let requests = match removal {
            Removal::Each => ours[ours.len() - 1].peers.div_ceil(PEERS_PER_REQUEST) as u64,
            Removal::Replace | Removal::LinkDel => 1,
        };
        // The rest of the kernel waits too meanwhile: allow for that.
        ensure!(
            many < few + requests + 100,
            "{name} waits for {many} grace periods, with the fewest peers for {few}"
        );
    }
    Ok(())
}

/// The table of [`curve`]: for each number of peers a column per driver.
fn report(ctx: &Ctx, all: &[Vec<Figures>]) {
    let columns: Vec<&Figures> = (0..all[0].len())
        .flat_map(|n| all.iter().map(move |kind| &kind[n]))
        .collect();
    let row = |name: &str, cell: &dyn Fn(&Figures) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(columns.iter().map(|f| cell(f)));
        row
    };
    let each = |f: &Figures, bytes: i64| format!("{}", bytes / f.peers as i64);
    let mut head = vec![String::new()];
    head.extend(columns.iter().enumerate().map(|(n, f)| {
        let who = if n % 2 == 0 { "in-tree" } else { "ours" };
        format!("{who} {}", f.peers)
    }));
    let mut rows = vec![
        head,
        row("set", &|f| millis(f.set)),
        row("dump", &|f| millis(f.dump)),
        row("dump messages", &|f| f.messages.to_string()),
        row("bytes per peer", &|f| each(f, f.memory.all)),
        row("  slab", &|f| each(f, f.memory.slab)),
        row("  per-CPU", &|f| each(f, f.memory.percpu)),
        row("  stacks", &|f| each(f, f.memory.stacks)),
        row("  slab, per-CPU left", &|f| each(f, f.left)),
    ];
    for (n, (_, name)) in REMOVALS.iter().enumerate() {
        rows.push(row(name, &|f| {
            f.removals[n].map_or("-".to_owned(), |(time, _)| millis(time))
        }));
        rows.push(row("  grace periods", &|f| {
            f.removals[n].map_or("-".to_owned(), |(_, waits)| waits.to_string())
        }));
    }
    ctx.table(
        "peers with ten allowed IPs each, in-tree and ours: time, memory, grace periods waited for",
        &rows,
    );
}

/// A number of peers that has overflowed the stack of another implementation.
fn twenty_four_thousand(_: &Ctx) -> Result<()> {
    let peers: Vec<PeerConf> = (0..24_000).map(|n| peer(n, 1)).collect();
    let mut scene = Scene::new(KINDS[1])?;
    scene.set(0, &peers)?;
    scene.check(&peers)?;
    scene.set(uapi::device::F_REPLACE_PEERS, &peers[..1])?;
    scene.check(&peers[..1])?;
    Ok(scene.rt.link_del("wg0")?)
}

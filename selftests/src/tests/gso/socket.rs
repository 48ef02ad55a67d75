// SPDX-License-Identifier: GPL-2.0-only
//! The UDP socket of a device, as its users see it. Ours is a plain one, on which datagrams arrive
//! together; that of the in-tree driver hands them over before the socket does anything itself.

use super::counters::{of_udp, since};
use super::load::USUAL;
use crate::tests::{of_each, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::Deny;
use harness::capture::Injector;
use harness::cmd;
use harness::modules::Modules;
use harness::netns::Netns;
use harness::nics::Nics;
use harness::packet::{Datagram, Sum};
use harness::rig::{Rig, MOMENT};
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, names, outer, port, Link, Opts, Tunnel};
use harness::traffic::{ping, ping_all, tcp, udp};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check); 5] = [
        ("gso-socket-counters", counters),
        ("gso-socket-cgroup-filter", cgroup_filter),
        ("gso-socket-memory-cgroup", memory_cgroup),
        ("gso-socket-busy-read", busy_read),
        ("gso-socket-udp-mem", udp_mem),
    ];
    for (name, body) in tests {
        of_each(list, (name, Boot::Config, 60), Modules::Ours, body);
    }
}

/// The drops that `/proc/net/udp` and `udp6` tell of the sockets on `port`.
fn drops(ns: &Netns, port: u16) -> Result<[u64; 2]> {
    let of = |file: &str| -> Result<u64> {
        let file = format!("/proc/thread-self/net/{file}");
        let text = ns.run(|| fs::read_to_string(&file).context(file))?;
        let port = format!(":{port:04X}");
        let line = text.lines().find(|line| {
            let local = line.split_whitespace().nth(1);
            local.is_some_and(|local| local.ends_with(&port))
        });
        let line = line.context("no such socket")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(words.get(4) == Some(&"00000000:00000000"), "queues: {line}");
        Ok(words.last().context("empty line")?.parse()?)
    };
    Ok([of("udp")?, of("udp6")?])
}

/// What is not for the device is counted as for any socket; nothing stays in its queue.
fn counters(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let (ns, far) = (rig.link.end(0), rig.link.end(1));
    let injector = Injector::open(far, names(1).1)?;
    ensure!(drops(ns, port(0))? == [0, 0], "drops at the beginning");
    let before = of_udp(ns)?;
    for v6 in [false, true] {
        let [from, to] =
            [(1, 7777), (0, port(0))].map(|(n, port)| SocketAddr::new(outer(v6, n), port));
        let socket = udp(far, from)?;
        for len in [0, 1, 31, 32, 148, 1400] {
            socket.send_to(&vec![4; len], to)?;
        }
        for len in [1, 148] {
            let wrong = Datagram {
                sum: Sum::Wrong,
                ..Datagram::new(from, to, 0, &vec![4; len])
            };
            injector.send(&wrong.frame_from(1))?;
        }
    }
    sleep(MOMENT);
    let moved = since(&of_udp(ns)?, &before);
    let wanted = ["Udp", "Udp6"].map(|udp| {
        [("InDatagrams", 6), ("InErrors", 2), ("InCsumErrors", 2)]
            .map(|(name, count)| (format!("{udp}{name}"), count))
    });
    let wanted: BTreeMap<String, u64> = wanted.into_iter().flatten().collect();
    ensure!(moved == wanted, "counted {moved:?}, not {wanted:?}");
    let drops = drops(ns, port(0))?;
    // The checksum of the short one is looked at before there is a socket.
    ensure!(drops == [1, 1], "drops: {drops:?}");
    rig.works(0)
}

/// Where the control groups are mounted for a test.
const CGROUPS: &str = "/tmp/gso-cgroups";

/// A control group of the test's own, for as long as this lives.
struct Cgroup(String);

impl Cgroup {
    fn new() -> Result<Self> {
        fs::create_dir_all(CGROUPS)?;
        cmd::run(&["mount", "-t", "cgroup2", "none", CGROUPS])?;
        let path = format!("{CGROUPS}/gso-{}", std::process::id());
        fs::create_dir(&path)?;
        Ok(Cgroup(path))
    }

    /// Brings end 0 up again, from within the group.
    fn bring_up(&self, tunnel: &Tunnel) -> Result<()> {
        let script = format!(
            "echo $$ >{}/cgroup.procs
             ip link set wg0 down
             ip link set wg0 up
             ip addr add {}/64 dev wg0 nodad",
            self.0,
            inner(true, 0)
        );
        tunnel
            .ns(0)
            .run(|| cmd::run(&["bash", "-ec", &script]))
            .map(drop)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Whether end 0 gets a reply to a ping.
fn works(tunnel: &Tunnel) -> Result<bool> {
    let limit = Duration::from_secs(1);
    Ok(ping(tunnel.ns(0), inner(false, 1), 3, 56, limit)? > 0)
}

/// A socket filter of the control group in which the link was brought up does not concern the
/// tunnel. One of the root group does, as the README says.
fn cgroup_filter(ctx: &Ctx) -> Result<()> {
    let group = Cgroup::new()?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    group.bring_up(&tunnel)?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let deny = Deny::attach(&group.0)?;
    ensure!(works(&tunnel)?, "the filter of the group is used");
    drop(deny);
    let deny = Deny::attach(CGROUPS)?;
    let works = works(&tunnel)?;
    ensure!(
        works == (ctx.subject == Subject::C),
        "with a filter of the root group packets pass: {works}"
    );
    drop(deny);
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

/// What the control group in which the link was brought up may use of memory does not limit the
/// tunnel.
fn memory_cgroup(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let group = Cgroup::new()?;
    fs::write(format!("{CGROUPS}/cgroup.subtree_control"), "+memory").context("+memory")?;
    group.bring_up(&tunnel)?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let used = fs::read_to_string(format!("{}/memory.current", group.0))?;
    fs::write(format!("{}/memory.max", group.0), used).context("memory.max")?;
    USUAL.pass([tunnel.ns(0), tunnel.ns(1)])
}

/// Changes a file below `/proc/sys` until it is dropped.
struct Sysctl {
    path: String,
    before: String,
}

impl Sysctl {
    fn set(name: &str, value: &str) -> Result<Self> {
        let path = format!("/proc/sys/{name}");
        let before = fs::read_to_string(&path).with_context(|| path.clone())?;
        fs::write(&path, value).with_context(|| path.clone())?;
        Ok(Sysctl { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.before);
    }
}

/// Nothing is polled for on the device's socket, however long it is wished that sockets be.
fn busy_read(ctx: &Ctx) -> Result<()> {
    let second = "1000000"; // in µs
    let link = Link::over(&Nics::of_wire(0)?)?;
    let tunnel = {
        let _sysctl = Sysctl::set("net/core/busy_read", second)?;
        Tunnel::over(link, &Opts::new(ctx.plain()))?
    };
    USUAL.pass([tunnel.ns(0), tunnel.ns(1)])
}

/// What is received is no more than the least that every socket may have, so that the tunnel works
/// where no memory is left for UDP.
fn udp_mem(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let _sysctl = Sysctl::set("net/ipv4/udp_mem", "0 0 0")?;
    for (from, into) in [(0, 1), (1, 0)] {
        let at = SocketAddr::new(inner(false, into), 5000);
        tcp(tunnel.ns(from), tunnel.ns(into), at, 1 << 20, LIMIT)?;
    }
    Ok(())
}

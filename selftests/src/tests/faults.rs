// SPDX-License-Identifier: GPL-2.0-only
//! Allocation failures: each allocation of an operation fails in turn, or a share of all of them
//! under traffic. Nothing may break, leak, or stay half-done; afterwards everything works.
//!
//! Not covered: moving a device to another namespace (the stack itself warns when an allocation
//! fails there, whatever the driver).

use super::Test;
use anyhow::{bail, ensure, Context, Result};
use harness::driver::PLAIN;
use harness::fault::Faults;
use harness::gnl::{Gnl, Request, DO};
use harness::modules::{unload_all, Modules, INTREE, OURS};
use harness::netlink::{family_id, Netlink};
use harness::netns::Netns;
use harness::pace::{amount, next_allocation};
use harness::rtnl::Rtnl;
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, names, outer, port, Opts, Tunnel};
use harness::traffic::{ping, ping_all, udp};
use harness::wgdev::{random_key, uapi, whole, DeviceConf, Key, PeerConf, Wg};
use nix::errno::Errno;
use nix::sys::mman::{mlockall, MlockAllFlags};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use wireguard_rs::proto::extension::{cmd, GENL_NAME};

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Modules, Modules, super::Check); 10] = [
        ("fault-link-add", Modules::Intree, Modules::Ours, link_add),
        (
            "fault-device-set",
            Modules::Intree,
            Modules::Ours,
            device_set,
        ),
        ("fault-peer-add", Modules::Intree, Modules::Ours, peer_add),
        (
            "fault-allowed-ips",
            Modules::Intree,
            Modules::Ours,
            allowed_ips,
        ),
        ("fault-link-up", Modules::Intree, Modules::Ours, link_up),
        ("fault-dump", Modules::Intree, Modules::Ours, dump),
        ("fault-transmit", Modules::Intree, Modules::Ours, transmit),
        (
            "fault-atomic-under-traffic",
            Modules::Intree,
            Modules::Ours,
            atomic,
        ),
        (
            "fault-workers-under-traffic",
            Modules::Intree,
            Modules::Ours,
            workers,
        ),
        (
            "fault-module-load",
            Modules::None,
            Modules::None,
            module_load,
        ),
    ];
    list.push(Test {
        name: "fault-set-whole@rs".to_owned(),
        boot: Boot::San,
        modules: Modules::Ours,
        subject: Subject::Rs,
        bound: Duration::from_secs(120),
        body: Box::new(|ctx| {
            super::needs_ours(ctx)?;
            whole_set(ctx)?;
            works(ctx)
        }),
    });
    for (name, intree, ours, body) in tests {
        for (suffix, subject, modules) in [("c", Subject::C, intree), ("rs", Subject::Rs, ours)] {
            list.push(Test {
                name: format!("{name}@{suffix}"),
                boot: Boot::San,
                modules,
                subject,
                bound: Duration::from_secs(if modules == Modules::None { 300 } else { 60 }),
                body: Box::new(move |ctx| {
                    body(ctx)?;
                    works(ctx)
                }),
            });
        }
    }
}

/// A change as a whole: whichever allocation fails, nothing has changed, or all has.
fn whole_set(ctx: &Ctx) -> Result<()> {
    let (ns, mut rt, mut wg) = scene()?;
    rt.set_up("wg0", true)?;
    let faults = ready()?;
    let peer = |n: u8| PeerConf {
        public_key: [n; 32],
        preshared_key: Some([n; 32]),
        endpoint: Some(SocketAddr::new(outer(false, 1), 9)),
        allowed_ips: vec![
            (Ipv4Addr::new(10, n, 0, 0).into(), 16),
            (Ipv4Addr::new(10, n, 1, 0).into(), 24),
            (Ipv6Addr::new(0xfd00, n.into(), 0, 0, 0, 0, 0, 0).into(), 64),
        ],
        ..PeerConf::default()
    };
    let conf = |first: u8, port| DeviceConf {
        private_key: Some([first; 32]),
        listen_port: Some(port),
        fwmark: Some(first.into()),
        flags: uapi::device::F_REPLACE_PEERS,
        peers: (first..first + 3).map(peer).collect(),
    };
    let (old, new) = (conf(10, 1010), conf(20, 2020));
    wg.set("wg0", &old)?;
    let before = wg.get("wg0")?;
    let request = Request::new(DO, cmd::SET, whole("wg0", &new).bytes());
    let id = ns.run(|| Ok(family_id(&mut Netlink::generic()?, GENL_NAME)?))?;
    let mut socket = ns.run(|| Ok(Gnl::open(id)?))?;
    each_failure(
        ctx,
        &faults,
        "a change as a whole",
        || socket.ask(&request)?.result(),
        |result| {
            let after = wg.get("wg0")?;
            if result.is_err() {
                ensure!(after == before, "half-done: {after:?}, not {before:?}");
                return Ok(());
            }
            let keys: Vec<Key> = after.peers.iter().map(|peer| peer.public_key).collect();
            ensure!(
                keys == [[20; 32], [21; 32], [22; 32]]
                    && after.peers.iter().all(|peer| peer.allowed_ips.len() == 3)
                    && after.listen_port == 2020
                    && after.fwmark == 20,
                "half-done: {after:?}"
            );
            Ok(wg.set("wg0", &old)?)
        },
    )
}

/// With failures off again, a tunnel carries packets.
fn works(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain())).context("afterwards")?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    ping_all(tunnel.ns(1), inner(true, 0), 1)
}

/// Upper bound of the number of allocations in one operation.
const MOST: u32 = 3000;

/// Prepares the process: its own memory is allocated and locked, so that it cannot fail.
fn ready() -> Result<Faults> {
    // SAFETY: plain values; no other thread allocates now.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TOP_PAD, 4 << 20);
    }
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).context("mlockall")?;
    Faults::new()
}

/// Runs `act` repeatedly, with its first, second, third, … allocation failing, until there is no
/// allocation left to fail. `undo` is called after each run with its result, to check the outcome
/// and to restore the state.
fn each_failure(
    ctx: &Ctx,
    faults: &Faults,
    what: &str,
    mut act: impl FnMut() -> Result<(), Errno>,
    mut undo: impl FnMut(Result<(), Errno>) -> Result<()>,
) -> Result<()> {
    // First without a failure: to see that it works, and to fault in this process's memory.
    let first = act();
    ensure!(first.is_ok(), "{what}: {first:?} without any failure");
    undo(first)?;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut n = 0;
    while n < MOST {
        n = next_allocation(n);
        let (result, injected) = faults.nth(n, &mut act)?;
        let outcome = result.map_or_else(|e| format!("{e:?}"), |()| "success".to_owned());
        let context = || format!("{what}: allocation {n} failed, result {outcome}");
        undo(result).with_context(context)?;
        if !injected {
            ensure!(
                result.is_ok(),
                "{what}: {outcome} although no allocation failed"
            );
            ctx.note(format!(
                "{what}: {n} allocations, results when one failed: {seen:?}"
            ));
            let errors = seen.keys().any(|outcome| outcome != "success");
            ensure!(errors, "{what}: no failure was ever reported");
            return Ok(());
        }
        *seen.entry(outcome).or_default() += 1;
    }
    bail!("{what}: not done after {MOST} allocations")
}

/// A namespace with the device `wg0`.
fn scene() -> Result<(Netns, Rtnl, Wg)> {
    let ns = Netns::new("a")?;
    let mut rt = ns.rtnl()?;
    rt.link_add("wg0", PLAIN.kind).context("link add")?;
    let wg = Wg::open(&ns, PLAIN.kind)?;
    Ok((ns, rt, wg))
}

fn link_add(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let ns = Netns::new("a")?;
    let (mut rt, mut other) = (ns.rtnl()?, ns.rtnl()?);
    each_failure(
        ctx,
        &faults,
        "link add",
        || rt.link_add("wg0", PLAIN.kind),
        // An error may also mean that only the reply was lost.
        |result| match (result, other.link_del("wg0")) {
            (Ok(()), gone) => gone.context("success, but no device"),
            (Err(_), Ok(()) | Err(Errno::ENODEV)) => Ok(()),
            (Err(_), Err(e)) => bail!("link del: {e}"),
        },
    )
}

fn device_set(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let (ns, mut rt, mut wg) = scene()?;
    rt.set_up("wg0", true)?;
    let mut check = Wg::open(&ns, PLAIN.kind)?;
    let key = random_key();
    let own = check_public(&mut check, &key)?;
    let before = |check: &mut Wg| -> Result<()> {
        // A peer with our own public key is removed when the key is set.
        let conf = DeviceConf {
            private_key: Some([0; 32]),
            listen_port: Some(1111),
            fwmark: Some(0),
            peers: vec![PeerConf {
                public_key: own,
                ..PeerConf::default()
            }],
            ..DeviceConf::default()
        };
        Ok(check.set("wg0", &conf)?)
    };
    before(&mut check)?;
    let conf = DeviceConf {
        private_key: Some(key),
        listen_port: Some(2222),
        fwmark: Some(7),
        ..DeviceConf::default()
    };
    each_failure(
        ctx,
        &faults,
        "key, port and mark while up",
        || wg.set("wg0", &conf),
        |result| {
            let device = check.get("wg0")?;
            if result.is_ok() {
                let all = (device.private_key, device.listen_port, device.fwmark);
                ensure!(all == (Some(key), 2222, 7), "success, but {device:?}");
            }
            let port = device.listen_port;
            ensure!(port == 1111 || port == 2222, "the port is now {port}");
            before(&mut check)
        },
    )
}

/// The public key to `private`, as the module computes it.
fn check_public(wg: &mut Wg, private: &Key) -> Result<Key> {
    let mut conf = DeviceConf {
        private_key: Some(*private),
        ..DeviceConf::default()
    };
    wg.set("wg0", &conf)?;
    let key = wg.get("wg0")?.public_key.context("no public key")?;
    conf.private_key = Some([0; 32]);
    wg.set("wg0", &conf)?;
    Ok(key)
}

/// A few prefixes of both families, some of which contain others.
fn prefixes() -> Vec<(IpAddr, u8)> {
    let v4 = |a, b, len| (IpAddr::from(Ipv4Addr::new(10, a, b, 0)), len);
    let v6 = |a, len| {
        (
            IpAddr::from(Ipv6Addr::new(0xfd00, a, 0, 0, 0, 0, 0, 0)),
            len,
        )
    };
    vec![
        v4(0, 0, 8),
        v4(1, 0, 16),
        v4(1, 1, 24),
        v4(128, 0, 16),
        v6(1, 32),
        v6(1, 64),
        v6(0x8000, 32),
        (Ipv6Addr::UNSPECIFIED.into(), 0),
    ]
}

fn remove_all(wg: &mut Wg) -> Result<()> {
    let conf = DeviceConf {
        flags: uapi::device::F_REPLACE_PEERS,
        ..DeviceConf::default()
    };
    wg.set("wg0", &conf)?;
    let left = wg.get("wg0")?.peers.len();
    ensure!(left == 0, "{left} peers are left");
    Ok(())
}

fn peer_add(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let (ns, mut rt, mut wg) = scene()?;
    rt.set_up("wg0", true)?;
    let mut check = Wg::open(&ns, PLAIN.kind)?;
    let key = DeviceConf {
        private_key: Some(random_key()),
        ..DeviceConf::default()
    };
    check.set("wg0", &key)?;
    let public_key = random_key();
    let conf = DeviceConf {
        peers: vec![PeerConf {
            public_key,
            preshared_key: Some([3; 32]),
            endpoint: Some(SocketAddr::new(outer(false, 1), port(1))),
            keepalive: Some(25),
            flags: 0,
            allowed_ips: prefixes(),
        }],
        ..DeviceConf::default()
    };
    each_failure(
        ctx,
        &faults,
        "peer with allowed IPs while up",
        || wg.set("wg0", &conf),
        |result| {
            let device = check.get("wg0")?;
            if result.is_ok() {
                let ips = device.peers.first().map(|p| p.allowed_ips.len());
                ensure!(
                    ips == Some(prefixes().len()),
                    "success, but {ips:?} allowed IPs"
                );
            }
            remove_all(&mut check)
        },
    )
}

/// Allowed IPs are added to a peer that has some, replace them, and move between peers.
fn allowed_ips(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let (ns, _rt, mut wg) = scene()?;
    let mut check = Wg::open(&ns, PLAIN.kind)?;
    let keys = [random_key(), random_key()];
    let peer = |n: usize, flags, allowed_ips| PeerConf {
        public_key: keys[n],
        flags,
        allowed_ips,
        ..PeerConf::default()
    };
    let set = |peers| DeviceConf {
        peers,
        ..DeviceConf::default()
    };
    let own = (IpAddr::from(Ipv4Addr::new(10, 0, 0, 0)), 9);
    let begin = set(vec![
        peer(0, uapi::peer::F_REPLACE_ALLOWEDIPS, prefixes()),
        peer(1, uapi::peer::F_REPLACE_ALLOWEDIPS, vec![own]),
    ]);
    check.set("wg0", &begin)?;
    let change = set(vec![
        peer(0, uapi::peer::F_REPLACE_ALLOWEDIPS, vec![own]),
        peer(1, 0, prefixes()),
    ]);
    each_failure(
        ctx,
        &faults,
        "allowed IPs replaced and moved",
        || wg.set("wg0", &change),
        |result| {
            let device = check.get("wg0")?;
            let count = |n: usize| {
                let peer = device.peers.iter().find(|p| p.public_key == keys[n]);
                peer.map(|p| p.allowed_ips.len())
            };
            let both = (count(0), count(1));
            if result.is_ok() {
                let wanted = (Some(1), Some(prefixes().len()));
                ensure!(both == wanted, "success, but {both:?} allowed IPs");
            }
            ensure!(both.0.is_some() && both.1.is_some(), "a peer is gone");
            Ok(check.set("wg0", &begin)?)
        },
    )
}

fn link_up(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let (ns, mut rt, mut wg) = scene()?;
    let mut other = ns.rtnl()?;
    let conf = DeviceConf {
        private_key: Some(random_key()),
        listen_port: Some(port(0)),
        peers: vec![PeerConf {
            public_key: random_key(),
            endpoint: Some(SocketAddr::new(outer(false, 1), port(1))),
            keepalive: Some(1),
            ..PeerConf::default()
        }],
        ..DeviceConf::default()
    };
    wg.set("wg0", &conf)?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(0)));
    each_failure(
        ctx,
        &faults,
        "link up",
        || rt.set_up("wg0", true),
        |result| {
            let open = udp(&ns, any).is_err();
            ensure!(open || result.is_err(), "success, but no socket");
            other.set_up("wg0", false)?;
            ensure!(
                udp(&ns, any).is_ok(),
                "the socket stays open when the link is down"
            );
            Ok(())
        },
    )
}

fn dump(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let (ns, _rt, mut wg) = scene()?;
    let peers = |n: u8| PeerConf {
        public_key: [n; 32],
        allowed_ips: (0..40)
            .map(|m| (IpAddr::from(Ipv4Addr::new(10, n, m, 0)), 24))
            .collect(),
        ..PeerConf::default()
    };
    let conf = DeviceConf {
        private_key: Some(random_key()),
        peers: (0..30).map(peers).collect(),
        ..DeviceConf::default()
    };
    wg.set("wg0", &conf)?;
    // An aborted dump stays attached to its socket: use a new socket for each.
    let fresh = std::cell::RefCell::new(Wg::open(&ns, PLAIN.kind)?);
    let got = std::cell::Cell::new(0);
    each_failure(
        ctx,
        &faults,
        "dump",
        || {
            let device = fresh.borrow_mut().get("wg0")?;
            got.set(device.peers.iter().map(|p| p.allowed_ips.len()).sum());
            Ok(())
        },
        |result| {
            let got = got.take();
            ensure!(
                result.is_err() || got == 1200,
                "success, but {got} allowed IPs"
            );
            *fresh.borrow_mut() = Wg::open(&ns, PLAIN.kind)?;
            let device = wg.get("wg0")?;
            ensure!(device.peers.len() == 30, "{} peers", device.peers.len());
            Ok(())
        },
    )
}

/// A packet sent before there is a session, and one within.
fn transmit(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    for v6 in [false, true] {
        let socket = udp(tunnel.ns(0), SocketAddr::new(inner(v6, 0), 7))?;
        let to = SocketAddr::new(inner(v6, 1), 9);
        let send = |size: usize| {
            let sent = socket.send_to(&[0; 1400][..size], to);
            // An earlier datagram may have been answered with an error: nobody listens there.
            match sent.map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)) {
                Ok(_) | Err(Errno::ECONNREFUSED) => Ok(()),
                Err(e) => Err(e),
            }
        };
        let peer = PeerConf {
            endpoint: Some(SocketAddr::new(outer(false, 1), port(1))),
            allowed_ips: vec![(inner(false, 1), 32), (inner(true, 1), 128)],
            ..PeerConf::default()
        };
        each_failure(
            ctx,
            &faults,
            "packet without a session",
            || send(100),
            |_| {
                let gone = PeerConf {
                    flags: uapi::peer::F_REMOVE_ME,
                    ..PeerConf::default()
                };
                tunnel.set_peer(0, gone)?;
                tunnel.set_peer(0, peer.clone())
            },
        )?;
        ping_all(tunnel.ns(0), inner(v6, 1), 1)?;
        each_failure(
            ctx,
            &faults,
            "packet in a session",
            || send(1300),
            |_| Ok(()),
        )?;
        ping_all(tunnel.ns(0), inner(v6, 1), 1)?;
    }
    ping_all(tunnel.ns(1), inner(false, 0), 1)
}

/// Traffic both ways with a new session every few packets; returns the number of answered pings.
fn traffic(tunnel: &mut Tunnel) -> Result<u32> {
    let limit = Duration::from_millis(300);
    let mut answered = 0;
    for round in 0..amount(40, 8) {
        let (n, v6) = ((round % 2) as u8, round / 2 % 2 == 1);
        let size = if round / 4 % 2 == 1 { 1300 } else { 20 };
        answered += u32::from(ping(tunnel.ns(n), inner(v6, 1 - n), 4, size, limit)?);
        // May fail for lack of memory.
        let _ = restart(tunnel, n);
    }
    Ok(answered)
}

/// Takes end `n` down and up again.
fn restart(tunnel: &mut Tunnel, n: u8) -> Result<()> {
    let (name, _) = names(n);
    tunnel.rt(n).set_up(name, false)?;
    tunnel.rt(n).set_up(name, true)?;
    // Taking the link down removed the IPv6 addresses.
    Ok(tunnel.rt(n).addr_add(name, inner(true, n), 64)?)
}

fn recovers(ctx: &Ctx, tunnel: &mut Tunnel, answered: u32, failed: u32) -> Result<()> {
    ctx.note(format!(
        "{failed} allocations failed, {answered} pings were answered"
    ));
    ensure!(failed > 0, "no allocation failed");
    for n in 0..2u8 {
        restart(tunnel, n)?;
    }
    for v6 in [false, true] {
        ping_all(tunnel.ns(0), inner(v6, 1), 2)?;
        ping_all(tunnel.ns(1), inner(v6, 0), 2)?;
    }
    Ok(())
}

/// As [`ready`]; only allocations made by the module's code fail.
fn ready_for_module(ctx: &Ctx) -> Result<Faults> {
    let faults = ready()?;
    let ours = ctx.subject == Subject::Rs && !ctx.env.stand_in;
    faults.within(if ours { OURS } else { INTREE })?;
    Ok(faults)
}

/// One in ten allocations in softirqs and under locks fails.
fn atomic(ctx: &Ctx) -> Result<()> {
    let faults = ready_for_module(ctx)?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    faults.atomic(10)?;
    let answered = traffic(&mut tunnel);
    let failed = faults.stop()?;
    recovers(ctx, &mut tunnel, answered?, failed)
}

/// One in five allocations in worker threads fails: handshakes, encryption, decryption.
fn workers(ctx: &Ctx) -> Result<()> {
    let faults = ready_for_module(ctx)?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    faults.workers(20)?;
    let answered = traffic(&mut tunnel);
    let failed = faults.stop()?;
    recovers(ctx, &mut tunnel, answered?, failed)
}

/// Each allocation during module init can fail. The module stays loaded at the end.
fn module_load(ctx: &Ctx) -> Result<()> {
    let faults = ready()?;
    let ours = ctx.subject == Subject::Rs && !ctx.env.stand_in;
    let path = if ours {
        ctx.env.load_dependencies()?;
        ctx.env.ko()?.to_owned()
    } else {
        let found = harness::cmd::run(&["modinfo", "-n", "wireguard"])?;
        harness::cmd::run(&["modprobe", "wireguard"])?;
        unload_all()?;
        found.trim().into()
    };
    let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    each_failure(
        ctx,
        &faults,
        "module load",
        || nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty()),
        |_| unload_all(),
    )?;
    ctx.env.load(if ctx.subject == Subject::C {
        Modules::Intree
    } else {
        Modules::Ours
    })
}

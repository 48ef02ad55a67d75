// SPDX-License-Identifier: GPL-2.0-only
//! The events of our module: each is told, in the right namespace only, to those who may hear it,
//! and nobody waits for those who do not read.

use super::{needs_ours, Test};
use anyhow::{ensure, Context, Result};
use harness::events::{ensure_numbered, Event, Listener};
use harness::flood::Flooder;
use harness::modules::{loaded, unload, Modules, OURS};
use harness::netns::Netns;
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, outer, port, Opts, Tunnel};
use harness::traffic::{ping, ping_all};
use harness::wgdev::{random_key, uapi, DeviceConf, Key, PeerConf, Wg};
use nix::errno::Errno;
use nix::unistd::{setuid, Uid};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};
use wireguard_rs::proto::extension::{attr, changed, event, role, GENL_NAME, GENL_NAME_COEXIST};
use x25519_dalek::{PublicKey, StaticSecret};

type Body = fn(&Ctx) -> Result<()>;

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Boot, Modules, u64, Body); 7] = [
        (
            "events-handshakes",
            Boot::Config,
            Modules::Ours,
            60,
            handshakes,
        ),
        (
            "events-configuration",
            Boot::Config,
            Modules::Ours,
            60,
            configuration,
        ),
        (
            "events-namespaces",
            Boot::Config,
            Modules::Ours,
            60,
            namespaces,
        ),
        ("events-rights", Boot::Config, Modules::Both, 60, rights),
        (
            "events-slow-listener",
            Boot::Config,
            Modules::Ours,
            60,
            slow_listener,
        ),
        ("events-load", Boot::Config, Modules::Ours, 60, load),
        ("vtime-events", Boot::Vtime, Modules::Ours, 900, in_time),
    ];
    for (name, boot, modules, secs, body) in tests {
        list.push(Test {
            name: name.to_owned(),
            boot,
            modules,
            subject: Subject::Rs,
            bound: Duration::from_secs(secs),
            body: Box::new(body),
        });
    }
}

fn tunnel(ctx: &Ctx) -> Result<(Tunnel, [Listener; 2])> {
    needs_ours(ctx)?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let [a, b] = [0, 1].map(|n| Listener::open(tunnel.ns(n), GENL_NAME));
    Ok((tunnel, [a?, b?]))
}

fn kinds(events: &[Event]) -> Vec<u8> {
    events.iter().map(|event| event.kind).collect()
}

/// A session begins, with its role at each end; a peer moves; a stranger knocks.
fn handshakes(ctx: &Ctx) -> Result<()> {
    let (mut tunnel, mut listeners) = tunnel(ctx)?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    for (n, own) in [(0u8, role::INITIATOR), (1, role::RESPONDER)] {
        let completed = listeners[usize::from(n)].wait(event::HANDSHAKE_COMPLETED)?;
        let name = completed.attrs.get(&attr::IFNAME).map(Vec::as_slice);
        ensure!(
            completed.u32(attr::ROLE) == Some(own)
                && completed.key() == Some(tunnel.ends[usize::from(1 - n)].public_key)
                && completed.port(attr::ENDPOINT) == Some(port(1 - n))
                && completed.attrs.contains_key(&attr::SESSION)
                && completed.u32(attr::IFINDEX).is_some()
                && name == Some(if n == 0 { b"wg0\0" } else { b"wg1\0" }),
            "end {n}: {completed:?}"
        );
    }
    // The other end moves to another port.
    let conf = DeviceConf {
        listen_port: Some(7001),
        ..DeviceConf::default()
    };
    tunnel.ends[1].set(&tunnel.link, &conf)?;
    ping_all(tunnel.ns(1), inner(false, 0), 1)?;
    let moved = listeners[0].wait(event::ENDPOINT_CHANGED)?;
    ensure!(
        moved.key() == Some(tunnel.ends[1].public_key)
            && moved.port(attr::OLD_ENDPOINT) == Some(port(1))
            && moved.port(attr::ENDPOINT) == Some(7001),
        "{moved:?}"
    );
    // With another key it is a stranger, who is told of once in a second.
    let private = random_key();
    let conf = DeviceConf {
        private_key: Some(private),
        ..DeviceConf::default()
    };
    tunnel.ends[1].set(&tunnel.link, &conf)?;
    let limit = Duration::from_millis(500);
    ensure!(
        ping(tunnel.ns(1), inner(false, 0), 1, 56, limit)? == 0,
        "a stranger's ping"
    );
    let knock = listeners[0].wait(event::UNKNOWN_INITIATOR)?;
    let public: Key = PublicKey::from(&StaticSecret::from(private)).to_bytes();
    ensure!(
        knock.key() == Some(public) && knock.port(attr::ENDPOINT) == Some(7001),
        "{knock:?}"
    );
    let rest = listeners[0].drain()?;
    ensure!(rest.is_empty(), "{:?}", kinds(&rest));
    Ok(())
}

/// A request, and the peer that it is about.
type Request = (DeviceConf, Option<Key>);

/// What requests set.
fn configuration(ctx: &Ctx) -> Result<()> {
    let (mut tunnel, [mut listener, _]) = tunnel(ctx)?;
    let other = random_key();
    let known = tunnel.ends[1].public_key;
    let device = |conf| (conf, None);
    let peer = |conf: PeerConf| {
        let key = conf.public_key;
        let peers = vec![conf];
        (
            DeviceConf {
                peers,
                ..DeviceConf::default()
            },
            Some(key),
        )
    };
    let new = |key| PeerConf {
        public_key: key,
        ..PeerConf::default()
    };
    let steps: Vec<(Request, Vec<(u8, u32)>)> = vec![
        (
            device(DeviceConf {
                fwmark: Some(7),
                ..DeviceConf::default()
            }),
            vec![(event::DEVICE_CHANGED, changed::FWMARK)],
        ),
        (
            device(DeviceConf {
                private_key: Some(random_key()),
                listen_port: Some(7000),
                ..DeviceConf::default()
            }),
            vec![(
                event::DEVICE_CHANGED,
                changed::PRIVATE_KEY | changed::LISTEN_PORT,
            )],
        ),
        (peer(new(other)), vec![(event::PEER_ADDED, 0)]),
        (
            peer(PeerConf {
                preshared_key: Some([3; 32]),
                keepalive: Some(0),
                ..new(other)
            }),
            vec![(
                event::PEER_CHANGED,
                changed::PRESHARED_KEY | changed::KEEPALIVE,
            )],
        ),
        (
            peer(PeerConf {
                endpoint: Some(SocketAddr::new(outer(false, 1), 9)),
                allowed_ips: vec![(IpAddr::from([10, 1, 0, 0]), 16)],
                ..new(other)
            }),
            vec![
                (event::ENDPOINT_CHANGED, 0),
                (
                    event::PEER_CHANGED,
                    changed::ENDPOINT | changed::ALLOWED_IPS,
                ),
            ],
        ),
        (
            peer(PeerConf {
                flags: uapi::peer::F_REPLACE_ALLOWEDIPS,
                ..new(other)
            }),
            vec![(event::PEER_CHANGED, changed::ALLOWED_IPS)],
        ),
        (
            peer(PeerConf {
                flags: uapi::peer::F_REMOVE_ME,
                ..new(other)
            }),
            vec![(event::PEER_REMOVED, 0)],
        ),
        // Nothing is there that could be removed or updated.
        (
            peer(PeerConf {
                flags: uapi::peer::F_REMOVE_ME,
                ..new(other)
            }),
            vec![],
        ),
        (
            peer(PeerConf {
                flags: uapi::peer::F_UPDATE_ONLY,
                ..new(other)
            }),
            vec![],
        ),
        (
            (
                DeviceConf {
                    flags: uapi::device::F_REPLACE_PEERS,
                    ..DeviceConf::default()
                },
                Some(known),
            ),
            vec![(event::PEER_REMOVED, 0)],
        ),
    ];
    let mut all = Vec::new();
    for (at, ((conf, key), wanted)) in steps.into_iter().enumerate() {
        tunnel.ends[0].set(&tunnel.link, &conf)?;
        let events = listener.drain()?;
        let told: Vec<(u8, u32)> = events
            .iter()
            .map(|event| (event.kind, event.u32(attr::CHANGED).unwrap_or(0)))
            .collect();
        ensure!(told == wanted, "step {at}: {told:?}, wanted {wanted:?}");
        let right = events.iter().all(|event| event.key() == key);
        ensure!(right, "step {at}: another peer's: {events:?}");
        all.extend(events);
    }
    ensure_numbered(&all)
}

/// Only those in the namespace that the device is in hear of it; a listener keeps nothing alive.
fn namespaces(ctx: &Ctx) -> Result<()> {
    let (mut tunnel, [mut here, mut there]) = tunnel(ctx)?;
    let conf = DeviceConf {
        fwmark: Some(7),
        ..DeviceConf::default()
    };
    tunnel.ends[0].set(&tunnel.link, &conf)?;
    ensure!(
        kinds(&here.drain()?) == [event::DEVICE_CHANGED],
        "not told here"
    );
    ensure!(there.drain()?.is_empty(), "told elsewhere");
    // The device moves, and its events with it.
    let fd = tunnel.ns(1).fd();
    tunnel.link.rt(0).set_netns("wg0", fd)?;
    here.drain()?;
    let mut wg = Wg::open(tunnel.ns(1), ctx.plain()[0].kind)?;
    let conf = DeviceConf {
        peers: vec![PeerConf {
            public_key: random_key(),
            ..PeerConf::default()
        }],
        ..DeviceConf::default()
    };
    wg.set("wg0", &conf)?;
    let heard = kinds(&there.drain()?);
    ensure!(
        heard == [event::PEER_ADDED],
        "not told where it moved to: {heard:?}"
    );
    ensure!(here.drain()?.is_empty(), "told where it was");
    // It goes with all its peers, of which nothing is told.
    let mut rt = tunnel.ns(1).rtnl()?;
    rt.link_del("wg0")?;
    let heard = kinds(&there.drain()?);
    ensure!(heard.is_empty(), "told when the device goes: {heard:?}");
    drop((rt, wg, tunnel));
    unload(OURS)?;
    ensure!(!loaded(OURS), "still loaded");
    ensure!(
        there.drain()?.is_empty() && here.drain()?.is_empty(),
        "told at the end"
    );
    Ok(())
}

/// Whoever may not configure interfaces may not listen. With `coexist=1` the family has another
/// name.
fn rights(ctx: &Ctx) -> Result<()> {
    let name = if ctx.env.stand_in {
        GENL_NAME
    } else {
        GENL_NAME_COEXIST
    };
    let ns = Netns::new("listeners")?;
    Listener::open(&ns, name).context("root")?;
    // For the rest of this process.
    setuid(Uid::from_raw(65534))?;
    match Listener::join(name) {
        Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(error).context("another error than EPERM"),
        Ok(_) => anyhow::bail!("anybody may listen"),
    }
}

/// A listener that does not read loses events and hears that it did; nobody waits for it.
fn slow_listener(ctx: &Ctx) -> Result<()> {
    const PEERS: usize = 3000;
    let (mut tunnel, [mut slow, mut other]) = tunnel(ctx)?;
    slow.set_room(1 << 14)?;
    let peers = (0..PEERS).map(|_| PeerConf {
        public_key: random_key(),
        ..PeerConf::default()
    });
    let peers: Vec<PeerConf> = peers.collect();
    let mut conf = DeviceConf::default();
    for some in peers.chunks(200) {
        conf.peers = some.to_vec();
        tunnel.ends[0].set(&tunnel.link, &conf)?;
    }
    ping_all(tunnel.ns(0), inner(false, 1), 1).context("nobody waits")?;
    let (events, lost) = slow.drain_lossy()?;
    ensure!(lost, "nothing was lost");
    ensure!(
        !events.is_empty() && events.len() < PEERS / 2,
        "{} events",
        events.len()
    );
    // There is room again: the number tells how many are missing.
    let conf = DeviceConf {
        fwmark: Some(7),
        ..DeviceConf::default()
    };
    tunnel.ends[0].set(&tunnel.link, &conf)?;
    let next = slow.hear()?;
    let [before, after] = [events.last(), Some(&next)].map(|e| e?.u32(attr::SEQUENCE));
    let (before, after) = before.zip(after).context("no number")?;
    ensure!(next.kind == event::DEVICE_CHANGED, "{next:?}");
    ensure!(
        after.wrapping_sub(before) as usize > PEERS / 2,
        "{before}, then {after}"
    );
    ensure!(
        kinds(&other.drain()?).contains(&event::HANDSHAKE_COMPLETED),
        "the other listener heard nothing"
    );
    Ok(())
}

/// A flood of initiations makes the device ask for cookies; after it, it no longer does.
fn load(ctx: &Ctx) -> Result<()> {
    let (tunnel, [mut listener, _]) = tunnel(ctx)?;
    let to = SocketAddr::new(outer(false, 0), port(0));
    let from = SocketAddr::new(outer(false, 1), 4000);
    let key = tunnel.ends[0].public_key;
    let mut flood = Flooder::new(tunnel.ns(1), from, to, &key)?;
    let begin = Instant::now();
    let mut on = None;
    while on.is_none() && begin.elapsed() < harness::pace::slow(Duration::from_secs(20)) {
        for _ in 0..64 {
            flood.burst();
        }
        on = listener.drain()?.into_iter().next();
    }
    let on = on.context("never under load")?;
    ensure!(
        on.kind == event::LOAD_CHANGED && on.u32(attr::UNDER_LOAD) == Some(1),
        "{on:?}"
    );
    // It holds on for a second; then the next handshake message finds none.
    sleep(harness::pace::slow(Duration::from_millis(2500)));
    listener.drain()?;
    flood.burst();
    let off = listener.wait(event::LOAD_CHANGED)?;
    ensure!(off.u32(attr::UNDER_LOAD) == Some(0), "{off:?}");
    ping_all(tunnel.ns(1), inner(false, 0), 1)
}

/// No response in time, and keys that expire.
fn in_time(ctx: &Ctx) -> Result<()> {
    let (mut tunnel, [mut listener, _]) = tunnel(ctx)?;
    let sec = Duration::from_secs(1);
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    tunnel.mute(0, true)?;
    tunnel.mute(1, true)?;
    listener.drain()?;
    ensure!(
        ping(tunnel.ns(0), inner(false, 1), 1, 56, sec)? == 0,
        "muted, but answered"
    );
    sleep(600 * sec);
    let events = listener.drain()?;
    let wanted = [event::HANDSHAKE_GIVEN_UP, event::SESSION_EXPIRED];
    ensure!(kinds(&events) == wanted, "{events:?}");
    let attempts = events[0].u32(attr::ATTEMPTS);
    ensure!(attempts == Some(20), "after {attempts:?} initiations");
    let key = Some(tunnel.ends[1].public_key);
    ensure!(events.iter().all(|event| event.key() == key), "{events:?}");
    ensure_numbered(&events)
}

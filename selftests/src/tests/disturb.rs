// SPDX-License-Identifier: GPL-2.0-only
//! What is on the underlay during the life of a tunnel, bulk traffic over a bad underlay, and
//! which kernel functions are called.

use super::{drop_in, side_by_side, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::{Action, Calls, Class, Direction, Rule, Underlay};
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, mac, outer, port, Opts, Tunnel};
use harness::traffic::{ping, ping_all, tcp, udp};
use harness::wgdev::{random_key, uapi, DeviceConf, PeerConf};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    side_by_side(list, "disturb-only-wireguard-v4", Boot::Smp, 180, |ctx| {
        only_wireguard(ctx, false)
    });
    side_by_side(list, "disturb-only-wireguard-v6", Boot::Smp, 180, |ctx| {
        only_wireguard(ctx, true)
    });
    side_by_side(list, "disturb-bulk", Boot::Smp, 180, bulk);
    drop_in(list, "calls-remove-peers", 180, remove_peers);
    let name = "vtime-calls-silent-discard";
    side_by_side(list, name, Boot::Vtime, 300, silent_discard);
}

/// Whatever happens to a tunnel, its underlay carries only valid WireGuard messages, in either
/// direction; the control at the end shows that others would have been seen.
fn only_wireguard(ctx: &Ctx, v6: bool) -> Result<()> {
    let opts = Opts {
        v6,
        ..Opts::new(ctx.against_intree())
    };
    let mut tunnel = Tunnel::new(&opts)?;
    let mut underlay = Underlay::attach(tunnel.ns(0), "v0")?;
    for (what, step) in LIFE {
        let before = [Direction::Out, Direction::In].map(|d| underlay.counts(d));
        step(&mut tunnel, &mut underlay, v6).context(what)?;
        underlay.only_wireguard().context(what)?;
        for (direction, before) in [Direction::Out, Direction::In].into_iter().zip(before) {
            let more = underlay.counts(direction)?.messages() - before?.messages();
            ensure!(more > 0, "{what}: no message in direction {direction:?}");
        }
    }
    // Control: the watch does see plaintext.
    for n in [0, 1] {
        let socket = udp(tunnel.ns(n), SocketAddr::new(outer(v6, n), 4444))?;
        let to = SocketAddr::new(outer(v6, 1 - n), port(1 - n));
        socket.send_to(b"plaintext, to be seen", to)?;
        sleep(Duration::from_millis(200));
        let seen = underlay.strangers()?.len();
        ensure!(seen == 1, "plaintext from end {n} is seen {seen} times");
    }
    Ok(())
}

type Step = fn(&mut Tunnel, &mut Underlay, bool) -> Result<()>;
const LIFE: [(&str, Step); 7] = [
    ("handshake and ping", pings),
    ("bulk", |tunnel, _, _| {
        for (from, to) in [(0, 1), (1, 0)] {
            let dst = SocketAddr::new(inner(from == 1, to), 5201);
            let (from, to) = (tunnel.ns(from), tunnel.ns(to));
            tcp(from, to, dst, 2 << 20, Duration::from_secs(30))?;
        }
        Ok(())
    }),
    ("roaming", roams),
    ("down and up", |tunnel, underlay, v6| {
        tunnel.rt(0).set_up("wg0", false)?;
        // To a closed port: the only possible answer is an ICMP error.
        for to in [inner(false, 0), inner(true, 0)] {
            ping(tunnel.ns(1), to, 2, 700, Duration::from_millis(100))?;
        }
        tunnel.rt(0).set_up("wg0", true)?;
        tunnel.rt(0).addr_add("wg0", inner(true, 0), 64).ok();
        pings(tunnel, underlay, v6)
    }),
    ("key change", |tunnel, underlay, v6| {
        let conf = DeviceConf {
            private_key: Some(random_key()),
            ..DeviceConf::default()
        };
        tunnel.ends[0].set(&tunnel.link, &conf)?;
        // Packets for a peer that does not know this key.
        ping(
            tunnel.ns(0),
            inner(false, 1),
            2,
            56,
            Duration::from_millis(100),
        )?;
        let key = tunnel.ends[0].get(&tunnel.link)?.public_key;
        let old = PeerConf {
            flags: uapi::peer::F_REMOVE_ME,
            ..PeerConf::default()
        };
        tunnel.set_peer(1, old)?;
        tunnel.ends[0].public_key = key.context("no public key")?;
        tunnel.set_peer(1, peer(v6, 0))?;
        pings(tunnel, underlay, v6)
    }),
    ("preshared key change", |tunnel, underlay, v6| {
        let psk = PeerConf {
            preshared_key: Some(rand::random()),
            ..PeerConf::default()
        };
        tunnel.set_peer(0, psk.clone())?;
        tunnel.set_peer(1, psk)?;
        // The next handshake uses it.
        tunnel.rt(0).set_up("wg0", false)?;
        tunnel.rt(0).set_up("wg0", true)?;
        tunnel.rt(0).addr_add("wg0", inner(true, 0), 64).ok();
        pings(tunnel, underlay, v6)
    }),
    ("peer removal", |tunnel, underlay, v6| {
        let gone = PeerConf {
            flags: uapi::peer::F_REMOVE_ME,
            ..PeerConf::default()
        };
        tunnel.set_peer(0, gone)?;
        for (from, to) in [(0, 1), (1, 0)] {
            ping(
                tunnel.ns(from),
                inner(false, to),
                2,
                56,
                Duration::from_millis(100),
            )?;
        }
        // Once added again, it has no preshared key.
        let no_psk = PeerConf {
            preshared_key: Some([0; 32]),
            ..PeerConf::default()
        };
        tunnel.set_peer(1, no_psk)?;
        tunnel.set_peer(0, peer(v6, 1))?;
        pings(tunnel, underlay, v6)
    }),
];

/// The configuration of end `n` as a peer.
fn peer(v6: bool, n: u8) -> PeerConf {
    PeerConf {
        endpoint: Some(SocketAddr::new(outer(v6, n), port(n))),
        allowed_ips: vec![(inner(false, n), 32), (inner(true, n), 128)],
        ..PeerConf::default()
    }
}

fn pings(tunnel: &mut Tunnel, _: &mut Underlay, _: bool) -> Result<()> {
    for v6 in [false, true] {
        ping_all(tunnel.ns(0), inner(v6, 1), 2)?;
        ping_all(tunnel.ns(1), inner(v6, 0), 2)?;
    }
    ensure!(
        ping(
            tunnel.ns(0),
            inner(false, 1),
            1,
            1300,
            Duration::from_secs(10)
        )? == 1,
        "no answer to a long ping"
    );
    Ok(())
}

/// End 1 moves to another port and to another address; then back.
fn roams(tunnel: &mut Tunnel, underlay: &mut Underlay, v6: bool) -> Result<()> {
    let both = [false, true].map(|v6| [inner(v6, 0), inner(v6, 1)]);
    underlay.expect(&[port(0), port(1), 7001], both.as_flattened(), 1420)?;
    let new = if v6 {
        "2001:db8::99".parse()?
    } else {
        "192.0.2.99".parse()?
    };
    let cidr = if v6 { 64 } else { 24 };
    for listen_port in [7001, port(1)] {
        let conf = DeviceConf {
            listen_port: Some(listen_port),
            ..DeviceConf::default()
        };
        tunnel.ends[1].set(&tunnel.link, &conf)?;
        pings_from(tunnel, 1)?;
    }
    tunnel.rt(1).addr_add("v1", new, cidr)?;
    tunnel.rt(0).neigh_set("v0", new, mac(1))?;
    tunnel.rt(1).addr_del("v1", outer(v6, 1), cidr)?;
    // Removing the first address of a subnet may remove the others, too.
    let _ = tunnel.rt(1).addr_add("v1", new, cidr);
    pings_from(tunnel, 1)?;
    tunnel.rt(1).addr_add("v1", outer(v6, 1), cidr)?;
    tunnel.rt(1).addr_del("v1", new, cidr)?;
    let _ = tunnel.rt(1).addr_add("v1", outer(v6, 1), cidr);
    pings_from(tunnel, 1)
}

fn pings_from(tunnel: &Tunnel, n: u8) -> Result<()> {
    ping_all(tunnel.ns(n), inner(false, 1 - n), 2)?;
    ping_all(tunnel.ns(1 - n), inner(false, n), 2)
}

/// TCP over an underlay that drops, duplicates and corrupts messages in both directions: slower,
/// but every byte arrives intact.
fn bulk(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
    let mut underlay = Underlay::attach(tunnel.ns(0), "v0")?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let mut rules = Vec::new();
    for direction in [Direction::Out, Direction::In] {
        let flip = Action::Corrupt {
            offset: -20,
            mask: 4,
        };
        for (action, nth, every) in [
            (Action::Drop, 40, 151),
            (Action::Duplicate, 5, 17),
            (flip, 60, 173),
        ] {
            let rule = Rule::new(direction, &[Class::Data], action);
            rules.push(underlay.disturb(rule.nth(nth).every(every))?);
        }
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let dst = SocketAddr::new(inner(false, to), 5201);
        let (from, to) = (tunnel.ns(from), tunnel.ns(to));
        tcp(from, to, dst, 1 << 20, Duration::from_secs(30))?;
    }
    let hits: Result<Vec<u64>> = rules.iter().map(|rule| underlay.hits(*rule)).collect();
    let hits = hits?;
    ctx.note(format!(
        "dropped, duplicated, corrupted (out, in): {hits:?}"
    ));
    ensure!(hits.iter().all(|n| *n > 0), "not disturbed: {hits:?} hits");
    for rule in rules {
        underlay.lift(rule)?;
    }
    underlay.only_wireguard()?;
    ping_all(tunnel.ns(0), inner(false, 1), 3)?;
    ping_all(tunnel.ns(1), inner(true, 0), 3)
}

/// The number of peers removed at once, and the grace periods that this may take.
const PEERS: u64 = 60;
const FEW: u64 = 12;

/// Removing many peers waits for a few RCU grace periods. The in-tree driver waits for at least
/// one per peer: ours differs on purpose, and the control shows that the waits are counted.
fn remove_peers(ctx: &Ctx) -> Result<()> {
    let waits = [
        "synchronize_rcu",
        "synchronize_rcu_expedited",
        "synchronize_net",
    ];
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let peers = |flags| -> Vec<PeerConf> {
        (1..=PEERS as u8)
            .map(|n| PeerConf {
                public_key: [n; 32],
                flags,
                allowed_ips: if flags == 0 {
                    vec![([10, 77, n, 0].into(), 24)]
                } else {
                    Vec::new()
                },
                ..PeerConf::default()
            })
            .collect()
    };
    let mut apply = |flags| {
        let conf = DeviceConf {
            peers: peers(flags),
            ..DeviceConf::default()
        };
        tunnel.ends[0].set(&tunnel.link, &conf)
    };
    apply(0)?;
    let calls = Calls::attach(&waits)?;
    apply(uapi::peer::F_REMOVE_ME)?;
    let mut counts = Vec::new();
    for name in waits {
        counts.push(calls.of(name)?);
    }
    drop(calls);
    ctx.note(format!("{PEERS} peers removed: {waits:?} {counts:?}"));
    let left = tunnel.ends[0].get(&tunnel.link)?.peers.len();
    ensure!(left == 1, "{left} peers are left, expected 1");
    // Take the maximum: the outermost function calls one of the other two.
    let count = counts.iter().max().copied().unwrap_or(0);
    match ctx.subject {
        Subject::Rs if !ctx.env.stand_in => {
            ensure!(count <= FEW, "{count} grace periods for {PEERS} peers");
        }
        _ => ensure!(
            count >= PEERS,
            "only {count} grace periods seen for {PEERS} peers of the in-tree driver"
        ),
    }
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

/// A message that is silently dropped gets exactly as far as it should. The probes are on the
/// driver under test; its peer sends.
fn silent_discard(ctx: &Ctx) -> Result<()> {
    let ours = ctx.subject == Subject::Rs && !ctx.env.stand_in;
    // Classification, initiation, response; then decryption and delivery.
    let [classified, consume, respond, decrypt] = if ours {
        [
            "handshake::receive",
            "handshake::consume_initiation",
            "handshake::create_response",
            "receive::open",
        ]
    } else {
        [
            "wg_packet_handshake_receive_worker",
            "wg_noise_handshake_consume_initiation",
            "wg_noise_handshake_create_response",
            "chacha20poly1305_decrypt_sg_inplace",
        ]
    };
    let deliver = "gro_receive_skb";
    let tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
    let mut underlay = Underlay::attach(tunnel.ns(0), "v0")?;
    let socket = udp(tunnel.ns(1), SocketAddr::new(inner(false, 1), 9000))?;
    let target = udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9000))?;
    let send = || socket.send_to(b"tick", target.local_addr()?);
    let mut step = |what: &str, class, offset, stages: &[(&str, u64)]| -> Result<()> {
        let action = match offset {
            None => Action::Duplicate,
            Some(offset) => Action::Corrupt { offset, mask: 1 },
        };
        let rule = underlay.disturb(Rule::new(Direction::In, &[class], action))?;
        let functions: Vec<&str> = stages.iter().map(|s| s.0).collect();
        let calls = Calls::attach(&functions)?;
        send()?;
        sleep(Duration::from_millis(500));
        for (function, want) in stages {
            let count = calls.of(function)?;
            ensure!(
                count == *want,
                "{what}: {function} entered {count} times, expected {want}"
            );
        }
        ensure!(underlay.hits(rule)? == 1, "{what}: no such message arrived");
        underlay.lift(rule)?;
        Ok(())
    };
    use Class::{Data, Initiation};
    // Only the first packet of a burst starts a handshake at once; later ones are retries.
    let stages = [(classified, 1), (consume, 0), (respond, 0)];
    step(
        "initiation with a wrong mac1",
        Initiation,
        Some(116),
        &stages,
    )?;
    sleep(Duration::from_millis(7000)); // the retry
    ping_all(tunnel.ns(1), inner(false, 0), 1)?;
    step(
        "data with a wrong tag",
        Data,
        Some(-1),
        &[(decrypt, 1), (deliver, 0)],
    )?;
    step("duplicated data", Data, None, &[(decrypt, 2), (deliver, 1)])?;
    step(
        "data with an unknown receiver index",
        Data,
        Some(5),
        &[(decrypt, 0), (deliver, 0)],
    )?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

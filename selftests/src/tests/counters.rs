// SPDX-License-Identifier: GPL-2.0-only
//! What peers and devices count: each message that comes and each packet that is to be sent is
//! accepted, sent, or counted once with the reason why not. And the requests that show it.

use super::receive::Scene;
use super::{needs_ours, ours, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::Refusals;
use harness::gnl::{hex, Gnl, Request, DUMP};
use harness::netlink::{family_id, Attrs, Netlink};
use harness::netns::Netns;
use harness::noise::{Client, Keys, Tweak};
use harness::pace::slow;
use harness::packet::{ip, Datagram, PacketSocket, IPV4};
use harness::peers::{get, Answer, Refused};
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, outer, port, Opts, Tunnel};
use harness::trace::Trace;
use harness::traffic::{ping_all, udp};
use harness::wgdev::{random_key, uapi, DeviceConf, Key, PeerConf, Wg};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{setuid, Uid};
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};
use wireguard_rs::proto::extension::{cmd, device, peer, show, GENL_NAME};
use wireguard_rs::proto::Rejection;

const LIMIT: Duration = Duration::from_secs(10);

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Boot, Check); 7] = [
        ("counters-received", Boot::Config, received),
        ("counters-handshakes", Boot::Config, handshakes),
        ("counters-sent", Boot::Config, sent),
        ("counters-overflow", Boot::Smp, overflow),
        ("counters-traced", Boot::Config, traced),
        ("peers-requests", Boot::Config, requests),
        ("peers-many", Boot::Config, many),
    ];
    for (name, boot, body) in tests {
        ours(list, name, boot, 90, body);
    }
}

fn counters(ns: &Netns, name: &str) -> Result<Answer> {
    ns.run(|| {
        Ok(get(GENL_NAME, name, |fill| {
            fill.u32(device::SHOW, show::COUNTERS);
        })?)
    })
}

/// What more is refused than before.
fn more(now: &Refused, before: &Refused) -> Refused {
    now.iter()
        .map(|(reason, count)| (*reason, count - before.get(reason).copied().unwrap_or(0)))
        .filter(|(_, count)| *count != 0)
        .collect()
}

fn total(refused: &Refused) -> u64 {
    refused.values().sum()
}

/// Waits until what `seen` finds is what is wanted.
fn until<T: PartialEq + std::fmt::Debug>(wanted: &T, seen: impl Fn() -> Result<T>) -> Result<()> {
    let begin = Instant::now();
    loop {
        let now = seen()?;
        if now == *wanted {
            return Ok(());
        }
        ensure!(begin.elapsed() < slow(LIMIT), "{now:?}, not {wanted:?}");
        sleep(Duration::from_millis(20));
    }
}

fn wanted(list: &[(Rejection, u64)]) -> Refused {
    let counted = list.iter().filter(|(_, count)| *count != 0);
    counted.map(|(reason, n)| (reason.as_str(), *n)).collect()
}

/// A mix of messages in random order: each is accepted or has its reason.
fn received(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut scene = Scene::new(false)?;
    let mut session = scene.session()?;
    let _sink = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 9))?;
    let trace = Refusals::attach()?;
    let before = counters(scene.link.end(0), "wg0")?;
    let [of_peer] = before.peers.as_slice() else {
        anyhow::bail!("not one peer: {before:?}");
    };
    let data = |src| {
        let (src, dst) = (SocketAddr::new(src, 9), SocketAddr::new(inner(false, 0), 9));
        Datagram::new(src, dst, 0, &[6; 40]).packet()
    };
    let (good, stolen) = (data(inner(false, 1)), data("192.0.2.2".parse()?));
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let (accepted, keepalives) = (50, 20);
    for _ in 0..accepted {
        messages.push(session.data(&good));
    }
    for _ in 0..keepalives {
        messages.push(session.data(&[]));
    }
    for _ in 0..9 {
        messages.push(session.data(&stolen));
    }
    for _ in 0..8 {
        messages.push(session.data(&[0x55; 40]));
    }
    for _ in 0..7 {
        // A copy of each of the others comes later: one of the two is a replay.
        let message = session.data(&good);
        messages.extend([message.clone(), message]);
    }
    for n in 0..6 {
        let mut forged = session.data(&good);
        *forged.get_mut(16 + n).context("short")? ^= 1;
        messages.push(forged);
    }
    for _ in 0..5 {
        let mut unknown = session.data(&good);
        *unknown.get_mut(4).context("short")? ^= 1;
        messages.push(unknown);
    }
    for n in 0..4 {
        messages.push(vec![9 + n; 40]);
    }
    for len in [0, 3, 20] {
        let mut short = vec![4, 0, 0, 0];
        short.resize(len.max(1), 0);
        messages.push(short);
    }
    // An empty datagram is a message as well.
    messages.push(Vec::new());
    messages.shuffle(&mut rand::rng());
    for message in &messages {
        scene.client.send(message)?;
    }
    let of_peer_wanted = wanted(&[
        (Rejection::SourceNotAllowed, 9),
        (Rejection::InvalidInner, 8),
        (Rejection::ReplayedData, 7),
        (Rejection::InvalidData, 6),
    ]);
    let mut of_device = of_peer_wanted.clone();
    of_device.extend(wanted(&[
        (Rejection::UnknownIndex, 5),
        (Rejection::UnknownType, 4),
        (Rejection::BadLength, 4),
    ]));
    let now = || counters(scene.link.end(0), "wg0");
    until(&of_device, || Ok(more(&now()?.refused, &before.refused)))?;
    let after = now()?;
    let peer = after.peers.first().context("no peer")?;
    let refused = more(&peer.refused, &of_peer.refused);
    ensure!(refused == of_peer_wanted, "of the peer: {refused:?}");
    let counted = peer.count(peer::RX_PACKETS) - of_peer.count(peer::RX_PACKETS);
    let kept = peer.count(peer::KEEPALIVES_RECEIVED) - of_peer.count(peer::KEEPALIVES_RECEIVED);
    ensure!(
        counted == accepted + keepalives + 7 && kept == keepalives,
        "{counted} accepted, {kept} of them keepalives"
    );
    ensure!(
        counted + total(&of_device) == messages.len() as u64,
        "{counted} and {of_device:?} of {}",
        messages.len()
    );
    same_as_traced(&trace, &of_device, &of_peer_wanted)
}

/// The tracepoint has told of the same.
fn same_as_traced(trace: &Refusals, all: &Refused, of_peers: &Refused) -> Result<()> {
    let seen = trace.seen()?;
    ensure!(
        (&seen.0, &seen.1) == (all, of_peers),
        "traced: {seen:?}, not {all:?} and {of_peers:?}"
    );
    Ok(())
}

/// Handshake messages of all kinds, good and bad.
fn handshakes(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let scene = Scene::new(false)?;
    let trace = Refusals::attach()?;
    let before = counters(scene.link.end(0), "wg0")?;
    ensure!(total(&before.refused) == 0, "refused: {before:?}");
    let to = SocketAddr::new(outer(false, 0), port(0));
    let own = scene.device.public_key;
    let stranger = |key: &Key| {
        let from = SocketAddr::new(outer(false, 1), 0);
        Client::new(scene.link.end(1), Keys::random(), *key, from, to)
    };
    // A whole handshake, and the first message of another, again and again.
    let mut session = scene.client.handshake()?;
    scene
        .client
        .ping(&mut session, inner(false, 1), inner(false, 0))?;
    // It roams, and is back with its next message.
    let elsewhere = Client::new(
        scene.link.end(1),
        scene.client.keys,
        own,
        SocketAddr::new(outer(false, 1), 0),
        to,
    )?;
    elsewhere.ping(&mut session, inner(false, 1), inner(false, 0))?;
    sleep(Duration::from_millis(100));
    let pending = scene.client.initiate(&Tweak::default())?;
    scene.client.wait_response(&pending, LIMIT)?;
    for _ in 0..3 {
        scene.client.send(&pending.message)?;
    }
    // Those who are no peers, and those who do not know the device.
    for _ in 0..2 {
        stranger(&own)?.initiate(&Tweak::default())?;
    }
    for _ in 0..4 {
        stranger(&random_key())?.initiate(&Tweak::default())?;
    }
    scene.client.initiate(&Tweak {
        static_shared: Some([7; 32]),
        ..Tweak::default()
    })?;
    scene.client.initiate(&Tweak {
        ephemeral_public: Some([0; 32]),
        ..Tweak::default()
    })?;
    let refused = wanted(&[
        (Rejection::ReplayedInitiation, 3),
        (Rejection::UnknownPeer, 2),
        (Rejection::InvalidMac1, 4),
        (Rejection::InvalidTimestamp, 1),
        (Rejection::LowOrderPoint, 1),
    ]);
    let now = || counters(scene.link.end(0), "wg0");
    until(&refused, || Ok(now()?.refused))?;
    let after = now()?;
    let peer = after.peers.first().context("no peer")?;
    let of_peer = wanted(&[
        (Rejection::ReplayedInitiation, 3),
        (Rejection::InvalidTimestamp, 1),
    ]);
    ensure!(peer.refused == of_peer, "of the peer: {:?}", peer.refused);
    for (kind, count) in [
        (peer::INITIATIONS_RECEIVED, 2),
        (peer::RESPONSES_SENT, 2),
        (peer::INITIATIONS_SENT, 0),
        (peer::RESPONSES_RECEIVED, 0),
        // To configure an endpoint is no roaming.
        (peer::ENDPOINT_CHANGES, 2),
    ] {
        let counted = peer.count(kind);
        ensure!(counted == count, "attribute {kind}: {counted}, not {count}");
    }
    ensure!(
        peer.attrs.contains_key(&peer::LAST_HANDSHAKE_TIME),
        "no time of the handshake"
    );
    same_as_traced(&trace, &refused, &of_peer)
}

/// Packets to be sent: each is sent or has its reason.
fn sent(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let trace = Refusals::attach()?;
    let silent = PeerConf {
        public_key: random_key(),
        allowed_ips: vec![("10.9.0.60".parse()?, 32)],
        ..PeerConf::default()
    };
    tunnel.ends[0].set_peer(&tunnel.link, silent.clone())?;
    let far = PeerConf {
        public_key: random_key(),
        endpoint: Some("203.0.113.1:9".parse()?),
        allowed_ips: vec![("10.9.0.61".parse()?, 32)],
        ..PeerConf::default()
    };
    tunnel.ends[0].set_peer(&tunnel.link, far.clone())?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let ns = tunnel.ns(0);
    let socket = udp(ns, "0.0.0.0:0".parse()?)?;
    setsockopt(&socket, sockopt::SndBuf, &(4 << 20))?;
    let send = |to: &str, count: u64| -> Result<()> {
        for _ in 0..count {
            let _ = socket.send_to(&[1; 50], (to, 9));
        }
        Ok(())
    };
    send("10.9.0.77", 3)?;
    send("10.9.0.60", 4)?;
    let mut odd = ip(inner(false, 0), inner(false, 1), 0, 253, &[1; 40]);
    *odd.first_mut().context("empty")? = 0x55;
    let cooked = PacketSocket::open(ns, "wg0", false)?;
    for _ in 0..5 {
        let _ = cooked.send(IPV4, &odd);
    }
    // No route to the endpoint: each initiation fails, and what is staged overflows.
    send("10.9.0.61", 200)?;
    let refused = wanted(&[
        (Rejection::NoAllowedIp, 3),
        (Rejection::NoEndpoint, 4),
        (Rejection::NotIp, 5),
        (Rejection::StagedOverflow, 200 - 129),
        (Rejection::SendFailed, 1),
    ]);
    until(&refused, || Ok(counters(ns, "wg0")?.refused))?;
    // What is staged goes when the interface does down.
    tunnel.rt(0).set_up("wg0", false)?;
    let mut refused = refused;
    refused.extend(wanted(&[(Rejection::StagedPurged, 129)]));
    let now = counters(tunnel.ns(0), "wg0")?;
    ensure!(now.refused == refused, "after down: {:?}", now.refused);
    let of = |key: Key| {
        let found = now.peers.iter().find(|peer| peer.key() == Some(key));
        found.cloned().context("the peer is missing")
    };
    let far_wanted = wanted(&[
        (Rejection::StagedOverflow, 200 - 129),
        (Rejection::StagedPurged, 129),
        (Rejection::SendFailed, 1),
    ]);
    ensure!(of(far.public_key)?.refused == far_wanted, "{now:?}");
    let silent_wanted = wanted(&[(Rejection::NoEndpoint, 4)]);
    ensure!(of(silent.public_key)?.refused == silent_wanted, "{now:?}");
    let mut of_peers = far_wanted;
    of_peers.extend(silent_wanted);
    same_as_traced(&trace, &refused, &of_peers)
}

/// A trace as text, and what the kernel is told when packets are dropped.
fn traced(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut scene = Scene::new(false)?;
    let mut session = scene.session()?;
    let key = hex(&scene.client.keys.public);
    let before = total(&counters(scene.link.end(0), "wg0")?.refused);
    let socket = udp(scene.link.end(0), "0.0.0.0:0".parse()?)?;
    let (stolen, own) = ("192.0.2.2:9".parse()?, SocketAddr::new(inner(false, 0), 9));
    let stolen = Datagram::new(stolen, own, 0, &[6; 40]).packet();
    let trace = Trace::start(&["wireguard_rs/wg_refused", "skb/kfree_skb"])?;
    // The first is processed, not dropped.
    for content in [&[] as &[u8], &stolen, &[0x55; 40]] {
        let message = session.data(content);
        scene.client.send(&message)?;
    }
    let _ = socket.send_to(&[1; 50], ("10.9.0.77", 9));
    until(&3, || {
        Ok(total(&counters(scene.link.end(0), "wg0")?.refused) - before)
    })?;
    let text = trace.end()?;
    let lines = |word: &str| -> Vec<&str> { text.lines().filter(|l| l.contains(word)).collect() };
    ensure!(
        lines("wg_refused: ").len() == 3 && lines("[wireguard_rs]").len() == 3,
        "{text}"
    );
    let zeros = "0".repeat(64);
    for (reason, key, len, dropped) in [
        ("source-not-allowed", &key, 68, "NOT_SPECIFIED"),
        ("invalid-inner", &key, 48, "IP_INHDR"), // with padding
        ("no-allowed-ip", &zeros, 78, "NO_TX_TARGET"),
    ] {
        let told = lines(&format!("public_key={key} reason={reason} count=1 "));
        let [line] = told.as_slice() else {
            anyhow::bail!("{reason}: {text}");
        };
        let peer = line.contains("dev=wg0 peer=0 ");
        ensure!(peer == (*key == zeros), "{line}");
        let packet = line.split_whitespace().find(|w| w.starts_with("skbaddr="));
        let packet = packet.context("no packet")?;
        ensure!(line.ends_with(&format!(" len={len}")), "{line}");
        let reasons = lines(&format!("kfree_skb: {packet} "));
        ensure!(
            reasons
                .iter()
                .any(|line| line.ends_with(&format!("reason: {dropped}"))),
            "{packet}: {reasons:?}"
        );
    }
    Ok(())
}

/// The datagrams that the sockets of a port have dropped.
fn dropped_by_sockets(ns: &Netns, port: u16) -> Result<u64> {
    ns.run(|| {
        let list = fs::read_to_string("/proc/thread-self/net/udp")?;
        let mut dropped = 0;
        for line in list.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = fields.get(1).context("short")?;
            if local.ends_with(&format!(":{port:04X}")) {
                dropped += fields.last().context("short")?.parse::<u64>()?;
            }
        }
        Ok(dropped)
    })
}

/// More than there is room for, from several senders at once: what is lost is counted, all of it.
fn overflow(ctx: &Ctx) -> Result<()> {
    const EACH: u64 = 15_000;
    needs_ours(ctx)?;
    let mut scene = Scene::new(false)?;
    let mut session = scene.session()?;
    let before = counters(scene.link.end(0), "wg0")?;
    let of_peer = before.peers.first().context("no peer")?;
    let packet = ip(inner(false, 1), inner(false, 0), 0, 253, &[1; 900]);
    let messages: Vec<Vec<u8>> = (0..EACH).map(|_| session.data(&packet)).collect();
    let (socket, to) = (
        &scene.client.socket,
        SocketAddr::new(outer(false, 0), port(0)),
    );
    let send = || {
        messages
            .iter()
            .try_for_each(|message| socket.send_to(message, to).map(drop))
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(send);
        send()?;
        other.join().unwrap_or(Ok(()))
    })?;
    let port = port(0);
    let accounted = || {
        let now = counters(scene.link.end(0), "wg0")?;
        let peer = now.peers.first().context("no peer")?;
        let accepted = peer.count(peer::RX_PACKETS) - of_peer.count(peer::RX_PACKETS);
        let refused = more(&now.refused, &before.refused);
        // Delivered to nobody: these were accepted before.
        let after = refused.get(Rejection::DeliveryQueueFull.as_str());
        let lost = total(&refused) - after.copied().unwrap_or(0);
        let dropped = dropped_by_sockets(scene.link.end(0), port)?;
        anyhow::Ok((accepted, lost, dropped, refused))
    };
    let begin = Instant::now();
    loop {
        let (accepted, lost, dropped, refused) = accounted()?;
        if accepted + lost + dropped == 2 * EACH {
            ctx.note(format!(
                "{accepted} accepted, {dropped} dropped by the socket, refused: {refused:?}"
            ));
            let replayed = refused.get(Rejection::ReplayedData.as_str());
            ensure!(replayed.is_some(), "each came twice, none was replayed");
            return Ok(());
        }
        ensure!(
            begin.elapsed() < slow(LIMIT),
            "{accepted} accepted, {dropped} dropped by the socket, {refused:?}: not {}",
            2 * EACH
        );
        sleep(Duration::from_millis(50));
    }
}

/// One peer, changed peers, and what is refused.
fn requests(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let conf = |n: u8| PeerConf {
        public_key: [n + 1; 32],
        preshared_key: Some([n + 2; 32]),
        keepalive: Some(u16::from(n) + 3),
        endpoint: Some(SocketAddr::new(outer(false, 1), 1000 + u16::from(n))),
        allowed_ips: vec![([10, 8, n, 0].into(), 24), ([10, 7, n, 1].into(), 32)],
        ..PeerConf::default()
    };
    for n in 0..5 {
        tunnel.ends[0].set_peer(&tunnel.link, conf(n))?;
    }
    let index = tunnel.rt(0).index("wg0")?;
    let ask = |fill: &(dyn Fn(&mut harness::netlink::Attrs) + Sync)| {
        tunnel.ns(0).run(|| Ok(get(GENL_NAME, "wg0", fill)))
    };
    let all = ask(&|_| ())??;
    ensure!(all.peers.len() == 6, "{} peers, not 6", all.peers.len());
    ensure!(all.u32(device::IFINDEX) == Some(index), "{all:?}");
    ensure!(all.u32(device::REMOVED_IN).is_none(), "{all:?}");
    let generation = all.u32(device::GENERATION).context("no generation")?;
    // All of one peer.
    let one = ask(&|fill| {
        fill.put(device::PEER, &[3; 32]);
    })??;
    let [peer] = one.peers.as_slice() else {
        anyhow::bail!("not one peer: {one:?}");
    };
    // The handshakes that begin are counted meanwhile.
    let settings = |peer: &harness::peers::Peer| {
        let of = [peer::PRESHARED_KEY, peer::ENDPOINT, peer::ALLOWEDIPS];
        of.map(|kind| peer.attrs.get(&kind).cloned())
    };
    let listed = all.peers.get(3).context("no such peer")?;
    ensure!(
        settings(peer) == settings(listed),
        "{peer:?}, not {listed:?}"
    );
    for (kind, value) in [
        (peer::PUBLIC_KEY, vec![3; 32]),
        (peer::PRESHARED_KEY, vec![4; 32]),
        (
            peer::PERSISTENT_KEEPALIVE_INTERVAL,
            5_u16.to_ne_bytes().to_vec(),
        ),
    ] {
        ensure!(
            peer.attrs.get(&kind) == Some(&value),
            "attribute {kind}: {peer:?}"
        );
    }
    // What of them.
    for (what, kinds) in [
        (0, vec![peer::PUBLIC_KEY]),
        (show::ALLOWED_IPS, vec![peer::PUBLIC_KEY, peer::ALLOWEDIPS]),
        (
            show::SETTINGS,
            vec![
                peer::PUBLIC_KEY,
                peer::PRESHARED_KEY,
                peer::ENDPOINT,
                peer::PERSISTENT_KEEPALIVE_INTERVAL,
                peer::PROTOCOL_VERSION,
                peer::FIXED_ENDPOINT,
                peer::SILENCE,
            ],
        ),
    ] {
        let some = ask(&|fill| {
            fill.u32(device::SHOW, what).put(device::PEER, &[3; 32]);
        })??;
        let told = some.peers.first().context("no peer")?;
        let told: BTreeSet<u16> = told.attrs.keys().copied().collect();
        ensure!(
            told == kinds.iter().copied().collect(),
            "{what}: {told:?}, not {kinds:?}"
        );
    }
    // Changed since.
    let since = |generation: u32| -> Result<Vec<Key>> {
        let some = ask(&|fill| {
            fill.u32(device::CHANGED_SINCE, generation);
        })??;
        Ok(some.peers.iter().filter_map(|peer| peer.key()).collect())
    };
    ensure!(since(generation)?.is_empty(), "nothing has changed");
    ensure!(since(0)?.len() == 6, "all are new");
    let mut wg = Wg::open(tunnel.ns(0), ctx.plain()[0].kind)?;
    // One gets an allowed IP, which another loses.
    let taken = PeerConf {
        public_key: [4; 32],
        allowed_ips: vec![([10, 8, 0, 0].into(), 24)],
        ..PeerConf::default()
    };
    let change = |peers| DeviceConf {
        peers,
        ..DeviceConf::default()
    };
    wg.set("wg0", &change(vec![taken]))?;
    ensure!(
        since(generation)? == [[1; 32], [4; 32]],
        "{:?}",
        since(generation)?
    );
    let later = ask(&|_| ())??.u32(device::GENERATION).context("none")?;
    let gone = PeerConf {
        public_key: [2; 32],
        flags: uapi::peer::F_REMOVE_ME,
        ..PeerConf::default()
    };
    wg.set("wg0", &change(vec![gone]))?;
    ensure!(since(later)?.is_empty(), "none that is left has changed");
    let removed = ask(&|_| ())??.u32(device::REMOVED_IN).context("none")?;
    ensure!(
        removed != later && removed.wrapping_sub(later) < 1 << 31,
        "removed in {removed}, not after {later}"
    );
    // Refused.
    type Fill<'a> = &'a (dyn Fn(&mut harness::netlink::Attrs) + Sync);
    let refused: [(&str, Errno, Fill); 5] = [
        ("no such peer", Errno::ENOENT, &|fill| {
            fill.put(device::PEER, &[99; 32]);
        }),
        ("a short key", Errno::ERANGE, &|fill| {
            fill.put(device::PEER, &[3; 31]);
        }),
        ("what is not to be shown", Errno::EINVAL, &|fill| {
            fill.u32(device::SHOW, 8);
        }),
        ("two devices", Errno::EBADR, &|fill| {
            fill.u32(device::IFINDEX, 1);
        }),
        ("an attribute of answers", Errno::EINVAL, &|fill| {
            fill.u32(device::GENERATION, 1);
        }),
    ];
    for (what, wanted, fill) in refused {
        let got = ask(fill)?.map(drop);
        ensure!(got == Err(wanted), "{what}: {got:?}, not {wanted}");
    }
    tunnel.ns(1).run(|| {
        let got = get(GENL_NAME, "wg0", |_| ()).map(drop);
        ensure!(got == Err(Errno::ENODEV), "of another namespace: {got:?}");
        Ok(())
    })?;
    tunnel.ns(0).run(|| {
        // For the rest of this thread.
        setuid(Uid::from_raw(65534))?;
        let got = get(GENL_NAME, "wg0", |_| ()).map(drop);
        ensure!(got == Err(Errno::EPERM), "without the right to: {got:?}");
        Ok(())
    })
}

/// A long list comes whole, and with what has changed alone.
fn many(ctx: &Ctx) -> Result<()> {
    const PEERS: usize = 9000;
    needs_ours(ctx)?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let keys: Vec<Key> = (0..PEERS).map(|_| random_key()).collect();
    let mut wg = Wg::open(tunnel.ns(0), ctx.plain()[0].kind)?;
    // Numbers of allowed IPs, of both families in turn.
    let mut give = |ips: Range<u16>| -> Result<()> {
        for (n, keys) in keys.chunks(200).enumerate() {
            let peers = keys.iter().zip(0_u8..).map(|(key, k)| {
                let ip = |i: u16| match i % 2 {
                    0 => ([10, 64 + n as u8, k, i as u8 * 4].into(), 30),
                    _ => ([0xfd01, n as u16, k.into(), i, 0, 0, 0, 0].into(), 64),
                };
                PeerConf {
                    public_key: *key,
                    allowed_ips: ips.clone().map(ip).collect(),
                    ..PeerConf::default()
                }
            });
            let conf = DeviceConf {
                peers: peers.collect(),
                ..DeviceConf::default()
            };
            wg.set("wg0", &conf)?;
        }
        Ok(())
    };
    give(0..2)?;
    // How long a dump takes; the fastest of some.
    let time = |what: &str, dump: &(dyn Fn() -> Result<()> + Sync)| -> Result<()> {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let begin = Instant::now();
            tunnel.ns(0).run(dump)?;
            best = best.min(begin.elapsed());
        }
        ctx.note(format!("{PEERS} peers, {what}: {best:.1?}"));
        Ok(())
    };
    let raw = |family: &str, cmd: u8, show: Option<u32>| -> Result<()> {
        let mut body = Attrs::new();
        body.str(device::IFNAME, "wg0");
        if let Some(show) = show {
            body.u32(device::SHOW, show);
        }
        let id = family_id(&mut Netlink::generic()?, family)?;
        Gnl::open(id)?
            .ask(&Request::new(DUMP, cmd, body.bytes()))?
            .result()?;
        Ok(())
    };
    let ordinary = || raw("wireguard", uapi::cmd::GET_DEVICE, None);
    let own = |show| move || raw(GENL_NAME, cmd::PEERS_GET, Some(show));
    time("the ordinary dump, 2 allowed IPs each", &ordinary)?;
    time("all of ours", &own(7))?;
    time("counters alone", &own(show::COUNTERS))?;
    time("public keys alone", &own(0))?;
    give(2..8)?;
    time("the ordinary dump, 8 allowed IPs each", &ordinary)?;
    time("counters alone", &own(show::COUNTERS))?;
    let all = counters(tunnel.ns(0), "wg0")?;
    let told: Vec<Key> = all.peers.iter().skip(1).filter_map(|p| p.key()).collect();
    ensure!(told == keys, "{} peers, not {PEERS}", told.len());
    let generation = all.u32(device::GENERATION).context("no generation")?;
    let last = PeerConf {
        public_key: *keys.last().context("none")?,
        keepalive: Some(9),
        ..PeerConf::default()
    };
    tunnel.ends[0].set_peer(&tunnel.link, last.clone())?;
    // Far behind those that have not changed.
    let changed = tunnel.ns(0).run(|| {
        Ok(get(GENL_NAME, "wg0", |fill| {
            fill.u32(device::CHANGED_SINCE, generation);
        })?)
    })?;
    let told: Vec<Key> = changed.peers.iter().filter_map(|p| p.key()).collect();
    ensure!(told == [last.public_key], "{} peers, not 1", told.len());
    Ok(())
}

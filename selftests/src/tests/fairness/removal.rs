// SPDX-License-Identifier: GPL-2.0-only
//! Once the removal of a peer is acknowledged, nothing is sent to it, and nothing of it comes in.

use super::{device, send, sides, widen, Busy};
use anyhow::{ensure, Context, Result};
use harness::capture::{self, Capture};
use harness::driver::Driver;
use harness::noise::{packet, Client, Keys, Session};
use harness::runner::Ctx;
use harness::topo::{inner, outer, port, End, Link};
use harness::traffic::udp;
use harness::wgdev::{uapi, PeerConf};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the peer is removed, in each direction.
const ROUNDS: usize = 6;
/// How long the traffic runs before, and goes on afterwards.
const BEFORE: Duration = Duration::from_millis(150);
const AFTER: Duration = Duration::from_millis(60);
/// Datagrams of one round of the second kind.
const DATAGRAMS: usize = 12_000;

struct Scene {
    link: Link,
    end: End,
    client: Client,
}

impl Scene {
    fn new(driver: Driver) -> Result<Self> {
        let mut link = Link::new()?;
        let end = End::new(&mut link, 0, driver, None)?;
        let from = SocketAddr::new(outer(false, 1), port(1));
        let client = Client::new(link.end(1), Keys::random(), end.public_key, from, device())?;
        Ok(Scene { link, end, client })
    }

    /// The client becomes a peer, with a session.
    fn add(&mut self) -> Result<Session> {
        let peer = PeerConf {
            public_key: self.client.keys.public,
            allowed_ips: vec![(inside(), 32)],
            ..PeerConf::default()
        };
        self.end.set_peer(&self.link, peer)?;
        self.client.flush()?;
        let mut session = self.client.handshake()?;
        self.client.ping(&mut session, inside(), inner(false, 0))?;
        Ok(session)
    }

    /// Removes it; gives how long that took.
    fn remove(&mut self) -> Result<Duration> {
        let peer = PeerConf {
            public_key: self.client.keys.public,
            flags: uapi::peer::F_REMOVE_ME,
            ..PeerConf::default()
        };
        let start = Instant::now();
        self.end.set_peer(&self.link, peer)?;
        Ok(start.elapsed())
    }
}

fn inside() -> IpAddr {
    inner(false, 1)
}

/// What came too late in a round, and how long the removal took.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    count: usize,
    /// After the acknowledgement.
    last: Duration,
    removal: Duration,
}

pub(super) fn silent(ctx: &Ctx) -> Result<()> {
    let mut wrong = Vec::new();
    for (who, driver) in sides(ctx) {
        let mut scene = Scene::new(driver)?;
        for (what, round) in [
            ("sent", sent as fn(&mut Scene) -> Result<Late>),
            ("received", received),
        ] {
            let mut all = Vec::new();
            for n in 0..ROUNDS {
                let late = round(&mut scene);
                all.push(late.with_context(|| format!("{who}, {what}, round {n}"))?);
            }
            let counts: Vec<usize> = all.iter().map(|late| late.count).collect();
            let last = all.iter().map(|late| late.last).max().unwrap_or_default();
            let removal = all.iter().map(|late| late.removal).max();
            let text = format!(
                "{who}: {what} after the acknowledgement in {ROUNDS} rounds: {counts:?}, up to \
                 {last:.1?} after it; the removal took {:.1?} at most",
                removal.unwrap_or_default()
            );
            ctx.note(&text);
            if who == "ours" && counts.iter().any(|count| *count > 0) {
                wrong.push(text);
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// The device sends to the peer as fast as it can. Gives what of it was on the wire after the
/// acknowledgement.
fn sent(scene: &mut Scene) -> Result<Late> {
    scene.add()?;
    let senders = (0..4).map(|_| {
        let socket = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
        widen(&socket, 4 << 20)?;
        socket.connect(SocketAddr::new(inside(), 9))?;
        anyhow::Ok(move |_| send(&socket, &[0; 600]))
    });
    let senders = senders.collect::<Result<Vec<_>>>()?;
    let watch = Capture::start(scene.link.end(0), "v0")?;
    let busy = Busy::start(Duration::MAX, 1, senders);
    sleep(BEFORE);
    let removal = scene.remove()?;
    let acknowledged = SystemTime::now().duration_since(UNIX_EPOCH)?;
    sleep(AFTER);
    drop(busy);
    let seen: Vec<_> = watch.stop()?.iter().filter_map(capture::seen).collect();
    let data = |s: &&capture::Seen| s.outgoing && s.data_len().is_some();
    let before = seen.iter().filter(data).count();
    ensure!(before > 10, "only {before} packets were sent at all");
    let late: Vec<Duration> = seen
        .iter()
        .filter(data)
        .filter_map(|s| s.at.checked_sub(acknowledged))
        .collect();
    Ok(Late {
        count: late.len(),
        last: late.last().copied().unwrap_or_default(),
        removal,
    })
}

/// The peer sends as fast as it can. Gives what the device took in that was sent after the
/// acknowledgement, or that came in after a look at the counters that followed it.
fn received(scene: &mut Scene) -> Result<Late> {
    let mut session = scene.add()?;
    let [src, dst] = [inside(), inner(false, 0)].map(|ip| SocketAddr::new(ip, 9000));
    let sink = udp(scene.link.end(0), dst)?;
    widen(&sink, 64 << 20)?;
    let datagrams: Vec<Vec<u8>> = (0..DATAGRAMS)
        .map(|tag| session.data(&packet::udp(src, dst, &tag.to_le_bytes())))
        .collect();
    let begun = Arc::new(AtomicUsize::new(0));
    let sender = {
        let (begun, socket) = (begun.clone(), scene.client.socket.try_clone()?);
        socket.connect(device())?;
        move |n: usize| {
            begun.store(n, Relaxed);
            match datagrams.get(n) {
                Some(datagram) => send(&socket, datagram),
                None => sleep(Duration::from_millis(1)),
            }
        }
    };
    let busy = Busy::start(Duration::MAX, 1, vec![sender]);
    sleep(BEFORE);
    let removal = scene.remove()?;
    let last = begun.load(Relaxed);
    ensure!(last < DATAGRAMS, "the sender had nothing more to send");
    let counted = scene.link.rt(0).stats("wg0")?.rx_packets;
    sleep(AFTER);
    drop(busy);
    let later = scene.link.rt(0).stats("wg0")?.rx_packets - counted;
    let tags = tags(&sink)?;
    ensure!(
        tags.len() > 10,
        "only {} datagrams came in at all",
        tags.len()
    );
    let sent_later = tags.iter().filter(|tag| **tag > last).count();
    Ok(Late {
        count: sent_later + later as usize,
        last: Duration::ZERO,
        removal,
    })
}

/// The tags of all datagrams that have come.
fn tags(sink: &UdpSocket) -> Result<Vec<usize>> {
    sink.set_nonblocking(true)?;
    let (mut tags, mut tag) = (Vec::new(), [0; 8]);
    while let Ok(8) = sink.recv(&mut tag) {
        tags.push(usize::from_le_bytes(tag));
    }
    Ok(tags)
}

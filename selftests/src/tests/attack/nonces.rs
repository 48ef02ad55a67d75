// SPDX-License-Identifier: GPL-2.0-only
//! Nonce limits at the sender. No test can send 2^60 messages: the module of the sanitizer boot
//! takes its first nonce from a parameter (`selftests/near-limits.patch`).

use super::Test;
use crate::tests::{needs_ours, Check};
use anyhow::{ensure, Context, Result};
use harness::capture::Seen;
use harness::modules::Modules;
use harness::noise::{handshake, Session, Tweak};
use harness::pace::slow;
use harness::rig::{inside, tagged, Rig, WAIT};
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{set_option, udp};
use harness::wire::Message;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check); 3] = [
        ("attack-nonce-rekey", rekey),
        ("attack-nonce-end", end),
        ("attack-nonce-end-tunnel", tunnel),
    ];
    for (name, body) in tests {
        list.push(Test {
            name: name.to_owned(),
            boot: Boot::San,
            modules: Modules::None,
            subject: Subject::Rs,
            bound: Duration::from_secs(60),
            body: Box::new(body),
        });
    }
}

/// After more messages than this, a new handshake is due.
const REKEY: u64 = 1 << 60;
/// No message has this counter or a greater one.
const LIMIT: u64 = u64::MAX - 8129;
/// The device sends a peer no initiation for 5 s after a handshake message.
const GAP: Duration = Duration::from_millis(5500);

/// Loads the module; its sessions start with this message counter.
fn load(ctx: &Ctx, first: u64) -> Result<()> {
    needs_ours(ctx)?;
    Ok(ctx.env.load_ours(&format!("first_nonce={first}"))?)
}

/// An application behind the device that sends datagrams of 4 bytes to client 0.
struct App(UdpSocket);

impl App {
    fn new(scene: &Rig) -> Result<Self> {
        let at = SocketAddr::new(inner(false, 0), 0);
        Ok(App(udp(scene.link.end(0), at)?))
    }

    /// Sends a run of datagrams with these tags, segmented only by the device.
    fn say(&self, tags: std::ops::Range<u32>) -> Result<()> {
        const UDP_SEGMENT: i32 = 103;
        set_option(&self.0, libc::SOL_UDP, UDP_SEGMENT, 4)?;
        let data: Vec<u8> = tags.flat_map(u32::to_ne_bytes).collect();
        let to = SocketAddr::new(inside(false, 0), 9);
        self.0.send_to(&data, to).context("send datagrams")?;
        Ok(())
    }
}

/// The counter and the tag of the next datagram to client 0 in `session`.
fn next(scene: &Rig, session: &Session) -> Result<(u64, u32)> {
    let (number, plain) = scene.clients[0].wait_data(session, slow(WAIT))?;
    let tag = plain.get(28..32).and_then(|tag| tag.first_chunk());
    Ok((number, u32::from_ne_bytes(*tag.context("no datagram")?)))
}

/// The session that client 0 makes by responding to the last initiation that it has received.
fn answer(scene: &Rig) -> Result<Session> {
    let client = &scene.clients[0];
    let mut initiation = client.wait_initiation(slow(WAIT))?;
    while let Ok(later) = client.wait_initiation(Duration::from_millis(100)) {
        initiation = later;
    }
    let received = handshake::receive(&client.keys, &initiation)?;
    let (session, response) = received.respond(&client.psk, &Tweak::default());
    client.send(&response)?;
    Ok(session)
}

/// The device accepts data in `session`.
fn takes(scene: &Rig, session: &mut Session) -> Result<()> {
    let sink = scene.sink()?;
    let tag = session.counter;
    scene.clients[0].send(&session.data(&tagged(0, tag)))?;
    let got = sink.next()?;
    ensure!(got == tag, "datagram {got} arrived instead of {tag}");
    Ok(())
}

/// After 2^60 messages the device does not start a handshake; with one more it does, whichever
/// side initiated the session. The new session's counter starts over.
fn rekey(ctx: &Ctx) -> Result<()> {
    const FIRST: u64 = REKEY - 3;
    load(ctx, FIRST)?;
    for by_device in [false, true] {
        let scene = Rig::fenced(ctx, 1)?;
        let client = &scene.clients[0];
        let app = App::new(&scene)?;
        let mut number = FIRST;
        let mut session = if by_device {
            app.say(0..1)?;
            let session = answer(&scene)?;
            let got = next(&scene, &session)?;
            ensure!(got == (number, 0), "the first datagram is {got:?}");
            number += 1;
            session
        } else {
            let mut session = client.handshake()?;
            client.send(&session.data(&[]))?;
            session
        };
        sleep(GAP);
        while number <= REKEY {
            // From now on an initiation is possible; none may be pending from before.
            client.silence(Duration::from_millis(300))?;
            app.say(1..2)?;
            let got = next(&scene, &session)?;
            ensure!(got == (number, 1), "message {number:#x} is {got:x?}");
            // Or the device would start a handshake because of the silence.
            client.send(&session.data(&[]))?;
            number += 1;
        }
        let mut new = answer(&scene).context("after 2^60 messages and one")?;
        // Nothing is staged: the device confirms with a keepalive.
        let keepalive = client.wait(
            slow(WAIT),
            "the confirmation",
            |message, _| matches!(message, Message::Data { receiver, .. } if *receiver == new.own),
        )?;
        let got = new.open(&keepalive)?;
        ensure!(
            got == (FIRST, Vec::new()),
            "the new session starts with {got:x?}"
        );
        takes(&scene, &mut new)?;
        app.say(2..3)?;
        let got = next(&scene, &new)?;
        ensure!(got == (FIRST + 1, 2), "in the new session: {got:x?}");
    }
    Ok(())
}

/// The last counter is used, and then nothing is sent until there is a new session; the staged
/// packets are sent in that, in order. The old one still receives.
fn end(ctx: &Ctx) -> Result<()> {
    const FIRST: u64 = LIMIT - 8;
    load(ctx, FIRST)?;
    let scene = Rig::fenced(ctx, 1)?;
    let app = App::new(&scene)?;
    let mut session = scene.clients[0].handshake()?;
    takes(&scene, &mut session)?;
    for tag in 0..10 {
        app.say(tag..tag + 1)?;
    }
    for tag in 0..8 {
        let got = next(&scene, &session)?;
        ensure!(
            got == (FIRST + u64::from(tag), tag),
            "message {tag} before the end is {got:x?}"
        );
    }
    takes(&scene, &mut session).context("in a session that can no longer send")?;
    sleep(GAP);
    app.say(10..11)?;
    let second = answer(&scene)?;
    for tag in 8..11 {
        let got = next(&scene, &second)?;
        ensure!(got.1 == tag, "staged datagram {tag} is {got:x?}");
    }
    // A run for which the session has too few counters left is staged as a whole.
    app.say(11..17)?;
    sleep(GAP);
    app.say(17..18)?;
    let third = answer(&scene)?;
    for tag in 11..18 {
        let got = next(&scene, &third)?;
        ensure!(got.1 == tag, "datagram {tag} of a run is {got:x?}");
    }
    // Every message sent had a valid counter.
    let sent = |session: &Session| -> Vec<u64> {
        let all = scene.underlay.seen();
        let ours = all.iter().filter(|seen| seen.outgoing).filter_map(numbered);
        let of_session = ours.filter(|(receiver, _)| *receiver == session.own);
        of_session.map(|(_, number)| number).collect()
    };
    let sent = [&session, &second, &third].map(sent);
    ensure!(
        sent.iter().all(|list| in_order(list, FIRST)),
        "the sessions have sent messages {sent:x?}"
    );
    ensure!(
        sent[0].len() == 8 && sent[1].len() < 8,
        "the sessions have sent messages {sent:x?}"
    );
    Ok(())
}

/// The receiver index and the counter of a data message.
fn numbered(seen: &Seen) -> Option<(u32, u64)> {
    match seen.message {
        Message::Data {
            receiver, counter, ..
        } => Some((receiver, counter)),
        _ => None,
    }
}

/// Whether the counters are consecutive from `first` on, and below the limit.
fn in_order(numbers: &[u64], first: u64) -> bool {
    let wanted = (first..LIMIT).take(numbers.len());
    numbers.iter().copied().eq(wanted)
}

/// A tunnel whose end repeatedly runs out of counters: every datagram arrives, in order, and no
/// counter is skipped or too great.
fn tunnel(ctx: &Ctx) -> Result<()> {
    const COUNT: u32 = 300;
    const NUMBERS: u64 = 130;
    // Datagrams in flight: fewer than can be staged.
    const AHEAD: u32 = 60;
    load(ctx, LIMIT - NUMBERS)?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let to = SocketAddr::new(inner(false, 1), 9000);
    let sink = udp(tunnel.ns(1), to)?;
    sink.set_read_timeout(Some(slow(WAIT)))?;
    let source = udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9000))?;
    let watch = tunnel.watch(ctx, 0)?;
    let mut tag = [0; 4];
    for n in 0..COUNT + AHEAD {
        if n < COUNT {
            source.send_to(&n.to_ne_bytes(), to)?;
        }
        let Some(wanted) = n.checked_sub(AHEAD) else {
            continue;
        };
        sink.recv(&mut tag)
            .with_context(|| format!("datagram {wanted}"))?;
        let got = u32::from_ne_bytes(tag);
        ensure!(got == wanted, "datagram {got} arrived instead of {wanted}");
    }
    let mut sessions: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for seen in watch.seen() {
        if let (true, Some((receiver, number))) = (seen.outgoing, numbered(&seen)) {
            sessions.entry(receiver).or_default().push(number);
        }
    }
    let whole = |list: &Vec<u64>| list.iter().copied().eq(LIMIT - NUMBERS..LIMIT);
    ensure!(
        sessions
            .values()
            .all(|list| in_order(list, LIMIT - NUMBERS)),
        "the sessions have sent messages {sessions:x?}"
    );
    ensure!(
        sessions.values().any(whole) && sessions.len() >= 3,
        "{} sessions, none reached its last counter",
        sessions.len()
    );
    Ok(())
}

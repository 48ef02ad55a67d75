// SPDX-License-Identifier: GPL-2.0-only
//! Messages that travel together in one packet, with UDP segmentation offload: the wire, the
//! counters and each single message must be as if they travelled alone.

use super::{drop_in, needs_ours, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::Capture;
use harness::modules::Modules;
use harness::noise::packet::Segment;
use harness::noise::{handshake, packet, Client, Session, Tweak};
use harness::packet::Datagram;
use harness::rig::{device, inside, Rig, MOMENT, WAIT};
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::inner;
use harness::traffic::{drain, set_option};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::thread::sleep;
use std::time::Duration;

/// The ports of both ends inside the tunnel.
const APP: u16 = 9000;
/// Length of every message that a client sends here: that of an initiation.
const LEN: usize = 148;
/// Messages that a client sends together.
const COUNT: usize = 8;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "gso-wire", 60, on_wire);
    drop_in(list, "gso-wire-cut-by-stack", 60, cut_by_stack);
    drop_in(list, "gso-bad-pieces", 120, bad_pieces);
    drop_in(list, "gso-datagrams-joined", 120, joined);
    drop_in(list, "gso-counters", 60, counters);
    drop_in(list, "gso-page-cache", 60, page_cache);
    drop_in(list, "gso-off-with-the-interface", 60, off);
    list.push(Test {
        name: "gso-off-by-parameter".to_owned(),
        boot: Boot::Smp,
        modules: Modules::None,
        subject: Subject::Rs,
        bound: Duration::from_secs(60),
        body: Box::new(off_by_parameter),
    });
    drop_in(list, "gso-tcp-segments", 60, tcp_segments);
    drop_in(list, "gso-tcp-stream", 60, tcp_stream);
}

/// Sends `count` datagrams with `len` bytes each, the last with `last`, in one call.
fn say(rig: &Rig, len: usize, count: usize, last: usize) -> Result<Vec<Vec<u8>>> {
    let total = len * (count - 1) + last;
    let data: Vec<u8> = (0..total).map(|i| (i / len + i * 7) as u8).collect();
    set_option(&rig.app, libc::SOL_UDP, libc::UDP_SEGMENT, len as i32)?;
    let to = SocketAddr::new(inside(false, 0), APP);
    ensure!(rig.app.send_to(&data, to)? == total, "not all sent");
    Ok(data.chunks(len).map(<[u8]>::to_vec).collect())
}

/// The client gets exactly the datagrams `said`, each in a message of its own, padded as it must
/// be, with ascending counters. Gives the counters.
fn hear(rig: &Rig, session: &Session, said: &[Vec<u8>]) -> Result<Vec<u64>> {
    let mut counters = Vec::new();
    for (n, data) in said.iter().enumerate() {
        let (counter, plain) = rig.clients[0]
            .wait_data(session, WAIT)
            .with_context(|| format!("datagram {n} of {}", said.len()))?;
        ensure!(
            plain.get(28..28 + data.len()) == Some(data),
            "datagram {n} of {}: not what was sent, but {} bytes",
            said.len(),
            plain.len()
        );
        let padded = (28 + data.len()).next_multiple_of(16).min(1420);
        ensure!(plain.len() == padded, "datagram {n}: {}", plain.len());
        counters.push(counter);
    }
    let ascending = counters.windows(2).all(|pair| pair[1] == pair[0] + 1);
    ensure!(ascending, "counters {counters:?}");
    Ok(counters)
}

/// Numbers and lengths of datagrams that are at the limits of what one packet can stand for.
const RUNS: [(usize, usize, usize); 14] = [
    (1000, 1, 1000),
    (1000, 2, 1000),
    (1000, 2, 1),
    (1392, 44, 1392),
    (1392, 45, 1391),
    (1392, 46, 1392),
    (1392, 47, 100),
    (1350, 47, 1350),
    (100, 63, 100),
    (100, 64, 100),
    (100, 65, 100),
    (100, 66, 99),
    (4, 128, 4),
    (20, 128, 1),
];

fn runs(rig: &Rig) -> Result<()> {
    // Once without: only then does the device know the way.
    rig.say(0)?;
    let session = rig.clients[0].answer(WAIT)?;
    rig.clients[0].wait_data(&session, WAIT)?;
    let mut next = 1;
    for (len, count, last) in RUNS {
        let said = say(rig, len, count, last)?;
        let counters = hear(rig, &session, &said)
            .with_context(|| format!("{count} datagrams of {len}, the last of {last}"))?;
        ensure!(counters[0] == next, "counter {}, not {next}", counters[0]);
        next += count as u64;
    }
    Ok(())
}

/// Has [`runs`] pass, and gives the length of the longest frame on the underlay.
fn longest(rig: &mut Rig) -> Result<usize> {
    let index = rig.link.rt(0).index("v0")?.to_be_bytes();
    let all = Capture::of_all(rig.link.end(0))?;
    runs(rig)?;
    let frames = all.stop()?;
    // A record begins with a header of 20 bytes, which names the interface.
    let on_v0 = frames.iter().filter(|frame| frame.bytes[4..8] == index);
    Ok(on_v0.map(|frame| frame.len - 20 + 14).max().unwrap_or(0))
}

/// A receiver that knows nothing of offloads gets every message, whatever their number and length.
fn on_wire(ctx: &Ctx) -> Result<()> {
    let longest = longest(&mut Rig::new(ctx, 1)?)?;
    let together = longest > 60_000;
    ensure!(
        together == (ctx.subject == Subject::Rs),
        "the longest frame has {longest} bytes"
    );
    Ok(())
}

/// With `udp_gso=0` every message is sent in a packet of its own.
fn off_by_parameter(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    ctx.env.load_ours("udp_gso=0")?;
    let longest = longest(&mut Rig::new(ctx, 1)?)?;
    ensure!(longest <= 1514, "the longest frame has {longest} bytes");
    Ok(())
}

/// The same where the interface takes no packets that stand for several: what the stack cuts are
/// datagrams with a header each, with consecutive identifications, and none is longer than the MTU.
fn cut_by_stack(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    rig.link.rt(0).set_gso_max_segs("v0", 1)?;
    let longest = longest(&mut rig)?;
    ensure!(longest <= 1514, "the longest frame has {longest} bytes");
    let frames = rig.underlay.frames();
    let frames = frames.lock().expect("poisoned");
    let mut ids = Vec::new();
    for frame in frames.iter().filter(|frame| frame.outgoing) {
        let Some(datagram) = Datagram::in_frame(&frame.bytes) else {
            continue;
        };
        ensure!(!datagram.df, "don't fragment is set");
        ids.push(u16::from_be_bytes([frame.bytes[18], frame.bytes[19]]));
    }
    let in_order = |ids: &[u16]| ids[1] == ids[0].wrapping_add(1);
    let count = ids.windows(2).filter(|ids| in_order(ids)).count();
    // Each packet of the device begins anew, after the time that has passed; there are two or three
    // for the longest runs.
    ensure!(
        ctx.subject == Subject::C || count + 3 * RUNS.len() > ids.len(),
        "identifications {ids:?}"
    );
    Ok(())
}

/// A datagram to the app as transport data of [`LEN`] bytes.
fn message(session: &Session, counter: u64, text: &[u8]) -> Vec<u8> {
    message_to(false, session, counter, text)
}

fn message_to(v6: bool, session: &Session, counter: u64, text: &[u8]) -> Vec<u8> {
    let mut data = text.to_vec();
    let headers = if v6 { 48 } else { 28 };
    data.resize(LEN - 32 - headers, b'.');
    let from = SocketAddr::new(inside(v6, 0), APP);
    let to = SocketAddr::new(inner(v6, 0), APP);
    let mut packet = packet::udp(from, to, &data);
    packet::set_whole(&mut packet, counter as u16);
    session.seal(counter, &packet)
}

/// Sends messages of [`LEN`] bytes together; the last may be shorter.
fn send_together(rig: &Rig, messages: &[Vec<u8>]) -> Result<()> {
    let socket = &rig.clients[0].socket;
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, LEN as i32)?;
    let sent = rig.clients[0].send(&messages.concat());
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
    sent
}

/// The datagrams that the next system call gives: those that came together if the socket takes that
/// (UDP_GRO), else one; none at the end of the socket's time limit.
fn next_heard(app: &UdpSocket) -> Option<Vec<Vec<u8>>> {
    let mut buf = [0; 1 << 16];
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(&mut buf)];
    let flags = MsgFlags::empty();
    let got = recvmsg::<()>(app.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
    let size = got.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
        _ => None,
    });
    let len = got.bytes;
    let size = size.unwrap_or(len).max(1);
    Some(buf[..len].chunks(size).map(<[u8]>::to_vec).collect())
}

/// What arrives behind the device: waits for `expected` datagrams, and a moment for more.
fn heard(app: &UdpSocket, expected: usize) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    app.set_read_timeout(Some(Duration::from_secs(3)))?;
    while all.len() < expected {
        let Some(more) = next_heard(app) else { break };
        all.extend(more);
    }
    sleep(MOMENT);
    app.set_nonblocking(true)?;
    while let Some(more) = next_heard(app) {
        all.extend(more);
    }
    app.set_nonblocking(false)?;
    Ok(all)
}

/// A socket that takes many datagrams at once gets those that came together at once, and no other
/// socket's are put together. What is bad among them is treated as in [`bad_pieces`].
fn joined(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let app = set_option(&rig.app, libc::SOL_UDP, libc::UDP_GRO, 1);
    app.context("UDP_GRO")?;
    let mut session = rig.confirmed(0)?;
    with_bad_pieces(&rig, &mut session)?;
    for v6 in [false, true] {
        let at = SocketAddr::new(inner(v6, 0), APP);
        if v6 {
            rig.app = rig.link.end(0).run(|| Ok(UdpSocket::bind(at)?))?;
        }
        for takes_many in [true, false] {
            set_option(&rig.app, libc::SOL_UDP, libc::UDP_GRO, takes_many.into())?;
            let wg0 = Capture::start(rig.link.end(0), "wg0")?;
            let first = session.counter;
            let text = |n: usize| format!("{v6} {takes_many} {n}");
            let messages: Vec<_> = (0..COUNT)
                .map(|n| message_to(v6, &session, first + n as u64, text(n).as_bytes()))
                .collect();
            session.counter += COUNT as u64;
            send_together(&rig, &messages)?;
            let heard = heard(&rig.app, COUNT)?;
            ensure!(heard.len() == COUNT, "{v6}: {} datagrams", heard.len());
            for (n, got) in heard.iter().enumerate() {
                ensure!(got.starts_with(text(n).as_bytes()), "{v6}: order at {n}");
            }
            let headers = if v6 { 48 } else { 28 };
            let count = if takes_many { COUNT } else { 1 };
            let longest = wg0.stop()?.iter().map(|frame| frame.bytes.len()).max();
            ensure!(
                ctx.subject == Subject::C
                    || longest == Some(headers + count * (LEN - 32 - headers)),
                "IPv6 {v6}, UDP_GRO {takes_many}: the longest packet: {longest:?}"
            );
        }
    }
    Ok(())
}

/// A bad message among good ones is refused, wherever it is, and nothing else: forged, replayed, of
/// no session, of no known type, too short. An initiation among them is answered.
fn bad_pieces(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let mut session = rig.confirmed(0)?;
    with_bad_pieces(&rig, &mut session)
}

fn with_bad_pieces(rig: &Rig, session: &mut Session) -> Result<()> {
    let mut counter = session.counter + 1;
    drain(&rig.app)?;
    for kind in [
        "forged",
        "replayed",
        "index",
        "type",
        "keepalive",
        "short",
        "initiation",
    ] {
        for place in 0..COUNT {
            let mut messages = Vec::new();
            let mut expected = Vec::new();
            let mut pending = None;
            for n in 0..COUNT {
                let text = format!("{kind} {place} {n}");
                let mut one = message(session, counter, text.as_bytes());
                counter += 1;
                if n == place {
                    match kind {
                        "forged" => one[40 + place] ^= 1,
                        "replayed" => one = message(session, session.counter - 1, b"again"),
                        "index" => one[4] ^= 1,
                        "type" => one[0] = 5,
                        // Only the last can be shorter.
                        "keepalive" => {
                            messages.push(one);
                            expected.push(text);
                            one = session.seal(counter, &[]);
                            counter += 1;
                        }
                        "short" => one.truncate(10),
                        _ => {
                            let client = &rig.clients[0];
                            sleep(MOMENT);
                            let init =
                                handshake::initiate(&client.keys, &client.peer, &Tweak::default());
                            one.clone_from(&init.message);
                            pending = Some(init);
                        }
                    }
                } else {
                    expected.push(text);
                }
                let is_shorter = one.len() < LEN;
                messages.push(one);
                if is_shorter {
                    break;
                }
            }
            rig.clients[0].flush()?;
            send_together(rig, &messages)?;
            let heard = heard(&rig.app, expected.len())?;
            let what = || format!("{kind}, message {place} of {}", messages.len());
            ensure!(
                heard.len() == expected.len(),
                "{}: {} datagrams arrived instead of {}",
                what(),
                heard.len(),
                expected.len()
            );
            for (got, wanted) in heard.iter().zip(&expected) {
                ensure!(got.starts_with(wanted.as_bytes()), "{}: order", what());
            }
            if let Some(pending) = pending {
                let session = rig.finish(0, &pending)?;
                ensure!(session.is_some(), "{}: no response", what());
            }
        }
    }
    session.counter = counter;
    ensure!(rig.accepts(0, session)?, "nothing more is accepted");
    Ok(())
}

/// The received datagrams that the stack has counted for a namespace (`InDatagrams`).
fn in_datagrams(rig: &Rig) -> Result<u64> {
    let text = rig
        .link
        .end(0)
        .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next(), lines.next());
    let place = names.and_then(|names| names.split(' ').position(|n| n == "InDatagrams"));
    let value = place.and_then(|place| values?.split(' ').nth(place));
    Ok(value.context("no InDatagrams")?.parse()?)
}

/// Each message counts as one packet, with its bytes, wherever it is counted.
fn counters(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let session = rig.confirmed(0)?;
    rig.say(0)?;
    rig.clients[0].wait_data(&session, WAIT)?;
    drain(&rig.app)?;

    let before = (rig.link.rt(0).counters("wg0")?, rig.peer(0)?);
    let said = say(&rig, 1000, 40, 500)?;
    hear(&rig, &session, &said)?;
    // The inner packets padded to 1040 and 528 bytes, and 32 bytes of header and tag.
    let sent = 39 * (1040 + 32) + 528 + 32;
    let now = (rig.link.rt(0).counters("wg0")?, rig.peer(0)?);
    let moved = now.0.since(&before.0);
    ensure!(
        moved.are(&[("tx_packets", 40), ("tx_bytes", sent)]),
        "the device counted {moved:?}, {sent} bytes were sent"
    );
    let tx = now.1.tx_bytes - before.1.tx_bytes;
    ensure!(tx == sent, "the peer counted {tx} of {sent} bytes");

    let datagrams = in_datagrams(&rig)?;
    let first = session.counter + 1;
    let messages = (0..COUNT).map(|n| message(&session, first + n as u64, b"text"));
    send_together(&rig, &messages.collect::<Vec<_>>())?;
    ensure!(heard(&rig.app, COUNT)?.len() == COUNT, "not all arrived");
    let counted = in_datagrams(&rig)? - datagrams;
    // Outside and inside; the app's socket counts what it has read.
    ensure!(counted == 2 * COUNT as u64, "{counted} datagrams counted");
    let received = (COUNT * LEN) as u64;
    let last = (rig.link.rt(0).counters("wg0")?, rig.peer(0)?);
    let moved = last.0.since(&now.0);
    ensure!(
        moved.are(&[("rx_packets", COUNT as u64), ("rx_bytes", received)]),
        "the device counted {moved:?}, {received} bytes came"
    );
    let rx = last.1.rx_bytes - now.1.rx_bytes;
    ensure!(rx == received, "the peer counted {rx} of {received} bytes");
    Ok(())
}

/// Messages that are sent straight from the page cache of a file arrive, and the file is not
/// changed by their decryption.
fn page_cache(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let session = rig.confirmed(0)?;
    drain(&rig.app)?;
    let first = session.counter + 1;
    let messages: Vec<_> = (0..COUNT)
        .map(|n| message(&session, first + n as u64, format!("{n}").as_bytes()))
        .collect();
    let sealed = messages.concat();
    let path = format!("/tmp/gso-page-cache-{}", std::process::id());
    File::create(&path)?.write_all(&sealed)?;
    let mut file = File::open(&path)?;
    std::fs::remove_file(&path)?;

    let client = &rig.clients[0];
    // As one packet, then each alone.
    set_option(&client.socket, libc::SOL_UDP, libc::UDP_SEGMENT, LEN as i32)?;
    client.socket.connect(device(false))?;
    let mut sent = 0;
    while sent < sealed.len() / 2 {
        let left = sealed.len() / 2 - sent;
        sent += nix::sys::sendfile::sendfile(client.socket.as_fd(), file.as_fd(), None, left)?;
    }
    set_option(&client.socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
    for _ in 0..COUNT / 2 {
        let sent = nix::sys::sendfile::sendfile(client.socket.as_fd(), file.as_fd(), None, LEN)?;
        ensure!(sent == LEN, "only {sent} bytes");
    }
    let heard = heard(&rig.app, COUNT)?;
    ensure!(heard.len() == COUNT, "{} arrived", heard.len());
    let mut now = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut now)?;
    ensure!(now == sealed, "the file has changed");
    Ok(())
}

/// With segmentation offload switched off on the interface, every frame on it is one datagram.
fn off(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    rig.link.end(0).sh("ethtool -K v0 gso off")?;
    let longest = longest(&mut rig)?;
    ensure!(longest <= 1514, "the longest frame has {longest} bytes");
    Ok(())
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;
/// When nothing comes for so long, the sender waits for an acknowledgement.
const PAUSE: Duration = Duration::from_millis(4);
/// What is sent over TCP.
const STREAM: usize = 300_000;

/// The segments of TCP that a client gets are whole packets, with right lengths, checksums,
/// identifications and sequence numbers, in order, and only the last one ends the stream.
fn tcp_segments(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    rig.say(0)?;
    let mut session = rig.clients[0].answer(WAIT)?;
    rig.clients[0].wait_data(&session, WAIT)?;
    for v6 in [false, true] {
        let wg0 = Capture::start(rig.link.end(0), "wg0")?;
        let to = SocketAddr::new(inside(v6, 0), APP);
        let stream = rig.link.end(0).spawn(move || {
            let mut stream = TcpStream::connect(to)?;
            let data: Vec<u8> = (0..STREAM).map(byte).collect();
            stream.write_all(&data)?;
            Ok(stream)
        });
        let (segments, resent) = accept(&rig.clients[0], &mut session, to).context("the stream")?;
        check(&segments, resent)?;
        drop(stream);
        let longest = wg0.stop()?.iter().map(|frame| frame.bytes.len()).max();
        ensure!(longest > Some(1_100), "the longest packet: {longest:?}");
    }
    Ok(())
}

/// Byte `n` of the stream.
fn byte(n: usize) -> u8 {
    (n * 7 + n / 251) as u8
}

/// Accepts a TCP connection through the tunnel and acknowledges what comes, until its end. Gives
/// the segments with data, in the order of the stream: what two CPUs have sent may arrive in
/// another one. It acknowledges when nothing comes any more, so that much is sent at a time. Also
/// gives whether some were sent again: on slow machines.
fn accept(client: &Client, session: &mut Session, at: SocketAddr) -> Result<(Vec<Segment>, bool)> {
    let mut segments: BTreeMap<u32, Segment> = BTreeMap::new();
    let mut first = 0;
    let mut resent = false;
    let mut next = None;
    let mut due: Option<Segment> = None;
    loop {
        let limit = if due.is_some() { PAUSE } else { WAIT };
        let plain = match client.wait_data(session, limit) {
            Ok((_, plain)) => plain,
            Err(error) => match due.take() {
                Some(ack) => {
                    client.send(&session.data(&ack.packet()))?;
                    continue;
                }
                None => return Err(error),
            },
        };
        let segment = Segment::parse(&plain);
        let segment = segment.with_context(|| format!("no TCP segment: {:?}", &plain[..60]))?;
        if segment.dst != at {
            continue; // of the connection before
        }
        let answer = |flags, seq, ack, options: &[u8]| Segment {
            src: segment.dst,
            dst: segment.src,
            id: None,
            seq,
            ack,
            flags,
            options: options.to_vec(),
            data: Vec::new(),
        };
        if segment.flags & SYN != 0 {
            let ack = segment.seq.wrapping_add(1);
            (first, next) = (ack, Some(ack));
            // With a maximal segment size of 1000; no more than 64 segments are on their way.
            let [high, low] = 1000_u16.to_be_bytes();
            let options = [2, 4, high, low];
            client.send(&session.data(&answer(SYN | ACK, 0, ack, &options).packet()))?;
            continue;
        }
        let mut expected = next.context("a segment before the connection")?;
        let offset = segment.seq.wrapping_sub(first);
        if (segment.seq.wrapping_sub(expected) as i32) < 0 || segments.contains_key(&offset) {
            resent = true;
            continue;
        }
        if segment.data.is_empty() {
            continue;
        }
        let reply = answer(ACK, 1, 0, &[]);
        segments.insert(offset, segment);
        while let Some(segment) = segments.get(&expected.wrapping_sub(first)) {
            let is_last = segment.flags & FIN != 0;
            expected = expected.wrapping_add(segment.data.len() as u32 + u32::from(is_last));
        }
        next = Some(expected);
        due = Some(Segment {
            ack: expected,
            ..reply
        });
        if expected.wrapping_sub(first) as usize >= STREAM {
            return Ok((segments.into_values().collect(), resent));
        }
    }
}

fn check(segments: &[Segment], resent: bool) -> Result<()> {
    let first = segments.first().context("no data")?;
    let mut received = 0;
    for (n, segment) in segments.iter().enumerate() {
        let offset = segment.seq.wrapping_sub(first.seq) as usize;
        ensure!(
            offset == received,
            "segment {n} starts at {offset}, after {received} bytes"
        );
        let right = segment
            .data
            .iter()
            .zip(offset..)
            .all(|(b, at)| *b == byte(at));
        ensure!(right, "segment {n}: other data");
        received += segment.data.len();
        let step = first.id.map(|id| id.wrapping_add(n as u16));
        ensure!(
            resent || segment.id == step,
            "segment {n} has identification {:?}, the first {:?}",
            segment.id,
            first.id
        );
        let ends = segment.flags & FIN != 0;
        ensure!(!ends || received == STREAM, "segment {n} ends the stream");
    }
    ensure!(received == STREAM, "{received} bytes came");
    Ok(())
}

/// Data of a segment that the client sends.
const PIECE: usize = 960;

/// Sends segments `range` of the stream in one packet, under counters from `counter` on; `change`
/// may change a message.
fn send_segments(
    rig: &Rig,
    session: &Session,
    of: &Segment,
    (counter, range): (u64, Range<usize>),
    change: impl Fn(usize, &mut Vec<u8>),
) -> Result<()> {
    let mut messages = Vec::new();
    for (n, place) in range.enumerate() {
        let mut segment = of.clone();
        segment.id = Some(place as u16);
        segment.seq = of.seq.wrapping_add((place * PIECE) as u32);
        segment.data = (place * PIECE..(place + 1) * PIECE).map(byte).collect();
        let mut packet = segment.packet();
        packet.resize(packet.len().next_multiple_of(16), 0);
        let mut message = session.seal(counter + n as u64, &packet);
        change(n, &mut message);
        messages.push(message);
    }
    let socket = &rig.clients[0].socket;
    let len = messages[0].len() as i32;
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, len)?;
    let sent = rig.clients[0].send(&messages.concat());
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
    sent
}

/// A stream whose segments come together arrives whole, also if one of them is forged or has come
/// before: that one is refused, the others are not. Each counts as one packet.
fn tcp_stream(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let mut session = rig.confirmed(0)?;
    for v6 in [false, true] {
        let at = SocketAddr::new(inner(v6, 0), APP);
        let listener = rig.link.end(0).run(|| Ok(TcpListener::bind(at)?))?;
        let wg0 = Capture::start(rig.link.end(0), "wg0")?;
        let mut segment = Segment {
            src: SocketAddr::new(inside(v6, 0), APP),
            dst: at,
            id: None,
            seq: 999,
            ack: 0,
            flags: SYN,
            options: Vec::new(),
            data: Vec::new(),
        };
        rig.clients[0].send(&session.data(&segment.packet()))?;
        let answer = loop {
            let (_, plain) = rig.clients[0].wait_data(&session, WAIT)?;
            let answer = Segment::parse(&plain).context("no TCP segment")?;
            // Others are of the connection before.
            if answer.flags == SYN | ACK {
                break answer;
            }
        };
        segment.seq = 1000;
        segment.ack = answer.seq.wrapping_add(1);
        segment.flags = ACK;
        rig.clients[0].send(&session.data(&segment.packet()))?;
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(WAIT))?;

        let before = rig.link.rt(0).counters("wg0")?;
        let first = session.counter;
        let whole = |n: usize| (first + n as u64 * COUNT as u64, n * COUNT..(n + 1) * COUNT);
        let as_it_is = |_: usize, _: &mut Vec<u8>| {};
        // As they are.
        send_segments(&rig, &session, &segment, whole(0), as_it_is)?;
        sleep(MOMENT);
        // One of them, then all.
        let (counter, range) = whole(1);
        let one = (counter + 3, range.start + 3..range.start + 4);
        send_segments(&rig, &session, &segment, one, as_it_is)?;
        sleep(MOMENT);
        send_segments(&rig, &session, &segment, whole(1), as_it_is)?;
        sleep(MOMENT);
        // One is forged, and sent again.
        let (counter, range) = whole(2);
        let forge = |n: usize, message: &mut Vec<u8>| message[100] ^= u8::from(n == 5);
        send_segments(&rig, &session, &segment, (counter, range.clone()), forge)?;
        sleep(MOMENT);
        let one = (counter + 5, range.start + 5..range.start + 6);
        send_segments(&rig, &session, &segment, one, as_it_is)?;
        // With marks of an end in their midst.
        let ends = Segment {
            flags: ACK | PSH,
            ..segment.clone()
        };
        send_segments(&rig, &session, &ends, whole(3), as_it_is)?;
        session.counter = first + 4 * COUNT as u64;

        let mut data = vec![0; 4 * COUNT * PIECE];
        stream.read_exact(&mut data)?;
        let wrong = data.iter().enumerate().position(|(n, b)| *b != byte(n));
        ensure!(wrong.is_none(), "byte {wrong:?} of the stream is another");
        let moved = rig.link.rt(0).counters("wg0")?.since(&before);
        let packets = 4 * COUNT as u64;
        let len = if v6 { 20 } else { 0 } + 40 + PIECE;
        let bytes = packets * (len.next_multiple_of(16) + 32) as u64;
        ensure!(
            moved.value("rx_packets") == packets && moved.value("rx_bytes") == bytes,
            "{packets} packets of {bytes} bytes came, the device counted {moved:?}"
        );
        let longest = wg0.stop()?.iter().map(|frame| frame.bytes.len()).max();
        ensure!(
            ctx.subject == Subject::C || longest == Some(len + (COUNT - 1) * PIECE),
            "the longest packet: {longest:?}"
        );
    }
    Ok(())
}

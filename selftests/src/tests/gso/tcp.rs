// SPDX-License-Identifier: GPL-2.0-only
//! TCP whose segments travel together.

use super::super::{drop_in, Test};
use super::receive::COUNT;
use super::APP;
use anyhow::{ensure, Context, Result};
use harness::capture::Capture;
use harness::noise::packet::Segment;
use harness::noise::{Client, Session};
use harness::rig::{inside, Rig, MOMENT, WAIT};
use harness::runner::{Ctx, Subject};
use harness::topo::inner;
use harness::traffic::set_option;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "gso-tcp-segments", 60, tcp_segments);
    drop_in(list, "gso-tcp-stream", 60, tcp_stream);
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
    let mut nonces = BTreeSet::new();
    loop {
        let limit = if due.is_some() { PAUSE } else { WAIT };
        let plain = match client.wait_data(session, limit) {
            Ok((nonce, plain)) => {
                ensure!(nonces.insert(nonce), "two messages with nonce {nonce}");
                plain
            }
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

// SPDX-License-Identifier: GPL-2.0-only
//! Datagrams that reach the device together: each is as good, or as bad, as if it came alone.

use super::super::{drop_in, Test};
use super::APP;
use anyhow::{ensure, Context, Result};
use harness::capture::Capture;
use harness::noise::{handshake, packet, Session, Tweak};
use harness::rig::{device, inside, Rig, MOMENT};
use harness::runner::{Ctx, Subject};
use harness::topo::inner;
use harness::traffic::{drain, set_option};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::sleep;
use std::time::Duration;

/// Length of every message that a client sends here: that of an initiation.
pub(super) const LEN: usize = 148;
/// Messages that a client sends together.
pub(super) const COUNT: usize = 8;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "gso-bad-pieces", 120, bad_pieces);
    drop_in(list, "gso-datagrams-joined", 120, joined);
    drop_in(list, "gso-page-cache", 60, page_cache);
}

/// A datagram to the app as transport data of [`LEN`] bytes.
pub(super) fn message(session: &Session, counter: u64, text: &[u8]) -> Vec<u8> {
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
pub(super) fn send_together(rig: &Rig, messages: &[Vec<u8>]) -> Result<()> {
    let socket = &rig.clients[0].socket;
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, LEN as i32)?;
    let sent = rig.clients[0].send(&messages.concat());
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
    sent
}

/// The datagrams that the next system call gives: those that came together if the socket takes that
/// (UDP_GRO), else one; none at the end of the socket's time limit.
pub(super) fn next_heard(app: &UdpSocket) -> Option<Vec<Vec<u8>>> {
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
pub(super) fn heard(app: &UdpSocket, expected: usize) -> Result<Vec<Vec<u8>>> {
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

/// Messages that are sent straight from the page cache of a file arrive, and the file is not
/// changed by their decryption, nor by that of a forged one.
fn page_cache(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let session = rig.confirmed(0)?;
    drain(&rig.app)?;
    let first = session.counter + 1;
    let mut messages: Vec<_> = (0..COUNT)
        .map(|n| message(&session, first + n as u64, format!("{n}").as_bytes()))
        .collect();
    // One of those that are sent together, one of the others.
    let forged = [1, COUNT - 1];
    for n in forged {
        messages[n][100] ^= 1;
    }
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
    let heard = heard(&rig.app, COUNT - forged.len())?;
    ensure!(
        heard.len() == COUNT - forged.len(),
        "{} arrived",
        heard.len()
    );
    let mut now = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut now)?;
    ensure!(now == sealed, "the file has changed");
    Ok(())
}

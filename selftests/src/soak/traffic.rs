// SPDX-License-Identifier: GPL-2.0-only
//! Peers that use the tunnel, or their own sessions with one of the devices. Whether packets arrive
//! depends on what the others do.

use super::place::Place;
use anyhow::Result;
use harness::noise::{cookie, packet, Client, Keys, Session, Tweak};
use harness::topo::{inner, names, outer, port};
use harness::traffic::udp;
use harness::wgdev::{uapi, DeviceConf, PeerConf};
use harness::wire::Message;
use nix::sys::socket::{setsockopt, sockopt};
use rand::rngs::StdRng;
use rand::Rng;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

/// Datagrams of any size in both directions, in bursts. Nobody listens: ICMP errors come back.
pub fn datagrams(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let any = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::from(([0u16; 8], 0)),
    ];
    let mut sockets = Vec::new();
    for n in 0..2u8 {
        for (v6, any) in std::iter::zip([false, true], any) {
            let to = SocketAddr::new(inner(v6, 1 - n), 7);
            sockets.push((udp(place.ns(n), any)?, to));
        }
    }
    let data = vec![0u8; 1600];
    let mut sent = 0;
    while place.busy() {
        let (socket, to) = &sockets[rng.random_range(0..sockets.len())];
        let size = rng.random_range(0..data.len());
        for _ in 0..rng.random_range(1..64) {
            if socket.send_to(&data[..size], to).is_ok() {
                sent += 1;
            }
        }
        sleep(Duration::from_millis(rng.random_range(0..3)));
    }
    Ok(sent)
}

/// TCP streams from one end to the other, a new one when there is no progress; counts the
/// successful writes.
pub fn stream(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let (from, v6) = (rng.random_range(0..2), rng.random());
    let any: IpAddr = if v6 {
        [0u16; 8].into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let to = SocketAddr::new(inner(v6, 1 - from), 5000);
    let listener = place.ns(1 - from).run(|| {
        let listener = TcpListener::bind(SocketAddr::new(any, 5000))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    let mut written = 0;
    let mut buffer = vec![0u8; 1 << 16];
    while place.busy() {
        let limit = Duration::from_millis(300);
        let Ok(mut stream) = place
            .ns(from)
            .run(|| Ok(TcpStream::connect_timeout(&to, limit)?))
        else {
            continue;
        };
        let Ok((mut sink, _)) = listener.accept() else {
            continue;
        };
        for end in [&stream, &sink] {
            end.set_nonblocking(true)?;
            // Closing with unsent data would keep the namespace alive for minutes: reset instead.
            let reset = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(end, sockopt::Linger, &reset)?;
        }
        let mut idle = 0;
        while place.busy() && idle < 500 {
            let sent = stream.write(&buffer).is_ok();
            let received = sink.read(&mut buffer).is_ok();
            written += u64::from(sent);
            if sent || received {
                idle = 0;
            } else {
                idle += 1;
                sleep(Duration::from_millis(1));
            }
        }
    }
    Ok(written)
}

/// How long a client waits for an answer: none may come.
const PATIENCE: Duration = Duration::from_millis(100);

/// A client that is a peer of one of the devices, and makes one session after the other with it;
/// counts its initiations.
pub fn handshakes(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let n: u8 = rng.random_range(0..2);
    let (name, v6) = (names(n).0, rng.random());
    let device = SocketAddr::new(outer(v6, n), port(n));
    let from = SocketAddr::new(outer(v6, 1 - n), 7000);
    let own = place.public[usize::from(n)];
    let client = Client::new(place.ns(1 - n), Keys::random(), own, from, device)?;
    let inside = inner(false, 100);
    let mut wg = place.wg(n)?;
    let peer = PeerConf {
        public_key: client.keys.public,
        endpoint: rng.random_bool(0.5).then_some(from),
        allowed_ips: vec![(inside, 32)],
        ..PeerConf::default()
    };
    let mut set = |flags| {
        let peer = PeerConf {
            flags,
            ..peer.clone()
        };
        let conf = DeviceConf {
            peers: vec![peer],
            ..DeviceConf::default()
        };
        wg.set(name, &conf)
    };
    set(0)?;
    // What the device's own stack sends to the client starts handshakes and queues packets.
    let app = udp(place.ns(n), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    let mut made = 0;
    while place.busy() {
        if rng.random_bool(0.1) {
            set(uapi::peer::F_REMOVE_ME)?;
            set(0)?;
        }
        if let Some(mut session) = initiate(&client) {
            for seq in 0..rng.random_range(1..30) {
                exchange(&client, &mut session, &app, (inside, inner(false, n)), seq);
            }
        }
        made += 1;
        // Initiations that come closer are refused.
        sleep(Duration::from_millis(20));
    }
    set(uapi::peer::F_REMOVE_ME)?;
    Ok(made)
}

/// One attempt at a handshake.
fn initiate(client: &Client) -> Option<Session> {
    let tweak = Tweak {
        cookie: client.cookie.get(),
        ..Tweak::default()
    };
    // An ICMP error on the socket is no failure.
    let pending = client.initiate(&tweak).ok()?;
    let answer = client.wait(PATIENCE, "an answer", |message, _| match message {
        Message::Response { receiver, .. } | Message::Cookie { receiver } => {
            *receiver == pending.index
        }
        _ => false,
    });
    let answer = answer.ok()?;
    // The device may have another key by now, and then neither can be opened.
    if answer.len() == cookie::REPLY {
        let cookie = cookie::open_reply(&answer, &client.peer, &pending.message);
        client.cookie.set(cookie.ok());
        return None;
    }
    pending.finish(&answer, &client.psk).ok()
}

/// A ping through `session`, and a datagram the other way.
fn exchange(
    client: &Client,
    session: &mut Session,
    app: &UdpSocket,
    (src, dst): (IpAddr, IpAddr),
    seq: u16,
) {
    let _ = client.send(&session.data(&packet::echo(src, dst, seq, &[0; 100])));
    let _ = app.send_to(&[0; 100], SocketAddr::new(src, 7));
    if seq % 8 == 0 {
        let _ = client.wait_data(session, PATIENCE);
    }
}

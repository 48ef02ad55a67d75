// SPDX-License-Identifier: GPL-2.0-only
//! The device's private key: what is stored, which peer it removes, and its effect on sessions.

use super::both;
use super::config::public;
use super::scene::{device, ips, peer, peers, set, Scene};
use anyhow::{ensure, Context, Result};
use harness::gnl::Request;
use harness::netlink::Attrs;
use harness::pace::slow;
use harness::pair::{NAME, SIDES};
use harness::runner::{Ctx, Test};
use harness::topo::{inner, outer, port};
use harness::traffic::{drain, ping_all, udp};
use harness::wgdev::{uapi::*, Device, DeviceConf, Key, PeerConf};
use nix::errno::Errno;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-private-key", 60, stored);
    both(list, "netlink-own-key-peer", 60, own_key);
    both(list, "netlink-private-key-same", 60, same_key);
    both(list, "netlink-private-key-new", 90, new_key);
    both(list, "netlink-private-key-first", 60, first_key);
    both(list, "netlink-preshared-key-next-handshake", 90, psk_next);
    both(list, "netlink-keepalive", 60, keepalive);
    both(list, "netlink-echo-zeroed", 60, echo);
}

fn clamp(mut key: Key) -> Key {
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
    key
}

fn with_key(key: Key) -> impl FnOnce(&mut Attrs) {
    move |d| {
        d.put(device::PRIVATE_KEY, &key);
    }
}

/// Stored clamped; zero removes it. The in-tree driver then still stores zero clamped, so that of
/// all keys this one cannot be set next.
fn stored(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let mut one = [0; 32];
    one[0] = 1;
    for (what, key) in [
        ("ones", [0xff; 32]),
        ("clamped ones", clamp([0xff; 32])),
        ("only a bit that clamping clears", one),
        ("a clamped key", clamp([0x31; 32])),
    ] {
        let got = scene.set(what, Ok(()), with_key(key))?;
        scene.check(
            got.private_key == Some(clamp(key)) && got.public_key == Some(public(key)),
            format!("{what}: {got:x?}"),
        );
    }
    for n in 0..2 {
        let got = scene.set(&format!("zero, {n}"), Ok(()), with_key([0; 32]))?;
        scene.check(
            got.private_key.is_none() && got.public_key.is_none(),
            format!("zero: {got:x?}"),
        );
    }
    let least = clamp([0; 32]);
    let got = scene.set("zero clamped, after zero", Ok(()), with_key(least))?;
    scene.check(
        got.private_key.is_none() && got.public_key.is_none(),
        format!("zero clamped, after zero: {got:x?}"),
    );
    let unclamped = scene.set("the same unclamped", Ok(()), with_key(one))?;
    scene.pair.remake()?;
    let first = scene.set("zero clamped, the first key", Ok(()), with_key(least))?;
    for got in [unclamped, first] {
        scene.check(
            got.private_key == Some(least) && got.public_key == Some(public(least)),
            format!("zero clamped: {got:x?}"),
        );
    }
    scene.finish()
}

/// Setting the key removes the peer that has our public key; later it cannot be added.
fn own_key(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let private = clamp([0x31; 32]);
    let other: Key = [0x32; 32];
    scene.set("peers", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, [1; 32], |_| ());
            peer(list, public(private), |p| ips(p, &["10.1.0.0/16"]));
            peer(list, [2; 32], |_| ());
        });
    })?;
    let keys = |got: &Device| got.peers.iter().map(|p| p.public_key).collect::<Vec<_>>();
    let got = scene.set("the key of one", Ok(()), with_key(private))?;
    scene.check(
        keys(&got) == [[1; 32], [2; 32]],
        format!("{:x?}", keys(&got)),
    );
    for flags in [
        0,
        peer::F_REPLACE_ALLOWEDIPS,
        peer::F_UPDATE_ONLY,
        peer::F_REMOVE_ME,
    ] {
        let got = scene.set(&format!("adding it, flags {flags}"), Ok(()), |d| {
            d.nest(device::PEERS, |list| {
                peer(list, public(private), |p| {
                    p.u32(peer::FLAGS, flags).put(peer::PRESHARED_KEY, &[5; 32]);
                    ips(p, &["10.1.0.0/16"]);
                });
            });
        })?;
        scene.check(got.peers.len() == 2, format!("flags {flags}: {got:?}"));
    }
    // The allowed IPs of an ignored peer are not even validated.
    scene.set("adding it with 10.0.0.0/33", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, public(private), |p| ips(p, &["10.0.0.0/33"]));
        });
    })?;
    let got = scene.set("an old key's owner", Ok(()), |d| {
        d.put(device::PRIVATE_KEY, &other)
            .nest(device::PEERS, |list| peer(list, public(private), |_| ()));
    })?;
    scene.check(got.peers.len() == 3, format!("an old key's owner: {got:?}"));
    // Setting the same key again does not look for peers; the comparison is with the unclamped key.
    let got = scene.set("back, unclamped", Ok(()), |d| {
        let mut unclamped = private;
        unclamped[0] |= 7;
        d.put(device::PRIVATE_KEY, &unclamped);
    })?;
    scene.check(got.peers.len() == 2, format!("back, unclamped: {got:?}"));
    let got = scene.set("no key: any peer is allowed", Ok(()), |d| {
        d.put(device::PRIVATE_KEY, &[0; 32])
            .nest(device::PEERS, |list| peer(list, public(private), |_| ()));
    })?;
    scene.check(got.peers.len() == 3, format!("no key: {got:?}"));
    scene.finish()
}

/// The time of side `n`'s last handshake with the other side.
fn handshake(scene: &mut Scene, n: usize) -> Result<Duration> {
    let devices = scene.pair.devices()?;
    Ok(devices[n].peers.first().context("no peer")?.last_handshake)
}

/// Setting the stored, clamped key changes nothing; setting it unclamped ends all sessions (and
/// resets the handshake rate limit).
fn same_key(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for (n, side) in SIDES.iter().enumerate() {
        scene.pair.tunnel()?;
        let key = scene.pair.devices()?[n].private_key.context("no key")?;
        let mut wg = scene.pair.wg(n)?;
        let mut unclamped = key;
        unclamped[0] |= 1;
        for (what, set, same) in [("the same key", key, true), ("unclamped", unclamped, false)] {
            let before = handshake(&mut scene, n)?;
            wg.set_raw(&device(with_key(set)))?;
            let got = one_way(&scene, n as u8, 3, slow(LONG))?;
            scene.check(got == 3, format!("{side}: {what}: sent {got} of 3"));
            let kept = handshake(&mut scene, n)? == before;
            scene.check(
                kept == same,
                format!("{side}: {what}: session kept: {kept}"),
            );
        }
        let now = scene.pair.devices()?[n].private_key;
        scene.check(now == Some(key), format!("{side}: stored {now:x?}"));
    }
    scene.finish()
}

/// How long to wait for what must arrive (returns as soon as it has), and for what must not.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(700);

/// How many of `count` datagrams from side `n` arrive at the other.
fn one_way(scene: &Scene, n: u8, count: usize, limit: Duration) -> Result<usize> {
    let to = SocketAddr::new(inner(false, 1 - n), 9000);
    let sink = udp(scene.pair.ns(usize::from(1 - n)), to)?;
    let source = udp(
        scene.pair.ns(usize::from(n)),
        SocketAddr::new(inner(false, n), 0),
    )?;
    for _ in 0..count {
        source.send_to(b"one way", to)?;
    }
    Ok(arrived(&sink, count, limit))
}

/// Counts arriving datagrams, up to `count` or until `limit`.
fn arrived(sink: &UdpSocket, count: usize, limit: Duration) -> usize {
    let start = Instant::now();
    let mut got = 0;
    while got < count && start.elapsed() < limit {
        got += drain(sink).unwrap_or(0);
        sleep(Duration::from_millis(10));
    }
    got
}

/// A new key stops sending at once; packets of the other side's session still arrive.
fn new_key(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for (n, side) in SIDES.iter().enumerate() {
        scene.pair.tunnel()?;
        let (own, other) = (n as u8, 1 - n as u8);
        for from in [own, other] {
            let got = one_way(&scene, from, 3, slow(LONG))?;
            ensure!(got == 3, "{side}: {got} of 3 before");
        }
        scene.pair.wg(n)?.set_raw(&device(with_key([0x77; 32])))?;
        let got = one_way(&scene, other, 3, slow(LONG))?;
        scene.check(
            got == 3,
            format!("{side}: received {got} of 3 after the new key"),
        );
        let got = one_way(&scene, own, 3, SHORT)?;
        scene.check(got == 0, format!("{side}: sent {got} after the new key"));
        scene.pair.set_up(false)?;
    }
    scene.finish()
}

/// Packets are queued until the first key is set, and sent then.
fn first_key(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for (n, side) in SIDES.iter().enumerate() {
        scene.pair.tunnel()?;
        let (own, other) = (n as u8, 1 - n as u8);
        let key = scene.pair.devices()?[n].private_key.context("no key")?;
        let mut wg = scene.pair.wg(n)?;
        wg.set_raw(&device(with_key([0; 32])))?;
        // Drop the session and pending handshakes.
        scene.pair.set_up(false)?;
        scene.pair.set_up(true)?;
        let endpoint = SocketAddr::new(outer(false, other), port(other));
        let peer = PeerConf {
            public_key: scene.pair.devices()?[1 - n].public_key.context("no key")?,
            endpoint: Some(endpoint),
            flags: peer::F_UPDATE_ONLY,
            ..PeerConf::default()
        };
        let conf = DeviceConf {
            peers: vec![peer],
            ..DeviceConf::default()
        };
        wg.set(NAME, &conf)?;
        let to = SocketAddr::new(inner(false, other), 9000);
        let sink = udp(scene.pair.ns(usize::from(other)), to)?;
        let source = udp(scene.pair.ns(n), SocketAddr::new(inner(false, own), 0))?;
        for _ in 0..3 {
            source.send_to(b"early", to)?;
        }
        sleep(Duration::from_millis(200));
        let early = drain(&sink)?;
        scene.check(early == 0, format!("{side}: {early} arrived without a key"));
        wg.set_raw(&device(with_key(key)))?;
        let got = arrived(&sink, 3, slow(LONG));
        scene.check(
            got == 3,
            format!("{side}: {got} of 3 arrived after the first key was set"),
        );
    }
    scene.finish()
}

/// A new PSK does not affect the current session; the next handshake needs it at both ends.
fn psk_next(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for (n, side) in SIDES.iter().enumerate() {
        scene.pair.tunnel()?;
        let other = scene.pair.devices()?[1 - n].public_key.context("no key")?;
        let own = scene.pair.devices()?[n].public_key.context("no key")?;
        let psk = |key: Key| {
            device(|d| {
                d.nest(device::PEERS, |list| {
                    peer(list, key, |p| {
                        p.put(peer::PRESHARED_KEY, &[0x61; 32]);
                    });
                });
            })
        };
        scene.pair.wg(n)?.set_raw(&psk(other))?;
        for from in 0..2 {
            let got = one_way(&scene, from, 3, slow(LONG))?;
            scene.check(got == 3, format!("{side}: {got} of 3 on the old session"));
        }
        // End the session.
        scene.pair.set_up(false)?;
        scene.pair.set_up(true)?;
        let got = one_way(&scene, 0, 1, SHORT)?;
        scene.check(got == 0, format!("{side}: a handshake with one PSK only"));
        scene.pair.wg(1 - n)?.set_raw(&psk(own))?;
        // After down and up, the next initiation is not rate limited.
        scene.pair.set_up(false)?;
        scene.pair.set_up(true)?;
        if let Err(e) = ping_all(scene.pair.ns(0), inner(false, 1), 1) {
            scene.check(false, format!("{side}: with both PSKs: {e:#}"));
        }
        let told = scene.pair.devices()?;
        let both = told.iter().all(|d| d.peers[0].preshared_key == [0x61; 32]);
        scene.check(both, format!("{side}: reported {told:x?}"));
    }
    scene.finish()
}

/// Switching the keepalive on sends one at once; changing the interval does not.
fn keepalive(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.tunnel()?;
    for (n, side) in SIDES.iter().enumerate() {
        let key = scene.pair.devices()?[1 - n].public_key.context("no key")?;
        let sent =
            |scene: &mut Scene| -> Result<u64> { Ok(scene.pair.devices()?[n].peers[0].tx_bytes) };
        let mut wg = scene.pair.wg(n)?;
        let mut put = |seconds: u16| {
            wg.set_raw(&device(|d| {
                d.nest(device::PEERS, |list| {
                    peer(list, key, |p| {
                        p.u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, seconds);
                    });
                });
            }))
        };
        for round in 0..2 {
            let before = sent(&mut scene)?;
            put(3000)?;
            let start = Instant::now();
            while sent(&mut scene)? == before && start.elapsed() < slow(Duration::from_secs(3)) {
                sleep(Duration::from_millis(10));
            }
            let more = sent(&mut scene)? - before;
            scene.check(more == 32, format!("{side}: {round}: {more} bytes at once"));
            for seconds in if round == 0 {
                &[2000, 4000, 4000][..]
            } else {
                &[]
            } {
                let before = sent(&mut scene)?;
                put(*seconds)?;
                sleep(Duration::from_millis(150));
                let more = sent(&mut scene)? - before;
                scene.check(more == 0, format!("{side}: {more} bytes at {seconds} s"));
            }
            put(0)?;
        }
    }
    for (what, up) in [("down", false), ("up", true)] {
        scene.pair.set_up(up)?;
        for seconds in [0, 1, u16::MAX, 0] {
            // Of a peer without an endpoint.
            scene.ask(
                what,
                &set(&device(|d| {
                    d.nest(device::PEERS, |list| {
                        peer(list, [3; 32], |p| {
                            p.u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, seconds);
                        });
                    });
                })),
                Ok(()),
            )?;
            let told = scene.pair.devices()?.map(|d| d.peers[1].keepalive);
            scene.check(
                told == [seconds; 2],
                format!("{what}: reported {told:?}, set {seconds}"),
            );
        }
    }
    scene.finish()
}

/// The echo of a refused request has the keys zeroed that the handler has seen.
fn echo(ctx: &Ctx) -> Result<()> {
    const PRIVATE: Key = [0x70; 32];
    const PSK: Key = [0x71; 32];
    let mut scene = Scene::new(ctx)?;
    let mut ask =
        |what: &str, attrs: Attrs, wanted: Errno, (private, psks): (usize, usize)| -> Result<()> {
            let request: Request = set(&attrs);
            let answers = scene.ask(what, &request, Err(wanted))?;
            for (side, answer) in SIDES.iter().zip(&answers) {
                let echo = answer.echo();
                let count = |key: &Key| echo.windows(32).filter(|w| w == key).count();
                scene.check(
                    echo.len() == request.body.len(),
                    format!("{what}: {side}: {} bytes in the echo", echo.len()),
                );
                scene.check(
                    count(&PRIVATE) == private && count(&PSK) == psks,
                    format!(
                        "{what}: {side}: {} private keys and {} PSKs in the echo, \
                     not {private} and {psks}",
                        count(&PRIVATE),
                        count(&PSK)
                    ),
                );
            }
            Ok(())
        };
    // Keys do not overlap: `windows` counts whole keys.
    let with_psks = |d: &mut Attrs, bad: usize| {
        d.nest(device::PEERS, |list| {
            for n in 0..3 {
                list.nest(0, |p| {
                    if n != bad {
                        p.put(peer::PUBLIC_KEY, &[n as u8; 32]);
                    }
                    p.put(peer::PRESHARED_KEY, &PSK);
                });
            }
        });
    };
    ask(
        "the second peer without a key",
        device(|d| {
            d.put(device::PRIVATE_KEY, &PRIVATE);
            with_psks(d, 1);
        }),
        Errno::EINVAL,
        (0, 1),
    )?;
    ask(
        "the last peer without a key",
        device(|d| with_psks(d, 2)),
        Errno::EINVAL,
        (0, 0),
    )?;
    let mut nobody = Attrs::new();
    nobody
        .str(device::IFNAME, "wg9")
        .put(device::PRIVATE_KEY, &PRIVATE);
    with_psks(&mut nobody, 9);
    ask("no such device", nobody, Errno::ENODEV, (0, 3))?;
    let mut both = Attrs::new();
    both.u32(device::IFINDEX, 1).str(device::IFNAME, NAME);
    both.put(device::PRIVATE_KEY, &PRIVATE);
    ask("index and name", both, Errno::EBADR, (0, 0))?;
    let mut lo = Attrs::new();
    lo.str(device::IFNAME, "lo")
        .put(device::PRIVATE_KEY, &PRIVATE);
    ask("the loopback", lo, Errno::EOPNOTSUPP, (0, 0))?;
    ask(
        "refused by the policy",
        device(|d| {
            d.put(device::PRIVATE_KEY, &PRIVATE).u32(device::FLAGS, 2);
            with_psks(d, 9);
        }),
        Errno::EINVAL,
        (1, 3),
    )?;
    ask(
        "a PSK refused by the policy after a good one",
        device(|d| {
            d.put(device::PRIVATE_KEY, &PRIVATE)
                .nest(device::PEERS, |list| {
                    peer(list, [1; 32], |p| {
                        p.put(peer::PRESHARED_KEY, &PSK);
                    });
                    peer(list, [1; 32], |p| {
                        p.put(peer::PRESHARED_KEY, &PSK[1..]);
                    });
                });
        }),
        Errno::ERANGE,
        (1, 1),
    )?;
    ask(
        "another version",
        device(|d| {
            peers(d, |p| {
                p.put(peer::PUBLIC_KEY, &[1; 32])
                    .put(peer::PRESHARED_KEY, &PSK)
                    .u32(peer::PROTOCOL_VERSION, 2);
            });
        }),
        Errno::EPFNOSUPPORT,
        (0, 0),
    )?;
    // Of a repeated attribute only the last is parsed, and zeroed.
    ask(
        "two of each",
        device(|d| {
            d.put(device::PRIVATE_KEY, &PRIVATE)
                .u32(device::FWMARK, 1)
                .put(device::PRIVATE_KEY, &PRIVATE);
            d.nest(device::PEERS, |list| {
                peer(list, [1; 32], |p| {
                    p.put(peer::PRESHARED_KEY, &PSK)
                        .u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 0)
                        .put(peer::PRESHARED_KEY, &PSK);
                });
                list.nest(0, |_| ());
            });
        }),
        Errno::EINVAL,
        (1, 1),
    )?;
    scene.finish()
}

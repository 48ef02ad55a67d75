// SPDX-License-Identifier: GPL-2.0-only
//! What a SET does to the device itself: order of application, port, mark, ignored attributes.

use super::both;
use super::scene::{device, ip, ips, ips_of, peer, set, Scene};
use anyhow::{Context, Result};
use harness::netlink::Attrs;
use harness::pair::{Pair, INDEX, NAME, SIDES};
use harness::runner::{Ctx, Test};
use harness::wgdev::{uapi::*, Key};
use nix::errno::Errno;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use x25519_dalek::{PublicKey, StaticSecret};

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-set-order", 60, order);
    both(list, "netlink-set-stops-at-first-error", 60, stops);
    both(list, "netlink-set-duplicates", 60, duplicates);
    both(list, "netlink-list-ends-at-garbage", 60, garbage);
    both(list, "netlink-set-ignores-get-only", 60, get_only);
    both(list, "netlink-set-by-index", 60, by_index);
    both(list, "netlink-port", 60, port);
    both(list, "netlink-fwmark", 60, fwmark);
}

/// The public key of a private one.
pub fn public(private: Key) -> Key {
    PublicKey::from(&StaticSecret::from(private)).to_bytes()
}

/// Binds sockets to a port, IPv4 or IPv6, in both namespaces, so that it is taken.
fn occupy(pair: &Pair, addr: SocketAddr) -> Result<[UdpSocket; 2]> {
    let bind = |n: usize| {
        pair.ns(n)
            .run(|| UdpSocket::bind(addr).with_context(|| format!("bind {addr}")))
    };
    Ok([bind(0)?, bind(1)?])
}

fn any4(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

/// Fwmark, port, REPLACE_PEERS, private key, peers: whatever their order in the request.
fn order(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let (first, second): (Key, Key) = ([0x31; 32], [0x32; 32]);
    scene.set("two peers", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, [1; 32], |_| ());
            peer(list, public(first), |_| ());
        });
    })?;
    // In reverse order. REPLACE_PEERS removes our own key's peer, which is then ignored as our own.
    let got = scene.set("all at once", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, public(first), |p| ips(p, &["10.0.0.0/8"]));
            peer(list, [2; 32], |_| ());
        });
        d.put(device::PRIVATE_KEY, &first)
            .u32(device::FLAGS, device::F_REPLACE_PEERS)
            .u16(device::LISTEN_PORT, 4001)
            .u32(device::FWMARK, 7);
    })?;
    let keys: Vec<Key> = got.peers.iter().map(|p| p.public_key).collect();
    scene.check(
        keys == [[2; 32]] && got.listen_port == 4001 && got.fwmark == 7,
        format!("all at once: {got:?}"),
    );
    // The new key is set before the peers: the old key's owner may be added, the new key's not.
    let got = scene.set("another key and both owners", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, public(first), |_| ());
            peer(list, public(second), |_| ());
        });
        d.put(device::PRIVATE_KEY, &second);
    })?;
    let keys: Vec<Key> = got.peers.iter().map(|p| p.public_key).collect();
    scene.check(
        keys == [[2; 32], public(first)],
        format!("another key: peers {keys:x?}"),
    );
    // A taken port stops the request after the fwmark, before everything else.
    let taken = occupy(&scene.pair, any4(4002))?;
    scene.pair.set_up(true)?;
    let got = scene.set("a taken port", Err(Errno::EADDRINUSE), |d| {
        d.nest(device::PEERS, |list| peer(list, [3; 32], |_| ()))
            .put(device::PRIVATE_KEY, &[0; 32])
            .u32(device::FLAGS, device::F_REPLACE_PEERS)
            .u16(device::LISTEN_PORT, 4002)
            .u32(device::FWMARK, 8);
    })?;
    scene.check(
        got.fwmark == 8
            && got.listen_port == 4001
            && got.peers.len() == 2
            && got.public_key == Some(public(second)),
        format!("a taken port: {got:?}"),
    );
    drop(taken);
    scene.finish()
}

/// No transaction: what precedes the first error is applied, what follows it is not.
fn stops(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let got = scene.set("the second peer has no key", Err(Errno::EINVAL), |d| {
        d.u16(device::LISTEN_PORT, 4001)
            .nest(device::PEERS, |list| {
                peer(list, [1; 32], |p| {
                    p.put(peer::PRESHARED_KEY, &[0x51; 32]);
                });
                list.nest(0, |p| {
                    p.put(peer::PRESHARED_KEY, &[0x52; 32]);
                });
                peer(list, [3; 32], |_| ());
            });
    })?;
    scene.check(
        got.listen_port == 4001 && got.peers.len() == 1,
        format!("the second peer has no key: {got:?}"),
    );
    let got = scene.set(
        "the second allowed IP is impossible",
        Err(Errno::EINVAL),
        |d| {
            d.nest(device::PEERS, |list| {
                peer(list, [4; 32], |p| {
                    p.u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 5)
                        .put(peer::PRESHARED_KEY, &[0x54; 32])
                        .put(
                            peer::ENDPOINT,
                            &[2, 0, 0, 9, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                        );
                    ips(p, &["10.1.0.0/16", "10.2.0.0/33", "10.3.0.0/16"]);
                });
                peer(list, [5; 32], |_| ());
            });
        },
    )?;
    // Preshared key, endpoint, allowed IPs, and the keepalive last.
    let last = got.peers.last().cloned().unwrap_or_default();
    scene.check(
        got.peers.len() == 2
            && last.preshared_key == [0x54; 32]
            && last.endpoint.is_some()
            && ips_of(&last) == "10.1.0.0/16"
            && last.keepalive == 0,
        format!("the second allowed IP is impossible: {got:?}"),
    );
    let got = scene.set(
        "an unmarked peer after a removal",
        Err(Errno::EINVAL),
        |d| {
            d.nest(device::PEERS, |list| {
                peer(list, [1; 32], |p| {
                    p.u32(peer::FLAGS, peer::F_REMOVE_ME);
                });
                list.put(0, &[]);
                peer(list, [6; 32], |_| ());
            });
        },
    )?;
    // If the policy refuses it, nothing is removed. Here the two need only agree; see below.
    scene.check(
        got.peers.iter().all(|p| p.public_key != [6; 32]),
        format!("an unmarked peer: {got:?}"),
    );
    let got = scene.set("version 2 after a removal", Err(Errno::EPFNOSUPPORT), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, [4; 32], |p| {
                p.u32(peer::FLAGS, peer::F_REMOVE_ME);
            });
            peer(list, [7; 32], |p| {
                p.u32(peer::PROTOCOL_VERSION, 2);
            });
        });
    })?;
    let gone = |key: Key| got.peers.iter().all(|p| p.public_key != key);
    scene.check(
        gone([4; 32]) && gone([7; 32]),
        format!("version 2 after a removal: {got:?}"),
    );
    let got = scene.set(
        "REPLACE_ALLOWEDIPS with an impossible one",
        Err(Errno::EINVAL),
        |d| {
            d.nest(device::PEERS, |list| {
                peer(list, [8; 32], |p| ips(p, &["10.8.0.0/16", "10.9.0.0/16"]));
                peer(list, [8; 32], |p| {
                    p.u32(peer::FLAGS, peer::F_REPLACE_ALLOWEDIPS);
                    ips(p, &["10.10.0.0/16", "10.0.0.0/40"]);
                });
            });
        },
    )?;
    let last = got.peers.last().map(ips_of);
    scene.check(
        last.as_deref() == Some("10.10.0.0/16"),
        format!("REPLACE_ALLOWEDIPS: {last:?}"),
    );
    scene.finish()
}

/// Of a repeated attribute the last counts; a repeated peer is one peer.
fn duplicates(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let got = scene.set("two ports, two keys, two marks", Ok(()), |d| {
        d.u16(device::LISTEN_PORT, 4001)
            .put(device::PRIVATE_KEY, &[0x31; 32])
            .u32(device::FWMARK, 1)
            .u16(device::LISTEN_PORT, 4002)
            .put(device::PRIVATE_KEY, &[0x32; 32])
            .u32(device::FWMARK, 2);
    })?;
    scene.check(
        got.listen_port == 4002 && got.fwmark == 2 && got.public_key == Some(public([0x32; 32])),
        format!("two of each: {got:?}"),
    );
    let got = scene.set("two lists of peers", Ok(()), |d| {
        d.nest(device::PEERS, |list| peer(list, [1; 32], |_| ()));
        d.nest(device::PEERS, |list| peer(list, [2; 32], |_| ()));
    })?;
    let keys: Vec<Key> = got.peers.iter().map(|p| p.public_key).collect();
    scene.check(keys == [[2; 32]], format!("two lists of peers: {keys:x?}"));
    let got = scene.set("a peer twice", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            for n in 1..=2u8 {
                list.nest(0, |p| {
                    p.put(peer::PUBLIC_KEY, &[9; 32])
                        .put(peer::PUBLIC_KEY, &[3; 32])
                        .put(peer::PRESHARED_KEY, &[0x50; 32])
                        .put(peer::PRESHARED_KEY, &[0x50 + n; 32])
                        .u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, n.into());
                    ips(p, &["10.1.0.0/16"]);
                    ips(p, &[["10.2.0.0/16"], ["10.3.0.0/16"]][usize::from(n) - 1]);
                });
            }
        });
    })?;
    let last = got.peers.last().cloned().unwrap_or_default();
    scene.check(
        got.peers.len() == 2
            && last.public_key == [3; 32]
            && last.preshared_key == [0x52; 32]
            && last.keepalive == 2
            && ips_of(&last) == "10.2.0.0/16 10.3.0.0/16",
        format!("a peer twice: {got:?}"),
    );
    // The types of list elements, the byte-order flag and missing padding do not matter.
    let got = scene.set(
        "elements of type 7, a port marked big-endian",
        Ok(()),
        |d| {
            d.put(device::LISTEN_PORT | (1 << 14), &4003u16.to_ne_bytes());
            d.nest(device::PEERS, |list| {
                list.nest(7, |p| {
                    p.put(peer::PUBLIC_KEY, &[4; 32]);
                });
            });
        },
    )?;
    scene.check(
        got.listen_port == 4003 && got.peers.len() == 3,
        format!("elements of type 7: {got:?}"),
    );
    scene.finish()
}

/// A list of peers or of allowed IPs ends at the first malformed attribute; what precedes it is
/// applied.
fn garbage(ctx: &Ctx) -> Result<()> {
    const NESTED: u16 = 1 << 15;
    let mut scene = Scene::new(ctx)?;
    let mut wanted = 0;
    for garbage in [&[1][..], &[1, 2, 3], &[0xff; 8], &[1, 0, 1, 0], &[0; 4]] {
        let mut list = Attrs::new();
        peer(&mut list, [wanted as u8 + 1; 32], |_| ());
        list.raw(garbage);
        wanted += 1;
        let mut rest = Attrs::new();
        peer(&mut rest, [99; 32], |_| ());
        list.raw(rest.bytes());
        let got = scene.set(&format!("a peer, {garbage:?}, a peer"), Ok(()), |d| {
            d.put(device::PEERS | NESTED, list.bytes());
        })?;
        scene.check(
            got.peers.len() == wanted && got.peers.iter().all(|p| p.public_key != [99; 32]),
            format!("a peer, {garbage:?}, a peer: {got:?}"),
        );
        let mut list = Attrs::new();
        ip(&mut list, [10, 1, 0, 0].into(), 16, None);
        list.raw(garbage);
        let got = scene.set(&format!("an allowed IP, {garbage:?}"), Ok(()), |d| {
            d.nest(device::PEERS, |peers| {
                peer(peers, [wanted as u8; 32], |p| {
                    p.put(peer::ALLOWEDIPS | NESTED, list.bytes());
                });
            });
        })?;
        let told = got.peers.last().map(ips_of).unwrap_or_default();
        scene.check(
            told == "10.1.0.0/16",
            format!("an allowed IP, {garbage:?}: {told:?}"),
        );
    }
    for garbage in [&[0xff; 8][..], &[1, 0, 1, 0], &[0; 4]] {
        scene.set(&format!("a list of {garbage:?}"), Ok(()), |d| {
            d.put(device::PEERS | NESTED, garbage);
        })?;
    }
    scene.finish()
}

/// Attributes of GET replies are accepted in a SET and ignored.
fn get_only(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let got = scene.set("GET-only attributes", Ok(()), |d| {
        d.put(device::PUBLIC_KEY, &[0x70; 32])
            .nest(device::PEERS, |list| {
                peer(list, [1; 32], |p| {
                    p.put(peer::LAST_HANDSHAKE_TIME, &[1; 16])
                        .put(peer::RX_BYTES, &[1; 8])
                        .put(peer::TX_BYTES, &[1; 8])
                        .u32(peer::PROTOCOL_VERSION, 1);
                });
            });
    })?;
    let counted = got
        .peers
        .iter()
        .any(|p| p.rx_bytes != 0 || p.tx_bytes != 0 || !p.last_handshake.is_zero());
    scene.check(
        got.public_key.is_none() && got.peers.len() == 1 && !counted,
        format!("GET-only attributes: {got:?}"),
    );
    scene.finish()
}

/// A device is found by index as by name; a SET may be empty; a name ends at its first NUL.
fn by_index(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let mut attrs = Attrs::new();
    attrs.u32(device::IFINDEX, INDEX).u32(device::FWMARK, 3);
    scene.ask("by index", &set(&attrs), Ok(()))?;
    let got = scene.state("by index")?;
    scene.check(got.fwmark == 3, format!("by index: {got:?}"));
    scene.ask("nothing to set", &set(&device(|_| ())), Ok(()))?;
    let mut attrs = Attrs::new();
    let name = format!("{NAME}\0more");
    attrs
        .put(device::IFNAME, name.as_bytes())
        .u32(device::FWMARK, 4);
    scene.ask("bytes after the name", &set(&attrs), Ok(()))?;
    let got = scene.state("bytes after the name")?;
    scene.check(got.fwmark == 4, format!("bytes after the name: {got:?}"));
    for (what, empty) in [("empty PEERS", true), ("peers without ALLOWEDIPS", false)] {
        scene.set(what, Ok(()), |d| {
            d.nest(device::PEERS, |list| {
                if !empty {
                    peer(list, [1; 32], |p| ips(p, &[]));
                }
            });
        })?;
    }
    scene.finish()
}

/// Setting the current port is no change; a taken port fails at once if the device is up, else
/// when it is brought up; 0 while up picks another port each time.
fn port(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let to = |port: u16| {
        move |d: &mut Attrs| {
            d.u16(device::LISTEN_PORT, port);
        }
    };
    scene.set("0 on 0, down", Ok(()), to(0))?;
    let v4 = occupy(&scene.pair, any4(4002))?;
    let v6 = occupy(&scene.pair, (Ipv6Addr::UNSPECIFIED, 4003).into())?;
    for taken in [4002, 4003] {
        let got = scene.set(&format!("{taken} is taken, down"), Ok(()), to(taken))?;
        scene.check(
            got.listen_port == taken,
            format!("down: {}", got.listen_port),
        );
        for (n, side) in SIDES.iter().enumerate() {
            let up = scene.pair.rt(n).set_up(NAME, true);
            scene.check(
                up == Err(Errno::EADDRINUSE),
                format!("{side}: up with port {taken} taken: {up:?}"),
            );
        }
    }
    scene.set("a free port", Ok(()), to(4001))?;
    scene.pair.set_up(true)?;
    for taken in [4002, 4003] {
        let got = scene.set("taken, up", Err(Errno::EADDRINUSE), to(taken))?;
        scene.check(
            got.listen_port == 4001,
            format!("taken, up: {}", got.listen_port),
        );
        // The old sockets remain.
        scene.check(
            occupy(&scene.pair, any4(4001)).is_err(),
            "the old socket is closed",
        );
    }
    scene.set("the same port", Ok(()), to(4001))?;
    // A refused port stops the rest of the request; the current port does not.
    let got = scene.set("the same port and a mark", Ok(()), |d| {
        d.u16(device::LISTEN_PORT, 4001).u32(device::FWMARK, 5);
    })?;
    scene.check(got.fwmark == 5, format!("the same port: {got:?}"));
    drop((v4, v6));
    let got = scene.set("a port that was taken", Ok(()), to(4002))?;
    scene.check(
        got.listen_port == 4002,
        format!("moved to {}", got.listen_port),
    );
    scene.check(
        occupy(&scene.pair, any4(4001)).is_ok(),
        "the old socket is still open",
    );
    let mut before = [4002; 2];
    for round in 0..3 {
        scene.ask("0 while up", &set(&device(to(0))), Ok(()))?;
        let now = scene.pair.devices()?.map(|d| d.listen_port);
        for n in 0..2 {
            scene.check(
                now[n] != 0 && now[n] != before[n],
                format!(
                    "{}: 0 while up, {round}: {} after {}",
                    SIDES[n], now[n], before[n]
                ),
            );
        }
        before = now;
    }
    // The port survives going down.
    scene.pair.set_up(false)?;
    let now = scene.pair.devices()?.map(|d| d.listen_port);
    scene.check(now == before, format!("down: {now:?}, was {before:?}"));
    scene.finish()
}

/// All 32 bits are stored; 0 means none.
fn fwmark(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for up in [false, true] {
        scene.pair.set_up(up)?;
        if up {
            // Each has a random port otherwise, and the dumps would differ.
            scene.ask(
                "a port",
                &set(&device(|d| {
                    d.u16(device::LISTEN_PORT, 4001);
                })),
                Ok(()),
            )?;
        }
        for mark in [1, u32::MAX, 0x8000_0000, 0] {
            let got = scene.set(&format!("mark {mark:#x}"), Ok(()), |d| {
                d.u32(device::FWMARK, mark);
            })?;
            scene.check(
                got.fwmark == mark,
                format!("mark {mark:#x}: {:#x}", got.fwmark),
            );
        }
    }
    scene.finish()
}

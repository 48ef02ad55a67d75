// SPDX-License-Identifier: GPL-2.0-only
//! Peers: flags, endpoints, preshared keys, and their allowed IPs.

use super::both;
use super::scene::{ips, ips_of, peer, Scene};
use anyhow::Result;
use harness::netlink::Attrs;
use harness::runner::{Ctx, Test};
use harness::wgdev::{uapi::*, Device, Key};

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-peer-flags", 60, flags);
    both(list, "netlink-peer-order", 60, order);
    both(list, "netlink-endpoint", 60, endpoint);
    both(list, "netlink-preshared-key", 60, preshared_key);
    both(list, "netlink-allowed-ip-move", 60, moves);
    both(list, "netlink-allowed-ip-remove", 60, removes);
    both(list, "netlink-allowed-ip-mask", 60, masks);
    both(list, "netlink-allowed-ip-replace", 60, replaces);
}

const A: Key = [0xa; 32];
const B: Key = [0xb; 32];
const C: Key = [0xc; 32];

/// One peer.
fn one(d: &mut Attrs, key: Key, fill: impl FnOnce(&mut Attrs)) {
    d.nest(device::PEERS, |list| peer(list, key, fill));
}

fn keys(device: &Device) -> Vec<u8> {
    device.peers.iter().map(|p| p.public_key[0]).collect()
}

/// REMOVE_ME and UPDATE_ONLY of unknown peers, and combined with everything else.
fn flags(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let all = |p: &mut Attrs, flags: u32| {
        p.u32(peer::FLAGS, flags)
            .put(peer::PRESHARED_KEY, &[0x55; 32])
            .u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 9);
        ips(p, &["10.9.0.0/16"]);
    };
    for flags in [1, 3, 4, 5, 6, 7] {
        let got = scene.set(&format!("flags {flags} of an unknown peer"), Ok(()), |d| {
            one(d, A, |p| all(p, flags));
        })?;
        scene.check(got.peers.is_empty(), format!("flags {flags} made a peer"));
    }
    let got = scene.set("REPLACE_ALLOWEDIPS of an unknown peer", Ok(()), |d| {
        one(d, A, |p| all(p, peer::F_REPLACE_ALLOWEDIPS));
    })?;
    scene.check(keys(&got) == [0xa], "REPLACE_ALLOWEDIPS made no peer");
    let got = scene.set("UPDATE_ONLY of a known peer", Ok(()), |d| {
        one(d, A, |p| {
            p.u32(peer::FLAGS, peer::F_UPDATE_ONLY)
                .u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 11);
        });
    })?;
    scene.check(got.peers[0].keepalive == 11, "UPDATE_ONLY did not update");
    for flags in [1, 3, 5, 7] {
        scene.set("a peer again", Ok(()), |d| one(d, A, |_| ()))?;
        let got = scene.set(&format!("flags {flags} of a known peer"), Ok(()), |d| {
            one(d, A, |p| all(p, flags));
        })?;
        scene.check(got.peers.is_empty(), format!("flags {flags} left the peer"));
    }
    let got = scene.set("removed and added in one request", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, A, |p| all(p, 0));
            peer(list, A, |p| {
                p.u32(peer::FLAGS, peer::F_REMOVE_ME);
            });
            peer(list, A, |_| ());
        });
    })?;
    scene.check(
        got.peers.len() == 1 && got.peers[0].keepalive == 0 && got.peers[0].allowed_ips.is_empty(),
        format!("removed and added: {got:?}"),
    );
    scene.set("REPLACE_PEERS", Ok(()), |d| {
        d.u32(device::FLAGS, device::F_REPLACE_PEERS);
    })?;
    // Zero and low-order points are accepted as keys.
    let got = scene.set("zero and low-order keys", Ok(()), |d| {
        d.put(device::PRIVATE_KEY, &[0x31; 32])
            .nest(device::PEERS, |list| {
                peer(list, [0; 32], |_| ());
                peer(list, [0xff; 32], |_| ());
                let mut one = [0; 32];
                one[0] = 1;
                peer(list, one, |_| ());
            });
    })?;
    scene.check(got.peers.len() == 3, format!("low-order keys: {got:?}"));
    scene.finish()
}

/// Peers stay in the order in which they were added.
fn order(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let add = |list: &[Key]| {
        let list = list.to_vec();
        move |d: &mut Attrs| {
            d.nest(device::PEERS, |nest| {
                for key in &list {
                    peer(nest, *key, |p| {
                        p.u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 1);
                    });
                }
            });
        }
    };
    scene.set("C, A", Ok(()), add(&[C, A]))?;
    let got = scene.set("A, B, C", Ok(()), add(&[A, B, C]))?;
    scene.check(keys(&got) == [0xc, 0xa, 0xb], format!("{:x?}", keys(&got)));
    scene.set("C removed", Ok(()), |d| {
        one(d, C, |p| {
            p.u32(peer::FLAGS, peer::F_REMOVE_ME);
        });
    })?;
    let got = scene.set("C added", Ok(()), add(&[C]))?;
    scene.check(keys(&got) == [0xa, 0xb, 0xc], format!("{:x?}", keys(&got)));
    scene.finish()
}

/// The bytes of a `sockaddr_in`.
fn v4(host: u8, zero: [u8; 8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0x12, 0x34, 192, 0, 2, host];
    bytes.extend(zero);
    bytes
}

/// The bytes of a `sockaddr_in6`.
fn v6(host: u8, flowinfo: u8, scope: u8) -> Vec<u8> {
    let mut bytes = vec![10, 0, 0x12, 0x34, 0, 0, 0, flowinfo];
    bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    bytes.extend([scope, 0, 0, 0]);
    bytes
}

/// What is stored, byte by byte: padding and flow label too, unless everything else is unchanged.
fn endpoint(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.set("a peer", Ok(()), |d| one(d, A, |_| ()))?;
    let mut last: Option<Vec<u8>> = None;
    let pad = *b"PADDING!";
    for (what, bytes, stored) in [
        ("IPv4", v4(1, [0; 8]), true),
        ("the same with padding", v4(1, pad), false),
        ("another with padding", v4(2, pad), true),
        ("the same without padding", v4(2, [0; 8]), false),
        ("IPv6", v6(1, 0, 0), true),
        ("the same with a flow label", v6(1, 5, 0), false),
        ("another with a flow label", v6(2, 5, 0), true),
        ("the same with a scope", v6(2, 5, 3), true),
        ("the same with another flow label", v6(2, 6, 3), false),
        ("the same with another scope", v6(2, 6, 4), true),
        (
            "an IPv4 family of 28 bytes",
            [v4(7, pad), vec![0; 12]].concat(),
            false,
        ),
        (
            "an IPv6 family of 16 bytes",
            v6(7, 0, 0)[..16].to_vec(),
            false,
        ),
        ("17 bytes", [v4(7, pad), vec![0]].concat(), false),
        ("27 bytes", v6(7, 0, 0)[..27].to_vec(), false),
        ("29 bytes", [v6(7, 0, 0), vec![0]].concat(), false),
        ("AF_UNIX", [vec![1, 0], vec![0; 14]].concat(), false),
        ("AF_UNSPEC", vec![0; 16], false),
        ("AF_UNSPEC of 28", vec![0; 28], false),
        ("200 bytes", vec![2; 200], false),
        (
            "port 0, address 0",
            [vec![2, 0], vec![0; 14]].concat(),
            true,
        ),
        (
            "broadcast",
            vec![2, 0, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0],
            true,
        ),
    ] {
        if stored {
            last = Some(bytes.clone());
        }
        scene.set(what, Ok(()), |d| {
            one(d, A, |p| {
                p.put(peer::ENDPOINT, &bytes);
            });
        })?;
        let raw = stored_endpoint(&mut scene)?;
        scene.check(
            raw == last,
            format!("{what}: reported {raw:x?}, not {last:x?}"),
        );
    }
    scene.finish()
}

/// The bytes of the first peer's endpoint in the in-tree module's dump.
fn stored_endpoint(scene: &mut Scene) -> Result<Option<Vec<u8>>> {
    use harness::netlink::attrs;
    let answers = scene.pair.ask(&harness::pair::get())?;
    let find = |bytes: &[u8], wanted: u16| {
        let list = attrs(bytes);
        list.into_iter().find(|(k, _)| *k == wanted).map(|(_, d)| d)
    };
    let reply = answers[0].replies().into_iter().next();
    let list = reply.and_then(|r| find(r.body.get(4..)?, device::PEERS));
    let first = list.and_then(|list| find(&list, 0));
    Ok(first.and_then(|p| find(&p, peer::ENDPOINT)))
}

/// Absent leaves it, zero removes it, and it is always reported.
fn preshared_key(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for (what, psk, wanted) in [
        ("a peer without", None, 0),
        ("the first", Some(0x51), 0x51),
        ("absent", None, 0x51),
        ("another", Some(0x52), 0x52),
        ("none", Some(0), 0),
    ] {
        let got = scene.set(what, Ok(()), |d| {
            one(d, A, |p| {
                if let Some(n) = psk {
                    p.put(peer::PRESHARED_KEY, &[n; 32]);
                }
            });
        })?;
        let told = got.peers[0].preshared_key;
        scene.check(told == [wanted; 32], format!("{what}: {told:x?}"));
    }
    let got = scene.set("with a new peer", Ok(()), |d| {
        one(d, B, |p| {
            p.put(peer::PRESHARED_KEY, &[0x53; 32]);
        });
    })?;
    scene.check(got.peers[1].preshared_key == [0x53; 32], "with a new peer");
    scene.finish()
}

/// Adds allowed IPs to one peer.
fn give<'a>(key: Key, list: &'a [&'a str]) -> impl FnOnce(&mut Attrs) + 'a {
    move |d| one(d, key, |p| ips(p, list))
}

/// A prefix has one owner: the last peer that was given it, at the end of that peer's list.
fn moves(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.set(
        "A",
        Ok(()),
        give(
            A,
            &["10.1.0.0/16", "10.2.0.0/16", "fd01::/32", "10.3.0.0/16"],
        ),
    )?;
    scene.set("B", Ok(()), give(B, &["10.4.0.0/16"]))?;
    let got = scene.set("B takes", Ok(()), give(B, &["10.2.0.0/16", "fd01::/32"]))?;
    let lists: Vec<String> = got.peers.iter().map(ips_of).collect();
    scene.check(
        lists
            == [
                "10.1.0.0/16 10.3.0.0/16",
                "10.4.0.0/16 10.2.0.0/16 fd01::/32",
            ],
        format!("B takes: {lists:?}"),
    );
    let got = scene.set("B again", Ok(()), give(B, &["10.4.0.0/16"]))?;
    scene.check(
        ips_of(&got.peers[1]) == "10.2.0.0/16 fd01::/32 10.4.0.0/16",
        format!("B again: {}", ips_of(&got.peers[1])),
    );
    // Longer and shorter prefixes are distinct.
    let got = scene.set(
        "nested",
        Ok(()),
        give(A, &["10.2.0.0/15", "10.2.0.0/17", "0.0.0.0/0", "::/0"]),
    )?;
    scene.check(
        ips_of(&got.peers[0]) == "10.1.0.0/16 10.3.0.0/16 10.2.0.0/15 10.2.0.0/17 0.0.0.0/0 ::/0",
        format!("nested: {}", ips_of(&got.peers[0])),
    );
    let got = scene.set("twice in a request", Ok(()), |d| {
        d.nest(device::PEERS, |list| {
            peer(list, A, |p| {
                ips(p, &["10.7.0.0/16", "10.8.0.0/16", "10.7.0.0/16"])
            });
            peer(list, C, |p| ips(p, &["10.8.0.0/16"]));
        });
    })?;
    scene.check(
        ips_of(&got.peers[2]) == "10.8.0.0/16"
            && ips_of(&got.peers[0]).ends_with("::/0 10.7.0.0/16"),
        format!("twice in a request: {got:?}"),
    );
    // They are removed with their owner.
    let got = scene.set("A removed", Ok(()), |d| {
        one(d, A, |p| {
            p.u32(peer::FLAGS, peer::F_REMOVE_ME);
        });
    })?;
    scene.check(got.peers.len() == 2, "A removed");
    let got = scene.set("A added again", Ok(()), give(A, &["10.1.0.0/16"]))?;
    scene.check(
        got.peers.last().map(ips_of).as_deref() == Some("10.1.0.0/16"),
        format!("A added again: {got:?}"),
    );
    scene.finish()
}

/// REMOVE_ME removes a prefix from its owner only.
fn removes(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let all = ["10.1.0.0/16", "10.2.0.0/16", "fd01::/32", "10.3.0.0/16"];
    scene.set("A", Ok(()), give(A, &all))?;
    scene.set("B", Ok(()), give(B, &["10.4.0.0/16"]))?;
    for (what, list) in [
        ("of another peer", &["-10.1.0.0/16", "-fd01::/32"][..]),
        ("of no peer", &["-10.9.0.0/16", "-fd09::/16"]),
        ("a longer one", &["-10.4.0.0/17"]),
        ("a shorter one", &["-10.4.0.0/15", "-0.0.0.0/0", "-::/0"]),
    ] {
        let got = scene.set(what, Ok(()), give(B, list))?;
        let lists: Vec<String> = got.peers.iter().map(ips_of).collect();
        scene.check(
            lists == [&all.join(" "), "10.4.0.0/16"],
            format!("{what}: {lists:?}"),
        );
    }
    let got = scene.set(
        "its own, with host bits",
        Ok(()),
        give(A, &["-10.2.3.4/16", "-fd01::7/32"]),
    )?;
    scene.check(
        ips_of(&got.peers[0]) == "10.1.0.0/16 10.3.0.0/16",
        format!("its own: {}", ips_of(&got.peers[0])),
    );
    let got = scene.set(
        "removed and added",
        Ok(()),
        give(
            A,
            &["-10.1.0.0/16", "10.1.0.0/16", "10.5.0.0/16", "-10.5.0.0/16"],
        ),
    )?;
    scene.check(
        ips_of(&got.peers[0]) == "10.3.0.0/16 10.1.0.0/16",
        format!("removed and added: {}", ips_of(&got.peers[0])),
    );
    // A new peer with removals only.
    let got = scene.set("a new peer's", Ok(()), give(C, &["-10.1.0.0/16"]))?;
    scene.check(got.peers.len() == 3, "a new peer's");
    let got = scene.set("all", Ok(()), give(A, &["-10.3.0.0/16", "-10.1.0.0/16"]))?;
    scene.check(got.peers[0].allowed_ips.is_empty(), "all");
    scene.finish()
}

/// Host bits are masked, for every prefix length.
fn masks(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let mut list: Vec<String> = (0..=32).map(|n| format!("255.255.255.255/{n}")).collect();
    list.extend((0..=128).map(|n| format!("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/{n}")));
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let got = scene.set("all lengths", Ok(()), give(A, &list))?;
    let told = &got.peers[0].allowed_ips;
    scene.check(told.len() == 33 + 129, format!("{} of 162", told.len()));
    for (addr, cidr) in told {
        let (bits, width) = match addr {
            std::net::IpAddr::V4(a) => (u128::from(a.to_bits()) << 96, 32),
            std::net::IpAddr::V6(a) => (a.to_bits(), 128),
        };
        scene.check(
            bits.count_ones() == u32::from(*cidr) && bits.leading_ones() == u32::from(*cidr),
            format!("{addr}/{cidr} of {width}"),
        );
    }
    scene.finish()
}

/// REPLACE_ALLOWEDIPS clears this peer's list first, even if the same prefixes follow.
fn replaces(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.set("A", Ok(()), give(A, &["10.1.0.0/16", "10.2.0.0/16"]))?;
    scene.set("B", Ok(()), give(B, &["10.4.0.0/16"]))?;
    for (what, list, wanted) in [
        (
            "the same backwards",
            &["10.2.0.0/16", "10.1.0.0/16"][..],
            "10.2.0.0/16 10.1.0.0/16",
        ),
        ("of another peer", &["10.4.0.0/16"], "10.4.0.0/16"),
        ("a removal", &["-10.4.0.0/16"], ""),
        ("nothing", &[], ""),
    ] {
        let got = scene.set(what, Ok(()), |d| {
            one(d, A, |p| {
                p.u32(peer::FLAGS, peer::F_REPLACE_ALLOWEDIPS);
                if !list.is_empty() {
                    ips(p, list);
                }
            });
        })?;
        let told = ips_of(&got.peers[0]);
        scene.check(told == wanted, format!("{what}: {told:?}, not {wanted:?}"));
    }
    let got = scene.state("at last")?;
    scene.check(
        got.peers[1].allowed_ips.is_empty(),
        "B kept what A was given",
    );
    scene.finish()
}

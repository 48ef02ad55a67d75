// SPDX-License-Identifier: GPL-2.0
//! Requests that are refused, each with its error, while a tunnel stands between the two devices:
//! nothing of its state may change, and it goes on carrying packets.

use super::both;
use super::scene::{device, ip, ips, peer, peers, set, Scene};
use crate::harness::gnl::{Request, DO, DUMP};
use crate::harness::netlink::Attrs;
use crate::harness::pair::{Pair, INDEX, SIDES};
use crate::harness::runner::{Ctx, Test};
use crate::harness::wgdev::{uapi::*, Device};
use anyhow::{Context, Result};
use nix::errno::Errno;

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-refused-device", 60, |ctx| {
        refuse(ctx, of_device())
    });
    both(list, "netlink-refused-length", 60, |ctx| {
        refuse(ctx, of_length())
    });
    both(list, "netlink-refused-flag", 60, |ctx| {
        refuse(ctx, of_flag())
    });
    both(list, "netlink-refused-attribute", 60, |ctx| {
        refuse(ctx, of_attribute())
    });
    both(list, "netlink-refused-nesting", 60, |ctx| {
        refuse(ctx, of_nesting())
    });
    both(list, "netlink-refused-peer", 60, |ctx| {
        refuse(ctx, of_peer())
    });
    both(list, "netlink-refused-allowed-ip", 60, |ctx| {
        refuse(ctx, of_allowed_ip())
    });
    both(list, "netlink-refused-header", 60, |ctx| {
        refuse(ctx, of_header())
    });
    both(list, "netlink-refused-get", 60, |ctx| refuse(ctx, of_get()));
    both(list, "netlink-refused-cut-short", 60, |ctx| {
        refuse(ctx, of_cut())
    });
}

/// A peer that both devices have besides each other, so that a refused change of it shows.
const BYSTANDER: [u8; 32] = [9; 32];
const KEY: [u8; 32] = [0x4b; 32];

/// A request and its error.
struct Case {
    what: String,
    request: Request,
    wanted: Errno,
}

/// The list of cases under construction.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn request(&mut self, wanted: Errno, what: impl Into<String>, request: Request) {
        self.0.push(Case {
            what: what.into(),
            request,
            wanted,
        });
    }

    fn raw(&mut self, wanted: Errno, what: impl Into<String>, attrs: &Attrs) {
        self.request(wanted, what, set(attrs));
    }

    /// A SET of `wg0`.
    fn set(&mut self, wanted: Errno, what: impl Into<String>, fill: impl FnOnce(&mut Attrs)) {
        self.raw(wanted, what, &device(fill));
    }

    /// A SET of the bystander.
    fn peer(&mut self, wanted: Errno, what: impl Into<String>, fill: impl FnOnce(&mut Attrs)) {
        self.set(wanted, what, |d| {
            d.nest(DEVICE_PEERS, |list| peer(list, BYSTANDER, fill));
        });
    }

    /// A SET of one of the bystander's allowed IPs.
    fn ip(&mut self, wanted: Errno, what: impl Into<String>, fill: impl FnOnce(&mut Attrs)) {
        self.peer(wanted, what, |p| {
            p.nest(PEER_ALLOWEDIPS, |list| {
                list.nest(0, fill);
            });
        });
    }
}

/// Asks for all cases on top of a working tunnel.
fn refuse(ctx: &Ctx, cases: Cases) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.tunnel()?;
    let add = device(|d| {
        d.nest(DEVICE_PEERS, |list| {
            peer(list, BYSTANDER, |p| ips(p, &["10.77.0.0/16", "fd77::/32"]));
        });
    });
    scene.ask("adding a bystander", &set(&add), Ok(()))?;
    let before = states(&mut scene.pair)?;
    for case in &cases.0 {
        scene.ask(&case.what, &case.request, Err(case.wanted))?;
        let after = states(&mut scene.pair).with_context(|| case.what.clone())?;
        for n in 0..2 {
            scene.check(
                after[n] == before[n],
                format!("{}: changed {}", case.what, SIDES[n]),
            );
        }
    }
    if let Err(e) = scene.pair.ping() {
        scene.check(false, format!("the tunnel afterwards: {e:#}"));
    }
    scene.verdict()
}

/// What the devices tell, without what packets change.
fn states(pair: &mut Pair) -> Result<[Device; 2]> {
    let still = |mut device: Device| {
        for peer in &mut device.peers {
            (peer.rx_bytes, peer.tx_bytes) = (0, 0);
            peer.last_handshake = Default::default();
        }
        device
    };
    Ok(pair.devices()?.map(still))
}

/// Neither or both of index and name, no such device, not one of ours.
fn of_device() -> Cases {
    let mut cases = Cases::default();
    let key = |attrs: &mut Attrs| {
        attrs.put(DEVICE_PRIVATE_KEY, &KEY);
    };
    let named = |name: &[u8]| {
        let mut attrs = Attrs::new();
        attrs.put(DEVICE_IFNAME, name).put(DEVICE_PRIVATE_KEY, &KEY);
        attrs
    };
    let numbered = |index: u32| {
        let mut attrs = Attrs::new();
        attrs
            .u32(DEVICE_IFINDEX, index)
            .put(DEVICE_PRIVATE_KEY, &KEY);
        attrs
    };
    let mut neither = Attrs::new();
    cases.raw(Errno::EBADR, "nothing", &neither);
    key(&mut neither);
    cases.raw(Errno::EBADR, "neither index nor name", &neither);
    cases.set(Errno::EBADR, "both index and name", |d| {
        d.u32(DEVICE_IFINDEX, INDEX);
        key(d);
    });
    cases.set(Errno::EBADR, "name and an index of another", |d| {
        d.u32(DEVICE_IFINDEX, 1);
    });
    for index in [0, 99_999, u32::MAX] {
        cases.raw(Errno::ENODEV, format!("index {index}"), &numbered(index));
    }
    cases.raw(Errno::EOPNOTSUPP, "the loopback's index", &numbered(1));
    for name in ["wg9\0", "\0", "aaaaaaaaaaaaaaa\0"] {
        cases.raw(
            Errno::ENODEV,
            format!("name {name:?}"),
            &named(name.as_bytes()),
        );
    }
    cases.raw(Errno::EOPNOTSUPP, "the loopback", &named(b"lo\0"));
    cases.raw(
        Errno::EOPNOTSUPP,
        "bytes after the name",
        &named(b"lo\0more"),
    );
    for (what, name) in [
        ("no bytes of name", &b""[..]),
        ("a name without end", b"wg0"),
        ("a name of 16", b"aaaaaaaaaaaaaaaa\0"),
        ("a name of 16 without end", b"aaaaaaaaaaaaaaaa"),
        (
            "a name and much more",
            b"lo\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
    ] {
        // The last is told by its first zero.
        let wanted = match what {
            "a name and much more" => Errno::ERANGE,
            _ => Errno::EINVAL,
        };
        cases.raw(wanted, what, &named(name));
    }
    cases
}

/// Keys of other than 32 bytes, short endpoints, numbers of the wrong width.
fn of_length() -> Cases {
    let mut cases = Cases::default();
    for len in [0, 1, 31, 33, 64] {
        let data = vec![0x4b; len];
        for (kind, name) in [
            (DEVICE_PRIVATE_KEY, "private key"),
            (DEVICE_PUBLIC_KEY, "device's public key"),
        ] {
            cases.set(Errno::ERANGE, format!("{name} of {len}"), |d| {
                d.put(kind, &data);
            });
        }
        cases.set(Errno::ERANGE, format!("peer's key of {len}"), |d| {
            peers(d, |p| {
                p.put(PEER_PUBLIC_KEY, &data);
            });
        });
        cases.peer(Errno::ERANGE, format!("PSK of {len}"), |p| {
            p.put(PEER_PRESHARED_KEY, &data);
        });
    }
    for len in [0, 1, 15, 17, 32] {
        cases.peer(Errno::ERANGE, format!("handshake time of {len}"), |p| {
            p.put(PEER_LAST_HANDSHAKE, &vec![0; len]);
        });
    }
    for len in [0, 1, 2, 4, 15] {
        cases.peer(Errno::ERANGE, format!("endpoint of {len}"), |p| {
            p.put(PEER_ENDPOINT, &vec![2; len]);
        });
    }
    for len in [0, 1, 3] {
        cases.ip(Errno::ERANGE, format!("address of {len}"), |ip| {
            ip.u16(ALLOWEDIP_FAMILY, libc::AF_INET as u16)
                .put(ALLOWEDIP_IPADDR, &vec![0; len])
                .u8(ALLOWEDIP_CIDR, 0);
        });
    }
    for len in [0, 1, 2, 3, 4, 5, 8, 9] {
        let data = vec![0; len];
        for (kind, width, name) in [
            (DEVICE_FLAGS, 4, "device flags"),
            (DEVICE_LISTEN_PORT, 2, "port"),
            (DEVICE_FWMARK, 4, "fwmark"),
        ] {
            if len != width {
                cases.set(Errno::EINVAL, format!("{name} of {len}"), |d| {
                    d.put(kind, &data);
                });
            }
        }
        if len != 4 {
            let mut attrs = Attrs::new();
            attrs.put(DEVICE_IFINDEX, &data);
            cases.raw(Errno::EINVAL, format!("index of {len}"), &attrs);
        }
        for (kind, width, name) in [
            (PEER_FLAGS, 4, "peer flags"),
            (PEER_KEEPALIVE, 2, "keepalive"),
            (PEER_RX_BYTES, 8, "rx bytes"),
            (PEER_TX_BYTES, 8, "tx bytes"),
            (PEER_PROTOCOL_VERSION, 4, "version"),
        ] {
            if len != width {
                cases.peer(Errno::EINVAL, format!("{name} of {len}"), |p| {
                    p.put(kind, &data);
                });
            }
        }
        for (kind, width, name) in [
            (ALLOWEDIP_FAMILY, 2, "family"),
            (ALLOWEDIP_CIDR, 1, "cidr"),
            (ALLOWEDIP_FLAGS, 4, "allowed IP flags"),
        ] {
            if len != width {
                cases.ip(Errno::EINVAL, format!("{name} of {len}"), |ip| {
                    ip.u16(ALLOWEDIP_FAMILY, libc::AF_INET as u16)
                        .put(ALLOWEDIP_IPADDR, &[0; 4])
                        .u8(ALLOWEDIP_CIDR, 0)
                        .put(kind, &data);
                });
            }
        }
    }
    cases
}

/// Flags that nobody knows.
fn of_flag() -> Cases {
    let mut cases = Cases::default();
    for flags in [2, 3, 4, 0x8000_0000, u32::MAX] {
        cases.set(Errno::EINVAL, format!("device flags {flags:#x}"), |d| {
            d.u32(DEVICE_FLAGS, flags);
        });
    }
    for flags in [8, 9, 16, 0x8000_0000, u32::MAX] {
        cases.peer(Errno::EINVAL, format!("peer flags {flags:#x}"), |p| {
            p.u32(PEER_FLAGS, flags);
        });
    }
    for flags in [2, 3, 0x8000_0000, u32::MAX] {
        cases.peer(Errno::EINVAL, format!("allowed IP flags {flags:#x}"), |p| {
            p.nest(PEER_ALLOWEDIPS, |list| {
                ip(list, [0, 0, 0, 0].into(), 0, Some(flags));
            });
        });
    }
    cases
}

/// Attributes that nobody knows.
fn of_attribute() -> Cases {
    let mut cases = Cases::default();
    for kind in [0, 9, 10, 100, 0x3fff] {
        cases.set(Errno::EINVAL, format!("device attribute {kind}"), |d| {
            d.u32(kind, 0);
        });
    }
    for kind in [0, 11, 12, 100, 0x3fff] {
        cases.peer(Errno::EINVAL, format!("peer attribute {kind}"), |p| {
            p.u32(kind, 0);
        });
    }
    for kind in [0, 5, 6, 100, 0x3fff] {
        cases.ip(
            Errno::EINVAL,
            format!("allowed IP attribute {kind}"),
            |ip| {
                ip.u16(ALLOWEDIP_FAMILY, libc::AF_INET as u16)
                    .put(ALLOWEDIP_IPADDR, &[0; 4])
                    .u8(ALLOWEDIP_CIDR, 0)
                    .u32(kind, 0);
            },
        );
    }
    cases
}

/// Nests without their mark, marks on what is no nest, lists that end amid an attribute.
fn of_nesting() -> Cases {
    const NESTED: u16 = 1 << 15;
    let mut cases = Cases::default();
    let mut one = Attrs::new();
    peer(&mut one, BYSTANDER, |p| {
        p.put(PEER_PRESHARED_KEY, &KEY);
    });
    let mut inner = Attrs::new();
    inner
        .put(PEER_PUBLIC_KEY, &BYSTANDER)
        .put(PEER_PRESHARED_KEY, &KEY);
    cases.set(Errno::EINVAL, "PEERS without the mark", |d| {
        d.put(DEVICE_PEERS, one.bytes());
    });
    cases.set(Errno::EINVAL, "PEERS empty without the mark", |d| {
        d.put(DEVICE_PEERS, &[]);
    });
    cases.set(Errno::EINVAL, "a peer without the mark", |d| {
        d.nest(DEVICE_PEERS, |list| {
            list.put(0, inner.bytes());
        });
    });
    cases.peer(Errno::EINVAL, "ALLOWEDIPS without the mark", |p| {
        let mut list = Attrs::new();
        ip(&mut list, [10, 1, 0, 0].into(), 16, None);
        p.put(PEER_ALLOWEDIPS, list.bytes());
    });
    cases.peer(Errno::EINVAL, "an allowed IP without the mark", |p| {
        p.nest(PEER_ALLOWEDIPS, |list| {
            let mut ip = Attrs::new();
            ip.u16(ALLOWEDIP_FAMILY, libc::AF_INET as u16)
                .put(ALLOWEDIP_IPADDR, &[10, 1, 0, 0])
                .u8(ALLOWEDIP_CIDR, 16);
            list.put(0, ip.bytes());
        });
    });
    cases.set(Errno::EINVAL, "a port marked as a nest", |d| {
        d.put(DEVICE_LISTEN_PORT | NESTED, &[1, 1]);
    });
    // What is no attribute ends a list (see `netlink-list-ends-at-garbage`), but nothing else.
    for garbage in [&[1][..], &[1, 2, 3], &[0xff; 8], &[1, 0, 1, 0], &[0; 4]] {
        let wanted = if garbage.len() < 4 {
            cases.set(Errno::ERANGE, format!("PEERS holds {garbage:?}"), |d| {
                d.put(DEVICE_PEERS | NESTED, garbage);
            });
            Errno::ERANGE
        } else {
            Errno::EINVAL
        };
        cases.set(wanted, format!("a peer holds {garbage:?}"), |d| {
            d.nest(DEVICE_PEERS, |list| {
                list.put(NESTED, garbage);
            });
        });
        cases.set(
            Errno::EINVAL,
            format!("{garbage:?} after a peer's key"),
            |d| {
                let mut bytes = inner.bytes().to_vec();
                bytes.extend_from_slice(garbage);
                d.nest(DEVICE_PEERS, |list| {
                    list.put(NESTED, &bytes);
                });
            },
        );
        cases.set(
            Errno::EINVAL,
            format!("{garbage:?} after all attributes"),
            |d| {
                d.u16(DEVICE_LISTEN_PORT, 1).raw(garbage);
            },
        );
    }
    cases
}

/// A peer without a key; another protocol version.
fn of_peer() -> Cases {
    let mut cases = Cases::default();
    cases.set(Errno::EINVAL, "an empty peer", |d| peers(d, |_| ()));
    cases.set(Errno::EINVAL, "a peer without a key", |d| {
        peers(d, |p| {
            p.put(PEER_PRESHARED_KEY, &KEY)
                .u16(PEER_KEEPALIVE, 1)
                .u32(PEER_FLAGS, PEER_REMOVE_ME);
        });
    });
    for version in [0, 2, u32::MAX] {
        for flags in [0, PEER_REMOVE_ME, PEER_REPLACE_ALLOWEDIPS, PEER_UPDATE_ONLY] {
            let what = format!("version {version}, flags {flags}");
            cases.peer(Errno::EPFNOSUPPORT, what, |p| {
                p.u32(PEER_PROTOCOL_VERSION, version)
                    .put(PEER_PRESHARED_KEY, &KEY)
                    .u16(PEER_KEEPALIVE, 7)
                    .u32(PEER_FLAGS, flags);
            });
        }
        cases.set(
            Errno::EPFNOSUPPORT,
            format!("version {version} of a new peer"),
            |d| {
                d.nest(DEVICE_PEERS, |list| {
                    peer(list, KEY, |p| {
                        p.u32(PEER_PROTOCOL_VERSION, version);
                    });
                });
            },
        );
    }
    cases
}

/// Allowed IPs that lack something, or cannot be.
fn of_allowed_ip() -> Cases {
    let v4 = libc::AF_INET as u16;
    let v6 = libc::AF_INET6 as u16;
    let mut cases = Cases::default();
    for missing in 0..3 {
        cases.ip(Errno::EINVAL, format!("without part {missing}"), |ip| {
            if missing != 0 {
                ip.u16(ALLOWEDIP_FAMILY, v4);
            }
            if missing != 1 {
                ip.put(ALLOWEDIP_IPADDR, &[1, 2, 3, 4]);
            }
            if missing != 2 {
                ip.u8(ALLOWEDIP_CIDR, 24);
            }
        });
    }
    for (family, len, cidr) in [
        (v4, 4, 33),
        (v4, 4, 255),
        (v4, 5, 24),
        (v4, 16, 24),
        (v6, 4, 24),
        (v6, 15, 64),
        (v6, 16, 129),
        (v6, 16, 255),
        (v6, 17, 64),
        (0, 4, 0),
        (3, 4, 0),
        (255, 16, 0),
        (0x200, 4, 0),
        (0x0a00, 16, 0),
    ] {
        for flags in [0, ALLOWEDIP_REMOVE_ME] {
            let what = format!("family {family:#x}, {len} bytes, /{cidr}, flags {flags}");
            cases.ip(Errno::EINVAL, what, |ip| {
                ip.u16(ALLOWEDIP_FAMILY, family)
                    .put(ALLOWEDIP_IPADDR, &vec![0; len])
                    .u8(ALLOWEDIP_CIDR, cidr)
                    .u32(ALLOWEDIP_FLAGS, flags);
            });
        }
    }
    cases
}

/// GET is for dumps and SET is not; reserved fields and flags; unknown commands.
fn of_header() -> Cases {
    let mut cases = Cases::default();
    let attrs = device(|d| {
        d.u16(DEVICE_LISTEN_PORT, 1);
    });
    let name = device(|_| ());
    let request = Request::new;
    let mut add = |wanted, what: String, request| cases.request(wanted, what, request);
    add(
        Errno::EOPNOTSUPP,
        "GET without DUMP".into(),
        request(DO, GET_DEVICE, name.bytes()),
    );
    add(
        Errno::EOPNOTSUPP,
        "SET with DUMP".into(),
        request(DUMP, SET_DEVICE, attrs.bytes()),
    );
    for cmd in [2, 3, 255] {
        for flags in [DO, DUMP] {
            let what = format!("command {cmd}, flags {flags:#x}");
            add(Errno::EOPNOTSUPP, what, request(flags, cmd, name.bytes()));
        }
    }
    for reserved in [1u16, 0x100, 0xffff] {
        let mut wrong = request(DO, SET_DEVICE, attrs.bytes());
        wrong.body[2..4].copy_from_slice(&reserved.to_ne_bytes());
        add(Errno::EINVAL, format!("reserved {reserved:#x}"), wrong);
        let mut wrong = request(DUMP, GET_DEVICE, name.bytes());
        wrong.body[2..4].copy_from_slice(&reserved.to_ne_bytes());
        add(Errno::EINVAL, format!("GET, reserved {reserved:#x}"), wrong);
    }
    for flag in [
        0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800, 0x1000, 0x8000,
    ] {
        let what = format!("header flag {flag:#x}");
        add(
            Errno::EINVAL,
            what,
            request(DO | flag, SET_DEVICE, attrs.bytes()),
        );
    }
    for flag in [0x10, 0x20, 0x400, 0x800, 0x1000, 0x8000] {
        let what = format!("GET, header flag {flag:#x}");
        add(
            Errno::EINVAL,
            what,
            request(DUMP | flag, GET_DEVICE, name.bytes()),
        );
    }
    cases
}

/// The same for GET, whose policy knows index and name only.
fn of_get() -> Cases {
    let mut cases = Cases::default();
    let mut add = |wanted, what: &str, fill: &dyn Fn(&mut Attrs)| {
        let mut attrs = Attrs::new();
        fill(&mut attrs);
        cases.request(wanted, what, Request::new(DUMP, GET_DEVICE, attrs.bytes()));
    };
    let wg0 = |d: &mut Attrs| {
        d.str(DEVICE_IFNAME, "wg0");
    };
    add(Errno::EBADR, "neither", &|_| ());
    add(Errno::EBADR, "both", &|d| {
        wg0(d);
        d.u32(DEVICE_IFINDEX, INDEX);
    });
    add(Errno::ENODEV, "no such name", &|d| {
        d.str(DEVICE_IFNAME, "wg9");
    });
    add(Errno::ENODEV, "no such index", &|d| {
        d.u32(DEVICE_IFINDEX, 99_999);
    });
    add(Errno::EOPNOTSUPP, "the loopback", &|d| {
        d.str(DEVICE_IFNAME, "lo");
    });
    add(Errno::EINVAL, "name of 16", &|d| {
        d.put(DEVICE_IFNAME, b"aaaaaaaaaaaaaaaa\0");
    });
    add(Errno::EINVAL, "name without end", &|d| {
        d.put(DEVICE_IFNAME, b"wg0");
    });
    add(Errno::EINVAL, "index of one byte", &|d| {
        d.put(DEVICE_IFINDEX, &[100]);
    });
    add(Errno::EINVAL, "a key", &|d| {
        wg0(d);
        d.put(DEVICE_PRIVATE_KEY, &KEY);
    });
    add(Errno::EINVAL, "attribute 0", &|d| {
        wg0(d);
        d.put(0, &[]);
    });
    add(Errno::EINVAL, "a byte after all", &|d| {
        wg0(d);
        d.raw(&[1]);
    });
    cases
}

/// Every beginning of a long request that is no request.
fn of_cut() -> Cases {
    let mut cases = Cases::default();
    let whole = device(|d| {
        d.u32(DEVICE_FLAGS, DEVICE_REPLACE_PEERS)
            .put(DEVICE_PRIVATE_KEY, &KEY)
            .nest(DEVICE_PEERS, |list| {
                peer(list, BYSTANDER, |p| {
                    p.put(PEER_PRESHARED_KEY, &KEY);
                    ips(p, &["10.1.0.0/16", "fd01::/16"]);
                });
            });
    });
    let mut ends = Vec::new(); // of top-level attributes, with or without padding: good requests
    let mut at = 0;
    while let Some(len) = whole.bytes().get(at..at + 2) {
        let len = usize::from(u16::from_ne_bytes([len[0], len[1]]));
        ends.extend(at + len..=(at + len).next_multiple_of(4));
        at = (at + len).next_multiple_of(4);
    }
    for len in ends[0]..whole.bytes().len() {
        if !ends.contains(&len) {
            let request = Request::new(DO, SET_DEVICE, &whole.bytes()[..len]);
            cases.request(Errno::EINVAL, format!("the first {len} bytes"), request);
        }
    }
    cases
}

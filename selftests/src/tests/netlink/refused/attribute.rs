// SPDX-License-Identifier: GPL-2.0-only
//! Malformed attributes: length, flags, type, nesting.

use super::super::scene::{ip, peer, peers};
use super::{Cases, BYSTANDER, KEY};
use harness::netlink::Attrs;
use harness::wgdev::uapi::*;
use nix::errno::Errno;

/// Keys that are not 32 bytes long, short endpoints, integers of the wrong width.
pub fn of_length() -> Cases {
    let mut cases = Cases::default();
    for len in [0, 1, 31, 33, 64] {
        let data = vec![0x4b; len];
        for (kind, name) in [
            (device::PRIVATE_KEY, "private key"),
            (device::PUBLIC_KEY, "device's public key"),
        ] {
            cases.set(Errno::ERANGE, format!("{name} of {len}"), |d| {
                d.put(kind, &data);
            });
        }
        cases.set(Errno::ERANGE, format!("peer's key of {len}"), |d| {
            peers(d, |p| {
                p.put(peer::PUBLIC_KEY, &data);
            });
        });
        cases.peer(Errno::ERANGE, format!("PSK of {len}"), |p| {
            p.put(peer::PRESHARED_KEY, &data);
        });
    }
    for len in [0, 1, 15, 17, 32] {
        cases.peer(Errno::ERANGE, format!("handshake time of {len}"), |p| {
            p.put(peer::LAST_HANDSHAKE_TIME, &vec![0; len]);
        });
    }
    for len in [0, 1, 2, 4, 15] {
        cases.peer(Errno::ERANGE, format!("endpoint of {len}"), |p| {
            p.put(peer::ENDPOINT, &vec![2; len]);
        });
    }
    for len in [0, 1, 3] {
        cases.ip(Errno::ERANGE, format!("address of {len}"), |ip| {
            ip.u16(allowedip::FAMILY, libc::AF_INET as u16)
                .put(allowedip::IPADDR, &vec![0; len])
                .u8(allowedip::CIDR_MASK, 0);
        });
    }
    for len in [0, 1, 2, 3, 4, 5, 8, 9] {
        let data = vec![0; len];
        for (kind, width, name) in [
            (device::FLAGS, 4, "device flags"),
            (device::LISTEN_PORT, 2, "port"),
            (device::FWMARK, 4, "fwmark"),
        ] {
            if len != width {
                cases.set(Errno::EINVAL, format!("{name} of {len}"), |d| {
                    d.put(kind, &data);
                });
            }
        }
        if len != 4 {
            let mut attrs = Attrs::new();
            attrs.put(device::IFINDEX, &data);
            cases.raw(Errno::EINVAL, format!("index of {len}"), &attrs);
        }
        for (kind, width, name) in [
            (peer::FLAGS, 4, "peer flags"),
            (peer::PERSISTENT_KEEPALIVE_INTERVAL, 2, "keepalive"),
            (peer::RX_BYTES, 8, "rx bytes"),
            (peer::TX_BYTES, 8, "tx bytes"),
            (peer::PROTOCOL_VERSION, 4, "version"),
        ] {
            if len != width {
                cases.peer(Errno::EINVAL, format!("{name} of {len}"), |p| {
                    p.put(kind, &data);
                });
            }
        }
        for (kind, width, name) in [
            (allowedip::FAMILY, 2, "family"),
            (allowedip::CIDR_MASK, 1, "cidr"),
            (allowedip::FLAGS, 4, "allowed IP flags"),
        ] {
            if len != width {
                cases.ip(Errno::EINVAL, format!("{name} of {len}"), |ip| {
                    ip.u16(allowedip::FAMILY, libc::AF_INET as u16)
                        .put(allowedip::IPADDR, &[0; 4])
                        .u8(allowedip::CIDR_MASK, 0)
                        .put(kind, &data);
                });
            }
        }
    }
    cases
}

/// Unknown flags.
pub fn of_flag() -> Cases {
    let mut cases = Cases::default();
    for flags in [2, 3, 4, 0x8000_0000, u32::MAX] {
        cases.set(Errno::EINVAL, format!("device flags {flags:#x}"), |d| {
            d.u32(device::FLAGS, flags);
        });
    }
    for flags in [8, 9, 16, 0x8000_0000, u32::MAX] {
        cases.peer(Errno::EINVAL, format!("peer flags {flags:#x}"), |p| {
            p.u32(peer::FLAGS, flags);
        });
    }
    for flags in [2, 3, 0x8000_0000, u32::MAX] {
        cases.peer(Errno::EINVAL, format!("allowed IP flags {flags:#x}"), |p| {
            p.nest(peer::ALLOWEDIPS, |list| {
                ip(list, [0, 0, 0, 0].into(), 0, Some(flags));
            });
        });
    }
    cases
}

/// Unknown attributes.
pub fn of_attribute() -> Cases {
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
                ip.u16(allowedip::FAMILY, libc::AF_INET as u16)
                    .put(allowedip::IPADDR, &[0; 4])
                    .u8(allowedip::CIDR_MASK, 0)
                    .u32(kind, 0);
            },
        );
    }
    cases
}

/// Nests without NLA_F_NESTED, NLA_F_NESTED on what is no nest, lists that end within an attribute.
pub fn of_nesting() -> Cases {
    const NESTED: u16 = 1 << 15;
    let mut cases = Cases::default();
    let mut one = Attrs::new();
    peer(&mut one, BYSTANDER, |p| {
        p.put(peer::PRESHARED_KEY, &KEY);
    });
    let mut inner = Attrs::new();
    inner
        .put(peer::PUBLIC_KEY, &BYSTANDER)
        .put(peer::PRESHARED_KEY, &KEY);
    cases.set(Errno::EINVAL, "PEERS without NLA_F_NESTED", |d| {
        d.put(device::PEERS, one.bytes());
    });
    cases.set(Errno::EINVAL, "empty PEERS without NLA_F_NESTED", |d| {
        d.put(device::PEERS, &[]);
    });
    cases.set(Errno::EINVAL, "a peer without NLA_F_NESTED", |d| {
        d.nest(device::PEERS, |list| {
            list.put(0, inner.bytes());
        });
    });
    cases.peer(Errno::EINVAL, "ALLOWEDIPS without NLA_F_NESTED", |p| {
        let mut list = Attrs::new();
        ip(&mut list, [10, 1, 0, 0].into(), 16, None);
        p.put(peer::ALLOWEDIPS, list.bytes());
    });
    cases.peer(Errno::EINVAL, "an allowed IP without NLA_F_NESTED", |p| {
        p.nest(peer::ALLOWEDIPS, |list| {
            let mut ip = Attrs::new();
            ip.u16(allowedip::FAMILY, libc::AF_INET as u16)
                .put(allowedip::IPADDR, &[10, 1, 0, 0])
                .u8(allowedip::CIDR_MASK, 16);
            list.put(0, ip.bytes());
        });
    });
    cases.set(Errno::EINVAL, "a port with NLA_F_NESTED", |d| {
        d.put(device::LISTEN_PORT | NESTED, &[1, 1]);
    });
    // A malformed attribute ends a list (see `netlink-list-ends-at-garbage`), but nothing else.
    for garbage in [&[1][..], &[1, 2, 3], &[0xff; 8], &[1, 0, 1, 0], &[0; 4]] {
        let wanted = if garbage.len() < 4 {
            cases.set(Errno::ERANGE, format!("PEERS holds {garbage:?}"), |d| {
                d.put(device::PEERS | NESTED, garbage);
            });
            Errno::ERANGE
        } else {
            Errno::EINVAL
        };
        cases.set(wanted, format!("a peer holds {garbage:?}"), |d| {
            d.nest(device::PEERS, |list| {
                list.put(NESTED, garbage);
            });
        });
        cases.set(
            Errno::EINVAL,
            format!("{garbage:?} after a peer's key"),
            |d| {
                let mut bytes = inner.bytes().to_vec();
                bytes.extend_from_slice(garbage);
                d.nest(device::PEERS, |list| {
                    list.put(NESTED, &bytes);
                });
            },
        );
        cases.set(
            Errno::EINVAL,
            format!("{garbage:?} after all attributes"),
            |d| {
                d.u16(device::LISTEN_PORT, 1).raw(garbage);
            },
        );
    }
    cases
}

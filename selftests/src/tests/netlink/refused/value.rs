// SPDX-License-Identifier: GPL-2.0-only
//! Peers and allowed IPs that are incomplete or impossible.

use super::super::scene::{peer, peers};
use super::{Cases, KEY};
use harness::wgdev::uapi::*;
use nix::errno::Errno;

/// A peer without a key; another protocol version.
pub fn of_peer() -> Cases {
    let mut cases = Cases::default();
    cases.set(Errno::EINVAL, "an empty peer", |d| peers(d, |_| ()));
    cases.set(Errno::EINVAL, "a peer without a key", |d| {
        peers(d, |p| {
            p.put(peer::PRESHARED_KEY, &KEY)
                .u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 1)
                .u32(peer::FLAGS, peer::F_REMOVE_ME);
        });
    });
    for version in [0, 2, u32::MAX] {
        for flags in [
            0,
            peer::F_REMOVE_ME,
            peer::F_REPLACE_ALLOWEDIPS,
            peer::F_UPDATE_ONLY,
        ] {
            let what = format!("version {version}, flags {flags}");
            cases.peer(Errno::EPFNOSUPPORT, what, |p| {
                p.u32(peer::PROTOCOL_VERSION, version)
                    .put(peer::PRESHARED_KEY, &KEY)
                    .u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 7)
                    .u32(peer::FLAGS, flags);
            });
        }
        cases.set(
            Errno::EPFNOSUPPORT,
            format!("version {version} of a new peer"),
            |d| {
                d.nest(device::PEERS, |list| {
                    peer(list, KEY, |p| {
                        p.u32(peer::PROTOCOL_VERSION, version);
                    });
                });
            },
        );
    }
    cases
}

/// Incomplete or impossible allowed IPs.
pub fn of_allowed_ip() -> Cases {
    let v4 = libc::AF_INET as u16;
    let v6 = libc::AF_INET6 as u16;
    let mut cases = Cases::default();
    for missing in 0..3 {
        cases.ip(Errno::EINVAL, format!("without part {missing}"), |ip| {
            if missing != 0 {
                ip.u16(allowedip::FAMILY, v4);
            }
            if missing != 1 {
                ip.put(allowedip::IPADDR, &[1, 2, 3, 4]);
            }
            if missing != 2 {
                ip.u8(allowedip::CIDR_MASK, 24);
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
        for flags in [0, allowedip::F_REMOVE_ME] {
            let what = format!("family {family:#x}, {len} bytes, /{cidr}, flags {flags}");
            cases.ip(Errno::EINVAL, what, |ip| {
                ip.u16(allowedip::FAMILY, family)
                    .put(allowedip::IPADDR, &vec![0; len])
                    .u8(allowedip::CIDR_MASK, cidr)
                    .u32(allowedip::FLAGS, flags);
            });
        }
    }
    cases
}

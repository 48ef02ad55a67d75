// SPDX-License-Identifier: GPL-2.0-only
//! Whole requests: header, command, the device that they name, truncation.

use super::super::scene::{device, ips, peer};
use super::{Cases, BYSTANDER, KEY};
use harness::gnl::{Request, DO, DUMP};
use harness::netlink::Attrs;
use harness::pair::INDEX;
use harness::wgdev::uapi::*;
use nix::errno::Errno;

/// GET needs DUMP and SET must not have it; reserved fields and flags; unknown commands.
pub fn of_header() -> Cases {
    let mut cases = Cases::default();
    let attrs = device(|d| {
        d.u16(device::LISTEN_PORT, 1);
    });
    let name = device(|_| ());
    let request = Request::new;
    let mut add = |wanted, what: String, request| cases.request(wanted, what, request);
    add(
        Errno::EOPNOTSUPP,
        "GET without DUMP".into(),
        request(DO, cmd::GET_DEVICE, name.bytes()),
    );
    add(
        Errno::EOPNOTSUPP,
        "SET with DUMP".into(),
        request(DUMP, cmd::SET_DEVICE, attrs.bytes()),
    );
    for cmd in [2, 3, 255] {
        for flags in [DO, DUMP] {
            let what = format!("command {cmd}, flags {flags:#x}");
            add(Errno::EOPNOTSUPP, what, request(flags, cmd, name.bytes()));
        }
    }
    for reserved in [1u16, 0x100, 0xffff] {
        let mut wrong = request(DO, cmd::SET_DEVICE, attrs.bytes());
        wrong.body[2..4].copy_from_slice(&reserved.to_ne_bytes());
        add(Errno::EINVAL, format!("reserved {reserved:#x}"), wrong);
        let mut wrong = request(DUMP, cmd::GET_DEVICE, name.bytes());
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
            request(DO | flag, cmd::SET_DEVICE, attrs.bytes()),
        );
    }
    for flag in [0x10, 0x20, 0x400, 0x800, 0x1000, 0x8000] {
        let what = format!("GET, header flag {flag:#x}");
        add(
            Errno::EINVAL,
            what,
            request(DUMP | flag, cmd::GET_DEVICE, name.bytes()),
        );
    }
    cases
}

/// The same for GET, whose policy has only index and name.
pub fn of_get() -> Cases {
    let mut cases = Cases::default();
    let mut add = |wanted, what: &str, fill: &dyn Fn(&mut Attrs)| {
        let mut attrs = Attrs::new();
        fill(&mut attrs);
        cases.request(
            wanted,
            what,
            Request::new(DUMP, cmd::GET_DEVICE, attrs.bytes()),
        );
    };
    let wg0 = |d: &mut Attrs| {
        d.str(device::IFNAME, "wg0");
    };
    add(Errno::EBADR, "neither", &|_| ());
    add(Errno::EBADR, "both", &|d| {
        wg0(d);
        d.u32(device::IFINDEX, INDEX);
    });
    add(Errno::ENODEV, "no such name", &|d| {
        d.str(device::IFNAME, "wg9");
    });
    add(Errno::ENODEV, "no such index", &|d| {
        d.u32(device::IFINDEX, 99_999);
    });
    add(Errno::EOPNOTSUPP, "the loopback", &|d| {
        d.str(device::IFNAME, "lo");
    });
    add(Errno::EINVAL, "name of 16", &|d| {
        d.put(device::IFNAME, b"aaaaaaaaaaaaaaaa\0");
    });
    add(Errno::EINVAL, "name without NUL", &|d| {
        d.put(device::IFNAME, b"wg0");
    });
    add(Errno::EINVAL, "index of one byte", &|d| {
        d.put(device::IFINDEX, &[100]);
    });
    add(Errno::EINVAL, "a key", &|d| {
        wg0(d);
        d.put(device::PRIVATE_KEY, &KEY);
    });
    add(Errno::EINVAL, "attribute 0", &|d| {
        wg0(d);
        d.put(0, &[]);
    });
    add(Errno::EINVAL, "a trailing byte", &|d| {
        wg0(d);
        d.raw(&[1]);
    });
    cases
}

/// Neither or both of index and name, no such device, not a WireGuard device.
pub fn of_device() -> Cases {
    let mut cases = Cases::default();
    let key = |attrs: &mut Attrs| {
        attrs.put(device::PRIVATE_KEY, &KEY);
    };
    let named = |name: &[u8]| {
        let mut attrs = Attrs::new();
        attrs
            .put(device::IFNAME, name)
            .put(device::PRIVATE_KEY, &KEY);
        attrs
    };
    let numbered = |index: u32| {
        let mut attrs = Attrs::new();
        attrs
            .u32(device::IFINDEX, index)
            .put(device::PRIVATE_KEY, &KEY);
        attrs
    };
    let mut neither = Attrs::new();
    cases.raw(Errno::EBADR, "nothing", &neither);
    key(&mut neither);
    cases.raw(Errno::EBADR, "neither index nor name", &neither);
    cases.set(Errno::EBADR, "both index and name", |d| {
        d.u32(device::IFINDEX, INDEX);
        key(d);
    });
    cases.set(Errno::EBADR, "name and an index of another", |d| {
        d.u32(device::IFINDEX, 1);
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
        ("an empty name", &b""[..]),
        ("a name without NUL", b"wg0"),
        ("a name of 16 bytes", b"aaaaaaaaaaaaaaaa\0"),
        ("a name of 16 bytes without NUL", b"aaaaaaaaaaaaaaaa"),
        (
            "a name and much more",
            b"lo\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
    ] {
        // Only the last is too long for the policy, despite its early NUL.
        let wanted = match what {
            "a name and much more" => Errno::ERANGE,
            _ => Errno::EINVAL,
        };
        cases.raw(wanted, what, &named(name));
    }
    cases
}

/// Every truncation of a long request that does not end between two attributes.
pub fn of_cut() -> Cases {
    let mut cases = Cases::default();
    let whole = device(|d| {
        d.u32(device::FLAGS, device::F_REPLACE_PEERS)
            .put(device::PRIVATE_KEY, &KEY)
            .nest(device::PEERS, |list| {
                peer(list, BYSTANDER, |p| {
                    p.put(peer::PRESHARED_KEY, &KEY);
                    ips(p, &["10.1.0.0/16", "fd01::/16"]);
                });
            });
    });
    let mut ends = Vec::new(); // of top-level attributes, with or without padding: valid requests
    let mut at = 0;
    while let Some(len) = whole.bytes().get(at..at + 2) {
        let len = usize::from(u16::from_ne_bytes([len[0], len[1]]));
        ends.extend(at + len..=(at + len).next_multiple_of(4));
        at = (at + len).next_multiple_of(4);
    }
    for len in ends[0]..whole.bytes().len() {
        if !ends.contains(&len) {
            let request = Request::new(DO, cmd::SET_DEVICE, &whole.bytes()[..len]);
            cases.request(Errno::EINVAL, format!("the first {len} bytes"), request);
        }
    }
    cases
}

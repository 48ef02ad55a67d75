// SPDX-License-Identifier: GPL-2.0
//! Whole requests: their header, the command, the device that they name, their end.

use super::super::scene::{device, ips, peer};
use super::{Cases, BYSTANDER, KEY};
use crate::harness::gnl::{Request, DO, DUMP};
use crate::harness::netlink::Attrs;
use crate::harness::pair::INDEX;
use crate::harness::wgdev::uapi::*;
use nix::errno::Errno;

/// GET is for dumps and SET is not; reserved fields and flags; unknown commands.
pub fn of_header() -> Cases {
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
pub fn of_get() -> Cases {
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

/// Neither or both of index and name, no such device, not one of ours.
pub fn of_device() -> Cases {
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

/// Every beginning of a long request that is no request.
pub fn of_cut() -> Cases {
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

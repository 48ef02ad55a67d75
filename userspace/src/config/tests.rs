// SPDX-License-Identifier: GPL-2.0-only
//! Tests of reading and writing configurations.

use super::*;
use crate::key::{PublicKey, SecretKey};
use crate::model::{AllowedIp, Device, Peer, SetAllowedIp, SetDevice, SetPeer, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const STRICT: bool = true;

/// Resolves nothing but addresses and notes the warnings.
#[derive(Default)]
struct Offline {
    warnings: Vec<String>,
}

impl Lookup for Offline {
    fn endpoint(&mut self, endpoint: &value::EndpointText) -> Result<SocketAddr, LookupError> {
        endpoint
            .numeric()
            .ok_or_else(|| LookupError::Unresolved("no such name".into()))
    }
    fn port(&mut self, _: &[u8]) -> Result<u16, LookupError> {
        Ok(53)
    }
    fn warn(&mut self, warning: &Warning) {
        self.warnings
            .push(String::from_utf8(warning.wg_message()).unwrap());
    }
}

fn read(text: &str) -> Result<SetDevice, CompileError> {
    compile(
        parse(text.as_bytes(), false),
        SetDevice::default(),
        &mut Offline::default(),
    )
}

/// Line, column and length of the first fault, and what `wg` says of it.
fn fault(text: &str, strict: bool) -> ((usize, usize, usize), String) {
    let statements = parse(text.as_bytes(), strict);
    match compile(statements, SetDevice::default(), &mut Offline::default()) {
        Err(CompileError::Fault(fault)) => {
            let Place { line, column, len } = fault.place;
            (
                (line, column, len),
                String::from_utf8_lossy(&fault.wg_message()).into_owned(),
            )
        }
        other => panic!("no fault but {other:?} in {text:?}"),
    }
}

#[test]
fn reads_everything() {
    let text = format!(
        "# comment\r\n[INTERFACE] # more\r\n PrivateKey={KEY}\r\nlistenport = 5 1 8 2 0\n\
         ListenPort = domain\nFwMark = 0xff\n\n[Peer]\nPublicKey = {KEY}\nPresharedKey = {KEY}\n\
         AllowedIPs = 10.0.0.1/8, ::/0\nAllowedIPs=-10.0.0.2\nEndpoint = 192.0.2.1:80\n\
         PersistentKeepalive = 25\n[Peer]\nPublicKey={KEY}"
    );
    let mut lookup = Offline::default();
    let device = compile(
        parse(text.as_bytes(), STRICT),
        SetDevice::whole(),
        &mut lookup,
    )
    .unwrap();
    let key = SecretKey::from_base64(KEY.as_bytes()).unwrap();
    let public_key = PublicKey::from_base64(KEY.as_bytes()).unwrap();
    let ip = |text: &str, remove| SetAllowedIp {
        ip: value::allowed_ip(text.as_bytes()).unwrap(),
        remove,
    };
    let expected = SetDevice {
        private_key: Some(key.clone()),
        listen_port: Some(53),
        fwmark: Some(255),
        replace_peers: true,
        peers: vec![
            SetPeer {
                public_key,
                preshared_key: Some(key),
                endpoint: Some("192.0.2.1:80".parse().unwrap()),
                persistent_keepalive: Some(25),
                allowed_ips: vec![
                    ip("10.0.0.1/8", false),
                    ip("::/0", false),
                    ip("10.0.0.2", true),
                ],
                ..SetPeer::default()
            },
            SetPeer {
                public_key,
                replace_allowed_ips: true,
                ..SetPeer::default()
            },
        ],
    };
    assert_eq!(device, expected);
    assert_eq!(
        lookup.warnings,
        ["Warning: AllowedIP has nonzero host part: 10.0.0.1/8"]
    );
}

#[test]
fn places_faults() {
    let cases = [
        (
            "PrivateKey = x",
            (1, 1, 14),
            "Line unrecognized: `PrivateKey=x'",
        ),
        (
            "[Interface]\nListenPort =",
            (2, 1, 12),
            "Line unrecognized: `ListenPort='",
        ),
        (
            "[Interface]\nListenPort = 1 # c\n\tFwMark = 1 2 x # c",
            (3, 11, 5),
            "Fwmark is neither 0/off nor 0-0xffffffff: `12x'",
        ),
        (
            "[Interface]\nAddress = 10.0.0.1/8",
            (2, 1, 20),
            "Line unrecognized: `Address=10.0.0.1/8'",
        ),
        (
            "[Interface]\nPrivateKey = AbC=",
            (2, 14, 4),
            "Key is not the correct length or format: `(hidden)'",
        ),
        (
            "[Peer]\nPresharedKey = AbC=",
            (2, 16, 4),
            "Key is not the correct length or format: `(hidden)'",
        ),
        (
            "[Peer]\nPublicKey = AbC=",
            (2, 13, 4),
            "Key is not the correct length or format: `AbC='",
        ),
        (
            "[Peer]\nAllowedIPs = ::/0, 10.0.0.0/33",
            (2, 20, 11),
            "AllowedIP is not in the correct format: `10.0.0.0/33'",
        ),
        (
            "[Peer]\nAllowedIPs = ::/0,",
            (2, 19, 1),
            "Unable to parse IP address: `'",
        ),
        (
            "[Peer]\nAllowedIPs = ä/8",
            (2, 14, 1),
            "Unable to parse IP address: `ä'",
        ),
        (
            "[Peer]\nEndpoint = example.com",
            (2, 12, 11),
            "Unable to find port of endpoint: `example.com'",
        ),
        (
            "[Peer]\nEndpoint = [::1:80",
            (2, 12, 7),
            "Unable to find matching brace of endpoint: `[::1:80'",
        ),
        (
            "[Peer]\nEndpoint = example.com:80",
            (2, 12, 14),
            "no such name: `example.com:80'",
        ),
        (
            "[Peer]\nPersistentKeepalive = 65536",
            (2, 23, 5),
            "Persistent keepalive interval is neither 0/off nor 1-65535: `65536'",
        ),
        (
            "\n[Peer]\n[Peer]\nPublicKey=",
            (4, 1, 10),
            "Line unrecognized: `PublicKey='",
        ),
        (
            "\n [Peer]\n[Peer]",
            (2, 2, 6),
            "A peer is missing a public key",
        ),
    ];
    for (text, place, message) in cases {
        assert_eq!(fault(text, STRICT), (place, message.to_owned()), "{text:?}");
        assert_eq!(fault(text, false), (place, message.to_owned()), "{text:?}");
    }
    let marked = "\u{feff}[Interface]";
    let message = "Line unrecognized: `\u{feff}[Interface]'".to_owned();
    assert_eq!(fault(marked, false), ((1, 1, 12), message));
    assert_eq!(fault(marked, STRICT).0, (1, 1, 1));
    assert_eq!(fault("[Peer]\nEndpoint = :80", STRICT).0, (2, 12, 1));
    assert_eq!(
        fault("[Interface]\nListenPort = 65536", STRICT).0,
        (2, 14, 5)
    );
}

#[test]
fn finds_all_faults() {
    let text = "[Interface]\nx\n[Peer]\nEndpoint=x\n[Peer]\nPublicKey=x\n[Peer]";
    let faults = faults(&parse(text.as_bytes(), STRICT));
    let found: Vec<_> = faults
        .iter()
        .map(|fault| (fault.place.line, fault.kind.clone()))
        .collect();
    let expected = [
        (2, Kind::Line),
        (3, Kind::NoPublicKey),
        (4, Kind::EndpointPort),
        (6, Kind::PublicKey),
        (7, Kind::NoPublicKey),
    ];
    assert_eq!(found, expected);
}

#[test]
fn hides_mistyped_keys() {
    for line in [
        format!("PrivateKy = {KEY}"),
        format!("[Peer]\nPrivateKey = {KEY}"),
        format!("Private = {KEY}x"),
        KEY.into(),
    ] {
        let (_, message) = fault(&line, false);
        assert!(
            message.contains("(hidden)") && !message.contains("lXXJte14"),
            "{message}"
        );
    }
}

#[test]
fn shows_public_keys() {
    let (_, message) = fault(&format!("publickey = {KEY}"), false);
    assert_eq!(message, format!("Line unrecognized: `publickey={KEY}'"));
}

#[test]
fn later_lines_win() {
    let device = read("[Interface]\nFwMark = 1\n[Interface]\nFwMark = off").unwrap();
    assert_eq!(
        device,
        SetDevice {
            fwmark: Some(0),
            ..SetDevice::default()
        }
    );
    assert_eq!(read(""), Ok(SetDevice::default()));
    let text = format!("[Peer]\nPublicKey={KEY}\nAllowedIPs=+::/0\nAllowedIPs=::1");
    assert!(read(&text).unwrap().peers[0].replace_allowed_ips);
}

fn device() -> impl Strategy<Value = Device> {
    let secret = || any::<[u8; 32]>().prop_map(|bytes| SecretKey::new(&bytes));
    let ip = (any::<IpAddr>(), 0u8..=128).prop_map(|(addr, cidr)| AllowedIp {
        addr,
        cidr: if addr.is_ipv4() { cidr % 33 } else { cidr },
    });
    let endpoint = (any::<IpAddr>(), 1u16..).prop_map(|(addr, port)| SocketAddr::new(addr, port));
    let peer = (
        any::<[u8; 32]>(),
        option::of(secret()),
        option::of(endpoint),
        any::<u16>(),
        vec(ip, 0..5),
    )
        .prop_map(
            |(public_key, preshared_key, endpoint, persistent_keepalive, allowed_ips)| Peer {
                public_key: PublicKey::new(public_key),
                preshared_key,
                endpoint,
                persistent_keepalive,
                last_handshake: Timestamp::default(),
                rx_bytes: 0,
                tx_bytes: 0,
                allowed_ips,
            },
        );
    (
        option::of(secret()),
        any::<u16>(),
        any::<u32>(),
        vec(peer, 0..5),
    )
        .prop_map(|(private_key, listen_port, fwmark, peers)| Device {
            private_key,
            listen_port,
            fwmark,
            peers,
            ..Device::default()
        })
}

/// What a device that was just made from this change looks like.
fn applied(set: SetDevice) -> Device {
    let peer = |set: SetPeer| Peer {
        public_key: set.public_key,
        preshared_key: set.preshared_key,
        endpoint: set.endpoint,
        persistent_keepalive: set.persistent_keepalive.unwrap_or(0),
        allowed_ips: set.allowed_ips.into_iter().map(|ip| ip.ip).collect(),
        ..Peer::default()
    };
    Device {
        private_key: set.private_key.filter(|key| !key.is_zero()),
        listen_port: set.listen_port.unwrap_or(0),
        fwmark: set.fwmark.unwrap_or(0),
        peers: set.peers.into_iter().map(peer).collect(),
        ..Device::default()
    }
}

proptest! {
    #[test]
    fn written_and_read_again(device in device()) {
        let mut text = Vec::new();
        write(&device, &mut text).unwrap();
        let statements = parse(&text, STRICT);
        let set = compile(statements, SetDevice::whole(), &mut Offline::default()).unwrap();
        prop_assert!(set.replace_peers && set.peers.iter().all(|peer| peer.replace_allowed_ips));
        prop_assert_eq!(applied(set), device);
    }

    #[test]
    fn never_panics(text: Vec<u8>, strict: bool) {
        let statements = parse(&text, strict);
        faults(&statements);
        let _ = compile(statements, SetDevice::whole(), &mut Offline::default());
    }

    #[test]
    fn never_panics_on_near_misses(
        lines in vec(
            "(\\[Interface\\]|\\[Peer\\]|\
             (ListenPort|FwMark|Endpoint|AllowedIPs|PublicKey|PostUp|PersistentKeepalive) ?= ?\
             [-+0-9a-z:./, #\\[\\]]{0,20})\r?\0?",
            0..12,
        ),
    ) {
        let text = lines.join("\n");
        let statements = parse(text.as_bytes(), STRICT);
        for fault in faults(&statements) {
            let line = text.split('\n').nth(fault.place.line - 1).unwrap();
            prop_assert!(fault.place.column <= line.chars().count() + 1);
        }
        let _ = compile(statements, SetDevice::whole(), &mut Offline::default());
    }
}

#[test]
fn a_nul_is_a_fault_when_strict() {
    let text = b"[Interface]\nListenPort = 5\0\n";
    let faults = |strict| faults(&parse(text, strict));
    assert_eq!(faults(false), []);
    let found = faults(true);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kind, Kind::Nul);
    assert_eq!((found[0].place.line, found[0].place.column), (2, 15));
}

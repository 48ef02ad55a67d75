// SPDX-License-Identifier: GPL-2.0-only
//! Requests and replies against each other, without a kernel.

use super::*;
use crate::key::{PublicKey, SecretKey};
use crate::model::{AllowedIp, Peer, SetAllowedIp, SetPeer};
use crate::netlink::messages;
use netlink_packet_core::NlasIterator;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use wireguard_rs::proto::uapi::{allowedip, device, peer};

const LINK: Link<'_> = Link::Name("wg0");

/// The attributes of each message of a SET.
fn requests(change: &SetDevice) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    write_requests(30, LINK, change, &mut |mut message: Message| {
        let sent = messages(message.finish()).next().unwrap().unwrap();
        let payload = sent.payload();
        assert_eq!((sent.message_type(), &payload[..2]), (30, &[1, 1][..]));
        requests.push(payload[GENL_HEADER..].to_vec());
        Ok(())
    })
    .unwrap();
    requests
}

/// The device that a kernel would have after these requests: it reads them as if they were replies.
fn reassemble(requests: &[Vec<u8>]) -> Device {
    let mut device = Device::default();
    for request in requests {
        read_reply(request, &mut device).unwrap();
    }
    device
}

/// All values of an attribute of peers, with the flags among them.
fn of_peers(request: &[u8], wanted: u16) -> Vec<Option<Vec<u8>>> {
    let peers = NlasIterator::new(request)
        .flatten()
        .find(|attribute| attribute.kind() == device::PEERS);
    let peers = peers
        .map(|peers| peers.value().to_vec())
        .unwrap_or_default();
    let value = |peer: &[u8]| {
        NlasIterator::new(peer)
            .flatten()
            .find(|attribute| attribute.kind() == wanted)
            .map(|attribute| attribute.value().to_vec())
    };
    NlasIterator::new(&peers)
        .flatten()
        .map(|peer| value(peer.value()))
        .collect()
}

fn key(number: usize) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_ne_bytes());
    PublicKey::new(bytes)
}

fn ips(count: u32) -> Vec<SetAllowedIp> {
    (0..count)
        .map(|i| SetAllowedIp {
            ip: AllowedIp {
                addr: IpAddr::V4(i.into()),
                cidr: 32,
            },
            remove: i % 2 == 1,
        })
        .collect()
}

#[test]
fn a_long_peer_goes_on_in_the_next_message() {
    let long = SetPeer {
        public_key: key(1),
        update_only: true,
        preshared_key: Some(SecretKey::new(&[9; 32])),
        endpoint: Some("192.0.2.1:80".parse().unwrap()),
        persistent_keepalive: Some(25),
        replace_allowed_ips: true,
        allowed_ips: ips(5000),
        ..SetPeer::default()
    };
    let short = SetPeer {
        public_key: key(2),
        ..SetPeer::default()
    };
    let change = SetDevice {
        private_key: Some(SecretKey::new(&[8; 32])),
        replace_peers: true,
        peers: vec![short.clone(), long, short],
        ..SetDevice::default()
    };
    let requests = requests(&change);
    assert!(requests.len() > 3);
    for (index, request) in requests.iter().enumerate() {
        let has = |wanted| {
            NlasIterator::new(&request[..])
                .flatten()
                .any(|attribute| attribute.kind() == wanted)
        };
        assert_eq!(
            (
                has(device::FLAGS),
                has(device::PRIVATE_KEY),
                has(device::IFNAME)
            ),
            (index == 0, index == 0, true)
        );
        // In the first message the long peer is the second one.
        let long = usize::from(index == 0);
        let flags = of_peers(request, peer::FLAGS)[long].clone().unwrap();
        let expected = if index == 0 {
            peer::F_UPDATE_ONLY | peer::F_REPLACE_ALLOWEDIPS
        } else {
            peer::F_UPDATE_ONLY
        };
        assert_eq!(flags, expected.to_ne_bytes());
        for once in [
            peer::PRESHARED_KEY,
            peer::ENDPOINT,
            peer::PERSISTENT_KEEPALIVE_INTERVAL,
        ] {
            assert_eq!(of_peers(request, once)[long].is_some(), index == 0);
        }
    }
    let device = reassemble(&requests);
    assert_eq!(
        device
            .peers
            .iter()
            .map(|peer| peer.allowed_ips.len())
            .collect::<Vec<_>>(),
        [0, 5000, 0]
    );
    assert_eq!(
        device.peers[1].allowed_ips,
        ips(5000).into_iter().map(|ip| ip.ip).collect::<Vec<_>>()
    );
}

#[test]
fn ten_thousand_peers() {
    let peers = (0..10_000).map(|i| SetPeer {
        public_key: key(i),
        allowed_ips: ips(1),
        ..SetPeer::default()
    });
    let change = SetDevice {
        peers: peers.collect(),
        ..SetDevice::default()
    };
    let requests = requests(&change);
    let device = reassemble(&requests);
    assert_eq!(device.peers.len(), 10_000);
    assert!(device
        .peers
        .iter()
        .enumerate()
        .all(|(i, peer)| peer.public_key == key(i)));
    let bytes: usize = requests.iter().map(Vec::len).sum();
    assert!(
        requests.len() <= bytes / 30_000 + 1,
        "{} messages for {bytes} bytes",
        requests.len()
    );
}

#[test]
fn a_change_of_nothing_is_one_message() {
    assert_eq!(requests(&SetDevice::default()).len(), 1);
}

#[test]
fn long_names_are_refused() {
    let name = Link::Name("a234567890123456");
    let error = write_requests(30, name, &SetDevice::default(), &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENAMETOOLONG as i32));
}

#[test]
fn refuses_nonsense_from_the_kernel() {
    let build = |cidr: u8, with_key: bool| {
        let mut message = Message::generic(30, 0, 0);
        let peers = message.nest(device::PEERS).unwrap();
        let nest = message.nest(0).unwrap();
        if with_key {
            message.put(peer::PUBLIC_KEY, &[1; 32]).unwrap();
        }
        let list = message.nest(peer::ALLOWEDIPS).unwrap();
        let ip = message.nest(0).unwrap();
        message.put(allowedip::FAMILY, &2u16.to_ne_bytes()).unwrap();
        message.put(allowedip::IPADDR, &[1; 4]).unwrap();
        message.put(allowedip::CIDR_MASK, &[cidr]).unwrap();
        for nest in [ip, list, nest, peers] {
            message.end(nest);
        }
        message.finish()[20..].to_vec()
    };
    let read = |bytes: &[u8]| read_reply(bytes, &mut Device::default());
    assert_eq!(read(&build(32, true)), Ok(()));
    assert_eq!(read(&build(33, true)), Err(Malformed));
    assert_eq!(read(&build(32, false)), Err(Malformed));
    assert_eq!(read(&[3, 0, 0, 0]), Err(Malformed));
}

fn change() -> impl Strategy<Value = SetDevice> {
    let secret = || any::<[u8; 32]>().prop_map(|bytes| SecretKey::new(&bytes));
    let ip =
        (any::<IpAddr>(), 0u8..=128, any::<bool>()).prop_map(|(addr, cidr, remove)| SetAllowedIp {
            ip: AllowedIp {
                addr,
                cidr: if addr.is_ipv4() { cidr % 33 } else { cidr },
            },
            remove,
        });
    let endpoint = (any::<IpAddr>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
        |(addr, port, flow, scope)| match addr {
            IpAddr::V4(_) => SocketAddr::new(addr, port),
            IpAddr::V6(addr) => SocketAddrV6::new(addr, port, flow, scope).into(),
        },
    );
    let peer = (
        option::of(secret()),
        option::of(endpoint),
        option::of(any::<u16>()),
        vec(ip, 0..1200),
    )
        .prop_map(
            |(preshared_key, endpoint, persistent_keepalive, allowed_ips)| SetPeer {
                preshared_key,
                endpoint,
                persistent_keepalive,
                allowed_ips,
                ..SetPeer::default()
            },
        );
    (
        option::of(secret()),
        option::of(any::<u16>()),
        option::of(any::<u32>()),
        vec(peer, 0..6),
    )
        .prop_map(|(private_key, listen_port, fwmark, mut peers)| {
            peers
                .iter_mut()
                .enumerate()
                .for_each(|(i, peer)| peer.public_key = key(i));
            SetDevice {
                private_key,
                listen_port,
                fwmark,
                replace_peers: false,
                peers,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn split_messages_reassemble(change in change()) {
        let device = reassemble(&requests(&change));
        prop_assert_eq!(device.private_key, change.private_key);
        prop_assert_eq!(device.listen_port, change.listen_port.unwrap_or(0));
        prop_assert_eq!(device.fwmark, change.fwmark.unwrap_or(0));
        prop_assert_eq!(device.peers.len(), change.peers.len());
        for (got, set) in device.peers.into_iter().zip(change.peers) {
            let expected = Peer {
                public_key: set.public_key,
                preshared_key: set.preshared_key.filter(|key| !key.is_zero()),
                endpoint: set.endpoint,
                persistent_keepalive: set.persistent_keepalive.unwrap_or(0),
                allowed_ips: set.allowed_ips.into_iter().map(|ip| ip.ip).collect(),
                ..Peer::default()
            };
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn damaged_replies(
        change in change().prop_filter("small", |change| change.peers.len() < 3),
        at: prop::sample::Index,
        byte: u8,
    ) {
        for mut request in requests(&change) {
            let at = at.index(request.len());
            request[at] = byte;
            let _ = read_reply(&request, &mut Device::default());
        }
    }
}

proptest! {
    #[test]
    fn any_reply(bytes: Vec<u8>) {
        let _ = read_reply(&bytes, &mut Device::default());
        for message in messages(&bytes).flatten() {
            let _ = read_reply(message.payload(), &mut Device::default());
        }
    }
}

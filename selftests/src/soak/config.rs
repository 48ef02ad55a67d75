// SPDX-License-Identifier: GPL-2.0-only
//! Administrators who configure one of the tunnel's devices, or look at it. What they ask for is
//! valid: no request may be refused.

use super::place::Place;
use anyhow::{Context, Result};
use harness::topo::{inner, names, outer};
use harness::wgdev::{random_key, uapi, DeviceConf, Key, PeerConf, Prefix, Wg};
use rand::rngs::StdRng;
use rand::Rng;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// At most this many peers are added to a device.
const PEERS: usize = 200;

/// A prefix that contains no address of the tunnel.
fn prefix(rng: &mut StdRng) -> Prefix {
    let number: u32 = rng.random_range(0..1 << 12);
    if rng.random() {
        let cidr = rng.random_range(12..=32);
        (Ipv4Addr::from(0x0a40_0000 | (number << 8)).into(), cidr)
    } else {
        let cidr = rng.random_range(24..=128);
        let address = (0xfd10_u128 << 112) | (u128::from(number) << 80);
        (Ipv6Addr::from(address).into(), cidr)
    }
}

fn prefixes(rng: &mut StdRng, most: usize) -> Vec<Prefix> {
    (0..rng.random_range(0..=most))
        .map(|_| prefix(rng))
        .collect()
}

fn pause(rng: &mut StdRng) {
    sleep(Duration::from_millis(rng.random_range(0..10)));
}

fn set_peers(wg: &mut Wg, name: &str, flags: u32, peers: Vec<PeerConf>) -> Result<()> {
    let conf = DeviceConf {
        flags,
        peers,
        ..DeviceConf::default()
    };
    wg.set(name, &conf)
        .with_context(|| format!("{name}: set peers"))
}

/// Adds and removes peers, some of which initiate handshakes with nobody. Now and then replaces all
/// peers, the tunnel's own among them.
pub fn peers(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let n: u8 = rng.random_range(0..2);
    let name = names(n).0;
    let mut wg = place.wg(n)?;
    let mut keys: Vec<Key> = Vec::new();
    let mut done = 0;
    while place.busy() {
        let fresh: Vec<PeerConf> = (0..rng.random_range(1..20))
            .map(|_| PeerConf {
                public_key: random_key(),
                preshared_key: rng.random_bool(0.3).then(|| rng.random()),
                endpoint: rng.random_bool(0.7).then(|| {
                    SocketAddr::new(outer(rng.random(), 1 - n), rng.random_range(1..7000))
                }),
                keepalive: rng.random_bool(0.5).then_some(1),
                flags: 0,
                allowed_ips: prefixes(rng, 8),
            })
            .collect();
        let added: Vec<Key> = fresh.iter().map(|p| p.public_key).collect();
        if rng.random_bool(0.1) {
            keys.clear();
            let all = std::iter::once(place.peer(n)).chain(fresh).collect();
            set_peers(&mut wg, name, uapi::device::F_REPLACE_PEERS, all)?;
        } else {
            set_peers(&mut wg, name, 0, fresh)?;
        }
        keys.extend(added);
        pause(rng);
        while keys.len() > PEERS || !keys.is_empty() && rng.random_bool(0.7) {
            let key = keys.swap_remove(rng.random_range(0..keys.len()));
            remove(&mut wg, name, key)?;
            done += 1;
        }
        done += 1;
    }
    for key in keys {
        remove(&mut wg, name, key)?;
    }
    Ok(done)
}

fn remove(wg: &mut Wg, name: &str, public_key: Key) -> Result<()> {
    let gone = PeerConf {
        public_key,
        flags: uapi::peer::F_REMOVE_ME,
        ..PeerConf::default()
    };
    set_peers(wg, name, 0, vec![gone])
}

/// Moves allowed IPs between the tunnel's peer and another, while packets use them.
pub fn allowed_ips(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let n: u8 = rng.random_range(0..2);
    let name = names(n).0;
    let mut wg = place.wg(n)?;
    let (main, other) = (place.public[usize::from(1 - n)], random_key());
    let mut done = 0;
    while place.busy() {
        let mut ips = prefixes(rng, 32);
        for v6 in [false, true] {
            if rng.random() {
                ips.push((inner(v6, 1 - n), if v6 { 128 } else { 32 }));
            }
        }
        let change = PeerConf {
            public_key: if rng.random() { main } else { other },
            flags: if rng.random() {
                uapi::peer::F_REPLACE_ALLOWEDIPS
            } else {
                0
            },
            allowed_ips: ips,
            ..PeerConf::default()
        };
        set_peers(&mut wg, name, 0, vec![change])?;
        done += 1;
        pause(rng);
    }
    remove(&mut wg, name, other)?;
    Ok(done)
}

/// Changes the private key, the port, the mark and the preshared key, and back.
pub fn settings(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let n: u8 = rng.random_range(0..2);
    let name = names(n).0;
    let mut wg = place.wg(n)?;
    let own = place.settings(n);
    let mut done = 0;
    while place.busy() {
        let other = DeviceConf {
            private_key: rng.random_bool(0.3).then(random_key),
            listen_port: rng
                .random_bool(0.5)
                .then(|| rng.random_range(20_000..30_000)),
            fwmark: rng.random_bool(0.3).then(|| rng.random()),
            peers: vec![PeerConf {
                public_key: place.public[usize::from(1 - n)],
                preshared_key: rng.random_bool(0.2).then(|| rng.random()),
                flags: uapi::peer::F_UPDATE_ONLY,
                ..PeerConf::default()
            }],
            ..DeviceConf::default()
        };
        wg.set(name, &other)
            .with_context(|| format!("{name}: set {other:?}"))?;
        done += 1;
        pause(rng);
        if rng.random() {
            wg.set(name, &own).context("set back")?;
        }
    }
    let back = DeviceConf {
        peers: vec![PeerConf {
            flags: uapi::peer::F_UPDATE_ONLY,
            ..place.peer(n)
        }],
        ..own
    };
    wg.set(name, &back).context("set back at the end")?;
    Ok(done)
}

/// Dumps both devices.
pub fn dumps(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let mut sockets = [place.wg(0)?, place.wg(1)?];
    let mut done = 0;
    while place.busy() {
        for (wg, n) in std::iter::zip(&mut sockets, 0..) {
            // As messages only: a consistent dump may never come while peers come and go.
            wg.get_raw(names(n).0).context("dump")?;
            done += 1;
        }
        pause(rng);
    }
    Ok(done)
}

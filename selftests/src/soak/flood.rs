// SPDX-License-Identifier: GPL-2.0-only
//! Strangers on the underlay that send to one of the devices as fast as they can.

use super::place::Place;
use anyhow::Result;
use harness::noise::{cookie, handshake::INITIATION, handshake::RESPONSE};
use harness::topo::{outer, port};
use harness::traffic::{set_option, udp};
use rand::rngs::StdRng;
use rand::Rng;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

/// Messages that are sent with one system call, all of the same size.
const BURST: usize = 32;
/// The number of different bursts, which are sent again and again.
const BURSTS: usize = 4;

/// Initiations: the first MAC is right, the rest is random.
pub fn initiations(place: &Place, rng: &mut StdRng) -> Result<u64> {
    handshakes(place, rng, 1, INITIATION)
}

/// Responses: the first MAC is right, the rest is random.
pub fn responses(place: &Place, rng: &mut StdRng) -> Result<u64> {
    handshakes(place, rng, 2, RESPONSE)
}

fn handshakes(place: &Place, rng: &mut StdRng, kind: u8, size: usize) -> Result<u64> {
    let target = rng.random_range(0..2);
    let key = &place.public[usize::from(target)];
    let mut message = || {
        let mut message = vec![kind, 0, 0, 0];
        message.resize(size - 32, 0);
        rng.fill(&mut message[4..]);
        let mac1 = cookie::mac1(&message, key);
        message.extend_from_slice(&mac1);
        message.extend_from_slice(&[0; 16]);
        message
    };
    let mut burst = || (0..BURST).flat_map(|_| message()).collect();
    let bursts: Vec<(usize, Vec<u8>)> = (0..BURSTS).map(|_| (size, burst())).collect();
    flood(place, rng, target, &bursts)
}

/// Anything: each burst has a size of its own, some of them that of a message, and types that exist
/// and that do not.
pub fn garbage(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let bursts: Vec<(usize, Vec<u8>)> = (0..BURSTS)
        .map(|_| {
            let sizes = [
                1,
                16,
                32,
                64,
                INITIATION,
                RESPONSE,
                rng.random_range(1..1400),
            ];
            let size = sizes[rng.random_range(0..sizes.len())];
            let mut message = || {
                let mut message = vec![0; size];
                rng.fill(&mut message[..]);
                let header = [rng.random_range(0..6), 0, 0, 0];
                let known = size.min(4);
                message[..known].copy_from_slice(&header[..known]);
                message
            };
            (size, (0..BURST).flat_map(|_| message()).collect())
        })
        .collect();
    let target = rng.random_range(0..2);
    flood(place, rng, target, &bursts)
}

/// Sends `bursts`, each with its messages' size, to the device of end `target` while the place is
/// busy; returns the number of messages.
fn flood(place: &Place, rng: &mut StdRng, target: u8, bursts: &[(usize, Vec<u8>)]) -> Result<u64> {
    let v6 = rng.random();
    let socket = udp(
        place.ns(1 - target),
        SocketAddr::new(outer(v6, 1 - target), 0),
    )?;
    socket.connect(SocketAddr::new(outer(v6, target), port(target)))?;
    let mut sent = 0;
    for (size, burst) in bursts.iter().cycle() {
        sent += send(&socket, *size, burst)?;
        if !place.busy() {
            break;
        }
    }
    Ok(sent)
}

fn send(socket: &UdpSocket, size: usize, burst: &[u8]) -> Result<u64> {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, size as i32)?;
    if socket.send(burst).is_ok() {
        return Ok(BURST as u64);
    }
    // The device is down, which an ICMP error has told.
    sleep(Duration::from_millis(1));
    Ok(0)
}

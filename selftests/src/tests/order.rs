// SPDX-License-Identifier: GPL-2.0-only
//! Datagrams keep their order, whichever CPUs they are sent, encrypted and decrypted on.

use super::{of_each, Test};
use anyhow::{ensure, Result};
use harness::modules::Modules;
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{ping_all, set_option, udp};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

/// The port of both ends inside the tunnel.
const APP: u16 = 9000;
/// How many datagrams are sent, and after how many the sender moves to the other CPU.
const COUNT: u32 = 20_000;
const MOVES: u32 = 397;
/// How many arrive at least: nobody slows the sender.
const ARRIVE: usize = COUNT as usize / 20;
/// The last has arrived when none comes for so long.
const SILENCE: Duration = Duration::from_secs(2);

pub fn register(list: &mut Vec<Test>) {
    of_each(
        list,
        ("order-of-datagrams", Boot::Config, 60),
        Modules::Ours,
        in_order,
    );
}

/// Sends numbered datagrams while moving from CPU to CPU.
fn in_order(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    // It cuts what is sent at once, so that the driver gets single packets faster than by calls.
    let tbf = "tc qdisc add dev wg0 root tbf rate 2gbit burst 5kb limit 10mb";
    tunnel.ns(0).sh(tbf)?;
    let [source, to] = [0, 1].map(|n| SocketAddr::new(inner(false, n), APP));
    let (socket, sink) = (udp(tunnel.ns(0), source)?, udp(tunnel.ns(1), to)?);
    setsockopt(&sink, sockopt::RcvBufForce, &(8 << 20))?;
    sink.set_read_timeout(Some(SILENCE))?;
    set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, SIZE as i32)?;
    let arrived = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&socket, to));
        let arrived = receive(&sink);
        sender.join().expect("the sender panicked")?;
        arrived
    })?;
    ctx.note(format!("{} of {COUNT} arrived", arrived.len()));
    ensure!(arrived.len() >= ARRIVE, "only {} arrived", arrived.len());
    let wrong = arrived.windows(2).position(|pair| pair[0] >= pair[1]);
    if let Some(at) = wrong {
        let around = &arrived[at.saturating_sub(5)..(at + 6).min(arrived.len())];
        let count = arrived.windows(2).filter(|pair| pair[0] >= pair[1]);
        anyhow::bail!(
            "out of order {} times; the first time: {around:?}",
            count.count()
        );
    }
    Ok(())
}

/// Bytes of a datagram.
const SIZE: usize = 200;

/// Sends many at once, and now and then one alone.
fn send(socket: &UdpSocket, to: SocketAddr) -> Result<()> {
    let mut next = 0;
    while next < COUNT {
        let together = if next % 7 == 0 { 1 } else { 40 };
        let mut data = Vec::new();
        for _ in 0..together {
            if next % MOVES == 0 {
                let mut cpu = CpuSet::new();
                cpu.set((next / MOVES % 2) as usize)?;
                sched_setaffinity(Pid::from_raw(0), &cpu)?;
            }
            let begin = data.len();
            data.extend_from_slice(&next.to_be_bytes());
            data.resize(begin + SIZE, 0);
            next += 1;
        }
        socket.send_to(&data, to)?;
    }
    Ok(())
}

/// The numbers of the datagrams that arrive.
fn receive(sink: &UdpSocket) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let mut data = [0; SIZE];
    while let Ok(len) = sink.recv(&mut data) {
        ensure!(len == SIZE, "a datagram of {len} bytes");
        numbers.push(u32::from_be_bytes([data[0], data[1], data[2], data[3]]));
    }
    Ok(numbers)
}

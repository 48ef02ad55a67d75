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
const MOVES: u32 = 97;
/// How many arrive at least: nobody slows the sender.
const ARRIVE: usize = COUNT as usize / 20;
/// The last has arrived when none comes for so long.
const SILENCE: Duration = Duration::from_secs(2);

pub fn register(list: &mut Vec<Test>) {
    for (name, bulk) in [("order-datagrams", false), ("order-segments", true)] {
        let body = move |ctx: &Ctx| in_order(ctx, bulk);
        of_each(list, (name, Boot::Config, 60), Modules::Ours, body);
    }
}

/// Sends numbered datagrams while moving from CPU to CPU: singly or, `bulk`, some of them ten at a
/// time.
fn in_order(ctx: &Ctx, bulk: bool) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let [source, to] = [0, 1].map(|n| SocketAddr::new(inner(false, n), APP));
    let (socket, sink) = (udp(tunnel.ns(0), source)?, udp(tunnel.ns(1), to)?);
    setsockopt(&sink, sockopt::RcvBufForce, &(8 << 20))?;
    sink.set_read_timeout(Some(SILENCE))?;
    if bulk {
        set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, SIZE as i32)?;
    }
    let arrived = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&socket, to, bulk));
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

fn send(socket: &UdpSocket, to: SocketAddr, bulk: bool) -> Result<()> {
    let mut next = 0;
    while next < COUNT {
        // Now and then a single one among them.
        let together = if bulk && next % 3 == 0 { 10 } else { 1 };
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

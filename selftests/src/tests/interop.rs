// SPDX-License-Identifier: GPL-2.0
//! Tunnels between this module and other implementations, every role and option combined.

use super::Test;
use crate::harness::modules::Modules;
use crate::harness::runner::{Boot, Ctx, Subject};
use crate::harness::topo::{inner, port, Driver, Opts, Tunnel, GO, PLAIN};
use crate::harness::traffic::{ping_all, tcp};
use crate::harness::wire::Message;
use anyhow::{ensure, Context, Result};
use std::net::SocketAddr;
use std::time::Duration;

/// One row of the table: end 0 is ours, end 1 theirs.
#[derive(Clone, Copy)]
struct Row {
    /// The end that starts the handshake.
    initiator: u8,
    psk: bool,
    v6: bool,
}

pub fn register(list: &mut Vec<Test>) {
    for theirs in ["intree", "go"] {
        for initiator in 0..2u8 {
            for psk in [false, true] {
                for v6 in [false, true] {
                    let row = Row { initiator, psk, v6 };
                    list.push(Test {
                        name: name(theirs, row),
                        boot: Boot::Smp,
                        modules: if theirs == "go" {
                            Modules::Ours
                        } else {
                            Modules::Both
                        },
                        subject: Subject::Rs,
                        bound: Duration::from_secs(120),
                        body: Box::new(move |ctx| {
                            let drivers = if theirs == "go" {
                                [PLAIN, GO]
                            } else {
                                ctx.against_intree()
                            };
                            interop(ctx, drivers, row)
                        }),
                    });
                }
            }
        }
    }
}

fn name(theirs: &str, row: Row) -> String {
    let who = if row.initiator == 0 { "rs" } else { theirs };
    let outer = if row.v6 { "v6" } else { "v4" };
    format!(
        "interop-{theirs}-{who}-initiates-{outer}{}",
        if row.psk { "-psk" } else { "" }
    )
}

fn interop(ctx: &Ctx, drivers: [Driver; 2], row: Row) -> Result<()> {
    let psk = row.psk.then(rand::random);
    let opts = Opts {
        v6: row.v6,
        psk: [psk; 2],
        ..Opts::new(drivers)
    };
    let mut tunnel = Tunnel::new(ctx, &opts)?;
    let underlay = tunnel.watch(ctx, 0)?;
    let (from, to) = (row.initiator, 1 - row.initiator);
    ping_all(tunnel.ns(from), inner(false, to), 3)?;

    let seen = underlay.seen();
    let first = seen.first().context("nothing on the underlay")?;
    ensure!(
        first.is_initiation(),
        "the first message is {:?}",
        first.message
    );
    ensure!(
        first.dst.port() == port(to),
        "the initiation went to {}",
        first.dst
    );
    for s in seen.iter().filter(|s| s.is_initiation()) {
        ensure!(
            s.src.port() == port(from),
            "an initiation came from {}, the wrong end",
            s.src
        );
        ensure!(
            s.src.is_ipv6() == row.v6,
            "the underlay has the wrong address family"
        );
    }
    let response = seen
        .iter()
        .find(|s| matches!(s.message, Message::Response { .. }));
    let response = response.context("no response on the underlay")?;
    ensure!(
        response.src.port() == port(to),
        "the response came from {}",
        response.src
    );

    for (from, to) in [(0, 1), (1, 0)] {
        for v6_inside in [false, true] {
            ping_all(tunnel.ns(from), inner(v6_inside, to), 2)?;
        }
        let at = SocketAddr::new(inner(from == 0, to), 5000);
        tcp(
            tunnel.ns(from),
            tunnel.ns(to),
            at,
            1 << 20,
            Duration::from_secs(5),
        )
        .with_context(|| format!("TCP from end {from} to end {to}"))?;
    }
    for n in 0..2 {
        let peer = tunnel.peer(n)?;
        ensure!(!peer.last_handshake.is_zero(), "end {n} tells no handshake");
        ensure!(
            peer.preshared_key == psk.unwrap_or([0; 32]),
            "end {n} tells another PSK"
        );
        ensure!(
            peer.rx_bytes > 1 << 20 && peer.tx_bytes > 1 << 20,
            "end {n} counts too little"
        );
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! A device gets a new private key while an initiation under the old one is being made: the next
//! initiation does not have to wait for the old one's timeout. In virtual time: on the one
//! processor a thread with a real-time priority comes between whatever steps it likes. The in-tree
//! driver does wait; it is only told about.

use super::device;
use anyhow::{ensure, Context, Result};
use harness::noise::{handshake, Client, Keys};
use harness::pace::realtime;
use harness::runner::{Ctx, Subject};
use harness::topo::{inner, outer, port, End, Link};
use harness::traffic::udp;
use harness::wgdev::{DeviceConf, PeerConf};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 20;
/// The delay before the change grows by so much each round.
const STEP: Duration = Duration::from_micros(100);
/// When the initiation must be there; the timeout is 5 s.
const BOUND: Duration = Duration::from_secs(1);

pub(super) fn change(ctx: &Ctx) -> Result<()> {
    let mut link = Link::new()?;
    let mut end = End::new(&mut link, 0, ctx.plain()[0], None)?;
    let from = SocketAddr::new(outer(false, 1), port(1));
    let client = Client::new(link.end(1), Keys::random(), end.public_key, from, device())?;
    let peer = PeerConf {
        public_key: client.keys.public,
        endpoint: Some(from),
        allowed_ips: vec![(inner(false, 1), 32)],
        ..PeerConf::default()
    };
    end.set_peer(&link, peer)?;
    let socket = udp(link.end(0), SocketAddr::new(inner(false, 0), 0))?;
    let to = SocketAddr::new(inner(false, 1), 9);
    let mut identify = |keys: &Keys| {
        let conf = DeviceConf {
            private_key: Some(keys.private),
            ..DeviceConf::default()
        };
        end.set(&link, &conf)
    };
    realtime()?;
    let (mut late, mut longest, mut old) = (Vec::new(), Duration::ZERO, 0);
    for round in 0..ROUNDS {
        let [first, second] = [Keys::random(), Keys::random()];
        identify(&first)?;
        client.flush()?;
        socket.send_to(b"an initiation, please", to)?;
        // Here the worker begins.
        sleep(STEP * (round + 1));
        identify(&second)?;
        socket.send_to(b"another one, please", to)?;
        let changed = Instant::now();
        loop {
            let initiation = client.wait_initiation(Duration::from_secs(10));
            let initiation = initiation.with_context(|| format!("round {round}"))?;
            let initiator = handshake::receive(&client.keys, &initiation)?.initiator;
            if initiator == second.public {
                break;
            }
            ensure!(initiator == first.public, "an initiation of somebody else");
            old += 1;
        }
        let took = changed.elapsed();
        longest = longest.max(took);
        if took > BOUND {
            late.push((round, took));
        }
    }
    ctx.note(format!(
        "the new identity's initiation came after {longest:.1?} at most, late in {} of {ROUNDS} \
         rounds; {old} of the old one's",
        late.len()
    ));
    ensure!(
        late.is_empty() || ctx.subject == Subject::C,
        "the initiation was late in {} of {ROUNDS} rounds (round, time): {late:?}",
        late.len()
    );
    Ok(())
}

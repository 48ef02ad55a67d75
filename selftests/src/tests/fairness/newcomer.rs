// SPDX-License-Identifier: GPL-2.0-only
//! A new peer gets its session while strangers flood the device.

use super::{device, flood, sides};
use anyhow::{ensure, Context, Result};
use harness::driver::Driver;
use harness::noise::{cookie, Client, Keys, Session, Tweak};
use harness::pace::slow;
use harness::runner::Ctx;
use harness::topo::{inner, mac, End, Link};
use harness::wgdev::PeerConf;
use harness::wire::Message;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The whitepaper's REKEY_TIMEOUT: when an initiation is sent again.
const RETRY: Duration = Duration::from_secs(5);
/// When the peer gives up, and what our module may take: the first try brings the cookie, the
/// second one or the third the session.
const PATIENCE: Duration = Duration::from_secs(21);
const BOUND: Duration = Duration::from_secs(12);

pub(super) fn new_peer(ctx: &Ctx) -> Result<()> {
    for (who, driver) in sides(ctx) {
        let (took, cookies) = connect(driver).with_context(|| who.to_owned())?;
        ctx.note(match took {
            Some(took) => format!("{who}: a session after {took:.1?}, {cookies} cookie replies"),
            None => format!("{who}: no session within {PATIENCE:?}, {cookies} cookie replies"),
        });
        ensure!(
            who != "ours" || took.is_some_and(|took| took <= slow(BOUND)),
            "a session after {took:?}, not within {BOUND:?}"
        );
    }
    Ok(())
}

/// The time until the session, if there is one in the end, and the number of cookie replies.
fn connect(driver: Driver) -> Result<(Option<Duration>, u32)> {
    let mut link = Link::new()?;
    let mut end = End::new(&mut link, 0, driver, None)?;
    // Its source is not that of the flood.
    let from: SocketAddr = "192.0.2.3:51830".parse()?;
    link.rt(1).addr_add("v1", from.ip(), 24)?;
    link.rt(0).neigh_set("v0", from.ip(), mac(1))?;
    let client = Client::new(link.end(1), Keys::random(), end.public_key, from, device())?;
    let peer = PeerConf {
        public_key: client.keys.public,
        allowed_ips: vec![(inner(false, 1), 32)],
        ..PeerConf::default()
    };
    end.set_peer(&link, peer)?;
    let busy = flood(&link, &end.public_key, Duration::MAX)?;
    sleep(Duration::from_secs(1));
    let (start, mut cookies) = (Instant::now(), 0);
    while start.elapsed() < slow(PATIENCE) {
        let next = Instant::now() + RETRY;
        if let Some(mut session) = attempt(&client, next, &mut cookies)? {
            let took = start.elapsed();
            drop(busy);
            client.ping(&mut session, inner(false, 1), inner(false, 0))?;
            return Ok((Some(took), cookies));
        }
    }
    Ok((None, cookies))
}

/// One initiation, with the cookie that there is; takes what comes until `next`.
fn attempt(client: &Client, next: Instant, cookies: &mut u32) -> Result<Option<Session>> {
    let cookie = client.cookie.get();
    let pending = client.initiate(&Tweak {
        cookie,
        ..Tweak::default()
    })?;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let answer = client.wait(left, "an answer", |message, _| match message {
            Message::Response { receiver, .. } | Message::Cookie { receiver } => {
                *receiver == pending.index
            }
            _ => false,
        });
        match answer {
            Err(_) => return Ok(None),
            Ok(bytes) if bytes.len() == cookie::REPLY => {
                *cookies += 1;
                let cookie = cookie::open_reply(&bytes, &client.peer, &pending.message)?;
                client.cookie.set(Some(cookie));
            }
            Ok(bytes) => return pending.finish(&bytes, &client.psk).map(Some),
        }
    }
}

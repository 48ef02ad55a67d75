// SPDX-License-Identifier: GPL-2.0-only
//! Cookies: who gets one, for which source it is valid, and for how long, on both sides.

use super::{drop_in, Test, SEC};
use anyhow::{bail, ensure, Context, Result};
use harness::noise::{cookie, handshake, Client, Session, Tweak};
use harness::rig::{device, outside, Rig, MOMENT};
use harness::runner::{until, Ctx};
use harness::topo::{mac, outer};
use harness::wire::Message;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-cookie-reply", 60, reply),
            ("vtime-cookie-bound-to-source", 60, bound),
            ("vtime-cookie-secret-120s", 400, secret_120s),
            ("vtime-cookie-used-115s", 400, used_115s),
        ],
    );
}

type Cookie = [u8; 16];

/// The answer to a handshake message.
#[derive(Debug, PartialEq)]
enum Answer {
    Nothing,
    Response,
    Cookie(Cookie),
}

/// Sends an initiation of `client` and returns the answer.
fn try_with(client: &Client, tweak: &Tweak) -> Result<Answer> {
    sleep(MOMENT);
    client.flush()?;
    let pending = client.initiate(tweak)?;
    sleep(MOMENT);
    match harness::rig::answer(client, &pending)? {
        None => Ok(Answer::Nothing),
        Some(bytes) if bytes.len() == cookie::REPLY => {
            let cookie = cookie::open_reply(&bytes, &client.peer, &pending.message)?;
            Ok(Answer::Cookie(cookie))
        }
        Some(bytes) => {
            pending.finish(&bytes, &client.psk)?;
            Ok(Answer::Response)
        }
    }
}

fn with(cookie: Cookie) -> Tweak {
    Tweak {
        cookie: Some(cookie),
        ..Tweak::default()
    }
}

/// The cookie that an initiation gets under load.
fn fetch(client: &Client) -> Result<Cookie> {
    match try_with(client, &Tweak::default())? {
        Answer::Cookie(cookie) => Ok(cookie),
        other => bail!("{other:?} under load for an initiation without mac2, wanted a cookie"),
    }
}

fn expect(what: &str, got: Answer, wanted: Answer) -> Result<()> {
    ensure!(got == wanted, "{what}: {got:?}, wanted {wanted:?}");
    Ok(())
}

/// Under load a message with a valid mac1 gets a cookie reply if its mac2 is invalid, and is
/// accepted if it is valid; initiations and responses alike. The reply has no other effect.
fn reply(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 2)?;
    // Without load mac2 is not checked.
    let noise = Tweak {
        mac2: Some([0x33; 16]),
        ..Tweak::default()
    };
    let got = try_with(&rig.clients[0], &noise)?;
    expect("a wrong mac2 without load", got, Answer::Response)?;

    let before = rig.peer(0)?;
    rig.flood(600)?;
    let given = fetch(&rig.clients[0])?;
    expect(
        "a wrong mac2",
        try_with(&rig.clients[0], &noise)?,
        Answer::Cookie(given),
    )?;
    let bad = Tweak {
        mac1: Some([0x33; 16]),
        ..with(given)
    };
    let got = try_with(&rig.clients[0], &bad)?;
    expect("a wrong mac1", got, Answer::Nothing)?;
    let after = rig.peer(0)?;
    ensure!(
        (after.rx_bytes, after.tx_bytes) == (before.rx_bytes, before.tx_bytes),
        "cookies changed the peer's counters from {before:?} to {after:?}"
    );
    let got = try_with(&rig.clients[0], &with(given))?;
    expect("a right mac2", got, Answer::Response)?;
    let seen = rig.seen(0);
    for s in seen.iter().filter(|s| s.outgoing) {
        let wanted = match s.message {
            Message::Cookie { .. } => 0,
            _ => 0x88,
        };
        ensure!(
            s.tos == wanted,
            "type of service {:#x} of {:?}",
            s.tos,
            s.message
        );
    }

    // A response needs it, too. The device accepts the second one.
    sleep(2 * SEC);
    rig.clients[1].flush()?;
    rig.say(1)?;
    let initiation = rig.clients[1].wait_initiation(SEC)?;
    let received = handshake::receive(&rig.clients[1].keys, &initiation)?;
    rig.flood(600)?;
    let (_, response) = received.respond(&[0; 32], &Tweak::default());
    rig.clients[1].send(&response)?;
    let bytes = rig.clients[1].wait(SEC, "a cookie reply to a response", |message, _| {
        matches!(message, Message::Cookie { .. })
    })?;
    let given = cookie::open_reply(&bytes, &rig.clients[1].peer, &response)?;
    ensure!(
        rig.peer(1)?.last_handshake.is_zero(),
        "a response without mac2 was accepted under load"
    );
    let (session, response) = received.respond(&[0; 32], &with(given));
    rig.clients[1].send(&response)?;
    rig.clients[1]
        .wait_data(&session, SEC)
        .context("data after a response with mac2 under load")?;
    Ok(())
}

/// Another socket of end 1 with the keys of client 0.
fn elsewhere(rig: &Rig, from: SocketAddr, v6: bool) -> Result<Client> {
    let client = &rig.clients[0];
    Client::new(rig.link.end(1), client.keys, client.peer, from, device(v6))
}

/// A cookie is valid only for the address and the port that it was sent to.
fn bound(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let other: IpAddr = [192, 0, 2, 77].into();
    rig.link.rt(1).addr_add("v1", other, 24)?;
    rig.link.rt(0).neigh_set("v0", other, mac(1))?;
    let port = outside(0).port();
    let places = [
        ("the same address and port over IPv6", outer(true, 1), port),
        ("another port", outer(false, 1), 7099),
        ("another address", other, port),
        ("another port over IPv6", outer(true, 1), 7099),
    ];
    let others: Vec<Client> = places
        .iter()
        .map(|(_, ip, port)| elsewhere(&rig, SocketAddr::new(*ip, *port), ip.is_ipv6()))
        .collect::<Result<_>>()?;
    let mut known = Vec::new();
    for ((what, ..), client) in places.iter().zip(&others) {
        rig.flood(600)?;
        let own = fetch(&rig.clients[0])?;
        let theirs = match try_with(client, &with(own))? {
            Answer::Cookie(cookie) => cookie,
            got => bail!("{what} with a cookie of port {port}: {got:?}, wanted a cookie reply"),
        };
        ensure!(theirs != own, "{what} gets the same cookie");
        expect(what, try_with(client, &with(theirs))?, Answer::Response)?;
        let got = try_with(&rig.clients[0], &with(own))?;
        expect("where the cookie was sent to", got, Answer::Response)?;
        known.push(theirs);
        sleep(SEC);
    }
    known.sort_unstable();
    known.dedup();
    ensure!(known.len() == places.len(), "some sources share a cookie");
    rig.works(0)
}

/// The cookie secret is used for at most 120 s.
fn secret_120s(ctx: &Ctx) -> Result<()> {
    let born = Instant::now();
    let rig = Rig::new(ctx, 1)?;
    let made = Instant::now();
    let client = &rig.clients[0];
    rig.flood(600)?;
    let first = fetch(client)?;
    until(born, 118 * SEC);
    rig.flood(600)?;
    ensure!(
        fetch(client)? == first,
        "a different cookie although the secret is not 120 s old"
    );
    let got = try_with(client, &with(first))?;
    expect("a cookie whose secret is 118 s old", got, Answer::Response)?;
    until(made, Duration::from_millis(120_100));
    rig.flood(600)?;
    let renewed = Instant::now();
    let second = match try_with(client, &with(first))? {
        Answer::Cookie(cookie) => cookie,
        got => bail!("a cookie whose secret is 120 s old: {got:?}, wanted another cookie"),
    };
    ensure!(second != first, "the secret was not renewed");
    let got = try_with(client, &with(second))?;
    expect("a cookie of the new secret", got, Answer::Response)?;
    // The new secret's lifetime starts at its creation.
    until(renewed, 118 * SEC);
    rig.flood(600)?;
    let got = try_with(client, &with(second))?;
    expect("the second cookie after 118 s", got, Answer::Response)?;
    until(renewed, 121 * SEC);
    rig.flood(600)?;
    match try_with(client, &with(second))? {
        Answer::Cookie(third) if third != second => rig.works(0),
        got => bail!("the second cookie after 121 s: {got:?}, wanted another cookie"),
    }
}

/// The device uses a cookie that it received in all handshake messages for 115 s. It accepts one
/// only in reply to its last message, once, and the reply does not change the endpoint.
fn used_115s(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let from = SocketAddr::new(outer(false, 1), 7099);
    let away = elsewhere(&rig, from, false)?;
    let endpoint = rig.peer(0)?.endpoint;
    let [one, two, other]: [Cookie; 3] = [[1; 16], [2; 16], [3; 16]];
    let used = |message: &[u8]| -> Result<u8> {
        let mac2 = &message[132..];
        for cookie in [one, two, other] {
            if mac2 == cookie::mac2(&message[..132], &cookie) {
                return Ok(cookie[0]);
            }
        }
        ensure!(mac2 == [0; 16], "mac2 uses no cookie that was sent");
        Ok(0)
    };
    let key = rig.clients[0].keys.public;
    let next = |rig: &Rig| -> Result<Vec<u8>> {
        rig.say(0)?;
        rig.clients[0].wait_initiation(7 * SEC)
    };
    let first = next(&rig)?;
    ensure!(used(&first)? == 0, "mac2 without a cookie");
    rig.clients[0].send(&cookie::reply(&key, &first, &one))?;
    let second = next(&rig)?;
    ensure!(used(&second)? == 1, "the cookie is not used");
    // In reply to an older message; altered; with another key.
    rig.clients[0].send(&cookie::reply(&key, &first, &other))?;
    let mut altered = cookie::reply(&key, &second, &other);
    altered[40] ^= 1;
    rig.clients[0].send(&altered)?;
    rig.clients[0].send(&cookie::reply(&rig.end.public_key, &second, &other))?;
    let third = next(&rig)?;
    ensure!(
        used(&third)? == 1,
        "cookie {} is used after replies that must be refused",
        used(&third)?
    );
    // Valid also from another address. A second reply to the same message is not.
    let got_at = Instant::now();
    away.send(&cookie::reply(&key, &third, &two))?;
    rig.clients[0].send(&cookie::reply(&key, &third, &other))?;
    sleep(MOMENT);
    let now = rig.peer(0)?.endpoint;
    ensure!(
        now == endpoint,
        "the endpoint followed a cookie reply from {endpoint:?} to {now:?}"
    );
    let mut counts = [0; 2];
    while got_at.elapsed() < 135 * SEC {
        let message = next(&rig)?;
        let age = got_at.elapsed();
        // The clock for the age has a resolution of 4 ms.
        let late = age > Duration::from_millis(115_010);
        if !late && age > Duration::from_millis(114_980) {
            continue;
        }
        let wanted = if late { 0 } else { 2 };
        ensure!(
            used(&message)? == wanted,
            "cookie {} is used {age:?} after cookie 2 arrived, wanted {wanted} (0: none)",
            used(&message)?
        );
        counts[usize::from(late)] += 1;
    }
    ensure!(
        counts[0] >= 20 && counts[1] >= 3,
        "{counts:?} initiations before and after 115 s"
    );
    // Responses use it, too.
    let last = next(&rig)?;
    rig.clients[0].send(&cookie::reply(&key, &last, &one))?;
    sleep(MOMENT);
    rig.clients[0].flush()?;
    let pending = rig.clients[0].initiate(&Tweak::default())?;
    let response = rig.clients[0].wait_response(&pending, SEC)?;
    ensure!(
        response[76..] == cookie::mac2(&response[..76], &one),
        "mac2 of a response does not use the cookie"
    );
    let mut session: Session = pending.finish(&response, &[0; 32])?;
    ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    Ok(())
}

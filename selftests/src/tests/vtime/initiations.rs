// SPDX-License-Identifier: GPL-2.0-only
//! Which initiations are sent and accepted: the limit of 50 per second, timestamps, indices,
//! crossing initiations, dropped initiations, keys of low order.

use super::{drop_in, Test, SEC};
use anyhow::{bail, ensure, Context, Result};
use harness::capture::{Capture, Seen};
use harness::noise::handshake::{self, now, tai64n, Timestamp};
use harness::noise::Tweak;
use harness::rig::{conf, inside, Rig, MOMENT};
use harness::runner::{until, Ctx};
use harness::wgdev::{uapi, DeviceConf, Key, PeerConf};
use harness::wire::Message;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-initiations-50-per-second", 60, fifty_per_second),
            ("vtime-timestamp-rounded-rising", 120, timestamps),
            ("vtime-initiation-replay", 120, replay),
            ("vtime-indices-random", 120, indices),
            ("vtime-crossing-initiations", 120, crossing),
            ("vtime-new-key-clears-handshake", 120, new_key_clears),
            ("vtime-down-clears-handshake", 120, down_clears),
            ("vtime-low-order-peer-keys", 120, low_order),
        ],
    );
}

fn stamped(timestamp: Timestamp) -> Tweak {
    Tweak {
        timestamp: Some(timestamp),
        ..Tweak::default()
    }
}

/// The times of the responses that the device sent.
fn responses(seen: &[Seen]) -> Vec<Duration> {
    let wanted = |s: &&Seen| s.outgoing && matches!(s.message, Message::Response { .. });
    seen.iter().filter(wanted).map(|s| s.at).collect()
}

/// A peer's initiation is refused if it arrives less than 20 ms after the last accepted one. (The
/// clock for this has a resolution of 4 ms here.)
fn fifty_per_second(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 2)?;
    let client = &rig.clients[0];
    let mut stamp = 0;
    let mut make = |k: usize| {
        stamp += 1;
        let client = &rig.clients[k];
        handshake::initiate(&client.keys, &client.peer, &stamped(tai64n(stamp, 0))).message
    };
    let messages: Vec<_> = (0..200).map(|_| make(0)).collect();
    let start = Instant::now();
    for (n, message) in messages.iter().enumerate() {
        until(start, n as u32 * 5 * MS);
        client.send(message)?;
    }
    let took = start.elapsed();
    sleep(MOMENT);
    let times = responses(&rig.seen(0));
    ensure!(
        took < Duration::from_millis(1200),
        "sending took {took:?}: too slow for a result"
    );
    ensure!(
        (40..=52).contains(&times.len()),
        "{} of 200 initiations in {took:?} were answered, wanted 40 to 52",
        times.len()
    );
    for pair in times.windows(2) {
        ensure!(
            pair[1] - pair[0] > 14 * MS,
            "two initiations accepted within {:?}",
            pair[1] - pair[0]
        );
    }
    // Both sides of the limit. A refused initiation leaves no trace: its timestamp is still valid.
    sleep(SEC);
    for (gap, wanted) in [(12, 1), (28, 2)] {
        let before = responses(&rig.seen(0)).len();
        let (one, two) = (make(0), make(0));
        client.send(&one)?;
        sleep(gap * MS);
        client.send(&two)?;
        sleep(MOMENT);
        let got = responses(&rig.seen(0)).len() - before;
        ensure!(
            got == wanted,
            "{got} of two initiations {gap} ms apart were answered, wanted {wanted}"
        );
        if wanted == 1 {
            client.send(&two)?;
            sleep(MOMENT);
            ensure!(
                responses(&rig.seen(0)).len() == before + 2,
                "an initiation that came too soon is still refused when it is sent again later"
            );
        }
    }
    // The limit is per peer.
    let pair = [make(0), make(1)];
    for (client, message) in rig.clients.iter().zip(&pair) {
        client.send(message)?;
    }
    sleep(MOMENT);
    ensure!(
        responses(&rig.seen(1)).len() == 1,
        "one peer's initiation prevented another's from being accepted"
    );
    rig.works(0)?;
    rig.works(1)
}

/// Seconds since the epoch and nanoseconds of a timestamp.
fn split(stamp: &Timestamp) -> (u64, u32) {
    let (secs, nanos) = stamp.split_at(8);
    let secs = u64::from_be_bytes(secs.try_into().expect("8 bytes"));
    let nanos = u32::from_be_bytes(nanos.try_into().expect("4 bytes"));
    (secs.wrapping_sub((1 << 62) + 10), nanos)
}

/// The timestamps that the device sends: the wall clock, nanoseconds rounded down to a multiple
/// of 2^24, each greater than the last.
fn timestamps(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    rig.say(0)?;
    let mut last = Timestamp::default();
    for _ in 0..8 {
        let message = rig.clients[0].wait_initiation(8 * SEC)?;
        let wall = split(&now());
        let stamp = handshake::receive(&rig.clients[0].keys, &message)?.timestamp;
        let (secs, nanos) = split(&stamp);
        ensure!(
            nanos % (1 << 24) == 0 && nanos < 1_000_000_000,
            "{nanos} ns are not a multiple of 2^24"
        );
        let age =
            (wall.0 as i64 - secs as i64) * 1_000_000_000 + i64::from(wall.1) - i64::from(nanos);
        // Rounded down by up to 17 ms, plus the transit time.
        ensure!(
            (0..60_000_000).contains(&age),
            "a timestamp {age} ns behind the clock"
        );
        ensure!(
            stamp > last,
            "a timestamp that is not greater than the last"
        );
        last = stamp;
    }
    Ok(())
}

/// An initiation is accepted only with a timestamp greater than all before, whatever the clock
/// says; down and up does not reset that, removing the peer does.
fn replay(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let start = 1_000_000; // seconds since the epoch: long ago
    let answered = |rig: &Rig, stamp: Timestamp| -> Result<bool> {
        Ok(rig.respond(0, &stamped(stamp))?.is_some())
    };
    let check = |rig: &Rig, what: &str, stamp: Timestamp, wanted: bool| -> Result<()> {
        let got = answered(rig, stamp)?;
        ensure!(
            got == wanted,
            "{what}: {}answered",
            if got { "" } else { "not " }
        );
        Ok(())
    };
    let first = rig.clients[0].initiate(&stamped(tai64n(start, 5)))?;
    ensure!(
        rig.finish(0, &first)?.is_some(),
        "no response to the first initiation"
    );
    rig.clients[0].send(&first.message)?;
    ensure!(
        rig.finish(0, &first)?.is_none(),
        "a repeated initiation is answered"
    );
    check(&rig, "the same timestamp", tai64n(start, 5), false)?;
    check(&rig, "a nanosecond less", tai64n(start, 4), false)?;
    check(&rig, "a second less", tai64n(start - 1, 999_999_999), false)?;
    check(&rig, "zero", [0; 12], false)?;
    check(&rig, "a nanosecond more", tai64n(start, 6), true)?;
    check(&rig, "that again", tai64n(start, 6), false)?;
    check(&rig, "bytes that are no time", [0x50; 12], true)?;
    check(&rig, "the present after that", now(), false)?;
    rig.link.rt(0).set_up("wg0", false)?;
    rig.link.rt(0).set_up("wg0", true)?;
    check(&rig, "the same after down and up", [0x50; 12], false)?;
    check(&rig, "the present after down and up", now(), false)?;
    check(&rig, "greater after down and up", [0x51; 12], true)?;
    // The device still works as initiator.
    sleep(6 * SEC);
    rig.initiated(0)?;
    let key = rig.clients[0].keys.public;
    let remove = PeerConf {
        public_key: key,
        flags: uapi::peer::F_REMOVE_ME,
        ..PeerConf::default()
    };
    rig.end.set_peer(&rig.link, remove)?;
    rig.end.set_peer(&rig.link, conf(0, &rig.clients[0]))?;
    check(&rig, "long ago to a peer added again", tai64n(1, 0), true)?;
    rig.works(0)
}

/// Indices are random: in both roles none occurs twice, every bit is seen as 0 and as 1, and they
/// do not differ by a constant.
fn indices(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 10)?;
    for k in 0..10 {
        rig.say(k)?;
        // For 5 s after a response the device does not initiate: get its initiation first.
        rig.clients[k].wait_initiation(SEC)?;
        for _ in 0..5 {
            rig.respond(k, &Tweak::default())?
                .with_context(|| format!("no response to client {k}"))?;
        }
    }
    let index = |s: &Seen| match s.message {
        Message::Initiation { sender } | Message::Response { sender, .. } if s.outgoing => {
            Some(sender)
        }
        _ => None,
    };
    let seen = rig.underlay.wait(60, SEC, |s| index(s).is_some())?;
    let found: Vec<u32> = seen.iter().filter_map(index).collect();
    ensure!(found.len() == 60, "{} indices, wanted 60", found.len());
    let mut sorted = found.clone();
    sorted.sort_unstable();
    sorted.dedup();
    ensure!(sorted.len() == 60, "an index was used twice: {found:x?}");
    let ones = found.iter().fold(0, |all, index| all | index);
    let zeros = found.iter().fold(0, |all, index| all | !index);
    ensure!(
        ones & zeros == u32::MAX,
        "some bits never change: {found:x?}"
    );
    let mut steps: Vec<u32> = found
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    steps.sort_unstable();
    steps.dedup();
    ensure!(steps.len() >= 58, "indices in equal steps: {found:x?}");
    Ok(())
}

/// Both sides initiate at the same moment: accepting the client's initiation makes the device drop
/// its own, so that the response to that is refused, and the session is the client's.
fn crossing(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    rig.say(0)?;
    let own = rig.clients[0].wait_initiation(SEC)?;
    let mut theirs = rig
        .respond(0, &Tweak::default())?
        .context("no response to an initiation that crosses the device's own")?;
    let received = handshake::receive(&rig.clients[0].keys, &own)?;
    let (mut refused, response) = received.respond(&[0; 32], &Tweak::default());
    rig.clients[0].send(&response)?;
    rig.clients[0].silence(MOMENT)?;
    ensure!(
        !rig.accepts(0, &mut refused)?,
        "data in a session whose initiation was dropped is accepted"
    );
    ensure!(
        rig.peer(0)?.last_handshake.is_zero(),
        "a handshake is reported although none was completed"
    );
    // The staged packet is sent in the other session as soon as that is confirmed.
    rig.clients[0].send(&theirs.data(&[]))?;
    rig.clients[0]
        .wait_data(&theirs, SEC)
        .context("the staged datagram")?;
    ensure!(
        rig.sends_under(0, &[&theirs, &refused])? == Some(0),
        "the device does not send in the session that its peer has initiated"
    );
    ensure!(rig.accepts(0, &mut theirs)?, "data is not accepted");
    ensure!(rig.initiations(0).len() == 1, "the device initiated again");
    Ok(())
}

/// Whether the device accepts client `k`'s response to its initiation after `event`.
fn accepted_after(
    rig: &mut Rig,
    k: usize,
    event: impl FnOnce(&mut Rig) -> Result<()>,
) -> Result<bool> {
    rig.say(k)?;
    let own = rig.clients[k].wait_initiation(SEC)?;
    let received = handshake::receive(&rig.clients[k].keys, &own)?;
    let (mut session, response) = received.respond(&[0; 32], &Tweak::default());
    event(rig)?;
    rig.clients[k].send(&response)?;
    sleep(MOMENT);
    let taken = rig.accepts(k, &mut session)?;
    let told = !rig.peer(k)?.last_handshake.is_zero();
    ensure!(
        taken == told,
        "data in the session of client {k} accepted: {taken}, but a handshake reported: {told}"
    );
    Ok(taken)
}

/// The device initiates again for client `k`, although it did so a moment ago.
fn initiates_at_once(rig: &Rig, k: usize) -> Result<()> {
    rig.clients[k].flush()?;
    rig.say(k)?;
    let mut session = rig.clients[k].answer(SEC)?;
    sleep(MOMENT);
    ensure!(rig.accepts(k, &mut session)?, "data is not accepted");
    Ok(())
}

/// A new private key makes the device drop its initiations and reset their rate limit. That can be
/// seen only if the new key has the same public key, like the unclamped stored key: responses to
/// initiations of another key fail anyway. Setting the stored key itself changes nothing.
fn new_key_clears(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 2)?;
    let key = rig.end.get(&rig.link)?.private_key.context("no key")?;
    let mut unclamped = key;
    unclamped[0] |= 1;
    for (k, what, key, wanted) in [
        (0, "the stored key", key, true),
        (1, "the same key unclamped", unclamped, false),
    ] {
        let taken = accepted_after(&mut rig, k, |rig| {
            let conf = DeviceConf {
                private_key: Some(key),
                ..DeviceConf::default()
            };
            rig.end.set(&rig.link, &conf)
        })?;
        ensure!(
            taken == wanted,
            "a response after {what} was set is accepted: {taken}"
        );
    }
    initiates_at_once(&rig, 1)
}

/// Going down makes the device drop its initiations and reset their rate limit.
fn down_clears(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let taken = accepted_after(&mut rig, 0, |rig| {
        for up in [false, true] {
            rig.link.rt(0).set_up("wg0", up)?;
        }
        Ok(())
    })?;
    ensure!(
        !taken,
        "the response to an initiation from before down and up is accepted"
    );
    initiates_at_once(&rig, 0)
}

/// Public keys of low order, whose shared secrets are all zero (RFC 7748, section 6.1; the list is
/// that of <https://cr.yp.to/ecdh.html#validate>).
fn low_order_keys() -> Vec<Key> {
    let hex = |text: &str| -> Key {
        let byte = |n: usize| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hex");
        std::array::from_fn(byte)
    };
    let little = |first: u8, last: u8| {
        let mut key = [0xff; 32];
        key[0] = first;
        key[31] = last;
        key
    };
    let mut one = [0; 32];
    one[0] = 1;
    vec![
        [0; 32],
        one,
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        little(0xec, 0x7f),
        little(0xed, 0x7f),
        little(0xee, 0x7f),
    ]
}

/// A peer whose key is of low order can be configured, but nothing is ever sent to it.
fn low_order(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let keys = low_order_keys();
    let listener = SocketAddr::new(harness::topo::outer(false, 1), 6666);
    for (n, key) in keys.iter().enumerate() {
        let peer = PeerConf {
            public_key: *key,
            endpoint: Some(listener),
            keepalive: Some(5),
            allowed_ips: vec![(inside(false, 100 + n), 32)],
            ..PeerConf::default()
        };
        rig.end
            .set_peer(&rig.link, peer)
            .with_context(|| format!("add a peer with the low-order key {key:x?}"))?;
    }
    let told = rig.end.get(&rig.link)?.peers;
    for key in &keys {
        ensure!(
            told.iter().any(|peer| peer.public_key == *key),
            "the low-order key {key:x?} is not listed"
        );
    }
    let underlay = Capture::start(rig.link.end(0), "v0")?;
    for _ in 0..10 {
        for n in 0..keys.len() {
            let to: IpAddr = inside(false, 100 + n);
            rig.app.send_to(b"tick", SocketAddr::new(to, 9000))?;
        }
        sleep(3 * SEC);
    }
    let seen = underlay.seen();
    if let Some(message) = seen.first() {
        bail!("{message:?} was sent for peers with keys of low order");
    }
    let after = rig.end.get(&rig.link)?.peers;
    for peer in after.iter().filter(|peer| keys.contains(&peer.public_key)) {
        ensure!(
            peer.tx_bytes == 0 && peer.rx_bytes == 0 && peer.last_handshake.is_zero(),
            "traffic is reported for a peer with a key of low order: {peer:?}"
        );
    }
    // The other peer is not affected.
    let mut session = rig.initiated(0)?;
    ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    Ok(())
}

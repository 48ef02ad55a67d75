// SPDX-License-Identifier: GPL-2.0-only
//! Attacks on cookies: whom a device under load answers and how, and which cookie replies it
//! accepts. In virtual time: with one CPU, a whole burst is queued before it is processed.

use super::{drop_in_vtime, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::capture::Injector;
use harness::noise::{cookie, handshake, packet, Client, Keys, Pending, Tweak};
use harness::pace::alone;
use harness::rig::{device, inside, outside, Rig, WAIT};
use harness::runner::Ctx;
use harness::topo::inner;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in_vtime(list, "attack-cookie-rules", 900, rules);
    drop_in_vtime(list, "attack-cookie-replies", 900, replies);
}

const SEC: Duration = Duration::from_secs(1);
/// More than the 512 queued handshake messages at which the device is under load.
const BURST: usize = 700;

/// The answer to an initiation.
enum Answer {
    Response(Vec<u8>),
    Cookie([u8; 16]),
    Nothing,
}

/// Puts the device under load and sends it handshake messages in that state.
struct Load {
    scene: Rig,
    injector: Injector,
    burst: Vec<Vec<u8>>,
}

impl Load {
    fn new(ctx: &Ctx) -> Result<Self> {
        let mut scene = Rig::fenced(ctx, 2)?;
        // Answers to the strangers are not delivered.
        let nowhere = [2, 0, 0, 0, 0, 0xee];
        scene
            .link
            .rt(0)
            .neigh_set("v0", [192, 0, 2, 66].into(), nowhere)?;
        let injector = Injector::open(scene.link.end(1), "v1")?;
        let stranger = Keys::random();
        let one = |n: usize| {
            let from = ([192, 0, 2, 66], 1000 + n as u16).into();
            let message = handshake::initiate(&stranger, &scene.clients[0].peer, &Tweak::default());
            packet::frame(1, from, device(false), &message.message)
        };
        let burst = (0..BURST).map(one).collect();
        Ok(Load {
            scene,
            injector,
            burst,
        })
    }

    /// Puts the device under load, for at least a second, with `message` from `client` as the last
    /// in its queue.
    fn send_last(&self, client: &Client, message: &[u8]) -> Result<()> {
        alone(|| {
            self.burst.iter().try_for_each(|f| self.injector.send(f))?;
            client.send(message)
        })
    }

    /// Sends `message` from `client` while the device is under load; `index` is its sender index.
    fn send(&self, client: &Client, message: &[u8], index: u32) -> Result<Answer> {
        client.flush()?;
        self.send_last(client, message)?;
        let got = client.wait(2 * SEC, "an answer", |_, bytes| {
            matches!(bytes.first(), Some(2 | 3))
        });
        let Ok(bytes) = got else {
            return Ok(Answer::Nothing);
        };
        if bytes.len() == cookie::REPLY {
            ensure!(
                bytes[4..8] == index.to_le_bytes(),
                "a cookie reply to another index"
            );
            let cookie = cookie::open_reply(&bytes, &client.peer, message)?;
            return Ok(Answer::Cookie(cookie));
        }
        Ok(Answer::Response(bytes))
    }

    fn ask(&self, client: &Client, tweak: &Tweak) -> Result<(Pending, Answer)> {
        sleep(Duration::from_millis(30));
        let pending = handshake::initiate(&client.keys, &client.peer, tweak);
        let answer = self.send(client, &pending.message, pending.index)?;
        Ok((pending, answer))
    }

    /// Sends an initiation with `tweak`; the answer must be a cookie reply.
    fn refused(&self, what: &str, client: &Client, tweak: &Tweak) -> Result<[u8; 16]> {
        match self.ask(client, tweak)?.1 {
            Answer::Cookie(cookie) => Ok(cookie),
            Answer::Response(_) => bail!("{what}: a response, not a cookie reply"),
            Answer::Nothing => bail!("{what}: no answer, not a cookie reply"),
        }
    }

    /// Sends an initiation with `cookie`; the answer must be a response.
    fn taken(&self, what: &str, client: &Client, cookie: [u8; 16]) -> Result<()> {
        let tweak = Tweak {
            cookie: Some(cookie),
            ..Tweak::default()
        };
        match self.ask(client, &tweak)? {
            (pending, Answer::Response(response)) => {
                let mut session = pending.finish(&response, &client.psk)?;
                client.ping(&mut session, inside(false, 0), inner(false, 0))
            }
            (_, Answer::Cookie(_)) => bail!("{what}: a cookie reply, not a response"),
            (_, Answer::Nothing) => bail!("{what}: no answer, not a response"),
        }
    }
}

/// mac2 must be computed over the message with the cookie for the sender's exact address and port
/// by the current secret. Otherwise a message with a valid mac1 gets a cookie reply and nothing
/// else, and one with a wrong mac1 gets nothing.
fn rules(ctx: &Ctx) -> Result<()> {
    let mut load = Load::new(ctx)?;
    let address: SocketAddr = "192.0.2.3:51821".parse()?;
    load.scene.link.rt(1).addr_add("v1", address.ip(), 24)?;
    load.scene
        .link
        .rt(0)
        .neigh_set("v0", address.ip(), harness::topo::mac(1))?;
    let again = |from: SocketAddr| {
        let client = &load.scene.clients[0];
        Client::new(
            load.scene.link.end(1),
            client.keys,
            client.peer,
            from,
            client.to,
        )
    };
    let other_port = again(outside(9))?;
    let other_address = again(address)?;
    let client = &load.scene.clients[0];
    let mac2 = |mac2| Tweak {
        mac2: Some(mac2),
        ..Tweak::default()
    };
    let with = |cookie| Tweak {
        cookie: Some(cookie),
        ..Tweak::default()
    };

    // Without load mac2 is not checked.
    sleep(SEC / 10);
    let pending = client.initiate(&mac2([0x55; 16]))?;
    client.wait_response(&pending, WAIT)?;

    let none = load.refused("no mac2", client, &Tweak::default())?;
    let cookie = load.refused("a random mac2", client, &mac2(rand::random()))?;
    ensure!(none == cookie, "two cookies for one source");
    load.taken("the cookie", client, cookie)?;
    // A mac2 with a single wrong bit.
    let right = handshake::initiate(&client.keys, &client.peer, &with(cookie));
    for bit in [0, 63, 127] {
        let mut message = right.message.clone();
        message[132 + bit / 8] ^= 1 << (bit % 8);
        let answer = load.send(client, &message, right.index)?;
        ensure!(
            matches!(answer, Answer::Cookie(_)),
            "bit {bit} of mac2 flipped: not a cookie reply"
        );
    }
    // Another message's mac2.
    let foreign = right.message[132..].try_into().context("mac2")?;
    load.refused("another message's mac2", client, &mac2(foreign))?;
    // mac1 is checked first.
    for cookie in [None, Some(cookie)] {
        let tweak = Tweak {
            mac1: Some([1; 16]),
            cookie,
            ..Tweak::default()
        };
        let answer = load.ask(client, &tweak)?.1;
        ensure!(
            matches!(answer, Answer::Nothing),
            "a wrong mac1 was answered under load"
        );
    }
    // Bound to the port and to the address.
    let of_port = load.refused("another port", &other_port, &with(cookie))?;
    let of_address = load.refused("another address", &other_address, &with(cookie))?;
    ensure!(
        of_port != cookie && of_address != cookie && of_port != of_address,
        "one cookie for several sources"
    );
    load.taken("the other port's cookie", &other_port, of_port)?;
    sleep(SEC);
    load.taken("the other address's cookie", &other_address, of_address)?;
    // An unknown peer gets a cookie (mac1 needs only the device's key), but still no response.
    let mut stranger = again(outside(8))?;
    stranger.keys = Keys::random();
    let of_stranger = load.refused("a stranger", &stranger, &Tweak::default())?;
    let answer = load.ask(&stranger, &with(of_stranger))?.1;
    ensure!(
        matches!(answer, Answer::Nothing),
        "a stranger with a cookie was answered"
    );
    // The cookie secret is replaced after 120 s.
    sleep(125 * SEC);
    let new = load.refused("a stale cookie", client, &with(cookie))?;
    ensure!(new != cookie, "the cookie is the same after 125 s");
    load.taken("the new cookie", client, new)?;

    // The same for responses: the device's own handshake waits for one with a valid mac2.
    sleep(2 * SEC);
    let initiation = load.scene.initiation(0)?;
    let client = &load.scene.clients[0];
    let received = handshake::receive(&client.keys, &initiation)?;
    let (session, response) = received.respond(&client.psk, &Tweak::default());
    let answer = load.send(client, &response, session.own)?;
    let Answer::Cookie(of_response) = answer else {
        bail!("a response without mac2 gets no cookie reply");
    };
    ensure!(of_response == new, "a different cookie for a response");
    let (session, right) = received.respond(&client.psk, &with(new));
    for bit in [0, 63, 127] {
        let mut response = right.clone();
        response[76 + bit / 8] ^= 1 << (bit % 8);
        let answer = load.send(client, &response, session.own)?;
        ensure!(
            matches!(answer, Answer::Cookie(_)),
            "bit {bit} of a response's mac2 flipped: not a cookie reply"
        );
    }
    // That may have taken longer than the device waits for a response.
    let initiation = load.scene.initiation(0)?;
    let client = &load.scene.clients[0];
    let received = handshake::receive(&client.keys, &initiation)?;
    let (mut session, response) = received.respond(&client.psk, &with(new));
    load.send_last(client, &response)?;
    client.wait_data(&session, WAIT)?;
    load.scene.ping(0, &mut session)
}

/// A cookie reply is accepted only if it is intact, answers the last handshake message that the
/// device sent to the peer, and is the first answer to it.
fn replies(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 2)?;
    let is = |message: &[u8], cookie: Option<[u8; 16]>| {
        let wanted = cookie.map(|cookie| cookie::mac2(&message[..132], &cookie));
        message[132..] == wanted.unwrap_or_default()
    };
    let first = scene.initiation(0)?;
    let [client, other] = [&scene.clients[0], &scene.clients[1]];
    ensure!(is(&first, None), "mac2 without a cookie");
    let next = || client.wait_initiation(10 * SEC);

    let right = cookie::reply(&client.keys.public, &first, &[1; 16]);
    for bit in 0..right.len() * 8 {
        let mut reply = right.clone();
        reply[bit / 8] ^= 1 << (bit % 8);
        client.send(&reply)?;
    }
    // From another peer, and from one that has not seen the message.
    other.send(&cookie::reply(&other.keys.public, &first, &[2; 16]))?;
    let mut unseen = first.clone();
    unseen[116] ^= 1;
    client.send(&cookie::reply(&client.keys.public, &unseen, &[2; 16]))?;
    let second = next()?;
    ensure!(is(&second, None), "an altered cookie reply was accepted");

    // In reply to the message before the last.
    client.send(&right)?;
    let mut late = right.clone();
    late[4..8].copy_from_slice(&second[4..8]);
    client.send(&late)?;
    let third = next()?;
    ensure!(is(&third, None), "a late cookie reply was accepted");

    // A valid one, from another address; and a second one to the same message.
    let endpoint = scene.clients[0].socket.local_addr()?;
    other.send(&cookie::reply(&client.keys.public, &third, &[3; 16]))?;
    client.send(&cookie::reply(&client.keys.public, &third, &[4; 16]))?;
    let fourth = next()?;
    ensure!(
        !is(&fourth, Some([4; 16])),
        "a second cookie reply to one message was accepted"
    );
    ensure!(is(&fourth, Some([3; 16])), "the cookie was not used");
    // Responses use it, too; and no cookie reply changes the endpoint.
    let received = handshake::receive(&client.keys, &fourth)?;
    let (mut session, response) = received.respond(&client.psk, &Tweak::default());
    client.send(&response)?;
    client.wait_data(&session, WAIT)?;
    let pending = client.initiate(&Tweak::default())?;
    let response = client.wait_response(&pending, WAIT)?;
    let mac2 = cookie::mac2(&response[..76], &[3; 16]);
    ensure!(response[76..] == mac2, "a response without the cookie");
    ensure!(
        scene.peer(0)?.endpoint == Some(endpoint),
        "the endpoint changed"
    );
    scene.ping(0, &mut session)
}

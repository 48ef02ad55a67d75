// SPDX-License-Identifier: GPL-2.0
//! Cookies as an attacker meets them: what a device under load answers to whom, and which cookie
//! replies it believes. In virtual time: with one processor, what one burst brings waits in the
//! queue as a whole.

use super::scene::{device, inside, outside, Scene, WAIT};
use super::{drop_in_vtime, Test};
use crate::harness::capture::Injector;
use crate::harness::noise::{cookie, handshake, packet, Client, Keys, Pending, Tweak};
use crate::harness::pace::alone;
use crate::harness::runner::Ctx;
use crate::harness::topo::inner;
use anyhow::{bail, ensure, Context, Result};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in_vtime(list, "attack-cookie-rules", 900, rules);
    drop_in_vtime(list, "attack-cookie-replies", 900, replies);
}

const SEC: Duration = Duration::from_secs(1);
/// More than the 512 waiting handshake messages that mean load.
const BURST: usize = 700;

/// What an initiation came to.
enum Answer {
    Response(Vec<u8>),
    Cookie([u8; 16]),
    Nothing,
}

/// Puts the device under load, and asks it things in that state.
struct Load {
    scene: Scene,
    injector: Injector,
    burst: Vec<Vec<u8>>,
}

impl Load {
    fn new(ctx: &Ctx) -> Result<Self> {
        let mut scene = Scene::new(ctx, 2)?;
        // The strangers' answers go nowhere.
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
            packet::frame(1, from, device(), &message.message)
        };
        let burst = (0..BURST).map(one).collect();
        Ok(Load {
            scene,
            injector,
            burst,
        })
    }

    /// Puts the device under load, for a second at least, and `message` by `client` at the end of
    /// what waits.
    fn send_last(&self, client: &Client, message: &[u8]) -> Result<()> {
        alone(|| {
            self.burst.iter().try_for_each(|f| self.injector.send(f))?;
            client.send(message)
        })
    }

    /// Sends `message` by `client` while the device is under load; `index` is its sender.
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
            ensure!(bytes[4..8] == index.to_le_bytes(), "a cookie for another");
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

    /// Asks with `tweak`; a cookie reply must come.
    fn refused(&self, what: &str, client: &Client, tweak: &Tweak) -> Result<[u8; 16]> {
        match self.ask(client, tweak)?.1 {
            Answer::Cookie(cookie) => Ok(cookie),
            Answer::Response(_) => bail!("{what}: a response, not a cookie reply"),
            Answer::Nothing => bail!("{what}: no answer, not a cookie reply"),
        }
    }

    /// Asks with `cookie`; a response must come.
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

/// mac2 must be made with the cookie for the sender's very address and port, by the present
/// secret, over the very message; otherwise a valid mac1 gets a cookie reply and nothing else,
/// and a wrong mac1 gets nothing.
fn rules(ctx: &Ctx) -> Result<()> {
    let mut load = Load::new(ctx)?;
    let address: SocketAddr = "192.0.2.3:51821".parse()?;
    load.scene.link.rt(1).addr_add("v1", address.ip(), 24)?;
    load.scene
        .link
        .rt(0)
        .neigh_set("v0", address.ip(), crate::harness::topo::mac(1))?;
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

    // Without load nobody looks at mac2.
    sleep(SEC / 10);
    let pending = client.initiate(&mac2([0x55; 16]))?;
    client.wait_response(&pending, WAIT)?;

    let none = load.refused("no mac2", client, &Tweak::default())?;
    let cookie = load.refused("a random mac2", client, &mac2(rand::random()))?;
    ensure!(none == cookie, "two cookies for one source");
    load.taken("the cookie", client, cookie)?;
    // The fourteen bytes of secret in a mac2 that is right but for a bit.
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
    // mac1 comes first.
    for cookie in [None, Some(cookie)] {
        let tweak = Tweak {
            mac1: Some([1; 16]),
            cookie,
            ..Tweak::default()
        };
        let answer = load.ask(client, &tweak)?.1;
        ensure!(
            matches!(answer, Answer::Nothing),
            "a wrong mac1 is answered under load"
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
    // Who is unknown can have a cookie (any key will do for mac1), and still gets no response.
    let mut stranger = again(outside(8))?;
    stranger.keys = Keys::random();
    let of_stranger = load.refused("a stranger", &stranger, &Tweak::default())?;
    let answer = load.ask(&stranger, &with(of_stranger))?.1;
    ensure!(
        matches!(answer, Answer::Nothing),
        "a stranger with a cookie is answered"
    );
    // The secret behind it is replaced after 120 s.
    sleep(125 * SEC);
    let new = load.refused("a stale cookie", client, &with(cookie))?;
    ensure!(new != cookie, "the cookie is the same after 125 s");
    load.taken("the new cookie", client, new)?;

    // Responses are treated alike: the device's own handshake waits until mac2 is right.
    sleep(2 * SEC);
    let initiation = load.scene.initiation(0)?;
    let client = &load.scene.clients[0];
    let received = handshake::receive(&client.keys, &initiation)?;
    let (session, response) = received.respond(&client.psk, &Tweak::default());
    let answer = load.send(client, &response, session.own)?;
    let Answer::Cookie(of_response) = answer else {
        bail!("a response without mac2 gets no cookie reply");
    };
    ensure!(of_response == new, "another cookie for a response");
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

/// A cookie reply counts only if it is for the last handshake message we sent, whole, from its
/// receiver, and the first.
fn replies(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx, 2)?;
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
    // By another peer, and by one who has not seen the message.
    other.send(&cookie::reply(&other.keys.public, &first, &[2; 16]))?;
    let mut unseen = first.clone();
    unseen[116] ^= 1;
    client.send(&cookie::reply(&client.keys.public, &unseen, &[2; 16]))?;
    let second = next()?;
    ensure!(is(&second, None), "an altered cookie reply was believed");

    // To the message before the last.
    client.send(&right)?;
    let mut late = right.clone();
    late[4..8].copy_from_slice(&second[4..8]);
    client.send(&late)?;
    let third = next()?;
    ensure!(is(&third, None), "a late cookie reply was believed");

    // The right one, from anywhere; and a second one to the same message.
    let endpoint = scene.clients[0].socket.local_addr()?;
    other.send(&cookie::reply(&client.keys.public, &third, &[3; 16]))?;
    client.send(&cookie::reply(&client.keys.public, &third, &[4; 16]))?;
    let fourth = next()?;
    ensure!(
        !is(&fourth, Some([4; 16])),
        "a second cookie reply to one message was believed"
    );
    ensure!(is(&fourth, Some([3; 16])), "the cookie is not used");
    // Responses carry it too; and no reply moves an endpoint.
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
        "the endpoint moved"
    );
    scene.ping(0, &mut session)
}

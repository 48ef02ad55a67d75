// SPDX-License-Identifier: GPL-2.0-only
//! The limit of 20 handshake messages per second, in bursts of 5, for sources that have proved
//! under load that they own their address.

use super::{drop_in, Test, SEC};
use anyhow::{bail, ensure, Context, Result};
use harness::netns::Netns;
use harness::noise::{cookie, handshake, Client, Tweak};
use harness::pace::{alone, is_slow};
use harness::rig::{device, inside, Rig, MOMENT};
use harness::runner::{until, Ctx};
use harness::topo::{mac, outer};
use harness::traffic::udp;
use harness::wgdev::{random_key, DeviceConf, Key, PeerConf, Wg};
use harness::wire::{self, Message};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-ratelimit-20-burst-5", 60, rate_and_burst),
            ("vtime-ratelimit-who", 120, who),
        ],
    );
}

/// A source address, and the device to send to.
struct Source {
    socket: UdpSocket,
    to: SocketAddr,
    device: Key,
    cookie: Option<[u8; 16]>,
}

impl Source {
    fn new(rig: &Rig, from: SocketAddr) -> Result<Self> {
        Ok(Source {
            socket: udp(rig.link.end(1), from)?,
            to: device(from.is_ipv6()),
            device: rig.end.public_key,
            cookie: None,
        })
    }

    /// Fetches its cookie, under load.
    fn fetch(&mut self, client: &Client) -> Result<()> {
        let pending = handshake::initiate(&client.keys, &self.device, &Tweak::default());
        self.socket.send_to(&pending.message, self.to)?;
        let mut buf = [0; 256];
        self.socket.set_read_timeout(Some(SEC))?;
        let n = self.socket.recv(&mut buf).context("no cookie reply")?;
        self.cookie = Some(cookie::open_reply(
            &buf[..n],
            &self.device,
            &pending.message,
        )?);
        Ok(())
    }

    /// An initiation of `client` with mac2.
    fn message(&self, client: &Client) -> Result<Vec<u8>> {
        let tweak = Tweak {
            cookie: Some(self.cookie.context("no cookie yet")?),
            ..Tweak::default()
        };
        Ok(handshake::initiate(&client.keys, &self.device, &tweak).message)
    }

    /// The number of responses received; anything else is an error.
    fn responses(&self) -> Result<usize> {
        self.socket.set_nonblocking(true)?;
        let mut buf = [0; 256];
        let mut count = 0;
        while let Ok(n) = self.socket.recv(&mut buf) {
            match wire::message(&buf[..n]) {
                Some(Message::Response { .. }) => count += 1,
                other => bail!("{other:?} in answer to messages with mac2"),
            }
        }
        self.socket.set_nonblocking(false)?;
        Ok(count)
    }

    /// Sends one initiation of each client in a burst; returns how many were answered.
    fn burst(&self, clients: &[Client]) -> Result<usize> {
        let messages: Vec<_> = clients
            .iter()
            .map(|client| self.message(client))
            .collect::<Result<_>>()?;
        alone(|| {
            for message in &messages {
                self.socket.send_to(message, self.to)?;
            }
            Ok(())
        })?;
        sleep(MOMENT);
        self.responses()
    }
}

/// One source: a burst of 5, then one every 50 ms.
fn rate_and_burst(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 80)?;
    let mut source = Source::new(&rig, SocketAddr::new(outer(false, 1), 7100))?;
    rig.flood(600)?;
    source.fetch(&rig.clients[0])?;
    let got = source.burst(&rig.clients[..16])?;
    ensure!(got == 5, "{got} of 16 at once were answered, wanted 5");
    sleep(2 * SEC);
    // 80 in 790 ms, evenly: a full bucket, worth 250 ms, plus 790 ms, at one per 50 ms.
    rig.flood(600)?;
    let messages: Vec<_> = rig
        .clients
        .iter()
        .map(|client| source.message(client))
        .collect::<Result<_>>()?;
    rig.flood(600)?;
    let start = Instant::now();
    for (n, message) in messages.iter().enumerate() {
        until(start, n as u32 * Duration::from_millis(10));
        source.socket.send_to(message, source.to)?;
    }
    let took = start.elapsed();
    sleep(MOMENT);
    let got = source.responses()?;
    // A slow worker may still be busy with the flood when the first ones arrive, and a full bucket
    // does not grow in that time.
    let least = if is_slow() { 18 } else { 20 };
    ensure!(
        (least..=21).contains(&got) && took < Duration::from_millis(850),
        "{got} of 80 in {took:?} were answered, wanted {least} to 21 in 790 ms"
    );
    // Without load there is no limit.
    sleep(2 * SEC);
    let got = source.burst(&rig.clients[..16])?;
    ensure!(
        got == 16,
        "{got} of 16 at once were answered without load, wanted all"
    );
    // Also for clients whose messages were refused.
    rig.works(0)?;
    rig.works(79)
}

/// Sources that share a limit: an IPv4 address or an IPv6 /64 network, across all devices in the
/// same namespace.
fn who(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 8)?;
    let third: IpAddr = [192, 0, 2, 77].into();
    let near: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77).into();
    let net = |n: u16| -> IpAddr { Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n).into() };
    rig.link.rt(0).addr_add("v0", net(1), 64)?;
    for (ip, cidr) in [(third, 24), (near, 64), (net(2), 64)] {
        rig.link.rt(1).addr_add("v1", ip, cidr)?;
        rig.link.rt(0).neigh_set("v0", ip, mac(1))?;
    }
    rig.link.rt(1).neigh_set("v1", net(1), mac(0))?;

    // Two more devices with the same peers; one of them is moved away, its socket stays.
    let away = Netns::new("c")?;
    let same = another(&mut rig, ctx, "wg7", 51907)?;
    rig.link.rt(0).set_up("wg7", true)?;
    let moved = another(&mut rig, ctx, "wg8", 51908)?;
    rig.link.rt(0).set_netns("wg8", away.fd())?;
    away.rtnl()?.set_up("wg8", true)?;

    let at = |ip: IpAddr, port: u16| Source::new(&rig, SocketAddr::new(ip, port));
    let v4 = at(outer(false, 1), 7100)?;
    let v6 = at(outer(true, 1), 7100)?;
    let mut other = [
        (
            "another port of the same address",
            at(outer(false, 1), 7101)?,
            0,
        ),
        ("another IPv4 address", at(third, 7100)?, 5),
        (
            "another device in the same namespace",
            at(outer(false, 1), 7107)?,
            0,
        ),
        (
            "a device in another namespace",
            at(outer(false, 1), 7108)?,
            5,
        ),
        ("an address of the same IPv6 /64", at(near, 7100)?, 0),
        ("an address of another IPv6 /64", at(net(2), 7100)?, 5),
    ];
    other[2].1.device = same;
    other[2].1.to.set_port(51907);
    other[3].1.device = moved;
    other[3].1.to.set_port(51908);
    let (mut v4, mut v6) = (v4, v6);
    for (what, source, wanted) in &mut other {
        let first = if source.to.is_ipv6() {
            &mut v6
        } else {
            &mut v4
        };
        rig.flood(600)?;
        first.fetch(&rig.clients[0])?;
        source
            .fetch(&rig.clients[0])
            .with_context(|| what.to_string())?;
        let got = first.burst(&rig.clients)?;
        ensure!(
            got == 5,
            "{got} of 8 at once were answered before {what}, wanted 5"
        );
        let got = source.burst(&rig.clients)?;
        // While the first 5 were answered, the bucket may have gained one or two more.
        let range = if *wanted == 0 { 0..=2 } else { 5..=5 };
        ensure!(
            range.contains(&got),
            "{what}: {got} of 8 at once were answered after 5 of the first source, wanted {range:?}"
        );
        sleep(2 * SEC);
    }
    rig.works(0)
}

/// A device `name` in end 0's namespace, down, with all clients as peers; returns its public key.
fn another(rig: &mut Rig, ctx: &Ctx, name: &str, port: u16) -> Result<Key> {
    let kind = ctx.plain()[0].kind;
    rig.link.rt(0).link_add(name, kind)?;
    let mut wg = Wg::open(rig.link.end(0), kind)?;
    let peers = rig.clients.iter().enumerate().map(|(k, client)| PeerConf {
        public_key: client.keys.public,
        allowed_ips: vec![(inside(false, k), 32)],
        ..PeerConf::default()
    });
    let conf = DeviceConf {
        private_key: Some(random_key()),
        listen_port: Some(port),
        peers: peers.collect(),
        ..DeviceConf::default()
    };
    wg.set(name, &conf)?;
    wg.get(name)?.public_key.context("no public key")
}

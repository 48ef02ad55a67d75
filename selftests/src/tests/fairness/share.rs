// SPDX-License-Identifier: GPL-2.0-only
//! Whoever has much to send loses packets of its own, not those of others.

use super::{device, segment, sides, widen, Busy, Pings};
use anyhow::{ensure, Context, Result};
use harness::driver::Driver;
use harness::netns::Netns;
use harness::noise::{Client, Keys, Tweak};
use harness::pace::slow;
use harness::runner::Ctx;
use harness::topo::{inner, outer, port, End, Link};
use harness::traffic::{ping_all, udp};
use harness::wgdev::{DeviceConf, PeerConf, Wg};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long is pinged, the time between two pings, and when one counts as lost.
const SPAN: Duration = Duration::from_secs(4);
const GAP: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_millis(500);
/// How much more may be lost than with the in-tree driver: of some hundred pings, a few.
const LOSS: f64 = 0.01;
/// Time in which nobody is held up, whatever the in-tree driver takes.
const QUICK: Duration = Duration::from_millis(200);

/// The peers of the busy tenant, its senders, and the size of their datagrams.
const PEERS: usize = 200;
const SENDERS: usize = 4;
const SIZE: usize = 200;
/// Datagrams that are sent with one system call: they stay together as far as the device.
const BURST: usize = 32;
/// The same of the quiet tenant: more than are encrypted on the spot.
const FEW: usize = 8;

/// Compares the losses with both drivers; gives the times within which 99 of 100 answers come, the
/// in-tree driver's first.
fn compare(ctx: &Ctx, measure: impl Fn(Driver) -> Result<(f64, Pings)>) -> Result<[Duration; 2]> {
    let mut all = Vec::new();
    for (who, driver) in sides(ctx) {
        let (rate, pings) = measure(driver).with_context(|| who.to_owned())?;
        ctx.note(format!("{who}: {rate:.0} sent/s beside {pings}"));
        all.push(pings);
    }
    let [intree, ours] = &all[..] else {
        unreachable!("two sides")
    };
    ensure!(
        ours.loss() <= intree.loss() + LOSS,
        "ours: {ours}; in-tree: {intree}"
    );
    Ok([intree.p99(), ours.p99()])
}

/// One tenant's device sends to many peers at once; another one sends a few packets now and then.
pub(super) fn tenants(ctx: &Ctx) -> Result<()> {
    let [intree, ours] = compare(ctx, |driver| {
        let (link, _peers) = busy_tenant(driver)?;
        let [ns, other] = quiet_tenant(driver)?;
        ping_all(&ns, inner(false, 1), 3)?;
        let sender = |thread: usize| {
            let socket = udp(link.end(0), SocketAddr::new(inner(false, 0), 0))?;
            widen(&socket, 32 << 20)?;
            segment(&socket, SIZE)?;
            anyhow::Ok(move |n: usize| {
                let to = SocketAddr::new(remote((n * SENDERS + thread) % PEERS), 9);
                let _ = socket.send_to(&[0; SIZE * BURST], to);
            })
        };
        let senders = (0..SENDERS).map(sender).collect::<Result<Vec<_>>>()?;
        let busy = Busy::start(Duration::MAX, BURST, senders);
        let [from, to] = [(&ns, 0), (&other, 1)].map(|(ns, n)| {
            let socket = udp(ns, SocketAddr::new(inner(false, n), 9000))?;
            segment(&socket, SIZE)?;
            anyhow::Ok(socket)
        });
        let (from, to) = (from?, to?);
        from.connect(to.local_addr()?)?;
        let pings = Pings::series(SPAN, GAP, |seq| exchange(&from, &to, seq))?;
        Ok((busy.rate(), pings))
    })?;
    ensure!(
        ours <= slow(QUICK).max(2 * intree),
        "p99 of ours {ours:.1?}, of the in-tree driver {intree:.1?}"
    );
    Ok(())
}

/// [`FEW`] datagrams at once; whether all have come within [`LIMIT`].
fn exchange(from: &UdpSocket, to: &UdpSocket, seq: u16) -> Result<bool> {
    let end = Instant::now() + slow(LIMIT);
    let byte = seq as u8;
    from.send(&[byte; SIZE * FEW])?;
    let (mut got, mut datagram) = (0, [0; SIZE]);
    while got < FEW {
        let left = end.saturating_duration_since(Instant::now());
        to.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        match to.recv(&mut datagram) {
            Ok(_) if datagram[0] == byte => got += 1,
            Ok(_) => {} // late
            Err(_) if left.is_zero() => return Ok(false),
            Err(_) => {}
        }
    }
    Ok(true)
}

/// The inside address of peer `k` of the busy tenant.
fn remote(k: usize) -> IpAddr {
    Ipv4Addr::new(10, 10, 0, k as u8).into()
}

/// A device with sessions with all its peers, and the peers.
fn busy_tenant(driver: Driver) -> Result<(Link, Vec<Client>)> {
    let mut link = Link::new()?;
    let mut end = End::new(&mut link, 0, driver, None)?;
    link.rt(0).route(true, (remote(0), 24), "wg0")?;
    let clients = clients(&link, &mut end, PEERS, remote)?;
    for client in &clients {
        session(client)?;
    }
    Ok((link, clients))
}

/// `count` peers of the device of end 0.
fn clients(
    link: &Link,
    end: &mut End,
    count: usize,
    inside: impl Fn(usize) -> IpAddr,
) -> Result<Vec<Client>> {
    let from = |k: usize| SocketAddr::new(outer(false, 1), 20_000 + k as u16);
    let client = |k| {
        Client::new(
            link.end(1),
            Keys::random(),
            end.public_key,
            from(k),
            device(),
        )
    };
    let clients: Vec<Client> = (0..count).map(client).collect::<Result<_>>()?;
    let peers = clients.iter().enumerate().map(|(k, client)| PeerConf {
        public_key: client.keys.public,
        allowed_ips: vec![(inside(k), 32)],
        ..PeerConf::default()
    });
    let conf = DeviceConf {
        peers: peers.collect(),
        ..DeviceConf::default()
    };
    end.set(link, &conf)?;
    Ok(clients)
}

/// Gives the device a confirmed session.
fn session(client: &Client) -> Result<()> {
    let pending = client.initiate(&Tweak::default())?;
    let response = client.wait_response(&pending, slow(Duration::from_secs(5)))?;
    let mut session = pending.finish(&response, &client.psk)?;
    client.send(&session.data(&[]))
}

/// Two devices in namespaces of their own, joined by the first one's loopback.
fn quiet_tenant(driver: Driver) -> Result<[Netns; 2]> {
    let ns = [Netns::new("c")?, Netns::new("d")?];
    let keys = [Keys::random(), Keys::random()];
    let mut rt = [ns[0].rtnl()?, ns[1].rtnl()?];
    for (n, name) in ["wg0", "wg1"].into_iter().enumerate() {
        // Its sockets stay where it is made.
        rt[0].link_add(name, driver.kind)?;
        rt[0].set_netns(name, ns[n].fd())?;
        let other = 1 - n as u8;
        let peer = PeerConf {
            public_key: keys[1 - n].public,
            endpoint: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(other))),
            allowed_ips: vec![(inner(false, other), 32)],
            ..PeerConf::default()
        };
        let conf = DeviceConf {
            private_key: Some(keys[n].private),
            listen_port: Some(port(n as u8)),
            peers: vec![peer],
            ..DeviceConf::default()
        };
        Wg::open(&ns[n], driver.kind)?.set(name, &conf)?;
        rt[n].addr_add(name, inner(false, n as u8), 24)?;
        rt[n].set_up(name, true)?;
    }
    Ok(ns)
}

// SPDX-License-Identifier: GPL-2.0-only
//! The sticky source address: a peer is answered from the address that it sent to, until reset.

use super::{drop_in, side_by_side, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::Calls;
use harness::capture::Capture;
use harness::noise::{Client, Keys};
use harness::pace::slow;
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, mac, outer, port, Opts, Tunnel};
use harness::traffic::udp;
use harness::wgdev::{DeviceConf, PeerConf};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "source-sticky", 90, sticky);
    drop_in(list, "source-cleared-for-all", 60, cleared_for_all);
    drop_in(list, "calls-route-cache", 60, route_cache);
    side_by_side(list, "vtime-source-forgotten", Boot::Vtime, 900, forgotten);
}

/// End 0 with a second address and a second link to end 1, and a datagram socket at each end.
struct Scene {
    tunnel: Tunnel,
    v6: bool,
    sockets: [UdpSocket; 2],
    /// Both of end 0's underlay links.
    wires: [Capture; 2],
    count: [usize; 2],
}

impl Scene {
    fn new(drivers: [harness::driver::Driver; 2], v6: bool) -> Result<Self> {
        let opts = Opts {
            v6,
            ..Opts::new(drivers)
        };
        let mut tunnel = Tunnel::new(&opts)?;
        let fd = tunnel.ns(1).fd();
        tunnel.rt(0).veth_add(("w0", mac(4)), ("w1", mac(5)), fd)?;
        for n in 0..2u8 {
            let link = if n == 0 { "w0" } else { "w1" };
            let other = mac(5 - n);
            let far = outer(v6, 1 - n);
            tunnel.ns(n).run(|| {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra"), "0").ok();
                Ok(())
            })?;
            tunnel.rt(n).set_up(link, true)?;
            tunnel.rt(n).addr_add(link, other_way(v6, n), length(v6))?;
            tunnel.rt(n).neigh_set(link, far, other)?;
            tunnel.rt(n).neigh_set(link, other_way(v6, 1 - n), other)?;
        }
        // End 1 has a neighbour entry for the second address.
        tunnel.rt(1).neigh_set("v1", second(v6), mac(0))?;
        if v6 {
            tunnel.rt(1).route(true, (second(v6), 128), "v1")?;
        }
        let sockets = [
            udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9000))?,
            udp(tunnel.ns(1), SocketAddr::new(inner(false, 1), 9000))?,
        ];
        let wires = [
            Capture::start(tunnel.ns(0), "v0")?,
            Capture::start(tunnel.ns(0), "w0")?,
        ];
        Ok(Scene {
            tunnel,
            v6,
            sockets,
            wires,
            count: [0; 2],
        })
    }

    /// End 0's second address.
    fn second(&self) -> IpAddr {
        second(self.v6)
    }

    fn add_second(&mut self) -> Result<()> {
        let (addr, len) = (self.second(), length(self.v6));
        Ok(self.tunnel.rt(0).addr_add("v0", addr, len)?)
    }

    /// Makes everything that end 1 sends, to any address of end 0, get lost (`on`) or arrive again.
    fn mute(&mut self, on: bool) -> Result<()> {
        self.tunnel.mute(1, on)?;
        let to = if on { [2, 0, 0, 0, 0, 0xee] } else { mac(0) };
        let second = self.second();
        Ok(self.tunnel.rt(1).neigh_set("v1", second, to)?)
    }

    /// Sends a datagram from end `n` and waits until it arrives.
    fn pass(&self, n: u8) -> Result<()> {
        let to = SocketAddr::new(inner(false, 1 - n), 9000);
        self.sockets[usize::from(n)].send_to(b"tick", to)?;
        let socket = &self.sockets[usize::from(1 - n)];
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket
            .recv(&mut [0; 9])
            .with_context(|| format!("a datagram from end {n} does not arrive"))?;
        Ok(())
    }

    /// End 1 sends to end 0's second address, which thereby becomes the source.
    fn stick(&mut self) -> Result<()> {
        let second = SocketAddr::new(self.second(), port(0));
        let conf = PeerConf {
            endpoint: Some(second),
            ..PeerConf::default()
        };
        self.tunnel.set_peer(1, conf)?;
        self.pass(1)?;
        self.expect(self.second(), 0, "after a message to the second address")
    }

    /// End 0 sends; its message must have source `from` and use the `way`-th link.
    fn expect(&mut self, from: IpAddr, way: usize, when: &str) -> Result<()> {
        sleep(Duration::from_millis(50));
        self.take();
        self.pass(0)?;
        let start = Instant::now();
        let mut sent = self.take();
        while sent.is_empty() && start.elapsed() < slow(LIMIT) {
            sleep(Duration::from_millis(5));
            sent = self.take();
        }
        sleep(Duration::from_millis(50));
        sent.extend(self.take());
        ensure!(
            sent == [(from, way)],
            "{when}: sent from and over {sent:?}, not {:?}",
            (from, way)
        );
        Ok(())
    }

    /// Source and link of end 0's data messages since the last call.
    fn take(&mut self) -> Vec<(IpAddr, usize)> {
        let mut sent = Vec::new();
        for (way, wire) in self.wires.iter().enumerate() {
            let seen = wire.seen();
            for s in &seen[self.count[way]..] {
                if s.outgoing && s.data_len() == Some(64) {
                    sent.push((s.src.ip(), way));
                }
            }
            self.count[way] = seen.len();
        }
        sent
    }

    /// Adds (`on`) or removes end 0's route to end 1 over the second link.
    fn detour(&mut self, on: bool) -> Result<()> {
        let to = (outer(self.v6, 1), if self.v6 { 128 } else { 32 });
        Ok(self.tunnel.rt(0).route(on, to, "w0")?)
    }
}

fn second(v6: bool) -> IpAddr {
    if v6 {
        // In its own network, or it would be preferred.
        [0x2001, 0xdb8, 9, 0, 0, 0, 0, 0x101].into()
    } else {
        [192, 0, 2, 101].into()
    }
}

/// The address of end `n` on the second link.
fn other_way(v6: bool, n: u8) -> IpAddr {
    if v6 {
        [0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(n) + 1].into()
    } else {
        [198, 51, 100, n + 1].into()
    }
}

fn length(v6: bool) -> u8 {
    if v6 {
        64
    } else {
        24
    }
}

/// Kept as long as it is valid; cleared when the address is removed, when an IPv4 route uses
/// another interface, and when port, fwmark or endpoint are set.
fn sticky(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let mut scene = Scene::new(ctx.plain(), v6)?;
        let first = outer(v6, 0);
        scene.pass(0)?;
        scene.add_second()?;
        scene.expect(first, 0, "at first")?;
        for _ in 0..3 {
            scene.stick()?;
        }
        // Setting the same value changes nothing; another mark does.
        let set = |scene: &mut Scene, conf: &DeviceConf| {
            let Tunnel { ends, link } = &mut scene.tunnel;
            ends[0].set(link, conf)
        };
        let with_port = DeviceConf {
            listen_port: Some(port(0)),
            ..DeviceConf::default()
        };
        set(&mut scene, &with_port)?;
        scene.expect(second(v6), 0, "the same port set")?;
        let with_mark = DeviceConf {
            fwmark: Some(7),
            ..DeviceConf::default()
        };
        set(&mut scene, &with_mark)?;
        scene.expect(first, 0, "a mark set")?;
        scene.stick()?;
        let with_port = DeviceConf {
            listen_port: Some(51000),
            ..DeviceConf::default()
        };
        set(&mut scene, &with_port)?;
        scene.expect(first, 0, "another port set")?;
        let with_port = DeviceConf {
            listen_port: Some(port(0)),
            ..DeviceConf::default()
        };
        set(&mut scene, &with_port)?;
        scene.stick()?;
        // An endpoint set by the user, even the same.
        let conf = PeerConf {
            endpoint: Some(SocketAddr::new(outer(v6, 1), port(1))),
            ..PeerConf::default()
        };
        scene.tunnel.set_peer(0, conf)?;
        scene.expect(first, 0, "the endpoint set")?;
        scene.stick()?;
        // The route uses another interface: for IPv4 the source is cleared, for IPv6 it may stay.
        scene.detour(true)?;
        if v6 {
            scene.expect(second(v6), 1, "another route")?;
            scene.detour(false)?;
            scene.expect(second(v6), 0, "the old route")?;
        } else {
            scene.expect(other_way(v6, 0), 1, "another route")?;
            scene.detour(false)?;
            // Not chosen again, though it would be valid.
            scene.expect(first, 0, "the old route")?;
            scene.stick()?;
        }
        // The address is removed.
        let addr = second(v6);
        scene.tunnel.rt(0).addr_del("v0", addr, length(v6))?;
        scene.expect(first, 0, "the address is gone")?;
        scene.add_second()?;
        scene.expect(first, 0, "the address is back")?;
    }
    Ok(())
}

/// A new mark and a new port clear the sources of all peers, not just of one.
fn cleared_for_all(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let mut scene = Scene::new(ctx.plain(), v6)?;
        let first = outer(v6, 0);
        scene.pass(0)?;
        scene.add_second()?;
        // The second peer has its own socket at end 1.
        let (keys, inside) = (Keys::random(), IpAddr::from([10, 9, 0, 50]));
        let conf = PeerConf {
            public_key: keys.public,
            allowed_ips: vec![(inside, 32)],
            ..PeerConf::default()
        };
        let Tunnel { ends, link } = &mut scene.tunnel;
        ends[0].set_peer(link, conf)?;
        let from = SocketAddr::new(outer(v6, 1), 40001);
        let to = SocketAddr::new(second(v6), port(0));
        let client = Client::new(link.end(1), keys, ends[0].public_key, from, to)?;
        let mut session = client.handshake()?;
        let source = |scene: &Scene| -> Result<IpAddr> {
            client.flush()?;
            scene.sockets[0].send_to(&[1; 100], (inside, 9))?;
            let (_, from) = client.receive(LIMIT)?.context("no message received")?;
            Ok(from.ip())
        };
        for (what, conf) in [
            (
                "a mark set",
                DeviceConf {
                    fwmark: Some(7),
                    ..DeviceConf::default()
                },
            ),
            (
                "another port set",
                DeviceConf {
                    listen_port: Some(51000),
                    ..DeviceConf::default()
                },
            ),
        ] {
            scene.stick()?;
            // Just a keepalive: anything received after the change would set the source again.
            let counted = |scene: &mut Scene| -> Result<u64> {
                let Tunnel { ends, link } = &mut scene.tunnel;
                let second = ends[0].get(link)?.peers.pop();
                Ok(second.context("no second peer")?.rx_bytes)
            };
            let before = counted(&mut scene)?;
            client.send(&session.data(&[]))?;
            let start = Instant::now();
            while counted(&mut scene)? != before + 32 {
                ensure!(
                    start.elapsed() < slow(LIMIT),
                    "before {what}: no keepalive received"
                );
                sleep(Duration::from_millis(5));
            }
            let is = source(&scene)?;
            ensure!(is == second(v6), "before {what}: sent from {is}");
            let Tunnel { ends, link } = &mut scene.tunnel;
            ends[0].set(link, &conf)?;
            let is = source(&scene)?;
            ensure!(is == first, "{what}: sent to the second peer from {is}");
            scene.expect(first, 0, what)?;
        }
    }
    Ok(())
}

/// The route to a peer is looked up once on each CPU, not for every message.
fn route_cache(ctx: &Ctx) -> Result<()> {
    let processors = thread::available_parallelism()?.get() as u64;
    for (v6, lookup) in [
        (false, "ip_route_output_flow"),
        (true, "ip6_dst_lookup_flow"),
    ] {
        let opts = Opts {
            v6,
            ..Opts::new(ctx.plain())
        };
        let mut tunnel = Tunnel::new(&opts)?;
        // The inner family differs from the outer one: all lookups counted are for messages.
        let at = SocketAddr::new(inner(!v6, 1), 9);
        let sink = udp(tunnel.ns(1), at)?;
        sink.set_read_timeout(Some(LIMIT))?;
        let socket = udp(tunnel.ns(0), SocketAddr::new(inner(!v6, 0), 0))?;
        socket.connect(at)?;
        let pass = |count| -> Result<()> {
            for n in 0..count {
                socket.send(b"tick")?;
                let got = sink.recv(&mut [0; 9]);
                got.with_context(|| format!("IPv6 {v6}: datagram {n}"))?;
            }
            Ok(())
        };
        pass(1)?;
        let calls = Calls::attach(&[lookup])?;
        pass(20)?;
        let count = calls.of(lookup)?;
        ensure!(
            count <= processors,
            "{lookup}: {count} times for 20 messages"
        );
        // With another mark there may be another route.
        let conf = DeviceConf {
            fwmark: Some(7),
            ..DeviceConf::default()
        };
        tunnel.ends[0].set(&tunnel.link, &conf)?;
        pass(1)?;
        let more = calls.of(lookup)?;
        ensure!(more > count, "{lookup}: not called after a mark was set");
    }
    Ok(())
}

/// When nothing was received from the peer for 15 s, and when a handshake is retried, the source
/// is cleared.
fn forgotten(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let mut scene = Scene::new(ctx.against_intree(), v6)?;
        let first = outer(v6, 0);
        scene.pass(0)?;
        scene.add_second()?;
        scene.stick()?;
        sleep(Duration::from_secs(11)); // all keepalives are over
        scene.mute(true)?;
        let start = scene.wires[0].seen().len();
        let to = SocketAddr::new(inner(false, 1), 9000);
        scene.sockets[0].send_to(b"tick", to)?;
        sleep(Duration::from_secs(25));
        let seen = scene.wires[0].seen();
        let ours: Vec<_> = seen[start..].iter().filter(|s| s.outgoing).collect();
        let data: Vec<IpAddr> = ours
            .iter()
            .filter(|s| s.data_len() == Some(64))
            .map(|s| s.src.ip())
            .collect();
        let initiations: Vec<IpAddr> = ours
            .iter()
            .filter(|s| s.is_initiation())
            .map(|s| s.src.ip())
            .collect();
        ensure!(
            data == [second(v6)],
            "IPv6 {v6}: the unanswered data was sent from {data:?}"
        );
        ensure!(
            initiations.len() >= 2 && initiations.iter().all(|ip| *ip == first),
            "IPv6 {v6}: initiations after 15 s of silence were sent from {initiations:?}"
        );
        scene.mute(false)?;
        sleep(Duration::from_secs(6));
        scene.expect(first, 0, "when it answers again")?;

        // The session is too old: the initiation is sent from the sticky source, a retry is not.
        scene.stick()?;
        sleep(Duration::from_secs(200));
        scene.mute(true)?;
        let start = scene.wires[0].seen().len();
        scene.sockets[0].send_to(b"tick", to)?;
        sleep(Duration::from_secs(12));
        let seen = scene.wires[0].seen();
        let initiations: Vec<IpAddr> = seen[start..]
            .iter()
            .filter(|s| s.outgoing && s.is_initiation())
            .map(|s| s.src.ip())
            .collect();
        ensure!(
            initiations.len() >= 2
                && initiations[0] == second(v6)
                && initiations[1..].iter().all(|ip| *ip == first),
            "IPv6 {v6}: initiations after the session's end were sent from {initiations:?}"
        );
        scene.mute(false)?;
        sleep(Duration::from_secs(6));
        scene.pass(0)?;
    }
    Ok(())
}

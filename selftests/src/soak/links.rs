// SPDX-License-Identifier: GPL-2.0-only
//! Devices that go up and down, come and go, and die with their namespaces.

use super::place::{ensure_inner, Place, MTU};
use anyhow::{Context, Result};
use harness::driver::PLAIN;
use harness::netns::Netns;
use harness::topo::{names, outer, port};
use harness::traffic::udp;
use harness::wgdev::{random_key, uapi, DeviceConf, Key, PeerConf, Wg};
use rand::rngs::StdRng;
use rand::Rng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Takes one of the tunnel's devices down and up, and changes its MTU.
pub fn up_down(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let n = rng.random_range(0..2);
    let name = names(n).0;
    let mut rt = place.ns(n).rtnl()?;
    let mut done = 0;
    while place.busy() {
        rt.set_up(name, false).context("down")?;
        sleep(Duration::from_millis(rng.random_range(0..5)));
        rt.set_up(name, true).context("up")?;
        ensure_inner(&mut rt, n)?;
        if rng.random_bool(0.3) {
            rt.set_mtu(name, rng.random_range(1280..=MTU))?;
        }
        done += 1;
        sleep(Duration::from_millis(rng.random_range(0..50)));
    }
    rt.set_mtu(name, MTU)?;
    Ok(done)
}

/// The configuration of a device that has one peer and sends to it at once.
fn conf(peer: Key, endpoint: SocketAddr, allowed: (IpAddr, u8)) -> DeviceConf {
    DeviceConf {
        private_key: Some(random_key()),
        peers: vec![PeerConf {
            public_key: peer,
            endpoint: Some(endpoint),
            keepalive: Some(1),
            allowed_ips: vec![allowed],
            ..PeerConf::default()
        }],
        ..DeviceConf::default()
    }
}

/// Creates and deletes devices beside the tunnel's, some of them up.
pub fn add_del(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let n: u8 = rng.random_range(0..2);
    let (mut rt, mut wg) = (place.ns(n).rtnl()?, place.wg(n)?);
    let there = SocketAddr::new(outer(rng.random(), 1 - n), port(1 - n));
    let other = place.public[usize::from(1 - n)];
    let mut alive: Vec<String> = Vec::new();
    let mut done = 0;
    while place.busy() {
        let name = format!("s{}", place.serial());
        rt.link_add(&name, PLAIN.kind).context("add")?;
        wg.set(
            &name,
            &conf(other, there, (Ipv4Addr::UNSPECIFIED.into(), 0)),
        )?;
        if rng.random_bool(0.7) {
            rt.set_up(&name, true).context("up")?;
        }
        alive.push(name);
        sleep(Duration::from_millis(rng.random_range(0..20)));
        while alive.len() > 8 || !alive.is_empty() && rng.random() {
            let name = alive.swap_remove(rng.random_range(0..alive.len()));
            rt.link_del(&name).context("delete")?;
            done += 1;
        }
    }
    for name in alive {
        rt.link_del(&name).context("delete")?;
    }
    Ok(done)
}

/// Namespaces that are deleted under the traffic of a device: the one where it is, the one where it
/// was created and has its sockets, or both in one.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Created in `a`, moved to the namespace that dies.
    Home,
    /// Created in the namespace that dies, moved to `a`.
    Creator,
    /// Created in the namespace that dies.
    Both,
}

/// Deletes namespaces with a device in them that has a tunnel to end 1.
pub fn namespaces(place: &Place, rng: &mut StdRng) -> Result<u64> {
    let mut done = 0;
    while place.busy() {
        let death = [Death::Home, Death::Creator, Death::Both][rng.random_range(0..3)];
        one_death(place, rng, death).with_context(|| format!("{death:?} dies"))?;
        done += 1;
    }
    Ok(done)
}

fn one_death(place: &Place, rng: &mut StdRng, death: Death) -> Result<()> {
    let serial = place.serial();
    let (name, veth) = (format!("t{serial}"), format!("u{serial}"));
    let third = (serial % 250) as u8;
    let inside = |last| IpAddr::from([10, 8, third, last]);
    let outside = |last| IpAddr::from([198, 18, third, last]);
    let victim = Netns::new(&format!("x{serial}"))?;
    let (mut rt, mut rt_b) = (victim.rtnl()?, place.ns(1).rtnl()?);
    let mut rt_a = place.ns(0).rtnl()?;

    // The device, and its way to end 1.
    let endpoint = if let Death::Home = death {
        rt_a.link_add(&name, PLAIN.kind)?;
        rt_a.set_netns(&name, victim.fd())?;
        outer(rng.random(), 1)
    } else {
        let macs = [[2, 0, 0, 9, third, 1], [2, 0, 0, 9, third, 2]];
        rt.veth_add(("u", macs[0]), (&veth, macs[1]), place.ns(1).fd())?;
        for (rt, name, last) in [(&mut rt, "u", 1), (&mut rt_b, &*veth, 2)] {
            rt.set_up(name, true)?;
            rt.addr_add(name, outside(last), 24)?;
        }
        rt.link_add(&name, PLAIN.kind)?;
        if let Death::Creator = death {
            rt.set_netns(&name, place.ns(0).fd())?;
        }
        outside(2)
    };
    let (home, home_rt) = match death {
        Death::Creator => (place.ns(0), &mut rt_a),
        _ => (&victim, &mut rt),
    };
    let mut wg = Wg::open(home, PLAIN.kind)?;
    let there = SocketAddr::new(endpoint, port(1));
    wg.set(&name, &conf(place.public[1], there, (inside(2), 32)))?;
    home_rt.addr_add(&name, inside(1), 24)?;
    home_rt.set_up(&name, true)?;

    // The other end.
    let own = wg.get(&name)?.public_key.context("no public key")?;
    let peer = |flags| DeviceConf {
        peers: vec![PeerConf {
            public_key: own,
            flags,
            allowed_ips: vec![(inside(1), 32)],
            ..PeerConf::default()
        }],
        ..DeviceConf::default()
    };
    let mut wg_b = place.wg(1)?;
    wg_b.set("wg1", &peer(0))?;
    rt_b.addr_add("wg1", inside(2), 24)?;

    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let (out, back) = (udp(home, any)?, udp(place.ns(1), any)?);
    let span = Duration::from_millis(rng.random_range(5..200));
    let begin = Instant::now();
    while place.busy() && begin.elapsed() < span {
        burst(&out, inside(2));
        burst(&back, inside(1));
    }
    let early = rng.random();
    if let (Death::Creator, true) = (death, early) {
        rt_a.link_del(&name)?;
    }
    // A socket in the namespace would keep it alive.
    drop((out, rt, wg));
    drop(victim);
    // A kernel worker tears it down: keep the traffic going meanwhile.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(20) {
        burst(&back, inside(1));
    }
    if let (Death::Creator, false) = (death, early) {
        rt_a.link_del(&name)?;
    }
    wg_b.set("wg1", &peer(uapi::peer::F_REMOVE_ME))?;
    Ok(rt_b.addr_del("wg1", inside(2), 24)?)
}

/// Datagrams of mixed sizes; whether they arrive does not matter.
fn burst(socket: &UdpSocket, to: IpAddr) {
    for size in [0, 200, 1300, 1380] {
        let _ = socket.send_to(&[0; 1400][..size], SocketAddr::new(to, 7));
    }
    sleep(Duration::from_micros(300));
}

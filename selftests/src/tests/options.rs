// SPDX-License-Identifier: GPL-2.0-only
//! The requests for options of a device: what they set, what is refused, and that this changes
//! nothing. (What an option does is tested where it belongs.)

use super::atomic::ask;
use super::receive::Scene;
use super::{needs_ours, ours, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::Capture;
use harness::events::Listener;
use harness::netlink::Attrs;
use harness::netns::Netns;
use harness::noise::{self, Client, Keys};
use harness::options::{set, set_udp_gso, udp_gso};
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, outer, port, End, Link, Opts, Tunnel};
use harness::traffic::{ping_all, set_option, udp};
use harness::wgdev::{Key, PeerConf};
use harness::wire::{self, Frame};
use nix::errno::Errno;
use nix::unistd::{setuid, Uid};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;
use wireguard_rs::proto::extension::{attr, changed, device, event, options, peer, GENL_NAME};

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Boot, Check); 5] = [
        ("options-requests", Boot::Config, requests),
        ("options-dscp", Boot::Config, dscp),
        ("options-eager", Boot::Config, eager),
        ("options-fixed-endpoint", Boot::Config, fixed_endpoint),
        ("vtime-silence", Boot::Vtime, silence),
    ];
    for (name, boot, body) in tests {
        ours(
            list,
            name,
            boot,
            if boot == Boot::Vtime { 600 } else { 60 },
            body,
        );
    }
}

/// Switches an option of wg0.
fn switch(ns: &Netns, option: u16, on: bool) -> Result<()> {
    let mut fill = Attrs::new();
    fill.str(options::IFNAME, "wg0").u8(option, on.into());
    ns.run(|| Ok(set(GENL_NAME, &fill)?))
}

/// Sets something of a peer of wg0.
fn set_of_peer(ns: &Netns, key: &Key, fill: impl Fn(&mut Attrs)) -> Result<()> {
    let mut body = Attrs::new();
    body.str(device::IFNAME, "wg0");
    body.nest(device::PEERS, |list| {
        list.nest(0, |element| {
            element.put(peer::PUBLIC_KEY, key);
            fill(element);
        });
    });
    let answer = ns.run(|| ask(&body))?;
    ensure!(answer.result().is_ok(), "{}", answer.summary());
    Ok(())
}

/// The class of service of packets is that of their messages if it is to be copied.
fn dscp(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let sink = udp(tunnel.ns(1), SocketAddr::new(inner(false, 1), 9))?;
    sink.set_read_timeout(Some(Duration::from_secs(5)))?;
    let socket = udp(tunnel.ns(0), "0.0.0.0:0".parse()?)?;
    for on in [false, true, false] {
        switch(tunnel.ns(0), options::COPY_DSCP, on)?;
        let outside = Capture::start(tunnel.ns(0), "v0")?;
        // Expedited forwarding, a class, and none; with and without congestion notification.
        let classes = [0xb8, 0x28, 0x00, 0xba, 0x29];
        for class in classes {
            set_option(&socket, libc::SOL_IP, libc::IP_TOS, class.into())?;
            socket.send_to(&[class], SocketAddr::new(inner(false, 1), 9))?;
            let mut got = [0];
            sink.recv(&mut got)?;
            ensure!(got == [class], "{got:?}, not {class}");
        }
        let mut seen = Vec::new();
        for frame in outside.stop()? {
            if let Frame::Udp { tos, payload, .. } = wire::frame(&frame.bytes) {
                // Data with something in it.
                if payload.first() == Some(&4) && payload.len() > 32 {
                    seen.push(tos);
                }
            }
        }
        let mask = if on { 0xff } else { 0x03 };
        let wanted = classes.map(|class| class & mask);
        ensure!(
            seen == wanted,
            "copied {on}: {seen:02x?}, not {wanted:02x?}"
        );
    }
    Ok(())
}

/// A handshake begins as soon as the endpoint is known, and not otherwise.
fn eager(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut link = Link::new()?;
    let mut end = End::new(&mut link, 0, ctx.plain()[0], None)?;
    let to = SocketAddr::new(outer(false, 0), port(0));
    let mut client = |number: u16| -> Result<Client> {
        let keys = Keys::random();
        let from = SocketAddr::new(outer(false, 1), 9000 + number);
        let conf = PeerConf {
            public_key: keys.public,
            endpoint: Some(from),
            ..PeerConf::default()
        };
        let client = Client::new(link.end(1), keys, end.public_key, from, to)?;
        end.set_peer(&link, conf)?;
        Ok(client)
    };
    client(0)?.silence(Duration::from_millis(700))?;
    switch(link.end(0), options::EAGER_HANDSHAKE, true)?;
    let eager = client(1)?;
    eager.answer(Duration::from_secs(5))?;
    // And again when the interface goes up without a session.
    link.rt(0).set_up("wg0", false)?;
    eager.flush()?;
    link.rt(0).set_up("wg0", true)?;
    eager.wait_initiation(Duration::from_secs(10))?;
    Ok(())
}

/// A peer with a fixed endpoint is answered there, wherever its messages come from.
fn fixed_endpoint(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut scene = Scene::new(false)?;
    let mut session = scene.session()?;
    let key = scene.client.keys.public;
    let at = |scene: &mut Scene| Ok::<_, anyhow::Error>(scene.peer()?.endpoint);
    let first = at(&mut scene)?;
    let elsewhere = udp(scene.link.end(1), SocketAddr::new(outer(false, 1), 0))?;
    let to = SocketAddr::new(outer(false, 0), port(0));
    for fixed in [true, false] {
        set_of_peer(scene.link.end(0), &key, |element| {
            element.u8(peer::FIXED_ENDPOINT, fixed.into());
        })?;
        let before = scene.counters()?;
        elsewhere.send_to(&session.data(&[]), to)?;
        let moved = [("rx_packets", 1), ("rx_bytes", 32)];
        scene.expect(&before, &moved, "accepted from elsewhere")?;
        let now = at(&mut scene)?;
        ensure!(
            (now == first) == fixed,
            "fixed {fixed}: at {now:?}, at first {first:?}"
        );
    }
    // From there on it is where it has moved to, until it is said where it is.
    let conf = PeerConf {
        public_key: key,
        endpoint: first,
        ..PeerConf::default()
    };
    set_of_peer(scene.link.end(0), &key, |element| {
        element.u8(peer::FIXED_ENDPOINT, 1);
    })?;
    scene.device.set_peer(&scene.link, conf)?;
    ensure!(at(&mut scene)? == first, "not where it was set to be");
    // Handshakes do not move it either.
    let pending = noise::handshake::initiate(
        &scene.client.keys,
        &scene.device.public_key,
        &noise::Tweak::default(),
    );
    elsewhere.send_to(&pending.message, to)?;
    scene
        .client
        .wait_response(&pending, Duration::from_secs(5))?;
    ensure!(at(&mut scene)? == first, "moved by a handshake");
    Ok(())
}

/// A peer from which no data comes is told of once, keepalives or not; again after data.
fn silence(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let key = tunnel.ends[1].public_key;
    let mut listener = Listener::open(tunnel.ns(0), GENL_NAME)?;
    let limit = |seconds: u16| {
        set_of_peer(tunnel.ns(0), &key, |element| {
            element.u16(peer::SILENCE, seconds);
        })
    };
    limit(20)?;
    for round in 0..2 {
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
        listener.drain()?;
        sleep(Duration::from_secs(14));
        let early = listener.drain()?;
        ensure!(early.is_empty(), "round {round}: after 14 s {early:?}");
        sleep(Duration::from_secs(13));
        let told = listener.drain()?;
        let [silent] = told.as_slice() else {
            anyhow::bail!("round {round}: after 27 s {told:?}");
        };
        ensure!(
            silent.kind == event::PEER_SILENT
                && silent.key() == Some(key)
                && silent.u32(attr::SECONDS) == Some(20)
                && silent.port(attr::ENDPOINT) == Some(port(1)),
            "round {round}: {silent:?}"
        );
        sleep(Duration::from_secs(60));
        let again = listener.drain()?;
        ensure!(again.is_empty(), "round {round}: again {again:?}");
    }
    // Data keeps it from being told.
    for _ in 0..6 {
        sleep(Duration::from_secs(10));
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    }
    limit(0)?;
    sleep(Duration::from_secs(60));
    let none = listener.drain()?;
    ensure!(
        none.iter().all(|event| event.kind != event::PEER_SILENT),
        "although there was data: {none:?}"
    );
    Ok(())
}

/// Writes a request.
type Fill<'a> = &'a (dyn Fn(&mut Attrs) + Sync);

fn requests(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let mut listener = Listener::open(tunnel.ns(0), GENL_NAME)?;
    let index = tunnel.ns(0).rtnl()?.index("wg0")?;
    tunnel.ns(0).run(|| {
        ensure!(udp_gso(GENL_NAME, "wg0")?, "off from the start");
        for on in [false, false, true] {
            set_udp_gso(GENL_NAME, "wg0", on)?;
            ensure!(udp_gso(GENL_NAME, "wg0")? == on, "not set to {on}");
            let told = listener.wait(event::DEVICE_CHANGED)?;
            ensure!(
                told.u32(attr::CHANGED) == Some(changed::UDP_GSO),
                "{told:?}"
            );
        }
        Ok(())
    })?;
    let refused: [(&str, Errno, Fill); 11] = [
        ("no device", Errno::EBADR, &|fill| {
            fill.u8(options::UDP_GSO, 0);
        }),
        ("a device named twice", Errno::EBADR, &|fill| {
            fill.str(options::IFNAME, "wg0")
                .u32(options::IFINDEX, index)
                .u8(options::UDP_GSO, 0);
        }),
        ("a device that is none", Errno::ENODEV, &|fill| {
            fill.str(options::IFNAME, "wg9").u8(options::UDP_GSO, 0);
        }),
        ("a device of the other namespace", Errno::ENODEV, &|fill| {
            fill.str(options::IFNAME, "wg1").u8(options::UDP_GSO, 0);
        }),
        ("a device of another kind", Errno::EOPNOTSUPP, &|fill| {
            fill.str(options::IFNAME, "v0").u8(options::UDP_GSO, 0);
        }),
        ("neither 0 nor 1", Errno::EINVAL, &|fill| {
            fill.str(options::IFNAME, "wg0").u8(options::UDP_GSO, 2);
        }),
        ("two bytes", Errno::EINVAL, &|fill| {
            fill.str(options::IFNAME, "wg0").u16(options::UDP_GSO, 0);
        }),
        ("an interface that is none", Errno::ENODEV, &|fill| {
            fill.str(options::IFNAME, "wg0")
                .str(options::BIND_INTERFACE, "nosuch");
        }),
        ("an IPv4 address of three bytes", Errno::ERANGE, &|fill| {
            fill.str(options::IFNAME, "wg0")
                .put(options::BIND_ADDRESS4, &[192, 0, 2]);
        }),
        ("an attribute that is none", Errno::EINVAL, &|fill| {
            fill.str(options::IFNAME, "wg0").u8(options::UDP_GSO, 0);
            fill.u8(options::BIND_ADDRESS6 + 1, 0);
        }),
        ("a name without an end", Errno::EINVAL, &|fill| {
            fill.put(options::IFNAME, b"wg0").u8(options::UDP_GSO, 0);
        }),
    ];
    tunnel.ns(0).run(|| {
        for (what, wanted, request) in refused {
            let mut fill = Attrs::new();
            request(&mut fill);
            let got = set(GENL_NAME, &fill);
            ensure!(got == Err(wanted), "{what}: {got:?}, not {wanted}");
            ensure!(udp_gso(GENL_NAME, "wg0")?, "{what}: but it is off now");
        }
        // Nothing to set is no error.
        let mut fill = Attrs::new();
        fill.u32(options::IFINDEX, index);
        set(GENL_NAME, &fill).context("nothing to set")?;
        ensure!(udp_gso(GENL_NAME, "wg0")?, "nothing was to be set");
        ensure!(listener.drain()?.is_empty(), "told, though nothing was set");
        // For the rest of this process.
        setuid(Uid::from_raw(65534))?;
        for got in [
            udp_gso(GENL_NAME, "wg0").map(drop),
            set_udp_gso(GENL_NAME, "wg0", false),
        ] {
            ensure!(got == Err(Errno::EPERM), "without the right to: {got:?}");
        }
        Ok(())
    })
}

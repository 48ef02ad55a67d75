// SPDX-License-Identifier: GPL-2.0-only
//! The topology of most tests: two namespaces, a veth pair between them, a tunnel over it.
//!
//! End 0 has the device `wg0`, end 1 `wg1`; the veth ends are `v0` and `v1`. Addresses, with the
//! end's number plus one as the last part: outside 192.0.2.N and 2001:db8::N, inside 10.9.0.N and
//! fd09::N. The underlay's neighbour entries are fixed, so that there is no ARP in captures and
//! an end can be silenced ([`Link::mute`]) without the other's stack noticing.

use super::capture::Capture;
use super::driver::Driver;
use super::netns::Netns;
use super::nics::Nics;
use super::rtnl::{Counters, Rtnl};
use super::runner::Ctx;
use super::tool;
use super::wgdev::{random_key, Device, DeviceConf, Key, Peer, PeerConf, Wg};
use anyhow::{ensure, Context, Result};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use x25519_dalek::{PublicKey, StaticSecret};

/// Outside address of end `n`.
pub fn outer(v6: bool, n: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n) + 1).into()
    } else {
        Ipv4Addr::new(192, 0, 2, n + 1).into()
    }
}

/// Inside address of end `n`.
pub fn inner(v6: bool, n: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, u16::from(n) + 1).into()
    } else {
        Ipv4Addr::new(10, 9, 0, n + 1).into()
    }
}

/// The UDP port that end `n` listens on.
pub fn port(n: u8) -> u16 {
    51820 + u16::from(n)
}

/// The MAC address of veth end `n`.
pub fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n + 1]
}

/// The names of end `n`'s WireGuard device and veth end.
pub fn names(n: u8) -> (&'static str, &'static str) {
    if n == 0 {
        ("wg0", "v0")
    } else {
        ("wg1", "v1")
    }
}

/// Two namespaces joined by a veth pair.
pub struct Link {
    /// The namespaces.
    pub ns: [Netns; 2],
    rt: [Rtnl; 2],
}

impl Link {
    /// Creates the namespaces `a` and `b` and the veth pair, up and with addresses.
    pub fn new() -> Result<Self> {
        let mut link = Self::without_wire()?;
        let fd = link.ns[1].fd();
        link.rt[0]
            .veth_add(("v0", mac(0)), ("v1", mac(1)), fd)
            .context("add veth")?;
        link.set_up()
    }

    /// As [`Link::new`], with two network cards of the initial namespace in the place of the veth
    /// pair.
    pub fn over(nics: &Nics) -> Result<Self> {
        let link = Self::without_wire()?;
        for n in 0..2 {
            let (_, name) = names(n);
            nics.give(usize::from(n), link.end(n), name, mac(n))?;
        }
        link.set_up()
    }

    fn without_wire() -> Result<Self> {
        let ns = [Netns::new("a")?, Netns::new("b")?];
        let rt = [ns[0].rtnl()?, ns[1].rtnl()?];
        Ok(Link { ns, rt })
    }

    fn set_up(mut self) -> Result<Self> {
        for n in 0..2u8 {
            let (_, veth) = names(n);
            self.end(n).run(|| {
                // No router solicitations in captures.
                fs::write(format!("/proc/sys/net/ipv6/conf/{veth}/accept_ra"), "0").ok();
                Ok(())
            })?;
            let rt = self.rt(n);
            rt.set_up(veth, true)?;
            for (v6, cidr) in [(false, 24), (true, 64)] {
                rt.addr_add(veth, outer(v6, n), cidr)?;
            }
        }
        self.mute(0, false)?;
        self.mute(1, false)?;
        Ok(self)
    }

    /// Makes the other end's stack ignore (`on`), or accept again, what end `n` sends over the
    /// veth, by sending it to a wrong MAC address. Captures on either side still see it.
    pub fn mute(&mut self, n: u8, on: bool) -> Result<()> {
        let other = 1 - n;
        let to = if on {
            [2, 0, 0, 0, 0, 0xee]
        } else {
            mac(other)
        };
        let (_, veth) = names(n);
        for v6 in [false, true] {
            self.rt[usize::from(n)].neigh_set(veth, outer(v6, other), to)?;
        }
        Ok(())
    }

    /// The route netlink socket of end `n`.
    pub fn rt(&mut self, n: u8) -> &mut Rtnl {
        &mut self.rt[usize::from(n)]
    }

    /// The namespace of end `n`.
    pub fn end(&self, n: u8) -> &Netns {
        &self.ns[usize::from(n)]
    }

    /// Only the namespaces: drops everything else that keeps them alive.
    pub fn into_namespaces(self) -> [Netns; 2] {
        self.ns
    }
}

/// How a device is configured.
enum Config {
    Netlink(Wg),
    Tool,
}

/// One end of a tunnel.
pub struct End {
    config: Config,
    n: u8,
    /// Its public key.
    pub public_key: Key,
}

impl End {
    /// Creates the device of end `n` in its namespace with a random key, its port and its inside
    /// addresses, and brings it up.
    pub fn new(link: &mut Link, n: u8, driver: Driver, mtu: Option<u32>) -> Result<Self> {
        let (name, _) = names(n);
        if let Some(program) = driver.program {
            program.start(link.end(n), name)?;
        } else {
            let made = link.rt(n).link_add(name, driver.kind);
            made.with_context(|| format!("ip link add {name} type {}", driver.kind))?;
        }
        let config = if driver.by_tool {
            Config::Tool
        } else {
            Config::Netlink(Wg::open(link.end(n), driver.kind)?)
        };
        let mut end = End {
            config,
            n,
            public_key: [0; 32],
        };
        let private_key = random_key();
        end.set(
            link,
            &DeviceConf {
                private_key: Some(private_key),
                listen_port: Some(port(n)),
                ..DeviceConf::default()
            },
        )?;
        end.public_key = PublicKey::from(&StaticSecret::from(private_key)).to_bytes();
        let told = end.get(link)?.public_key;
        // boringtun does not report it.
        ensure!(
            told == Some(end.public_key) || told.is_none() && driver.program.is_some(),
            "the device tells a wrong public key"
        );
        if let Some(mtu) = mtu {
            link.rt(n).set_mtu(name, mtu)?;
        }
        link.rt(n).addr_add(name, inner(false, n), 24)?;
        link.rt(n).addr_add(name, inner(true, n), 64)?;
        link.rt(n)
            .set_up(name, true)
            .with_context(|| format!("ip link set {name} up"))?;
        Ok(end)
    }

    /// Configures the device.
    pub fn set(&mut self, link: &Link, conf: &DeviceConf) -> Result<()> {
        let (name, _) = names(self.n);
        match &mut self.config {
            Config::Netlink(wg) => Ok(wg.set(name, conf)?),
            Config::Tool => tool::set(link.end(self.n), name, conf),
        }
    }

    /// Configures one peer.
    pub fn set_peer(&mut self, link: &Link, peer: PeerConf) -> Result<()> {
        self.set(
            link,
            &DeviceConf {
                peers: vec![peer],
                ..DeviceConf::default()
            },
        )
    }

    /// The device's state.
    pub fn get(&mut self, link: &Link) -> Result<Device> {
        let (name, _) = names(self.n);
        match &mut self.config {
            Config::Netlink(wg) => Ok(wg.get(name)?),
            Config::Tool => tool::get(link.end(self.n), name),
        }
    }

    /// The state of its only peer.
    pub fn peer(&mut self, link: &Link) -> Result<Peer> {
        self.get(link)?.peers.into_iter().next().context("no peer")
    }
}

/// Options of a tunnel.
#[derive(Clone, Debug)]
pub struct Opts {
    /// The implementation of each end.
    pub drivers: [Driver; 2],
    /// IPv6 outside.
    pub v6: bool,
    /// Each end's preshared key for the other.
    pub psk: [Option<Key>; 2],
    /// Which ends know the other's endpoint.
    pub endpoints: [bool; 2],
    /// Each end's persistent keepalive in seconds.
    pub keepalive: [Option<u16>; 2],
    /// The MTU of both devices, if not the default.
    pub mtu: Option<u32>,
}

impl Opts {
    /// Both endpoints known, IPv4 outside, nothing special.
    pub fn new(drivers: [Driver; 2]) -> Self {
        Opts {
            drivers,
            v6: false,
            psk: [None; 2],
            endpoints: [true; 2],
            keepalive: [None; 2],
            mtu: None,
        }
    }
}

/// Two namespaces with a configured tunnel between them, no handshake done yet.
pub struct Tunnel {
    /// The underlay.
    pub link: Link,
    /// The tunnel's ends.
    pub ends: [End; 2],
}

impl Tunnel {
    /// Creates both ends and configures them as peers.
    pub fn new(opts: &Opts) -> Result<Self> {
        Self::over(Link::new()?, opts)
    }

    /// The same over that underlay.
    pub fn over(mut link: Link, opts: &Opts) -> Result<Self> {
        let mut ends = [
            End::new(&mut link, 0, opts.drivers[0], opts.mtu)?,
            End::new(&mut link, 1, opts.drivers[1], opts.mtu)?,
        ];
        let keys = [ends[0].public_key, ends[1].public_key];
        for n in 0..2u8 {
            let (own, other) = (usize::from(n), usize::from(1 - n));
            let peer = PeerConf {
                public_key: keys[other],
                preshared_key: opts.psk[own],
                endpoint: opts.endpoints[own]
                    .then(|| SocketAddr::new(outer(opts.v6, 1 - n), port(1 - n))),
                keepalive: opts.keepalive[own],
                flags: 0,
                allowed_ips: vec![(inner(false, 1 - n), 32), (inner(true, 1 - n), 128)],
            };
            ends[own].set_peer(&link, peer)?;
        }
        Ok(Tunnel { link, ends })
    }

    /// The namespace of end `n`.
    pub fn ns(&self, n: u8) -> &Netns {
        self.link.end(n)
    }

    /// The route netlink socket of end `n`.
    pub fn rt(&mut self, n: u8) -> &mut Rtnl {
        self.link.rt(n)
    }

    /// The counters of end `n`'s device.
    pub fn counters(&mut self, n: u8) -> Result<Counters> {
        Ok(self.rt(n).counters(names(n).0)?)
    }

    /// Waits until exactly these counters of end `n`'s device have changed by these amounts since
    /// `before`; `what` is the reason, for the error.
    pub fn expect_moved(
        &mut self,
        n: u8,
        before: &Counters,
        wanted: &[(&'static str, u64)],
        what: impl std::fmt::Display,
    ) -> Result<()> {
        let moved = self.rt(n).expect_moved(names(n).0, before, wanted);
        moved.with_context(|| what.to_string())
    }

    /// See [`Link::mute`].
    pub fn mute(&mut self, n: u8, on: bool) -> Result<()> {
        self.link.mute(n, on)
    }

    /// The state of end `n`'s only peer.
    pub fn peer(&mut self, n: u8) -> Result<Peer> {
        self.ends[usize::from(n)].peer(&self.link)
    }

    /// Configures end `n`'s peer; its public key is filled in.
    pub fn set_peer(&mut self, n: u8, mut conf: PeerConf) -> Result<()> {
        conf.public_key = self.ends[usize::from(1 - n)].public_key;
        self.ends[usize::from(n)].set_peer(&self.link, conf)
    }

    /// Starts a capture on end `n`'s side of the underlay.
    pub fn watch(&self, ctx: &Ctx, n: u8) -> Result<Capture> {
        let (_, veth) = names(n);
        let capture = Capture::start(self.ns(n), veth)?;
        ctx.keep(veth, capture.frames(), 1);
        Ok(capture)
    }
}

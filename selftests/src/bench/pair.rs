// SPDX-License-Identifier: GPL-2.0-only
//! What is measured: two namespaces joined by a veth pair, with or without a tunnel over it, and
//! behind each of them a host whose packets they forward.
//!
//! Every implementation has its own pair; all pairs exist side by side for the whole run and differ
//! only in the driver. Addresses are those of [`topo`]; the pairs do not see each other, so all use
//! the same ones.

use super::others::{join_by, join_by_openvpn, Esp};
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::nics::Nics;
use harness::rtnl::LinkStats;
use harness::topo::{inner, mac, names, outer, port};
use harness::userspace::Program;
use harness::wgdev::{random_key, DeviceConf, PeerConf, Wg};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

/// One contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Impl {
    /// The in-tree driver.
    C,
    /// This driver, loaded with `coexist=1`.
    Rs,
    /// The same, while a program listens to the events of each end.
    RsHeard,
    /// No tunnel at all: what the underlay carries.
    Veth,
    /// IPsec in the kernel, with the cipher of WireGuard.
    Esp,
    /// IPsec in the kernel, with AES-GCM.
    EspGcm,
    /// wireguard-go.
    Go,
    /// Cloudflare's boringtun.
    Boringtun,
    /// Mullvad's gotatun.
    Gotatun,
    /// OpenVPN, in user space.
    Openvpn,
}

impl Impl {
    /// Its heading in the table and its key in the JSON file.
    pub fn label(self) -> &'static str {
        match self {
            Impl::C => "c",
            Impl::Rs => "rs",
            Impl::RsHeard => "rs-heard",
            Impl::Veth => "veth",
            Impl::Esp => "esp",
            Impl::EspGcm => "esp-gcm",
            Impl::Go => "go",
            Impl::Boringtun => "boringtun",
            Impl::Gotatun => "gotatun",
            Impl::Openvpn => "openvpn",
        }
    }

    /// Whether it is one of the two modules, or the bare link: only there do hosts behind the two
    /// ends reach each other.
    pub fn is_module_or_link(self) -> bool {
        self.other().is_none()
    }

    /// Whether a socket may send several datagrams in one call (`UDP_SEGMENT`): the stack refuses
    /// that where IPsec applies.
    pub fn takes_segments(self) -> bool {
        !matches!(self, Impl::Esp | Impl::EspGcm)
    }

    /// How it joins two ends, unless it is a device of the kernel.
    fn other(self) -> Option<Other> {
        Some(match self {
            Impl::C | Impl::Rs | Impl::RsHeard | Impl::Veth => return None,
            Impl::Esp => Other::Esp(Esp::ChaChaPoly),
            Impl::EspGcm => Other::Esp(Esp::AesGcm),
            Impl::Go => Other::Program(Program::Go),
            Impl::Boringtun => Other::Program(Program::BoringTun),
            Impl::Gotatun => Other::Program(Program::GotaTun),
            Impl::Openvpn => Other::OpenVpn,
        })
    }
}

/// A contender that is no device of the kernel.
enum Other {
    Esp(Esp),
    Program(Program),
    OpenVpn,
}

/// Where traffic goes from and to.
pub struct Ends<'a> {
    /// The namespaces: the first one sends.
    pub ns: [&'a Netns; 2],
    /// Their addresses.
    pub addr: [IpAddr; 2],
}

/// The address of end `n`'s host, or that of the end itself as the host sees it.
fn behind(n: u8, host: bool) -> IpAddr {
    Ipv4Addr::new(10, 20, n, 1 + u8::from(host)).into()
}

/// The MAC addresses of an end towards its host, and of the host.
fn behind_mac(n: u8) -> [[u8; 6]; 2] {
    [mac(10 + n), mac(20 + n)]
}

/// Two namespaces and the addresses between which traffic flows.
pub struct Pair {
    /// The contender.
    pub who: Impl,
    /// End 0 sends, end 1 receives.
    ns: [Netns; 2],
    hosts: [Netns; 2],
    device: String,
    /// Listen to events until the pair goes.
    listeners: Vec<Listener>,
}

/// A `wg-rs events`.
struct Listener(Child);

impl Listener {
    fn start(end: &Netns) -> Result<Self> {
        let tool = std::env::var_os("WGRS_TOOL").context("set WGRS_TOOL to the path of wg-rs")?;
        let mut command = Command::new(tool);
        command.arg("events").stdout(Stdio::null());
        end.run(|| Ok(Self(command.spawn().context("wg-rs events")?)))
    }

    /// Fails if it has ended.
    fn listens(&mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "wg-rs events: {ended:?}");
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pair {
    /// Creates the namespaces, the veth pair (or `nics` in its place), and a device of link kind
    /// `kind` (which is also the name of its generic netlink family) at each end; without a kind,
    /// only the veth pair.
    pub fn new(who: Impl, kind: Option<&str>, nics: Option<&Nics>) -> Result<Self> {
        let label = who.label();
        let ns = [
            Netns::new(&format!("{label}0"))?,
            Netns::new(&format!("{label}1"))?,
        ];
        let hosts = [
            Netns::new(&format!("{label}0h"))?,
            Netns::new(&format!("{label}1h"))?,
        ];
        let mut rt = [ns[0].rtnl()?, ns[1].rtnl()?];
        match nics {
            Some(nics) => {
                for (n, ns) in (0u8..).zip(&ns) {
                    nics.give(usize::from(n), ns, names(n).1, mac(n))?;
                }
            }
            None => rt[0]
                .veth_add(("v0", mac(0)), ("v1", mac(1)), ns[1].fd())
                .context("add veth")?,
        }
        for (n, rt) in (0u8..).zip(&mut rt) {
            let (_, veth) = names(n);
            rt.set_up(veth, true)?;
            rt.addr_add(veth, outer(false, n), 24)?;
            // No ARP in the middle of a measurement.
            rt.neigh_set(veth, outer(false, 1 - n), mac(1 - n))?;
        }
        for (n, host) in (0u8..).zip(&hosts) {
            add_host(&ns[usize::from(n)], host, n)?;
        }
        if let Some(other) = who.other() {
            let device = match other {
                Other::Esp(esp) => esp.join(&ns).map(|()| "v0".to_owned()),
                Other::Program(program) => {
                    join_by(program, label, &ns).map(|()| format!("{label}0"))
                }
                Other::OpenVpn => join_by_openvpn(&ns).map(|()| "openvpn0".to_owned()),
            }?;
            return Ok(Pair {
                who,
                ns,
                hosts,
                device,
                listeners: Vec::new(),
            });
        }
        let Some(kind) = kind else {
            for (n, rt) in (0u8..).zip(&mut rt) {
                let (_, veth) = names(n);
                rt.route(true, (behind(1 - n, true), 32), veth)?;
                rt.neigh_set(veth, behind(1 - n, true), mac(1 - n))?;
            }
            return Ok(Pair {
                who,
                ns,
                hosts,
                device: "v0".to_owned(),
                listeners: Vec::new(),
            });
        };
        let mut listeners = Vec::new();
        if who == Impl::RsHeard {
            for end in &ns {
                listeners.push(Listener::start(end)?);
            }
        }
        let mut keys = Vec::new();
        for (n, rt) in (0u8..).zip(&mut rt) {
            let (name, _) = names(n);
            rt.link_add(name, kind)
                .with_context(|| format!("ip link add type {kind}"))?;
            let mut wg = Wg::open(&ns[usize::from(n)], kind)?;
            let conf = DeviceConf {
                private_key: Some(random_key()),
                listen_port: Some(port(n)),
                ..DeviceConf::default()
            };
            wg.set(name, &conf)
                .with_context(|| format!("configure a {kind} device"))?;
            keys.push(
                wg.get(name)?
                    .public_key
                    .context("the device reports no public key")?,
            );
            rt.addr_add(name, inner(false, n), 24)?;
            rt.set_up(name, true)?;
        }
        for (n, key) in (0u8..).zip(keys.iter().rev()) {
            let (name, _) = names(n);
            let peer = PeerConf {
                public_key: *key,
                endpoint: Some(SocketAddr::new(outer(false, 1 - n), port(1 - n))),
                allowed_ips: vec![(inner(false, 1 - n), 32), (behind(1 - n, true), 32)],
                ..PeerConf::default()
            };
            let conf = DeviceConf {
                peers: vec![peer],
                ..DeviceConf::default()
            };
            Wg::open(&ns[usize::from(n)], kind)?.set(name, &conf)?;
            rt[usize::from(n)].route(true, (behind(1 - n, true), 32), name)?;
        }
        Ok(Pair {
            who,
            ns,
            hosts,
            device: "wg0".to_owned(),
            listeners,
        })
    }

    /// Fails if a program that listens has ended.
    pub fn check(&mut self) -> Result<()> {
        self.listeners.iter_mut().try_for_each(Listener::listens)
    }

    /// From end to end, over what is measured.
    pub fn ends(&self) -> Ends<'_> {
        let addr = |n| match self.who {
            Impl::Veth => outer(false, n),
            _ => inner(false, n),
        };
        Ends {
            ns: [&self.ns[0], &self.ns[1]],
            addr: [addr(0), addr(1)],
        }
    }

    /// From host to host: both ends forward.
    pub fn hosts(&self) -> Ends<'_> {
        Ends {
            ns: [&self.hosts[0], &self.hosts[1]],
            addr: [behind(0, true), behind(1, true)],
        }
    }

    /// Has the sending end's device pace its flows, until the result is dropped.
    pub fn pace(&self) -> Result<impl Drop + '_> {
        struct Fq<'a>(&'a Pair);
        impl Drop for Fq<'_> {
            fn drop(&mut self) {
                let _ = self.0.ns[0].sh(&format!("tc qdisc del dev {} root", self.0.device));
            }
        }
        let add = format!("tc qdisc add dev {} root fq", self.device);
        self.ns[0].sh(&add).map(|_| Fq(self))
    }

    /// The counters of the sending end's device.
    pub fn stats(&self) -> Result<LinkStats> {
        Ok(self.ns[0].rtnl()?.stats(&self.device)?)
    }
}

/// Adds the host behind end `n`, with an MTU that fits into the tunnel.
fn add_host(end: &Netns, host: &Netns, n: u8) -> Result<()> {
    let [near, far] = behind_mac(n);
    let [mut end_rt, mut host_rt] = [end.rtnl()?, host.rtnl()?];
    end_rt
        .veth_add(("h0", near), ("h1", far), host.fd())
        .context("add veth")?;
    for (rt, name, is_host) in [(&mut end_rt, "h0", false), (&mut host_rt, "h1", true)] {
        rt.set_mtu(name, 1420)?;
        rt.set_up(name, true)?;
        rt.addr_add(name, behind(n, is_host), 30)?;
    }
    end_rt.neigh_set("h0", behind(n, true), far)?;
    host_rt.route(true, (behind(1 - n, true), 32), "h1")?;
    host_rt.neigh_set("h1", behind(1 - n, true), near)?;
    end.run(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))
        .context("ip_forward")
}

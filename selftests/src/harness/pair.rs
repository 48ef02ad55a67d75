// SPDX-License-Identifier: GPL-2.0-only
//! Two devices that must behave alike: the in-tree driver's and ours, each called `wg0`, with the
//! same interface number, each in its own namespace. The same request bytes can be sent to both,
//! and the answers must be equal byte by byte.

use super::gnl::{Answer, Gnl, Request, DUMP};
use super::netlink::{family_id, Attrs, Netlink};
use super::netns::Netns;
use super::rtnl::Rtnl;
use super::runner::Ctx;
use super::topo::{inner, outer, port, Link};
use super::traffic::ping_all;
use super::wgdev::{parse_dump, uapi, Device, DeviceConf, Key, PeerConf, Wg};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use std::fs;
use std::net::SocketAddr;

/// The name of both devices.
pub const NAME: &str = "wg0";
/// The interface number of both devices.
pub const INDEX: u32 = 100;

/// The two devices, the in-tree driver's first; a veth pair joins their namespaces.
pub struct Pair {
    /// Their namespaces and the underlay between them.
    pub link: Link,
    kinds: [&'static str; 2],
    families: [u16; 2],
    sockets: [Gnl; 2],
}

/// The names of the sides in messages.
pub const SIDES: [&str; 2] = ["in-tree", "ours"];

/// A pair's answers to one request.
pub type Answers = [Answer; 2];

/// The request for a dump of `wg0`.
pub fn get() -> Request {
    get_named(NAME)
}

/// The request for a dump of this device.
pub fn get_named(name: &str) -> Request {
    let mut attrs = Attrs::new();
    attrs.str(uapi::device::IFNAME, name);
    Request::new(DUMP, uapi::cmd::GET_DEVICE, attrs.bytes())
}

impl Pair {
    /// Creates both devices, down and unconfigured. Needs both modules.
    pub fn new(ctx: &Ctx) -> Result<Self> {
        let [ours, intree] = ctx.against_intree();
        let kinds = [intree.kind, ours.kind];
        let mut link = Link::new()?;
        let mut families = [0; 2];
        for (n, kind) in kinds.iter().enumerate() {
            families[n] = link.ns[n].run(|| {
                let mut nl = Netlink::generic()?;
                family_id(&mut nl, kind).with_context(|| format!("family {kind}"))
            })?;
            link.rt(n as u8).link_add_at(INDEX, NAME, kind)?;
        }
        let sockets = [
            open(&link.ns[0], families[0])?,
            open(&link.ns[1], families[1])?,
        ];
        Ok(Pair {
            link,
            kinds,
            families,
            sockets,
        })
    }

    /// The link kind of side `n`, which is also the name of its netlink family.
    pub fn kind(&self, n: usize) -> &'static str {
        self.kinds[n]
    }

    /// The number of side `n`'s generic netlink family.
    pub fn family(&self, n: usize) -> u16 {
        self.families[n]
    }

    /// The namespace of side `n`.
    pub fn ns(&self, n: usize) -> &Netns {
        &self.link.ns[n]
    }

    /// The route netlink socket of side `n`.
    pub fn rt(&mut self, n: usize) -> &mut Rtnl {
        self.link.rt(n as u8)
    }

    /// Deletes and recreates both devices, and opens new sockets.
    pub fn remake(&mut self) -> Result<()> {
        for n in 0..2 {
            let kind = self.kinds[n];
            let rt = self.rt(n);
            match rt.link_del(NAME) {
                Ok(()) | Err(Errno::ENODEV) => {}
                Err(e) => return Err(e).context("link del"),
            }
            rt.link_add_at(INDEX, NAME, kind)?;
            self.sockets[n] = self.socket(n)?;
        }
        Ok(())
    }

    /// Disables threaded NAPI on the in-tree device: no kernel thread for each peer added from now
    /// on. Neither device may have peers.
    pub fn unthread(&mut self) -> Result<()> {
        // It can be set only while there is a peer; add one to both and remove it again.
        let mut conf = DeviceConf {
            peers: vec![PeerConf::default()],
            ..DeviceConf::default()
        };
        self.wg(0)?.set(NAME, &conf)?;
        self.wg(1)?.set(NAME, &conf)?;
        self.ns(0).run(|| {
            // A sysfs mount that shows the thread's network namespace.
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount(none, "/sys", Some("sysfs"), MsFlags::empty(), none).context("sysfs")?;
            let path = format!("/sys/class/net/{NAME}/threaded");
            fs::write(&path, "0").context(path)
        })?;
        conf.peers[0].flags = uapi::peer::F_REMOVE_ME;
        self.wg(0)?.set(NAME, &conf)?;
        Ok(self.wg(1)?.set(NAME, &conf)?)
    }

    /// Brings both devices up or down.
    pub fn set_up(&mut self, up: bool) -> Result<()> {
        for (n, side) in SIDES.iter().enumerate() {
            let set = self.rt(n).set_up(NAME, up);
            set.with_context(|| format!("{side}: link up {up}"))?;
        }
        Ok(())
    }

    /// Another socket of side `n`'s family, in its namespace.
    pub fn socket(&self, n: usize) -> Result<Gnl> {
        open(&self.link.ns[n], self.families[n])
    }

    /// Sends the same requests to both, in one system call each.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Vec<Answers>> {
        let [a, b] = &mut self.sockets;
        let a = a.batch(requests).context(SIDES[0])?;
        let b = b.batch(requests).context(SIDES[1])?;
        Ok(a.into_iter().zip(b).map(|(a, b)| [a, b]).collect())
    }

    /// Sends the same request to both.
    pub fn ask(&mut self, request: &Request) -> Result<Answers> {
        let mut answers = self.batch(std::slice::from_ref(request))?;
        answers.pop().context("no answer")
    }

    /// The configuration of both devices.
    pub fn devices(&mut self) -> Result<[Device; 2]> {
        let answers = self.ask(&get())?;
        for (side, answer) in SIDES.iter().zip(&answers) {
            ensure!(
                answer.result().is_ok(),
                "{side}: dump: {}",
                answer.summary()
            );
        }
        Ok(answers.map(|answer| parse_dump(&answer.replies())))
    }

    /// A configuration client of side `n`.
    pub fn wg(&self, n: usize) -> Result<Wg> {
        Wg::open(&self.link.ns[n], self.kinds[n])
    }

    /// Configures the two devices as the ends of one tunnel, whatever their state before, and sends
    /// packets through it in both directions.
    pub fn tunnel(&mut self) -> Result<()> {
        let private: [Key; 2] = [[0x10; 32], [0x20; 32]];
        let mut public: [Key; 2] = [[0; 32]; 2];
        for n in 0..2 {
            let mut wg = self.wg(n)?;
            let conf = DeviceConf {
                private_key: Some(private[n]),
                listen_port: Some(port(n as u8)),
                fwmark: Some(0),
                flags: uapi::device::F_REPLACE_PEERS,
                ..DeviceConf::default()
            };
            wg.set(NAME, &conf).with_context(|| SIDES[n])?;
            public[n] = wg.get(NAME)?.public_key.context("no public key")?;
            let (rt, n) = (self.rt(n), n as u8);
            for (v6, cidr) in [(false, 24), (true, 64)] {
                match rt.addr_add(NAME, inner(v6, n), cidr) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e).context("address"),
                }
            }
        }
        self.set_up(true)?;
        for n in 0..2u8 {
            let (own, other) = (usize::from(n), usize::from(1 - n));
            let peer = PeerConf {
                public_key: public[other],
                // Only from one end: crossing initiations would cost 5 s.
                endpoint: (n == 0).then(|| SocketAddr::new(outer(false, 1), port(1))),
                allowed_ips: vec![(inner(false, 1 - n), 32), (inner(true, 1 - n), 128)],
                ..PeerConf::default()
            };
            let conf = DeviceConf {
                peers: vec![peer],
                ..DeviceConf::default()
            };
            self.wg(own)?.set(NAME, &conf)?;
        }
        self.ping().context("the tunnel between the two devices")
    }

    /// Sends packets in both directions through the tunnel that [`Pair::tunnel`] made.
    pub fn ping(&self) -> Result<()> {
        ping_all(self.ns(0), inner(false, 1), 1)?;
        ping_all(self.ns(1), inner(true, 0), 1)
    }
}

fn open(ns: &Netns, family: u16) -> Result<Gnl> {
    ns.run(|| Ok(Gnl::open(family)?))
}

// SPDX-License-Identifier: GPL-2.0-only
//! The tunnel that is disturbed, and what must hold of it when it is not.

use anyhow::{bail, ensure, Context, Result};
use harness::driver::PLAIN;
use harness::netns::{canary, leaked, Netns};
use harness::pace::slow;
use harness::rtnl::Rtnl;
use harness::runner::Ctx;
use harness::topo::{inner, names, outer, port, Opts, Tunnel};
use harness::traffic::ping;
use harness::wgdev::{uapi, DeviceConf, Key, PeerConf, Wg};
use nix::errno::Errno;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The MTU of the tunnel's devices.
pub const MTU: u32 = 1420;

/// Within this time after a round the tunnel works: a handshake that was lost in it is repeated
/// after 5 s, three times at most if the repetitions meet those of the other end.
const RECOVERY: Duration = Duration::from_secs(30);

/// A tunnel between `wg0` in namespace `a` and `wg1` in namespace `b`, and the time of the round.
pub struct Place {
    tunnel: Tunnel,
    /// The ends' public keys.
    pub public: [Key; 2],
    private: [Key; 2],
    end: Instant,
    stop: AtomicBool,
    serial: AtomicU32,
}

impl Place {
    /// Creates the tunnel.
    pub fn new(ctx: &Ctx) -> Result<Self> {
        let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
        let mut private = [[0; 32]; 2];
        for n in 0..2u8 {
            // Nobody else may get a port that its device gives up for a moment.
            tunnel.ns(n).run(|| {
                let file = "/proc/sys/net/ipv4/ip_local_reserved_ports";
                fs::write(file, format!("{},{}", port(0), port(1))).context(file)
            })?;
            let own = tunnel.ends[usize::from(n)].get(&tunnel.link)?.private_key;
            private[usize::from(n)] = own.context("no private key")?;
        }
        Ok(Place {
            public: [tunnel.ends[0].public_key, tunnel.ends[1].public_key],
            private,
            tunnel,
            end: Instant::now(),
            stop: AtomicBool::new(false),
            serial: AtomicU32::new(0),
        })
    }

    /// Begins a round.
    pub fn begin(&mut self, span: Duration) {
        self.end = Instant::now() + span;
        self.stop = AtomicBool::new(false);
    }

    /// Ends the round before its time.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// False when the round is over.
    pub fn busy(&self) -> bool {
        Instant::now() < self.end && !self.stop.load(Relaxed)
    }

    /// The namespace of end `n`.
    pub fn ns(&self, n: u8) -> &Netns {
        self.tunnel.ns(n)
    }

    /// A netlink socket for the devices of end `n`.
    pub fn wg(&self, n: u8) -> Result<Wg> {
        Wg::open(self.ns(n), PLAIN.kind)
    }

    /// A number that is not given again, for names.
    pub fn serial(&self) -> u32 {
        self.serial.fetch_add(1, Relaxed)
    }

    /// The other end as a peer of end `n`.
    pub fn peer(&self, n: u8) -> PeerConf {
        PeerConf {
            public_key: self.public[usize::from(1 - n)],
            preshared_key: Some([0; 32]),
            endpoint: Some(SocketAddr::new(outer(false, 1 - n), port(1 - n))),
            allowed_ips: vec![(inner(false, 1 - n), 32), (inner(true, 1 - n), 128)],
            ..PeerConf::default()
        }
    }

    /// The keys, port and mark of end `n`.
    pub fn settings(&self, n: u8) -> DeviceConf {
        DeviceConf {
            private_key: Some(self.private[usize::from(n)]),
            listen_port: Some(port(n)),
            fwmark: Some(0),
            ..DeviceConf::default()
        }
    }

    /// After a round: sets what has been changed of the tunnel, but nothing else, and removes other
    /// peers. Then nothing else may be left, and the tunnel must work; returns how long that takes.
    pub fn restore(&mut self) -> Result<Duration> {
        canary()?;
        // The two namespaces of the tunnel.
        wait("namespaces are left", || Ok(leaked()? == 2))?;
        for n in 0..2 {
            self.restore_end(n).with_context(|| names(n).0)?;
        }
        for cpu in 0..2 {
            let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
            // CPU 0 has no such file, where it cannot be taken off line.
            let state = fs::read_to_string(file).unwrap_or("1".to_owned());
            ensure!(state.trim() == "1", "CPU {cpu} is not on line");
        }
        self.works()
    }

    fn restore_end(&mut self, n: u8) -> Result<()> {
        let (name, veth) = names(n);
        let (settings, main) = (self.settings(n), self.peer(n));
        let mut wg = self.wg(n)?;
        let device = wg.get(name)?;
        // Setting the same key again would also end all sessions.
        if device.private_key != settings.private_key {
            bail!("its private key was left changed");
        }
        if (device.listen_port, device.fwmark) != (port(n), 0) {
            bail!("its port or mark was left changed");
        }
        let strangers = device.peers.iter().map(|p| p.public_key);
        let strangers = strangers.filter(|key| *key != main.public_key);
        let gone = |public_key| PeerConf {
            public_key,
            flags: uapi::peer::F_REMOVE_ME,
            ..PeerConf::default()
        };
        let mut peers: Vec<PeerConf> = strangers.map(gone).collect();
        peers.push(PeerConf {
            flags: uapi::peer::F_UPDATE_ONLY | uapi::peer::F_REPLACE_ALLOWEDIPS,
            ..main.clone()
        });
        let conf = DeviceConf {
            peers,
            ..DeviceConf::default()
        };
        wg.set(name, &conf)?;
        let peers = wg.get(name)?.peers;
        let [peer] = peers.as_slice() else {
            bail!("{} peers, wanted one", peers.len());
        };
        ensure!(
            peer.public_key == main.public_key && peer.allowed_ips.len() == 2,
            "the peer is now {peer:?}"
        );
        let rt = self.tunnel.rt(n);
        let links: Vec<String> = rt.links()?.into_iter().map(|l| l.name).collect();
        let wanted = ["lo", name, veth];
        ensure!(
            links.len() == 3 && wanted.iter().all(|w| links.iter().any(|l| l == w)),
            "links left: {links:?}"
        );
        let up = rt.link(name)?.flags & libc::IFF_UP as u32;
        ensure!(up != 0, "it was left down");
        ensure_inner(rt, n)
    }

    /// Pings in both directions and families. From both ends at once, as the one that has lost its
    /// session must begin.
    fn works(&self) -> Result<Duration> {
        let limit = slow(Duration::from_secs(1));
        let begin = Instant::now();
        for v6 in [false, true] {
            let mut answered = [false; 2];
            while answered != [true; 2] {
                for n in 0..2u8 {
                    let got = ping(self.ns(n), inner(v6, 1 - n), 1, 200, limit)?;
                    answered[usize::from(n)] = got == 1;
                }
                if begin.elapsed() > slow(RECOVERY) {
                    bail!(
                        "the tunnel does not work after {:?}: pings answered: {answered:?}, \
                         IPv6: {v6}; {}; {}",
                        begin.elapsed(),
                        self.state(0)?,
                        self.state(1)?
                    );
                }
            }
        }
        Ok(begin.elapsed())
    }

    /// What end `n` says of its peer, for the error that the tunnel does not work.
    fn state(&self, n: u8) -> Result<String> {
        let name = names(n).0;
        let device = self.wg(n)?.get(name)?;
        let port = device.listen_port;
        let peers = device.peers.iter().map(|p| {
            let (endpoint, last) = (p.endpoint, p.last_handshake);
            let (received, sent) = (p.rx_bytes, p.tx_bytes);
            format!("{endpoint:?}, last handshake {last:?}, received {received}, sent {sent}")
        });
        let peers: Vec<String> = peers.collect();
        Ok(format!("{name}: port {port}, peer {}", peers.join("; ")))
    }
}

/// Adds the IPv6 address of end `n`, which its device loses when it is down.
pub fn ensure_inner(rt: &mut Rtnl, n: u8) -> Result<()> {
    match rt.addr_add(names(n).0, inner(true, n), 64) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e).context("the inside IPv6 address"),
    }
}

/// Waits until `done`; `what` is the error.
fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let (start, limit) = (Instant::now(), slow(Duration::from_secs(30)));
    while !done()? {
        ensure!(start.elapsed() < limit, "{what} after {limit:?}");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

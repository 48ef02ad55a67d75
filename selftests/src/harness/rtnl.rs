// SPDX-License-Identifier: GPL-2.0-only
//! Links, addresses, routes and neighbours, set in-process over rtnetlink.
//!
//! In-process because a timed test in virtual time must not start programs (host file I/O makes the
//! guest's clock jump), and because the load/unload test does it hundreds of times.

use super::netlink::{attrs, Attrs, Netlink, Reply};
use super::pace::slow;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// A route netlink socket. Acts on the namespace that it was opened in.
pub struct Rtnl(Netlink);

/// `struct ifinfomsg` for link `index`, with `flags` set where `change` has a one.
fn ifinfo(index: u32, flags: i32, change: i32) -> Vec<u8> {
    let mut bytes = vec![0u8; 4];
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&change.to_ne_bytes());
    bytes
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn family(addr: IpAddr) -> u8 {
    if addr.is_ipv4() {
        libc::AF_INET as u8
    } else {
        libc::AF_INET6 as u8
    }
}

impl Rtnl {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Self, Errno> {
        Ok(Rtnl(Netlink::route()?))
    }

    /// As [`Rtnl::open`]; an answer that takes longer than `limit` is an error.
    pub fn open_for(limit: Duration) -> Result<Self, Errno> {
        let netlink = Netlink::route()?;
        netlink.wait_at_most(limit)?;
        Ok(Rtnl(netlink))
    }

    /// `ip link add NAME type KIND`.
    pub fn link_add(&mut self, name: &str, kind: &str) -> Result<(), Errno> {
        self.link_add_at(0, name, kind)
    }

    /// As [`Rtnl::link_add`], with a given interface number (0 for any).
    pub fn link_add_at(&mut self, index: u32, name: &str, kind: &str) -> Result<(), Errno> {
        let mut body = Attrs::after(&ifinfo(index, 0, 0));
        body.str(libc::IFLA_IFNAME, name)
            .nest(libc::IFLA_LINKINFO, |info| {
                info.str(libc::IFLA_INFO_KIND, kind);
            });
        self.0
            .request(libc::RTM_NEWLINK, CREATE, body.bytes())
            .map(drop)
    }

    /// `ip link add NAME type veth peer name PEER netns FD`, with given MAC addresses.
    pub fn veth_add(
        &mut self,
        (name, mac): (&str, [u8; 6]),
        (peer, peer_mac): (&str, [u8; 6]),
        peer_ns: i32,
    ) -> Result<(), Errno> {
        const VETH_INFO_PEER: u16 = 1;
        let mut body = Attrs::after(&ifinfo(0, 0, 0));
        body.str(libc::IFLA_IFNAME, name)
            .put(libc::IFLA_ADDRESS, &mac);
        body.nest(libc::IFLA_LINKINFO, |info| {
            info.str(libc::IFLA_INFO_KIND, "veth")
                .nest(libc::IFLA_INFO_DATA, |data| {
                    let mut end = Attrs::after(&ifinfo(0, 0, 0));
                    end.str(libc::IFLA_IFNAME, peer)
                        .put(libc::IFLA_ADDRESS, &peer_mac);
                    end.u32(libc::IFLA_NET_NS_FD, peer_ns as u32);
                    data.put(VETH_INFO_PEER | (1 << 15), end.bytes());
                });
        });
        self.0
            .request(libc::RTM_NEWLINK, CREATE, body.bytes())
            .map(drop)
    }

    /// The interface number of `name`.
    pub fn index(&mut self, name: &str) -> Result<u32, Errno> {
        let replies = self.get(name)?;
        let index = replies
            .get(4..8)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_ne_bytes);
        index.ok_or(Errno::ENODEV)
    }

    fn get(&mut self, name: &str) -> Result<Vec<u8>, Errno> {
        let mut body = Attrs::after(&ifinfo(0, 0, 0));
        body.str(libc::IFLA_IFNAME, name);
        let replies = self.0.request(libc::RTM_GETLINK, 0, body.bytes())?;
        replies
            .into_iter()
            .next()
            .map(|reply| reply.body)
            .ok_or(Errno::ENODEV)
    }

    /// One attribute of link `name`, raw.
    pub fn link_attr(&mut self, name: &str, kind: u16) -> Result<Option<Vec<u8>>, Errno> {
        let body = self.get(name)?;
        let list = attrs(body.get(16..).unwrap_or(&[]));
        Ok(list
            .into_iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, data)| data))
    }

    /// The kernel's description of link `name`.
    pub fn link(&mut self, name: &str) -> Result<LinkInfo, Errno> {
        let body = self.get(name)?;
        let word = |at: usize| {
            let bytes = body.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        Ok(LinkInfo {
            kind: (word(0) >> 16) as u16,
            flags: word(8),
            attrs: attrs(body.get(16..).unwrap_or(&[])),
        })
    }

    /// Waits until exactly these counters of `name` have changed by these amounts since `before`;
    /// the error lists what has changed instead.
    pub fn expect_moved(
        &mut self,
        name: &str,
        before: &Counters,
        wanted: &[(&'static str, u64)],
    ) -> Result<(), anyhow::Error> {
        let start = Instant::now();
        loop {
            let moved = self.counters(name)?.since(before);
            if moved.are(wanted) {
                return Ok(());
            }
            if start.elapsed() > slow(Duration::from_secs(3)) {
                anyhow::bail!("{name}: {moved:?}, not {wanted:?}");
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Every 64-bit counter of the link.
    pub fn counters(&mut self, name: &str) -> Result<Counters, Errno> {
        let data = self
            .link_attr(name, libc::IFLA_STATS64)?
            .ok_or(Errno::ENODATA)?;
        Ok(Counters::parse(&data))
    }

    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Counted>, Errno> {
        let text = |data: &[u8]| {
            String::from_utf8_lossy(data)
                .trim_end_matches('\0')
                .to_owned()
        };
        let replies = self
            .0
            .request(libc::RTM_GETLINK, libc::NLM_F_DUMP, &ifinfo(0, 0, 0))?;
        let link = |reply: &Reply| {
            let mut link = Counted::default();
            let index = reply.body.get(4..8).and_then(|b| b.try_into().ok());
            link.index = index.map_or(0, u32::from_ne_bytes);
            for (attr, data) in attrs(reply.body.get(16..).unwrap_or(&[])) {
                match attr {
                    libc::IFLA_IFNAME => link.name = text(&data),
                    libc::IFLA_STATS64 => link.counters = Counters::parse(&data),
                    libc::IFLA_LINKINFO => {
                        let info = attrs(&data);
                        let kind = info.iter().find(|(k, _)| *k == libc::IFLA_INFO_KIND);
                        link.kind = kind.map(|(_, data)| text(data)).unwrap_or_default();
                    }
                    _ => {}
                }
            }
            link
        };
        Ok(replies.iter().map(link).collect())
    }

    /// The link's 64-bit counters.
    pub fn stats(&mut self, name: &str) -> Result<LinkStats, Errno> {
        let data = self
            .link_attr(name, libc::IFLA_STATS64)?
            .ok_or(Errno::ENODATA)?;
        let at = |n: usize| {
            let bytes = data.get(n * 8..n * 8 + 8).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        Ok(LinkStats {
            rx_packets: at(0),
            tx_packets: at(1),
            rx_bytes: at(2),
            tx_bytes: at(3),
            rx_errors: at(4),
            tx_errors: at(5),
            rx_dropped: at(6),
            tx_dropped: at(7),
        })
    }

    /// Sends an `RTM_*` request with the caller's body.
    pub fn raw(&mut self, cmd: u16, flags: i32, body: &[u8]) -> Result<(), Errno> {
        self.0.request(cmd, flags, body).map(drop)
    }

    /// `ip link add NAME type KIND`, with whatever `link` adds beside the kind and `info` inside
    /// `IFLA_LINKINFO`.
    pub fn link_add_with(
        &mut self,
        name: &str,
        kind: &str,
        link: impl FnOnce(&mut Attrs),
        info: impl FnOnce(&mut Attrs),
    ) -> Result<(), Errno> {
        let mut body = Attrs::after(&ifinfo(0, 0, 0));
        body.str(libc::IFLA_IFNAME, name)
            .nest(libc::IFLA_LINKINFO, |nest| {
                nest.str(libc::IFLA_INFO_KIND, kind);
                info(nest);
            });
        link(&mut body);
        self.raw(libc::RTM_NEWLINK, CREATE, body.bytes())
    }

    /// `ip link set NAME up|down`.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), Errno> {
        let index = self.index(name)?;
        let body = ifinfo(index, if up { libc::IFF_UP } else { 0 }, libc::IFF_UP);
        self.0.request(libc::RTM_NEWLINK, 0, &body)?;
        if up {
            self.settle(index);
        }
        Ok(())
    }

    /// `ip link set NAME mtu MTU`.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), Errno> {
        let mut body = Attrs::after(&ifinfo(self.index(name)?, 0, 0));
        body.u32(libc::IFLA_MTU, mtu);
        self.0.request(libc::RTM_NEWLINK, 0, body.bytes()).map(drop)
    }

    /// `ip link set NAME gso_max_segs COUNT`: of 1, the stack cuts what stands for several packets.
    pub fn set_gso_max_segs(&mut self, name: &str, count: u32) -> Result<(), Errno> {
        let mut body = Attrs::after(&ifinfo(self.index(name)?, 0, 0));
        body.u32(libc::IFLA_GSO_MAX_SEGS, count);
        self.0.request(libc::RTM_NEWLINK, 0, body.bytes()).map(drop)
    }

    /// `ip link set NAME netns FD`.
    pub fn set_netns(&mut self, name: &str, ns: i32) -> Result<(), Errno> {
        let mut body = Attrs::after(&ifinfo(self.index(name)?, 0, 0));
        body.u32(libc::IFLA_NET_NS_FD, ns as u32);
        self.0.request(libc::RTM_NEWLINK, 0, body.bytes()).map(drop)
    }

    /// `ip link set NAME netns PID`.
    pub fn set_netns_pid(&mut self, name: &str, pid: u32) -> Result<(), Errno> {
        let mut body = Attrs::after(&ifinfo(self.index(name)?, 0, 0));
        body.u32(libc::IFLA_NET_NS_PID, pid);
        self.0.request(libc::RTM_NEWLINK, 0, body.bytes()).map(drop)
    }

    /// `ip link del NAME`.
    pub fn link_del(&mut self, name: &str) -> Result<(), Errno> {
        let body = ifinfo(self.index(name)?, 0, 0);
        self.0.request(libc::RTM_DELLINK, 0, &body).map(drop)
    }

    /// `ip addr add ADDR/CIDR dev NAME` (IPv6 without duplicate address detection).
    pub fn addr_add(&mut self, name: &str, addr: IpAddr, cidr: u8) -> Result<(), Errno> {
        self.addr(libc::RTM_NEWADDR, CREATE, name, addr, cidr)?;
        if addr.is_ipv6() && self.link(name)?.flags & libc::IFF_UP as u32 != 0 {
            let index = self.index(name)?;
            self.settle(index);
        }
        Ok(())
    }

    /// Waits, for a second at most, until the link's IPv6 addresses accept packets: a kernel worker
    /// adds their local routes a little after the address is set or the link is up.
    fn settle(&mut self, index: u32) {
        let header = [libc::AF_INET6 as u8, 0, 0, 0, 0, 0, 0, 0];
        let addresses = self.0.request(libc::RTM_GETADDR, libc::NLM_F_DUMP, &header);
        let mut waiting = Vec::new();
        for reply in addresses.unwrap_or_default() {
            let here = reply.body.get(4..8) == Some(&index.to_ne_bytes()[..]);
            // Link-local addresses wait for duplicate address detection.
            let global = reply.body.get(3) == Some(&libc::RT_SCOPE_UNIVERSE);
            if here && global {
                let all = attrs(reply.body.get(8..).unwrap_or(&[])).into_iter();
                waiting.extend(all.filter(|a| a.0 == libc::IFA_ADDRESS));
            }
        }
        let start = Instant::now();
        while !waiting.is_empty() && start.elapsed() < slow(Duration::from_secs(1)) {
            waiting.retain(|(_, address)| !self.is_local(address));
            sleep(Duration::from_millis(u64::from(!waiting.is_empty())));
        }
    }

    /// True if packets to this IPv6 address are accepted.
    fn is_local(&mut self, address: &[u8]) -> bool {
        let mut body = Attrs::after(&[libc::AF_INET6 as u8, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        body.put(libc::RTA_DST, address);
        let routes = self.0.request(libc::RTM_GETROUTE, 0, body.bytes());
        routes.is_ok_and(|routes| {
            routes
                .iter()
                .any(|r| r.body.get(7) == Some(&libc::RTN_LOCAL))
        })
    }

    /// `ip addr del ADDR/CIDR dev NAME`.
    pub fn addr_del(&mut self, name: &str, addr: IpAddr, cidr: u8) -> Result<(), Errno> {
        self.addr(libc::RTM_DELADDR, 0, name, addr, cidr)
    }

    fn addr(
        &mut self,
        cmd: u16,
        flags: i32,
        name: &str,
        ip: IpAddr,
        cidr: u8,
    ) -> Result<(), Errno> {
        let index = self.index(name)?;
        let nodad = if ip.is_ipv6() {
            libc::IFA_F_NODAD as u8
        } else {
            0
        };
        let mut header = vec![family(ip), cidr, nodad, 0];
        header.extend_from_slice(&index.to_ne_bytes());
        let mut body = Attrs::after(&header);
        body.put(libc::IFA_LOCAL, &octets(ip))
            .put(libc::IFA_ADDRESS, &octets(ip));
        self.0.request(cmd, flags, body.bytes()).map(drop)
    }

    /// `ip route add|del TO dev NAME`.
    pub fn route(&mut self, add: bool, to: (IpAddr, u8), name: &str) -> Result<(), Errno> {
        const PROTOCOL_STATIC: u8 = 4;
        let index = self.index(name)?;
        let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_LINK);
        let kind = libc::RTN_UNICAST;
        let mut body = Attrs::after(&[
            family(to.0),
            to.1,
            0,
            0,
            table,
            PROTOCOL_STATIC,
            scope,
            kind,
            0,
            0,
            0,
            0,
        ]);
        body.put(libc::RTA_DST, &octets(to.0))
            .u32(libc::RTA_OIF, index);
        let (cmd, flags) = if add {
            (libc::RTM_NEWROUTE, CREATE)
        } else {
            (libc::RTM_DELROUTE, 0)
        };
        self.raw(cmd, flags, body.bytes())
    }

    /// Adds or replaces a permanent neighbour entry.
    pub fn neigh_set(&mut self, name: &str, addr: IpAddr, mac: [u8; 6]) -> Result<(), Errno> {
        const NUD_PERMANENT: u16 = 0x80;
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        let mut header = vec![family(addr), 0, 0, 0];
        header.extend_from_slice(&self.index(name)?.to_ne_bytes());
        header.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
        header.extend_from_slice(&[0, 0]);
        let mut body = Attrs::after(&header);
        body.put(NDA_DST, &octets(addr)).put(NDA_LLADDR, &mac);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.0
            .request(libc::RTM_NEWNEIGH, flags, body.bytes())
            .map(drop)
    }

    /// Gives the namespace behind `ns` a number as seen from this socket's namespace.
    pub fn nsid_add(&mut self, ns: i32) -> Result<(), Errno> {
        const NETNSA_NSID: u16 = 1;
        const NETNSA_FD: u16 = 3;
        let mut body = Attrs::after(&[0; 4]);
        body.u32(NETNSA_NSID, u32::MAX).u32(NETNSA_FD, ns as u32);
        match self.0.request(libc::RTM_NEWNSID, 0, body.bytes()) {
            Err(Errno::EEXIST) => Ok(()),
            other => other.map(drop),
        }
    }

    /// How many other namespaces have a number as seen from this one. A number disappears when its
    /// namespace is dismantled, so the rest have leaked.
    pub fn nsid_count(&mut self) -> Result<usize, Errno> {
        Ok(self
            .0
            .request(libc::RTM_GETNSID, libc::NLM_F_DUMP, &[0; 4])?
            .len())
    }
}

/// The main counters of a link, with the meanings and units of `struct rtnl_link_stats64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the kernel")]
pub struct LinkStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

/// A link in a list of all links.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Its interface number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind (`veth`, `wireguard`, …); empty if it has none.
    pub kind: String,
    /// Its counters.
    pub counters: Counters,
}

/// The kernel's description of a link.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// `ARPHRD_*`.
    pub kind: u16,
    /// `IFF_*`.
    pub flags: u32,
    /// `IFLA_*`, type without flags, in order.
    pub attrs: Vec<(u16, Vec<u8>)>,
}

impl LinkInfo {
    /// The payload of attribute `kind`.
    pub fn attr(&self, kind: u16) -> Option<&[u8]> {
        self.attrs
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, data)| data.as_slice())
    }
}

/// The members of `struct rtnl_link_stats64`, in order.
const COUNTERS: &[&str] = &[
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
    "rx_otherhost_dropped",
];

/// All counters of a link, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// Parses a `struct rtnl_link_stats64`.
    fn parse(data: &[u8]) -> Counters {
        let words = data.chunks_exact(8).zip(COUNTERS);
        let value = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or([0; 8]));
        Counters(words.map(|(bytes, name)| (*name, value(bytes))).collect())
    }

    /// The counters that changed since `before`, and by how much.
    pub fn since(&self, before: &Counters) -> Counters {
        let moved = self.0.iter().map(|(name, now)| {
            let then = before.0.get(name).copied().unwrap_or(0);
            (*name, now.wrapping_sub(then))
        });
        Counters(moved.filter(|(_, by)| *by != 0).collect())
    }

    /// The value of the counter called `name`.
    pub fn value(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// True if exactly these counters changed.
    pub fn are(&self, wanted: &[(&'static str, u64)]) -> bool {
        self.0 == wanted.iter().copied().collect()
    }
}

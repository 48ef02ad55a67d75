// SPDX-License-Identifier: GPL-2.0-only
//! What a tunnel may run over: shell scripts that change the veth pair of a [`Tunnel`], or the way
//! to it, at both ends.

use anyhow::{ensure, Context, Result};
use harness::bpf::Pass;
use harness::cmd;
use harness::driver::Driver;
use harness::netns::Netns;
use harness::topo::{inner, names, outer, port, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::{random_key, DeviceConf, PeerConf, Wg};
use std::net::{IpAddr, SocketAddr};
use x25519_dalek::{PublicKey, StaticSecret};

/// One kind of underlay. In the scripts `$n` is the number of the end, 1 or 2, `$o` that of the
/// other, and `$v` the veth end. They run with bash, and their first failure is an error.
pub struct Underlay {
    pub name: &'static str,
    /// Run at each end before any traffic.
    pub script: &'static str,
    /// Run between the two ends, where there is such a place. The veth pair then leads to it.
    pub router: &'static str,
    /// Run at end 0 after the traffic.
    pub check: &'static str,
    /// Other than that, what is made with this harness's own means.
    pub extra: Extra,
    /// The MTU of the tunnel.
    pub inner_mtu: u32,
    /// No packet on the wire is longer than this.
    pub mtu: usize,
    /// Whether messages reach the wire's interface together, if that is certain.
    pub together: Option<bool>,
    /// The messages are in IPsec packets.
    pub esp: bool,
    /// Messages of full length leave end 0 in fragments.
    pub fragments: bool,
    /// Whether outside is IPv6, in turn.
    pub families: &'static [bool],
    /// The TOS and TTL of all messages.
    pub marks: Option<(u8, u8)>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Extra {
    Nothing,
    /// An XDP program at end 1.
    Xdp,
    /// A tunnel of the same driver.
    WireGuard,
}

/// The addresses move from the veth end to another interface, `u0`.
macro_rules! moved {
    ($make:literal, $mtu:literal) => {
        concat!(
            "ip addr flush dev $v
             ip addr add 198.51.100.$n/24 dev $v\n",
            $make,
            "\nip link set u0 mtu ",
            $mtu,
            " up
             ip addr add 192.0.2.$n/24 dev u0
             ip addr add 2001:db8::$n/64 dev u0 nodad\n"
        )
    };
}

const PLAIN: Underlay = Underlay {
    name: "veth",
    script: "",
    router: "",
    check: "",
    extra: Extra::Nothing,
    inner_mtu: 1420,
    mtu: 1500,
    together: Some(true),
    esp: false,
    fragments: false,
    families: &[false, true],
    marks: None,
};

/// A rule of nftables that lets UDP pass, and counts it.
const NFT: &str = "nft -f - <<'END'
    table inet t {
        counter out { }
        counter in { }
        chain output {
            type filter hook output priority 0;
            udp dport 51820-51821 ct state new,established counter name out accept
        }
        chain postrouting {
            type filter hook postrouting priority 0;
            meta protocol ip udp dport 51820-51821 ip dscp set cs1 ip ttl set 33
            meta protocol ip6 udp dport 51820-51821 ip6 dscp set cs1 ip6 hoplimit set 33
        }
        chain prerouting {
            type filter hook prerouting priority 0;
            udp dport 51820-51821 ip dscp != cs1 drop
            udp dport 51820-51821 ip6 dscp != cs1 drop
        }
        chain input {
            type filter hook input priority 0;
            udp dport 51820-51821 ct state established,new counter name in accept
        }
    }
END";
const NFT_CHECK: &str = "nft -j list counters | grep -q '\"packets\"'
    nft list counter inet t in | grep -q 'packets [1-9]'
    nft list counter inet t out | grep -q 'packets [1-9]'
    conntrack -L -p udp --orig-port-dst 51821 2>/dev/null | grep -q dport=51821";

/// An association of IPsec and a policy in each direction, in `$mode`, for both families.
macro_rules! ipsec {
    ($mode:literal) => {
        concat!(
            "for pre in 192.0.2. 2001:db8::; do
                for way in \"$n $o\" \"$o $n\"; do
                    set -- $way
                    ip xfrm state add src $pre$1 dst $pre$2 proto esp spi 0x10$1 mode ",
            $mode,
            " enc 'ecb(cipher_null)' '' auth 'hmac(sha1)' 0x0011223344556677889900112233445566778899
                done
                ip xfrm policy add src $pre$n dst $pre$o proto udp dir out \
                    tmpl src $pre$n dst $pre$o proto esp mode ",
            $mode,
            "
                ip xfrm policy add src $pre$o dst $pre$n proto udp dir in \
                    tmpl src $pre$o dst $pre$n proto esp mode ",
            $mode,
            "
             done"
        )
    };
}

const IPSEC: Underlay = Underlay {
    inner_mtu: 1340,
    // Packets are cut before they are encrypted, before they reach the interface.
    together: None,
    esp: true,
    ..PLAIN
};

/// End 1 is behind a router, which has its addresses.
macro_rules! behind {
    ($mtu:literal) => {
        concat!(
            "if [ $n = 2 ]; then
                ip link set v1 netns r
                ip link add v1 type veth peer name r1 netns r
                ip link set v1 mtu ",
            $mtu,
            " up
                ip addr add 203.0.113.2/24 dev v1
                ip addr add 2001:db8:1::2/64 dev v1 nodad
             fi"
        )
    };
}

/// That router: end 1 sees its address in the place of end 0's, too.
macro_rules! router {
    ($mtu:literal) => {
        concat!(
            "ip link set r1 mtu ",
            $mtu,
            " up
             ip link set v1 up
             ip addr add 203.0.113.1/24 dev r1
             ip addr add 192.0.2.2/24 dev v1
             ip addr add 2001:db8:1::1/64 dev r1 nodad
             ip addr add 2001:db8::2/64 dev v1 nodad
             sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             nft -f - <<'END'
                table inet n {
                    chain pre {
                        type nat hook prerouting priority dstnat;
                        meta nfproto ipv4 udp dport 51821 dnat ip to 203.0.113.2
                        meta nfproto ipv6 udp dport 51821 dnat ip6 to 2001:db8:1::2
                    }
                    chain post {
                        type nat hook postrouting priority srcnat;
                        udp dport 51821 oifname r1 masquerade to :40000-41000
                    }
                }\nEND"
        )
    };
}

pub static UNDERLAYS: [Underlay; 22] = [
    PLAIN,
    Underlay {
        name: "nftables",
        script: NFT,
        check: NFT_CHECK,
        marks: Some((0x20, 33)),
        ..PLAIN
    },
    Underlay {
        name: "notrack",
        script: "nft -f - <<'END'
            table inet t {
                chain output {
                    type filter hook output priority raw;
                    udp dport 51820-51821 notrack
                }
                chain prerouting {
                    type filter hook prerouting priority raw;
                    udp dport 51820-51821 notrack
                }
                chain input {
                    type filter hook input priority 0;
                    udp dport 51820-51821 ct state established counter drop
                }
            }\nEND",
        check: "nft list chain inet t input | grep -q 'packets 0 '",
        ..PLAIN
    },
    Underlay {
        name: "nat",
        script: behind!(1500),
        router: router!(1500),
        ..PLAIN
    },
    // The router fragments.
    Underlay {
        name: "router-mtu",
        script: behind!(1300),
        router: router!(1300),
        families: &[false],
        ..PLAIN
    },
    Underlay {
        name: "police",
        script: "tc qdisc replace dev $v clsact
            for way in ingress egress; do
                tc filter add dev $v $way prio 5 matchall \
                    action police rate 10gbit burst 10m mtu 1600 conform-exceed drop/pipe
            done",
        check: "tc -s filter show dev v0 egress prio 5 | grep -q 'Sent [1-9]'
            ! tc -s filter show dev v0 egress prio 5 | grep -q 'dropped [1-9]'
            tc -s filter show dev v0 ingress prio 5 | grep -q 'Sent [1-9]'",
        ..PLAIN
    },
    Underlay {
        name: "mirred",
        script: "ip link add ifb0 type ifb
            ip link set ifb0 up
            tc qdisc replace dev $v clsact
            tc filter add dev $v egress prio 5 matchall action mirred egress redirect dev ifb0",
        check: "ip -s link show ifb0 | grep -A 1 TX: | grep -q '[1-9][0-9][0-9]'",
        ..PLAIN
    },
    Underlay {
        name: "tbf",
        script: "tc qdisc add dev $v root tbf rate 2gbit burst 5kb limit 10mb",
        check: "tc -s qdisc show dev v0 root | grep -q 'Sent [1-9]'",
        together: None,
        ..PLAIN
    },
    Underlay {
        name: "vlan",
        script: moved!("ip link add link $v name u0 type vlan id 7", 1500),
        ..PLAIN
    },
    Underlay {
        name: "bridge",
        script: moved!("ip link add u0 type bridge\nip link set $v master u0", 1500),
        ..PLAIN
    },
    Underlay {
        name: "macvlan",
        script: moved!("ip link add link $v name u0 type macvlan mode bridge", 1500),
        ..PLAIN
    },
    Underlay {
        name: "ipvlan",
        script: moved!("ip link add link $v name u0 type ipvlan mode l2", 1500),
        ..PLAIN
    },
    Underlay {
        name: "macsec",
        script: moved!(
            "key=0123456789abcdef0123456789abcdef
             other=02:00:00:00:00:0$o
             ip link add link $v u0 type macsec port 1
             ip macsec add u0 tx sa 0 pn 1 on key 00 $key
             ip macsec add u0 rx port 1 address $other
             ip macsec add u0 rx port 1 address $other sa 0 pn 1 on key 00 $key",
            1468
        ),
        inner_mtu: 1388,
        together: None,
        ..PLAIN
    },
    Underlay {
        name: "vrf",
        script: "ip link add vrf0 type vrf table 10
            ip link set vrf0 up
            ip link set $v master vrf0
            ip addr add 2001:db8::$n/64 dev $v nodad
            ip rule add pref 500 to 192.0.2.0/24 lookup 10
            ip -6 rule add pref 500 to 2001:db8::/64 lookup 10
            sysctl -q net.ipv4.udp_l3mdev_accept=1",
        check: "ip -s link show vrf0 | grep -A 1 RX: | grep -q '[1-9][0-9][0-9]'",
        ..PLAIN
    },
    Underlay {
        name: "gre",
        script: moved!(
            "ip link add u0 type gre local 198.51.100.$n remote 198.51.100.$o",
            1476
        ),
        inner_mtu: 1396,
        ..PLAIN
    },
    Underlay {
        name: "geneve",
        script: moved!(
            "ip link add u0 type geneve id 5 remote 198.51.100.$o dstport 6081 udpcsum",
            1450
        ),
        inner_mtu: 1370,
        ..PLAIN
    },
    Underlay {
        name: "vxlan",
        script: moved!(
            "ip link add u0 type vxlan id 5 local 198.51.100.$n remote 198.51.100.$o \
                dstport 4789 dev $v udpcsum",
            1450
        ),
        inner_mtu: 1370,
        ..PLAIN
    },
    Underlay {
        name: "ipsec-transport",
        script: ipsec!("transport"),
        ..IPSEC
    },
    Underlay {
        name: "ipsec-tunnel",
        script: ipsec!("tunnel"),
        ..IPSEC
    },
    Underlay {
        name: "wireguard",
        extra: Extra::WireGuard,
        inner_mtu: 1340,
        ..PLAIN
    },
    Underlay {
        name: "fragments",
        script: "ip link set $v mtu 1280",
        mtu: 1280,
        // Shorter ones do.
        together: None,
        fragments: true,
        ..PLAIN
    },
    Underlay {
        name: "xdp",
        extra: Extra::Xdp,
        together: None,
        ..PLAIN
    },
];

/// A tunnel over an underlay.
pub struct Scene {
    pub underlay: &'static Underlay,
    pub tunnel: Tunnel,
    /// Between the ends, where there is such a place.
    _router: Option<Netns>,
    xdp: Option<Pass>,
}

impl Scene {
    pub fn new(underlay: &'static Underlay, drivers: [Driver; 2]) -> Result<Self> {
        // No fallback devices of GRE in any namespace.
        std::fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "2")?;
        let is_routed = !underlay.router.is_empty();
        let router = is_routed.then(|| Netns::new("r")).transpose()?;
        let mut tunnel = Tunnel::new(&Opts {
            mtu: Some(underlay.inner_mtu),
            ..Opts::new(drivers)
        })?;
        for n in 0..2 {
            run(tunnel.ns(n), n, underlay.script)?;
        }
        if let Some(router) = &router {
            run(router, 0, underlay.router).context("router")?;
        }
        let mut xdp = None;
        match underlay.extra {
            Extra::Nothing => {}
            Extra::Xdp => xdp = Some(Pass::attach(tunnel.ns(1), "v1")?),
            Extra::WireGuard => lay_wireguard(&mut tunnel, drivers)?,
        }
        Ok(Scene {
            underlay,
            tunnel,
            _router: router,
            xdp,
        })
    }

    /// Lets the tunnel run over IPv4 or IPv6. An end that is reached through a router waits for the
    /// other.
    pub fn set_family(&mut self, v6: bool) -> Result<()> {
        let ends = if self.underlay.router.is_empty() {
            2
        } else {
            1
        };
        for n in 0..ends {
            let peer = PeerConf {
                endpoint: Some(SocketAddr::new(outer(v6, 1 - n), port(1 - n))),
                ..PeerConf::default()
            };
            self.tunnel.set_peer(n, peer)?;
        }
        ping_all(self.tunnel.ns(0), inner(false, 1), 1)
    }

    /// The port that end 0's messages go to on the wire.
    pub fn wire_port(&self) -> u16 {
        match self.underlay.extra {
            Extra::WireGuard => LOWER_PORT + 1,
            _ => port(1),
        }
    }

    /// The traffic did not go another way.
    pub fn check(&self) -> Result<()> {
        if let Some(xdp) = &self.xdp {
            let (packets, longer) = xdp.seen()?;
            ensure!(
                packets > 300 && longer == 0,
                "XDP saw {packets} packets, {longer} of them too long"
            );
        }
        run(self.tunnel.ns(0), 0, self.underlay.check).context("check")
    }
}

/// Runs one of an underlay's scripts at end `n`.
fn run(ns: &Netns, n: u8, script: &str) -> Result<()> {
    let (own, other, veth) = (n + 1, 2 - n, names(n).1);
    let script = format!("n={own} o={other} v={veth}\n{script}");
    ns.run(|| cmd::run(&["bash", "-e", "-o", "pipefail", "-c", &script]))
        .map(drop)
}

/// The lower tunnel's ports begin here.
const LOWER_PORT: u16 = 6000;

/// Gives the outer addresses to another tunnel of the same drivers, between new ones.
fn lay_wireguard(tunnel: &mut Tunnel, drivers: [Driver; 2]) -> Result<()> {
    let keys = [random_key(), random_key()];
    let public = keys.map(|key| PublicKey::from(&StaticSecret::from(key)).to_bytes());
    for n in 0..2u8 {
        let (own, other) = (usize::from(n), usize::from(1 - n));
        let kind = drivers[own].kind;
        let script = format!(
            "ip addr flush dev $v
             ip addr add 198.51.100.$n/24 dev $v
             ip link add u0 type {kind}
             ip addr add 192.0.2.$n/24 dev u0
             ip addr add 2001:db8::$n/64 dev u0 nodad"
        );
        run(tunnel.ns(n), n, &script)?;
        let to = IpAddr::from([198, 51, 100, 2 - n]);
        let peer = PeerConf {
            public_key: public[other],
            endpoint: Some(SocketAddr::new(to, LOWER_PORT + u16::from(1 - n))),
            allowed_ips: vec![(outer(false, 1 - n), 32), (outer(true, 1 - n), 128)],
            ..PeerConf::default()
        };
        let conf = DeviceConf {
            private_key: Some(keys[own]),
            listen_port: Some(LOWER_PORT + u16::from(n)),
            peers: vec![peer],
            ..DeviceConf::default()
        };
        Wg::open(tunnel.ns(n), kind)?.set("u0", &conf)?;
        tunnel.rt(n).set_up("u0", true)?;
    }
    Ok(())
}

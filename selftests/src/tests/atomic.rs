// SPDX-License-Identifier: GPL-2.0-only
//! The request of our own family that changes a device and its peers as a whole or not at all.

use super::{needs_ours, ours, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::events::Listener;
use harness::gnl::{Answer, Gnl, Request, DO};
use harness::netlink::{family_id, Attrs, Netlink};
use harness::netns::Netns;
use harness::pace::slow;
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{ping_all, udp};
use harness::wgdev::{random_key, uapi, whole, Device, DeviceConf, Key, PeerConf, Wg};
use nix::errno::Errno;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};
use wireguard_rs::proto::extension::{allowedip, cmd, device, event, peer, GENL_NAME};

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check); 3] = [
        ("atomic-set", set),
        ("atomic-refused", refused),
        ("atomic-namespaces", namespaces),
    ];
    for (name, body) in tests {
        ours(list, name, Boot::Config, 90, body);
    }
}

/// Sends a request in this namespace.
pub(super) fn ask(body: &Attrs) -> Result<Answer> {
    let id = family_id(&mut Netlink::generic()?, GENL_NAME)?;
    let request = Request::new(DO, cmd::SET, body.bytes());
    Ok(Gnl::open(id)?.ask(&request)?)
}

fn numbered(n: u16) -> PeerConf {
    let [high, low] = n.to_be_bytes();
    let mut key: Key = [9; 32];
    key[..2].copy_from_slice(&[high, low]);
    PeerConf {
        public_key: key,
        preshared_key: Some([low; 32]),
        endpoint: Some(SocketAddr::new([198, 51, 100, 1].into(), 1000 + n)),
        allowed_ips: vec![
            ([10, 64, high, low].into(), 32),
            (IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, n]), 128),
        ],
        ..PeerConf::default()
    }
}

/// What is asked for is there afterwards, as with the ordinary request.
fn set(ctx: &Ctx) -> Result<()> {
    const PEERS: u16 = 2500;
    needs_ours(ctx)?;
    let ns = Netns::new("atomic")?;
    let mut rt = ns.rtnl()?;
    for name in ["wg0", "wg1"] {
        rt.link_add(name, "wireguard")?;
    }
    let mut wg = Wg::open(&ns, "wireguard")?;
    let mut listener = Listener::open(&ns, GENL_NAME)?;
    listener.set_room(64 << 20)?;
    let mut both = |conf: &DeviceConf| -> Result<()> {
        let answer = ns.run(|| ask(&whole("wg0", conf)))?;
        ensure!(answer.result().is_ok(), "{}", answer.summary());
        wg.set("wg1", conf)?;
        let [mut one, mut other] = [wg.get("wg0")?, wg.get("wg1")?];
        // As many as there were messages in the dump.
        (one.messages, other.messages) = (0, 0);
        ensure!(one == other, "{one:?}, not {other:?}");
        Ok(())
    };
    let first = DeviceConf {
        private_key: Some(random_key()),
        fwmark: Some(77),
        peers: (0..PEERS).map(numbered).collect(),
        ..DeviceConf::default()
    };
    both(&first)?;
    let added = listener.drain()?;
    let added = added.iter().filter(|heard| heard.kind == event::PEER_ADDED);
    ensure!(added.count() == 2 * usize::from(PEERS), "peers added");
    // Removed, added again, changed, changed if there is one, taken away from another.
    let flagged = |n: u16, flags| PeerConf {
        public_key: numbered(n).public_key,
        flags,
        ..PeerConf::default()
    };
    both(&DeviceConf {
        peers: vec![
            flagged(3, uapi::peer::F_REMOVE_ME),
            flagged(3, uapi::peer::F_UPDATE_ONLY),
            numbered(4),
            flagged(4, uapi::peer::F_REMOVE_ME),
            numbered(3),
            PeerConf {
                allowed_ips: numbered(8).allowed_ips,
                flags: uapi::peer::F_REPLACE_ALLOWEDIPS,
                ..numbered(7)
            },
            flagged(9999, uapi::peer::F_REMOVE_ME),
            PeerConf {
                endpoint: Some("[2001:db8::1]:5".parse()?),
                ..numbered(9)
            },
        ],
        ..DeviceConf::default()
    })?;
    // Nothing at all, and everything anew.
    both(&DeviceConf::default())?;
    both(&DeviceConf {
        flags: uapi::device::F_REPLACE_PEERS,
        peers: (100..110).map(numbered).collect(),
        ..DeviceConf::default()
    })?;
    // A peer that has the device's own key: neither is told of it.
    let own = random_key();
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(own));
    both(&DeviceConf {
        private_key: Some(own),
        peers: vec![
            PeerConf {
                public_key: public.to_bytes(),
                ..numbered(5)
            },
            numbered(6),
        ],
        ..DeviceConf::default()
    })
}

/// A device without what traffic changes.
fn settings(mut device: Device) -> Device {
    for peer in &mut device.peers {
        (peer.rx_bytes, peer.tx_bytes) = (0, 0);
        peer.last_handshake = Default::default();
    }
    device
}

/// A request that is refused, whatever else is in it, changes nothing; and it says what is wrong.
fn refused(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let conf = DeviceConf {
        peers: (0..5).map(numbered).collect(),
        ..DeviceConf::default()
    };
    tunnel.ends[0].set(&tunnel.link, &conf)?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let taken = udp(tunnel.ns(0), "0.0.0.0:7777".parse()?)?;
    let before = settings(tunnel.ends[0].get(&tunnel.link)?);
    // Each follows what would change everything.
    let all = |end: &dyn Fn(&mut Attrs)| {
        let conf = DeviceConf {
            private_key: Some(random_key()),
            fwmark: Some(5),
            flags: uapi::device::F_REPLACE_PEERS,
            peers: (10..13).map(numbered).collect(),
            ..DeviceConf::default()
        };
        let mut body = whole("wg0", &conf);
        end(&mut body);
        body
    };
    let with_ip = |body: &mut Attrs, fill: &dyn Fn(&mut Attrs)| {
        body.nest(device::PEERS, |list| {
            list.nest(0, |element| {
                element.put(peer::PUBLIC_KEY, &[77; 32]);
                element.nest(peer::ALLOWEDIPS, |ips| {
                    ips.nest(0, |ip| {
                        ip.u16(allowedip::FAMILY, 2);
                        ip.put(allowedip::IPADDR, &[10, 0, 0, 1]);
                        ip.u8(allowedip::CIDR_MASK, 32);
                    });
                    ips.nest(0, fill);
                });
            });
        });
    };
    let with_peer = |body: &mut Attrs, fill: &dyn Fn(&mut Attrs)| {
        body.nest(device::PEERS, |list| {
            list.nest(0, |element| fill(element));
        });
    };
    let cases: Vec<(&str, Errno, &str, Attrs)> = vec![
        (
            "a prefix that is too long",
            Errno::EINVAL,
            "peer 4, allowed IP 2",
            all(&|body| {
                with_ip(body, &|ip| {
                    ip.u16(allowedip::FAMILY, 2);
                    ip.put(allowedip::IPADDR, &[10, 0, 0, 0]);
                    ip.u8(allowedip::CIDR_MASK, 33);
                })
            }),
        ),
        (
            "an address of the other family",
            Errno::EINVAL,
            "peer 4, allowed IP 2",
            all(&|body| {
                with_ip(body, &|ip| {
                    ip.u16(allowedip::FAMILY, 10);
                    ip.put(allowedip::IPADDR, &[10, 0, 0, 0]);
                    ip.u8(allowedip::CIDR_MASK, 32);
                })
            }),
        ),
        (
            "an allowed IP without a length",
            Errno::EINVAL,
            "peer 4, allowed IP 2",
            all(&|body| {
                with_ip(body, &|ip| {
                    ip.u16(allowedip::FAMILY, 2);
                    ip.put(allowedip::IPADDR, &[10, 0, 0, 0]);
                })
            }),
        ),
        (
            "no public key",
            Errno::EINVAL,
            "peer 4 has no public key",
            all(&|body| {
                with_peer(body, &|element| {
                    element.u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, 5);
                })
            }),
        ),
        (
            "another version",
            Errno::EPFNOSUPPORT,
            "peer 4: unknown version",
            all(&|body| {
                with_peer(body, &|element| {
                    element.put(peer::PUBLIC_KEY, &[77; 32]);
                    element.u32(peer::PROTOCOL_VERSION, 2);
                })
            }),
        ),
        (
            "an endpoint of no family",
            Errno::EINVAL,
            "peer 4: no endpoint",
            all(&|body| {
                with_peer(body, &|element| {
                    element.put(peer::PUBLIC_KEY, &[77; 32]);
                    element.put(peer::ENDPOINT, &[9; 16]);
                })
            }),
        ),
        (
            "an endpoint of another length",
            Errno::EINVAL,
            "peer 4: no endpoint",
            all(&|body| {
                with_peer(body, &|element| {
                    element.put(peer::PUBLIC_KEY, &[77; 32]);
                    element.put(
                        peer::ENDPOINT,
                        &[2, 0, 9, 9, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    );
                })
            }),
        ),
        (
            "a port that another program has",
            Errno::EADDRINUSE,
            "port 7777",
            all(&|body| {
                body.u16(device::LISTEN_PORT, 7777);
            }),
        ),
        (
            "a short key",
            Errno::ERANGE,
            "",
            all(&|body| {
                with_peer(body, &|element| {
                    element.put(peer::PUBLIC_KEY, &[77; 31]);
                })
            }),
        ),
        (
            "what is only shown",
            Errno::EINVAL,
            "",
            all(&|body| {
                body.u32(device::GENERATION, 1);
            }),
        ),
        (
            "no device",
            Errno::ENODEV,
            "no such interface",
            whole("wg9", &conf),
        ),
        (
            "a device of another kind",
            Errno::EOPNOTSUPP,
            "no such interface",
            whole("v0", &conf),
        ),
    ];
    for (what, wanted, words, body) in cases {
        let answer = tunnel.ns(0).run(|| ask(&body)).context(what)?;
        ensure!(
            answer.result() == Err(wanted),
            "{what}: {}, not {wanted}",
            answer.summary()
        );
        let extack = answer.extack();
        let text = extack.text.clone().unwrap_or_default();
        ensure!(text.contains(words), "{what}: {text:?}, not {words:?}");
        if words.starts_with("peer") {
            // The last of all attributes, or what contains it.
            let offset = extack.offset.context("no attribute is blamed")? as usize;
            let len = 16 + 4 + body.bytes().len();
            ensure!(
                offset < len && offset + 80 > len,
                "{what}: blames {offset} of {len}"
            );
        }
        let after = settings(tunnel.ends[0].get(&tunnel.link)?);
        ensure!(after == before, "{what}: {after:?}, not {before:?}");
        ping_all(tunnel.ns(0), inner(false, 1), 1).context(what)?;
        // The keys do not come back, unless the request did not even come to the module.
        let came_back = words.is_empty();
        ensure!(
            came_back || !answer.echo().windows(32).any(|part| part == [10; 32]),
            "{what}: a preshared key comes back"
        );
    }
    drop(taken);
    // The port that was taken is free now; the rest of that request was right.
    let body = all(&|body| {
        body.u16(device::LISTEN_PORT, 7777);
    });
    let answer = tunnel.ns(0).run(|| ask(&body))?;
    ensure!(answer.result().is_ok(), "{}", answer.summary());
    let after = tunnel.ends[0].get(&tunnel.link)?;
    ensure!(
        after.listen_port == 7777 && after.peers.len() == 3 && after.fwmark == 5,
        "{after:?}"
    );
    Ok(())
}

/// A device whose creating namespace is gone keeps its port and its mark: a request for more than
/// can be done changes nothing, and one for the rest does all of it.
fn namespaces(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let to = Netns::new("atomic-to")?;
    {
        let maker = Netns::new("atomic-from")?;
        let mut rt = maker.rtnl()?;
        rt.link_add("wg0", "wireguard")?;
        rt.set_netns("wg0", to.fd())?;
    }
    let mut wg = Wg::open(&to, "wireguard")?;
    let change = |mark| DeviceConf {
        fwmark: mark,
        peers: vec![numbered(1)],
        ..DeviceConf::default()
    };
    let none = DeviceConf {
        fwmark: Some(0),
        ..DeviceConf::default()
    };
    // Namespaces are deleted in the background.
    let begin = Instant::now();
    while to.run(|| ask(&whole("wg0", &none)))?.result().is_ok() {
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(30)),
            "the mark can still be set"
        );
        sleep(Duration::from_millis(20));
    }
    let answer = to.run(|| ask(&whole("wg0", &change(Some(9)))))?;
    ensure!(answer.result() == Err(Errno::EPERM), "{}", answer.summary());
    let text = answer.extack().text.unwrap_or_default();
    ensure!(text.contains("namespace"), "{text:?}");
    ensure!(wg.get("wg0")?.peers.is_empty(), "a peer was added");
    let answer = to.run(|| ask(&whole("wg0", &change(None))))?;
    ensure!(answer.result().is_ok(), "{}", answer.summary());
    ensure!(wg.get("wg0")?.peers.len() == 1, "no peer was added");
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! Common code of the netlink tests: steps taken on both devices, with all answers and dumps
//! compared, and short ways to write requests.

use anyhow::{bail, ensure, Result};
use harness::gnl::{Answer, Request, DO};
use harness::netlink::Attrs;
use harness::pair::{get, Answers, Pair, NAME, SIDES};
use harness::runner::Ctx;
use harness::wgdev::{parse_dump, uapi::*, Device, Peer};
use nix::errno::Errno;
use std::net::IpAddr;

/// A request's attributes: `wg0` and what `fill` adds.
pub fn device(fill: impl FnOnce(&mut Attrs)) -> Attrs {
    let mut attrs = Attrs::new();
    attrs.str(device::IFNAME, NAME);
    fill(&mut attrs);
    attrs
}

/// A SET with these attributes.
pub fn set(attrs: &Attrs) -> Request {
    Request::new(DO, cmd::SET_DEVICE, attrs.bytes())
}

/// A list of one peer with these attributes.
pub fn peers(device: &mut Attrs, fill: impl FnOnce(&mut Attrs)) {
    device.nest(device::PEERS, |list| {
        list.nest(0, fill);
    });
}

/// Appends a peer with this key to a list.
pub fn peer(list: &mut Attrs, key: [u8; 32], fill: impl FnOnce(&mut Attrs)) {
    list.nest(0, |p| {
        p.put(peer::PUBLIC_KEY, &key);
        fill(p);
    });
}

/// A list of allowed IPs, given as `ADDRESS/CIDR`, with `-` in front for removal.
pub fn ips(peer: &mut Attrs, list: &[&str]) {
    peer.nest(peer::ALLOWEDIPS, |ips| {
        for text in list {
            let flags = text.starts_with('-').then_some(allowedip::F_REMOVE_ME);
            let (addr, cidr) = prefix(text.trim_start_matches('-'));
            ip(ips, addr, cidr, flags);
        }
    });
}

/// Appends an allowed IP to a list.
pub fn ip(list: &mut Attrs, addr: IpAddr, cidr: u8, flags: Option<u32>) {
    list.nest(0, |ip| {
        match addr {
            IpAddr::V4(a) => ip
                .u16(allowedip::FAMILY, libc::AF_INET as u16)
                .put(allowedip::IPADDR, &a.octets()),
            IpAddr::V6(a) => ip
                .u16(allowedip::FAMILY, libc::AF_INET6 as u16)
                .put(allowedip::IPADDR, &a.octets()),
        };
        ip.u8(allowedip::CIDR_MASK, cidr);
        if let Some(flags) = flags {
            ip.u32(allowedip::FLAGS, flags);
        }
    });
}

fn prefix(text: &str) -> (IpAddr, u8) {
    let (addr, cidr) = text.split_once('/').expect("ADDRESS/CIDR");
    (addr.parse().expect("address"), cidr.parse().expect("cidr"))
}

/// A peer's allowed IPs as text, in the reported order.
pub fn ips_of(peer: &Peer) -> String {
    let list = peer.allowed_ips.iter().map(|(a, c)| format!("{a}/{c}"));
    list.collect::<Vec<_>>().join(" ")
}

/// Both devices, and the failures so far.
pub struct Scene {
    pub pair: Pair,
    wrong: Vec<String>,
}

impl Scene {
    /// Two devices, down and unconfigured.
    pub fn new(ctx: &Ctx) -> Result<Self> {
        Ok(Scene {
            pair: Pair::new(ctx)?,
            wrong: Vec::new(),
        })
    }

    /// Records a failure unless `ok`; the text says which check it was.
    pub fn check(&mut self, ok: bool, what: impl Into<String>) {
        if !ok {
            self.wrong.push(what.into());
        }
    }

    /// Both sides must have given the same answer, and the wanted one.
    pub fn judge(&mut self, what: &str, answers: &Answers, wanted: Result<(), Errno>) {
        let [c, rs] = answers;
        if c != rs {
            self.wrong.push(format!(
                "{what}: in-tree {}, ours {}{}",
                c.summary(),
                rs.summary(),
                where_differ(c, rs)
            ));
        }
        for (side, answer) in SIDES.iter().zip(answers) {
            let got = answer.result();
            if got != wanted {
                self.wrong
                    .push(format!("{what}: {side} returns {got:?}, not {wanted:?}"));
            }
        }
    }

    /// Sends a request to both and judges the answers.
    pub fn ask(
        &mut self,
        what: &str,
        request: &Request,
        wanted: Result<(), Errno>,
    ) -> Result<Answers> {
        let answers = self.pair.ask(request)?;
        self.judge(what, &answers, wanted);
        Ok(answers)
    }

    /// Sets both devices; the answers must be equal and as wanted, and the dumps afterwards equal.
    /// Returns what the devices report then.
    pub fn set(
        &mut self,
        what: &str,
        wanted: Result<(), Errno>,
        fill: impl FnOnce(&mut Attrs),
    ) -> Result<Device> {
        self.ask(what, &set(&device(fill)), wanted)?;
        self.state(what)
    }

    /// Compares the dumps; returns their content.
    pub fn state(&mut self, what: &str) -> Result<Device> {
        let answers = self.pair.ask(&get())?;
        self.judge(&format!("{what}: dump afterwards"), &answers, Ok(()));
        Ok(parse_dump(&answers[0].replies()))
    }

    /// Checks that the devices can still form a working tunnel; fails with all recorded failures.
    pub fn finish(mut self) -> Result<()> {
        let tunnel = self.pair.tunnel();
        if let Err(e) = tunnel {
            self.wrong.push(format!("afterwards: {e:#}"));
        }
        self.verdict()
    }

    /// The same without the tunnel.
    pub fn verdict(self) -> Result<()> {
        let (shown, rest) = self.wrong.split_at(self.wrong.len().min(12));
        if rest.is_empty() {
            ensure!(shown.is_empty(), "{}", shown.join("\n"));
            return Ok(());
        }
        bail!("{}\nand {} more", shown.join("\n"), rest.len())
    }
}

/// The first difference between two answers, as text.
fn where_differ(a: &Answer, b: &Answer) -> String {
    if a.datagrams != b.datagrams {
        return format!("; datagrams {:?}, {:?}", short(a), short(b));
    }
    let differ = a.parts.iter().zip(&b.parts).position(|(x, y)| x != y);
    match differ {
        Some(n) => format!("; part {n}: {:?}, {:?}", a.parts[n], b.parts[n]),
        None => String::new(),
    }
}

fn short(answer: &Answer) -> &[usize] {
    &answer.datagrams[..answer.datagrams.len().min(12)]
}

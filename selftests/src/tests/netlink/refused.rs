// SPDX-License-Identifier: GPL-2.0-only
//! Requests that are refused, each with its error, while the two devices have a working tunnel:
//! they must not change its state, and it must still carry packets.

use super::both;
use super::scene::{device, ips, peer, set, Scene};
use anyhow::{Context, Result};
use harness::gnl::Request;
use harness::netlink::Attrs;
use harness::pair::{Pair, SIDES};
use harness::runner::{Ctx, Test};
use harness::wgdev::{uapi::*, Device};
use nix::errno::Errno;

mod attribute;
mod request;
mod value;

/// Builds the cases of a test.
type Make = fn() -> Cases;

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Make); 10] = [
        ("netlink-refused-device", request::of_device),
        ("netlink-refused-length", attribute::of_length),
        ("netlink-refused-flag", attribute::of_flag),
        ("netlink-refused-attribute", attribute::of_attribute),
        ("netlink-refused-nesting", attribute::of_nesting),
        ("netlink-refused-peer", value::of_peer),
        ("netlink-refused-allowed-ip", value::of_allowed_ip),
        ("netlink-refused-header", request::of_header),
        ("netlink-refused-get", request::of_get),
        ("netlink-refused-cut-short", request::of_cut),
    ];
    for (name, cases) in tests {
        both(list, name, 60, move |ctx| refuse(ctx, cases()));
    }
}

/// A further peer of both devices, to show whether a refused request changed it.
const BYSTANDER: [u8; 32] = [9; 32];
const KEY: [u8; 32] = [0x4b; 32];

/// A request and its error.
struct Case {
    what: String,
    request: Request,
    wanted: Errno,
}

/// The list of cases under construction.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn request(&mut self, wanted: Errno, what: impl Into<String>, request: Request) {
        self.0.push(Case {
            what: what.into(),
            request,
            wanted,
        });
    }

    fn raw(&mut self, wanted: Errno, what: impl Into<String>, attrs: &Attrs) {
        self.request(wanted, what, set(attrs));
    }

    /// A SET of `wg0`.
    fn set(&mut self, wanted: Errno, what: impl Into<String>, fill: impl FnOnce(&mut Attrs)) {
        self.raw(wanted, what, &device(fill));
    }

    /// A SET of the bystander.
    fn peer(&mut self, wanted: Errno, what: impl Into<String>, fill: impl FnOnce(&mut Attrs)) {
        self.set(wanted, what, |d| {
            d.nest(device::PEERS, |list| peer(list, BYSTANDER, fill));
        });
    }

    /// A SET of one of the bystander's allowed IPs.
    fn ip(&mut self, wanted: Errno, what: impl Into<String>, fill: impl FnOnce(&mut Attrs)) {
        self.peer(wanted, what, |p| {
            p.nest(peer::ALLOWEDIPS, |list| {
                list.nest(0, fill);
            });
        });
    }
}

/// Sends all cases on top of a working tunnel.
fn refuse(ctx: &Ctx, cases: Cases) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.tunnel()?;
    let add = device(|d| {
        d.nest(device::PEERS, |list| {
            peer(list, BYSTANDER, |p| ips(p, &["10.77.0.0/16", "fd77::/32"]));
        });
    });
    scene.ask("adding a bystander", &set(&add), Ok(()))?;
    let before = states(&mut scene.pair)?;
    for case in &cases.0 {
        scene.ask(&case.what, &case.request, Err(case.wanted))?;
        let after = states(&mut scene.pair).with_context(|| case.what.clone())?;
        for n in 0..2 {
            scene.check(
                after[n] == before[n],
                format!("{}: changed {}", case.what, SIDES[n]),
            );
        }
    }
    if let Err(e) = scene.pair.ping() {
        scene.check(false, format!("the tunnel afterwards: {e:#}"));
    }
    scene.verdict()
}

/// What the devices report, without what packets change.
fn states(pair: &mut Pair) -> Result<[Device; 2]> {
    let still = |mut device: Device| {
        for peer in &mut device.peers {
            (peer.rx_bytes, peer.tx_bytes) = (0, 0);
            peer.last_handshake = Default::default();
        }
        device
    };
    Ok(pair.devices()?.map(still))
}

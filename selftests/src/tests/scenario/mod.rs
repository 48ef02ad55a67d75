// SPDX-License-Identifier: GPL-2.0-only
//! What tutorials tell people to do with WireGuard, with the usual tools.

mod autoload;
mod everyday;
mod mesh;
mod nat;
mod nested;
mod properties;
mod quick;
mod reconfigure;

use super::{drop_in, drop_in_vtime, Test};
use anyhow::{ensure, Result};
use harness::cmd;
use harness::netns::Netns;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "scenario-peer-to-peer", 60, everyday::peer_to_peer);
    drop_in(
        list,
        "scenario-lan-behind-peer",
        90,
        everyday::lan_behind_peer,
    );
    drop_in(list, "scenario-http", 90, everyday::http);
    drop_in(list, "scenario-nested", 60, nested::nested);
    drop_in(list, "scenario-nested-loop", 60, nested::routed_into_itself);
    drop_in(
        list,
        "scenario-syncconf-under-traffic",
        90,
        reconfigure::under_traffic,
    );
    drop_in(
        list,
        "scenario-quick-default-route",
        120,
        quick::default_route,
    );
    drop_in(
        list,
        "scenario-quick-hooks-saveconfig",
        90,
        quick::hooks_and_saveconfig,
    );
    drop_in(list, "scenario-quick-dns", 60, quick::dns);
    drop_in(list, "scenario-mesh-50", 240, mesh::fifty);
    for (name, body) in nat::TESTS {
        drop_in_vtime(list, name, 3600, body);
    }
    autoload::register(list);
    properties::register(list);
}

/// A key pair made by `wg`, in base64.
pub(super) struct Keys {
    pub(super) private: String,
    pub(super) public: String,
}

impl Keys {
    /// `wg genkey | tee private | wg pubkey`.
    pub(super) fn new(ns: &Netns) -> Result<Self> {
        let private = ns.sh("wg genkey")?;
        let public = ns.sh_in("wg pubkey", &private)?;
        Ok(Keys {
            private: private.trim().to_owned(),
            public: public.trim().to_owned(),
        })
    }
}

/// Runs a shell script in the namespace; its first failure is an error.
pub(super) fn bash(ns: &Netns, script: &str) -> Result<String> {
    ns.run(|| cmd::run(&["bash", "-ec", script]))
}

/// A veth pair between two namespaces, both ends up.
pub(super) fn cable((a, end_a): (&Netns, &str), (b, end_b): (&Netns, &str)) -> Result<()> {
    let other = b.name();
    a.sh(&format!(
        "ip link add {end_a} type veth peer name {end_b} netns {other}"
    ))?;
    a.sh(&format!("ip link set {end_a} up"))?;
    b.sh(&format!("ip link set {end_b} up")).map(drop)
}

/// `ping`, twice; both must be answered.
pub(super) fn ping(ns: &Netns, dst: &str) -> Result<()> {
    ns.sh(&format!("ping -n -q -c 2 -i 0.2 -W 10 {dst}"))
        .map(drop)
}

/// Fails if `dst` answers a ping within half a second.
pub(super) fn no_ping(ns: &Netns, dst: &str) -> Result<()> {
    let done = ns.try_sh(&format!("ping -n -q -c 1 -W 0.5 {dst}"), "")?;
    ensure!(!done.ok, "{} reaches {dst}, and should not", ns.name());
    Ok(())
}

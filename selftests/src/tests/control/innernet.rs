// SPDX-License-Identifier: GPL-2.0-only
//! innernet: a server that knows the peers, and clients that fetch them from it through the tunnel.

use super::daemon::{added, start};
use super::{eventually, no_ping, ping, switch};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::netns::Netns;
use harness::runner::Ctx;
use harness::userspace::log_tail;
use std::fs;

const DIR: &str = "/run/wireguard/innernet";
const SERVER: &str = "innernet-server";
/// The name of the network and of its interfaces.
const NETWORK: &str = "inner";
const SERVER_ADDRESS: &str = "10.42.0.1";

/// The command line of one of the programs, with folders of the machine's own.
fn line(ns: &Netns, program: &str, rest: &str) -> Vec<String> {
    let dir = format!("{DIR}/{}", ns.name());
    let mut line = vec![
        added(program),
        format!("--config-dir={dir}/config"),
        format!("--data-dir={dir}/data"),
    ];
    line.extend(rest.split(' ').map(str::to_owned));
    line
}

fn run(ns: &Netns, program: &str, rest: &str) -> Result<String> {
    let line = line(ns, program, rest);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    ns.run(|| cmd::run(&line))
        .with_context(|| format!("the server: {}", log_tail(SERVER)))
}

/// Makes the network and starts its server.
fn serve(ns: &Netns) -> Result<()> {
    run(
        ns,
        SERVER,
        &format!(
            "new --network-name {NETWORK} --network-cidr 10.42.0.0/16 --listen-port 51820 \
             --external-endpoint 192.0.2.1:51820"
        ),
    )?;
    let cidr = "--name nodes --cidr 10.42.1.0/24 --yes";
    run(
        ns,
        SERVER,
        &format!("add-cidr {NETWORK} --parent {NETWORK} {cidr}"),
    )?;
    let args = line(ns, SERVER, &format!("serve {NETWORK} --no-write-hosts"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    start(ns, SERVER, &args)?;
    eventually(|| {
        let listening = ns.sh("ss -Hltn")?;
        let at = format!("{SERVER_ADDRESS}%{NETWORK}:51820");
        ensure!(listening.contains(&at), "no server: {listening}");
        Ok(())
    })
}

/// A client that has joined.
struct Client<'a> {
    ns: &'a Netns,
    address: String,
    key: String,
}

impl<'a> Client<'a> {
    /// The server invites it, and it redeems the invitation.
    fn join(server: &Netns, ns: &'a Netns) -> Result<Self> {
        let name = ns.name();
        let invitation = format!("{DIR}/{name}.toml");
        run(
            server,
            SERVER,
            &format!(
                "add-peer {NETWORK} --name {name} --cidr nodes --admin false --auto-ip \
                 --invite-expires 1d --save-config {invitation} --yes"
            ),
        )?;
        let invited = peers(server)?;
        run(
            ns,
            "innernet",
            &format!("install {invitation} --default-name --delete-invite --no-write-hosts"),
        )?;
        let key = ns.sh(&format!("wg show {NETWORK} public-key"))?;
        let key = key.trim().to_owned();
        ensure!(
            !invited.contains(&key) && peers(server)?.contains(&key),
            "{name} has not replaced the key of its invitation"
        );
        let shown = ns.sh(&format!("ip -o -4 addr show dev {NETWORK}"))?;
        let address = shown.split_whitespace().nth(3).context("no address")?;
        let address = address.split('/').next().unwrap_or_default().to_owned();
        let client = Client { ns, address, key };
        ping(ns, SERVER_ADDRESS)?;
        ping(server, &client.address)?;
        Ok(client)
    }

    fn fetch(&self) -> Result<()> {
        let fetch = format!("fetch {NETWORK} --no-write-hosts");
        run(self.ns, "innernet", &fetch).map(drop)
    }

    /// After both have fetched, each has the other as a peer and reaches it.
    fn meets(&self, other: &Client) -> Result<()> {
        eventually(|| {
            for (one, two) in [(self, other), (other, self)] {
                one.fetch()?;
                ensure!(peers(one.ns)?.contains(&two.key), "unknown still");
            }
            ping(self.ns, &other.address)?;
            ping(other.ns, &self.address)
        })
        .with_context(|| format!("{} and {}", self.ns.name(), other.ns.name()))
    }
}

/// The public keys of the peers that `wg` shows.
fn peers(ns: &Netns) -> Result<Vec<String>> {
    let shown = ns.sh(&format!("wg show {NETWORK} peers"))?;
    Ok(shown.lines().map(str::to_owned).collect())
}

/// Two clients join, a third one follows, one is disabled and enabled again.
pub(super) fn network(_: &Ctx) -> Result<()> {
    let server = Netns::new("server")?;
    let machines = (Netns::new("one")?, Netns::new("two")?, Netns::new("three")?);
    let _hub = switch(&[&server, &machines.0, &machines.1, &machines.2])?;
    fs::create_dir_all(DIR)?;
    serve(&server)?;
    let one = Client::join(&server, &machines.0)?;
    let two = Client::join(&server, &machines.1)?;
    one.meets(&two)?;
    let three = Client::join(&server, &machines.2)?;
    one.meets(&three)?;
    two.meets(&three)?;

    run(
        &server,
        SERVER,
        &format!("disable-peer {NETWORK} --name two --yes"),
    )?;
    let left = peers(&server)?;
    ensure!(
        !left.contains(&two.key) && left.contains(&one.key) && left.contains(&three.key),
        "the server still has {left:?}"
    );
    one.fetch()?;
    let left = peers(one.ns)?;
    ensure!(
        !left.contains(&two.key) && left.contains(&three.key),
        "its peer still has {left:?}"
    );
    no_ping(one.ns, &two.address)?;
    no_ping(&server, &two.address)?;
    ping(one.ns, &three.address)?;
    run(
        &server,
        SERVER,
        &format!("enable-peer {NETWORK} --name two --yes"),
    )?;
    one.meets(&two).context("enabled again")?;

    run(one.ns, "innernet", &format!("uninstall {NETWORK} --yes"))?;
    let left = one.ns.sh("ip -o link show type wireguard")?;
    ensure!(left.is_empty(), "still there: {left}");
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! wg-rs and the device of a userspace implementation: configured over its socket, as by `wg`.

use super::call::{Call, Seen};
use super::sides::{difference, prepare, program, DIR, KIND};
use super::words::FIELDS;
use crate::tests::Test;
use anyhow::{ensure, Context, Result};
use harness::modules::Modules;
use harness::netns::Netns;
use harness::runner::{Boot, Ctx, Subject};
use harness::userspace::Program;
use harness::wgdev::base64;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// The program's device; the kernel also has one called `wg0`.
const NAME: &str = "tun7";

pub fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "tool-wg-program".to_owned(),
        boot: Boot::Smp,
        modules: Modules::Ours,
        subject: Subject::Rs,
        bound: Duration::from_secs(120),
        body: Box::new(of_a_program),
    });
}

struct Scene(Netns);

impl Scene {
    fn call(&self, n: usize, call: &Call) -> Result<Seen> {
        let tool = program(n, call.name);
        self.0.run(|| call.run(&tool, Path::new(DIR)))
    }

    /// The device as shown by `wg`, sorted: the program's order varies.
    fn state(&self) -> Result<Vec<String>> {
        let seen = self.call(0, &Call::new("wg", ["show", NAME, "dump"]))?;
        ensure!(seen.ok(), "{seen:?}");
        let text = String::from_utf8_lossy(&seen.stdout).into_owned();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// Both tools print the same.
    fn same(&self, args: &[&str]) -> Result<()> {
        let call = Call::new("wg", args).env("WG_HIDE_KEYS", "never");
        let both = [self.call(0, &call)?, self.call(1, &call)?];
        match difference(&both) {
            None => Ok(()),
            Some(what) => anyhow::bail!("{call}: {what}"),
        }
    }
}

fn of_a_program(ctx: &Ctx) -> Result<()> {
    prepare(&["/usr/bin/wg"])?;
    let scene = Scene(Netns::new("program")?);
    Program::Go.start(&scene.0, NAME)?;
    scene.0.rtnl()?.link_add("wg0", KIND)?;
    let private = base64(&[0x48; 32]);
    let keys: Vec<_> = (1..=3).map(|n| base64(&[n * 8; 32])).collect();
    let full = format!(
        "[Interface]\nPrivateKey = {private}\nListenPort = 51007\nFwMark = 0x77\n\
          [Peer]\nPublicKey = {}\nPresharedKey = {}\nEndpoint = 192.0.2.9:5\n\
          PersistentKeepalive = 25\nAllowedIPs = 10.1.0.0/16, fd01::/64\n\
          [Peer]\nPublicKey = {}\nEndpoint = [2001:db8::9]:6\n",
        keys[0], keys[1], keys[2],
    );
    let less = format!(
        "[Interface]\nPrivateKey = {private}\nListenPort = 51009\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.2.0.0/16\n",
        keys[2]
    );
    let conf = |verb: &str, text: &str| Call::new("wg", [verb, NAME, "/dev/stdin"]).stdin(text);
    let set = |args: &[&str]| Call::new("wg", [&["set", NAME], args].concat());
    let calls = [
        conf("setconf", &full),
        conf("addconf", &less),
        conf("syncconf", &less),
        conf("setconf", "[Interface]\nListenPort = 51009\n"),
        set(&[
            "listen-port",
            "51008",
            "fwmark",
            "0",
            "private-key",
            "/dev/stdin",
        ])
        .stdin(private.as_str()),
        set(&[
            "peer",
            &keys[0],
            "endpoint",
            "198.51.100.1:9",
            "persistent-keepalive",
            "off",
            "allowed-ips",
            "10.3.0.0/16",
        ]),
        set(&["peer", &keys[0], "preshared-key", "/dev/stdin"]).stdin(keys[1].as_str()),
        set(&["peer", &keys[0], "allowed-ips", ""]),
        set(&["peer", &keys[2], "remove"]),
        set(&["peer", "nonsense", "remove"]),
        // Refused by this program.
        set(&["fwmark", "0", "listen-port", "nonsense"]),
    ];
    let mut changes = 0;
    for call in &calls {
        let mut ends = Vec::new();
        for tool in 0..2 {
            let start = scene.call(0, &conf("setconf", &full))?;
            ensure!(start.ok(), "{start:?}");
            let before = scene.state()?;
            let seen = scene.call(tool, call)?;
            let state = scene.state()?;
            changes += usize::from(state != before);
            ends.push((seen.end, seen.text(), state));
        }
        ensure!(ends[0] == ends[1], "{call}:\n{:?}\n{:?}", ends[0], ends[1]);
    }
    ensure!(changes >= 14, "only {changes} calls changed anything");
    // A single peer: their order varies.
    let one = scene.call(0, &conf("setconf", &less))?;
    ensure!(one.ok(), "{one:?}");
    for field in FIELDS {
        scene.same(&["show", NAME, field])?;
        scene.same(&["show", "all", field])?;
    }
    for args in [
        &["show"][..],
        &["show", NAME],
        &["showconf", NAME],
        &["show", "interfaces"],
        &["show", "wg0"],
        &["show", "tun8"],
    ] {
        scene.same(args)?;
    }
    let listed = scene.call(1, &Call::new("wg", ["show", "interfaces"]))?;
    ensure!(listed.stdout == b"wg0 tun7\n", "{listed:?}");
    // A stale socket is ignored and removed.
    let socket = "/var/run/wireguard/wg0.sock";
    drop(UnixListener::bind(socket).context("bind")?);
    scene.same(&["show", "wg0"])?;
    ensure!(fs::metadata(socket).is_err(), "the socket still exists");
    ctx.note(format!(
        "{} calls that change, {} that show",
        calls.len(),
        2 * FIELDS.len() + 7
    ));
    Ok(())
}

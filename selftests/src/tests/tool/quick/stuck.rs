// SPDX-License-Identifier: GPL-2.0-only
//! Where people get stuck, wg-rs says what to do; called as wg-quick it fails the same way.

use super::super::call::{Call, End, Sink};
use super::super::sides::program;
use super::cases::{conf, CONF, ENDPOINT};
use super::scene::{Place, OWN, PATH};
use anyhow::{ensure, Result};
use harness::runner::Ctx;
use std::path::Path;

/// What is wrong here: scripts that bring it about and undo it, a file, and a part of the hint.
struct Stuck {
    before: &'static str,
    after: &'static str,
    conf: String,
    arguments: &'static [&'static str],
    hint: &'static str,
}

fn table() -> Vec<Stuck> {
    let v6 = "Address = 10.8.0.2/24, fd08::2/64";
    let stuck = |before, after, interface: &str, ips: &str, hint| Stuck {
        before,
        after,
        conf: conf(interface, &format!("{ENDPOINT}{ips}")),
        arguments: &["up", "wg0"],
        hint,
    };
    let off = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
    let on = "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0";
    let v4 = "Address = 10.8.0.2/24";
    let here = |arguments| Stuck {
        arguments,
        ..stuck(
            "cp /etc/wireguard/wg0.conf home.conf",
            "rm home.conf",
            v4,
            "10.8.0.0/24",
            "./home.conf",
        )
    };
    vec![
        stuck(
            "sysctl -qw net.ipv4.conf.all.src_valid_mark=0
             mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys",
            "",
            v4,
            "0.0.0.0/0",
            "src_valid_mark=1",
        ),
        stuck(off, on, v6, "10.8.0.0/24", "IPv6 is disabled"),
        stuck(off, on, v4, "10.8.0.0/24, ::/0", "IPv6 is disabled"),
        stuck(
            "",
            "",
            "Address = 10.8.0.2/24\nDNS = 10.8.0.1",
            "10.8.0.0/24",
            "openresolv",
        ),
        stuck(
            "",
            "",
            "Address = 10.8.0.2/24\nTable = nowhere",
            "10.9.0.0/24",
            "rt_tables",
        ),
        here(&["up", "home.conf"]),
        here(&["strip", "home.conf"]),
        here(&["down", "home.conf"]),
    ]
}

pub fn hints(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    for case in table() {
        place.put(CONF, 0o600, &case.conf)?;
        let mut ends = Vec::new();
        for name in ["wg-quick", "wg-rs"] {
            let tool = program(1, name).display().to_string();
            let script = format!(
                "cd {OWN} && {{ {}\n}} && \"$@\"; status=$?; {{ {}\n}}; exit $status",
                if case.before.is_empty() {
                    ":"
                } else {
                    case.before
                },
                if case.after.is_empty() {
                    ":"
                } else {
                    case.after
                }
            );
            let args = [&["-c", &script, "bash", &tool], case.arguments].concat();
            let call = Call::new("bash", args).env("PATH", PATH);
            let seen = place.run(|| call.run(Path::new("/usr/bin/bash"), &place.own))?;
            let text = seen.text();
            ensure!(matches!(seen.end, End::Exit(1..)), "{name}: {seen:?}");
            ensure!(!text.contains("os error"), "{name}: {text}");
            let hinted = text.contains("  hint: ") && text.contains(case.hint);
            ensure!(hinted == (name == "wg-rs"), "{name}, {}: {text}", case.hint);
            ends.push(seen.end);
        }
        ensure!(ends[0] == ends[1], "{}: {ends:?}", case.hint);
    }
    // What cannot be read is said in words, without numbers.
    for args in [
        &["check", "/nowhere"][..],
        &["check", "/"],
        &["setconf", "wg0", "/"],
    ] {
        let seen = place.call(&Call::new("wg-rs", args))?;
        ensure!(
            !seen.ok() && !seen.text().contains("os error"),
            "{args:?}: {seen:?}"
        );
    }
    place.sh("ip link add wg7 type wireguard")?;
    let names = place.call(&Call::new("wg-rs", ["show", "interfaces", "--json"]))?;
    ensure!(names.stdout == b"[\n  \"wg7\"\n]\n", "{names:?}");
    // A terminal that knows no escape sequences gets none.
    for (terminal, escapes) in [("dumb", false), ("linux", true)] {
        let show = Call::new("wg-rs", ["show"])
            .env("TERM", terminal)
            .sink(Sink::Tty);
        let seen = place.call(&show)?;
        ensure!(
            seen.stdout.contains(&0x1b) == escapes,
            "{terminal}: {seen:?}"
        );
    }
    Ok(())
}

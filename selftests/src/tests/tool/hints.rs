// SPDX-License-Identifier: GPL-2.0-only
//! What wg-rs says if the driver or the privilege is missing, and with a driver of another name.

use super::call::{Call, Seen};
use super::sides::{difference, prepare, program, DIR};
use super::words::PRIVATE;
use crate::tests::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::modules::{loaded, Modules, NoModprobe, INTREE, OURS};
use harness::netns::Netns;
use harness::runner::{Boot, Ctx, Subject};
use std::fs;
use std::path::Path;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "tool-privilege", 60, privilege);
    type Body = fn(&Ctx) -> Result<()>;
    let alone: [(&str, Modules, Body); 2] = [
        ("tool-no-module", Modules::None, no_module),
        ("tool-coexist", Modules::Both, coexist),
    ];
    for (name, modules, body) in alone {
        list.push(Test {
            name: name.to_owned(),
            boot: Boot::Smp,
            modules,
            subject: Subject::Rs,
            bound: Duration::from_secs(60),
            body: Box::new(body),
        });
    }
}

/// The commands that need the kernel.
const COMMANDS: &[&[&str]] = &[
    &["show"],
    &["show", "all", "dump"],
    &["show", "interfaces"],
    &["show", "wg0"],
    &["showconf", "wg0"],
    &["set", "wg0", "listen-port", "5"],
    &["setconf", "wg0", "/dev/null"],
    &["addconf", "wg0", "/dev/null"],
    &["syncconf", "wg0", "/dev/null"],
];

/// A call of `name` on side `n`, by means of `with` (a program and its arguments).
fn call_via(
    ns: &Netns,
    n: usize,
    with: &[&str],
    name: &'static str,
    args: &[&str],
) -> Result<Seen> {
    let tool = program(n, name);
    ns.run(|| match with.split_first() {
        None => Call::new(name, args).run(&tool, Path::new(DIR)),
        Some((wrapper, rest)) => {
            // argv[0] must be the bare name, as from a shell.
            let path = tool
                .parent()
                .map(|folder| format!("PATH={}", folder.display()));
            let path = path.unwrap_or_default();
            let all = [rest, &["/usr/bin/env", &path, name], args].concat();
            Call::new("wrapper", all).run(Path::new(wrapper), Path::new(DIR))
        }
    })
}

/// As `wg` it fails like `wg`; as `wg-rs` it also prints one of `hints`.
fn fails_the_same(ns: &Netns, with: &[&str], hints: &[&str]) -> Result<()> {
    let mut hinted = 0;
    for args in COMMANDS {
        let both = [
            call_via(ns, 0, with, "wg", args)?,
            call_via(ns, 1, with, "wg", args)?,
        ];
        ensure!(
            difference(&both).is_none(),
            "wg {args:?}: {}",
            difference(&both).unwrap_or_default()
        );
        let ours = call_via(ns, 1, with, "wg-rs", args)?;
        if both[0].ok() {
            continue;
        }
        ensure!(ours.end == both[0].end, "wg-rs {args:?}: {ours:?}");
        let text = ours.text();
        ensure!(
            hints.iter().any(|hint| text.contains(hint)),
            "wg-rs {args:?} does not give a hint: {text}"
        );
        hinted += 1;
    }
    ensure!(hinted >= 5, "only {hinted} commands failed");
    Ok(())
}

/// A user without privileges.
fn privilege(_: &Ctx) -> Result<()> {
    prepare(&["/usr/bin/wg"])?;
    let ns = Netns::new("a")?;
    ns.rtnl()?.link_add("wg0", "wireguard")?;
    let nobody = [
        "/usr/bin/setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
    ];
    fails_the_same(&ns, &nobody, &["CAP_NET_ADMIN", "root"])?;
    // What needs no privileges works without.
    for args in [&["genkey"][..], &["help"]] {
        ensure!(
            call_via(&ns, 1, &nobody, "wg", args)?.ok(),
            "wg {args:?} as a user"
        );
    }
    Ok(())
}

/// Neither module, and no way to load one.
fn no_module(_: &Ctx) -> Result<()> {
    prepare(&["/usr/bin/wg"])?;
    let ns = Netns::new("a")?;
    let _none = NoModprobe::new()?;
    fails_the_same(&ns, &[], &["modprobe"])?;
    ns.sh("ip link add wg0 type veth peer name wg0p")?;
    fails_the_same(&ns, &[], &["modprobe", "not a WireGuard interface"])?;
    ensure!(!loaded(INTREE) && !loaded(OURS), "a module was loaded");
    Ok(())
}

/// Both drivers at once, each with a device.
fn coexist(_: &Ctx) -> Result<()> {
    prepare(&["/usr/bin/wg"])?;
    let ns = Netns::new("a")?;
    ns.rtnl()?.link_add("wg0", INTREE)?;
    ns.rtnl()?.link_add("wg1", OURS)?;
    let run = |args: &[&str]| -> Result<String> {
        let seen = call_via(&ns, 1, &[], "wg-rs", args)?;
        ensure!(seen.ok(), "wg-rs {args:?}: {seen:?}");
        Ok(seen.text())
    };
    let names = run(&["show", "interfaces"])?;
    let mut names: Vec<&str> = names.split_whitespace().collect();
    names.sort_unstable();
    ensure!(names == ["wg0", "wg1"], "wg-rs finds {names:?}");
    let key = format!("{DIR}/files/key");
    fs::write(&key, PRIVATE[0])?;
    for (name, port, other) in [
        ("wg0", "1000", "wireguard_rs"),
        ("wg1", "1001", "wireguard"),
    ] {
        run(&["set", name, "listen-port", port, "private-key", &key])?;
        ensure!(
            run(&["show", name, "listen-port"])?.trim() == port,
            "the port of {name}"
        );
        ensure!(
            run(&["showconf", name])?.contains(PRIVATE[0]),
            "the key of {name}"
        );
        let family = if name == "wg0" { INTREE } else { OURS };
        ensure!(
            run(&["--family", family, "show", name, "dump"])?.contains(port),
            "--family {family}"
        );
        let wrong = call_via(&ns, 1, &[], "wg-rs", &["--family", other, "show", name])?;
        ensure!(!wrong.ok(), "{name} is found in the family {other}");
    }
    let all = run(&["show", "all", "listen-port"])?;
    ensure!(
        all.contains("wg0\t1000") && all.contains("wg1\t1001"),
        "both: {all}"
    );
    // The ordinary tool sees only the in-tree driver's.
    ensure!(
        ns.sh("wg show interfaces")?.trim() == "wg0",
        "wg finds ours"
    );
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! Starting the daemons of control planes, and the message bus that two of them are asked over.

use anyhow::{Context, Result};
use harness::cmd;
use harness::netns::Netns;
use harness::userspace::{log_path, log_tail};
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

/// Where the bus of [`bus`] listens.
const BUS: &str = "/run/wireguard/bus";
/// What makes programs use it.
const BUS_VARIABLE: (&str, &str) = ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/wireguard/bus");

/// The path of a program that scripts/peers has built.
pub(super) fn added(name: &str) -> String {
    format!("/add/{name}")
}

/// Starts a daemon in the namespace, with a `/sys` of that: a read-only one, so that it does not
/// wait for udev.
pub(super) fn start(ns: &Netns, name: &str, args: &[&str]) -> Result<Child> {
    let script = "mount -t sysfs -o ro sysfs /sys; exec \"$@\"";
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(name))?;
    ns.run(|| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-ec", script, name]);
        command.args(args).env(BUS_VARIABLE.0, BUS_VARIABLE.1);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("start {name}"))
    })
}

/// Starts a system message bus in the namespace.
pub(super) fn bus(ns: &Netns) -> Result<()> {
    let address = format!("--address={}", BUS_VARIABLE.1);
    start(
        ns,
        "dbus-daemon",
        &[
            "dbus-daemon",
            "--system",
            "--nofork",
            "--nopidfile",
            &address,
        ],
    )?;
    super::eventually(|| fs::metadata(BUS).context(BUS)).map(drop)
}

/// Runs a program that asks a daemon over the bus.
pub(super) fn ask(ns: &Netns, daemon: &str, line: &str) -> Result<String> {
    let variable = format!("{}={}", BUS_VARIABLE.0, BUS_VARIABLE.1);
    let args: Vec<&str> = ["env", &variable]
        .into_iter()
        .chain(line.split(' '))
        .collect();
    ns.run(|| cmd::run(&args))
        .with_context(|| format!("{daemon}: {}", log_tail(daemon)))
}

// SPDX-License-Identifier: GPL-2.0-only
//! The systemd unit: if enabled, it brings the tunnel up when systemd starts; reload and stop work.

use super::super::call::{Call, Seen};
use super::super::sides::DIR;
use super::cases::{conf, CONF, ENDPOINT};
use super::scene::{public, Place};
use anyhow::{bail, ensure, Context, Result};
use harness::pace::slow;
use harness::runner::Ctx;
use harness::wgdev::{base64, random_key};
use nix::mount::{mount, MsFlags};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const UNIT: &str = include_str!("../../../../../userspace/systemd/wg-rs@.service");
/// Folders that systemd writes to; here each is a tmpfs.
const SCRATCH: [&str; 2] = ["/run/systemd", "/etc/systemd/system"];
/// Systemd's own units that ours refers to, and those that these need.
const STOCK: [&str; 6] = [
    "basic.target",
    "multi-user.target",
    "network-online.target",
    "nss-lookup.target",
    "shutdown.target",
    "sysinit.target",
];

/// Environment: systemd finds only the units installed here and those that have been enabled.
fn environment() -> [(&'static str, String); 5] {
    [
        (
            "SYSTEMD_UNIT_PATH",
            format!("/etc/systemd/system:{DIR}/lib/systemd/system"),
        ),
        ("SYSTEMD_GENERATOR_PATH", "/nowhere".to_owned()),
        ("SYSTEMD_ENVIRONMENT_GENERATOR_PATH", "/nowhere".to_owned()),
        // The guest's root is not the kernel's initial one.
        ("SYSTEMD_IGNORE_CHROOT", "1".to_owned()),
        ("container", "test".to_owned()),
    ]
}

/// Installs the unit as `make install PREFIX=DIR` would.
fn install() -> Result<()> {
    let none = None::<&str>;
    for folder in SCRATCH {
        fs::create_dir_all(folder)?;
        mount(none, folder, Some("tmpfs"), MsFlags::empty(), none).context(folder)?;
    }
    let units = Path::new(DIR).join("lib/systemd/system");
    fs::create_dir_all(&units)?;
    let tool = format!("{DIR}/bin/wg-rs");
    fs::write(
        units.join("wg-rs@.service"),
        UNIT.replace("/usr/bin/wg-rs", &tool),
    )?;
    for name in STOCK {
        let stock = Path::new("/usr/lib/systemd/system").join(name);
        fs::copy(&stock, units.join(name)).with_context(|| stock.display().to_string())?;
    }
    Ok(())
}

/// A systemd in the place's network, in its own PID namespace; killed when dropped.
struct Systemd(Child);

impl Systemd {
    fn boot(place: &Place) -> Result<Self> {
        let script = "mount -t proc proc /proc; mount -t cgroup2 cgroup2 /sys/fs/cgroup
                      exec /usr/lib/systemd/systemd --system --unit=multi-user.target \
                          --log-target=null --show-status=false";
        let child = place.run(|| {
            let mut command = Command::new("unshare");
            command.args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--uts",
                "--ipc",
                "--cgroup",
                "bash",
                "-ec",
                script,
            ]);
            command
                .env_clear()
                .envs(environment())
                .env("PATH", "/usr/sbin:/usr/bin");
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Ok(command.spawn()?)
        })?;
        Ok(Systemd(child))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls one of systemd's programs in the place.
fn run(place: &Place, program: &'static str, args: &[&str]) -> Result<Seen> {
    let mut call = Call::new(program, args);
    call.env.extend(environment());
    place.run(|| call.run(&Path::new("/usr/bin").join(program), &place.own))
}

/// The PID of the place's systemd in this `/proc`.
fn init() -> Result<String> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim() == "systemd" {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("systemd is not running")
}

/// Calls `systemctl` in the PID namespace of the place's systemd, which answers to no others.
fn control(place: &Place, args: &str) -> Result<Seen> {
    let init = init()?;
    let enter = ["--target", &init, "--pid", "--mount", "--root", "systemctl"];
    let args: Vec<_> = enter.into_iter().chain(args.split(' ')).collect();
    run(place, "nsenter", &args)
}

/// The same for what must succeed.
fn control_ok(place: &Place, args: &str) -> Result<String> {
    let seen = control(place, args)?;
    if !seen.ok() {
        let status = control(place, "status --no-pager wg-rs@wg0")?;
        bail!("systemctl {args}: {seen:?}; {}", status.text());
    }
    Ok(seen.text())
}

/// Whether the interface exists.
fn is_up(place: &Place) -> Result<bool> {
    Ok(place
        .sh("ip -o link show wg0 2>/dev/null || true")?
        .contains("wg0"))
}

pub fn unit(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    let good = conf("Address = 10.8.0.2/24", &format!("{ENDPOINT}10.8.0.0/24"));
    place.put(CONF, 0o600, &good)?;
    install()?;
    let verified = run(
        &place,
        "systemd-analyze",
        &["verify", "--man=no", "wg-rs@wg0.service"],
    )?;
    ensure!(
        verified.ok() && verified.text().is_empty(),
        "systemd-analyze verify: {verified:?}"
    );
    let enabled = run(&place, "systemctl", &["enable", "wg-rs@wg0"])?;
    ensure!(enabled.ok(), "systemctl enable: {enabled:?}");

    let _systemd = Systemd::boot(&place)?;
    let deadline = Instant::now() + slow(Duration::from_secs(60));
    while !control(&place, "is-active wg-rs@wg0").is_ok_and(|seen| seen.ok()) {
        ensure!(
            Instant::now() < deadline,
            "not up after a minute: {}",
            control(&place, "status --no-pager wg-rs@wg0")?.text()
        );
        sleep(Duration::from_millis(500));
    }
    let ping = "ping -n -q -c 1 -W 10 10.8.0.1 >/dev/null";
    place.sh(ping).context("the tunnel of the unit")?;

    // A new peer is added from the file; the session of the other one is kept.
    let session = |place: &Place| {
        place.sh(&format!(
            "wg show wg0 latest-handshakes | grep '{}'",
            public(1)
        ))
    };
    let before = session(&place)?;
    let second = format!(
        "{good}\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.66.0.0/16\n",
        base64(&random_key())
    );
    place.put(CONF, 0o600, &second)?;
    control_ok(&place, "reload wg-rs@wg0")?;
    let ips = place.sh("wg show wg0 allowed-ips")?;
    ensure!(ips.contains("10.66.0.0/16"), "after reload: {ips}");
    ensure!(session(&place)? == before, "reload ended the session");
    place.sh(ping).context("after reload")?;

    // An invalid file changes nothing, whether `strip` or `syncconf` finds the error.
    for fault in ["SaveConfig = maybe", "ListenPort = 70000"] {
        place.put(CONF, 0o600, &good.replace("ListenPort = 51000", fault))?;
        let seen = control(&place, "reload wg-rs@wg0")?;
        ensure!(!seen.ok(), "reload with {fault}: {seen:?}");
        ensure!(
            place.sh("wg show wg0 allowed-ips")? == ips,
            "{fault}: changed by a failed reload"
        );
        control_ok(&place, "is-active wg-rs@wg0").context(fault)?;
    }
    place.put(CONF, 0o600, &good)?;
    control_ok(&place, "restart wg-rs@wg0")?;
    ensure!(
        !place.sh("wg show wg0 allowed-ips")?.contains("10.66"),
        "restart kept the old peer"
    );
    control_ok(&place, "stop wg-rs@wg0")?;
    ensure!(!is_up(&place)?, "still up after stop");

    // A failed start is reported, and leaves nothing behind.
    place.put(
        CONF,
        0o600,
        &good.replace("Address", "PostUp = false\nAddress"),
    )?;
    let seen = control(&place, "start wg-rs@wg0")?;
    ensure!(!seen.ok() && !is_up(&place)?, "failing start: {seen:?}");
    ensure!(
        control(&place, "is-failed wg-rs@wg0")?.ok(),
        "no failed unit"
    );
    Ok(())
}

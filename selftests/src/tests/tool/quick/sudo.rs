// SPDX-License-Identifier: GPL-2.0-only
//! Called by an ordinary user, the tool restarts itself with sudo(8), which here is a shell script
//! that logs its arguments.

use super::super::call::{Call, End, Seen};
use super::super::sides::{program, DIR};
use super::cases::{conf, CONF};
use super::scene::{Place, PATH};
use anyhow::{ensure, Context, Result};
use harness::runner::Ctx;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The script's exit code, which must become the tool's.
const STATUS: i32 = 42;

/// A way to call the tool.
struct Way {
    program: PathBuf,
    args: &'static [&'static str],
    /// The name that is said to need root.
    named: &'static str,
}

/// Calls it as an ordinary user in the place, with this PATH.
fn as_nobody(place: &Place, way: &Way, path: &str) -> Result<Seen> {
    let path = format!("PATH={path}");
    let user = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "env",
        &path,
    ];
    let program = way.program.to_string_lossy();
    let args = [&user[..], &[&*program], way.args].concat();
    let call = Call::new("setpriv", args);
    place.run(|| call.run(Path::new("/usr/bin/setpriv"), &place.own))
}

pub fn becomes_root(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    place.put(
        CONF,
        0o600,
        &conf("Address = 10.8.0.2/24", "AllowedIPs = 10.8.0.0/24"),
    )?;
    let bin = Path::new(DIR).join("sudo");
    fs::create_dir(&bin)?;
    let asked = bin.join("asked");
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >{}\nexit {STATUS}\n",
        asked.display()
    );
    for (path, mode, content) in [
        (bin.join("sudo"), 0o755, &*script),
        (asked.clone(), 0o666, ""),
    ] {
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    // Not a link but a copy with that name.
    let copy = bin.join("wg-quick");
    fs::copy(program(1, "wg-rs"), &copy)?;
    let way = |program, args, named| Way {
        program,
        args,
        named,
    };
    let ways = [
        way(program(0, "wg-quick"), &["up", "wg0"][..], "wg-quick"),
        way(program(1, "wg-quick"), &["up", "wg0"], "wg-quick"),
        way(copy, &["up", "wg0"], "wg-quick"),
        way(program(1, "wg-rs"), &["up", "wg0"], "wg-rs"),
        way(program(1, "wg-rs"), &["quick", "up", "wg0"], "wg-rs"),
        way(
            program(1, "wg-rs"),
            &["--family", "wireguard", "up", "/etc/wireguard/wg0.conf"],
            "wg-rs",
        ),
    ];
    for way in &ways {
        let what = format!("{} {:?}", way.program.display(), way.args);
        fs::write(&asked, "")?;
        let seen = as_nobody(&place, way, &format!("{}:/usr/bin", bin.display()))?;
        ensure!(seen.end == End::Exit(STATUS), "{what}: {seen:?}");
        let asked = fs::read_to_string(&asked)?;
        let prompt = format!(
            "-p\n{} must be run as root. Please enter the password for %u to continue: \n--\n",
            way.named
        );
        let line = asked.strip_prefix(&prompt);
        let line = line.with_context(|| format!("{what}: sudo was called with {asked}"))?;
        // What sudo would run must do what the user wanted. (env calls a program by its own name,
        // as sudo does.)
        let up = Call::new("env", line.lines()).env("PATH", PATH);
        let seen = place.run(|| up.run(Path::new("/usr/bin/env"), &place.own))?;
        ensure!(seen.ok(), "{what}: {line}: {seen:?}");
        place.sh("ip link show wg0").with_context(|| what.clone())?;
        place.sh("ip link del wg0")?;
    }
    // Without sudo the reason is reported, and nothing is done.
    for way in &ways[1..] {
        let seen = as_nobody(&place, way, "/nowhere")?;
        let why = format!("{}: must be run as root", way.named);
        ensure!(
            seen.end == End::Exit(1) && seen.text().contains(&why),
            "without sudo: {seen:?}"
        );
    }
    ensure!(
        place.sh("ip -o link show wg0 2>/dev/null || echo none")? == "none\n",
        "created by a user"
    );
    // Help needs no privileges.
    let help = Way {
        args: &["--help"],
        ..way(program(1, "wg-quick"), &[], "wg-quick")
    };
    ensure!(
        as_nobody(&place, &help, "/nowhere")?.ok(),
        "--help as a user"
    );
    Ok(())
}

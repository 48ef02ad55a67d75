// SPDX-License-Identifier: GPL-2.0
//! Called by an ordinary user: the tool starts again by sudo(8). That is a shell script here, which writes down what it was
//! asked for.

use super::super::call::{Call, End, Seen};
use super::super::sides::{program, DIR};
use super::cases::{conf, CONF};
use super::scene::{Place, PATH};
use crate::harness::runner::Ctx;
use anyhow::{ensure, Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How the script ends, which must become the tool's own status.
const STATUS: i32 = 42;

/// A way to call the tool.
struct Way {
    program: PathBuf,
    args: &'static [&'static str],
    /// Who is said to need root's rights.
    named: &'static str,
}

/// As an ordinary user in the place, with programs of `path`.
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
    // Not a link, but the program itself by that name.
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
        let line = line.with_context(|| format!("{what}: sudo was asked for {asked}"))?;
        // What sudo would have run does what the user wanted.
        // (env calls a program by its own name, as sudo does.)
        let up = Call::new("env", line.lines()).env("PATH", PATH);
        let seen = place.run(|| up.run(Path::new("/usr/bin/env"), &place.own))?;
        ensure!(seen.ok(), "{what}: {line}: {seen:?}");
        place.sh("ip link show wg0").with_context(|| what.clone())?;
        place.sh("ip link del wg0")?;
    }
    // Without sudo the reason is told, and nothing is done.
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
        "made by a user"
    );
    // Help needs no rights.
    let help = Way {
        args: &["--help"],
        ..way(program(1, "wg-quick"), &[], "wg-quick")
    };
    ensure!(
        as_nobody(&place, &help, "/nowhere")?.ok(),
        "the help of a user"
    );
    Ok(())
}

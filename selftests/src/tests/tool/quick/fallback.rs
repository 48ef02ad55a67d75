// SPDX-License-Identifier: GPL-2.0-only
//! A kernel without WireGuard: the tunnel is driven by wireguard-go, as with the ordinary tool.

use super::super::call::{Call, Seen};
use super::super::sides::{prepare, program, DIR, SIDES};
use super::scene::{essential, private, public, PATH, TOOLS};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::modules::NoModprobe;
use harness::netns::Netns;
use harness::pace::slow;
use harness::runner::Ctx;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const VARIABLE: &str = "WG_QUICK_USERSPACE_IMPLEMENTATION";
/// Shows the tunnel as it is.
const SHOW: &str = "ip -o link show wg0 | grep -o 'mtu [0-9]*'; ip -4 -o addr show wg0 \
                    | sed 's/^[0-9]*: //'; ip route show dev wg0; \
                    ip -4 rule show; wg showconf wg0";

/// What a side does from the beginning to the end.
#[derive(PartialEq, Debug)]
struct Story {
    calls: Vec<(String, Seen)>,
    shown: String,
}

fn story(n: usize, name: &'static str, implementation: &str) -> Result<Story> {
    let ns = Netns::new(&format!("side{n}"))?;
    let sh = |script: &str| ns.run(|| cmd::run(&["bash", "-ec", script]));
    sh("ip link add eth0 type dummy; ip link set eth0 mtu 1400 up;
         ip addr add 192.0.2.10/24 dev eth0; ip route add default via 192.0.2.1;
         sysctl -qw net.ipv4.conf.all.src_valid_mark=0")?;
    let file = format!("{DIR}/files/wg0.conf");
    let call = |verb: &str| -> Result<Seen> {
        let call = Call::new(name, [verb, &file])
            .env("PATH", PATH)
            .env(VARIABLE, implementation);
        let mut seen = ns.run(|| call.run(&program(n, name), Path::new(DIR)))?;
        seen.stderr = essential(&seen.stderr, &[]).into_bytes();
        Ok(seen)
    };
    let mut calls = vec![("up".to_owned(), call("up")?)];
    let mut shown = String::new();
    if calls[0].1.ok() {
        shown = sh(SHOW)?;
        for verb in ["save", "down"] {
            calls.push((verb.to_owned(), call(verb)?));
        }
        // The program ends with its device.
        let start = Instant::now();
        while Path::new("/var/run/wireguard/wg0.sock").exists() {
            ensure!(
                start.elapsed() < slow(Duration::from_secs(20)),
                "the program goes on"
            );
            sleep(Duration::from_millis(50));
        }
    }
    let left = sh("ip -o link show wg0 2>/dev/null || echo none")?;
    ensure!(left == "none\n", "left behind: {left}");
    Ok(Story { calls, shown })
}

pub fn fallback(ctx: &Ctx) -> Result<()> {
    prepare(&[TOOLS, &["/usr/bin/wireguard-go"]].concat())?;
    cmd::run(&["modprobe", "-a", "dummy", "tun"])?;
    let _none = NoModprobe::new()?;
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51000\nAddress = 10.8.0.2/24\n\
         PostUp = wg show %i fwmark\n\n[Peer]\nPublicKey = {}\nEndpoint = 192.0.2.1:51820\n\
         AllowedIPs = 10.8.0.0/24, 10.9.0.0/16\n",
        private(0),
        public(1)
    );
    for implementation in [
        "",
        "wireguard-go",
        "/usr/bin/wireguard-go",
        "no-such-program",
    ] {
        let mut stories = Vec::new();
        for (n, name) in [(0, "wg-quick"), (1, "wg-quick"), (1, "wg-rs")] {
            fs::create_dir_all(format!("{DIR}/files"))?;
            let file = format!("{DIR}/files/wg0.conf");
            fs::write(&file, &text)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            let story = story(n, name, implementation);
            stories.push(story.with_context(|| format!("{name} of {}", SIDES[n]))?);
        }
        let [c, rs, own] = &stories[..] else { continue };
        let works = implementation != "no-such-program";
        // Where it fails, the real one still cleans up a link that is not there, and says so.
        let [all, why] = [c, rs].map(|story| story.calls[0].1.text());
        let fails_alike = why.contains("Unknown device type") && all.starts_with(&why);
        let alike = if works { c == rs } else { fails_alike };
        ensure!(alike, "{implementation:?}:\n{c:#?}\n{rs:#?}");
        // In its own voice it gives a hint where it fails.
        ensure!(
            c.shown == own.shown,
            "{implementation:?}:\n{c:#?}\n{own:#?}"
        );
        for story in [c, rs] {
            ensure!(story.calls[0].1.ok() == works, "{story:?}");
        }
        let hint = own.calls[0].1.text().contains("modprobe");
        ensure!(works || hint, "no hint: {own:?}");
        ctx.note(format!("{implementation:?}: {} calls alike", c.calls.len()));
    }
    Ok(())
}

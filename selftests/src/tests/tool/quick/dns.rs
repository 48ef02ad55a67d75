// SPDX-License-Identifier: GPL-2.0-only
//! Name servers: how the programs that set them are called. These are shell scripts here, which
//! log their calls.

use super::super::call::End;
use super::cases::{call, conf, quick, refused, sh, Act, Case, CONF, ENDPOINT};
use super::scene::{compare, Place, OWN};
use anyhow::{ensure, Context, Result};
use harness::runner::Ctx;
use nix::mount::{mount, MsFlags};
use std::fs;
use std::path::Path;

/// A side with a `resolvconf`. It fails for `-a` with the status in the file `fail-a`, for `-d`
/// with that in `fail-d`, ….
pub fn with_dns(name: &'static str, interface: &str, acts: Vec<Act>) -> Case {
    let script = format!(
        "#!/bin/sh\necho \"resolvconf $*\" >>{OWN}/log\n\
         [ ! -e {OWN}/bin/fail$1 ] || exit $(cat {OWN}/bin/fail$1)\n\
         case $1 in\n-a) cat | tee {OWN}/dns >>{OWN}/log;;\n-d) rm -f {OWN}/dns;;\n\
         -l) cat {OWN}/dns;;\nesac\n"
    );
    Case {
        name,
        files: vec![
            (
                CONF,
                0o600,
                conf(interface, &format!("{ENDPOINT}10.8.0.0/24")),
            ),
            ("bin/resolvconf", 0o755, script),
        ],
        acts,
        leaves: vec!["etc/wg0.conf", "log"],
        wg_quick_only: vec![],
    }
}

/// With `resolvconf`, compared with the ordinary tool.
pub fn cases() -> Vec<Case> {
    let one = "Address = 10.8.0.2/24\nDNS = 10.8.0.1";
    let fails = |which: &str, status: u8| sh(&format!("echo {status} >{OWN}/bin/fail{which}"));
    let works = |which: &str| sh(&format!("rm {OWN}/bin/fail{which}"));
    let mut debian = with_dns(
        "ranked interfaces",
        one,
        vec![quick("up wg0"), quick("save wg0"), quick("down wg0")],
    );
    let order = "# interface-order(5)\nlo.inet6\nlo.*\ntun*\ntap*\n".to_owned();
    debian
        .files
        .push(("resolvconf/interface-order", 0o644, order));
    vec![
        with_dns(
            "servers",
            "Address = 10.8.0.2/24\nDNS = 10.8.0.1, fd08::1\nDNS=9.9.9.9",
            vec![quick("up wg0"), quick("save wg0"), quick("down wg0")],
        ),
        // Without `save`, which keeps the domains in wg-rs but loses them in the ordinary tool.
        with_dns(
            "servers and domains",
            "Address = 10.8.0.2/24\nDNS = 10.8.0.1, example.org\nDNS=9.9.9.9 search.example",
            vec![quick("up wg0"), quick("down wg0")],
        ),
        with_dns(
            "domains alone",
            "Address = 10.8.0.2/24\nDNS = example.org",
            vec![quick("up wg0"), quick("down wg0")],
        ),
        debian,
        with_dns(
            "setting fails",
            one,
            vec![fails("-a", 7), refused("up wg0"), works("-a")],
        ),
        with_dns(
            "a later step fails",
            &format!("{one}\nPostUp = exit 9"),
            vec![refused("up wg0")],
        ),
        with_dns(
            "removal fails",
            one,
            vec![
                quick("up wg0"),
                fails("-d", 5),
                quick("down wg0"),
                sh(&format!("rm {OWN}/dns {OWN}/bin/fail-d")),
            ],
        ),
        with_dns(
            "listing fails",
            one,
            vec![
                quick("up wg0"),
                fails("-l", 1),
                sh(&format!(
                    "mkdir -p {OWN}/resolvconf/run/interface
                 echo nameserver 10.8.0.9 >{OWN}/resolvconf/run/interface/wg0"
                )),
                quick("save wg0"),
                works("-l"),
                quick("down wg0"),
                sh(&format!("rm -r {OWN}/resolvconf/run")),
            ],
        ),
    ]
}

/// Where systemd-resolved would be.
const SYSTEMD: &str = "/run/systemd";

/// A sequence of calls of wg-rs where `resolvectl` exists.
struct Sequence {
    name: &'static str,
    interface: &'static str,
    /// The subcommand for which `resolvectl` fails.
    fails: &'static str,
    /// Whether there are a `resolvconf` and a running systemd-resolved.
    others: [bool; 2],
    /// The verbs, and the exit code of each.
    acts: &'static [(&'static str, i32)],
    /// The logged calls; each line ends with the number of interfaces `wg0` then, `0` or `1`.
    log: &'static str,
}

const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "servers and domains",
        interface: "DNS = 10.8.0.1, fd08::1, example.org\nDNS=lan",
        fails: "",
        others: [false, true],
        acts: &[("up", 0), ("save", 0), ("down", 0), ("up", 0), ("down", 0)],
        log: "resolvectl dns wg0 10.8.0.1 fd08::1 1\nresolvectl domain wg0 ~. example.org lan 1\n\
              resolvectl dns wg0 10.8.0.1 fd08::1 1\nresolvectl domain wg0 ~. example.org lan 1\n",
    },
    Sequence {
        name: "servers alone",
        interface: "DNS = 10.8.0.1",
        fails: "",
        others: [false, true],
        acts: &[("up", 0), ("down", 0)],
        log: "resolvectl dns wg0 10.8.0.1 1\nresolvectl domain wg0 ~. 1\n",
    },
    Sequence {
        name: "domains alone",
        interface: "DNS = example.org",
        fails: "",
        others: [false, true],
        acts: &[("up", 0), ("down", 0)],
        log: "",
    },
    Sequence {
        name: "setting the servers fails",
        interface: "DNS = 10.8.0.1",
        fails: "dns",
        others: [false, true],
        acts: &[("up", 7)],
        log: "resolvectl dns wg0 10.8.0.1 1\n",
    },
    Sequence {
        name: "setting the domains fails",
        interface: "DNS = 10.8.0.1",
        fails: "domain",
        others: [false, true],
        acts: &[("up", 7), ("down", 1)],
        log: "resolvectl dns wg0 10.8.0.1 1\nresolvectl domain wg0 ~. 1\n",
    },
    Sequence {
        name: "a later step fails",
        interface: "DNS = 10.8.0.1\nPostUp = exit 9",
        fails: "",
        others: [false, true],
        acts: &[("up", 9)],
        log: "resolvectl dns wg0 10.8.0.1 1\nresolvectl domain wg0 ~. 1\n",
    },
    Sequence {
        name: "with resolvconf too",
        interface: "DNS = 10.8.0.1",
        fails: "",
        others: [true, true],
        acts: &[("up", 0), ("down", 0)],
        log: "resolvconf -a wg0 -m 0 -x 1\nresolvconf -d wg0 -f 0\n",
    },
    Sequence {
        name: "without systemd-resolved",
        interface: "DNS = 10.8.0.1",
        fails: "",
        others: [false, false],
        acts: &[("up", 127)],
        log: "",
    },
];

/// With `resolvectl`, which the ordinary tool does not use.
pub fn resolvectl(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    fs::create_dir_all(SYSTEMD)?;
    let none = None::<&str>;
    mount(none, SYSTEMD, Some("tmpfs"), MsFlags::empty(), none).context(SYSTEMD)?;
    for sequence in SEQUENCES {
        play(&place, sequence).context(sequence.name)?;
    }
    Ok(())
}

fn play(place: &Place, sequence: &Sequence) -> Result<()> {
    place.clear()?;
    let resolved = Path::new(SYSTEMD).join("resolve");
    let _ = fs::remove_dir(&resolved);
    if sequence.others[1] {
        fs::create_dir(&resolved)?;
    }
    let interface = format!("Address = 10.8.0.2/24\n{}", sequence.interface);
    place.put(
        CONF,
        0o600,
        &conf(&interface, &format!("{ENDPOINT}10.8.0.0/24")),
    )?;
    let both = [
        Some("resolvectl"),
        sequence.others[0].then_some("resolvconf"),
    ];
    for name in both.into_iter().flatten() {
        let script = format!(
            "#!/bin/sh\n\
             echo \"{name} $* $(ip -o link show wg0 2>/dev/null | wc -l)\" >>{OWN}/log\n\
             [ \"$1\" != '{}' ] || exit 7\n",
            sequence.fails
        );
        place.put(&format!("bin/{name}"), 0o755, &script)?;
    }
    let before = place.state()?;
    for (verb, status) in sequence.acts {
        let seen = place.call(&call(&[verb, "wg0"]))?;
        ensure!(seen.end == End::Exit(*status), "{verb}: {seen:?}");
        ensure!(
            *status != 127 || seen.text().contains("resolvconf: command not found"),
            "no reason is given: {seen:?}"
        );
        if *verb == "save" {
            let saved = fs::read_to_string(place.own.join(CONF))?;
            let wanted = "DNS = 10.8.0.1\nDNS = fd08::1\nDNS = example.org\nDNS = lan\n";
            ensure!(saved.contains(wanted), "saved: {saved}");
        }
    }
    let log = place.log();
    ensure!(
        log == sequence.log,
        "called:\n{log}instead of:\n{}",
        sequence.log
    );
    let left = |mut state: super::scene::State| {
        state.retain(|name, _| name != "log" && name != CONF);
        state
    };
    compare(&[left(before), left(place.state()?)]).context("left behind")?;
    Ok(())
}

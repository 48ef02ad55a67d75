// SPDX-License-Identifier: GPL-2.0-only
//! What only our module has: `wg-rs events`, lines for people and for programs, and `wg-rs
//! options`; what they say of the in-tree driver.

use super::super::drop_in;
use super::call::Call;
use super::sides::{prepare, program, DIR};
use anyhow::{ensure, Context, Result};
use harness::pace::slow;
use harness::runner::{Ctx, Subject, Test};
use harness::topo::{inner, names, port, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::{base64, DeviceConf};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(list, "tool-events", 120, events);
    drop_in(list, "tool-options", 60, options);
}

/// A `wg-rs events` that runs, and the file that it writes.
struct Listening {
    child: Child,
    file: String,
}

impl Listening {
    fn start(tunnel: &Tunnel, args: &[&str]) -> Result<Self> {
        let file = format!("{DIR}/events{}", args.len());
        let out = File::create(&file)?;
        let child = tunnel.ns(0).run(|| {
            let mut command = Command::new(program(1, "wg-rs"));
            Ok(command.arg("events").args(args).stdout(out).spawn()?)
        })?;
        Ok(Self { child, file })
    }

    /// The first line with that word.
    fn line(&self, word: &str) -> Result<Option<String>> {
        let text = fs::read_to_string(&self.file)?;
        let found = text.lines().find(|line| line.contains(word));
        Ok(found.map(ToOwned::to_owned))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn events(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    if ctx.subject == Subject::C {
        let call = Call::new("wg-rs", ["events"]);
        let seen = tunnel
            .ns(0)
            .run(|| call.run(&program(1, "wg-rs"), Path::new(DIR)))?;
        ensure!(
            !seen.ok() && seen.text().contains("wg-rs monitor"),
            "{seen:?}"
        );
        return Ok(());
    }
    let all = [
        Listening::start(&tunnel, &[])?,
        Listening::start(&tunnel, &["--json", names(0).0])?,
        Listening::start(&tunnel, &["--json", "wg9", "wg8"])?,
    ];
    // Once they listen, they hear of this.
    let begin = Instant::now();
    let [people, programs, nobody] = &all;
    while people.line("fwmark")?.is_none() || programs.line("fwmark")?.is_none() {
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(20)),
            "nothing is heard"
        );
        let conf = DeviceConf {
            fwmark: Some(7),
            ..DeviceConf::default()
        };
        tunnel.ends[0].set(&tunnel.link, &conf)?;
        sleep(Duration::from_millis(100));
    }
    let word = "handshake-completed";
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    while people.line(word)?.is_none() || programs.line(word)?.is_none() {
        ensure!(begin.elapsed() < slow(Duration::from_secs(40)), "no {word}");
        sleep(Duration::from_millis(20));
    }
    let key = base64(&tunnel.ends[1].public_key);
    let line = people.line(word)?.context("no line")?;
    let wanted = format!(
        "wg0 {word} peer {key} endpoint 192.0.2.2:{} role initiator session ",
        port(1)
    );
    ensure!(line.contains(&wanted), "{line}, wanted {wanted}");
    let line = programs.line(word)?.context("no line")?;
    for part in [
        r#"{"time":"20"#,
        r#""event":"handshake-completed","interface":"wg0","ifindex":"#,
        &format!(r#""publicKey":"{key}","endpoint":"192.0.2.2:"#),
        r#""role":"initiator","session":"#,
    ] {
        ensure!(line.contains(part), "{line}, wanted {part}");
    }
    let text = fs::read_to_string(&nobody.file)?;
    ensure!(text.is_empty(), "of other interfaces: {text}");
    Ok(())
}

fn options(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let run = |words: &str| {
        let call = Call::new("wg-rs", words.split(' '));
        tunnel
            .ns(0)
            .run(|| call.run(&program(1, "wg-rs"), Path::new(DIR)))
    };
    if ctx.subject == Subject::C {
        for words in ["options wg0", "options wg0 udp-gso off"] {
            let seen = run(words)?;
            ensure!(
                !seen.ok() && seen.text().contains("wireguard_rs"),
                "{words}: {seen:?}"
            );
        }
        return Ok(());
    }
    for (words, shown) in [
        ("options wg0", "udp-gso on\n"),
        ("options wg0 udp-gso off", ""),
        ("options wg0", "udp-gso off\n"),
        ("options wg0 udp-gso on", ""),
        ("options wg0", "udp-gso on\n"),
    ] {
        let seen = run(words)?;
        ensure!(seen.ok() && seen.text() == shown, "{words}: {seen:?}");
    }
    for (words, why) in [
        ("options wg9", "wg9"),
        ("options v0", "not a WireGuard interface"),
        ("options wg0 udp-gso", "needs"),
        ("options wg0 udp-gso maybe", "maybe"),
        ("options wg0 udp-gro on", "udp-gro"),
        ("options an-interface-with-a-long-name", "15"),
    ] {
        let seen = run(words)?;
        ensure!(!seen.ok() && seen.text().contains(why), "{words}: {seen:?}");
    }
    Ok(())
}

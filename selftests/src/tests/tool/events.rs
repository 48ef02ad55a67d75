// SPDX-License-Identifier: GPL-2.0-only
//! What only our module has: `wg-rs events`, `options`, `show stats` and most of `metrics`, and
//! changes as a whole; what they do with the in-tree driver.

use super::super::drop_in;
use super::call::Call;
use super::sides::{prepare, program, DIR};
use anyhow::{ensure, Context, Result};
use harness::pace::slow;
use harness::runner::{Ctx, Subject, Test};
use harness::topo::{inner, names, port, Opts, Tunnel};
use harness::traffic::{ping_all, udp};
use harness::wgdev::{base64, DeviceConf};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(list, "tool-events", 120, events);
    drop_in(list, "tool-options", 60, options);
    drop_in(list, "tool-stats", 60, stats);
    drop_in(list, "tool-metrics", 60, metrics);
    drop_in(list, "tool-whole", 60, whole);
    drop_in(list, "tool-options-file", 60, options_file);
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
    let key = base64(&tunnel.ends[1].public_key);
    let first = "udp-gso on\ncopy-dscp off\neager-handshake off\n";
    let of_peer = format!("peer {key} fixed-endpoint on\npeer {key} silence 60\n");
    for (words, shown) in [
        ("options wg0", first),
        (
            "options wg0 udp-gso off copy-dscp on eager-handshake on",
            "",
        ),
        (
            "options wg0",
            "udp-gso off\ncopy-dscp on\neager-handshake on\n",
        ),
        (
            "options wg0 udp-gso on copy-dscp off eager-handshake off",
            "",
        ),
        ("options wg0", first),
        ("options wg0 bind-interface v0 bind-address 192.0.2.1", ""),
        (
            "options wg0",
            &format!("{first}bind-interface v0\nbind-address 192.0.2.1\n"),
        ),
        ("options wg0 bind-interface off bind-address off", ""),
        ("options wg0", first),
        (
            &format!("options wg0 peer {key} fixed-endpoint on silence 60"),
            "",
        ),
        ("options wg0", &format!("{first}{of_peer}")),
        (
            &format!("options wg0 peer {key} fixed-endpoint off silence off"),
            "",
        ),
        ("options wg0", first),
    ] {
        let seen = run(words)?;
        ensure!(seen.ok() && seen.text() == shown, "{words}: {seen:?}");
    }
    for (words, why) in [
        ("options wg9", "wg9"),
        ("options wg0 bind-interface v9", "is not there"),
        ("options v0", "not a WireGuard interface"),
        ("options wg0 udp-gso", "needs"),
        ("options wg0 udp-gso maybe", "maybe"),
        ("options wg0 udp-gro on", "udp-gro"),
        (
            &format!("options wg0 peer {} silence 9", base64(&[9; 32])),
            "no such peer",
        ),
        ("options an-interface-with-a-long-name", "15"),
    ] {
        let seen = run(words)?;
        ensure!(!seen.ok() && seen.text().contains(why), "{words}: {seen:?}");
    }
    Ok(())
}

/// Runs `wg-rs` in a namespace, with this on its standard input.
fn run(tunnel: &Tunnel, words: &str, input: &str) -> Result<(bool, String)> {
    let mut command = Command::new(program(1, "wg-rs"));
    command
        .args(words.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = tunnel.ns(0).run(|| Ok(command.spawn()?))?;
    // A program that does not read closes it.
    let _ = child
        .stdin
        .take()
        .context("no input")?
        .write_all(input.as_bytes());
    let out = child.wait_with_output()?;
    let text = [out.stdout, out.stderr].concat();
    Ok((
        out.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

fn stats(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    if ctx.subject == Subject::C {
        let (ok, text) = run(&tunnel, "show wg0 stats", "")?;
        ensure!(!ok && text.contains("wireguard_rs"), "{text}");
        return Ok(());
    }
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    // To nobody.
    let socket = udp(tunnel.ns(0), "0.0.0.0:0".parse()?)?;
    for _ in 0..3 {
        let _ = socket.send_to(&[1], "10.9.0.77:9");
    }
    let key = base64(&tunnel.ends[1].public_key);
    let (ok, text) = run(&tunnel, "show wg0 stats", "")?;
    for line in [
        "interface: wg0\n  refused, no peer for destination address: 3\n",
        &format!("\npeer: {key}\n  latest handshake: "),
        "\n  handshakes: 1 begun here (0 retries), 1 of them answered; 0 begun there, 0 of them \
         answered\n",
    ] {
        ensure!(ok && text.contains(line), "{text}\nwithout {line}");
    }
    for words in ["show wg0 stats --json", "show all stats --json"] {
        let (ok, text) = run(&tunnel, words, "")?;
        for part in [
            "\"wg0\": {",
            "\"no-allowed-ip\": 3",
            &format!("\"{key}\": {{"),
            "\"responsesReceived\": 1",
        ] {
            ensure!(ok && text.contains(part), "{words}: {text}\nwithout {part}");
        }
    }
    for (words, why) in [
        ("show wg9 stats", "wg9"),
        ("show v0 stats", "v0"),
        ("show wg0 peers --json", "peers"),
    ] {
        let (ok, text) = run(&tunnel, words, "")?;
        ensure!(!ok && text.contains(why), "{words}: {text}");
    }
    Ok(())
}

fn metrics(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let key = base64(&tunnel.ends[1].public_key);
    let of = format!("{{interface=\"wg0\",public_key=\"{key}\"}} ");
    let (ok, text) = run(&tunnel, "metrics", "")?;
    let ours = ctx.subject == Subject::Rs;
    for (line, wanted) in [
        (format!("wireguard_received_bytes_total{of}"), true),
        (format!("wireguard_sent_bytes_total{of}"), true),
        (format!("wireguard_latest_handshake_seconds{of}1"), true),
        (format!("wireguard_responses_received_total{of}1\n"), ours),
        (format!("wireguard_endpoint_changes_total{of}"), ours),
        ("# EOF\n".to_owned(), true),
    ] {
        ensure!(ok && text.contains(&line) == wanted, "{line} in\n{text}");
    }
    let (ok, text) = run(&tunnel, "metrics --http", "GET /metrics HTTP/1.1\r\n\r\n")?;
    ensure!(
        ok && text.starts_with("HTTP/1.0 200 OK\r\n") && text.contains(&of),
        "{text}"
    );
    let (ok, text) = run(&tunnel, "metrics --http", "GET /x HTTP/1.1\r\n\r\n")?;
    ensure!(ok && text.starts_with("HTTP/1.0 404"), "{text}");
    Ok(())
}

/// A file that cannot be applied as a whole: here it changes nothing, and it is said why.
fn whole(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let taken = udp(tunnel.ns(0), "0.0.0.0:7777".parse()?)?;
    let before = tunnel.ends[0].get(&tunnel.link)?;
    let key = base64(&[7; 32]);
    let file = format!(
        "[Interface]\nPrivateKey = {key}\nListenPort = 7777\nFwMark = 9\n[Peer]\n\
         PublicKey = {key}\n"
    );
    for words in [
        "setconf wg0 /dev/stdin",
        "addconf wg0 /dev/stdin",
        "syncconf wg0 /dev/stdin",
    ] {
        let (ok, text) = run(&tunnel, words, &file)?;
        ensure!(
            !ok && text.contains("Address already in use"),
            "{words}: {text}"
        );
        let after = tunnel.ends[0].get(&tunnel.link)?;
        if ctx.subject == Subject::C {
            // The mark comes before the port.
            ensure!(after.fwmark == 9, "{words}: {after:?}");
            continue;
        }
        ensure!(after == before, "{words}: {after:?}, not {before:?}");
        ensure!(text.contains("cannot use port 7777"), "{words}: {text}");
    }
    drop(taken);
    let (ok, text) = run(&tunnel, "setconf wg0 /dev/stdin", &file)?;
    let after = tunnel.ends[0].get(&tunnel.link)?;
    ensure!(
        ok && after.listen_port == 7777 && after.peers.len() == 1 && after.fwmark == 9,
        "{text}: {after:?}"
    );
    Ok(())
}

/// Options in the comments of a file for `up`.
fn options_file(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let (path, key) = (format!("{DIR}/opt0.conf"), base64(&[7; 32]));
    let file = |silence: &str| {
        format!(
            "[Interface]\nPrivateKey = {key}\n#wg-rs: copy-dscp = on\n[Peer]\nPublicKey = {key}\n\
             #wg-rs: silence = {silence}\n"
        )
    };
    fs::write(&path, file("long"))?;
    let (ok, text) = run(&tunnel, &format!("up {path}"), "")?;
    ensure!(!ok && text.contains("opt0.conf:6: silence"), "{text}");
    fs::write(&path, file("60"))?;
    let (ok, text) = run(&tunnel, &format!("up {path}"), "")?;
    let ours = ctx.subject == Subject::Rs;
    ensure!(ok && text.contains("are not set") != ours, "{text}");
    if ours {
        let (ok, text) = run(&tunnel, "options opt0", "")?;
        let wanted =
            format!("udp-gso on\ncopy-dscp on\neager-handshake off\npeer {key} silence 60\n");
        ensure!(ok && text == wanted, "{text}, not {wanted}");
    }
    let (ok, text) = run(&tunnel, &format!("down {path}"), "")?;
    ensure!(ok, "{text}");
    Ok(())
}

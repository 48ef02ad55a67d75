// SPDX-License-Identifier: GPL-2.0-only
//! Bad input to wg-rs under its own name: the error names the place, the exit code is 1, the device
//! is unchanged, and no secret is shown.

use super::call::{Call, End};
use super::sides::{program, Sides, DIR, SIDES};
use super::words::{PRIVATE, PUBLIC};
use anyhow::{ensure, Context, Result};
use harness::kmsg::Kmsg;
use harness::pace::slow;
use harness::pair::NAME;
use harness::runner::Ctx;
use harness::topo::{inner, mac, names, outer};
use harness::traffic::ping_all;
use harness::wgdev::{base64, parse_dump};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A secret in all inputs below; no part of it may appear in the output.
const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A bad file: its name, its content, the line of the first error (0: none), and what the
/// message must contain.
type Bad = (&'static str, Vec<u8>, usize, &'static str);

fn files() -> Vec<Bad> {
    let head = format!("[Interface]\nPrivateKey = {SECRET}\n");
    let peer = format!("[Peer]\nPublicKey = {}\n", PUBLIC[0]);
    let after = |line: &str| format!("{head}{peer}{line}\n").into_bytes();
    let within = |line: &str| format!("{head}{line}\n{peer}").into_bytes();
    vec![
        ("unknown key", within("Nonsense = 1"), 3, "Nonsense"),
        (
            "unknown key of a peer",
            after("AllowedIP = 10.0.0.0/8"),
            5,
            "AllowedIP",
        ),
        ("unknown section", within("[Peers]"), 3, "[Peers]"),
        (
            "a key of the other section",
            within("AllowedIPs = 10.0.0.0/8"),
            3,
            "AllowedIPs",
        ),
        (
            "before any section",
            format!("ListenPort = 5\n{head}").into_bytes(),
            1,
            "ListenPort",
        ),
        ("no value", within("ListenPort ="), 3, "ListenPort"),
        ("no equals sign", within("ListenPort 5"), 3, "ListenPort"),
        (
            "short private key",
            within(&format!("PrivateKey = {}", &SECRET[..43])),
            3,
            "",
        ),
        (
            "long private key",
            within(&format!("PrivateKey = {SECRET}=")),
            3,
            "",
        ),
        (
            "private key with invalid characters",
            within(&format!("PrivateKey = {}-=", &SECRET[..42])),
            3,
            "",
        ),
        (
            "misspelt PrivateKey",
            format!("[Interface]\nPrivateKeys = {SECRET}\n").into_bytes(),
            2,
            "",
        ),
        (
            "private key without equals sign",
            format!("[Interface]\nPrivateKey {SECRET}\n").into_bytes(),
            2,
            "",
        ),
        (
            "private key in a peer",
            after(&format!("PrivateKey = {SECRET}")),
            5,
            "",
        ),
        (
            "short preshared key",
            after(&format!("PresharedKey = {}", &SECRET[..40])),
            5,
            "",
        ),
        (
            "short public key",
            format!("{head}[Peer]\nPublicKey = AAAA\n").into_bytes(),
            4,
            "AAAA",
        ),
        (
            "no public key",
            format!("{head}[Peer]\nAllowedIPs = 10.0.0.0/8\n").into_bytes(),
            3,
            "PublicKey",
        ),
        (
            "port out of range",
            within("ListenPort = 65536"),
            3,
            "65536",
        ),
        ("invalid port", within("ListenPort = none"), 3, "none"),
        (
            "mark out of range",
            within("FwMark = 0x100000000"),
            3,
            "0x100000000",
        ),
        (
            "keepalive out of range",
            after("PersistentKeepalive = 65536"),
            5,
            "65536",
        ),
        (
            "bad prefix",
            after("AllowedIPs = 10.0.0.0/8, 10.0.0.0/33"),
            5,
            "10.0.0.0/33",
        ),
        (
            "bad IPv6 prefix",
            after("AllowedIPs = fd00::/129"),
            5,
            "fd00::/129",
        ),
        ("bad address", after("AllowedIPs = 10.0.0/8"), 5, "10.0.0"),
        (
            "endpoint without port",
            after("Endpoint = 192.0.2.1"),
            5,
            "192.0.2.1",
        ),
        (
            "endpoint's port out of range",
            after("Endpoint = 192.0.2.1:65536"),
            5,
            "65536",
        ),
        (
            "endpoint without closing bracket",
            after("Endpoint = [2001:db8::1:5"),
            5,
            "2001:db8::1",
        ),
        (
            "name that does not exist",
            after("Endpoint = gone.test:5"),
            5,
            "gone.test",
        ),
        (
            "name without an answer",
            after("Endpoint = fail.test:5"),
            5,
            "fail.test",
        ),
        ("for up", within("Address = 10.0.0.1/24"), 3, "strip"),
        (
            "carriage returns",
            within("Nonsense = 1")
                .iter()
                .flat_map(|b| {
                    if *b == b'\n' {
                        vec![b'\r', b'\n']
                    } else {
                        vec![*b]
                    }
                })
                .collect(),
            3,
            "Nonsense",
        ),
        (
            "byte order mark",
            [b"\xef\xbb\xbf", within("ListenPort = 5").as_slice()].concat(),
            1,
            "[Interface]",
        ),
        (
            "private key in another field",
            within(&format!("ListenPort = {SECRET}")),
            3,
            "",
        ),
        ("NUL", within("ListenPort = 5\0"), 3, ""),
        (
            "not UTF-8",
            within("ListenPort = 5")
                .iter()
                .map(|b| if *b == b'5' { 0xff } else { *b })
                .collect(),
            0,
            "",
        ),
        (
            "one long line",
            [head.as_bytes(), &[b'x'; 10 << 20]].concat(),
            3,
            "",
        ),
        (
            "many lines",
            format!(
                "{head}{}Nonsense\n",
                "# a comment of some length, as people write them\n".repeat(200_000)
            )
            .into_bytes(),
            200_003,
            "Nonsense",
        ),
        ("zeros", vec![0; 10 << 20], 1, ""),
    ]
}

/// Bad files, each given to one of the verbs.
pub fn bad_input(_: &Ctx) -> Result<()> {
    let mut sides = Sides::new()?;
    let mut log = Kmsg::at_end()?;
    let path = format!("{DIR}/files/bad.conf");
    let key = format!("{DIR}/files/key");
    fs::write(&key, PRIVATE[0])?;
    let full = [
        "set",
        "wg0",
        "listen-port",
        "7",
        "private-key",
        &key,
        "peer",
        PUBLIC[1],
        "allowed-ips",
        "10.7.0.0/16",
    ];
    ensure!(sides.on(0, 1, &Call::new("wg", full))?.ok(), "no device");
    let [_, before] = sides.dumps()?;
    let mut findings = Vec::new();
    for (n, (what, content, line, part)) in files().into_iter().enumerate() {
        fs::write(&path, &content)?;
        let verb = ["setconf", "addconf", "syncconf"][n % 3];
        let call =
            Call::new("wg-rs", [verb, "wg0", &path]).env("WG_ENDPOINT_RESOLUTION_RETRIES", "0");
        let seen = sides.on(1, 1, &call)?;
        let text = seen.text();
        let place = match line {
            0 => format!("{path}:"),
            line => format!("{path}:{line}:"),
        };
        let [_, after] = sides.dumps()?;
        for (wrong, why) in [
            (seen.end != End::Exit(1), "wrong exit code"),
            (!text.contains(&place), "the place is not named"),
            (!text.contains(part), "the text is not shown"),
            (leaks(&text), "A SECRET IS SHOWN"),
            (text.len() > 2000, "too long"),
            (after.parts != before.parts, "THE DEVICE IS CHANGED"),
        ] {
            if wrong {
                let shown: String = format!("{seen:?}").chars().take(600).collect();
                findings.push(format!("{what} ({verb}): {why}: {shown}"));
            }
        }
    }
    arguments(&mut sides, &key, &mut findings)?;
    ensure!(
        findings.is_empty(),
        "{} errors:\n{}",
        findings.len(),
        findings.join("\n")
    );
    ensure!(
        !log.drain()?.iter().any(|line| leaks(line)),
        "a secret in the kernel log"
    );
    tunnel_works(&mut sides).context("afterwards")
}

/// The unchanged device works in a tunnel with the other side's.
fn tunnel_works(sides: &mut Sides) -> Result<()> {
    let key = format!("{DIR}/files/other-key");
    fs::write(&key, PRIVATE[1])?;
    let keyed = Call::new("wg", ["set", NAME, "private-key", &key, "listen-port", "8"]);
    ensure!(sides.on(0, 0, &keyed)?.ok(), "no key for the other side");
    let dumps = sides.dumps()?;
    let mut rt = [sides.ns[0].rtnl()?, sides.ns[1].rtnl()?];
    rt[0].veth_add(("v0", mac(0)), ("v1", mac(1)), sides.ns[1].fd())?;
    for n in 0..2u8 {
        let (own, other) = (usize::from(n), usize::from(1 - n));
        let (_, veth) = names(n);
        for (name, ip) in [(veth, outer(false, n)), (NAME, inner(false, n))] {
            rt[own].addr_add(name, ip, 24)?;
            rt[own].set_up(name, true)?;
        }
        let public = parse_dump(&dumps[other].replies()).public_key;
        let peer = base64(&public.context("no public key")?);
        let at = SocketAddr::new(outer(false, 1 - n), [8, 7][other]).to_string();
        let words = [
            "set",
            NAME,
            "peer",
            &peer,
            "allowed-ips",
            "10.9.0.0/24",
            "endpoint",
            &at,
        ];
        let call = Call::new(SIDES[own], words);
        let seen = sides.on(own, own, &call)?;
        ensure!(seen.ok(), "{call}: {seen:?}");
    }
    ping_all(&sides.ns[1], inner(false, 0), 1)?;
    ping_all(&sides.ns[0], inner(false, 1), 1)
}

/// Whether the text contains eight consecutive characters of the secret.
fn leaks(text: &str) -> bool {
    SECRET
        .as_bytes()
        .windows(8)
        .any(|part| text.as_bytes().windows(8).any(|at| at == part))
}

/// Errors on the command line.
fn arguments(sides: &mut Sides, key: &str, findings: &mut Vec<String>) -> Result<()> {
    let (bad_key, peer) = (format!("{DIR}/files/bad-key"), PUBLIC[0]);
    fs::write(&bad_key, format!("{SECRET}x"))?;
    let [_, before] = sides.dumps()?;
    for (args, part) in [
        (&["listen-port", "65536"][..], "65536"),
        (&["fwmark", "nonsense"], "nonsense"),
        (&["private-key", &bad_key], &bad_key),
        (&["private-key", "/nowhere"], "/nowhere"),
        (&["peer", "AAAA"], "AAAA"),
        (&["peer", peer, "preshared-key", &bad_key], &bad_key),
        (
            &["private-key", key, "peer", peer, "endpoint", "192.0.2.1"],
            "192.0.2.1",
        ),
        (
            &["listen-port", "8", "peer", peer, "endpoint", "gone.test:5"],
            "gone.test",
        ),
        (
            &[
                "listen-port",
                "8",
                "peer",
                peer,
                "allowed-ips",
                "10.0.0.0/8,10.0.0.0/33",
            ],
            "10.0.0.0/33",
        ),
        (&["peer", peer, "persistent-keepalive", "65536"], "65536"),
        (&["listen-port", "8", "nonsense"], "nonsense"),
        (&["listen-port"], "listen-port"),
        (&["peer"], "peer"),
    ] {
        let words = [&["set", "wg0"], args].concat();
        let call = Call::new("wg-rs", words).env("WG_ENDPOINT_RESOLUTION_RETRIES", "0");
        let seen = sides.on(1, 1, &call)?;
        let [_, after] = sides.dumps()?;
        let text = seen.text();
        if seen.end != End::Exit(1)
            || !text.contains(part)
            || leaks(&text)
            || after.parts != before.parts
        {
            let changed = after.parts != before.parts;
            findings.push(format!(
                "{call}: wanted {part:?}, device changed: {changed}: {seen:?}"
            ));
        }
    }
    Ok(())
}

/// While the tool holds a key, `/proc` does not show it.
pub fn hidden_keys(_: &Ctx) -> Result<()> {
    let sides = Sides::new()?;
    for (name, args, input) in [
        (
            "wg-rs",
            vec!["set", "wg0", "private-key", "/dev/stdin"],
            format!("{SECRET}\n"),
        ),
        (
            "wg",
            vec!["set", "wg0", "private-key", "/dev/stdin"],
            format!("{SECRET}\n"),
        ),
        (
            "wg-rs",
            vec!["setconf", "wg0", "/dev/stdin"],
            format!("[Interface]\nPrivateKey = {SECRET}\n"),
        ),
        ("wg-rs", vec!["pubkey"], SECRET.to_owned()),
    ] {
        let mut child = sides.ns[1].run(|| {
            let mut command = Command::new(program(1, name));
            command
                .args(&args)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            Ok(command.spawn()?)
        })?;
        let mut pipe = child.stdin.take().context("no pipe")?;
        pipe.write_all(input.as_bytes())?;
        // When it waits for more it has read everything.
        let proc = Path::new("/proc").join(pid(child.id())?);
        let start = Instant::now();
        while !fs::read_to_string(proc.join("wchan"))?.contains("pipe_read") {
            ensure!(
                start.elapsed() < slow(Duration::from_secs(20)),
                "{name} {args:?} does not read"
            );
            sleep(Duration::from_millis(5));
        }
        for file in ["cmdline", "comm", "environ", "stat"] {
            let shown = fs::read(proc.join(file))?;
            ensure!(
                !leaks(&String::from_utf8_lossy(&shown)),
                "{name} {args:?}: a secret in {file}"
            );
        }
        drop(pipe);
        let out = child.wait_with_output()?;
        ensure!(out.status.success(), "{name} {args:?}: {out:?}");
    }
    Ok(())
}

/// The process's number in this `/proc` (the test has its own PID namespace).
fn pid(own: u32) -> Result<String> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let status = fs::read_to_string(format!("/proc/{name}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        if numbers.is_some_and(|n| {
            n.split_whitespace().last() == Some(&own.to_string())
                && n.split_whitespace().count() > 1
        }) {
            return Ok(name);
        }
    }
    anyhow::bail!("no process {own} in /proc")
}

// SPDX-License-Identifier: GPL-2.0-only
//! Configuration files as people have them, and what becomes of each: `check` and `up` say the
//! same.

use super::super::call::{Call, End, Seen};
use super::cases::{call, conf, CONF, ENDPOINT};
use super::scene::{private, public, Place, OWN};
use anyhow::{ensure, Result};
use harness::runner::{Ctx, Subject};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::fs;

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// `check` has nothing to say, `up` succeeds.
    Good,
    /// `check` warns, in these words; `up` succeeds.
    Warned(&'static str),
    /// `check` calls it an error, in these words; `up` says so and does nothing.
    Refused(&'static str),
    /// `check` cannot know; `up` fails, in these words, and leaves nothing.
    Fails(&'static str),
    /// Both: `check` warns, and `up` fails.
    WarnedFails(&'static str),
}
use Outcome::{Fails, Good, Refused, Warned, WarnedFails};

/// A file, and what becomes of it.
struct Input {
    what: &'static str,
    text: Vec<u8>,
    outcome: Outcome,
    /// By the name wg-quick it succeeds.
    ordinary: bool,
}

fn input(what: &'static str, text: impl Into<Vec<u8>>, outcome: Outcome) -> Input {
    Input {
        what,
        text: text.into(),
        outcome,
        ordinary: matches!(outcome, Good | Warned(_)),
    }
}

impl Input {
    /// By the name wg-quick it is taken all the same.
    fn taken_by_wg_quick(self) -> Self {
        Input {
            ordinary: !self.ordinary,
            ..self
        }
    }
}

/// Lines of `[Interface]` in an otherwise good file.
fn of_interface() -> Vec<Input> {
    let peer = format!("{ENDPOINT}10.8.0.0/24");
    let address = "Address = 10.8.0.2/24\n";
    let with = |what, lines: &str, outcome| {
        input(what, conf(&format!("{address}{lines}"), &peer), outcome)
    };
    let alone = |what, lines: &str, outcome| input(what, conf(lines, &peer), outcome);
    let keyless = conf(address, &peer).replace(&format!("PrivateKey = {}\n", private(0)), "");
    let by_hook = format!("PreUp = wg set %i private-key <(echo {})", private(0));
    let key = |value: &str| {
        let line = format!("PrivateKey = {}\n", private(0));
        conf(address, &peer).replace(&line, &format!("PrivateKey = {value}\n"))
    };
    let mut not_utf8 = conf(&format!("{address}PostUp = echo @ >/dev/null"), &peer).into_bytes();
    if let Some(at) = not_utf8.iter().position(|c| *c == b'@') {
        not_utf8[at] = 0xff;
    }
    vec![
        with("empty DNS", "DNS =", Good),
        with("empty MTU", "MTU =", Good),
        with("empty Table", "Table =", Good),
        alone("empty Address", "Address =", Good),
        with(
            "servers and a domain",
            "DNS = 10.8.0.1, fd08::1, example.org",
            Good,
        ),
        alone("address without prefix", "Address = 10.8.0.2", Good),
        alone(
            "address with a mask",
            "Address = 10.8.0.2/255.255.255.0",
            Good,
        ),
        alone(
            "addresses by spaces",
            "Address = 10.8.0.2/24 fd08::2/64",
            Good,
        ),
        alone(
            "prefix too long",
            "Address = 10.8.0.2/33",
            Refused("not an IP address"),
        ),
        alone(
            "address by name",
            "Address = host.example",
            Refused("not an IP address"),
        ),
        with("MTU", "MTU = 1280", Good),
        with(
            "MTU by word",
            "MTU = auto",
            Refused("not a number of bytes"),
        ),
        with(
            "MTU too large",
            "MTU = 3000000000",
            Refused("not a number of bytes"),
        ),
        with("table off", "Table = off", Good),
        with("table by number", "Table = 1234", Good),
        with(
            "table that PreUp registers",
            "Table = blue\nPreUp = mkdir -p /etc/iproute2; echo 77 blue >/etc/iproute2/rt_tables",
            Warned("no routing table is called `blue' now"),
        ),
        with("unknown table", "Table = green", WarnedFails("green")),
        with("mark", "FwMark = 0xca6c", Good),
        with(
            "mark by word",
            "FwMark = red",
            Refused("not a firewall mark"),
        ),
        with("number and comment", "FwMark = 7 # mine", Good),
        with(
            "port with protocol",
            "ListenPort = 51820/udp",
            Refused("neither a port nor"),
        ),
        with(
            "port by word",
            "ListenPort = any",
            Refused("neither a port nor"),
        ),
        with(
            "port too large",
            "ListenPort = 70000",
            Refused("is not a port"),
        )
        .taken_by_wg_quick(),
        with("save", "SaveConfig = True", Good),
        with(
            "save yes",
            "SaveConfig = yes",
            Refused("neither true nor false"),
        ),
        with(
            "comment in a hook",
            "PostUp = echo '#' >/dev/null # one",
            Good,
        ),
        input("hook that is no UTF-8", not_utf8, Good),
        with(
            "unfinished hook",
            "PostUp = if true",
            Refused("the shell cannot read"),
        ),
        with("hook that fails", "PostUp = exit 7", Fails("")),
        with(
            "program that is not there",
            "PostUp = no-such-program",
            Fails("not found"),
        ),
        with(
            "kill switch",
            "FwMark = 0x51\nPostUp = ip rule add not fwmark $(wg show %i fwmark) blackhole \
             pref 9\nPreDown = ip rule del pref 9",
            Good,
        ),
        with("$INTERFACE", "PostUp = [[ $INTERFACE == wg0 ]]", Good),
        input("no key", keyless.clone(), Warned("there is no PrivateKey")),
        input(
            "key by a hook",
            keyless.replace(address, &format!("{address}{by_hook}\n")),
            Good,
        ),
        input(
            "key and comment",
            key(&format!("{} # mine", private(0))),
            Good,
        ),
        input(
            "key cut short",
            key(&private(0)[..40]),
            Refused("40 characters instead of 44"),
        ),
        input("empty key", key(""), Refused("PrivateKey has no value")),
        with(
            "twice",
            "MTU = 1280\nMTU = 1300",
            Warned("this overrides line 5"),
        ),
        with(
            "AmneziaWG",
            "Jc = 4\nJmin = 8\nH1 = 5",
            Refused("those of 2 more lines"),
        ),
        with(
            "misspelt",
            "Adress = 10.8.0.3",
            Refused("did you mean Address?"),
        ),
        with("semicolon", "; home", Refused("comments begin with #")),
        with(
            "key of a peer",
            "Endpoint = 192.0.2.1:5",
            Refused("does not belong in [Interface]"),
        ),
        with(
            "a number of its own",
            "PersistentKeepalive = 25",
            Refused("does not belong"),
        ),
        with(
            "two sections",
            "[Interface]\nFwMark = 7",
            Warned("another [Interface]"),
        ),
    ]
}

/// Peers.
fn of_peers() -> Vec<Input> {
    let address = "Address = 10.8.0.2/24\n";
    let peer = |what, lines: &str, outcome| input(what, conf(address, lines), outcome);
    let ips = |what, ips: &str, outcome| peer(what, &format!("{ENDPOINT}{ips}"), outcome);
    let at = |what, endpoint: &str, outcome| {
        let lines = format!("AllowedIPs = 10.8.0.0/24\nEndpoint = {endpoint}");
        peer(what, &lines, outcome)
    };
    let other = format!(
        "AllowedIPs = 10.8.0.0/24\n[Peer]\nPublicKey = {}",
        public(1)
    );
    let own = format!(
        "AllowedIPs = 10.8.0.0/24\n[Peer]\nPublicKey = {}",
        public(0)
    );
    let many: Vec<_> = (0..250).map(|n| format!("10.77.{n}.0/24")).collect();
    let good = conf(address, &format!("{ENDPOINT}10.8.0.0/24"));
    vec![
        at("name", "host.example:51820", Good),
        at(
            "name that does not exist",
            "gone.test:51820",
            Fails("gone.test"),
        ),
        at("no port", "192.0.2.1", Refused("has no port")),
        at(
            "web address",
            "https://192.0.2.1:51820",
            Refused("neither an address nor a host"),
        ),
        at(
            "no host",
            ":51820",
            Refused("neither an address nor a host"),
        ),
        at(
            "no address",
            "192.0.2.256:51820",
            Refused("neither an address nor a host"),
        ),
        at("IPv6 without brackets", "2001:db8:77::1:51820", Good),
        at(
            "open bracket",
            "[2001:db8:77::1:51820",
            Refused("without its `]'"),
        ),
        ips("everything", "0.0.0.0/0, ::/0", Good),
        ips("many", &many.join(","), Good),
        ips(
            "host bits",
            "10.8.0.0/24, 10.9.0.1/24",
            Warned("is an address, not a network"),
        ),
        ips(
            "two faults",
            "10.8.0.0/33, x, 10.9.0.0/24",
            Refused("`x' is not an IP address"),
        ),
        ips(
            "spaces for commas",
            "10.8.0.0/24 10.9.0.0/24",
            Refused("not an address with a prefix"),
        ),
        ips(
            "comma at the end",
            "10.8.0.0/24,",
            Refused("not an IP address"),
        ),
        peer("none", "AllowedIPs =", Refused("AllowedIPs has no value")),
        peer("no networks", "", Warned("this peer has no AllowedIPs")),
        peer(
            "keepalive off",
            "AllowedIPs = 10.8.0.0/24\nPersistentKeepalive = off",
            Good,
        ),
        peer(
            "keepalive with unit",
            "PersistentKeepalive = 25s",
            Refused("is not an interval"),
        ),
        peer(
            "empty secret",
            "PresharedKey =",
            Refused("PresharedKey has no value"),
        ),
        peer("twice", &other, Warned("the same peer as in line")),
        peer("itself", &own, Warned("this is the interface's own key")),
        peer(
            "DNS of a peer",
            "DNS = 10.8.0.1",
            Refused("does not belong in [Peer]"),
        ),
        input(
            "no PublicKey",
            good.replace(&format!("PublicKey = {}\n", public(1)), ""),
            Refused("this peer has no PublicKey"),
        ),
        input("nothing", "", Good),
        input("carriage returns", good.replace('\n', "\r\n"), Good),
        input("tabs and no spaces", good.replace(" = ", "\t="), Good),
        input("small letters", good.to_lowercase_keys(), Good),
        input(
            "byte order mark",
            format!("\u{feff}{good}"),
            Refused("byte order mark"),
        ),
        input(
            "NUL",
            good.replace("51000", "51000\0"),
            Refused("a NUL byte"),
        ),
        input(
            "spaces in a section",
            good.replace("[Interface]", "[ Interface ]"),
            Refused("without spaces"),
        ),
        input(
            "before any section",
            format!("MTU = 1280\n{good}"),
            Refused("before any section"),
        ),
    ]
}

/// Keys in small letters, values as they are.
trait LowercaseKeys {
    fn to_lowercase_keys(&self) -> String;
}

impl LowercaseKeys for String {
    fn to_lowercase_keys(&self) -> String {
        let line = |line: &str| match line.split_once('=') {
            Some((key, value)) => format!("{}={value}\n", key.to_lowercase()),
            None => format!("{}\n", line.to_lowercase()),
        };
        self.lines().map(line).collect()
    }
}

/// A place with a `resolvconf` that does nothing.
fn place() -> Result<Place> {
    let place = Place::lone()?;
    place.put("bin/resolvconf", 0o755, "#!/bin/sh\ncat >/dev/null\n")?;
    // Not only on some machines.
    fs::write("/etc/services", "")?;
    Ok(place)
}

/// What `check` and `up` say to the file.
fn say(place: &Place, text: &[u8], name: &'static str) -> Result<[Seen; 2]> {
    place.put(CONF, 0o600, "")?;
    fs::write(place.own.join(CONF), text)?;
    let check = Call::new("wg-rs", ["check", "/etc/wireguard/wg0.conf"]);
    let up = Call {
        name,
        ..call(&["up", "wg0"])
    };
    Ok([place.call(&check)?, place.call(&up)?])
}

/// Nothing is left, after `down` if the tunnel is up.
fn cleared(place: &Place, name: &'static str, is_up: bool) -> Result<()> {
    if is_up {
        let down = Call {
            name,
            ..call(&["down", "wg0"])
        };
        let seen = place.call(&down)?;
        ensure!(seen.ok(), "down: {seen:?}");
    }
    let left = place.sh(
        "ip -o link show wg0 2>/dev/null || echo none; ip rule list | grep -c .
         rm -f /etc/iproute2/rt_tables",
    )?;
    ensure!(left == "none\n3\n", "left: {left}");
    Ok(())
}

/// What is wrong with what was seen, if anything.
fn judge(input: &Input, [check, up]: &[Seen; 2]) -> Option<&'static str> {
    let (said, done) = (check.text(), up.text());
    let nothing_done = !done.contains("[#]");
    let (good, warned) = (said.ends_with(": good\n"), said.contains(": good, "));
    let is_right = match input.outcome {
        Good => [good && said.lines().count() == 1, up.ok(), true],
        Warned(words) => [warned && said.contains(words), up.ok(), true],
        Refused(words) => [
            check.end == End::Exit(1) && said.contains(words),
            up.end == End::Exit(1) && nothing_done,
            // `up` stops at the first fault, `check` counts them.
            input.what == "AmneziaWG" || input.what == "two faults" || done.contains(words),
        ],
        Fails(words) => [good, !up.ok() && !nothing_done, done.contains(words)],
        WarnedFails(words) => [
            warned && said.contains(words),
            !up.ok() && !nothing_done,
            done.contains(words),
        ],
    };
    let names = ["check is wrong", "up is wrong", "up does not say why"];
    let wrong = is_right.into_iter().zip(names).find(|(right, _)| !right);
    wrong.map(|(_, name)| name)
}

/// Each file of the table.
pub fn table(ctx: &Ctx) -> Result<()> {
    let place = place()?;
    let mut inputs = of_interface();
    inputs.extend(of_peers());
    if ctx.subject == Subject::C {
        // What does not depend on the module is tested with ours; for the control a third will do.
        inputs = inputs.into_iter().step_by(3).collect();
    }
    let mut findings = Vec::new();
    for input in &inputs {
        let seen = say(&place, &input.text, "wg-rs")?;
        if let Some(wrong) = judge(input, &seen) {
            findings.push(format!("{}: {wrong}: {seen:?}", input.what));
        }
        if let Err(error) = cleared(&place, "wg-rs", seen[1].ok()) {
            findings.push(format!("{}: {error}", input.what));
        }
        // As wg-quick, where it takes what that takes.
        let [_, up] = say(&place, &input.text, "wg-quick")?;
        if up.ok() != input.ordinary {
            findings.push(format!("{} by wg-quick: {up:?}", input.what));
        }
        if let Err(error) = cleared(&place, "wg-quick", up.ok()) {
            findings.push(format!("{} by wg-quick: {error}", input.what));
        }
    }
    ctx.note(format!("{} files", inputs.len()));
    ensure!(
        findings.is_empty(),
        "{}:\n{}",
        findings.len(),
        findings.join("\n")
    );
    name_too_long(&place)
}

/// A file whose name is no interface's.
fn name_too_long(place: &Place) -> Result<()> {
    let file = "/etc/wireguard/sixteen__letters.conf";
    place.put("etc/sixteen__letters.conf", 0o600, "")?;
    for args in [["check", file], ["up", file]] {
        let seen = place.call(&Call::new("wg-rs", args))?;
        ensure!(
            seen.end == End::Exit(1) && !seen.text().contains("[#]"),
            "{seen:?}"
        );
    }
    Ok(())
}

/// Generated files: `check` calls an error exactly what `up` refuses before it does anything.
pub fn generated(ctx: &Ctx) -> Result<()> {
    const FILES: usize = 60;
    let place = place()?;
    let line = |input: &Input| -> Vec<Vec<u8>> {
        let lines = input.text.split(|c| *c == b'\n').map(<[u8]>::to_vec);
        lines.filter(|line| !line.is_empty()).collect()
    };
    let mut inputs = of_interface();
    inputs.extend(of_peers());
    let pool: Vec<Vec<u8>> = inputs.iter().flat_map(line).collect();
    let seed = 21;
    let mut random = StdRng::seed_from_u64(seed);
    let files = if ctx.subject == Subject::C {
        FILES / 3
    } else {
        FILES
    };
    let mut refused = 0;
    for n in 0..files {
        let mut lines = vec![b"[Interface]".to_vec()];
        for _ in 0..random.random_range(1..6) {
            lines.extend(pool.choose(&mut random).cloned());
        }
        let text = lines.join(&b'\n');
        let [check, up] = say(&place, &text, "wg-rs")?;
        let is_refused = !up.ok() && !up.text().contains("[#]");
        refused += usize::from(is_refused);
        let shown = String::from_utf8_lossy(&text).into_owned();
        ensure!(
            check.ok() != is_refused,
            "file {n} of seed {seed}:\n{shown}\ncheck: {check:?}\nup: {up:?}"
        );
        let saved = place.sh(&format!("cat {OWN}/{CONF}"))?;
        ensure!(
            !is_refused || saved.as_bytes() == shown.as_bytes(),
            "the file was changed"
        );
        if up.ok() {
            place.sh("ip link del wg0; ip rule del pref 9 2>/dev/null || :
                      for f in -4 -6; do
                          while ip $f rule del table 51820 2>/dev/null; do :; done
                          while ip $f rule del table main suppress_prefixlength 0 2>/dev/null
                          do :; done
                      done; nft flush ruleset")?;
        }
    }
    ctx.note(format!("{refused} of {files} files are refused"));
    ensure!((files / 5..files).contains(&refused), "too few, or all");
    Ok(())
}

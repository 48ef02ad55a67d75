// SPDX-License-Identifier: GPL-2.0
//! Every form of every command of `wg`, once: what the generator meets only by chance.

use super::call::{Call, Sink};
use super::generate::{conf_path, Step};
use super::sides::DIR;
use super::words::*;
use crate::harness::wgdev::base64;

/// The steps, in an order in which they find what they need; with those that do not depend on the module, or without.
pub fn steps(all: bool) -> Vec<Step> {
    let mut list = Vec::new();
    show_forms(&mut list, &["wg0", "all"]);
    full_device(&mut list);
    show_forms(&mut list, &["wg0", "all"]);
    key_sources(&mut list);
    syncconf(&mut list);
    confs(&mut list);
    if all {
        values(&mut list);
        keys(&mut list);
        names(&mut list);
    }
    list
}

fn plain(list: &mut Vec<Step>, args: &[&str]) {
    list.push(Step::plain(Call::new("wg", args)));
}

fn show_forms(list: &mut Vec<Step>, devices: &[&str]) {
    plain(list, &[]);
    plain(list, &["show"]);
    plain(list, &["show", "interfaces"]);
    plain(list, &["showconf", "wg0"]);
    for device in devices {
        plain(list, &["show", device]);
        for field in FIELDS {
            plain(list, &["show", device, field]);
        }
        for hide in ["never", "always", "x"] {
            for colour in ["always", "never"] {
                let call = Call::new("wg", ["show", device]).env("WG_HIDE_KEYS", hide);
                list.push(Step::plain(call.env("WG_COLOR_MODE", colour)));
            }
        }
    }
    for sink in [Sink::Tty, Sink::Full, Sink::Broken, Sink::File(0o644)] {
        for args in [
            &["show"][..],
            &["showconf", "wg0"],
            &["show", "wg0", "dump"],
            &["help"],
        ] {
            list.push(Step::plain(Call::new("wg", args).sink(sink)));
        }
    }
    let call = Call::new("wg", ["show"]).sink(Sink::Tty);
    list.push(Step::plain(call.clone().env("WG_COLOR_MODE", "never")));
    list.push(Step::plain(call.env("TERM", "dumb")));
}

fn full_device(list: &mut Vec<Step>) {
    let all = format!(
        "set wg0 listen-port 51820 fwmark 0xca6c private-key {DIR}/files/key peer {} preshared-key {DIR}/files/key2 \
         endpoint 192.0.2.1:51820 persistent-keepalive 25 allowed-ips 10.0.0.0/8,fd00::/64,0.0.0.0/0 peer {} endpoint \
         [2001:db8::1]:9 allowed-ips ::/0 peer {} persistent-keepalive 1 peer {}",
        PUBLIC[0], PUBLIC[1], PUBLIC[2], PUBLIC[3]
    );
    plain(list, &all.split_whitespace().collect::<Vec<_>>());
}

/// Each value of each keyword; as an argument and in a file.
fn values(list: &mut Vec<Step>) {
    let peer = PUBLIC[0];
    for number in NUMBERS {
        for keyword in ["listen-port", "fwmark"] {
            plain(list, &["set", "wg0", keyword, number]);
        }
        plain(
            list,
            &["set", "wg0", "peer", peer, "persistent-keepalive", number],
        );
    }
    for number in [
        "",
        "off",
        "0x10",
        "65536",
        "99999999999999999999",
        " 5",
        "5 ",
        "5 5",
        "0x 10",
        "5#5",
        "5;",
    ] {
        conf(
            list,
            "addconf",
            format!("[Interface]\nListenPort={number}\n"),
        );
        conf(list, "addconf", format!("[Interface]\nFwMark = {number}\n[Peer]\nPublicKey={peer}\nPersistentKeepalive={number}"));
    }
    for endpoint in ENDPOINTS {
        let call = Call::new("wg", ["set", "wg0", "peer", peer, "endpoint", endpoint]);
        list.push(Step::plain(call.env("WG_ENDPOINT_RESOLUTION_RETRIES", "0")));
    }
    for prefix in PREFIXES.iter().chain(NEAR_PREFIXES) {
        plain(list, &["set", "wg0", "peer", peer, "allowed-ips", prefix]);
        conf(
            list,
            "addconf",
            format!("[Peer]\nPublicKey={peer}\nAllowedIPs = fd01::/16, {prefix}\n"),
        );
    }
    for prefixes in [
        "+10.0.0.0/8,-10.1.2.3",
        "-10.0.0.0/8",
        "+10.0.0.0/8,10.0.0.0/8",
        "-fd00::/64,+fd00::/64",
        "-0.0.0.0/0",
    ] {
        plain(list, &["set", "wg0", "peer", peer, "allowed-ips", prefixes]);
    }
    for key in NEAR_KEYS {
        plain(
            list,
            &["set", "wg0", "peer", key, "allowed-ips", "10.0.0.0/8"],
        );
        conf(list, "addconf", format!("[Peer]\nPublicKey = {key}\n"));
        conf(
            list,
            "addconf",
            format!("[Peer]\nPublicKey = {peer}\nPresharedKey = {key}\n"),
        );
        conf(
            list,
            "addconf",
            format!("[Interface]\nPrivateKey = {key}\n"),
        );
    }
    for tries in [
        "0",
        "1",
        "x",
        "",
        "-1",
        " 1",
        "1x",
        "0x1",
        "99999999999",
        "Infinity",
    ] {
        let call = Call::new(
            "wg",
            ["set", "wg0", "peer", peer, "endpoint", "gone.test:5"],
        );
        list.push(Step::plain(
            call.env("WG_ENDPOINT_RESOLUTION_RETRIES", tries),
        ));
    }
    // It tries again after a second.
    let call = Call::new(
        "wg",
        ["set", "wg0", "peer", peer, "endpoint", "fail.test:5"],
    );
    list.push(Step::plain(call.env("WG_ENDPOINT_RESOLUTION_RETRIES", "1")));
    for args in [
        &["peer", peer, "remove"][..],
        &["peer", peer, "remove", "allowed-ips", "10.0.0.0/8"],
        &[
            "peer",
            peer,
            "allowed-ips",
            "10.0.0.0/8",
            "allowed-ips",
            "10.1.0.0/16",
        ],
        &["peer", peer, "allowed-ips", ""],
        &[
            "peer",
            peer,
            "remove",
            "peer",
            peer,
            "persistent-keepalive",
            "7",
        ],
        &["listen-port", "5", "listen-port", "6"],
        &[
            "peer",
            peer,
            "endpoint",
            "1.2.3.4:5",
            "endpoint",
            "1.2.3.4:6",
        ],
        &["peer", peer, "listen-port", "5"],
        &["allowed-ips", "10.0.0.0/8"],
        &["remove"],
        &["peer"],
        &["peer", peer, "endpoint"],
        &["peer", peer, "update-only"],
    ] {
        plain(list, &[&["set", "wg0"], args].concat());
    }
}

fn key_sources(list: &mut Vec<Step>) {
    let key = format!("{}\n", PRIVATE[0]);
    for path in [
        "/dev/stdin",
        "/dev/fd/0",
        "/proc/self/fd/0",
        "-",
        "/dev/full",
        "/dev/zero",
        "/",
    ] {
        let call = Call::new("wg", ["set", "wg0", "private-key", path]).stdin(key.clone());
        list.push(Step::plain(call));
    }
    // One stream, two keys: the second finds it at its end.
    let call = [
        "set",
        "wg0",
        "private-key",
        "/dev/stdin",
        "peer",
        PUBLIC[0],
        "preshared-key",
        "/dev/stdin",
    ];
    list.push(Step::plain(Call::new("wg", call).stdin(key.clone())));
    plain(list, &["set", "wg0", "private-key", "/dev/null"]);
    plain(
        list,
        &[
            "set",
            "wg0",
            "peer",
            PUBLIC[0],
            "preshared-key",
            "/dev/null",
        ],
    );
    let peer = ["set", "wg0", "peer", PUBLIC[0], "preshared-key"];
    for file in [
        "key",
        "empty",
        "missing",
        "folder",
        "nul",
        "blanks-before",
        "two",
        "line-only",
    ] {
        plain(
            list,
            &["set", "wg0", "private-key", &format!("{DIR}/files/{file}")],
        );
        plain(
            list,
            &[&peer[..], &[&format!("{DIR}/files/{file}")]].concat(),
        );
    }
}

fn conf(list: &mut Vec<Step>, verb: &str, text: impl Into<Vec<u8>>) {
    let call =
        Call::new("wg", [verb, "wg0", &conf_path()]).env("WG_ENDPOINT_RESOLUTION_RETRIES", "0");
    list.push(Step {
        call,
        conf: Some(text.into()),
    });
}

/// Shapes of files, good and bad, each given to `setconf`.
fn confs(list: &mut Vec<Step>) {
    let (key, peer, other) = (PRIVATE[2], PUBLIC[0], PUBLIC[1]);
    let good = format!(
        "[Interface]\nPrivateKey = {key}\n\n[Peer]\nPublicKey = {peer}\nAllowedIPs = 10.0.0.0/8\n"
    );
    for text in [
        String::new(),
        "\n".to_owned(),
        "# nothing\n".to_owned(),
        "[Interface]".to_owned(),
        "[interface]\nlistenport=5\n[PEER]\nPUBLICKEY=".to_owned() + peer,
        good.clone(),
        good.replace('\n', "\r\n"),
        good.replace('\n', "\r"),
        good.replace(" = ", "="),
        good.replace(' ', ""),
        good.replace('\n', "\n\n\t\n"),
        format!("\u{feff}{good}"),
        good.replace("[Peer]", "[Peer]\0"),
        good.replace("= 10", "= \0 10"),
        good.replace("[Peer]", " [ Peer ] # one"),
        good.replace("[Peer]", "[Peer"),
        good.replace("[Peer]", "[Peers]"),
        good.replace("[Interface]", ""),
        good.replace("[Interface]", "[Interface]\n[Interface]\nListenPort = 5"),
        good.replace("PrivateKey", "Private Key"),
        good.replace("PrivateKey", "PrivateKeys"),
        good.replace("PrivateKey", "P r i v a t e K e y"),
        good.replace(key, ""),
        good.replace(key, &format!("{key} {key}")),
        good.replace(key, &format!("{} {}", &key[..20], &key[20..])),
        good.replace(&format!("PublicKey = {peer}\n"), ""),
        good.replace("PublicKey", "PublicKey = \nPublicKey"),
        good.replace("AllowedIPs", "Endpoint"),
        good.replace("AllowedIPs", "AllowedIP"),
        good.replace("AllowedIPs", "Address"),
        good.replace("AllowedIPs", "ListenPort"),
        good.replace("PrivateKey", "AllowedIPs"),
        good.replace("10.0.0.0/8", "10.0.0.0/8, 10.0.0.0/8,10.0.0.0/8"),
        good.replace(
            "10.0.0.0/8",
            "10.0.0.0/8\nAllowedIPs = fd00::/8\nallowedips=10.1.1.1",
        ),
        good.replace("10.0.0.0/8", "+10.0.0.0/8, -10.0.0.0/9"),
        good.replace("10.0.0.0/8", ""),
        good.replace("10.0.0.0/8", "10.0.0.0/8 # all\n#AllowedIPs = x"),
        format!("{good}[Peer]\nPublicKey = {peer}\nAllowedIPs = 10.9.0.0/16\n"),
        format!("{good}[Peer]\nPublicKey = {other}\nAllowedIPs = 10.0.0.0/8\n"),
        format!("{good}[Peer]\n"),
        format!("{good}[Peer]\n[Peer]\nPublicKey = {other}\n"),
        format!("{good}[Interface]\nFwMark = 3\n"),
        format!("{good}Endpoint = gone.test:5\n"),
        format!("{good}PresharedKey = {key}\nPersistentKeepalive = off\nEndpoint = both.test:5\n"),
        format!("{good}PresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"),
        format!("{good}#{}\n", "x".repeat(100_000)),
        format!("{good}AllowedIPs = {}\n", "x".repeat(5000)),
        format!("{good}{}", "\n".repeat(20_000)),
        good.trim_end().to_owned(),
        format!("FwMark = 7\n{good}"),
        "[Peer]\nEndpoint = 1.2.3.4:5\n".to_owned(),
        "Nonsense".to_owned(),
    ] {
        conf(list, "setconf", text);
    }
    conf(list, "setconf", (0..=255).collect::<Vec<u8>>());
}

/// `syncconf` from one state of a device to another, and `addconf`.
fn syncconf(list: &mut Vec<Step>) {
    let (key, a, b, c) = (PRIVATE[2], PUBLIC[0], PUBLIC[1], PUBLIC[2]);
    let peer = |key: &str, more: &str| format!("[Peer]\nPublicKey = {key}\n{more}\n");
    let psk = format!("PresharedKey = {key}");
    for verb in ["syncconf", "addconf"] {
        let start = format!(
            "[Interface]\nPrivateKey = {key}\nListenPort = 5\nFwMark = 9\n{}{}",
            peer(a, &format!("{psk}\nAllowedIPs = 10.0.0.0/8, fd00::/8\nEndpoint = 1.2.3.4:5\nPersistentKeepalive = 9")),
            peer(b, "AllowedIPs = 10.1.0.0/16")
        );
        for next in [
            start.clone(),
            format!("[Interface]\nPrivateKey = {key}\n"),
            String::new(),
            peer(a, ""),
            peer(b, "AllowedIPs = 10.1.0.0/16") + &peer(c, "AllowedIPs = 10.2.0.0/16"),
            peer(b, "AllowedIPs = 10.0.0.0/8") + &peer(a, "AllowedIPs = 10.1.0.0/16"),
            peer(a, "AllowedIPs = fd00::/8, 10.0.0.0/8")
                + &peer(b, "AllowedIPs = 10.1.0.0/16, 10.3.0.0/16"),
            peer(b, "AllowedIPs = 10.1.0.0/16") + &peer(b, &psk),
            format!(
                "[Interface]\nListenPort = 6\n{}",
                peer(a, "Endpoint = 4.3.2.1:5")
            ),
            peer(b, "Nonsense = 1"),
        ] {
            conf(list, "setconf", start.clone());
            conf(list, verb, next);
        }
    }
    // Two hundred peers, half of which go, half of which change.
    let many = |range: std::ops::Range<u8>, ip: u8| -> String {
        let one = |n| peer(&base64(&[n; 32]), &format!("AllowedIPs = 10.{ip}.{n}.0/24"));
        range.map(one).collect()
    };
    conf(list, "setconf", many(1..200, 1));
    plain(list, &["show"]);
    conf(list, "syncconf", many(100..250, 2));
    plain(list, &["showconf", "wg0"]);
    conf(list, "setconf", "");
}

fn keys(list: &mut Vec<Step>) {
    for verb in ["genkey", "genpsk"] {
        for sink in [
            Sink::Pipe,
            Sink::Tty,
            Sink::Full,
            Sink::Broken,
            Sink::File(0o600),
            Sink::File(0o644),
            Sink::File(0o601),
        ] {
            list.push(Step::plain(Call::new("wg", [verb]).sink(sink)));
        }
    }
    for input in NEAR_KEYS.iter().chain(PRIVATE).chain(PUBLIC) {
        list.push(Step::plain(Call::new("wg", ["pubkey"]).stdin(*input)));
        list.push(Step::plain(
            Call::new("wg", ["pubkey"]).stdin(format!("{input}\n")),
        ));
    }
    for sink in [Sink::Tty, Sink::Full, Sink::Broken, Sink::File(0o644)] {
        list.push(Step::plain(
            Call::new("wg", ["pubkey"]).stdin(PRIVATE[0]).sink(sink),
        ));
    }
    let key = PRIVATE[0];
    for input in [
        format!("{key}\n\n \t\r\x0b\x0c\n"),
        format!("{key}\0"),
        format!("{key}\n{key}\n"),
        format!("{key}\u{a0}"),
    ] {
        list.push(Step::plain(Call::new("wg", ["pubkey"]).stdin(input)));
    }
}

/// Interfaces that are none, and too many or too few arguments.
fn names(list: &mut Vec<Step>) {
    for name in NEAR_NAMES {
        plain(list, &["show", name]);
        plain(list, &["show", name, "dump"]);
        plain(list, &["showconf", name]);
        plain(list, &["set", name, "listen-port", "5"]);
        plain(list, &["setconf", name, "/dev/null"]);
        plain(list, &["syncconf", name, "/dev/null"]);
        plain(list, &[name]);
    }
    let words = [
        "show", "showconf", "set", "setconf", "addconf", "syncconf", "genkey", "genpsk", "pubkey",
        "help",
    ];
    for word in words {
        plain(list, &[word]);
        for more in ["wg0", "--help", "-h", "help", "x", ""] {
            plain(list, &[word, more]);
        }
        plain(list, &[word, "wg0", "x", "y"]);
        plain(list, &[&word[..word.len() - 1]]);
        plain(list, &[&word.to_uppercase()]);
    }
    for odd in [
        "-h",
        "--help",
        "-v",
        "--version",
        "version",
        "",
        "-",
        "--",
        "help help",
    ] {
        plain(list, &[odd]);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Every form of every command of `wg`, once: what the generator reaches only by chance.

use super::call::{Call, Sink};
use super::generate::{conf_path, Step};
use super::sides::DIR;
use super::words::*;
use harness::wgdev::base64;

/// The steps, in an order in which each finds what it needs; `all` includes those that do not
/// depend on the module.
pub fn steps(all: bool) -> Vec<Step> {
    let mut list = Vec::new();
    show_forms(&mut list, &["wg0", "all"]);
    full_device(&mut list);
    show_forms(&mut list, &["wg0", "all"]);
    key_sources(&mut list);
    substitutions(&mut list);
    syncconf(&mut list);
    confs(&mut list);
    if all {
        values(&mut list);
        keys(&mut list);
        names(&mut list);
    }
    list
}

/// A call of `wg`: words separated by single spaces. `@` stands for `value`, `PEER` for a peer's
/// key.
fn call(text: &str, value: &str) -> Call {
    let words = text.split(' ').map(|word| match word {
        "@" => value,
        "PEER" => PUBLIC[0],
        word => word,
    });
    Call::new("wg", words)
}

fn calls(list: &mut Vec<Step>, texts: &[&str], value: &str) {
    list.extend(texts.iter().map(|text| Step::plain(call(text, value))));
}

fn show_forms(list: &mut Vec<Step>, devices: &[&str]) {
    list.push(Step::plain(Call::new("wg", [""; 0])));
    calls(list, &["show", "show interfaces", "showconf wg0"], "");
    for device in devices {
        calls(list, &["show @"], device);
        for field in FIELDS {
            calls(list, &[&format!("show {device} @")], field);
        }
        for hide in ["never", "always", "x"] {
            for colour in ["always", "never"] {
                let call = call("show @", device).env("WG_HIDE_KEYS", hide);
                list.push(Step::plain(call.env("WG_COLOR_MODE", colour)));
            }
        }
    }
    for sink in [Sink::Tty, Sink::Full, Sink::Broken, Sink::File(0o644)] {
        for text in ["show", "showconf wg0", "show wg0 dump", "help"] {
            list.push(Step::plain(call(text, "").sink(sink)));
        }
    }
    let call = call("show", "").sink(Sink::Tty);
    list.push(Step::plain(call.clone().env("WG_COLOR_MODE", "never")));
    list.push(Step::plain(call.env("TERM", "dumb")));
}

fn full_device(list: &mut Vec<Step>) {
    let all = format!(
        "set wg0 listen-port 51820 fwmark 0xca6c private-key {DIR}/files/key \
         peer {} preshared-key {DIR}/files/key2 endpoint 192.0.2.1:51820 \
         persistent-keepalive 25 allowed-ips 10.0.0.0/8,fd00::/64,0.0.0.0/0 \
         peer {} endpoint [2001:db8::1]:9 allowed-ips ::/0 \
         peer {} persistent-keepalive 1 peer {}",
        PUBLIC[0], PUBLIC[1], PUBLIC[2], PUBLIC[3]
    );
    calls(list, &[&all], "");
}

/// Values for files, which differ from those for arguments.
const FILE_NUMBERS: [&str; 11] = [
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
];
/// Files with a key, or with something else.
const KEY_FILES: [&str; 8] = [
    "key",
    "empty",
    "missing",
    "folder",
    "nul",
    "blanks-before",
    "two",
    "line-only",
];
const KEY_STREAMS: [&str; 7] = [
    "/dev/stdin",
    "/dev/fd/0",
    "/proc/self/fd/0",
    "-",
    "/dev/full",
    "/dev/zero",
    "/",
];
const PREFIX_CHANGES: [&str; 5] = [
    "+10.0.0.0/8,-10.1.2.3",
    "-10.0.0.0/8",
    "+10.0.0.0/8,10.0.0.0/8",
    "-fd00::/64,+fd00::/64",
    "-0.0.0.0/0",
];
const TRIES: [&str; 10] = [
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
];
/// Arguments after `set wg0`, in the right order and not.
const SETS: [&str; 13] = [
    "peer PEER remove",
    "peer PEER remove allowed-ips 10.0.0.0/8",
    "peer PEER allowed-ips 10.0.0.0/8 allowed-ips 10.1.0.0/16",
    "peer PEER allowed-ips ",
    "peer PEER remove peer PEER persistent-keepalive 7",
    "listen-port 5 listen-port 6",
    "peer PEER endpoint 1.2.3.4:5 endpoint 1.2.3.4:6",
    "peer PEER listen-port 5",
    "allowed-ips 10.0.0.0/8",
    "remove",
    "peer",
    "peer PEER endpoint",
    "peer PEER update-only",
];
const VERBS: [&str; 10] = [
    "show", "showconf", "set", "setconf", "addconf", "syncconf", "genkey", "genpsk", "pubkey",
    "help",
];
const ODD: [&str; 9] = [
    "-h",
    "--help",
    "-v",
    "--version",
    "version",
    "",
    "-",
    "--",
    "help help",
];

/// Each value of each keyword; as an argument and in a file.
fn values(list: &mut Vec<Step>) {
    let peer = PUBLIC[0];
    let file = |list: &mut Vec<Step>, text: String| conf(list, "addconf", text);
    for number in NUMBERS {
        let keepalive = "set wg0 peer PEER persistent-keepalive @";
        calls(
            list,
            &["set wg0 listen-port @", "set wg0 fwmark @", keepalive],
            number,
        );
    }
    for number in FILE_NUMBERS {
        file(list, format!("[Interface]\nListenPort={number}\n"));
        file(
            list,
            format!(
                "[Interface]\nFwMark = {number}\n\
                 [Peer]\nPublicKey={peer}\nPersistentKeepalive={number}"
            ),
        );
    }
    let endpoint = |endpoint: &str, tries: &str| {
        let call = call("set wg0 peer PEER endpoint @", endpoint);
        Step::plain(call.env("WG_ENDPOINT_RESOLUTION_RETRIES", tries))
    };
    list.extend(ENDPOINTS.iter().map(|text| endpoint(text, "0")));
    for prefix in PREFIXES.iter().chain(NEAR_PREFIXES) {
        calls(list, &["set wg0 peer PEER allowed-ips @"], prefix);
        file(
            list,
            format!("[Peer]\nPublicKey={peer}\nAllowedIPs = fd01::/16, {prefix}\n"),
        );
    }
    for prefixes in PREFIX_CHANGES {
        calls(list, &["set wg0 peer PEER allowed-ips @"], prefixes);
    }
    for key in NEAR_KEYS {
        calls(list, &["set wg0 peer @ allowed-ips 10.0.0.0/8"], key);
        file(list, format!("[Peer]\nPublicKey = {key}\n"));
        file(
            list,
            format!("[Peer]\nPublicKey = {peer}\nPresharedKey = {key}\n"),
        );
        file(list, format!("[Interface]\nPrivateKey = {key}\n"));
    }
    list.extend(TRIES.map(|tries| endpoint("gone.test:5", tries)));
    // The tool retries after a second.
    list.push(endpoint("fail.test:5", "1"));
    calls(
        list,
        &SETS
            .map(|words| format!("set wg0 {words}"))
            .each_ref()
            .map(String::as_str),
        "",
    );
}

fn key_sources(list: &mut Vec<Step>) {
    let key = format!("{}\n", PRIVATE[0]);
    for path in KEY_STREAMS {
        let call = call("set wg0 private-key @", path);
        list.push(Step::plain(call.stdin(key.clone())));
    }
    // One stream, two keys: the second one is at end of file.
    let both = call(
        "set wg0 private-key @ peer PEER preshared-key @",
        "/dev/stdin",
    );
    list.push(Step::plain(both.stdin(key)));
    let keys = ["set wg0 private-key @", "set wg0 peer PEER preshared-key @"];
    calls(list, &keys, "/dev/null");
    for file in KEY_FILES {
        calls(list, &keys, &format!("{DIR}/files/{file}"));
    }
}

/// bash's `<(…)`: a pipe named by its file descriptor.
fn substitutions(list: &mut Vec<Step>) {
    for text in ["set wg0 private-key", "set wg0 peer PEER preshared-key"] {
        for file in KEY_FILES {
            let call = call(text, "").substituted(format!("{DIR}/files/{file}"));
            list.push(Step::plain(call));
        }
    }
    let good = format!(
        "[Interface]\nListenPort = 7\n[Peer]\nPublicKey = {}\n",
        PUBLIC[1]
    );
    // More than a pipe holds.
    let long = format!(
        "{good}AllowedIPs = 10.0.0.0/8\n{}",
        "# more\n".repeat(20_000)
    );
    for verb in ["setconf", "addconf", "syncconf"] {
        for text in [&good, &long, "", "Nonsense"] {
            let call = Call::new("wg", [verb, "wg0"]).substituted(conf_path());
            let conf = Some(text.into());
            list.push(Step { call, conf });
        }
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

/// Well-formed and malformed files, each given to `setconf`.
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
            peer(
                a,
                &format!(
                    "{psk}\nAllowedIPs = 10.0.0.0/8, fd00::/8\nEndpoint = 1.2.3.4:5\n\
                     PersistentKeepalive = 9"
                )
            ),
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
    // Two hundred peers, half of which are removed, half of which change.
    let many = |range: std::ops::Range<u8>, ip: u8| -> String {
        let one = |n| peer(&base64(&[n; 32]), &format!("AllowedIPs = 10.{ip}.{n}.0/24"));
        range.map(one).collect()
    };
    conf(list, "setconf", many(1..200, 1));
    calls(list, &["show"], "");
    conf(list, "syncconf", many(100..250, 2));
    calls(list, &["showconf wg0"], "");
    conf(list, "setconf", "");
}

fn keys(list: &mut Vec<Step>) {
    let files = [0o600, 0o644, 0o601].map(Sink::File);
    for verb in ["genkey", "genpsk"] {
        for sink in [Sink::Pipe, Sink::Tty, Sink::Full, Sink::Broken]
            .iter()
            .chain(&files)
        {
            list.push(Step::plain(call(verb, "").sink(*sink)));
        }
    }
    let public = |input: String| call("pubkey", "").stdin(input);
    for input in NEAR_KEYS.iter().chain(PRIVATE).chain(PUBLIC) {
        list.push(Step::plain(public(input.to_string())));
        list.push(Step::plain(public(format!("{input}\n"))));
    }
    let key = PRIVATE[0];
    for sink in [Sink::Tty, Sink::Full, Sink::Broken, Sink::File(0o644)] {
        list.push(Step::plain(public(key.to_owned()).sink(sink)));
    }
    for end in ["\n\n \t\r\x0b\x0c\n", "\0", &format!("\n{key}\n"), "\u{a0}"] {
        list.push(Step::plain(public(format!("{key}{end}"))));
    }
}

/// Invalid interface names, and too many or too few arguments.
fn names(list: &mut Vec<Step>) {
    let texts = [
        "show @",
        "show @ dump",
        "showconf @",
        "set @ listen-port 5",
        "setconf @ /dev/null",
        "syncconf @ /dev/null",
        "@",
    ];
    for name in NEAR_NAMES {
        calls(list, &texts, name);
    }
    for verb in VERBS {
        calls(
            list,
            &[
                "@",
                "@ wg0",
                "@ --help",
                "@ -h",
                "@ help",
                "@ x",
                "@ ",
                "@ wg0 x y",
            ],
            verb,
        );
        calls(list, &["@"], &verb[..verb.len() - 1]);
        calls(list, &["@"], &verb.to_uppercase());
    }
    for odd in ODD {
        calls(list, &["@"], odd);
    }
}

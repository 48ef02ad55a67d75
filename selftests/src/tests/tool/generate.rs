// SPDX-License-Identifier: GPL-2.0-only
//! Generates calls of `wg`: well-formed ones from a small set of keys and prefixes, and near
//! misses.

use super::call::{Call, Sink};
use super::sides::DIR;
use super::words::*;
use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::Path;

/// One step of a run: a call, and the configuration file that it may use.
#[derive(Clone, Debug)]
pub struct Step {
    /// The call.
    pub call: Call,
    /// The content of [`conf_path`] during the call.
    pub conf: Option<Vec<u8>>,
}

impl Step {
    /// A call without a file.
    pub fn plain(call: Call) -> Self {
        Step { call, conf: None }
    }
}

/// The configuration file of generated calls.
pub fn conf_path() -> String {
    format!("{DIR}/files/conf")
}

/// Key files, by name; `missing` does not exist, and `folder` is a directory.
fn key_files() -> Vec<(&'static str, Vec<u8>)> {
    let (a, b) = (PRIVATE[0], PRIVATE[2]);
    vec![
        ("key", format!("{a}\n").into()),
        ("key2", format!("{b}\n").into()),
        ("unclamped", PRIVATE[1].into()),
        ("bare", a.into()),
        ("blanks-after", format!("{a} \t\r\n\n  ").into()),
        ("crlf", format!("{a}\r\n").into()),
        ("blanks-before", format!("  {a}\n").into()),
        ("two", format!("{a}\n{b}\n").into()),
        ("garbage-after", format!("{a}x\n").into()),
        ("comment-after", format!("{a} # mine\n").into()),
        ("short", a[..40].into()),
        ("one-less", a[..43].into()),
        ("line-only", "\n".into()),
        ("empty", Vec::new()),
        ("nul-after", [a.as_bytes(), b"\0"].concat()),
        ("nul", vec![0; 64]),
        ("bom", [b"\xef\xbb\xbf", a.as_bytes(), b"\n"].concat()),
        ("hex", b"5a".repeat(32)),
        ("binary", (0..=255).collect()),
        (
            "zero-key",
            b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".into(),
        ),
    ]
}

/// Writes the files that generated calls use.
pub fn write_files() -> Result<()> {
    let folder = Path::new(DIR).join("files");
    for (name, content) in key_files() {
        fs::write(folder.join(name), content)?;
    }
    Ok(fs::create_dir_all(folder.join("folder"))?)
}

/// Generates calls.
pub struct Generator(StdRng);

impl Generator {
    /// Equal seeds generate equal calls.
    pub fn new(seed: u64) -> Self {
        Generator(StdRng::seed_from_u64(seed))
    }

    fn percent(&mut self, n: u32) -> bool {
        self.0.random_range(0..100) < n
    }

    fn pick(&mut self, list: &[&'static str]) -> String {
        (*list.choose(&mut self.0).expect("empty choice")).to_owned()
    }

    /// One of `good`, or rarely one of `near`.
    fn mostly(&mut self, good: &[&'static str], near: &[&'static str]) -> String {
        let near_miss = self.percent(7);
        self.pick(if near_miss { near } else { good })
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        let mut step = match self.0.random_range(0..100) {
            0..40 => Step::plain(self.set()),
            40..72 => self.conf(),
            72..86 => Step::plain(self.show()),
            86..94 => Step::plain(self.keys()),
            _ => Step::plain(self.odd()),
        };
        self.environment(&mut step.call);
        step
    }

    fn environment(&mut self, call: &mut Call) {
        // Never the default of 15 retries: a name whose server fails would take minutes.
        let tries = self.pick(&["0", "0", "0", "0", "0", "x", "-1", ""]);
        call.env.push(("WG_ENDPOINT_RESOLUTION_RETRIES", tries));
        if self.percent(20) {
            let mode = self.pick(&["always", "never", "auto", "ALWAYS", ""]);
            call.env.push(("WG_COLOR_MODE", mode));
        }
        if self.percent(20) {
            let mode = self.pick(&["never", "always", "auto", "Never", ""]);
            call.env.push(("WG_HIDE_KEYS", mode));
        }
        call.sink = match self.0.random_range(0..40) {
            0 => Sink::Full,
            1..4 => Sink::Tty,
            4 => Sink::File(0o600),
            5 => Sink::File(0o644),
            6 => Sink::File(0o602),
            _ => Sink::Pipe,
        };
    }

    fn device(&mut self) -> String {
        if self.percent(4) {
            self.pick(NEAR_NAMES)
        } else {
            "wg0".to_owned()
        }
    }

    fn key_file(&mut self, call: &mut Call) -> String {
        let files = key_files();
        let near = self.percent(30);
        let at = self
            .0
            .random_range(if near { 3..files.len() } else { 0..3 });
        let (name, content) = files[at].clone();
        match self.0.random_range(0..20) {
            0 => "/dev/null".to_owned(),
            1 => format!("{DIR}/files/missing"),
            2 => format!("{DIR}/files/folder"),
            3 => String::new(),
            n @ 4..8 if call.stdin.is_empty() => {
                call.stdin = content;
                ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "-"][n - 4].to_owned()
            }
            _ => format!("{DIR}/files/{name}"),
        }
    }

    fn prefixes(&mut self) -> String {
        let mut list = Vec::new();
        for _ in 0..self.0.random_range(0..5) {
            let prefix = self.mostly(PREFIXES, NEAR_PREFIXES);
            let sign = if self.percent(15) {
                self.pick(&["+", "-"])
            } else {
                String::new()
            };
            list.push(sign + &prefix);
        }
        list.join(&self.mostly(&[","], &[", ", ",,", " ", ";", " , "]))
    }

    fn number(&mut self) -> String {
        if self.percent(50) {
            self.0.random_range(0..70_000u32).to_string()
        } else {
            self.pick(NUMBERS)
        }
    }

    fn set(&mut self) -> Call {
        let mut call = Call::new("wg", ["set"]);
        let mut words = vec![self.device()];
        for _ in 0..self.0.random_range(0..3) {
            words.push(self.pick(&["listen-port", "fwmark", "private-key"]));
            let value = match words.last().map(String::as_str) {
                Some("private-key") => self.key_file(&mut call),
                _ => self.number(),
            };
            words.push(value);
        }
        for _ in 0..self.0.random_range(0..3) {
            words.extend(["peer".to_owned(), self.mostly(PUBLIC, NEAR_KEYS)]);
            for _ in 0..self.0.random_range(0..4) {
                self.peer_words(&mut call, &mut words);
            }
        }
        if self.percent(12) {
            self.disturb(&mut words);
        }
        call.args.extend(words.into_iter().map(Into::into));
        call
    }

    fn peer_words(&mut self, call: &mut Call, words: &mut Vec<String>) {
        let word = self.pick(&[
            "preshared-key",
            "endpoint",
            "endpoint",
            "allowed-ips",
            "allowed-ips",
            "persistent-keepalive",
            "remove",
        ]);
        let value = match word.as_str() {
            "preshared-key" => self.key_file(call),
            "endpoint" => self.pick(ENDPOINTS),
            "allowed-ips" => self.prefixes(),
            "persistent-keepalive" => self.number(),
            _ => return words.push(word),
        };
        words.extend([word, value]);
    }

    /// A word too many or too few, misspelt, or in the wrong place.
    fn disturb(&mut self, words: &mut Vec<String>) {
        let at = self.0.random_range(0..words.len());
        match self.0.random_range(0..6) {
            0 => drop(words.remove(at)),
            1 => words.insert(
                at,
                self.pick(&["", "peer", "remove", "update-only", "off", "-", "--", "wg0"]),
            ),
            2 => words[at] = words[at].to_uppercase(),
            3 => drop(words[at].pop()),
            4 => words.truncate(at),
            _ => words.shuffle(&mut self.0),
        }
    }

    fn show(&mut self) -> Call {
        let mut words = vec!["show".to_owned()];
        words.push(match self.0.random_range(0..10) {
            0..6 => self.device(),
            6..9 => "all".to_owned(),
            _ => "interfaces".to_owned(),
        });
        if self.percent(60) {
            words.push(self.mostly(FIELDS, &["", "bogus", "Dump", "endpoint", "dump "]));
        }
        match self.0.random_range(0..20) {
            0 => words = vec!["showconf".to_owned(), self.device()],
            1 => words.truncate(1),
            2 => words.clear(),
            3 => words.push("more".to_owned()),
            _ => {}
        }
        Call::new("wg", words)
    }

    fn keys(&mut self) -> Call {
        let (_, input) = key_files().choose(&mut self.0).cloned().expect("no files");
        match self.0.random_range(0..10) {
            0 => Call::new("wg", ["genkey"]),
            1 => Call::new("wg", ["genpsk"]),
            _ => Call::new("wg", ["pubkey"]).stdin(input),
        }
    }

    fn odd(&mut self) -> Call {
        let words = self.pick(&[
            "help",
            "-h",
            "--help",
            "--version",
            "-v",
            "version",
            "bogus",
            "Show",
            "sho",
            "showconf",
            "set",
            "set wg0",
            "set wg0 bogus",
            "setconf",
            "setconf wg0",
            "addconf wg0",
            "syncconf",
            "setconf wg0 a b",
            "genkey x",
            "genpsk x",
            "pubkey x",
            "help x",
            "show wg0 dump x",
            "show bogus",
            "showconf wg0 x",
            "show --help",
            "set --help",
            "set wg0 peer",
            "set wg0 listen-port",
            "genkey --help",
            "pubkey help",
            "show help",
            "show -h",
            "setconf --help",
        ]);
        Call::new("wg", words.split(' '))
    }

    fn conf(&mut self) -> Step {
        let verb = self.pick(&["setconf", "setconf", "addconf", "syncconf"]);
        let conf = self.conf_text();
        let mut call = Call::new("wg", [verb, self.device()]);
        let path = match self.0.random_range(0..30) {
            0 => format!("{DIR}/files/missing"),
            // Not the folder: `wg` treats an unreadable file as empty, and clears the device.
            1 | 2 => "/dev/null".to_owned(),
            3 | 4 => {
                call.stdin.clone_from(&conf);
                "/dev/stdin".to_owned()
            }
            _ => conf_path(),
        };
        call.args.push(path.into());
        Step {
            call,
            conf: Some(conf),
        }
    }

    fn conf_text(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        if self.percent(85) {
            lines.push("[Interface]".to_owned());
            for _ in 0..self.0.random_range(0..4) {
                let key = self.pick(&["PrivateKey", "ListenPort", "FwMark"]);
                let value = if key == "PrivateKey" {
                    self.mostly(PRIVATE, NEAR_KEYS)
                } else {
                    self.number()
                };
                lines.push(self.line(&key, &value));
            }
        }
        for _ in 0..self.0.random_range(0..4) {
            lines.push("[Peer]".to_owned());
            if self.percent(96) {
                let key = self.mostly(PUBLIC, NEAR_KEYS);
                lines.push(self.line("PublicKey", &key));
            }
            for _ in 0..self.0.random_range(0..5) {
                let line = self.peer_line();
                lines.push(line);
            }
        }
        if self.percent(10) {
            self.disturb_lines(&mut lines);
        }
        let end = self.mostly(&["\n"], &["\r\n", "\n\n", "\r", " \n"]);
        let mut text: Vec<u8> = lines
            .iter()
            .flat_map(|line| [line.as_str(), &end].concat().into_bytes())
            .collect();
        if self.percent(8) {
            text.truncate(text.len().saturating_sub(end.len()));
        }
        if self.percent(6) {
            self.disturb_bytes(&mut text);
        }
        text
    }

    fn peer_line(&mut self) -> String {
        let key = self.pick(&[
            "PresharedKey",
            "Endpoint",
            "AllowedIPs",
            "AllowedIPs",
            "PersistentKeepalive",
        ]);
        let value = match key.as_str() {
            "PresharedKey" => self.mostly(PRIVATE, NEAR_KEYS),
            "Endpoint" => self.mostly(&ENDPOINTS[..20], ENDPOINTS),
            "AllowedIPs" => self.prefixes(),
            _ => self.number(),
        };
        self.line(&key, &value)
    }

    /// `KEY = VALUE`, with any spacing and case.
    fn line(&mut self, key: &str, value: &str) -> String {
        let key = match self.0.random_range(0..12) {
            0 => key.to_uppercase(),
            1 => key.to_lowercase(),
            2 => format!("\t{key}"),
            _ => key.to_owned(),
        };
        let equals = self.mostly(
            &[" = ", " = ", "=", "= ", " =", "\t=\t"],
            &["", " ", " == ", ":", "= = "],
        );
        let comment = self.mostly(&[""], &["# x", " # x", " ;x", "#", " "]);
        format!("{key}{equals}{value}{comment}")
    }

    fn disturb_lines(&mut self, lines: &mut Vec<String>) {
        let at = self.0.random_range(0..=lines.len());
        let odd = [
            "[Interface]",
            "[Peer]",
            "[peer]",
            "[ Peer ]",
            "[Peer",
            "Peer]",
            "[]",
            "[Interface] # x",
            "[Bogus]",
            "Bogus = 1",
            "PublicKey",
            "PublicKey =",
            "= x",
            "=",
            "# only",
            "#",
            ";x",
            "",
            "   ",
            "Address = 10.0.0.1/24",
            "PostUp = x",
            "ListenPort = 5",
            "PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
            "AllowedIPs = 10.0.0.0/8",
            "AllowedIPs =",
            "Private Key = x",
            "Listen Port = 5",
            "L i s t e n P o r t = 5",
            "[Inter face]",
            "\u{feff}",
            "ListenPort = 5 5",
            "FwMark = 0x 10",
        ];
        if self.percent(70) || lines.is_empty() {
            let line = self.pick(&odd);
            lines.insert(at, line);
        } else if self.percent(50) {
            lines.remove(at.min(lines.len() - 1));
        } else {
            lines.shuffle(&mut self.0);
        }
    }

    fn disturb_bytes(&mut self, text: &mut Vec<u8>) {
        let at = self.0.random_range(0..=text.len());
        match self.0.random_range(0..6) {
            0 => text.insert(at, 0),
            1 => drop(text.splice(0..0, *b"\xef\xbb\xbf")),
            2 => text.truncate(at),
            3 => text.insert(at, self.0.random()),
            4 => drop(text.splice(at..at, [b'A'; 5000])),
            _ => drop(text.splice(at..at, *b"\r\n")),
        }
    }
}

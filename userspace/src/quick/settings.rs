// SPDX-License-Identifier: GPL-2.0-only
//! The keys of a configuration file that are wg-quick's own, and the rest, which is wg's.

use super::value::{number, prefix, words, Address, Mtu};
use crate::config::{is_space, Fault, Kind, Place, BYTE_ORDER_MARK};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use zeroize::Zeroizing;

/// A key of wg-quick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// Addresses of the interface.
    Address,
    /// Name servers and search domains.
    Dns,
    /// The MTU.
    Mtu,
    /// The routing table.
    Table,
    /// A command before the device is configured, but after it is made.
    PreUp,
    /// A command at the end of `up`.
    PostUp,
    /// A command at the beginning of `down`.
    PreDown,
    /// A command at its end.
    PostDown,
    /// Whether `down` saves the tunnel.
    SaveConfig,
}

impl Key {
    /// All of them, as they are written.
    pub const ALL: [(&'static str, Self); 9] = [
        ("Address", Self::Address),
        ("DNS", Self::Dns),
        ("MTU", Self::Mtu),
        ("Table", Self::Table),
        ("PreUp", Self::PreUp),
        ("PostUp", Self::PostUp),
        ("PreDown", Self::PreDown),
        ("PostDown", Self::PostDown),
        ("SaveConfig", Self::SaveConfig),
    ];

    fn named(name: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        found.map(|(_, key)| key)
    }
}

/// Where routes go.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Routing {
    /// Nowhere: none are made.
    Off,
    /// To the main table; default routes by policy.
    #[default]
    Auto,
    /// To this table, all of them; a name is looked up when it is needed, as a hook may register
    /// it.
    Into(String),
}

/// A command of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When it is run.
    pub key: Key,
    /// What is run, for a shell.
    pub script: OsString,
    /// Where it stands.
    pub place: Place,
}

/// A configuration file, divided.
#[derive(Debug, Default)]
pub struct Settings {
    /// Addresses of the interface.
    pub addresses: Vec<Address>,
    /// The MTU, if it is not to be found out.
    pub mtu: Option<Mtu>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Where routes go.
    pub routing: Routing,
    /// That is not chosen by the file.
    pub routing_by_default: bool,
    /// The user's commands.
    pub hooks: Vec<Hook>,
    /// The tunnel is saved when it is taken down.
    pub save: bool,
    /// wg-quick's lines: the key of each, and its value's place.
    pub lines: Vec<(Key, Place)>,
    /// wg's lines, without white space around them.
    pub stripped: Zeroizing<Vec<u8>>,
    /// wg's lines in their places: those of wg-quick are empty.
    pub blanked: Zeroizing<Vec<u8>>,
    /// What is wrong. A bad value does not keep a tunnel from being taken down.
    pub faults: Vec<Fault>,
}

/// A part of a line.
struct Part<'a> {
    raw: &'a [u8],
    number: usize,
}

impl Part<'_> {
    /// Where the bytes of `text`, which start at `at` in the line, stand.
    fn place(&self, at: usize, text: &[u8]) -> Place {
        let count = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().count();
        Place {
            line: self.number,
            column: 1 + count(&self.raw[..at.min(self.raw.len())]),
            len: count(text).max(1),
        }
    }
}

impl Settings {
    /// Divides a file.
    pub fn parse(file: &[u8]) -> Self {
        let mut settings = Settings {
            routing_by_default: true,
            ..Settings::default()
        };
        // Room enough: a copy moved elsewhere would leave keys behind.
        settings.stripped.reserve_exact(file.len() + 1);
        settings.blanked.reserve_exact(file.len() + 1);
        let text = file.strip_prefix(BYTE_ORDER_MARK);
        if text.is_some() {
            settings.fault(
                Kind::ByteOrderMark,
                Place {
                    line: 1,
                    column: 1,
                    len: 1,
                },
                b"\\u{feff}",
            );
        }
        let mut ours = false;
        let lines = text.unwrap_or(file).split_inclusive(|byte| *byte == b'\n');
        for (number, raw) in (1..).zip(lines) {
            let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
            let part = Part { raw, number };
            if let Some(at) = raw.iter().position(|byte| *byte == 0) {
                settings.fault(Kind::Nul, part.place(at, b""), b"\\0");
                settings.blanked.push(b'\n');
                continue;
            }
            if settings.line(&part, &mut ours) {
                settings.blanked.push(b'\n');
                continue;
            }
            settings.blanked.extend_from_slice(raw);
            settings.blanked.push(b'\n');
            let start = raw.iter().position(|b| !b" \t".contains(b));
            let end = raw.iter().rposition(|b| !b" \t".contains(b));
            if let (Some(start), Some(end)) = (start, end) {
                settings.stripped.extend_from_slice(&raw[start..=end]);
            }
            settings.stripped.push(b'\n');
        }
        settings
    }

    /// The first fault for which nothing can be done with the file, not even to take the tunnel
    /// down.
    pub fn fatal(&self) -> Option<&Fault> {
        let fatal = [Kind::ByteOrderMark, Kind::Nul, Kind::SaveConfig];
        self.faults.iter().find(|fault| fatal.contains(&fault.kind))
    }

    /// The commands for one time.
    pub fn hooks(&self, key: Key) -> impl Iterator<Item = &OsString> {
        let chosen = self.hooks.iter().filter(move |hook| hook.key == key);
        chosen.map(|hook| &hook.script)
    }

    fn fault(&mut self, kind: Kind, place: Place, text: &[u8]) {
        let text = text.to_vec();
        self.faults.push(Fault { kind, place, text });
    }

    /// Takes a line that is wg-quick's; false, if it is wg's.
    fn line(&mut self, line: &Part<'_>, ours: &mut bool) -> bool {
        let end = line.raw.iter().position(|byte| *byte == b'#');
        let text = &line.raw[..end.unwrap_or(line.raw.len())];
        let equals = text.iter().position(|byte| *byte == b'=');
        let name = trimmed(&text[..equals.unwrap_or(text.len())]);
        if name.first() == Some(&b'[') {
            *ours = name.eq_ignore_ascii_case(b"[Interface]");
        }
        let Some(key) = ours.then(|| Key::named(name)).flatten() else {
            return false;
        };
        let is_hook = matches!(key, Key::PreUp | Key::PostUp | Key::PreDown | Key::PostDown);
        // What is a comment in a hook, the shell knows best.
        let text = if is_hook { line.raw } else { text };
        let after = text
            .iter()
            .position(|byte| *byte == b'=')
            .map_or(0, |at| at + 1);
        let value = trimmed(&text[after..]);
        let start = text[after..].iter().position(|byte| !is_space(*byte));
        let start = after + start.unwrap_or(0);
        let place = line.place(start, value);
        self.lines.push((key, place));
        if is_hook {
            let script = OsString::from_vec(value.to_vec());
            self.hooks.push(Hook { key, script, place });
        } else {
            self.value(key, line, start, value);
        }
        true
    }

    /// The value of a key, which starts at `start` in the line.
    fn value(&mut self, key: Key, line: &Part<'_>, start: usize, value: &[u8]) {
        let place = line.place(start, value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match key {
            Key::Address => {
                for (offset, word) in words(value) {
                    let text = String::from_utf8_lossy(word).into_owned();
                    match prefix(&text) {
                        Some((ip, len)) => self.addresses.push(Address { text, ip, len }),
                        None => {
                            self.fault(Kind::Address, line.place(start + offset, word), word);
                        }
                    }
                }
            }
            Key::Mtu => {
                self.mtu = None;
                // What a later line overrides is not looked at.
                self.faults.retain(|fault| fault.kind != Kind::Mtu);
                let mtu = number(&text()).filter(|mtu| i32::try_from(*mtu).is_ok());
                match mtu {
                    Some(value) => {
                        self.mtu = Some(Mtu {
                            text: text(),
                            value,
                        })
                    }
                    None if value.is_empty() => {}
                    None => self.fault(Kind::Mtu, place, value),
                }
            }
            Key::Dns => {
                for (_, word) in words(value) {
                    let is_server = word.contains(&b':')
                        || word.iter().all(|b| b.is_ascii_digit() || *b == b'.');
                    let list = if is_server {
                        &mut self.dns
                    } else {
                        &mut self.dns_search
                    };
                    list.push(String::from_utf8_lossy(word).into_owned());
                }
            }
            Key::Table => {
                self.routing_by_default = value.is_empty();
                self.routing = match value {
                    b"" | b"auto" => Routing::Auto,
                    b"off" => Routing::Off,
                    _ => Routing::Into(text()),
                };
            }
            Key::SaveConfig => match value.to_ascii_lowercase().as_slice() {
                b"true" => self.save = true,
                b"false" => self.save = false,
                _ => self.fault(Kind::SaveConfig, place, value),
            },
            Key::PreUp | Key::PostUp | Key::PreDown | Key::PostDown => {}
        }
    }
}

impl Routing {
    /// As it is written.
    pub fn text(&self) -> &str {
        match self {
            Routing::Off => "off",
            Routing::Auto => "auto",
            Routing::Into(table) => table,
        }
    }
}

fn trimmed(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte));
    let end = text.iter().rposition(|byte| !is_space(*byte));
    match (start, end) {
        (Some(start), Some(end)) => &text[start..=end],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Settings {
        Settings::parse(text.as_bytes())
    }

    #[test]
    fn a_whole_file() {
        let settings = parse(
            "  [interface] # me\n\
             privatekey = a=b=\n\
             ADDRESS=10.0.0.1/24,  fd00::1/64  10.0.0.2\n\
             Address = 10.0.0.3\n\
             DNS = 10.0.0.1, example.org,2001:db8::1 1.2.3.x\n\
             MTU = 1300\nMTU=1280 # smaller\n\
             Table = 1234\n\
             PreUp = echo \"%i\" = '#x' # for bash\n\
             PostUp=a\nPostUp=b\nPreDown = c\nPostDown =\n\
             SaveConfig = TRUE\n\
             \t# kept \n\
             [Peer]\n\
             Address = not ours\n\
             \n\
             [Interface]\nTable=off",
        );
        let texts: Vec<_> = settings.addresses.iter().map(|a| a.text.as_str()).collect();
        assert_eq!(texts, ["10.0.0.1/24", "fd00::1/64", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(settings.dns, ["10.0.0.1", "2001:db8::1"]);
        assert_eq!(settings.dns_search, ["example.org", "1.2.3.x"]);
        assert_eq!(settings.mtu.as_ref().unwrap().value, 1280);
        assert_eq!(settings.routing, Routing::Off);
        let hooks = |key| settings.hooks(key).collect::<Vec<_>>();
        assert_eq!(hooks(Key::PreUp), ["echo \"%i\" = '#x' # for bash"]);
        assert_eq!(hooks(Key::PostUp), ["a", "b"]);
        assert_eq!(hooks(Key::PreDown), ["c"]);
        assert_eq!(hooks(Key::PostDown), [""]);
        assert!(settings.save && settings.faults.is_empty());
        let place = |line, column, len| Place { line, column, len };
        assert_eq!(settings.lines[0], (Key::Address, place(3, 9, 34)));
        assert_eq!(settings.hooks[0].place, place(9, 9, 27));
        assert_eq!(settings.lines.len(), 13);
        let stripped =
            "[interface] # me\nprivatekey = a=b=\n# kept\n[Peer]\nAddress = not ours\n\n\
                        [Interface]\n";
        assert_eq!(String::from_utf8_lossy(&settings.stripped), stripped);
        let blanked = String::from_utf8_lossy(&settings.blanked);
        assert_eq!(blanked.lines().count(), 20);
        assert_eq!(blanked.lines().nth(16), Some("Address = not ours"));
        assert_eq!(blanked.lines().nth(2), Some(""));
    }

    #[test]
    fn carriage_returns_belong_to_no_value() {
        let settings = parse("[Interface]\r\nMTU = 1280\r\nPrivateKey = x\r\n");
        assert_eq!(settings.mtu.unwrap().text, "1280");
        assert_eq!(settings.stripped[..], *b"[Interface]\r\nPrivateKey = x\r\n");
    }

    #[test]
    fn lines_as_bash_reads_them() {
        let stripped = |text: &str| String::from_utf8_lossy(&parse(text).stripped).into_owned();
        assert_eq!(stripped(""), "");
        assert_eq!(stripped("\n"), "\n");
        assert_eq!(stripped("a"), "a\n");
        assert_eq!(
            stripped("[Interface]\n\x0bMTU\x0c=\x0b5\n \x0b\n"),
            "[Interface]\n\x0b\n"
        );
    }

    #[test]
    fn no_value_is_no_setting() {
        let settings = parse("[Interface]\nMTU=\nTable =\nAddress = , ,\nDNS=");
        assert!(settings.mtu.is_none() && settings.routing_by_default);
        assert!(settings.addresses.is_empty() && settings.dns.is_empty());
    }

    #[test]
    fn tables() {
        let table = |text: &str| parse(&format!("[Interface]\nTable = {text}")).routing;
        assert_eq!(table("auto"), Routing::Auto);
        assert_eq!(table("OFF"), Routing::Into("OFF".into()));
    }

    /// Line, column and length of a fault, and its kind.
    type Seen = ((usize, usize, usize), Kind);

    /// All faults, and whether one is fatal.
    fn faults(text: &[u8]) -> (Vec<Seen>, bool) {
        let settings = Settings::parse(text);
        let faults = settings.faults.iter();
        let faults = faults.map(|f| ((f.place.line, f.place.column, f.place.len), f.kind.clone()));
        (faults.collect(), settings.fatal().is_some())
    }

    #[test]
    fn what_is_wrong() {
        let one = |place, kind, fatal| (vec![(place, kind)], fatal);
        let bom = b"\xef\xbb\xbf[Interface]\nMTU = 1280";
        assert_eq!(faults(bom), one((1, 1, 1), Kind::ByteOrderMark, true));
        // The rest of the file is read all the same.
        assert_eq!(Settings::parse(bom).mtu.unwrap().value, 1280);
        let nul = b"[Interface]\nMTU=\0 5";
        assert_eq!(faults(nul), one((2, 5, 1), Kind::Nul, true));
        let maybe = b"[Interface]\nSaveConfig = maybe";
        assert_eq!(faults(maybe), one((2, 14, 5), Kind::SaveConfig, true));
        let address = "[Interface]\nAddress = 10.0.0.1, 10.0.0.300/24, \u{e4}\n";
        let places = [((2, 21, 13), Kind::Address), ((2, 36, 1), Kind::Address)];
        assert_eq!(faults(address.as_bytes()), (places.into(), false));
        for bad in ["2147483648", "x", "-5"] {
            let text = format!("[Interface]\nMTU = {bad}");
            let wanted = one((2, 7, bad.len()), Kind::Mtu, false);
            assert_eq!(faults(text.as_bytes()), wanted);
        }
        let good: [&[u8]; 5] = [
            // Elsewhere that key means nothing to us.
            b"SaveConfig = maybe\n[Peer]\nSaveConfig = x",
            b"",
            b"[Interface]\nPostUp = \xff\xfe",
            b"[Interface]\nMTU = x\nMTU = 1280",
            b"[Interface]\nTable = nowhere\nDNS =\nMTU =\nTable =\nAddress =",
        ];
        for text in good {
            assert_eq!(faults(text), (vec![], false));
        }
    }
}

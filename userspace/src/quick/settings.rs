// SPDX-License-Identifier: GPL-2.0-only
//! The keys of a configuration file that are wg-quick's own, and the rest, which is wg's.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use zeroize::Zeroizing;

/// A fault in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line and column, both from 1; none, if the fault is not at one place.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A value as it was written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl Word {
    fn fault(&self, text: String) -> Fault {
        Fault {
            place: Some((self.line, self.column)),
            text,
        }
    }
}

/// An address of the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// As written.
    pub text: String,
    /// The address.
    pub ip: IpAddr,
    /// The length of its prefix.
    pub len: u8,
}

/// An MTU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mtu {
    /// As written.
    pub text: String,
    /// In bytes.
    pub value: u32,
}

/// A routing table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// As written.
    pub text: String,
    /// Its number.
    pub id: u32,
}

/// Where routes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// Nowhere: none are made.
    Off,
    /// To the main table; default routes by policy.
    Auto,
    /// To this table, all of them.
    Into(Table),
}

/// The four times at which commands of the user's are run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Before the device is configured, but after it is made.
    pub pre_up: Vec<OsString>,
    /// At the end of `up`.
    pub post_up: Vec<OsString>,
    /// At the beginning of `down`.
    pub pre_down: Vec<OsString>,
    /// At its end.
    pub post_down: Vec<OsString>,
}

/// A configuration file, divided; the values are as they were written.
#[derive(Debug, Default)]
pub struct Settings {
    /// Addresses of the interface.
    pub addresses: Vec<Word>,
    /// The MTU, if it is not to be found out.
    pub mtu: Option<Word>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Where routes go.
    pub table: Option<Word>,
    /// The user's commands.
    pub hooks: Hooks,
    /// The tunnel is saved when it is taken down.
    pub save: bool,
    /// wg's lines, without white space around them.
    pub stripped: Zeroizing<Vec<u8>>,
    /// wg's lines in their places: those of wg-quick are empty.
    pub blanked: Zeroizing<Vec<u8>>,
}

impl Settings {
    /// Divides a file. Only what cannot be guessed at is a fault here: the values are judged by
    /// `addresses`, `mtu` and `routing`, so that a tunnel with a bad one can still be taken down.
    pub fn parse(file: &[u8]) -> Result<Self, Fault> {
        let mut settings = Settings::default();
        // Room enough: a copy moved elsewhere would leave keys behind.
        settings.stripped.reserve_exact(file.len() + 1);
        settings.blanked.reserve_exact(file.len() + 1);
        if file.starts_with(b"\xef\xbb\xbf") {
            return Err(Fault {
                place: Some((1, 1)),
                text: "a byte order mark: save the file without one".to_owned(),
            });
        }
        let mut ours = false;
        for (number, line) in file.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if let Some(at) = line.iter().position(|byte| *byte == 0) {
                return Err(Fault {
                    place: Some((number + 1, at + 1)),
                    text: "a NUL byte".to_owned(),
                });
            }
            if settings.line(line, number + 1, &mut ours)? {
                settings.blanked.push(b'\n');
                continue;
            }
            settings.blanked.extend_from_slice(line);
            settings.blanked.push(b'\n');
            let start = line.iter().position(|b| !b" \t".contains(b));
            let end = line.iter().rposition(|b| !b" \t".contains(b));
            if let (Some(start), Some(end)) = (start, end) {
                settings.stripped.extend_from_slice(&line[start..=end]);
            }
            settings.stripped.push(b'\n');
        }
        Ok(settings)
    }

    /// Takes a line that is wg-quick's; false, if it is wg's.
    fn line(&mut self, line: &[u8], number: usize, ours: &mut bool) -> Result<bool, Fault> {
        let text = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let (key, at) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (trimmed(&text[..at]), at + 1),
            None => (trimmed(text), 0),
        };
        let value = trimmed(&text[at..]);
        let start = text[at..].iter().position(|byte| !is_space(*byte));
        let column = 1 + at + start.unwrap_or(0);
        if key.first() == Some(&b'[') {
            *ours = key.eq_ignore_ascii_case(b"[Interface]");
        }
        if !*ours {
            return Ok(false);
        }
        let word = |text: &[u8], offset: usize| Word {
            text: String::from_utf8_lossy(text).into_owned(),
            line: number,
            column: column + offset,
        };
        let whole = || (!value.is_empty()).then(|| word(value, 0));
        let hook = || OsString::from_vec(value.to_vec());
        match key.to_ascii_lowercase().as_slice() {
            b"address" => {
                let words = words(value).map(|(offset, text)| word(text, offset));
                self.addresses.extend(words);
            }
            b"mtu" => self.mtu = whole(),
            b"dns" => {
                for (_, text) in words(value) {
                    let is_server = text.contains(&b':')
                        || text.iter().all(|b| b.is_ascii_digit() || *b == b'.');
                    let list = if is_server {
                        &mut self.dns
                    } else {
                        &mut self.dns_search
                    };
                    list.push(String::from_utf8_lossy(text).into_owned());
                }
            }
            b"table" => self.table = whole(),
            b"preup" => self.hooks.pre_up.push(hook()),
            b"postup" => self.hooks.post_up.push(hook()),
            b"predown" => self.hooks.pre_down.push(hook()),
            b"postdown" => self.hooks.post_down.push(hook()),
            b"saveconfig" => {
                self.save = match value.to_ascii_lowercase().as_slice() {
                    b"true" => true,
                    b"false" => false,
                    _ => {
                        let value = word(value, 0);
                        let text = format!("`{}' is neither true nor false", value.text);
                        // In wg-quick's words, which name no place.
                        return Err(Fault { place: None, text });
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The addresses, judged.
    pub fn addresses(&self) -> Result<Vec<Address>, Fault> {
        self.addresses
            .iter()
            .map(|word| {
                let (ip, len) = prefix(&word.text).ok_or_else(|| {
                    word.fault(format!(
                        "Address: `{}' is no IP address, with or without /LENGTH",
                        word.text
                    ))
                })?;
                Ok(Address {
                    text: word.text.clone(),
                    ip,
                    len,
                })
            })
            .collect()
    }

    /// The MTU, judged.
    pub fn mtu(&self) -> Result<Option<Mtu>, Fault> {
        let Some(word) = &self.mtu else {
            return Ok(None);
        };
        match number(&word.text).filter(|mtu| i32::try_from(*mtu).is_ok()) {
            Some(value) => Ok(Some(Mtu {
                text: word.text.clone(),
                value,
            })),
            None => Err(word.fault(format!("MTU: `{}' is no number of bytes", word.text))),
        }
    }

    /// The table, judged; its name may be one of iproute2's.
    pub fn routing(&self) -> Result<Routing, Fault> {
        let Some(word) = &self.table else {
            return Ok(Routing::Auto);
        };
        let id = match word.text.as_str() {
            "off" => return Ok(Routing::Off),
            "auto" => return Ok(Routing::Auto),
            "default" => Some(253),
            "main" => Some(254),
            "local" => Some(255),
            name => number(name).or_else(|| named_table(name)),
        };
        match id {
            Some(id) => Ok(Routing::Into(Table {
                text: word.text.clone(),
                id,
            })),
            None => Err(word.fault(format!(
                "Table: `{}' is neither off, auto, nor a routing table",
                word.text
            ))),
        }
    }

    /// Default routes are led by policy.
    pub fn is_auto(&self) -> bool {
        self.table.as_ref().is_none_or(|word| word.text == "auto")
    }
}

/// The C locale's white space.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

fn trimmed(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte));
    let end = text.iter().rposition(|byte| !is_space(*byte));
    match (start, end) {
        (Some(start), Some(end)) => &text[start..=end],
        _ => &[],
    }
}

/// The words of a list divided by commas or white space, with their offsets.
fn words(list: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut offset = 0;
    list.split(|b| b", \t".contains(b))
        .map(move |word| {
            let at = offset;
            offset += word.len() + 1;
            (at, word)
        })
        .filter(|(_, word)| !word.is_empty())
}

/// A number as C writes it: decimal, 0x hexadecimal, 0 octal.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // from_str_radix takes a sign.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// An address with or without the length of its prefix. As `ip` has it, IPv4 addresses may lack
/// bytes at their end, and the length may be a mask.
fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let ip: IpAddr = if address.contains(':') {
        address.parse::<Ipv6Addr>().ok()?.into()
    } else {
        let missing = 3usize.checked_sub(address.matches('.').count())?;
        let full = format!("{address}{}", ".0".repeat(missing));
        full.parse::<Ipv4Addr>().ok()?.into()
    };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => most,
        Some(mask) if ip.is_ipv4() && mask.contains('.') => {
            let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
            if mask.count_ones() != mask.leading_ones() {
                return None;
            }
            u8::try_from(mask.count_ones()).ok()?
        }
        Some(len) if len.bytes().all(|b| b.is_ascii_digit()) => len.parse().ok()?,
        Some(_) => return None,
    };
    (len <= most).then_some((ip, len))
}

/// A table named in iproute2's files.
fn named_table(name: &str) -> Option<u32> {
    let dirs = ["/etc/iproute2", "/usr/share/iproute2"];
    let mut files: Vec<_> = dirs
        .iter()
        .map(|dir| Path::new(dir).join("rt_tables"))
        .collect();
    for dir in dirs {
        if let Ok(entries) = fs::read_dir(Path::new(dir).join("rt_tables.d")) {
            files.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
        }
    }
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| table_in(&text, name))
}

fn table_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let id = number(words.next()?)?;
        (words.next()? == name).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Settings {
        Settings::parse(text.as_bytes()).unwrap()
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
             PreUp = echo \"%i\" = x # not this\n\
             PostUp=a\nPostUp=b\nPreDown = c\nPostDown =\n\
             SaveConfig = TRUE\n\
             \t# kept \n\
             [Peer]\n\
             Address = not ours\n\
             \n\
             [Interface]\nTable=off",
        );
        let texts: Vec<_> = settings.addresses.iter().map(|w| w.text.as_str()).collect();
        assert_eq!(texts, ["10.0.0.1/24", "fd00::1/64", "10.0.0.2", "10.0.0.3"]);
        let places: Vec<_> = settings
            .addresses
            .iter()
            .map(|w| (w.line, w.column))
            .collect();
        assert_eq!(places, [(3, 9), (3, 23), (3, 35), (4, 11)]);
        assert_eq!(settings.dns, ["10.0.0.1", "2001:db8::1"]);
        assert_eq!(settings.dns_search, ["example.org", "1.2.3.x"]);
        assert_eq!(settings.mtu().unwrap().unwrap().value, 1280);
        assert_eq!(settings.routing(), Ok(Routing::Off));
        let hooks = &settings.hooks;
        assert_eq!(hooks.pre_up, ["echo \"%i\" = x"]);
        assert_eq!(hooks.post_up, ["a", "b"]);
        assert_eq!(hooks.pre_down, ["c"]);
        assert_eq!(hooks.post_down, [""]);
        assert!(settings.save);
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
        assert_eq!(settings.mtu().unwrap().unwrap().text, "1280");
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
        assert!(settings.mtu.is_none() && settings.is_auto());
        assert!(settings.addresses.is_empty() && settings.dns.is_empty());
    }

    #[test]
    fn refused_at_once() {
        let at = |text: &[u8]| Settings::parse(text).unwrap_err();
        assert_eq!(at(b"\xef\xbb\xbf[Interface]").place, Some((1, 1)));
        assert_eq!(at(b"[Interface]\nMTU=\0 5").place, Some((2, 5)));
        let err = at(b"[Interface]\nSaveConfig = maybe");
        assert_eq!(err.text, "`maybe' is neither true nor false");
        // Elsewhere that key means nothing to us.
        assert!(Settings::parse(b"SaveConfig = maybe\n[Peer]\nSaveConfig = x").is_ok());
        assert!(Settings::parse(b"").is_ok());
        assert!(Settings::parse(b"[Interface]\nPostUp = \xff\xfe").is_ok());
    }

    #[test]
    fn addresses() {
        let good = |text: &str| {
            let (ip, len) = prefix(text).unwrap();
            format!("{ip}/{len}")
        };
        assert_eq!(good("10.8.0.2"), "10.8.0.2/32");
        assert_eq!(good("10.8.0.2/24"), "10.8.0.2/24");
        assert_eq!(good("10.1/16"), "10.1.0.0/16");
        assert_eq!(good("10.0.0.1/255.255.255.0"), "10.0.0.1/24");
        assert_eq!(good("fd00::1"), "fd00::1/128");
        assert_eq!(good("fd00::1/64"), "fd00::1/64");
        for bad in [
            "",
            "/",
            "x",
            "10.0.0.300",
            "10.0.0.1/33",
            "10.0.0.1/",
            "10.0.0.1/+8",
            "10.0.0.1/255.0.255.0",
            "10.0.0.0.1",
            "fd00::1/129",
            "fd00::1/255.0.0.0",
            "10.0.0.1/24/8",
            "fd00:::1",
            "1..2",
        ] {
            assert_eq!(prefix(bad), None, "{bad}");
        }
        let err = parse("[Interface]\nAddress = 10.0.0.1, 10.0.0.300\n")
            .addresses()
            .unwrap_err();
        assert_eq!(err.place, Some((2, 21)));
        assert!(err.text.contains("`10.0.0.300'"), "{err}");
    }

    #[test]
    fn numbers_and_tables() {
        assert_eq!(number("1280"), Some(1280));
        assert_eq!(number("0x500"), Some(1280));
        assert_eq!(number("010"), Some(8));
        assert_eq!(number("0"), Some(0));
        for bad in ["", "x", "0x", "-1", "+1", "0x+1", "08", "5000000000", "1 2"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        let text = "# reserved\n255\tlocal\n0x10 blue # the blue one\nx y\n";
        assert_eq!(table_in(text, "blue"), Some(16));
        assert_eq!(table_in(text, "y"), None);
        let table = |text: &str| parse(&format!("[Interface]\nTable = {text}")).routing();
        assert_eq!(table("auto"), Ok(Routing::Auto));
        assert!(matches!(
            table("main"),
            Ok(Routing::Into(Table { id: 254, .. }))
        ));
        assert!(matches!(
            table("51820"),
            Ok(Routing::Into(Table { id: 51820, .. }))
        ));
        assert_eq!(table("OFF").unwrap_err().place, Some((2, 9)));
        let mtu = |text: &str| parse(&format!("[Interface]\nMTU = {text}")).mtu();
        assert!(mtu("2147483648").is_err() && mtu("x").is_err() && mtu("-5").is_err());
    }
}

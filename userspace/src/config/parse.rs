// SPDX-License-Identifier: GPL-2.0
//! From text to [`Statement`]s. Nothing here stops at the first fault, resolves names or panics, whatever the input.

use super::fault::{Fault, Kind, Place, Problem, Warning, HIDDEN};
use super::value::{self, AllowedIps, EndpointText, Port};
use crate::key::{PublicKey, SecretKey, KEY_BASE64_LEN};
use std::ops::Range;
use zeroize::Zeroizing;

/// Which configuration is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialect {
    /// Accept the `[Interface]` keys of wg-quick as well.
    pub quick: bool,
    /// Refuse what `wg` lets pass although it cannot be meant: ports above 65535, a second `[Interface]` section, NULs.
    pub strict: bool,
}

/// A key of wg-quick in `[Interface]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuickKey {
    /// Addresses of the interface, separated by commas or spaces.
    Address,
    /// Name servers and search domains, separated by commas or spaces.
    Dns,
    /// Largest packet.
    Mtu,
    /// `off`, `auto`, or a routing table.
    Table,
    /// A command to run before the interface is set up.
    PreUp,
    /// A command to run after the interface is set up.
    PostUp,
    /// A command to run before the interface is removed.
    PreDown,
    /// A command to run after the interface is removed.
    PostDown,
    /// `true`: save the configuration on the way down.
    SaveConfig,
}

impl QuickKey {
    const ALL: [(&'static str, Self); 9] = [
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
        Self::ALL
            .into_iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
            .map(|(_, key)| key)
    }

    /// As it is written in a file.
    pub fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(_, key)| *key == self)
            .map_or("", |(name, _)| name)
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `[Interface]`
    Interface,
    /// `[Peer]`
    Peer,
    /// `PrivateKey =`
    PrivateKey(SecretKey),
    /// `ListenPort =`
    ListenPort(Port),
    /// `FwMark =`
    FwMark(u32),
    /// A key of wg-quick, and its value without the spaces around it.
    Quick(QuickKey, String),
    /// `PublicKey =`
    PublicKey(PublicKey),
    /// `PresharedKey =`
    PresharedKey(SecretKey),
    /// `Endpoint =`
    Endpoint(EndpointText),
    /// `AllowedIPs =`
    AllowedIps(AllowedIps),
    /// `PersistentKeepalive =`
    PersistentKeepalive(u16),
}

/// A line that is neither empty nor a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The value, or the whole line where there is none.
    pub place: Place,
    /// Allowed IPs with host bits.
    pub warnings: Vec<Warning>,
    /// What it says, or what is wrong with it.
    pub item: Result<Item, Fault>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    None,
    Interface,
    Peer,
}

/// The C locale's idea of a space.
fn is_space(c: u8) -> bool {
    matches!(c, b'\t'..=b'\r' | b' ')
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|&c| !is_space(c))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|&c| !is_space(c))
        .map_or(start, |last| last + 1);
    &text[start..end]
}

/// A line without spaces and comment, as `wg` looks at it, and where each of its bytes came from.
#[derive(Default)]
struct Line {
    number: usize,
    text: Zeroizing<Vec<u8>>,
    origin: Vec<u32>,
}

impl Line {
    /// `raw` ends before the line's end. A NUL ends the line early, as it does for C.
    fn read(&mut self, number: usize, raw: &[u8]) {
        self.number = number;
        self.text.clear();
        // Growing would leave copies of a key behind.
        if self.text.capacity() < raw.len() {
            self.text = Zeroizing::new(Vec::with_capacity(raw.len().next_power_of_two()));
        }
        self.origin.clear();
        for (offset, &c) in effective(raw)
            .iter()
            .enumerate()
            .filter(|(_, &c)| !is_space(c))
        {
            self.text.push(c);
            // No line of 4 GiB fits in memory beside its copies.
            self.origin.push(offset as u32);
        }
    }

    /// Where one byte of the raw line stands in the file.
    fn place_of(&self, raw: &[u8], offset: usize) -> Place {
        Place {
            line: self.number,
            column: 1 + raw.get(..offset).map_or(0, characters),
            len: 1,
        }
    }

    /// Where bytes of `text` stand in the file.
    fn place(&self, raw: &[u8], at: Range<usize>) -> Place {
        let origin = |at: usize| self.origin.get(at).map(|&offset| offset as usize);
        let past_last = || self.origin.last().map_or(0, |&last| last as usize + 1);
        let start = origin(at.start).unwrap_or_else(past_last);
        let last = if at.is_empty() {
            None
        } else {
            origin(at.end - 1)
        };
        let end = last.map_or(start, |last| last + 1);
        Place {
            line: self.number,
            column: 1 + raw.get(..start).map_or(0, characters),
            len: raw.get(start..end).map_or(0, characters).max(1),
        }
    }

    /// The offset of the value, if the line is `key=value` with a value.
    fn value_of(&self, key: &str) -> Option<usize> {
        let (name, rest) = self.text.split_at_checked(key.len())?;
        (name.eq_ignore_ascii_case(key.as_bytes()) && rest.len() > 1 && rest.starts_with(b"="))
            .then_some(key.len() + 1)
    }
}

/// How many characters of UTF-8 these bytes are.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&c| c & 0xc0 != 0x80).count()
}

/// The part of a line before a comment or a NUL.
fn effective(raw: &[u8]) -> &[u8] {
    let raw = raw.split(|&c| c == 0).next().unwrap_or_default();
    raw.split(|&c| c == b'#').next().unwrap_or_default()
}

/// Text that may be shown: a value that could be a mistyped secret is hidden.
pub(super) fn showable(text: &[u8]) -> Vec<u8> {
    let is_key_like =
        |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'=' | b'-' | b'_');
    let equals = text.iter().position(|&c| c == b'=');
    let equals = equals.filter(|&at| text[at..].iter().any(|&c| c != b'='));
    let (name, value) = text.split_at(equals.map_or(0, |at| at + 1));
    let mut runs = value.split(|c| !is_key_like(c));
    let public = name.eq_ignore_ascii_case(b"PublicKey=");
    if !public && runs.any(|run| run.len() + 4 >= KEY_BASE64_LEN) {
        return [name, HIDDEN].concat();
    }
    text.to_vec()
}

/// Lines with their numbers, without their ends.
fn lines(input: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let input = input.strip_suffix(b"\n").unwrap_or(input);
    input
        .split(|&c| c == b'\n')
        .enumerate()
        .map(|(index, raw)| (index + 1, raw))
}

/// Reads a whole configuration.
pub fn parse(input: &[u8], dialect: Dialect) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut line = Line::default();
    let mut section = Section::None;
    let mut interfaces = 0;
    for (number, raw) in lines(input) {
        line.read(number, raw);
        if let Some(offset) = raw.iter().position(|&c| c == 0).filter(|_| dialect.strict) {
            let place = line.place_of(raw, offset);
            statements.push(Statement {
                place,
                warnings: Vec::new(),
                item: Err(Fault {
                    kind: Kind::Nul,
                    place,
                    text: b"\\0".to_vec(),
                }),
            });
            continue;
        }
        if line.text.is_empty() {
            continue;
        }
        let mut warnings = Vec::new();
        let (start, item) = if line.text.eq_ignore_ascii_case(b"[interface]") {
            section = Section::Interface;
            interfaces += 1;
            let second = dialect.strict && interfaces > 1;
            let fault = Problem {
                kind: Kind::SecondInterface,
                at: 0..line.text.len(),
            };
            (
                0,
                if second {
                    Err(fault)
                } else {
                    Ok(Item::Interface)
                },
            )
        } else if line.text.eq_ignore_ascii_case(b"[peer]") {
            section = Section::Peer;
            (0, Ok(Item::Peer))
        } else {
            quick_entry(raw, section, dialect)
                .map(|item| {
                    (
                        line.text
                            .iter()
                            .position(|&c| c == b'=')
                            .map_or(0, |at| at + 1),
                        item,
                    )
                })
                .or_else(|| entry(&line, raw, section, dialect, &mut warnings))
                .unwrap_or_else(|| {
                    (
                        0,
                        Err(Problem {
                            kind: Kind::Line,
                            at: 0..line.text.len(),
                        }),
                    )
                })
        };
        let item = item.map_err(|Problem { kind, at }| {
            let at = start + at.start..start + at.end;
            let text = match kind {
                Kind::SecretKey => HIDDEN.to_vec(),
                Kind::PublicKey => line.text[at.clone()].to_vec(),
                _ => showable(&line.text[at.clone()]),
            };
            Fault {
                kind,
                place: line.place(raw, at),
                text,
            }
        });
        statements.push(Statement {
            place: line.place(raw, start..line.text.len()),
            warnings,
            item,
        });
    }
    statements
}

type Entry = Result<Item, Problem>;

/// A `key = value` line that `wg` knows; the offset of its value.
fn entry(
    line: &Line,
    raw: &[u8],
    section: Section,
    dialect: Dialect,
    warnings: &mut Vec<Warning>,
) -> Option<(usize, Entry)> {
    let find = |key| line.value_of(key).map(|start| (start, &line.text[start..]));
    let key = |kind: Kind, value: &[u8]| Problem {
        kind,
        at: 0..value.len(),
    };
    match section {
        Section::Interface => {
            if let Some((start, value)) = find("ListenPort") {
                return Some((
                    start,
                    value::port(value, dialect.strict).map(Item::ListenPort),
                ));
            }
            if let Some((start, value)) = find("FwMark") {
                return Some((start, value::fwmark(value).map(Item::FwMark)));
            }
            let (start, value) = find("PrivateKey")?;
            let parsed = SecretKey::from_base64(value).ok_or_else(|| key(Kind::SecretKey, value));
            Some((start, parsed.map(Item::PrivateKey)))
        }
        Section::Peer => {
            if let Some((start, value)) = find("Endpoint") {
                return Some((
                    start,
                    value::endpoint(value, dialect.strict).map(Item::Endpoint),
                ));
            }
            if let Some((start, value)) = find("PublicKey") {
                let parsed =
                    PublicKey::from_base64(value).ok_or_else(|| key(Kind::PublicKey, value));
                return Some((start, parsed.map(Item::PublicKey)));
            }
            if let Some((start, value)) = find("AllowedIPs") {
                let mut list = AllowedIps::default();
                let result = value::allowed_ips(value, &mut list);
                warnings.extend(list.host_bits.iter().map(|at| Warning {
                    place: line.place(raw, start + at.start..start + at.end),
                    text: value[at.clone()].to_vec(),
                }));
                return Some((start, result.map(|()| Item::AllowedIps(list))));
            }
            if let Some((start, value)) = find("PersistentKeepalive") {
                return Some((
                    start,
                    value::keepalive(value).map(Item::PersistentKeepalive),
                ));
            }
            let (start, value) = find("PresharedKey")?;
            let parsed = SecretKey::from_base64(value).ok_or_else(|| key(Kind::SecretKey, value));
            Some((start, parsed.map(Item::PresharedKey)))
        }
        Section::None => None,
    }
}

/// A key of wg-quick, whose value keeps its inner spaces.
fn quick_entry(raw: &[u8], section: Section, dialect: Dialect) -> Option<Entry> {
    if !dialect.quick || section != Section::Interface {
        return None;
    }
    let (key, value) = quick_pair(raw)?;
    let len = value.iter().filter(|&&c| !is_space(c)).count();
    Some(match std::str::from_utf8(value) {
        Ok(value) => Ok(Item::Quick(key, value.to_owned())),
        Err(_) => Err(Problem {
            kind: Kind::NotUtf8,
            at: 0..len,
        }),
    })
}

fn quick_pair(raw: &[u8]) -> Option<(QuickKey, &[u8])> {
    let text = effective(raw);
    let equals = text.iter().position(|&c| c == b'=')?;
    Some((
        QuickKey::named(trim(&text[..equals]))?,
        trim(&text[equals + 1..]),
    ))
}

/// The configuration without the lines that only wg-quick understands; all others are kept as they are.
pub fn strip(input: &[u8]) -> Zeroizing<Vec<u8>> {
    // What is kept is no longer than the input, but for a last newline: this never reallocates.
    let mut kept = Zeroizing::new(Vec::with_capacity(input.len() + 1));
    let mut in_interface = false;
    for (_, raw) in lines(input) {
        let text = trim(effective(raw));
        if text.starts_with(b"[") {
            in_interface = text.eq_ignore_ascii_case(b"[interface]");
        }
        if !(in_interface && quick_pair(raw).is_some()) {
            kept.extend_from_slice(raw);
            kept.push(b'\n');
        }
    }
    kept
}

// SPDX-License-Identifier: GPL-2.0-only
//! From text to [`Statement`]s. Nothing here stops at the first fault, resolves names or panics,
//! whatever the input.

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
    /// Refuse what `wg` lets pass although it cannot be meant: ports above 65535, a second
    /// `[Interface]` section, NULs.
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

/// A line without spaces and comment, as `wg` looks at it.
#[derive(Default)]
struct Line<'a> {
    number: usize,
    /// As it is in the file, without its end.
    raw: &'a [u8],
    text: Zeroizing<Vec<u8>>,
    /// Where each word starts in `text`, and where in `raw`.
    words: Vec<(usize, usize)>,
}

impl<'a> Line<'a> {
    fn read(&mut self, number: usize, raw: &'a [u8]) {
        (self.number, self.raw) = (number, raw);
        self.words.clear();
        self.text.clear();
        // Growing would leave copies of a key behind.
        if self.text.capacity() < raw.len() {
            self.text = Zeroizing::new(Vec::with_capacity(raw.len().next_power_of_two()));
        }
        let mut start = 0;
        for word in effective(raw).split(|&c| is_space(c)) {
            if !word.is_empty() {
                self.words.push((self.text.len(), start));
                self.text.extend_from_slice(word);
            }
            start += word.len() + 1;
        }
    }

    /// Where these bytes of the raw line stand in the file.
    fn place_of(&self, at: Range<usize>) -> Place {
        Place {
            line: self.number,
            column: 1 + self.raw.get(..at.start).map_or(0, characters),
            len: self.raw.get(at).map_or(0, characters).max(1),
        }
    }

    /// Where a byte of `text` came from.
    fn origin(&self, at: usize) -> usize {
        let word = self.words.iter().rev().find(|(start, _)| *start <= at);
        word.map_or(0, |(start, origin)| origin + at - start)
    }

    /// Where bytes of `text` stand in the file.
    fn place(&self, at: Range<usize>) -> Place {
        let after = |at: usize| at.checked_sub(1).map_or(0, |last| self.origin(last) + 1);
        let start = if at.start < self.text.len() {
            self.origin(at.start)
        } else {
            after(at.start)
        };
        self.place_of(start..start.max(after(at.end)))
    }
}

/// How many characters of UTF-8 these bytes are.
fn characters(bytes: &[u8]) -> usize {
    if bytes.is_ascii() {
        return bytes.len();
    }
    bytes.iter().filter(|&&c| c & 0xc0 != 0x80).count()
}

/// The part of a line before a comment, or before a NUL, which ends it for C.
fn effective(raw: &[u8]) -> &[u8] {
    let end = raw.iter().position(|&c| c == b'#' || c == 0);
    &raw[..end.unwrap_or(raw.len())]
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
    statements(input, dialect).collect()
}

/// Reads a configuration statement by statement.
pub fn statements(input: &[u8], dialect: Dialect) -> impl Iterator<Item = Statement> + '_ {
    let mut line = Line::default();
    let mut reader = Reader {
        dialect,
        section: Section::None,
        interfaces: 0,
    };
    lines(input).filter_map(move |(number, raw)| {
        line.read(number, raw);
        reader.statement(&line)
    })
}

/// What has been read so far, as far as it matters to the next line.
struct Reader {
    dialect: Dialect,
    section: Section,
    interfaces: usize,
}

type Entry = Result<Item, Problem>;

impl Reader {
    /// What a line says, if it says anything.
    fn statement(&mut self, line: &Line<'_>) -> Option<Statement> {
        let nul = || line.raw.iter().position(|&c| c == 0);
        if let Some(offset) = self.dialect.strict.then(nul).flatten() {
            let place = line.place_of(offset..offset + 1);
            return Some(Statement {
                place,
                warnings: Vec::new(),
                item: Err(Fault {
                    kind: Kind::Nul,
                    place,
                    text: b"\\0".to_vec(),
                }),
            });
        }
        if line.text.is_empty() {
            return None;
        }
        let mut warnings = Vec::new();
        let all = 0..line.text.len();
        let (start, entry) = if line.text.eq_ignore_ascii_case(b"[interface]") {
            (0, self.interface(all))
        } else if line.text.eq_ignore_ascii_case(b"[peer]") {
            self.section = Section::Peer;
            (0, Ok(Item::Peer))
        } else {
            let equals = line.text.iter().position(|&c| c == b'=');
            let start = equals.map_or(0, |at| at + 1);
            let entry = quick_entry(line.raw, self.section, self.dialect);
            match entry.or_else(|| self.entry(line, start, &mut warnings)) {
                Some(entry) => (start, entry),
                None => {
                    let kind = Kind::Line;
                    (0, Err(Problem { kind, at: all }))
                }
            }
        };
        let item = entry.map_err(|Problem { kind, at }| {
            let at = start + at.start..start + at.end;
            let text = match kind {
                Kind::SecretKey => HIDDEN.to_vec(),
                Kind::PublicKey => line.text[at.clone()].to_vec(),
                _ => showable(&line.text[at.clone()]),
            };
            Fault {
                kind,
                place: line.place(at),
                text,
            }
        });
        Some(Statement {
            place: line.place(start..line.text.len()),
            warnings,
            item,
        })
    }

    /// `[Interface]`
    fn interface(&mut self, at: Range<usize>) -> Entry {
        self.section = Section::Interface;
        self.interfaces += 1;
        if self.dialect.strict && self.interfaces > 1 {
            let kind = Kind::SecondInterface;
            return Err(Problem { kind, at });
        }
        Ok(Item::Interface)
    }

    /// A `key = value` line that `wg` knows, whose value starts at `start`.
    fn entry(&self, line: &Line<'_>, start: usize, warnings: &mut Vec<Warning>) -> Option<Entry> {
        let (name, value) = line.text.split_at_checked(start)?;
        let name = name.strip_suffix(b"=").filter(|_| !value.is_empty())?;
        let is = |key: &str| name.eq_ignore_ascii_case(key.as_bytes());
        let fault = |kind| Problem {
            kind,
            at: 0..value.len(),
        };
        let strict = self.dialect.strict;
        Some(match self.section {
            Section::Interface if is("PrivateKey") => SecretKey::from_base64(value)
                .map(Item::PrivateKey)
                .ok_or_else(|| fault(Kind::SecretKey)),
            Section::Interface if is("ListenPort") => {
                value::port(value, strict).map(Item::ListenPort)
            }
            Section::Interface if is("FwMark") => value::fwmark(value).map(Item::FwMark),
            Section::Peer if is("PublicKey") => PublicKey::from_base64(value)
                .map(Item::PublicKey)
                .ok_or_else(|| fault(Kind::PublicKey)),
            Section::Peer if is("PresharedKey") => SecretKey::from_base64(value)
                .map(Item::PresharedKey)
                .ok_or_else(|| fault(Kind::SecretKey)),
            Section::Peer if is("Endpoint") => value::endpoint(value, strict).map(Item::Endpoint),
            Section::Peer if is("AllowedIPs") => {
                let mut list = AllowedIps::default();
                let result = value::allowed_ips(value, &mut list);
                warnings.extend(list.host_bits.iter().map(|at| Warning {
                    place: line.place(start + at.start..start + at.end),
                    text: value[at.clone()].to_vec(),
                }));
                result.map(|()| Item::AllowedIps(list))
            }
            Section::Peer if is("PersistentKeepalive") => {
                value::keepalive(value).map(Item::PersistentKeepalive)
            }
            _ => return None,
        })
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

/// The configuration without the lines that only wg-quick understands; all others are kept as they
/// are.
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

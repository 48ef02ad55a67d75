// SPDX-License-Identifier: GPL-2.0-only
//! From text to [`Statement`]s. Nothing here stops at the first fault, resolves names or panics,
//! whatever the input.

use super::fault::{Fault, Kind, Place, Problem, Warning, HIDDEN};
use super::value::{self, AllowedIps, EndpointText, Port};
use crate::key::{PublicKey, SecretKey, KEY_BASE64_LEN};
use std::ops::Range;
use zeroize::Zeroizing;

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
    /// What it says, or what is wrong with it: at least one fault.
    pub item: Result<Item, Vec<Fault>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    None,
    Interface,
    Peer,
}

/// What some editors put in front of UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The C locale's idea of a space.
pub fn is_space(c: u8) -> bool {
    matches!(c, b'\t'..=b'\r' | b' ')
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
pub fn showable(text: &[u8]) -> Vec<u8> {
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

/// Reads a whole configuration. `strict` refuses what `wg` lets pass although it cannot be meant:
/// ports above 65535, endpoints without a host, NULs, byte order marks.
pub fn parse(input: &[u8], strict: bool) -> Vec<Statement> {
    statements(input, strict).collect()
}

/// Reads a configuration statement by statement.
pub fn statements(input: &[u8], strict: bool) -> impl Iterator<Item = Statement> + '_ {
    let mut line = Line::default();
    let mut reader = Reader {
        strict,
        section: Section::None,
    };
    lines(input).filter_map(move |(number, raw)| {
        line.read(number, raw);
        reader.statement(&line)
    })
}

/// What has been read so far, as far as it matters to the next line.
struct Reader {
    strict: bool,
    section: Section,
}

type Entry = Result<Item, Vec<Problem>>;

impl Reader {
    /// What a line says, if it says anything.
    fn statement(&mut self, line: &Line<'_>) -> Option<Statement> {
        if let Some((kind, at, text)) = self.strict.then(|| no_text(line)).flatten() {
            let (place, text) = (line.place_of(at), text.to_vec());
            return Some(Statement {
                place,
                warnings: Vec::new(),
                item: Err(vec![Fault { kind, place, text }]),
            });
        }
        if line.text.is_empty() {
            return None;
        }
        let mut warnings = Vec::new();
        let all = 0..line.text.len();
        let (start, entry) = if line.text.eq_ignore_ascii_case(b"[interface]") {
            self.section = Section::Interface;
            (0, Ok(Item::Interface))
        } else if line.text.eq_ignore_ascii_case(b"[peer]") {
            self.section = Section::Peer;
            (0, Ok(Item::Peer))
        } else {
            let equals = line.text.iter().position(|&c| c == b'=');
            let start = equals.map_or(0, |at| at + 1);
            match self.entry(line, start, &mut warnings) {
                Some(entry) => (start, entry),
                None => {
                    let kind = Kind::Line;
                    (0, Err(vec![Problem { kind, at: all }]))
                }
            }
        };
        let fault = |Problem { kind, at }: Problem| {
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
        };
        Some(Statement {
            place: line.place(start..line.text.len()),
            warnings,
            item: entry.map_err(|problems| problems.into_iter().map(fault).collect()),
        })
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
        let strict = self.strict;
        let item = match self.section {
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
                let (list, problems) = value::allowed_ips(value);
                warnings.extend(list.host_bits.iter().map(|at| Warning {
                    place: line.place(start + at.start..start + at.end),
                    text: value[at.clone()].to_vec(),
                }));
                if !problems.is_empty() {
                    return Some(Err(problems));
                }
                Ok(Item::AllowedIps(list))
            }
            Section::Peer if is("PersistentKeepalive") => {
                value::keepalive(value).map(Item::PersistentKeepalive)
            }
            _ => return None,
        };
        Some(item.map_err(|problem| vec![problem]))
    }
}

/// What is in no text: a byte order mark or a NUL, where, and how it is shown.
fn no_text(line: &Line<'_>) -> Option<(Kind, Range<usize>, &'static [u8])> {
    if line.number == 1 && line.raw.starts_with(BYTE_ORDER_MARK) {
        return Some((Kind::ByteOrderMark, 0..BYTE_ORDER_MARK.len(), b"\\u{feff}"));
    }
    let at = line.raw.iter().position(|&c| c == 0)?;
    Some((Kind::Nul, at..at + 1, b"\\0"))
}

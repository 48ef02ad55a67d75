// SPDX-License-Identifier: GPL-2.0-only
//! Plain words for what is wrong with a line.

use super::report::{quoted, Finding};
use crate::config::{Fault, Kind, Place};

/// The keys of each section.
const INTERFACE: [&str; 12] = [
    "PrivateKey",
    "ListenPort",
    "FwMark",
    "Address",
    "DNS",
    "MTU",
    "Table",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];
const PEER: [&str; 5] = [
    "PublicKey",
    "PresharedKey",
    "AllowedIPs",
    "Endpoint",
    "PersistentKeepalive",
];

/// The section that a line stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    None,
    Interface,
    Peer,
}

impl Section {
    /// The section of line `number` (from 1).
    pub fn of(lines: &[&[u8]], number: usize) -> Self {
        let before = lines.iter().take(number.saturating_sub(1)).rev();
        let heads = before.map(|line| line.split(|c| *c == b'#').next().unwrap_or_default());
        let heads = heads.map(|line| {
            line.iter()
                .filter(|c| !c.is_ascii_whitespace())
                .map(u8::to_ascii_lowercase)
                .collect::<Vec<_>>()
        });
        for head in heads {
            match head.as_slice() {
                b"[interface]" => return Self::Interface,
                b"[peer]" => return Self::Peer,
                _ => {}
            }
        }
        Self::None
    }
}

/// What is wrong, and what to do about it.
pub fn explain(fault: &Fault, lines: &[&[u8]]) -> Finding {
    let Place { line, .. } = fault.place;
    let raw = line
        .checked_sub(1)
        .and_then(|index| lines.get(index))
        .copied()
        .unwrap_or_default();
    if fault.kind == Kind::Line {
        return unknown_line(fault.place, raw, Section::of(lines, line));
    }
    let text = quoted(&fault.text).unwrap_or_else(|| "this".into());
    let message = match &fault.kind {
        Kind::PublicKey | Kind::SecretKey => return key(fault, raw),
        Kind::Line => String::new(),
        Kind::EmptyPort => "no port is given".into(),
        Kind::PortRange => format!("{text} is no port"),
        Kind::FwMark => format!("{text} is no firewall mark"),
        Kind::Keepalive => format!("{text} is no interval"),
        Kind::Ip => format!("{text} is no IP address"),
        Kind::AllowedIp => format!("{text} is no address with a prefix length"),
        Kind::EmptyEndpoint => "no endpoint is given".into(),
        Kind::EndpointBrace => format!("{text} has a `[' without its `]'"),
        Kind::EndpointPort => format!("{text} names no port"),
        Kind::Unresolved(reason) => format!("{text} cannot be looked up: {reason}"),
        Kind::NoPublicKey => "this peer has no PublicKey".into(),
        Kind::SecondInterface => "a second [Interface] section".into(),
        Kind::NotUtf8 => "the value is not UTF-8 text".into(),
        Kind::Nul => "a NUL byte".into(),
    };
    let help = match &fault.kind {
        Kind::PortRange => Some("ports go from 0 (any) to 65535"),
        Kind::FwMark => Some("write off, or a number up to 0xffffffff"),
        Kind::Keepalive => Some("write off, or 1 to 65535 seconds"),
        Kind::Nul => Some("is this a text file?"),
        kind => kind.hint(),
    };
    Finding::error(fault.place, message, help.map(Into::into))
}

/// A key is too long, too short, or has a wrong character in it.
fn key(fault: &Fault, raw: &[u8]) -> Finding {
    // Nothing is copied from the line unless it is not even text.
    let line = String::from_utf8_lossy(raw);
    let value = || {
        line.chars()
            .skip(fault.place.column - 1)
            .take(fault.place.len)
            .filter(|c| !c.is_whitespace())
    };
    let message = match value().count() {
        44 if value().last() != Some('=') => "this is no key: it does not end in `='".into(),
        44 => "this is no key, although it is as long as one".into(),
        length => format!("this is no key: {length} characters, not 44"),
    };
    let help = match fault.kind {
        Kind::PublicKey => "the other side's `wg-rs pubkey' prints it",
        _ => "`wg-rs genkey' and `wg-rs genpsk' make new ones",
    };
    Finding::error(fault.place, message, Some(help.into()))
}

/// A line that is neither a section nor a known key with a value.
fn unknown_line(place: Place, raw: &[u8], section: Section) -> Finding {
    let line = raw
        .split(|c| *c == b'#' || *c == 0)
        .next()
        .unwrap_or_default();
    let (name, value) = match line.iter().position(|c| *c == b'=') {
        Some(equals) => (&line[..equals], Some(line[equals + 1..].trim_ascii())),
        None => (line, None),
    };
    let name = name.trim_ascii();
    let place = Place {
        len: if value.is_some() {
            name.len().max(1)
        } else {
            place.len
        },
        ..place
    };
    let error = |message: String, help: String| Finding::error(place, message, Some(help));
    if line.starts_with(b"\xef\xbb\xbf") {
        return error(
            "the file begins with a byte order mark".into(),
            "save it as UTF-8 without one".into(),
        );
    }
    if name.starts_with(b"[") {
        return error(
            "no such section".into(),
            "there are [Interface] and [Peer]".into(),
        );
    }
    let Some(value) = value else {
        return error(
            "neither a section nor a key with a value".into(),
            "write KEY = VALUE; comments begin with #".into(),
        );
    };
    let same = |known: &&&str| known.as_bytes().eq_ignore_ascii_case(name);
    let (in_interface, in_peer) = (INTERFACE.iter().find(same), PEER.iter().find(same));
    let known = in_interface.or(in_peer);
    let belongs = if in_interface.is_some() {
        "[Interface]"
    } else {
        "[Peer]"
    };
    match (section, known) {
        (Section::None, Some(known)) => error(
            format!("{known} stands before any section"),
            format!("write {belongs} above it"),
        ),
        (Section::None, None) => error(
            "a line before any section".into(),
            "begin with [Interface]".into(),
        ),
        (Section::Interface, Some(known)) if in_interface.is_none() => error(
            format!("{known} does not belong into [Interface]"),
            "write [Peer] above it".into(),
        ),
        (Section::Peer, Some(known)) if in_peer.is_none() => error(
            format!("{known} does not belong into [Peer]"),
            "move it below [Interface]".into(),
        ),
        (_, Some(known)) if value.is_empty() => error(
            format!("{known} has no value"),
            "give it one, or take the line away".into(),
        ),
        (_, Some(known)) => error(
            format!("{known} cannot be read"),
            "write KEY = VALUE".into(),
        ),
        (section, None) => {
            let keys: &[&str] = if section == Section::Peer {
                &PEER
            } else {
                &INTERFACE
            };
            let help = match nearest(name, keys) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the keys here are {}", keys.join(", ")),
            };
            // What is not a word of letters may be anything, even a key without its name.
            let word = name.len() <= 24 && name.iter().all(u8::is_ascii_alphabetic);
            let name = quoted(name).filter(|_| word).unwrap_or_default();
            error(format!("unknown key {name}").trim_end().into(), help)
        }
    }
}

/// The key that was probably meant.
fn nearest(name: &[u8], keys: &[&'static str]) -> Option<&'static str> {
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| name.len() < 40)?
        .to_ascii_lowercase();
    let distance = |key: &str| strsim::damerau_levenshtein(&name, &key.to_ascii_lowercase());
    keys.iter()
        .copied()
        .min_by_key(|key| distance(key))
        .filter(|key| distance(key) <= 1 + key.len() / 5)
}

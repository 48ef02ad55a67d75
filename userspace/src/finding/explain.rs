// SPDX-License-Identifier: GPL-2.0-only
//! Plain words for what is wrong with a line.

use super::{quoted, Finding};
use crate::config::{Fault, Kind, Place, BYTE_ORDER_MARK};

/// The keys of `[Interface]` that are wg's, and those that are wg-quick's.
const INTERFACE: [&str; 3] = ["PrivateKey", "ListenPort", "FwMark"];
const TUNNEL: [&str; 9] = [
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
/// The keys of `[Peer]`.
const PEER: [&str; 5] = [
    "PublicKey",
    "PresharedKey",
    "AllowedIPs",
    "Endpoint",
    "PersistentKeepalive",
];
/// Keys of AmneziaWG, some with a number after them.
const AMNEZIA: [&str; 8] = ["jc", "jmin", "jmax", "s", "h", "i", "j", "itime"];

/// What a file is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For `up`.
    Tunnel,
    /// For `setconf`, `addconf` or `syncconf`.
    Device,
}

/// The section that a line stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    None,
    Interface,
    Peer,
}

impl Section {
    /// The section of line `number` (from 1).
    fn of(lines: &[&[u8]], number: usize) -> Self {
        let before = lines.iter().take(number.saturating_sub(1)).rev();
        let before = before.map(|line| line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line));
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
pub fn explain(fault: &Fault, lines: &[&[u8]], purpose: Purpose) -> Finding {
    let raw = line(fault.place, lines);
    if fault.kind == Kind::Line {
        let section = Section::of(lines, fault.place.line);
        return unknown_line(fault.place, raw, section, purpose);
    }
    let text = quoted(&fault.text).unwrap_or_else(|| "this".into());
    let message = match &fault.kind {
        Kind::PublicKey | Kind::SecretKey => return key(fault, raw),
        Kind::Line => String::new(),
        Kind::EmptyPort => "no port is given".into(),
        Kind::PortRange => format!("{text} is not a port"),
        Kind::FwMark => format!("{text} is not a firewall mark"),
        Kind::Keepalive => format!("{text} is not an interval"),
        Kind::Ip | Kind::Address => format!("{text} is not an IP address"),
        Kind::AllowedIp => format!("{text} is not an address with a prefix length"),
        Kind::EmptyEndpoint => "no endpoint is given".into(),
        Kind::EndpointBrace => format!("{text} has a `[' without its `]'"),
        Kind::EndpointPort => format!("{text} has no port"),
        Kind::Host => format!("{text} is neither an address nor a host name"),
        Kind::Service => format!("{text} is neither a port nor a service known here"),
        Kind::Unresolved(reason) => format!("{text} cannot be looked up: {reason}"),
        Kind::NoPublicKey => "this peer has no PublicKey".into(),
        Kind::Nul => "a NUL byte".into(),
        Kind::ByteOrderMark => "the file begins with a byte order mark".into(),
        Kind::Mtu => format!("{text} is not a number of bytes"),
        Kind::SaveConfig => format!("{text} is neither true nor false"),
        Kind::Hook(reason) => format!("the shell cannot read this: {reason}"),
    };
    Finding::error(fault.place, message, fault.kind.hint().map(Into::into))
}

fn line<'a>(place: Place, lines: &[&'a [u8]]) -> &'a [u8] {
    let index = place.line.checked_sub(1);
    let raw = index.and_then(|index| lines.get(index)).copied();
    let raw = raw.unwrap_or_default();
    raw.strip_prefix(BYTE_ORDER_MARK).unwrap_or(raw)
}

/// Whether the line is unknown because it is AmneziaWG's.
pub fn foreign(fault: &Fault, lines: &[&[u8]]) -> bool {
    let raw = line(fault.place, lines);
    fault.kind == Kind::Line && is_foreign(raw.split(|c| *c == b'=').next().unwrap_or_default())
}

fn is_foreign(name: &[u8]) -> bool {
    let name = name.trim_ascii().to_ascii_lowercase();
    let digits = name.iter().rev().take_while(|c| c.is_ascii_digit()).count();
    let (stem, number) = name.split_at(name.len() - digits);
    let numbered = stem.len() == 1;
    numbered != number.is_empty() && AMNEZIA.iter().any(|known| known.as_bytes() == stem)
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
        44 if value().last() != Some('=') => "not a key: it does not end in `='".into(),
        44 => "not a key, although it is as long as one".into(),
        length => format!("not a key: {length} characters instead of 44"),
    };
    let help = match fault.kind {
        Kind::PublicKey => "the other side's `wg-rs pubkey' prints it",
        _ => "`wg-rs genkey' and `wg-rs genpsk' make new ones",
    };
    Finding::error(fault.place, message, Some(help.into()))
}

/// A line that is neither a section nor a known key with a value.
fn unknown_line(place: Place, raw: &[u8], section: Section, purpose: Purpose) -> Finding {
    let line = raw
        .split(|c| *c == b'#' || *c == 0)
        .next()
        .unwrap_or_default();
    let (name, value) = match line.iter().position(|c| *c == b'=') {
        Some(equals) => (&line[..equals], Some(line[equals + 1..].trim_ascii())),
        None => (line, None),
    };
    let name = name.trim_ascii();
    let len = value.map_or(place.len, |_| name.len().max(1));
    let place = Place { len, ..place };
    let error = |message: String, help: String| Finding::error(place, message, Some(help));
    if name.starts_with(b";") {
        return error("not a comment".into(), "comments begin with #".into());
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
    if is_foreign(name) {
        let name = quoted(name).unwrap_or_default();
        return error(
            format!("{name} is a key of AmneziaWG"),
            "that is another protocol: ask for a configuration for WireGuard".into(),
        );
    }
    let find = |keys: &[&'static str]| {
        let same = |known: &&&str| known.as_bytes().eq_ignore_ascii_case(name);
        keys.iter().find(same).copied()
    };
    let tunnel = find(&TUNNEL);
    let (in_interface, in_peer) = (find(&INTERFACE).or(tunnel), find(&PEER));
    let known = in_interface.or(in_peer);
    let belongs = if in_interface.is_some() {
        "[Interface]"
    } else {
        "[Peer]"
    };
    match (section, known) {
        (_, Some(known)) if tunnel.is_some() && purpose == Purpose::Device => error(
            format!("{known} is for `wg-rs up'"),
            "`wg-rs strip' prints a file without such lines".into(),
        ),
        (Section::None, Some(known)) => error(
            format!("{known} stands before any section"),
            format!("write {belongs} above it"),
        ),
        (Section::None, None) => error(
            "a line before any section".into(),
            "begin with [Interface]".into(),
        ),
        (Section::Interface, Some(known)) if in_interface.is_none() => error(
            format!("{known} does not belong in [Interface]"),
            "write [Peer] above it".into(),
        ),
        (Section::Peer, Some(known)) if in_peer.is_none() => error(
            format!("{known} does not belong in [Peer]"),
            "move it below [Interface]".into(),
        ),
        (_, Some(known)) if value.is_empty() => error(
            format!("{known} has no value"),
            "give it one, or remove the line".into(),
        ),
        (_, Some(known)) if tunnel.is_some() => error(
            format!("{known} is not seen below a section written like this"),
            "write [Interface] without spaces in it".into(),
        ),
        (_, Some(known)) => error(
            format!("{known} cannot be read"),
            "write KEY = VALUE".into(),
        ),
        (section, None) => {
            let keys = match (section, purpose) {
                (Section::Peer, _) => PEER.to_vec(),
                (_, Purpose::Device) => INTERFACE.to_vec(),
                (_, Purpose::Tunnel) => [&INTERFACE[..], &TUNNEL].concat(),
            };
            let help = match nearest(name, &keys) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_amnezia() {
        for name in ["Jc", "Jmin", "jmax ", "S1", "H4", "I5", "Itime"] {
            assert!(is_foreign(name.as_bytes()), "{name}");
        }
        for name in ["S", "H", "Jc1", "MTU", "1", "", "S1x", "PrivateKey"] {
            assert!(!is_foreign(name.as_bytes()), "{name}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The values of wg-quick's keys.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

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

impl Table {
    /// The table of that number, or of a name that iproute2 knows now.
    pub fn find(text: &str) -> Option<Self> {
        let id = match text {
            "default" => Some(253),
            "main" => Some(254),
            "local" => Some(255),
            name => number(name).or_else(|| named_table(name)),
        }?;
        let text = text.to_owned();
        Some(Table { text, id })
    }
}

/// The words of a list divided by commas or white space, with their offsets.
pub fn words(list: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
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
pub fn number(text: &str) -> Option<u32> {
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
pub fn prefix(text: &str) -> Option<(IpAddr, u8)> {
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
        let id = |text: &str| Table::find(text).map(|table| table.id);
        assert_eq!((id("main"), id("51820")), (Some(254), Some(51820)));
        assert_eq!((id("OFF"), id("no such table")), (None, None));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The values on the right of the `=`, which are also those of `wg set`. What is accepted is what
//! `wg` accepts.

use super::fault::{Kind, Problem};
use crate::model::{AllowedIp, SetAllowedIp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// A port, or the name of a service that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// A number.
    Number(u16),
    /// Anything else: to be looked up.
    Name(Vec<u8>),
}

/// An endpoint before its name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointText {
    text: Vec<u8>,
    host: Range<usize>,
    /// Where the service starts.
    service: usize,
}

/// The value of one `AllowedIPs` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedIps {
    /// The entries in order.
    pub ips: Vec<SetAllowedIp>,
    /// Some entry had `+` or `-`: change the peer's list instead of replacing it.
    pub incremental: bool,
    /// Where entries with host bits stand.
    pub host_bits: Vec<Range<usize>>,
}

fn problem<T>(kind: Kind, at: Range<usize>) -> Result<T, Problem> {
    Err(Problem { kind, at })
}

/// Decimal or hexadecimal digits and nothing else; saturates.
fn number(digits: &[u8], base: u32) -> Option<u64> {
    let add = |value: u64, digit: &u8| {
        let digit = char::from(*digit).to_digit(base)?;
        Some(
            value
                .saturating_mul(base.into())
                .saturating_add(digit.into()),
        )
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, add)
}

/// `ListenPort`. In strict mode a number above 65535 is an error; else it is left to the C library,
/// as `wg` does.
pub fn port(value: &[u8], strict: bool) -> Result<Port, Problem> {
    if value.is_empty() {
        return problem(Kind::EmptyPort, 0..0);
    }
    match number(value, 10).map(u16::try_from) {
        Some(Ok(port)) => Ok(Port::Number(port)),
        Some(Err(_)) if strict => problem(Kind::PortRange, 0..value.len()),
        _ => Ok(Port::Name(value.to_vec())),
    }
}

/// `FwMark`.
pub fn fwmark(value: &[u8]) -> Result<u32, Problem> {
    if value.eq_ignore_ascii_case(b"off") {
        return Ok(0);
    }
    let mark = match value.strip_prefix(b"0x") {
        Some(digits) => number(digits, 16),
        None => number(value, 10),
    };
    match mark.map(u32::try_from) {
        Some(Ok(mark)) => Ok(mark),
        _ => problem(Kind::FwMark, 0..value.len()),
    }
}

/// `PersistentKeepalive`, in seconds.
pub fn keepalive(value: &[u8]) -> Result<u16, Problem> {
    if value.eq_ignore_ascii_case(b"off") {
        return Ok(0);
    }
    match number(value, 10).map(u16::try_from) {
        Some(Ok(seconds)) => Ok(seconds),
        _ => problem(Kind::Keepalive, 0..value.len()),
    }
}

/// `Endpoint`: `HOST:PORT` or `[ADDRESS]:PORT`.
pub fn endpoint(value: &[u8], strict: bool) -> Result<EndpointText, Problem> {
    let all = 0..value.len();
    if value.is_empty() {
        return problem(Kind::EmptyEndpoint, all);
    }
    let (host, rest) = if value.starts_with(b"[") {
        let Some(end) = value.iter().position(|&c| c == b']') else {
            return problem(Kind::EndpointBrace, all);
        };
        (1..end, &value[end + 1..])
    } else {
        let colon = value.iter().rposition(|&c| c == b':');
        let end = colon.unwrap_or(value.len());
        (0..end, &value[end..])
    };
    match rest.strip_prefix(b":") {
        Some(service) if !service.is_empty() => {
            let start = value.len() - service.len();
            if strict && !is_host(&value[host.clone()]) {
                return problem(Kind::Host, host);
            }
            if strict && number(service, 10).is_some_and(|port| port > u16::MAX.into()) {
                return problem(Kind::PortRange, start..value.len());
            }
            Ok(EndpointText {
                text: value.to_vec(),
                host,
                service: start,
            })
        }
        _ => problem(Kind::EndpointPort, all),
    }
}

/// Whether this can be an address or a name at all, whatever a name server says.
fn is_host(host: &[u8]) -> bool {
    if host.contains(&b':') {
        // Of the scope after it the resolver knows more.
        let address = host.split(|c| *c == b'%').next();
        let address = address.and_then(|address| std::str::from_utf8(address).ok());
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    if host.iter().all(|c| c.is_ascii_digit() || *c == b'.') {
        return is_short_ipv4(host);
    }
    let label = |label: &[u8]| {
        let fine = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | 0x80..);
        (1..=63).contains(&label.len()) && label.iter().all(fine)
    };
    let name = host.strip_suffix(b".").unwrap_or(host);
    name.len() <= 253 && name.split(|c| *c == b'.').all(label)
}

/// An IPv4 address, whose last number may stand for several bytes: `127.1`.
fn is_short_ipv4(text: &[u8]) -> bool {
    let parts: Vec<_> = text
        .split(|c| *c == b'.')
        .map(|part| number(part, 10))
        .collect();
    let Some((Some(last), first)) = parts.split_last() else {
        return false;
    };
    let room = 4usize.checked_sub(first.len()).filter(|room| *room > 0);
    room.is_some_and(|room| *last < 1 << (8 * room))
        && first.iter().all(|part| part.is_some_and(|part| part < 256))
}

impl EndpointText {
    /// All of it, as written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &[u8] {
        &self.text[self.host.clone()]
    }

    /// Port or name of a service.
    pub fn service(&self) -> &[u8] {
        &self.text[self.service..]
    }

    /// The address, if nothing has to be looked up.
    pub fn numeric(&self) -> Option<SocketAddr> {
        let host: IpAddr = std::str::from_utf8(self.host()).ok()?.parse().ok()?;
        Some(SocketAddr::new(
            host,
            number(self.service(), 10)?.try_into().ok()?,
        ))
    }
}

/// `AllowedIPs`: a comma-separated list, spaces already removed; with all that is wrong in it. Host
/// bits are noted up to the first fault, as `wg` warns of them.
pub fn allowed_ips(value: &[u8]) -> (AllowedIps, Vec<Problem>) {
    let (mut list, mut problems) = (AllowedIps::default(), Vec::new());
    if value.is_empty() {
        return (list, problems);
    }
    let commas = value.iter().filter(|&&c| c == b',').count();
    list.ips.reserve_exact(commas + 1);
    let mut start = 0;
    for entry in value.split(|&c| c == b',') {
        let next = start + entry.len() + 1;
        let signed = matches!(entry.first(), Some(b'+' | b'-'));
        let remove = entry.first() == Some(&b'-');
        list.incremental |= signed;
        start += usize::from(signed);
        let entry = &entry[usize::from(signed)..];
        match allowed_ip(entry) {
            Ok(ip) => {
                if ip.has_host_bits() && problems.is_empty() {
                    list.host_bits.push(start..start + entry.len());
                }
                list.ips.push(SetAllowedIp { ip, remove });
            }
            Err(Problem { kind, at }) => problems.push(Problem {
                kind,
                at: start + at.start..start + at.end,
            }),
        }
        start = next;
    }
    (list, problems)
}

/// `ADDRESS` or `ADDRESS/LENGTH`.
pub fn allowed_ip(entry: &[u8]) -> Result<AllowedIp, Problem> {
    let slash = entry.iter().position(|&c| c == b'/');
    let text = &entry[..slash.unwrap_or(entry.len())];
    let addr = std::str::from_utf8(text).ok().and_then(|text| {
        if text.contains(':') {
            text.parse::<Ipv6Addr>().ok().map(IpAddr::from)
        } else {
            text.parse::<Ipv4Addr>().ok().map(IpAddr::from)
        }
    });
    let Some(addr) = addr else {
        return problem(Kind::Ip, 0..text.len());
    };
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    let cidr = match slash {
        None => Some(bits),
        Some(slash) => number(&entry[slash + 1..], 10)
            .and_then(|cidr| u8::try_from(cidr).ok())
            .filter(|&cidr| cidr <= bits),
    };
    match cidr {
        Some(cidr) => Ok(AllowedIp { addr, cidr }),
        None => problem(Kind::AllowedIp, 0..entry.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports() {
        assert_eq!(port(b"51820", false), Ok(Port::Number(51820)));
        assert_eq!(port(b"00", true), Ok(Port::Number(0)));
        assert_eq!(port(b"domain", true), Ok(Port::Name(b"domain".to_vec())));
        assert_eq!(port(b"65536", false), Ok(Port::Name(b"65536".to_vec())));
        assert_eq!(port(b"65536", true).unwrap_err().kind, Kind::PortRange);
        assert_eq!(port(b"", true).unwrap_err().kind, Kind::EmptyPort);
    }

    #[test]
    fn marks() {
        for (text, mark) in [
            ("off", 0),
            ("OFF", 0),
            ("0", 0),
            ("010", 10),
            ("0xff", 255),
            ("0xFFFFFFFF", u32::MAX),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(fwmark(text.as_bytes()), Ok(mark), "{text}");
        }
        for text in [
            "",
            "x",
            "0x",
            "0X1",
            "0x-1",
            "-1",
            "+1",
            "4294967296",
            "0x100000000",
            "1 ",
            "99999999999999999999999",
            "0xg",
        ] {
            assert_eq!(
                fwmark(text.as_bytes()).unwrap_err().kind,
                Kind::FwMark,
                "{text}"
            );
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(
            (keepalive(b"Off"), keepalive(b"25"), keepalive(b"65535")),
            (Ok(0), Ok(25), Ok(65535))
        );
        for text in ["", "65536", "-1", "1s", "0x1"] {
            assert_eq!(
                keepalive(text.as_bytes()).unwrap_err().kind,
                Kind::Keepalive,
                "{text}"
            );
        }
    }

    #[test]
    fn endpoints() {
        for (text, host, service) in [
            ("a:1", "a", "1"),
            ("::1:80", "::1", "80"),
            ("[::1]:80", "::1", "80"),
            ("[fe80::1%lo]:80", "fe80::1%lo", "80"),
            ("127.1:80", "127.1", "80"),
            ("a_b.example.:x", "a_b.example.", "x"),
            ("\u{e4}.example:80", "\u{e4}.example", "80"),
        ] {
            let endpoint = endpoint(text.as_bytes(), true).unwrap();
            assert_eq!(
                (endpoint.host(), endpoint.service()),
                (host.as_bytes(), service.as_bytes()),
                "{text}"
            );
        }
        for (text, kind) in [
            ("", Kind::EmptyEndpoint),
            ("a", Kind::EndpointPort),
            ("a:", Kind::EndpointPort),
            ("[::1", Kind::EndpointBrace),
            ("[::1]", Kind::EndpointPort),
            ("[::1]80", Kind::EndpointPort),
            ("[::1]:", Kind::EndpointPort),
            ("a:65536", Kind::PortRange),
            (":1", Kind::Host),
            ("a:b:1", Kind::Host),
            ("https://a:1", Kind::Host),
            ("[a]b:1", Kind::EndpointPort),
            ("256.1.1.1:1", Kind::Host),
            ("1.2.3.4.5:1", Kind::Host),
            ("1..2:1", Kind::Host),
            ("a..b:1", Kind::Host),
            ("vpn.example/24:1", Kind::Host),
        ] {
            assert_eq!(
                endpoint(text.as_bytes(), true).unwrap_err().kind,
                kind,
                "{text}"
            );
        }
        let numeric = |text: &[u8]| {
            endpoint(text, false)
                .unwrap()
                .numeric()
                .map(|addr| addr.to_string())
        };
        assert_eq!(
            numeric(b"[2001:db8::1]:80").as_deref(),
            Some("[2001:db8::1]:80")
        );
        assert_eq!(
            numeric(b"192.0.2.1:65535").as_deref(),
            Some("192.0.2.1:65535")
        );
        for text in [
            "192.0.2.01:80",
            "192.0.2.1:http",
            "192.0.2.1:65536",
            "host:80",
            "[fe80::1%lo]:80",
            "1.2:80",
        ] {
            assert_eq!(numeric(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn lists_of_allowed_ips() {
        let (list, problems) = allowed_ips(b"10.0.0.1/8,+10.0.0.2,-::/0");
        assert_eq!(problems, []);
        assert_eq!(
            list.ips
                .iter()
                .map(|ip| (ip.ip.to_string(), ip.remove))
                .collect::<Vec<_>>(),
            [
                ("10.0.0.1/8".to_owned(), false),
                ("10.0.0.2/32".to_owned(), false),
                ("::/0".to_owned(), true)
            ]
        );
        assert!(list.incremental);
        assert_eq!(list.host_bits.first(), Some(&(0..10)));
        for (text, kind, at) in [
            ("10.0.0.0/33", Kind::AllowedIp, 0..11),
            ("::/0,+::/129", Kind::AllowedIp, 6..12),
            ("10.0.0.0/", Kind::AllowedIp, 0..9),
            ("10.0.0.0/8/9", Kind::AllowedIp, 0..12),
            ("10.0.0.0/-1", Kind::AllowedIp, 0..11),
            ("10.0.0.0/8,", Kind::Ip, 11..11),
            ("10.0.0.256/8", Kind::Ip, 0..10),
            ("++10.0.0.0/8", Kind::Ip, 1..10),
            ("host/8", Kind::Ip, 0..4),
        ] {
            let wanted = Problem { kind, at };
            assert_eq!(allowed_ips(text.as_bytes()).1, [wanted], "{text}");
        }
        let (list, problems) = allowed_ips(b"10.0.0.1/8,x,10.0.0.2/8,::/0/,");
        let places: Vec<_> = problems.into_iter().map(|problem| problem.at).collect();
        assert_eq!(places, [11..12, 24..29, 30..30]);
        assert_eq!((list.ips.len(), list.host_bits.len()), (2, 1));
    }

    proptest! {
        #[test]
        fn allowed_ip_there_and_back(addr: IpAddr, cidr in 0u8..=128) {
            let ip = AllowedIp { addr, cidr: if addr.is_ipv4() { cidr % 33 } else { cidr } };
            prop_assert_eq!(allowed_ip(ip.to_string().as_bytes()), Ok(ip));
        }

        #[test]
        fn no_panic_and_places_within(text: Vec<u8>, strict: bool) {
            let within = |at: Range<usize>| at.start <= at.end && at.end <= text.len();
            let (list, problems) = allowed_ips(&text);
            let results = [
                port(&text, strict).err(), fwmark(&text).err(), keepalive(&text).err(),
                endpoint(&text, strict).err(),
            ];
            let mut all = results.into_iter().flatten().chain(problems);
            prop_assert!(all.all(|problem| within(problem.at)));
            prop_assert!(list.host_bits.into_iter().all(within));
        }

        #[test]
        fn no_panic_on_near_misses(text in "[-+0-9a-fA-F:./,\\[\\]%]{0,40}") {
            let _ = endpoint(text.as_bytes(), true).map(|endpoint| endpoint.numeric());
            allowed_ips(text.as_bytes());
        }
    }
}

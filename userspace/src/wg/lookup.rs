// SPDX-License-Identifier: GPL-2.0-only
//! Names of hosts and services, looked up by the C library with the patience that `wg` has.

use super::report::warning;
use super::Context;
use crate::config::value::EndpointText;
use crate::config::{Lookup, LookupError, Warning};
use crate::say::{os_message, say, say_bytes};
use dns_lookup::{getaddrinfo, AddrInfoHints, LookupErrorKind};
use nix::libc::{AI_PASSIVE, IPPROTO_UDP, SOCK_DGRAM};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const RETRIES: &str = "WG_ENDPOINT_RESOLUTION_RETRIES";
const DEFAULT_RETRIES: u64 = 15;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Looks names up for one configuration, and reports its warnings.
pub struct System<'a> {
    /// How to speak.
    pub context: &'a Context,
    /// Where the configuration comes from.
    pub path: &'a Path,
    ready: bool,
}

impl<'a> System<'a> {
    /// For the configuration that comes from `path`.
    pub fn new(context: &'a Context, path: &'a Path) -> Self {
        Self {
            context,
            path,
            ready: false,
        }
    }
}

impl Lookup for System<'_> {
    fn endpoint(&mut self, text: &EndpointText) -> Result<SocketAddr, LookupError> {
        self.ready()?;
        match text.numeric() {
            Some(addr) => Ok(addr),
            None => endpoint(text),
        }
    }

    fn ready(&mut self) -> Result<(), LookupError> {
        // Not for each of thousands of peers again.
        if !self.ready {
            retries()?;
            self.ready = true;
        }
        Ok(())
    }

    fn port(&mut self, service: &[u8]) -> Result<u16, LookupError> {
        port(service)
    }

    fn warn(&mut self, what: &Warning) {
        warning(self.context, self.path, what);
    }
}

/// A failed lookup, in the C library's words.
struct Unknown {
    reason: String,
    /// Asking again is pointless.
    permanent: bool,
}

fn lookup(host: Option<&[u8]>, service: &[u8], flags: i32) -> Result<SocketAddr, Unknown> {
    // Nobody's name has bytes that are not UTF-8, nor any service's.
    let not_known = || Unknown {
        reason: "Name or service not known".into(),
        permanent: true,
    };
    let host = host
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|_| not_known())?;
    let service = std::str::from_utf8(service).map_err(|_| not_known())?;
    let hints = AddrInfoHints {
        flags,
        address: 0,
        socktype: SOCK_DGRAM,
        protocol: IPPROTO_UDP,
    };
    let mut found = getaddrinfo(host, Some(service), Some(hints)).map_err(|error| {
        let permanent = matches!(
            error.kind(),
            LookupErrorKind::NoName | LookupErrorKind::Fail | LookupErrorKind::NoData
        );
        let reason = os_message(&io::Error::from(error));
        let reason = reason
            .strip_prefix("failed to lookup address information: ")
            .map(str::to_owned)
            .unwrap_or(reason);
        Unknown { reason, permanent }
    })?;
    let neither = || Unknown {
        reason: "Neither IPv4 nor IPv6 address found".into(),
        permanent: true,
    };
    found
        .next()
        .and_then(Result::ok)
        .map(|found| found.sockaddr)
        .ok_or_else(neither)
}

/// The port of a UDP service.
pub fn port(service: &[u8]) -> Result<u16, LookupError> {
    let found = lookup(None, service, AI_PASSIVE)
        .map_err(|unknown| LookupError::Unresolved(unknown.reason))?;
    Ok(found.port())
}

/// The address of an endpoint. Failures that may pass are waited out, as often as the environment
/// says.
pub fn endpoint(text: &EndpointText) -> Result<SocketAddr, LookupError> {
    let mut retries = retries()?;
    if let Some(addr) = text.numeric() {
        return Ok(addr);
    }
    let mut pause = FIRST_PAUSE;
    loop {
        let unknown = match lookup(Some(text.host()), text.service(), 0) {
            Ok(addr) => return Ok(addr),
            Err(unknown) => unknown,
        };
        if unknown.permanent || retries == Some(0) {
            return Err(LookupError::Unresolved(unknown.reason));
        }
        retries = retries.map(|retries| retries - 1);
        let again = format!("'. Trying again in {:.2} seconds...", pause.as_secs_f64());
        say_bytes(
            &[
                unknown.reason.as_bytes(),
                b": `",
                text.text(),
                again.as_bytes(),
            ]
            .concat(),
        );
        std::thread::sleep(pause);
        pause = LONGEST_PAUSE.min(pause * 6 / 5);
    }
}

/// The address of an endpoint, asked for once; or why there is none.
pub fn endpoint_now(text: &EndpointText) -> Result<SocketAddr, String> {
    match text.numeric() {
        Some(addr) => Ok(addr),
        None => lookup(Some(text.host()), text.service(), 0).map_err(|unknown| unknown.reason),
    }
}

/// How often to ask again; `None` for ever.
pub fn retries() -> Result<Option<u64>, LookupError> {
    let Some(text) = std::env::var_os(RETRIES) else {
        return Ok(Some(DEFAULT_RETRIES));
    };
    let text = text.to_string_lossy();
    match parse_retries(&text) {
        Some(retries) => Ok(retries),
        None => {
            say(format_args!("Unable to parse {RETRIES}: `{text}'"));
            Err(LookupError::Reported)
        }
    }
}

/// As `strtoul` reads a number, but for negative ones, which are not small enough then.
fn parse_retries(text: &str) -> Option<Option<u64>> {
    if text == "infinity" {
        return Some(None);
    }
    if text.is_empty() {
        return Some(Some(0));
    }
    let digits = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let unsigned = digits.strip_prefix('+').unwrap_or(digits);
    let number = match digits.strip_prefix('-') {
        Some(zeros) if !zeros.is_empty() && zeros.bytes().all(|c| c == b'0') => 0,
        _ if !unsigned.starts_with(|c: char| c.is_ascii_digit()) => return None,
        _ => unsigned.parse::<u64>().ok()?,
    };
    i32::try_from(number).is_ok().then_some(Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_number_of_retries() {
        for (text, expected) in [
            ("infinity", Some(None)),
            ("", Some(Some(0))),
            ("7", Some(Some(7))),
            (" +7", Some(Some(7))),
            ("-0", Some(Some(0))),
            ("2147483647", Some(Some(2147483647))),
            ("2147483648", None),
            ("99999999999999999999999", None),
            ("-1", None),
            ("7 ", None),
            ("+-7", None),
            ("++7", None),
            ("many", None),
            (" ", None),
        ] {
            assert_eq!(parse_retries(text), expected, "{text:?}");
        }
    }

    #[test]
    fn asks_the_c_library() {
        assert_eq!(port(b"+5"), Ok(5));
        assert_eq!(
            port(b"no-such-service"),
            Err(LookupError::Unresolved(
                "Servname not supported for ai_socktype".into()
            ))
        );
        assert_eq!(
            port(b"\xff"),
            Err(LookupError::Unresolved("Name or service not known".into()))
        );
        let text = crate::config::value::endpoint(b"127.1:80", true).unwrap();
        assert_eq!(endpoint(&text), Ok("127.0.0.1:80".parse().unwrap()));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! `set`.

use super::report::{kernel, problem};
use super::{keys, lookup, Context, Voice};
use crate::config::value::{self, Port};
use crate::config::{host_part_warning, Kind, LookupError, Problem};
use crate::driver;
use crate::key::PublicKey;
use crate::model::{SetDevice, SetPeer};
use crate::say::{say_bytes, CommandResult, Failed};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use wireguard_rs::proto::uapi::IFNAME_MAX_LEN;

/// Its arguments.
pub const USAGE: &str =
    "<interface> [listen-port <port>] [fwmark <mark>] [private-key <file path>] \
                     [peer <base64 public key> [remove] [preshared-key <file path>] [endpoint \
                     <ip>:<port>] [persistent-keepalive <interval seconds>] [allowed-ips \
                     [+|-]<ip1>/<cidr1>[,[+|-]<ip2>/<cidr2>]...] ]...";

/// `set INTERFACE SETTING…`
pub fn set(context: &Context, interface: &OsStr, settings: &[OsString]) -> CommandResult {
    let change = read(context, settings)?;
    let interface = interface.to_string_lossy();
    let interface = name_to_change(context, &interface);
    driver::set(interface, &change, context.family.as_deref())
        .map_err(|error| kernel(context, "Unable to modify interface", interface, &error))
}

/// `wg` cuts a name that is too long where it changes something, so that it may change another
/// interface than the named one; only as `wg` do we follow.
pub fn name_to_change<'a>(context: &Context, name: &'a str) -> &'a str {
    let end = (0..=IFNAME_MAX_LEN)
        .rev()
        .find(|&end| name.is_char_boundary(end))
        .unwrap_or(0);
    match context.voice {
        Voice::Wg if name.len() > IFNAME_MAX_LEN => &name[..end],
        _ => name,
    }
}

/// Reads the settings one after the other, including key files and names, and stops at the first
/// that is wrong.
fn read(context: &Context, settings: &[OsString]) -> Result<SetDevice, Failed> {
    let mut change = SetDevice::default();
    let mut rest = settings;
    while let [keyword, after @ ..] = rest {
        if let (b"remove", Some(peer)) = (keyword.as_bytes(), change.peers.last_mut()) {
            peer.remove = true;
            rest = after;
            continue;
        }
        let known = match after {
            [value, after @ ..] => {
                rest = after;
                setting(context, &mut change, keyword, value)?
            }
            [] => false,
        };
        if !known {
            say_bytes(&[b"Invalid argument: ", keyword.as_bytes()].concat());
            return Err(Failed::USUAL);
        }
    }
    Ok(change)
}

/// Reads one keyword with its value; `false` if there is no such keyword here.
fn setting(
    context: &Context,
    change: &mut SetDevice,
    keyword: &OsStr,
    value: &OsStr,
) -> Result<bool, Failed> {
    let text = value.as_bytes();
    let wrong = |what: Problem| problem(context, &what, keyword.as_bytes(), text);
    let unresolved = |error| match error {
        LookupError::Unresolved(reason) => wrong(Problem {
            kind: Kind::Unresolved(reason),
            at: 0..text.len(),
        }),
        LookupError::Reported => Failed::USUAL,
    };
    let strict = context.voice == Voice::WgRs;
    match (keyword.as_bytes(), change.peers.last_mut()) {
        (b"peer", _) => {
            let all = 0..text.len();
            let public_key = PublicKey::from_base64(text).ok_or_else(|| {
                wrong(Problem {
                    kind: Kind::PublicKey,
                    at: all,
                })
            })?;
            change.peers.push(SetPeer {
                public_key,
                ..SetPeer::default()
            });
        }
        (b"listen-port", None) => {
            change.listen_port = Some(match value::port(text, strict).map_err(wrong)? {
                Port::Number(port) => port,
                Port::Name(name) => lookup::port(&name).map_err(unresolved)?,
            });
        }
        (b"fwmark", None) => change.fwmark = Some(value::fwmark(text).map_err(wrong)?),
        (b"private-key", None) => {
            change.private_key = Some(keys::read_key(context, Path::new(value))?)
        }
        (b"preshared-key", Some(peer)) => {
            peer.preshared_key = Some(keys::read_key(context, Path::new(value))?)
        }
        (b"endpoint", Some(peer)) => {
            lookup::retries().map_err(unresolved)?;
            let endpoint = value::endpoint(text, strict).map_err(wrong)?;
            peer.endpoint = Some(lookup::endpoint(&endpoint).map_err(unresolved)?);
        }
        (b"persistent-keepalive", Some(peer)) => {
            peer.persistent_keepalive = Some(value::keepalive(text).map_err(wrong)?)
        }
        (b"allowed-ips", Some(peer)) => allowed_ips(context, peer, text)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Spaces count for nothing in `allowed-ips`.
fn allowed_ips(context: &Context, peer: &mut SetPeer, text: &[u8]) -> CommandResult {
    let text: Vec<u8> = text
        .iter()
        .copied()
        .filter(|c| !matches!(c, b'\t'..=b'\r' | b' '))
        .collect();
    let (mut list, problems) = value::allowed_ips(&text);
    for at in &list.host_bits {
        say_bytes(&host_part_warning(&text[at.clone()]));
    }
    if let Some(what) = problems.first() {
        return Err(problem(context, what, b"allowed-ips", &text));
    }
    peer.replace_allowed_ips = !list.incremental;
    peer.allowed_ips.append(&mut list.ips);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn try_read(voice: Voice, settings: &[&str]) -> Result<SetDevice, Failed> {
        let context = Context {
            voice,
            program: "wg".into(),
            family: None,
        };
        read(
            &context,
            &settings.iter().map(OsString::from).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn reads_settings() {
        let change = try_read(
            Voice::WgRs,
            &[
                "listen-port",
                "51820",
                "fwmark",
                "0x10",
                "private-key",
                "/dev/null",
                "peer",
                KEY,
                "allowed-ips",
                " 10.0.0.0/8 , fd00::/8",
                "endpoint",
                "[2001:db8::1]:80",
                "persistent-keepalive",
                "off",
                "preshared-key",
                "/dev/null",
                "peer",
                KEY,
                "remove",
                "peer",
                KEY,
                "allowed-ips",
                "+10.0.0.0/8",
                "peer",
                KEY,
                "allowed-ips",
                "",
            ],
        )
        .unwrap();
        assert_eq!((change.listen_port, change.fwmark), (Some(51820), Some(16)));
        assert_eq!(change.private_key, Some(SecretKey::default()));
        let [first, second, third, fourth] = &change.peers[..] else {
            panic!("{change:?}")
        };
        assert_eq!(first.endpoint, Some("[2001:db8::1]:80".parse().unwrap()));
        assert_eq!(
            (
                first.allowed_ips.len(),
                first.replace_allowed_ips,
                first.persistent_keepalive
            ),
            (2, true, Some(0))
        );
        assert_eq!(first.preshared_key, Some(SecretKey::default()));
        assert!(second.remove && !first.remove);
        assert!(!third.replace_allowed_ips && !third.allowed_ips[0].remove);
        assert!(fourth.replace_allowed_ips && fourth.allowed_ips.is_empty());
    }

    #[test]
    fn refuses_bad_settings() {
        for settings in [
            &["listen-port"][..],
            &["listen-port", "no-such-service"],
            &["remove"],
            &["endpoint", "192.0.2.1:80"],
            &["peer", KEY, "listen-port", "1"],
            &["peer", KEY, "preshared-key", "/dev/zero"],
            &["peer", KEY, "preshared-key", "/"],
            &["peer", KEY, "allowed-ips", "10.0.0.0/33"],
            &["peer", "x"],
            &["unknown", "1"],
            &["private-key", "/nonexistent"],
        ] {
            assert_eq!(
                try_read(Voice::Wg, settings),
                Err(Failed::USUAL),
                "{settings:?}"
            );
        }
        assert_eq!(
            try_read(Voice::WgRs, &["listen-port", "65537"]),
            Err(Failed::USUAL)
        );
        assert_eq!(
            try_read(Voice::Wg, &["listen-port", "65537"])
                .unwrap()
                .listen_port,
            Some(1)
        );
    }

    #[test]
    fn cuts_names_only_as_wg() {
        let context = |voice| Context {
            voice,
            program: "wg".into(),
            family: None,
        };
        let name = "a23456789012345xyz";
        assert_eq!(name_to_change(&context(Voice::Wg), name), &name[..15]);
        assert_eq!(name_to_change(&context(Voice::WgRs), name), name);
        assert_eq!(
            name_to_change(&context(Voice::Wg), "a2345678901234ä"),
            "a2345678901234"
        );
    }
}

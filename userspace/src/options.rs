// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs options`: shows and sets what only the module `wireguard_rs` can do with an interface and
//! its peers.

use crate::genl::options::{Binding, Options, PeerOptions, SWITCHES};
use crate::key::PublicKey;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn word(on: bool) -> &'static str {
    if on {
        "on"
    } else {
        "off"
    }
}

/// Shows the options of an interface, and those of its peers that are not as they are at first.
///
/// # Errors
///
/// Those of `out`.
pub fn show(options: &Options, out: &mut impl Write) -> io::Result<()> {
    for ((name, _), value) in SWITCHES.iter().zip(options.switches) {
        if let Some(on) = value {
            writeln!(out, "{name} {}", word(on))?;
        }
    }
    let Binding { interface, v4, v6 } = &options.binding;
    if let Some(name) = interface {
        writeln!(out, "bind-interface {name}")?;
    }
    let addresses = [v4.map(IpAddr::from), v6.map(IpAddr::from)];
    for addr in addresses.into_iter().flatten() {
        writeln!(out, "bind-address {addr}")?;
    }
    for (key, of) in &options.peers {
        if of.fixed_endpoint == Some(true) {
            writeln!(out, "peer {key} fixed-endpoint on")?;
        }
        match of.silence {
            None | Some(0) => {}
            Some(seconds) => writeln!(out, "peer {key} silence {seconds}")?,
        }
    }
    out.flush()
}

/// Reads words such as `udp-gso off peer KEY silence 60`.
///
/// # Errors
///
/// What is wrong with them, in words.
pub fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    for pair in words.chunks(2) {
        let (name, value) = match pair {
            [name, value] => (name.as_str(), value.as_str()),
            [name] => return Err(format!("{name} needs a value")),
            _ => continue,
        };
        let switch = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("{name} is `on' or `off', not `{value}'")),
        };
        let at = SWITCHES.iter().position(|(known, _)| *known == name);
        match (name, at, options.peers.last_mut()) {
            ("peer", ..) => {
                let key = PublicKey::from_base64(value.as_bytes())
                    .ok_or_else(|| format!("`{value}' is no public key"))?;
                options.peers.push((key, PeerOptions::default()));
            }
            (_, Some(at), None) => options.switches[at] = Some(switch()?),
            (_, Some(_), Some(_)) => {
                return Err(before_peers(name));
            }
            ("bind-interface" | "bind-address", _, None) => {
                bind(&mut options.binding, name, value)?;
            }
            ("bind-interface" | "bind-address", _, Some(_)) => return Err(before_peers(name)),
            ("fixed-endpoint", _, Some((_, peer))) => peer.fixed_endpoint = Some(switch()?),
            ("silence", _, Some((_, peer))) => {
                peer.silence = Some(match value {
                    "off" => 0,
                    _ => value.parse().map_err(|_| {
                        format!("silence is `off' or seconds up to 65535, not `{value}'")
                    })?,
                });
            }
            ("fixed-endpoint" | "silence", _, None) => {
                return Err(format!("{name} is of a peer: after `peer KEY'"));
            }
            _ => {
                let names: Vec<&str> = SWITCHES.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "there is no option `{name}'; there are {}, bind-interface, bind-address, and \
                     of a peer fixed-endpoint and silence",
                    names.join(", ")
                ));
            }
        }
    }
    Ok(options)
}

fn before_peers(name: &str) -> String {
    format!("{name} is of the interface: before the first peer")
}

/// `off` stands for no interface, or no address of either family.
fn bind(binding: &mut Binding, name: &str, value: &str) -> Result<(), String> {
    match (name, value, value.parse()) {
        ("bind-interface", "off", _) => binding.interface = Some(String::new()),
        ("bind-interface", ..) if (1..16).contains(&value.len()) => {
            binding.interface = Some(value.to_owned());
        }
        ("bind-interface", ..) => {
            return Err(format!("`{value}' is no name of an interface"));
        }
        (_, "off", _) => {
            binding.v4 = Some(Ipv4Addr::UNSPECIFIED);
            binding.v6 = Some(Ipv6Addr::UNSPECIFIED);
        }
        (_, _, Ok(IpAddr::V4(addr))) => binding.v4 = Some(addr),
        (_, _, Ok(IpAddr::V6(addr))) => binding.v6 = Some(addr),
        _ => return Err(format!("{name} is `off' or an IP address, not `{value}'")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn parse(text: &str) -> Result<Options, String> {
        let words: Vec<String> = text.split_whitespace().map(Into::into).collect();
        super::parse(&words)
    }

    #[test]
    fn words() {
        let switches = |switches| {
            Ok(Options {
                switches,
                ..Options::default()
            })
        };
        assert_eq!(parse(""), Ok(Options::default()));
        assert_eq!(parse("udp-gso on"), switches([Some(true), None, None]));
        assert_eq!(
            parse("udp-gso on copy-dscp on eager-handshake on udp-gso off"),
            switches([Some(false), Some(true), Some(true)])
        );
        let of_peer = parse(&format!("peer {KEY} silence 60 fixed-endpoint on")).unwrap();
        let [(_, of)] = of_peer.peers.as_slice() else {
            panic!("{of_peer:?}")
        };
        assert_eq!((of.silence, of.fixed_endpoint), (Some(60), Some(true)));
        for (text, why) in [
            ("udp-gso", "needs"),
            ("udp-gso yes", "`yes'"),
            ("udp-gro on", "`udp-gro'"),
            ("bind-address 1.2.3", "1.2.3"),
            ("bind-interface a-name-of-sixteen", "sixteen"),
            (&format!("peer {KEY} bind-address off"), "before"),
            ("silence 5", "peer KEY"),
            ("peer x silence 5", "`x'"),
            (&format!("peer {KEY} silence 70000"), "70000"),
            (&format!("peer {KEY} udp-gso on"), "before"),
        ] {
            assert!(parse(text).is_err_and(|said| said.contains(why)), "{text}");
        }
    }

    #[test]
    fn bindings() {
        let binding = |text| parse(text).map(|options| options.binding);
        let bound = binding("bind-interface eth0 bind-address 192.0.2.1").unwrap();
        assert_eq!(bound.interface.as_deref(), Some("eth0"));
        assert_eq!((bound.v4, bound.v6), (Some([192, 0, 2, 1].into()), None));
        let off = binding("bind-interface off bind-address off").unwrap();
        assert_eq!(off.interface.as_deref(), Some(""));
        assert_eq!(off.v4.map(|v4| v4.is_unspecified()), Some(true));
        let both = binding("bind-address off bind-address 2001:db8::1").unwrap();
        assert_eq!(
            both.v6.map(|v6| v6.to_string()).as_deref(),
            Some("2001:db8::1")
        );
    }

    #[test]
    fn shown() {
        let options = parse(&format!(
            "udp-gso off copy-dscp on bind-interface eth0 bind-address 2001:db8::1 peer {KEY} \
             silence 60 fixed-endpoint on"
        ));
        let mut out = Vec::new();
        show(&options.unwrap(), &mut out).unwrap();
        let wanted = format!(
            "udp-gso off\ncopy-dscp on\nbind-interface eth0\nbind-address 2001:db8::1\n\
             peer {KEY} fixed-endpoint on\npeer {KEY} silence 60\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}

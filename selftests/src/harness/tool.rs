// SPDX-License-Identifier: GPL-2.0-only
//! Configuring and reading a device with the ordinary `wg`.

use super::netns::Netns;
use super::wgdev::{base64, uapi, Device, DeviceConf, Key, Peer, Prefix};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::time::Duration;

/// `conf` in the format of `wg setconf`.
pub fn conf_text(conf: &DeviceConf) -> String {
    let mut out = String::from("[Interface]\n");
    if let Some(key) = &conf.private_key {
        let _ = writeln!(out, "PrivateKey = {}", base64(key));
    }
    if let Some(port) = conf.listen_port {
        let _ = writeln!(out, "ListenPort = {port}");
    }
    if let Some(mark) = conf.fwmark {
        let _ = writeln!(out, "FwMark = {mark:#x}");
    }
    for peer in &conf.peers {
        let _ = writeln!(out, "[Peer]\nPublicKey = {}", base64(&peer.public_key));
        if let Some(psk) = &peer.preshared_key {
            let _ = writeln!(out, "PresharedKey = {}", base64(psk));
        }
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(out, "Endpoint = {endpoint}");
        }
        if let Some(seconds) = peer.keepalive {
            let _ = writeln!(out, "PersistentKeepalive = {seconds}");
        }
        for (addr, cidr) in &peer.allowed_ips {
            let _ = writeln!(out, "AllowedIPs = {addr}/{cidr}");
        }
    }
    out
}

/// Applies `conf` with `wg addconf`; peers to be removed with `wg set`.
pub fn set(ns: &Netns, name: &str, conf: &DeviceConf) -> Result<()> {
    let mut conf = conf.clone();
    for peer in conf
        .peers
        .iter()
        .filter(|p| p.flags & uapi::peer::F_REMOVE_ME != 0)
    {
        ns.sh(&format!(
            "wg set {name} peer {} remove",
            base64(&peer.public_key)
        ))?;
    }
    conf.peers
        .retain(|p| p.flags & uapi::peer::F_REMOVE_ME == 0);
    ns.sh_in(
        &format!("wg addconf {name} /proc/self/fd/0"),
        &conf_text(&conf),
    )
    .map(drop)
}

/// Reads the device with `wg show NAME dump`.
pub fn get(ns: &Netns, name: &str) -> Result<Device> {
    parse_dump(&ns.sh(&format!("wg show {name} dump"))?).context("unexpected `wg show dump`")
}

/// Parses the output of `wg show NAME dump`.
pub fn parse_dump(text: &str) -> Option<Device> {
    let mut lines = text.lines();
    let [private, public, port, mark] = fields(lines.next()?)?;
    let mut device = Device {
        private_key: key(private),
        public_key: key(public),
        listen_port: port.parse().ok()?,
        fwmark: number(mark)?,
        ..Device::default()
    };
    for line in lines {
        let [public, psk, endpoint, ips, handshake, rx, tx, keepalive] = fields(line)?;
        device.peers.push(Peer {
            public_key: key(public)?,
            preshared_key: key(psk).unwrap_or([0; 32]),
            endpoint: endpoint.parse().ok(),
            keepalive: if keepalive == "off" {
                0
            } else {
                keepalive.parse().ok()?
            },
            last_handshake: Duration::from_secs(handshake.parse().ok()?),
            rx_bytes: rx.parse().ok()?,
            tx_bytes: tx.parse().ok()?,
            allowed_ips: prefixes(ips)?,
        });
    }
    Some(device)
}

fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split('\t').collect::<Vec<_>>().try_into().ok()
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text == "off" => Some(0),
        None => text.parse().ok(),
    }
}

fn prefixes(text: &str) -> Option<Vec<Prefix>> {
    if text == "(none)" {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|p| {
            let (addr, cidr) = p.split_once('/')?;
            Some((addr.parse().ok()?, cidr.parse().ok()?))
        })
        .collect()
}

/// Decodes a key from base64; `None` for `(none)` and anything else that is no key.
pub fn key(text: &str) -> Option<Key> {
    let mut out = Vec::with_capacity(33);
    let (mut word, mut bits) = (0u32, 0);
    for c in text.strip_suffix('=')?.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = (word << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    out.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        for seed in 0..50u8 {
            let k: Key =
                core::array::from_fn(|n| (n as u8).wrapping_mul(37) ^ seed.wrapping_mul(91));
            assert_eq!(key(&base64(&k)), Some(k));
        }
        assert_eq!(key("(none)"), None);
    }

    #[test]
    fn dump_text() {
        let k = base64(&[7; 32]);
        let text = format!(
            "{k}\t{k}\t51820\t0x1a\n\
             {k}\t(none)\t[2001:db8::1]:5\t10.0.0.0/8,fd00::/64\t0\t1\t2\t25\n\
             {k}\t{k}\t(none)\t(none)\t9\t0\t0\toff\n"
        );
        let device = parse_dump(&text).unwrap();
        assert_eq!(
            (device.listen_port, device.fwmark, device.peers.len()),
            (51820, 26, 2)
        );
        assert_eq!(device.peers[0].allowed_ips.len(), 2);
        assert_eq!(device.peers[0].endpoint.unwrap().port(), 5);
        assert_eq!(
            (device.peers[1].keepalive, device.peers[1].endpoint),
            (0, None)
        );
        assert!(parse_dump("nonsense").is_none());
    }
}

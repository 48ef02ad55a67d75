// SPDX-License-Identifier: GPL-2.0-only
//! A device as a configuration file.

use crate::model::{Device, ShownEndpoint};
use std::io::{self, Write};

/// Writes what `wg showconf` prints. The text holds the private key: write it to a place that is
/// zeroed.
pub fn write(device: &Device, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "[Interface]")?;
    if device.listen_port != 0 {
        writeln!(out, "ListenPort = {}", device.listen_port)?;
    }
    if device.fwmark != 0 {
        writeln!(out, "FwMark = {:#x}", device.fwmark)?;
    }
    if let Some(key) = &device.private_key {
        writeln!(out, "PrivateKey = {}", *key.to_base64())?;
    }
    writeln!(out)?;
    for (index, peer) in device.peers.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        writeln!(out, "[Peer]\nPublicKey = {}", peer.public_key)?;
        if let Some(key) = &peer.preshared_key {
            writeln!(out, "PresharedKey = {}", *key.to_base64())?;
        }
        for (index, ip) in peer.allowed_ips.iter().enumerate() {
            write!(
                out,
                "{}{ip}",
                if index == 0 { "AllowedIPs = " } else { ", " }
            )?;
        }
        if !peer.allowed_ips.is_empty() {
            writeln!(out)?;
        }
        if let Some(endpoint) = peer.endpoint {
            writeln!(out, "Endpoint = {}", ShownEndpoint(endpoint))?;
        }
        if peer.persistent_keepalive != 0 {
            writeln!(out, "PersistentKeepalive = {}", peer.persistent_keepalive)?;
        }
    }
    Ok(())
}

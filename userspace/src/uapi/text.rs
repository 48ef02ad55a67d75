// SPDX-License-Identifier: GPL-2.0-only
//! The text: lines `key=value`, an empty line at the end.

use crate::key::{PublicKey, SecretKey, KEY_LEN};
use crate::model::{AllowedIp, Device, Peer, SetDevice, SetPeer, ShownEndpoint, ShownIp};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::str::FromStr;
use zeroize::Zeroizing;

/// The request that makes the change; of its size at once, so that no key is left behind where it
/// outgrew its place.
pub fn write_request(change: &SetDevice) -> Zeroizing<Vec<u8>> {
    let ips: usize = change.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(
        256 + 512 * change.peers.len() + 64 * ips,
    ));
    // Writing to memory does not fail.
    let _ = device(&mut text, change);
    text
}

fn device(out: &mut Vec<u8>, change: &SetDevice) -> io::Result<()> {
    out.extend_from_slice(b"set=1\n");
    if let Some(secret) = &change.private_key {
        key(out, "private_key", secret.as_bytes());
    }
    if let Some(port) = change.listen_port {
        writeln!(out, "listen_port={port}")?;
    }
    if let Some(mark) = change.fwmark {
        writeln!(out, "fwmark={mark}")?;
    }
    if change.replace_peers {
        out.extend_from_slice(b"replace_peers=true\n");
    }
    change.peers.iter().try_for_each(|set| peer(out, set))?;
    out.push(b'\n');
    Ok(())
}

fn peer(out: &mut Vec<u8>, set: &SetPeer) -> io::Result<()> {
    key(out, "public_key", set.public_key.as_bytes());
    if set.update_only {
        out.extend_from_slice(b"update_only=true\n");
    }
    if set.remove {
        out.extend_from_slice(b"remove=true\n");
        return Ok(());
    }
    if let Some(secret) = &set.preshared_key {
        key(out, "preshared_key", secret.as_bytes());
    }
    if let Some(endpoint) = set.endpoint {
        writeln!(out, "endpoint={}", ShownEndpoint(endpoint))?;
    }
    if let Some(seconds) = set.persistent_keepalive {
        writeln!(out, "persistent_keepalive_interval={seconds}")?;
    }
    if set.replace_allowed_ips {
        out.extend_from_slice(b"replace_allowed_ips=true\n");
    }
    for set in &set.allowed_ips {
        let sign = if set.remove { "-" } else { "" };
        writeln!(
            out,
            "allowed_ip={sign}{}/{}",
            ShownIp(set.ip.addr),
            set.ip.cidr
        )?;
    }
    Ok(())
}

fn key(out: &mut Vec<u8>, name: &str, bytes: &[u8; KEY_LEN]) {
    let mut digits = Zeroizing::new([0; 2 * KEY_LEN]);
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    // The buffer has the right size, so this cannot fail.
    out.extend_from_slice(base16ct::lower::encode(bytes, &mut *digits).unwrap_or_default());
    out.push(b'\n');
}

/// Reads an answer: that to a `get` makes the device, that to a `set` only says whether it went
/// well. Keys that are not known are passed over.
///
/// # Errors
///
/// The one that the answer holds; `EPROTO` if it makes no sense.
pub fn read_reply(answer: &[u8]) -> io::Result<Device> {
    let mut device = Device::default();
    let mut errno = None;
    for line in answer
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let at = line
            .iter()
            .position(|&byte| byte == b'=')
            .ok_or(Errno::EPROTO)?;
        let (name, value) = (&line[..at], &line[at + 1..]);
        match name {
            b"errno" => errno = Some(value_of::<i32>(value)?),
            _ => field(&mut device, name, value)?,
        }
    }
    match errno {
        Some(0) => Ok(device),
        Some(errno) => Err(io::Error::from_raw_os_error(errno.saturating_abs())),
        None => Err(Errno::EPROTO.into()),
    }
}

fn field(device: &mut Device, name: &[u8], value: &[u8]) -> io::Result<()> {
    match name {
        b"private_key" => {
            let secret = secret(value)?;
            device.public_key = Some(secret.public_key());
            device.private_key = Some(secret);
        }
        b"listen_port" => device.listen_port = value_of(value)?,
        b"fwmark" => device.fwmark = value_of(value)?,
        b"public_key" => device.peers.push(Peer {
            public_key: PublicKey::new(*secret(value)?.as_bytes()),
            ..Peer::default()
        }),
        _ => {
            if let Some(peer) = device.peers.last_mut() {
                peer_field(peer, name, value)?;
            }
        }
    }
    Ok(())
}

fn peer_field(peer: &mut Peer, name: &[u8], value: &[u8]) -> io::Result<()> {
    match name {
        b"preshared_key" => {
            peer.preshared_key = Some(secret(value)?).filter(|secret| !secret.is_zero());
        }
        b"endpoint" => peer.endpoint = Some(endpoint(value)?),
        b"persistent_keepalive_interval" => peer.persistent_keepalive = value_of(value)?,
        b"allowed_ip" => peer.allowed_ips.push(allowed_ip(value)?),
        b"last_handshake_time_sec" => peer.last_handshake.sec = value_of(value)?,
        b"last_handshake_time_nsec" => peer.last_handshake.nsec = value_of(value)?,
        b"rx_bytes" => peer.rx_bytes = value_of(value)?,
        b"tx_bytes" => peer.tx_bytes = value_of(value)?,
        _ => {}
    }
    Ok(())
}

fn value_of<T: FromStr>(value: &[u8]) -> io::Result<T> {
    let text = std::str::from_utf8(value).ok();
    Ok(text
        .and_then(|text| text.parse().ok())
        .ok_or(Errno::EPROTO)?)
}

fn secret(value: &[u8]) -> io::Result<SecretKey> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    match base16ct::mixed::decode(value, &mut *bytes) {
        Ok(all) if all.len() == KEY_LEN => Ok(SecretKey::new(&bytes)),
        _ => Err(Errno::EPROTO.into()),
    }
}

/// An address and a port; the scope of an IPv6 address may be a number or an interface's name.
fn endpoint(value: &[u8]) -> io::Result<SocketAddr> {
    value_of(value).or_else(|error| {
        let named = || {
            let (host, port) = std::str::from_utf8(value)
                .ok()?
                .strip_prefix('[')?
                .rsplit_once("]:")?;
            let (addr, name) = host.split_once('%')?;
            let scope = if_nametoindex(name).ok()?;
            Some(SocketAddrV6::new(addr.parse().ok()?, port.parse().ok()?, 0, scope).into())
        };
        named().ok_or(error)
    })
}

fn allowed_ip(value: &[u8]) -> io::Result<AllowedIp> {
    let at = value
        .iter()
        .position(|&byte| byte == b'/')
        .ok_or(Errno::EPROTO)?;
    let (addr, cidr): (IpAddr, u8) = (value_of(&value[..at])?, value_of(&value[at + 1..])?);
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    if cidr > bits {
        return Err(Errno::EPROTO.into());
    }
    Ok(AllowedIp { addr, cidr })
}

// SPDX-License-Identifier: GPL-2.0-only
//! `setconf`, `addconf`, `syncconf`.

use super::lookup::System;
use super::report::{fault, kernel, perror};
use super::{Context, Voice};
use crate::config::{self, CompileError};
use crate::driver;
use crate::finding::Purpose;
use crate::key::SecretKey;
use crate::model::{Device, Peer, SetDevice, SetPeer};
use crate::say::{CommandResult, Failed};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// How a configuration changes the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `setconf`: the device becomes what the file says.
    Set,
    /// `addconf`: what the file does not mention stays.
    Add,
    /// `syncconf`: as `setconf`, but sessions of peers that stay are not disturbed.
    Sync,
}

/// The arguments of the three.
pub const USAGE: &str = "<interface> <configuration filename>";

/// Runs one of the three.
pub fn conf(context: &Context, how: How, interface: &OsStr, file: &OsStr) -> CommandResult {
    let path = Path::new(file);
    let input = read_file(path).map_err(|(what, error)| perror(what, &error))?;
    apply(context, how, &interface.to_string_lossy(), path, &input)
}

/// Reads a file that holds keys, without leaving copies behind. Says on an error what failed.
pub fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, (&'static str, io::Error)> {
    const LEAST: usize = 16 * 1024;
    let mut file = File::open(path).map_err(|error| ("fopen", error))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Zeroizing::new(vec![
        0;
        LEAST.max(
            usize::try_from(size).unwrap_or(0).saturating_add(1)
        )
    ]);
    let mut length = 0;
    loop {
        if length == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * length]);
            larger[..length].copy_from_slice(&bytes);
            bytes = larger;
        }
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(("read", error)),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Applies a configuration, of which `path` is only the name. Nothing is sent unless all of it is
/// valid.
pub fn apply(
    context: &Context,
    how: How,
    interface: &str,
    path: &Path,
    input: &[u8],
) -> CommandResult {
    let statements = config::statements(input, context.voice == Voice::WgRs);
    let start = if how == How::Add {
        SetDevice::default()
    } else {
        SetDevice::whole()
    };
    let change = config::compile(statements, start, &mut System::new(context, path));
    let mut change = change.map_err(|error| match error {
        CompileError::Fault(what) => fault(context, path, input, &what, Purpose::Device),
        CompileError::Reported => Failed::USUAL,
    })?;
    let interface = super::set::name_to_change(context, interface);
    if how == How::Sync && !change.peers.is_empty() {
        let device = driver::get(interface, context.family.as_deref());
        let device = device.map_err(|error| {
            kernel(
                context,
                "Unable to retrieve current interface configuration",
                interface,
                &error,
            )
        })?;
        synchronize(&mut change, &device);
    }
    driver::set_whole(interface, &change, context.family.as_deref())
        .map_err(|error| kernel(context, "Unable to modify interface", interface, &error))
}

/// Instead of all peers, removes only those that are not wanted; and of a wanted peer the preshared
/// key and the keepalive that it should no longer have.
fn synchronize(change: &mut SetDevice, device: &Device) {
    if device.peers.is_empty() {
        return;
    }
    change.replace_peers = false;
    let wanted: HashSet<_> = change.peers.iter().map(|peer| peer.public_key).collect();
    let present = device.peers.iter().map(|peer| (peer.public_key, peer));
    let present: HashMap<_, &Peer> = present.collect();
    // Of several sections of one peer the first: what a later one says counts.
    let mut seen = HashSet::new();
    for peer in &mut change.peers {
        let Some(now) = present.get(&peer.public_key) else {
            continue;
        };
        if !seen.insert(peer.public_key) {
            continue;
        }
        if now.preshared_key.is_some() && peer.preshared_key.is_none() {
            peer.preshared_key = Some(SecretKey::default());
        }
        if now.persistent_keepalive != 0 && peer.persistent_keepalive.is_none() {
            peer.persistent_keepalive = Some(0);
        }
    }
    let unwanted = device
        .peers
        .iter()
        .map(|peer| peer.public_key)
        .filter(|key| !wanted.contains(key));
    let removals: Vec<_> = unwanted
        .map(|public_key| SetPeer {
            public_key,
            remove: true,
            ..SetPeer::default()
        })
        .collect();
    change.peers.splice(0..0, removals);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    #[test]
    fn synchronizing_removes_what_is_not_wanted() {
        let key = |number| PublicKey::new([number; 32]);
        let secret = || Some(SecretKey::new(&[9; 32]));
        let peer = |number| Peer {
            public_key: key(number),
            preshared_key: secret(),
            persistent_keepalive: 5,
            ..Peer::default()
        };
        let device = Device {
            peers: vec![peer(1), peer(2), peer(3)],
            ..Device::default()
        };
        let wanted = |number| SetPeer {
            public_key: key(number),
            ..SetPeer::default()
        };
        let mut change = SetDevice {
            peers: vec![wanted(2), wanted(4)],
            ..SetDevice::whole()
        };
        synchronize(&mut change, &device);
        let peers = change.peers.iter();
        let peers: Vec<_> = peers.map(|peer| (peer.public_key, peer.remove)).collect();
        let expected = [
            (key(1), true),
            (key(3), true),
            (key(2), false),
            (key(4), false),
        ];
        assert_eq!(peers, expected);
        assert!(!change.replace_peers);
        assert_eq!(change.peers[2].preshared_key, Some(SecretKey::default()));
        assert_eq!(change.peers[2].persistent_keepalive, Some(0));
        assert_eq!(change.peers[3].preshared_key, None);
        let mut change = SetDevice::whole();
        synchronize(&mut change, &Device::default());
        assert!(change.replace_peers);
    }
}

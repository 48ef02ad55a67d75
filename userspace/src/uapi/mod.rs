// SPDX-License-Identifier: GPL-2.0-only
//! Devices of programs (wireguard-go, boringtun …): each listens on a socket and speaks the text
//! protocol that is called "cross-platform userspace implementation".

#[cfg(test)]
mod tests;
mod text;

pub use text::{read_reply, write_request};

use crate::buffer::Buffer;
use crate::model::{Device, SetDevice};
use nix::errno::Errno;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use zeroize::Zeroizing;

/// Where the sockets are.
pub const FOLDER: &str = "/var/run/wireguard";
/// What follows the interface's name there.
const SUFFIX: &str = ".sock";

/// A connection to the program that has this interface; `None` if there is none, or if it may not
/// be spoken to. The socket of one that has ended is removed.
fn connect(folder: &Path, name: &str) -> Option<UnixStream> {
    if name.contains('/') {
        return None;
    }
    let path = folder.join(format!("{name}{SUFFIX}"));
    if !fs::metadata(&path).ok()?.file_type().is_socket() {
        return None;
    }
    match UnixStream::connect(&path) {
        Ok(stream) => Some(stream),
        Err(error) => {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                let _ = fs::remove_file(&path);
            }
            None
        }
    }
}

/// Whether a program has this interface.
pub fn has(folder: &Path, name: &str) -> bool {
    connect(folder, name).is_some()
}

/// The interfaces of all programs, in the folder's order.
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name = file.as_bytes().strip_suffix(SUFFIX.as_bytes());
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        names.extend(
            name.filter(|name| !name.is_empty() && has(folder, name))
                .map(str::to_owned),
        );
    }
    Ok(names)
}

/// Reads a device; `ENODEV` if no program has it.
pub fn get(folder: &Path, name: &str) -> io::Result<Device> {
    let answer = ask(folder, name, b"get=1\n\n")?;
    let mut device = read_reply(&answer)?;
    device.name = name.to_owned();
    device.ifindex = nix::net::if_::if_nametoindex(name).unwrap_or(0);
    Ok(device)
}

/// Changes a device; `ENODEV` if no program has it.
pub fn set(folder: &Path, name: &str, change: &SetDevice) -> io::Result<()> {
    let answer = ask(folder, name, &write_request(change))?;
    read_reply(&answer).map(drop)
}

/// Sends a request and reads up to the empty line that ends the answer.
fn ask(folder: &Path, name: &str, request: &[u8]) -> io::Result<Buffer> {
    let mut stream = connect(folder, name).ok_or(Errno::ENODEV)?;
    stream.write_all(request)?;
    let mut answer = Buffer::with_capacity(1 << 16);
    let mut chunk = Zeroizing::new([0; 4096]);
    while !answer.ends_with(b"\n\n") {
        let length = stream.read(&mut *chunk)?;
        if length == 0 {
            return Err(Errno::EPROTO.into());
        }
        answer.append(&chunk[..length]);
    }
    Ok(answer)
}

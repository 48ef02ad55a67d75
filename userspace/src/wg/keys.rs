// SPDX-License-Identifier: GPL-2.0-only
//! `genkey`, `genpsk`, `pubkey`; and keys in files.

use super::report::{perror, unless_key};
use super::{Context, Out, Voice};
use crate::config::{Kind, HIDDEN};
use crate::key::{SecretKey, KEY_BASE64_LEN};
use crate::say::{say_bytes, CommandResult, Failed};
use nix::sys::stat::{fstat, Mode, SFlag};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use zeroize::Zeroizing;

/// `genkey` and `genpsk`: writes a new key.
pub fn generate<E: Into<io::Error>>(
    context: &Context,
    new: fn() -> Result<SecretKey, E>,
) -> CommandResult {
    let world = |mode| {
        SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG
            && mode & Mode::S_IRWXO.bits() != 0
    };
    if fstat(io::stdout()).is_ok_and(|stat| world(stat.st_mode)) {
        say_bytes(
            b"Warning: writing to world accessible file.\n\
              Consider setting the umask to 077 and trying again.",
        );
    }
    let key = new().map_err(|error| perror("getrandom", &error.into()))?;
    let mut out = Out::new(context);
    out.put(format_args!("{}\n", *key.to_base64()));
    out.finish()
}

/// `pubkey`.
pub fn public(context: &Context) -> CommandResult {
    let complain = |what: &[u8]| {
        say_bytes(&[context.program.as_bytes(), b": ", what].concat());
        Failed::USUAL
    };
    let malformed: &[u8] = b"Key is not the correct length or format";
    // Not through std's own buffer, which is not zeroed.
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let mut stdin = stdin.map_err(|_| complain(malformed))?;
    let mut text = Zeroizing::new([0; KEY_BASE64_LEN]);
    if !matches!(read_up_to(&mut stdin, &mut *text), Ok(KEY_BASE64_LEN)) {
        return Err(complain(malformed));
    }
    if let Ok(Some(_)) = first_other(&mut stdin, |c| c == 0 || is_space(c)) {
        return Err(complain(b"Trailing characters found after key"));
    }
    let key = SecretKey::from_base64(&*text).ok_or_else(|| complain(malformed))?;
    let mut out = Out::new(context);
    out.put(format_args!("{}\n", key.public_key()));
    out.finish()
}

/// Reads a key file as `wg set` does: an empty one stands for no key, which is the zero key.
pub fn read_key(context: &Context, path: &Path) -> Result<SecretKey, Failed> {
    read_file(path).inspect_err(|_| {
        if context.voice == Voice::WgRs {
            say_bytes(&[b"  in: ", unless_key(path.as_os_str().as_bytes())].concat());
        }
    })
}

fn read_file(path: &Path) -> Result<SecretKey, Failed> {
    let complain = |what: &[u8]| {
        say_bytes(what);
        Failed::USUAL
    };
    let mut file = File::open(path).map_err(|error| perror("fopen", &error))?;
    let mut text = Zeroizing::new([0; KEY_BASE64_LEN]);
    match read_up_to(&mut file, &mut *text) {
        Ok(KEY_BASE64_LEN) => {}
        // An empty pipe is no empty file to `wg`: it asks for the position, which a pipe does not
        // have.
        Ok(0) if file.stream_position().is_ok() => return Ok(SecretKey::default()),
        _ => return Err(complain(b"Invalid length key in key file")),
    }
    match first_other(&mut file, is_space) {
        Ok(None) => {}
        Ok(Some(c)) => {
            return Err(complain(
                &[b"Found trailing character in key file: `", &[c][..], b"'"].concat(),
            ))
        }
        Err(error) => return Err(perror("getc", &error)),
    }
    SecretKey::from_base64(&*text).ok_or_else(|| complain(&Kind::SecretKey.wg_message(HIDDEN)))
}

/// Fills the buffer unless the file ends first.
fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(room) = buffer.get_mut(length..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The first byte of the rest of the file that may not be there.
fn first_other(file: &mut File, allowed: fn(u8) -> bool) -> io::Result<Option<u8>> {
    let mut buffer = Zeroizing::new([0; 512]);
    loop {
        let length = read_up_to(file, &mut *buffer)?;
        if let Some(other) = buffer[..length].iter().find(|&&c| !allowed(c)) {
            return Ok(Some(*other));
        }
        if length < buffer.len() {
            return Ok(None);
        }
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b'\t'..=b'\r' | b' ')
}

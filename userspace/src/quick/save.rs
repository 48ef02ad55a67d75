// SPDX-License-Identifier: GPL-2.0-only
//! A running tunnel as a configuration file.

use super::settings::{Key, Settings};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

use crate::model::ShownIp;

/// What of a running tunnel wg does not know.
pub struct Around<'a> {
    pub addresses: &'a [(IpAddr, u8)],
    pub dns: &'a [String],
    pub mtu: u32,
}

/// The file's text: wg-quick's lines of `[Interface]` in front of those of wg, which `shown` is.
pub fn text(settings: &Settings, around: &Around<'_>, shown: &[u8]) -> Zeroizing<Vec<u8>> {
    const HEAD: &[u8] = b"[Interface]\n";
    let mut lines: Vec<u8> = HEAD.to_vec();
    let mut line = |key: &str, value: &[u8]| {
        lines.extend_from_slice(key.as_bytes());
        lines.extend_from_slice(b" = ");
        lines.extend_from_slice(value);
        lines.push(b'\n');
    };
    for (address, len) in around.addresses {
        line("Address", format!("{}/{len}", ShownIp(*address)).as_bytes());
    }
    for server in around.dns {
        line("DNS", server.as_bytes());
    }
    // As it is now, but only if it was chosen.
    if settings.mtu.is_some() {
        line("MTU", around.mtu.to_string().as_bytes());
    }
    if !settings.routing_by_default {
        line("Table", settings.routing.text().as_bytes());
    }
    if settings.save {
        line("SaveConfig", b"true");
    }
    for (name, key) in [
        ("PreUp", Key::PreUp),
        ("PostUp", Key::PostUp),
        ("PreDown", Key::PreDown),
        ("PostDown", Key::PostDown),
    ] {
        for hook in settings.hooks(key) {
            line(name, hook.as_bytes());
        }
    }
    let shown = shown.strip_prefix(HEAD).unwrap_or(shown);
    let end = shown
        .iter()
        .rposition(|c| *c != b'\n')
        .map_or(0, |at| at + 1);
    let mut text = Zeroizing::new(Vec::with_capacity(lines.len() + end + 1));
    text.extend_from_slice(&lines);
    text.extend_from_slice(&shown[..end]);
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text
}

/// Puts a file in the place of another, at once: only root may read it, whatever the other's mode.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(path);
    name.push(".tmp");
    let new = Path::new(&name);
    // What an earlier try may have left; it is not to be written through, if it is a link.
    match fs::remove_file(new) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let result = write(new, text).and_then(|()| fs::rename(new, path));
    if result.is_err() {
        let _ = fs::remove_file(new);
    }
    result
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn layout() {
        let settings = Settings::parse(
            b"[Interface]\nMTU=1300\nTable=off\nSaveConfig=true\nPostUp=b\nPreUp=a = a\n\
              DNS=1.1.1.1\nPostUp=\nPreDown=c\nPostDown=d",
        );
        let addresses = [
            ("10.8.0.2".parse().unwrap(), 24),
            ("fd08::2".parse().unwrap(), 64),
        ];
        let around = Around {
            addresses: &addresses,
            dns: &["10.0.0.1".to_owned()],
            mtu: 1290,
        };
        let shown = b"[Interface]\nListenPort = 7\nPrivateKey = k\n\n[Peer]\nPublicKey = p\n\n";
        let wanted = "[Interface]\nAddress = 10.8.0.2/24\nAddress = fd08::2/64\nDNS = 10.0.0.1\n\
                      MTU = 1290\nTable = off\nSaveConfig = true\nPreUp = a = a\nPostUp = b\n\
                      PostUp = \nPreDown = c\nPostDown = d\nListenPort = 7\nPrivateKey = k\n\n\
                      [Peer]\nPublicKey = p\n";
        assert_eq!(
            String::from_utf8_lossy(&text(&settings, &around, shown)),
            wanted
        );

        let none = Around {
            addresses: &[],
            dns: &[],
            mtu: 1420,
        };
        let plain = text(&Settings::parse(b""), &none, b"[Interface]\n\n");
        assert_eq!(plain[..], *b"[Interface]\n");
    }

    #[test]
    fn files_are_replaced_at_once() {
        let dir = std::env::temp_dir().join(format!("wg-rs-save-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("wg0.conf");
        let other = dir.join("other");
        fs::write(&path, "old").unwrap();
        fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, dir.join("wg0.conf.tmp")).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        assert!(replace(&dir.join("none/wg0.conf"), b"new").is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Which file describes a tunnel, and what the tunnel is called.

use crate::say::{os_message, say};
use crate::wg::read_file;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where files are looked for that are named by the tunnel only.
const DIR: &str = "/etc/wireguard";

/// A configuration file.
pub struct File {
    /// The file itself, links followed.
    pub path: PathBuf,
    /// The interface.
    pub name: String,
    /// What is in it.
    pub text: Zeroizing<Vec<u8>>,
}

/// The name of a network interface, as far as wg-quick has it.
fn is_name(name: &[u8]) -> bool {
    let fine = |c: &u8| c.is_ascii_alphanumeric() || b"_=+.-".contains(c);
    (1..=15).contains(&name.len()) && name.iter().all(fine)
}

/// The path that an argument means: a name alone is one of a file in /etc/wireguard.
fn path_of(argument: &OsStr) -> PathBuf {
    if is_name(argument.as_bytes()) {
        let mut file = argument.to_owned();
        file.push(".conf");
        return Path::new(DIR).join(file);
    }
    PathBuf::from(argument)
}

/// The interface that a file describes: its name without `.conf`.
pub fn name_in(path: &Path) -> Option<String> {
    // `file_name` would look past a final slash.
    let name = path.as_os_str().as_bytes().rsplit(|c| *c == b'/').next()?;
    let name = name.strip_suffix(b".conf")?;
    is_name(name).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Reads the file that an argument means; the error is wg-quick's message.
pub fn read(argument: &OsStr) -> Result<File, String> {
    let path = path_of(argument);
    if !path.exists() {
        return Err(format!("`{}' does not exist", path.display()));
    }
    let name = name_in(&path)
        .ok_or("The config file must be a valid interface name, followed by .conf")?;
    let failed = |path: &Path, err| format!("`{}': {}", path.display(), os_message(&err));
    let path = fs::canonicalize(&path).map_err(|err| failed(&path, err))?;
    if is_open_to_all(&path) {
        say(format_args!(
            "Warning: `{}' is world accessible",
            path.display()
        ));
    }
    let text = read_file(&path).map_err(|(_, err)| failed(&path, err))?;
    Ok(File { path, name, text })
}

/// Others may read, write or search both the file and its folder.
fn is_open_to_all(path: &Path) -> bool {
    let others = |path: &Path| {
        path.metadata()
            .map_or(0, |file| file.permissions().mode() & 0o007)
    };
    others(path) & path.parent().map_or(0, others) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["wg0", "a", "A_=+.-9", "fifteen_letters"] {
            assert!(is_name(good.as_bytes()), "{good}");
        }
        for bad in ["", "sixteen__letters", "a b", "a/b", "wg0\n", "wgö", "a*"] {
            assert!(!is_name(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn paths() {
        let path = |text: &str| path_of(OsStr::new(text)).display().to_string();
        assert_eq!(path("wg0"), "/etc/wireguard/wg0.conf");
        assert_eq!(path("wg0.conf"), "/etc/wireguard/wg0.conf.conf");
        assert_eq!(path("./wg0.conf"), "./wg0.conf");
        let name = |text: &str| name_in(Path::new(text));
        assert_eq!(name("./wg0.conf").as_deref(), Some("wg0"));
        assert_eq!(name("/a b/x.y.conf").as_deref(), Some("x.y"));
        for bad in [
            "wg0",
            "/etc/.conf",
            "/etc/sixteen__letters.conf",
            "/a/x y.conf",
            "wg0.conf/",
        ] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn files() {
        let dir = std::env::temp_dir().join(format!("wg-rs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("wg7.conf");
        let text = vec![b'x'; 100_000];
        fs::write(&path, &text).unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // Open only if folder and file are.
        for (folder, file, open) in [
            (0o700, 0o644, false),
            (0o755, 0o600, false),
            (0o755, 0o640, false),
            (0o755, 0o644, true),
            (0o711, 0o604, false),
        ] {
            set(&dir, folder);
            set(&path, file);
            assert_eq!(is_open_to_all(&path), open, "{folder:o} {file:o}");
        }
        let link = dir.join("wg8.conf");
        std::os::unix::fs::symlink("wg7.conf", &link).unwrap();
        let file = read(link.as_os_str()).unwrap();
        assert_eq!((file.name.as_str(), &*file.text), ("wg8", &text));
        assert_eq!(file.path, fs::canonicalize(&path).unwrap());
        let missing = read(dir.join("wg9.conf").as_os_str()).map(|f| f.name);
        assert!(missing.unwrap_err().ends_with("wg9.conf' does not exist"));
        fs::remove_dir_all(&dir).unwrap();
    }
}

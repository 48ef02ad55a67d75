// SPDX-License-Identifier: GPL-2.0-only
//! What an error of the kernel means to the person at the keyboard.

use nix::errno::Errno;
use nix::sys::utsname::uname;
use std::cell::RefCell;
use std::io;

/// The first kernel with WireGuard in it.
const IN_TREE: (u32, u32) = (5, 6);

thread_local! {
    /// The words that came with the last error, if it had any.
    static WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the words that came with an error for [`explain`].
pub fn remember(words: Option<String>) {
    WORDS.with(|kept| *kept.borrow_mut() = words);
}

/// What to do about an error of [`get_device`](super::get_device) or
/// [`set_device`](super::set_device), where something can be said about it.
pub fn explain(error: &io::Error, interface: &str) -> Option<String> {
    if let Some(words) = WORDS.with(|kept| kept.borrow_mut().take()) {
        return Some(format!(
            "the kernel says: {words}; nothing has been changed"
        ));
    }
    Some(match Errno::from_raw(error.raw_os_error()?) {
        Errno::EPROTONOSUPPORT => not_loaded(
            uname()
                .ok()
                .and_then(|name| version(&name.release().to_string_lossy())),
        ),
        Errno::EPERM => "this needs CAP_NET_ADMIN: run it as root, for example with sudo".into(),
        Errno::ENODEV => {
            format!(
                "there is no interface {interface} here; make it with `ip link add {interface} \
                     type wireguard' or `wg-rs up'"
            )
        }
        Errno::EOPNOTSUPP => format!("{interface} is not a WireGuard interface"),
        Errno::ENAMETOOLONG => "names of interfaces have at most 15 characters".into(),
        Errno::EADDRINUSE => "another program has this UDP port: choose another ListenPort".into(),
        _ => return None,
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn not_loaded(kernel: Option<(u32, u32)>) -> String {
    match kernel {
        Some(kernel @ (major, minor)) if kernel < IN_TREE => {
            format!(
                "this kernel ({major}.{minor}) is too old: WireGuard needs {}.{} or newer",
                IN_TREE.0, IN_TREE.1
            )
        }
        _ => "no driver is loaded: try `modprobe wireguard', and see `wg-rs status'".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_old_kernels() {
        assert_eq!(version("7.3.4+deb13-amd64"), Some((7, 3)));
        assert_eq!(version("x"), None);
        assert!(not_loaded(version("4.19.0-1-amd64")).contains("too old"));
        assert!(not_loaded(version("5.6.0")).contains("modprobe"));
        assert!(not_loaded(None).contains("modprobe"));
    }

    #[test]
    fn explains_what_it_can() {
        let explained = |errno: Errno| explain(&errno.into(), "wg0");
        assert!(explained(Errno::EPERM).unwrap().contains("root"));
        assert!(explained(Errno::ENODEV).unwrap().contains("wg0"));
        assert_eq!(explained(Errno::ENOMEM), None);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Name servers, by resolvconf(8); by resolvectl(1) where there is no resolvconf.

use super::process::{command, find, is_installed, run, Signals};
use super::settings::Settings;
use crate::say::Failed;
use std::fs;
use std::path::Path;

/// Debian's resolvconf has one, and ranks interfaces by it.
const INTERFACE_ORDER: &str = "/etc/resolvconf/interface-order";
/// Where it keeps what it was told.
const RECORDS: &str = "/etc/resolvconf/run/interface";
/// There while systemd-resolved runs.
const RESOLVED: &str = "/run/systemd/resolve";

/// Sets the name servers; false, if there are none to set.
pub fn set(settings: &Settings, name: &str, signals: &Signals) -> Result<bool, Failed> {
    if settings.dns.is_empty() {
        return Ok(false);
    }
    if by_resolvectl() {
        let servers = settings.dns.iter().map(String::as_str);
        let dns: Vec<_> = ["resolvectl", "dns", name]
            .into_iter()
            .chain(servers)
            .collect();
        run(signals, &dns, b"")?;
        // `~.`: every name is asked for there, as with resolvconf's -x.
        let search = settings.dns_search.iter().map(String::as_str);
        let domain: Vec<_> = ["resolvectl", "domain", name, "~."]
            .into_iter()
            .chain(search)
            .collect();
        run(signals, &domain, b"")?;
    } else {
        let record = record(settings);
        let key = key(name);
        run(
            signals,
            &["resolvconf", "-a", &key, "-m", "0", "-x"],
            record.as_bytes(),
        )?;
    }
    Ok(true)
}

/// Takes them back. systemd-resolved forgets them with the interface.
pub fn unset(settings: &Settings, name: &str, signals: &Signals) -> Result<(), Failed> {
    if settings.dns.is_empty() || by_resolvectl() {
        return Ok(());
    }
    run(signals, &["resolvconf", "-d", &key(name), "-f"], b"")
}

/// The servers and search domains that are set, to save them.
pub fn current(settings: &Settings, name: &str) -> Vec<String> {
    if by_resolvectl() {
        return [&settings.dns[..], &settings.dns_search[..]].concat();
    }
    let key = key(name);
    let listed = command("resolvconf").args(["-l", &key]).output();
    let text = match listed {
        Ok(output) if output.status.success() => output.stdout,
        _ => fs::read(Path::new(RECORDS).join(&key)).unwrap_or_default(),
    };
    recorded(&String::from_utf8_lossy(&text))
}

fn by_resolvectl() -> bool {
    !is_installed("resolvconf") && is_installed("resolvectl") && Path::new(RESOLVED).exists()
}

/// What resolvconf knows the interface by.
fn key(name: &str) -> String {
    // Where resolvconf is a link, it is another program, which ranks nothing: Debian's file is what
    // an upgrade left.
    if find("resolvconf").is_some_and(|program| program.is_symlink()) {
        return name.to_owned();
    }
    let order = fs::read_to_string(INTERFACE_ORDER).unwrap_or_default();
    format!("{}{name}", prefix(&order))
}

/// The first of the ranked kinds of interfaces, `tun*` as Debian has it.
fn prefix(order: &str) -> String {
    let kind = order.lines().find_map(|line| {
        let kind = line.trim().strip_suffix('*')?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (!kind.is_empty() && kind.chars().all(is_word)).then_some(kind)
    });
    kind.map_or(String::new(), |kind| format!("{kind}."))
}

fn record(settings: &Settings) -> String {
    let servers = settings.dns.iter();
    let mut text = servers
        .map(|server| format!("nameserver {server}\n"))
        .collect::<Vec<_>>()
        .concat();
    if !settings.dns_search.is_empty() {
        text += &format!("search {}\n", settings.dns_search.join(" "));
    }
    text
}

/// The servers and search domains of a record. (wg-quick loses the domains when it saves.)
fn recorded(text: &str) -> Vec<String> {
    let fine = |word: &&str| {
        word.chars()
            .all(|c| c.is_ascii_alphanumeric() || "_=+:%.-".contains(c))
    };
    let values = |key: &'static str| {
        text.lines().flat_map(move |line| {
            let mut words = line.split_ascii_whitespace();
            let is_it = words.next() == Some(key);
            words.filter(move |_| is_it)
        })
    };
    values("nameserver")
        .chain(values("search"))
        .filter(fine)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_debian() {
        let order = "# interface-order(5)\nlo.inet6\nlo.inet\nlo.*\ntun*\ntap*\neth*\n";
        assert_eq!(prefix(order), "tun.");
        assert_eq!(prefix("*\na b*\n"), "");
        assert_eq!(prefix(""), "");
    }

    #[test]
    fn records() {
        let file = b"[Interface]\nDNS = 10.0.0.1, example.org, ::1, lan";
        let settings = Settings::parse(file);
        let text = record(&settings);
        assert_eq!(
            text,
            "nameserver 10.0.0.1\nnameserver ::1\nsearch example.org lan\n"
        );
        assert_eq!(recorded(&text), ["10.0.0.1", "::1", "example.org", "lan"]);
        let other = "# comment\noptions edns0\nnameserver fe80::1%eth0\nnameserver a;b\n";
        assert_eq!(recorded(other), ["fe80::1%eth0"]);
    }
}

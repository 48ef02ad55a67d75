// SPDX-License-Identifier: GPL-2.0-only
//! What keeps packets from going past a tunnel that is the default route.

use super::nft;
use super::process::{command, is_installed, run, Signals};
use super::step::Family;
use crate::say::{say, strerror, Failed};
use std::net::IpAddr;

/// Puts the rules up: by nf_tables, or by iptables where the kernel or we may not use that.
pub fn add(
    family: Family,
    interface: &str,
    addresses: &[IpAddr],
    mark: u32,
    signals: &Signals,
) -> Result<(), Failed> {
    let table = nft::Table { family, interface };
    let tool = iptables(family);
    let restore = format!("{tool}-restore");
    match table.add(addresses, mark) {
        Ok(()) => {
            say("[#] nft -f /dev/fd/63");
            Ok(())
        }
        Err(_) if is_installed(&restore) => {
            let text = rules(interface, addresses, mark);
            run(signals, &[&restore, "-n"], text.as_bytes())
        }
        Err(err) => {
            let why = err.message.unwrap_or_else(|| strerror(err.errno));
            Err(Failed::saying(
                1,
                format_args!("nf_tables: {why}; and {restore} is not there instead"),
            ))
        }
    }
}

/// Takes down whatever of them is there.
pub fn remove(interface: &str, signals: &Signals) -> Result<(), Failed> {
    let families = nft::found(interface);
    if !families.is_empty() {
        say("[#] nft -f /dev/fd/63");
        nft::remove(interface, &families).map_err(|err| Failed::saying(1, err))?;
    }
    for family in Family::BOTH {
        let tool = iptables(family);
        if !is_installed(tool) {
            continue;
        }
        let Ok(saved) = command(&format!("{tool}-save")).output() else {
            continue;
        };
        if let Some(text) = undo(&String::from_utf8_lossy(&saved.stdout), interface) {
            run(
                signals,
                &[&format!("{tool}-restore"), "-n"],
                text.as_bytes(),
            )?;
        }
    }
    Ok(())
}

fn iptables(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// By this comment `wg-quick` and we know the rules again.
fn mark_of(interface: &str) -> String {
    format!("-m comment --comment \"wg-quick(8) rule for {interface}\"")
}

fn rules(interface: &str, addresses: &[IpAddr], mark: u32) -> String {
    let comment = mark_of(interface);
    let mut text = "*raw\n".to_owned();
    for address in addresses {
        text += &format!(
            "-I PREROUTING ! -i {interface} -d {address} -m addrtype ! --src-type LOCAL -j DROP \
             {comment}\n"
        );
    }
    text += "COMMIT\n*mangle\n";
    text +=
        &format!("-I POSTROUTING -m mark --mark {mark} -p udp -j CONNMARK --save-mark {comment}\n");
    text += &format!("-I PREROUTING -p udp -j CONNMARK --restore-mark {comment}\nCOMMIT\n");
    text
}

/// What takes back the rules of an interface among those saved; none, if there are none.
fn undo(saved: &str, interface: &str) -> Option<String> {
    let comment = mark_of(interface);
    let mut text = String::new();
    let mut found = false;
    for line in saved.lines() {
        match line.strip_prefix("-A ") {
            Some(rule) if rule.contains(&comment) => {
                found = true;
                text += &format!("-D {rule}\n");
            }
            None if line.starts_with('*') || line == "COMMIT" => text += &format!("{line}\n"),
            _ => {}
        }
    }
    found.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iptables_rules_and_back() {
        let text = rules("wg0", &["10.8.0.2".parse().unwrap()], 51820);
        let comment = "-m comment --comment \"wg-quick(8) rule for wg0\"";
        let wanted = format!(
            "*raw\n\
             -I PREROUTING ! -i wg0 -d 10.8.0.2 -m addrtype ! --src-type LOCAL -j DROP {comment}\n\
             COMMIT\n\
             *mangle\n\
             -I POSTROUTING -m mark --mark 51820 -p udp -j CONNMARK --save-mark {comment}\n\
             -I PREROUTING -p udp -j CONNMARK --restore-mark {comment}\n\
             COMMIT\n"
        );
        assert_eq!(text, wanted);
        let saved = format!(
            "# Generated\n*raw\n:PREROUTING ACCEPT [0:0]\n\
             -A PREROUTING -d 10.8.0.2/32 ! -i wg0 {comment} -j DROP\n\
             -A PREROUTING -j ACCEPT\nCOMMIT\n"
        );
        let wanted =
            format!("*raw\n-D PREROUTING -d 10.8.0.2/32 ! -i wg0 {comment} -j DROP\nCOMMIT\n");
        assert_eq!(undo(&saved, "wg0"), Some(wanted));
        // Those of another tunnel stay.
        assert_eq!(undo(&saved, "wg"), None);
        assert_eq!(undo("", "wg0"), None);
    }
}

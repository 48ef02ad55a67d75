// SPDX-License-Identifier: GPL-2.0-only
//! The numbers of the netlink interface, which module, tool and tests share, against the kernel's
//! own header: a wrong one would otherwise go unnoticed by all three.

use std::collections::BTreeMap;
use wireguard_rs::proto::uapi::{self, allowedip, cmd, device, peer};

/// The header in the kernel source that the root folder's kernel was built from.
const HEADER: &str = "/build/source/include/uapi/linux/wireguard.h";

/// `(name in the header, our number)` of constants that have the same name but for the prefix.
macro_rules! ours {
    ($($prefix:literal $module:ident: $($name:ident)*;)*) => {
        [$($((concat!($prefix, stringify!($name)), u64::from($module::$name))),*),*]
    };
}

fn ours() -> BTreeMap<&'static str, u64> {
    BTreeMap::from(ours! {
        "WG_CMD_" cmd: GET_DEVICE SET_DEVICE MAX;
        "WGDEVICE_" device: F_REPLACE_PEERS;
        "WGDEVICE_A_" device: IFINDEX IFNAME PRIVATE_KEY PUBLIC_KEY FLAGS LISTEN_PORT FWMARK PEERS
            MAX;
        "WGPEER_" peer: F_REMOVE_ME F_REPLACE_ALLOWEDIPS F_UPDATE_ONLY;
        "WGPEER_A_" peer: PUBLIC_KEY PRESHARED_KEY FLAGS ENDPOINT PERSISTENT_KEEPALIVE_INTERVAL
            LAST_HANDSHAKE_TIME RX_BYTES TX_BYTES ALLOWEDIPS PROTOCOL_VERSION MAX;
        "WGALLOWEDIP_" allowedip: F_REMOVE_ME;
        "WGALLOWEDIP_A_" allowedip: FAMILY IPADDR CIDR_MASK FLAGS MAX;
        "WG_" uapi: GENL_VERSION;
    })
}

/// The numbers that a header defines: enumerators and `#define`s, in C's rules as far as generated
/// headers use them (`NAME`, `NAME = 1`, `(NAME - 1)`). Attribute 0 and the counting ends of enums
/// are left out.
fn defined(header: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut next = 0;
    for line in header.lines().map(str::trim) {
        let words: Vec<&str> = line
            .split(|c: char| c.is_whitespace() || "=,()".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        match words[..] {
            ["enum", ..] => next = 0,
            ["#define", name, value] => {
                if let Ok(value) = value.parse() {
                    found.insert(name.to_owned(), value);
                }
            }
            ["#define", name, last, "-", "1"] => {
                found.insert(name.to_owned(), found[last] - 1);
            }
            [name] | [name, _] if name.starts_with("WG") || name.starts_with("__WG") => {
                let value = words.get(1).map(|value| value.parse().expect(line));
                let value = value.unwrap_or(next);
                found.insert(name.to_owned(), value);
                next = value + 1;
            }
            _ => {}
        }
    }
    found.retain(|name, _| !name.starts_with("__") && !name.ends_with("_UNSPEC"));
    found
}

#[test]
fn numbers_are_those_of_the_header() {
    let header = std::fs::read_to_string(HEADER).expect(HEADER);
    let mut kernels = defined(&header);
    assert_eq!(kernels.remove("WG_KEY_LEN"), Some(uapi::KEY_LEN as u64));
    let kernels: BTreeMap<&str, u64> = kernels.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    assert_eq!(ours(), kernels);
    let name = header
        .lines()
        .find(|line| line.starts_with("#define WG_GENL_NAME"));
    let name = name.and_then(|line| line.split('"').nth(1));
    assert_eq!(name, Some(uapi::GENL_NAME));
}

#[test]
fn all_flags_are_the_sum_of_the_flags() {
    let sum = |prefix: &str| -> u64 {
        let numbers = ours();
        let flags = numbers.iter().filter(|(name, _)| name.starts_with(prefix));
        flags.map(|(_, flag)| flag).sum()
    };
    assert_eq!(sum("WGDEVICE_F_"), device::F_ALL.into());
    assert_eq!(sum("WGPEER_F_"), peer::F_ALL.into());
    assert_eq!(sum("WGALLOWEDIP_F_"), allowedip::F_ALL.into());
}

#[test]
fn headers_are_read() {
    let header = "#define A_VERSION\t1\n#define A_NAME \"a\"\n\
                  enum x {\n\tWG_B,\n\tWG_C = 4,\n\tWG_D,\n\n\t__WG_LAST\n};\n\
                  #define WG_MAX (__WG_LAST - 1)\n";
    let numbers = [
        ("A_VERSION", 1),
        ("WG_B", 0),
        ("WG_C", 4),
        ("WG_D", 5),
        ("WG_MAX", 5),
    ];
    assert_eq!(
        defined(header),
        numbers.map(|(n, v)| (n.to_owned(), v)).into()
    );
}

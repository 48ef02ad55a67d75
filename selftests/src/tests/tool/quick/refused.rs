// SPDX-License-Identifier: GPL-2.0-only
//! What `wg-quick` refuses or warns of.

use super::cases::{call, case, conf, quick, refused, sh, Act, Case, CONF, ENDPOINT};
use super::scene::OWN;

/// The cases that must fail, or give a warning.
pub fn cases() -> Vec<Case> {
    let good = || conf("Address = 10.8.0.2/24", &format!("{ENDPOINT}10.8.0.0/24"));
    let fails = |name, interface: &str, allowed_ips: &str| {
        case(
            name,
            conf(interface, &format!("{ENDPOINT}{allowed_ips}")),
            vec![refused("up wg0")],
        )
    };
    let earlier = |name, interface: &str, allowed_ips: &str| {
        let refused = Act::RefusedEarlier(call(&["up", "wg0"]));
        case(
            name,
            conf(interface, &format!("{ENDPOINT}{allowed_ips}")),
            vec![refused],
        )
    };
    let log = format!("{OWN}/log");
    let by_mode = |name, mode, acts| Case {
        files: vec![(CONF, mode, good())],
        ..case(name, String::new(), acts)
    };
    vec![
        fails(
            "PreUp fails",
            "PreUp = echo first; false\nPreUp = echo never\nPostDown = echo never",
            "10.8.0.0/24",
        ),
        fails(
            "PostUp fails",
            "Address = 10.8.0.2/24\nPostUp = exit 7\nPostDown = echo never",
            "10.8.0.0/24, 0.0.0.0/0",
        )
        .leaving("ipv4/conf/all/src_valid_mark"),
        case(
            "PreDown fails",
            conf("PreDown = false", "AllowedIPs = 10.8.0.0/24"),
            vec![quick("up wg0"), refused("down wg0"), sh("ip link del wg0")],
        ),
        case(
            "PostDown fails",
            conf("PostDown = false", "AllowedIPs = 10.8.0.0/24"),
            vec![quick("up wg0"), refused("down wg0")],
        ),
        earlier(
            "address with a bad prefix",
            "Address = 10.8.0.2/33",
            "10.8.0.0/24",
        ),
        earlier("no address at all", "Address = nonsense", "10.8.0.0/24"),
        fails(
            "the same address twice",
            "Address = 10.8.0.2/24, 10.8.0.2/24",
            "10.8.0.0/24",
        ),
        earlier(
            "bad MTU",
            "Address = 10.8.0.2/24\nMTU = lots",
            "10.8.0.0/24",
        ),
        earlier(
            "MTU out of range",
            "Address = 10.8.0.2/24\nMTU = 99999999999",
            "10.8.0.0/24",
        ),
        fails(
            "bad table",
            "Address = 10.8.0.2/24\nTable = nonsense",
            "10.9.0.0/24",
        ),
        fails(
            "a route that exists",
            "Address = 10.8.0.2/24",
            "10.8.0.0/24, 192.0.2.0/24",
        ),
        fails(
            "endpoint without address",
            "Address = 10.8.0.2/24",
            "10.8.0.0/24\nEndpoint = gone.test:51820",
        ),
        earlier("bad key", "PrivateKey = AAAA", "10.8.0.0/24"),
        earlier("unknown key", "Nonsense = 1", "10.8.0.0/24"),
        fails("invalid SaveConfig", "SaveConfig = maybe", "10.8.0.0/24"),
        fails(
            "no resolvconf",
            "Address = 10.8.0.2/24\nDNS = 10.8.0.1",
            "10.8.0.0/24",
        ),
        case(
            "nothing in the file",
            String::new(),
            vec![quick("up wg0"), quick("down wg0"), quick("strip wg0")],
        ),
        case(
            "exists already",
            good(),
            vec![
                sh("ip link add wg0 type wireguard"),
                refused("up wg0"),
                sh("ip link del wg0"),
            ],
        ),
        case(
            "another kind of link",
            good(),
            vec![
                sh("ip link add wg0 link eth0 type vlan id 5"),
                refused("up wg0"),
                refused("down wg0"),
                refused("save wg0"),
                sh("ip link del wg0"),
            ],
        ),
        case(
            "not up",
            good(),
            vec![refused("down wg0"), refused("save wg0")],
        ),
        case(
            "no such file",
            good(),
            vec![
                refused("up wg1"),
                refused("down wg1"),
                refused("save wg1"),
                refused("strip wg1"),
                refused("up /nowhere/wg0.conf"),
                refused("up ./wg0.conf"),
            ],
        ),
        case(
            "names",
            good(),
            vec![
                sh(
                    "cd /etc/wireguard; cp wg0.conf 0123456789abcdef.conf; cp wg0.conf 'a b.conf'
                cp wg0.conf wg0; cp wg0.conf wg0.txt; cp wg0.conf .conf",
                ),
                refused("up 0123456789abcdef"),
                refused("up /etc/wireguard/0123456789abcdef.conf"),
                refused("up /etc/wireguard/wg0"),
                refused("strip /etc/wireguard/wg0.txt"),
                Act::Refused(call(&["up", "/etc/wireguard/a b.conf"])),
                Act::Refused(call(&["up", "a b"])),
                Act::Refused(call(&["up", ""])),
                refused("up /etc/wireguard/.conf"),
                refused("up /etc/wireguard"),
                refused("strip ../wireguard/wg0"),
                sh("cd /etc/wireguard; rm 0* a* wg0 wg0.txt .conf"),
            ],
        ),
        case(
            "by its path",
            good(),
            vec![
                sh(&format!(
                    "mkdir {OWN}/etc/more; cp /etc/wireguard/wg0.conf {OWN}/etc/more/wg-7.conf
                 ln -s wg-7.conf {OWN}/etc/more/wg_8.conf"
                )),
                quick(&format!("up {OWN}/etc/more/wg-7.conf")),
                quick(&format!("save {OWN}/etc/more/wg-7.conf")),
                quick(&format!("down {OWN}/etc/more/wg-7.conf")),
                quick(&format!("up {OWN}/etc/more/wg_8.conf")),
                quick(&format!("save {OWN}/etc/more/wg_8.conf")),
                quick(&format!("down {OWN}/etc/more/wg_8.conf")),
                sh(&format!("rm -r {OWN}/etc/more; rm -f {log}")),
            ],
        ),
        by_mode(
            "world-readable",
            0o644,
            vec![
                quick("strip wg0"),
                sh("chmod 755 /etc/wireguard"),
                quick("strip wg0"),
                quick("up wg0"),
                quick("save wg0"),
                quick("down wg0"),
                sh("chmod 700 /etc/wireguard"),
            ],
        )
        .leaving(CONF),
        by_mode(
            "group-readable",
            0o640,
            vec![
                sh("chmod 755 /etc/wireguard"),
                quick("strip wg0"),
                sh("chmod 700 /etc/wireguard"),
            ],
        ),
        by_mode(
            "world-writable",
            0o602,
            vec![
                sh("chmod 777 /etc/wireguard"),
                quick("strip wg0"),
                sh("chmod 700 /etc/wireguard"),
            ],
        ),
        case(
            "wrong arguments",
            good(),
            [
                "",
                "up",
                "up wg0 wg1",
                "bogus wg0",
                "help wg0",
                "UP wg0",
                "strip",
            ]
            .into_iter()
            .map(refused)
            .collect(),
        ),
        case(
            "no arguments",
            good(),
            vec![
                Act::Refused(call(&[])),
                quick("help"),
                quick("-h"),
                quick("--help"),
            ],
        ),
    ]
}

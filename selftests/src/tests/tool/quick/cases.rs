// SPDX-License-Identifier: GPL-2.0-only
//! The cases: what is done on both sides.

use super::super::call::Call;
use super::dns::with_dns;
use super::scene::{private, public, OWN, PATH};
use std::fmt;

/// One action.
pub enum Act {
    /// A call of the tool that succeeds.
    Quick(Call),
    /// A call of the tool that fails.
    Refused(Call),
    /// A call that fails, with wg-rs deliberately before it changes anything: it reads the whole
    /// file first.
    RefusedEarlier(Call),
    /// A call in which wg-rs deliberately differs; both succeed, and what follows is compared
    /// again.
    Differs(Call),
    /// A shell script, which must succeed.
    Sh(String),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Quick(call)
            | Act::Refused(call)
            | Act::RefusedEarlier(call)
            | Act::Differs(call) => call.fmt(f),
            Act::Sh(script) => f.write_str(script),
        }
    }
}

/// Some files, then one action after the other.
pub struct Case {
    /// What it tests.
    pub name: &'static str,
    /// Files in the side's folder: name, permissions, content.
    pub files: Vec<(&'static str, u32, String)>,
    /// The actions.
    pub acts: Vec<Act>,
    /// What may differ at the end from the beginning.
    pub leaves: Vec<&'static str>,
    /// Lines printed by programs that the ordinary tool calls and wg-rs does not.
    pub wg_quick_only: Vec<&'static str>,
}

/// The configuration file, below the side's folder.
pub const CONF: &str = "etc/wg0.conf";

/// A call of the tool with the side's own PATH.
pub fn call(args: &[&str]) -> Call {
    let call = Call::new("wg-quick", args);
    call.env("WG_ENDPOINT_RESOLUTION_RETRIES", "0")
        .env("PATH", PATH)
}

/// A call that succeeds, its arguments split at spaces.
pub fn quick(args: &str) -> Act {
    Act::Quick(call(&args.split(' ').collect::<Vec<_>>()))
}

/// A call that fails.
pub fn refused(args: &str) -> Act {
    Act::Refused(call(&args.split(' ').collect::<Vec<_>>()))
}

/// A shell script.
pub fn sh(script: &str) -> Act {
    Act::Sh(script.to_owned())
}

/// A configuration: interface lines in addition to key and port, and peer lines in addition to the
/// key.
pub fn conf(interface: &str, peer: &str) -> String {
    format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51000\n{interface}\n\n\
         [Peer]\nPublicKey = {}\n{peer}\n",
        private(0),
        public(1)
    )
}

/// The server, and the start of the line that follows.
pub const ENDPOINT: &str = "Endpoint = 198.51.100.1:51820\nAllowedIPs = ";

/// A case with one file.
pub fn case(name: &'static str, conf: String, acts: Vec<Act>) -> Case {
    Case {
        name,
        files: vec![(CONF, 0o600, conf)],
        acts,
        leaves: Vec::new(),
        wg_quick_only: Vec::new(),
    }
}

/// Up and down again.
fn up_down(name: &'static str, interface: &str, allowed_ips: &str) -> Case {
    case(
        name,
        conf(interface, &format!("{ENDPOINT}{allowed_ips}")),
        vec![quick("up wg0"), quick("down wg0")],
    )
}

const PING: &str = "ping -n -q -c 1 -W 10 10.8.0.1 >/dev/null";

/// Addresses, routes, tables and MTUs.
pub fn plain() -> Vec<Case> {
    let mtu_route = "ip route add 198.51.100.1 via 192.0.2.1 mtu 1400";
    let to_all = conf("Address = 10.8.0.2/24", &format!("{ENDPOINT}10.8.0.0/24"));
    vec![
        case(
            "plain",
            to_all.clone(),
            vec![
                quick("up wg0"),
                sh(PING),
                refused("up wg0"),
                quick("down wg0"),
                refused("down wg0"),
            ],
        ),
        up_down(
            "several addresses",
            "Address = 10.8.0.2/24, 10.8.1.2/32,fd08::2/64\n\
             Address=10.8.2.1\naddress = fd08:1::2",
            "10.8.0.0/24, 198.51.100.7/32, fd08::/64, 192.168.7.0/24, 192.168.7.128/25, \
             fd08:2::/48\nAllowedIPs = 10.9.0.0/16",
        ),
        up_down(
            "IPv6 alone",
            "Address = fd08::2/64",
            "fd08::/64, 2001:db8:77::/64",
        ),
        up_down("no address", "", "10.8.0.0/24"),
        case(
            "no allowed IPs",
            conf("Address = 10.8.0.2/24", "Endpoint = 198.51.100.1:51820"),
            vec![quick("up wg0"), quick("down wg0")],
        ),
        up_down(
            "table off",
            "Address = 10.8.0.2/24\nTable = off",
            "10.8.0.0/24, 10.99.0.0/16, 0.0.0.0/0",
        ),
        up_down(
            "another table",
            "Address = 10.8.0.2/24, fd08::2/64\nTable = 1234",
            "10.99.0.0/16, fd99::/64, 0.0.0.0/0, ::/0",
        ),
        up_down(
            "table auto",
            "Address = 10.8.0.2/24\nTable = auto",
            "10.8.0.0/24, 10.99.0.0/16",
        ),
        up_down(
            "table main",
            "Address = 10.8.0.2/24\nTable = main",
            "10.99.0.0/16",
        ),
        up_down(
            "MTU given",
            "Address = 10.8.0.2/24\nMTU = 1380",
            "10.8.0.0/24",
        ),
        case(
            "MTU of the route",
            to_all.clone(),
            vec![
                sh(mtu_route),
                quick("up wg0"),
                quick("down wg0"),
                sh("ip route del 198.51.100.1 via 192.0.2.1"),
            ],
        ),
        case(
            "MTU of the device",
            to_all.clone(),
            vec![
                sh("ip link set eth0 mtu 1470"),
                quick("up wg0"),
                quick("down wg0"),
                sh("ip link set eth0 mtu 1500"),
            ],
        ),
        case(
            "MTU without endpoint",
            conf("Address = 10.8.0.2/24", "AllowedIPs = 10.8.0.0/24"),
            vec![
                sh("ip link set eth0 mtu 1470"),
                quick("up wg0"),
                quick("down wg0"),
                sh("ip link set eth0 mtu 1500"),
            ],
        ),
        case(
            "MTU without any route",
            to_all.clone(),
            vec![
                sh("ip route del default"),
                quick("up wg0"),
                quick("down wg0"),
                sh("ip route add default via 192.0.2.1"),
            ],
        )
        .wg_quick_only("RTNETLINK answers: Network is unreachable"),
        up_down(
            "host name",
            "Address = 10.8.0.2/24",
            "10.8.0.0/24\nEndpoint = host.example:51820",
        ),
        case(
            "route exists already",
            to_all.replace("10.8.0.0/24", "10.8.0.0/24, 192.168.55.0/24"),
            vec![
                sh("ip route add 192.168.55.0/24 via 192.0.2.1"),
                refused("up wg0"),
                sh("ip route del 192.168.55.0/24 via 192.0.2.1"),
            ],
        ),
        case(
            "carriage returns",
            to_all.replace('\n', "\r\n"),
            vec![quick("up wg0"), quick("down wg0")],
        ),
        case(
            "no last newline",
            to_all.trim_end().to_owned(),
            vec![quick("up wg0"), quick("down wg0")],
        ),
        case(
            "odd spelling",
            to_all
                .replace("Address = ", "# Address = x\n\taDDRESS=")
                .replace("/24", "/24 # mine"),
            vec![quick("up wg0"), quick("down wg0")],
        ),
    ]
}

/// Everything through the tunnel.
pub fn default_route() -> Vec<Case> {
    let both = "Address = 10.8.0.2/24, fd08::2/64";
    let all = conf(both, &format!("{ENDPOINT}0.0.0.0/0, ::/0"));
    // Not restored by either tool: reply packets get the mark of the packets they answer.
    let leaves = vec!["ipv4/conf/all/src_valid_mark"];
    let traffic = "for to in 198.51.100.7 2001:db8:77::7 10.8.0.1 fd08::1; do
                       ping -n -q -c 1 -W 10 $to >/dev/null
                   done
                   wg show wg0 transfer | awk '{ exit $2 < 400 || $3 < 400 }'";
    let second = all
        .replace("51000", "51001")
        .replace("10.8.0.2/24, fd08::2/64", "10.8.1.2/24");
    let mut list = vec![
        up_down("IPv4", both, "0.0.0.0/0"),
        up_down("IPv6", both, "::/0"),
        case(
            "both",
            all.clone(),
            vec![quick("up wg0"), sh(traffic), quick("down wg0")],
        ),
        up_down("halves", both, "0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1"),
        up_down(
            "mark given",
            "Address = 10.8.0.2/24\nFwMark = 0x1234",
            "0.0.0.0/0, ::/0",
        ),
        up_down(
            "table auto",
            "Address = 10.8.0.2/24\nTable = auto",
            "0.0.0.0/0, 10.99.0.0/16",
        ),
        case(
            "table 51820 in use",
            all.clone(),
            vec![
                sh("ip route add 203.0.113.0/24 via 192.0.2.1 table 51820
                ip -6 route add 2001:db8:5::/64 via 2001:db8:1::1 table 51821"),
                quick("up wg0"),
                sh(traffic),
                quick("down wg0"),
                sh("ip route flush table 51820; ip -6 route flush table 51821"),
            ],
        ),
        Case {
            name: "two tunnels",
            files: vec![(CONF, 0o600, all.clone()), ("etc/wg1.conf", 0o600, second)],
            // The ordinary tool also removes the other tunnel's suppress_prefixlength rule.
            acts: vec![
                quick("up wg0"),
                quick("up wg1"),
                Act::Differs(call(&["down", "wg0"])),
                Act::Differs(call(&["down", "wg1"])),
                sh("true"),
            ],
            leaves: vec![],
            wg_quick_only: vec![],
        },
        case(
            "fails at the end",
            all.replace("ListenPort", "PostUp = false\nListenPort"),
            vec![refused("up wg0")],
        ),
    ];
    for case in &mut list {
        case.leaves.clone_from(&leaves);
    }
    list
}

/// Hooks, saving and stripping.
pub fn hooks() -> Vec<Case> {
    let log = format!("{OWN}/log");
    let forget = sh(&format!("rm -f {log}"));
    let hook = |name: &str| {
        format!(
            "{name} = echo {name} %i %% $(ip -o link show %i 2>/dev/null | wc -l) \
             $(wg show %i peers 2>/dev/null | wc -l) >>{log}\n\
             {name} = echo \"second of {name}: '%i' %i%i\" | tee -a {log}; \
             echo to stderr >&2\n"
        )
    };
    let names = ["PreUp", "PostUp", "PreDown", "PostDown"];
    let hooks: String = names.into_iter().map(hook).collect();
    let wiped = || sh(&format!("rm -f {log}"));
    let odd = conf(
        "# a comment\nAddress = 10.8.0.2/24 # another\nMTU=1400\n\n\
         PostUp = echo '#x' = y\nFwMark = 7",
        "\n# more\nAllowedIPs = 10.8.0.0/24\nAddress = 7",
    );
    let peer = format!(
        "wg set wg0 peer {} allowed-ips 10.66.0.0/16,fd66::/64 \
         persistent-keepalive 21 endpoint 192.0.2.99:9",
        private(1)
    );
    vec![
        case(
            "every hook",
            conf(
                &format!("Address = 10.8.0.2/24\n{hooks}"),
                &format!("{ENDPOINT}10.8.0.0/24"),
            ),
            vec![quick("up wg0"), quick("down wg0"), forget],
        ),
        case(
            "each hook in its own shell",
            conf(
                &format!(
                    "PreUp = X=1; cd /tmp; set -u; echo $X $PWD {{a,b}} >>{log}\n\
                 PostUp = echo ${{X-unset}} $PWD >>{log}\n\
                 PostUp = [[ %i == wg* ]] && echo bash >>{log}\n\
                 PostUp = printf '%%s %s' a >>{log}\nPostUp =\nPostUp = exit 0"
                ),
                "AllowedIPs = 10.8.0.0/24",
            ),
            vec![quick("up wg0"), quick("down wg0"), wiped()],
        ),
        with_dns(
            "SaveConfig",
            &format!(
                "Address = 10.8.0.2/24, fd08::2/64\nMTU = 1380\nTable = 1234\nSaveConfig = true\n\
             DNS = 10.8.0.1\n{}",
                // The ordinary tool garbles every `&` in a hook that it saves.
                hooks.replace(" >&2", "")
            ),
            vec![
                quick("up wg0"),
                sh(&peer),
                quick("save wg0"),
                sh(
                    "ip addr add 10.8.2.2/32 dev wg0; ip link set wg0 mtu 1300; \
                wg set wg0 fwmark 9",
                ),
                quick("down wg0"),
                quick("up wg0"),
                quick("down wg0"),
                wiped(),
            ],
        ),
        with_dns(
            "SaveConfig false",
            "Address = 10.8.0.2/24\nSaveConfig = false",
            vec![
                quick("up wg0"),
                sh(&peer),
                quick("down wg0"),
                quick("up wg0"),
                sh(&peer),
                quick("save wg0"),
                quick("down wg0"),
                wiped(),
            ],
        ),
        case(
            "what hooks know",
            conf(
                &format!(
                    "PreUp = cmd echo $INTERFACE $PROGRAM >>{log}\n\
                     PostUp = echo $CONFIG_FILE ${{MTU:-none}} ${{TABLE:-none}} >>{log}\n\
                     PreDown = [[ $INTERFACE == %i ]] || die never\n\
                     PostDown = die at last"
                ),
                "AllowedIPs = 10.8.0.0/24",
            ),
            vec![quick("up wg0"), refused("down wg0"), wiped()],
        ),
        case("strip", odd.clone(), vec![quick("strip wg0")]),
        case(
            "up of odd lines",
            odd.replace("\nAddress = 7", "").replace("'#x'", "x"),
            vec![
                quick("strip wg0"),
                quick("up wg0"),
                quick("save wg0"),
                quick("down wg0"),
                quick("strip wg0"),
                sh("true"),
            ],
        )
        .leaving(CONF),
        case(
            "strip of odd lines",
            odd.replace('\n', "\r\n") + "\n\n[Interface]\nDNS = 1.1.1.1\n[Other]\nMTU = 7\n x \ny",
            vec![quick("strip wg0")],
        ),
        case(
            "syncconf by strip",
            conf("Address = 10.8.0.2/24", &format!("{ENDPOINT}10.8.0.0/24")),
            vec![
                quick("up wg0"),
                sh("wg syncconf wg0 <(wg-quick strip wg0)"),
                quick("down wg0"),
            ],
        ),
    ]
}

impl Case {
    /// The same, with a difference at the end allowed.
    pub fn leaving(mut self, name: &'static str) -> Self {
        self.leaves.push(name);
        self
    }

    fn wg_quick_only(mut self, line: &'static str) -> Self {
        self.wg_quick_only.push(line);
        self
    }
}

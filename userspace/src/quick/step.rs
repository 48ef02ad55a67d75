// SPDX-License-Identifier: GPL-2.0-only
//! What is done to links, addresses, routes and rules: each step as the netlink request that does
//! it, and as the `ip` command people know it by.

use super::value::{Address, Mtu, Table};
use crate::model::AllowedIp;
use crate::netlink::Request;
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fmt;
use std::net::IpAddr;

/// The main routing table.
pub const TABLE_MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// As the kernel numbers it.
    pub fn number(self) -> AddressFamily {
        match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }
}

/// `ip`'s option.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "-4",
            Family::V6 => "-6",
        })
    }
}

/// The policy rules that lead all but the tunnel's own packets to the tunnel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// What does not carry the mark of the same number looks into this table.
    Unmarked(u32),
    /// But before that into the main table, default routes excepted.
    MainButDefault,
}

/// A step; the interface is `name` in words and `index` in requests.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    LinkAdd {
        kind: &'a str,
    },
    LinkDelete,
    LinkUp {
        mtu: &'a Mtu,
    },
    AddressAdd(&'a Address),
    RouteAdd(AllowedIp, Option<&'a Table>),
    RuleAdd(Family, Rule),
    /// The priority says which, if several are alike.
    RuleDelete(Family, Rule, u32),
}

/// A step with the interface it is done to: `Display` is the command.
pub struct Command<'a> {
    pub step: Step<'a>,
    pub name: &'a str,
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match self.step {
            Step::LinkAdd { kind } => write!(f, "ip link add dev {name} type {kind}"),
            Step::LinkDelete => write!(f, "ip link delete dev {name}"),
            Step::LinkUp { mtu } => write!(f, "ip link set mtu {} up dev {name}", mtu.text),
            Step::AddressAdd(address) => {
                let family = Family::of(address.ip);
                write!(f, "ip {family} address add {} dev {name}", address.text)
            }
            Step::RouteAdd(prefix, table) => {
                let family = Family::of(prefix.addr);
                write!(f, "ip {family} route add {prefix} dev {name}")?;
                match table {
                    Some(table) => write!(f, " table {}", table.text),
                    None => Ok(()),
                }
            }
            Step::RuleAdd(family, Rule::Unmarked(table)) => {
                write!(f, "ip {family} rule add not fwmark {table} table {table}")
            }
            Step::RuleAdd(family, Rule::MainButDefault) => {
                write!(f, "ip {family} rule add table main suppress_prefixlength 0")
            }
            Step::RuleDelete(family, Rule::Unmarked(table), _) => {
                write!(f, "ip {family} rule delete table {table}")
            }
            Step::RuleDelete(family, Rule::MainButDefault, _) => {
                write!(
                    f,
                    "ip {family} rule delete table main suppress_prefixlength 0"
                )
            }
        }
    }
}

impl Command<'_> {
    /// The request; `index` is the interface's, where there is one already.
    pub fn request(&self, index: u32) -> Request {
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let (message, flags) = match self.step {
            Step::LinkAdd { kind } => (
                RouteNetlinkMessage::NewLink(link_add(self.name, kind)),
                create,
            ),
            Step::LinkDelete => {
                let mut message = LinkMessage::default();
                message.header.index = index;
                (RouteNetlinkMessage::DelLink(message), 0)
            }
            Step::LinkUp { mtu } => {
                let mut message = LinkMessage::default();
                message.header.index = index;
                message.header.flags = LinkFlags::Up;
                message.header.change_mask = LinkFlags::Up;
                message.attributes.push(LinkAttribute::Mtu(mtu.value));
                (RouteNetlinkMessage::NewLink(message), 0)
            }
            Step::AddressAdd(address) => (
                RouteNetlinkMessage::NewAddress(address_add(address, index)),
                create,
            ),
            Step::RouteAdd(prefix, table) => {
                let table = table.map_or(TABLE_MAIN, |table| table.id);
                let message = route_add(prefix, table, index);
                (RouteNetlinkMessage::NewRoute(message), create)
            }
            Step::RuleAdd(family, rule) => {
                let mut message = rule_message(family, rule);
                message.header.action = RuleAction::ToTable;
                (RouteNetlinkMessage::NewRule(message), create)
            }
            Step::RuleDelete(family, rule, priority) => {
                let mut message = rule_message(family, rule);
                if let Rule::Unmarked(table) = rule {
                    // Whatever leads to that table.
                    message.header.flags = RuleFlags::default();
                    message.attributes = vec![RuleAttribute::Table(table)];
                }
                message.attributes.push(RuleAttribute::Priority(priority));
                (RouteNetlinkMessage::DelRule(message), 0)
            }
        };
        request(&message, flags)
    }
}

/// A request of a message.
pub fn request(message: &RouteNetlinkMessage, flags: u16) -> Request {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    Request {
        kind: message.message_type(),
        flags,
        payload,
    }
}

fn link_add(name: &str, kind: &str) -> LinkMessage {
    let kind = match kind {
        "wireguard" => InfoKind::Wireguard,
        other => InfoKind::Other(other.to_owned()),
    };
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
    ];
    message
}

fn address_add(address: &Address, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(address.ip).number();
    message.header.prefix_len = address.len;
    message.header.index = index;
    message.header.scope = match address.ip {
        IpAddr::V4(ip) if ip.is_loopback() => AddressScope::Host,
        _ => AddressScope::Universe,
    };
    message.attributes = vec![
        AddressAttribute::Local(address.ip),
        AddressAttribute::Address(address.ip),
    ];
    message
}

fn route_add(prefix: AllowedIp, table: u32, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = Family::of(prefix.addr).number();
    header.destination_prefix_length = prefix.cidr;
    header.protocol = RouteProtocol::Boot;
    header.kind = RouteType::Unicast;
    header.scope = match prefix.addr {
        IpAddr::V4(_) => RouteScope::Link,
        IpAddr::V6(_) => RouteScope::Universe,
    };
    message.attributes = vec![
        RouteAttribute::Destination(prefix.addr.into()),
        RouteAttribute::Oif(index),
        RouteAttribute::Table(table),
    ];
    message
}

fn rule_message(family: Family, rule: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family.number();
    message.attributes = match rule {
        Rule::Unmarked(table) => {
            message.header.flags = RuleFlags::Invert;
            vec![RuleAttribute::FwMark(table), RuleAttribute::Table(table)]
        }
        Rule::MainButDefault => vec![
            RuleAttribute::Table(TABLE_MAIN),
            RuleAttribute::SuppressPrefixLen(0),
        ],
    };
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(addr: &str, cidr: u8) -> AllowedIp {
        AllowedIp {
            addr: addr.parse().unwrap(),
            cidr,
        }
    }

    /// The command, and the request as hexadecimal digits in groups of four bytes.
    fn shown(step: Step<'_>) -> (String, u16, u16, String) {
        let command = Command { step, name: "wg0" };
        let request = command.request(9);
        let groups: Vec<_> = request
            .payload
            .chunks(4)
            .map(|group| {
                let digits = group.iter().map(|byte| format!("{byte:02x}"));
                digits.collect::<Vec<_>>().concat()
            })
            .collect();
        (
            command.to_string(),
            request.kind,
            request.flags,
            groups.join(" "),
        )
    }

    /// As `strace` shows what `ip` sends, on a little-endian machine.
    #[cfg(target_endian = "little")]
    #[test]
    fn commands_and_requests() {
        let address = Address {
            text: "10.8.0.2/24".into(),
            ip: "10.8.0.2".parse().unwrap(),
            len: 24,
        };
        let mtu = Mtu {
            text: "0x500".into(),
            value: 1280,
        };
        let table = Table {
            text: "main".into(),
            id: 254,
        };
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let cases = [
            (
                Step::LinkAdd { kind: "wireguard" },
                "ip link add dev wg0 type wireguard",
                (16, create),
                "00000000 00000000 00000000 00000000 08000300 77673000 14001200 0e000100 77697265 \
                 67756172 64000000",
            ),
            (
                Step::LinkAdd {
                    kind: "wireguard_rs",
                },
                "ip link add dev wg0 type wireguard_rs",
                (16, create),
                "00000000 00000000 00000000 00000000 08000300 77673000 18001200 11000100 77697265 \
                 67756172 645f7273 00000000",
            ),
            (
                Step::LinkDelete,
                "ip link delete dev wg0",
                (17, 0),
                "00000000 09000000 00000000 00000000",
            ),
            (
                Step::LinkUp { mtu: &mtu },
                "ip link set mtu 0x500 up dev wg0",
                (16, 0),
                "00000000 09000000 01000000 01000000 08000400 00050000",
            ),
            (
                Step::AddressAdd(&address),
                "ip -4 address add 10.8.0.2/24 dev wg0",
                (20, create),
                "02180000 09000000 08000200 0a080002 08000100 0a080002",
            ),
            (
                Step::RouteAdd(ip("10.7.0.0", 16), None),
                "ip -4 route add 10.7.0.0/16 dev wg0",
                (24, create),
                "02100000 0003fd01 00000000 08000100 0a070000 08000400 09000000 08000f00 fe000000",
            ),
            (
                Step::RouteAdd(ip("::", 0), Some(&table)),
                "ip -6 route add ::/0 dev wg0 table main",
                (24, create),
                "0a000000 00030001 00000000 14000100 00000000 00000000 00000000 00000000 08000400 \
                 09000000 08000f00 fe000000",
            ),
            (
                Step::RuleAdd(Family::V4, Rule::Unmarked(51820)),
                "ip -4 rule add not fwmark 51820 table 51820",
                (32, create),
                "02000000 00000001 02000000 08000a00 6cca0000 08000f00 6cca0000",
            ),
            (
                Step::RuleAdd(Family::V6, Rule::MainButDefault),
                "ip -6 rule add table main suppress_prefixlength 0",
                (32, create),
                "0a000000 00000001 00000000 08000f00 fe000000 08000e00 00000000",
            ),
            (
                Step::RuleDelete(Family::V4, Rule::MainButDefault, 7),
                "ip -4 rule delete table main suppress_prefixlength 0",
                (33, 0),
                "02000000 00000000 00000000 08000f00 fe000000 08000e00 00000000 08000600 07000000",
            ),
            (
                Step::RuleDelete(Family::V6, Rule::Unmarked(51820), 7),
                "ip -6 rule delete table 51820",
                (33, 0),
                "0a000000 00000000 00000000 08000f00 6cca0000 08000600 07000000",
            ),
        ];
        for (step, text, (kind, flags), payload) in cases {
            let wanted = (text.to_owned(), kind, flags, payload.to_owned());
            assert_eq!(shown(step), wanted);
        }
    }
}

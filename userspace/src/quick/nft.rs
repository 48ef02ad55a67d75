// SPDX-License-Identifier: GPL-2.0-only
//! nf_tables over netlink: the few messages that one small table takes.

use super::step::Family;
use crate::netlink::{Error, Request, Socket};
use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;
use std::net::IpAddr;

// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_SREG: u16 = 4;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_META_MARK: u32 = 3;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_L4PROTO: u32 = 16;
const NFT_CT_MARK: u32 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_SADDR: u32 = 1;
const NF_DROP: u32 = 0;
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_POST_ROUTING: u32 = 4;
const NF_IP_PRI_RAW: i32 = -300;
const NF_IP_PRI_MANGLE: i32 = -150;
const IFNAMSIZ: usize = 16;
const IPPROTO_UDP: u8 = 17;
/// A local address, as the routing tables say.
const RTN_LOCAL: u32 = 2;

/// The table of an interface, of one family.
pub struct Table<'a> {
    pub family: Family,
    pub interface: &'a str,
}

impl Table<'_> {
    fn name(&self) -> String {
        format!("wg-quick-{}", self.interface)
    }

    /// Makes the table anew: packets to the interface's addresses come through it or from this
    /// machine; and answers to the tunnel's own packets get their mark, so that they pass the
    /// reverse path filter.
    pub fn add(&self, addresses: &[IpAddr], mark: u32) -> Result<(), Error> {
        let mut requests = vec![self.table(NFT_MSG_NEWTABLE), self.table(NFT_MSG_DELTABLE)];
        // That removed what a tunnel of this name may have left.
        requests.extend(self.contents(addresses, mark));
        commit(requests)
    }

    fn contents(&self, addresses: &[IpAddr], mark: u32) -> Vec<Request> {
        let mut requests = vec![
            self.table(NFT_MSG_NEWTABLE),
            self.chain("preraw", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW),
            self.chain("premangle", NF_INET_PRE_ROUTING, NF_IP_PRI_MANGLE),
            self.chain("postmangle", NF_INET_POST_ROUTING, NF_IP_PRI_MANGLE),
        ];
        for address in addresses {
            requests.push(self.rule("preraw", &self.not_past_the_tunnel(*address)));
        }
        let udp = [
            meta(NFTA_META_DREG, NFT_META_L4PROTO),
            cmp(NFT_CMP_EQ, &[IPPROTO_UDP]),
        ];
        let mark = [
            meta(NFTA_META_DREG, NFT_META_MARK),
            cmp(NFT_CMP_EQ, &mark.to_ne_bytes()),
            meta(NFTA_META_DREG, NFT_META_MARK),
            ct(NFTA_CT_SREG, NFT_CT_MARK),
        ];
        let unmark = [
            ct(NFTA_CT_DREG, NFT_CT_MARK),
            meta(NFTA_META_SREG, NFT_META_MARK),
        ];
        requests.push(self.rule("postmangle", &[&udp[..], &mark].concat()));
        requests.push(self.rule("premangle", &[&udp[..], &unmark].concat()));
        requests
    }

    /// `iifname != INTERFACE ip daddr ADDRESS fib saddr type != local drop`
    fn not_past_the_tunnel(&self, address: IpAddr) -> Vec<Expression> {
        let mut name = [0; IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(self.interface.bytes()) {
            *to = from;
        }
        // Where the destination is in the header.
        let (offset, bytes) = match address {
            IpAddr::V4(ip) => (16, ip.octets().to_vec()),
            IpAddr::V6(ip) => (24, ip.octets().to_vec()),
        };
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        vec![
            meta(NFTA_META_DREG, NFT_META_IIFNAME),
            cmp(NFT_CMP_NEQ, &name),
            expression("payload", |data| {
                data.be32(NFTA_PAYLOAD_DREG, NFT_REG_1);
                data.be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
                data.be32(NFTA_PAYLOAD_OFFSET, offset);
                data.be32(NFTA_PAYLOAD_LEN, len);
            }),
            cmp(NFT_CMP_EQ, &bytes),
            expression("fib", |data| {
                data.be32(NFTA_FIB_DREG, NFT_REG_1);
                data.be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
                data.be32(NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR);
            }),
            cmp(NFT_CMP_NEQ, &RTN_LOCAL.to_ne_bytes()),
            expression("immediate", |data| {
                data.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
                data.nest(NFTA_IMMEDIATE_DATA, |data| {
                    data.nest(NFTA_DATA_VERDICT, |data| {
                        data.be32(NFTA_VERDICT_CODE, NF_DROP);
                    });
                });
            }),
        ]
    }

    fn table(&self, kind: u16) -> Request {
        self.request(kind, NLM_F_CREATE, |data| {
            data.string(NFTA_TABLE_NAME, &self.name());
            if kind == NFT_MSG_NEWTABLE {
                data.be32(NFTA_TABLE_FLAGS, 0);
            }
        })
    }

    fn chain(&self, name: &str, hook: u32, priority: i32) -> Request {
        self.request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, |data| {
            data.string(NFTA_CHAIN_TABLE, &self.name());
            data.string(NFTA_CHAIN_NAME, name);
            data.string(NFTA_CHAIN_TYPE, "filter");
            data.nest(NFTA_CHAIN_HOOK, |data| {
                data.be32(NFTA_HOOK_HOOKNUM, hook);
                data.put(NFTA_HOOK_PRIORITY, &priority.to_be_bytes());
            });
        })
    }

    fn rule(&self, chain: &str, expressions: &[Expression]) -> Request {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.request(NFT_MSG_NEWRULE, flags, |data| {
            data.string(NFTA_RULE_TABLE, &self.name());
            data.string(NFTA_RULE_CHAIN, chain);
            data.nest(NFTA_RULE_EXPRESSIONS, |data| {
                for expression in expressions {
                    data.put(NFTA_LIST_ELEM | NLA_F_NESTED, &expression.0);
                }
            });
        })
    }

    fn request(&self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) -> Request {
        let family = match self.family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        let family = u8::try_from(family).unwrap_or(0);
        let mut data = Attributes(vec![family, 0, 0, 0]);
        fill(&mut data);
        Request {
            kind: (NFNL_SUBSYS_NFTABLES << 8) | kind,
            flags: flags | NLM_F_ACK,
            payload: data.0,
        }
    }
}

/// The families that have a table of this interface.
pub fn found(interface: &str) -> Vec<Family> {
    let Ok(mut socket) = Socket::open(NETLINK_NETFILTER) else {
        return Vec::new();
    };
    let mut is_there = |family| {
        let mut request = Table { family, interface }.table(NFT_MSG_GETTABLE);
        request.flags = 0;
        socket.call(&request).is_ok()
    };
    Family::BOTH.into_iter().filter(|f| is_there(*f)).collect()
}

/// Removes the tables of this interface.
pub fn remove(interface: &str, families: &[Family]) -> Result<(), Error> {
    let table = |family: &Family| {
        let family = *family;
        Table { family, interface }.table(NFT_MSG_DELTABLE)
    };
    commit(families.iter().map(table).collect())
}

/// All of it or nothing.
fn commit(mut requests: Vec<Request>) -> Result<(), Error> {
    let edge = |kind| Request {
        kind,
        flags: 0,
        // Of no family, version 0, for this subsystem.
        payload: [&[0, 0][..], &NFNL_SUBSYS_NFTABLES.to_be_bytes()].concat(),
    };
    requests.insert(0, edge(NFNL_MSG_BATCH_BEGIN));
    requests.push(edge(NFNL_MSG_BATCH_END));
    Socket::open(NETLINK_NETFILTER)?.batch(&requests)
}

/// An expression of a rule: its attributes.
#[derive(Clone)]
struct Expression(Vec<u8>);

fn expression(name: &str, fill: impl FnOnce(&mut Attributes)) -> Expression {
    let mut data = Attributes(Vec::new());
    data.string(NFTA_EXPR_NAME, name);
    data.nest(NFTA_EXPR_DATA, fill);
    Expression(data.0)
}

/// From or to the register.
fn meta(direction: u16, key: u32) -> Expression {
    expression("meta", |data| {
        data.be32(NFTA_META_KEY, key);
        data.be32(direction, NFT_REG_1);
    })
}

/// From or to the register.
fn ct(direction: u16, key: u32) -> Expression {
    expression("ct", |data| {
        data.be32(NFTA_CT_KEY, key);
        data.be32(direction, NFT_REG_1);
    })
}

fn cmp(operation: u32, value: &[u8]) -> Expression {
    expression("cmp", |data| {
        data.be32(NFTA_CMP_SREG, NFT_REG_1);
        data.be32(NFTA_CMP_OP, operation);
        data.nest(NFTA_CMP_DATA, |data| data.put(NFTA_DATA_VALUE, value));
    })
}

/// Netlink attributes, one after the other.
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    fn string(&mut self, kind: u16, value: &str) {
        self.put(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut inner = Attributes(Vec::new());
        fill(&mut inner);
        self.put(kind | NLA_F_NESTED, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attribute, attributes};

    fn table(family: Family) -> Table<'static> {
        Table {
            family,
            interface: "wg0",
        }
    }

    /// The names of a rule's expressions with what they compare with.
    fn rule(request: &Request) -> (String, Vec<(String, Vec<u8>)>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let data = &request.payload[4..];
        let list = attribute(data, NFTA_RULE_EXPRESSIONS).unwrap();
        let expressions = attributes(list).map(|(kind, expression)| {
            assert_eq!(kind, NFTA_LIST_ELEM);
            let name = text(attribute(expression, NFTA_EXPR_NAME).unwrap());
            let data = attribute(expression, NFTA_EXPR_DATA).unwrap();
            let value = match name.as_str() {
                "cmp\0" => attribute(attribute(data, NFTA_CMP_DATA).unwrap(), NFTA_DATA_VALUE),
                _ => None,
            };
            (name, value.unwrap_or_default().to_vec())
        });
        let chain = text(attribute(data, NFTA_RULE_CHAIN).unwrap());
        (chain, expressions.collect())
    }

    #[test]
    fn what_is_in_the_table() {
        let address = "10.8.0.2".parse().unwrap();
        let requests = table(Family::V4).contents(&[address], 51820);
        let kinds: Vec<_> = requests.iter().map(|r| r.kind & 0xff).collect();
        assert_eq!(kinds, [0, 3, 3, 3, 6, 6, 6]);
        assert!(requests.iter().all(|r| r.payload[..4] == [2, 0, 0, 0]));
        let (chain, expressions) = rule(&requests[4]);
        assert_eq!(chain, "preraw\0");
        let mut name = b"wg0".to_vec();
        name.resize(16, 0);
        let wanted = [
            ("meta\0", vec![]),
            ("cmp\0", name),
            ("payload\0", vec![]),
            ("cmp\0", vec![10, 8, 0, 2]),
            ("fib\0", vec![]),
            ("cmp\0", 2u32.to_ne_bytes().to_vec()),
            ("immediate\0", vec![]),
        ];
        let wanted: Vec<_> = wanted.map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(expressions, wanted);
        let (chain, expressions) = rule(&requests[5]);
        assert_eq!(chain, "postmangle\0");
        assert_eq!(expressions[1].1, [17]);
        assert_eq!(expressions[3].1, 51820u32.to_ne_bytes());
        assert_eq!(rule(&requests[6]).0, "premangle\0");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn bytes() {
        let hex = |request: &Request| -> String {
            let digits = request.payload.iter().map(|b| format!("{b:02x}"));
            digits.collect::<Vec<_>>().concat()
        };
        // wg-quick-wg0, NUL
        let name = "1100010077672d717569636b2d77673000000000";
        let v6 = table(Family::V6);
        assert_eq!(
            hex(&v6.table(NFT_MSG_NEWTABLE)),
            format!("0a000000{name}0800020000000000")
        );
        assert_eq!(hex(&v6.table(NFT_MSG_DELTABLE)), format!("0a000000{name}"));
        let parts = [
            "0a000000",
            name,
            // preraw, filter, hook 0 with priority -300
            "0b0003007072657261770000",
            "0b00070066696c7465720000",
            "140004800800010000000000",
            "08000200fffffed4",
        ];
        assert_eq!(hex(&v6.chain("preraw", 0, -300)), parts.concat());
        assert_eq!(
            hex(&Request {
                payload: meta(NFTA_META_DREG, NFT_META_MARK).0,
                kind: 0,
                flags: 0
            }),
            "090001006d657461000000001400028008000200000000030800010000000001"
        );
    }
}

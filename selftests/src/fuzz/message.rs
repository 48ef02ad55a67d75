// SPDX-License-Identifier: GPL-2.0-only
//! A request as a tree of attributes that need not make sense, and its encoding.

use harness::gnl::{hex, Request};
use std::fmt::Write;

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
pub const NESTED: u16 = 1 << 15;
pub const BYTEORDER: u16 = 1 << 14;

/// An attribute's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bytes(Vec<u8>),
    Nest(Vec<Node>),
}

/// An attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The type with its flags.
    pub kind: u16,
    pub value: Value,
    /// Put this length into the header instead of the true one.
    pub lie: Option<u16>,
    /// Omit the padding.
    pub bare: bool,
}

impl Node {
    pub fn bytes(kind: u16, data: &[u8]) -> Self {
        Node {
            kind,
            value: Value::Bytes(data.to_vec()),
            lie: None,
            bare: false,
        }
    }

    pub fn nest(kind: u16, nodes: Vec<Node>) -> Self {
        Node {
            kind: kind | NESTED,
            value: Value::Nest(nodes),
            lie: None,
            bare: false,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        match &self.value {
            Value::Bytes(data) => out.extend_from_slice(data),
            Value::Nest(nodes) => nodes.iter().for_each(|node| node.encode(out)),
        }
        let len = self.lie.unwrap_or((out.len() - start) as u16);
        out[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        out[start + 2..start + 4].copy_from_slice(&self.kind.to_ne_bytes());
        if !self.bare {
            out.resize(start + (out.len() - start).next_multiple_of(4), 0);
        }
    }
}

/// A change to the encoded bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Another value at this offset.
    Set(usize, u8),
    /// Truncated at this offset.
    Cut(usize),
    /// More bytes at the end.
    Append(Vec<u8>),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `genlmsghdr`: command, version, reserved.
    pub header: (u8, u8, u16),
    pub nodes: Vec<Node>,
    /// Applied to the attributes' bytes, in order.
    pub edits: Vec<Edit>,
}

impl Message {
    pub fn encode(&self) -> Request {
        let (cmd, version, reserved) = self.header;
        let mut attrs = Vec::new();
        self.nodes.iter().for_each(|node| node.encode(&mut attrs));
        for edit in &self.edits {
            match edit {
                Edit::Set(at, byte) => {
                    if let Some(place) = attrs.get_mut(*at) {
                        *place = *byte;
                    }
                }
                Edit::Cut(len) => attrs.truncate(*len),
                Edit::Append(bytes) => attrs.extend_from_slice(bytes),
            }
        }
        let mut body = vec![cmd, version];
        body.extend_from_slice(&reserved.to_ne_bytes());
        body.extend_from_slice(&attrs);
        Request {
            flags: self.flags,
            body,
        }
    }

    /// All attributes, as paths of indices from the top.
    pub fn paths(&self) -> Vec<Vec<usize>> {
        fn walk(nodes: &[Node], path: &mut Vec<usize>, out: &mut Vec<Vec<usize>>) {
            for (n, node) in nodes.iter().enumerate() {
                path.push(n);
                out.push(path.clone());
                if let Value::Nest(inner) = &node.value {
                    walk(inner, path, out);
                }
                path.pop();
            }
        }
        let mut out = Vec::new();
        walk(&self.nodes, &mut Vec::new(), &mut out);
        out
    }

    /// The list that holds the attribute at `path`, and its index there.
    pub fn list_at(&mut self, path: &[usize]) -> Option<(&mut Vec<Node>, usize)> {
        let (last, way) = path.split_last()?;
        let mut list = &mut self.nodes;
        for n in way {
            match &mut list.get_mut(*n)?.value {
                Value::Nest(inner) => list = inner,
                Value::Bytes(_) => return None,
            }
        }
        (*last < list.len()).then_some((list, *last))
    }

    /// The request in readable form: its attributes by name, then its bytes.
    pub fn pretty(&self) -> String {
        let (cmd, version, reserved) = self.header;
        let name = match cmd {
            0 => "GET".to_owned(),
            1 => "SET".to_owned(),
            n => format!("command {n}"),
        };
        let mut text = format!(
            "{name} version {version} reserved {reserved:#x} flags {:#x}\n",
            self.flags
        );
        pretty(&self.nodes, 0, &mut text);
        for edit in &self.edits {
            let _ = writeln!(text, "  then {edit:x?}");
        }
        let _ = writeln!(text, "  bytes {}", hex(&self.encode().body));
        text
    }
}

fn pretty(nodes: &[Node], depth: usize, text: &mut String) {
    const NAMES: [&[&str]; 3] = [
        &[
            "",
            "IFINDEX",
            "IFNAME",
            "PRIVATE_KEY",
            "PUBLIC_KEY",
            "FLAGS",
            "LISTEN_PORT",
            "FWMARK",
            "PEERS",
        ],
        &[
            "",
            "PUBLIC_KEY",
            "PRESHARED_KEY",
            "FLAGS",
            "ENDPOINT",
            "KEEPALIVE",
            "LAST_HANDSHAKE",
            "RX_BYTES",
            "TX_BYTES",
            "ALLOWEDIPS",
            "PROTOCOL_VERSION",
        ],
        &["", "FAMILY", "IPADDR", "CIDR_MASK", "FLAGS"],
    ];
    for node in nodes {
        let kind = node.kind & !(NESTED | BYTEORDER);
        // Every second level is a list, whose elements have no names.
        let known = NAMES.get(depth / 2).filter(|_| depth % 2 == 0);
        let name = known
            .and_then(|names| names.get(usize::from(kind)))
            .filter(|name| !name.is_empty());
        let _ = write!(text, "{}", "  ".repeat(depth + 1));
        match name {
            Some(name) => text.push_str(name),
            None => {
                let _ = write!(text, "[{kind}]");
            }
        }
        let nest = matches!(node.value, Value::Nest(_));
        if (node.kind & NESTED != 0) != nest {
            text.push_str(if nest {
                " without NESTED"
            } else {
                " with NESTED"
            });
        }
        if node.kind & BYTEORDER != 0 {
            text.push_str(" with NET_BYTEORDER");
        }
        if let Some(lie) = node.lie {
            let _ = write!(text, " with length {lie}");
        }
        if node.bare {
            text.push_str(" without padding");
        }
        match &node.value {
            Value::Bytes(data) => {
                let _ = writeln!(text, " = {}", hex(data));
            }
            Value::Nest(inner) => {
                text.push('\n');
                pretty(inner, depth + 1, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::netlink::Attrs;

    fn sample() -> Message {
        Message {
            flags: 5,
            header: (1, 1, 0),
            nodes: vec![
                Node::bytes(2, b"wg0\0"),
                Node::nest(8, vec![Node::nest(0, vec![Node::bytes(1, &[7; 32])])]),
            ],
            edits: Vec::new(),
        }
    }

    #[test]
    fn encodes_as_the_other_builder_does() {
        let mut attrs = Attrs::new();
        attrs.str(2, "wg0").nest(8, |peers| {
            peers.nest(0, |peer| {
                peer.put(1, &[7; 32]);
            });
        });
        assert_eq!(sample().encode(), Request::new(5, 1, attrs.bytes()));
    }

    #[test]
    fn edits_and_lies() {
        let mut message = sample();
        message.nodes[0].lie = Some(5);
        message.nodes[0].bare = true;
        message.nodes[0].value = Value::Bytes(vec![9; 3]);
        message.edits = vec![Edit::Cut(7), Edit::Append(vec![1, 2]), Edit::Set(6, 8)];
        assert_eq!(
            message.encode().body,
            [1, 1, 0, 0, 5, 0, 2, 0, 9, 9, 8, 1, 2]
        );
    }

    #[test]
    fn paths_lead_to_their_nodes() {
        let mut message = sample();
        let paths = message.paths();
        assert_eq!(paths, [vec![0], vec![1], vec![1, 0], vec![1, 0, 0]]);
        let (list, at) = message.list_at(&paths[3]).unwrap();
        assert_eq!(list[at].kind, 1);
        assert!(message.list_at(&[0, 0]).is_none());
        assert!(message.list_at(&[5]).is_none());
        assert!(
            message.pretty().contains("PUBLIC_KEY"),
            "{}",
            message.pretty()
        );
    }
}

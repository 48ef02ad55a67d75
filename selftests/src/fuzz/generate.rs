// SPDX-License-Identifier: GPL-2.0-only
//! Generates requests: well-formed ones from a small set of peers and prefixes, so that they
//! interact; near misses; and noise.

use super::message::{Edit, Message, Node, Value, BYTEORDER, NESTED};
use harness::gnl::{DO, DUMP};
use harness::pair::{INDEX, NAME};
use harness::wgdev::{uapi::*, Key};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::Rng;
use x25519_dalek::{PublicKey, StaticSecret};

/// A port that another socket occupies, in the namespaces of both devices.
pub const TAKEN_PORT: u16 = 7777;

/// Generates the requests of one round.
pub struct Generator {
    rng: StdRng,
    /// The devices are up: no request whose result depends on chance or time.
    up: bool,
    private: Vec<Key>,
    public: Vec<Key>,
    prefixes: Vec<(u16, Vec<u8>, u8)>,
}

impl Generator {
    pub fn new(rng: StdRng, up: bool) -> Self {
        // Clamped, the same unclamped, another one, none.
        let mut clamped = [0x41; 32];
        clamped[0] = 0x40;
        let mut unclamped = clamped;
        unclamped[0] |= 7;
        unclamped[31] |= 0x80;
        let private = vec![clamped, unclamped, [0x5a; 32], [0; 32]];
        let derived = |key: Key| PublicKey::from(&StaticSecret::from(key)).to_bytes();
        let mut one = [0; 32];
        one[0] = 1;
        // Including the devices' own, and points of low order.
        let mut public = vec![derived(clamped), derived([0x5a; 32]), [0; 32], one];
        public.extend((1..=5u8).map(|n| [n * 0x11; 32]));
        let v4 = libc::AF_INET as u16;
        let v6 = libc::AF_INET6 as u16;
        let mut prefixes = vec![(v4, vec![0; 4], 0), (v6, vec![0; 16], 0)];
        for n in 0..6u8 {
            prefixes.push((
                v4,
                vec![10, 0, n & 1, n],
                [8, 16, 24, 30, 31, 32][usize::from(n)],
            ));
            let mut address = vec![0xfd, 0, 0, 0, 0, 0, 0, n & 1];
            address.extend([0, 0, 0, 0, 0, 0, 0, n]);
            prefixes.push((v6, address, [8, 33, 63, 64, 127, 128][usize::from(n)]));
        }
        Generator {
            rng,
            up,
            private,
            public,
            prefixes,
        }
    }

    fn percent(&mut self, n: u32) -> bool {
        self.rng.random_range(0..100) < n
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list.choose(&mut self.rng).cloned().expect("empty choice")
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let len = self.rng.random_range(0..=most);
        (0..len).map(|_| self.rng.random()).collect()
    }

    /// The next request.
    pub fn message(&mut self) -> Message {
        let mut message = match self.rng.random_range(0..100) {
            0..88 => Message {
                flags: DO,
                header: (cmd::SET_DEVICE, 1, 0),
                nodes: self.set(),
                edits: Vec::new(),
            },
            88..96 => Message {
                flags: DUMP,
                header: (cmd::GET_DEVICE, 1, 0),
                nodes: self.identity(),
                edits: Vec::new(),
            },
            _ => self.random(),
        };
        if self.percent(45) {
            for _ in 0..self.pick(&[1, 1, 1, 2, 3]) {
                self.spoil(&mut message);
            }
        }
        if self.percent(8) {
            self.spoil_bytes(&mut message);
        }
        if self.percent(3) {
            self.spoil_header(&mut message);
        }
        message
    }

    /// Random attributes, or bytes that are not attributes at all.
    fn random(&mut self) -> Message {
        let mut nodes = self.identity();
        let mut edits = Vec::new();
        if self.percent(50) {
            for _ in 0..self.rng.random_range(1..6) {
                let kind = self.rng.random_range(0..12);
                let data = self.noise(40);
                nodes.push(Node::bytes(
                    kind | self.pick(&[0, 0, NESTED, BYTEORDER]),
                    &data,
                ));
            }
        } else {
            edits.push(Edit::Append(self.noise(120)));
        }
        Message {
            flags: self.pick(&[DO, DO, DUMP]),
            header: (
                self.pick(&[cmd::SET_DEVICE, cmd::SET_DEVICE, cmd::GET_DEVICE]),
                1,
                0,
            ),
            nodes,
            edits,
        }
    }

    fn identity(&mut self) -> Vec<Node> {
        let mut name = NAME.as_bytes().to_vec();
        name.push(0);
        let by_name = Node::bytes(device::IFNAME, &name);
        let by_index = Node::bytes(device::IFINDEX, &INDEX.to_ne_bytes());
        match self.rng.random_range(0..100) {
            0..80 => vec![by_name],
            80..94 => vec![by_index],
            94 => vec![by_name, by_index],
            95 => Vec::new(),
            96 => vec![Node::bytes(device::IFNAME, b"lo\0")],
            97 => vec![Node::bytes(device::IFINDEX, &1u32.to_ne_bytes())],
            98 => {
                let name = self.pick(&["wg9\0", "\0", "wg0", "", "wg0\0rest"]);
                vec![Node::bytes(device::IFNAME, name.as_bytes())]
            }
            _ => {
                let index: u32 = self.pick(&[0, 9999, u32::MAX]);
                vec![Node::bytes(device::IFINDEX, &index.to_ne_bytes())]
            }
        }
    }

    fn set(&mut self) -> Vec<Node> {
        let mut nodes = self.identity();
        // Slow: a scalar multiplication for the device and one for each peer.
        if !self.up && self.percent(1) {
            let key = self.pick(&self.private.clone());
            nodes.push(Node::bytes(device::PRIVATE_KEY, &key));
        }
        if self.percent(2) {
            nodes.push(Node::bytes(device::PUBLIC_KEY, &[0x77; 32]));
        }
        if self.percent(8) {
            let mut flags: u32 = self.pick(&[0, 0, 0, 2, 0x8000_0001]);
            if self.percent(7) {
                flags = device::F_REPLACE_PEERS;
            }
            nodes.push(Node::bytes(device::FLAGS, &flags.to_ne_bytes()));
        }
        if self.percent(5) {
            let ports = [7001, 7002, TAKEN_PORT, 0];
            let len = if self.up { 3 } else { 4 };
            let port: u16 = self.pick(&ports[..len]);
            nodes.push(Node::bytes(device::LISTEN_PORT, &port.to_ne_bytes()));
        }
        if self.percent(8) {
            let mark: u32 = self.pick(&[0, 1, 0xdead_beef]);
            nodes.push(Node::bytes(device::FWMARK, &mark.to_ne_bytes()));
        }
        if self.percent(80) {
            let peers = (0..self.pick(&[0, 1, 1, 1, 2, 2, 3])).map(|_| self.peer());
            nodes.push(Node::nest(device::PEERS, peers.collect()));
        }
        if self.percent(20) {
            nodes.shuffle(&mut self.rng);
        }
        nodes
    }

    fn peer(&mut self) -> Node {
        let mut nodes = Vec::new();
        if self.percent(97) {
            let key = self.pick(&self.public.clone());
            nodes.push(Node::bytes(peer::PUBLIC_KEY, &key));
        }
        if self.percent(15) {
            let psk: Key = self.pick(&[[0; 32], [0x33; 32], [0x44; 32]]);
            nodes.push(Node::bytes(peer::PRESHARED_KEY, &psk));
        }
        if self.percent(35) {
            let mut flags: u32 = self.pick(&[0, 2, 2, 2, 4, 4, 4, 6, 6, 8]);
            // Slow in the in-tree driver, and so is adding the peer again.
            if self.percent(6) {
                flags |= peer::F_REMOVE_ME;
            }
            nodes.push(Node::bytes(peer::FLAGS, &flags.to_ne_bytes()));
        }
        if self.percent(25) {
            let endpoint = self.endpoint();
            nodes.push(Node::bytes(peer::ENDPOINT, &endpoint));
        }
        if self.percent(15) {
            let seconds: u16 = self.pick(&[0, 1, 25, 0xffff]);
            nodes.push(Node::bytes(
                peer::PERSISTENT_KEEPALIVE_INTERVAL,
                &seconds.to_ne_bytes(),
            ));
        }
        if self.percent(2) {
            nodes.push(Node::bytes(peer::LAST_HANDSHAKE_TIME, &[1; 16]));
            nodes.push(Node::bytes(peer::RX_BYTES, &[1; 8]));
            nodes.push(Node::bytes(peer::TX_BYTES, &[1; 8]));
        }
        if self.percent(60) {
            let ips = (0..self.pick(&[0, 1, 1, 2, 3, 5])).map(|_| self.allowed_ip());
            nodes.push(Node::nest(peer::ALLOWEDIPS, ips.collect()));
        }
        if self.percent(6) {
            let version: u32 = self.pick(&[1, 1, 1, 0, 2]);
            nodes.push(Node::bytes(peer::PROTOCOL_VERSION, &version.to_ne_bytes()));
        }
        if self.percent(15) {
            nodes.shuffle(&mut self.rng);
        }
        Node::nest(0, nodes)
    }

    fn endpoint(&mut self) -> Vec<u8> {
        let v4 = (libc::AF_INET as u16).to_ne_bytes();
        let v6 = (libc::AF_INET6 as u16).to_ne_bytes();
        let host = self.pick(&[1, 2]);
        let mut bytes = Vec::new();
        if self.percent(50) {
            bytes.extend_from_slice(&v4);
            bytes.extend_from_slice(&[0x1f, 0x90, 10, 99, 0, host]);
            bytes.extend_from_slice(&self.pick(&[[0; 8], [0xcc; 8]])); // sin_zero
        } else {
            bytes.extend_from_slice(&v6);
            bytes.extend_from_slice(&[0x1f, 0x90]);
            bytes.extend_from_slice(&[0, 0, 0, self.pick(&[0, 5])]); // flowinfo
            bytes.extend_from_slice(&[0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            bytes.extend_from_slice(&[self.pick(&[0, 0, 3]), 0, 0, 0]); // scope
        }
        if self.percent(10) {
            let len = self.rng.random_range(0..40);
            bytes.resize(len, 0);
        }
        if self.percent(5) {
            let family = self.rng.random_range(0..12);
            if let Some(first) = bytes.first_mut() {
                *first = family;
            }
        }
        bytes
    }

    fn allowed_ip(&mut self) -> Node {
        let (mut family, mut address, mut cidr) = self.pick(&self.prefixes.clone());
        match self.rng.random_range(0..100) {
            0..4 => cidr = self.pick(&[0, 1, 32, 33, 128, 129, 255]),
            4..7 => family = self.pick(&[0, 2, 10, 11, 0x0200]),
            7..9 => address.resize(self.pick(&[0, 3, 4, 5, 16, 17]), 0),
            9..14 => {
                let host: u8 = self.rng.random();
                if let Some(last) = address.last_mut() {
                    *last = host;
                }
            }
            _ => {}
        }
        let mut nodes = vec![
            Node::bytes(allowedip::FAMILY, &family.to_ne_bytes()),
            Node::bytes(allowedip::IPADDR, &address),
            Node::bytes(allowedip::CIDR_MASK, &[cidr]),
        ];
        if self.percent(25) {
            let flags: u32 = self.pick(&[0, allowedip::F_REMOVE_ME, allowedip::F_REMOVE_ME, 2]);
            nodes.push(Node::bytes(allowedip::FLAGS, &flags.to_ne_bytes()));
        }
        if self.percent(10) {
            nodes.shuffle(&mut self.rng);
        }
        Node::nest(0, nodes)
    }

    /// Changes one attribute, usually for the worse. Both must treat the result alike.
    fn spoil(&mut self, message: &mut Message) {
        let paths = message.paths();
        let Some(path) = paths.choose(&mut self.rng) else {
            return;
        };
        let choice = self.rng.random_range(0..14);
        let kind: u16 = self.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 255, 0x3fff]);
        let extra = self.noise(6);
        let number: u16 = self.rng.random_range(0..48);
        let byte: u8 = self.rng.random();
        let Some((list, at)) = message.list_at(path) else {
            return;
        };
        let copy = list[at].clone();
        let node = &mut list[at];
        match choice {
            0 | 1 => match &mut node.value {
                Value::Bytes(data) => data.resize(usize::from(number), byte),
                Value::Nest(inner) => inner.truncate(1),
            },
            2 => match &mut node.value {
                Value::Bytes(data) => {
                    data.pop();
                }
                Value::Nest(inner) => inner.clear(),
            },
            3 => match &mut node.value {
                Value::Bytes(data) => data.push(byte),
                Value::Nest(inner) => inner.push(Node::bytes(kind, &extra)),
            },
            4 => node.kind = kind | node.kind & NESTED,
            5 => node.kind ^= NESTED,
            6 => node.kind ^= BYTEORDER,
            7 => {
                list.remove(at);
            }
            8 => list.insert(at, copy),
            9 => list.push(copy),
            10 => node.lie = Some(number),
            11 => node.bare = true,
            12 => node.value = Value::Bytes(extra),
            _ => node.value = Value::Nest(vec![copy]),
        }
    }

    fn spoil_bytes(&mut self, message: &mut Message) {
        let len = message.encode().body.len().saturating_sub(4).max(1);
        let at = self.rng.random_range(0..len);
        let edit = match self.rng.random_range(0..4) {
            0 => Edit::Cut(at),
            1 => Edit::Append(self.noise(12)),
            _ => Edit::Set(at, self.rng.random()),
        };
        message.edits.push(edit);
    }

    fn spoil_header(&mut self, message: &mut Message) {
        match self.rng.random_range(0..4) {
            0 => message.header.0 = self.pick(&[0, 1, 2, 3, 255]),
            1 => message.header.1 = self.rng.random(),
            2 => message.header.2 = self.pick(&[1, 0x8000]),
            // Any but NLM_F_REQUEST and NLM_F_ACK, without which there may be no answer.
            _ => message.flags ^= 1 << self.pick(&[1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The fuzzer on fake devices that are only a list of peers: it must find what differs, minimise
//! it, and report nothing when nothing differs.

use super::message::Value;
use super::*;
use harness::gnl::DO;
use harness::netlink::Attrs;
use harness::wgdev::uapi::*;

/// A defect of one of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// Accepts a fwmark of one byte.
    Width,
    /// A request that names a peer twice stores it twice.
    Twice,
    /// Forgets the peer that was added first when a PSK is set for it later.
    Forgets,
}

/// Peers in order; a request with a peer without a key is refused.
struct Device {
    defect: Defect,
    peers: Vec<Vec<u8>>,
    first_has_psk: bool,
}

impl Device {
    fn new(defect: Defect) -> Self {
        Device {
            defect,
            peers: Vec::new(),
            first_has_psk: false,
        }
    }

    fn set(&mut self, body: &[u8]) -> i32 {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for (kind, data) in attrs(body.get(4..).unwrap_or(&[])) {
            if kind == device::FWMARK && data.len() != 4 {
                let taken = data.len() == 1 && self.defect == Defect::Width;
                return if taken { 0 } else { -22 };
            }
            if kind != device::PEERS {
                continue;
            }
            for (_, peer) in attrs(&data) {
                let list = attrs(&peer);
                let find = |wanted| list.iter().find(|(k, _)| *k == wanted).map(|(_, d)| d);
                let Some(key) = find(peer::PUBLIC_KEY).filter(|key| key.len() == 32) else {
                    return -22;
                };
                let again = seen.contains(key) && self.defect == Defect::Twice;
                seen.push(key.clone());
                if self.peers.first() == Some(key) && find(peer::PRESHARED_KEY).is_some() {
                    self.first_has_psk = true;
                    if self.defect == Defect::Forgets {
                        self.peers.remove(0);
                        continue;
                    }
                }
                if again || !self.peers.contains(key) {
                    self.peers.push(key.clone());
                }
            }
        }
        0
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let mut parts = Vec::new();
        let code = match request.body.first() {
            Some(&cmd::SET_DEVICE) if request.flags == DO => self.set(&request.body),
            Some(&cmd::GET_DEVICE) => {
                let mut body = Attrs::after(&[0, 1, 0, 0]);
                body.nest(device::PEERS, |list| {
                    for key in &self.peers {
                        list.nest(0, |peer| {
                            peer.put(peer::PUBLIC_KEY, key).put(peer::TX_BYTES, &[1; 8]);
                        });
                    }
                });
                parts.push(Part::Message {
                    flags: 2,
                    body: body.bytes().to_vec(),
                });
                0
            }
            _ => -95,
        };
        parts.push(Part::Ack {
            flags: 0,
            code,
            echo: Vec::new(),
            extack: Vec::new(),
        });
        Answer {
            parts,
            datagrams: vec![1],
        }
    }
}

struct Fakes {
    defect: Defect,
    devices: [Device; 2],
    fresh: usize,
}

impl Fakes {
    fn new(defect: Defect) -> Self {
        Fakes {
            defect,
            devices: [Device::new(Defect::None), Device::new(defect)],
            fresh: 0,
        }
    }
}

impl Twins for Fakes {
    fn fresh(&mut self, _up: bool) -> Result<()> {
        self.fresh += 1;
        self.devices = [Device::new(Defect::None), Device::new(self.defect)];
        Ok(())
    }

    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Answers>> {
        let [a, b] = &mut self.devices;
        Ok(requests
            .iter()
            .map(|r| [a.answer(r), b.answer(r)])
            .collect())
    }
}

fn find(defect: Defect) -> Finding {
    let plan = Plan {
        cases: 20_000,
        seed: 7,
    };
    let report = fuzz(&mut Fakes::new(defect), plan).unwrap();
    report.finding.expect("the defect was not found")
}

#[test]
fn nothing_is_found_where_nothing_differs() {
    let plan = Plan {
        cases: 3 * ROUND + 1,
        seed: 7,
    };
    let mut fakes = Fakes::new(Defect::None);
    let report = fuzz(&mut fakes, plan).unwrap();
    assert!(report.finding.is_none());
    assert_eq!((report.cases, fakes.fresh), (plan.cases, 4));
    assert_eq!(report.tally.values().sum::<usize>(), plan.cases);
    assert!(report.tally["OK"] > plan.cases / 4, "{:?}", report.tally);
}

#[test]
fn a_wrong_answer_is_found_and_made_small() {
    let finding = find(Defect::Width);
    assert!(finding.reproduced);
    let [message] = finding.messages.as_slice() else {
        panic!("not one request:\n{finding}");
    };
    let [node] = message.nodes.as_slice() else {
        panic!("not one attribute:\n{finding}");
    };
    assert_eq!(
        (node.kind & 0x3fff, &node.value),
        (device::FWMARK, &Value::Bytes(vec![0]))
    );
    assert!(message.edits.is_empty());
    let text = finding.to_string();
    assert!(
        text.contains("FWMARK = 00") && text.contains("EINVAL"),
        "{text}"
    );
    assert!(text.contains(&format!("--seed {}", finding.seed)), "{text}");
}

#[test]
fn a_wrong_state_is_found_and_made_small() {
    let finding = find(Defect::Twice);
    let [message] = finding.messages.as_slice() else {
        panic!("not one request:\n{finding}");
    };
    // A list or two, two peers, the key of each.
    assert!((5..=6).contains(&message.paths().len()), "{finding}");
    assert!(finding.difference.contains("dump afterwards"), "{finding}");
}

#[test]
fn a_defect_that_needs_two_requests_keeps_both() {
    let finding = find(Defect::Forgets);
    assert!(finding.reproduced);
    assert!(finding.messages.len() <= 2, "{finding}");
    let attributes: usize = finding.messages.iter().map(|m| m.paths().len()).sum();
    assert!(attributes <= 8, "{finding}");
}

#[test]
fn the_same_seed_gives_the_same_requests() {
    let list = |seed| {
        let mut generator = Generator::new(StdRng::seed_from_u64(seed), false);
        (0..500).map(|_| generator.message()).collect::<Vec<_>>()
    };
    assert_eq!(list(3), list(3));
    assert_ne!(list(3), list(4));
}

#[test]
fn only_chance_is_masked() {
    let answer = |port: u16, tx: u64, key: u8| {
        let mut body = Attrs::after(&[0, 1, 0, 0]);
        body.u16(device::LISTEN_PORT, port)
            .nest(device::PEERS, |list| {
                list.nest(0, |peer| {
                    peer.put(peer::PUBLIC_KEY, &[key; 32])
                        .put(peer::TX_BYTES, &tx.to_ne_bytes());
                });
            });
        Answer {
            parts: vec![Part::Message {
                flags: 2,
                body: body.bytes().to_vec(),
            }],
            datagrams: vec![100],
        }
    };
    let pair = [answer(1, 2, 3), answer(4, 5, 3)];
    assert!(alike(&pair, true) && !alike(&pair, false));
    assert!(!alike(&[answer(1, 2, 3), answer(1, 2, 4)], true));
}

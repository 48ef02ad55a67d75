// SPDX-License-Identifier: GPL-2.0-only
//! Both roles of the handshake (whitepaper, sections 5.4.2 and 5.4.3).

use super::cookie;
use super::crypto::{dh, hash, kdf, open, public, seal};
use super::session::Session;
use crate::wgdev::{random_key, Key};
use crate::wire::word;
use anyhow::{ensure, Context, Result};
use std::time::{SystemTime, UNIX_EPOCH};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Bytes of an initiation.
pub const INITIATION: usize = 148;
/// Bytes of a response.
pub const RESPONSE: usize = 92;

/// A TAI64N timestamp.
pub type Timestamp = [u8; 12];

/// The timestamp of `unix_seconds` and `nanoseconds` (not rounded).
pub fn tai64n(unix_seconds: u64, nanoseconds: u32) -> Timestamp {
    let mut stamp = [0; 12];
    stamp[..8].copy_from_slice(&((1u64 << 62) + 10 + unix_seconds).to_be_bytes());
    stamp[8..].copy_from_slice(&nanoseconds.to_be_bytes());
    stamp
}

/// The timestamp of this moment by the wall clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.expect("a clock after 1970");
    tai64n(since.as_secs(), since.subsec_nanos())
}

/// A static key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The private key, clamped.
    pub private: Key,
    /// The public key.
    pub public: Key,
}

impl Keys {
    /// The pair of a private key.
    pub fn new(private: Key) -> Self {
        Keys {
            private,
            public: public(&private),
        }
    }

    /// A fresh pair.
    pub fn random() -> Self {
        Keys::new(random_key())
    }
}

/// What to put into a handshake message in place of the right value. What comes later in the
/// message is computed from what was put, as by a peer that believes in it.
#[derive(Clone, Debug, Default)]
pub struct Tweak {
    /// The first four bytes: type and reserved.
    pub header: Option<[u8; 4]>,
    /// The sender's index (random by default).
    pub sender: Option<u32>,
    /// The receiver's index, of a response.
    pub receiver: Option<u32>,
    /// The ephemeral private key (random by default).
    pub ephemeral: Option<Key>,
    /// An ephemeral public key that nobody knows the private key of. The shared secrets with it
    /// are taken to be zeros: what a point of low order gives.
    pub ephemeral_public: Option<Key>,
    /// The static public key that an initiation claims.
    pub static_public: Option<Key>,
    /// The shared secret of the static keys, of an initiation.
    pub static_shared: Option<Key>,
    /// The timestamp, of an initiation (this moment by default).
    pub timestamp: Option<Timestamp>,
    /// The first MAC.
    pub mac1: Option<[u8; 16]>,
    /// The cookie to make the second MAC with.
    pub cookie: Option<[u8; 16]>,
    /// The second MAC (zeros by default).
    pub mac2: Option<[u8; 16]>,
    /// What to append to the message.
    pub trailing: Vec<u8>,
}

/// The chaining key and the transcript's hash.
#[derive(Clone)]
struct State {
    chain: Key,
    hash: Key,
}

impl State {
    fn new(responder: &Key) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let mut state = State {
            chain,
            hash: hash(&[&chain, IDENTIFIER]),
        };
        state.mix(responder);
        state
    }

    fn mix(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn ephemeral(&mut self, key: &Key) {
        self.mix(key);
        [self.chain] = kdf(&self.chain, key);
    }

    fn shared(&mut self, secret: &Key) -> Key {
        let [chain, key] = kdf(&self.chain, secret);
        self.chain = chain;
        key
    }

    fn preshared(&mut self, psk: &Key) -> Key {
        let [chain, tau, key] = kdf(&self.chain, psk);
        self.chain = chain;
        self.mix(&tau);
        key
    }

    fn seal(&mut self, key: &Key, plain: &[u8]) -> Vec<u8> {
        let sealed = seal(key, 0, plain, &self.hash);
        self.mix(&sealed);
        sealed
    }

    fn open(&mut self, key: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
        let plain = open(key, 0, sealed, &self.hash)?;
        self.mix(sealed);
        Some(plain)
    }
}

/// The ephemeral key pair of a message, and its way to a shared secret.
#[derive(Clone)]
struct Ephemeral {
    private: Option<Key>,
    public: Key,
}

impl Ephemeral {
    fn new(tweak: &Tweak) -> Self {
        match tweak.ephemeral_public {
            Some(public) => Ephemeral {
                private: None,
                public,
            },
            None => {
                let keys = Keys::new(tweak.ephemeral.unwrap_or_else(random_key));
                Ephemeral {
                    private: Some(keys.private),
                    public: keys.public,
                }
            }
        }
    }

    fn with(&self, public: &Key) -> Key {
        self.private.map_or([0; 32], |private| dh(&private, public))
    }
}

/// Ends a handshake message to the holder of `receiver`.
fn put_macs(message: &mut Vec<u8>, receiver: &Key, tweak: &Tweak) {
    let first = tweak
        .mac1
        .unwrap_or_else(|| cookie::mac1(message, receiver));
    message.extend_from_slice(&first);
    let by_cookie = || tweak.cookie.map(|secret| cookie::mac2(message, &secret));
    let second = tweak.mac2.or_else(by_cookie).unwrap_or_default();
    message.extend_from_slice(&second);
    message.extend_from_slice(&tweak.trailing);
}

fn key_at(message: &[u8], at: usize) -> Option<Key> {
    message.get(at..)?.first_chunk().copied()
}

/// An initiation that was made and waits for its response.
#[derive(Clone)]
pub struct Pending {
    /// The initiation.
    pub message: Vec<u8>,
    /// The index it was sent under.
    pub index: u32,
    state: State,
    own: Keys,
    ephemeral: Ephemeral,
}

/// Makes an initiation from `own` to the holder of `peer`.
pub fn initiate(own: &Keys, peer: &Key, tweak: &Tweak) -> Pending {
    let index = tweak.sender.unwrap_or_else(rand::random);
    let ephemeral = Ephemeral::new(tweak);
    let mut state = State::new(peer);
    let mut message = tweak.header.unwrap_or([1, 0, 0, 0]).to_vec();
    message.extend_from_slice(&index.to_le_bytes());
    message.extend_from_slice(&ephemeral.public);
    state.ephemeral(&ephemeral.public);
    let key = state.shared(&ephemeral.with(peer));
    message.extend(state.seal(&key, &tweak.static_public.unwrap_or(own.public)));
    let secret = tweak
        .static_shared
        .unwrap_or_else(|| dh(&own.private, peer));
    let key = state.shared(&secret);
    message.extend(state.seal(&key, &tweak.timestamp.unwrap_or_else(now)));
    put_macs(&mut message, peer, tweak);
    Pending {
        message,
        index,
        state,
        own: *own,
        ephemeral,
    }
}

impl Pending {
    /// The session that `response` makes, with `psk` (zeros: none).
    pub fn finish(&self, response: &[u8], psk: &Key) -> Result<Session> {
        ensure!(response.len() == RESPONSE, "length {}", response.len());
        ensure!(word(response, 0) == Some(2), "not a response");
        ensure!(word(response, 8) == Some(self.index), "not to our index");
        ensure!(cookie::mac1_is_right(response, &self.own.public), "mac1");
        let theirs = key_at(response, 12).context("ephemeral")?;
        let mut state = self.state.clone();
        state.ephemeral(&theirs);
        state.shared(&self.ephemeral.with(&theirs));
        state.shared(&dh(&self.own.private, &theirs));
        let key = state.preshared(psk);
        let empty = state.open(&key, &response[44..60]);
        ensure!(empty.is_some(), "the response does not authenticate");
        let [send, receive] = kdf(&state.chain, &[]);
        Ok(Session {
            send,
            receive,
            own: self.index,
            peer: word(response, 4).context("sender")?,
            counter: 0,
        })
    }
}

/// An initiation that came and authenticates.
#[derive(Clone)]
pub struct Received {
    /// Who sent it.
    pub initiator: Key,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its sender's index.
    pub sender: u32,
    /// Its ephemeral public key.
    pub ephemeral: Key,
    state: State,
}

/// Takes an initiation to `own`.
pub fn receive(own: &Keys, initiation: &[u8]) -> Result<Received> {
    let len = initiation.len();
    ensure!(len == INITIATION, "length {len}");
    ensure!(word(initiation, 0) == Some(1), "not an initiation");
    ensure!(cookie::mac1_is_right(initiation, &own.public), "mac1");
    let theirs = key_at(initiation, 8).context("ephemeral")?;
    let mut state = State::new(&own.public);
    state.ephemeral(&theirs);
    let key = state.shared(&dh(&own.private, &theirs));
    let initiator = state.open(&key, &initiation[40..88]);
    let initiator = initiator.context("the static key does not authenticate")?;
    let initiator = key_at(&initiator, 0).context("static")?;
    let key = state.shared(&dh(&own.private, &initiator));
    let timestamp = state.open(&key, &initiation[88..116]);
    let timestamp = timestamp.context("the timestamp does not authenticate")?;
    Ok(Received {
        initiator,
        timestamp: *timestamp.first_chunk().context("timestamp")?,
        sender: word(initiation, 4).context("sender")?,
        ephemeral: theirs,
        state,
    })
}

impl Received {
    /// The chaining key at this point, which the initiator holds too until the response comes.
    pub fn chain(&self) -> Key {
        self.state.chain
    }

    /// The session and the response to this initiation, with `psk` (zeros: none).
    pub fn respond(&self, psk: &Key, tweak: &Tweak) -> (Session, Vec<u8>) {
        let own = tweak.sender.unwrap_or_else(rand::random);
        let ephemeral = Ephemeral::new(tweak);
        let mut state = self.state.clone();
        let mut message = tweak.header.unwrap_or([2, 0, 0, 0]).to_vec();
        message.extend_from_slice(&own.to_le_bytes());
        let receiver = tweak.receiver.unwrap_or(self.sender);
        message.extend_from_slice(&receiver.to_le_bytes());
        message.extend_from_slice(&ephemeral.public);
        state.ephemeral(&ephemeral.public);
        state.shared(&ephemeral.with(&self.ephemeral));
        state.shared(&ephemeral.with(&self.initiator));
        let key = state.preshared(psk);
        message.extend(state.seal(&key, &[]));
        put_macs(&mut message, &self.initiator, tweak);
        let [receive, send] = kdf(&state.chain, &[]);
        let session = Session {
            send,
            receive,
            own,
            peer: self.sender,
            counter: 0,
        };
        (session, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_roles_agree() {
        let [a, b] = [Keys::random(), Keys::random()];
        for psk in [[0; 32], [7; 32]] {
            let pending = initiate(&a, &b.public, &Tweak::default());
            assert_eq!(pending.message.len(), INITIATION);
            let received = receive(&b, &pending.message).unwrap();
            assert_eq!(received.initiator, a.public);
            let (mut theirs, response) = received.respond(&psk, &Tweak::default());
            assert_eq!(response.len(), RESPONSE);
            let mut ours = pending.finish(&response, &psk).unwrap();
            assert!(pending.finish(&response, &[8; 32]).is_err());
            let message = ours.data(b"to the responder");
            assert_eq!(theirs.open(&message).unwrap().1[..16], *b"to the responder");
            let message = theirs.data(b"to the initiator");
            assert_eq!(ours.open(&message).unwrap().1[..16], *b"to the initiator");
        }
    }

    #[test]
    fn messages_are_for_their_receiver() {
        let [a, b, c] = [Keys::random(), Keys::random(), Keys::random()];
        let pending = initiate(&a, &b.public, &Tweak::default());
        assert!(receive(&c, &pending.message).is_err());
        let mut spoilt = pending.message.clone();
        spoilt[20] ^= 1;
        assert!(receive(&b, &spoilt).is_err());
    }

    #[test]
    fn tweaks_go_into_the_message() {
        let [a, b] = [Keys::random(), Keys::random()];
        let tweak = Tweak {
            header: Some([1, 2, 3, 4]),
            sender: Some(0x0807_0605),
            ephemeral_public: Some([0; 32]),
            mac1: Some([9; 16]),
            mac2: Some([8; 16]),
            trailing: vec![77],
            ..Tweak::default()
        };
        let message = initiate(&a, &b.public, &tweak).message;
        assert_eq!(message[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(message[8..40], [0; 32]);
        assert_eq!(message[116..132], [9; 16]);
        assert_eq!(message[132..], [[8; 16].as_slice(), &[77]].concat());
        // Who knows the responder's private key can claim to be anyone.
        let claim = Tweak {
            static_public: Some(a.public),
            static_shared: Some(dh(&b.private, &a.public)),
            timestamp: Some(tai64n(5, 6)),
            ..Tweak::default()
        };
        let forged = initiate(&Keys::random(), &b.public, &claim);
        let received = receive(&b, &forged.message).unwrap();
        assert_eq!(received.initiator, a.public);
        assert_eq!(received.timestamp, tai64n(5, 6));
        let (_, response) = received.respond(&[0; 32], &Tweak::default());
        assert!(forged.finish(&response, &[0; 32]).is_err());
    }

    #[test]
    fn cookies_come_and_go() {
        let [a, b] = [Keys::random(), Keys::random()];
        let message = initiate(&a, &b.public, &Tweak::default()).message;
        let reply = cookie::reply(&b.public, &message, &[3; 16]);
        assert_eq!(reply.len(), cookie::REPLY);
        assert_eq!(
            cookie::open_reply(&reply, &b.public, &message).unwrap(),
            [3; 16]
        );
        assert!(cookie::open_reply(&reply, &a.public, &message).is_err());
        let other = initiate(&a, &b.public, &Tweak::default()).message;
        assert!(cookie::open_reply(&reply, &b.public, &other).is_err());
    }

    #[test]
    fn macs_can_be_repaired() {
        let [a, b] = [Keys::random(), Keys::random()];
        let tweak = Tweak {
            cookie: Some([3; 16]),
            ..Tweak::default()
        };
        let message = initiate(&a, &b.public, &tweak).message;
        let mut copy = message.clone();
        copy[116..].fill(0);
        assert!(receive(&b, &copy).is_err());
        cookie::repair_macs(&mut copy, &b.public, Some(&[3; 16]));
        assert_eq!(copy, message);
        cookie::repair_macs(&mut copy, &b.public, None);
        assert_eq!(copy[132..], [0; 16]);
    }
}

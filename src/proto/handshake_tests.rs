// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the handshake as a whole: noise, handshake slot and cookies together, against a
//! recorded handshake that was derived independently.

use zerocopy::{FromBytes, IntoBytes};

use super::consts::{NS_PER_MS, NS_PER_SEC};
use super::cookie::{CookieChecker, CookieJar, MacState, Source};
use super::crypto::{Crypto, PublicKey, SecretKey, SymmetricKey};
use super::handshake::{HandshakeSlot, ReleasedIndex};
use super::host_crypto::HostCrypto;
use super::kdf;
use super::messages::{CookieReply, HandshakeMessage, Initiation, Message, Response};
use super::noise::*;
use super::tai64n::Tai64n;
use super::vectors as v;
use super::Rejection;

type C = HostCrypto;

/// Points of low order on the curve and its twist, canonical or not.
/// From <https://cr.yp.to/ecdh.html#validate>.
const LOW_ORDER: [PublicKey; 7] = [
    [0; 32],
    one(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

const fn one(first: u8) -> PublicKey {
    let mut point = [0; 32];
    point[0] = first;
    point
}

const fn near_p(first: u8) -> PublicKey {
    let mut point = [0xff; 32];
    point[0] = first;
    point[31] = 0x7f;
    point
}

fn secret(bytes: [u8; 32]) -> SecretKey {
    SecretKey::from_bytes(bytes)
}

fn identity(private: [u8; 32]) -> Identity {
    Identity::new::<C>(secret(private)).unwrap()
}

/// Both sides of the recorded handshake.
struct Pair {
    initiator: Identity,
    responder: Identity,
    /// What the initiator knows of the responder.
    to: PeerStatic,
    /// What the responder knows of the initiator.
    from: PeerStatic,
}

impl Pair {
    fn new() -> Self {
        let initiator = identity(v::INITIATOR_PRIVATE);
        let responder = identity(v::RESPONDER_PRIVATE);
        let to = PeerStatic::new::<C>(Some(&initiator), *responder.public());
        let from = PeerStatic::new::<C>(Some(&responder), *initiator.public());
        Self {
            initiator,
            responder,
            to,
            from,
        }
    }

    fn initiate(&self) -> (Initiation, InitiatorHandshake) {
        self.initiate_at(Tai64n::new(v::SECONDS, v::NANOSECONDS), v::INITIATOR_INDEX)
    }

    fn initiate_at(&self, time: Tai64n, index: u32) -> (Initiation, InitiatorHandshake) {
        let ephemeral = secret(v::INITIATOR_EPHEMERAL);
        create_initiation::<C>(&self.initiator, &self.to, ephemeral, time, index).unwrap()
    }

    fn consume(&self, message: &Initiation) -> Result<ConsumedInitiation, Rejection> {
        open_initiation::<C>(&self.responder, message)?.finish::<C>(&self.from)
    }

    /// The responder's slot once it has accepted `message`.
    fn accepted(&self, message: &Initiation) -> HandshakeSlot {
        let mut slot = HandshakeSlot::new();
        let consumed = self.consume(message).unwrap();
        slot.accept_initiation(consumed, NS_PER_SEC).unwrap();
        slot
    }

    fn respond(&self, slot: &HandshakeSlot, psk: &[u8; 32]) -> (Response, Established) {
        let ephemeral = secret(v::RESPONDER_EPHEMERAL);
        let handshake = slot.responder().unwrap();
        create_response::<C>(&handshake, ephemeral, &secret(*psk), v::RESPONDER_INDEX).unwrap()
    }

    fn finish(
        &self,
        slot: &HandshakeSlot,
        psk: &SymmetricKey,
        message: &Response,
    ) -> Result<Established, Rejection> {
        consume_response::<C>(&self.initiator, &slot.initiator()?, psk, message)
    }

    /// An initiation of ours, committed.
    fn started(&self) -> (Initiation, HandshakeSlot) {
        let mut slot = HandshakeSlot::new();
        let (message, handshake) = self.initiate();
        assert_eq!(slot.commit_initiation(handshake), ReleasedIndex(None));
        (message, slot)
    }
}

fn source() -> Source {
    Source::v4([192, 0, 2, 7], 51820u16.to_be_bytes())
}

/// The checker of the device with this public key.
fn checker(public: &PublicKey) -> CookieChecker {
    let mut checker = CookieChecker::new(secret(v::COOKIE_SECRET), 0);
    checker.set_identity::<C>(Some(public));
    checker
}

#[test]
fn recorded_keys() {
    let pair = Pair::new();
    assert_eq!(pair.initiator.public(), &v::INITIATOR_PUBLIC);
    assert_eq!(pair.responder.public(), &v::RESPONDER_PUBLIC);
    assert_eq!(
        Tai64n::new(v::SECONDS, v::NANOSECONDS).as_bytes(),
        &v::TIMESTAMP
    );
}

#[test]
fn recorded_handshake() {
    for (psk, response, initiator_sends, responder_sends) in [
        ([0; 32], v::RESPONSE, v::INITIATOR_SENDS, v::RESPONDER_SENDS),
        (
            v::PSK,
            v::RESPONSE_PSK,
            v::INITIATOR_SENDS_PSK,
            v::RESPONDER_SENDS_PSK,
        ),
    ] {
        let pair = Pair::new();

        // The initiator's side, fed with the recorded response.
        let (mut message, mut slot) = pair.started();
        CookieJar::new::<C>(pair.responder.public()).add_macs::<C, _>(&mut message, 0);
        assert_eq!(message.as_bytes(), v::INITIATION);
        let received = Response::ref_from_bytes(&response).unwrap();
        let valid = checker(pair.initiator.public());
        assert_eq!(
            valid.validate_macs::<C, _>(received, &source(), false, 0),
            MacState::ValidMac1
        );
        let established = pair.finish(&slot, &secret(psk), received).unwrap();
        let (session, released) = slot.establish(established).unwrap();
        assert_eq!(released, ReleasedIndex(None));
        assert_eq!(session.role, Role::Initiator);
        assert_eq!(session.local_index, v::INITIATOR_INDEX);
        assert_eq!(session.remote_index, v::RESPONDER_INDEX);
        assert_eq!(session.sending.expose(), &initiator_sends);
        assert_eq!(session.receiving.expose(), &responder_sends);

        // The responder's side, fed with the recorded initiation.
        let received = Initiation::ref_from_bytes(&v::INITIATION).unwrap();
        let valid = checker(pair.responder.public());
        assert_eq!(
            valid.validate_macs::<C, _>(received, &source(), false, 0),
            MacState::ValidMac1
        );
        let opened = open_initiation::<C>(&pair.responder, received).unwrap();
        assert_eq!(opened.remote_static(), pair.initiator.public());
        let mut slot = pair.accepted(received);
        assert_eq!(slot.latest_timestamp().as_bytes(), &v::TIMESTAMP);
        let (mut message, established) = pair.respond(&slot, &psk);
        CookieJar::new::<C>(pair.initiator.public()).add_macs::<C, _>(&mut message, 0);
        assert_eq!(message.as_bytes(), response);
        let (session, _) = slot.establish(established).unwrap();
        assert_eq!(session.role, Role::Responder);
        assert_eq!(session.local_index, v::RESPONDER_INDEX);
        assert_eq!(session.remote_index, v::INITIATOR_INDEX);
        assert_eq!(session.sending.expose(), &responder_sends);
        assert_eq!(session.receiving.expose(), &initiator_sends);
        assert!(slot.is_empty());
    }
}

#[test]
fn recorded_cookie() {
    let received = Initiation::ref_from_bytes(&v::INITIATION).unwrap();
    let checker = checker(&v::RESPONDER_PUBLIC);
    assert_eq!(
        checker.validate_macs::<C, _>(received, &source(), true, 0),
        MacState::ValidMac1
    );
    let reply = checker
        .create_reply::<C, _>(received, &source(), v::COOKIE_NONCE, 0)
        .unwrap();
    assert_eq!(reply.as_bytes(), v::COOKIE_REPLY);

    let mut jar = CookieJar::new::<C>(&v::RESPONDER_PUBLIC);
    let mut message = *received;
    jar.add_macs::<C, _>(&mut message, 0);
    jar.consume_reply::<C>(&reply, 0).unwrap();
    jar.add_macs::<C, _>(&mut message, 0);
    assert_eq!(message.as_bytes(), v::INITIATION_WITH_COOKIE);
    assert_eq!(
        checker.validate_macs::<C, _>(&message, &source(), true, 0),
        MacState::ValidWithCookie
    );
}

/// What a responder that is not under load does with bytes from the wire.
fn receive_initiation(pair: &Pair, bytes: &[u8]) -> Result<(), Rejection> {
    let Message::Initiation(message) = Message::parse(bytes)? else {
        return Err(Rejection::UnknownType);
    };
    match checker(pair.responder.public()).validate_macs::<C, _>(message, &source(), false, 0) {
        MacState::Invalid => Err(Rejection::InvalidMac1),
        _ => pair.consume(message).map(|_| ()),
    }
}

fn receive_response(pair: &Pair, slot: &HandshakeSlot, bytes: &[u8]) -> Result<(), Rejection> {
    let Message::Response(message) = Message::parse(bytes)? else {
        return Err(Rejection::UnknownType);
    };
    match checker(pair.initiator.public()).validate_macs::<C, _>(message, &source(), false, 0) {
        MacState::Invalid => Err(Rejection::InvalidMac1),
        _ => pair.finish(slot, &secret([0; 32]), message).map(|_| ()),
    }
}

#[test]
fn no_bit_of_an_initiation_can_be_flipped() {
    let pair = Pair::new();
    assert_eq!(receive_initiation(&pair, &v::INITIATION), Ok(()));
    for at in 0..v::INITIATION.len() {
        for bit in 0..8 {
            let mut bytes = v::INITIATION;
            bytes[at] ^= 1 << bit;
            let result = receive_initiation(&pair, &bytes);
            match at {
                0..132 => assert!(result.is_err(), "byte {at} bit {bit}"),
                // mac2 counts only under load.
                _ => assert_eq!(result, Ok(())),
            }
        }
        // Anyone who knows the public key can recompute mac1, but cannot forge the rest.
        let mut bytes = v::INITIATION;
        bytes[at] ^= 0x10;
        let mut message = Initiation::read_from_bytes(&bytes).unwrap();
        CookieJar::new::<C>(pair.responder.public()).add_macs::<C, _>(&mut message, 0);
        let result = receive_initiation(&pair, message.as_bytes());
        match at {
            0..4 => assert_eq!(result, Err(Rejection::UnknownType)),
            // The sender's own index for the session: a wrong one harms nobody else.
            4..8 => assert_eq!(result, Ok(())),
            8..88 => assert_eq!(result, Err(Rejection::InvalidStatic)),
            88..116 => assert_eq!(result, Err(Rejection::InvalidTimestamp)),
            _ => assert_eq!(result, Ok(())),
        }
    }
}

#[test]
fn no_bit_of_a_response_can_be_flipped() {
    let pair = Pair::new();
    let (_, slot) = pair.started();
    assert_eq!(receive_response(&pair, &slot, &v::RESPONSE), Ok(()));
    for at in 0..v::RESPONSE.len() {
        for bit in 0..8 {
            let mut bytes = v::RESPONSE;
            bytes[at] ^= 1 << bit;
            let result = receive_response(&pair, &slot, &bytes);
            match at {
                0..76 => assert!(result.is_err(), "byte {at} bit {bit}"),
                _ => assert_eq!(result, Ok(())),
            }
        }
        let mut bytes = v::RESPONSE;
        bytes[at] ^= 0x10;
        let mut message = Response::read_from_bytes(&bytes).unwrap();
        CookieJar::new::<C>(pair.initiator.public()).add_macs::<C, _>(&mut message, 0);
        let result = receive_response(&pair, &slot, message.as_bytes());
        match at {
            0..4 => assert_eq!(result, Err(Rejection::UnknownType)),
            4..8 => assert_eq!(result, Ok(())),
            8..12 => assert_eq!(result, Err(Rejection::UnknownIndex)),
            12..60 => assert_eq!(result, Err(Rejection::InvalidResponse)),
            _ => assert_eq!(result, Ok(())),
        }
    }
}

#[test]
fn no_bit_of_a_cookie_reply_can_be_flipped() {
    let mut message = Initiation::read_from_bytes(&v::INITIATION).unwrap();
    let mut jar = CookieJar::new::<C>(&v::RESPONDER_PUBLIC);
    jar.add_macs::<C, _>(&mut message, 0);
    for at in 0..v::COOKIE_REPLY.len() {
        for bit in 0..8 {
            let mut bytes = v::COOKIE_REPLY;
            bytes[at] ^= 1 << bit;
            match (at, Message::parse(&bytes)) {
                (0..4, Err(_)) => {}
                // A different receiver index, which the driver's lookup rejects.
                (4..8, Ok(Message::CookieReply(reply))) => {
                    assert_ne!(reply.receiver_index(), v::INITIATOR_INDEX);
                }
                (8.., Ok(Message::CookieReply(reply))) => {
                    assert_eq!(
                        jar.consume_reply::<C>(reply, 0),
                        Err(Rejection::InvalidCookie)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // The genuine reply is still accepted afterwards.
    let reply = CookieReply::ref_from_bytes(&v::COOKIE_REPLY).unwrap();
    assert_eq!(jar.consume_reply::<C>(reply, 0), Ok(()));
}

#[test]
fn other_keys_do_not_fit() {
    let pair = Pair::new();
    let (message, slot) = pair.started();

    // Reflected to the sender, or sent to somebody else.
    assert_eq!(
        open_initiation::<C>(&pair.initiator, &message).unwrap_err(),
        Rejection::InvalidStatic
    );
    let stranger = identity([0x77; 32]);
    assert_eq!(
        open_initiation::<C>(&stranger, &message).unwrap_err(),
        Rejection::InvalidStatic
    );

    // Checked against another peer than the one it names.
    let other = PeerStatic::new::<C>(Some(&pair.responder), *stranger.public());
    let opened = open_initiation::<C>(&pair.responder, &message).unwrap();
    assert_eq!(
        opened.finish::<C>(&other).unwrap_err(),
        Rejection::UnknownPeer
    );

    // Another preshared key on either side.
    let accepted = pair.accepted(&message);
    let (response, _) = pair.respond(&accepted, &v::PSK);
    assert_eq!(
        pair.finish(&slot, &secret([0; 32]), &response).unwrap_err(),
        Rejection::InvalidResponse
    );
    assert!(pair.finish(&slot, &secret(v::PSK), &response).is_ok());

    // A responder without the private key that the initiation was made for.
    let forged = HandshakeSlot::new();
    assert_eq!(forged.responder().unwrap_err(), Rejection::WrongState);
}

#[test]
fn no_identity_from_zeros() {
    assert!(Identity::new::<C>(SecretKey::zeroed()).is_none());
    // Stored clamped, and the same key whether or not the input was clamped.
    let raw = identity([0xff; 32]);
    let mut clamped = secret([0xff; 32]);
    clamped.clamp();
    assert_eq!(raw.private().expose(), clamped.expose());
    assert_eq!(Identity::new::<C>(clamped).unwrap().public(), raw.public());
}

#[test]
fn low_order_points_get_silence() {
    let pair = Pair::new();
    for point in LOW_ORDER {
        for top in [0, 0x80] {
            let mut point = point;
            point[31] |= top;

            // As a peer's static key: the peer is kept, but nothing is sent.
            let peer = PeerStatic::new::<C>(Some(&pair.initiator), point);
            let made = create_initiation::<C>(
                &pair.initiator,
                &peer,
                secret(v::INITIATOR_EPHEMERAL),
                Tai64n::ZERO,
                1,
            );
            assert_eq!(made.unwrap_err(), Rejection::LowOrderPoint);

            // As the initiator's ephemeral key.
            let mut message = Initiation::read_from_bytes(&v::INITIATION).unwrap();
            message.ephemeral = point;
            assert_eq!(
                open_initiation::<C>(&pair.responder, &message).unwrap_err(),
                Rejection::LowOrderPoint
            );

            // As the responder's ephemeral key: the genuine response is still accepted.
            let (_, slot) = pair.started();
            let mut response = Response::read_from_bytes(&v::RESPONSE).unwrap();
            response.ephemeral = point;
            assert_eq!(
                pair.finish(&slot, &secret([0; 32]), &response).unwrap_err(),
                Rejection::LowOrderPoint
            );
            assert_eq!(receive_response(&pair, &slot, &v::RESPONSE), Ok(()));
        }
    }
}

/// An initiation of the holder of `public`, made with nothing of that but the point that it shares
/// with the responder's static key.
fn initiation_from_shared(pair: &Pair, public: &PublicKey, shared: &[u8; 32]) -> Initiation {
    let (ephemeral, to) = (secret(v::INITIATOR_EPHEMERAL), pair.responder.public());
    let mut message = Initiation::blank(1);
    message.ephemeral = C::x25519_base(&ephemeral).unwrap();

    let mut chain = secret(kdf::hash::<C>(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]));
    let mut hash = kdf::hash::<C>(&[chain.expose(), b"WireGuard v1 zx2c4 Jason@zx2c4.com"]);
    kdf::mix_hash::<C>(&mut hash, to);
    kdf::mix_hash::<C>(&mut hash, &message.ephemeral);
    kdf::mix_chain::<C>(&mut chain, &message.ephemeral);
    let key = kdf::mix_key::<C>(&mut chain, C::x25519(&ephemeral, to).unwrap().expose());
    assert!(C::seal(
        &mut message.encrypted_static,
        public,
        &hash,
        0,
        &key
    ));
    kdf::mix_hash::<C>(&mut hash, &message.encrypted_static);
    let key = kdf::mix_key::<C>(&mut chain, shared);
    let time = Tai64n::new(1, 0);
    assert!(C::seal(
        &mut message.encrypted_timestamp,
        time.as_bytes(),
        &hash,
        0,
        &key
    ));
    message
}

/// With a point of low order as its static key, a peer shares zeros with everybody: whoever knows
/// that could initiate in its name.
#[test]
fn nobody_initiates_for_a_static_key_of_low_order() {
    let pair = Pair::new();
    let public = pair.initiator.public();
    let shared = C::x25519(&secret(v::INITIATOR_PRIVATE), pair.responder.public()).unwrap();
    let genuine = initiation_from_shared(&pair, public, shared.expose());
    assert!(pair.consume(&genuine).is_ok());

    for point in LOW_ORDER {
        let message = initiation_from_shared(&pair, &point, &[0; 32]);
        let opened = open_initiation::<C>(&pair.responder, &message).unwrap();
        let peer = PeerStatic::new::<C>(Some(&pair.responder), point);
        assert_eq!(
            opened.finish::<C>(&peer).unwrap_err(),
            Rejection::LowOrderPoint
        );
    }
}

#[test]
fn without_an_identity_nothing_goes() {
    let pair = Pair::new();
    let mut peer = PeerStatic::new::<C>(None, v::RESPONDER_PUBLIC);
    let make = |peer: &PeerStatic| {
        create_initiation::<C>(&pair.initiator, peer, secret([1; 32]), Tai64n::ZERO, 1).map(|_| ())
    };
    assert_eq!(make(&peer), Err(Rejection::LowOrderPoint));
    peer.set_identity::<C>(Some(&pair.initiator));
    assert_eq!(make(&peer), Ok(()));
    assert_eq!(make(&peer.duplicate()), Ok(()));

    let mut checker = checker(&v::RESPONDER_PUBLIC);
    let message = Initiation::ref_from_bytes(&v::INITIATION).unwrap();
    checker.set_identity::<C>(None);
    assert_eq!(
        checker.validate_macs::<C, _>(message, &source(), false, 0),
        MacState::Invalid
    );
    let reply = checker.create_reply::<C, _>(message, &source(), [0; 24], 0);
    assert_eq!(reply.unwrap_err(), Rejection::NoIdentity);
}

#[test]
fn timestamps_must_grow_and_survive() {
    let pair = Pair::new();
    let mut slot = HandshakeSlot::new();
    let mut now = NS_PER_SEC;
    let mut accept = |slot: &mut HandshakeSlot, secs: i64, nanos: u32, wait: u64| {
        now += wait;
        let (message, _) = pair.initiate_at(Tai64n::new(secs, nanos), 1);
        slot.accept_initiation(pair.consume(&message).unwrap(), now)
    };
    let long = NS_PER_SEC;
    assert_eq!(accept(&mut slot, 100, 0, long), Ok(()));
    assert_eq!(
        accept(&mut slot, 100, 0, long),
        Err(Rejection::ReplayedInitiation)
    );
    assert_eq!(
        accept(&mut slot, 99, 999_999_999, long),
        Err(Rejection::ReplayedInitiation)
    );
    // Equal after rounding down.
    assert_eq!(
        accept(&mut slot, 100, (1 << 24) - 1, long),
        Err(Rejection::ReplayedInitiation)
    );
    assert_eq!(accept(&mut slot, 100, 1 << 24, long), Ok(()));
    // Link down and up again.
    let _ = slot.clear();
    assert_eq!(
        accept(&mut slot, 100, 1 << 24, long),
        Err(Rejection::ReplayedInitiation)
    );
    assert!(slot.is_empty());

    // Fifty per second: one every 20 ms, and a refused one does not count.
    assert_eq!(accept(&mut slot, 101, 0, long), Ok(()));
    assert_eq!(
        accept(&mut slot, 102, 0, 20 * NS_PER_MS - 1),
        Err(Rejection::InitiationFlood)
    );
    assert_eq!(slot.latest_timestamp(), Tai64n::new(101, 0));
    assert_eq!(accept(&mut slot, 102, 0, 1), Ok(()));
    let _ = slot.clear();
    assert_eq!(
        accept(&mut slot, 103, 0, 1),
        Err(Rejection::InitiationFlood)
    );
}

#[test]
fn what_was_computed_from_an_older_slot_is_refused() {
    let pair = Pair::new();
    let none = secret([0; 32]);
    let response = Response::ref_from_bytes(&v::RESPONSE).unwrap();
    let early = Tai64n::new(1, 0);
    let (theirs, _) = pair.initiate_at(early, 77);

    type Change<'a> = &'a dyn Fn(&mut HandshakeSlot);
    let again: Change<'_> = &|slot| {
        let released = slot.commit_initiation(pair.initiate_at(early, 5).1);
        assert_eq!(released, ReleasedIndex(Some(v::INITIATOR_INDEX)));
    };
    let consume: Change<'_> = &|slot| {
        // Not an initiation to us, but the slot does not check that.
        let consumed = pair.consume(&theirs).unwrap();
        slot.accept_initiation(consumed, NS_PER_SEC).unwrap();
        assert_eq!(slot.local_index(), Some(v::INITIATOR_INDEX));
    };
    let clear: Change<'_> = &|slot| {
        assert_eq!(slot.clear(), ReleasedIndex(Some(v::INITIATOR_INDEX)));
    };
    for change in [again, consume, clear] {
        let (_, mut slot) = pair.started();
        let late = pair.finish(&slot, &none, response).unwrap();
        change(&mut slot);
        assert_eq!(slot.establish(late).unwrap_err(), Rejection::Superseded);
        assert!(pair.finish(&slot, &none, response).is_err());
    }

    // The same response twice.
    let (_, mut slot) = pair.started();
    let first = pair.finish(&slot, &none, response).unwrap();
    let second = pair.finish(&slot, &none, response).unwrap();
    assert!(slot.establish(first).is_ok());
    assert_eq!(slot.local_index(), None);
    assert_eq!(slot.establish(second).unwrap_err(), Rejection::Superseded);
    assert_eq!(slot.initiator().unwrap_err(), Rejection::WrongState);
    assert_eq!(slot.responder().unwrap_err(), Rejection::WrongState);

    // A response to an initiation that has been replaced since.
    let (message, _) = pair.initiate();
    let mut slot = pair.accepted(&message);
    let (_, late) = pair.respond(&slot, &[0; 32]);
    let (newer, _) = pair.initiate_at(Tai64n::new(v::SECONDS + 1, 0), 6);
    let consumed = pair.consume(&newer).unwrap();
    slot.accept_initiation(consumed, 2 * NS_PER_SEC).unwrap();
    assert_eq!(slot.establish(late).unwrap_err(), Rejection::Superseded);
    let (_, fresh) = pair.respond(&slot, &[0; 32]);
    assert_eq!(slot.establish(fresh).unwrap().0.remote_index, 6);
}

#[test]
fn responding_releases_the_index_of_our_own_initiation() {
    let pair = Pair::new();
    let (message, mut slot) = pair.started();
    let consumed = pair.consume(&message).unwrap();
    slot.accept_initiation(consumed, NS_PER_SEC).unwrap();
    let (_, established) = pair.respond(&slot, &[0; 32]);
    let (session, released) = slot.establish(established).unwrap();
    assert_eq!(session.local_index, v::RESPONDER_INDEX);
    assert_eq!(released, ReleasedIndex(Some(v::INITIATOR_INDEX)));
}

#[test]
fn cookies_are_bound_to_address_and_port() {
    let checker = checker(&v::RESPONDER_PUBLIC);
    let message = Initiation::ref_from_bytes(&v::INITIATION_WITH_COOKIE).unwrap();
    let port = 51820u16.to_be_bytes();
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7];
    for (source, state) in [
        (source(), MacState::ValidWithCookie),
        (
            Source::v4([192, 0, 2, 7], 51821u16.to_be_bytes()),
            MacState::ValidMac1,
        ),
        (Source::v4([192, 0, 2, 8], port), MacState::ValidMac1),
        (Source::v6(mapped, port), MacState::ValidMac1),
    ] {
        assert_eq!(
            checker.validate_macs::<C, _>(message, &source, true, 0),
            state
        );
        // When not under load, the second MAC is ignored.
        assert_eq!(
            checker.validate_macs::<C, _>(message, &source, false, 0),
            MacState::ValidMac1
        );
    }

    // The same for IPv6, from the cookie reply to its use.
    let address = Source::v6(mapped, port);
    let mut jar = CookieJar::new::<C>(&v::RESPONDER_PUBLIC);
    let mut message = Initiation::read_from_bytes(&v::INITIATION).unwrap();
    jar.add_macs::<C, _>(&mut message, 0);
    let reply = checker
        .create_reply::<C, _>(&message, &address, [5; 24], 0)
        .unwrap();
    jar.consume_reply::<C>(&reply, 0).unwrap();
    jar.add_macs::<C, _>(&mut message, 0);
    for (source, state) in [
        (address, MacState::ValidWithCookie),
        (Source::v6(mapped, [0, 1]), MacState::ValidMac1),
        (source(), MacState::ValidMac1),
    ] {
        assert_eq!(
            checker.validate_macs::<C, _>(&message, &source, true, 0),
            state
        );
    }
}

#[test]
fn cookie_secrets_rotate() {
    let mut checker = checker(&v::RESPONDER_PUBLIC);
    let message = Initiation::ref_from_bytes(&v::INITIATION_WITH_COOKIE).unwrap();
    let end = 120 * NS_PER_SEC;
    let state =
        |checker: &CookieChecker, now| checker.validate_macs::<C, _>(message, &source(), true, now);
    assert!(!checker.needs_rotation(end - 1));
    assert_eq!(state(&checker, end - 1), MacState::ValidWithCookie);
    assert!(checker.needs_rotation(end));
    assert_eq!(state(&checker, end), MacState::ValidMac1);
    let late = checker.create_reply::<C, _>(message, &source(), [0; 24], end);
    assert_eq!(late.unwrap_err(), Rejection::InvalidCookie);

    checker.rotate(secret([8; 32]), end);
    assert!(!checker.needs_rotation(end + 1));
    assert_eq!(state(&checker, end + 1), MacState::ValidMac1);
    assert!(checker
        .create_reply::<C, _>(message, &source(), [0; 24], end)
        .is_ok());
}

#[test]
fn cookies_are_used_for_a_while_and_taken_once() {
    let checker = checker(&v::RESPONDER_PUBLIC);
    let mut jar = CookieJar::new::<C>(&v::RESPONDER_PUBLIC);
    let reply = CookieReply::ref_from_bytes(&v::COOKIE_REPLY).unwrap();
    assert_eq!(
        jar.consume_reply::<C>(reply, 0),
        Err(Rejection::UnexpectedCookie)
    );

    let mut message = Initiation::read_from_bytes(&v::INITIATION).unwrap();
    jar.add_macs::<C, _>(&mut message, 0);
    assert_eq!(message.macs().mac2, [0; 16]);
    assert_eq!(jar.consume_reply::<C>(reply, NS_PER_SEC), Ok(()));
    assert_eq!(
        jar.consume_reply::<C>(reply, NS_PER_SEC),
        Err(Rejection::UnexpectedCookie)
    );

    jar.add_macs::<C, _>(&mut message, 116 * NS_PER_SEC - 1);
    assert_ne!(message.macs().mac2, [0; 16]);
    jar.add_macs::<C, _>(&mut message, 116 * NS_PER_SEC);
    assert_eq!(message.macs().mac2, [0; 16]);

    // A reply to a message before the last one does not authenticate.
    let mut other = message;
    other.ephemeral = [1; 32];
    jar.add_macs::<C, _>(&mut other, 0);
    assert_eq!(
        jar.consume_reply::<C>(reply, 0),
        Err(Rejection::InvalidCookie)
    );

    // Responses are answered with cookie replies, too.
    let mut response = Response::read_from_bytes(&v::RESPONSE).unwrap();
    jar.add_macs::<C, _>(&mut response, 0);
    let reply = checker
        .create_reply::<C, _>(&response, &source(), [6; 24], 0)
        .unwrap();
    assert_eq!(reply.receiver_index(), v::RESPONDER_INDEX);
    jar.consume_reply::<C>(&reply, 0).unwrap();
    jar.add_macs::<C, _>(&mut response, 0);
    assert_eq!(
        checker.validate_macs::<C, _>(&response, &source(), true, 0),
        MacState::ValidWithCookie
    );
}

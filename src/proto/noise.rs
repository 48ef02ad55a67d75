// SPDX-License-Identifier: GPL-2.0-only

//! The handshake, Noise_IKpsk2 (whitepaper, section 5.4; <https://noiseprotocol.org>):
//!
//! ```text
//! initiation:  -> e, es, s, ss, {t}
//! response:    <- e, ee, se, psk, {}
//! ```
//!
//! The functions here are pure: each takes a snapshot and a message and returns the next state,
//! which the driver commits to [`super::handshake::HandshakeSlot`]. An initiator calls
//! [`create_initiation`] and [`consume_response`]; a responder calls [`open_initiation`],
//! [`OpenedInitiation::finish`] and [`create_response`].
//!
//! The device's identity must not change between computing and committing: the driver commits only
//! if the identity that it computed with is still current, under the lock that protects it.

use super::consts::{HASH_LEN, KEY_LEN, TAG_LEN, TIMESTAMP_LEN};
use super::crypto::{Crypto, PublicKey, Secret, SecretKey, SymmetricKey};
use super::kdf;
use super::messages::{HandshakeMessage, Initiation, Response};
use super::tai64n::Tai64n;
use super::Rejection;

/// The hash of `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`: the first chaining key.
const INITIAL_CHAINING_KEY: [u8; HASH_LEN] = [
    0x60, 0xe2, 0x6d, 0xae, 0xf3, 0x27, 0xef, 0xc0, 0x2e, 0xc3, 0x35, 0xe2, 0xa0, 0x25, 0xd2, 0xd0,
    0x16, 0xeb, 0x42, 0x06, 0xf8, 0x72, 0x77, 0xf5, 0x2d, 0x38, 0xd1, 0x98, 0x8b, 0x78, 0xcd, 0x36,
];

/// The hash of the first chaining key and `WireGuard v1 zx2c4 Jason@zx2c4.com`.
const INITIAL_HASH: [u8; HASH_LEN] = [
    0x22, 0x11, 0xb3, 0x61, 0x08, 0x1a, 0xc5, 0x66, 0x69, 0x12, 0x43, 0xdb, 0x45, 0x8a, 0xd5, 0x32,
    0x2d, 0x9c, 0x6c, 0x66, 0x22, 0x93, 0xe8, 0xb7, 0x0e, 0xe1, 0x9c, 0x65, 0xba, 0x07, 0x9e, 0xf3,
];

/// The nonce of every sealed part of a handshake: each has its own key.
const NONCE: u64 = 0;

/// A device's static key pair.
#[derive(Debug)]
pub struct Identity {
    private: SecretKey,
    public: PublicKey,
}

impl Identity {
    /// Clamps the private key and derives the public one. `None` if the private key is all
    /// zeros, which is how userspace says that there is none.
    pub fn new<C: Crypto>(mut private: SecretKey) -> Option<Self> {
        if private.is_zero() {
            return None;
        }
        private.clamp();
        let public = C::x25519_base(&private)?;
        Some(Self { private, public })
    }

    /// The clamped private key.
    pub const fn private(&self) -> &SecretKey {
        &self.private
    }

    /// The public key.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// A peer's static public key, and its shared secret with the device's identity. Computed once
/// per peer and change of identity, because a Diffie-Hellman is expensive.
#[derive(Debug)]
pub struct PeerStatic {
    public: PublicKey,
    /// All zeros if there is no identity or the public key is a point of low order. Such a peer
    /// is kept, but nothing is ever sent to it or accepted from it.
    static_static: SecretKey,
}

impl PeerStatic {
    /// The peer with this public key, as seen by `identity`.
    pub fn new<C: Crypto>(identity: Option<&Identity>, public: PublicKey) -> Self {
        let mut peer = Self {
            public,
            static_static: SecretKey::zeroed(),
        };
        peer.set_identity::<C>(identity);
        peer
    }

    /// Recomputes the shared point after a change of the device's identity.
    pub fn set_identity<C: Crypto>(&mut self, identity: Option<&Identity>) {
        self.static_static = identity
            .and_then(|identity| C::x25519(&identity.private, &self.public))
            .unwrap_or_default();
    }

    /// The peer's public key.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A copy, so that a handshake can be computed without the lock that protects the original.
    pub const fn duplicate(&self) -> Self {
        Self {
            public: self.public,
            static_static: self.static_static.duplicate(),
        }
    }

    fn static_static(&self) -> Result<&SecretKey, Rejection> {
        if self.static_static.is_zero() {
            Err(Rejection::LowOrderPoint)
        } else {
            Ok(&self.static_static)
        }
    }
}

/// Noise's symmetric state: the chaining key and the hash of the transcript.
#[derive(Debug)]
struct Symmetric {
    chaining_key: SymmetricKey,
    hash: Secret<HASH_LEN>,
}

impl Symmetric {
    /// The start of a handshake with a responder who has this static key.
    fn new<C: Crypto>(responder: &PublicKey) -> Self {
        let mut state = Self {
            chaining_key: Secret::from_bytes(INITIAL_CHAINING_KEY),
            hash: Secret::from_bytes(INITIAL_HASH),
        };
        state.mix_hash::<C>(responder);
        state
    }

    fn duplicate(&self) -> Self {
        Self {
            chaining_key: self.chaining_key.duplicate(),
            hash: self.hash.duplicate(),
        }
    }

    fn mix_hash<C: Crypto>(&mut self, data: &[u8]) {
        kdf::mix_hash::<C>(self.hash.expose_mut(), data);
    }

    /// Mixes an ephemeral public key into the hash and, as a handshake with a preshared key
    /// requires (Noise, section 9.2), into the chaining key.
    fn mix_ephemeral<C: Crypto>(&mut self, public: &PublicKey) {
        self.mix_hash::<C>(public);
        kdf::mix_chain::<C>(&mut self.chaining_key, public);
    }

    /// Mixes in a Diffie-Hellman result and returns a key.
    fn mix_dh<C: Crypto>(
        &mut self,
        secret: &SecretKey,
        public: &PublicKey,
    ) -> Result<SymmetricKey, Rejection> {
        let shared = C::x25519(secret, public).ok_or(Rejection::LowOrderPoint)?;
        Ok(self.mix_shared::<C>(&shared))
    }

    fn mix_shared<C: Crypto>(&mut self, shared: &SecretKey) -> SymmetricKey {
        kdf::mix_key::<C>(&mut self.chaining_key, shared.expose())
    }

    /// Mixes in a Diffie-Hellman result. Its key is not used: the preshared key's replaces it.
    fn mix_dh_chain<C: Crypto>(
        &mut self,
        secret: &SecretKey,
        public: &PublicKey,
    ) -> Result<(), Rejection> {
        let shared = C::x25519(secret, public).ok_or(Rejection::LowOrderPoint)?;
        kdf::mix_chain::<C>(&mut self.chaining_key, shared.expose());
        Ok(())
    }

    fn mix_psk<C: Crypto>(&mut self, psk: &SymmetricKey) -> SymmetricKey {
        kdf::mix_psk::<C>(&mut self.chaining_key, self.hash.expose_mut(), psk)
    }

    /// Seals `plain` into `sealed`. Returns `failure` if the lengths do not fit, which does not
    /// happen here.
    fn seal<C: Crypto>(
        &mut self,
        key: &SymmetricKey,
        plain: &[u8],
        sealed: &mut [u8],
        failure: Rejection,
    ) -> Result<(), Rejection> {
        if !C::seal(sealed, plain, self.hash.expose(), NONCE, key) {
            return Err(failure);
        }
        self.mix_hash::<C>(sealed);
        Ok(())
    }

    /// Opens `sealed` into `plain`. Returns `failure` if it does not authenticate.
    fn open<C: Crypto>(
        &mut self,
        key: &SymmetricKey,
        sealed: &[u8],
        plain: &mut [u8],
        failure: Rejection,
    ) -> Result<(), Rejection> {
        if !C::open(plain, sealed, self.hash.expose(), NONCE, key) {
            return Err(failure);
        }
        self.mix_hash::<C>(sealed);
        Ok(())
    }

    /// The keys of the session: the initiator's sending key and the responder's.
    fn split<C: Crypto>(self) -> (SymmetricKey, SymmetricKey) {
        kdf::kdf2::<C>(&self.chaining_key, &[])
    }
}

/// Our role in the handshake that established a session. The initiator is the one who rekeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We sent the initiation.
    Initiator,
    /// We sent the response.
    Responder,
}

/// What a handshake yields: two keys and two indices. Erased on drop.
#[derive(Debug)]
pub struct Session {
    /// Our role.
    pub role: Role,
    /// Our index.
    pub local_index: u32,
    /// The peer's index.
    pub remote_index: u32,
    /// The key for what we send.
    pub sending: SymmetricKey,
    /// The key for what we receive.
    pub receiving: SymmetricKey,
}

/// The initiator's state between initiation and response.
#[derive(Debug)]
pub struct InitiatorHandshake {
    symmetric: Symmetric,
    ephemeral: SecretKey,
    local_index: u32,
    /// Set when the slot takes it; a snapshot of an older generation is refused.
    pub(super) generation: u64,
}

impl InitiatorHandshake {
    /// Our index.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    pub(super) fn duplicate(&self) -> Self {
        Self {
            symmetric: self.symmetric.duplicate(),
            ephemeral: self.ephemeral.duplicate(),
            local_index: self.local_index,
            generation: self.generation,
        }
    }
}

/// The responder's state between initiation and response.
#[derive(Debug)]
pub struct ResponderHandshake {
    symmetric: Symmetric,
    remote_static: PublicKey,
    remote_ephemeral: PublicKey,
    remote_index: u32,
    /// Set when the slot takes it; a snapshot of an older generation is refused.
    pub(super) generation: u64,
}

impl ResponderHandshake {
    pub(super) fn duplicate(&self) -> Self {
        Self {
            symmetric: self.symmetric.duplicate(),
            remote_static: self.remote_static,
            remote_ephemeral: self.remote_ephemeral,
            remote_index: self.remote_index,
            generation: self.generation,
        }
    }
}

/// A finished handshake that is still to be committed.
#[derive(Debug)]
pub struct Established {
    pub(super) session: Session,
    pub(super) generation: u64,
}

/// Makes an initiation. The MACs are still to be filled in ([`super::cookie::CookieJar`]) and
/// the state is still to be committed.
///
/// `ephemeral` is 32 random bytes, `sender_index` a fresh index.
///
/// # Errors
///
/// [`Rejection::LowOrderPoint`] if the peer's key is a point of low order;
/// [`Rejection::NoIdentity`] if the ephemeral key has no public key, which cannot happen once it
/// is clamped.
#[inline(never)]
pub fn create_initiation<C: Crypto>(
    identity: &Identity,
    peer: &PeerStatic,
    mut ephemeral: SecretKey,
    timestamp: Tai64n,
    sender_index: u32,
) -> Result<(Initiation, InitiatorHandshake), Rejection> {
    let mut message = Initiation::blank(sender_index);
    let mut symmetric = Symmetric::new::<C>(&peer.public);

    // e
    ephemeral.clamp();
    message.ephemeral = C::x25519_base(&ephemeral).ok_or(Rejection::NoIdentity)?;
    symmetric.mix_ephemeral::<C>(&message.ephemeral);

    // es
    let key = symmetric.mix_dh::<C>(&ephemeral, &peer.public)?;

    // s
    symmetric.seal::<C>(
        &key,
        &identity.public,
        &mut message.encrypted_static,
        Rejection::InvalidStatic,
    )?;

    // ss
    let key = symmetric.mix_shared::<C>(peer.static_static()?);

    // {t}
    symmetric.seal::<C>(
        &key,
        timestamp.as_bytes(),
        &mut message.encrypted_timestamp,
        Rejection::InvalidTimestamp,
    )?;

    let handshake = InitiatorHandshake {
        symmetric,
        ephemeral,
        local_index: sender_index,
        generation: 0,
    };
    Ok((message, handshake))
}

/// An initiation of which only the claimed sender is known so far.
#[derive(Debug)]
pub struct OpenedInitiation {
    symmetric: Symmetric,
    remote_static: PublicKey,
    remote_ephemeral: PublicKey,
    remote_index: u32,
    encrypted_timestamp: [u8; TIMESTAMP_LEN + TAG_LEN],
}

/// An authentic initiation that is still to be checked for replay and committed.
#[derive(Debug)]
pub struct ConsumedInitiation {
    pub(super) timestamp: Tai64n,
    pub(super) handshake: ResponderHandshake,
}

/// Decrypts the sender's static key in an initiation, so that the peer can be looked up.
///
/// # Errors
///
/// [`Rejection::LowOrderPoint`] for an ephemeral key of low order, [`Rejection::InvalidStatic`] if
/// the sender's static key does not authenticate.
#[inline(never)]
pub fn open_initiation<C: Crypto>(
    identity: &Identity,
    message: &Initiation,
) -> Result<OpenedInitiation, Rejection> {
    let mut symmetric = Symmetric::new::<C>(&identity.public);

    // e
    symmetric.mix_ephemeral::<C>(&message.ephemeral);

    // es
    let key = symmetric.mix_dh::<C>(&identity.private, &message.ephemeral)?;

    // s
    let mut remote_static = [0; KEY_LEN];
    symmetric.open::<C>(
        &key,
        &message.encrypted_static,
        &mut remote_static,
        Rejection::InvalidStatic,
    )?;

    Ok(OpenedInitiation {
        symmetric,
        remote_static,
        remote_ephemeral: message.ephemeral,
        remote_index: message.sender_index(),
        encrypted_timestamp: message.encrypted_timestamp,
    })
}

impl OpenedInitiation {
    /// The sender's static public key.
    pub const fn remote_static(&self) -> &PublicKey {
        &self.remote_static
    }

    /// Authenticates the sender. `peer` is the one whose key is [`Self::remote_static`].
    ///
    /// # Errors
    ///
    /// [`Rejection::UnknownPeer`] if `peer` is a different one, [`Rejection::LowOrderPoint`] for a
    /// key of low order, [`Rejection::InvalidTimestamp`] if the timestamp does not authenticate.
    #[inline(never)]
    pub fn finish<C: Crypto>(mut self, peer: &PeerStatic) -> Result<ConsumedInitiation, Rejection> {
        if self.remote_static != peer.public {
            return Err(Rejection::UnknownPeer);
        }

        // ss
        let key = self.symmetric.mix_shared::<C>(peer.static_static()?);

        // {t}
        let mut timestamp = [0; TIMESTAMP_LEN];
        self.symmetric.open::<C>(
            &key,
            &self.encrypted_timestamp,
            &mut timestamp,
            Rejection::InvalidTimestamp,
        )?;

        Ok(ConsumedInitiation {
            timestamp: Tai64n::from_bytes(timestamp),
            handshake: ResponderHandshake {
                symmetric: self.symmetric,
                remote_static: self.remote_static,
                remote_ephemeral: self.remote_ephemeral,
                remote_index: self.remote_index,
                generation: 0,
            },
        })
    }
}

/// Makes the response to a consumed initiation, and the resulting session. The MACs are still to
/// be filled in and the session is still to be committed.
///
/// `ephemeral` is 32 random bytes, `psk` the preshared key or zeros, `sender_index` a fresh
/// index.
///
/// # Errors
///
/// [`Rejection::LowOrderPoint`] if one of the initiator's keys is a point of low order.
#[inline(never)]
pub fn create_response<C: Crypto>(
    handshake: &ResponderHandshake,
    mut ephemeral: SecretKey,
    psk: &SymmetricKey,
    sender_index: u32,
) -> Result<(Response, Established), Rejection> {
    let mut message = Response::blank(sender_index, handshake.remote_index);
    let mut symmetric = handshake.symmetric.duplicate();

    // e
    ephemeral.clamp();
    message.ephemeral = C::x25519_base(&ephemeral).ok_or(Rejection::NoIdentity)?;
    symmetric.mix_ephemeral::<C>(&message.ephemeral);

    // ee
    symmetric.mix_dh_chain::<C>(&ephemeral, &handshake.remote_ephemeral)?;

    // se
    symmetric.mix_dh_chain::<C>(&ephemeral, &handshake.remote_static)?;

    // psk
    let key = symmetric.mix_psk::<C>(psk);

    // {}
    symmetric.seal::<C>(
        &key,
        &[],
        &mut message.encrypted_nothing,
        Rejection::InvalidResponse,
    )?;

    let (receiving, sending) = symmetric.split::<C>();
    let session = Session {
        role: Role::Responder,
        local_index: sender_index,
        remote_index: handshake.remote_index,
        sending,
        receiving,
    };
    let established = Established {
        session,
        generation: handshake.generation,
    };
    Ok((message, established))
}

/// Authenticates the response to our initiation and returns the resulting session, which is still
/// to be committed.
///
/// # Errors
///
/// [`Rejection::UnknownIndex`] if the response answers another initiation,
/// [`Rejection::LowOrderPoint`] for an ephemeral key of low order, [`Rejection::InvalidResponse`]
/// if it does not authenticate.
#[inline(never)]
pub fn consume_response<C: Crypto>(
    identity: &Identity,
    handshake: &InitiatorHandshake,
    psk: &SymmetricKey,
    message: &Response,
) -> Result<Established, Rejection> {
    if message.receiver_index() != handshake.local_index {
        return Err(Rejection::UnknownIndex);
    }
    let mut symmetric = handshake.symmetric.duplicate();

    // e
    symmetric.mix_ephemeral::<C>(&message.ephemeral);

    // ee
    symmetric.mix_dh_chain::<C>(&handshake.ephemeral, &message.ephemeral)?;

    // se
    symmetric.mix_dh_chain::<C>(&identity.private, &message.ephemeral)?;

    // psk
    let key = symmetric.mix_psk::<C>(psk);

    // {}
    symmetric.open::<C>(
        &key,
        &message.encrypted_nothing,
        &mut [],
        Rejection::InvalidResponse,
    )?;

    let (sending, receiving) = symmetric.split::<C>();
    let session = Session {
        role: Role::Initiator,
        local_index: handshake.local_index,
        remote_index: message.sender_index(),
        sending,
        receiving,
    };
    Ok(Established {
        session,
        generation: handshake.generation,
    })
}

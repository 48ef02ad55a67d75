// SPDX-License-Identifier: GPL-2.0-only

//! The two MACs of handshake messages and the cookies behind the second one (whitepaper,
//! sections 5.3, 5.4.4 and 5.4.7).
//!
//! [`CookieChecker`] is the device's side: it checks MACs and hands out cookies.
//! [`CookieJar`] is a peer's side: it fills in MACs and keeps the cookie that the peer gave.

use super::consts::{COOKIE_LEN, COOKIE_MAX_AGE_NS, COOKIE_SECRET_MAX_AGE_NS, KEY_LEN, XNONCE_LEN};
use super::crypto::{Crypto, PublicKey, Secret, SymmetricKey};
use super::kdf;
use super::messages::{CookieReply, HandshakeMessage};
use super::Rejection;

const MAC1_LABEL: &[u8; 8] = b"mac1----";
const COOKIE_LABEL: &[u8; 8] = b"cookie--";

/// Size of the longest source: an IPv6 address and a port, in bytes.
const SOURCE_MAX_LEN: usize = 18;

/// Where a message came from: the address and the port that a cookie is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    bytes: [u8; SOURCE_MAX_LEN],
    len: usize,
}

impl Source {
    /// An IPv4 address and a port, both in network order.
    pub fn v4(address: [u8; 4], port: [u8; 2]) -> Self {
        Self::concat(&address, port)
    }

    /// An IPv6 address and a port, both in network order.
    pub fn v6(address: [u8; 16], port: [u8; 2]) -> Self {
        Self::concat(&address, port)
    }

    fn concat(address: &[u8], port: [u8; 2]) -> Self {
        let mut bytes = [0; SOURCE_MAX_LEN];
        for (to, from) in bytes.iter_mut().zip(address.iter().chain(&port)) {
            *to = *from;
        }
        Self {
            bytes,
            len: address.len().saturating_add(port.len()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// The result of checking the MACs of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacState {
    /// The first MAC is wrong: drop the message silently.
    Invalid,
    /// Only the first MAC is valid. That is enough unless we are under load, when the message is
    /// answered with a cookie reply.
    ValidMac1,
    /// Both are valid: the sender owns its address. Still subject to the rate limit.
    ValidWithCookie,
}

/// The keys that belong to one static public key.
#[derive(Debug)]
struct MacKeys {
    mac1: SymmetricKey,
    cookie: SymmetricKey,
}

impl MacKeys {
    fn new<C: Crypto>(public: &PublicKey) -> Self {
        let key = |label: &[u8]| Secret::take(&mut kdf::hash::<C>(&[label, public]));
        Self {
            mac1: key(MAC1_LABEL),
            cookie: key(COOKIE_LABEL),
        }
    }

    fn duplicate(&self) -> Self {
        Self {
            mac1: self.mac1.duplicate(),
            cookie: self.cookie.duplicate(),
        }
    }

    fn mac1<C: Crypto, M: HandshakeMessage>(&self, message: &M) -> [u8; COOKIE_LEN] {
        C::mac(self.mac1.expose(), message.mac1_input())
    }
}

fn mac2<C: Crypto, M: HandshakeMessage>(
    cookie: &Secret<COOKIE_LEN>,
    message: &M,
) -> [u8; COOKIE_LEN] {
    C::mac(cookie.expose(), message.mac2_input())
}

/// Checks the MACs of the handshake messages a device receives and makes its cookie replies.
///
/// The driver publishes it to many readers; [`CookieChecker::rotate`] and
/// [`CookieChecker::set_identity`] change a [`CookieChecker::duplicate`], published in its place.
#[derive(Debug)]
pub struct CookieChecker {
    /// None without an identity: then no MAC is valid.
    keys: Option<MacKeys>,
    secret: Secret<KEY_LEN>,
    secret_birthdate: u64,
}

impl CookieChecker {
    /// A checker without an identity. `secret` is 32 random bytes.
    pub const fn new(secret: Secret<KEY_LEN>, now: u64) -> Self {
        Self {
            keys: None,
            secret,
            secret_birthdate: now,
        }
    }

    /// A second copy, to be changed and published in the place of this one.
    pub fn duplicate(&self) -> Self {
        Self {
            keys: self.keys.as_ref().map(MacKeys::duplicate),
            secret: self.secret.duplicate(),
            secret_birthdate: self.secret_birthdate,
        }
    }

    /// Recomputes the keys after a change of the device's identity.
    pub fn set_identity<C: Crypto>(&mut self, public: Option<&PublicKey>) {
        self.keys = public.map(MacKeys::new::<C>);
    }

    /// Whether the secret is due for [`CookieChecker::rotate`]. Under load, check this before each
    /// message: an expired secret neither validates nor makes cookies.
    pub const fn needs_rotation(&self, now: u64) -> bool {
        now.saturating_sub(self.secret_birthdate) >= COOKIE_SECRET_MAX_AGE_NS
    }

    /// Replaces the secret with 32 fresh random bytes. This invalidates all cookies issued so far.
    pub fn rotate(&mut self, secret: Secret<KEY_LEN>, now: u64) {
        self.secret = secret;
        self.secret_birthdate = now;
    }

    /// Checks the MACs of a message; the second one only under load.
    pub fn validate_macs<C: Crypto, M: HandshakeMessage>(
        &self,
        message: &M,
        source: &Source,
        under_load: bool,
        now: u64,
    ) -> MacState {
        let Some(keys) = &self.keys else {
            return MacState::Invalid;
        };
        if !C::ct_eq(&keys.mac1::<C, M>(message), &message.macs().mac1) {
            return MacState::Invalid;
        }
        if !under_load || self.needs_rotation(now) {
            return MacState::ValidMac1;
        }
        let expected = mac2::<C, M>(&self.cookie::<C>(source), message);
        if C::ct_eq(&expected, &message.macs().mac2) {
            MacState::ValidWithCookie
        } else {
            MacState::ValidMac1
        }
    }

    /// Makes the reply to a message whose first MAC is valid. `nonce` is 24 random bytes.
    ///
    /// # Errors
    ///
    /// [`Rejection::NoIdentity`] without an identity; [`Rejection::InvalidCookie`] if the secret is
    /// due for rotation, because the cookie would be invalid on arrival.
    pub fn create_reply<C: Crypto, M: HandshakeMessage>(
        &self,
        message: &M,
        source: &Source,
        nonce: [u8; XNONCE_LEN],
        now: u64,
    ) -> Result<CookieReply, Rejection> {
        let keys = self.keys.as_ref().ok_or(Rejection::NoIdentity)?;
        if self.needs_rotation(now) {
            return Err(Rejection::InvalidCookie);
        }
        let mut reply = CookieReply::blank(message.sender_index(), nonce);
        let cookie = self.cookie::<C>(source);
        let sealed = C::xseal(
            &mut reply.encrypted_cookie,
            cookie.expose(),
            &message.macs().mac1,
            &nonce,
            &keys.cookie,
        );
        if sealed {
            Ok(reply)
        } else {
            Err(Rejection::InvalidCookie)
        }
    }

    fn cookie<C: Crypto>(&self, source: &Source) -> Secret<COOKIE_LEN> {
        Secret::take(&mut C::mac(self.secret.expose(), source.as_bytes()))
    }
}

/// Fills in the MACs of the messages sent to one peer and keeps the cookie that it gave us. The
/// driver keeps it under a per-peer lock.
#[derive(Debug)]
pub struct CookieJar {
    keys: MacKeys,
    /// The first MAC of our last message, if no cookie reply to it has arrived yet.
    last_mac1: Option<[u8; COOKIE_LEN]>,
    cookie: Option<(Secret<COOKIE_LEN>, u64)>,
}

impl CookieJar {
    /// The jar of the peer with this static public key.
    #[inline(never)]
    pub fn new<C: Crypto>(public: &PublicKey) -> Self {
        Self {
            keys: MacKeys::new::<C>(public),
            last_mac1: None,
            cookie: None,
        }
    }

    /// Fills in both MACs, the second one only if we have a cookie that is still fresh.
    pub fn add_macs<C: Crypto, M: HandshakeMessage>(&mut self, message: &mut M, now: u64) {
        let mac1 = self.keys.mac1::<C, M>(message);
        message.macs_mut().mac1 = mac1;
        self.last_mac1 = Some(mac1);

        // An expired cookie is useless: erase it.
        self.cookie = self
            .cookie
            .take()
            .filter(|(_, birthdate)| now.saturating_sub(*birthdate) < COOKIE_MAX_AGE_NS);
        message.macs_mut().mac2 = match &self.cookie {
            Some((cookie, _)) => mac2::<C, M>(cookie, message),
            None => [0; COOKIE_LEN],
        };
    }

    /// Takes the cookie out of a reply to our last message. It is used from the next message on.
    /// The reply changes nothing else, in particular not the endpoint.
    ///
    /// # Errors
    ///
    /// [`Rejection::UnexpectedCookie`] if there is no message that it could answer,
    /// [`Rejection::InvalidCookie`] if it does not authenticate.
    pub fn consume_reply<C: Crypto>(
        &mut self,
        reply: &CookieReply,
        now: u64,
    ) -> Result<(), Rejection> {
        let last_mac1 = self.last_mac1.as_ref().ok_or(Rejection::UnexpectedCookie)?;
        let mut cookie = Secret::zeroed();
        let authentic = C::xopen(
            cookie.expose_mut(),
            &reply.encrypted_cookie,
            last_mac1,
            &reply.nonce,
            &self.keys.cookie,
        );
        if !authentic {
            return Err(Rejection::InvalidCookie);
        }
        self.cookie = Some((cookie, now));
        self.last_mac1 = None;
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Keys: 32 bytes, written as 44 characters of base64.
//!
//! [`PublicKey`] may be shown to anybody. [`SecretKey`] (a private or a preshared key) is zeroed
//! when dropped, compared in constant time, and says `(hidden)` to `{:?}`.

use base64ct::{Base64, Encoding};
use std::fmt;
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes in a key.
pub const KEY_LEN: usize = 32;
/// Characters in the base64 form of a key.
pub const KEY_BASE64_LEN: usize = 44;

/// Decodes the only accepted form: exactly 44 characters, padded, no stray bits. Constant time in
/// the key's value.
fn decode(text: &[u8], key: &mut [u8; KEY_LEN]) -> Option<()> {
    let right_form = text.len() == KEY_BASE64_LEN && text.ends_with(b"=");
    (right_form && Base64::decode(text, key).is_ok_and(|key| key.len() == KEY_LEN)).then_some(())
}

fn encode(key: &[u8; KEY_LEN]) -> Zeroizing<String> {
    let mut text = Zeroizing::new([0; KEY_BASE64_LEN]);
    // The buffer has the right size, so this cannot fail.
    Zeroizing::new(
        Base64::encode(key, &mut *text)
            .unwrap_or_default()
            .to_owned(),
    )
}

/// A peer's or an interface's public key.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// The key made of these bytes.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads the base64 form.
    pub fn from_base64(text: &[u8]) -> Option<Self> {
        let mut key = Self::default();
        decode(text, &mut key.0).map(|()| key)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A private or a preshared key. All zeros means "none" to the kernel. Boxed, so that moving it
/// leaves no copies behind.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey(Box<[u8; KEY_LEN]>);

impl SecretKey {
    /// The key made of these bytes; the caller zeroes its own copy.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(Box::new(*bytes))
    }

    /// 32 random bytes from the kernel: a preshared key.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = Self::default();
        getrandom::fill(&mut *key.0)?;
        Ok(key)
    }

    /// A random private key, clamped as Curve25519 wants it.
    pub fn generate_private() -> Result<Self, getrandom::Error> {
        let mut key = Self::generate()?;
        key.0[0] &= 248;
        key.0[31] = (key.0[31] & 127) | 64;
        Ok(key)
    }

    /// Reads the base64 form.
    pub fn from_base64(text: &[u8]) -> Option<Self> {
        let mut key = Self::default();
        decode(text, &mut key.0).map(|()| key)
    }

    /// The base64 form, zeroed when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        encode(&self.0)
    }

    /// The public key that belongs to this private key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(*x25519_dalek::PublicKey::from(&StaticSecret::from(*self.0)).as_bytes())
    }

    /// Whether this is the all-zero key, which stands for "none".
    pub fn is_zero(&self) -> bool {
        self.0.ct_eq(&[0; KEY_LEN][..]).into()
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0[..]).into()
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of wg(8).
    const PRIVATE: &[u8] = b"yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    #[test]
    fn derives_the_public_key() {
        // RFC 7748, 6.1: Alice.
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let key = SecretKey::from_base64(private.as_bytes()).unwrap();
        assert_eq!(
            key.public_key().to_string(),
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
        );
    }

    #[test]
    fn refuses_every_other_form() {
        assert!(SecretKey::from_base64(PRIVATE).is_some());
        let text = std::str::from_utf8(PRIVATE).unwrap();
        for bad in [
            String::new(),
            text[..43].to_owned(),
            format!("{text}="),
            format!(" {}", &text[1..]),
            format!("{}\n", &text[..43]),
            text.replace("k=", "l="),
            text.replace('+', "-"),
            text.replace('l', "\0"),
            format!("{}==", &text[..42]),
            "A".repeat(44),
        ] {
            assert!(SecretKey::from_base64(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn keeps_secrets_out_of_debug_output() {
        let key = SecretKey::from_base64(PRIVATE).unwrap();
        assert_eq!(format!("{key:?}"), "(hidden)");
    }

    #[test]
    fn generates_clamped_keys() {
        let key = SecretKey::generate_private().unwrap();
        assert_eq!((key.0[0] & 7, key.0[31] & 192), (0, 64));
        assert_ne!(key, SecretKey::generate_private().unwrap());
    }

    proptest! {
        #[test]
        fn base64_there_and_back(bytes: [u8; KEY_LEN]) {
            let key = SecretKey::new(&bytes);
            prop_assert_eq!(SecretKey::from_base64(key.to_base64().as_bytes()), Some(key));
            let key = PublicKey(bytes);
            prop_assert_eq!(PublicKey::from_base64(key.to_string().as_bytes()), Some(key));
        }

        #[test]
        fn any_text(text: Vec<u8>) {
            if let Some(key) = PublicKey::from_base64(&text) {
                prop_assert_eq!(key.to_string().into_bytes(), text);
            }
        }
    }
}

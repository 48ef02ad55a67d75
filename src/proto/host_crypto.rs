// SPDX-License-Identifier: GPL-2.0-only

//! [`Crypto`] implemented with the RustCrypto crates, for host tests, fuzzing and benches. The
//! module uses the kernel's crypto library instead.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, XChaCha20Poly1305};
use x25519_dalek::{x25519, X25519_BASEPOINT_BYTES};

use super::consts::{COOKIE_LEN, HASH_LEN, XNONCE_LEN};
use super::crypto::{Crypto, Hash, PublicKey, SecretKey, SymmetricKey};

/// [`Crypto`] on the host.
pub struct HostCrypto;

impl Hash for Blake2s256 {
    fn new() -> Self {
        Digest::new()
    }

    fn update(&mut self, data: &[u8]) {
        Digest::update(self, data);
    }

    fn finalize(self) -> [u8; HASH_LEN] {
        Digest::finalize(self).into()
    }
}

impl Crypto for HostCrypto {
    type Hash = Blake2s256;

    fn mac(key: &[u8], data: &[u8]) -> [u8; COOKIE_LEN] {
        match <Blake2sMac<U16> as Mac>::new_from_slice(key) {
            Ok(mut mac) => {
                Mac::update(&mut mac, data);
                mac.finalize_fixed().into()
            }
            Err(_) => unreachable!("no key of the protocol is longer than 32 bytes"),
        }
    }

    fn x25519(secret: &SecretKey, public: &PublicKey) -> Option<SecretKey> {
        let shared = SecretKey::from_bytes(x25519(*secret.expose(), *public));
        (!shared.is_zero()).then_some(shared)
    }

    fn x25519_base(secret: &SecretKey) -> Option<PublicKey> {
        (!secret.is_zero()).then(|| x25519(*secret.expose(), X25519_BASEPOINT_BYTES))
    }

    fn seal(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool {
        let aead = ChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.encrypt(&wide(nonce).into(), Payload { msg: src, aad: ad }),
        )
    }

    fn open(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool {
        let aead = ChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.decrypt(&wide(nonce).into(), Payload { msg: src, aad: ad }),
        )
    }

    fn xseal(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool {
        let aead = XChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.encrypt(nonce.into(), Payload { msg: src, aad: ad }),
        )
    }

    fn xopen(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool {
        let aead = XChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.decrypt(nonce.into(), Payload { msg: src, aad: ad }),
        )
    }

    fn ct_eq(a: &[u8], b: &[u8]) -> bool {
        a == b
    }
}

/// The nonce of the protocol: four zero bytes, then the counter in little endian.
fn wide(nonce: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_le_bytes());
    bytes
}

fn put<E>(dst: &mut [u8], result: Result<Vec<u8>, E>) -> bool {
    match result {
        Ok(bytes) if bytes.len() == dst.len() => {
            dst.copy_from_slice(&bytes);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::kdf::{hash, hmac, kdf1, kdf2, kdf3};

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn key(text: &str) -> SecretKey {
        SecretKey::from_bytes(hex(text).try_into().unwrap())
    }

    fn counting() -> SecretKey {
        SecretKey::from_bytes(core::array::from_fn(|i| i as u8))
    }

    /// RFC 7693, appendix B, and the reference implementation's hash of the empty input.
    #[test]
    fn blake2s() {
        assert_eq!(
            hash::<HostCrypto>(&[b"a", b"", b"bc"]).to_vec(),
            hex("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982")
        );
        assert_eq!(
            hash::<HostCrypto>(&[]).to_vec(),
            hex("69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9")
        );
    }

    /// Expected values from Python's hashlib, which is the reference implementation.
    #[test]
    fn blake2s_mac() {
        let data: Vec<u8> = (0..=255).collect();
        assert_eq!(
            HostCrypto::mac(counting().expose(), &data).to_vec(),
            hex("d5a40ec316c751a63cd0d91157fa1ebb")
        );
        assert_eq!(
            HostCrypto::mac(&counting().expose()[..16], b"").to_vec(),
            hex("af4e5d3bb230e9ff9096ca6f7c501f76")
        );
    }

    /// Expected values from Python's hmac and hashlib.
    #[test]
    fn hmac_and_kdf() {
        assert_eq!(
            hmac::<HostCrypto>(&counting(), &[b"Hi ", b"There"])
                .expose()
                .to_vec(),
            hex("65043ae3113da6f99a94d81b790a6a08dcddef85a14bb01d1aae2ae6d7250146")
        );
        let outputs = [
            "87b7f70b24183c6db5dc4f6d9f4c47cdb203321aa2a0bef714896adb3107a040",
            "538a02e1eb2e31b7e4d4b82476d1fe2acf50085d3fb584537279195f5d1f5824",
            "9ad858025593be88de0f9442a589cfe84a88dc19e4753d93684d1c5efc4837f9",
        ]
        .map(hex);
        let input = b"input";
        let first = kdf1::<HostCrypto>(&counting(), input);
        assert_eq!(first.expose().to_vec(), outputs[0]);
        let (first, second) = kdf2::<HostCrypto>(&counting(), input);
        assert_eq!(first.expose().to_vec(), outputs[0]);
        assert_eq!(second.expose().to_vec(), outputs[1]);
        let (first, second, third) = kdf3::<HostCrypto>(&counting(), input);
        assert_eq!(first.expose().to_vec(), outputs[0]);
        assert_eq!(second.expose().to_vec(), outputs[1]);
        assert_eq!(third.expose().to_vec(), outputs[2]);
    }

    /// RFC 7748, sections 5.2 and 6.1.
    #[test]
    fn x25519_vectors() {
        for [scalar, point, result] in [
            [
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ],
            [
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ],
            [
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
                "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
            ],
        ] {
            let point = hex(point).try_into().unwrap();
            let shared = HostCrypto::x25519(&key(scalar), &point).unwrap();
            assert_eq!(shared.expose().to_vec(), hex(result));
        }
        let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        assert_eq!(
            HostCrypto::x25519_base(&bob).unwrap().to_vec(),
            hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        );
        assert!(HostCrypto::x25519_base(&SecretKey::zeroed()).is_none());
    }

    /// RFC 8439, appendix A.5, whose nonce starts with four zero bytes, as ours do.
    #[test]
    fn chacha20poly1305() {
        let key = key("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
        let ad = hex("f33388860000000000004e91");
        let nonce = u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
        let plain =
            "Internet-Drafts are draft documents valid for a maximum of six months and may \
                     be updated, replaced, or obsoleted by other documents at any time. It is \
                     inappropriate to use Internet-Drafts as reference material or to cite them \
                     other than as /\u{201c}work in progress./\u{201d}"
                .as_bytes();
        let mut sealed = vec![0; plain.len() + 16];
        assert!(HostCrypto::seal(&mut sealed, plain, &ad, nonce, &key));
        assert_eq!(
            sealed[..16].to_vec(),
            hex("64a0861575861af460f062c79be643bd")
        );
        assert_eq!(
            sealed[plain.len()..].to_vec(),
            hex("eead9d67890cbb22392336fea1851f38")
        );
        let mut opened = vec![0; plain.len()];
        assert!(HostCrypto::open(&mut opened, &sealed, &ad, nonce, &key));
        assert_eq!(opened, plain);
        assert!(!HostCrypto::open(
            &mut opened,
            &sealed,
            &ad,
            nonce + 1,
            &key
        ));
        assert!(!HostCrypto::open(&mut opened, &sealed, &[], nonce, &key));
        sealed[0] ^= 1;
        assert!(!HostCrypto::open(&mut opened, &sealed, &ad, nonce, &key));
        assert!(!HostCrypto::seal(&mut sealed[1..], plain, &ad, nonce, &key));
    }

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn xchacha20poly1305() {
        let key = SecretKey::from_bytes(core::array::from_fn(|i| 0x80 + i as u8));
        let nonce = core::array::from_fn(|i| 0x40 + i as u8);
        let ad = hex("50515253c0c1c2c3c4c5c6c7");
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                      for the future, sunscreen would be it.";
        let mut sealed = vec![0; plain.len() + 16];
        assert!(HostCrypto::xseal(&mut sealed, plain, &ad, &nonce, &key));
        assert_eq!(
            sealed[..16].to_vec(),
            hex("bd6d179d3e83d43b9576579493c0e939")
        );
        assert_eq!(
            sealed[plain.len()..].to_vec(),
            hex("c0875924c1c7987947deafd8780acf49")
        );
        let mut opened = vec![0; plain.len()];
        assert!(HostCrypto::xopen(&mut opened, &sealed, &ad, &nonce, &key));
        assert_eq!(opened, plain);
        sealed[20] ^= 1;
        assert!(!HostCrypto::xopen(&mut opened, &sealed, &ad, &nonce, &key));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The functions that the whitepaper's section 5.4 is written in.

use crate::wgdev::Key;
use blake2::digest::consts::U16;
use blake2::digest::{Digest, Mac};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};

/// BLAKE2s of all parts.
pub fn hash(parts: &[&[u8]]) -> Key {
    let mut state = Blake2s256::new();
    parts
        .iter()
        .for_each(|part| Digest::update(&mut state, part));
    state.finalize().into()
}

/// Keyed BLAKE2s with 16 bytes of output. The key has at most 32 bytes.
pub fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut state =
        <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("a key of at most 32 bytes");
    parts.iter().for_each(|part| Mac::update(&mut state, part));
    state.finalize().into_bytes().into()
}

/// HMAC (RFC 2104) over BLAKE2s. The key has at most 64 bytes.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut pads = [[0x36u8; 64], [0x5c; 64]];
    for pad in &mut pads {
        pad.iter_mut().zip(key).for_each(|(p, k)| *p ^= k);
    }
    let inner = [&[&pads[0][..]], parts].concat();
    hash(&[&pads[1], &hash(&inner)])
}

/// KDF1, KDF2, KDF3 for `N` of 1, 2, 3.
pub fn kdf<const N: usize>(key: &Key, input: &[u8]) -> [Key; N] {
    let secret = hmac(key, &[input]);
    let mut last: Vec<u8> = Vec::new();
    std::array::from_fn(|n| {
        let output = hmac(&secret, &[&last, &[n as u8 + 1]]);
        last = output.to_vec();
        output
    })
}

/// Curve25519. Gives zeros for a point of low order, without complaint.
pub fn dh(private: &Key, public: &Key) -> Key {
    x25519_dalek::x25519(*private, *public)
}

/// The public key of a private key.
pub fn public(private: &Key) -> Key {
    dh(private, &x25519_dalek::X25519_BASEPOINT_BYTES)
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// ChaCha20-Poly1305 with a counter as nonce.
pub fn seal(key: &Key, counter: u64, plain: &[u8], ad: &[u8]) -> Vec<u8> {
    let payload = Payload {
        msg: plain,
        aad: ad,
    };
    let cipher = ChaCha20Poly1305::new(key.into());
    let sealed = cipher.encrypt(&nonce(counter).into(), payload);
    sealed.expect("far below the cipher's limit")
}

/// The reverse of [`seal`]; `None` if it does not authenticate.
pub fn open(key: &Key, counter: u64, sealed: &[u8], ad: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload {
        msg: sealed,
        aad: ad,
    };
    let cipher = ChaCha20Poly1305::new(key.into());
    cipher.decrypt(&nonce(counter).into(), payload).ok()
}

/// XChaCha20-Poly1305.
pub fn xseal(key: &Key, nonce: &[u8; 24], plain: &[u8], ad: &[u8]) -> Vec<u8> {
    let payload = Payload {
        msg: plain,
        aad: ad,
    };
    let cipher = XChaCha20Poly1305::new(key.into());
    let sealed = cipher.encrypt(nonce.into(), payload);
    sealed.expect("far below the cipher's limit")
}

/// The reverse of [`xseal`]; `None` if it does not authenticate.
pub fn xopen(key: &Key, nonce: &[u8; 24], sealed: &[u8], ad: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload {
        msg: sealed,
        aad: ad,
    };
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt(nonce.into(), payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let byte = |n: usize| u8::from_str_radix(&text[n..n + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    fn key(text: &str) -> Key {
        hex(text).try_into().unwrap()
    }

    /// RFC 7693, appendix B.
    #[test]
    fn blake2s() {
        let abc = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(hash(&[b"a", b"bc"]), key(abc));
        assert_ne!(mac(b"k", &[b"abc"]), mac(b"l", &[b"abc"]));
        assert_eq!(mac(&[1; 32], &[b"ab", b"c"]), mac(&[1; 32], &[b"abc"]));
    }

    /// The initial chaining key, as other implementations have it written down.
    #[test]
    fn construction() {
        let wanted = "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36";
        let name = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
        assert_eq!(hash(&[name]), key(wanted));
    }

    /// The vectors of another implementation's tests.
    #[test]
    fn key_derivation() {
        let secret = hmac(b"test-key", &[b"test-input"]);
        let t1 = hmac(&secret, &[&[1]]);
        let t2 = hmac(&secret, &[&t1, &[2]]);
        let t3 = hmac(&secret, &[&t2, &[3]]);
        let wanted = [
            key("6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633"),
            key("df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a"),
            key("fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24"),
        ];
        assert_eq!([t1, t2, t3], wanted);
        let [a, b, c] = kdf(&[7; 32], b"in");
        assert_eq!(kdf(&[7; 32], b"in"), [a, b]);
        assert_eq!(kdf(&[7; 32], b"in"), [a]);
        let secret = hmac(&[7; 32], &[b"in"]);
        assert_eq!(c, hmac(&secret, &[&b, &[3]]));
    }

    /// RFC 7748, section 5.2.
    #[test]
    fn curve25519() {
        let k = key("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
        let u = key("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
        let wanted = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552";
        assert_eq!(dh(&k, &u), key(wanted));
        // The points of order 1 and 2.
        assert_eq!(dh(&k, &[0; 32]), [0; 32]);
        let one = std::array::from_fn(|n| u8::from(n == 0));
        assert_eq!(dh(&k, &one), [0; 32]);
    }

    /// RFC 8439, appendix A.5: the nonce there starts with zeros, as ours.
    #[test]
    fn aead() {
        let secret = key("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
        let counter = u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
        let sealed = seal(
            &secret,
            counter,
            b"Internet-Drafts",
            &hex("f33388860000000000004e91"),
        );
        assert_eq!(sealed.get(..4), Some(&hex("64a08615")[..]));
        let opened = open(&secret, counter, &sealed, &hex("f33388860000000000004e91"));
        assert_eq!(opened.as_deref(), Some(&b"Internet-Drafts"[..]));
        assert_eq!(
            open(
                &secret,
                counter + 1,
                &sealed,
                &hex("f33388860000000000004e91")
            ),
            None
        );
        let sealed = xseal(&secret, &[5; 24], b"plain", b"ad");
        assert_eq!(
            xopen(&secret, &[5; 24], &sealed, b"ad").as_deref(),
            Some(&b"plain"[..])
        );
        assert_eq!(xopen(&secret, &[5; 24], &sealed, b"da"), None);
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! The composition against RustCrypto's ChaCha20-Poly1305, on RustCrypto's primitives.

use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use poly1305::universal_hash::KeyInit;
use proptest::prelude::*;

use super::*;
use crate::proto::{crypto::Secret, host_crypto::HostCrypto};

impl Primitives for HostCrypto {
    fn chacha20(state: &mut ChaCha20, data: &mut [u8]) {
        let bytes: Vec<u8> = state.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes[..16], *b"expand 32-byte k");
        let mut cipher = chacha20::ChaCha20::new(bytes[16..48].into(), bytes[52..].into());
        cipher.seek(u64::from(state.0[12]) * BLOCK as u64);
        cipher.apply_keystream(data);
        state.0[12] += data.len().div_ceil(BLOCK) as u32;
    }

    fn poly1305(key: &[u8; 32], message: [&[u8]; 2]) -> [u8; TAG_LEN] {
        poly1305::Poly1305::new(key.into())
            .compute_unpadded(&message.concat())
            .into()
    }
}

/// What [`seal`] makes, without the front.
fn sealed(plain: &[u8], nonce: u64, key: &[u8; KEY_LEN]) -> Option<Vec<u8>> {
    let mut buffer = vec![0xa5; FRONT];
    buffer.extend_from_slice(plain);
    buffer.extend_from_slice(&[0xa5; TAG_LEN]);
    seal::<HostCrypto>(&mut buffer, nonce, key)?;
    assert_eq!(buffer[..FRONT], [0; FRONT], "secrets are left");
    Some(buffer.split_off(FRONT))
}

fn expected(plain: &[u8], nonce: u64, key: &[u8; KEY_LEN]) -> Vec<u8> {
    let mut expected = vec![0; plain.len() + TAG_LEN];
    let key = Secret::from_bytes(*key);
    assert!(HostCrypto::seal(&mut expected, plain, &[], nonce, &key));
    expected
}

#[test]
fn all_lengths_are_as_the_library_has_them() {
    let key = [0x42; KEY_LEN];
    for len in (0..600).chain((600..4200).step_by(13)) {
        let plain: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        let nonce = len as u64;
        let mut message = sealed(&plain, nonce, &key).unwrap();
        assert_eq!(message, expected(&plain, nonce, &key), "{len} bytes");
        assert!(open::<HostCrypto>(&mut message, nonce, &key));
        assert_eq!(message[..len], plain, "{len} bytes");
    }
}

#[test]
fn too_short_is_refused() {
    let key = [0x42; KEY_LEN];
    assert!(!open::<HostCrypto>(&mut [0; TAG_LEN - 1], 0, &key));
    assert_eq!(
        seal::<HostCrypto>(&mut [0; FRONT + TAG_LEN - 1], 0, &key),
        None
    );
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    let key = [0x42; KEY_LEN];
    for len in [0, 1, 16, 96, 100, 192, 200, 208, 1420] {
        let good = sealed(&vec![3; len], 9, &key).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(!open::<HostCrypto>(&mut bad, 9, &key));
            if len >= 16 {
                assert_ne!(bad[..16], [3; 16], "decrypted all the same");
            }
        }
        assert!(!open::<HostCrypto>(&mut good.clone(), 8, &key));
    }
}

#[test]
fn the_self_test_passes() {
    let mut scratch = vec![0; 3 * 2048];
    assert_eq!(self_test::<HostCrypto>(&mut scratch), Some(true));
    assert_eq!(self_test::<HostCrypto>(&mut scratch[..1000]), None);
}

proptest! {
    #[test]
    fn any_key_and_nonce(
        key: [u8; KEY_LEN],
        nonce: u64,
        plain in prop::collection::vec(any::<u8>(), 0..20 * UNIT),
    ) {
        let mut message = sealed(&plain, nonce, &key).unwrap();
        prop_assert_eq!(&message, &expected(&plain, nonce, &key));
        prop_assert!(open::<HostCrypto>(&mut message, nonce, &key));
        prop_assert_eq!(&message[..plain.len()], &plain[..]);
    }
}

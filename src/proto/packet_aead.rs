// SPDX-License-Identifier: GPL-2.0-only

//! ChaCha20-Poly1305 (RFC 8439) of packets in place, composed of its two primitives.
//!
//! The result is that of [`Crypto::seal`] without additional data, for fewer instructions. The key
//! stream is made in few long pieces, as vector units want it: its first block, which has the
//! one-time key, comes with others. And the lengths that end the authenticated message are written
//! where the tag will be, so that it is mostly one piece.

#[cfg(test)]
mod tests;

use super::consts::{KEY_LEN, TAG_LEN};
use super::crypto::{erase, Crypto, Secret};

/// Bytes of a block of the key stream.
const BLOCK: usize = 64;
/// Bytes that [`seal`] needs before the data.
pub const FRONT: usize = BLOCK;
/// Bytes of a block of Poly1305.
const UNIT: usize = 16;
/// Data of up to so many bytes is decrypted with one piece of the key stream.
const SHORT: usize = 3 * BLOCK;

/// The state of ChaCha20 (RFC 8439, section 2.3), with the number of the next block in it. Erased
/// on drop.
pub struct ChaCha20(pub [u32; 16]);

impl ChaCha20 {
    /// From block 0 on. The nonce is four zero bytes followed by `nonce` in little endian.
    fn new(key: &[u8; KEY_LEN], nonce: u64) -> Self {
        let mut state = [
            0x6170_7865,
            0x3320_646e,
            0x7962_2d32,
            0x6b20_6574,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            nonce as u32,
            (nonce >> 32) as u32,
        ];
        for (word, bytes) in state.iter_mut().skip(4).zip(key.chunks_exact(4)) {
            if let Some(bytes) = bytes.first_chunk() {
                *word = u32::from_le_bytes(*bytes);
            }
        }
        Self(state)
    }
}

impl Drop for ChaCha20 {
    fn drop(&mut self) {
        self.0.fill(0);
        core::hint::black_box(&mut self.0);
    }
}

/// The primitives.
pub trait Primitives: Crypto {
    /// Exclusive-ors the key stream into `data`, from the state's block on, and moves the state on
    /// behind the last block that was begun.
    fn chacha20(state: &mut ChaCha20, data: &mut [u8]);

    /// The Poly1305 authenticator of a message in two parts (RFC 8439, section 2.5).
    fn poly1305(key: &[u8; 32], message: [&[u8]; 2]) -> [u8; TAG_LEN];
}

/// Authenticates a ciphertext, which is followed by room for the tag. The room is overwritten.
fn authenticate<P: Primitives>(key: &[u8; 32], message: &mut [u8]) -> Option<[u8; TAG_LEN]> {
    let len = message.len().checked_sub(TAG_LEN)?;
    // The lengths of the additional data and of the ciphertext.
    let lengths = (u128::from(len as u64) << 64).to_le_bytes();
    if len % UNIT == 0 {
        *message.last_chunk_mut()? = lengths;
        return Some(P::poly1305(key, [message, &[]]));
    }
    let (blocks, rest) = message.get(..len)?.split_at_checked(len & !(UNIT - 1))?;
    let mut end = [0; 2 * UNIT];
    for (byte, last) in end.iter_mut().zip(rest) {
        *byte = *last;
    }
    *end.last_chunk_mut()? = lengths;
    Some(P::poly1305(key, [blocks, &end]))
}

/// Encrypts in place: `buffer` is [`FRONT`] bytes of any content, which will be zeros, the data,
/// and room for the tag. `None`, with nothing done, if it is too short.
#[must_use]
pub fn seal<P: Primitives>(buffer: &mut [u8], nonce: u64, key: &[u8; KEY_LEN]) -> Option<()> {
    let text_len = buffer.len().checked_sub(TAG_LEN)?;
    let text = buffer.get_mut(..text_len)?;
    text.first_chunk_mut::<FRONT>()?.fill(0);
    P::chacha20(&mut ChaCha20::new(key, nonce), text);
    let (front, message) = buffer.split_first_chunk_mut::<FRONT>()?;
    let tag = authenticate::<P>(front.first_chunk()?, message)?;
    *message.last_chunk_mut()? = tag;
    erase(front);
    Some(())
}

/// Decrypts in place: `sealed` is the ciphertext, which becomes the data, and the tag, which is
/// overwritten. False if it does not authenticate or is too short; it is worthless then.
#[must_use]
pub fn open<P: Primitives>(sealed: &mut [u8], nonce: u64, key: &[u8; KEY_LEN]) -> bool {
    try_open::<P>(sealed, nonce, key).unwrap_or(false)
}

fn try_open<P: Primitives>(sealed: &mut [u8], nonce: u64, key: &[u8; KEY_LEN]) -> Option<bool> {
    let len = sealed.len().checked_sub(TAG_LEN)?;
    if len <= SHORT {
        open_behind::<P, { BLOCK + SHORT }>(sealed, BLOCK.saturating_add(len), nonce, key)
    } else {
        open_behind::<P, { 2 * BLOCK }>(sealed, 2 * BLOCK, nonce, key)
    }
}

/// Makes `piece` bytes of the key stream, `N` at most, in one go.
#[inline(always)]
fn open_behind<P: Primitives, const N: usize>(
    sealed: &mut [u8],
    piece: usize,
    nonce: u64,
    key: &[u8; KEY_LEN],
) -> Option<bool> {
    let len = sealed.len().checked_sub(TAG_LEN)?;
    let mut state = ChaCha20::new(key, nonce);
    let mut blocks = [0; N];
    let stream = blocks.get_mut(..piece)?;
    P::chacha20(&mut state, stream);
    let (first, rest) = stream.split_first_chunk_mut::<BLOCK>()?;
    let tag: [u8; TAG_LEN] = *sealed.last_chunk()?;
    let computed = authenticate::<P>(first.first_chunk()?, sealed)?;
    let authentic = P::ct_eq(&computed, &tag);
    if authentic {
        let (begin, end) = sealed.get_mut(..len)?.split_at_mut_checked(rest.len())?;
        xor(begin, rest);
        if !end.is_empty() {
            P::chacha20(&mut state, end);
        }
    }
    erase(stream);
    Some(authentic)
}

/// Exclusive-ors `stream` into `data`, which is as long.
fn xor(data: &mut [u8], stream: &[u8]) {
    let (mut words, mut stream) = (data.chunks_exact_mut(8), stream.chunks_exact(8));
    for (word, stream) in words.by_ref().zip(stream.by_ref()) {
        if let (Some(word), Some(stream)) = (word.first_chunk_mut(), stream.first_chunk()) {
            *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(*stream)).to_ne_bytes();
        }
    }
    for (byte, stream) in words.into_remainder().iter_mut().zip(stream.remainder()) {
        *byte ^= stream;
    }
}

/// Lengths that take different ways through the primitives.
const LENGTHS: [usize; 22] = [
    63, 64, 65, 96, 112, 127, 128, 129, 191, 192, 193, 208, 256, 288, 320, 448, 511, 512, 576,
    1280, 1420, 1424,
];

/// Whether the composition agrees with [`Crypto::seal`] and refuses what was changed. `None` if
/// `scratch` is too short.
pub fn self_test<P: Primitives>(scratch: &mut [u8]) -> Option<bool> {
    let mut key = Secret::zeroed();
    for (byte, i) in key.expose_mut().iter_mut().zip(0..u8::MAX) {
        *byte = i.wrapping_mul(7);
    }
    for len in (0..35).chain(LENGTHS) {
        let sealed_len = len.checked_add(TAG_LEN)?;
        let nonce = (len as u64).wrapping_mul(0x0123_4567_89ab_cdef);
        let (ours, rest) = scratch.split_at_mut_checked(FRONT.checked_add(sealed_len)?)?;
        let (expected, plain) = rest.split_at_mut_checked(sealed_len)?;
        let plain = plain.get_mut(..len)?;
        for (byte, i) in plain.iter_mut().zip(0..u32::MAX) {
            *byte = i.wrapping_mul(31) as u8;
        }
        if !P::seal(expected, plain, &[], nonce, &key) {
            return Some(false);
        }
        for (byte, plain) in ours.iter_mut().skip(FRONT).zip(plain.iter()) {
            *byte = *plain;
        }
        seal::<P>(ours, nonce, key.expose())?;
        let (front, ours) = ours.split_first_chunk_mut::<FRONT>()?;
        if *front != [0; FRONT] || ours != expected {
            return Some(false);
        }
        if !open::<P>(ours, nonce, key.expose()) || ours.get(..len)? != plain {
            return Some(false);
        }
        *expected.last_mut()? ^= 1;
        if open::<P>(expected, nonce, key.expose()) {
            return Some(false);
        }
    }
    Some(true)
}

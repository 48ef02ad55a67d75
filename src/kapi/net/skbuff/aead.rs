// SPDX-License-Identifier: GPL-2.0

//! Transport data messages: encryption and decryption of packets in place.
//!
//! A packet is made linear and private first, if it is not, with one reallocation; then the AEAD
//! runs over contiguous memory. Most packets are that already: segments that were cut from an
//! offload packet are, and what a tunnel or veth delivers is.

use core::ptr;

use super::Skb;
use crate::bindings;

/// Length of the header of a data message.
const HEADER_LEN: u32 = 16;
/// Length of the Poly1305 tag.
pub(super) const TAG_LEN: usize = 16;
/// The type of a data message.
const TYPE_DATA: u32 = 4;
/// Packets are padded to a multiple of this many bytes.
const PADDING_MULTIPLE: u32 = 16;

/// Room that is made before a packet: data header, UDP and IPv6 headers, and what the stack
/// reserves for link-layer headers (`NET_SKB_PAD`, at most a cache line).
const HEADROOM: u32 = HEADER_LEN + 8 + 40 + 64;

/// How many zeros to append to a packet of `len` bytes: up to the next multiple of 16, but never
/// beyond the MTU. A packet longer than the MTU is padded as the part of it that is over.
#[inline]
fn padding(len: u32, mtu: u32) -> u32 {
    let last = len
        .checked_rem(mtu)
        .map_or(len, |over| if len > mtu { over } else { len });
    let padded = last
        .checked_next_multiple_of(PADDING_MULTIPLE)
        .unwrap_or(last);
    let padded = if mtu == 0 { padded } else { padded.min(mtu) };
    padded.saturating_sub(last)
}

impl Skb {
    /// Makes the packet a data message: pads it, encrypts it in place and puts the header before
    /// it. The noted MTU bounds the padding. Afterwards nothing tells where the packet came from,
    /// but its flow hash is kept.
    ///
    /// Any context but hard interrupts.
    ///
    /// # Errors
    ///
    /// No memory, or a checksum that cannot be computed; the packet is then good for nothing but
    /// to be dropped.
    #[expect(clippy::result_unit_err)]
    pub fn seal(&mut self, key: &[u8; 32], receiver_index: u32, nonce: u64) -> Result<(), ()> {
        let padding = padding(self.raw().len, self.cb().mtu);
        let trailer = padding.checked_add(TAG_LEN as u32).ok_or(())?;
        // SAFETY: By the type invariant.
        let prepared = unsafe { bindings::wg_skb_prepare_seal(self.as_raw(), HEADROOM, trailer) };
        if prepared != 0 {
            return Err(());
        }
        let plain_len = self.len().checked_add(padding as usize).ok_or(())?;
        let raw = self.as_raw();
        // SAFETY: The packet is linear and private now, with room for header, padding and tag. The
        // AEAD works in place: `plain_len` bytes in, `TAG_LEN` more out.
        unsafe {
            let padding_start: *mut u8 = bindings::skb_put(raw, trailer).cast();
            ptr::write_bytes(padding_start, 0, padding as usize);
            let packet = (*raw).data;
            bindings::chacha20poly1305_encrypt(
                packet,
                packet,
                plain_len,
                ptr::null(),
                0,
                nonce,
                key.as_ptr(),
            );
            let header: *mut u8 = bindings::skb_push(raw, HEADER_LEN).cast();
            let [header_type, index, low, high] = header_words(receiver_index, nonce);
            header
                .cast::<[[u8; 4]; 4]>()
                .write([header_type, index, low, high]);
            bindings::wg_skb_renew(raw, true);
        }
        Ok(())
    }

    /// Decrypts a data message in place and takes off its header and tag: what is left is the
    /// packet with its padding. The outer IP and UDP headers stay readable until
    /// [`Skb::reset_decapsulated`].
    ///
    /// Any context but hard interrupts.
    ///
    /// # Errors
    ///
    /// The message does not authenticate, is too short, or there is no memory.
    #[expect(clippy::result_unit_err)]
    pub fn open(&mut self, key: &[u8; 32], nonce: u64) -> Result<(), ()> {
        let sealed_len = self.raw().len.checked_sub(HEADER_LEN).ok_or(())?;
        let plain_len = sealed_len.checked_sub(TAG_LEN as u32).ok_or(())?;
        // SAFETY: By the type invariant.
        if unsafe { bindings::wg_skb_make_private(self.as_raw(), 0, 0) } != 0 {
            return Err(());
        }
        let raw = self.as_raw();
        // SAFETY: The packet is linear and private now, and its length has been checked. The AEAD
        // works in place.
        unsafe {
            let packet = (*raw).data.add(HEADER_LEN as usize);
            if !bindings::chacha20poly1305_decrypt(
                packet,
                packet,
                sealed_len as usize,
                ptr::null(),
                0,
                nonce,
                key.as_ptr(),
            ) {
                return Err(());
            }
            bindings::skb_pull(raw, HEADER_LEN);
            bindings::skb_trim(raw, plain_len);
        }
        Ok(())
    }
}

/// The header of a data message as four little-endian words.
#[inline]
fn header_words(receiver_index: u32, nonce: u64) -> [[u8; 4]; 4] {
    let nonce_low = nonce as u32;
    let nonce_high = (nonce >> 32) as u32;
    [
        TYPE_DATA.to_le_bytes(),
        receiver_index.to_le_bytes(),
        nonce_low.to_le_bytes(),
        nonce_high.to_le_bytes(),
    ]
}

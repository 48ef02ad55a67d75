// SPDX-License-Identifier: GPL-2.0-only

//! Received packets that are made to stand for several, as generic receive offload does it.

use core::{ops::Range, slice};

use kernel::{error::to_result, prelude::*};

use super::{growing::Growing, SkBuff, Skb};
use crate::{
    bindings,
    kapi::net::{ip::IpVersion, netdevice::NetDevice},
};

/// A packet that grows: the payloads of others, one behind the other.
///
/// # Invariants
///
/// The packet has no clone.
pub struct Joined(Growing);

impl Joined {
    /// Begins with a packet; makes it linear and its data its own, if it is not.
    ///
    /// # Errors
    ///
    /// Gives it back if there is no memory for that.
    pub fn new(mut first: SkBuff) -> Result<Self, SkBuff> {
        if first.make_private(0, 0).is_err() {
            return Err(first);
        }
        // INVARIANT: It is private.
        Ok(Self(Growing::new(first)))
    }

    /// Copies a piece of a packet to where what follows its first `before` bytes continues this
    /// packet; `change` changes it, and says how many bytes from there on become part of this
    /// packet. `wanted` is how much is going to be added, with this.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the piece is not there or shorter than `before`, or `before` is longer
    /// than 128 bytes; that of `change`.
    pub fn add(
        &mut self,
        from: &Skb,
        piece: &Range<u32>,
        before: usize,
        wanted: usize,
        change: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result {
        let len = piece.end.checked_sub(piece.start).ok_or(EINVAL)?;
        let needed = (len as usize).checked_sub(before).ok_or(EINVAL)?;
        let (start, len) = (i32::try_from(piece.start)?, i32::try_from(len)?);
        let copy = |to: *mut u8| {
            // SAFETY: The packet is valid; there is room for the bytes.
            to_result(unsafe { bindings::skb_copy_bits(from.as_raw(), start, to.cast(), len) })
        };
        // SAFETY: The function writes `len` bytes, which are `before + needed`, if it succeeds.
        unsafe { self.0.add(before, needed, wanted, copy, change) }
    }

    /// The packet, which stands for `count` packets of UDP or TCP with `size` bytes of payload
    /// each, of which the last may have less. `finish` gets what is linear, with the headers, to be
    /// changed.
    pub fn finish(
        self,
        version: IpVersion,
        is_udp: bool,
        size: u16,
        count: u16,
        fixed_id: bool,
        finish: impl FnOnce(&mut [u8]),
    ) -> SkBuff {
        let skb = self.0.finish();
        if count > 1 {
            // SAFETY: The packet is valid and ours, and has no clone by the type invariant. The
            // linear part is initialised.
            unsafe {
                let raw = skb.as_raw();
                finish(slice::from_raw_parts_mut(
                    (*raw).data,
                    skb.head_len() as usize,
                ));
                let v4 = version == IpVersion::V4;
                bindings::wg_skb_set_joined_gso(raw, v4, is_udp, size, count, fixed_id);
            }
        }
        skb
    }
}

impl Skb {
    /// Marks a packet made by [`Joined`], which begins with an IP header without options: the sum
    /// of the pseudo header is in the place of its checksum.
    #[inline]
    pub fn set_joined(&mut self, version: IpVersion) {
        // SAFETY: The packet is valid and exclusively borrowed.
        unsafe { bindings::wg_skb_set_joined(self.as_raw(), version == IpVersion::V4) };
    }

    /// Whether a UDP packet, which begins with an IP header without options, is for a socket of the
    /// namespace of `dev` that takes many datagrams in one packet. Any context but hard interrupts.
    pub fn is_for_gro_socket(&self, dev: &NetDevice, version: IpVersion) -> bool {
        // SAFETY: The packet and the device are valid.
        unsafe {
            let v4 = version == IpVersion::V4;
            bindings::wg_skb_is_for_gro_socket(self.as_raw(), dev.as_raw(), v4)
        }
    }
}

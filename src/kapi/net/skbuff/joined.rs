// SPDX-License-Identifier: GPL-2.0-only

//! Received packets that are made to stand for several, as generic receive offload does it.

use core::{ops::Range, ptr, slice};

use kernel::prelude::*;

use super::{SkBuff, Skb, MAX_FRAGS};
use crate::{bindings, kapi::net::ip::IpVersion};

/// Bytes before what is added that may be used meanwhile.
const SCRATCH: usize = 128;

/// A packet that grows: the payloads of others, one behind the other in pages of its own.
///
/// # Invariants
///
/// `space` points to `left` bytes that are ours, the last of the memory of the last fragment of
/// `skb`. All bytes before them are initialised, and are at least [`SCRATCH`]. Without a fragment
/// `left` is 0. `skb` has no clone.
pub struct Joined {
    skb: SkBuff,
    space: *mut u8,
    left: usize,
    frags: u8,
}

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
        // INVARIANT: There is no fragment, and no space.
        Ok(Self {
            skb: first,
            space: ptr::null_mut(),
            left: 0,
            frags: 0,
        })
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
        let len32 = piece.end.checked_sub(piece.start).ok_or(EINVAL)?;
        let len = len32 as usize;
        let needed = len.checked_sub(before).ok_or(EINVAL)?;
        if before > SCRATCH {
            return Err(EINVAL);
        }
        if self.left < needed {
            self.add_frag(needed, wanted)?;
        }
        let start = i32::try_from(piece.start)?;
        let copied = i32::try_from(len32)?;
        // SAFETY: By the type invariant there are `left` bytes of ours from `space` on, no fewer
        // than `needed`, and at least `SCRATCH` initialised ones before, no fewer than `before`.
        // The helper initialises all of the buffer if it succeeds.
        let (buffer, saved) = unsafe {
            let to = self.space.sub(before);
            let saved: [u8; SCRATCH] = *self.space.sub(SCRATCH).cast();
            kernel::error::to_result(bindings::skb_copy_bits(
                from.as_raw(),
                start,
                to.cast(),
                copied,
            ))?;
            (slice::from_raw_parts_mut(to, len), saved)
        };
        let added = change(buffer);
        // SAFETY: As above.
        unsafe { *self.space.sub(SCRATCH).cast() = saved };
        let added = added?;
        if added > needed {
            return Err(EINVAL);
        }
        // SAFETY: The packet is valid and ours. There is a fragment, in which so many more bytes
        // are initialised.
        unsafe {
            bindings::wg_skb_grow_frag(self.skb.as_raw(), added as u32);
            // INVARIANT: These bytes are in use now.
            self.space = self.space.add(added);
        }
        self.left = self.left.saturating_sub(added);
        Ok(())
    }

    fn add_frag(&mut self, needed: usize, wanted: usize) -> Result {
        if self.frags >= MAX_FRAGS {
            return Err(ENOMEM);
        }
        let wanted = u32::try_from(wanted.max(needed).saturating_add(SCRATCH))?;
        let mut size = 0;
        // SAFETY: The packet is valid and ours.
        let start = unsafe {
            bindings::wg_skb_add_frag(self.skb.as_raw(), SCRATCH as u32, wanted, &mut size)
        };
        let start = start.cast::<u8>();
        let left = (size as usize).saturating_sub(SCRATCH);
        if start.is_null() || left < needed {
            // INVARIANT: The rest of the fragment before is given up, and a new one with it.
            self.left = 0;
            // SAFETY: The packet is valid and ours.
            unsafe { bindings::wg_skb_end_frags(self.skb.as_raw()) };
            return Err(ENOMEM);
        }
        self.frags = self.frags.wrapping_add(1);
        // INVARIANT: As the helper says; the first bytes are initialised here.
        // SAFETY: There are so many bytes, as just checked, and they are ours.
        unsafe {
            start.write_bytes(0, SCRATCH);
            self.space = start.add(SCRATCH);
        }
        self.left = left;
        Ok(())
    }

    /// The packet, which stands for `count` TCP packets of `size` bytes of payload each, of which
    /// the last may have less. `finish` gets what is linear, with the headers, to be changed.
    pub fn finish(
        self,
        version: IpVersion,
        size: u16,
        count: u16,
        fixed_id: bool,
        finish: impl FnOnce(&mut [u8]),
    ) -> SkBuff {
        let skb = self.skb;
        // What was to be joined last may not have followed.
        // SAFETY: The packet is valid and ours.
        unsafe { bindings::wg_skb_end_frags(skb.as_raw()) };
        if count > 1 {
            // SAFETY: The packet is valid and ours, and has no clone by the type invariant. The
            // linear part is initialised.
            unsafe {
                let raw = skb.as_raw();
                finish(slice::from_raw_parts_mut(
                    (*raw).data,
                    skb.head_len() as usize,
                ));
                bindings::wg_skb_set_tcp_gso(raw, version == IpVersion::V4, size, count, fixed_id);
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
}

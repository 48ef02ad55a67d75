// SPDX-License-Identifier: GPL-2.0-only

//! Packets that grow at their end, in pages of their own.

use core::{ptr, slice};

use kernel::prelude::*;

use super::{SkBuff, Skb, MAX_FRAGS};
use crate::bindings;

/// Bytes before what is added that may be used meanwhile.
pub(super) const SCRATCH: usize = 128;

/// A packet that grows.
///
/// # Invariants
///
/// `space` points to `left` bytes that are ours, the last of the memory of the last fragment of
/// `skb`. At least [`SCRATCH`] bytes before them are ours and initialised. Without a fragment
/// `left` is 0.
pub(super) struct Growing {
    skb: SkBuff,
    space: *mut u8,
    left: usize,
    frags: u8,
}

impl Growing {
    /// Begins with a packet.
    pub(super) fn new(skb: SkBuff) -> Self {
        // INVARIANT: There is no fragment of ours, and no space.
        Self {
            skb,
            space: ptr::null_mut(),
            left: 0,
            frags: 0,
        }
    }

    /// The packet as it is now.
    pub(super) fn skb(&mut self) -> &mut Skb {
        &mut self.skb
    }

    pub(super) fn len(&self) -> usize {
        self.skb.len()
    }

    /// Whether `len` more bytes may be added, if there is memory.
    pub(super) fn takes(&self, len: usize) -> bool {
        len <= self.left || self.frags < MAX_FRAGS
    }

    /// Adds up to `len` bytes. `init` writes them, behind `before` bytes that it may change, too;
    /// `change` gets all of these and says how many of the last `len` become part of the packet.
    /// The bytes before are restored afterwards. `wanted` is how much is going to be added, with
    /// this.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if `before` exceeds [`SCRATCH`] or `len` is 0; that of `init` and
    /// `change`. Nothing has been added then.
    ///
    /// # Safety
    ///
    /// `init` gets a pointer to `before + len` bytes that are ours, of which the first `before` are
    /// initialised. It must not write others, and all must be initialised if it succeeds.
    pub(super) unsafe fn add(
        &mut self,
        before: usize,
        len: usize,
        wanted: usize,
        init: impl FnOnce(*mut u8) -> Result,
        change: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result {
        if before > SCRATCH || len == 0 {
            return Err(EINVAL);
        }
        if self.left < len {
            self.add_frag(len, wanted)?;
        }
        // SAFETY: By the type invariant there are `left` bytes of ours from `space` on, no fewer
        // than `len`, and `SCRATCH` initialised ones before, no fewer than `before`. The caller
        // guarantees that `init` initialises the rest of the slice.
        let added = unsafe {
            let scratch = self.space.sub(SCRATCH).cast::<[u8; SCRATCH]>();
            let saved = *scratch;
            let start = self.space.sub(before);
            let added = init(start)
                .and_then(|()| change(slice::from_raw_parts_mut(start, before.wrapping_add(len))));
            *scratch = saved;
            added
        }?;
        if added > len {
            return Err(EINVAL);
        }
        // SAFETY: The packet is valid and ours. There is a fragment, in which so many more bytes
        // are initialised.
        unsafe {
            bindings::wg_skb_grow_frag(self.skb.as_raw(), added as u32);
            // INVARIANT: These bytes are in use now, and initialised.
            self.space = self.space.add(added);
        }
        self.left = self.left.saturating_sub(added);
        Ok(())
    }

    /// Adds a fragment with space for `needed` bytes at least, and for `wanted` if there is memory.
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
            self.end();
            return Err(ENOMEM);
        }
        // INVARIANT: As the helper says; the first bytes are initialised here.
        // SAFETY: There are so many bytes, as just checked, and they are ours.
        unsafe {
            start.write_bytes(0, SCRATCH);
            self.space = start.add(SCRATCH);
        }
        self.left = left;
        self.frags = self.frags.wrapping_add(1);
        Ok(())
    }

    /// Removes the last fragment if nothing was added to it.
    fn end(&mut self) {
        // SAFETY: The packet is valid and ours.
        unsafe { bindings::wg_skb_end_frags(self.skb.as_raw()) };
    }

    /// The packet.
    pub(super) fn finish(mut self) -> SkBuff {
        self.end();
        self.skb
    }
}

/// The memory of fragments that is kept to be used again. Dropping it frees that memory; whoever
/// lets packets grow afterwards needs another.
pub struct FragPool(());

impl FragPool {
    /// Begins empty.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Drop for FragPool {
    fn drop(&mut self) {
        // SAFETY: No requirements: pages that are in use have references of their own.
        unsafe { bindings::wg_pool_free() };
    }
}

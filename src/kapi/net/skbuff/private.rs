// SPDX-License-Identifier: GPL-2.0-only

//! Packets whose bytes may be changed.

use core::{ops::Deref, ptr, slice};

use kernel::prelude::*;

use super::{SkBuff, Skb};
use crate::{
    bindings,
    kapi::net::{ip::EcnMark, netdevice::NetDevice},
};

/// A packet whose bytes may be changed, borrowed.
///
/// # Invariants
///
/// The packet is linear, and no clone shares its data.
pub struct PrivateSkb<'a>(&'a mut Skb);

impl Skb {
    /// Makes the packet linear and its data its own, with at least `headroom` bytes before and
    /// `tailroom` bytes behind that can be written. At most one reallocation. Any context but hard
    /// interrupts.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EMSGSIZE` for an absurd `tailroom`.
    #[inline]
    pub fn make_private(&mut self, headroom: u32, tailroom: u32) -> Result<PrivateSkb<'_>> {
        // SAFETY: The packet is valid and exclusively borrowed.
        match unsafe { bindings::wg_skb_make_private(self.as_raw(), headroom, tailroom) } {
            // INVARIANT: As just done.
            0 => Ok(PrivateSkb(self)),
            errno => Err(Error::from_errno(errno)),
        }
    }

    /// As [`Skb::make_private`], for a packet whose headers cannot be read afterwards: before, the
    /// flow hash is taken from them; after, a checksum that was left to the device is filled in.
    ///
    /// `dev` transmits the packet: the rules by which flows are told apart are those of its
    /// namespace. The packet has no device afterwards.
    ///
    /// # Errors
    ///
    /// As [`Skb::make_private`], or the checksum cannot be computed.
    #[inline]
    pub fn prepare_encryption(
        &mut self,
        dev: &NetDevice,
        headroom: u32,
        tailroom: u32,
    ) -> Result<PrivateSkb<'_>> {
        // SAFETY: The packet is valid and exclusively borrowed, the device valid.
        match unsafe {
            bindings::wg_skb_prepare_encryption(self.as_raw(), dev.as_raw(), headroom, tailroom)
        } {
            // INVARIANT: As just done.
            0 => Ok(PrivateSkb(self)),
            errno => Err(Error::from_errno(errno)),
        }
    }
}

impl<'a> PrivateSkb<'a> {
    /// The packet that has just been allocated.
    #[inline]
    pub(super) fn of_new(skb: &'a mut SkBuff) -> Self {
        // INVARIANT: A new packet has no fragments and no clones.
        Self(skb)
    }

    /// The packet's bytes.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: All bytes of the packet are linear and its own by the type invariant, and
        // initialised by that of `Skb`.
        unsafe { slice::from_raw_parts_mut(self.0.raw().data, self.0.len()) }
    }

    /// The packet's bytes, and `front` zeros before them, which are not part of it.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room.
    #[inline]
    pub fn data_with_front_mut(&mut self, front: usize) -> Result<&mut [u8]> {
        let skb = self.0.raw();
        if skb.data.addr().wrapping_sub(skb.head.addr()) < front {
            return Err(EMSGSIZE);
        }
        // SAFETY: The `front` bytes before the data are within the buffer, and initialised here;
        // for the others see `data_mut()`. All are the packet's own by the type invariant.
        unsafe {
            let start = skb.data.sub(front);
            ptr::write_bytes(start, 0, front);
            Ok(slice::from_raw_parts_mut(
                start,
                front.wrapping_add(self.0.len()),
            ))
        }
    }

    /// Appends `len` zeros and gives them, to be overwritten.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room.
    #[inline]
    pub fn put_zeros(&mut self, len: usize) -> Result<&mut [u8]> {
        let len32 = u32::try_from(len)?;
        let raw = self.0.as_raw();
        let skb = self.0.raw();
        if skb.end.wrapping_sub(skb.tail) < len32 {
            return Err(EMSGSIZE);
        }
        let start = skb.tail as usize;
        // SAFETY: The packet is linear and its data its own by the type invariant; the bytes are
        // within the buffer. They are initialised before they are handed out.
        unsafe {
            (*raw).tail = (*raw).tail.wrapping_add(len32);
            (*raw).len = (*raw).len.wrapping_add(len32);
            let start = (*raw).head.add(start);
            ptr::write_bytes(start, 0, len);
            Ok(slice::from_raw_parts_mut(start, len))
        }
    }

    /// Puts `bytes` before the packet.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room.
    #[inline]
    pub fn push<const N: usize>(&mut self, bytes: &[u8; N]) -> Result {
        const { assert!(N <= u16::MAX as usize) };
        let skb = self.0.raw();
        if skb.data.addr().wrapping_sub(skb.head.addr()) < N {
            return Err(EMSGSIZE);
        }
        let raw = self.0.as_raw();
        // SAFETY: The `N` bytes before the data are within the buffer, which is the packet's own
        // by the type invariant.
        unsafe {
            let start = (*raw).data.sub(N);
            ptr::copy_nonoverlapping(bytes.as_ptr(), start, N);
            (*raw).data = start;
            (*raw).len = (*raw).len.wrapping_add(N as u32);
        }
        Ok(())
    }

    /// Moves the start of the packet forward.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if the packet is shorter.
    #[inline]
    pub fn pull(&mut self, len: u32) -> Result {
        self.0.pull(len)
    }

    /// Cuts the packet off after `len` bytes, if it is longer.
    #[inline]
    pub fn trim(&mut self, len: u32) -> Result {
        self.0.trim(len)
    }

    /// Writes `mark` into the IP header at the network header, if that is of a packet that is
    /// capable of congestion notification (RFC 3168); corrects the header's checksum.
    pub fn set_ecn(&mut self, mark: EcnMark) {
        // SAFETY: The packet is valid, exclusively borrowed, and its data its own.
        unsafe { bindings::wg_skb_set_ecn(self.0.as_raw(), mark == EcnMark::Ce) };
    }
}

impl Deref for PrivateSkb<'_> {
    type Target = Skb;

    #[inline]
    fn deref(&self) -> &Skb {
        self.0
    }
}

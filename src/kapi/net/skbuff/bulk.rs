// SPDX-License-Identifier: GPL-2.0-only

//! Packets that stand for many datagrams: UDP segmentation offload.

use core::{cell::Cell, ops::Range, ptr, slice};

use kernel::{error::to_result, prelude::*};

use super::{SkBuff, Skb, MAX_FRAGS};
use crate::{bindings, kapi::net::netdevice::NetDevice};

/// Datagrams that one packet may stand for; virtio and older kernels refuse more.
const MAX_DATAGRAMS: u16 = 64;
/// Bytes that their payloads may have together, so that the length of the packet fits into the
/// header of UDP, and with any other header into that of IPv4.
const MAX_LEN: usize = 65_400;

/// Datagrams of one length, of which the last may be shorter, in the making: their payloads, one
/// behind the other in pages of their own.
///
/// # Invariants
///
/// `space` points to `left` bytes that are ours, the last of the memory of the last fragment of
/// `skb`. All bytes before them are initialised, and are at least `BEFORE`. Without a fragment
/// `left` is 0.
pub struct UdpBulk<const SCRATCH: usize, const HEADER: usize> {
    skb: SkBuff,
    space: *mut u8,
    left: usize,
    frags: u8,
    /// Length of the first datagram's payload.
    len: usize,
    count: u16,
    /// A shorter one is the last.
    is_ended: bool,
}

impl<const SCRATCH: usize, const HEADER: usize> UdpBulk<SCRATCH, HEADER> {
    const BEFORE: usize = {
        assert!(HEADER <= SCRATCH);
        SCRATCH - HEADER
    };

    /// Begins a packet for datagrams of `len` bytes, with `headroom` bytes before the first. Its
    /// flow is that of `first`, which `dev` transmits. Any context but hard interrupts.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(headroom: usize, len: usize, first: &mut Skb, dev: &NetDevice) -> Result<Self> {
        let skb = SkBuff::alloc(headroom, 0)?;
        // SAFETY: All are valid, and the packets exclusively borrowed.
        unsafe { bindings::wg_skb_join_flow(skb.as_raw(), first.as_raw(), dev.as_raw()) };
        // INVARIANT: There is no fragment, and no space.
        Ok(Self {
            skb,
            space: ptr::null_mut(),
            left: 0,
            frags: 0,
            len,
            count: 0,
            is_ended: false,
        })
    }

    /// Whether a datagram of `len` bytes may be added.
    pub fn takes(&self, len: usize) -> bool {
        !self.is_ended
            && len <= self.len
            && self.count < MAX_DATAGRAMS
            && self.skb.len().saturating_add(len) <= MAX_LEN
            && (len <= self.left || self.frags < MAX_FRAGS)
    }

    /// The number of datagrams.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Adds a datagram, made from `packet`, whose socket is charged for this from now on: `make`
    /// gets `SCRATCH` bytes, the packet, and `trailer` zeros, changes them and gives what is to be
    /// in the last `HEADER` bytes of the scratch space, where the datagram begins.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the checksum of the packet cannot be computed; that of `make`. Nothing
    /// has been added then.
    pub fn add(
        &mut self,
        packet: &mut Skb,
        trailer: usize,
        make: impl FnOnce(&mut [u8]) -> Result<[u8; HEADER]>,
    ) -> Result {
        let copy = |text| {
            // SAFETY: The packet is valid and exclusively borrowed; there is room for it.
            to_result(unsafe { bindings::wg_skb_copy_complete(packet.as_raw(), text) })
        };
        // SAFETY: The helper writes as many bytes as the packet has if it succeeds.
        unsafe { self.add_text(packet.len(), trailer, copy, make) }?;
        self.take_charge(packet);
        Ok(())
    }

    /// As [`UdpBulk::add`], for a datagram that is made from the first `header_len` bytes of
    /// `packet` and a part of the others. `make` gets also the sum of that part as 16-bit words,
    /// modulo 2^16 - 1. Nothing changes for the packet's socket.
    ///
    /// # Errors
    ///
    /// As [`UdpBulk::add`]; `EINVAL` if the packet does not have these bytes.
    pub fn add_segment(
        &mut self,
        packet: &Skb,
        header_len: usize,
        part: Range<usize>,
        trailer: usize,
        make: impl FnOnce(&mut [u8], u32) -> Result<[u8; HEADER]>,
    ) -> Result {
        let part_len = part.end.checked_sub(part.start).ok_or(EINVAL)?;
        let text_len = header_len.checked_add(part_len).ok_or(EMSGSIZE)?;
        let (header, start, len) = (
            u32::try_from(header_len)?,
            u32::try_from(part.start)?,
            u32::try_from(part_len)?,
        );
        let sum = Cell::new(0);
        let copy = |text| {
            // SAFETY: The packet is valid; there is room for the bytes.
            to_result(unsafe {
                let sum = sum.as_ptr();
                bindings::wg_skb_copy_segment(packet.as_raw(), text, header, start, len, sum)
            })
        };
        // SAFETY: The helper writes so many bytes if it succeeds.
        unsafe { self.add_text(text_len, trailer, copy, |buffer| make(buffer, sum.get())) }
    }

    /// Has the socket that is charged for `packet` be charged for this instead, unless another is
    /// already.
    pub fn take_charge(&mut self, packet: &mut Skb) {
        // SAFETY: The packets are valid and exclusively borrowed.
        unsafe { bindings::wg_skb_take_charge(self.skb.as_raw(), packet.as_raw()) };
    }

    /// Adds a datagram of `packet_len` bytes that `copy` writes, and `trailer` zeros.
    ///
    /// # Safety
    ///
    /// `copy`, which gets a pointer to so many bytes that are ours, must initialise all of them if
    /// it succeeds.
    unsafe fn add_text(
        &mut self,
        packet_len: usize,
        trailer: usize,
        copy: impl FnOnce(*mut u8) -> Result,
        make: impl FnOnce(&mut [u8]) -> Result<[u8; HEADER]>,
    ) -> Result {
        let text_len = packet_len.checked_add(trailer).ok_or(EMSGSIZE)?;
        let len = text_len.checked_add(HEADER).ok_or(EMSGSIZE)?;
        if self.left < len {
            self.add_frag(len)?;
        }
        // SAFETY: By the type invariant there are `left` bytes of ours from `space` on, which are
        // enough for `len`, and at least `BEFORE` initialised ones before them in the fragment. The
        // rest of the scratch space, the text and the trailer are initialised here before a
        // reference is made.
        let buffer = unsafe {
            self.space.write_bytes(0, HEADER);
            let text = self.space.add(HEADER);
            copy(text)?;
            text.add(packet_len).write_bytes(0, trailer);
            let buffer_len = Self::BEFORE.wrapping_add(len);
            slice::from_raw_parts_mut(self.space.sub(Self::BEFORE), buffer_len)
        };
        let before: [u8; SCRATCH] = *buffer.first_chunk().ok_or(EINVAL)?;
        let header = make(buffer);
        if let Some(place) = buffer.first_chunk_mut() {
            *place = before;
        }
        let header = header?;
        if let Some(place) = buffer
            .get_mut(Self::BEFORE..)
            .and_then(<[u8]>::first_chunk_mut)
        {
            *place = header;
        }
        // SAFETY: The packet is valid and ours. There is a fragment, in which `len` more bytes are
        // initialised now.
        unsafe {
            bindings::wg_skb_grow_frag(self.skb.as_raw(), len as u32);
            // INVARIANT: These bytes are in use now.
            self.space = self.space.add(len);
        }
        self.left = self.left.saturating_sub(len);
        self.count = self.count.wrapping_add(1);
        self.is_ended = len < self.len;
        Ok(())
    }

    /// Adds a fragment with space for one datagram of `len` bytes at least, and for as many as may
    /// be added if there is memory.
    fn add_frag(&mut self, len: usize) -> Result {
        let wanted = MAX_LEN.saturating_sub(self.skb.len()).max(len);
        let (mut size, before) = (0, Self::BEFORE as u32);
        // SAFETY: The packet is valid and ours.
        let start = unsafe {
            bindings::wg_skb_add_frag(self.skb.as_raw(), before, wanted as u32, &mut size)
        };
        let start = start.cast::<u8>();
        let left = (size as usize).saturating_sub(Self::BEFORE);
        if start.is_null() || left < len {
            // INVARIANT: The rest of the fragment before is given up, and a new one with it.
            self.left = 0;
            // SAFETY: The packet is valid and ours.
            unsafe { bindings::wg_skb_end_frags(self.skb.as_raw()) };
            return Err(ENOMEM);
        }
        // SAFETY: There are so many bytes, as just checked, and they are ours.
        unsafe { start.write_bytes(0, Self::BEFORE) };
        // INVARIANT: As the helper says.
        // SAFETY: As above.
        self.space = unsafe { start.add(Self::BEFORE) };
        self.left = left;
        self.frags = self.frags.wrapping_add(1);
        Ok(())
    }

    /// The packet; nothing tells where it came from. [`None`] if no datagram has been added.
    pub fn finish(mut self) -> Option<SkBuff> {
        if self.count == 0 {
            return None;
        }
        self.skb.reset_encapsulated();
        let raw = self.skb.as_raw();
        // SAFETY: The packet is valid and ours; its data are the payloads.
        unsafe {
            bindings::wg_skb_end_frags(raw);
            if self.count > 1 {
                bindings::wg_skb_set_udp_gso(raw, self.len as u16, self.count);
            }
        }
        Some(self.skb)
    }
}

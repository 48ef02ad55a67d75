// SPDX-License-Identifier: GPL-2.0-only

//! Packets that stand for many datagrams: UDP segmentation offload.

use core::{cell::Cell, ops::Range};

use kernel::{error::to_result, prelude::*};

use super::{
    growing::{Growing, SCRATCH as MAX_SCRATCH},
    SkBuff, Skb,
};
use crate::{bindings, kapi::net::netdevice::NetDevice};

/// Datagrams that one packet may stand for; virtio and older kernels refuse more.
const MAX_DATAGRAMS: u16 = 64;
/// Bytes that their payloads may have together, so that the length of the packet fits into the
/// header of UDP, and with any other header into that of IPv4.
const MAX_LEN: usize = 65_400;

/// Datagrams of one length, of which the last may be shorter, in the making: their payloads, one
/// behind the other.
pub struct UdpBulk<const SCRATCH: usize, const HEADER: usize> {
    packet: Growing,
    /// Length of the first datagram's payload.
    len: usize,
    count: u16,
    /// A shorter one is the last.
    is_ended: bool,
}

impl<const SCRATCH: usize, const HEADER: usize> UdpBulk<SCRATCH, HEADER> {
    const BEFORE: usize = {
        assert!(HEADER <= SCRATCH && SCRATCH - HEADER <= MAX_SCRATCH);
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
        Ok(Self {
            packet: Growing::new(skb),
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
            && self.packet.len().saturating_add(len) <= MAX_LEN
            && self.packet.takes(len)
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
        unsafe { bindings::wg_skb_take_charge(self.packet.skb().as_raw(), packet.as_raw()) };
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
        let wanted = MAX_LEN.saturating_sub(self.packet.len());
        // SAFETY: There are `len` bytes behind the first `BEFORE`: the rest of the scratch space,
        // the text and the trailer, which are all initialised here.
        let init = |start: *mut u8| unsafe {
            let rest = start.add(Self::BEFORE);
            rest.write_bytes(0, HEADER);
            let text = rest.add(HEADER);
            copy(text)?;
            text.add(packet_len).write_bytes(0, trailer);
            Ok(())
        };
        let change = |buffer: &mut [u8]| {
            let header = make(buffer)?;
            let place = buffer.get_mut(Self::BEFORE..).ok_or(EINVAL)?;
            *place.first_chunk_mut().ok_or(EINVAL)? = header;
            Ok(len)
        };
        // SAFETY: `init` writes the bytes behind the first `BEFORE`, all of them if it succeeds.
        unsafe { self.packet.add(Self::BEFORE, len, wanted, init, change) }?;
        self.count = self.count.wrapping_add(1);
        self.is_ended = len < self.len;
        Ok(())
    }

    /// The packet; nothing tells where it came from. [`None`] if no datagram has been added.
    pub fn finish(self) -> Option<SkBuff> {
        if self.count == 0 {
            return None;
        }
        let mut skb = self.packet.finish();
        skb.reset_encapsulated();
        if self.count > 1 {
            // SAFETY: The packet is valid and ours; its data are the payloads.
            unsafe { bindings::wg_skb_set_udp_gso(skb.as_raw(), self.len as u16, self.count) };
        }
        Some(skb)
    }
}

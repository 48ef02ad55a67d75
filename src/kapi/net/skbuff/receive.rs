// SPDX-License-Identifier: GPL-2.0

//! What a received packet goes through besides decryption.

use super::{IpVersion, Skb};
use crate::{
    bindings,
    kapi::net::{ip, netdevice::NetDevice},
};

/// Length of a UDP header.
const UDP_HEADER_LEN: u32 = 8;

/// The longest message whose bytes are looked at one by one (a handshake initiation).
const MAX_PARSED_LEN: u32 = 148;

/// Why a decrypted packet is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxError {
    /// It is neither IPv4 nor IPv6.
    Type,
    /// It says that it is longer than it is, or impossibly short.
    Size,
}

impl Skb {
    /// Takes the UDP header off a packet that a tunnel socket received, and what follows the
    /// datagram: the packet is the datagram's payload then, its length is true, and as much of it
    /// as the longest handshake message has is linear. Outer headers stay readable.
    ///
    /// # Errors
    ///
    /// The headers lie, or there is no memory.
    #[expect(clippy::result_unit_err)]
    pub fn prepare_received(&mut self) -> Result<(), ()> {
        if !self.is_valid_ip_packet() {
            return Err(());
        }
        let &[_, _, _, _, len_high, len_low, ..] = self
            .transport()
            .first_chunk::<{ UDP_HEADER_LEN as usize }>()
            .ok_or(())?;
        let datagram_len = u32::from(u16::from_be_bytes([len_high, len_low]));
        let payload_len = datagram_len.checked_sub(UDP_HEADER_LEN).ok_or(())?;

        // Where the UDP header starts, counted from the data: usually right there.
        let udp_address = self.transport().as_ptr().addr();
        let offset = udp_address.checked_sub(self.raw().data.addr()).ok_or(())?;
        let offset = u32::from(u16::try_from(offset).map_err(|_| ())?);
        let payload_start = offset.wrapping_add(UDP_HEADER_LEN);

        self.trim_exactly(payload_start.wrapping_add(payload_len))?;
        self.may_pull(payload_start.wrapping_add(payload_len.min(MAX_PARSED_LEN)))
            .map_err(|_| ())?;
        self.pull(payload_start).map_err(|_| ())
    }

    /// Cuts the packet to `len` bytes, which it must have.
    fn trim_exactly(&mut self, len: u32) -> Result<(), ()> {
        if self.raw().len < len {
            return Err(());
        }
        self.trim(len).map_err(|_| ())
    }

    /// Makes a decrypted packet one of its own: nothing of the outer packet is left but what the
    /// driver noted, and the network header is where the packet starts.
    #[inline]
    pub fn reset_decapsulated(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_skb_renew(self.as_raw(), false) };
    }

    /// Prepares a decrypted packet for delivery as received by `dev`: checks version and length,
    /// cuts the padding off, carries a congestion mark of the outer header (`outer_ds`) inwards,
    /// and marks all checksums as verified. After [`Skb::reset_decapsulated`].
    ///
    /// # Errors
    ///
    /// The packet must not be delivered; the caller counts it.
    pub fn finish_receive(&mut self, dev: &NetDevice, outer_ds: u8) -> Result<(), RxError> {
        let (version, len) = ip::total_len(self.network()).ok_or(RxError::Type)?;
        if version == IpVersion::V4 && len < ip::IPV4_HEADER_LEN as u32 {
            return Err(RxError::Size);
        }
        if len > self.raw().len {
            return Err(RxError::Size);
        }
        let protocol = version.protocol_be();
        // SAFETY: By the type invariant; the device outlives packets that it received.
        unsafe { bindings::wg_skb_mark_received(self.as_raw(), dev.as_raw(), protocol) };
        if let Some(mark) = ip::ecn_decapsulate(outer_ds, ip::dsfield(self.network(), protocol)) {
            let congested = mark == ip::EcnMark::Ce;
            // SAFETY: By the type invariant; the packet is private since it was decrypted.
            unsafe { bindings::wg_skb_set_ecn(self.as_raw(), congested) };
        }
        self.trim(len).map_err(|_| RxError::Size)
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! A netlink message under construction, in a buffer that never moves and is zeroed in the end.

use super::Link;
use crate::buffer::Buffer;
use crate::netlink::NETLINK_HEADER_LEN;
use netlink_packet_core::{nla_align, NetlinkBuffer, NLA_ALIGNTO, NLA_F_NESTED, NLA_HEADER_SIZE};
use nix::errno::Errno;
use std::io;
use wireguard_rs::proto::uapi::{device, IFNAME_MAX_LEN};

/// Bytes in the header of generic netlink, after that of netlink.
pub const GENL_HEADER: usize = 4;
/// Longest message: half of what a nested attribute can hold, and less than the default send
/// buffer.
const LIMIT: usize = 32 * 1024;
/// A message under construction.
pub struct Message(Buffer);

/// The message is full.
#[derive(Debug)]
pub struct Full;

/// Where a nested attribute started.
#[must_use]
pub struct Nest(usize);

impl Message {
    /// A message with a header; the fixed part of its body follows.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Buffer::with_capacity(LIMIT);
        bytes.resize(NETLINK_HEADER_LEN, 0);
        let mut header = NetlinkBuffer::new(&mut bytes[..]);
        header.set_message_type(kind);
        header.set_flags(flags);
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// A message of generic netlink, version 1.
    pub fn generic(family: u16, flags: u16, command: u8) -> Self {
        Self::new(family, flags, &[command, 1, 0, 0])
    }

    /// Fills in its length; the message is ready to be sent.
    pub fn finish(&mut self) -> &mut [u8] {
        // At most LIMIT.
        let length = self.0.len() as u32;
        NetlinkBuffer::new(&mut self.0[..]).set_length(length);
        &mut self.0
    }

    /// Adds an attribute if there is room.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> Result<(), Full> {
        let length = NLA_HEADER_SIZE + value.len();
        let padded = nla_align!(length);
        if self.0.len() + padded > LIMIT {
            return Err(Full);
        }
        let end = self.0.len() + padded;
        self.0.extend_from_slice(&(length as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(end, 0);
        Ok(())
    }

    /// Opens a nested attribute.
    pub fn nest(&mut self, kind: u16) -> Result<Nest, Full> {
        let nest = Nest(self.0.len());
        self.put(kind | NLA_F_NESTED, &[])?;
        Ok(nest)
    }

    /// Closes a nested attribute.
    pub fn end(&mut self, nest: Nest) {
        // At most LIMIT, which a length holds.
        let length = (self.0.len() - nest.0) as u16;
        self.0[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Takes back a nested attribute, and all that came after it.
    pub fn cancel(&mut self, nest: Nest) {
        self.0[nest.0..].fill(0);
        self.0.truncate(nest.0);
    }

    /// Says which device is meant.
    pub fn link(&mut self, link: Link<'_>) -> io::Result<()> {
        let full = |Full| Errno::EMSGSIZE.into();
        match link {
            Link::Index(index) => self
                .put(device::IFINDEX, &index.to_ne_bytes())
                .map_err(full),
            Link::Name(name) if name.len() > IFNAME_MAX_LEN => Err(Errno::ENAMETOOLONG.into()),
            Link::Name(name) => self
                .put(device::IFNAME, &[name.as_bytes(), b"\0"].concat())
                .map_err(full),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Messages that came together and carry successive packets of one flow of TCP or UDP become one
//! packet: the stack sees one where it would put them together itself.

use core::ops::Range;

use kernel::prelude::*;

use crate::{
    device::packet::{self, PacketCb},
    kapi::net::{
        ip::{self, IpVersion},
        netdevice::NetDevice,
        skbuff::{Joined, SkBuff, Skb},
    },
    proto::{
        crypto::SymmetricKey,
        join::Joint,
        messages::{DATA_HEADER_LEN, DATA_MIN_LEN},
    },
};

/// A packet that others may be joined to.
pub(crate) struct Joining {
    joint: Joint,
    joined: Joined,
    version: IpVersion,
    /// As the packet will have it.
    cb: PacketCb,
}

/// What has become of a message.
pub(crate) enum Added {
    /// It is part of the packet now.
    Joined,
    /// It does not authenticate.
    Forged,
    /// It is for a packet of its own.
    Apart,
}

impl Joining {
    /// Begins with a decrypted packet. Gives it back if none can be joined to it. UDP packets can
    /// only if their socket wants that, which is not asked again after `udp` has become false.
    pub(crate) fn new(mut first: SkBuff, dev: &NetDevice, udp: &mut bool) -> Result<Self, SkBuff> {
        let (joint, version) = match (Joint::new(first.data()), IpVersion::parse(first.data())) {
            (Some(joint), Some(version)) => (joint, version),
            _ => return Err(first),
        };
        if joint.is_udp() {
            *udp = *udp && first.is_for_gro_socket(dev, version);
            if !*udp {
                return Err(first);
            }
        }
        let mut cb: PacketCb = *first.cb();
        // What the outer headers say of congestion would have to reach each packet.
        let inner = ip::dsfield(first.data(), version.protocol_be());
        if ip::ecn_decapsulate(cb.ds, inner).is_some() {
            return Err(first);
        }
        let Ok(message_len) = u16::try_from(first.len().wrapping_add(DATA_MIN_LEN)) else {
            return Err(first);
        };
        cb.bytes = message_len.into();
        cb.first = message_len;
        // Padding.
        let len = joint.header_len().wrapping_add(joint.size());
        if first.trim(len as u32).is_err() {
            return Err(first);
        }
        *first.cb_mut() = cb;
        let joined = Joined::new(first)?;
        Ok(Self {
            joint,
            joined,
            version,
            cb,
        })
    }

    /// Decrypts a message, which is a piece of `from` with the counter `counter`, and joins what it
    /// carries.
    pub(crate) fn add(
        &mut self,
        from: &Skb,
        piece: &Range<u32>,
        counter: u64,
        key: &SymmetricKey,
    ) -> Added {
        if counter != self.cb.nonce.wrapping_add(self.joint.count().into()) {
            return Added::Apart;
        }
        let before = DATA_HEADER_LEN.wrapping_add(self.joint.header_len());
        let wanted = from.len().saturating_sub(piece.start as usize);
        let joint = &mut self.joint;
        let added = self.joined.add(from, piece, before, wanted, |message| {
            let plain = packet::open_in_place(message, counter, key).ok_or(EBADMSG)?;
            joint.join(plain).ok_or(EINVAL)
        });
        match added {
            Ok(()) => {
                let len = piece.end.saturating_sub(piece.start);
                self.cb.bytes = self.cb.bytes.wrapping_add(len);
                Added::Joined
            }
            Err(EBADMSG) => Added::Forged,
            Err(_) => Added::Apart,
        }
    }

    /// The packet.
    pub(crate) fn finish(self) -> SkBuff {
        let Self {
            joint,
            joined,
            version,
            mut cb,
        } = self;
        let (size, count) = (joint.size() as u16, joint.count());
        let (is_udp, fixed_id) = (joint.is_udp(), joint.has_fixed_id());
        let mut skb = joined.finish(version, is_udp, size, count, fixed_id, |linear| {
            let _ = joint.finish(linear);
        });
        cb.messages = count;
        *skb.cb_mut() = cb;
        skb
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Packets as messages: transport data is framed, encrypted and decrypted in place (whitepaper,
//! section 5.4.6), and what was decrypted is checked before the stack gets it.

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};
use zerocopy::transmute;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

use crate::{
    kapi::{
        crypto::{aead, KernelCrypto},
        net::{
            ip::{self, IpVersion},
            netdevice::NetDevice,
            skbuff::{SkBuff, Skb, SkbList, UdpBulk},
        },
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    },
    proto::{
        consts::TAG_LEN,
        crypto::SymmetricKey,
        messages::{padding, DataHeader, DATA_HEADER_LEN, DATA_MIN_LEN, INITIATION_LEN},
        packet_aead,
        segment::Segments,
    },
    tables::runqueue::Packets,
};

/// Bytes to leave free before a packet: the header of transport data, UDP and IPv6 headers, and
/// what the stack reserves for link-layer headers (`NET_SKB_PAD`, at most a cache line).
pub(crate) const HEADROOM: usize = DATA_HEADER_LEN + ip::UDP_HEADER_LEN + ip::IPV6_HEADER_LEN + 64;

/// Whether packets are encrypted by [`packet_aead`] rather than by the kernel's composition.
static COMPOSED: AtomicBool = AtomicBool::new(false);

/// Tests our composition of the cipher against the kernel's, and uses it if both agree. When the
/// module is loaded.
pub(crate) fn choose_cipher() -> Result {
    /// For the longest message that is tested, three times.
    const SCRATCH: usize = 3 * 2048;
    let mut scratch = KVec::with_capacity(SCRATCH, GFP_KERNEL)?;
    scratch.resize(SCRATCH, 0, GFP_KERNEL)?;
    let agrees = packet_aead::self_test::<KernelCrypto>(&mut scratch) == Some(true);
    if !agrees {
        pr_warn!("the composed cipher failed its self-test: using the kernel's\n");
    }
    COMPOSED.store(agrees, Relaxed);
    Ok(())
}

/// What we keep on a packet ([`Skb::cb`]).
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(crate) struct PacketCb {
    /// The nonce that the packet is, or is to be, encrypted with. If it is to become several
    /// messages, those that follow have the next ones.
    pub(crate) nonce: u64,
    /// The MTU of the packet's path in bytes, which bounds the padding; 0 is no bound.
    pub(crate) mtu: u32,
    /// The length of the messages that a received packet came in; 0 if it tells by its own length.
    pub(crate) bytes: u32,
    /// The messages that the packet holds, came in or is to become, if they are several; else 0
    /// or 1.
    pub(crate) messages: u16,
    /// The length of the first of several messages that a packet came in; the others are as long,
    /// but for the last.
    pub(crate) first: u16,
    /// Traffic class of the outer header.
    pub(crate) ds: u8,
    pub(crate) _reserved: [u8; 3],
}

/// How many messages a packet holds, came in or is to become.
#[inline]
pub(crate) fn messages(skb: &Skb) -> usize {
    skb.cb::<PacketCb>().messages.max(1).into()
}

impl Packets for SkbList {
    fn count(&self) -> usize {
        self.iter()
            .fold(0, |count, skb| count.wrapping_add(messages(skb)))
    }

    #[inline]
    fn append(&mut self, mut other: Self) {
        SkbList::append(self, &mut other);
    }
}

/// Makes a packet of a handshake message. Any context.
pub(crate) fn from_message(message: &[u8]) -> Result<SkBuff> {
    SkBuff::from_bytes(HEADROOM, message)
}

/// Makes an empty packet, to be encrypted as a keepalive; `mtu` as in [`PacketCb`]. Any context.
pub(crate) fn keepalive(mtu: u32) -> Result<SkBuff> {
    let mut skb = SkBuff::alloc(HEADROOM, TAG_LEN)?;
    *skb.cb_mut() = PacketCb {
        mtu,
        ..PacketCb::default()
    };
    Ok(skb)
}

/// Makes a packet transport data: pads it, encrypts it in place with the nonce noted on it and puts
/// the header before it. `dev` is the tunnel's device. Afterwards nothing tells where the packet
/// came from, but its flow hash is kept. Any context but hard interrupts.
///
/// A packet that is not linear and private is made so first, with one reallocation; most are:
/// segments that were cut from an offload packet, and what a tunnel or veth delivers.
///
/// # Errors
///
/// No memory, or a checksum that cannot be computed; the packet is then good for nothing but to be
/// dropped.
pub(crate) fn seal(
    skb: &mut Skb,
    dev: &NetDevice,
    key: &SymmetricKey,
    receiver_index: u32,
) -> Result {
    let &PacketCb { nonce, mtu, .. } = skb.cb();
    let trailer = padding(skb.len() as u32, mtu)
        .checked_add(TAG_LEN as u32)
        .ok_or(EMSGSIZE)?;
    let mut packet = skb.prepare_encryption(dev, HEADROOM as u32, trailer)?;
    packet.put_zeros(trailer as usize)?;
    if !seal_in_place(packet.data_with_front_mut(packet_aead::FRONT)?, nonce, key) {
        return Err(EMSGSIZE);
    }
    let header: [u8; DATA_HEADER_LEN] = transmute!(DataHeader::new(receiver_index, nonce));
    packet.push(&header)?;
    skb.reset_encapsulated();
    Ok(())
}

/// Messages that are sent as one packet, in the making.
pub(crate) type Bulk = UdpBulk<{ packet_aead::FRONT }, DATA_HEADER_LEN>;

/// Begins a packet for several messages of `len` bytes. Their flow is that of `first`; `dev` as for
/// [`seal`].
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn begin_bulk(first: &mut Skb, len: usize, dev: &NetDevice) -> Result<Bulk> {
    Bulk::new(HEADROOM, len, first, dev)
}

/// The length of the transport data that [`seal`] makes of a packet.
pub(crate) fn sealed_len(skb: &Skb) -> usize {
    let &PacketCb { mtu, .. } = skb.cb();
    message_len(skb.len(), mtu)
}

/// The length of transport data with `len` bytes; `mtu` as in [`PacketCb`].
pub(crate) fn message_len(len: usize, mtu: u32) -> usize {
    let padding = padding(len as u32, mtu) as usize;
    len.wrapping_add(padding).wrapping_add(DATA_MIN_LEN)
}

/// Adds a packet to others as transport data: as [`seal`], but the packet itself stays as it is.
///
/// # Errors
///
/// As [`seal`].
pub(crate) fn seal_into(
    bulk: &mut Bulk,
    skb: &mut Skb,
    key: &SymmetricKey,
    receiver_index: u32,
) -> Result {
    let &PacketCb { nonce, mtu, .. } = skb.cb();
    let trailer = (padding(skb.len() as u32, mtu) as usize).wrapping_add(TAG_LEN);
    bulk.add(skb, trailer, |buffer| {
        if !seal_in_place(buffer, nonce, key) {
            return Err(EMSGSIZE);
        }
        Ok(transmute!(DataHeader::new(receiver_index, nonce)))
    })
}

/// Adds segment `n` of a packet as transport data, with the nonce that is the packet's plus `n`.
///
/// # Errors
///
/// As [`seal`].
pub(crate) fn seal_segment(
    bulk: &mut Bulk,
    skb: &Skb,
    segments: &Segments,
    n: usize,
    key: &SymmetricKey,
    receiver_index: u32,
) -> Result {
    let &PacketCb { nonce, mtu, .. } = skb.cb();
    let nonce = nonce.wrapping_add(n as u64);
    let part = segments.part(n);
    let part_len = part.end.saturating_sub(part.start);
    let len = segments.header_len.wrapping_add(part_len);
    let trailer = (padding(len as u32, mtu) as usize).wrapping_add(TAG_LEN);
    bulk.add_segment(skb, segments.header_len, part, trailer, |buffer, sum| {
        let text = buffer.get_mut(packet_aead::FRONT..).ok_or(EMSGSIZE)?;
        let segment = text.get_mut(..len).ok_or(EMSGSIZE)?;
        segments.complete(n, segment, sum).ok_or(EMSGSIZE)?;
        if !seal_in_place(buffer, nonce, key) {
            return Err(EMSGSIZE);
        }
        Ok(transmute!(DataHeader::new(receiver_index, nonce)))
    })
}

/// Encrypts `buffer`: [`packet_aead::FRONT`] bytes of any content, which are lost, the data, and
/// room for the tag. False if it is too short.
fn seal_in_place(buffer: &mut [u8], nonce: u64, key: &SymmetricKey) -> bool {
    if COMPOSED.load(Relaxed) {
        packet_aead::seal::<KernelCrypto>(buffer, nonce, key.expose()).is_some()
    } else {
        buffer
            .get_mut(packet_aead::FRONT..)
            .is_some_and(|data| aead::seal_in_place(data, nonce, key.expose()))
    }
}

/// Decrypts transport data in place, with the nonce noted on it, and removes header and tag: what
/// is left is the packet with its padding. The outer IP and UDP headers stay readable until
/// [`Skb::reset_decapsulated`]. Any context but hard interrupts.
///
/// # Errors
///
/// The message does not authenticate, is too short, or there is no memory.
pub(crate) fn open(skb: &mut Skb, key: &SymmetricKey) -> Result {
    let &PacketCb { nonce, .. } = skb.cb();
    let mut packet = skb.make_private(0, 0)?;
    let plain_len = open_in_place(packet.data_mut(), nonce, key)
        .ok_or(EBADMSG)?
        .len();
    packet.pull(DATA_HEADER_LEN as u32)?;
    packet.trim(plain_len as u32)
}

/// Decrypts transport data and gives what it carries, with padding. [`None`] if it does not
/// authenticate or is too short.
pub(crate) fn open_in_place<'a>(
    message: &'a mut [u8],
    nonce: u64,
    key: &SymmetricKey,
) -> Option<&'a [u8]> {
    let sealed = message.get_mut(DATA_HEADER_LEN..)?;
    let plain_len = sealed.len().checked_sub(TAG_LEN)?;
    let authentic = if COMPOSED.load(Relaxed) {
        packet_aead::open::<KernelCrypto>(sealed, nonce, key.expose())
    } else {
        aead::open_in_place(sealed, nonce, key.expose())
    };
    if !authentic {
        return None;
    }
    sealed.get(..plain_len)
}

/// Prepares a received datagram: makes all that a handshake message can have linear.
///
/// # Errors
///
/// `ENOMEM`.
#[inline]
pub(crate) fn pull_message(skb: &mut Skb) -> Result {
    skb.may_pull(skb.len().min(INITIATION_LEN) as u32)
}

/// Takes a packet that came in several messages apart, into one for each. They have no outer
/// headers any more.
pub(crate) fn take_apart(mut skb: SkBuff) -> SkbList {
    let cb: PacketCb = *skb.cb();
    skb.reset_decapsulated();
    let Some(version) = skb.ip_version() else {
        return SkbList::new();
    };
    skb.set_verified(version);
    skb.set_joined(version);
    let mut packets = skb.segment(false).unwrap_or_default();
    let (mut nonce, mut left) = (cb.nonce, cb.bytes);
    for packet in packets.iter_mut() {
        let bytes = left.min(cb.first.into());
        *packet.cb_mut() = PacketCb {
            nonce,
            bytes,
            messages: 1,
            ds: cb.ds,
            ..PacketCb::default()
        };
        nonce = nonce.wrapping_add(1);
        left = left.wrapping_sub(bytes);
    }
    packets
}

/// Why a decrypted packet is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// It is neither IPv4 nor IPv6.
    Type,
    /// It says that it is longer than it is, or impossibly short.
    Size,
}

/// Prepares a decrypted packet for delivery, after [`Skb::reset_decapsulated`]: checks version and
/// length, removes the padding, carries a congestion mark of the outer header, whose traffic class
/// is noted on the packet, inwards (RFC 6040), and marks all checksums as verified: the packet
/// authenticated as a whole.
///
/// # Errors
///
/// The packet must not be delivered; the caller counts it.
pub(crate) fn finish_receive(skb: &mut Skb) -> Result<(), Malformed> {
    let (version, len) = ip::total_len(skb.network()).ok_or(Malformed::Type)?;
    if version == IpVersion::V4 && len < ip::IPV4_HEADER_LEN as u32 {
        return Err(Malformed::Size);
    }
    if len as usize > skb.len() {
        return Err(Malformed::Size);
    }
    skb.set_verified(version);
    let &PacketCb { ds, messages, .. } = skb.cb();
    if messages > 1 {
        // There is no mark to be carried inwards.
        skb.set_joined(version);
        return Ok(());
    }
    if let Some(mark) = ip::ecn_decapsulate(ds, skb.outer_dsfield()) {
        if let Ok(mut packet) = skb.make_private(0, 0) {
            packet.set_ecn(mark);
        }
    }
    skb.trim(len).map_err(|_| Malformed::Size)
}

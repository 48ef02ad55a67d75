// SPDX-License-Identifier: GPL-2.0-only

//! The four messages on the wire (whitepaper, section 5.4) and their parsing.
//!
//! All structures are unaligned views: a message is read in place. After [`Message::parse`] no
//! code works with offsets.

use zerocopy::little_endian::{U32, U64};
// The names of the traits are those of the derive macros here: in a cargo build `zerocopy` may
// export these macros, too, so a trait goes by its path.
use zerocopy::FromBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::consts::{COOKIE_LEN, KEY_LEN, PADDING_MULTIPLE, TAG_LEN, TIMESTAMP_LEN, XNONCE_LEN};
use super::Rejection;

/// Size of an initiation, in bytes.
pub const INITIATION_LEN: usize = size_of::<Initiation>();
/// Size of a response, in bytes.
pub const RESPONSE_LEN: usize = size_of::<Response>();
/// Size of a cookie reply, in bytes.
pub const COOKIE_REPLY_LEN: usize = size_of::<CookieReply>();
/// Size of the transport data header before the ciphertext, in bytes.
pub const DATA_HEADER_LEN: usize = size_of::<DataHeader>();
/// Size of the shortest transport data, a keepalive: header and tag, in bytes.
pub const DATA_MIN_LEN: usize = DATA_HEADER_LEN + TAG_LEN;
/// Size of mac1 and mac2 at the end of an initiation or response, in bytes.
pub const MACS_LEN: usize = size_of::<Macs>();
/// Size of the type and the reserved zeros, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();

const _: () = assert!(INITIATION_LEN == 148);
const _: () = assert!(RESPONSE_LEN == 92);
const _: () = assert!(COOKIE_REPLY_LEN == 64);
const _: () = assert!(DATA_MIN_LEN == 32);

/// The type byte of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// The first handshake message.
    Initiation = 1,
    /// The second handshake message.
    Response = 2,
    /// The answer to a handshake message under load.
    CookieReply = 3,
    /// An encrypted packet.
    Data = 4,
}

impl MessageType {
    /// The type of a message of `len` bytes that starts with `header`, for a driver that has not
    /// made more of the packet contiguous yet.
    ///
    /// # Errors
    ///
    /// [`Rejection::UnknownType`] for another type or reserved bytes that are not zero,
    /// [`Rejection::BadLength`] if `len` is not a length that the type has.
    pub const fn classify(header: [u8; HEADER_LEN], len: usize) -> Result<Self, Rejection> {
        let kind = match header {
            [1, 0, 0, 0] => Self::Initiation,
            [2, 0, 0, 0] => Self::Response,
            [3, 0, 0, 0] => Self::CookieReply,
            [4, 0, 0, 0] => Self::Data,
            _ => return Err(Rejection::UnknownType),
        };
        let fits = match kind {
            Self::Data => len >= DATA_MIN_LEN,
            _ => len == kind.fixed_len(),
        };
        if fits {
            Ok(kind)
        } else {
            Err(Rejection::BadLength)
        }
    }

    /// How many bytes must be contiguous to read the fixed part: the whole message, or the
    /// header of transport data.
    pub const fn fixed_len(self) -> usize {
        match self {
            Self::Initiation => INITIATION_LEN,
            Self::Response => RESPONSE_LEN,
            Self::CookieReply => COOKIE_REPLY_LEN,
            Self::Data => DATA_HEADER_LEN,
        }
    }

    const fn header(self) -> Header {
        Header {
            kind: self as u8,
            reserved: [0; 3],
        }
    }
}

/// Type and reserved bytes: the start of every message.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    kind: u8,
    reserved: [u8; 3],
}

/// The two MACs at the end of initiation and response.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Macs {
    /// Keyed by the receiver's public key: proves that the sender knows it.
    pub mac1: [u8; COOKIE_LEN],
    /// Keyed by a cookie: proves that the sender owns its address. Zero without a cookie.
    pub mac2: [u8; COOKIE_LEN],
}

/// The first handshake message.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct Initiation {
    header: Header,
    sender_index: U32,
    /// The initiator's ephemeral public key.
    pub ephemeral: [u8; KEY_LEN],
    /// The initiator's static public key, sealed.
    pub encrypted_static: [u8; KEY_LEN + TAG_LEN],
    /// A TAI64N timestamp, sealed.
    pub encrypted_timestamp: [u8; TIMESTAMP_LEN + TAG_LEN],
    macs: Macs,
}

/// The second handshake message.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct Response {
    header: Header,
    sender_index: U32,
    receiver_index: U32,
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; KEY_LEN],
    /// An empty plaintext, sealed: proves that both have the same keys.
    pub encrypted_nothing: [u8; TAG_LEN],
    macs: Macs,
}

/// The answer to a handshake message under load.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct CookieReply {
    header: Header,
    receiver_index: U32,
    /// The nonce of the sealed cookie.
    pub nonce: [u8; XNONCE_LEN],
    /// The cookie, sealed.
    pub encrypted_cookie: [u8; COOKIE_LEN + TAG_LEN],
}

/// The start of transport data. Ciphertext and tag follow.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct DataHeader {
    header: Header,
    receiver_index: U32,
    counter: U64,
}

impl Initiation {
    /// An initiation that is still to be filled in.
    pub(super) fn blank(sender_index: u32) -> Self {
        Self {
            header: MessageType::Initiation.header(),
            sender_index: U32::new(sender_index),
            ephemeral: [0; KEY_LEN],
            encrypted_static: [0; KEY_LEN + TAG_LEN],
            encrypted_timestamp: [0; TIMESTAMP_LEN + TAG_LEN],
            macs: Macs::default(),
        }
    }
}

impl Response {
    /// A response that is still to be filled in.
    pub(super) fn blank(sender_index: u32, receiver_index: u32) -> Self {
        Self {
            header: MessageType::Response.header(),
            sender_index: U32::new(sender_index),
            receiver_index: U32::new(receiver_index),
            ephemeral: [0; KEY_LEN],
            encrypted_nothing: [0; TAG_LEN],
            macs: Macs::default(),
        }
    }

    /// The index that the initiator gave to the handshake.
    pub fn receiver_index(&self) -> u32 {
        self.receiver_index.get()
    }
}

impl CookieReply {
    /// A cookie reply that is still to be filled in.
    pub(super) fn blank(receiver_index: u32, nonce: [u8; XNONCE_LEN]) -> Self {
        Self {
            header: MessageType::CookieReply.header(),
            receiver_index: U32::new(receiver_index),
            nonce,
            encrypted_cookie: [0; COOKIE_LEN + TAG_LEN],
        }
    }

    /// The sender index of the message that this one answers.
    pub fn receiver_index(&self) -> u32 {
        self.receiver_index.get()
    }
}

impl DataHeader {
    /// The header of transport data.
    pub fn new(receiver_index: u32, counter: u64) -> Self {
        Self {
            header: MessageType::Data.header(),
            receiver_index: U32::new(receiver_index),
            counter: U64::new(counter),
        }
    }

    /// The index that the receiver gave to the session.
    pub fn receiver_index(&self) -> u32 {
        self.receiver_index.get()
    }

    /// The nonce of the AEAD.
    pub fn counter(&self) -> u64 {
        self.counter.get()
    }
}

/// How many zeros are appended to a packet of `len` bytes before it is encrypted (whitepaper,
/// section 5.4.6): up to the next multiple of [`PADDING_MULTIPLE`], but never beyond the `mtu` of
/// the path, 0 for none. A packet longer than that is padded as the part of it that is over.
#[inline]
pub fn padding(len: u32, mtu: u32) -> u32 {
    let last = len
        .checked_rem(mtu)
        .map_or(len, |over| if len > mtu { over } else { len });
    let padded = last
        .checked_next_multiple_of(PADDING_MULTIPLE as u32)
        .unwrap_or(last);
    let padded = if mtu == 0 { padded } else { padded.min(mtu) };
    padded.saturating_sub(last)
}

/// What initiation and response share: a sender index and two MACs at the end.
pub trait HandshakeMessage: zerocopy::IntoBytes + zerocopy::Immutable {
    /// The index that the sender gave to the handshake.
    fn sender_index(&self) -> u32;

    /// The two MACs.
    fn macs(&self) -> &Macs;

    /// The two MACs, to be filled in.
    fn macs_mut(&mut self) -> &mut Macs;

    /// The bytes that mac1 covers: all before it.
    fn mac1_input(&self) -> &[u8] {
        match self.as_bytes().split_last_chunk::<MACS_LEN>() {
            Some((covered, _)) => covered,
            None => &[],
        }
    }

    /// The bytes that mac2 covers: all before it, mac1 included.
    fn mac2_input(&self) -> &[u8] {
        match self.as_bytes().split_last_chunk::<COOKIE_LEN>() {
            Some((covered, _)) => covered,
            None => &[],
        }
    }
}

impl HandshakeMessage for Initiation {
    fn sender_index(&self) -> u32 {
        self.sender_index.get()
    }

    fn macs(&self) -> &Macs {
        &self.macs
    }

    fn macs_mut(&mut self) -> &mut Macs {
        &mut self.macs
    }
}

impl HandshakeMessage for Response {
    fn sender_index(&self) -> u32 {
        self.sender_index.get()
    }

    fn macs(&self) -> &Macs {
        &self.macs
    }

    fn macs_mut(&mut self) -> &mut Macs {
        &mut self.macs
    }
}

/// A message, read in place.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// The first handshake message.
    Initiation(&'a Initiation),
    /// The second handshake message.
    Response(&'a Response),
    /// The answer to a handshake message under load.
    CookieReply(&'a CookieReply),
    /// Transport data: its header, then ciphertext and tag (at least 16 bytes).
    Data(&'a DataHeader, &'a [u8]),
}

impl<'a> Message<'a> {
    /// Reads the payload of a UDP datagram.
    ///
    /// # Errors
    ///
    /// As [`MessageType::classify`]; fewer than four bytes are [`Rejection::BadLength`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let header = bytes.first_chunk().ok_or(Rejection::BadLength)?;
        match MessageType::classify(*header, bytes.len())? {
            MessageType::Initiation => exact(bytes).map(Message::Initiation),
            MessageType::Response => exact(bytes).map(Message::Response),
            MessageType::CookieReply => exact(bytes).map(Message::CookieReply),
            MessageType::Data => DataHeader::ref_from_prefix(bytes)
                .map(|(header, sealed)| Message::Data(header, sealed))
                .map_err(|_| Rejection::BadLength),
        }
    }
}

fn exact<
    M: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
>(
    bytes: &[u8],
) -> Result<&M, Rejection> {
    M::ref_from_bytes(bytes).map_err(|_| Rejection::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes as _;

    fn kind(bytes: &[u8]) -> Result<MessageType, Rejection> {
        Message::parse(bytes).map(|message| match message {
            Message::Initiation(_) => MessageType::Initiation,
            Message::Response(_) => MessageType::Response,
            Message::CookieReply(_) => MessageType::CookieReply,
            Message::Data(..) => MessageType::Data,
        })
    }

    /// The lengths from the whitepaper, not from the structures.
    fn expected(first: u8, len: usize) -> Result<MessageType, Rejection> {
        match (first, len) {
            (_, 0..4) => Err(Rejection::BadLength),
            (1, 148) => Ok(MessageType::Initiation),
            (2, 92) => Ok(MessageType::Response),
            (3, 64) => Ok(MessageType::CookieReply),
            (4, 32..) => Ok(MessageType::Data),
            (1..=4, _) => Err(Rejection::BadLength),
            _ => Err(Rejection::UnknownType),
        }
    }

    #[test]
    fn every_length_of_every_type() {
        for len in 0..=2000 {
            for first in 0..=255 {
                let mut bytes = vec![0; len];
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                assert_eq!(
                    kind(&bytes),
                    expected(first, len),
                    "type {first} length {len}"
                );
            }
        }
    }

    #[test]
    fn reserved_bytes_are_zero() {
        for (first, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1500)] {
            for at in 1..4 {
                for bit in 0..8 {
                    let mut bytes = vec![0; len];
                    bytes[0] = first;
                    bytes[at] = 1 << bit;
                    assert_eq!(kind(&bytes), Err(Rejection::UnknownType));
                }
            }
        }
    }

    #[test]
    fn fields_lie_where_the_paper_has_them() {
        let bytes: Vec<u8> = (0..148).collect();
        let at = |from: usize, len: usize| bytes[from..from + len].to_vec();

        let initiation = Initiation::ref_from_bytes(&bytes).unwrap();
        assert_eq!(initiation.sender_index(), 0x07060504);
        assert_eq!(initiation.ephemeral.to_vec(), at(8, 32));
        assert_eq!(initiation.encrypted_static.to_vec(), at(40, 48));
        assert_eq!(initiation.encrypted_timestamp.to_vec(), at(88, 28));
        assert_eq!(initiation.macs().mac1.to_vec(), at(116, 16));
        assert_eq!(initiation.macs().mac2.to_vec(), at(132, 16));
        assert_eq!(initiation.mac1_input(), at(0, 116));
        assert_eq!(initiation.mac2_input(), at(0, 132));

        let response = Response::ref_from_bytes(&bytes[..92]).unwrap();
        assert_eq!(response.sender_index(), 0x07060504);
        assert_eq!(response.receiver_index(), 0x0b0a0908);
        assert_eq!(response.ephemeral.to_vec(), at(12, 32));
        assert_eq!(response.encrypted_nothing.to_vec(), at(44, 16));
        assert_eq!(response.macs().mac1.to_vec(), at(60, 16));
        assert_eq!(response.macs().mac2.to_vec(), at(76, 16));
        assert_eq!(response.mac1_input(), at(0, 60));
        assert_eq!(response.mac2_input(), at(0, 76));

        let reply = CookieReply::ref_from_bytes(&bytes[..64]).unwrap();
        assert_eq!(reply.receiver_index(), 0x07060504);
        assert_eq!(reply.nonce.to_vec(), at(8, 24));
        assert_eq!(reply.encrypted_cookie.to_vec(), at(32, 32));

        let header = DataHeader::new(0x07060504, 0x0f0e0d0c0b0a0908);
        assert_eq!(header.as_bytes(), [&[4, 0, 0, 0], &at(4, 12)[..]].concat());
        match Message::parse(&[header.as_bytes(), &bytes[..20]].concat()) {
            Ok(Message::Data(header, sealed)) => {
                assert_eq!(header.receiver_index(), 0x07060504);
                assert_eq!(header.counter(), 0x0f0e0d0c0b0a0908);
                assert_eq!(sealed, &bytes[..20]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn padding_fills_up_within_the_mtu() {
        for (len, mtu, zeros) in [
            (0, 1420, 0),
            (1, 1420, 15),
            (16, 1420, 0),
            (17, 0, 15),
            (1409, 1420, 11),
            (1419, 1420, 1),
            (1420, 1420, 0),
            (1421, 1420, 15),
            (2840, 1420, 0),
            (u32::MAX, 0, 0),
        ] {
            assert_eq!(padding(len, mtu), zeros, "{len} bytes, MTU {mtu}");
        }
    }
}

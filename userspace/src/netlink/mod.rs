// SPDX-License-Identifier: GPL-2.0-only
//! The one way to the kernel's netlink: a socket that asks one thing at a time and waits for the
//! verdict. What is received may hold keys, and is zeroed.

mod link;

pub use link::{read_link, Link};

use crate::buffer::Buffer;
use crate::say::strerror;
use netlink_packet_core::{
    DecodeError, NetlinkBuffer, NlasIterator, NLMSG_DONE, NLMSG_ERROR, NLM_F_ACK, NLM_F_ACK_TLVS,
    NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
};
use netlink_sys::SocketAddr;
use nix::libc::{self, MSG_DONTWAIT, MSG_TRUNC};
use nix::sys::socket::{setsockopt, sockopt};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of a message's header.
pub const NETLINK_HEADER_LEN: usize = 16;
/// The attribute of an error reply that holds the kernel's explanation.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel sends no more than 32 KiB at once.
const BUFFER: usize = 1 << 16;
/// How often a dump is begun anew because what it shows changed meanwhile.
const DUMPS: u32 = 8;

/// What to do with the payload of each reply.
pub type Each<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// A request that failed.
#[derive(Debug)]
pub struct Error {
    /// The kernel's, or the socket's, error.
    pub errno: i32,
    /// The kernel's words, if it has any.
    pub message: Option<String>,
}

impl Error {
    fn decode(err: &DecodeError) -> Self {
        Error {
            errno: libc::EBADMSG,
            message: Some(format!("the kernel's reply is not understood: {err}")),
        }
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Self {
        Error {
            errno: err.raw_os_error().unwrap_or(libc::EIO),
            message: None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(err: Error) -> Self {
        io::Error::from_raw_os_error(err.errno)
    }
}

/// As `ip` says it.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(text) => {
                let stop = if text.ends_with('.') { "" } else { "." };
                write!(f, "Error: {text}{stop}")
            }
            None => write!(f, "RTNETLINK answers: {}", strerror(self.errno)),
        }
    }
}

/// A request before it has a sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The message type.
    pub kind: u16,
    /// `NLM_F_*`; `NLM_F_REQUEST` goes without saying.
    pub flags: u16,
    /// What follows the netlink header.
    pub payload: Vec<u8>,
}

impl Request {
    /// The message's bytes.
    pub fn bytes(&self, sequence: u32) -> Vec<u8> {
        let len = NETLINK_HEADER_LEN + self.payload.len();
        // Messages follow one another at multiples of four bytes.
        let mut bytes = vec![0; len.next_multiple_of(4)];
        let mut buffer = NetlinkBuffer::new(&mut bytes);
        buffer.set_length(u32::try_from(len).unwrap_or(u32::MAX));
        buffer.set_message_type(self.kind);
        buffer.set_flags(self.flags | NLM_F_REQUEST);
        buffer.set_sequence_number(sequence);
        buffer.payload_mut()[..self.payload.len()].copy_from_slice(&self.payload);
        bytes
    }
}

/// A socket bound to one netlink protocol.
pub struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Buffer,
}

impl Socket {
    /// `protocol` is one of `netlink_sys::protocols`.
    pub fn open(protocol: isize) -> Result<Self, Error> {
        let mut socket = netlink_sys::Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Kernels without these say less in their errors, that is all.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Socket {
            socket,
            sequence: 0,
            buffer: Buffer::with_capacity(BUFFER),
        })
    }

    /// Lets requests for lists choose what is listed; older kernels list everything.
    pub fn strict(self) -> Self {
        let _ = self.socket.set_netlink_get_strict_chk(true);
        self
    }

    /// Asks for, or does, one thing; the payloads of what the kernel says
    /// beside its acknowledgement.
    pub fn call(&mut self, request: &Request) -> Result<Vec<Vec<u8>>, Error> {
        let mut request = request.clone();
        if request.flags & NLM_F_DUMP != NLM_F_DUMP {
            request.flags |= NLM_F_ACK;
        }
        let mut dumps = DUMPS;
        loop {
            let mut replies = Vec::new();
            let mut bytes = request.bytes(0);
            let interrupted = self.ask(&mut bytes, &mut |reply| {
                replies.push(reply.to_vec());
                Ok(())
            })?;
            dumps -= 1;
            if !interrupted || dumps == 0 {
                return Ok(replies);
            }
        }
    }

    /// Sends a message, which gets its sequence number here, and hands the payload of each reply to
    /// `each`; true, if what was dumped changed meanwhile.
    pub fn ask(&mut self, message: &mut [u8], each: Each<'_>) -> Result<bool, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        NetlinkBuffer::new(&mut *message).set_sequence_number(self.sequence);
        self.socket.send(message, 0)?;
        let result = self.replies(each);
        self.buffer.wipe();
        result
    }

    fn replies(&mut self, each: Each<'_>) -> Result<bool, Error> {
        let mut interrupted = false;
        loop {
            self.receive(0)?;
            for message in messages(&self.buffer) {
                let message = message.map_err(|err| Error::decode(&err))?;
                if message.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_ERROR | NLMSG_DONE => {
                        verdict(&message)?;
                        return Ok(interrupted);
                    }
                    kind if kind < NLMSG_DONE => {}
                    _ => each(message.payload())?,
                }
            }
        }
    }

    /// Sends requests as one message of which the kernel does all or nothing, as nfnetlink's
    /// batches are; every request with `NLM_F_ACK` is waited for.
    pub fn batch(&mut self, requests: &[Request]) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut wanted = 0;
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(request.bytes(self.sequence));
            wanted += u32::from(request.flags & NLM_F_ACK != 0);
        }
        self.socket.send(&bytes, 0)?;
        let span = self.sequence.wrapping_sub(first);
        while wanted > 0 {
            self.receive(0)?;
            for message in messages(&self.buffer) {
                let message = message.map_err(|err| Error::decode(&err))?;
                let ours = message.sequence_number().wrapping_sub(first) <= span;
                if ours && message.message_type() == NLMSG_ERROR {
                    verdict(&message)?;
                    wanted = wanted.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// Makes room for a message of so many bytes, if that is permitted.
    pub fn make_room(&self, bytes: usize) {
        // What the kernel adds to each message is less than the message.
        let _ = setsockopt(&self.socket, sockopt::SndBufForce, &bytes.saturating_mul(2));
    }

    /// Joins a multicast group; the kernel keeps `backlog` bytes for us, if it may.
    pub fn listen(&mut self, group: u32, backlog: usize) -> Result<(), Error> {
        let _ = self.socket.set_rx_buf_sz(backlog);
        Ok(self.socket.add_membership(group)?)
    }

    /// Waits for messages that were not asked for, and hands over their payloads.
    pub fn hear(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        self.receive(0)?;
        self.hand_over(each)
    }

    /// The same without waiting; false if there are none.
    pub fn hear_waiting(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<bool, Error> {
        match self.receive(MSG_DONTWAIT) {
            Err(error) if error.errno == libc::EAGAIN => return Ok(false),
            result => result?,
        }
        self.hand_over(each)?;
        Ok(true)
    }

    fn hand_over(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        for message in messages(&self.buffer) {
            let message = message.map_err(|err| Error::decode(&err))?;
            if message.message_type() > NLMSG_DONE {
                each(message.payload());
            }
        }
        Ok(())
    }

    /// Fills the buffer with the next datagram.
    fn receive(&mut self, flags: i32) -> Result<(), Error> {
        self.buffer.wipe();
        let errno = |errno| io::Error::from_raw_os_error(errno);
        let length = loop {
            match self.socket.recv(&mut *self.buffer, MSG_TRUNC | flags) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        match self.buffer.len() {
            0 => Err(errno(libc::EPROTO).into()),
            room if room < length => Err(errno(libc::ENOSPC).into()),
            _ => Ok(()),
        }
    }
}

/// Readable when there is something to hear.
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The messages in what one `recv` gave.
pub fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>, DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        match NetlinkBuffer::new_checked(bytes) {
            Ok(_) => {
                let len = NetlinkBuffer::new(bytes).length() as usize;
                let (this, rest) = bytes.split_at(len);
                bytes = rest.get(len.next_multiple_of(4) - len..).unwrap_or(&[]);
                Some(Ok(NetlinkBuffer::new(this)))
            }
            Err(err) => {
                bytes = &[];
                Some(Err(err))
            }
        }
    })
}

/// Success or the error that a NLMSG_ERROR or NLMSG_DONE tells.
fn verdict(message: &NetlinkBuffer<&[u8]>) -> Result<(), Error> {
    let payload = message.payload();
    let code = payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    if code == 0 {
        return Ok(());
    }
    let text = || {
        if message.flags() & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        // The attributes follow the header of what was refused or, without NLM_F_CAPPED, all of it.
        let refused = match message.message_type() {
            NLMSG_DONE => 0,
            _ if message.flags() & NLM_F_CAPPED != 0 => NETLINK_HEADER_LEN,
            _ => {
                let header = payload.get(4..8)?.first_chunk()?;
                (u32::from_ne_bytes(*header) as usize).next_multiple_of(4)
            }
        };
        attribute(payload.get(4 + refused..)?, NLMSGERR_ATTR_MSG).map(|text| {
            let text = text.strip_suffix(&[0]).unwrap_or(text);
            String::from_utf8_lossy(text).into_owned()
        })
    };
    Err(Error {
        errno: code.saturating_neg(),
        message: text(),
    })
}

/// The attributes in `bytes`, up to the first that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .filter_map(|nla| {
            let (kind, len) = (nla.kind(), usize::from(nla.length()));
            Some((kind, nla.into_inner().get(4..len)?))
        })
}

/// The value of the first attribute of a kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(this, _)| *this == kind)
        .map(|(_, value)| value)
}

/// A 32-bit attribute.
pub fn attribute_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    let value = attribute(bytes, kind)?;
    value.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(flags: u16, payload: &[u8]) -> Result<(), Error> {
        let bytes = Request {
            kind: NLMSG_ERROR,
            flags,
            payload: payload.to_vec(),
        }
        .bytes(7);
        let message = messages(&bytes).next().unwrap().unwrap();
        verdict(&message)
    }

    #[test]
    fn a_request_is_padded_but_its_length_is_not() {
        let request = Request {
            kind: 16,
            flags: NLM_F_ACK,
            payload: vec![1, 2, 3, 4, 5],
        };
        let bytes = request.bytes(0x0102_0304);
        let mut wanted = Vec::new();
        wanted.extend(21u32.to_ne_bytes());
        wanted.extend(16u16.to_ne_bytes());
        wanted.extend(5u16.to_ne_bytes());
        wanted.extend(0x0102_0304u32.to_ne_bytes());
        wanted.extend([0; 4]);
        wanted.extend([1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn verdicts() {
        assert!(error(0, &[0; 20]).is_ok());
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        let err = error(0, &payload).unwrap_err();
        assert_eq!(err.errno, 17);
        assert_eq!(err.to_string(), "RTNETLINK answers: File exists");

        payload.extend(16u16.to_ne_bytes());
        payload.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        payload.extend(b"No such one\0");
        let err = error(NLM_F_ACK_TLVS | NLM_F_CAPPED, &payload).unwrap_err();
        assert_eq!(err.to_string(), "Error: No such one.");
        // Uncapped: the refused message, here of 16 bytes, says its own length.
        payload[4..8].copy_from_slice(&16u32.to_ne_bytes());
        let err = error(NLM_F_ACK_TLVS, &payload).unwrap_err();
        assert_eq!(err.message.as_deref(), Some("No such one"));
        // Lengths that lie find no text, and do no harm.
        payload[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        let err = error(NLM_F_ACK_TLVS, &payload).unwrap_err();
        assert_eq!((err.errno, err.message), (17, None));
        assert!(error(NLM_F_ACK_TLVS, &[]).is_ok());
    }

    #[test]
    fn messages_that_are_cut_short() {
        let bytes = Request {
            kind: 16,
            flags: 0,
            payload: vec![1; 5],
        }
        .bytes(1);
        let twice = [&bytes[..], &bytes[..]].concat();
        assert_eq!(messages(&twice).filter(Result::is_ok).count(), 2);
        for len in 1..bytes.len() - 3 {
            assert!(messages(&twice[..len]).any(|m| m.is_err()), "{len}");
        }
        // The last one may lack its padding.
        assert!(messages(&bytes[..21]).all(|m| m.is_ok()));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! A netlink socket: one request at a time, and its replies.

use super::message::{Message, GENL_HEADER, HEADER};
use crate::buffer::Buffer;
use netlink_packet_core::{
    NetlinkBuffer, NlasIterator, NLMSG_DONE, NLMSG_ERROR, NLM_F_ACK, NLM_F_REQUEST,
};
use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::libc::MSG_TRUNC;
use std::io;

/// Protocol numbers of netlink.
pub const GENERIC: isize = 16;
pub const ROUTE: isize = 0;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Room for one datagram: the kernel fills at most 32 KiB of a dump at a time.
const RECEIVE: usize = 64 * 1024;

/// What to do with the payload of each reply.
type Each<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// A bound socket with its receive buffer, which is zeroed after every datagram.
pub struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Buffer,
}

impl Socket {
    /// Opens a socket of a netlink protocol.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Buffer::with_capacity(RECEIVE),
        })
    }

    /// The number of a family of generic netlink.
    pub fn family_id(&mut self, name: &str) -> io::Result<u16> {
        let mut request =
            Message::generic(GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_ACK, CTRL_CMD_GETFAMILY);
        let name = [name.as_bytes(), b"\0"].concat();
        request
            .put(CTRL_ATTR_FAMILY_NAME, &name)
            .map_err(|_| Errno::EMSGSIZE)?;
        let mut id = None;
        let result = self.run(request, GENL_HEADER, &mut |payload| {
            for attribute in NlasIterator::new(payload)
                .flatten()
                .filter(|attribute| attribute.kind() == CTRL_ATTR_FAMILY_ID)
            {
                id = attribute.value().try_into().ok().map(u16::from_ne_bytes);
            }
            Ok(())
        });
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
                Err(Errno::EPROTONOSUPPORT.into())
            }
            result => result.and(id.ok_or_else(|| Errno::ENOSYS.into())),
        }
    }

    /// Sends a request of generic netlink and hands over what follows its header in each reply.
    pub fn dump(&mut self, request: Message, each: Each<'_>) -> io::Result<()> {
        self.run(request, GENL_HEADER, each)
    }

    /// Sends a request and waits until the kernel says that it is done.
    pub fn acknowledged(&mut self, request: Message) -> io::Result<()> {
        self.run(request, GENL_HEADER, &mut |_| Ok(()))
    }

    /// Sends a request and reads replies until its end, `EINTR` if what was dumped changed
    /// meanwhile. `skip` bytes of each payload are not handed over.
    pub fn run(&mut self, mut request: Message, skip: usize, each: Each<'_>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(request.finish(self.sequence), 0)?;
        drop(request);
        let result = self.receive(skip, each);
        self.buffer.wipe();
        result
    }

    fn receive(&mut self, skip: usize, each: Each<'_>) -> io::Result<()> {
        let mut interrupted = false;
        loop {
            self.buffer.wipe();
            let length = match self.socket.recv(&mut *self.buffer, MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            let datagram = self.buffer.as_slice();
            if length > datagram.len() {
                return Err(Errno::ENOSPC.into());
            }
            if datagram.is_empty() {
                return Err(Errno::EPROTO.into());
            }
            for message in messages(datagram) {
                let (kind, flags, sequence, payload) = message.ok_or(Errno::EBADMSG)?;
                if sequence != self.sequence {
                    continue;
                }
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                let code = || {
                    payload
                        .first_chunk()
                        .map_or(0, |code| i32::from_ne_bytes(*code))
                };
                match kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match code() {
                            0 if interrupted => Err(Errno::EINTR.into()),
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                        };
                    }
                    _ if kind < NLMSG_DONE => {}
                    _ => each(payload.get(skip..).ok_or(Errno::EBADMSG)?)?,
                }
            }
        }
    }
}

/// The messages in a datagram as type, flags, sequence number and payload; `None` for one that is
/// cut off.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Option<(u16, u16, u32, &[u8])>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(message) = NetlinkBuffer::new_checked(rest)
            .ok()
            .filter(|message| message.length() as usize >= HEADER)
        else {
            rest = &[];
            return Some(None);
        };
        let length = message.length() as usize;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Some((
            message.message_type(),
            message.flags(),
            message.sequence_number(),
            message.payload(),
        )))
    })
}

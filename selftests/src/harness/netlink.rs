// SPDX-License-Identifier: GPL-2.0-only
//! A small netlink client: requests built attribute by attribute, replies as raw bodies.
//!
//! Deliberately low-level: a test must be able to send what no proper client would.

use super::pace::slow;
use netlink_packet_core::{NetlinkHeader, NlasIterator};
use nix::errno::Errno;
use nix::sys::socket::{
    bind, recv, send, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr, SockFlag,
    SockProtocol, SockType,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const NLMSG_HDRLEN: usize = 16;
/// In an attribute's type: its payload is made of attributes.
pub const NLA_F_NESTED: u16 = 1 << 15;

/// A list of netlink attributes under construction.
#[derive(Clone, Debug, Default)]
pub struct Attrs(Vec<u8>);

impl Attrs {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts with a fixed header (`genlmsghdr`, `ifinfomsg`, …) in front of the attributes.
    pub fn after(header: &[u8]) -> Self {
        let mut attrs = Attrs(header.to_vec());
        attrs.pad();
        attrs
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Appends one attribute with any payload.
    pub fn put(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        let len = u16::try_from(data.len() + 4).expect("attribute longer than 64 KiB");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.pad();
        self
    }

    /// Appends an 8-bit integer.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.put(kind, &[value])
    }

    /// Appends a 16-bit integer in host order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a 32-bit integer in host order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a NUL-terminated string.
    pub fn str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Appends a nest, marked `NLA_F_NESTED`, filled by `fill`.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attrs)) -> &mut Self {
        let mut inner = Attrs::new();
        fill(&mut inner);
        self.put(kind | NLA_F_NESTED, &inner.0)
    }

    /// Appends raw bytes, which need not be an attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in `bytes` as (type without flags, payload), in order. Stops at a malformed one.
pub fn attrs(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|nla| (nla.kind() & 0x3fff, nla.value().to_vec()))
        .collect()
}

/// As [`attrs`], the types with [`NLA_F_NESTED`].
pub fn attrs_with_flags(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|nla| {
            let nested = if nla.nested_flag() { NLA_F_NESTED } else { 0 };
            (nla.kind() | nested, nla.value().to_vec())
        })
        .collect()
}

/// One message of a reply: its type, flags and body (after the netlink header).
#[derive(Clone, Debug)]
pub struct Reply {
    /// `nlmsg_flags`; for a dump see `NLM_F_DUMP_INTR`.
    pub flags: u16,
    /// All after the `nlmsghdr`.
    pub body: Vec<u8>,
}

/// A netlink socket of the network namespace it was opened in.
pub struct Netlink {
    fd: OwnedFd,
    seq: u32,
}

impl Netlink {
    /// A route netlink socket.
    pub fn route() -> Result<Self, Errno> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// A generic netlink socket.
    pub fn generic() -> Result<Self, Errno> {
        Self::open(SockProtocol::NetlinkGeneric)
    }

    fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::RcvBuf, &(4 << 20))?;
        // Without memory for it the kernel sends no answer.
        let netlink = Netlink { fd, seq: 1 };
        netlink.wait_at_most(slow(Duration::from_secs(60)))?;
        Ok(netlink)
    }

    /// An answer that does not come within `limit` is an error.
    pub fn wait_at_most(&self, limit: Duration) -> Result<(), Errno> {
        let limit = TimeVal::microseconds(limit.as_micros() as i64);
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &limit)
    }

    /// Joins a multicast group.
    pub fn join(&self, group: u32) -> Result<(), Errno> {
        // nix has no such option.
        // SAFETY: The pointer is to a value of the size that is given.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                (&raw const group).cast(),
                size_of_val(&group) as libc::socklen_t,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Room for so many bytes that have come.
    pub fn set_room(&self, bytes: usize) -> Result<(), Errno> {
        // Without the right to more, as much as the limit allows.
        setsockopt(&self.fd, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.fd, sockopt::RcvBuf, &bytes))
    }

    /// The body of the next message that was not asked for; `None` if there is none and nobody
    /// shall `wait`, or not for so long.
    pub fn heard(&mut self, wait: bool) -> Result<Option<Vec<u8>>, Errno> {
        let mut buf = vec![0u8; 1 << 12];
        let flags = if wait {
            MsgFlags::empty()
        } else {
            MsgFlags::MSG_DONTWAIT
        };
        let n = match recv(self.fd.as_raw_fd(), &mut buf, flags) {
            Err(Errno::EAGAIN) => return Ok(None),
            other => other?,
        };
        let message = buf.get(..n).and_then(split);
        let (_, body, _) = message.ok_or(Errno::EBADMSG)?;
        Ok(Some(body.to_vec()))
    }

    /// Sends one request and reads its whole answer: up to the acknowledgement, or to the end of
    /// a dump when `flags` has `NLM_F_DUMP`. The kernel's refusal comes back as its errno.
    pub fn request(&mut self, kind: u16, flags: i32, body: &[u8]) -> Result<Vec<Reply>, Errno> {
        self.send(kind, flags, body)?;
        let mut replies = Vec::new();
        self.answer(|flags, body| {
            let body = body.to_vec();
            replies.push(Reply { flags, body });
        })?;
        Ok(replies)
    }

    /// Asks for a dump, reads it and keeps nothing: takes as little time as a reader can.
    pub fn drain(&mut self, kind: u16, body: &[u8]) -> Result<(), Errno> {
        self.send(kind, libc::NLM_F_DUMP, body)?;
        self.answer(|_, _| {})
    }

    fn send(&mut self, kind: u16, flags: i32, body: &[u8]) -> Result<(), Errno> {
        self.seq = self.seq.wrapping_add(1);
        let dump = flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let flags = flags | libc::NLM_F_REQUEST | if dump { 0 } else { libc::NLM_F_ACK };
        let len = u32::try_from(NLMSG_HDRLEN + body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut msg = Vec::with_capacity(NLMSG_HDRLEN + body.len());
        msg.extend_from_slice(&len.to_ne_bytes());
        msg.extend_from_slice(&kind.to_ne_bytes());
        msg.extend_from_slice(
            &u16::try_from(flags)
                .map_err(|_| Errno::EINVAL)?
                .to_ne_bytes(),
        );
        msg.extend_from_slice(&self.seq.to_ne_bytes());
        msg.extend_from_slice(&[0; 4]);
        msg.extend_from_slice(body);
        send(self.fd.as_raw_fd(), &msg, MsgFlags::empty()).map(drop)
    }

    /// Reads the answer to the last request; `keep` gets the flags and body of each message.
    fn answer(&mut self, mut keep: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        let mut buf = vec![0u8; 1 << 17];
        loop {
            let n = match recv(self.fd.as_raw_fd(), &mut buf, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = buf.get(..n).ok_or(Errno::EIO)?;
            while rest.len() >= NLMSG_HDRLEN {
                let (header, body, tail) = split(rest).ok_or(Errno::EBADMSG)?;
                rest = tail;
                if header.sequence_number != self.seq {
                    continue; // belongs to an earlier, failed exchange
                }
                match i32::from(header.message_type) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        let code = body
                            .first_chunk::<4>()
                            .map_or(0, |b| i32::from_ne_bytes(*b));
                        return if code < 0 {
                            Err(Errno::from_raw(-code))
                        } else {
                            Ok(())
                        };
                    }
                    _ => keep(header.flags, body),
                }
            }
        }
    }
}

/// Splits the first message off `bytes`: its header, its body, and what follows.
fn split(bytes: &[u8]) -> Option<(NetlinkHeader, &[u8], &[u8])> {
    let word = |at: usize| {
        bytes
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_ne_bytes)
    };
    let half = |at: usize| {
        bytes
            .get(at..at + 2)?
            .try_into()
            .ok()
            .map(u16::from_ne_bytes)
    };
    let len = word(0)? as usize;
    if len < NLMSG_HDRLEN {
        return None;
    }
    let mut header = NetlinkHeader::default();
    header.length = word(0)?;
    header.message_type = half(4)?;
    header.flags = half(6)?;
    header.sequence_number = word(8)?;
    let body = bytes.get(NLMSG_HDRLEN..len)?;
    Some((
        header,
        body,
        bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]),
    ))
}

/// What the generic netlink controller says of the family called `name`.
fn family(nl: &mut Netlink, name: &str) -> Result<Vec<(u16, Vec<u8>)>, Errno> {
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    let mut body = Attrs::after(&[CTRL_CMD_GETFAMILY, 1, 0, 0]);
    body.str(CTRL_ATTR_FAMILY_NAME, name);
    let replies = nl.request(libc::GENL_ID_CTRL as u16, 0, body.bytes())?;
    let bodies = replies.iter().filter_map(|reply| reply.body.get(4..));
    Ok(bodies.flat_map(attrs).collect())
}

fn find(list: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    let found = list.iter().find(|(k, _)| *k == kind);
    found.map(|(_, value)| value.as_slice())
}

/// Asks the generic netlink controller for the number of the family called `name`.
pub fn family_id(nl: &mut Netlink, name: &str) -> Result<u16, Errno> {
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    let list = family(nl, name)?;
    let id = find(&list, CTRL_ATTR_FAMILY_ID).and_then(|id| id.try_into().ok());
    id.map(u16::from_ne_bytes).ok_or(Errno::ENOENT)
}

/// The number of a multicast group of a family.
pub fn group_id(nl: &mut Netlink, name: &str, group: &str) -> Result<u32, Errno> {
    const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
    const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
    const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
    let list = family(nl, name)?;
    let groups = attrs(find(&list, CTRL_ATTR_MCAST_GROUPS).unwrap_or_default());
    let wanted = [group.as_bytes(), b"\0"].concat();
    let mut groups = groups.iter().map(|(_, group)| attrs(group));
    let group = groups
        .find(|group| find(group, CTRL_ATTR_MCAST_GRP_NAME) == Some(wanted.as_slice()))
        .ok_or(Errno::ENOENT)?;
    let id = find(&group, CTRL_ATTR_MCAST_GRP_ID).and_then(|id| id.try_into().ok());
    id.map(u32::from_ne_bytes).ok_or(Errno::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let mut body = Attrs::new();
        body.u16(1, 7).str(2, "wg0").nest(8, |n| {
            n.put(0, &[1, 2, 3]);
        });
        assert_eq!(body.bytes().len() % 4, 0);
        let list = attrs(body.bytes());
        assert_eq!(list[0], (1, 7u16.to_ne_bytes().to_vec()));
        assert_eq!(list[1], (2, b"wg0\0".to_vec()));
        assert_eq!(list[2].0, 8);
        assert_eq!(attrs(&list[2].1), vec![(0, vec![1, 2, 3])]);
    }

    #[test]
    fn message_split() {
        let mut bytes = vec![20, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        bytes.extend_from_slice(&bytes.clone());
        let (header, body, rest) = split(&bytes).unwrap();
        assert_eq!((header.message_type, header.sequence_number), (2, 9));
        assert_eq!((body, rest.len()), (&[1u8, 2, 3, 4][..], 20));
        assert!(split(&[3, 0, 0, 0]).is_none());
    }
}

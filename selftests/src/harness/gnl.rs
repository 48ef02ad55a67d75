// SPDX-License-Identifier: GPL-2.0-only
//! Generic netlink for tests that compare answers byte by byte: requests are raw bytes, several may
//! go out in one system call, and everything that comes back is kept.

use nix::errno::Errno;
use nix::sys::socket::{
    bind, recv, send, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr, SockFlag,
    SockProtocol, SockType,
};
use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};

const HDRLEN: usize = 16;

/// A plain request: `NLM_F_REQUEST | NLM_F_ACK`.
pub const DO: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
/// A request for a dump.
pub const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_DUMP) as u16;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// `nlmsg_flags`; must include [`DO`], so that the request is answered.
    pub flags: u16,
    /// The `genlmsghdr` and the attributes.
    pub body: Vec<u8>,
}

impl Request {
    /// Command `cmd` of version 1 with these attributes.
    pub fn new(flags: u16, cmd: u8, attrs: &[u8]) -> Self {
        let mut body = vec![cmd, 1, 0, 0];
        body.extend_from_slice(attrs);
        Request { flags, body }
    }
}

/// One message of an answer, without the fields that differ between any two answers: type, sequence
/// number, port.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// A message of the family.
    Message {
        /// `nlmsg_flags`.
        flags: u16,
        /// All after the `nlmsghdr`.
        body: Vec<u8>,
    },
    /// The end of a dump.
    Done {
        /// `nlmsg_flags`.
        flags: u16,
        /// 0 or the negative error that ended the dump.
        code: i32,
        /// The bytes after the code.
        rest: Vec<u8>,
    },
    /// An acknowledgement or a refusal.
    Ack {
        /// `nlmsg_flags`.
        flags: u16,
        /// 0 or a negative error.
        code: i32,
        /// The request echoed after its `nlmsghdr`. Empty in an acknowledgement.
        echo: Vec<u8>,
        /// The extended acknowledgement: `NLMSGERR_ATTR_*` attributes.
        extack: Vec<u8>,
    },
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Message { flags, body } => write!(f, "message({flags:#x}, {})", hex(body)),
            Part::Done { flags, code, rest } => {
                write!(f, "done({flags:#x}, {}, {})", name(*code), hex(rest))
            }
            Part::Ack {
                flags,
                code,
                echo,
                extack,
            } => write!(
                f,
                "ack({flags:#x}, {}, echo {}, extack {})",
                name(*code),
                hex(echo),
                Extack::parse(extack)
            ),
        }
    }
}

/// The error's name, `OK` for 0.
pub fn name(code: i32) -> String {
    match code {
        0 => "OK".to_owned(),
        code => format!("{:?}", Errno::from_raw(-code)),
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The content of an extended acknowledgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extack {
    /// The message.
    pub text: Option<String>,
    /// Offset of the offending attribute in the request, in bytes from its `nlmsghdr`.
    pub offset: Option<u32>,
    /// The other attributes (cookie, policy, what is missing), raw.
    pub other: Vec<(u16, Vec<u8>)>,
}

impl Extack {
    /// Reads the attributes of an acknowledgement.
    pub fn parse(bytes: &[u8]) -> Self {
        const MSG: u16 = 1;
        const OFFS: u16 = 2;
        let mut extack = Extack::default();
        for (kind, data) in super::netlink::attrs(bytes) {
            match (kind, data.first_chunk::<4>()) {
                (MSG, _) => {
                    let text = data.strip_suffix(&[0]).unwrap_or(&data);
                    extack.text = Some(String::from_utf8_lossy(text).into_owned());
                }
                (OFFS, Some(offset)) => extack.offset = Some(u32::from_ne_bytes(*offset)),
                _ => extack.other.push((kind, data)),
            }
        }
        extack
    }
}

impl std::fmt::Display for Extack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.text.as_deref().unwrap_or(""))?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        for (kind, data) in &self.other {
            write!(f, " {kind}={}", hex(data))?;
        }
        Ok(())
    }
}

/// The whole answer to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The messages in order; the last one ends the answer.
    pub parts: Vec<Part>,
    /// The lengths in bytes of the datagrams that they came in.
    pub datagrams: Vec<usize>,
}

impl Answer {
    /// How it ended.
    pub fn result(&self) -> Result<(), Errno> {
        match self.parts.last() {
            Some(Part::Ack { code: 0, .. } | Part::Done { code: 0, .. }) => Ok(()),
            Some(Part::Ack { code, .. } | Part::Done { code, .. }) => Err(Errno::from_raw(-code)),
            _ => Err(Errno::EPROTO),
        }
    }

    /// The bodies of the family's messages, as [`super::wgdev::parse_dump`] takes them.
    pub fn replies(&self) -> Vec<super::netlink::Reply> {
        let message = |part: &Part| match part {
            Part::Message { flags, body } => Some(super::netlink::Reply {
                flags: *flags,
                body: body.clone(),
            }),
            _ => None,
        };
        self.parts.iter().filter_map(message).collect()
    }

    /// The request as echoed with an error.
    pub fn echo(&self) -> &[u8] {
        match self.parts.last() {
            Some(Part::Ack { echo, .. }) => echo,
            _ => &[],
        }
    }

    /// The acknowledgement's attributes.
    pub fn extack(&self) -> Extack {
        match self.parts.last() {
            Some(Part::Ack { extack, .. }) => Extack::parse(extack),
            _ => Extack::default(),
        }
    }

    /// A one-line summary: how it ended, and how much came before.
    pub fn summary(&self) -> String {
        let mut text = match self.result() {
            Ok(()) => "OK".to_owned(),
            Err(e) => format!("{e:?}"),
        };
        let extack = self.extack();
        if extack != Extack::default() {
            text.push_str(&format!(" ({extack})"));
        }
        if self.parts.len() > 1 {
            text.push_str(&format!(" after {} messages", self.parts.len() - 1));
        }
        text
    }
}

/// A generic netlink socket with extended acknowledgements, for one family.
pub struct Gnl {
    fd: OwnedFd,
    family: u16,
    seq: u32,
    buf: Vec<u8>,
}

impl Gnl {
    /// Opens a socket in the calling thread's namespace.
    pub fn open(family: u16) -> Result<Self, Errno> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // Many answers are queued at once. (Unprivileged: as much as the limit allows.)
        if setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20)).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &(4 << 20))?;
        }
        if setsockopt(&fd, sockopt::SndBufForce, &(8 << 20)).is_err() {
            setsockopt(&fd, sockopt::SndBuf, &(1 << 20))?;
        }
        let on: libc::c_int = 1;
        // SAFETY: an int, with its length.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_EXT_ACK,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        Errno::result(set)?;
        Ok(Gnl {
            fd,
            family,
            seq: 1,
            buf: vec![0; 1 << 17],
        })
    }

    /// Receives into buffers of `len` bytes from now on (128 KiB at first): the kernel sizes the
    /// messages of a dump by the largest buffer that it has seen, within limits.
    pub fn receive_by(&mut self, len: usize) {
        self.buf = vec![0; len];
    }

    /// Sends all of `requests` in one system call and returns the answer to each.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Errno> {
        let first = self.seq.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.seq = self.seq.wrapping_add(1);
            let len = HDRLEN + request.body.len();
            bytes.extend_from_slice(&(len as u32).to_ne_bytes());
            bytes.extend_from_slice(&self.family.to_ne_bytes());
            bytes.extend_from_slice(&request.flags.to_ne_bytes());
            bytes.extend_from_slice(&self.seq.to_ne_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&request.body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut answers = vec![Answer::default(); requests.len()];
        let mut open = requests.len();
        while open > 0 {
            open -= self.datagram(first, &mut answers)?;
        }
        Ok(answers)
    }

    /// Sends one request and returns its answer.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Errno> {
        let mut answers = self.batch(std::slice::from_ref(request))?;
        answers.pop().ok_or(Errno::EPROTO)
    }

    /// Sends one request and reads only the first `datagrams` datagrams of its answer.
    pub fn start(&mut self, request: &Request, datagrams: usize) -> Result<Answer, Errno> {
        let first = self.seq.wrapping_add(1);
        self.seq = first;
        let len = (HDRLEN + request.body.len()) as u32;
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&self.family.to_ne_bytes());
        bytes.extend_from_slice(&request.flags.to_ne_bytes());
        bytes.extend_from_slice(&first.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&request.body);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut answer = [Answer::default()];
        for _ in 0..datagrams {
            if self.datagram(first, &mut answer)? > 0 {
                break;
            }
        }
        let [answer] = answer;
        Ok(answer)
    }

    /// Reads the rest of the answer that [`Gnl::start`] began; returns the whole answer.
    pub fn finish(&mut self, begun: Answer) -> Result<Answer, Errno> {
        let mut answer = [begun];
        let ended =
            |a: &Answer| matches!(a.parts.last(), Some(Part::Done { .. } | Part::Ack { .. }));
        while !ended(&answer[0]) {
            self.datagram(self.seq, &mut answer)?;
        }
        let [answer] = answer;
        Ok(answer)
    }

    /// Reads one datagram into the answers that it belongs to, the first of which has the sequence
    /// number `first`; returns how many answers it ended.
    fn datagram(&mut self, first: u32, answers: &mut [Answer]) -> Result<usize, Errno> {
        let n = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buf, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                other => break other?,
            }
        };
        let mut rest = self.buf.get(..n).ok_or(Errno::EMSGSIZE)?;
        let mut ended = 0;
        let mut counted = None;
        while let Some((seq, kind, flags, body, tail)) = split(rest) {
            rest = tail;
            let at = seq.wrapping_sub(first) as usize;
            let answer = answers.get_mut(at).ok_or(Errno::EBADMSG)?;
            let part = part(kind, flags, body).ok_or(Errno::EBADMSG)?;
            ended += usize::from(!matches!(part, Part::Message { .. }));
            answer.parts.push(part);
            if counted.replace(at).is_none() {
                answer.datagrams.push(n);
            }
        }
        if rest.is_empty() {
            Ok(ended)
        } else {
            Err(Errno::EBADMSG)
        }
    }
}

/// Splits the first message off: sequence number, type, flags, body, and what follows.
#[allow(clippy::type_complexity)] // said above
fn split(bytes: &[u8]) -> Option<(u32, u16, u16, &[u8], &[u8])> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_ne_bytes)
    };
    let len = word(0)? as usize;
    let (kind, flags) = (word(4)? as u16, (word(4)? >> 16) as u16);
    let body = bytes.get(HDRLEN..len)?;
    let tail = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    Some((word(8)?, kind, flags, body, tail))
}

fn part(kind: u16, flags: u16, body: &[u8]) -> Option<Part> {
    let code = || body.first_chunk::<4>().map(|b| i32::from_ne_bytes(*b));
    Some(match i32::from(kind) {
        libc::NLMSG_DONE => Part::Done {
            flags,
            code: code()?,
            rest: body.get(4..)?.to_vec(),
        },
        libc::NLMSG_ERROR => {
            const CAPPED: u16 = 0x100;
            let len = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?) as usize;
            let echoed = if flags & CAPPED != 0 { HDRLEN } else { len };
            let echo = body.get(4 + HDRLEN..4 + echoed)?;
            let extack = body.get((4 + echoed).next_multiple_of(4)..);
            Part::Ack {
                flags,
                code: code()?,
                echo: echo.to_vec(),
                extack: extack.unwrap_or(&[]).to_vec(),
            }
        }
        _ => Part::Message {
            flags,
            body: body.to_vec(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attrs;

    /// An error message as the kernel makes it.
    fn refusal(echo: &[u8], extack: &[u8]) -> Vec<u8> {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&((HDRLEN + echo.len()) as u32).to_ne_bytes());
        body.extend_from_slice(&[0; 12]);
        body.extend_from_slice(echo);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend_from_slice(extack);
        body
    }

    #[test]
    fn refusals_are_taken_apart() {
        let mut tlvs = Attrs::new();
        tlvs.str(1, "no").u32(2, 20);
        let body = refusal(&[1, 2, 3, 4, 5], tlvs.bytes());
        let Some(Part::Ack {
            code, echo, extack, ..
        }) = part(2, 0x200, &body)
        else {
            panic!("no acknowledgement");
        };
        assert_eq!((code, echo), (-22, vec![1, 2, 3, 4, 5]));
        let extack = Extack::parse(&extack);
        assert_eq!(extack.text.as_deref(), Some("no"));
        assert_eq!(extack.offset, Some(20));
    }

    #[test]
    fn a_message_with_wrong_length_is_no_message() {
        let mut bytes = vec![40, 0, 0, 0, 2, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0];
        assert!(split(&bytes).is_none());
        bytes[0] = 16;
        assert_eq!(split(&bytes), Some((7, 2, 0x100, &[][..], &[][..])));
    }
}

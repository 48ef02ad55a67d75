// SPDX-License-Identifier: GPL-2.0-only
//! A change of a device as a whole or not at all, which only the module `wireguard_rs` offers.

use super::message::Message;
use super::{find_extension, hint, request, Link};
use crate::buffer::Buffer;
use crate::model::SetDevice;
use crate::netlink::{Error, Socket};
use netlink_packet_core::{NetlinkBuffer, NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;
use std::io;
use wireguard_rs::proto::extension::cmd;

/// Errors with which a device or a system cannot take the whole change, but perhaps the parts.
const ELSEWHERE: [Errno; 5] = [
    Errno::ENODEV,
    Errno::EOPNOTSUPP,
    Errno::EPERM,
    // What the socket may not send at once.
    Errno::EMSGSIZE,
    Errno::ENOBUFS,
];

/// Makes the change. False, and nothing has changed, if it has to be made in parts.
///
/// # Errors
///
/// The kernel's; nothing has changed. [`hint::explain`] knows the words that came with it.
pub fn set(link: Link<'_>, change: &SetDevice, family: Option<&str>) -> io::Result<bool> {
    let mut socket = Socket::open(NETLINK_GENERIC)?;
    let extension = match find_extension(&mut socket) {
        Ok(extension) if family.is_none_or(|family| family == extension.beside) => extension,
        Ok(_) => return Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let mut whole = whole(extension.id, link, change)?;
    socket.make_room(whole.len());
    match socket.ask(&mut whole, &mut |_| Ok(())) {
        Ok(_) => Ok(true),
        Err(Error { errno, .. }) if ELSEWHERE.contains(&Errno::from_raw(errno)) => Ok(false),
        Err(error) => {
            hint::remember(error.message.clone());
            Err(error.into())
        }
    }
}

/// One request of the parts: the list of peers may be in several attributes.
fn whole(family: u16, link: Link<'_>, change: &SetDevice) -> io::Result<Buffer> {
    let start = || {
        let mut message = Message::generic(family, NLM_F_REQUEST | NLM_F_ACK, cmd::SET);
        message.link(link)?;
        io::Result::Ok(message)
    };
    let common = start()?.finish().len();
    let mut whole = Buffer::with_capacity(common);
    request::write_parts(&start, change, &mut |mut part| {
        let skip = if whole.is_empty() { 0 } else { common };
        whole.append(&part.finish()[skip..]);
        Ok(())
    })?;
    let length = u32::try_from(whole.len()).map_err(|_| Errno::EMSGSIZE)?;
    NetlinkBuffer::new(&mut whole[..]).set_length(length);
    Ok(whole)
}

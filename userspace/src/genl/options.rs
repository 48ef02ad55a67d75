// SPDX-License-Identifier: GPL-2.0-only
//! Options of an interface that only the module `wireguard_rs` has.

use super::message::{Message, GENL_HEADER};
use super::{find_extension, Link};
use crate::netlink::{attributes, Socket};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;
use std::io;
use wireguard_rs::proto::extension::{cmd, options};

/// The options, or those of them that are to be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether messages may be sent together, with UDP segmentation offload.
    pub udp_gso: Option<bool>,
}

/// Reads the options of an interface.
///
/// # Errors
///
/// `EPROTONOSUPPORT` if the driver has none; otherwise as for other requests.
pub fn get(interface: &str) -> io::Result<Options> {
    let mut found = Options::default();
    ask(
        interface,
        cmd::OPTIONS_GET,
        NLM_F_DUMP,
        None,
        &mut |payload| {
            for (kind, value) in attributes(payload.get(GENL_HEADER..).unwrap_or_default()) {
                if kind == options::UDP_GSO {
                    found.udp_gso = value.first().map(|value| *value != 0);
                }
            }
        },
    )?;
    Ok(found)
}

/// Sets options of an interface.
///
/// # Errors
///
/// As for [`get`].
pub fn set(interface: &str, change: Options) -> io::Result<()> {
    ask(
        interface,
        cmd::OPTIONS_SET,
        NLM_F_ACK,
        change.udp_gso,
        &mut |_| (),
    )
}

fn ask(
    interface: &str,
    command: u8,
    flags: u16,
    udp_gso: Option<bool>,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    Link::Name(interface).check()?;
    let mut socket = Socket::open(NETLINK_GENERIC)?;
    let family = find_extension(&mut socket)?.id;
    let mut request = Message::generic(family, NLM_F_REQUEST | flags, command);
    let name = [interface.as_bytes(), b"\0"].concat();
    request
        .put(options::IFNAME, &name)
        .and_then(|()| match udp_gso {
            Some(on) => request.put(options::UDP_GSO, &[on.into()]),
            None => Ok(()),
        })
        .map_err(|_| Errno::EMSGSIZE)?;
    socket.ask(request.finish(), &mut |payload| {
        each(payload);
        Ok(())
    })?;
    Ok(())
}

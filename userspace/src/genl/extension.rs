// SPDX-License-Identifier: GPL-2.0-only
//! A connection to the family that only the module `wireguard_rs` has.

use super::message::{Full, Message, GENL_HEADER};
use super::{find_extension, hint, Link};
use crate::netlink::Socket;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;
use std::io;

/// How often a dump is begun anew because what it shows changed meanwhile.
const DUMPS: u32 = 8;

/// The connection.
pub struct Extension {
    socket: Socket,
    family: u16,
    kind: &'static str,
}

/// Adds attributes to a request.
pub(super) type Fill<'a> = &'a dyn Fn(&mut Message) -> Result<(), Full>;

impl Extension {
    /// Connects.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` if the loaded driver has no such family.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::open(NETLINK_GENERIC)?;
        let family = find_extension(&mut socket)?;
        Ok(Self {
            socket,
            family: family.id,
            kind: family.beside,
        })
    }

    /// The same, for what will be asked about this interface.
    pub(super) fn open_for(link: Link<'_>) -> io::Result<Self> {
        link.check()?;
        Self::open()
    }

    /// The kind of the links that the module has made.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// `each` gets the attributes of each reply; true, if what was dumped changed meanwhile.
    pub(super) fn ask(
        &mut self,
        link: Link<'_>,
        command: u8,
        flags: u16,
        fill: Fill<'_>,
        each: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        let mut request = Message::generic(self.family, NLM_F_REQUEST | flags, command);
        request.link(link)?;
        fill(&mut request).map_err(|_| Errno::EMSGSIZE)?;
        let answer = self.socket.ask(request.finish(), &mut |payload| {
            each(payload.get(GENL_HEADER..).unwrap_or_default());
            Ok(())
        });
        Ok(answer.inspect_err(|error| hint::remember(error.message.clone()))?)
    }

    /// Collects a dump, and begins it anew if it was interrupted; false with what there is if it
    /// always is.
    pub(super) fn dump<T: Default>(
        &mut self,
        link: Link<'_>,
        command: u8,
        fill: Fill<'_>,
        read: &dyn Fn(&[u8], &mut T),
    ) -> io::Result<(T, bool)> {
        let mut left = DUMPS;
        loop {
            let mut found = T::default();
            let interrupted = self.ask(link, command, NLM_F_DUMP, fill, &mut |payload| {
                read(payload, &mut found);
            })?;
            left -= 1;
            if !interrupted || left == 0 {
                return Ok((found, !interrupted));
            }
        }
    }
}

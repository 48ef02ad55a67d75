// SPDX-License-Identifier: GPL-2.0-only
//! Which interfaces are WireGuard's, over rtnetlink.

use super::FAMILIES;
use crate::netlink::{read_link, Link, Request, Socket};
use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc::{RTM_GETLINK, RTNLGRP_LINK};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of the header in front of a link's attributes.
const IFINFOMSG: usize = 16;
/// The kernel keeps so many bytes of news about links for us.
const BACKLOG: usize = 1 << 18;

/// A WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireguardLink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// The kind of link, which is also the name of the family that drives it: one of [`FAMILIES`].
    pub family: &'static str,
}

/// All WireGuard interfaces of this network namespace, in the kernel's order. If interfaces come
/// and go all the time, the list may miss some, as that of `wg` may.
pub fn wireguard_links() -> io::Result<Vec<WireguardLink>> {
    let all = Request {
        kind: RTM_GETLINK,
        flags: NLM_F_DUMP,
        payload: vec![0; IFINFOMSG],
    };
    let links = Socket::open(NETLINK_ROUTE)?.call(&all)?;
    let links = links.iter().filter_map(|reply| read_link(reply));
    Ok(links.filter_map(of_wireguard).collect())
}

fn of_wireguard(link: Link) -> Option<WireguardLink> {
    let kind = link.kind?;
    Some(WireguardLink {
        name: link.name,
        index: link.index,
        family: FAMILIES.into_iter().find(|family| *family == kind)?,
    })
}

/// Hears of WireGuard interfaces that come, go or change.
pub struct LinkListener(Socket);

impl LinkListener {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::open(NETLINK_ROUTE)?;
        socket.listen(RTNLGRP_LINK, BACKLOG)?;
        Ok(Self(socket))
    }

    /// The indices of those of which something was told; `None` if there was more than we could
    /// read. At most `limit` datagrams are looked at, without waiting.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn hear(&mut self, limit: usize) -> io::Result<Option<Vec<u32>>> {
        let mut found = Vec::new();
        for _ in 0..limit {
            let heard = self.0.hear_waiting(&mut |payload| {
                found.extend(read_link(payload).and_then(of_wireguard).map(|l| l.index));
            });
            match heard {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.errno == Errno::ENOBUFS as i32 => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(found))
    }
}

impl AsFd for LinkListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_both_kinds() {
        let link = |kind: &str| Link {
            index: 7,
            name: "wg0".into(),
            mtu: 1420,
            kind: Some(kind.into()),
        };
        for family in FAMILIES {
            let expected = WireguardLink {
                name: "wg0".into(),
                index: 7,
                family,
            };
            assert_eq!(of_wireguard(link(family)), Some(expected));
        }
        assert_eq!(of_wireguard(link("veth")), None);
    }

    #[test]
    fn lists_and_listens_without_privilege() {
        wireguard_links().unwrap();
        assert_eq!(LinkListener::open().unwrap().hear(1).unwrap(), Some(vec![]));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Which interfaces are WireGuard's, over rtnetlink.

use super::message::Message;
use super::socket::{Socket, ROUTE};
use super::FAMILIES;
use netlink_packet_core::{NlasIterator, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nix::errno::Errno;
use nix::libc::{IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, RTM_GETLINK};
use std::io;

/// Bytes of the header in front of a link's attributes.
const IFINFOMSG: usize = 16;

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
/// and go meanwhile, the list may miss some, as that of `wg` may.
pub fn wireguard_links() -> io::Result<Vec<WireguardLink>> {
    let mut links = Vec::new();
    let request = Message::new(
        RTM_GETLINK,
        NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP,
        &[0; IFINFOMSG],
    );
    match Socket::open(ROUTE)?.run(request, 0, &mut |payload| {
        links.extend(read_link(payload));
        Ok(())
    }) {
        Err(error) if error.raw_os_error() != Some(Errno::EINTR as i32) => Err(error),
        _ => Ok(links),
    }
}

/// Reads an `ifinfomsg` and its attributes.
fn read_link(payload: &[u8]) -> Option<WireguardLink> {
    let index = i32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
    let (mut name, mut family) = (None, None);
    let text = |value: &[u8]| {
        String::from_utf8_lossy(value.split(|&c| c == 0).next().unwrap_or_default()).into_owned()
    };
    for attribute in NlasIterator::new(payload.get(IFINFOMSG..)?).flatten() {
        match attribute.kind() {
            IFLA_IFNAME => name = Some(text(attribute.value())),
            IFLA_LINKINFO => {
                let kind = NlasIterator::new(attribute.value())
                    .flatten()
                    .find(|info| info.kind() == IFLA_INFO_KIND);
                let kind = kind.map(|kind| text(kind.value()));
                family = FAMILIES
                    .into_iter()
                    .find(|family| kind.as_deref() == Some(family));
            }
            _ => {}
        }
    }
    Some(WireguardLink {
        name: name?,
        index: index.try_into().ok()?,
        family: family?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NLA_F_NESTED;
    use proptest::prelude::*;

    fn link(kind: &str) -> Vec<u8> {
        let mut message = Message::new(0, 0, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.put(IFLA_IFNAME, b"wg0\0").unwrap();
        let info = message.nest(IFLA_LINKINFO | NLA_F_NESTED).unwrap();
        message
            .put(IFLA_INFO_KIND, &[kind.as_bytes(), b"\0"].concat())
            .unwrap();
        message.end(info);
        message.finish(0)[16..].to_vec()
    }

    #[test]
    fn recognizes_both_kinds() {
        for family in FAMILIES {
            let expected = WireguardLink {
                name: "wg0".into(),
                index: 7,
                family,
            };
            assert_eq!(read_link(&link(family)), Some(expected));
        }
        assert_eq!(read_link(&link("veth")), None);
    }

    #[test]
    fn lists_without_privilege() {
        wireguard_links().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes(payload: Vec<u8>) {
            read_link(&payload);
        }
    }
}

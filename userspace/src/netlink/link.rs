// SPDX-License-Identifier: GPL-2.0-only
//! Network interfaces, as rtnetlink tells of them.

use super::{attribute, attribute_u32};
use nix::libc::{IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU};

/// Bytes of the header in front of the attributes.
const HEADER: usize = 16;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// `wireguard`, `veth`…: of virtual links only.
    pub kind: Option<String>,
}

/// Reads an `ifinfomsg` and its attributes.
pub fn read_link(payload: &[u8]) -> Option<Link> {
    let index = i32::from_ne_bytes(*payload.get(4..8)?.first_chunk()?);
    let attributes = payload.get(HEADER..)?;
    let text = |value: &[u8]| {
        let value = value.split(|c| *c == 0).next().unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    let info = attribute(attributes, IFLA_LINKINFO);
    Some(Link {
        index: index.try_into().ok()?,
        name: text(attribute(attributes, IFLA_IFNAME)?),
        mtu: attribute_u32(attributes, IFLA_MTU).unwrap_or(0),
        kind: info
            .and_then(|info| attribute(info, IFLA_INFO_KIND))
            .map(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable;
    use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
    use proptest::prelude::*;

    #[test]
    fn links() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = vec![
            LinkAttribute::IfName("wg0".into()),
            LinkAttribute::Mtu(1420),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
        ];
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        let wanted = Link {
            index: 7,
            name: "wg0".into(),
            mtu: 1420,
            kind: Some("wireguard".into()),
        };
        assert_eq!(read_link(&payload), Some(wanted));
        for len in 0..HEADER + 8 {
            assert_eq!(read_link(&payload[..len]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(payload: Vec<u8>) {
            read_link(&payload);
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What the sockets of a device are bound to, beside their port.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kapi::net::{namespace::IFNAMSIZ, sockaddr::Family};

/// What the sockets are bound to; nothing at first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding {
    /// The name of the only interface that messages come and go by, or that of a VRF; padded with
    /// zeros, all zeros for any. It is looked up whenever sockets are opened.
    pub(crate) interface: [u8; IFNAMSIZ],
    /// The only IPv4 address that messages are for and from; unspecified for none.
    pub(crate) v4: Ipv4Addr,
    /// The same of IPv6.
    pub(crate) v6: Ipv6Addr,
}

impl Binding {
    pub(crate) const NONE: Self = Self {
        interface: [0; IFNAMSIZ],
        v4: Ipv4Addr::UNSPECIFIED,
        v6: Ipv6Addr::UNSPECIFIED,
    };

    /// The address that a family's socket is bound to; [`None`] if there is none, as there is only
    /// an address of the other family.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        let (here, other) = match family {
            Family::V4 => (IpAddr::V4(self.v4), IpAddr::V6(self.v6)),
            Family::V6 => (IpAddr::V6(self.v6), IpAddr::V4(self.v4)),
        };
        (!here.is_unspecified() || other.is_unspecified()).then_some(here)
    }

    /// The interface, if there is one.
    pub(crate) fn interface(&self) -> Option<&[u8; IFNAMSIZ]> {
        (self.interface != [0; IFNAMSIZ]).then_some(&self.interface)
    }
}

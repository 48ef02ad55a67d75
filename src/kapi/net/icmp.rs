// SPDX-License-Identifier: GPL-2.0-only

//! ICMP errors.
//!
//! C headers: [`include/net/icmp.h`](srctree/include/net/icmp.h),
//! [`include/linux/icmpv6.h`](srctree/include/linux/icmpv6.h)

use super::{ip::IpVersion, skbuff::Skb};
use crate::bindings;

/// Tells the sender of an IP packet that its destination cannot be reached: "host unreachable" or,
/// of IPv6, "address unreachable". Nothing is sent for other packets. For packets that the stack
/// has just given to a device to send; BH disabled.
pub fn unreachable(skb: &Skb) {
    if !skb.is_valid_ip_packet() {
        return;
    }
    match IpVersion::from_protocol_be(skb.protocol_be()) {
        // SAFETY: The packet is valid. C may copy it, or undo address translation in it and redo
        // it before it returns.
        Some(IpVersion::V4) => unsafe { bindings::wg_icmp_host_unreachable(skb.as_raw()) },
        // SAFETY: The packet is valid. C may copy it, or undo address translation in it and redo
        // it before it returns.
        Some(IpVersion::V6) => unsafe { bindings::wg_icmpv6_addr_unreachable(skb.as_raw()) },
        None => {}
    }
}

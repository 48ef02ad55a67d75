// SPDX-License-Identifier: GPL-2.0-only
//! Messages that travel together in one packet, with UDP segmentation offload: the wire, the
//! counters and each single message must be as if they travelled alone.

mod counters;
mod load;
mod qdisc;
mod receive;
mod send;
mod sendfile;
mod socket;
mod tcp;
mod under;
mod underlays;
mod virtio;
mod wire;

use super::Test;

/// The ports of both ends inside the tunnel.
const APP: u16 = 9000;

pub fn register(list: &mut Vec<Test>) {
    send::register(list);
    receive::register(list);
    counters::register(list);
    tcp::register(list);
    sendfile::register(list);
    socket::register(list);
    under::register(list);
    qdisc::register(list);
    virtio::register(list);
}

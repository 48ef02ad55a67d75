// SPDX-License-Identifier: GPL-2.0-only

//! Tracepoints, which `perf`, `bpftrace` and BPF programs attach to.
//!
//! One that nobody is attached to costs a call and a branch that is patched in.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)

use core::ptr;

use super::net::{netdevice::NetDevice, skbuff::Skb};
use crate::bindings;

/// Whose packets were refused.
pub struct TracedPeer<'a> {
    /// The peer's number, as in debug messages.
    pub id: u64,
    /// Its public key.
    pub public_key: &'a [u8; 32],
}

/// Tells `wireguard_rs:wg_refused` that `count` messages or packets were refused or lost. `reason`
/// and `name` say why; they may all be in one `packet`. Any context.
#[cold]
pub fn refused(
    dev: &NetDevice,
    peer: Option<TracedPeer<'_>>,
    (reason, name): (u32, &'static str),
    packet: Option<&Skb>,
    count: usize,
) {
    let (id, key) = peer.map_or((0, ptr::null()), |peer| (peer.id, peer.public_key.as_ptr()));
    let packet = packet.map_or(ptr::null(), |packet| packet.as_raw().cast_const());
    // SAFETY: Device and packet are valid by their type invariants, the key and the name during
    // the call.
    unsafe {
        bindings::wg_trace_refused(
            dev.as_raw(),
            id,
            key,
            reason,
            name.as_ptr().cast(),
            name.len() as u32,
            packet,
            count as u32,
        );
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Which skb fields survive from one interface to another: marked values are written into them at
//! the first, and looked for at the second.

use super::object::{attach, get, load, map, number, Direction};
use crate::netns::Netns;
use anyhow::Result;
use libbpf_rs::{libbpf_sys, MapHandle, Object};
use std::os::fd::OwnedFd;

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stain.bpf.o"));

/// Counts of stained packets, and of stains that survived. Only frames over 200 bytes, which carry
/// data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Packets that were stained.
    pub stained: u64,
    /// Packets inspected at the second interface.
    pub packets: u64,
    /// How many of them have the stain's mark, priority, `tc_index` and queue.
    pub with: [u64; 4],
    /// How many have the stain's flow hash.
    pub with_hash: u64,
    /// How many have a mark other than 0 or the stain's.
    pub other_mark: u64,
}

/// Two programs in one namespace; detached on drop.
pub struct Stain {
    counts: MapHandle,
    _links: [OwnedFd; 2],
    _object: Object,
}

impl Stain {
    /// Stains packets at `stain` and inspects them at `look`: (interface, direction) each.
    pub fn attach(ns: &Netns, stain: (&str, Direction), look: (&str, Direction)) -> Result<Self> {
        let object = load("stain", IMAGE)?;
        let place = |program, (ifname, direction): (&str, Direction)| {
            let index = nix::net::if_::if_nametoindex(ifname)?;
            let hook = match direction {
                Direction::Out => libbpf_sys::BPF_TCX_EGRESS,
                Direction::In => libbpf_sys::BPF_TCX_INGRESS,
            };
            attach(&object, program, index, hook)
        };
        let links = ns.run(|| Ok([place("stain", stain)?, place("look", look)?]))?;
        Ok(Stain {
            counts: map(&object, "counts")?,
            _links: links,
            _object: object,
        })
    }

    /// The counts since the attachment.
    pub fn seen(&self) -> Result<Seen> {
        let at = |n: u32| get(&self.counts, n).map(|value| number(&value, 0));
        Ok(Seen {
            stained: at(0)?,
            packets: at(1)?,
            with: [at(2)?, at(3)?, at(4)?, at(5)?],
            with_hash: at(6)?,
            other_mark: at(7)?,
        })
    }
}

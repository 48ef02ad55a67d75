// SPDX-License-Identifier: GPL-2.0
//! Packets of segments that cannot be taken apart.

use super::{attach, load};
use crate::harness::netns::Netns;
use anyhow::Result;
use libbpf_rs::{libbpf_sys, Object};
use std::os::fd::OwnedFd;

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/spoil.bpf.o"));

/// Gives the packets of segments that leave by a tunnel's device a protocol that the kernel does not
/// know, after the stack has let them pass as what they were. Detached on drop.
pub struct Spoil {
    _link: OwnedFd,
    _object: Object,
}

impl Spoil {
    /// Begins on `ifname` in `ns`.
    pub fn attach(ns: &Netns, ifname: &str) -> Result<Self> {
        let object = load("spoil", IMAGE)?;
        let link = ns.run(|| {
            let index = nix::net::if_::if_nametoindex(ifname)?;
            attach(&object, "spoil", index, libbpf_sys::BPF_TCX_EGRESS)
        })?;
        Ok(Spoil {
            _link: link,
            _object: object,
        })
    }
}

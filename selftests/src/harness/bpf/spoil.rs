// SPDX-License-Identifier: GPL-2.0-only
//! Segmentation-offload packets that cannot be segmented.

use super::object::{attach, load};
use crate::netns::Netns;
use anyhow::Result;
use libbpf_rs::{libbpf_sys, Object};
use std::os::fd::OwnedFd;

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/spoil.bpf.o"));

/// Gives the segmentation-offload packets that leave through a tunnel device a protocol that the
/// kernel does not know, after the stack has accepted them. Detached on drop.
pub struct Spoil {
    _link: OwnedFd,
    _object: Object,
}

impl Spoil {
    /// Attaches to `ifname` in `ns`.
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

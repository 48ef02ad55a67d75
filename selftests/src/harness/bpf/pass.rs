// SPDX-License-Identifier: GPL-2.0-only
//! An XDP program that lets everything pass.

use super::object::{attach, get, load, map, number};
use crate::netns::Netns;
use anyhow::Result;
use libbpf_rs::{libbpf_sys, MapHandle, Object};
use std::os::fd::OwnedFd;

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pass.bpf.o"));

/// Sees every frame that an interface receives, before the stack does. Detached on drop.
pub struct Pass {
    counts: MapHandle,
    _link: OwnedFd,
    _object: Object,
}

impl Pass {
    /// Attaches to `ifname` in `ns`, in the driver if it supports that.
    pub fn attach(ns: &Netns, ifname: &str) -> Result<Self> {
        let object = load("pass", IMAGE)?;
        let link = ns.run(|| {
            let index = nix::net::if_::if_nametoindex(ifname)?;
            attach(&object, "pass", index, libbpf_sys::BPF_XDP)
        })?;
        Ok(Pass {
            counts: map(&object, "counts")?,
            _link: link,
            _object: object,
        })
    }

    /// How many frames have passed, and how many of them were longer than Ethernet's.
    pub fn seen(&self) -> Result<(u64, u64)> {
        let at = |n: u32| get(&self.counts, n).map(|value| number(&value, 0));
        Ok((at(0)?, at(1)?))
    }
}

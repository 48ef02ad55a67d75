// SPDX-License-Identifier: GPL-2.0-only
//! A socket filter of a control group that lets no message pass.

use super::object::{attach, load};
use anyhow::{Context, Result};
use libbpf_rs::{libbpf_sys, Object};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/deny.bpf.o"));

/// Refuses UDP datagrams to the ports of [`crate::topo::port`] for sockets of a control group.
/// Detached on drop.
pub struct Deny {
    _link: OwnedFd,
    _object: Object,
}

impl Deny {
    /// Attaches to the control group at `path`.
    pub fn attach(path: &str) -> Result<Self> {
        let object = load("deny", IMAGE)?;
        let group = File::open(path).context("control group")?;
        let target = u32::try_from(group.as_raw_fd())?;
        let link = attach(&object, "deny", target, libbpf_sys::BPF_CGROUP_INET_INGRESS)?;
        Ok(Deny {
            _link: link,
            _object: object,
        })
    }
}

// SPDX-License-Identifier: GPL-2.0

//! WireGuard for Linux, in Rust: the kernel module's crate root.
//!
//! `src/lib.rs` is the other root, for cargo on the host. Both declare the same `proto` and
//! `tables`.

#![crate_name = "wireguard_rs"]
#![deny(unsafe_code)]

use kernel::prelude::*;

#[allow(unsafe_code)]
pub mod bindings;
pub mod kapi;
pub mod proto;
pub mod tables;

module! {
    type: WireGuard,
    name: "wireguard_rs",
    authors: ["The wireguard_rs authors"],
    description: "WireGuard secure network tunnel, in Rust",
    license: "GPL v2",
    alias: ["rtnl-link-wireguard", "net-pf-16-proto-16-family-wireguard"],
    params: {
        coexist: bool {
            default: false,
            description: "Register as wireguard_rs, to run beside the in-tree wireguard module",
        },
    },
}

/// The loaded module: dropping it undoes everything that [`WireGuard::init`] registered.
struct WireGuard;

impl kernel::Module for WireGuard {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded {}\n", module_parameters::coexist.value());
        Ok(Self)
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! WireGuard for Linux, in Rust: the kernel module's crate root.
//!
//! `src/lib.rs` is the other root, for cargo on the host. Both declare the same `proto` and
//! `tables`.

#![crate_name = "wireguard_rs"]
#![deny(unsafe_code)]

use kernel::prelude::*;

use crate::{device::registration::Registration, kapi::sync::rcu};

#[allow(unsafe_code)]
mod bindings;
mod device;
// Its items are `pub`, as those of the kernel crate that they would become.
#[allow(unreachable_pub)]
mod kapi;
// Public because the host's tests use more of them than the driver does.
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
        udp_gso: bool {
            default: true,
            description: "Send messages together with UDP segmentation offload",
        },
        coexist: bool {
            default: false,
            description: "Register as wireguard_rs, to run beside the in-tree wireguard module",
        },
    },
}

/// The loaded module. Dropping it takes back all that it has registered, and with that removes all
/// devices.
struct WireGuard {
    // Fields are dropped from top to bottom.
    _registration: Registration,
    _code: CodeInUse,
}

impl kernel::Module for WireGuard {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let coexist = module_parameters::coexist.value();
        let bulk = module_parameters::udp_gso.value();
        // Before anything else, so that it is dropped last also when something fails.
        let code = CodeInUse;
        let registration = Registration::new(coexist, bulk).inspect_err(|&error| {
            if error == EEXIST && coexist {
                pr_err!("something else is registered as wireguard_rs\n");
            } else if error == EEXIST {
                pr_err!(
                    "another module provides wireguard already: \
                     rmmod wireguard, or load this one with coexist=1\n"
                );
            }
        })?;
        Ok(Self {
            _registration: registration,
            _code: code,
        })
    }
}

/// While this exists, callbacks may run the module's code; its end waits for the last of them.
struct CodeInUse;

impl Drop for CodeInUse {
    fn drop(&mut self) {
        rcu::drain();
    }
}

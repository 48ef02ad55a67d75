// SPDX-License-Identifier: GPL-2.0-only
//! The WireGuard implementations that a tunnel can be made with.

use super::userspace::Program;

/// A WireGuard implementation, and how it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The link kind; empty for a program on a TUN device.
    pub kind: &'static str,
    /// Configured with `wg` and not with the harness's own netlink client.
    pub by_tool: bool,
    /// The userspace implementation, if it is one.
    pub program: Option<Program>,
}

/// Whichever driver is registered as `wireguard`, configured by the harness's own netlink client.
pub const PLAIN: Driver = Driver {
    kind: "wireguard",
    by_tool: false,
    program: None,
};
/// The same, configured by `wg`.
pub const BY_TOOL: Driver = Driver {
    kind: "wireguard",
    by_tool: true,
    program: None,
};
/// Ours, loaded with `coexist=1`.
pub const COEXIST: Driver = Driver {
    kind: "wireguard_rs",
    by_tool: false,
    program: None,
};
/// A userspace implementation on a TUN device.
pub const fn userspace(program: Program) -> Driver {
    Driver {
        kind: "",
        by_tool: true,
        program: Some(program),
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The WireGuard protocol in plain safe Rust: no allocation, no locks, no clock, no kernel.

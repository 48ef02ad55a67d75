// SPDX-License-Identifier: GPL-2.0-only
//! The library that the guest tests, the benchmarks and the netlink fuzzer are written with.
//!
//! From the bottom up, a module using only those above it in this list:
//!
//! - formats: [`wire`], [`ktap`], [`pace`] (limits on a slow kernel);
//! - netlink: [`netlink`], [`rtnl`] (links, addresses, routes), [`gnl`] (answers byte by byte);
//! - namespaces: [`netns`], and in them [`cmd`], [`dns`], [`traffic`], [`capture`], [`probe`];
//! - the kernel: [`modules`], [`kmsg`], [`checkers`], [`fault`], [`memory`], [`ram`], [`suspend`];
//! - WireGuard devices: [`wgdev`] (netlink), [`events`] and [`options`] (of our module), [`tool`]
//!   (`wg`), [`userspace`] (other programs);
//! - [`driver`] (implementations), [`artefacts`] (what is saved of a failed test), [`runner`] (runs
//!   each test in a process and namespaces of its own);
//! - topologies: [`topo`] (two ends and a tunnel), [`nics`] (network cards in the place of veth),
//!   [`pair`] (both drivers side by side);
//! - WireGuard messages by hand: [`packet`], [`noise`] (the protocol), [`flood`] (many
//!   initiations), [`bpf`] (drops, changes and counts messages on the underlay), [`rig`] (a device
//!   among clients of [`noise`]).
//!
//! A test gets a [`runner::Ctx`]. Most functions return [`anyhow::Result`]; an error fails the test
//! and should say what was expected. All but the parsers need root and the kernel under test. Times
//! are on the guest's clock.

#![warn(missing_docs)]

pub mod artefacts;
pub mod bpf;
pub mod capture;
pub mod checkers;
pub mod cmd;
pub mod dns;
pub mod driver;
pub mod events;
pub mod fault;
pub mod flood;
pub mod gnl;
pub mod kmsg;
pub mod ktap;
pub mod memory;
pub mod modules;
pub mod netlink;
pub mod netns;
pub mod nics;
pub mod noise;
pub mod offload;
pub mod options;
pub mod pace;
pub mod packet;
pub mod pair;
pub mod peers;
pub mod probe;
pub mod ram;
pub mod rig;
pub mod rtnl;
pub mod runner;
pub mod suspend;
pub mod tool;
pub mod topo;
pub mod trace;
pub mod traffic;
pub mod userspace;
pub mod wgdev;
pub mod wire;

// SPDX-License-Identifier: GPL-2.0
//! What the tests are made with. Nothing here knows a particular test.

pub mod bpf;
pub mod capture;
pub mod checkers;
pub mod cmd;
pub mod fault;
pub mod gnl;
pub mod kmsg;
pub mod ktap;
pub mod memory;
pub mod modules;
pub mod netlink;
pub mod netns;
pub mod noise;
pub mod pace;
pub mod packet;
pub mod pair;
pub mod probe;
pub mod rtnl;
pub mod runner;
pub mod tool;
pub mod topo;
pub mod traffic;
pub mod userspace;
pub mod wgdev;
pub mod wire;

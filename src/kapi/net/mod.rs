// SPDX-License-Identifier: GPL-2.0-only

//! Networking.

pub mod dst_cache;
pub mod genetlink;
pub mod icmp;
pub mod ip;
pub mod namespace;
pub mod napi;
pub mod netdevice;
pub mod route;
pub mod rtnl;
pub mod skbuff;
pub mod sockaddr;
pub mod udp_tunnel;

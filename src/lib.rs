// SPDX-License-Identifier: GPL-2.0-only

//! The host crate root: the same `proto/` and `tables/` as the kernel module, for cargo.
//!
//! `src/main.rs` is the kernel's crate root. Both declare the same module names, so that
//! `crate::proto::…` means the same file in either build.

#![deny(unsafe_code)]

#[path = "kapi_host.rs"]
pub mod kapi;
pub mod proto;
pub mod tables;

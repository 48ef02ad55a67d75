// SPDX-License-Identifier: GPL-2.0-only
//! Everything that `wg` and `wg-quick` do, and some more, as a library for the one binary `wg-rs`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod buffer;
pub mod check;
pub mod cli;
pub mod config;
pub mod driver;
pub mod events;
pub mod finding;
pub mod generate;
pub mod genl;
pub mod json;
pub mod key;
pub mod metrics;
pub mod model;
pub mod monitor;
pub mod native;
mod netlink;
pub mod options;
pub mod quick;
pub mod say;
pub mod signals;
pub mod stats;
pub mod status;
pub mod uapi;
pub mod wg;

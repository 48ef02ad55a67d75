// SPDX-License-Identifier: GPL-2.0
//! The netlink interface: each rule of it, on both modules side by side. The same bytes go to a
//! device of each; errno, extended acknowledgement, the request as it comes back, and the dump
//! afterwards must be the same bytes, and what the rule says besides.

mod config;
mod dump;
mod family;
mod fuzz;
mod keys;
mod limit;
mod middump;
mod peers;
mod refused;
mod rights;
mod scene;

use super::both;
use crate::harness::runner::Test;

pub use fuzz::alone as fuzz;

pub fn register(list: &mut Vec<Test>) {
    family::register(list);
    rights::register(list);
    refused::register(list);
    config::register(list);
    keys::register(list);
    limit::register(list);
    peers::register(list);
    dump::register(list);
    middump::register(list);
    fuzz::register(list);
}

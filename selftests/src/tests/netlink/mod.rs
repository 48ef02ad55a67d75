// SPDX-License-Identifier: GPL-2.0-only
//! The netlink interface: each of its rules, on both modules side by side. The same bytes go to a
//! device of each; errno, extended ack, the echoed request and the dump afterwards must be
//! identical, and match the rule.

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
use harness::runner::Test;

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

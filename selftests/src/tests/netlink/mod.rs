// SPDX-License-Identifier: GPL-2.0
//! The netlink interface: each rule of it, on both modules side by side. The same bytes go to a
//! device of each; errno, extended acknowledgement, the request as it comes back, and the dump
//! afterwards must be the same bytes, and what the rule says besides.

mod config;
mod dump;
mod family;
mod fuzz;
mod keys;
mod middump;
mod peers;
mod refused;
mod rights;
mod scene;

use crate::harness::modules::Modules;
use crate::harness::runner::{Boot, Ctx, Subject, Test};
use anyhow::Result;
use std::time::Duration;

pub use fuzz::alone as fuzz;

pub fn register(list: &mut Vec<Test>) {
    family::register(list);
    rights::register(list);
    refused::register(list);
    config::register(list);
    keys::register(list);
    peers::register(list);
    dump::register(list);
    middump::register(list);
    fuzz::register(list);
}

/// A test of both modules at once.
fn both(
    list: &mut Vec<Test>,
    name: &str,
    secs: u64,
    body: impl Fn(&Ctx) -> Result<()> + Copy + 'static,
) {
    list.push(Test {
        name: name.to_owned(),
        boot: Boot::Smp,
        modules: Modules::Both,
        subject: Subject::Rs,
        bound: Duration::from_secs(secs),
        body: Box::new(body),
    });
}

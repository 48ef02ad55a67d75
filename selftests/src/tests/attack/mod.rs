// SPDX-License-Identifier: GPL-2.0
//! The attacks of RELIABILITY.md's first table, made with the protocol client of the harness.

mod roles;
mod scene;

use super::{drop_in, Test};

pub fn register(list: &mut Vec<Test>) {
    roles::register(list);
}

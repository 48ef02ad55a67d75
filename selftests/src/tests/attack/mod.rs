// SPDX-License-Identifier: GPL-2.0-only
//! Attacks on the protocol, made with the protocol client of the harness.

mod binding;
mod bits;
mod cookies;
mod hiding;
mod initiation;
mod isolation;
mod kci;
mod nonces;
mod points;
mod replay;
mod roaming;
mod roles;
mod silence;
mod source;
mod zeroization;

use super::{both, drop_in, drop_in_vtime, Test};

pub fn register(list: &mut Vec<Test>) {
    roles::register(list);
    replay::register(list);
    nonces::register(list);
    initiation::register(list);
    roaming::register(list);
    points::register(list);
    source::register(list);
    silence::register(list);
    bits::register(list);
    binding::register(list);
    kci::register(list);
    hiding::register(list);
    isolation::register(list);
    cookies::register(list);
    zeroization::register(list);
}

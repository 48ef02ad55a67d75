// SPDX-License-Identifier: GPL-2.0
//! The binary: looks at the name it was called by. Called `wg` or `wg-quick`, it behaves as those do.

#![forbid(unsafe_code)]

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use wg_rs::cli::{Cli, Command};
use wg_rs::extra;
use wg_rs::wg::{self, Context, Done, Voice};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let program = arguments.first().cloned().unwrap_or_else(|| "wg-rs".into());
    let result = match Path::new(&program).file_name().and_then(OsStr::to_str) {
        Some("wg") => wg::main(
            &Context::wg(program),
            arguments.get(1..).unwrap_or_default(),
        ),
        // Answers the shell, where it is that which calls.
        _ if completed(&arguments) => return ExitCode::SUCCESS,
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

/// Writes what the shell's completion asks for, if that is why we were called.
fn completed(arguments: &[OsString]) -> bool {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command)
        .try_complete(arguments.to_vec(), folder.as_deref())
        .unwrap_or_else(|error| error.exit())
}

fn run(program: OsString, cli: Cli) -> Done {
    let context = Context {
        voice: Voice::WgRs,
        program,
        family: cli.family,
    };
    match &cli.command {
        Some(Command::Extra(command)) => return extra::run(&context, command),
        Some(Command::Show(show)) if show.json => {
            return extra::show_json(&context, &show.interface.to_string_lossy())
        }
        _ => {}
    }
    let words = cli.command.as_ref().and_then(Command::as_wg);
    wg::main(&context, &words.unwrap_or_default())
}

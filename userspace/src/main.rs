// SPDX-License-Identifier: GPL-2.0-only
//! The binary: looks at the name it was called by. Called `wg` or `wg-quick`, it behaves as those
//! do.

#![deny(unsafe_code)]
#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process;
use wg_rs::cli::{Cli, Command, How, Set};
use wg_rs::native;
use wg_rs::quick;
use wg_rs::say::{CommandResult, Failed};
use wg_rs::wg::{self, Context, Voice};

/// C's `main`. Rust's own ignores SIGPIPE before it can be seen whether that was ignored already.
#[cfg(all(target_env = "gnu", not(test)))]
#[allow(
    unsafe_code,
    reason = "only the name is: the C library has no other `main`"
)]
#[no_mangle]
extern "C" fn main() -> i32 {
    wg_rs::signals::catch_broken_pipe();
    process::exit(call())
}

#[cfg(not(all(target_env = "gnu", not(test))))]
fn main() {
    process::exit(call())
}

/// Does what we are called for. The result is the exit status, of which the system keeps one byte.
fn call() -> i32 {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let program = arguments.first().cloned().unwrap_or_else(|| "wg-rs".into());
    let rest = arguments.get(1..).unwrap_or_default();
    match Path::new(&program).file_name().and_then(OsStr::to_str) {
        Some("wg") => status(wg::main(&Context::wg(program), rest)),
        Some("wg-quick") => {
            let context = Context {
                voice: Voice::Wg,
                program,
                family: None,
            };
            status(quick::main(&context, rest))
        }
        // Answers the shell, where it is that which calls.
        _ if completed(&arguments) => 0,
        _ => match Cli::try_parse_from(arguments) {
            Ok(cli) => run(program, cli),
            Err(error) => {
                // Help and version are errors to clap, but none to us; nothing can be done if they
                // cannot be printed.
                let _ = error.print();
                i32::from(error.use_stderr())
            }
        },
    }
}

/// Writes what the shell's completion asks for, if that is why we were called.
fn completed(arguments: &[OsString]) -> bool {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command)
        .try_complete(arguments.to_vec(), folder.as_deref())
        .unwrap_or_else(|error| error.exit())
}

fn run(program: OsString, cli: Cli) -> i32 {
    let context = &Context {
        voice: Voice::WgRs,
        program,
        family: cli.family,
    };
    let command = match cli.command {
        None => wg::Command::show_all(),
        Some(Command::Native(command)) => return status(native::run(context, &command)),
        Some(Command::Quick(tunnel) | Command::Tunnel(tunnel)) => {
            let (verb, config) = tunnel.parts();
            return status(quick::run(context, verb, &config));
        }
        Some(Command::Show(show)) => {
            let interface = show.interface.to_string_lossy();
            match show.how() {
                Ok(How::Text) => show.into_wg(),
                Ok(How::Json) => return status(native::show_json(context, &interface)),
                Ok(How::Stats(json)) => {
                    return status(native::show_stats(context, &interface, json));
                }
                Err(error) => {
                    let _ = error.print();
                    return error.exit_code();
                }
            }
        }
        Some(Command::Showconf { interface }) => wg::Command::ShowConf(interface),
        Some(Command::Set(Set {
            interface,
            settings,
        })) => wg::Command::Set {
            interface,
            settings,
        },
        Some(Command::Setconf(conf)) => conf.into_wg(wg::How::Set),
        Some(Command::Addconf(conf)) => conf.into_wg(wg::How::Add),
        Some(Command::Syncconf(conf)) => conf.into_wg(wg::How::Sync),
        Some(Command::Genkey) => wg::Command::GenerateKey,
        Some(Command::Genpsk) => wg::Command::GeneratePreshared,
        Some(Command::Pubkey) => wg::Command::PublicKey,
    };
    status(command.run(context))
}

fn status(done: CommandResult) -> i32 {
    done.map_or_else(|Failed(status)| status, |()| 0)
}

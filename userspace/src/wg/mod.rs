// SPDX-License-Identifier: GPL-2.0-only
//! The commands of `wg`.
//!
//! They exist in two voices. [`Voice::Wg`] is what `wg` 1.0.20250521 says, byte for byte.
//! [`Voice::WgRs`] says the same, and where in the file the fault is, and what to do about it; it
//! also refuses what `wg` lets pass although it cannot be meant.
//!
//! On purpose, the first voice differs from `wg` in these points: a private or preshared key (or
//! what may be a mistyped one) that cannot be read is never repeated in the error; a configuration
//! that cannot be read to its end is an error, not an empty configuration; and `--version` says who
//! speaks.

mod conf;
mod keys;
mod lookup;
mod out;
mod pretty;
mod report;
mod set;
mod show;

pub use conf::{apply, read_file, How};
pub(crate) use lookup::System;
pub use out::Out;
pub(crate) use report::{fault, kernel};
pub use report::{hint, os_message, say, snippet, strerror};
pub use show::{interfaces, FIELDS};

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// How a command speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// As `wg`.
    Wg,
    /// As `wg-rs`.
    WgRs,
}

/// What all commands need to know.
#[derive(Clone, Debug)]
pub struct Context {
    /// How to speak.
    pub voice: Voice,
    /// The name that this program was called by, for usage messages.
    pub program: OsString,
    /// The netlink family, if not to be found out; `wg` only knows the family `wireguard`.
    pub family: Option<String>,
}

/// A command failed; it has said why. The program ends with code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// What a command returns.
pub type Done = Result<(), Failed>;

/// The version whose behaviour [`Voice::Wg`] has.
const WG_VERSION: &str = "1.0.20250521";
/// Where `wg` says it comes from.
const WG_HOME: &str = "https://git.zx2c4.com/wireguard-tools/";

const COMMANDS: [(&str, &str); 9] = [
    (
        "show",
        "Shows the current configuration and device information",
    ),
    (
        "showconf",
        "Shows the current configuration of a given WireGuard interface, for use with `setconf'",
    ),
    (
        "set",
        "Change the current configuration, add peers, remove peers, or change peers",
    ),
    (
        "setconf",
        "Applies a configuration file to a WireGuard interface",
    ),
    (
        "addconf",
        "Appends a configuration file to a WireGuard interface",
    ),
    (
        "syncconf",
        "Synchronizes a configuration file to a WireGuard interface",
    ),
    (
        "genkey",
        "Generates a new private key and writes it to stdout",
    ),
    (
        "genpsk",
        "Generates a new preshared key and writes it to stdout",
    ),
    (
        "pubkey",
        "Reads a private key from stdin and writes a public key to stdout",
    ),
];

impl Context {
    /// Speaks as `wg`, called by this name.
    pub fn wg(program: OsString) -> Self {
        Self {
            voice: Voice::Wg,
            program,
            family: Some("wireguard".into()),
        }
    }

    /// Writes `Usage: PROGRAM COMMAND ARGUMENTS` to standard error.
    fn usage(&self, command: &OsStr, arguments: &str) {
        let space: &[u8] = if arguments.is_empty() { b"" } else { b" " };
        let parts = [
            b"Usage: ",
            self.program.as_bytes(),
            b" ",
            command.as_bytes(),
            space,
            arguments.as_bytes(),
        ];
        report::say(&parts.concat());
    }

    fn overview(&self) -> Vec<u8> {
        let mut text = [
            b"Usage: ",
            self.program.as_bytes(),
            b" <cmd> [<args>]\n\nAvailable subcommands:\n",
        ]
        .concat();
        for (name, description) in COMMANDS {
            text.extend_from_slice(format!("  {name}: {description}\n").as_bytes());
        }
        text.extend_from_slice(
            b"You may pass `--help' to any of these subcommands to view usage.\n",
        );
        text
    }
}

/// `wg`, with its command line (the program's name not included).
pub fn main(context: &Context, arguments: &[OsString]) -> Done {
    let show = [OsString::from("show")];
    let arguments = if arguments.is_empty() {
        &show
    } else {
        arguments
    };
    let [command, rest @ ..] = arguments else {
        return Ok(());
    };
    if rest.is_empty() {
        match command.as_bytes() {
            b"-v" | b"--version" | b"version" => {
                // What scripts look for; `wg-rs --version` tells its own.
                let text = format!("wireguard-tools v{WG_VERSION} - {WG_HOME}\n");
                return Out::print(context, text.as_bytes());
            }
            b"-h" | b"--help" | b"help" => return Out::print(context, &context.overview()),
            _ => {}
        }
    }
    match command.as_bytes() {
        b"show" => show::show(context, rest),
        b"showconf" => show::showconf(context, rest),
        b"set" => set::set(context, rest),
        b"setconf" | b"addconf" | b"syncconf" => conf::main(context, command, rest),
        b"genkey" | b"genpsk" => keys::generate(context, command, rest),
        b"pubkey" => keys::public(context, rest),
        other => {
            report::say(&[b"Invalid subcommand: `", other, b"'"].concat());
            report::say_raw(&context.overview());
            Err(Failed)
        }
    }
}

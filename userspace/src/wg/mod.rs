// SPDX-License-Identifier: GPL-2.0-only
//! The commands of `wg`.
//!
//! They exist in two voices. [`Voice::Wg`] is what `wg` 1.0.20260223 says, byte for byte.
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

pub use conf::{read_file, How};
pub(crate) use lookup::{endpoint_now, port, System};
pub use out::Out;
pub(crate) use report::{fault, kernel};
pub use show::{interfaces, FIELDS};

use crate::key::SecretKey;
use crate::say::{say_bytes, CommandResult, Failed};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
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

/// The version whose behaviour [`Voice::Wg`] has.
const WG_VERSION: &str = "1.0.20260223";
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

    /// Whether standard output is to have colours. `wg` heeds neither NO_COLOR nor a dumb terminal.
    pub fn colour(&self) -> bool {
        match std::env::var_os("WG_COLOR_MODE") {
            Some(mode) if mode == "always" => true,
            Some(mode) if mode == "never" => false,
            _ => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let plain = self.voice == Voice::WgRs && (unwanted || is_dumb());
                io::stdout().is_terminal() && !plain
            }
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
        say_bytes(&parts.concat());
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

/// The terminal does not know escape sequences.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

/// `wg`, with its command line (the program's name not included).
pub fn main(context: &Context, arguments: &[OsString]) -> CommandResult {
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
    Command::read(context, command, rest)?.map_or(Ok(()), |command| command.run(context))
}

/// A command and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `show`
    Show {
        /// Its name; or `all`, or `interfaces`.
        interface: OsString,
        /// The only thing to show.
        field: Option<OsString>,
    },
    /// `showconf`
    ShowConf(OsString),
    /// `set`
    Set {
        /// Its name.
        interface: OsString,
        /// Keywords and values.
        settings: Vec<OsString>,
    },
    /// `setconf`, `addconf`, `syncconf`
    Conf {
        /// Which of them.
        how: How,
        /// Its name.
        interface: OsString,
        /// The configuration.
        file: OsString,
    },
    /// `genkey`
    GenerateKey,
    /// `genpsk`
    GeneratePreshared,
    /// `pubkey`
    PublicKey,
}

impl Command {
    /// Without any arguments.
    pub fn show_all() -> Self {
        Self::Show {
            interface: "all".into(),
            field: None,
        }
    }

    /// Reads `wg`'s arguments. None, if all that was wanted was how the command is called.
    fn read(context: &Context, name: &OsStr, rest: &[OsString]) -> Result<Option<Self>, Failed> {
        let conf = |how| match rest {
            [interface, file] => Some(Self::Conf {
                how,
                interface: interface.clone(),
                file: file.clone(),
            }),
            _ => None,
        };
        let is_help = |word: &OsStr| matches!(word.as_bytes(), b"-h" | b"--help" | b"help");
        let (command, usage) = match (name.as_bytes(), rest) {
            (b"show", [word]) if is_help(word) => {
                context.usage(name, show::USAGE);
                return Ok(None);
            }
            (b"show", []) => (Some(Self::show_all()), ""),
            (b"show", [interface, field @ ..]) if field.len() < 2 => {
                let (interface, field) = (interface.clone(), field.first().cloned());
                (Some(Self::Show { interface, field }), "")
            }
            (b"show", _) => (None, show::USAGE),
            (b"showconf", [interface]) => (Some(Self::ShowConf(interface.clone())), ""),
            (b"showconf", _) => (None, "<interface>"),
            (b"set", [interface, settings @ ..]) if !settings.is_empty() => {
                let (interface, settings) = (interface.clone(), settings.to_vec());
                (
                    Some(Self::Set {
                        interface,
                        settings,
                    }),
                    "",
                )
            }
            (b"set", _) => (None, set::USAGE),
            (b"setconf", _) => (conf(How::Set), conf::USAGE),
            (b"addconf", _) => (conf(How::Add), conf::USAGE),
            (b"syncconf", _) => (conf(How::Sync), conf::USAGE),
            (b"genkey", []) => (Some(Self::GenerateKey), ""),
            (b"genpsk", []) => (Some(Self::GeneratePreshared), ""),
            (b"pubkey", []) => (Some(Self::PublicKey), ""),
            (b"genkey" | b"genpsk" | b"pubkey", _) => (None, ""),
            (other, _) => {
                say_bytes(&[b"Invalid subcommand: `", other, b"'"].concat());
                let overview = context.overview();
                say_bytes(overview.strip_suffix(b"\n").unwrap_or(&overview));
                return Err(Failed::USUAL);
            }
        };
        if command.is_none() {
            context.usage(name, usage);
            return Err(Failed::USUAL);
        }
        Ok(command)
    }

    /// Runs it.
    pub fn run(&self, context: &Context) -> CommandResult {
        match self {
            Self::Show { interface, field } => show::show(context, interface, field.as_deref()),
            Self::ShowConf(interface) => show::showconf(context, interface),
            Self::Set {
                interface,
                settings,
            } => set::set(context, interface, settings),
            Self::Conf {
                how,
                interface,
                file,
            } => conf::conf(context, *how, interface, file),
            Self::GenerateKey => keys::generate(context, SecretKey::generate_private),
            Self::GeneratePreshared => keys::generate(context, SecretKey::generate),
            Self::PublicKey => keys::public(context),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! wg-quick: sets up a tunnel with its addresses, routes, name servers and firewall rules as its
//! configuration file says, takes it down, saves it.
//!
//! What is done is said as the commands that people know, `[#] ip link add …`; but rtnetlink and
//! nf_tables are spoken directly, and a step that fails is undone with all before it.

mod device;
mod dns;
mod extension;
mod file;
mod firewall;
mod hook;
mod judge;
mod nft;
mod plan;
mod process;
mod reresolve;
mod route;
mod rtnl;
mod save;
mod settings;
mod step;
mod tunnel;
mod value;

use crate::config::{Fault, Kind, Place};
use crate::finding::Purpose;
use crate::say::{self, os_message, say, CommandResult, Failed};
use crate::wg::{self, Context, Voice};
pub use file::name_in;
pub use judge::Judged;
pub use reresolve::run as reresolve;
pub use settings::{Hook, Key, Routing, Settings};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use tunnel::Tunnel;
pub use value::Table;

/// How we were called.
struct Options {
    context: Context,
    /// What we call ourselves in messages: `wg-quick`, if that is our name, or `wg-rs`.
    program: String,
}

impl Options {
    /// A message in wg-quick's form, and its exit status.
    fn die(&self, why: impl fmt::Display) -> Failed {
        Failed::saying(1, format_args!("{}: {why}", self.program))
    }

    /// The same, for a fault in a file. What of it is wg's, the ordinary tool says as wg does.
    fn fault(&self, path: &Path, text: &[u8], fault: &Fault) -> Failed {
        let words = String::from_utf8_lossy(&fault.wg_message()).into_owned();
        match (self.context.voice, &fault.kind) {
            // In wg-quick's words, which name no place.
            (Voice::Wg, Kind::SaveConfig) => self.die(words),
            (Voice::Wg, Kind::Address | Kind::Mtu | Kind::Nul | Kind::ByteOrderMark) => {
                let (Place { line, column, .. }, path) = (fault.place, path.display());
                self.die(format_args!("{path}:{line}:{column}: {words}"))
            }
            _ => wg::fault(&self.context, path, text, fault, Purpose::Tunnel),
        }
    }

    /// What to do about the last message, unless we speak as wg-quick.
    fn hint(&self, text: impl fmt::Display) {
        if self.context.voice == Voice::WgRs {
            say::hint(text);
        }
    }
}

/// What to do with a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Set it up.
    Up,
    /// Take it down.
    Down,
    /// Write it to its file.
    Save,
    /// Print what of its file is wg's.
    Strip,
}

/// `wg-quick`, with its command line (the program's name not included).
pub fn main(context: &Context, arguments: &[OsString]) -> CommandResult {
    let words: Vec<&str> = arguments
        .iter()
        .map(|word| word.to_str().unwrap_or(""))
        .collect();
    let verb = match words[..] {
        ["--help" | "-h" | "help"] => {
            usage(&program(context));
            return Ok(());
        }
        ["up", _] => Some(Verb::Up),
        ["down", _] => Some(Verb::Down),
        ["save", _] => Some(Verb::Save),
        ["strip", _] => Some(Verb::Strip),
        _ => None,
    };
    match (verb, arguments.get(1)) {
        (Some(verb), Some(config)) => run(context, verb, config),
        _ => {
            usage(&program(context));
            Err(Failed::USUAL)
        }
    }
}

/// Does something with the tunnel of this file, or of this name.
///
/// The kind of device that `up` makes is the context's family; without one it is `wireguard`, or
/// else `wireguard_rs`.
pub fn run(context: &Context, verb: Verb, config: &OsStr) -> CommandResult {
    let options = &Options {
        context: context.clone(),
        program: program(context),
    };
    if !nix::unistd::getuid().is_root() {
        return Err(become_root(options));
    }
    let file = file::read(config).map_err(|why| {
        let failed = options.die(why);
        let here = Path::new(config);
        if here.exists() && here.file_name() == Some(config) {
            let here = here.display();
            options.hint(format_args!("for the file in this folder write ./{here}"));
        }
        failed
    })?;
    let mut tunnel = Tunnel::new(options, file)?;
    match verb {
        Verb::Up => tunnel.up(),
        Verb::Down => tunnel.down(),
        Verb::Save => tunnel.save(),
        Verb::Strip => {
            // Not put together, for that would leave a copy of the keys in memory.
            let mut out = io::stdout().lock();
            let written = out.write_all(tunnel.stripped());
            let written = written.and_then(|()| out.write_all(b"\n"));
            let written = written.and_then(|()| out.flush());
            written
                .map_err(|err| options.die(format_args!("standard output: {}", os_message(&err))))
        }
    }
}

/// What we call ourselves.
fn program(context: &Context) -> String {
    let name = match context.voice {
        Voice::Wg => Path::new(&context.program).file_name(),
        Voice::WgRs => Some(OsStr::new("wg-rs")),
    };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Starts again by sudo, as wg-quick does. Comes back only if that cannot be.
fn become_root(options: &Options) -> Failed {
    let program = &options.program;
    let mut args: Vec<OsString> = env::args_os().skip(1).collect();
    let own = env::current_exe().unwrap_or_else(|_| "wg-rs".into());
    // We may be a file of the name wg-quick, and not only a link.
    if options.context.voice == Voice::Wg && own.file_name() != Some(OsStr::new("wg-quick")) {
        args.insert(0, "quick".into());
    }
    let err = process::command("sudo")
        .env("PATH", process::path_of_others())
        .arg("-p")
        .arg(format!(
            "{program} must be run as root. Please enter the password for %u to continue: "
        ))
        .arg("--")
        .arg(own)
        .args(args)
        .exec();
    options.die(format_args!(
        "must be run as root (sudo: {})",
        os_message(&err)
    ))
}

fn usage(program: &str) {
    say(format_args!(
        "\
Usage: {program} [ up | down | save | strip ] [ CONFIG_FILE | INTERFACE ]

  CONFIG_FILE is a configuration file, whose filename is the interface name
  followed by `.conf'. Otherwise, INTERFACE is an interface name, with
  configuration found at /etc/wireguard/INTERFACE.conf. It is to be readable
  by wg(8)'s `setconf' sub-command, with the exception of the following additions
  to the [Interface] section, which are handled by {program}:

  - Address: may be specified one or more times and contains one or more
    IP addresses (with an optional CIDR mask) to be set for the interface.
  - DNS: an optional DNS server to use while the device is up.
  - MTU: an optional MTU for the interface; if unspecified, auto-calculated.
  - Table: an optional routing table to which routes will be added; if
    unspecified or `auto', the default table is used. If `off', no routes
    are added.
  - PreUp, PostUp, PreDown, PostDown: script snippets which will be executed
    by bash(1) at the corresponding phases of the link, most commonly used
    to configure DNS. The string `%i' is expanded to INTERFACE.
  - SaveConfig: if set to `true', the configuration is saved from the current
    state of the interface upon shutdown.

See wg-quick(8) for more info and examples."
    ));
}

// SPDX-License-Identifier: GPL-2.0-only
//! wg-quick: sets up a tunnel with its addresses, routes, name servers and firewall rules as its
//! configuration file says, takes it down, saves it.
//!
//! What is done is said as the commands that people know, `[#] ip link add …`; but rtnetlink and
//! nf_tables are spoken directly, and a step that fails is undone with all before it.

mod device;
mod dns;
mod file;
mod firewall;
mod netlink;
mod nft;
mod plan;
mod process;
mod rtnl;
mod save;
mod say;
mod settings;
mod step;
mod tunnel;

use crate::wg::{Context, Voice};
use say::{say, Failed};
pub use settings::{Address, Fault, Hooks, Mtu, Routing, Settings, Table, Word};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use tunnel::Tunnel;

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

    /// The same, for a fault in a file.
    fn fault(&self, path: &Path, fault: &Fault) -> Failed {
        match fault.place {
            None => self.die(fault),
            Some((line, column)) => {
                let path = path.display();
                self.die(format_args!("{path}:{line}:{column}: {fault}"))
            }
        }
    }
}

/// Runs wg-quick with its arguments, `up wg0` for example; the exit status.
///
/// The kind of device that `up` makes is the context's family; without one it is `wireguard`, or
/// else `wireguard_rs`.
pub fn run(context: &Context, args: &[OsString]) -> i32 {
    let program = match context.voice {
        Voice::Wg => Path::new(&context.program).file_name(),
        Voice::WgRs => Some(OsStr::new("wg-rs")),
    };
    let program = program.unwrap_or_default().to_string_lossy().into_owned();
    let context = context.clone();
    let options = &Options { context, program };
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or("")).collect();
    let result = match (&words[..], &args[..]) {
        (["--help" | "-h" | "help"], _) => {
            usage(&options.program);
            Ok(())
        }
        ([verb @ ("up" | "down" | "save" | "strip"), _], [_, config]) => act(options, verb, config),
        _ => {
            usage(&options.program);
            Err(Failed(1))
        }
    };
    result.map_or_else(|Failed(status)| status, |()| 0)
}

fn act(options: &Options, verb: &str, config: &OsStr) -> Result<(), Failed> {
    if !nix::unistd::getuid().is_root() {
        return Err(become_root(options));
    }
    let file = file::read(config).map_err(|why| options.die(why))?;
    let mut tunnel = Tunnel::new(options, file)?;
    match verb {
        "up" => tunnel.up(),
        "down" => tunnel.down(),
        "save" => tunnel.save(),
        _ => {
            // Not put together, for that would leave a copy of the keys in memory.
            let mut out = io::stdout().lock();
            let written = out.write_all(tunnel.stripped());
            let written = written.and_then(|()| out.write_all(b"\n"));
            let written = written.and_then(|()| out.flush());
            written.map_err(|err| options.die(format_args!("standard output: {err}")))
        }
    }
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
    let err = Command::new("sudo")
        .arg("-p")
        .arg(format!(
            "{program} must be run as root. Please enter the password for %u to continue: "
        ))
        .arg("--")
        .arg(own)
        .args(args)
        .exec();
    options.die(format_args!("must be run as root (sudo: {err})"))
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

// SPDX-License-Identifier: GPL-2.0-only
//! The commands that neither wg nor wg-quick have.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::CompletionCandidate;

use crate::wg::{hint, os_message, say, Context, Done, Failed, Out};
use crate::{check, driver, generate, genl, json, monitor};

/// Commands of wg-rs alone.
#[derive(Debug, Subcommand)]
pub enum Extra {
    /// Watch interfaces and peers: rates, handshakes, endpoints
    #[command(visible_alias = "top", after_long_help = MONITOR)]
    Monitor(Monitor),
    /// Find everything that is wrong with configuration files
    #[command(after_long_help = CHECK)]
    Check {
        /// Configuration files, for `up' or for `setconf'; or names of those in /etc/wireguard. -
        /// is standard input
        #[arg(required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
    },
    /// Write man pages or shell completions into a folder
    #[command(hide = true)]
    Generate {
        /// What to write
        what: What,
        /// Where
        folder: PathBuf,
    },
}

/// More about `show`.
pub const SHOW: &str = "\
JSON:
With --json, all interfaces, or the one that is named, are one object: a member for each \
interface, with the members ifindex, hasPrivateKey, publicKey, listenPort, fwmark and peers. The \
latter has a member for each peer, called by its public key, with hasPresharedKey, endpoint, \
latestHandshake (seconds since 1970), transferRx, transferTx (bytes), persistentKeepalive \
(seconds) and allowedIps, a list. What there is none of is null. WG_HIDE_KEYS=never adds \
privateKey and presharedKey.

Examples:
  wg-rs show
  wg-rs show wg0 latest-handshakes
  wg-rs show --json | jq '.wg0.peers | length'
";

/// More about `set`.
pub const SET: &str = "\
Keys:
Keys are read from files, /dev/stdin among them, so that no secret stands on a command line. An \
empty file removes the key.

Allowed IPs:
A list takes the place of the peer's allowed IPs; if its entries begin with + or -, they are added \
to and taken from them. An empty list takes all away.

Examples:
  wg-rs set wg0 listen-port 51820 private-key /etc/wireguard/private.key
  wg-rs set wg0 peer KEY allowed-ips 10.0.0.2/32 endpoint 192.0.2.2:51820 persistent-keepalive 25
  wg-rs set wg0 peer KEY remove
";

/// More about `up`.
pub const UP: &str = "\
Configuration:
A file of sections and of KEY = VALUE lines; # begins a comment. [Interface] stands once, [Peer] \
once for each peer.

Interface:
  PrivateKey    the interface's key, as genkey makes it
  ListenPort    UDP port; without it the kernel chooses one
  FwMark        mark of the encrypted packets; off, or a number
  Address       addresses with prefix lengths, separated by commas
  DNS           name servers and search domains, separated by commas
  MTU           without it, what fits the way to the endpoints
  Table         routing table for the peers' networks; off, auto (the default), a number or a name
  PreUp, PostUp, PreDown, PostDown
                commands for bash, %i standing for the interface
  SaveConfig    true: down writes the interface's state to the file

Peer:
  PublicKey     the peer's key; the only line that must be there
  PresharedKey  a secret that both sides share in addition, as genpsk makes it
  AllowedIPs    networks that are the peer's, separated by commas
  Endpoint      HOST:PORT; without it, the peer has to begin
  PersistentKeepalive
                seconds between packets that keep a NAT open; off, or a number

With 0.0.0.0/0 or ::/0 among the allowed IPs (and Table = auto) all traffic goes through the \
tunnel, but for its own packets. A step that fails is undone together with those before it.

Examples:
  wg-rs up wg0
  wg-rs up ./office.conf
  systemctl enable --now wg-rs@wg0
";

/// More about the commands that take a file for `wg`.
pub const CONF: &str = "\
Format:
The sections and keys of wg-rs-up(8) but for Address, DNS, MTU, Table, the hooks and SaveConfig: \
strip takes those away.
";

const MONITOR: &str = "\
Columns:
A line for each interface sums up its peers, whose lines follow, the busiest first. HANDSHAKE is \
the time since the last handshake: below three minutes a session is in use (green on a terminal), \
\"never\" means that the peer has not answered yet. RX/s and TX/s are bytes received and sent per \
second over the last interval, RX and TX since the peer was added. Keys are shortened where the \
terminal is narrow. No private or preshared key is ever shown.

Keys:
Arrows, page up, page down, home and end move through a long table; space reads at once; q ends.

Elsewhere than on a terminal:
Each table is printed as plain text, whole, after an interval, with an empty line between two of \
them.

Examples:
  wg-rs monitor
  wg-rs top wg0 --interval 5
  wg-rs monitor --once | awk '$4 == \"never\" { print $2 }'
";

const CHECK: &str = "\
Output:
FILE:LINE:COLUMN, what is wrong, and the line with a mark below the place; keys are never shown. \
All faults are found at once, names are not looked up, and nothing is changed. Warnings are about \
what is allowed, but hardly meant: a network that two peers have, a peer twice or the interface \
itself as its peer, a peer without allowed IPs, a file with keys that everybody may read. They \
leave the exit status at 0.

Examples:
  wg-rs check wg0
  wg-rs check /etc/wireguard/*.conf
";

/// Arguments of `monitor`.
#[derive(Debug, Args)]
pub struct Monitor {
    /// Only these interfaces
    #[arg(
        value_name = "INTERFACE",
        add = clap_complete::engine::ArgValueCandidates::new(interfaces)
    )]
    pub interfaces: Vec<String>,
    /// Time between two tables
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// End after so many tables
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// One table as plain text, with the rates over one interval
    #[arg(long, conflicts_with = "count")]
    pub once: bool,
}

/// What `generate` writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// Man pages
    Man,
    /// Completions for bash, zsh and fish
    Completions,
}

/// A time between a tenth of a second and a day.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    match (0.1..=86400.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("seconds from 0.1 to 86400".into()),
    }
}

/// The interfaces there are, for the shell's completion.
pub fn interfaces() -> Vec<CompletionCandidate> {
    let links = driver::interfaces(None).unwrap_or_default();
    links
        .into_iter()
        .map(|link| CompletionCandidate::new(link.name))
        .collect()
}

/// The configurations in /etc/wireguard, for the shell's completion.
pub fn tunnels() -> Vec<CompletionCandidate> {
    let files = std::fs::read_dir("/etc/wireguard")
        .into_iter()
        .flatten()
        .flatten();
    let names =
        files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".conf")?.to_owned()));
    let names: std::collections::BTreeSet<String> = names.collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// Whether output to standard output has colours.
fn colour() -> bool {
    match std::env::var("WG_COLOR_MODE").as_deref() {
        Ok("always") => true,
        Ok("never") => false,
        _ => {
            io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

/// Says what went wrong, and what to do about it.
fn failed(error: &io::Error, interface: &str) -> Failed {
    say(os_message(error).as_bytes());
    if let Some(text) = genl::explain(error, interface) {
        hint(&text);
    }
    Failed
}

/// Runs one of the commands.
pub fn run(context: &Context, command: &Extra) -> Done {
    match command {
        Extra::Monitor(arguments) => {
            let options = monitor::Options {
                interval: arguments.interval,
                count: if arguments.once {
                    Some(1)
                } else {
                    arguments.count
                },
                plain: arguments.once,
                colour: colour(),
            };
            let names = &arguments.interfaces;
            let first = names.first().map_or("", String::as_str);
            let read = || monitor::devices(names, context.family.as_deref());
            monitor::run(&options, read).map_err(|error| failed(&error, first))
        }
        Extra::Check { files } => match check::run(files, colour(), &mut io::stdout().lock()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failed),
            Err(error) => Err(failed(&error, "")),
        },
        Extra::Generate { what, folder } => {
            let written = match what {
                What::Man => generate::man(folder),
                What::Completions => generate::completions(folder),
            };
            written.map_err(|error| failed(&error, ""))
        }
    }
}

/// `show --json` for one interface, or for all.
pub fn show_json(context: &Context, interface: &str) -> Done {
    let names = match interface {
        "all" => Vec::new(),
        name => vec![name.to_owned()],
    };
    let devices = monitor::devices(&names, context.family.as_deref())
        .map_err(|error| failed(&error, interface))?;
    let secrets = std::env::var_os("WG_HIDE_KEYS").is_some_and(|mode| mode == "never");
    let mut out = Out::new(context);
    // Errors are kept for `finish`.
    let _ = json::write(&devices, secrets, &mut out);
    out.finish()
}

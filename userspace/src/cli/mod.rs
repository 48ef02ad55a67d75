// SPDX-License-Identifier: GPL-2.0-only
//! The command line of `wg-rs`, from which help, man pages and completions are made.

mod complete;
mod help;

use crate::genl;
use crate::quick::Verb;
use crate::wg;
use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Sets up WireGuard tunnels.
#[derive(Debug, Parser)]
#[command(
    name = "wg-rs",
    version,
    about,
    long_about = "Sets up WireGuard tunnels: everything that wg and wg-quick do, and some more. \
    Without a command, shows all interfaces. Called by the name wg or wg-quick, it behaves as \
    those programs do."
)]
pub struct Cli {
    /// Driver to speak to, instead of the one that has the interface
    #[arg(long, global = true, value_parser = PossibleValuesParser::new(genl::FAMILIES))]
    pub family: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show configuration and state of interfaces
    #[command(after_long_help = help::SHOW)]
    Show(Show),
    /// Show the configuration of an interface as a file for `setconf'
    Showconf {
        /// Name of the interface
        #[arg(add = ArgValueCandidates::new(complete::interfaces))]
        interface: OsString,
    },
    /// Change the configuration of an interface; add, change or remove peers
    #[command(after_long_help = help::SET)]
    Set(Set),
    /// Apply a configuration file to an interface; what the file does not mention is removed
    #[command(after_long_help = help::CONF)]
    Setconf(Conf),
    /// Add the contents of a configuration file to an interface
    #[command(after_long_help = help::CONF)]
    Addconf(Conf),
    /// Apply a configuration file to an interface without disturbing sessions of peers that stay
    #[command(after_long_help = help::CONF)]
    Syncconf(Conf),
    /// Write a new private key to standard output
    Genkey,
    /// Write a new preshared key to standard output
    Genpsk,
    /// Read a private key from standard input and write its public key to standard output
    Pubkey,
    /// What neither wg nor wg-quick have
    #[command(flatten)]
    Native(Native),
    /// Set up and take down whole tunnels, as wg-quick does
    #[command(subcommand)]
    Quick(Tunnel),
    /// The same without the word `quick'
    #[command(flatten)]
    Tunnel(Tunnel),
}

/// What to do with a tunnel: its interface, addresses, routes, name servers and firewall rules.
#[derive(Debug, Subcommand)]
pub enum Tunnel {
    /// Set up a tunnel as its configuration file says
    #[command(after_long_help = help::UP)]
    Up(Config),
    /// Take down a tunnel
    Down(Config),
    /// Write a tunnel as it is now to its configuration file
    Save(Config),
    /// Print a configuration file without the lines that `setconf' does not know
    Strip(Config),
}

/// Argument of the commands for tunnels.
#[derive(Debug, Args)]
pub struct Config {
    /// Configuration file, NAME.conf, or the NAME of one in /etc/wireguard
    #[arg(value_name = "CONFIG_FILE|INTERFACE", add = ArgValueCandidates::new(complete::tunnels))]
    pub config: OsString,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Name of an interface, `all', or `interfaces' for the names only
    #[arg(default_value = "all", add = ArgValueCandidates::new(complete::interfaces_or_words))]
    pub interface: OsString,
    /// Only this, one line each, for scripts; or `stats': all counters, for people
    #[arg(value_parser = PossibleValuesParser::new(crate::wg::FIELDS.into_iter().chain([STATS])))]
    pub field: Option<String>,
    /// Everything, or stats, as JSON
    #[arg(long)]
    pub json: bool,
}

/// A field of `show' that `wg' has not.
const STATS: &str = "stats";

/// How `show` is to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// As `wg` does.
    Text,
    /// Everything as JSON.
    Json,
    /// The counters; true for JSON.
    Stats(bool),
}

impl Show {
    /// How to show it.
    ///
    /// # Errors
    ///
    /// `--json` with what there is no JSON of.
    pub fn how(&self) -> Result<How, clap::Error> {
        match (self.field.as_deref(), self.json) {
            (Some(STATS), json) => Ok(How::Stats(json)),
            (None, true) => Ok(How::Json),
            (_, false) => Ok(How::Text),
            (Some(field), true) => Err(Cli::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                format!("there is no JSON of {field}; --json alone shows everything"),
            )),
        }
    }
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct Set {
    /// Name of the interface
    #[arg(add = ArgValueCandidates::new(complete::interfaces))]
    pub interface: OsString,
    /// listen-port PORT, fwmark MARK, private-key FILE; and for each peer KEY: remove,
    /// preshared-key FILE, endpoint HOST:PORT, persistent-keepalive SECONDS, allowed-ips
    /// [+|-]ADDRESS/LENGTH,…
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SETTING",
        add = ArgValueCandidates::new(complete::settings)
    )]
    pub settings: Vec<OsString>,
}

/// Arguments of `setconf`, `addconf`, `syncconf`.
#[derive(Debug, Args)]
pub struct Conf {
    /// Name of the interface
    #[arg(add = ArgValueCandidates::new(complete::interfaces))]
    pub interface: OsString,
    /// Configuration file
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: OsString,
}

/// The commands that neither wg nor wg-quick have.
#[derive(Debug, Subcommand)]
pub enum Native {
    /// Watch interfaces and peers: rates, handshakes, endpoints
    #[command(visible_alias = "top", after_long_help = help::MONITOR)]
    Monitor(Monitor),
    /// Tell what happens: handshakes, peers that move, changes of the configuration
    #[command(after_long_help = help::EVENTS)]
    Events(Events),
    /// Look up endpoints that a configuration file has by name again, of peers that do not answer
    #[command(after_long_help = help::RERESOLVE)]
    Reresolve(Config),
    /// Write the counters of all interfaces as OpenMetrics text, for Prometheus
    #[command(after_long_help = help::METRICS)]
    Metrics {
        /// Read a request by HTTP from standard input and answer it
        #[arg(long)]
        http: bool,
    },
    /// Show or set what only the module wireguard_rs can do with an interface and its peers
    #[command(after_long_help = help::OPTIONS)]
    Options(Options),
    /// Tell which driver serves, and why it is not the module wireguard_rs if so
    #[command(after_long_help = help::STATUS)]
    Status,
    /// Find everything that is wrong with configuration files
    #[command(after_long_help = help::CHECK)]
    Check {
        /// Configuration files, for `up' or for `setconf'; or names of those in /etc/wireguard. -
        /// is standard input
        #[arg(
            required = true,
            value_name = "FILE",
            add = ArgValueCompleter::new(complete::files_and_tunnels)
        )]
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

/// Arguments of `monitor`.
#[derive(Debug, Args)]
pub struct Monitor {
    /// Only these interfaces
    #[arg(
        value_name = "INTERFACE",
        add = ArgValueCandidates::new(complete::interfaces)
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

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only of these interfaces
    #[arg(
        value_name = "INTERFACE",
        add = ArgValueCandidates::new(complete::interfaces)
    )]
    pub interfaces: Vec<String>,
    /// As JSON, an object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `options`.
#[derive(Debug, Args)]
pub struct Options {
    /// Name of the interface
    #[arg(add = ArgValueCandidates::new(complete::interfaces))]
    pub interface: String,
    /// udp-gso on|off, copy-dscp on|off, eager-handshake on|off, bind-interface NAME|off,
    /// bind-address ADDRESS|off; peer KEY fixed-endpoint on|off, silence SECONDS|off; without any,
    /// all are shown
    #[arg(value_name = "OPTION")]
    pub settings: Vec<String>,
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

impl Tunnel {
    /// What to do, and the file or the interface.
    pub fn parts(self) -> (Verb, OsString) {
        match self {
            Self::Up(Config { config }) => (Verb::Up, config),
            Self::Down(Config { config }) => (Verb::Down, config),
            Self::Save(Config { config }) => (Verb::Save, config),
            Self::Strip(Config { config }) => (Verb::Strip, config),
        }
    }
}

impl Show {
    /// The same as a command of `wg`.
    pub fn into_wg(self) -> wg::Command {
        wg::Command::Show {
            interface: self.interface,
            field: self.field.map(OsString::from),
        }
    }
}

impl Conf {
    /// The same as a command of `wg`.
    pub fn into_wg(self, how: wg::How) -> wg::Command {
        wg::Command::Conf {
            how,
            interface: self.interface,
            file: self.file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tunnels_with_and_without_quick() {
        for (word, verb) in [
            ("up", Verb::Up),
            ("down", Verb::Down),
            ("save", Verb::Save),
            ("strip", Verb::Strip),
        ] {
            for start in [&["wg-rs"][..], &["wg-rs", "quick"]] {
                let line = start.iter().copied().chain([word, "wg0"]);
                match Cli::try_parse_from(line).unwrap().command {
                    Some(Command::Quick(tunnel) | Command::Tunnel(tunnel)) => {
                        assert_eq!(tunnel.parts(), (verb, "wg0".into()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn settings_may_begin_with_a_dash() {
        let line = ["wg-rs", "set", "wg0", "--listen-port", "-5"];
        match Cli::try_parse_from(line).unwrap().command {
            Some(Command::Set(set)) => assert_eq!(set.settings, ["--listen-port", "-5"]),
            other => panic!("{other:?}"),
        }
    }

    /// What the shell's completion offers for the last word.
    fn offered(line: &[&str]) -> Vec<String> {
        let words = line.iter().map(OsString::from).collect();
        let last = line.len() - 1;
        let found = clap_complete::engine::complete(&mut Cli::command(), words, last, None);
        let found = found.unwrap().into_iter();
        let text = |candidate: clap_complete::CompletionCandidate| {
            candidate.get_value().to_string_lossy().into_owned()
        };
        found.map(text).collect()
    }

    #[test]
    fn completions() {
        let has = |line: &[&str], word: &str| {
            let offered = offered(line);
            assert!(
                offered.iter().any(|found| found == word),
                "{line:?}: {offered:?}"
            );
        };
        has(&["wg-rs", "show", ""], "all");
        has(&["wg-rs", "show", "i"], "interfaces");
        has(&["wg-rs", "show", "wg0", "tr"], "transfer");
        has(&["wg-rs", "set", "wg0", ""], "listen-port");
        has(
            &["wg-rs", "set", "wg0", "listen-port", "5", "p"],
            "private-key",
        );
        // Files, beside the names of tunnels.
        has(&["wg-rs", "check", "/et"], "/etc/");
    }
}

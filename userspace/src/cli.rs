// SPDX-License-Identifier: GPL-2.0-only
//! The command line of `wg-rs`, from which help, man pages and completions are made.

use crate::extra::{interfaces, tunnels, Extra};
use crate::genl;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::engine::ArgValueCandidates;
use std::ffi::OsString;

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
    #[command(after_long_help = crate::extra::SHOW)]
    Show(Show),
    /// Show the configuration of an interface as a file for `setconf'
    Showconf {
        /// Name of the interface
        #[arg(add = ArgValueCandidates::new(interfaces))]
        interface: OsString,
    },
    /// Change the configuration of an interface; add, change or remove peers
    #[command(after_long_help = crate::extra::SET)]
    Set(Set),
    /// Apply a configuration file to an interface; what the file does not mention is removed
    #[command(after_long_help = crate::extra::CONF)]
    Setconf(Conf),
    /// Add the contents of a configuration file to an interface
    #[command(after_long_help = crate::extra::CONF)]
    Addconf(Conf),
    /// Apply a configuration file to an interface without disturbing sessions of peers that stay
    #[command(after_long_help = crate::extra::CONF)]
    Syncconf(Conf),
    /// Write a new private key to standard output
    Genkey,
    /// Write a new preshared key to standard output
    Genpsk,
    /// Read a private key from standard input and write its public key to standard output
    Pubkey,
    /// What neither wg nor wg-quick have
    #[command(flatten)]
    Extra(Extra),
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
    #[command(after_long_help = crate::extra::UP)]
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
    #[arg(value_name = "CONFIG_FILE|INTERFACE", add = ArgValueCandidates::new(tunnels))]
    pub config: OsString,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Name of an interface, `all', or `interfaces' for the names only
    #[arg(default_value = "all", add = ArgValueCandidates::new(interfaces))]
    pub interface: OsString,
    /// Only this, one line each, for scripts
    #[arg(value_parser = PossibleValuesParser::new(crate::wg::FIELDS))]
    pub field: Option<String>,
    /// Everything as JSON
    #[arg(long, conflicts_with = "field")]
    pub json: bool,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct Set {
    /// Name of the interface
    #[arg(add = ArgValueCandidates::new(interfaces))]
    pub interface: OsString,
    /// listen-port PORT, fwmark MARK, private-key FILE; and for each peer KEY: remove,
    /// preshared-key FILE, endpoint HOST:PORT, persistent-keepalive SECONDS, allowed-ips
    /// [+|-]ADDRESS/LENGTH,…
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SETTING"
    )]
    pub settings: Vec<OsString>,
}

/// Arguments of `setconf`, `addconf`, `syncconf`.
#[derive(Debug, Args)]
pub struct Conf {
    /// Name of the interface
    #[arg(add = ArgValueCandidates::new(interfaces))]
    pub interface: OsString,
    /// Configuration file
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: OsString,
}

impl Command {
    /// The words of `wg-quick` that mean the same, if `wg-quick` has this command.
    pub fn as_quick(&self) -> Option<Vec<OsString>> {
        let (Self::Quick(tunnel) | Self::Tunnel(tunnel)) = self else {
            return None;
        };
        let (verb, Config { config }) = match tunnel {
            Tunnel::Up(config) => ("up", config),
            Tunnel::Down(config) => ("down", config),
            Tunnel::Save(config) => ("save", config),
            Tunnel::Strip(config) => ("strip", config),
        };
        Some(vec![verb.into(), config.clone()])
    }

    /// The words of `wg` that mean the same, if `wg` has this command.
    pub fn as_wg(&self) -> Option<Vec<OsString>> {
        let words = |command: &str, arguments: &[&OsString]| {
            Some(
                std::iter::once(command.into())
                    .chain(arguments.iter().map(|word| (*word).clone()))
                    .collect(),
            )
        };
        match self {
            Self::Show(show) => {
                let field = show.field.as_ref().map(OsString::from);
                let arguments: Vec<_> = std::iter::once(&show.interface).chain(&field).collect();
                words("show", &arguments)
            }
            Self::Showconf { interface } => words("showconf", &[interface]),
            Self::Set(set) => {
                let arguments: Vec<_> = std::iter::once(&set.interface)
                    .chain(&set.settings)
                    .collect();
                words("set", &arguments)
            }
            Self::Setconf(conf) => words("setconf", &[&conf.interface, &conf.file]),
            Self::Addconf(conf) => words("addconf", &[&conf.interface, &conf.file]),
            Self::Syncconf(conf) => words("syncconf", &[&conf.interface, &conf.file]),
            Self::Genkey => words("genkey", &[]),
            Self::Genpsk => words("genpsk", &[]),
            Self::Pubkey => words("pubkey", &[]),
            Self::Extra(_) => None,
            Self::Quick(_) | Self::Tunnel(_) => None,
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
    fn becomes_words_of_wg() {
        for line in [
            "show all",
            "show wg0 dump",
            "showconf wg0",
            "set wg0 peer KEY allowed-ips -10.0.0.0/8",
            "set wg0 --listen-port 5",
            "setconf wg0 -",
            "addconf wg0 a",
            "syncconf wg0 a",
            "genkey",
            "genpsk",
            "pubkey",
        ] {
            let cli = Cli::try_parse_from(std::iter::once("wg-rs").chain(line.split(' '))).unwrap();
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(cli.command.unwrap().as_wg(), Some(words));
        }
    }
    #[test]
    fn becomes_words_of_wg_quick() {
        for verb in ["up", "down", "save", "strip"] {
            for start in [&["wg-rs"][..], &["wg-rs", "quick"]] {
                let line = start.iter().copied().chain([verb, "wg0"]);
                let command = Cli::try_parse_from(line).unwrap().command.unwrap();
                assert_eq!(command.as_quick().unwrap(), [verb, "wg0"]);
                assert_eq!(command.as_wg(), None);
            }
        }
    }
}

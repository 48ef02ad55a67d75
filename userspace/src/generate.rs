// SPDX-License-Identifier: GPL-2.0-only
//! Man pages and shell completions, made from the command line's own description.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::roff::{bold, roman, Roff};
use clap_mangen::Man;

use crate::cli::Cli;

/// What is true of every page.
const FILES: [(&str, &str); 1] = [(
    "/etc/wireguard/NAME.conf",
    "The configuration that up, down, save and check mean by NAME.",
)];
const ENVIRONMENT: [(&str, &str); 5] = [
    (
        "WG_HIDE_KEYS",
        "With the value never, show (also with --json) prints private and preshared keys.",
    ),
    (
        "WG_COLOR_MODE",
        "always, never, or auto (the default): whether show, check and monitor use colours.",
    ),
    (
        "NO_COLOR, TERM",
        "If the former is set, or the latter is dumb, auto means never.",
    ),
    (
        "WG_QUICK_USERSPACE_IMPLEMENTATION",
        "What up starts where the kernel has no WireGuard: wireguard-go by default.",
    ),
    (
        "WG_ENDPOINT_RESOLUTION_RETRIES",
        "How often a name that does not resolve is tried again when an endpoint is set: a number, \
         or infinity.",
    ),
];

/// Writes a page for wg-rs and for each of its commands into `folder`, in section 8.
pub fn man(folder: &Path) -> io::Result<()> {
    let mut root = Cli::command();
    root.build();
    page(folder, &root, "wg-rs", None)
}

/// The page of a command, and those below it. `root` has it, if it is not wg-rs itself.
fn page(folder: &Path, command: &Command, name: &str, root: Option<&Command>) -> io::Result<()> {
    // What is a command of wg-rs as well, `quick up` for example, has one page, wg-rs-up(8).
    let is_told = |command: &Command| {
        root.is_some_and(|root| root.find_subcommand(command.get_name()).is_some())
    };
    let below: Vec<(&Command, String)> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .map(|command| {
            let above = if is_told(command) { "wg-rs" } else { name };
            (command, format!("{above}-{}", command.get_name()))
        })
        .collect();
    let mut text = Vec::new();
    let man = Man::new(command.clone().disable_help_subcommand(true))
        .title(name.to_uppercase())
        .source(concat!("wg-rs ", env!("CARGO_PKG_VERSION")))
        .section("8")
        .manual("System administration");
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command, name).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut roff = Roff::new();
    if !below.is_empty() {
        roff.control("SH", ["COMMANDS"]);
        for (command, page) in &below {
            let about = command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            roff.control("TP", []);
            let arguments = command.get_positionals().map(|arg| format!(" {arg}"));
            let arguments = match root {
                Some(_) => arguments.collect(),
                None => String::new(),
            };
            let see = format!("{arguments}, see {page}(8)");
            roff.text([bold(command.get_name()), roman(see)]);
            roff.text([roman(about)]);
        }
    }
    if let Some(extra) = command.get_after_long_help() {
        sections(&mut roff, &extra.to_string());
    }
    if root.is_none() {
        for (heading, entries) in [("FILES", &FILES[..]), ("ENVIRONMENT", &ENVIRONMENT[..])] {
            roff.control("SH", [heading]);
            for (name, meaning) in entries {
                roff.control("TP", []);
                roff.text([bold(*name)]);
                roff.text([roman(*meaning)]);
            }
        }
    }
    roff.control("SH", ["EXIT STATUS"]);
    let mut status = "0 when all went well, 1 otherwise.".to_owned();
    if root.is_none() || ["quick", "up", "down"].contains(&command.get_name()) {
        status +=
            " up and down end with the status of a hook or another program that failed, with \
                   127 if there is no such program, with 2 if the kernel refused a link, an \
                   address, a route or a rule, and with 128 and the number of a signal that ended \
                   them.";
    }
    roff.text([roman(status)]);
    roff.control("SH", ["SEE ALSO"]);
    let above = root.map(|_| "wg-rs(8)".to_owned()).into_iter();
    let see: Vec<String> = above
        .chain(below.iter().map(|(_, page)| format!("{page}(8)")))
        .collect();
    roff.text([roman(see.join(", "))]);
    roff.to_writer(&mut text)?;
    fs::write(folder.join(format!("{name}.8")), text)?;
    for (below, page_name) in &below {
        if !is_told(below) {
            page(folder, below, page_name, root.or(Some(command)))?;
        }
    }
    Ok(())
}

/// How the command is called, with dots where an argument may be repeated.
fn synopsis(command: &Command, name: &str) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let called = name.replacen("wg-rs-", "wg-rs ", 1);
    let arguments = usage.trim().trim_start_matches("Usage:").trim();
    let arguments = arguments.strip_prefix(&called).unwrap_or(arguments);
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(called), roman(arguments)]);
    roff
}

/// Text for --help as sections of a page: a line that ends in a colon is a heading, an indented one
/// an example.
fn sections(roff: &mut Roff, text: &str) {
    let mut example = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if indented != example {
            roff.control(if indented { "nf" } else { "fi" }, []);
            example = indented;
        }
        match line.strip_suffix(':') {
            Some(heading) if !indented => {
                roff.control("SH", [heading.to_uppercase().as_str()]);
            }
            _ if line.trim().is_empty() => {
                roff.control("PP", []);
            }
            _ => {
                roff.text([roman(line)]);
            }
        }
    }
    if example {
        roff.control("fi", []);
    }
}

/// zsh reads the file when Tab is first pressed, and what is in it now must answer, too.
const FIRST_TAB: &str = r#"[[ $funcstack[1] != _wg-rs ]] || "$_comps[wg-rs]" "$@"
"#;

/// Writes `wg-rs.bash`, `_wg-rs` and `wg-rs.fish` into `folder`. They ask wg-rs itself, which knows
/// the interfaces there are.
pub fn completions(folder: &Path) -> io::Result<()> {
    let shells: [(&dyn EnvCompleter, &str); 3] = [
        (&Bash, "wg-rs.bash"),
        (&Zsh, "_wg-rs"),
        (&Fish, "wg-rs.fish"),
    ];
    for (shell, file) in shells {
        let mut text = Vec::new();
        shell.write_registration("COMPLETE", "wg-rs", "wg-rs", "wg-rs", &mut text)?;
        if shell.is("zsh") {
            text.extend_from_slice(FIRST_TAB.as_bytes());
        }
        fs::write(folder.join(file), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_for_all_commands_and_completions_for_all_shells() {
        let folder = std::env::temp_dir().join(format!("wg-rs-generate-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        man(&folder).unwrap();
        completions(&folder).unwrap();
        for command in Cli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let page =
                fs::read_to_string(folder.join(format!("wg-rs-{}.8", command.get_name()))).unwrap();
            assert!(
                page.contains(".SH SYNOPSIS") && page.contains(".SH \"SEE ALSO\""),
                "{page}"
            );
        }
        let root = fs::read_to_string(folder.join("wg-rs.8")).unwrap();
        assert!(
            root.contains("WG_HIDE_KEYS") && root.contains("wg\\-rs\\-monitor(8)"),
            "{root}"
        );
        let up = fs::read_to_string(folder.join("wg-rs-up.8")).unwrap();
        assert!(
            up.contains(".SH CONFIGURATION") && up.contains("PersistentKeepalive"),
            "{up}"
        );
        let check = fs::read_to_string(folder.join("wg-rs-check.8")).unwrap();
        assert!(
            check.contains("\\fBwg\\-rs check\\fR [OPTIONS] <FILE>..."),
            "{check}"
        );
        assert!(up.contains("127") && !check.contains("127"), "{up}");
        // What is not filled fits a terminal, with man's margin.
        let shown = |line: &&str| line.replace("\\*(Aq", "'").replace("\\-", "-").len();
        let wide = |line: &&str| line.starts_with("  ") && shown(line) > 72;
        for text in [&root, &up, &check] {
            assert_eq!(text.lines().find(wide), None);
        }
        // These are told of once.
        let quick = fs::read_to_string(folder.join("wg-rs-quick.8")).unwrap();
        assert!(quick.contains("wg\\-rs\\-up(8)"), "{quick}");
        assert!(!folder.join("wg-rs-quick-up.8").exists());
        assert!(!folder.join("wg-rs-generate.8").exists() && !folder.join("wg-rs-help.8").exists());
        for file in ["wg-rs.bash", "_wg-rs", "wg-rs.fish"] {
            assert!(fs::read_to_string(folder.join(file))
                .unwrap()
                .contains("COMPLETE"));
        }
        let zsh = fs::read_to_string(folder.join("_wg-rs")).unwrap();
        assert!(zsh.trim_end().ends_with("\"$@\""), "{zsh}");
        fs::remove_dir_all(&folder).unwrap();
    }
}

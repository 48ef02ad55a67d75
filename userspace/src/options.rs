// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs options`: shows and sets what only the module `wireguard_rs` can do with an interface.

use crate::genl::options::{get, Options};
use std::io::{self, Write};

/// Shows the options of an interface.
///
/// # Errors
///
/// Those of [`get`] and of `out`.
pub fn show(interface: &str, out: &mut impl Write) -> io::Result<()> {
    let options = get(interface)?;
    if let Some(on) = options.udp_gso {
        writeln!(out, "udp-gso {}", if on { "on" } else { "off" })?;
    }
    out.flush()
}

/// Reads words such as `udp-gso off`.
///
/// # Errors
///
/// What is wrong with them, in words.
pub fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    for pair in words.chunks(2) {
        match pair {
            [name, value] if name == "udp-gso" => {
                options.udp_gso = Some(match value.as_str() {
                    "on" => true,
                    "off" => false,
                    _ => return Err(format!("udp-gso is `on' or `off', not `{value}'")),
                });
            }
            [name] if name == "udp-gso" => return Err("udp-gso needs `on' or `off'".into()),
            [name, ..] => return Err(format!("there is no option `{name}'; there is udp-gso")),
            [] => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(Into::into).collect();
            parse(&words)
        };
        let udp_gso = |on| Ok(Options { udp_gso: Some(on) });
        assert_eq!(parse(""), Ok(Options::default()));
        assert_eq!(parse("udp-gso on"), udp_gso(true));
        assert_eq!(parse("udp-gso on udp-gso off"), udp_gso(false));
        assert!(parse("udp-gso").is_err_and(|why| why.contains("needs")));
        assert!(parse("udp-gso yes").is_err_and(|why| why.contains("`yes'")));
        assert!(parse("udp-gro on").is_err_and(|why| why.contains("`udp-gro'")));
    }
}

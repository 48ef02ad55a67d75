// SPDX-License-Identifier: GPL-2.0-only
//! What a file says for the module `wireguard_rs` alone, in comments that others pass over:
//! `#wg-rs: copy-dscp = on` below `[Interface]`, `#wg-rs: silence = 60` below `[Peer]`. The names
//! are those of `wg-rs options`.

use crate::genl::options::Options;
use crate::options::parse;

/// How such a comment begins.
const MARK: &str = "#wg-rs:";

/// A comment that makes no sense: its line, from 1, and why.
pub type Fault = (usize, String);

/// A section's options, as words, and its line.
#[derive(Default)]
struct Section {
    is_peer: bool,
    key: Option<String>,
    words: Vec<String>,
    line: usize,
}

impl Section {
    /// Adds what it says to `all`.
    fn end(&mut self, all: &mut Vec<String>) -> Result<(), Fault> {
        let mut words = std::mem::take(&mut self.words);
        if words.is_empty() {
            return Ok(());
        }
        if self.is_peer {
            let key = self.key.take();
            let key = key.ok_or_else(|| (self.line, "the peer has no PublicKey".to_owned()))?;
            all.extend(["peer".to_owned(), key]);
            all.append(&mut words);
        } else {
            // Those of the interface come first.
            words.append(all);
            *all = words;
        }
        Ok(())
    }
}

/// Reads a whole file.
///
/// # Errors
///
/// The first comment that makes no sense.
pub fn read(text: &[u8]) -> Result<Options, Fault> {
    let mut all = Vec::new();
    let mut section = Section::default();
    for (number, line) in text.split(|c| *c == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        let lower = line.to_ascii_lowercase();
        if let Some(said) = lower.strip_prefix(MARK) {
            let said = line.get(line.len() - said.len()..).unwrap_or_default();
            let (name, value) = said
                .split_once('=')
                .ok_or_else(|| (number + 1, format!("not NAME = VALUE: `{}'", said.trim())))?;
            let pair = [name.trim().to_ascii_lowercase(), value.trim().to_owned()];
            let mut alone = pair.to_vec();
            if section.is_peer {
                // Any key will do to see whether the rest is right.
                let any = crate::key::PublicKey::new([0; 32]).to_string();
                alone.splice(0..0, ["peer".to_owned(), any]);
            }
            parse(&alone).map_err(|why| (number + 1, why))?;
            section.line = number + 1;
            section.words.extend(pair);
        } else if lower.starts_with('[') {
            section.end(&mut all)?;
            section = Section {
                is_peer: lower.starts_with("[peer]"),
                ..Section::default()
            };
        } else if let Some((name, value)) = line.split_once('=') {
            if name.trim().eq_ignore_ascii_case("PublicKey") {
                let value = value.split('#').next().unwrap_or_default();
                section.key = Some(value.trim().to_owned());
            }
        }
    }
    section.end(&mut all)?;
    parse(&all).map_err(|why| (0, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    #[test]
    fn comments_of_both_sections() {
        let file = format!(
            "[Interface]\n#wg-rs: udp-gso = off\nListenPort = 5\n\n[Peer]\n#WG-RS: Silence = 60\n\
             PublicKey = {KEY} # who\n#wg-rs:fixed-endpoint=on\n[Peer]\nPublicKey = x\n\
             # wg-rs: is only a comment\n[interface]\n  #wg-rs: copy-dscp = on  \n"
        );
        let options = read(file.as_bytes()).unwrap();
        assert_eq!(options.switches, [Some(false), Some(true), None]);
        let [(key, of)] = options.peers.as_slice() else {
            panic!("{options:?}")
        };
        assert_eq!(key.to_string(), KEY);
        assert_eq!((of.silence, of.fixed_endpoint), (Some(60), Some(true)));
        assert_eq!(read(b"[Interface]\n# nothing\n"), Ok(Options::default()));
    }

    #[test]
    fn faults_have_their_line() {
        for (file, line, word) in [
            ("[Interface]\n#wg-rs: udp-gso\n", 2, "NAME = VALUE"),
            ("[Interface]\n\n#wg-rs: udp-gso = maybe\n", 3, "maybe"),
            ("[Interface]\n#wg-rs: silence = 5\n", 2, "peer"),
            ("[Peer]\n#wg-rs: udp-gso = on\n", 2, "interface"),
            ("[Peer]\n#wg-rs: silence = 5\n", 2, "PublicKey"),
            ("[Peer]\n#wg-rs: colour = red\n", 2, "colour"),
        ] {
            let (at, why) = read(file.as_bytes()).unwrap_err();
            assert!(at == line && why.contains(word), "{file}: {at}, {why}");
        }
    }
}

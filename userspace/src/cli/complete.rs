// SPDX-License-Identifier: GPL-2.0-only
//! What the shell's completion offers.

use crate::{driver, monitor};
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use std::ffi::OsStr;

/// The interfaces there are.
pub fn interfaces() -> Vec<CompletionCandidate> {
    let links = driver::interfaces(None).unwrap_or_default();
    links
        .into_iter()
        .map(|link| CompletionCandidate::new(link.name))
        .collect()
}

/// The same, and the words that stand for all of them.
pub fn interfaces_or_words() -> Vec<CompletionCandidate> {
    let words = ["all", "interfaces"].map(CompletionCandidate::new);
    words.into_iter().chain(interfaces()).collect()
}

/// What may follow the interface of `set`: its keywords, and the keys of peers there are.
pub fn settings() -> Vec<CompletionCandidate> {
    let keywords = [
        "listen-port",
        "fwmark",
        "private-key",
        "peer",
        "remove",
        "preshared-key",
        "endpoint",
        "persistent-keepalive",
        "allowed-ips",
    ];
    let devices = monitor::devices(&[], None).unwrap_or_default();
    let peers = devices.iter().flat_map(|device| &device.peers);
    let keys = peers.map(|peer| CompletionCandidate::new(peer.public_key.to_string()));
    let keywords = keywords.map(CompletionCandidate::new);
    keywords.into_iter().chain(keys).collect()
}

/// Files, and the configurations in /etc/wireguard.
pub fn files_and_tunnels(current: &OsStr) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    let fits =
        |tunnel: &CompletionCandidate| tunnel.get_value().to_string_lossy().starts_with(&*begun);
    let files = PathCompleter::file().complete(current);
    tunnels().into_iter().filter(fits).chain(files).collect()
}

/// The configurations in /etc/wireguard.
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

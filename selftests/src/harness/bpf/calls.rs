// SPDX-License-Identifier: GPL-2.0
//! How often functions of the kernel and its modules are entered (kprobes).
//!
//! Rust functions are named by the readable path's last parts, as in `device::receive::receive`
//! or `Peer::start`; the mangled symbol is looked up in `/proc/kallsyms`. A function that the
//! compiler inlined everywhere is not there: that is an error, never a count of zero.

use super::{get, load, map, number, program};
use anyhow::{ensure, Context, Result};
use libbpf_rs::{KprobeOpts, Link, MapHandle, Object};
use std::collections::BTreeMap;
use std::fs;

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/calls.bpf.o"));

/// How many functions may be watched at once.
const MAX: usize = 64;

/// Counts of entries into chosen functions, from its making to its end.
pub struct Calls {
    counts: MapHandle,
    index: BTreeMap<String, u32>,
    /// Detached on drop.
    _links: Vec<Link>,
    _object: Object,
}

impl Calls {
    /// Watches `functions`; the modules they belong to are loaded.
    ///
    /// A name without `::` is a C function's (or symbol's) whole name.
    pub fn attach(functions: &[&str]) -> Result<Self> {
        ensure!(functions.len() <= MAX, "too many functions to watch");
        let object = load("calls", IMAGE)?;
        let counts = map(&object, "calls")?;
        let symbols = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let (mut links, mut index) = (Vec::new(), BTreeMap::new());
        for (n, function) in functions.iter().enumerate() {
            let found = find(&symbols, function);
            ensure!(
                !found.is_empty(),
                "no function {function} in the running kernel (inlined, or renamed?)"
            );
            for symbol in found {
                let opts = KprobeOpts {
                    cookie: n as u64,
                    ..KprobeOpts::default()
                };
                let link = program(&object, "entered")?
                    .attach_kprobe_with_opts(false, &symbol, opts)
                    .with_context(|| format!("kprobe on {symbol}"))?;
                links.push(link);
            }
            index.insert((*function).to_owned(), n as u32);
        }
        Ok(Calls {
            counts,
            index,
            _links: links,
            _object: object,
        })
    }

    /// How often `function`, one of those given to [`Calls::attach`], has been entered.
    pub fn of(&self, function: &str) -> Result<u64> {
        let n = self.index.get(function);
        let n = n.with_context(|| format!("{function} is not watched"))?;
        Ok(number(&get(&self.counts, *n)?, 0))
    }
}

/// The symbols in the text of `/proc/kallsyms` that `function` means.
fn find(kallsyms: &str, function: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in kallsyms.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(kind), Some(symbol)) = (fields.nth(1), fields.next()) else {
            continue;
        };
        if matches!(kind, "t" | "T" | "w" | "W") && means(symbol, function) {
            found.push(symbol.to_owned());
        }
    }
    found
}

fn means(symbol: &str, function: &str) -> bool {
    if !function.contains("::") {
        return symbol == function;
    }
    if !symbol.starts_with("_R") {
        return false;
    }
    let path = readable(symbol);
    let Some(rest) = path.strip_suffix(function) else {
        return false;
    };
    rest.is_empty() || rest.ends_with("::") || rest.ends_with([' ', '<'])
}

/// `_R…` as `crate::module::Type::function`: without hash, type parameters and the angle brackets
/// around a method's type.
fn readable(symbol: &str) -> String {
    let full = format!("{:#}", rustc_demangle::demangle(symbol));
    let full = full.strip_prefix('<').unwrap_or(&full);
    let (mut out, mut depth) = (String::new(), 0);
    for c in full.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = (depth - 1).max(0),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out.replace("::::", "::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols() {
        // _RNvNtNtCs1234_12wireguard_rs6device7receive7receive
        let function = "_RNvNtNtCs1234_12wireguard_rs6device7receive7receive";
        let method = "_RNvMNtNtCs1234_12wireguard_rs6device4peerNtB2_4Peer5start";
        assert_eq!(readable(function), "wireguard_rs::device::receive::receive");
        assert_eq!(readable(method), "wireguard_rs::device::peer::Peer::start");
        let text = format!(
            "0000 t {function}\t[wireguard_rs]\n0000 t {method}\t[wireguard_rs]\n\
             0000 d wg_packet_receive\t[wireguard]\n0000 T synchronize_rcu\n"
        );
        assert_eq!(find(&text, "receive::receive"), [function]);
        assert_eq!(find(&text, "Peer::start"), [method]);
        assert!(find(&text, "eceive::receive").is_empty());
        assert_eq!(find(&text, "synchronize_rcu"), ["synchronize_rcu"]);
        assert!(find(&text, "synchronize").is_empty());
        assert!(find(&text, "wg_packet_receive").is_empty(), "that is data");
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Counts calls of kernel and module functions.
//!
//! C functions are counted by a BPF program on kprobes. Debian's kernel allows no probe of a
//! function that ftrace does not know, and it knows none of Rust: those are counted by execution
//! breakpoints of the processor, of which there are four.
//!
//! Rust functions are named by the readable path's last parts, as in `device::receive::receive`
//! or `Peer::start`; the mangled symbol is looked up in `/proc/kallsyms`. A function that the
//! compiler inlined everywhere is not there: that is an error, never a count of zero.

use super::object::{get, load, map, number, program};
use anyhow::{ensure, Context, Result};
use libbpf_rs::{KprobeOpts, Link, MapHandle, Object};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/calls.bpf.o"));

/// How many functions may be watched at once.
const MAX: usize = 64;

/// Counts calls of chosen functions while it exists.
pub struct Calls {
    counts: MapHandle,
    index: BTreeMap<String, u32>,
    breakpoints: BTreeMap<String, Vec<OwnedFd>>,
    /// Detached on drop.
    _links: Vec<Link>,
    _object: Object,
}

impl Calls {
    /// Starts to count calls of `functions`, whose modules must be loaded. A name with `::` is that
    /// of a Rust function (at most four at once), any other is a symbol.
    pub fn attach(functions: &[&str]) -> Result<Self> {
        ensure!(functions.len() <= MAX, "too many functions to watch");
        let object = load("calls", IMAGE)?;
        let symbols = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let mut calls = Calls {
            counts: map(&object, "calls")?,
            index: BTreeMap::new(),
            breakpoints: BTreeMap::new(),
            _links: Vec::new(),
            _object: object,
        };
        for (n, function) in functions.iter().enumerate() {
            let found = find(&symbols, function);
            ensure!(
                !found.is_empty(),
                "no function {function} in the running kernel (inlined, or renamed?)"
            );
            for (symbol, address) in found {
                if function.contains("::") {
                    let fds = breakpoints(address)
                        .with_context(|| format!("breakpoint on {function} at {address:#x}"))?;
                    let all = calls.breakpoints.entry((*function).to_owned());
                    all.or_default().extend(fds);
                    continue;
                }
                let opts = KprobeOpts {
                    cookie: n as u64,
                    ..KprobeOpts::default()
                };
                let link = program(&calls._object, "entered")?
                    .attach_kprobe_with_opts(false, &symbol, opts)
                    .with_context(|| format!("kprobe on {symbol}"))?;
                calls._links.push(link);
            }
            calls.index.insert((*function).to_owned(), n as u32);
        }
        Ok(calls)
    }

    /// The number of calls of `function`, one of those given to [`Calls::attach`].
    pub fn of(&self, function: &str) -> Result<u64> {
        if let Some(fds) = self.breakpoints.get(function) {
            let mut sum = 0;
            for fd in fds {
                let mut count = [0; 8];
                nix::unistd::read(fd, &mut count).context("read a breakpoint's count")?;
                sum += u64::from_ne_bytes(count);
            }
            return Ok(sum);
        }
        let n = self.index.get(function);
        let n = n.with_context(|| format!("{function} is not watched"))?;
        Ok(number(&get(&self.counts, *n)?, 0))
    }
}

/// A counting perf event of an execution breakpoint at a kernel address, for each processor.
fn breakpoints(address: u64) -> Result<Vec<OwnedFd>> {
    // `struct perf_event_attr`, version 5 (112 bytes).
    let mut attr = [0u8; 112];
    attr[0..4].copy_from_slice(&5u32.to_ne_bytes()); // PERF_TYPE_BREAKPOINT
    attr[4..8].copy_from_slice(&112u32.to_ne_bytes());
    attr[52..56].copy_from_slice(&4u32.to_ne_bytes()); // HW_BREAKPOINT_X
    attr[56..64].copy_from_slice(&address.to_ne_bytes());
    attr[64..72].copy_from_slice(&8u64.to_ne_bytes()); // must be the size of a long
    const CLOEXEC: libc::c_ulong = 8;
    // SAFETY: a plain system call.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    let mut fds = Vec::new();
    for cpu in 0..cpus {
        // SAFETY: the attributes are a live buffer of the length told in them; a descriptor that
        // the call gives is ours.
        unsafe {
            let nr = libc::SYS_perf_event_open;
            let fd = libc::syscall(nr, attr.as_ptr(), -1, cpu as i32, -1, CLOEXEC);
            let fd = Errno::result(fd).context("perf_event_open")?;
            fds.push(OwnedFd::from_raw_fd(fd as i32));
        }
    }
    Ok(fds)
}

/// The symbols in the text of `/proc/kallsyms` that `function` means, and their addresses.
fn find(kallsyms: &str, function: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for line in kallsyms.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(symbol)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if matches!(kind, "t" | "T" | "w" | "W") && means(symbol, function) {
            let address = u64::from_str_radix(address, 16).unwrap_or(0);
            found.push((symbol.to_owned(), address));
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
        let find = |function| -> Vec<String> {
            let found = super::find(&text, function);
            found.into_iter().map(|(symbol, _)| symbol).collect()
        };
        assert_eq!(find("receive::receive"), [function]);
        assert_eq!(find("Peer::start"), [method]);
        assert!(find("eceive::receive").is_empty());
        assert_eq!(find("synchronize_rcu"), ["synchronize_rcu"]);
        assert!(find("synchronize").is_empty());
        assert!(find("wg_packet_receive").is_empty(), "that is data");
    }
}

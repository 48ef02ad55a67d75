// SPDX-License-Identifier: GPL-2.0-only
//! What is saved when a test fails: captures, and the counters of its namespaces.
//!
//! The state is global to the process and not owned by the test: it is needed when the test's
//! values are already dropped (after an error or a panic) and when the test never returns (a hang).

use super::capture::{write_pcap, Capture, Frames, LINUX_SLL2};
use super::netns::{self, Guard, Hooks, Netns};
use super::rtnl::{Counters, Rtnl};
use super::userspace;
use super::wgdev::{base64, parse_dump, Wg};
use anyhow::Result;
use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One capture.
struct Kept {
    name: String,
    frames: Frames,
    linktype: u32,
}

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// Counters of namespaces that no longer exist, at most [`LINES`] lines; the oldest go first.
static COUNTED: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
const LINES: usize = 4000;

/// How many peers of one device are listed.
const PEERS: usize = 50;

/// How long to wait for an answer: when a test has failed, none may come.
const PATIENCE: Duration = Duration::from_secs(2);

static RECORD: AtomicBool = AtomicBool::new(false);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a capture's frames as NAME.pcap if the test fails. `linktype` as in pcap.
pub fn keep(name: &str, frames: Frames, linktype: u32) {
    lock(&KEPT).push(Kept {
        name: name.to_owned(),
        frames,
        linktype,
    });
}

/// From now on captures on all interfaces of every new namespace. Not the default: captured packets
/// are shared buffers, for which drivers take other code paths.
pub fn record() {
    RECORD.store(true, Ordering::Relaxed);
}

/// For [`netns::prepare`]: records every namespace.
pub const HOOKS: Hooks = Hooks {
    made: watch,
    dropped: last_look,
};

/// After [`record`]: captures in `ns` until the returned guard is dropped. If namespaces of the
/// same name follow each other, the frames of the last one are kept.
fn watch(ns: &Netns) -> Result<Guard> {
    if !RECORD.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let capture = Capture::of_all(ns)?;
    let name = format!("namespace-{}", ns.name());
    lock(&KEPT).retain(|kept| kept.name != name);
    keep(&name, capture.frames(), LINUX_SLL2);
    Ok(Some(Box::new(capture)))
}

/// Notes the counters of `ns`, which is about to be dropped.
fn last_look(ns: &Netns) {
    let lines = ns.run(|| look(ns.name()));
    note(lines.unwrap_or_else(|e| vec![format!("{}: {e:#}", ns.name())]));
}

/// Notes the counters of all existing namespaces. Leaves the calling thread in one of them.
pub fn look_at_all() {
    for (name, entered) in netns::enter_each() {
        let lines = entered.and_then(|()| look(&name));
        note(lines.unwrap_or_else(|e| vec![format!("{name}: {e:#}")]));
    }
}

fn note(lines: Vec<String>) {
    let mut counted = lock(&COUNTED);
    counted.extend(lines);
    let surplus = counted.len().saturating_sub(LINES);
    counted.drain(..surplus);
}

/// The counters of links and their peers in the calling thread's namespace, called `ns`.
fn look(ns: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for link in Rtnl::open_for(PATIENCE)?.links()? {
        let counters = link.counters.since(&Counters::default());
        let name = link.name;
        // Captures identify the interface by this number.
        lines.push(format!("{ns} {name}: number {}, {counters:?}", link.index));
        let peers = match link.kind.as_str() {
            "wireguard" | "wireguard_rs" => peers(&link.kind, &name),
            "tun" => userspace::told(&name, PATIENCE),
            _ => continue,
        };
        match peers {
            Ok(peers) => lines.extend(peers.into_iter().map(|p| format!("{ns} {name}: {p}"))),
            Err(e) => lines.push(format!("{ns} {name}: {e:#}")),
        }
    }
    Ok(lines)
}

/// The peers of device `name`, a line each.
fn peers(kind: &str, name: &str) -> Result<Vec<String>> {
    let mut wg = Wg::here(kind, Some(PATIENCE))?;
    let peers = parse_dump(&wg.get_raw(name)?).peers;
    let line = |peer: &super::wgdev::Peer| {
        format!(
            "peer {} at {:?}: received {}, sent {}, last handshake {:?}",
            base64(&peer.public_key),
            peer.endpoint,
            peer.rx_bytes,
            peer.tx_bytes,
            peer.last_handshake
        )
    };
    Ok(peers.iter().take(PEERS).map(line).collect())
}

/// Writes all captures and counters into `dir`.
pub fn save(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let counted: Vec<String> = lock(&COUNTED).iter().cloned().collect();
    fs::write(dir.join("counters.txt"), counted.join("\n") + "\n")?;
    for (n, kept) in lock(&KEPT).iter().enumerate() {
        let path = dir.join(format!("{n}-{}.pcap", kept.name));
        write_pcap(&path, &lock(&kept.frames), kept.linktype)?;
    }
    Ok(())
}

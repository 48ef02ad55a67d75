// SPDX-License-Identifier: GPL-2.0
//! What a test leaves for the case that it fails: captures, and the counters of its namespaces.
//!
//! Kept here, for the whole process, and not with the test: it is wanted when the test's values are
//! gone (after an error or a panic) and when nobody comes back from them (a hang).

use super::capture::{write_pcap, Capture, Frames, LINUX_SLL2};
use super::netns::{self, Netns};
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

/// What namespaces counted that are gone: the last so many lines.
static COUNTED: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
const LINES: usize = 4000;

/// Of a device with thousands of peers so many.
const PEERS: usize = 50;

/// A namespace is looked at when anything may have gone wrong, so no answer is waited for for long.
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

/// From now on all interfaces of every new namespace are watched. Not done without need: packets
/// that are watched are shared, and the drivers then take other ways with them.
pub fn record() {
    RECORD.store(true, Ordering::Relaxed);
}

/// After [`record`]: watches `ns` until what this gives is dropped. Of namespaces that have the
/// same name, one after the other, the last one's frames are kept.
pub fn watch(ns: &Netns) -> Result<Option<Capture>> {
    if !RECORD.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let capture = Capture::of_all(ns)?;
    let name = format!("namespace-{}", ns.name());
    lock(&KEPT).retain(|kept| kept.name != name);
    keep(&name, capture.frames(), LINUX_SLL2);
    Ok(Some(capture))
}

/// Notes what `ns`, about to be dropped, has counted.
pub fn last_look(ns: &Netns) {
    let lines = ns.run(|| look(ns.name()));
    note(lines.unwrap_or_else(|e| vec![format!("{}: {e:#}", ns.name())]));
}

/// Notes what all namespaces that are alive have counted. The calling thread ends in one of them.
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

/// What links and their peers have counted in the calling thread's namespace, called `ns`.
fn look(ns: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for link in Rtnl::open_for(PATIENCE)?.links()? {
        let counters = link.counters.since(&Counters::default());
        let name = link.name;
        // The number is what captures tell.
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

/// Writes all that there is into `dir`.
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

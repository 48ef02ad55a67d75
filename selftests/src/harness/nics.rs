// SPDX-License-Identifier: GPL-2.0-only
//! The network cards of a guest that was started with `scripts/guest --nics`: pairs that are joined
//! by a wire. They are in the initial namespace; tests borrow them. When a test's namespace ends,
//! they go back, with another name.

use super::cmd;
use super::netns::Netns;
use super::pace::slow;
use super::rtnl::Rtnl;
use super::runner::Skip;
use anyhow::{ensure, Context, Result};
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Wires whose cards do all offloads and have two queues; see [`Nics::have_offloads`].
pub const WIRES: u8 = 3;
/// The wire whose cards do neither.
pub const PLAIN_WIRE: u8 = WIRES;

/// How long a namespace may take to end.
const LIMIT: Duration = Duration::from_secs(10);
/// The PCI slot of the first card.
const SLOT: u8 = 0x10;

/// The two cards of one wire, by their present names.
pub struct Nics([String; 2]);

impl Nics {
    /// The cards of wire number `wire`, as soon as they are back from another test's namespace; the
    /// error is [`Skip`] if the guest has none.
    pub fn of_wire(wire: u8) -> Result<Self> {
        let slots = [SLOT + 2 * wire, SLOT + 2 * wire + 1];
        if !Path::new(&format!("/sys/bus/pci/devices/0000:00:{:02x}.0", slots[0])).exists() {
            return Err(Skip("the guest has no network cards".to_owned()).into());
        }
        cmd::run(&["modprobe", "virtio_net"])?;
        let start = Instant::now();
        loop {
            if let [Some(one), Some(other)] = [card(slots[0])?, card(slots[1])?] {
                return Ok(Nics([one, other]));
            }
            let waited = start.elapsed();
            ensure!(
                waited < slow(LIMIT),
                "the cards of wire {wire} are not back"
            );
            sleep(Duration::from_millis(5));
        }
    }

    /// Whether they cut packets and fill in checksums. They do not where the host of the guest has
    /// no tap devices.
    pub fn have_offloads(&self) -> Result<bool> {
        has_offloads(&self.0[0])
    }

    /// Moves card `n` into `ns`, with all its features on.
    pub fn give(&self, n: usize, ns: &Netns, name: &str, mac: [u8; 6]) -> Result<()> {
        let now = &self.0[n];
        let mut rt = Rtnl::open()?;
        rt.set_up(now, false)?;
        if has_offloads(now)? {
            let on = "ethtool -K NIC rx on tx on sg on tso on tx-udp-segmentation on gso on gro on";
            for line in [on, "ethtool -L NIC combined 1"] {
                let line = line.replace("NIC", now);
                let words: Vec<&str> = line.split(' ').collect();
                // Not all may be left to change.
                cmd::try_run(&words, "")?;
            }
        }
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        cmd::run(&["ip", "link", "set", now, "mtu", "1500", "address", &mac])?;
        let ns = ns.name();
        cmd::run(&["ip", "link", "set", now, "netns", ns, "name", name]).map(drop)
    }
}

fn has_offloads(name: &str) -> Result<bool> {
    let shown = cmd::run(&["ethtool", "-k", name])?;
    Ok(!shown.contains("tx-checksum-ip-generic: off [fixed]"))
}

/// The name of the network card in a PCI slot.
fn card(slot: u8) -> Result<Option<String>> {
    let place = format!("/0000:00:{slot:02x}.0/");
    for entry in fs::read_dir("/sys/class/net").context("/sys/class/net")? {
        let entry = entry?;
        let Ok(device) = fs::canonicalize(entry.path()) else {
            continue;
        };
        let device = device.to_string_lossy();
        if device.contains(&place) {
            let name = entry.file_name().to_string_lossy().into_owned();
            ensure!(!name.is_empty(), "a card without a name");
            return Ok(Some(name));
        }
    }
    Ok(None)
}

// SPDX-License-Identifier: GPL-2.0-only
//! Listens to the module's tracepoint of refusals.

use super::object::{get, load, map, number, program};
use crate::peers::Refused;
use anyhow::{Context, Result};
use libbpf_rs::{Link, MapHandle, Object};
use wireguard_rs::proto::Rejection;

const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/refusals.bpf.o"));

/// Counts refusals while it exists.
pub struct Refusals {
    counts: MapHandle,
    /// Detached on drop.
    _link: Link,
    _object: Object,
}

impl Refusals {
    /// Starts to count. The module must be loaded.
    pub fn attach() -> Result<Self> {
        let object = load("refusals", IMAGE)?;
        let link = program(&object, "refused")?
            .attach_raw_tracepoint("wg_refused")
            .context("attach to wg_refused")?;
        Ok(Refusals {
            counts: map(&object, "refusals")?,
            _link: link,
            _object: object,
        })
    }

    /// What was refused for any interface, and what of that was a peer's.
    pub fn seen(&self) -> Result<(Refused, Refused)> {
        let (mut all, mut of_peers) = (Refused::new(), Refused::new());
        for reason in Rejection::ALL {
            // The number is that of the attribute in the netlink family.
            let counts = get(&self.counts, reason.index() as u32 + 1)?;
            for (n, to) in [&mut all, &mut of_peers].into_iter().enumerate() {
                match number(&counts, n) {
                    0 => {}
                    count => {
                        to.insert(reason.as_str(), count);
                    }
                }
            }
        }
        Ok((all, of_peers))
    }
}

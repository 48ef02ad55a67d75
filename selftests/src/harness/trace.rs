// SPDX-License-Identifier: GPL-2.0-only
//! Traces of kernel events, as text, by an instance of tracefs of its own.

use anyhow::{Context, Result};
use nix::mount::{mount, umount, MsFlags};
use std::fs;
use std::path::{Path, PathBuf};

const TRACEFS: &str = "/tmp/tracing";

/// A running trace.
pub struct Trace {
    instance: PathBuf,
}

impl Trace {
    /// Starts to trace events, each given as SYSTEM/NAME.
    pub fn start(events: &[&str]) -> Result<Self> {
        fs::create_dir_all(TRACEFS)?;
        let none = None::<&Path>;
        mount(none, TRACEFS, Some("tracefs"), MsFlags::empty(), none).context("mount tracefs")?;
        let instance = Path::new(TRACEFS).join("instances/test");
        let trace = Trace { instance };
        fs::create_dir(&trace.instance).context("an instance of tracefs")?;
        for event in events {
            fs::write(
                trace.instance.join("events").join(event).join("enable"),
                "1",
            )
            .with_context(|| format!("event {event}"))?;
        }
        Ok(trace)
    }

    /// Ends the trace. A line for each event.
    pub fn end(self) -> Result<String> {
        fs::write(self.instance.join("tracing_on"), "0")?;
        Ok(fs::read_to_string(self.instance.join("trace"))?)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::write(self.instance.join("events/enable"), "0");
        let _ = fs::remove_dir(&self.instance);
        let _ = umount(TRACEFS);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs monitor`: what the tunnels are doing, again and again. A live table on a terminal, plain
//! lines elsewhere.

mod reading;
mod screen;
mod table;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::driver::{interfaces, Interface};
use crate::model::Device;
use reading::Reading;
use screen::{Screen, Wish};
use table::Table;

/// What the command line asks for.
pub struct Options {
    /// Time between two tables.
    pub interval: Duration,
    /// So many tables; without end if none.
    pub count: Option<u64>,
    /// Plain text also on a terminal.
    pub plain: bool,
    /// Whether a terminal gets colours.
    pub colour: bool,
}

/// The devices of the moment: those of these names, or all. Those that go away meanwhile are left
/// out; only if none of those asked for is there, that is an error.
pub fn devices(names: &[String], family: Option<&str>) -> io::Result<Vec<Device>> {
    let links = interfaces(family)?;
    let mut devices = Vec::new();
    let mut missing = None;
    let chosen = |link: &&Interface| names.is_empty() || names.contains(&link.name);
    for link in links.iter().filter(chosen) {
        match link.get() {
            Ok(device) => devices.push(device),
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {
                missing = Some(error)
            }
            Err(error) => return Err(error),
        }
    }
    match (devices.is_empty() && !names.is_empty(), missing) {
        (false, _) => Ok(devices),
        (true, Some(error)) => Err(error),
        // There, but not WireGuard's, or not there.
        (true, None)
            if names
                .iter()
                .any(|name| if_nametoindex(name.as_str()).is_ok()) =>
        {
            Err(Errno::EOPNOTSUPP.into())
        }
        (true, None) => Err(Errno::ENODEV.into()),
    }
}

/// The lines of a table without rates.
pub fn table(devices: &[Device]) -> Vec<String> {
    Table::new(&Reading::new(devices).rows(None)).plain()
}

/// Runs until it has shown `count` tables, or the user ends it. `read` gives the devices of the
/// moment.
pub fn run(options: &Options, read: impl FnMut() -> io::Result<Vec<Device>>) -> io::Result<()> {
    if io::stdout().is_terminal() && io::stdin().is_terminal() && !options.plain {
        live(options, read)
    } else {
        match plain(options, read) {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

/// Tables one after the other, each after an interval, with the rates over it.
fn plain(options: &Options, mut read: impl FnMut() -> io::Result<Vec<Device>>) -> io::Result<()> {
    let mut before = Reading::new(&read()?);
    let mut due = Instant::now();
    let mut shown = 0;
    while options.count.is_none_or(|count| shown < count) {
        due += options.interval;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = Reading::new(&read()?);
        let mut out = io::stdout().lock();
        if shown > 0 {
            writeln!(out)?;
        }
        for line in Table::new(&now.rows(Some(&before))).plain() {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        before = now;
        shown += 1;
    }
    Ok(())
}

/// One table that changes in place; it is there at once, the rates from the second reading on.
fn live(options: &Options, mut read: impl FnMut() -> io::Result<Vec<Device>>) -> io::Result<()> {
    let mut now = Reading::new(&read()?);
    let mut before = None;
    let mut due = Instant::now() + options.interval;
    let mut screen = Screen::new(options.colour)?;
    let mut shown = 0;
    loop {
        let table = Table::new(&now.rows(before.as_ref()));
        let title = title(&now, options);
        let wish = loop {
            screen.draw(&title, |width| table.lines(width))?;
            match screen.wait(due)? {
                Wish::Redraw => {}
                wish => break wish,
            }
        };
        shown += 1;
        if wish == Wish::Quit || options.count.is_some_and(|count| shown > count) {
            break;
        }
        before = Some(std::mem::replace(&mut now, Reading::new(&read()?)));
        due = Instant::now() + options.interval;
    }
    screen.close()
}

fn title(reading: &Reading, options: &Options) -> String {
    let peers: usize = reading.devices.iter().map(|d| d.peers.len()).sum();
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let devices = plural(reading.devices.len(), "device");
    format!(
        "{devices}, {}, every {} s   q quits, arrows scroll",
        plural(peers, "peer"),
        options.interval.as_secs_f64()
    )
}

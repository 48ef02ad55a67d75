// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs monitor`: what the tunnels are doing, again and again. A live table on a terminal, plain
//! lines elsewhere.

mod bar;
mod cells;
mod growth;
mod news;
mod pace;
mod reading;
mod rows;
mod screen;
mod table;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::driver::{interfaces, Interface};
use crate::model::Device;
use bar::Bars;
use growth::{Growth, Totals};
use pace::Pace;
use reading::DeviceReading;
use rows::rows;
use screen::{Screen, Wish};
use table::Table;
use watch::Watch;

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

/// What `read` finds of each device of these names, or of all. Those that go away meanwhile are
/// left out; only if none of those asked for is there, that is an error.
fn chosen<T>(
    names: &[String],
    family: Option<&str>,
    mut read: impl FnMut(&Interface) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let links = interfaces(family)?;
    let mut found = Vec::new();
    let mut missing = None;
    let chosen = |link: &&Interface| names.is_empty() || names.contains(&link.name);
    for link in links.iter().filter(chosen) {
        match read(link) {
            Ok(device) => found.push(device),
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {
                missing = Some(error)
            }
            Err(error) => return Err(error),
        }
    }
    match (found.is_empty() && !names.is_empty(), missing) {
        (false, _) => Ok(found),
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

/// The devices of the moment, with the same rules.
pub fn devices(names: &[String], family: Option<&str>) -> io::Result<Vec<Device>> {
    chosen(names, family, Interface::get)
}

/// The lines of a table without rates.
pub fn table(devices: &[Device]) -> Vec<String> {
    let readings: Vec<_> = devices.iter().map(DeviceReading::new).collect();
    let growth = Growth::default();
    Table::plain(&rows(readings.iter(), &growth, SystemTime::now()))
}

/// Runs until it has shown `count` tables, or the user ends it: tables of the devices of these
/// names, or of all.
///
/// # Errors
///
/// As [`devices`], and those of the terminal or the output.
pub fn run(options: &Options, names: &[String], family: Option<&str>) -> io::Result<()> {
    let watch = Watch::new(names, family)?;
    if io::stdout().is_terminal() && io::stdin().is_terminal() && !options.plain {
        live(options, watch)
    } else {
        match plain(options, watch) {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

/// Tables one after the other, each after an interval, with the rates over it.
fn plain(options: &Options, mut watch: Watch<'_>) -> io::Result<()> {
    let mut before = Totals::new(Instant::now(), watch.devices());
    let mut due = Instant::now();
    let mut shown = 0;
    while options.count.is_none_or(|count| shown < count) {
        due += options.interval;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        watch.tick()?;
        let now = Totals::new(Instant::now(), watch.devices());
        let growth = Growth::new(&before, &now);
        let mut out = io::stdout().lock();
        if shown > 0 {
            writeln!(out)?;
        }
        for line in Table::plain(&rows(watch.devices(), &growth, SystemTime::now())) {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        before = now;
        shown += 1;
    }
    Ok(())
}

/// One table that changes in place; it is there at once, the rates from the second reading on. What
/// events tell is shown at once too, with the rates of the last interval.
fn live(options: &Options, mut watch: Watch<'_>) -> io::Result<()> {
    let bars = Bars::of_locale(|name| std::env::var(name).ok());
    let mut before = Totals::new(Instant::now(), watch.devices());
    let mut growth = Growth::default();
    let start = Instant::now();
    let mut due = start + options.interval;
    let mut pace = Pace::new(start);
    // Since when something is read that the pace has not heard of.
    let mut working = Some(start);
    let mut screen = Screen::new(options.colour)?;
    let mut shown = 0;
    loop {
        let table = Table::live(&rows(watch.devices(), &growth, SystemTime::now()), bars);
        let title = title(&watch, options);
        let mut stale = true;
        let wish = loop {
            if std::mem::take(&mut stale) {
                screen.draw(&title, |width| table.lines(width))?;
            }
            if let Some(begin) = working.take() {
                pace.worked(begin, Instant::now());
            }
            let wish = screen.wait(due, pace.opens(), &watch.sources())?;
            if wish == Wish::Redraw {
                stale = true;
                continue;
            }
            working = Some(Instant::now());
            match wish {
                // Of what is not shown.
                Wish::News if !watch.news()? => {}
                wish => break wish,
            }
        };
        match wish {
            Wish::News | Wish::Redraw => {}
            Wish::Quit => break,
            Wish::Refresh => {
                shown += 1;
                if options.count.is_some_and(|count| shown > count) {
                    break;
                }
                watch.tick()?;
                let now = Totals::new(Instant::now(), watch.devices());
                growth = Growth::new(&before, &now);
                before = now;
                due = Instant::now() + options.interval;
            }
        }
    }
    screen.close()
}

fn title(watch: &Watch<'_>, options: &Options) -> String {
    let peers: usize = watch.devices().map(|d| d.peers.len()).sum();
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let devices = plural(watch.devices().count(), "device");
    format!(
        "{devices}, {}, every {} s{}   q quits, arrows scroll",
        plural(peers, "peer"),
        options.interval.as_secs_f64(),
        if watch.has_events() {
            " and on events"
        } else {
            ", no events"
        }
    )
}

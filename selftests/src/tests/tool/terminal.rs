// SPDX-License-Identifier: GPL-2.0-only
//! A program on a terminal that is drawn anew again and again.

use super::sides::program;
use anyhow::{bail, ensure, Result};
use harness::netns::Netns;
use nix::pty::{openpty, Winsize};
use nix::sys::termios::{tcgetattr, Termios};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// What begins and ends a picture: a synchronized update.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
/// What leaves the alternate screen.
const LEAVE: &str = "\x1b[?1049l";

/// A `wg-rs` that runs on a terminal of its own.
pub struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts it in a namespace.
    pub fn start(ns: &Netns, args: &[&str]) -> Result<Self> {
        let size = Winsize {
            ws_row: 400,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None)?;
        let before = tcgetattr(&pty.slave)?;
        let (stdin, stdout) = (pty.slave.try_clone()?, pty.slave.try_clone()?);
        let child = ns.run(|| {
            let mut command = Command::new(program(1, "wg-rs"));
            command.args(args).stdin(stdin).stdout(stdout);
            command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
            Ok(command.spawn()?)
        })?;
        let master = File::from(pty.master);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, to) = (master.try_clone()?, written.clone());
        spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                to.extend_from_slice(&buffer[..length]);
            }
        });
        Ok(Self {
            child,
            master,
            slave: pty.slave,
            before,
            written,
        })
    }

    fn written(&self) -> String {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    /// All whole pictures so far, as lines of text.
    pub fn pictures(&self) -> Vec<Vec<String>> {
        let written = self.written();
        let pictures = written.split(BEGIN).skip(1);
        let whole = pictures.filter_map(|picture| Some(picture.split_once(END)?.0));
        whole.map(lines).collect()
    }

    /// Waits for a picture of which this holds, and says how long.
    pub fn shows(
        &self,
        what: &str,
        limit: Duration,
        is_it: impl Fn(&[String]) -> bool,
    ) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let elapsed = begin.elapsed();
            let last = self.pictures().pop().unwrap_or_default();
            if is_it(&last) {
                return Ok(elapsed);
            }
            if elapsed > limit {
                bail!("not shown: {what}\n{}", last.join("\n"));
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// CPU time so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.id()))?;
        Ok(clock.now()?.into())
    }

    /// Types something.
    pub fn types(&mut self, text: &str) -> Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// The process.
    pub fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for its end, after which the terminal must be as it was.
    pub fn ends(mut self, limit: Duration) -> Result<ExitStatus> {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(begin.elapsed() < limit, "it does not end");
            sleep(Duration::from_millis(10));
        };
        ensure!(
            tcgetattr(&self.slave)? == self.before,
            "the terminal's modes"
        );
        while !self.written().contains(LEAVE) {
            ensure!(begin.elapsed() < limit, "the alternate screen stays");
            sleep(Duration::from_millis(10));
        }
        Ok(status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a picture, without what only controls the terminal. Each line begins by a move of
/// the cursor.
fn lines(picture: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut parts = picture.split("\x1b[");
    let mut line = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        let (control, text) = part.split_at(end.map_or(part.len(), |end| end + 1));
        if control.ends_with('H') {
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(text);
    }
    lines.push(line);
    lines.retain(|line| !line.is_empty());
    lines
}

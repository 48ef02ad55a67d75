// SPDX-License-Identifier: GPL-2.0
//! Running the ordinary tools (`ip`, `wg`, `ping`, …), inside a namespace or not.

use super::netns::Netns;
use anyhow::{bail, Context, Result};
use std::io::Write;
use std::process::{Command, Stdio};

/// What a finished command left behind.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Done {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `args` with `stdin`, and gives how it ended.
pub fn try_run(args: &[&str], stdin: &str) -> Result<Done> {
    let [program, rest @ ..] = args else {
        bail!("empty command")
    };
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // The tool may finish without reading: not an error of ours.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let out = child.wait_with_output()?;
    Ok(Done {
        ok: out.status.success(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

/// Runs `args`; anything but success is an error that shows what the tool said.
pub fn run(args: &[&str]) -> Result<String> {
    finish(args, try_run(args, "")?)
}

fn finish(args: &[&str], done: Done) -> Result<String> {
    if !done.ok {
        bail!("{}: {}", args.join(" "), done.stderr.trim());
    }
    Ok(done.stdout)
}

impl Netns {
    /// Runs `line`, split at blanks, inside the namespace; gives its standard output.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.sh_in(line, "")
    }

    /// The same with something on standard input.
    pub fn sh_in(&self, line: &str, stdin: &str) -> Result<String> {
        let args: Vec<&str> = line.split_whitespace().collect();
        let done = self.run(|| try_run(&args, stdin))?;
        finish(&args, done)
    }

    /// The same for a command that may fail.
    pub fn try_sh(&self, line: &str, stdin: &str) -> Result<Done> {
        let args: Vec<&str> = line.split_whitespace().collect();
        self.run(|| try_run(&args, stdin))
    }
}

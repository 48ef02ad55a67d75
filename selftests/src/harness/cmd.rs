// SPDX-License-Identifier: GPL-2.0-only
//! Running the ordinary tools (`ip`, `wg`, `ping`, …), inside a namespace or not.

use super::netns::Netns;
use anyhow::{bail, Context, Result};
use std::io::Write;
use std::process::{Command, Stdio};

/// The result of a finished command.
#[derive(Clone, Debug)]
pub struct Done {
    /// It exited with status 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `args` with `stdin` as its standard input; an error only if it cannot be run.
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
        // The tool may exit without reading its input.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let out = child.wait_with_output()?;
    Ok(Done {
        ok: out.status.success(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

/// Runs `args` and returns its standard output; failure is an error that contains its standard
/// error.
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
    /// Runs `line`, split at blanks, in the namespace; returns its standard output.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.sh_in(line, "")
    }

    /// As [`Netns::sh`], with `stdin` as its standard input.
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

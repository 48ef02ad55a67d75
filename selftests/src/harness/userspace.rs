// SPDX-License-Identifier: GPL-2.0-only
//! Userspace implementations on a TUN device, configured over a socket by `wg`.

use super::cmd;
use super::netns::Netns;
use super::pace::slow;
use anyhow::{bail, ensure, Context, Result};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the guest has the implementations that Debian does not package (see `scripts/peers`).
const ADDED: &str = "/add";

/// A userspace implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// wireguard-go.
    Go,
    /// Cloudflare's boringtun.
    BoringTun,
    /// Mullvad's gotatun.
    GotaTun,
}

impl Program {
    /// The file's name.
    fn file(self) -> &'static str {
        match self {
            Program::Go => "wireguard-go",
            Program::BoringTun => "boringtun-cli",
            Program::GotaTun => "gotatun",
        }
    }

    /// Its path, or its name if it is in `PATH`.
    fn path(self) -> PathBuf {
        let added = Path::new(ADDED).join(self.file());
        if added.exists() {
            added
        } else {
            self.file().into()
        }
    }

    /// The version that it reports.
    pub fn version(self) -> Result<String> {
        let out = Command::new(self.path())
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", self.file()))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let number = |word: &&str| {
            word.trim_start_matches('v')
                .starts_with(|c: char| c.is_ascii_digit())
        };
        let found = text.split_whitespace().find(number);
        Ok(found
            .with_context(|| format!("no version in {text:?}"))?
            .trim_start_matches('v')
            .to_owned())
    }

    /// Starts it in `ns` on a TUN device called `name`; it dies with the test's PID namespace.
    pub fn start(self, ns: &Netns, name: &str) -> Result<()> {
        if !Path::new("/dev/net/tun").exists() {
            cmd::run(&["modprobe", "tun"])?;
        }
        let log = File::create(log_path(name))?;
        let mut child = ns.run(|| {
            let mut command = Command::new(self.path());
            match self {
                Program::Go => command
                    .args(["-f", name])
                    .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
                    .env("LOG_LEVEL", "error"),
                // Connected sockets keep their source address, so boringtun's own address could not
                // change.
                Program::BoringTun => command
                    .args(["--foreground", "--disable-drop-privileges"])
                    .args(["--disable-connected-udp", name]),
                Program::GotaTun => {
                    command.args(["--foreground", "--disable-drop-privileges", name])
                }
            };
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("start {} (see scripts/peers)", self.file()))
        })?;
        let socket = socket_path(name);
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("{} ended, {status}: {}", self.file(), log_tail(name));
            }
            ensure!(
                start.elapsed() < slow(Duration::from_secs(20)),
                "{} does not listen on {}: {}",
                self.file(),
                socket.display(),
                log_tail(name)
            );
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The peers of device `name` as its implementation reports them, line by line, without secret
/// keys; empty if there is none.
pub fn told(name: &str, limit: Duration) -> Result<Vec<String>> {
    let path = socket_path(name);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(limit))?;
    socket.write_all(b"get=1\n\n")?;
    let lines = BufReader::new(socket).lines();
    let lines = lines.take_while(|line| line.as_ref().map_or(true, |line| !line.is_empty()));
    let all = lines.collect::<Result<Vec<_>, _>>()?;
    let secret =
        |line: &String| line.starts_with("private_key") || line.starts_with("preshared_key");
    Ok(all.into_iter().filter(|line| !secret(line)).collect())
}

/// The control socket of device `name`.
fn socket_path(name: &str) -> PathBuf {
    format!("/run/wireguard/{name}.sock").into()
}

/// The log file of device or daemon `name`, on the test's own tmpfs.
pub fn log_path(name: &str) -> PathBuf {
    format!("/run/wireguard/{name}.log").into()
}

/// The last lines of the log of device or daemon `name`.
pub fn log_tail(name: &str) -> String {
    let text = fs::read(log_path(name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

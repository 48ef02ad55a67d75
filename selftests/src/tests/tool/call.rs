// SPDX-License-Identifier: GPL-2.0-only
//! One call of a tool, and all that is visible of it from outside.

use anyhow::{bail, Context, Result};
use nix::pty::openpty;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The destination of standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A pipe that is read to its end.
    Pipe,
    /// A file with these permissions.
    File(u32),
    /// A terminal.
    Tty,
    /// A full disk (`/dev/full`).
    Full,
    /// A pipe without a reader.
    Broken,
}

/// A command line with its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// argv\[0\].
    pub name: &'static str,
    /// The arguments after it.
    pub args: Vec<OsString>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Variables in addition to PATH, HOME and LANG.
    pub env: Vec<(&'static str, String)>,
    /// Standard output.
    pub sink: Sink,
    /// A file whose content is passed in one more argument by bash's process substitution,
    /// `<(cat FILE)`.
    pub substituted: Option<String>,
}

impl Call {
    /// `name` with these arguments, empty standard input and a pipe as standard output.
    pub fn new<S: AsRef<OsStr>>(name: &'static str, args: impl IntoIterator<Item = S>) -> Self {
        Call {
            name,
            args: args
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            stdin: Vec::new(),
            env: Vec::new(),
            sink: Sink::Pipe,
            substituted: None,
        }
    }

    /// The same with this on standard input.
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// The same with another variable set.
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// The same with this standard output.
    pub fn sink(mut self, sink: Sink) -> Self {
        self.sink = sink;
        self
    }

    /// The same with `<(cat FILE)` as the last argument.
    pub fn substituted(mut self, file: impl Into<String>) -> Self {
        self.substituted = Some(file.into());
        self
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg0(self.name);
        if let Some(file) = &self.substituted {
            const SCRIPT: &str = r#"exec -a "$0" "${@:2}" <(cat "$1")"#;
            command = Command::new("/usr/bin/bash");
            command.args(["-c", SCRIPT, self.name, file]).arg(program);
        }
        command.args(&self.args);
        command
    }

    /// Runs `program` this way, in the calling thread's namespaces. `scratch` is a folder that only
    /// the caller uses.
    pub fn run(&self, program: &Path, scratch: &Path) -> Result<Seen> {
        let mut command = self.command(program);
        command.env_clear().envs([
            ("PATH", "/usr/sbin:/usr/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
        ]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let file = scratch.join("stdout");
        let mut terminal = None;
        match self.sink {
            Sink::Pipe => command.stdout(Stdio::piped()),
            Sink::File(mode) => {
                let _ = fs::remove_file(&file);
                let out = OpenOptions::new()
                    .create_new(true)
                    .write(true)
                    .mode(0o600)
                    .open(&file)?;
                out.set_permissions(fs::Permissions::from_mode(mode))?;
                command.stdout(out)
            }
            Sink::Tty => {
                let pty = openpty(None, None)?;
                terminal = Some(File::from(pty.master));
                command.stdout(pty.slave)
            }
            Sink::Full => command.stdout(File::options().write(true).open("/dev/full")?),
            Sink::Broken => {
                let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
                drop(reader);
                command.stdout(writer)
            }
        };
        let child = command
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        // Closes our copies of the child's ends.
        drop(command);
        let mut seen = finish(child, &self.stdin, terminal)?;
        if let Sink::File(_) = self.sink {
            seen.stdout = fs::read(&file)?;
        }
        Ok(seen)
    }
}

fn finish(mut child: Child, stdin: &[u8], terminal: Option<File>) -> Result<Seen> {
    let pipe = child.stdin.take();
    std::thread::scope(|scope| {
        // The tool may exit without reading: not our error.
        let writer = || pipe.map(|mut pipe| pipe.write_all(stdin));
        // This much fits into a pipe.
        if stdin.len() <= 4096 {
            let _ = writer();
        } else {
            scope.spawn(writer);
        }
        let shown = terminal.map(|mut terminal| {
            let mut shown = Vec::new();
            // A terminal without any open slave gives an error instead of end of file.
            let _ = terminal.read_to_end(&mut shown);
            shown
        });
        let out = child.wait_with_output()?;
        let end = match (out.status.code(), out.status.signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => bail!("neither exit code nor signal"),
        };
        Ok(Seen {
            end,
            stdout: shown.unwrap_or(out.stdout),
            stderr: out.stderr,
        })
    })
}

/// In shell syntax.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quoted(value.as_bytes()))?;
        }
        write!(f, "{}", self.name)?;
        for arg in &self.args {
            write!(f, " {}", quoted(arg.as_encoded_bytes()))?;
        }
        if let Some(file) = &self.substituted {
            write!(f, " <(cat {})", quoted(file.as_bytes()))?;
        }
        if !self.stdin.is_empty() {
            write!(f, " <<<{}", quoted(&self.stdin))?;
        }
        match self.sink {
            Sink::Pipe => Ok(()),
            other => write!(f, "  # stdout: {other:?}"),
        }
    }
}

/// Quoted for bash, with control characters and non-ASCII bytes as hex escapes.
pub fn quoted(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-+=/.,:%@".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let printable = bytes
        .iter()
        .all(|b| (0x20..0x7f).contains(b) && *b != b'\'');
    if printable {
        return format!("'{}'", String::from_utf8_lossy(bytes));
    }
    let mut out = String::from("$'");
    for byte in bytes {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\'' | b'\\' => out.extend(['\\', char::from(*byte)]),
            0x20..0x7f => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push('\'');
    out
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// The result of a call.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    /// How it ended.
    pub end: End,
    /// What was written to standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Seen {
    /// Whether it succeeded.
    pub fn ok(&self) -> bool {
        self.end == End::Exit(0)
    }

    /// Both outputs concatenated, as text.
    pub fn text(&self) -> String {
        let [out, err] = [&self.stdout, &self.stderr].map(|b| String::from_utf8_lossy(b));
        format!("{out}{err}")
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.end)?;
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !bytes.is_empty() {
                write!(f, ", {name} {}", quoted(bytes))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(quoted(b"wg0"), "wg0");
        assert_eq!(quoted(b""), "''");
        assert_eq!(quoted(b"a b"), "'a b'");
        assert_eq!(quoted(b"a'\n\0"), "$'a\\'\\n\\x00'");
    }

    #[test]
    fn a_call_is_seen_whole() {
        let dir = std::env::temp_dir();
        let sh = Path::new("/bin/sh");
        let script = "echo out $V; cat; echo err >&2; exit 3";
        let call = Call::new("sh", ["-c", script]).stdin("in").env("V", "v");
        let seen = call.run(sh, &dir).unwrap();
        assert_eq!(seen.end, End::Exit(3));
        assert_eq!(
            (&seen.stdout[..], &seen.stderr[..]),
            (&b"out v\nin"[..], &b"err\n"[..])
        );
        let tty = Call::new("sh", ["-c", "test -t 1 && echo yes"]).sink(Sink::Tty);
        assert_eq!(tty.run(sh, &dir).unwrap().stdout, b"yes\r\n");
        let broken = Call::new("sh", ["-c", "kill -PIPE $$"]).sink(Sink::Broken);
        assert_eq!(broken.run(sh, &dir).unwrap().end, End::Signal(13));
        let text = Call::new("wg", ["set", "a b"])
            .stdin("x y")
            .env("K", "1")
            .to_string();
        assert_eq!(text, "K=1 wg set 'a b' <<<'x y'");
        let substituted = Call::new("sh", ["-c", r#"cat "$1"; echo "$0 $1""#, "x"]);
        let file = dir.join(format!("wgrs-substituted-{}", std::process::id()));
        fs::write(&file, "content\n").unwrap();
        let substituted = substituted.substituted(file.to_str().unwrap());
        let seen = substituted.run(sh, &dir).unwrap();
        fs::remove_file(file).unwrap();
        assert_eq!(seen.text(), "content\nx /dev/fd/63\n");
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Commands of others: hooks, resolvconf, iptables; and the signals that end us meanwhile.

use super::say::{say, Failed};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The shell's status of a command that is not found.
const NOT_FOUND: i32 = 127;

/// Waits for processes and for signals at once. While it exists, SIGINT, SIGTERM and SIGHUP do not
/// end the process: they are asked for.
pub struct Signals {
    caught: Arc<AtomicUsize>,
    events: UnixStream,
    /// Writing to it ends a wait, too.
    bell: UnixStream,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        let (events, bell) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let value = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&caught), value)?;
            signal_hook::low_level::pipe::register(signal, bell.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGCHLD, bell.try_clone()?)?;
        Ok(Signals {
            caught,
            events,
            bell,
        })
    }

    /// Fails with the shell's status for the signal that came, if one came.
    pub fn check(&self) -> Result<(), Failed> {
        match self.caught.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Failed(128 + i32::try_from(signal).unwrap_or(0))),
        }
    }

    /// Waits for a process. A SIGTERM is handed on to it; a terminal's SIGINT it gets anyway.
    pub fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        // What ended `up` does not end the commands that undo it.
        let mut told = self.caught.load(Ordering::SeqCst) != 0;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if !told && self.caught.load(Ordering::SeqCst) == SIGTERM as usize {
                told = true;
                if let Ok(pid) = i32::try_from(child.id()) {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                }
            }
            self.event()?;
        }
    }

    /// Does something that may take long, such as to ask for an address, on another thread: a
    /// signal ends the waiting for it.
    pub fn interruptible<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let failed = |err: io::Error| Failed::saying(1, &err);
        let mut bell = self.bell.try_clone().map_err(failed)?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .spawn(move || {
                let _ = sender.send(work());
                // A full bell wakes the waiting thread as well.
                let _ = bell.write(&[0]);
            })
            .map_err(failed)?;
        loop {
            self.check()?;
            if let Ok(result) = receiver.try_recv() {
                return Ok(result);
            }
            self.event().map_err(failed)?;
        }
    }

    fn event(&self) -> io::Result<()> {
        // What is read says nothing; it only wakes.
        match (&self.events).read(&mut [0; 64]) {
            Err(err) if err.kind() != io::ErrorKind::Interrupted => Err(err),
            _ => Ok(()),
        }
    }
}

/// The search path: our own directory first, so that hooks find the tools that came with us.
fn path() -> OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let own = env::current_exe().ok();
    let own = own.and_then(|exe| exe.parent().map(PathBuf::from));
    let dirs = own.into_iter().chain(env::split_paths(&inherited));
    env::join_paths(dirs).unwrap_or(inherited)
}

/// A command of that name is there.
pub fn is_installed(name: &str) -> bool {
    env::split_paths(&path()).any(|dir| {
        dir.join(name)
            .metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

/// A command of that name, with the environment that wg-quick's commands have.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", path()).env("LC_ALL", "C");
    command
}

/// Runs a command, showing it first; its standard input is `input`.
pub fn run(signals: &Signals, args: &[&str], input: &[u8]) -> Result<(), Failed> {
    say(format_args!("[#] {}", args.join(" ")));
    let Some((name, args)) = args.split_first() else {
        return Ok(());
    };
    let mut child = command(name)
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|err| not_started(name, &err))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it all says itself why.
        let _ = stdin.write_all(input);
    }
    status(signals.wait(&mut child), name)
}

/// Runs a hook in bash, or in sh where there is no bash, showing it first.
pub fn hook(signals: &Signals, hook: &OsStr, name: &str) -> Result<(), Failed> {
    let script = expanded(hook, name);
    say(format_args!("[#] {}", script.to_string_lossy()));
    let shell = if is_installed("bash") { "bash" } else { "sh" };
    let mut command = command(shell);
    // The options under which wg-quick evaluates its hooks.
    if shell == "bash" {
        command.args(["-O", "extglob", "-o", "pipefail"]);
    }
    let mut child = command
        .arg("-e")
        .arg("-c")
        .arg(&script)
        .arg("wg-quick")
        .spawn()
        .map_err(|err| not_started(shell, &err))?;
    status(signals.wait(&mut child), shell)
}

fn expanded(hook: &OsStr, name: &str) -> OsString {
    let mut script = Vec::new();
    let mut rest = hook.as_bytes();
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%i") {
        script.extend_from_slice(&rest[..at]);
        script.extend_from_slice(name.as_bytes());
        rest = &rest[at + 2..];
    }
    script.extend_from_slice(rest);
    OsString::from_vec(script)
}

fn not_started(name: &str, err: &io::Error) -> Failed {
    if err.kind() == io::ErrorKind::NotFound {
        return Failed::saying(NOT_FOUND, format_args!("{name}: command not found"));
    }
    Failed::saying(NOT_FOUND - 1, format_args!("{name}: {err}"))
}

fn status(status: io::Result<ExitStatus>, name: &str) -> Result<(), Failed> {
    let status = status.map_err(|err| not_started(name, &err))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failed(code)),
        None => Err(Failed(128 + status.signal().unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_name_is_put_in() {
        let put = |hook: &[u8]| expanded(OsStr::from_bytes(hook), "wg0").into_vec();
        assert_eq!(
            put(b"echo %i; %i%i %%i % i%"),
            b"echo wg0; wg0wg0 %wg0 % i%"
        );
        assert_eq!(put(b""), b"");
        assert_eq!(put(b"\xff%i\xfe"), b"\xffwg0\xfe");
    }

    #[test]
    fn hooks_run_as_in_wg_quick() {
        let signals = Signals::new().unwrap();
        let run = |text: &str| hook(&signals, OsStr::new(text), "wg0").map_err(|failed| failed.0);
        assert_eq!(run("true"), Ok(()));
        assert_eq!(run(""), Ok(()));
        assert_eq!(run("exit 7"), Err(7));
        // `set -e -o pipefail` and extglob are on.
        assert_eq!(run("false; true"), Err(1));
        assert_eq!(run("(exit 3) | true"), Err(3));
        assert_eq!(run("[[ %i == wg+(0) ]]"), Ok(()));
        assert_eq!(run("test $LC_ALL = C"), Ok(()));
        assert_eq!(run("kill -KILL $$"), Err(128 + 9));
        assert_eq!(run("diff <(echo %i) <(echo wg0)"), Ok(()));
    }

    #[test]
    fn commands_get_their_input() {
        let signals = Signals::new().unwrap();
        assert!(run(&signals, &["grep", "-q", "two"], b"one\ntwo\n").is_ok());
        assert!(run(&signals, &["grep", "-q", "three"], b"one\ntwo\n").is_err_and(|f| f.0 == 1));
        assert!(run(&signals, &["true"], &[b'x'; 1 << 20]).is_ok());
        assert!(run(&signals, &["no such command"], b"").is_err_and(|f| f.0 == 127));
        assert!(is_installed("sh") && !is_installed("no such command"));
    }

    #[test]
    fn long_work_is_waited_for() {
        let signals = Signals::new().unwrap();
        let begun = Instant::now();
        let work = || {
            std::thread::sleep(Duration::from_millis(50));
            5
        };
        assert_eq!(signals.interruptible(work).ok(), Some(5));
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}

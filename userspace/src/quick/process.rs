// SPDX-License-Identifier: GPL-2.0-only
//! Commands of others: resolvconf, iptables; and the signals that end us meanwhile.

use crate::say::{os_message, say, Failed};
use crate::signals::ignored;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
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
            // What nohup, for example, has us ignore stays ignored, in hooks as well.
            if ignored(signal) {
                continue;
            }
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
        let failed = |err: io::Error| Failed::saying(1, os_message(&err));
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

/// Where bash looks for programs if there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The search path: our own folder first, so that hooks find the tools that came with us. An empty
/// entry would stand for the current folder, which may be anybody's.
fn search_path(inherited: Option<OsString>, own: Option<&Path>) -> OsString {
    let inherited = inherited.unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&inherited)
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    if folders.is_empty() {
        folders = env::split_paths(DEFAULT_PATH).collect();
    }
    // A folder with a colon in its name cannot be in a search path.
    let own = own.filter(|own| own.is_absolute() && env::join_paths([own]).is_ok());
    let all = own.map(Path::to_path_buf).into_iter().chain(folders);
    env::join_paths(all).unwrap_or_else(|_| DEFAULT_PATH.into())
}

fn path() -> OsString {
    let own = env::current_exe().ok();
    search_path(env::var_os("PATH"), own.as_deref().and_then(Path::parent))
}

/// The search path for what did not come with us.
pub fn path_of_others() -> OsString {
    search_path(env::var_os("PATH"), None)
}

/// Where the command of that name is, if it is there. One with a slash is a path.
pub fn find(name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    env::split_paths(&path())
        .map(|folder| folder.join(name))
        .find(is_program)
}

/// A command of that name is there.
pub fn is_installed(name: &str) -> bool {
    find(name).is_some()
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

pub fn not_started(name: &str, err: &io::Error) -> Failed {
    if err.kind() == io::ErrorKind::NotFound {
        return Failed::saying(NOT_FOUND, format_args!("{name}: command not found"));
    }
    Failed::saying(NOT_FOUND - 1, format_args!("{name}: {}", os_message(err)))
}

pub fn status(status: io::Result<ExitStatus>, name: &str) -> Result<(), Failed> {
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

    /// Set in the process that ignores signals.
    const IGNORING: &str = "WG_RS_TEST_IGNORING";

    #[test]
    fn ignored_signals_stay_ignored() {
        let this = "quick::process::tests::ignored_signals_stay_ignored";
        if env::var_os(IGNORING).is_none() {
            // Again, as a program that ignores them.
            let exe = env::current_exe().unwrap();
            let script = format!("trap '' HUP INT TERM QUIT; exec \"$0\" --exact {this}");
            let mut shell = Command::new("sh");
            shell.env(IGNORING, "1").arg("-c").arg(script).arg(exe);
            let out = shell.output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let signals = Signals::new().unwrap();
        let script = "for signal in HUP INT TERM QUIT; do kill -$signal $PPID $$; done";
        assert_eq!(run(&signals, &["sh", "-c", script], b""), Ok(()));
        assert_eq!(signals.check(), Ok(()));
    }

    #[test]
    fn the_current_folder_is_never_searched() {
        let path = |inherited: Option<&str>, own: Option<&str>| {
            search_path(inherited.map(OsString::from), own.map(Path::new))
        };
        let default = DEFAULT_PATH;
        for nothing in [None, Some(""), Some(":"), Some("::")] {
            assert_eq!(path(nothing, None), default);
            assert_eq!(path(nothing, Some("/opt")), *format!("/opt:{default}"));
        }
        assert_eq!(path(Some(":/a::/b:"), Some("/opt")), "/opt:/a:/b");
        assert_eq!(path(Some("/a"), Some("/o:pt")), "/a");
        assert_eq!(path(Some("/a"), Some("")), "/a");
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

// SPDX-License-Identifier: GPL-2.0-only
//! Hooks: the commands of the user's in a configuration file.

use super::process::{command, find, is_installed, not_started, status, Signals};
use crate::say::{say, Failed};
use crate::signals::ignored;
use signal_hook::consts::SIGPIPE;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

/// Where hooks find a `wg` and a `wg-quick`, if none is installed.
const STAND_INS: &str = "/run/wg-rs";

/// wg-quick evaluates hooks among its own functions, of which they may call these.
const FUNCTIONS: &str = r#"cmd() { printf '[#] %s\n' "$*" >&2; "$@"; }
die() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; exit 1; }
eval "$1""#;
/// The shell ignores the signal, and so do the commands that it runs.
const IGNORE_PIPE: &str = "trap '' PIPE\n";

/// What is known of the tunnel, by the names that wg-quick's variables have.
pub type Variables = [(&'static str, OsString)];

/// Runs a hook in bash, or in sh where there is no bash, showing it first.
pub fn run(
    signals: &Signals,
    hook: &OsStr,
    name: &str,
    variables: &Variables,
) -> Result<(), Failed> {
    let script = expanded(hook, name);
    say(format_args!("[#] {}", script.to_string_lossy()));
    let (shell, options) = shell();
    let mut command = command(shell);
    if !is_installed("wg") && stand_ins().is_ok() {
        let path = command.get_envs().find(|(name, _)| *name == "PATH");
        let path = path.and_then(|(_, path)| path).unwrap_or_default();
        let folders = env::split_paths(path).chain([PathBuf::from(STAND_INS)]);
        if let Ok(path) = env::join_paths(folders) {
            command.env("PATH", path);
        }
    }
    // Starting a program resets this one.
    let ignore = if ignored(SIGPIPE) { IGNORE_PIPE } else { "" };
    command
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .args(options)
        .args(["-e", "-c", &format!("{ignore}{FUNCTIONS}"), "wg-quick"])
        .arg(&script);
    let child = command.spawn();
    let mut child = child.map_err(|err| not_started(shell, &err))?;
    status(signals.wait(&mut child), shell)
}

/// What is wrong with a hook, if the shell cannot even read it.
pub fn syntax_error(hook: &OsStr, name: &str) -> Option<String> {
    let (shell, options) = shell();
    let out = command(find(shell)?.to_str()?)
        // Files that a shell reads first.
        .env_remove("BASH_ENV")
        .env_remove("ENV")
        .args(options)
        .args(["-n", "-c"])
        .arg(expanded(hook, name))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    if out.status.success() {
        return None;
    }
    // `bash: -c: line 1: WHAT`
    let said = String::from_utf8_lossy(&out.stderr);
    let first = said.lines().next().unwrap_or_default();
    let reason = first
        .rsplit_once("line 1: ")
        .map_or(first, |(_, what)| what);
    Some(reason.to_owned())
}

/// The shell for hooks, and the options under which wg-quick evaluates them.
fn shell() -> (&'static str, &'static [&'static str]) {
    if is_installed("bash") {
        ("bash", &["-O", "extglob", "-o", "pipefail"])
    } else {
        ("sh", &[])
    }
}

/// Makes links to ourselves by the names that hooks call.
fn stand_ins() -> io::Result<()> {
    let program = env::current_exe()?;
    let folder = Path::new(STAND_INS);
    fs::create_dir_all(folder)?;
    for name in ["wg", "wg-quick"] {
        let link = folder.join(name);
        if fs::read_link(&link).is_ok_and(|to| to == program) {
            continue;
        }
        // At once: another hook may be using the old one.
        let new = folder.join(format!("{name}.{}", process::id()));
        symlink(&program, &new)?;
        fs::rename(&new, &link)?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let variables = [("INTERFACE", "wg0".into()), ("PROGRAM", "wg-quick".into())];
        let run = |text: &str| {
            let done = run(&signals, OsStr::new(text), "wg0", &variables);
            done.map_err(|failed| failed.0)
        };
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
    fn hooks_know_the_tunnel() {
        let signals = Signals::new().unwrap();
        let variables = [("INTERFACE", "wg0".into()), ("PROGRAM", "wg-quick".into())];
        let run = |text: &str| {
            let done = run(&signals, OsStr::new(text), "wg0", &variables);
            done.map_err(|failed| failed.0)
        };
        assert_eq!(
            run("test $INTERFACE = %i && cmd test $PROGRAM = wg-quick"),
            Ok(())
        );
        assert_eq!(run("cmd false || die gone"), Err(1));
        assert_eq!(run("[[ $(cmd true 2>&1) == '[#] true' ]]"), Ok(()));
        assert_eq!(
            run("[[ $(die x y 2>&1) == 'wg-quick: x y' ]] # a comment"),
            Ok(())
        );
    }

    #[test]
    fn what_a_shell_cannot_read() {
        let error = |text: &str| syntax_error(OsStr::new(text), "wg0");
        for good in [
            "",
            "echo %i",
            "false; exit 3",
            "[[ a == +(a) ]]",
            "echo '#' # if (",
        ] {
            assert_eq!(error(good), None, "{good}");
        }
        for bad in [
            "if true",
            "echo (",
            "echo 'a",
            "case x in",
            "for i in 1; do",
        ] {
            let why = error(bad).unwrap();
            assert!(!why.is_empty() && !why.contains("line 1"), "{bad}: {why}");
        }
        // Nothing is run.
        assert_eq!(error("kill -KILL $$ $PPID"), None);
    }
}

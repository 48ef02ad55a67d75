// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs status`: which driver serves the link type `wireguard`, and why it is not the module
//! `wireguard_rs` where it is not.

use crate::genl;
use nix::sys::utsname::uname;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const OURS: &str = "wireguard_rs";
const INTREE: &str = "wireguard";
/// What the rule for modprobe (`scripts/wireguard_rs.conf`) says in the kernel log.
const FALLBACK: &str = "wireguard_rs cannot be loaded";
/// Where the DKMS package says why it has not built the module for a kernel.
const REASONS: &str = "var/lib/wireguard-rs-dkms";
/// The logs of builds that failed.
const DKMS: &str = "var/lib/dkms/wireguard-rs";

/// What is known about the drivers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release.
    release: String,
    /// The version of the loaded module `wireguard_rs`.
    ours: Option<String>,
    /// It was loaded with `coexist=1`.
    coexists: bool,
    /// The version of the in-tree driver that is loaded or built in.
    intree: Option<String>,
    /// modprobe finds `wireguard_rs` for this kernel.
    installed: bool,
    /// modprobe finds the in-tree driver for this kernel.
    intree_installed: bool,
    /// Why the package has not built it for this kernel.
    reason: Option<String>,
    /// The log of a build that failed.
    build_log: Option<String>,
    /// Lockdown, if it is on: `integrity` or `confidentiality`.
    lockdown: Option<String>,
    /// Lines of the kernel log about `wireguard_rs`; none if it cannot be read.
    log: Option<Vec<String>>,
}

/// The version in /sys/module, if the module is there; in-tree modules need not have one.
fn version_of(root: &Path, module: &str) -> Option<String> {
    let folder = root.join("sys/module").join(module);
    let version = || fs::read_to_string(folder.join("version"));
    folder
        .exists()
        .then(|| version().map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()))
}

/// modules.dep, or the list of what is built in, names the module.
fn lists(folder: &Path, module: &str) -> bool {
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let text = text("modules.dep") + &text("modules.builtin");
    let paths = text.lines().filter_map(|line| line.split(':').next());
    let mut names = paths.filter_map(|path| path.rsplit('/').next()?.split(".ko").next());
    names.any(|name| name == module)
}

/// The selected word of `/sys/kernel/security/lockdown`, unless that is `none`.
fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (word, _) = rest.split_once(']')?;
    (word != "none").then(|| word.to_owned())
}

/// What a record of `/dev/kmsg` says: after `;`, in its first line.
fn message(record: &str) -> Option<&str> {
    record.split_once(';')?.1.lines().next()
}

/// The lines of the kernel log that are about our module. Each read gives one record.
fn kernel_log(root: &Path) -> io::Result<Vec<String>> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(root.join("dev/kmsg"))?;
    let mut lines = Vec::new();
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(lines),
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                lines.extend(
                    message(&text)
                        .filter(|line| concerns(line))
                        .map(str::to_owned),
                );
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lines),
            // Records that were overwritten meanwhile.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
}

fn concerns(line: &str) -> bool {
    line.starts_with(OURS)
        || line.contains("unsigned module loading is restricted")
        || line.contains("Loading of ") && line.contains("module")
}

/// The newest log of a build for the kernel that failed.
fn build_log(root: &Path, release: &str) -> Option<String> {
    let versions = fs::read_dir(root.join(DKMS)).ok()?.flatten();
    let logs = versions.map(|version| version.path().join("build/make.log"));
    let is_of_kernel =
        |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains(release));
    let log = logs.into_iter().find(|path| is_of_kernel(path))?;
    let log = log.strip_prefix(root).ok()?;
    Some(format!("/{}", log.display()))
}

impl Facts {
    /// Looks at this machine, or at files below another root.
    pub fn read(root: &Path) -> io::Result<Self> {
        let release = uname()?.release().to_string_lossy().into_owned();
        let modules = root.join("lib/modules").join(&release);
        let reason = root.join(REASONS).join(format!("{release}.reason"));
        let security = root.join("sys/kernel/security/lockdown");
        Ok(Self {
            ours: version_of(root, OURS),
            coexists: genl::coexists()?,
            intree: version_of(root, INTREE),
            installed: lists(&modules, OURS),
            intree_installed: lists(&modules, INTREE),
            reason: fs::read_to_string(reason)
                .ok()
                .map(|text| text.trim().to_owned()),
            build_log: build_log(root, &release),
            lockdown: lockdown(&fs::read_to_string(security).unwrap_or_default()),
            log: kernel_log(root).ok(),
            release,
        })
    }

    /// Who serves.
    fn driver(&self) -> String {
        match (&self.ours, &self.intree) {
            (Some(version), _) if !self.coexists => format!("{OURS} {version}"),
            (_, Some(version)) => format!("in-tree {version}"),
            _ if self.installed && !self.coexists => {
                format!("none yet; {OURS} is loaded on demand")
            }
            _ if self.intree_installed => "none yet; the in-tree driver is loaded on demand".into(),
            _ => "none".into(),
        }
    }

    /// Why not ours, and what to do about it; nothing if ours serves, or will.
    fn why_not_ours(&self) -> Option<(String, String)> {
        let pair = |why: &str, hint: &str| Some((why.to_owned(), hint.to_owned()));
        if self.coexists {
            return pair(
                "wireguard_rs was loaded with coexist=1: it serves links of type wireguard_rs",
                "to have it serve all, unload both modules and load it without coexist=1",
            );
        }
        if self.ours.is_some() {
            return None;
        }
        if !self.installed {
            return Some(self.why_not_built());
        }
        let log = self.log.as_deref().unwrap_or_default();
        let tried = log.iter().any(|line| line.starts_with(FALLBACK));
        if let (true, Some(mode)) = (tried, &self.lockdown) {
            return Some((
                format!("the kernel refused wireguard_rs: lockdown ({mode}) asks for a signature"),
                "enrol the key that signed it: mokutil --import /var/lib/dkms/mok.pub, and reboot"
                    .into(),
            ));
        }
        if tried {
            let of_kernel = |line: &&String| !line.starts_with(FALLBACK);
            let said = log.iter().rev().find(of_kernel).map_or("", String::as_str);
            return Some((
                format!("the kernel refused wireguard_rs: {said}"),
                "see `dmesg'; `modprobe wireguard_rs' tries again".into(),
            ));
        }
        self.intree.as_ref()?;
        let hint = "reboot; or `modprobe -r wireguard', which removes its interfaces";
        match self.log {
            Some(_) => pair("the in-tree driver was loaded first", hint),
            None => pair(
                "the in-tree driver was loaded first, or the kernel refused wireguard_rs",
                "run this as root: it can read the kernel log then",
            ),
        }
    }

    fn why_not_built(&self) -> (String, String) {
        let why = "not installed for this kernel";
        if let Some(reason) = &self.reason {
            let (first, rest) = reason.split_once('\n').unwrap_or((reason, ""));
            return (format!("{why}: {first}"), rest.trim().to_owned());
        }
        let hint = match &self.build_log {
            Some(log) => format!("the build failed: see {log}"),
            None => "it needs a kernel with Rust: see `dkms status', or build it with make".into(),
        };
        (why.to_owned(), hint)
    }

    /// Writes them for people: `name: value`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "driver: {}", self.driver())?;
        writeln!(out, "kernel: {}", self.release)?;
        if let Some((why, hint)) = self.why_not_ours() {
            writeln!(out, "why: {why}")?;
            if !hint.is_empty() {
                writeln!(out, "hint: {hint}")?;
            }
        }
        Ok(())
    }

    /// Somebody serves, or would on demand.
    pub fn has_driver(&self) -> bool {
        self.driver() != "none"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(facts: &Facts) -> String {
        let mut out = Vec::new();
        facts.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn intree() -> Facts {
        Facts {
            release: "7.3.4".into(),
            intree: Some("1.0.0".into()),
            intree_installed: true,
            log: Some(Vec::new()),
            ..Facts::default()
        }
    }

    #[test]
    fn ours_serves() {
        let facts = Facts {
            ours: Some("0.1.0".into()),
            installed: true,
            ..intree()
        };
        assert_eq!(text(&facts), "driver: wireguard_rs 0.1.0\nkernel: 7.3.4\n");
        let beside = text(&Facts {
            coexists: true,
            ..facts
        });
        assert!(beside.starts_with("driver: in-tree 1.0.0\n"), "{beside}");
        assert!(beside.contains("why: wireguard_rs was loaded with coexist=1"));
    }

    #[test]
    fn nobody_yet() {
        let mut facts = Facts {
            intree: None,
            ..intree()
        };
        assert!(text(&facts).contains("driver: none yet; the in-tree driver"));
        facts.installed = true;
        assert!(text(&facts).contains("driver: none yet; wireguard_rs"));
        assert!(!text(&facts).contains("why:"));
        let nothing = Facts::default();
        assert!(text(&nothing).starts_with("driver: none\n"));
        assert!(facts.has_driver() && !nothing.has_driver());
    }

    #[test]
    fn not_built() {
        let mut facts = intree();
        assert!(text(&facts).contains("why: not installed for this kernel\n"));
        facts.build_log = Some("/var/make.log".into());
        assert!(text(&facts).contains("hint: the build failed: see /var/make.log\n"));
        facts.reason = Some("no source\napt install it".into());
        assert!(text(&facts).contains("kernel: no source\nhint: apt install it\n"));
    }

    #[test]
    fn refused() {
        let mut facts = Facts {
            installed: true,
            ..intree()
        };
        assert!(text(&facts).contains("why: the in-tree driver was loaded first\n"));
        facts.log = None;
        assert!(text(&facts).contains("or the kernel refused"));
        facts.log = Some(vec![
            "wireguard_rs: version magic 'x' should be 'y'".into(),
            format!("{FALLBACK}: using the in-tree driver"),
        ]);
        assert!(
            text(&facts).contains("why: the kernel refused wireguard_rs: wireguard_rs: version")
        );
        facts.lockdown = Some("integrity".into());
        assert!(text(&facts).contains("lockdown (integrity)"));
        assert!(text(&facts).contains("mokutil --import"));
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(
            lockdown("none [integrity] confidentiality\n").unwrap(),
            "integrity"
        );
        assert_eq!(lockdown("[none] integrity confidentiality\n"), None);
        assert_eq!(lockdown(""), None);
        assert_eq!(
            message("4,12,99,-;wireguard_rs: hello\n X=y\n"),
            Some("wireguard_rs: hello")
        );
        assert!(concerns("Loading of unsigned module is rejected"));
        assert!(!concerns("wireguard: WireGuard 1.0.0 loaded"));
    }

    #[test]
    fn finds_modules() {
        let root = std::env::temp_dir().join(format!("wg-rs-status-{}", std::process::id()));
        let release = uname().unwrap().release().to_string_lossy().into_owned();
        let modules = root.join("lib/modules").join(&release);
        let reasons = root.join(REASONS);
        for folder in [&modules, &reasons, &root.join("sys/module/wireguard")] {
            fs::create_dir_all(folder).unwrap();
        }
        let dep = "updates/dkms/wireguard_rs.ko.xz: kernel/net/udp_tunnel.ko.xz\n";
        fs::write(modules.join("modules.dep"), dep).unwrap();
        fs::write(modules.join("modules.builtin"), "kernel/net/wireguard.ko\n").unwrap();
        fs::write(reasons.join(format!("{release}.reason")), "why\n").unwrap();
        fs::write(root.join("sys/module/wireguard/version"), "1.0.0\n").unwrap();
        let facts = Facts::read(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert!(facts.installed && facts.intree_installed);
        assert_eq!(facts.reason.as_deref(), Some("why"));
        assert_eq!((facts.ours, facts.intree), (None, Some("1.0.0".into())));
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Two equal environments, one for the ordinary tool and one for wg-rs.

use super::call::{Call, Seen};
use anyhow::{bail, ensure, Context, Result};
use harness::cmd;
use harness::dns;
use harness::gnl::{Answer, Gnl};
use harness::netlink::{family_id, Netlink};
use harness::netns::Netns;
use harness::pair::{get, get_named, INDEX, NAME};
use harness::tool::conf_text;
use harness::wgdev::{base64, parse_dump, DeviceConf, PeerConf};
use nix::mount::{mount, MsFlags};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The environment variable with the path of wg-rs.
const TOOL: &str = "WGRS_TOOL";
/// A tmpfs of the test.
pub const DIR: &str = "/run/wgrs-tool";
/// The names of the sides in messages.
pub const SIDES: [&str; 2] = ["wg", "wg-rs"];
/// The link kind, and the family's name.
pub const KIND: &str = "wireguard";

/// Creates the test's folder, with a link to wg-rs for each name by which it is called; files in
/// `/etc` that do not depend on the machine; and copies of `programs` in memory.
pub fn prepare(programs: &[&str]) -> Result<()> {
    let tool = std::env::var_os(TOOL).map(PathBuf::from);
    let tool = tool.with_context(|| format!("this test needs wg-rs: set {TOOL} to its path"))?;
    ensure!(tool.is_file(), "{TOOL}: no such file: {}", tool.display());
    fs::create_dir_all(DIR)?;
    let none = None::<&str>;
    mount(none, DIR, Some("tmpfs"), MsFlags::empty(), none).context("mount a tmpfs")?;
    for folder in ["bin", "files", "scratch0", "scratch1"] {
        fs::create_dir(Path::new(DIR).join(folder))?;
    }
    for name in ["wg", "wg-quick", "wg-rs"] {
        symlink(&tool, Path::new(DIR).join("bin").join(name))?;
    }
    let tool = tool.to_string_lossy();
    for path in opened_by(&[programs, &[&tool]].concat())? {
        keep_in_memory(&path)?;
    }
    overlay(
        "/etc/hosts",
        "127.0.0.1 localhost\n192.0.2.77 host.example host\n2001:db8::77 host6.example\n",
    )?;
    // One attempt: for one of the names the server answers SERVFAIL.
    overlay(
        "/etc/resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:10 attempts:1\n",
    )
}

/// These programs, their loader and their libraries.
fn opened_by(programs: &[&str]) -> Result<BTreeSet<PathBuf>> {
    // It rejects scripts and static programs, but lists the others.
    let listed = cmd::try_run(&[&["ldd"], programs].concat(), "")?.stdout;
    let words = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'));
    words
        .chain(programs.iter().copied())
        .map(|path| Ok(fs::canonicalize(path)?))
        .collect()
}

/// Bind-mounts a copy over the file: the guest's root is a folder of the host, where each open is
/// slow.
fn keep_in_memory(path: &Path) -> Result<()> {
    let copy = Path::new(DIR).join(path.to_string_lossy().replace('/', "_"));
    fs::copy(path, &copy).with_context(|| path.display().to_string())?;
    let none = None::<&str>;
    mount(Some(&copy), path, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("cover {}", path.display()))
}

/// Bind-mounts a file with this content over `path`, which need not exist.
pub fn overlay(path: &str, content: &str) -> Result<()> {
    let file = Path::new(DIR).join(path.replace('/', "_"));
    fs::write(&file, content)?;
    if !Path::new(path).exists() {
        fs::write(path, "").with_context(|| path.to_owned())?;
    }
    let none = None::<&str>;
    mount(Some(&file), path, none, MsFlags::MS_BIND, none).with_context(|| format!("cover {path}"))
}

/// The program of side `n` for calls of `name`.
pub fn program(n: usize, name: &str) -> PathBuf {
    match n {
        0 => Path::new("/usr/bin").join(name),
        _ => Path::new(DIR).join("bin").join(name),
    }
}

/// The results of a call on the two sides.
pub type Both = [Seen; 2];

/// Two namespaces, each with a device `wg0` of the same interface index; the ordinary tools work
/// in the first, wg-rs in the second.
pub struct Sides {
    /// The namespaces.
    pub ns: [Netns; 2],
    sockets: [Gnl; 2],
}

impl Sides {
    /// Creates both, with a name server each (see [`dns`]).
    pub fn new() -> Result<Self> {
        prepare(&["/usr/bin/wg"])?;
        let ns = [Netns::new("c")?, Netns::new("rs")?];
        let socket = |ns: &Netns| {
            dns::serve(ns)?;
            ns.rtnl()?.link_add_at(INDEX, NAME, KIND)?;
            ns.run(|| {
                let family = family_id(&mut Netlink::generic()?, KIND)?;
                Ok(Gnl::open(family)?)
            })
        };
        let sockets = [socket(&ns[0])?, socket(&ns[1])?];
        Ok(Sides { ns, sockets })
    }

    /// Executes the call on both sides concurrently.
    pub fn run(&self, call: &Call) -> Result<Both> {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.on(0, 0, call));
            let ours = self.on(1, 1, call)?;
            let theirs = other.join().unwrap_or_else(|_| bail!("panic"))?;
            Ok([theirs, ours])
        })
    }

    /// Executes the call with the tool of side `tool` in the namespace of side `place`.
    pub fn on(&self, tool: usize, place: usize, call: &Call) -> Result<Seen> {
        let program = program(tool, call.name);
        let scratch = Path::new(DIR).join(["scratch0", "scratch1"][tool]);
        self.ns[place].run(|| call.run(&program, &scratch))
    }

    /// `wg` 1.0.20260223 also takes the preshared key and the keepalive from a peer for which the
    /// file of `syncconf` has none. After this call the device of the installed `wg`, which may be
    /// older, is as it would be by that version: what a peer should have is what `setconf` of the
    /// file gives it.
    pub fn mend_syncconf(&mut self, call: &Call, seen: &Seen) -> Result<()> {
        const OTHER: &str = "sync0";
        let is_it = call.args.first().is_some_and(|verb| verb == "syncconf");
        if !is_it || !seen.ok() || call.args[1] != NAME {
            return Ok(());
        }
        self.ns[0].rtnl()?.link_add(OTHER, KIND)?;
        let mut setconf = call.clone();
        (setconf.args[0], setconf.args[1]) = ("setconf".into(), OTHER.into());
        let done = self.on(0, 0, &setconf)?;
        ensure!(done.ok(), "{setconf}: {done:?}");
        let [a, _] = self.dumps()?;
        let wanted = self.ns[0].run(|| {
            let family = family_id(&mut Netlink::generic()?, KIND)?;
            Ok(Gnl::open(family)?.ask(&get_named(OTHER))?)
        })?;
        let wanted = parse_dump(&wanted.replies()).peers;
        for now in parse_dump(&a.replies()).peers {
            let Some(wanted) = wanted.iter().find(|peer| peer.public_key == now.public_key) else {
                continue;
            };
            let key = base64(&now.public_key);
            let mut args = vec!["set", NAME, "peer", &key];
            if now.preshared_key != wanted.preshared_key {
                args.extend(["preshared-key", "/dev/null"]);
            }
            if now.keepalive != wanted.keepalive {
                args.extend(["persistent-keepalive", "off"]);
            }
            if args.len() > 4 {
                let done = self.on(0, 0, &Call::new("wg", args))?;
                ensure!(done.ok(), "{done:?}");
            }
        }
        self.ns[0].rtnl()?.link_del(OTHER)?;
        Ok(())
    }

    /// The kernel's dumps of both devices.
    pub fn dumps(&mut self) -> Result<[Answer; 2]> {
        let [a, b] = &mut self.sockets;
        Ok([a.ask(&get())?, b.ask(&get())?])
    }

    /// Creates both devices again and configures both with `conf`, by the ordinary tool.
    pub fn reset(&mut self, conf: &str) -> Result<()> {
        let call = Call::new("wg", ["setconf", NAME, "/dev/stdin"]).stdin(conf);
        for n in 0..2 {
            let mut rt = self.ns[n].rtnl()?;
            rt.link_del(NAME)?;
            rt.link_add_at(INDEX, NAME, KIND)?;
            let seen = self.on(0, n, &call)?;
            ensure!(seen.ok(), "`wg setconf` of {conf}: {seen:?}");
        }
        let [a, b] = self.dumps()?;
        ensure!(a.parts == b.parts, "devices configured equally differ");
        Ok(())
    }
}

/// A device's dump as a configuration file.
pub fn as_conf(dump: &Answer) -> String {
    let device = parse_dump(&dump.replies());
    let peer = |p: harness::wgdev::Peer| PeerConf {
        public_key: p.public_key,
        preshared_key: Some(p.preshared_key).filter(|key| *key != [0; 32]),
        endpoint: p.endpoint,
        keepalive: Some(p.keepalive),
        flags: 0,
        allowed_ips: p.allowed_ips,
    };
    conf_text(&DeviceConf {
        private_key: device.private_key,
        listen_port: Some(device.listen_port),
        fwmark: Some(device.fwmark),
        flags: 0,
        peers: device.peers.into_iter().map(peer).collect(),
    })
}

/// What both tools print before their version: wg-rs follows 1.0.20260223, and the installed `wg`
/// may be older.
const VERSION: &[u8] = b"wireguard-tools v";

/// The difference, if there is one, in words.
pub fn difference(both: &Both) -> Option<String> {
    let [c, rs] = both;
    let versions = [c, rs].iter().all(|seen| seen.stdout.starts_with(VERSION));
    let what = if c.end != rs.end {
        "exit status"
    } else if c.stdout != rs.stdout && !versions {
        "standard output"
    } else if c.stderr != rs.stderr && !only_hides(&c.stderr, &rs.stderr) {
        "standard error"
    } else {
        return None;
    };
    Some(format!(
        "different {what}\n  {}: {c:?}\n  {}: {rs:?}",
        SIDES[0], SIDES[1]
    ))
}

/// Whether wg-rs differs only on purpose: `wg` shows in its errors what may be a secret, and wg-rs
/// does not.
fn only_hides(c: &[u8], rs: &[u8]) -> bool {
    const HIDDEN: &[u8] = b"(hidden)'";
    let [c, rs] = [c, rs].map(|text| text.split(|b| *b == b'\n').collect::<Vec<_>>());
    let alike = |(c, rs): (&&[u8], &&[u8])| {
        let start = rs.strip_suffix(HIDDEN);
        let hides = start.is_some_and(|start| {
            let what = [
                &b"Key is not the correct length or format: `"[..],
                b"Line unrecognized: `",
            ];
            let hidden = c
                .strip_prefix(start)
                .and_then(|text| text.strip_suffix(b"'"));
            // Whatever the error is about: a text as long as a key may be a misplaced key.
            hidden.is_some_and(|text| text.len() >= 40)
                || hidden.is_some() && what.iter().any(|what| start.starts_with(what))
        });
        c == rs || hides
    };
    c.len() == rs.len() && c.iter().zip(&rs).all(alike)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hiding_is_no_difference() {
        let c = b"Line unrecognized: `PrivateKey=x'\nConfiguration parsing error\n";
        assert!(only_hides(
            c,
            b"Line unrecognized: `PrivateKey=(hidden)'\nConfiguration parsing error\n"
        ));
        assert!(only_hides(
            c,
            b"Line unrecognized: `(hidden)'\nConfiguration parsing error\n"
        ));
        assert!(!only_hides(c, b"Line unrecognized: `(hidden)'\n"));
        assert!(!only_hides(
            c,
            b"Something: `(hidden)'\nConfiguration parsing error\n"
        ));
        assert!(!only_hides(b"Port: `x'", b"Port: `(hidden)'"));
        let long = [b"Port: `".to_vec(), vec![b'x'; 44], b"'".to_vec()].concat();
        assert!(only_hides(&long, b"Port: `(hidden)'"));
    }
}

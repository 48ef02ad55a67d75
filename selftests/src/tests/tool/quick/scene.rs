// SPDX-License-Identifier: GPL-2.0-only
//! Two equal networks, and everything that is visible of the client in each.

use super::super::call::{Call, Seen};
use super::super::sides::{prepare, program, DIR, KIND, SIDES};
use super::cases::{Act, Case};
use anyhow::{bail, ensure, Context, Result};
use harness::cmd;
use harness::dns;
use harness::gnl::Gnl;
use harness::netlink::{family_id, Netlink};
use harness::netns::Netns;
use harness::pair::get;
use harness::wgdev::{base64, parse_dump};
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use x25519_dalek::{PublicKey, StaticSecret};

/// Programs that the ordinary tool and the hooks call.
pub const TOOLS: &[&str] = &[
    "/usr/bin/wg",
    "/usr/bin/wg-quick",
    "/usr/bin/bash",
    "/usr/bin/ip",
    "/usr/sbin/nft",
    "/usr/sbin/iptables",
    "/usr/sbin/sysctl",
    "/usr/bin/stat",
    "/usr/bin/readlink",
    "/usr/bin/sort",
    "/usr/bin/sync",
    "/usr/bin/mv",
    "/usr/bin/rm",
    "/usr/bin/cat",
    "/usr/bin/wc",
    "/usr/bin/tee",
    "/usr/bin/ping",
    "/usr/bin/sh",
];
/// What belongs to one side appears here, for the side's own tools and hooks.
pub const OWN: &str = "/run/wgrs-tool/own";
/// Folders in [`OWN`], and where else each appears.
const FOLDERS: &[(&str, &str)] = &[
    ("etc", "/etc/wireguard"),
    ("resolvconf", "/etc/resolvconf"),
    ("bin", ""),
];
/// The search path of a side's programs.
pub const PATH: &str = "/run/wgrs-tool/own/bin:/usr/sbin:/usr/bin";
/// The client's and the server's private key.
const PRIVATE: [[u8; 32]; 2] = [[0x11; 32], [0x22; 32]];

/// The private key of the client (0) or the server (1), in base64.
pub fn private(n: usize) -> String {
    base64(&PRIVATE[n])
}

/// The public key of the client (0) or the server (1), in base64.
pub fn public(n: usize) -> String {
    base64(&PublicKey::from(&StaticSecret::from(PRIVATE[n])).to_bytes())
}

/// A client with a default route to a gateway, and behind that the world: 198.51.100.7 and
/// 2001:db8:77::7. The gateway is also a WireGuard server at 198.51.100.1, 10.8.0.1, fd08::1.
pub struct Place {
    /// The client.
    pub client: Netns,
    world: Netns,
    /// What the client sees as [`OWN`].
    pub own: PathBuf,
}

/// The visible state of a client, by kind.
pub type State = BTreeMap<String, String>;

impl Place {
    /// A place for wg-rs only.
    pub fn lone() -> Result<Self> {
        ready()?;
        Place::new(1)
    }

    fn new(n: usize) -> Result<Self> {
        let (client, world) = (
            Netns::new(&format!("client{n}"))?,
            Netns::new(&format!("world{n}"))?,
        );
        dns::serve(&client)?;
        let script = format!(
            "ip link add eth0 address 02:00:00:00:00:01 type veth \
                peer name eth0 address 02:00:00:00:00:02 netns {world}
             sysctl -qw net.ipv6.conf.eth0.accept_dad=0
             sysctl -qw net.ipv6.conf.eth0.router_solicitations=0
             ip netns exec {world} sysctl -qw net.ipv6.conf.eth0.accept_dad=0
             ip link set eth0 up
             ip -n {world} link set eth0 up
             ip addr add 192.0.2.10/24 dev eth0
             ip addr add 2001:db8:1::10/64 dev eth0 nodad
             ip route add default via 192.0.2.1
             ip route add default via 2001:db8:1::1
             ip -n {world} -b - <<END
             addr add 192.0.2.1/24 dev eth0
             addr add 2001:db8:1::1/64 dev eth0 nodad
             addr add 198.51.100.7/32 dev lo
             addr add 198.51.100.1/32 dev lo
             addr add 2001:db8:77::7/128 dev lo
             addr add 2001:db8:77::1/128 dev lo
             link add wg0 type wireguard
             addr add 10.8.0.1/24 dev wg0
             addr add fd08::1/64 dev wg0 nodad
             link set wg0 up
             route add 10.8.1.2/32 dev wg0
             route add 192.0.2.10/32 dev eth0 src 198.51.100.1
END
             ip netns exec {world} wg set wg0 listen-port 51820 private-key <(echo {})",
            private(1),
            world = world.name(),
        );
        client.run(|| cmd::run(&["bash", "-ec", &script]))?;
        let own = Path::new(DIR).join(format!("own{n}"));
        let _ = fs::remove_dir_all(&own);
        fs::DirBuilder::new().mode(0o700).create(&own)?;
        let place = Place { client, world, own };
        place.clear()?;
        place.new_peer()?;
        Ok(place)
    }

    /// Empties the folders of the client.
    pub fn clear(&self) -> Result<()> {
        for (folder, _) in FOLDERS {
            let folder = self.own.join(folder);
            let _ = fs::remove_dir_all(&folder);
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
        }
        let _ = fs::remove_file(self.own.join("log"));
        Ok(())
    }

    /// Writes a file below the client's folder.
    pub fn put(&self, name: &str, mode: u32, content: &str) -> Result<()> {
        let path = self.own.join(name);
        fs::write(&path, content)?;
        Ok(fs::set_permissions(
            &path,
            fs::Permissions::from_mode(mode),
        )?)
    }

    /// What the client's programs have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.own.join("log")).unwrap_or_default()
    }

    /// Calls wg-rs there, under the call's name.
    pub fn call(&self, call: &Call) -> Result<Seen> {
        self.run(|| call.run(&program(1, call.name), &self.own))
    }

    /// Runs a shell script there; returns its standard output.
    pub fn sh(&self, script: &str) -> Result<String> {
        let seen = self.run(|| {
            let call = Call::new("bash", ["-ec", script]).env("PATH", PATH);
            call.run(Path::new("/usr/bin/bash"), &self.own)
        })?;
        ensure!(seen.ok(), "{script}: {seen:?}");
        Ok(String::from_utf8_lossy(&seen.stdout).into_owned())
    }

    /// Makes the client a new peer of the server, which would otherwise use its last endpoint.
    fn new_peer(&self) -> Result<()> {
        let key = public(0);
        let ips = "10.8.0.2/32,10.8.1.2/32,fd08::2/128";
        let peer = ["peer", &key, "remove", "peer", &key, "allowed-ips", ips];
        let args = ["wg", "set", "wg0"].into_iter().chain(peer);
        self.world.run(|| cmd::run(&args.collect::<Vec<_>>()))?;
        Ok(())
    }

    /// Runs `f` in the client's namespaces: its own network, `/etc/wireguard` and [`OWN`].
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.client.run(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            for (from, to) in [("", OWN)].iter().chain(FOLDERS) {
                if !to.is_empty() {
                    let from = self.own.join(from);
                    mount(Some(&from), *to, none, MsFlags::MS_BIND, none)
                        .with_context(|| (*to).to_owned())?;
                }
            }
            f()
        })
    }

    /// Everything that a tool may have changed.
    pub fn state(&self) -> Result<State> {
        let mut state = self.run(|| {
            let mut state = State::new();
            let all = "link show\naddr show\nrule show\nroute show table all\n";
            for family in ["-4", "-6"] {
                let shown = cmd::try_run(&["ip", family, "-d", "-batch", "-"], all)?;
                // The only name that must differ.
                let shown = shown.stdout.replace(self.world.name(), "world");
                state.insert(format!("ip {family}"), without_indices(&shown));
            }
            // Empty if the kernel has no nf_tables.
            let rules = cmd::try_run(&["nft", "list", "ruleset"], "")?.stdout;
            state.insert("nft".to_owned(), rules);
            for tool in ["iptables-save", "ip6tables-save"] {
                let own = format!("{OWN}/bin/{tool}");
                if Path::new(&own).exists() {
                    let rules = without_counters(&cmd::run(&[&own])?);
                    state.insert(tool.to_owned(), rules);
                }
            }
            for name in [
                "ipv4/conf/all/src_valid_mark",
                "ipv4/conf/all/rp_filter",
                "ipv4/ip_forward",
            ] {
                let value = fs::read_to_string(Path::new("/proc/sys/net").join(name))?;
                state.insert(name.to_owned(), value);
            }
            let family = family_id(&mut Netlink::generic()?, KIND)?;
            let mut device = parse_dump(&Gnl::open(family)?.ask(&get())?.replies());
            // Chosen by the kernel.
            if !(51000..51010).contains(&device.listen_port) {
                device.listen_port = 0;
            }
            for peer in &mut device.peers {
                (peer.rx_bytes, peer.tx_bytes) = (0, 0);
                peer.last_handshake = std::time::Duration::ZERO;
            }
            state.insert("device".to_owned(), format!("{device:#?}"));
            Ok(state)
        })?;
        files(&self.own, &self.own, &mut state)?;
        Ok(state)
    }
}

/// Strips the interface indices, which depend on how many links there were before.
fn without_indices(shown: &str) -> String {
    let lines = shown.lines().map(|line| match line.split_once(": ") {
        Some((index, rest)) if index.parse::<u32>().is_ok() => rest,
        _ => line,
    });
    lines
        .map(|line| line.to_owned() + "\n")
        .collect::<Vec<_>>()
        .concat()
}

/// The rules of `iptables-save`, without times and counters.
fn without_counters(saved: &str) -> String {
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n");
    lines.collect::<Vec<_>>().concat()
}

/// Every file below `folder`: permissions, owner, content.
fn files(folder: &Path, root: &Path, state: &mut State) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let mut text = format!(
            "{:o} {}:{}",
            meta.permissions().mode(),
            meta.uid(),
            meta.gid()
        );
        if meta.is_dir() {
            files(&path, root, state)?;
        } else if meta.is_symlink() {
            text = format!("-> {}", fs::read_link(&path)?.display());
        } else {
            text = format!("{text}\n{}", String::from_utf8_lossy(&fs::read(&path)?));
        }
        state.insert(path.strip_prefix(root)?.display().to_string(), text);
    }
    Ok(())
}

/// Prepares the guest for places, once.
fn ready() -> Result<()> {
    if Path::new(OWN).exists() {
        return Ok(());
    }
    prepare(TOOLS)?;
    let there = FOLDERS.iter().map(|(_, there)| *there);
    for folder in there.filter(|there| !there.is_empty()).chain([OWN]) {
        fs::create_dir_all(folder)?;
    }
    Ok(())
}

/// The two places.
pub struct Scene {
    places: [Place; 2],
}

impl Scene {
    /// Creates both.
    pub fn new() -> Result<Self> {
        ready()?;
        Ok(Scene {
            places: [Place::new(0)?, Place::new(1)?],
        })
    }

    /// Runs `f` on both sides concurrently.
    fn both<T: Send>(&self, f: impl Fn(usize, &Place) -> Result<T> + Sync) -> Result<[T; 2]> {
        let [a, b] = &self.places;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| f(0, a));
            let ours = f(1, b)?;
            Ok([other.join().unwrap_or_else(|_| bail!("panic"))?, ours])
        })
    }

    /// Runs the case on both sides and compares after each action; at the end the state must be
    /// that of the beginning.
    pub fn play(&self, case: &Case) -> Result<()> {
        let before = self.both(|_, place| {
            place.clear()?;
            for (name, mode, content) in &case.files {
                place.put(name, *mode, content)?;
            }
            place.new_peer()?;
            place.state()
        })?;
        compare(&before).context("before")?;
        let mut now = before.clone();
        for act in &case.acts {
            now = self
                .act(act, &case.wg_quick_only)
                .with_context(|| act.to_string())?
                .unwrap_or(now);
        }
        if matches!(case.acts.last(), Some(Act::Sh(_))) {
            now = self.both(|_, place| place.state())?;
        }
        for (n, (before, now)) in before.into_iter().zip(now).enumerate() {
            let kept = |state: State| -> State {
                let kept = |name: &String| !case.leaves.iter().any(|left| name == left);
                state.into_iter().filter(|(name, _)| kept(name)).collect()
            };
            compare(&[kept(before), kept(now)]).with_context(|| format!("left by {}", SIDES[n]))?;
        }
        Ok(())
    }

    /// Runs one action on both sides. After a call of the tool: returns the state of the clients.
    fn act(&self, act: &Act, wg_quick_only: &[&str]) -> Result<Option<[State; 2]>> {
        let (call, ends_well) = match act {
            Act::Quick(call) | Act::Differs(call) => (call, true),
            Act::Refused(call) | Act::RefusedEarlier(call) => (call, false),
            Act::Sh(script) => (&Call::new("bash", ["-ec", script]), true),
        };
        let seen = self.both(|n, place| {
            let program = match act {
                Act::Sh(_) => "/usr/bin/bash".into(),
                _ => program(n, call.name),
            };
            place.run(|| call.run(&program, &place.own))
        })?;
        for seen in &seen {
            ensure!(seen.ok() == ends_well, "{seen:?}");
        }
        match act {
            Act::Differs(_) => return Ok(None),
            Act::RefusedEarlier(_) => refused_earlier(&seen[1])?,
            _ => same_output(&seen, wg_quick_only)?,
        }
        if let Act::Sh(_) = act {
            return Ok(None);
        }
        let state = self.both(|_, place| place.state())?;
        compare(&state)?;
        Ok(Some(state))
    }
}

/// Fails if they differ.
pub fn compare([a, b]: &[State; 2]) -> Result<()> {
    let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for name in names {
        let [left, right] = [a.get(name), b.get(name)].map(|text| text.map_or("(nothing)", |t| t));
        if left != right {
            bail!("{name} differs:\n{}", diff(left, right));
        }
    }
    Ok(())
}

/// The lines that only one of them has.
fn diff(left: &str, right: &str) -> String {
    let only = |a: &str, b: &str, sign: &str| -> String {
        let lines = a
            .lines()
            .filter(|line| !b.lines().any(|other| other == *line));
        let lines: Vec<_> = lines.map(|line| format!("  {sign} {line}\n")).collect();
        lines.concat()
    };
    let text = only(left, right, "-") + &only(right, left, "+");
    if text.is_empty() {
        format!("  different order or number of lines:\n{left}\n---\n{right}")
    } else {
        text
    }
}

/// Checks for a refusal with a reason, before anything was changed.
fn refused_earlier(rs: &Seen) -> Result<()> {
    let said = String::from_utf8_lossy(&rs.stderr);
    ensure!(
        !said.is_empty() && !said.contains("[#]"),
        "no reason, or something was changed: {rs:?}"
    );
    Ok(())
}

/// wg-rs follows wireguard-tools 1.0.20260223, which sets this only if it is not set already; the
/// state that is compared has it, too.
const SRC_VALID_MARK: &str = "[#] sysctl -q net.ipv4.conf.all.src_valid_mark=1";
/// Up to 1.0.20250521, and since.
const SET_CONFIG: [&str; 2] = ["[#] wg setconf ", "[#] wg addconf "];

/// What a tool prints, without what the ordinary one's shell and the programs that it calls add.
pub fn essential(said: &[u8], wg_quick_only: &[&str]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines = said
        .lines()
        .filter(|line| !wg_quick_only.contains(line) && *line != SRC_VALID_MARK);
    let lines = lines.map(|line| match line.strip_prefix("/usr/bin/wg-quick: line ") {
        Some(rest) => rest.split_once(": ").map_or(line, |(_, rest)| rest),
        None => line,
    });
    lines
        .map(|line| line.replace(SET_CONFIG[0], SET_CONFIG[1]) + "\n")
        .collect::<Vec<_>>()
        .concat()
}

fn same_output([c, rs]: &[Seen; 2], wg_quick_only: &[&str]) -> Result<()> {
    ensure!(
        c.end == rs.end,
        "different exit status\n  {}: {c:?}\n  {}: {rs:?}",
        SIDES[0],
        SIDES[1]
    );
    let output = [c, rs].map(|seen| String::from_utf8_lossy(&seen.stdout));
    let errors = [c, rs].map(|seen| essential(&seen.stderr, wg_quick_only));
    let differ = |what, a: &str, b: &str| format!("different {what}:\n{}", diff(a, b));
    ensure!(
        output[0] == output[1],
        differ("standard output", &output[0], &output[1])
    );
    ensure!(
        errors[0] == errors[1],
        differ("standard error", &errors[0], &errors[1])
    );
    Ok(())
}

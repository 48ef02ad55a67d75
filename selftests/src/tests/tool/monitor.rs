// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs monitor`: with our module changes are shown when they happen, and why packets were
//! refused; with the in-tree one, the next table has what it tells.

use super::super::{drop_in, ours};
use super::sides::{prepare, program, DIR, KIND};
use super::terminal::Terminal;
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::pace::{is_slow, slow};
use harness::rig::Rig;
use harness::runner::{Boot, Ctx, Subject, Test};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::{base64, random_key, uapi, DeviceConf, PeerConf};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A change is shown within this time, however long the interval.
const SOON: Duration = Duration::from_secs(2);
/// The tool may take this long to start or to end.
const LONG: Duration = Duration::from_secs(20);
/// News is looked at no more often.
const GAP: Duration = Duration::from_millis(100);

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(list, "tool-monitor", 120, changes);
    drop_in(list, "tool-monitor-storm", 120, storm);
    drop_in(list, "tool-monitor-reasons", 120, reasons);
    ours(list, "tool-monitor-overrun", Boot::Smp, 120, overrun);
}

/// The title ends so.
fn title(ctx: &Ctx, interval: &str) -> String {
    let how = match ctx.subject {
        Subject::C => ", no events",
        _ => " and on events",
    };
    format!("every {interval} s{how}   q quits")
}

/// A line has both words.
fn has<'a>(one: &'a str, other: &'a str) -> impl Fn(&[String]) -> bool + 'a {
    move |lines| {
        let mut lines = lines.iter();
        lines.any(|line| line.contains(one) && line.contains(other))
    }
}

fn changes(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    // Without events there is nothing but the interval.
    let interval = match ctx.subject {
        Subject::C => "0.5",
        _ => "60",
    };
    let begin = Instant::now();
    let mut monitor = Terminal::start(tunnel.ns(0), &["monitor", "--interval", interval])?;
    let soon = slow(SOON);
    let title = title(ctx, interval);
    monitor.shows("the title", slow(LONG), has("1 device, 1 peer", &title))?;
    let own = base64(&tunnel.ends[1].public_key);
    monitor.shows("no handshake", soon, has(&own, "  never"))?;

    let peer = PeerConf {
        public_key: random_key(),
        ..PeerConf::default()
    };
    let key = base64(&peer.public_key);
    let set = |tunnel: &mut Tunnel, flags, keepalive, endpoint: Option<&str>| {
        let peer = PeerConf {
            flags,
            keepalive,
            endpoint: endpoint.map(str::parse).transpose()?,
            ..peer.clone()
        };
        tunnel.ends[0].set_peer(&tunnel.link, peer)
    };
    set(&mut tunnel, 0, None, None)?;
    monitor.shows("a new peer", soon, has(&key, ""))?;
    set(&mut tunnel, 0, Some(33), None)?;
    monitor.shows("its keepalive", soon, has(&key, "  33s"))?;
    set(&mut tunnel, 0, None, Some("192.0.2.9:9"))?;
    monitor.shows("an endpoint", soon, has(&key, "192.0.2.9:9"))?;
    set(&mut tunnel, uapi::peer::F_REMOVE_ME, None, None)?;
    let gone = |lines: &[String]| !lines.is_empty() && !has(&key, "")(lines);
    monitor.shows("that a peer is gone", soon, gone)?;

    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let shaken = |lines: &[String]| has(&own, "s  ")(lines) && !has(&own, "  never")(lines);
    monitor.shows("a handshake", soon, shaken)?;
    let conf = DeviceConf {
        listen_port: Some(7777),
        ..DeviceConf::default()
    };
    tunnel.ends[1].set(&tunnel.link, &conf)?;
    ping_all(tunnel.ns(1), inner(false, 0), 1)?;
    monitor.shows("that a peer has moved", soon, has(&own, ":7777"))?;

    tunnel.ns(0).sh(&format!("ip link add wg7 type {KIND}"))?;
    monitor.shows("a new device", soon, has("wg7", "peers:0"))?;
    tunnel.ns(0).sh("ip link set wg7 up")?;
    monitor.shows("its port", soon, has("wg7", "port:"))?;
    tunnel.ns(0).sh("ip link set wg7 down")?;
    tunnel.ns(0).sh("ip link set wg7 name wg8")?;
    monitor.shows("its new name", soon, has("wg8", "peers:0"))?;
    tunnel.ns(0).sh("ip link del wg8")?;
    monitor.shows(
        "that a device is gone",
        soon,
        has("1 device, 1 peer", &title),
    )?;
    if ctx.subject != Subject::C {
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(55)),
            "by polling"
        );
    }

    monitor.types("q")?;
    let status = monitor.ends(slow(LONG))?;
    ensure!(status.success(), "q: {status}");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let monitor = Terminal::start(tunnel.ns(0), &["monitor", "--interval", interval])?;
        monitor.shows("the title", slow(LONG), has("1 peer", &title))?;
        kill(Pid::from_raw(monitor.id()), signal)?;
        let status = monitor.ends(slow(LONG))?;
        ensure!(status.signal() == Some(signal as i32), "{signal}: {status}");
    }
    Ok(())
}

/// Many changes, one by one: they cause some redrawing each second, and none afterwards.
fn storm(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let monitor = Terminal::start(tunnel.ns(0), &["monitor", "--interval", "60"])?;
    monitor.shows(
        "a table",
        slow(LONG),
        has("1 device, 1 peer", &title(ctx, "60")),
    )?;
    let (begin, first, cpu) = (
        Instant::now(),
        monitor.pictures().len(),
        monitor.cpu_time()?,
    );
    let mut changes = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        let mut peer = PeerConf {
            public_key: random_key(),
            ..PeerConf::default()
        };
        tunnel.ends[0].set_peer(&tunnel.link, peer.clone())?;
        changes += 1;
        // Those of every third stay.
        if changes % 3 != 0 {
            peer.flags = uapi::peer::F_REMOVE_ME;
            tunnel.ends[0].set_peer(&tunnel.link, peer)?;
        }
    }
    let peers = tunnel.ends[0].get(&tunnel.link)?.peers.len();
    if ctx.subject == Subject::C {
        // Nobody has told of it.
        let shown = monitor.pictures().len() - first;
        ensure!(shown == 0, "{shown} tables in less than an interval");
        return Ok(());
    }
    let wanted = format!("1 device, {peers} peers,");
    monitor.shows("all that have stayed", slow(SOON), has(&wanted, ""))?;
    // The last one may have come just before it was shown.
    sleep(GAP * 3);
    let (elapsed, last) = (begin.elapsed(), monitor.pictures().len());
    let (shown, most) = (last - first, elapsed.as_millis() / GAP.as_millis() + 1);
    let before = monitor.cpu_time()?;
    let busy = before - cpu;
    ctx.note(format!(
        "{changes} peers in {elapsed:?}: drawn {shown} times, {busy:?} of CPU time"
    ));
    ensure!(
        (2..=most as usize).contains(&shown) && (is_slow() || busy < elapsed / 2),
        "drawn {shown} times in {elapsed:?}, at most {most} wanted; {busy:?} of CPU time"
    );

    sleep(Duration::from_secs(2));
    let spent = monitor.cpu_time()? - before;
    ctx.note(format!("{spent:?} of CPU time for nothing"));
    ensure!(spent < Duration::from_millis(400), "{spent:?} for nothing");
    let idle = monitor.pictures().len() - last;
    ensure!(idle == 0, "drawn {idle} times for nothing");
    Ok(())
}

/// While it is stopped, more happens than its socket holds: afterwards it shows what is, at once.
fn overrun(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let monitor = Terminal::start(tunnel.ns(0), &["monitor", "--interval", "60"])?;
    let title = title(ctx, "60");
    monitor.shows("a table", slow(LONG), has("1 device, 1 peer", &title))?;
    let (begin, pid) = (Instant::now(), Pid::from_raw(monitor.id()));
    kill(pid, Signal::SIGSTOP)?;
    let mut set = |flags, keepalive, key: &[u8; 32]| {
        let peer = PeerConf {
            public_key: *key,
            flags,
            keepalive,
            ..PeerConf::default()
        };
        tunnel.ends[0].set_peer(&tunnel.link, peer)
    };
    let stays = random_key();
    set(0, None, &stays)?;
    let mut changes = 0;
    while dropped(tunnel.link.end(0))? == 0 {
        ensure!(changes < 100_000, "its socket holds {changes} events");
        for _ in 0..50 {
            let key = random_key();
            set(0, None, &key)?;
            set(uapi::peer::F_REMOVE_ME, None, &key)?;
            changes += 2;
        }
    }
    set(0, Some(33), &stays)?;
    let lost = dropped(tunnel.link.end(0))?;
    ctx.note(format!("{lost} of {changes} events lost"));
    kill(pid, Signal::SIGCONT)?;
    let key = base64(&stays);
    monitor.shows("what it has missed", slow(SOON), has(&key, "  33s"))?;
    set(0, Some(44), &stays)?;
    monitor.shows("what comes then", slow(SOON), has(&key, "  44s"))?;
    let waited = begin.elapsed();
    ensure!(waited < slow(Duration::from_secs(55)), "by polling");
    Ok(())
}

/// How many messages the netlink sockets of a namespace have lost.
fn dropped(ns: &Netns) -> Result<u64> {
    let table = ns.run(|| Ok(fs::read_to_string("/proc/thread-self/net/netlink")?))?;
    let drops = table.lines().skip(1).map(|line| {
        let field = line.split_whitespace().nth(8);
        let field = field.and_then(|drops| drops.parse::<u64>().ok());
        field.with_context(|| line.to_owned())
    });
    drops.sum()
}

/// A `wg-rs monitor` that writes plain tables to a file.
struct Plain {
    child: Child,
    file: String,
}

impl Plain {
    fn start(ns: &Netns, args: &[&str]) -> Result<Self> {
        let file = format!("{DIR}/tables");
        let out = File::create(&file)?;
        let child = ns.run(|| {
            let mut command = Command::new(program(1, "wg-rs"));
            Ok(command.args(args).stdout(out).spawn()?)
        })?;
        Ok(Self { child, file })
    }

    /// Those that are finished.
    fn tables(&self) -> Result<Vec<Vec<String>>> {
        let text = fs::read_to_string(&self.file)?;
        let mut tables: Vec<_> = text.split("\n\n").collect();
        // The next one may have begun.
        tables.pop();
        let lines = |table: &str| table.lines().map(str::to_owned).collect();
        Ok(tables.into_iter().map(lines).collect())
    }

    /// Waits for so many tables.
    fn wait(&self, count: usize) -> Result<()> {
        let begin = Instant::now();
        while self.tables()?.len() < count {
            ensure!(begin.elapsed() < slow(LONG), "no table number {count}");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a reason's counts in the notes of lines that have `word`.
fn count(tables: &[Vec<String>], word: &str, reason: &str) -> Result<u64> {
    let mut sum = 0;
    for line in tables.iter().flatten().filter(|line| line.contains(word)) {
        let notes = line.split_whitespace().nth(9).unwrap_or_default();
        for note in notes.split(',') {
            if let Some((name, count)) = note.split_once(':').filter(|(name, _)| *name == reason) {
                sum += count.parse::<u64>().with_context(|| name.to_owned())?;
            }
        }
    }
    Ok(sum)
}

fn reasons(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let rig = Rig::new(ctx, 1)?;
    let mut session = rig.confirmed(0)?;
    let plain = Plain::start(rig.link.end(0), &["monitor", "--interval", "0.5", "wg0"])?;
    let live = Terminal::start(rig.link.end(0), &["monitor", "--interval", "0.5"])?;
    live.shows("a table", slow(LONG), has("1 device, 1 peer", ""))?;
    plain.wait(1)?;

    for _ in 0..5 {
        let mut message = session.data(&[]);
        *message.last_mut().context("empty")? ^= 1;
        rig.clients[0].send(&message)?;
    }
    let message = session.data(&[]);
    for _ in 0..4 {
        rig.clients[0].send(&message)?;
    }
    let key = base64(&rig.clients[0].keys.public);
    let sent = plain.tables()?.len();
    if ctx.subject == Subject::C {
        plain.wait(sent + 3)?;
        let tables = plain.tables()?;
        ensure!(
            !tables.iter().flatten().any(|line| line.contains("NOTES")),
            "{tables:?}"
        );
        return Ok(());
    }
    let begin = Instant::now();
    for (word, reason, wanted) in [
        (&*key, "invalid-data", 5),
        (&key, "replayed-data", 3),
        ("peers:1", "invalid-data", 5),
        ("peers:1", "replayed-data", 3),
    ] {
        while count(&plain.tables()?, word, reason)? != wanted {
            let tables = plain.tables()?;
            ensure!(
                begin.elapsed() < slow(LONG),
                "no {wanted} {reason}: {tables:?}"
            );
            sleep(Duration::from_millis(20));
        }
    }
    let noted = |lines: &Vec<String>| lines.iter().any(|line| line.contains("    invalid-data "));
    while !live.pictures().iter().any(noted) {
        ensure!(begin.elapsed() < slow(LONG), "{:?}", live.pictures().pop());
        sleep(Duration::from_millis(20));
    }
    // Nothing is refused any more.
    plain.wait(plain.tables()?.len() + 2)?;
    let last = plain.tables()?.pop().context("no table")?;
    ensure!(!last.iter().any(|line| line.contains("NOTES")), "{last:?}");
    ensure!(last.iter().any(|line| line.contains(&key)), "{last:?}");
    Ok(())
}

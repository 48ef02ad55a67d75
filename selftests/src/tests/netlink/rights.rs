// SPDX-License-Identifier: GPL-2.0-only
//! Who may send requests, and from where: capabilities, network and user namespaces.

use super::both;
use super::scene::{device, peer, set, Scene};
use anyhow::{bail, ensure, Context, Result};
use harness::gnl::{name, Answer, Gnl, Part, Request, DUMP};
use harness::netlink::Attrs;
use harness::netns::Netns;
use harness::pace::slow;
use harness::pair::{get, Answers, INDEX, NAME, SIDES};
use harness::runner::{Ctx, Test};
use harness::wgdev::uapi::*;
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::wait::waitpid;
use nix::unistd::{chdir, chroot, fchdir, fork, pipe2, read, write, ForkResult};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-needs-admin", 60, needs_admin);
    both(list, "netlink-other-namespace", 60, other_namespace);
    both(list, "netlink-user-namespace", 60, user_namespace);
    both(list, "netlink-creating-namespace-gone", 90, creator_gone);
}

const KEY: [u8; 32] = [0x71; 32];

/// Drops CAP_NET_ADMIN from the calling thread.
fn drop_admin() -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_NET_ADMIN: u32 = 12;
    let mut header = [VERSION_3, 0];
    let mut sets = [0u32; 6]; // effective, permitted, inheritable; twice
                              // SAFETY: capget and capset with version 3's header and two sets.
    let done = unsafe {
        let got = libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr());
        sets[0] &= !(1 << CAP_NET_ADMIN);
        let set = libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr());
        got | set
    };
    ensure!(done == 0, "capset: {}", Errno::last());
    Ok(())
}

/// Without CAP_NET_ADMIN, at the socket's opening or at its use, everything is refused.
fn needs_admin(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let before = scene.state("before")?;
    let mut other = Attrs::new();
    other.str(device::IFNAME, "wg9");
    let requests = [
        ("GET", get()),
        ("GET of nothing", Request::new(DUMP, cmd::GET_DEVICE, &[])),
        (
            "GET of no device",
            Request::new(DUMP, cmd::GET_DEVICE, other.bytes()),
        ),
        ("an empty SET", set(&device(|_| ()))),
        ("SET of no device", set(&other)),
        (
            "SET",
            set(&device(|d| {
                d.put(device::PRIVATE_KEY, &KEY).u32(device::FWMARK, 1);
            })),
        ),
    ];
    for (opened, used) in [(false, false), (false, true), (true, false)] {
        let mut sides = Vec::new();
        for n in 0..2 {
            let family = scene.pair.family(n);
            let ns = scene.pair.ns(n);
            let mut socket = ns.run(|| {
                if !opened {
                    drop_admin()?;
                }
                Ok(Gnl::open(family)?)
            })?;
            let answers: Vec<Answer> = ns.run(|| {
                if !used {
                    drop_admin()?;
                }
                let asked = requests.iter().map(|(_, request)| socket.ask(request));
                Ok(asked.collect::<Result<_, _>>()?)
            })?;
            sides.push(answers);
        }
        for (at, (what, request)) in requests.iter().enumerate() {
            let answers: Answers = [0, 1].map(|n| sides[n][at].clone());
            let what = format!("{what}, admin when opened: {opened}, when used: {used}");
            scene.judge(&what, &answers, Err(Errno::EPERM));
            // The handler has not seen it: the echo is unchanged.
            let intact = answers.iter().all(|a| a.echo() == request.body);
            scene.check(intact, format!("{what}: the echo differs"));
        }
    }
    let after = scene.state("after")?;
    scene.check(before == after, "something was set");
    scene.finish()
}

/// A device is looked up in the sender's namespace, wherever it was created.
fn other_namespace(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let away = [Netns::new("away0")?, Netns::new("away1")?];
    let open = |scene: &Scene, n: usize| {
        let family = scene.pair.family(n);
        away[n].run(|| Ok(Gnl::open(family)?))
    };
    let mut far = [open(&scene, 0)?, open(&scene, 1)?];
    let mut by_index = Attrs::new();
    by_index.u32(device::IFINDEX, INDEX);
    let everything = set(&device(|d| {
        d.put(device::PRIVATE_KEY, &KEY)
            .u16(device::LISTEN_PORT, 4001)
            .u32(device::FWMARK, 1)
            .nest(device::PEERS, |list| peer(list, [1; 32], |_| ()));
    }));
    let requests = [
        get(),
        Request::new(DUMP, cmd::GET_DEVICE, by_index.bytes()),
        set(&by_index),
        everything,
    ];
    let mut from_away = |scene: &mut Scene, what: &str, wanted: Result<(), Errno>| -> Result<()> {
        for (n, request) in requests.iter().enumerate() {
            let [a, b] = &mut far;
            let answers = [a.ask(request)?, b.ask(request)?];
            scene.judge(&format!("{what}, request {n}"), &answers, wanted);
        }
        Ok(())
    };
    from_away(&mut scene, "before the move", Err(Errno::ENODEV))?;
    for (n, away) in away.iter().enumerate() {
        scene.pair.rt(n).set_netns(NAME, away.fd())?;
    }
    // Including port and mark: we have the capability over the creating namespace.
    from_away(&mut scene, "after the move", Ok(()))?;
    for (n, request) in requests.iter().enumerate() {
        let what = format!("from the old namespace, request {n}");
        scene.ask(&what, request, Err(Errno::ENODEV))?;
    }
    for (n, away) in away.iter().enumerate() {
        away.rtnl()?.link_del(NAME)?;
        let kind = scene.pair.kind(n);
        scene.pair.rt(n).link_add_at(INDEX, NAME, kind)?;
    }
    scene.finish()
}

/// Requests that concern the sockets, and others, with the result for a sender without
/// CAP_NET_ADMIN over the creating namespace.
fn sockets_and_others() -> Vec<(&'static str, Request, i32)> {
    let eperm = -(Errno::EPERM as i32);
    let request = |fill: &dyn Fn(&mut Attrs)| set(&device(fill));
    let new_peer = |d: &mut Attrs, n: u8| {
        d.nest(device::PEERS, |list| {
            peer(list, [n; 32], |p| {
                p.put(peer::PRESHARED_KEY, &KEY);
            });
        });
    };
    vec![
        (
            "port",
            request(&|d| {
                d.u16(device::LISTEN_PORT, 4001);
            }),
            eperm,
        ),
        (
            "the current port",
            request(&|d| {
                d.u16(device::LISTEN_PORT, 0);
            }),
            eperm,
        ),
        (
            "mark",
            request(&|d| {
                d.u32(device::FWMARK, 1);
            }),
            eperm,
        ),
        (
            "mark and key",
            request(&|d| {
                d.u32(device::FWMARK, 1).put(device::PRIVATE_KEY, &KEY);
            }),
            eperm,
        ),
        (
            "port and peer",
            request(&|d| {
                d.u16(device::LISTEN_PORT, 4001);
                new_peer(d, 1);
            }),
            eperm,
        ),
        ("nothing was set", get(), 0),
        (
            "key",
            request(&|d| {
                d.put(device::PRIVATE_KEY, &KEY);
            }),
            0,
        ),
        ("peers", request(&|d| new_peer(d, 2)), 0),
        ("key and peer were set", get(), 0),
        (
            "REPLACE_PEERS",
            request(&|d| {
                d.u32(device::FLAGS, device::F_REPLACE_PEERS);
            }),
            0,
        ),
        ("no peer", get(), 0),
    ]
}

/// The result of an answer, and all of it as text.
fn describe(answer: &Answer) -> String {
    let code = match answer.parts.last() {
        Some(Part::Ack { code, .. } | Part::Done { code, .. }) => *code,
        _ => 1,
    };
    format!("{code} {:?}", answer.parts)
}

/// Root of a user namespace may configure a device that was moved into its network namespace, but
/// not the sockets, which are in another one.
fn user_namespace(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let requests = sockets_and_others();
    let mut sides = Vec::new();
    for (n, side) in SIDES.into_iter().enumerate() {
        let family = scene.pair.family(n);
        let text = in_user_namespace(
            |pid| Ok(scene.pair.rt(n).set_netns_pid(NAME, pid)?),
            |ready| {
                let mut socket = Gnl::open(family)?;
                let mut lines = vec![describe(&socket.ask(&get())?)];
                ready()?;
                for (_, request, _) in &requests {
                    lines.push(describe(&socket.ask(request)?));
                }
                Ok(lines.join("\n"))
            },
        )
        .context(side)?;
        sides.push(text);
        // The device is deleted with its namespace.
    }
    let lines: Vec<Vec<&str>> = sides.iter().map(|text| text.lines().collect()).collect();
    let names = requests.iter().map(|(what, _, code)| (*what, *code));
    let wanted = std::iter::once(("before the move", -(Errno::ENODEV as i32))).chain(names);
    for (at, (what, code)) in wanted.enumerate() {
        let [c, rs] = [0, 1].map(|n| lines[n].get(at).copied().unwrap_or("no answer"));
        scene.check(c == rs, format!("{what}: in-tree {c}, ours {rs}"));
        for (side, line) in SIDES.iter().zip([c, rs]) {
            let got = line.split(' ').next().and_then(|code| code.parse().ok());
            scene.check(
                got == Some(code),
                format!("{what}: {side} returns {line}, not {}", name(code)),
            );
        }
    }
    // Replace the deleted devices.
    scene.pair.remake()?;
    scene.finish()
}

/// Runs `inside` in a process with its own user and network namespaces. When `inside` calls its
/// argument, `outside` is run here with the process's PID first.
fn in_user_namespace(
    outside: impl FnOnce(u32) -> Result<()>,
    inside: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<String>,
) -> Result<String> {
    let (ready_r, ready_w) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (go_r, go_w) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (text_r, text_w) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: no other thread of this process does anything but sleep; the child leaves by `_exit`.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop((ready_r, go_w, text_r));
            let mut wait = || -> Result<()> {
                write(&ready_w, b"x")?;
                let mut byte = [0];
                ensure!(read(&go_r, &mut byte)? == 1, "the test has ended");
                Ok(())
            };
            let result = enter_user_namespace().and_then(|()| inside(&mut wait));
            let text = result.unwrap_or_else(|e| format!("error: {e:#}"));
            let _ = File::from(text_w).write_all(text.as_bytes());
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((ready_w, go_r, text_w));
            let result = move_when_ready(outside, child.as_raw() as u32, &ready_r, go_w);
            let mut text = String::new();
            File::from(text_r).read_to_string(&mut text)?;
            waitpid(child, None)?;
            if text.starts_with("error:") {
                bail!("{text}");
            }
            result.map(|()| text)
        }
    }
}

fn move_when_ready(
    outside: impl FnOnce(u32) -> Result<()>,
    pid: u32,
    ready: &OwnedFd,
    go: OwnedFd,
) -> Result<()> {
    let mut byte = [0];
    if read(ready, &mut byte)? == 1 {
        outside(pid)?;
        write(&go, b"x")?;
    }
    Ok(())
}

/// Creates the user and network namespaces. A process in a chroot may not: make its root the root
/// of a mount namespace first.
fn enter_user_namespace() -> Result<()> {
    let new = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    if unshare(new).is_ok() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let root = File::open("/")?;
    // Leave the chroot: a process whose root is below its working directory can go up from there.
    let below = "/run/wgrs-below";
    fs::create_dir_all(below)?;
    chdir("/")?;
    chroot(below)?;
    for _ in 0..64 {
        chdir("..")?;
    }
    chroot(".").context("leave the chroot")?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("make / private")?;
    fchdir(&root)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).context("move the root")?;
    chroot(".")?;
    unshare(new).context("unshare(CLONE_NEWUSER)")
}

/// When the creating namespace is gone, nobody has capabilities over it.
fn creator_gone(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for n in 0..2 {
        scene.pair.rt(n).link_del(NAME)?;
        let maker = Netns::new(["maker0", "maker1"][n])?;
        let mut rt = maker.rtnl()?;
        rt.link_add_at(INDEX, NAME, scene.pair.kind(n))?;
        rt.set_netns(NAME, scene.pair.ns(n).fd())?;
    }
    // Namespaces are deleted in the background; 0 is the current port.
    let same = set(&device(|d| {
        d.u16(device::LISTEN_PORT, 0);
    }));
    let start = Instant::now();
    while scene.pair.ask(&same)?.iter().any(|a| a.result().is_ok()) {
        ensure!(
            start.elapsed() < slow(Duration::from_secs(30)),
            "the port can still be set"
        );
        sleep(Duration::from_millis(20));
    }
    for (what, request, code) in sockets_and_others() {
        let wanted = if code == 0 { Ok(()) } else { Err(Errno::EPERM) };
        scene.ask(what, &request, wanted)?;
    }
    for (n, side) in SIDES.iter().enumerate() {
        let up = scene.pair.rt(n).set_up(NAME, true);
        scene.check(
            up == Err(Errno::ENONET),
            format!("{side}: up returns {up:?}"),
        );
    }
    scene.pair.remake()?;
    scene.finish()
}

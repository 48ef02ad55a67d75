// SPDX-License-Identifier: GPL-2.0-only
//! Links are configured while devices have all hands full: nobody waits for the work of another
//! device, nor for that of strangers.

use super::{flood, send, sides, widen, Busy};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::driver::Driver;
use harness::pace::slow;
use harness::rtnl::Rtnl;
use harness::runner::Ctx;
use harness::topo::{inner, End, Link, Opts, Tunnel};
use harness::traffic::{ping_all, udp};
use nix::errno::Errno;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What each step may take with our module. Without a bound they take as long as the load.
const BOUND: Duration = Duration::from_secs(3);
/// How long the load goes on before the first step, and in all.
const BEFORE: Duration = Duration::from_secs(1);
const LOAD: Duration = Duration::from_secs(10);

/// Steps, and how long each took.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn take(&mut self, what: &'static str, step: impl FnOnce() -> Result<(), Errno>) -> Result<()> {
        let start = Instant::now();
        step().context(what)?;
        self.0.push((what, start.elapsed()));
        Ok(())
    }

    /// What has nothing to do with the busy device: two idle ones go down and away, another link
    /// is made.
    fn aside(&mut self, rt: &mut Rtnl) -> Result<()> {
        self.take("idle device down", || rt.set_up("wg8", false))?;
        self.take("idle device up", || rt.set_up("wg8", true))?;
        self.take("idle device deleted", || rt.link_del("wg9"))?;
        self.take("another link added", || rt.link_add("other", "dummy"))
    }

    fn check(&self, ctx: &Ctx, who: &str, busy: &Busy) -> Result<()> {
        let list: Vec<String> = self
            .0
            .iter()
            .map(|(what, took)| format!("{what} {:.2} s", took.as_secs_f64()))
            .collect();
        ctx.note(format!(
            "{who}: {:.0} sent/s; {}",
            busy.rate(),
            list.join(", ")
        ));
        let bound = slow(BOUND);
        let late = self.0.iter().any(|(_, took)| *took > bound);
        ensure!(
            who != "ours" || !late,
            "not each within {bound:?}: {}",
            list.join(", ")
        );
        Ok(())
    }
}

/// The devices of [`Steps::aside`], up.
fn idle(link: &mut Link, driver: Driver) -> Result<()> {
    cmd::run(&["modprobe", "dummy"])?;
    for name in ["wg8", "wg9"] {
        link.rt(0).link_add(name, driver.kind)?;
        link.rt(0).set_up(name, true)?;
    }
    Ok(())
}

/// Strangers flood one device with handshake messages.
pub(super) fn handshakes(ctx: &Ctx) -> Result<()> {
    for (who, driver) in sides(ctx) {
        let mut link = Link::new()?;
        let end = End::new(&mut link, 0, driver, None)?;
        idle(&mut link, driver)?;
        let mut steps = Steps::default();
        let busy = flood(&link, &end.public_key, slow(LOAD))?;
        sleep(BEFORE);
        steps.aside(link.rt(0))?;
        steps.check(ctx, who, &busy)?;
    }
    Ok(())
}

/// Senders on the busy device, and the size of their datagrams.
const SENDERS: usize = 4;
const SIZE: usize = 1400;

/// One device sends as much data as it can; in the end it goes down and away itself.
pub(super) fn data(ctx: &Ctx) -> Result<()> {
    for (who, driver) in sides(ctx) {
        let mut tunnel = Tunnel::new(&Opts::new([driver; 2]))?;
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
        idle(&mut tunnel.link, driver)?;
        let senders = (0..SENDERS).map(|_| {
            let socket = udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 0))?;
            widen(&socket, 4 << 20)?;
            socket.connect(SocketAddr::new(inner(false, 1), 9))?;
            anyhow::Ok(move |_| send(&socket, &[0; SIZE]))
        });
        let senders = senders.collect::<Result<Vec<_>>>()?;
        let mut steps = Steps::default();
        let busy = Busy::start(slow(LOAD), 1, senders);
        sleep(BEFORE);
        let rt = tunnel.rt(0);
        steps.aside(rt)?;
        steps.take("busy device down", || rt.set_up("wg0", false))?;
        steps.take("busy device up", || rt.set_up("wg0", true))?;
        sleep(BEFORE);
        steps.take("busy device deleted", || rt.link_del("wg0"))?;
        steps.check(ctx, who, &busy)?;
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! The debug messages: which events are reported, with which details; and their switch.
//!
//! Both modules report the same events, each in its own words; ours also gives the reason of a
//! refusal, and has two more messages. In virtual time, because some events take minutes and one
//! needs a single CPU; but [`removed`] needs two.

mod life;
mod refused;
mod removed;
mod sites;

use super::{drop_in, drop_in_vtime, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::kmsg::Kmsg;
use harness::modules::{INTREE, OURS};
use harness::runner::{Ctx, Subject};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{ping, ping_all};
use sites::Site;
use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in_vtime(list, "messages-events", 1500, events);
    drop_in_vtime(list, "messages-switch", 120, switch);
    drop_in(
        list,
        "messages-removed-in-handshake",
        60,
        removed::in_handshake,
    );
}

const COST: &str = "/proc/sys/net/core/message_cost";
/// The prefix of all lines about device 0.
const PREFIX: &str = "wireguard: wg0: ";
/// An address in no peer's allowed IPs.
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 77));

/// The subject's debug messages about device 0, not rate limited until this is dropped.
struct Log {
    kmsg: Kmsg,
    /// Lines logged and not expected yet.
    lines: Vec<String>,
    /// Lines expected and found.
    matched: Vec<String>,
    module: &'static str,
    cost: String,
}

impl Log {
    fn new(ctx: &Ctx) -> Result<Self> {
        let module = match ctx.subject {
            Subject::Rs if !ctx.env.stand_in => OURS,
            _ => INTREE,
        };
        let log = Log {
            kmsg: Kmsg::at_end()?,
            lines: Vec::new(),
            matched: Vec::new(),
            module,
            cost: fs::read_to_string(COST).context(COST)?,
        };
        fs::write(COST, "0")?;
        Ok(log)
    }

    /// Switches all messages, the way a user does.
    fn switch(&self, on: bool) -> Result<()> {
        sites::switch(&format!("module {}", self.module), on)
    }

    /// Disables the messages with `part` in their format.
    fn disable(&self, part: &str) -> Result<()> {
        let which = format!("module {} format \"{part}\"", self.module);
        sites::switch(&which, false)
    }

    /// Waits for a line with these `parts`, in this order, and consumes it. The numbers of peers
    /// and keypairs, which differ between modules, are written `N`.
    fn expect(&mut self, what: &str, parts: &[&str]) -> Result<()> {
        for _ in 0..250 {
            self.read()?;
            if let Some(at) = self.lines.iter().position(|line| has(line, parts)) {
                self.matched.push(self.lines.remove(at));
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        bail!("{what}: wanted {parts:?} among {:#?}", self.lines)
    }

    /// As [`Self::expect`], for a refusal, whose reason ours also gives.
    fn expect_refusal(&mut self, what: &str, parts: &[&str], why: &str) -> Result<()> {
        let why = if self.module == OURS { why } else { "" };
        self.expect(what, &[parts, &[why]].concat())
    }

    /// As [`Self::expect`], for a message that the in-tree module does not have.
    fn expect_ours(&mut self, what: &str, parts: &[&str]) -> Result<()> {
        if self.module == OURS {
            self.expect(what, parts)?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        for line in self.kmsg.drain()? {
            if let Some(text) = line.strip_prefix(PREFIX) {
                self.lines.push(text.to_owned());
            }
        }
        Ok(())
    }

    /// Discards what has been logged so far.
    fn discard(&mut self) -> Result<()> {
        self.read()?;
        self.lines.clear();
        Ok(())
    }

    /// Fails if anything has been logged.
    fn expect_nothing(&mut self, when: &str) -> Result<()> {
        self.read()?;
        ensure!(self.lines.is_empty(), "logged {when}: {:#?}", self.lines);
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.switch(false);
        let _ = fs::write(COST, &self.cost);
    }
}

/// Whether `line` has these parts in this order.
fn has(line: &str, parts: &[&str]) -> bool {
    let line = unnumbered(line);
    let mut rest = line.as_str();
    parts.iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// `line` with `N` in place of the numbers of peers and keypairs.
fn unnumbered(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    for at in 1..words.len() {
        let named = matches!(words[at - 1], "Peer" | "peer" | "Keypair");
        if named && words[at].bytes().all(|b| b.is_ascii_digit()) {
            words[at] = "N";
        }
    }
    words.join(" ")
}

/// Every message of the module is logged when its event happens.
fn events(ctx: &Ctx) -> Result<()> {
    let mut log = Log::new(ctx)?;
    log.switch(true)?;
    life::run(ctx, &mut log)?;
    refused::run(&mut log)?;
    life::orphaned(&mut log)?;
    let missing: Vec<Site> = sites::of(log.module)?
        .into_iter()
        .filter(|site| !log.matched.iter().any(|line| site.matches(line)))
        .collect();
    ensure!(
        missing.is_empty(),
        "messages that this test does not trigger: {missing:#?}"
    );
    Ok(())
}

/// By default nothing is logged; once switched on, what follows is; once switched off, nothing
/// again.
fn switch(ctx: &Ctx) -> Result<()> {
    let mut log = Log::new(ctx)?;
    let sites = sites::of(log.module)?;
    ensure!(!sites.is_empty(), "{} has no debug messages", log.module);
    let on: Vec<&Site> = sites.iter().filter(|site| site.on).collect();
    ensure!(on.is_empty(), "on by default: {on:#?}");

    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let drop_one = || {
        let wait = Duration::from_millis(100);
        ping(tunnel.ns(0), STRANGER, 1, 8, wait)
    };
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    drop_one()?;
    log.expect_nothing("by default")?;
    log.switch(true)?;
    ensure!(
        sites::of(log.module)?.iter().all(|site| site.on),
        "one switch does not enable all messages"
    );
    drop_one()?;
    log.expect("switched on", &["No peer ", "10.9.0.77"])?;
    log.discard()?;
    log.switch(false)?;
    drop_one()?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    drop(tunnel);
    log.expect_nothing("though switched off")
}

#[cfg(test)]
mod tests {
    use super::{has, unnumbered};

    #[test]
    fn parts_in_order() {
        let line = "Peer 3 (192.0.2.1:5) destroyed";
        assert!(has(line, &["Peer N", "(192.0.2.1:5)", "destroyed"]));
        assert!(!has(line, &["destroyed", "Peer N"]));
        assert!(!has(line, &["Peer N", "Peer N"]));
        assert!(has(line, &[]));
    }

    #[test]
    fn numbers_of_objects() {
        assert_eq!(
            unnumbered("Keypair 12 created for peer 3"),
            "Keypair N created for peer N"
        );
        let others = "Packet has invalid nonce 1 (max 2)";
        assert_eq!(unnumbered(others), others);
    }
}

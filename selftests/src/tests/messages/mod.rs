// SPDX-License-Identifier: GPL-2.0
//! The debug messages: which events are told, and of what; and their switch.
//!
//! Both modules name the same things, in words of their own; ours adds why it refuses something, and
//! has two messages more. In virtual time, because some events take minutes and one needs a single processor.

mod life;
mod refused;
mod sites;

use super::{drop_in_vtime, Test};
use crate::harness::kmsg::Kmsg;
use crate::harness::modules::{INTREE, OURS};
use crate::harness::runner::{Ctx, Subject};
use crate::harness::topo::{inner, Opts, Tunnel};
use crate::harness::traffic::{ping, ping_all};
use anyhow::{bail, ensure, Context, Result};
use sites::Site;
use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in_vtime(list, "messages-events", 1500, events);
    drop_in_vtime(list, "messages-switch", 120, switch);
}

const COST: &str = "/proc/sys/net/core/message_cost";
/// What all lines about device 0 begin with.
const PREFIX: &str = "wireguard: wg0: ";
/// An address that belongs to no peer.
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 77));

/// The subject's debug messages about device 0, not rate limited until this is dropped.
struct Log {
    kmsg: Kmsg,
    /// What was said and not asked for yet.
    lines: Vec<String>,
    /// What was asked for and said.
    told: Vec<String>,
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
            told: Vec::new(),
            module,
            cost: fs::read_to_string(COST).context(COST)?,
        };
        fs::write(COST, "0")?;
        Ok(log)
    }

    /// Switches all messages, as a user does.
    fn switch(&self, on: bool) -> Result<()> {
        sites::switch(&format!("module {}", self.module), on)
    }

    /// Switches the messages off that have `part` in their text.
    fn silence(&self, part: &str) -> Result<()> {
        let which = format!("module {} format \"{part}\"", self.module);
        sites::switch(&which, false)
    }

    /// Waits for a line with these `parts`, in this order, and takes it away. The numbers of peers and
    /// keypairs, which are each module's own, are written `N`.
    fn expect(&mut self, what: &str, parts: &[&str]) -> Result<()> {
        for _ in 0..250 {
            self.read()?;
            if let Some(at) = self.lines.iter().position(|line| has(line, parts)) {
                self.told.push(self.lines.remove(at));
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        bail!("{what}: wanted {parts:?} among {:#?}", self.lines)
    }

    /// The same of a refusal, of which ours says why.
    fn expect_why(&mut self, what: &str, parts: &[&str], why: &str) -> Result<()> {
        let why = if self.module == OURS { why } else { "" };
        self.expect(what, &[parts, &[why]].concat())
    }

    /// The same of what the in-tree module says nothing of.
    fn expect_of_ours(&mut self, what: &str, parts: &[&str]) -> Result<()> {
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

    /// What has been said by now is of no interest.
    fn forget(&mut self) -> Result<()> {
        self.read()?;
        self.lines.clear();
        Ok(())
    }

    /// Nothing has been said.
    fn expect_nothing(&mut self, when: &str) -> Result<()> {
        self.read()?;
        ensure!(self.lines.is_empty(), "said {when}: {:#?}", self.lines);
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

/// Every message that the module has is told when its event happens.
fn events(ctx: &Ctx) -> Result<()> {
    let mut log = Log::new(ctx)?;
    log.switch(true)?;
    life::run(ctx, &mut log)?;
    refused::run(&mut log)?;
    life::orphaned(&mut log)?;
    let untold: Vec<Site> = sites::of(log.module)?
        .into_iter()
        .filter(|site| !log.told.iter().any(|line| site.says(line)))
        .collect();
    ensure!(
        untold.is_empty(),
        "messages that this test does not provoke: {untold:#?}"
    );
    Ok(())
}

/// At first nothing is said; switched on in the middle, what follows is; switched off, nothing
/// again.
fn switch(ctx: &Ctx) -> Result<()> {
    let mut log = Log::new(ctx)?;
    let sites = sites::of(log.module)?;
    ensure!(!sites.is_empty(), "{} has no debug messages", log.module);
    let on: Vec<&Site> = sites.iter().filter(|site| site.on).collect();
    ensure!(on.is_empty(), "switched on to begin with: {on:#?}");

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
        "one switch does not reach all messages"
    );
    drop_one()?;
    log.expect("switched on", &["No peer ", "10.9.0.77"])?;
    log.forget()?;
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

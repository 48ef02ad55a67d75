// SPDX-License-Identifier: GPL-2.0-only
//! The same configurations given to the ordinary `wg-quick` and to wg-rs in two equal networks:
//! both print the same, run the same hooks and leave the same links, addresses, rules, routes,
//! firewall rules and files.

mod alone;
mod cases;
mod dns;
mod fallback;
mod iptables;
mod newer;
mod refused;
mod scene;
mod stuck;
mod sudo;
mod unit;
mod wild;

use super::super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::modules::Modules;
use harness::runner::{Boot, Ctx, Subject};
use scene::Scene;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "tool-quick-plain", 300, |ctx| {
        play(ctx, cases::plain())
    });
    drop_in(list, "tool-quick-default-route", 300, |ctx| {
        play(ctx, cases::default_route())
    });
    drop_in(list, "tool-quick-hooks", 300, |ctx| {
        play(ctx, cases::hooks())
    });
    drop_in(list, "tool-quick-refused", 300, |ctx| {
        play(ctx, refused::cases())
    });
    drop_in(list, "tool-quick-newer", 300, newer::mended);
    drop_in(list, "tool-quick-signals", 300, alone::signals);
    drop_in(list, "tool-quick-wild", 900, wild::table);
    drop_in(list, "tool-quick-judged", 600, wild::generated);
    // These do not depend on the module.
    once(list, "tool-quick-path", alone::path);
    once(list, "tool-quick-only-wg-rs", alone::only_wg_rs);
    once(list, "tool-quick-stuck", stuck::hints);
    list.push(Test {
        modules: Modules::None,
        ..once_test("tool-quick-fallback", fallback::fallback)
    });
    once(list, "tool-quick-dns", |ctx| play(ctx, dns::cases()));
    once(list, "tool-quick-resolvectl", dns::resolvectl);
    once(list, "tool-quick-sudo", sudo::becomes_root);
    once(list, "tool-quick-iptables", iptables::fallback);
    once(list, "tool-quick-unit", unit::unit);
}

/// A test with our module only.
fn once(list: &mut Vec<Test>, name: &str, body: fn(&Ctx) -> Result<()>) {
    list.push(once_test(name, body));
}

fn once_test(name: &str, body: fn(&Ctx) -> Result<()>) -> Test {
    Test {
        name: name.to_owned(),
        boot: Boot::Smp,
        modules: Modules::Ours,
        subject: Subject::Rs,
        bound: Duration::from_secs(600),
        body: Box::new(body),
    }
}

/// Runs all cases, so that one run shows all differences.
fn play(ctx: &Ctx, mut cases: Vec<cases::Case>) -> Result<()> {
    if ctx.subject == Subject::C {
        // What does not depend on the module is tested with ours; for the control a third will do.
        cases = cases.into_iter().step_by(3).collect();
    }
    let mut scene = None;
    let mut findings = Vec::new();
    for case in &cases {
        let network = match scene.take() {
            Some(network) => network,
            None => Scene::new()?,
        };
        match network.play(case) {
            Ok(()) => scene = Some(network),
            Err(e) => findings.push(format!("{}: {e:#}", case.name)),
        }
    }
    ctx.note(format!("{} cases", cases.len()));
    ensure!(
        findings.is_empty(),
        "{} of {} cases:\n{}",
        findings.len(),
        cases.len(),
        findings.join("\n")
    );
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! The differential fuzzer, as part of every test run.

use super::super::needs_ours;
use super::both;
use crate::fuzz::{fuzz, fuzz_whole, Modules, Plan};
use anyhow::{bail, ensure, Result};
use harness::modules;
use harness::pace::amount;
use harness::pair::Pair;
use harness::runner::{Boot, Ctx, Subject, Test};
use std::time::Duration;

/// Number of requests in a full test run; `WGRS_CASES` overrides it.
const CASES: usize = 100_000;
/// The seed of a full test run, fixed so that runs are reproducible; `WGRS_SEED` overrides it.
/// (`wgrs-selftests fuzz-netlink` uses a new one each time.)
const SEED: u64 = 1;

pub fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "atomic-fuzz".to_owned(),
        boot: Boot::Config,
        modules: modules::Modules::Ours,
        subject: Subject::Rs,
        bound: Duration::from_secs(300),
        body: Box::new(|ctx| {
            needs_ours(ctx)?;
            let tally = fuzz_whole(4000, SEED)?;
            ctx.note(format!("{tally:?}"));
            ensure!(tally.len() > 3, "few results: {tally:?}");
            Ok(())
        }),
    });
    both(list, "netlink-fuzz", 900, |ctx| {
        run(
            ctx,
            Plan {
                cases: number("WGRS_CASES", amount(CASES as u64, 5_000) as usize),
                seed: number("WGRS_SEED", SEED),
            },
        )
    });
}

/// The fuzzer alone, without the usual time limit.
pub fn alone(plan: Plan) -> Test {
    let mut list = Vec::new();
    both(&mut list, "fuzz-netlink", 24 * 3600, move |ctx| {
        run(ctx, plan)
    });
    list.swap_remove(0)
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let value = std::env::var(name).ok();
    value.and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn run(ctx: &Ctx, plan: Plan) -> Result<()> {
    let mut modules = Modules::new(Pair::new(ctx)?)?;
    let report = fuzz(&mut modules, plan)?;
    let secs = report.took.as_secs_f64();
    ctx.note(format!(
        "{} requests from seed {} on, {:.0} per second: {:?}",
        report.cases,
        plan.seed,
        report.cases as f64 / secs,
        report.tally
    ));
    if let Some(finding) = report.finding {
        bail!("{finding}");
    }
    // A generator of garbage only, or of what is refused early, finds nothing.
    if report.cases >= 10_000 {
        let share = |name: &str| report.tally.get(name).copied().unwrap_or(0) * 100 / report.cases;
        ensure!(share("OK") >= 25, "only {} % were accepted", share("OK"));
        for name in [
            "EINVAL",
            "ERANGE",
            "EBADR",
            "ENODEV",
            "EOPNOTSUPP",
            "EPFNOSUPPORT",
        ] {
            ensure!(report.tally.contains_key(name), "{name} never occurred");
        }
    }
    modules.pair().tunnel()
}

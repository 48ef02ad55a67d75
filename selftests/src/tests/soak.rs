// SPDX-License-Identifier: GPL-2.0-only
//! The soak test, for half a minute in every test run.

use super::Test;
use crate::soak::{run, Plan};
use harness::modules::Modules;
use harness::runner::{Boot, Subject};
use std::time::Duration;

/// How long a test run soaks.
const SHORT: Duration = Duration::from_secs(25);
/// The seed of a test run, fixed so that runs are alike; `WGRS_SEED` overrides it.
/// (`wgrs-selftests soak` uses a new one each time.)
const SEED: u64 = 1;

pub fn register(list: &mut Vec<Test>) {
    let seed = std::env::var("WGRS_SEED").ok();
    let plan = Plan {
        time: SHORT,
        seed: seed.and_then(|s| s.parse().ok()).unwrap_or(SEED),
    };
    list.push(test("soak-short@rs", plan));
}

/// The soak test alone.
pub fn alone(plan: Plan) -> Test {
    test("soak", plan)
}

fn test(name: &str, plan: Plan) -> Test {
    Test {
        name: name.to_owned(),
        boot: Boot::Smp,
        modules: Modules::Ours,
        subject: Subject::Rs,
        // The last rounds, and their recovery, come after the plan's time.
        bound: plan.time + Duration::from_secs(300),
        body: Box::new(move |ctx| run(ctx, plan)),
    }
}

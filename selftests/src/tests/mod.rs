// SPDX-License-Identifier: GPL-2.0-only
//! The tests, one file per area.

mod atomic;
mod attack;
mod basic;
mod binding;
mod bulk;
mod checkers;
mod control;
mod counters;
mod disturb;
mod disturb_cookies;
mod disturb_self;
mod disturb_vtime;
mod encapsulated;
mod events;
mod fairness;
mod faults;
mod gso;
pub mod harness_self;
mod interop;
mod link;
mod load;
mod messages;
mod mtu;
pub mod netlink;
mod netns;
mod nsdeath;
mod options;
mod order;
mod outer;
mod readme;
mod receive;
mod roaming;
mod scale;
mod scenario;
mod scrub;
mod session;
pub mod soak;
mod source;
mod tool;
mod transmit;
mod underway;
mod unload;
mod updown;
mod vtime;
mod wgtool;

/// What `scripts/new-test` copies; built with the host tests only, to keep it right.
#[cfg(test)]
mod template;

use anyhow::{bail, Result};
use harness::modules::Modules;
use harness::runner::{Boot, Ctx, Skip, Subject, Test};
use std::time::Duration;

/// Programs that `scripts/peers` compiles, as tests that need them have them in their names.
const COMPILED: [&str; 3] = ["boringtun", "gotatun", "exporter"];

/// A fuzzer, comparisons with `wg` and `wg-quick` in all forms of a command or a file, a gigabyte,
/// thousands of peers, unloading again and again: one to four minutes each.
const LONG: [&str; 13] = [
    "bulk-tcp-1gib",
    "netlink-fuzz",
    "scale-curve",
    "scale-traffic-10000-peers",
    "tool-quick-default-route",
    "tool-quick-hooks",
    "tool-quick-judged",
    "tool-quick-plain",
    "tool-quick-refused",
    "tool-quick-wild",
    "tool-wg-forms",
    "tool-wg-generated",
    "unload-under-traffic",
];

/// Tests of areas that do not depend on timing, which do: nothing runs beside their guest.
const ALONE: [&str; 1] = ["attack-isolation"];

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Those about this module that do not take long, and need neither the sanitizer kernel nor
    /// programs which are compiled for them: what `make test` runs.
    Ours,
    /// All others: controls with the in-tree module, foreign programs, long ones.
    Rest,
    /// All.
    All,
}

impl Part {
    /// Whether it includes `test`.
    pub fn includes(self, test: &Test) -> bool {
        let is_ours = test.subject == Subject::Rs
            && !matches!(test.boot, Boot::San | Boot::SanVtime)
            && !needs_compiled(test)
            && !LONG.contains(&test.name.trim_end_matches("@rs"));
        match self {
            Part::Ours => is_ours,
            Part::Rest => !is_ours,
            Part::All => true,
        }
    }
}

#[cfg(test)]
#[test]
fn parts_go_by_names_that_tests_have() {
    let all = all();
    for name in LONG {
        let has = |test: &Test| test.name.trim_end_matches("@rs") == name;
        assert!(all.iter().any(has), "{name}");
    }
    for name in ALONE {
        assert!(all.iter().any(|test| test.name.starts_with(name)), "{name}");
    }
    for program in COMPILED {
        let has = |test: &Test| needs_compiled(test) && test.name.contains(program);
        assert!(all.iter().any(has), "{program}");
    }
}

/// Whether a test needs a program of [`COMPILED`].
pub fn needs_compiled(test: &Test) -> bool {
    test.name
        .split(['-', '@'])
        .any(|word| COMPILED.contains(&word))
}

/// The plain form of a test's body.
type Check = fn(&Ctx) -> Result<()>;

/// Every test, in the order in which they run.
pub fn all() -> Vec<Test> {
    let mut list = config();
    harness_self::register(&mut list);
    disturb_self::register(&mut list);
    options::register(&mut list);
    binding::register(&mut list);
    order::register(&mut list);
    events::register(&mut list);
    atomic::register(&mut list);
    counters::register(&mut list);
    underway::register(&mut list);
    nsdeath::register(&mut list);
    bulk::register(&mut list);
    control::register(&mut list);
    scale::register(&mut list);
    unload::register(&mut list);
    fairness::register(&mut list);
    disturb::register(&mut list);
    disturb_vtime::register(&mut list);
    disturb_cookies::register(&mut list);
    vtime::register(&mut list);
    soak::register(&mut list);
    faults::register(&mut list);
    // Last: it checks what the others left behind.
    checkers::register(&mut list);
    list
}

/// Tests whose outcome does not depend on timing: of configuration and the tools, of single packets
/// and sessions.
fn config() -> Vec<Test> {
    let mut list = Vec::new();
    load::register(&mut list);
    link::register(&mut list);
    encapsulated::register(&mut list);
    wgtool::register(&mut list);
    tool::register(&mut list);
    netlink::register(&mut list);
    scenario::register(&mut list);
    readme::register(&mut list);
    basic::register(&mut list);
    updown::register(&mut list);
    messages::register(&mut list);
    mtu::register(&mut list);
    transmit::register(&mut list);
    outer::register(&mut list);
    source::register(&mut list);
    receive::register(&mut list);
    gso::register(&mut list);
    scrub::register(&mut list);
    roaming::register(&mut list);
    netns::register(&mut list);
    session::register(&mut list);
    interop::register(&mut list);
    attack::register(&mut list);
    for test in &mut list {
        if test.boot == Boot::Smp && !ALONE.contains(&test.name.split('@').next().unwrap_or("")) {
            test.boot = Boot::Config;
        }
    }
    list
}

/// Prepares a test that loads our module itself: loads the dependencies, and skips the test if
/// another module stands in for ours.
fn needs_ours(ctx: &Ctx) -> Result<()> {
    if ctx.env.stand_in {
        bail!(Skip("about our module only".to_owned()));
    }
    ctx.env.load_dependencies()
}

/// A test of each implementation: as `NAME@c` with the in-tree module, as `NAME@rs` with `ours`.
fn of_each(
    list: &mut Vec<Test>,
    (name, boot, secs): (&str, Boot, u64),
    ours: Modules,
    body: impl Fn(&Ctx) -> Result<()> + Copy + 'static,
) {
    for (suffix, subject, modules) in [
        ("c", Subject::C, Modules::Intree),
        ("rs", Subject::Rs, ours),
    ] {
        list.push(Test {
            name: format!("{name}@{suffix}"),
            boot,
            modules,
            subject,
            bound: Duration::from_secs(secs),
            body: Box::new(body),
        });
    }
}

/// A test of the module in the role of `wireguard`, as `NAME@c` and `NAME@rs`.
fn drop_in(
    list: &mut Vec<Test>,
    name: &str,
    secs: u64,
    body: impl Fn(&Ctx) -> Result<()> + Copy + 'static,
) {
    of_each(list, (name, Boot::Smp, secs), Modules::Ours, body);
}

/// As [`drop_in`], in virtual time; the bound is in guest time.
fn drop_in_vtime(
    list: &mut Vec<Test>,
    name: &str,
    secs: u64,
    body: impl Fn(&Ctx) -> Result<()> + Copy + 'static,
) {
    of_each(list, (name, Boot::Vtime, secs), Modules::Ours, body);
}

/// A test of the module beside the in-tree one, which may be its peer: `NAME@c` and `NAME@rs`.
fn side_by_side(
    list: &mut Vec<Test>,
    name: &str,
    boot: Boot,
    secs: u64,
    body: impl Fn(&Ctx) -> Result<()> + Copy + 'static,
) {
    of_each(list, (name, boot, secs), Modules::Both, body);
}

/// One test of both modules at once.
fn both(
    list: &mut Vec<Test>,
    name: &str,
    secs: u64,
    body: impl Fn(&Ctx) -> Result<()> + Copy + 'static,
) {
    list.push(Test {
        name: name.to_owned(),
        boot: Boot::Smp,
        modules: Modules::Both,
        subject: Subject::Rs,
        bound: Duration::from_secs(secs),
        body: Box::new(body),
    });
}

/// A test of what only our module has.
fn ours(list: &mut Vec<Test>, name: &str, boot: Boot, secs: u64, body: Check) {
    list.push(Test {
        name: name.to_owned(),
        boot,
        modules: Modules::Ours,
        subject: Subject::Rs,
        bound: Duration::from_secs(secs),
        body: Box::new(body),
    });
}

#[test]
fn every_test_has_a_name_of_its_own() {
    let mut list = all();
    template::register(&mut list);
    let mut names = std::collections::BTreeSet::new();
    for test in &list {
        assert!(names.insert(&test.name), "two tests called {}", test.name);
    }
}

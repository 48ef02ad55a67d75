// SPDX-License-Identifier: GPL-2.0-only
//! What the sanitizer kernel's checkers report at the end, after all other tests.

use super::{Check, Test};
use anyhow::{ensure, Result};
use harness::checkers::{leaks, lockdep_alive, orphaned_references, trackers_left};
use harness::modules::Modules;
use harness::pace::slow;
use harness::runner::{Boot, Ctx, Subject};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check); 3] = [
        ("checkers-kmemleak", no_leaks),
        ("checkers-ref-trackers", no_references),
        ("checkers-lockdep", |_| lockdep_alive()),
    ];
    for (name, body) in tests {
        list.push(Test {
            name: name.to_owned(),
            boot: Boot::San,
            modules: Modules::None,
            subject: Subject::Rs,
            bound: Duration::from_secs(120),
            body: Box::new(body),
        });
    }
}

/// No memory was leaked since the kernel started, by the module or by anything else.
fn no_leaks(_: &Ctx) -> Result<()> {
    let leaks = leaks()?;
    ensure!(
        leaks.is_empty(),
        "{} objects leaked, the first few:\n{}",
        leaks.len(),
        leaks.iter().take(5).cloned().collect::<String>()
    );
    Ok(())
}

/// All devices and namespaces of the tests are freed, and the module holds no more references.
fn no_references(_: &Ctx) -> Result<()> {
    let start = Instant::now();
    // The kernel removes the trackers of freed objects in a work item.
    let mut left = trackers_left()?;
    while !left.is_empty() && start.elapsed() < slow(Duration::from_secs(5)) {
        sleep(Duration::from_millis(100));
        left = trackers_left()?;
    }
    ensure!(
        left.is_empty(),
        "{} devices and namespaces are still held: {left:?}",
        left.len()
    );
    let orphaned = orphaned_references();
    ensure!(
        orphaned.is_empty(),
        "references of a module that is not loaded any more: {orphaned:?}"
    );
    Ok(())
}

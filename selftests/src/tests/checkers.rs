// SPDX-License-Identifier: GPL-2.0
//! What the sanitizer kernel's checkers have to say at the end, after all other tests.

use super::{Check, Test};
use crate::harness::checkers::{leaks, lockdep_alive, references};
use crate::harness::modules::Modules;
use crate::harness::runner::{Boot, Ctx, Subject};
use anyhow::{ensure, Result};
use std::time::Duration;

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

/// Nothing was lost since the kernel started: not by the module, nor by anybody else.
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

/// Nobody holds a reference to a device of the tests: they are all gone.
fn no_references(_: &Ctx) -> Result<()> {
    for name in ["wg0", "wg1"] {
        let held = references(name)?;
        ensure!(held.is_empty(), "references to {name}: {held:?}");
    }
    Ok(())
}

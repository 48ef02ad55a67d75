// SPDX-License-Identifier: GPL-2.0-only
//! Tests that fail on purpose, and one that checks the artefacts that the harness keeps.

use super::{Check, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::capture::LINUX_SLL2;
use harness::modules::Modules;
use harness::netns::Netns;
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::ping_all;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// In virtual time, where the one that hangs takes no real time.
pub fn register(list: &mut Vec<Test>) {
    list.push(test("harness-artefacts", Modules::None, 900, artefacts));
}

/// Exists until the test that fails only once has run.
const ONCE: &str = "/tmp/wgrs-once";

/// The tests that fail, for [`artefacts`].
pub fn broken() -> Vec<Test> {
    let bodies: [(&str, Check); 4] = [
        ("error", |_| bail!("on purpose")),
        ("panic", |_| panic!("on purpose")),
        ("hang", |_| {
            sleep(Duration::MAX);
            Ok(())
        }),
        ("once", |_| match fs::remove_file(ONCE) {
            Ok(()) => bail!("only the first time"),
            Err(_) => Ok(()),
        }),
    ];
    let with_scene = |(name, end): (&str, Check)| {
        test(name, Modules::Ours, 60, move |ctx| {
            let tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
            let _bare = Netns::new("bare")?;
            let _capture = tunnel.watch(ctx, 0)?;
            ping_all(tunnel.ns(0), inner(false, 1), 1)?;
            println!("it says this");
            end(ctx)
        })
    };
    bodies.map(with_scene).into()
}

fn test(
    name: &str,
    modules: Modules,
    secs: u64,
    body: impl Fn(&Ctx) -> Result<()> + 'static,
) -> Test {
    Test {
        name: name.to_owned(),
        boot: Boot::Vtime,
        modules,
        subject: Subject::Rs,
        bound: Duration::from_secs(secs),
        body: Box::new(body),
    }
}

/// However a test fails, its counters, its captures and the kernel log are kept, and so is the
/// recording of all its namespaces from a second run. One that passes then is forgiven.
fn artefacts(ctx: &Ctx) -> Result<()> {
    let dir = Path::new("/tmp/wgrs-broken");
    fs::write(ONCE, "")?;
    let run = Command::new("/proc/self/exe")
        .arg("fail-on-purpose")
        .arg(dir)
        .output()?;
    let said = String::from_utf8_lossy(&run.stdout);
    let kept = check(dir, &said).with_context(|| format!("the runner said: {said}"));
    fs::remove_dir_all(dir).ok();
    ctx.note(format!("{} bytes of report", said.len()));
    ensure!(
        !run.status.success(),
        "the runner reports success after three failures"
    );
    let passed = "passed in the second run, failed in the first: only the first time";
    let forgiven = |line: &str| line.starts_with("ok 4 once ") && line.ends_with(passed);
    ensure!(
        said.lines().any(forgiven),
        "the test that fails once has not passed: {said}"
    );
    kept
}

fn check(dir: &Path, said: &str) -> Result<()> {
    for (n, (name, why)) in [
        ("error", "on purpose"),
        ("panic", "the test panicked"),
        ("hang", "not finished after 60s"),
    ]
    .into_iter()
    .enumerate()
    {
        let result = format!("not ok {} {name} ", n + 1);
        let line = said.lines().find(|line| line.starts_with(&result));
        let line = line.with_context(|| format!("{name} has no result"))?;
        ensure!(line.contains(why), "{name}: {line}");
        let dir = dir.join(name);
        // The test's own capture: Ethernet.
        has_initiation(&dir.join("0-v0.pcap"), 1, 14)?;
        for dir in [dir.clone(), dir.join("again")] {
            let counters = fs::read_to_string(dir.join("counters.txt")).context(name)?;
            for part in ["a v0: ", "a wg0: peer ", "b wg1: peer ", "bare lo: "] {
                ensure!(
                    counters.lines().any(|line| line.starts_with(part)),
                    "{}: no {part:?} in {counters}",
                    dir.display()
                );
            }
            ensure!(dir.join("kmsg.txt").exists(), "{name}: no kernel log");
        }
        let again = dir.join("again");
        let output = fs::read_to_string(again.join("output.txt")).context(name)?;
        ensure!(output.contains("it says this"), "{name} says {output}");
        for ns in ["a", "b"] {
            let entries = fs::read_dir(&again)?.flatten().map(|entry| entry.path());
            let wanted = format!("-namespace-{ns}.pcap");
            let mut files = entries.filter(|path| path.to_string_lossy().ends_with(&wanted));
            let path = files.next().with_context(|| format!("no *{wanted}"))?;
            has_initiation(&path, LINUX_SLL2, 20)?;
        }
    }
    ensure!(
        said.matches("it says this").count() == 4,
        "the output of the second runs is in the report"
    );
    Ok(())
}

/// The capture has a complete initiation over IPv4, after a link header of `header` bytes.
fn has_initiation(path: &Path, linktype: u32, header: usize) -> Result<()> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map(u32::from_ne_bytes)
    };
    ensure!(
        word(20) == Some(linktype),
        "{}: of type {:?}",
        path.display(),
        word(20)
    );
    let (mut at, mut count) = (24, 0);
    while let (Some(kept), Some(len)) = (word(at + 8), word(at + 12)) {
        let message = at + 16 + header + 20 + 8;
        let first = bytes.get(message..message + 4);
        let whole = kept == len && len as usize == header + 20 + 8 + 148;
        count += usize::from(whole && first == Some(&[1, 0, 0, 0]));
        at += 16 + kept as usize;
    }
    ensure!(count > 0, "{}: no initiation", path.display());
    Ok(())
}

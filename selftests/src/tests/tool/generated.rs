// SPDX-License-Identifier: GPL-2.0-only
//! Generated calls of `wg`: both tools print the same and leave the device in the same state.

use super::call::Call;
use super::forms;
use super::generate::{conf_path, write_files, Generator, Step};
use super::sides::{as_conf, difference, Both, Sides};
use super::words::PRIVATE;
use anyhow::{bail, ensure, Result};
use harness::gnl::Answer;
use harness::ktap::comment;
use harness::runner::{Ctx, Subject};
use harness::tool::key;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

/// Number of steps of a run; `WGRS_CASES` overrides it.
const STEPS: usize = 400;
/// The seed, fixed so that runs are reproducible; `WGRS_SEED` overrides it.
const SEED: u64 = 1;
/// Names a file that receives every call with the result of the ordinary tool.
const TRANSCRIPT: &str = "WGRS_TRANSCRIPT";
/// Time limit for shrinking a difference.
const PATIENCE: Duration = Duration::from_secs(3);
/// A run ends after this many differences.
const ENOUGH: usize = 20;

/// Hundreds of generated steps.
pub fn generated(ctx: &Ctx) -> Result<()> {
    let (steps, seed) = (number("WGRS_CASES", STEPS), number("WGRS_SEED", SEED));
    let mut generator = Generator::new(seed);
    let mut run = Run::new()?;
    for n in 0..steps {
        let step = generator.step();
        run.step(&step, &format!("step {n} of seed {seed}"))?;
    }
    ctx.note(format!(
        "{steps} steps from seed {seed}: {} succeeded",
        run.succeeded
    ));
    // A generator of garbage only finds nothing.
    ensure!(
        run.succeeded * 3 >= steps,
        "only {} of {steps} steps succeeded",
        run.succeeded
    );
    run.end()
}

/// Every form of every command.
pub fn every_form(ctx: &Ctx) -> Result<()> {
    let mut run = Run::new()?;
    let steps = forms::steps(ctx.subject == Subject::Rs);
    for (n, step) in steps.iter().enumerate() {
        run.step(step, &format!("form {n}"))?;
    }
    ctx.note(format!(
        "{} steps, {} succeeded",
        steps.len(),
        run.succeeded
    ));
    run.end()
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let value = std::env::var(name).ok();
    value.and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A run of steps on the two sides, whose devices are equal before each.
struct Run {
    sides: Sides,
    before: Answer,
    findings: Vec<String>,
    succeeded: usize,
    transcript: Option<BufWriter<File>>,
}

impl Run {
    fn new() -> Result<Self> {
        let mut sides = Sides::new()?;
        write_files()?;
        let [before, other] = sides.dumps()?;
        ensure!(before.parts == other.parts, "fresh devices differ");
        let transcript = std::env::var_os(TRANSCRIPT).map(File::create);
        Ok(Run {
            transcript: transcript.transpose()?.map(BufWriter::new),
            sides,
            before,
            findings: Vec::new(),
            succeeded: 0,
        })
    }

    fn step(&mut self, step: &Step, name: &str) -> Result<()> {
        let (both, dumps, found) = self.attempt(step)?;
        self.succeeded += usize::from(both[0].ok());
        if let Some(transcript) = &mut self.transcript {
            writeln!(transcript, "{}\n    {:?}", step.call, both[0])?;
        }
        let Some(found) = found else {
            [self.before, _] = dumps;
            return Ok(());
        };
        let start = as_conf(&self.before);
        let (step, found) = self.shrink(step, found, &start)?;
        let file = step.conf.as_ref().filter(|_| step.call.stdin.is_empty());
        let file = file.map_or(String::new(), |conf| {
            format!("\n  file: {}", super::call::quoted(conf))
        });
        let finding = format!(
            "{name}: {}{file}\n  on: {}\n  {found}",
            step.call,
            start.trim_end().replace('\n', " | ")
        );
        // At once, in case the run does not end.
        println!("{}", comment(&finding));
        self.findings.push(finding);
        if self.findings.len() >= ENOUGH {
            return self.fail();
        }
        self.sides.reset(&start)?;
        Ok(())
    }

    /// Executes the step on both sides, whose devices must be equal.
    fn attempt(&mut self, step: &Step) -> Result<(Both, [Answer; 2], Option<String>)> {
        if let Some(conf) = &step.conf {
            fs::write(conf_path(), conf)?;
        }
        let mut both = self.sides.run(&step.call)?;
        if step.call.args.len() == 1 {
            hide_random_key(&step.call, &mut both)?;
        }
        self.sides.mend_syncconf(&step.call, &both[0])?;
        let dumps = self.sides.dumps()?;
        let [c, rs] = &dumps;
        let found = difference(&both).or_else(|| {
            (c.parts != rs.parts).then(|| {
                format!(
                    "different devices\n  wg: {}\n  wg-rs: {}",
                    as_conf(c),
                    as_conf(rs)
                )
            })
        });
        Ok((both, dumps, found))
    }

    /// Removes words and lines that the difference does not need.
    fn shrink(&mut self, step: &Step, found: String, start: &str) -> Result<(Step, String)> {
        let mut best = (step.clone(), found);
        let start_time = Instant::now();
        loop {
            let mut smaller = Vec::new();
            for at in 1..best.0.call.args.len() {
                let mut step = best.0.clone();
                step.call.args.remove(at);
                smaller.push(step);
            }
            for at in 0..best.0.call.env.len() {
                let mut step = best.0.clone();
                if step.call.env.remove(at).0 != "WG_ENDPOINT_RESOLUTION_RETRIES" {
                    smaller.push(step);
                }
            }
            if let Some(conf) = best.0.conf.clone() {
                let lines: Vec<&[u8]> = conf.split_inclusive(|b| *b == b'\n').collect();
                for at in 0..lines.len() {
                    let mut step = best.0.clone();
                    let rest = [&lines[..at], &lines[at + 1..]].concat().concat();
                    if !step.call.stdin.is_empty() {
                        step.call.stdin.clone_from(&rest);
                    }
                    step.conf = Some(rest);
                    smaller.push(step);
                }
            }
            let mut better = None;
            for step in smaller {
                if start_time.elapsed() > PATIENCE {
                    return Ok(best);
                }
                self.sides.reset(start)?;
                if let (_, _, Some(found)) = self.attempt(&step)? {
                    // A different error is not a smaller form of this one.
                    if found.lines().next() == best.1.lines().next() {
                        better = Some((step, found));
                        break;
                    }
                }
            }
            match better {
                Some(step) => best = step,
                None => return Ok(best),
            }
        }
    }

    fn fail(&self) -> Result<()> {
        bail!(
            "{} differences:\n{}",
            self.findings.len(),
            self.findings.join("\n")
        )
    }

    fn end(mut self) -> Result<()> {
        if !self.findings.is_empty() {
            return self.fail();
        }
        // Prove that devices are compared at all: a change on one side must show.
        let one = Call::new(
            "wg",
            [
                "set",
                "wg0",
                "private-key",
                "/dev/stdin",
                "listen-port",
                "9",
            ],
        );
        self.sides.on(0, 0, &one.stdin(PRIVATE[2]))?;
        let [c, rs] = self.sides.dumps()?;
        ensure!(c.parts != rs.parts, "different devices compare equal");
        Ok(())
    }
}

/// Random keys must be keys, and may differ.
fn hide_random_key(call: &Call, both: &mut Both) -> Result<()> {
    let private = call.args[0] == "genkey";
    if !private && call.args[0] != "genpsk" {
        return Ok(());
    }
    let [c, rs] = both.clone().map(|seen| seen.stdout);
    for (seen, text) in both.iter_mut().zip([c, rs]) {
        let line = String::from_utf8_lossy(&text);
        let (line, end) = line.split_at(line.find(['\r', '\n']).unwrap_or(line.len()));
        let Some(bytes) = key(line) else { continue };
        let clamped = bytes[0] & 7 == 0 && bytes[31] & 0xc0 == 0x40;
        if clamped || !private {
            seen.stdout = format!("(a random key){end}").into_bytes();
        }
    }
    ensure!(
        both[0].stdout.is_empty() || both[0].stdout.starts_with(b"(a"),
        "no key: {:?}",
        both[0]
    );
    Ok(())
}

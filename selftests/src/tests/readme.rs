// SPDX-License-Identifier: GPL-2.0-only
//! The README's tutorial: its commands are run exactly as printed, on two "machines", and their
//! output must be what the README shows, except for keys, ports, times and amounts.

use super::{drop_in, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::netns::Netns;
use harness::pace::slow;
use harness::runner::Ctx;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const README: &str = include_str!("../../../README.md");
/// The tutorial's machines, and their outer addresses. Prompts are `NAME# `.
const MACHINES: [(&str, &str); 2] = [("server", "192.0.2.1/24"), ("client", "192.0.2.2/24")];
const BIN: &str = "/run/wireguard/bin";
/// Marks the end of a command's output.
const END: &str = "--end-of-output--";

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "tool-readme", 300, tutorial);
}

/// A command of the tutorial, and its output.
#[derive(Debug, PartialEq)]
struct Step {
    machine: usize,
    command: String,
    output: Vec<String>,
}

/// The steps of all `console` blocks in `text`.
fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside && line == "```console";
            continue;
        }
        if !inside {
            continue;
        }
        let prompt = MACHINES.iter().position(|(name, _)| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with("# "))
        });
        match (prompt, steps.last_mut()) {
            (Some(machine), _) => steps.push(Step {
                machine,
                command: line[line.find("# ").context("prompt")? + 2..].to_owned(),
                output: Vec::new(),
            }),
            // The shell's continuation prompt.
            (None, Some(step)) if line == ">" || line.starts_with("> ") => {
                ensure!(step.output.is_empty(), "a command inside output: {line}");
                step.command.push('\n');
                step.command.push_str(line.get(2..).unwrap_or(""));
            }
            (None, Some(step)) => step.output.push(line.to_owned()),
            (None, None) => bail!("output without a command: {line}"),
        }
    }
    Ok(steps)
}

/// Maps the README's words to those of this run where they differ each time.
#[derive(Default)]
struct Translation(HashMap<String, String>);

impl Translation {
    /// `text` with the README's keys and ports replaced by those of this run.
    fn apply(&self, text: &str) -> String {
        split(text)
            .into_iter()
            .map(|word| self.0.get(word).map_or(word, String::as_str))
            .collect()
    }

    /// An error unless `actual` matches the README's `line`. Records keys and ports seen for the
    /// first time.
    fn compare(&mut self, line: &str, actual: &str) -> Result<()> {
        // ping adds this when a second request was sent before the first answer arrived.
        let actual = match actual.split_once(", pipe ") {
            Some((times, _)) if times.starts_with("rtt ") => times,
            _ => actual,
        };
        let (expected, got) = (split(line), split(actual));
        // Compare only the words of these lines, not the numbers.
        let vague = [
            "latest handshake:",
            "transfer:",
            "bytes from",
            "packets transmitted",
            "rtt ",
        ];
        let vague = vague.iter().any(|words| line.contains(words));
        let vague_word = |word: &str| vague && (is_figure(word) || is_unit(word));
        let mut position = 0;
        for word in &expected {
            let Some(found) = got.get(position) else {
                bail!("missing: {word}")
            };
            position += 1;
            if vague_word(word) && vague_word(found) {
                continue;
            }
            if (is_key(word) && is_key(found)) || (is_port(word) && is_port(found)) {
                let known = self.0.entry((*word).to_owned());
                let known = known.or_insert_with(|| (*found).to_owned());
                ensure!(known == found, "{found} instead of {known}");
                continue;
            }
            ensure!(word == found, "{found:?} instead of {word:?}");
        }
        ensure!(position == got.len(), "more than the README shows");
        Ok(())
    }
}

/// Splits into words and separators. A key, a number or an address is one word; `:` separates an
/// endpoint from its port.
fn split(text: &str) -> Vec<&str> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || "+/=.-".contains(c);
    let mut words = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        if before.is_some_and(|b| b != in_word(c) || !in_word(c)) {
            words.push(&text[start..at]);
            start = at;
        }
        before = Some(in_word(c));
    }
    words.push(&text[start..]);
    words
}

fn is_key(word: &str) -> bool {
    word.len() == 44 && word.ends_with('=')
}

/// A port chosen by the kernel, not by the tutorial.
fn is_port(word: &str) -> bool {
    word != "51820" && word.parse::<u16>().is_ok_and(|port| port >= 32768)
}

/// A number, several separated by slashes, or ping's `time=`.
fn is_figure(word: &str) -> bool {
    let word = word.strip_prefix("time=").unwrap_or(word);
    word.split('/').all(|number| number.parse::<f64>().is_ok())
}

fn is_unit(word: &str) -> bool {
    ["B", "KiB", "MiB", "second", "seconds"].contains(&word)
        || word
            .strip_suffix("ms")
            .is_some_and(|n| n.is_empty() || n.parse::<f64>().is_ok())
}

/// A root shell on a machine, as a reader of the README has it.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    lines: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn start(name: &str) -> Result<Self> {
        let path = std::env::var("PATH").context("PATH")?;
        let mut child = Command::new("ip")
            .args(["netns", "exec", name, "bash", "--norc"])
            .env("PATH", format!("{BIN}:{path}"))
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a shell")?;
        let mut stdin = child.stdin.take().context("stdin")?;
        writeln!(stdin, "exec 2>&1")?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self {
            child,
            stdin,
            lines,
        })
    }

    /// The output of `command` in lines; an error if it fails.
    fn run(&mut self, command: &str) -> Result<Vec<String>> {
        writeln!(self.stdin, "{command}\necho {END} $?")?;
        let mut output = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(self.lines.read_line(&mut line)? > 0, "the shell has ended");
            if let Some(code) = line.strip_prefix(END) {
                ensure!(
                    code.trim() == "0",
                    "exit code {}:\n{}",
                    code.trim(),
                    output.join("\n")
                );
                return Ok(output);
            }
            output.push(line.trim_end().to_owned());
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two connected machines, each with an empty /etc/wireguard, wg-rs, and a wget.
fn machines() -> Result<[Netns; 2]> {
    let ns = [Netns::new("server")?, Netns::new("client")?];
    ns[0].sh("ip link add eth0 type veth peer name eth0 netns client")?;
    for (ns, (name, address)) in ns.iter().zip(MACHINES) {
        ns.sh(&format!("ip addr add {address} dev eth0"))?;
        ns.sh("ip link set eth0 up")?;
        // ip netns exec mounts these over those in /etc.
        let etc = Path::new("/etc/netns").join(name).join("wireguard");
        let _ = fs::remove_dir_all(&etc);
        fs::create_dir_all(&etc)?;
    }
    fs::create_dir_all("/etc/wireguard")?;
    fs::create_dir_all(BIN)?;
    let tool = std::env::var("WGRS_TOOL").context("WGRS_TOOL names no wg-rs")?;
    symlink(tool, Path::new(BIN).join("wg-rs"))?;
    symlink("/bin/busybox", Path::new(BIN).join("wget"))?;
    Ok(ns)
}

/// Follows the README.
fn tutorial(_: &Ctx) -> Result<()> {
    let steps = steps(README)?;
    ensure!(steps.len() >= 10, "the README has no tutorial");
    let ns = machines()?;
    let mut shells = [Shell::start("server")?, Shell::start("client")?];
    let mut known = Translation::default();
    let mut transcript = String::new();
    let mut wrong = Vec::new();
    for step in &steps {
        let command = known.apply(&step.command);
        let (name, _) = MACHINES[step.machine];
        transcript += &format!("{name}# {}\n", command.replace('\n', "\n> "));
        let output = shells[step.machine].run(&command);
        let output = output.with_context(|| format!("{transcript}\n{name}# {command}"))?;
        for line in &output {
            transcript += &format!("{line}\n");
        }
        if output.len() != step.output.len() {
            wrong.push(format!(
                "{command}: {} lines, not {}",
                output.len(),
                step.output.len()
            ));
        }
        for (expected, actual) in step.output.iter().zip(&output) {
            if let Err(error) = known.compare(expected, actual) {
                wrong.push(format!(
                    "{command}\n  README: {expected}\n  now:    {actual}\n  {error}"
                ));
            }
        }
        if command.ends_with('&') {
            // The server must listen before the next command on the other machine.
            let begin = Instant::now();
            while ns[step.machine].sh("ss -Hltn")?.is_empty() {
                ensure!(
                    begin.elapsed() < slow(Duration::from_secs(30)),
                    "no server: {command}"
                );
                sleep(Duration::from_millis(100));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{}\n\ntranscript:\n{transcript}",
        wrong.join("\n")
    );
    // The tutorial cleans up after itself.
    for ns in &ns {
        let links = ns.sh("ip -o link")?;
        ensure!(!links.contains("wg0"), "left on {}: {links}", ns.name());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_part_steps() {
        let text = "x\n```console\nserver# cat <<E\n> a\n>\n> b\nout 1\nout 2\nclient# true\n```\n\
                    server# no\n```\nclient# no\n```\n";
        let step = |machine, command: &str, output: &[&str]| Step {
            machine,
            command: command.into(),
            output: output.iter().map(|s| s.to_string()).collect(),
        };
        let wanted = [
            step(0, "cat <<E\na\n\nb", &["out 1", "out 2"]),
            step(1, "true", &[]),
        ];
        assert_eq!(steps(text).unwrap(), wanted);
    }

    #[test]
    fn only_what_must_differ_may_differ() {
        let key = |c: char| format!("{}=", c.to_string().repeat(43));
        let mut known = Translation::default();
        known.compare(&key('a'), &key('b')).unwrap();
        assert_eq!(
            known.apply(&format!("peer {}", key('a'))),
            format!("peer {}", key('b'))
        );
        known
            .compare(
                &format!("peer: {}", key('a')),
                &format!("peer: {}", key('b')),
            )
            .unwrap();
        assert!(known
            .compare(
                &format!("peer: {}", key('a')),
                &format!("peer: {}", key('c'))
            )
            .is_err());
        known
            .compare("endpoint: 192.0.2.2:40000", "endpoint: 192.0.2.2:50000")
            .unwrap();
        assert!(known
            .compare("listening port: 40000", "listening port: 50001")
            .is_err());
        for (readme, now, same) in [
            (
                "  transfer: 1.2 KiB received, 92 B sent",
                "  transfer: 95 B received, 3.1 KiB sent",
                true,
            ),
            (
                "  transfer: 1.2 KiB received, 92 B sent",
                "  transfer: 1.2 KiB received, 92 B lost",
                false,
            ),
            (
                "  latest handshake: 1 second ago",
                "  latest handshake: 12 seconds ago",
                true,
            ),
            ("listening port: 51820", "listening port: 51821", false),
            (
                "64 bytes from 10.0.0.1: time=0.4 ms",
                "64 bytes from 10.0.0.1: time=12.4 ms",
                true,
            ),
            (
                "64 bytes from 10.0.0.1: time=0.4 ms",
                "64 bytes from 10.0.0.2: time=0.4 ms",
                false,
            ),
            ("interface: wg0", "interface: wg1", false),
            ("a b", "a b c", false),
            ("a b", "a", false),
        ] {
            let result = Translation::default().compare(readme, now);
            assert_eq!(result.is_ok(), same, "{readme} / {now}: {result:?}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! KTAP version 1, the output format of the kernel's own selftests.
//!
//! Format: `Documentation/dev-tools/ktap.rst`. One result line per test, the time it took as the
//! line's diagnostic data; everything else is a `# ` comment.

use std::time::Duration;

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Ok,
    /// It passed when it was run again, and why it had failed.
    OkAgain(String),
    /// It was skipped, and why.
    Skip(String),
    /// It failed, and why.
    Fail(String),
}

/// The two lines that open a run of `n` tests.
pub fn header(n: usize) -> String {
    format!("KTAP version 1\n1..{n}")
}

/// Marks a test that passed in its second run; the host repeats such lines at the end of its
/// report.
const AGAIN: &str = "passed in the second run, failed in the first";

/// The result line of test number `n` (counted from 1).
pub fn result(n: usize, name: &str, outcome: &Outcome, took: Duration) -> String {
    let secs = took.as_secs_f64();
    match outcome {
        Outcome::Ok => format!("ok {n} {name} # {secs:.2} s"),
        Outcome::OkAgain(why) => {
            format!("ok {n} {name} # {secs:.2} s, {AGAIN}: {}", one_line(why))
        }
        Outcome::Skip(why) => format!("ok {n} {name} # SKIP {}", one_line(why)),
        Outcome::Fail(why) => format!("not ok {n} {name} # {secs:.2} s: {}", one_line(why)),
    }
}

/// `text` as KTAP comment lines.
pub fn comment(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str("# ");
        out.push_str(line);
    }
    out
}

/// A table as KTAP comments that start with `# | `, which the host extracts for its summary.
pub fn table(title: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| Some(r.get(c)?.chars().count()))
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut out = format!("# | {title}");
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(c, (cell, &w))| match c {
                0 => format!("{cell:<w$}"),
                _ => format!("{cell:>w$}"),
            })
            .collect();
        out.push_str("\n# |   ");
        out.push_str(cells.join("  ").trim_end());
    }
    out
}

/// `text` without line breaks and `#`, which would end a result line or start its diagnostics.
fn one_line(text: &str) -> String {
    text.trim().replace(['\n', '\r'], " | ").replace('#', "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let t = Duration::from_millis(1234);
        assert_eq!(header(3), "KTAP version 1\n1..3");
        assert_eq!(result(1, "a-b", &Outcome::Ok, t), "ok 1 a-b # 1.23 s");
        assert_eq!(
            result(2, "c", &Outcome::Skip("no #1\n".into()), t),
            "ok 2 c # SKIP no %1"
        );
        assert_eq!(
            result(3, "d", &Outcome::Fail("one\ntwo".into()), t),
            "not ok 3 d # 1.23 s: one | two"
        );
        assert_eq!(
            result(4, "e", &Outcome::OkAgain("late".into()), t),
            "ok 4 e # 1.23 s, passed in the second run, failed in the first: late"
        );
        assert_eq!(comment("x\ny"), "# x\n# y");
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            table("t", &[row(["", "ab"]), row(["long", "1"])]),
            "# | t\n# |         ab\n# |   long   1"
        );
    }
}

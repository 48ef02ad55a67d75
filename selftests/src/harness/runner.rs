// SPDX-License-Identifier: GPL-2.0-only
//! Runs tests: each in a process, PID, mount and network namespaces of its own, with a time bound,
//! and with the kernel log, the devices, the namespaces and the modules checked afterwards.

use super::artefacts;
use super::capture::Frames;
use super::checkers;
use super::cmd;
use super::driver::{Driver, BY_TOOL, COEXIST, PLAIN};
use super::kmsg::{self, Kmsg};
use super::ktap::{self, Outcome};
use super::modules::{self, Env, Modules};
use super::netns;
use super::pace::slow;
use anyhow::{anyhow, bail, ensure, Context, Result};
use nix::mount::{mount, MsFlags};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sched::{unshare, CloneFlags};
use nix::sys::mman::{mlockall, MlockAllFlags};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{dup2_stderr, dup2_stdout, fork, ForkResult, Pid};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// The kind of guest that a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Boot {
    /// Several CPUs, real time.
    Smp,
    /// As [`Boot::Smp`], for tests whose outcome does not depend on timing: may run beside other
    /// work.
    Config,
    /// One CPU, virtual time: idle time is skipped, so hours take seconds.
    Vtime,
    /// The sanitizer kernel; runs the tests of [`Boot::Smp`] and [`Boot::Config`] as well.
    San,
    /// The sanitizer kernel in virtual time; runs the tests of [`Boot::Vtime`] and [`Boot::San`].
    SanVtime,
}

impl Boot {
    /// True if a test that asks for `self` runs in a guest of kind `guest`.
    pub fn runs_in(self, guest: Boot) -> bool {
        match guest {
            Boot::San => matches!(self, Boot::San | Boot::Smp | Boot::Config),
            Boot::SanVtime => matches!(self, Boot::San | Boot::Vtime),
            _ => self == guest,
        }
    }

    /// True for a guest whose clock skips idle time.
    pub fn is_vtime(self) -> bool {
        matches!(self, Boot::Vtime | Boot::SanVtime)
    }
}

/// Which implementation a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The in-tree module: the control.
    C,
    /// Ours.
    Rs,
}

/// The body of a test.
pub type Body = Box<dyn Fn(&Ctx) -> Result<()>>;

/// One named test.
pub struct Test {
    /// Kebab-case, area first; `@c` or `@rs` at the end of a test that runs on both modules.
    pub name: String,
    /// The guest that it needs.
    pub boot: Boot,
    /// The modules that are loaded when it starts.
    pub modules: Modules,
    /// Which implementation it is about.
    pub subject: Subject,
    /// Its time limit on the guest's clock, before [`slow`].
    pub bound: Duration,
    /// The test itself.
    pub body: Body,
}

/// A test's context: what is under test, and where its notes and captures go.
pub struct Ctx {
    /// The modules under test.
    pub env: Env,
    /// Which implementation the test is about.
    pub subject: Subject,
}

impl Ctx {
    /// Two ends of the driver under test in the role of `wireguard`, configured by `wg`.
    pub fn by_tool(&self) -> [Driver; 2] {
        [BY_TOOL; 2]
    }

    /// As [`Ctx::by_tool`], configured by the harness's own netlink client.
    pub fn plain(&self) -> [Driver; 2] {
        [PLAIN; 2]
    }

    /// The driver under test, and the in-tree driver as its peer. (Needs [`Modules::Both`].)
    pub fn against_intree(&self) -> [Driver; 2] {
        match self.subject {
            Subject::Rs if !self.env.stand_in => [COEXIST, PLAIN],
            _ => [PLAIN, PLAIN],
        }
    }

    /// Prints a line into the report.
    pub fn note(&self, text: impl AsRef<str>) {
        println!("{}", ktap::comment(text.as_ref()));
    }

    /// Prints a table, which the host repeats at the end of the report. The first column is
    /// left-aligned.
    pub fn table(&self, title: &str, rows: &[Vec<String>]) {
        println!("{}", ktap::table(title, rows));
    }

    /// Saves a capture's frames as NAME.pcap if the test fails. `linktype` as in pcap: 1 is
    /// Ethernet.
    pub fn keep(&self, name: &str, frames: Frames, linktype: u32) {
        artefacts::keep(name, frames, linktype);
    }
}

/// The error of a test that cannot run here, with the reason: it counts as skipped.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Options of a run.
pub struct Options {
    /// Where to save the artefacts of failed tests.
    pub out: Option<PathBuf>,
    /// Capture on all interfaces already in the first run of each test.
    pub pcap: bool,
    /// Virtual time: it must not wait for the host's files, so all memory is locked; and a second
    /// run costs little, however long it is.
    pub virtual_time: bool,
}

/// At most this many failed tests are run again.
const AGAIN: usize = 6;
/// At most this many of them count as passed if they pass then: on a busy, emulated machine a time
/// limit is missed now and then. What the kernel log or a leak failed stays failed.
const FORGIVEN: usize = 2;
/// The time limit of a second run in real time, unless the test's own is shorter.
const AGAIN_BOUND: Duration = Duration::from_secs(300);
/// Time after a test's limit for saving its artefacts.
const GRACE: Duration = Duration::from_secs(10);

/// One run of a test.
struct Run {
    /// Where to save its artefacts.
    dir: Option<PathBuf>,
    /// Its start, and its time limit, on the guest's clock.
    start: Instant,
    bound: Duration,
    /// A second run: its artefacts are saved however it ends, its output among them.
    again: bool,
}

/// How a run ended.
struct End {
    outcome: Outcome,
    /// No warning in the kernel log, and nothing left behind.
    clean: bool,
    /// The kernel is fit for the next test.
    sound: bool,
}

/// Runs `tests` and returns the number of failures.
pub fn run(tests: &[&Test], options: &Options) -> Result<usize> {
    let env = Env::read();
    modules::unload_all().context("a WireGuard module is in use before the first test")?;
    // Needed by most tests; loaded here for guests in which the kernel cannot run modprobe.
    for module in ["veth", "tun"] {
        cmd::try_run(&["modprobe", module], "")?;
    }
    // Read here once for all processes of tests.
    if let Some(ko) = env.ko.as_deref().filter(|_| !env.stand_in) {
        modules::dependencies_of(ko)?;
    }
    checkers::note_trackers();
    println!("{}", ktap::header(tests.len()));
    let (mut failed, mut repeated, mut forgiven) = (0, 0, 0);
    for (n, test) in tests.iter().enumerate() {
        let dir = test.name.replace(['/', '@'], "_");
        let first = Run {
            dir: options.out.as_ref().map(|out| out.join(dir)),
            start: Instant::now(),
            bound: slow(test.bound),
            again: false,
        };
        let mut end = one(test, &env, options, &first)?;
        let took = first.start.elapsed();
        if matches!(end.outcome, Outcome::Fail(_)) && end.sound && repeated < AGAIN {
            repeated += 1;
            end = again(test, &env, options, &first, end, forgiven < FORGIVEN)?;
            forgiven += usize::from(!matches!(end.outcome, Outcome::Fail(_)));
        }
        println!("{}", ktap::result(n + 1, &test.name, &end.outcome, took));
        failed += usize::from(matches!(end.outcome, Outcome::Fail(_)));
        if !end.sound {
            println!("Bail out! the kernel is not fit for further tests");
            return Ok(failed.max(1));
        }
    }
    Ok(failed)
}

/// Runs a failed test again with captures in all its namespaces, which the first run lacks because
/// they change the code paths of packets. Returns how the test ended: as it did the first time,
/// unless it may be forgiven, was clean, and passes now.
fn again(
    test: &Test,
    env: &Env,
    options: &Options,
    first: &Run,
    end: End,
    may_pass: bool,
) -> Result<End> {
    let (Some(dir), Outcome::Fail(why)) = (&first.dir, &end.outcome) else {
        return Ok(end);
    };
    let longest = if options.virtual_time {
        Duration::MAX
    } else {
        AGAIN_BOUND
    };
    let run = Run {
        dir: Some(dir.join("again")),
        start: Instant::now(),
        bound: slow(test.bound).min(longest),
        again: true,
    };
    let second = one(test, env, options, &run)?;
    let text = match &second.outcome {
        Outcome::Fail(why) => format!("failed: {why}"),
        other => format!("{other:?}"),
    };
    println!(
        "{}",
        ktap::comment(&format!("once more, with captures: {text}"))
    );
    let passed = may_pass && end.clean && second.outcome == Outcome::Ok;
    let outcome = if passed {
        Outcome::OkAgain(why.clone())
    } else {
        end.outcome
    };
    Ok(End {
        outcome,
        clean: end.clean && second.clean,
        sound: second.sound,
    })
}

/// Runs a test once.
fn one(test: &Test, env: &Env, options: &Options, run: &Run) -> Result<End> {
    let mut log = Kmsg::at_end()?;
    let links = links()?;
    kmsg::mark(&format!("start {}", test.name));
    let mut outcome = in_child(run.bound, |verdict| {
        inside(test, env, options, run, verdict)
    })?;
    let mut fail = |why: String| match &mut outcome {
        Outcome::Fail(first) => first.push_str(&format!("\nalso: {why}")),
        other => *other = Outcome::Fail(why),
    };
    let after = in_child(slow(Duration::from_secs(90)), |_| clean_up(&links))?;
    if let Outcome::Fail(why) = &after {
        fail(why.clone());
    }
    let lines = log.drain()?;
    let bad = kmsg::bad_lines(&lines);
    if let [first, ..] = bad.as_slice() {
        fail(format!("kernel log: {first} ({} such lines)", bad.len()));
    }
    let clean = after == Outcome::Ok && bad.is_empty();
    let failed = matches!(outcome, Outcome::Fail(_));
    if let Some(dir) = run.dir.as_ref().filter(|_| failed || run.again) {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("kmsg.txt"), lines.join("\n") + "\n")?;
    }
    kmsg::mark(&format!("end {}", test.name));
    // Leaked namespaces or modules in use prevent further tests; leaked links can be removed.
    let sound = after == Outcome::Ok
        || in_child(slow(Duration::from_secs(90)), |_| clear_away(&links))? == Outcome::Ok;
    Ok(End {
        outcome,
        clean,
        sound,
    })
}

/// In the test's process: loads the modules, sets up its mount namespace, runs the body.
fn inside(test: &Test, env: &Env, options: &Options, run: &Run, verdict: &OwnedFd) -> Result<()> {
    if options.virtual_time {
        mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).context("mlockall")?;
    }
    env.load(test.modules)?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make / private")?;
    netns::prepare(artefacts::HOOKS)?;
    if run.again {
        speak_into(run.dir.as_deref())?;
    }
    if run.again || options.pcap {
        artefacts::record();
    }
    let ctx = Ctx {
        env: env.clone(),
        subject: test.subject,
    };
    end_in_time(run, verdict)?;
    let ran = catch_unwind(AssertUnwindSafe(|| (test.body)(&ctx)));
    let result = ran.unwrap_or_else(|_| Err(anyhow!(PANICKED)));
    if ENDED.swap(true, Ordering::Relaxed) {
        sleep(Duration::MAX); // the time limit came first
    }
    if run.again || result.as_ref().is_err_and(|e| !e.is::<Skip>()) {
        save(run.dir.as_deref());
    }
    result
}

const PANICKED: &str = "the test panicked (see above)";

/// Set by whichever comes first: the test's return, or the end of its time.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Starts a thread that ends the test's process at its time limit. It runs in that process, which
/// has the captures and the live namespaces.
fn end_in_time(run: &Run, verdict: &OwnedFd) -> Result<()> {
    let mut verdict = File::from(verdict.try_clone()?);
    let (start, bound, dir) = (run.start, run.bound, run.dir.clone());
    thread::spawn(move || {
        until(start, bound);
        if ENDED.swap(true, Ordering::Relaxed) {
            return;
        }
        if dir.is_some() {
            // Twice: the cause of the hang may also block reading the counters.
            save(dir.as_deref());
            artefacts::look_at_all();
            save(dir.as_deref());
        }
        let _ = verdict.write_all(format!("fail{}", not_finished(bound)).as_bytes());
        // SAFETY: ends the process, whatever its other threads do.
        unsafe { libc::_exit(0) }
    });
    Ok(())
}

fn not_finished(bound: Duration) -> String {
    format!("not finished after {bound:?}")
}

fn save(dir: Option<&Path>) {
    if let Some(Err(e)) = dir.map(artefacts::save) {
        println!("{}", ktap::comment(&format!("artefacts: {e:#}")));
    }
}

/// From now on output goes into a file and not into the report.
fn speak_into(dir: Option<&Path>) -> Result<()> {
    let dir = dir.context("no folder")?;
    fs::create_dir_all(dir)?;
    let file = File::create(dir.join("output.txt"))?;
    dup2_stdout(&file)?;
    Ok(dup2_stderr(&file)?)
}

/// Checks the state after every test, in the initial namespaces.
fn clean_up(links_before: &BTreeSet<String>) -> Result<()> {
    let limit = slow(Duration::from_secs(30));
    wait(limit, "namespaces of the test are still alive", || {
        Ok(netns::leaked()? == 0)
    })?;
    netns::canary()?;
    wait(limit, "namespaces are not taken down", || {
        Ok(netns::leaked()? == 0)
    })?;
    modules::unload_all()?;
    let more = links_since(links_before)?;
    ensure!(more.is_empty(), "leaked links: {more:?}");
    Ok(())
}

/// After a failed [`clean_up`]: removes leaked links and checks again.
fn clear_away(links_before: &BTreeSet<String>) -> Result<()> {
    for link in links_since(links_before)? {
        cmd::run(&["ip", "link", "del", &link])?;
    }
    clean_up(links_before)
}

fn wait(limit: Duration, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < limit, "{what} after {limit:?}");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn links_since(before: &BTreeSet<String>) -> Result<Vec<String>> {
    Ok(links()?.difference(before).cloned().collect())
}

/// All but network cards, which have other names when they come back from a test.
fn links() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir("/sys/class/net").context("/sys/class/net")?;
    Ok(entries
        .flatten()
        .filter(|e| !e.path().join("device").exists())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect())
}

/// Runs `f` as the first process of a PID namespace, for at most `bound`. Processes that it starts
/// die with it. `f` gets the pipe for its verdict, in case it cannot return.
fn in_child(bound: Duration, f: impl FnOnce(&OwnedFd) -> Result<()>) -> Result<Outcome> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    std::io::stdout().flush()?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            let code = middle(writer, f);
            std::process::exit(code)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let (text, gone) = collect(reader, bound + slow(GRACE))?;
            if !gone {
                let _ = kill(child, Signal::SIGKILL);
            }
            waitpid(child, None)?;
            Ok(if text.is_empty() && !gone {
                Outcome::Fail(not_finished(bound))
            } else {
                verdict(&text)
            })
        }
    }
}

/// Between the harness and the test: makes the PID namespace and waits for its first process.
fn middle(writer: OwnedFd, f: impl FnOnce(&OwnedFd) -> Result<()>) -> i32 {
    die_with_parent();
    if unshare(CloneFlags::CLONE_NEWPID).is_err() {
        return 1;
    }
    // SAFETY: still one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            die_with_parent();
            let ran = catch_unwind(AssertUnwindSafe(|| f(&writer)));
            let _ = std::io::stdout().flush();
            let text = match ran {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(e)) => match e.downcast_ref::<Skip>() {
                    Some(Skip(why)) => format!("skip{why}"),
                    None => format!("fail{e:#}"),
                },
                Err(_) => format!("fail{PANICKED}"),
            };
            let _ = File::from(writer).write_all(text.as_bytes());
            0
        }
        Ok(ForkResult::Parent { child }) => {
            drop(writer);
            reap(child)
        }
        Err(_) => 1,
    }
}

fn die_with_parent() {
    // SAFETY: prctl with plain values.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn reap(child: Pid) -> i32 {
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        _ => 1,
    }
}

/// Reads the test's verdict for at most `limit`; also returns whether its process has ended.
fn collect(reader: OwnedFd, limit: Duration) -> Result<(String, bool)> {
    let (start, mut bytes) = (Instant::now(), Vec::new());
    let mut file = File::from(reader);
    loop {
        let left = limit.saturating_sub(start.elapsed()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        let mut buf = [0; 4096];
        let gone = poll(&mut fds, timeout)? > 0 && {
            let n = file.read(&mut buf)?;
            bytes.extend_from_slice(&buf[..n]);
            n == 0
        };
        if gone || left == 0 {
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), gone));
        }
    }
}

fn verdict(text: &str) -> Outcome {
    if text == "ok" {
        Outcome::Ok
    } else if let Some(why) = text.strip_prefix("skip") {
        Outcome::Skip(why.to_owned())
    } else if let Some(why) = text.strip_prefix("fail") {
        Outcome::Fail(why.to_owned())
    } else {
        Outcome::Fail("the test's process died without a verdict".to_owned())
    }
}

/// True if `name` matches `pattern`: as a substring, or, if it contains `*`, as a whole.
pub fn matches(name: &str, pattern: &str) -> bool {
    if !pattern.contains('*') {
        return name.contains(pattern);
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or("")) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Sleeps, on the guest's clock, until `start + offset`.
pub fn until(start: Instant, offset: Duration) {
    sleep((start + offset).saturating_duration_since(Instant::now()));
}

/// An error unless `value` lies in `low..=high`; `what` names it.
pub fn within(what: &str, value: Duration, low: f64, high: f64) -> Result<()> {
    let secs = value.as_secs_f64();
    if !(low..=high).contains(&secs) {
        bail!("{what}: {secs:.3} s, wanted {low} to {high} s");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("basic-ping-v4@rs", "ping"));
        assert!(!matches("basic-ping-v4@rs", "pong"));
        assert!(matches("basic-ping-v4@rs", "basic*@rs"));
        assert!(matches("basic-ping-v4@rs", "*"));
        assert!(!matches("basic-ping-v4@rs", "basic*@c"));
        assert!(!matches("basic-ping-v4@rs", "ping*"));
        assert!(matches("abab", "*ab*ab"));
        assert!(!matches("ab", "ab*ab"));
    }

    #[test]
    fn verdicts() {
        assert_eq!(verdict("ok"), Outcome::Ok);
        assert_eq!(verdict("skipx"), Outcome::Skip("x".into()));
        assert_eq!(verdict("faily"), Outcome::Fail("y".into()));
        assert!(matches!(verdict(""), Outcome::Fail(_)));
    }

    #[test]
    fn collects() {
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let [short, long] = [20, 20_000].map(Duration::from_millis);
        let (reader, writer) = pipe();
        assert_eq!(collect(reader, short).unwrap(), (String::new(), false));
        drop(writer);
        for ended in [true, false] {
            let (reader, writer) = pipe();
            let mut file = File::from(writer);
            file.write_all(b"ok").unwrap();
            let kept = (!ended).then_some(file);
            let limit = if ended { long } else { short };
            assert_eq!(collect(reader, limit).unwrap(), ("ok".to_owned(), ended));
            drop(kept);
        }
    }

    #[test]
    fn ranges() {
        assert!(within("t", Duration::from_secs(5), 5.0, 5.3).is_ok());
        assert!(within("t", Duration::from_secs(6), 5.0, 5.3).is_err());
    }
}

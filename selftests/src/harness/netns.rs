// SPDX-License-Identifier: GPL-2.0-only
//! Network namespaces with names, so that `ip -n NAME` and `ip netns exec NAME wg` work too.
//!
//! The names live in `/run/netns`, on a tmpfs private to the test's mount namespace: when the
//! test's last process is gone, so are the names and with them the namespaces.

use super::rtnl::Rtnl;
use anyhow::{Context, Result};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{setns, unshare, CloneFlags};
use std::any::Any;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::thread;

/// Where iproute2 keeps named namespaces.
const DIR: &str = "/run/netns";

/// How often TCP retransmits for a socket that was closed with unacknowledged data. Such a socket
/// keeps its namespace alive, with the default for minutes after the other end is gone.
const ORPHAN_RETRIES: &str = "/proc/sys/net/ipv4/tcp_orphan_retries";

/// A socket in the initial namespace, to number the namespaces made here (see [`leaked`]).
static ROOT: Mutex<Option<Rtnl>> = Mutex::new(None);

/// What is done with every namespace made here.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Called when it is made; what this gives is dropped with the namespace.
    pub made: fn(&Netns) -> Result<Guard>,
    /// Called just before it is dropped, while all its links are still there.
    pub dropped: fn(&Netns),
}

/// What [`Hooks::made`] gives.
pub type Guard = Option<Box<dyn Any + Send + Sync>>;

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Prepares the process for [`Netns::new`]. Call once, in the initial network namespace and a
/// private mount namespace.
pub fn prepare(hooks: Hooks) -> Result<()> {
    HOOKS.get_or_init(|| hooks);
    *ROOT.lock().expect("poisoned") = Some(Rtnl::open()?);
    for dir in [DIR, "/run/wireguard"] {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {dir}"))?;
        mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mount tmpfs on {dir}"))?;
    }
    Ok(())
}

/// A named network namespace. On drop its name goes, and with it the namespace unless something
/// holds it.
pub struct Netns {
    name: String,
    path: PathBuf,
    file: File,
    /// See [`Hooks::made`].
    guard: Guard,
}

impl Netns {
    /// Creates a namespace called `name` with its loopback up.
    pub fn new(name: &str) -> Result<Self> {
        let path = Path::new(DIR).join(name);
        let file = thread::scope(|scope| {
            let made = scope.spawn(|| -> Result<File> {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                fs::write(ORPHAN_RETRIES, "3").context(ORPHAN_RETRIES)?;
                File::create(&path)?;
                let own = Path::new("/proc/thread-self/ns/net");
                mount(
                    Some(own),
                    &path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .context("bind the namespace to its name")?;
                Rtnl::open()?.set_up("lo", true)?;
                Ok(File::open(&path)?)
            });
            made.join().expect("namespace thread panicked")
        })?;
        if let Some(root) = ROOT.lock().expect("poisoned").as_mut() {
            root.nsid_add(file.as_raw_fd())
                .context("number the namespace")?;
        }
        let mut ns = Netns {
            name: name.to_owned(),
            path,
            file,
            guard: None,
        };
        if let Some(hooks) = HOOKS.get() {
            ns.guard = (hooks.made)(&ns)?;
        }
        Ok(ns)
    }

    /// Its name, as `ip -n` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file descriptor, for netlink.
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Runs `f` on a thread in the namespace. Sockets that it opens stay in the namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let ran = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).context("setns")?;
                f()
            });
            ran.join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("panic inside {}", self.name)))
        })
    }

    /// Starts `f` on a new thread in the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let ns = self.file.try_clone()?;
        Ok(thread::spawn(move || {
            setns(&ns, CloneFlags::CLONE_NEWNET).context("setns")?;
            drop(ns);
            f()
        }))
    }

    /// A route netlink socket in it.
    pub fn rtnl(&self) -> Result<Rtnl> {
        self.run(|| Ok(Rtnl::open()?))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Some(hooks) = HOOKS.get() {
            (hooks.dropped)(self);
        }
        self.guard = None;
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// Moves the calling thread into each named namespace in turn; yields its name and whether that
/// succeeded.
pub fn enter_each() -> impl Iterator<Item = (String, Result<()>)> {
    let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
    entries.map(|entry| {
        let entered = File::open(entry.path())
            .context("open")
            .and_then(|file| setns(&file, CloneFlags::CLONE_NEWNET).context("setns"));
        (entry.file_name().to_string_lossy().into_owned(), entered)
    })
}

/// How many namespaces of earlier tests still exist. Call in the initial namespace.
pub fn leaked() -> Result<usize> {
    Ok(Rtnl::open()?.nsid_count()?)
}

/// Creates and drops an empty, numbered namespace. The kernel dismantles namespaces batch by batch,
/// so its number disappears only when all earlier ones are dismantled, devices included. Call in
/// the initial namespace, then wait for [`leaked`] to be 0.
pub fn canary() -> Result<()> {
    let mut root = Rtnl::open()?;
    thread::scope(|scope| {
        let made = scope.spawn(|| -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let file = File::open("/proc/thread-self/ns/net")?;
            Ok(root.nsid_add(file.as_raw_fd())?)
        });
        made.join().expect("canary thread panicked")
    })
}

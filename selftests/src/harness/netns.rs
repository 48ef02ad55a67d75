// SPDX-License-Identifier: GPL-2.0
//! Network namespaces with names, so that `ip -n NAME` and `ip netns exec NAME wg` work too.
//!
//! The names live in `/run/netns`, on a tmpfs private to the test's mount namespace: when the
//! test's last process is gone, so are the names and with them the namespaces.

use super::artefacts;
use super::capture::Capture;
use super::rtnl::Rtnl;
use anyhow::{Context, Result};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{setns, unshare, CloneFlags};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

/// Where iproute2 keeps named namespaces.
const DIR: &str = "/run/netns";

/// How often TCP tries to get rid of what a closed socket has left unsent or unconfirmed. Such a socket
/// keeps its namespace alive, with the kernel's own number for minutes after the other end is gone.
const ORPHAN_RETRIES: &str = "/proc/sys/net/ipv4/tcp_orphan_retries";

/// A socket in the initial namespace, to number the namespaces made here (see [`leaked`]).
static ROOT: Mutex<Option<Rtnl>> = Mutex::new(None);

/// Readies the calling process for [`Netns::new`]: to be called in the initial network namespace,
/// in a mount namespace of its own.
pub fn prepare() -> Result<()> {
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

/// A named network namespace; taken down (its name, at least) on drop.
pub struct Netns {
    name: String,
    path: PathBuf,
    file: File,
    /// For the record, see [`artefacts::watch`].
    capture: Option<Capture>,
}

impl Netns {
    /// Makes a namespace called `name` with its loopback up.
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
            capture: None,
        };
        ns.capture = artefacts::watch(&ns)?;
        Ok(ns)
    }

    /// Its name, as `ip -n` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its descriptor, as netlink takes it.
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Runs `f` on a thread inside the namespace. Sockets opened there stay there.
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

    /// Starts `f` on a thread of its own inside the namespace.
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
        artefacts::last_look(self);
        self.capture = None;
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// Enters the named namespaces with the calling thread, one after the other, as far as possible.
pub fn enter_each() -> impl Iterator<Item = (String, Result<()>)> {
    let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
    entries.map(|entry| {
        let entered = File::open(entry.path())
            .context("open")
            .and_then(|file| setns(&file, CloneFlags::CLONE_NEWNET).context("setns"));
        (entry.file_name().to_string_lossy().into_owned(), entered)
    })
}

/// How many namespaces made by earlier tests still live. Call in the initial namespace.
pub fn leaked() -> Result<usize> {
    Ok(Rtnl::open()?.nsid_count()?)
}

/// Makes and drops an empty namespace, numbered. As the kernel takes namespaces down one batch
/// after the other, its number goes only when all earlier ones have been taken down completely,
/// their devices included. Call in the initial namespace, then wait for [`leaked`] to be 0.
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

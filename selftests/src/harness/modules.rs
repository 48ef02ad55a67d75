// SPDX-License-Identifier: GPL-2.0-only
//! Loading and unloading the WireGuard modules.

use super::cmd;
use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};
use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The in-tree module's name.
pub const INTREE: &str = "wireguard";
/// Our module's name.
pub const OURS: &str = "wireguard_rs";

/// The modules that are loaded when a test starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modules {
    /// None: the test loads and unloads by itself.
    None,
    /// The in-tree module.
    Intree,
    /// Ours in its place, as `wireguard`.
    Ours,
    /// The in-tree module, and ours beside it with `coexist=1`.
    Both,
}

/// The modules under test, from the environment.
#[derive(Clone, Debug)]
pub struct Env {
    /// `WGRS_KO`: the path of `wireguard_rs.ko`.
    pub ko: Option<PathBuf>,
    /// `WGRS_IMPL=c`: the in-tree module takes the place of ours, to develop tests.
    pub stand_in: bool,
}

impl Env {
    /// Reads the environment.
    pub fn read() -> Self {
        Env {
            ko: std::env::var_os("WGRS_KO").map(PathBuf::from),
            stand_in: std::env::var_os("WGRS_IMPL").is_some_and(|v| v == "c"),
        }
    }

    /// Our module's file; an error if `WGRS_KO` is not set.
    pub fn ko(&self) -> Result<&Path> {
        self.ko
            .as_deref()
            .context("this test needs our module: set WGRS_KO to wireguard_rs.ko")
    }

    /// Loads the modules of `want`, none of which may be loaded yet.
    pub fn load(&self, want: Modules) -> Result<()> {
        if matches!(want, Modules::Intree | Modules::Both) || self.stand_in && want == Modules::Ours
        {
            cmd::run(&["modprobe", INTREE])?;
        }
        if !self.stand_in && matches!(want, Modules::Ours | Modules::Both) {
            self.load_dependencies()?;
            let params = if want == Modules::Both {
                "coexist=1"
            } else {
                ""
            };
            self.load_ours(params)
                .with_context(|| format!("load {OURS} {params}"))?;
        }
        // A test must not pass on the wrong module.
        let ours = matches!(want, Modules::Ours | Modules::Both) && !self.stand_in;
        let intree = matches!(want, Modules::Intree | Modules::Both)
            || self.stand_in && want == Modules::Ours;
        if (loaded(OURS), loaded(INTREE)) != (ours, intree) {
            bail!("loaded are not the modules asked for ({want:?})");
        }
        Ok(())
    }

    /// Loads the modules that ours depends on.
    pub fn load_dependencies(&self) -> Result<()> {
        let ko = self.ko()?;
        for name in dependencies_of(ko)? {
            // The program takes longer than many a test.
            if !loaded(name) {
                cmd::run(&["modprobe", name])?;
            }
        }
        Ok(())
    }

    /// Loads our module with these parameters; its dependencies must be loaded.
    pub fn load_ours(&self, params: &str) -> Result<(), Errno> {
        let path = self.ko.as_deref().ok_or(Errno::ENOENT)?;
        let file = File::open(path).map_err(|_| Errno::ENOENT)?;
        let params = CString::new(params).map_err(|_| Errno::EINVAL)?;
        finit_module(&file, &params, ModuleInitFlags::empty())
    }
}

/// The values of `key` in a module's `.modinfo`.
pub fn modinfo(image: &[u8], key: &str) -> Vec<String> {
    // The section is a few hundred bytes long, and every module has a "depends".
    let find = |key: &[u8]| image.windows(key.len()).position(|w| w == key);
    let Some(at) = find(b"\0depends=") else {
        return Vec::new();
    };
    let around = at.saturating_sub(4096)..image.len().min(at + 4096);
    let entries = image.get(around).unwrap_or(&[]).split(|b| *b == 0);
    entries
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .filter_map(|entry| entry.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

/// The modules that a module depends on.
fn dependencies(image: &[u8]) -> Vec<String> {
    let lists = modinfo(image, "depends");
    let names = lists.iter().flat_map(|list| list.split(','));
    names
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// The same of our module's file, which is read once.
pub fn dependencies_of(ko: &Path) -> Result<&'static [String]> {
    static OURS: OnceLock<Vec<String>> = OnceLock::new();
    if OURS.get().is_none() {
        let image = fs::read(ko).with_context(|| ko.display().to_string())?;
        let _ = OURS.set(dependencies(&image));
    }
    Ok(OURS.get().map_or(&[], Vec::as_slice))
}

/// True if the module is loaded.
pub fn loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).join("refcnt").exists()
}

/// Unloads a module if it is loaded.
pub fn unload(name: &str) -> Result<()> {
    let c = CString::new(name)?;
    match delete_module(&c, DeleteModuleFlags::O_NONBLOCK) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => bail!("rmmod {name}: {e}"),
    }
    if loaded(name) {
        bail!("{name} is still there after rmmod");
    }
    Ok(())
}

/// Unloads both modules.
pub fn unload_all() -> Result<()> {
    unload(OURS)?;
    unload(INTREE)
}

/// Stops the kernel from loading modules on demand until it is dropped.
pub struct NoModprobe(String);

/// Names the program that the kernel runs to load a module.
const HELPER: &str = "/proc/sys/kernel/modprobe";

impl NoModprobe {
    /// Disables module loading.
    pub fn new() -> Result<Self> {
        let helper = fs::read_to_string(HELPER)?;
        fs::write(HELPER, "/nowhere")?;
        Ok(NoModprobe(helper))
    }
}

impl Drop for NoModprobe {
    fn drop(&mut self) {
        let _ = fs::write(HELPER, self.0.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_keys() {
        let image = b"\x7fELF..\0alias=a\0depends=udp_tunnel,libcurve25519\0alias=b\0";
        assert_eq!(modinfo(image, "alias"), ["a", "b"]);
        assert_eq!(dependencies(image), ["udp_tunnel", "libcurve25519"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}

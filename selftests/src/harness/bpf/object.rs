// SPDX-License-Identifier: GPL-2.0-only
//! Compiled BPF objects, their maps and programs.

use anyhow::{Context, Result};
use libbpf_rs::{libbpf_sys, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The direction of a frame, seen from the namespace that has the watched interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sent by the namespace.
    Out,
    /// Sent to the namespace.
    In,
}

/// Loads a compiled object into the kernel.
pub fn load(name: &str, image: &[u8]) -> Result<Object> {
    let object = ObjectBuilder::default()
        .open_memory(image)
        .and_then(|open| open.load());
    object.with_context(|| format!("load the BPF object {name}"))
}

/// The map called `name`.
pub fn map(object: &Object, name: &str) -> Result<MapHandle> {
    let map = object.maps().find(|map| map.name() == name);
    let map = map.with_context(|| format!("no BPF map {name}"))?;
    MapHandle::try_from(&map).with_context(|| format!("BPF map {name}"))
}

/// The program called `name`.
pub fn program<'a>(object: &'a Object, name: &str) -> Result<ProgramMut<'a>> {
    let program = object.progs_mut().find(|program| program.name() == name);
    program.with_context(|| format!("no BPF program {name}"))
}

/// Element `n` of an array map.
pub fn get(map: &MapHandle, n: u32) -> Result<Vec<u8>> {
    let value = map.lookup(&n.to_ne_bytes(), MapFlags::ANY)?;
    value.with_context(|| format!("no element {n} in a BPF map"))
}

/// Sets element `n` of an array map.
pub fn set(map: &MapHandle, n: u32, value: &[u8]) -> Result<()> {
    map.update(&n.to_ne_bytes(), value, MapFlags::ANY)
        .with_context(|| format!("set element {n} of a BPF map"))
}

/// The 64-bit number at index `n` of an element.
pub fn number(value: &[u8], n: usize) -> u64 {
    let bytes = value.get(n * 8..n * 8 + 8).and_then(|b| b.try_into().ok());
    bytes.map_or(0, u64::from_ne_bytes)
}

/// Attaches a program to an interface of the calling thread's namespace, for as long as the
/// descriptor is open.
pub fn attach(object: &Object, name: &str, index: u32, hook: u32) -> Result<OwnedFd> {
    let program = program(object, name)?;
    let program = program.as_fd().as_raw_fd();
    // SAFETY: a plain system call, without options; a descriptor that it gives is ours.
    let fd = unsafe { libbpf_sys::bpf_link_create(program, index as i32, hook, std::ptr::null()) };
    nix::errno::Errno::result(fd).with_context(|| format!("attach the BPF program {name}"))?;
    // SAFETY: just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

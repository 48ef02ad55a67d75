// SPDX-License-Identifier: GPL-2.0-only
//! Who drives an interface: the kernel ([`genl`]) or a program ([`uapi`]). As with `wg`, a program
//! comes first.

use crate::genl::{self, Link, FAMILIES};
use crate::model::{Device, SetDevice};
use crate::uapi;
use std::io;
use std::path::Path;

/// A WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    driver: Driver,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Driver {
    /// The kernel: by index, as another device may get the name meanwhile.
    Kernel { index: u32, family: &'static str },
    /// A program.
    Program,
}

impl Interface {
    /// Reads the device.
    pub fn get(&self) -> io::Result<Device> {
        match self.driver {
            Driver::Kernel { index, family } => genl::get_device(Link::Index(index), Some(family)),
            Driver::Program => uapi::get(folder(), &self.name),
        }
    }

    /// The index and the netlink family, if it is the kernel's.
    pub fn of_kernel(&self) -> Option<(u32, &'static str)> {
        match self.driver {
            Driver::Kernel { index, family } => Some((index, family)),
            Driver::Program => None,
        }
    }
}

fn folder() -> &'static Path {
    Path::new(uapi::FOLDER)
}

/// Programs stand in for the family that is not ours alone.
fn programs_too(family: Option<&str>) -> bool {
    family.is_none_or(|family| family == FAMILIES[0])
}

/// All interfaces, of one netlink family if one is given: first those of the kernel.
pub fn interfaces(family: Option<&str>) -> io::Result<Vec<Interface>> {
    let links = genl::wireguard_links()?.into_iter();
    let links = links.filter(|link| family.is_none_or(|family| family == link.family));
    let mut found: Vec<_> = links
        .map(|link| Interface {
            name: link.name,
            driver: Driver::Kernel {
                index: link.index,
                family: link.family,
            },
        })
        .collect();
    if programs_too(family) {
        let names = uapi::names(folder())?.into_iter();
        found.extend(names.map(|name| Interface {
            name,
            driver: Driver::Program,
        }));
    }
    Ok(found)
}

/// Reads a device.
pub fn get(name: &str, family: Option<&str>) -> io::Result<Device> {
    if programs_too(family) && uapi::has(folder(), name) {
        return uapi::get(folder(), name);
    }
    genl::get_device(Link::Name(name), family)
}

/// Changes a device: as a whole or not at all, where its driver offers that.
pub fn set_whole(name: &str, change: &SetDevice, family: Option<&str>) -> io::Result<()> {
    if programs_too(family) && uapi::has(folder(), name) {
        return uapi::set(folder(), name, change);
    }
    genl::set_whole_device(Link::Name(name), change, family)
}

/// Changes a device.
pub fn set(name: &str, change: &SetDevice, family: Option<&str>) -> io::Result<()> {
    if programs_too(family) && uapi::has(folder(), name) {
        return uapi::set(folder(), name, change);
    }
    genl::set_device(Link::Name(name), change, family)
}

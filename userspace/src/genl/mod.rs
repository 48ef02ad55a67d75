// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's side: reads and changes devices over the generic netlink family of the driver.
//!
//! [`Wireguard`] is a connection to one family. [`get_device`] and [`set_device`] find the family
//! themselves: `wireguard`, or `wireguard_rs` for the devices of a module loaded with `coexist=1`.
//! Errors are the kernel's, as [`io::Error`] with an errno; [`explain`] says what they mean to a
//! user.

mod atomic;
pub mod events;
pub mod extension;
mod hint;
mod links;
mod message;
pub mod options;
pub mod peers;
mod reply;
mod request;
pub mod settings;
#[cfg(test)]
mod tests;

pub use hint::explain;
pub use links::{wireguard_links, LinkListener, WireguardLink};
pub use reply::{read_reply, Malformed};
pub use request::write_requests;

use crate::model::{Device, SetDevice};
use crate::netlink::{attribute, attribute_u32, attributes as netlink_attributes, Socket};
use message::{Message, GENL_HEADER};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;
use std::io;
use wireguard_rs::proto::extension::{GENL_NAME, GENL_NAME_COEXIST, GROUP_EVENTS};
use wireguard_rs::proto::uapi::IFNAME_MAX_LEN;

/// The families there are: that of the in-tree driver and of our module in its place, and ours
/// beside it.
pub const FAMILIES: [&str; 2] = ["wireguard", "wireguard_rs"];

// linux/genetlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

/// Which interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link<'a> {
    /// By name.
    Name(&'a str),
    /// By index.
    Index(u32),
}

impl Link<'_> {
    /// `ENAMETOOLONG` for what no interface can be called, before anything else is looked at.
    fn check(&self) -> io::Result<()> {
        match self {
            Link::Name(name) if name.len() > IFNAME_MAX_LEN => Err(Errno::ENAMETOOLONG.into()),
            _ => Ok(()),
        }
    }
}

/// A connection to a driver.
pub struct Wireguard {
    socket: Socket,
    family: u16,
}

impl Wireguard {
    /// Connects to a family; `EPROTONOSUPPORT` if no loaded driver has it.
    pub fn open(family: &str) -> io::Result<Self> {
        let mut socket = Socket::open(NETLINK_GENERIC)?;
        let family = find_family(&mut socket, family)?.id;
        Ok(Self { socket, family })
    }

    /// Reads a device. Starts again if it changed meanwhile.
    pub fn get(&mut self, link: Link<'_>) -> io::Result<Device> {
        loop {
            let mut device = Device::default();
            let mut request = request::get(self.family, link)?;
            let interrupted = self.socket.ask(request.finish(), &mut |payload| {
                let attributes = payload.get(GENL_HEADER..).ok_or(Errno::EBADMSG)?;
                Ok(read_reply(attributes, &mut device)?)
            })?;
            if !interrupted {
                return Ok(device);
            }
        }
    }

    /// Changes a device. Stops at the kernel's first error; what came before stays, as the kernel
    /// has no transactions.
    pub fn set(&mut self, link: Link<'_>, change: &SetDevice) -> io::Result<()> {
        write_requests(self.family, link, change, &mut |mut request| {
            self.socket.ask(request.finish(), &mut |_| Ok(()))?;
            Ok(())
        })
    }
}

/// A family of generic netlink.
struct Family {
    id: u16,
    /// Of our own family: the name of the one beside it that `wg` speaks to.
    beside: &'static str,
    /// Its multicast groups.
    groups: Vec<(String, u32)>,
}

/// Looks a family up.
fn find_family(socket: &mut Socket, name: &str) -> io::Result<Family> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut request = Message::generic(GENL_ID_CTRL, flags, CTRL_CMD_GETFAMILY);
    let name = [name.as_bytes(), b"\0"].concat();
    request
        .put(CTRL_ATTR_FAMILY_NAME, &name)
        .map_err(|_| Errno::EMSGSIZE)?;
    let (mut id, mut groups) = (None, Vec::new());
    let asked = socket.ask(request.finish(), &mut |payload| {
        let attributes = payload.get(GENL_HEADER..).unwrap_or_default();
        let value = attribute(attributes, CTRL_ATTR_FAMILY_ID);
        id = value.and_then(|value| value.try_into().ok().map(u16::from_ne_bytes));
        let list = attribute(attributes, CTRL_ATTR_MCAST_GROUPS).unwrap_or_default();
        groups.extend(netlink_attributes(list).filter_map(|(_, group)| {
            let name = attribute(group, CTRL_ATTR_MCAST_GRP_NAME)?;
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            let id = attribute_u32(group, CTRL_ATTR_MCAST_GRP_ID)?;
            Some((String::from_utf8_lossy(name).into_owned(), id))
        }));
        Ok(())
    });
    match asked {
        Err(error) if error.errno == Errno::ENOENT as i32 => Err(Errno::EPROTONOSUPPORT.into()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Family {
            id: id.ok_or(Errno::ENOSYS)?,
            beside: "",
            groups,
        }),
    }
}

/// The family that only our module has, by one of its two names.
fn find_extension(socket: &mut Socket) -> io::Result<Family> {
    let [alone, coexisting] = FAMILIES;
    for (name, beside) in [(GENL_NAME_COEXIST, coexisting), (GENL_NAME, alone)] {
        match find_family(socket, name) {
            // With `coexist=1` the other name is that of a family without the group.
            Ok(family) if family.groups.iter().any(|(name, _)| name == GROUP_EVENTS) => {
                return Ok(Family { beside, ..family });
            }
            Err(error) if error.raw_os_error() != Some(Errno::EPROTONOSUPPORT as i32) => {
                return Err(error);
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(Errno::EPROTONOSUPPORT.into())
}

/// Our module is loaded, and with `coexist=1`.
pub fn coexists() -> io::Result<bool> {
    match find_extension(&mut Socket::open(NETLINK_GENERIC)?) {
        Ok(family) => Ok(family.beside != FAMILIES[0]),
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tries the families in turn until one knows the device.
fn with_family<T>(
    family: Option<&str>,
    run: &mut dyn FnMut(&mut Wireguard) -> io::Result<T>,
) -> io::Result<T> {
    let mut families = FAMILIES.into_iter();
    let first = family.or_else(|| families.next()).unwrap_or(FAMILIES[0]);
    let result = Wireguard::open(first).and_then(|mut wireguard| run(&mut wireguard));
    let elsewhere = [Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP].map(|errno| Some(errno as i32));
    match (result, families.next()) {
        (Err(error), Some(second))
            if family.is_none() && elsewhere.contains(&error.raw_os_error()) =>
        {
            match Wireguard::open(second).and_then(|mut wireguard| run(&mut wireguard)) {
                // The device belongs to neither: what the first one said is the better answer.
                Err(other) if elsewhere.contains(&other.raw_os_error()) => Err(error),
                result => result,
            }
        }
        (result, _) => result,
    }
}

/// Reads a device of the given family, or of the one that has it.
pub fn get_device(link: Link<'_>, family: Option<&str>) -> io::Result<Device> {
    link.check()?;
    with_family(family, &mut |wireguard| wireguard.get(link))
}

/// Changes a device of the given family, or of the one that has it: as a whole or not at all, where
/// the driver offers that.
pub fn set_whole_device(
    link: Link<'_>,
    change: &SetDevice,
    family: Option<&str>,
) -> io::Result<()> {
    link.check()?;
    if atomic::set(link, change, family)? {
        return Ok(());
    }
    set_device(link, change, family)
}

/// Changes a device of the given family, or of the one that has it.
pub fn set_device(link: Link<'_>, change: &SetDevice, family: Option<&str>) -> io::Result<()> {
    link.check()?;
    with_family(family, &mut |wireguard| wireguard.set(link, change))
}

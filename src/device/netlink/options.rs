// SPDX-License-Identifier: GPL-2.0-only

//! The options of an interface that the in-tree driver has not: commands of our own family.

use core::ffi::CStr;

use kernel::prelude::*;

use super::{requested_device, OPTIONS_POLICY};
use crate::{
    device::{binding::Binding, config, events, link::WireGuardLink, Device},
    kapi::{
        net::{
            genetlink::{
                Attr, Do, Dump, DumpBuffer, Message, Permission, Policy, Progress, Request,
            },
            rtnl,
        },
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    },
    proto::extension::{changed, cmd, options},
};

/// Shows them: a dump, of one message.
pub(super) struct GetOptions;

impl Dump for GetOptions {
    /// The index of the interface.
    type Cursor = Option<i32>;

    const CMD: u8 = cmd::OPTIONS_GET;
    const PERMISSION: Permission = Permission::NetnsAdmin;
    const POLICY: &'static [Policy] = &OPTIONS_POLICY;

    fn start(request: &Request<'_>) -> Result<Self::Cursor> {
        let rtnl = rtnl::lock();
        let device = requested_device(request, &rtnl)?;
        Ok(Some(device.netdev().ifindex()))
    }

    fn fill(cursor: &mut Self::Cursor, buffer: &mut DumpBuffer<'_>) -> Result<Progress> {
        let Some(ifindex) = *cursor else {
            return Ok(Progress::Done);
        };
        let rtnl = rtnl::lock();
        let device = rtnl
            .device_by_index::<WireGuardLink>(buffer.net(), ifindex)
            .map_err(|_| ENODEV)?;
        let update = config::lock(&device);
        let (generation, binding) = (update.generation(), update.binding());
        drop(update);
        let mut message = buffer.message(cmd::OPTIONS_GET, generation)?;
        message.put_u32(options::IFINDEX, ifindex as u32)?;
        message.put_str(options::IFNAME, &device.netdev().name())?;
        for option in &OPTIONS {
            let on = (option.of)(&device).load(Relaxed);
            message.put_u8(option.attr, on.into())?;
        }
        put_binding(&mut message, &binding)?;
        message.end();
        *cursor = None;
        Ok(Progress::More)
    }
}

/// Changes some of them.
pub(super) struct SetOptions;

impl Do for SetOptions {
    const CMD: u8 = cmd::OPTIONS_SET;
    const PERMISSION: Permission = Permission::NetnsAdmin;
    const POLICY: &'static [Policy] = &OPTIONS_POLICY;

    fn run(request: &Request<'_>) -> Result {
        let rtnl = rtnl::lock();
        let device = requested_device(request, &rtnl)?;
        for option in &OPTIONS {
            if let Some(attr) = request.attr(option.attr) {
                switch(&attr).inspect_err(|_| {
                    request.explain(Some(&attr), format_args!("a switch is 0 or 1"));
                })?;
            }
        }
        let mut update = config::lock(&device);
        let mut noted = 0;
        // First, as it may fail.
        if let Some(binding) = asked_binding(request, update.binding())? {
            if !device.may_manage_creating_net() {
                return Err(EPERM);
            }
            update.set_binding(&binding).inspect_err(|error| {
                let what = match *error {
                    ENODEV => "the interface to bind to is not there",
                    EADDRNOTAVAIL => "the address to bind to is none of this host",
                    EADDRINUSE => "the port is taken there",
                    _ => "the sockets cannot be bound so",
                };
                request.explain(None, format_args!("{what}"));
            })?;
            noted |= changed::BINDING;
        }
        for option in &OPTIONS {
            if let Some(attr) = request.attr(option.attr) {
                (option.of)(&device).store(switch(&attr)?, Relaxed);
                noted |= option.changed;
            }
        }
        if noted != 0 {
            update.bump_generation();
            events::device_changed(&device, noted);
        }
        Ok(())
    }
}

fn put_binding(message: &mut Message<'_>, binding: &Binding) -> Result {
    if let Some(name) = binding.interface() {
        message.put_str(
            options::BIND_INTERFACE,
            CStr::from_bytes_until_nul(name).map_err(|_| EINVAL)?,
        )?;
    }
    if !binding.v4.is_unspecified() {
        message.put(options::BIND_ADDRESS4, &binding.v4.octets())?;
    }
    if !binding.v6.is_unspecified() {
        message.put(options::BIND_ADDRESS6, &binding.v6.octets())?;
    }
    Ok(())
}

/// What the sockets are to be bound to, if that is asked for; `before` is what they are bound to.
fn asked_binding(request: &Request<'_>, before: Binding) -> Result<Option<Binding>> {
    let mut binding = before;
    let mut asked = false;
    if let Some(attr) = request.attr(options::BIND_INTERFACE) {
        binding.interface = attr.nul_string().ok_or(EINVAL)?;
        asked = true;
    }
    if let Some(attr) = request.attr(options::BIND_ADDRESS4) {
        binding.v4 = attr.bytes::<4>().ok_or(EINVAL)?.into();
        asked = true;
    }
    if let Some(attr) = request.attr(options::BIND_ADDRESS6) {
        binding.v6 = attr.bytes::<16>().ok_or(EINVAL)?.into();
        asked = true;
    }
    Ok(asked.then_some(binding))
}

/// An option that is on or off.
struct Switch {
    attr: u16,
    /// The flag of [`changed`].
    changed: u32,
    of: fn(&Device) -> &AtomicBool,
}

static OPTIONS: [Switch; 3] = [
    Switch {
        attr: options::UDP_GSO,
        changed: changed::UDP_GSO,
        of: |device| &device.bulk,
    },
    Switch {
        attr: options::COPY_DSCP,
        changed: changed::COPY_DSCP,
        of: |device| &device.copy_dscp,
    },
    Switch {
        attr: options::EAGER_HANDSHAKE,
        changed: changed::EAGER_HANDSHAKE,
        of: |device| &device.eager,
    },
];

/// A value that is 0 or 1.
pub(super) fn switch(attr: &Attr<'_>) -> Result<bool> {
    match attr.u8() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(EINVAL),
    }
}

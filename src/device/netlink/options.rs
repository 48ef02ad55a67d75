// SPDX-License-Identifier: GPL-2.0-only

//! The options of an interface that the in-tree driver has not: commands of our own family.

use kernel::prelude::*;

use super::{requested_device, OPTIONS_POLICY};
use crate::{
    device::{config, events, link::WireGuardLink},
    kapi::{
        net::{
            genetlink::{Do, Dump, DumpBuffer, Permission, Policy, Progress, Request},
            rtnl,
        },
        sync::atomic::Ordering::Relaxed,
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
        let generation = config::lock(&device).generation();
        let mut message = buffer.message(cmd::OPTIONS_GET, generation)?;
        message.put_u32(options::IFINDEX, ifindex as u32)?;
        message.put_str(options::IFNAME, &device.netdev().name())?;
        message.put_u8(options::UDP_GSO, device.may_bulk().into())?;
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
        let udp_gso = match request.attr(options::UDP_GSO) {
            Some(value) => match value.u8() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => return Err(EINVAL),
            },
            None => None,
        };
        let mut update = config::lock(&device);
        if let Some(on) = udp_gso {
            update.bump_generation();
            device.bulk.store(on, Relaxed);
            events::device_changed(&device, changed::UDP_GSO);
        }
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Configuration through generic netlink: the family that `wg` talks to, and one of our own with
//! what that has not.
//!
//! The numbers are in [`uapi`], the two commands in [`get`] and [`set`]. The policies are those of
//! `Documentation/netlink/specs/wireguard.yaml` in the kernel: a request that they refuse never
//! comes here.

mod atomic;
mod get;
mod options;
mod peers;
mod set;

use kernel::{module::this_module, prelude::*};

use crate::{
    device::{link::WireGuardLink, Device},
    kapi::{
        net::{
            genetlink::{Command, Family, Group, Policy, Registration, Request},
            rtnl::RtnlGuard,
        },
        sync::rcu::RcuArc,
    },
    proto::{
        extension,
        uapi::{self, allowedip, device, peer},
    },
};

static COMMANDS: [Command; 2] = [
    Command::new_dump::<get::GetDevice>(),
    Command::new_do::<set::SetDevice>(),
];

static EXTENSION_COMMANDS: [Command; 4] = [
    Command::new_dump::<options::GetOptions>(),
    Command::new_do::<options::SetOptions>(),
    Command::new_dump::<peers::GetPeers>(),
    Command::new_do::<atomic::Set>(),
];

/// What [`events`](super::events) are sent to.
static GROUPS: [Group; 1] = [Group::for_admins(c"events")];

/// The family as user space knows it.
static FAMILY: Family = Family::new(
    this_module::<crate::LocalModule>(),
    c"wireguard",
    uapi::GENL_VERSION,
    &COMMANDS,
    &[],
);

/// The family when the module runs beside the in-tree driver.
static COEXIST_FAMILY: Family = Family::new(
    this_module::<crate::LocalModule>(),
    c"wireguard_rs",
    uapi::GENL_VERSION,
    &COMMANDS,
    &[],
);

/// Our own family.
static EXTENSION: Family = Family::new(
    this_module::<crate::LocalModule>(),
    c"wireguard_rs",
    uapi::GENL_VERSION,
    &EXTENSION_COMMANDS,
    &GROUPS,
);

/// Our own family when the module runs beside the in-tree driver.
static COEXIST_EXTENSION: Family = Family::new(
    this_module::<crate::LocalModule>(),
    c"wireguard_rs_co",
    uapi::GENL_VERSION,
    &EXTENSION_COMMANDS,
    &GROUPS,
);

/// Opens the netlink interface that the in-tree driver has too, under another name if `coexist`.
///
/// # Errors
///
/// [`EEXIST`] if there is a family of that name.
pub(crate) fn register(coexist: bool) -> Result<Registration> {
    if coexist {
        COEXIST_FAMILY.register()
    } else {
        FAMILY.register()
    }
}

/// Opens our own netlink interface.
///
/// # Errors
///
/// As [`register`].
pub(crate) fn register_extension(coexist: bool) -> Result<Registration> {
    if coexist {
        COEXIST_EXTENSION.register()
    } else {
        EXTENSION.register()
    }
}

/// Bytes of a key attribute, as policies count.
const KEY_LEN: i16 = uapi::KEY_LEN as i16;

static GET_POLICY: [Policy; device::IFNAME as usize + 1] = Policy::table(&[
    (device::IFINDEX, Policy::U32),
    (
        device::IFNAME,
        Policy::nul_string(uapi::IFNAME_MAX_LEN as u16),
    ),
]);

static SET_POLICY: [Policy; device::MAX as usize + 1] = Policy::table(&[
    (device::IFINDEX, Policy::U32),
    (
        device::IFNAME,
        Policy::nul_string(uapi::IFNAME_MAX_LEN as u16),
    ),
    (device::PRIVATE_KEY, Policy::exact_len(KEY_LEN)),
    (device::PUBLIC_KEY, Policy::exact_len(KEY_LEN)),
    (device::FLAGS, Policy::flags32(device::F_ALL)),
    (device::LISTEN_PORT, Policy::U16),
    (device::FWMARK, Policy::U32),
    (device::PEERS, Policy::nested_array(&PEER_POLICY)),
]);

static PEER_POLICY: [Policy; peer::MAX as usize + 1] = Policy::table(&[
    (peer::PUBLIC_KEY, Policy::exact_len(KEY_LEN)),
    (peer::PRESHARED_KEY, Policy::exact_len(KEY_LEN)),
    (peer::FLAGS, Policy::flags32(peer::F_ALL)),
    (
        peer::ENDPOINT,
        Policy::min_len(uapi::ENDPOINT_MIN_LEN as i16),
    ),
    (peer::PERSISTENT_KEEPALIVE_INTERVAL, Policy::U16),
    (
        peer::LAST_HANDSHAKE_TIME,
        Policy::exact_len(uapi::TIMESPEC_LEN as i16),
    ),
    (peer::RX_BYTES, Policy::U64),
    (peer::TX_BYTES, Policy::U64),
    (peer::ALLOWEDIPS, Policy::nested_array(&ALLOWEDIP_POLICY)),
    (peer::PROTOCOL_VERSION, Policy::U32),
]);

static OPTIONS_POLICY: [Policy; extension::options::BIND_ADDRESS6 as usize + 1] = Policy::table(&[
    (extension::options::IFINDEX, Policy::U32),
    (
        extension::options::IFNAME,
        Policy::nul_string(uapi::IFNAME_MAX_LEN as u16),
    ),
    (extension::options::UDP_GSO, Policy::U8),
    (extension::options::COPY_DSCP, Policy::U8),
    (extension::options::EAGER_HANDSHAKE, Policy::U8),
    (
        extension::options::BIND_INTERFACE,
        Policy::nul_string(uapi::IFNAME_MAX_LEN as u16),
    ),
    (extension::options::BIND_ADDRESS4, Policy::exact_len(4)),
    (extension::options::BIND_ADDRESS6, Policy::exact_len(16)),
]);

static PEERS_POLICY: [Policy; extension::device::CHANGED_SINCE as usize + 1] = Policy::table(&[
    (extension::device::IFINDEX, Policy::U32),
    (
        extension::device::IFNAME,
        Policy::nul_string(uapi::IFNAME_MAX_LEN as u16),
    ),
    (
        extension::device::SHOW,
        Policy::flags32(
            extension::show::SETTINGS | extension::show::ALLOWED_IPS | extension::show::COUNTERS,
        ),
    ),
    (extension::device::PEER, Policy::exact_len(KEY_LEN)),
    (extension::device::CHANGED_SINCE, Policy::U32),
]);

/// As [`SET_POLICY`], but for what is not to be set.
static ATOMIC_POLICY: [Policy; extension::device::PEERS as usize + 1] = Policy::table(&[
    (extension::device::IFINDEX, Policy::U32),
    (
        extension::device::IFNAME,
        Policy::nul_string(uapi::IFNAME_MAX_LEN as u16),
    ),
    (extension::device::PRIVATE_KEY, Policy::exact_len(KEY_LEN)),
    (extension::device::FLAGS, Policy::flags32(device::F_ALL)),
    (extension::device::LISTEN_PORT, Policy::U16),
    (extension::device::FWMARK, Policy::U32),
    (
        extension::device::PEERS,
        Policy::nested_array(&ATOMIC_PEER_POLICY),
    ),
]);

static ATOMIC_PEER_POLICY: [Policy; extension::peer::SILENCE as usize + 1] = Policy::table(&[
    (extension::peer::PUBLIC_KEY, Policy::exact_len(KEY_LEN)),
    (extension::peer::PRESHARED_KEY, Policy::exact_len(KEY_LEN)),
    (extension::peer::FLAGS, Policy::flags32(peer::F_ALL)),
    (
        extension::peer::ENDPOINT,
        Policy::min_len(uapi::ENDPOINT_MIN_LEN as i16),
    ),
    (extension::peer::PERSISTENT_KEEPALIVE_INTERVAL, Policy::U16),
    (
        extension::peer::ALLOWEDIPS,
        Policy::nested_array(&ALLOWEDIP_POLICY),
    ),
    (extension::peer::PROTOCOL_VERSION, Policy::U32),
    (extension::peer::FIXED_ENDPOINT, Policy::U8),
    (extension::peer::SILENCE, Policy::U16),
]);

/// [`requested_device`] reads both.
const _: () = assert!(
    extension::options::IFINDEX == device::IFINDEX
        && extension::options::IFNAME == device::IFNAME
        && extension::device::IFINDEX == device::IFINDEX
        && extension::device::IFNAME == device::IFNAME
);

static ALLOWEDIP_POLICY: [Policy; allowedip::MAX as usize + 1] = Policy::table(&[
    (allowedip::FAMILY, Policy::U16),
    (
        allowedip::IPADDR,
        Policy::min_len(uapi::IPADDR_MIN_LEN as i16),
    ),
    (allowedip::CIDR_MASK, Policy::U8),
    (allowedip::FLAGS, Policy::flags32(allowedip::F_ALL)),
]);

/// The device that a request names, by index or by name but not both ([`EBADR`]), in the sender's
/// network namespace ([`ENODEV`]), and ours ([`EOPNOTSUPP`]).
fn requested_device(request: &Request<'_>, rtnl: &RtnlGuard) -> Result<RcuArc<Device>> {
    match (request.attr(device::IFINDEX), request.attr(device::IFNAME)) {
        (Some(index), None) => {
            let index = index.u32().ok_or(EINVAL)?;
            rtnl.device_by_index::<WireGuardLink>(request.net(), index as i32)
        }
        (None, Some(name)) => {
            let name: [u8; uapi::IFNAME_MAX_LEN + 1] = name.nul_string().ok_or(EINVAL)?;
            let name = CStr::from_bytes_until_nul(&name).map_err(|_| EINVAL)?;
            rtnl.device_by_name::<WireGuardLink>(request.net(), name)
        }
        _ => Err(EBADR),
    }
}

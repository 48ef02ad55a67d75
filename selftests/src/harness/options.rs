// SPDX-License-Identifier: GPL-2.0-only
//! The options of a device of ours, through the family that only our module has.

use super::netlink::{attrs, family_id, Attrs, Netlink};
use nix::errno::Errno;
use wireguard_rs::proto::extension::{cmd, options};

/// A request with these attributes.
fn ask(family: &str, cmd: u8, flags: i32, fill: &Attrs) -> Result<Vec<Vec<u8>>, Errno> {
    let mut socket = Netlink::generic()?;
    let id = family_id(&mut socket, family)?;
    let mut body = Attrs::after(&[cmd, 1, 0, 0]);
    body.raw(fill.bytes());
    let replies = socket.request(id, flags, body.bytes())?;
    Ok(replies.into_iter().map(|reply| reply.body).collect())
}

/// Sets options: what `fill` has, whatever it is.
pub fn set(family: &str, fill: &Attrs) -> Result<(), Errno> {
    ask(family, cmd::OPTIONS_SET, 0, fill).map(drop)
}

/// Whether the messages of a device may be sent together.
pub fn udp_gso(family: &str, name: &str) -> Result<bool, Errno> {
    let mut fill = Attrs::new();
    fill.str(options::IFNAME, name);
    let replies = ask(family, cmd::OPTIONS_GET, libc::NLM_F_DUMP, &fill)?;
    let [reply] = replies.as_slice() else {
        return Err(Errno::EBADMSG);
    };
    let list = attrs(reply.get(4..).unwrap_or_default());
    let own = [name.as_bytes(), b"\0"].concat();
    if !list.contains(&(options::IFNAME, own)) {
        return Err(Errno::EBADMSG);
    }
    let value = list.into_iter().find(|(kind, _)| *kind == options::UDP_GSO);
    match value.as_ref().map(|(_, value)| value.as_slice()) {
        Some([0]) => Ok(false),
        Some([1]) => Ok(true),
        _ => Err(Errno::EBADMSG),
    }
}

/// Sets whether the messages of a device may be sent together.
pub fn set_udp_gso(family: &str, name: &str, on: bool) -> Result<(), Errno> {
    let mut fill = Attrs::new();
    fill.str(options::IFNAME, name)
        .u8(options::UDP_GSO, on.into());
    set(family, &fill)
}

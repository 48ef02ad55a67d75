// SPDX-License-Identifier: GPL-2.0-only
//! The requests for options of a device: what they set, what is refused, and that this changes
//! nothing. (What an option does is tested where it belongs.)

use super::{needs_ours, Test};
use anyhow::{ensure, Context, Result};
use harness::events::Listener;
use harness::modules::Modules;
use harness::netlink::Attrs;
use harness::options::{set, set_udp_gso, udp_gso};
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{Opts, Tunnel};
use nix::errno::Errno;
use nix::unistd::{setuid, Uid};
use std::time::Duration;
use wireguard_rs::proto::extension::{attr, changed, event, options, GENL_NAME};

pub fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "options-requests".to_owned(),
        boot: Boot::Config,
        modules: Modules::Ours,
        subject: Subject::Rs,
        bound: Duration::from_secs(60),
        body: Box::new(requests),
    });
}

/// Writes a request.
type Fill<'a> = &'a (dyn Fn(&mut Attrs) + Sync);

fn requests(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let mut listener = Listener::open(tunnel.ns(0), GENL_NAME)?;
    let index = tunnel.ns(0).rtnl()?.index("wg0")?;
    tunnel.ns(0).run(|| {
        ensure!(udp_gso(GENL_NAME, "wg0")?, "off from the start");
        for on in [false, false, true] {
            set_udp_gso(GENL_NAME, "wg0", on)?;
            ensure!(udp_gso(GENL_NAME, "wg0")? == on, "not set to {on}");
            let told = listener.wait(event::DEVICE_CHANGED)?;
            ensure!(
                told.u32(attr::CHANGED) == Some(changed::UDP_GSO),
                "{told:?}"
            );
        }
        Ok(())
    })?;
    let refused: [(&str, Errno, Fill); 9] = [
        ("no device", Errno::EBADR, &|fill| {
            fill.u8(options::UDP_GSO, 0);
        }),
        ("a device named twice", Errno::EBADR, &|fill| {
            fill.str(options::IFNAME, "wg0")
                .u32(options::IFINDEX, index)
                .u8(options::UDP_GSO, 0);
        }),
        ("a device that is none", Errno::ENODEV, &|fill| {
            fill.str(options::IFNAME, "wg9").u8(options::UDP_GSO, 0);
        }),
        ("a device of the other namespace", Errno::ENODEV, &|fill| {
            fill.str(options::IFNAME, "wg1").u8(options::UDP_GSO, 0);
        }),
        ("a device of another kind", Errno::EOPNOTSUPP, &|fill| {
            fill.str(options::IFNAME, "v0").u8(options::UDP_GSO, 0);
        }),
        ("neither 0 nor 1", Errno::EINVAL, &|fill| {
            fill.str(options::IFNAME, "wg0").u8(options::UDP_GSO, 2);
        }),
        ("two bytes", Errno::EINVAL, &|fill| {
            fill.str(options::IFNAME, "wg0").u16(options::UDP_GSO, 0);
        }),
        ("an attribute that is none", Errno::EINVAL, &|fill| {
            fill.str(options::IFNAME, "wg0").u8(options::UDP_GSO, 0);
            fill.u8(options::UDP_GSO + 1, 0);
        }),
        ("a name without an end", Errno::EINVAL, &|fill| {
            fill.put(options::IFNAME, b"wg0").u8(options::UDP_GSO, 0);
        }),
    ];
    tunnel.ns(0).run(|| {
        for (what, wanted, request) in refused {
            let mut fill = Attrs::new();
            request(&mut fill);
            let got = set(GENL_NAME, &fill);
            ensure!(got == Err(wanted), "{what}: {got:?}, not {wanted}");
            ensure!(udp_gso(GENL_NAME, "wg0")?, "{what}: but it is off now");
        }
        // Nothing to set is no error.
        let mut fill = Attrs::new();
        fill.u32(options::IFINDEX, index);
        set(GENL_NAME, &fill).context("nothing to set")?;
        ensure!(udp_gso(GENL_NAME, "wg0")?, "nothing was to be set");
        ensure!(listener.drain()?.is_empty(), "told, though nothing was set");
        // For the rest of this process.
        setuid(Uid::from_raw(65534))?;
        for got in [
            udp_gso(GENL_NAME, "wg0").map(drop),
            set_udp_gso(GENL_NAME, "wg0", false),
        ] {
            ensure!(got == Err(Errno::EPERM), "without the right to: {got:?}");
        }
        Ok(())
    })
}

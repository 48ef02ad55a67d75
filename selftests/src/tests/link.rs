// SPDX-License-Identifier: GPL-2.0-only
//! Properties of a link that tools and the stack see, before it has any peers.

use super::{drop_in, side_by_side, Test};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::modules::{modinfo, INTREE, OURS};
use harness::netlink::{attrs, Attrs};
use harness::netns::Netns;
use harness::rtnl::{LinkInfo, Rtnl};
use harness::runner::{Boot, Ctx, Subject};
use nix::errno::Errno;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use std::collections::BTreeMap;
use std::fs;

/// Constants of `if_link.h` that libc lacks.
mod ifla {
    pub const CARRIER: u16 = 33;
    pub const GSO_MAX_SEGS: u16 = 40;
    pub const GSO_MAX_SIZE: u16 = 41;
    pub const MIN_MTU: u16 = 50;
    pub const MAX_MTU: u16 = 51;
    pub const GRO_MAX_SIZE: u16 = 58;
    pub const TSO_MAX_SIZE: u16 = 59;
    pub const TSO_MAX_SEGS: u16 = 60;
    pub const HEADROOM: u16 = 68;
    pub const TAILROOM: u16 = 69;
}

const MAX_MTU: u32 = 2_147_483_552;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "link-properties", 60, properties);
    drop_in(list, "link-features", 60, features);
    drop_in(list, "link-creation", 60, creation);
    side_by_side(list, "link-same-attributes", Boot::Smp, 60, same);
}

fn word(info: &LinkInfo, kind: u16) -> Option<u32> {
    let data = info.attr(kind)?;
    Some(match *data {
        [a] => u32::from(a),
        [a, b] => u32::from(u16::from_ne_bytes([a, b])),
        _ => u32::from_ne_bytes(*data.first_chunk()?),
    })
}

/// The inet6 part of `IFLA_AF_SPEC`: `IN6_ADDR_GEN_MODE_*`.
fn addr_gen_mode(info: &LinkInfo) -> Option<u8> {
    const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
    let spec = attrs(info.attr(libc::IFLA_AF_SPEC)?);
    let (_, inet6) = spec.iter().find(|(k, _)| *k == libc::AF_INET6 as u16)?;
    let mode = attrs(inet6);
    let (_, mode) = mode.iter().find(|(k, _)| *k == IFLA_INET6_ADDR_GEN_MODE)?;
    mode.first().copied()
}

/// Type, flags, sizes, queues, headroom; sysfs and the module's files.
fn properties(ctx: &Ctx) -> Result<()> {
    let ns = Netns::new("a")?;
    let mut rt = ns.rtnl()?;
    rt.link_add("wg0", "wireguard")?;
    let down = rt.link("wg0")?;
    rt.set_up("wg0", true)?;
    let up = rt.link("wg0")?;
    const POINTOPOINT_NOARP: i32 = libc::IFF_POINTOPOINT | libc::IFF_NOARP;
    const UP: i32 = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOWER_UP;
    for (info, flags, qdisc, mode) in [
        (&down, POINTOPOINT_NOARP, "noop", 0),
        (&up, POINTOPOINT_NOARP | UP, "noqueue", 1),
    ] {
        let when = if qdisc == "noop" { "down" } else { "up" };
        ensure!(
            info.kind == 0xfffe,
            "{when}: link type {:#x} is not ARPHRD_NONE",
            info.kind
        );
        ensure!(
            info.flags == flags as u32,
            "{when}: flags {:#x}, not {flags:#x}",
            info.flags
        );
        let has = info.attr(libc::IFLA_QDISC).unwrap_or(&[]);
        ensure!(
            has == format!("{qdisc}\0").as_bytes(),
            "{when}: qdisc {:?}, not {qdisc}",
            String::from_utf8_lossy(has)
        );
        // Before the first "up" it has the stack's default.
        ensure!(
            addr_gen_mode(info) == Some(mode),
            "{when}: addr_gen_mode {:?}, not {mode}",
            addr_gen_mode(info)
        );
        ensure!(
            info.attr(libc::IFLA_ADDRESS).is_none(),
            "{when}: has a hardware address"
        );
        for (what, kind, wanted) in [
            ("mtu", libc::IFLA_MTU, 1420),
            ("minimum mtu", ifla::MIN_MTU, 0),
            ("maximum mtu", ifla::MAX_MTU, MAX_MTU),
            ("tx queues", libc::IFLA_NUM_TX_QUEUES, 1),
            ("rx queues", libc::IFLA_NUM_RX_QUEUES, 1),
            ("tx queue length", libc::IFLA_TXQLEN, 1000),
            (
                "operstate",
                libc::IFLA_OPERSTATE,
                if mode == 0 { 2 } else { 0 },
            ),
            ("carrier", ifla::CARRIER, 1),
            ("gso_max_size", ifla::GSO_MAX_SIZE, 65536),
            ("gso_max_segs", ifla::GSO_MAX_SEGS, 65535),
            ("gro_max_size", ifla::GRO_MAX_SIZE, 65536),
            ("tso_max_size", ifla::TSO_MAX_SIZE, 8 * 65535),
            ("tso_max_segs", ifla::TSO_MAX_SEGS, 65535),
            // 16 for the data header, 40 for IPv6, 8 for UDP, NET_SKB_PAD.
            ("headroom", ifla::HEADROOM, 128),
            ("tailroom", ifla::TAILROOM, 32),
        ] {
            let has = word(info, kind);
            ensure!(has == Some(wanted), "{when}: {what} {has:?}, not {wanted}");
        }
        let info = attrs(info.attr(libc::IFLA_LINKINFO).context("no link info")?);
        ensure!(
            info == [(libc::IFLA_INFO_KIND, b"wireguard\0".to_vec())],
            "{when}: link info {info:?}"
        );
    }
    no_link_local(&ns)?;
    redirects(&ns, &mut rt)?;
    sysfs(ctx, &ns)?;
    module_files(ctx)
}

/// It gets no link-local address, even when it goes down and up again.
fn no_link_local(ns: &Netns) -> Result<()> {
    let mut rt = ns.rtnl()?;
    for round in 0..2 {
        let addrs = ns.run(|| Ok(fs::read_to_string("/proc/thread-self/net/if_inet6")?))?;
        ensure!(
            !addrs.contains("wg0"),
            "round {round}: an unrequested address: {addrs}"
        );
        rt.set_up("wg0", false)?;
        rt.set_up("wg0", true)?;
    }
    Ok(())
}

/// Going up disables ICMP redirects for the device and for the whole namespace.
fn redirects(ns: &Netns, rt: &mut Rtnl) -> Result<()> {
    let conf = "/proc/sys/net/ipv4/conf";
    let read = |of: &str| {
        ns.run(|| {
            let file = format!("{conf}/{of}/send_redirects");
            Ok(fs::read_to_string(file)?.trim().to_owned())
        })
    };
    for of in ["wg0", "all"] {
        let is = read(of)?;
        ensure!(is == "0", "send_redirects of {of} is {is}");
    }
    ns.run(|| Ok(fs::write(format!("{conf}/wg0/send_redirects"), "1")?))?;
    ns.run(|| Ok(fs::write(format!("{conf}/all/send_redirects"), "1")?))?;
    rt.set_up("wg0", false)?;
    let is = read("all")?;
    ensure!(
        is == "1",
        "going down changed send_redirects of all to {is}"
    );
    rt.set_up("wg0", true)?;
    for of in ["wg0", "all"] {
        let is = read(of)?;
        ensure!(is == "0", "after another up send_redirects of {of} is {is}");
    }
    Ok(())
}

/// The device's files in sysfs.
fn sysfs(ctx: &Ctx, ns: &Netns) -> Result<()> {
    let files: BTreeMap<String, String> = ns.run(|| {
        // /sys shows the namespace of whoever mounted it.
        mount(
            Some("s"),
            "/mnt",
            Some("sysfs"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        let read = || -> Result<_> {
            let mut files = BTreeMap::new();
            for entry in fs::read_dir("/mnt/class/net/wg0")?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    files.insert(name, text.trim().replace('\n', " "));
                }
            }
            Ok(files)
        };
        let files = read();
        umount2("/mnt", MntFlags::MNT_DETACH)?;
        files
    })?;
    // On purpose: the in-tree driver has a NAPI thread per peer, so its device counts as
    // "threaded"; ours has none, since threads do not scale with the number of peers.
    let threaded = if ctx.subject == Subject::C || ctx.env.stand_in {
        "1"
    } else {
        "0"
    };
    let index = files.get("ifindex").cloned().unwrap_or_default();
    let uevent = format!("DEVTYPE=wireguard INTERFACE=wg0 IFINDEX={index}");
    for (name, wanted) in [
        ("type", "65534"),
        ("addr_len", "0"),
        ("address", ""),
        ("flags", "0x91"),
        ("carrier", "1"),
        ("dormant", "0"),
        ("link_mode", "0"),
        ("operstate", "unknown"),
        ("iflink", &index),
        ("uevent", &uevent),
        ("threaded", threaded),
        ("napi_defer_hard_irqs", "0"),
        ("gro_flush_timeout", "0"),
    ] {
        let has = files.get(name);
        ensure!(
            has.is_some_and(|has| has == wanted),
            "sysfs {name}: {has:?}, not {wanted:?}"
        );
    }
    Ok(())
}

/// Both drivers have the same two aliases, and a device holds no reference to its module.
fn module_files(ctx: &Ctx) -> Result<()> {
    let ours = ctx.subject == Subject::Rs && !ctx.env.stand_in;
    let aliases = if ours {
        modinfo(&fs::read(ctx.env.ko()?)?, "alias")
    } else {
        let text = cmd::run(&["modinfo", "-F", "alias", INTREE])?;
        text.lines().map(str::to_owned).collect()
    };
    for wanted in ["rtnl-link-wireguard", "net-pf-16-proto-16-family-wireguard"] {
        ensure!(
            aliases.iter().any(|alias| alias == wanted),
            "no module alias {wanted}: {aliases:?}"
        );
    }
    let file = format!("/sys/module/{}/refcnt", if ours { OURS } else { INTREE });
    let count = fs::read_to_string(&file)?;
    ensure!(count.trim() == "0", "{file} is {}", count.trim());
    Ok(())
}

/// For each offload: on, off, and whether it can be changed.
fn features(_: &Ctx) -> Result<()> {
    let ns = Netns::new("a")?;
    ns.rtnl()?.link_add("wg0", "wireguard")?;
    let text = ns.sh("ethtool -k wg0")?;
    const ON: &[&str] = &[
        "rx-checksumming",
        "tx-checksumming",
        "tx-checksum-ip-generic",
        "scatter-gather",
        "tx-scatter-gather",
        "tcp-segmentation-offload",
        "tx-tcp-segmentation",
        "tx-tcp-ecn-segmentation",
        "tx-tcp-mangleid-segmentation",
        "tx-tcp6-segmentation",
        "tx-tcp-accecn-segmentation",
        "generic-segmentation-offload",
        "generic-receive-offload",
        "highdma",
        "tx-sctp-segmentation",
        "tx-udp-segmentation",
        "tx-gso-list",
    ];
    const OFF: &[&str] = &["tx-nocache-copy", "rx-gro-list", "rx-udp-gro-forwarding"];
    let mut seen = 0;
    for line in text.lines().skip(1) {
        let (name, state) = line.trim().split_once(": ").context("ethtool -k")?;
        let wanted = if ON.contains(&name) {
            seen += 1;
            "on"
        } else if OFF.contains(&name) {
            seen += 1;
            "off"
        } else {
            "off [fixed]"
        };
        ensure!(
            state.trim() == wanted,
            "feature {name} is {state}, not {wanted}"
        );
    }
    ensure!(
        seen == ON.len() + OFF.len(),
        "ethtool shows {seen} of the expected features: {text}"
    );
    let driver = ns.sh("ethtool -i wg0")?;
    ensure!(
        driver.starts_with("driver: wireguard\n"),
        "ethtool -i: {driver}"
    );
    // They can be changed, and changed back.
    for name in ["tso", "gso", "tx", "sg", "tx-udp-segmentation", "rx", "gro"] {
        ns.sh(&format!("ethtool -K wg0 {name} off"))?;
        ns.sh(&format!("ethtool -K wg0 {name} on"))?;
    }
    // Some must be re-enabled explicitly, as they depend on others.
    for name in [
        "tx",
        "sg",
        "tso",
        "gso",
        "tx-sctp-segmentation",
        "tx-gso-list",
    ] {
        ns.sh(&format!("ethtool -K wg0 {name} on"))?;
    }
    let again = ns.sh("ethtool -k wg0")?;
    ensure!(again == text, "after off and on: {again}");
    Ok(())
}

/// Attributes given at link creation, and their effect.
fn creation(_: &Ctx) -> Result<()> {
    let ns = Netns::new("a")?;
    let mut rt = ns.rtnl()?;
    // Whatever is in INFO_DATA is ignored.
    for (n, data) in [&[][..], &[0xff; 7], &[0; 64], &[4, 0, 1, 0]]
        .into_iter()
        .enumerate()
    {
        let name = format!("data{n}");
        rt.link_add_with(
            &name,
            "wireguard",
            |_| {},
            |info| {
                info.put(libc::IFLA_INFO_DATA, data);
            },
        )
        .with_context(|| format!("IFLA_INFO_DATA of {} bytes", data.len()))?;
        // But nothing can be changed later.
        let mut body = Attrs::after(&[0; 16]);
        body.str(libc::IFLA_IFNAME, &name)
            .nest(libc::IFLA_LINKINFO, |info| {
                info.str(libc::IFLA_INFO_KIND, "wireguard")
                    .put(libc::IFLA_INFO_DATA, data);
            });
        let changed = rt.raw(libc::RTM_NEWLINK, 0, body.bytes());
        ensure!(
            changed == Err(Errno::EOPNOTSUPP),
            "changing the link returns {changed:?}"
        );
        rt.link_del(&name)?;
    }
    for (mtu, wanted) in [
        (0, Ok(())),
        (1, Ok(())),
        (1280, Ok(())),
        (MAX_MTU, Ok(())),
        (MAX_MTU + 1, Err(Errno::EINVAL)),
        (u32::MAX, Err(Errno::EINVAL)),
    ] {
        let made = rt.link_add_with(
            "wg0",
            "wireguard",
            |link| {
                link.u32(libc::IFLA_MTU, mtu);
            },
            |_| {},
        );
        ensure!(made == wanted, "created with MTU {mtu}: {made:?}");
        if made.is_ok() {
            let has = word(&rt.link("wg0")?, libc::IFLA_MTU);
            ensure!(has == Some(mtu), "created with MTU {mtu} it has {has:?}");
            rt.link_del("wg0")?;
        }
    }
    rt.link_add("wg0", "wireguard")?;
    for (mtu, wanted) in [
        (0, Ok(())),
        (MAX_MTU, Ok(())),
        (MAX_MTU + 1, Err(Errno::EINVAL)),
        (1420, Ok(())),
    ] {
        let set = rt.set_mtu("wg0", mtu);
        ensure!(set == wanted, "set to MTU {mtu}: {set:?}");
    }
    let again = rt.link_add("wg0", "wireguard");
    ensure!(
        again == Err(Errno::EEXIST),
        "creating the name twice: {again:?}"
    );
    // More queues on request.
    rt.link_add_with(
        "wg1",
        "wireguard",
        |link| {
            link.u32(libc::IFLA_NUM_TX_QUEUES, 4)
                .u32(libc::IFLA_NUM_RX_QUEUES, 2);
        },
        |_| {},
    )?;
    let info = rt.link("wg1")?;
    let queues = (
        word(&info, libc::IFLA_NUM_TX_QUEUES),
        word(&info, libc::IFLA_NUM_RX_QUEUES),
    );
    ensure!(queues == (Some(4), Some(2)), "4 and 2 queues: {queues:?}");
    rt.set_up("wg1", true)?;
    // A name chosen by the kernel.
    ns.sh("ip link add type wireguard")?;
    rt.link("wireguard0").context("the device without a name")?;
    // Repeated and redundant up and down.
    for up in [true, true, false, false, true] {
        rt.set_up("wg0", up)?;
    }
    for name in ["wg0", "wg1", "wireguard0"] {
        rt.link_del(name)?;
    }
    Ok(())
}

/// Side by side in one kernel, both kinds have exactly the same attributes.
fn same(ctx: &Ctx) -> Result<()> {
    let kinds = ctx.against_intree().map(|driver| driver.kind);
    let spaces = [Netns::new("a")?, Netns::new("b")?];
    let mut seen = Vec::new();
    for (ns, kind) in spaces.iter().zip(kinds) {
        let mut rt = ns.rtnl()?;
        rt.link_add("wg0", kind)?;
        let mut states = Vec::new();
        for up in [None, Some(true), Some(false)] {
            if let Some(up) = up {
                rt.set_up("wg0", up)?;
            }
            let info = rt.link("wg0")?;
            let mut list = info.attrs.clone();
            list.retain(|(k, _)| *k != libc::IFLA_LINKINFO);
            list.push((u16::MAX, info.flags.to_ne_bytes().to_vec()));
            list.push((u16::MAX, info.kind.to_ne_bytes().to_vec()));
            states.push(list);
        }
        seen.push(states);
    }
    for (state, (one, other)) in ["new", "up", "down"]
        .iter()
        .zip(seen[0].iter().zip(&seen[1]))
    {
        ensure!(one.len() > 30, "{state}: only {} attributes", one.len());
        ensure!(
            one.len() == other.len(),
            "{state}: {} and {} attributes",
            one.len(),
            other.len()
        );
        for (a, b) in one.iter().zip(other) {
            // Has per-namespace times and counts (IFLA_INET6_CACHEINFO in AF_SPEC).
            if a.0 == libc::IFLA_AF_SPEC {
                continue;
            }
            ensure!(
                a == b,
                "{state}: {} has {a:?}, {} has {b:?}",
                kinds[0],
                kinds[1]
            );
        }
    }
    Ok(())
}

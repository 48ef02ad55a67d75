// SPDX-License-Identifier: GPL-2.0-only
//! Everything that network managers read of a device: the same with both modules.

use super::bash;
use crate::tests::Test;
use anyhow::{bail, ensure, Result};
use harness::modules::{unload_all, Modules};
use harness::netns::Netns;
use harness::runner::{Boot, Ctx, Subject};
use std::time::Duration;

pub(super) fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "scenario-properties-as-intree".to_owned(),
        boot: Boot::Smp,
        modules: Modules::None,
        subject: Subject::Rs,
        bound: Duration::from_secs(120),
        body: Box::new(compared),
    });
}

/// What is compared; not the number of router solicitations, their drops, nor link-local addresses,
/// which may be random. `try` also shows how a command fails.
const SCRIPT: &str = r#"
    try() { echo "\$ $*"; "$@" 2>&1 || echo "exit code $?"; }
    look() { look_by_chance | sed -E 's/fe80::[0-9a-f:]+/fe80::CHANCE/g'; }
    look_by_chance() {
        try ip -d -j link show wg0
        try ip -j addr show wg0
        try ip -j netconf show dev wg0
        try ip -6 -j netconf show dev wg0
        try ip -6 route show table all dev wg0
        try tc -j qdisc show dev wg0
        try bridge -j link show dev wg0
        for option in -i -k; do try ethtool $option wg0; done
        grep -r . /run/wireguard/sys/class/net/wg0/ 2>/dev/null |
            grep -v -e statistics/tx_errors -e statistics/tx_dropped | sort
        grep -r . /proc/sys/net/ipv[46]/*/wg0/ 2>/dev/null |
            grep -v -e stable_secret -e base_reachable | sort
    }
    mkdir /run/wireguard/sys
    busybox mount -t sysfs sysfs /run/wireguard/sys
    ip link add wg0 type wireguard
    echo "-- fresh"; look
    try ip -s -s -j link show wg0
    wg set wg0 private-key <(echo AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=) listen-port 5555
    ip addr add 10.1.0.1/24 dev wg0
    ip addr add fd01::1/64 dev wg0
    ip link set wg0 up
    echo "-- up"; look
    for option in '' -a -g -c -l -S -T -P --show-tunnels --show-fec; do
        try ethtool $option wg0
    done
    echo "-- set"
    for change in "mtu 0" "mtu 1" "mtu 67" "mtu 1280" "mtu 65536" "mtu 2147483552" \
        "mtu 2147483553" "mtu 4294967295" "mtu 1420" "txqueuelen 7" "multicast on" "arp on" \
        "promisc on" "promisc off" "allmulticast on" "dynamic on" "address 02:00:00:00:00:01" \
        "alias some" "group 5" "carrier off" "carrier on" "protodown on" "state dormant" \
        "addrgenmode eui64" "addrgenmode none" "threaded on" "threaded off" \
        "gso_max_size 1000" "gro_max_size 100000" "master br0" "vrf vrf0" "name wg0 index 7" \
        "altname long-name" "vf 0 mac 02:00:00:00:00:01" "xdp off" "type wireguard" \
        "type wireguard junk"; do
        case $change in
        master*) try ip link add br0 type bridge ;;
        vrf*) try ip link add vrf0 type vrf table 7 ;;
        esac
        try ip link set wg0 $change
        case $change in master* | vrf*) try ip link set wg0 nomaster;; esac
    done
    for feature in tx rx sg tso gso gro lro rxhash hw-tc-offload tx-udp-segmentation \
        tx-nocache-copy rx-gro-list rx-udp-gro-forwarding; do
        try ethtool -K wg0 $feature off; try ethtool -K wg0 $feature on
    done
    look
    for child in "type vlan id 5" "type macvlan" "type ipvlan" "type macsec" \
        "type vxlan id 5 remote 10.1.0.2 dstport 4789"; do
        try ip link add link wg0 name child $child
        try ip link del child
    done
    try ip neigh add 10.1.0.7 lladdr 02:00:00:00:00:07 dev wg0
    try ip neigh show dev wg0
    try ip link add wg0 type wireguard
    try ip link add wg1 type wireguard junk
    try ip link add wg1 numtxqueues 4 numrxqueues 4 type wireguard
    try ip -d -j link show wg1
    try ip link add link lo name wg2 type wireguard
    try ip link add wg3 mtu 100 txqueuelen 5 index 77 type wireguard
    try ip -d -j link show wg3
    try ip link add wg4 address 02:00:00:00:00:01 type wireguard
    try ip link set wg0 down
    echo "-- down"; look
    try ip link set wg0 name wg9
    try ip -d -j link show wg9
    try wg show wg9 listen-port
"#;

/// The whole script on the in-tree module, then on ours in its place.
fn compared(ctx: &Ctx) -> Result<()> {
    let mut seen = Vec::new();
    for modules in [Modules::Intree, Modules::Ours] {
        ctx.env.load(modules)?;
        let ns = Netns::new("a")?;
        seen.push(bash(&ns, SCRIPT)?);
        bash(
            &ns,
            "busybox umount /run/wireguard/sys; rmdir /run/wireguard/sys",
        )?;
        drop(ns);
        unload_all()?;
    }
    let [theirs, ours] = seen.as_slice() else {
        bail!("not two outputs")
    };
    let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.lines().collect(), ours.lines().collect());
    let mut command = "";
    let mut differences = Vec::new();
    for (theirs, ours) in theirs.iter().zip(&ours) {
        if theirs.starts_with("$ ") {
            command = theirs;
        }
        // Deliberate: ours has no thread per peer, and so reports none.
        let threads = "/wg0/threaded:";
        if theirs.ends_with(&format!("{threads}1")) && ours.ends_with(&format!("{threads}0")) {
            continue;
        }
        if theirs != ours {
            differences.push(format!("{command}\n  in-tree: {theirs}\n  ours:    {ours}"));
        }
    }
    ensure!(
        differences.is_empty() && theirs.len() == ours.len(),
        "{} of {} lines differ (ours has {}):\n{}",
        differences.len(),
        theirs.len(),
        ours.len(),
        differences.join("\n")
    );
    ensure!(
        theirs.len() > 500,
        "only {} lines were compared",
        theirs.len()
    );
    Ok(())
}

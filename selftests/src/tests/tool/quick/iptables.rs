// SPDX-License-Identifier: GPL-2.0-only
//! Legacy iptables, on a kernel without nf_tables.

use super::super::call::End;
use super::cases::{call, conf, quick, sh, Act, Case, CONF, ENDPOINT};
use super::scene::{compare, Place, Scene, OWN};
use anyhow::{bail, ensure, Context, Result};
use harness::cmd;
use harness::modules::NoModprobe;
use harness::runner::Ctx;
use std::fs;

/// Modules that the rules need.
const NEEDED: &[&str] = &[
    "iptable_raw",
    "iptable_mangle",
    "ip6table_raw",
    "ip6table_mangle",
    "xt_mark",
    "xt_connmark",
    "xt_addrtype",
    "xt_comment",
];

/// Unloads every module of nf_tables.
fn without_nf_tables() -> Result<()> {
    loop {
        let modules = fs::read_to_string("/proc/modules")?;
        let names = modules.lines().filter_map(|line| line.split(' ').next());
        let doomed: Vec<_> = names
            .filter(|name| name.starts_with("nft_") || *name == "nf_tables")
            .collect();
        if doomed.is_empty() {
            return Ok(());
        }
        let gone = doomed
            .iter()
            .filter(|name| cmd::try_run(&["rmmod", name], "").is_ok_and(|done| done.ok));
        if gone.count() == 0 {
            bail!("in use: {doomed:?}");
        }
    }
}

/// Unloads the modules of legacy iptables when dropped.
struct Legacy;

impl Drop for Legacy {
    fn drop(&mut self) {
        for table in &NEEDED[..4] {
            let _ = cmd::try_run(&["rmmod", table], "");
        }
    }
}

/// What both tools must do on such a kernel. wg-quick depends on whether the program `nft` exists:
/// it does not.
fn case() -> Case {
    let all = conf(
        "Address = 10.8.0.2/24, fd08::2/64",
        &format!("{ENDPOINT}0.0.0.0/0, ::/0"),
    );
    let links: String = ["iptables", "ip6tables"]
        .iter()
        .flat_map(|tool| {
            ["", "-save", "-restore"].map(|form| {
                format!("ln -s /usr/sbin/xtables-legacy-multi {OWN}/bin/{tool}{form}\n")
            })
        })
        .collect();
    let links = format!("{links}ln -s /usr/sbin/sysctl {OWN}/bin/sysctl");
    let here = |verb| {
        Act::Quick(
            call(&[verb, "wg0"])
                .env("PATH", &format!("{OWN}/bin:/usr/bin"))
                .env("XTABLES_LOCKFILE", &format!("{OWN}/bin/lock")),
        )
    };
    let rules = format!(
        "for tool in iptables ip6tables; do
             [ $({OWN}/bin/$tool-save | grep -c 'wg-quick(8) rule for wg0') = $1 ]
         done"
    );
    let count = |n: u8| sh(&format!("set -- {n}; {rules}"));
    let traffic =
        "for to in 198.51.100.7 2001:db8:77::7; do ping -n -q -c 1 -W 10 $to >/dev/null; done";
    Case {
        name: "iptables",
        files: vec![(CONF, 0o600, all)],
        acts: vec![
            sh(&links),
            here("up"),
            count(3),
            sh(traffic),
            here("down"),
            count(0),
            sh(&format!("rm {OWN}/bin/*")),
            quick("strip wg0"),
        ],
        leaves: vec!["ipv4/conf/all/src_valid_mark"],
        wg_quick_only: vec![],
    }
}

pub fn fallback(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    let _legacy = Legacy;
    cmd::run(&[&["modprobe", "-a"], NEEDED].concat())?;
    without_nf_tables()?;
    let _none = NoModprobe::new()?;
    let probe = cmd::try_run(&["nft", "list", "ruleset"], "")?;
    ensure!(!probe.ok, "nf_tables still works");
    let case = case();
    scene.play(&case)?;
    drop(scene);

    // Without iptables either, `up` reports that and leaves nothing behind.
    let place = Place::lone()?;
    place.put(CONF, 0o600, &case.files[0].2)?;
    let before = place.state()?;
    let seen = place.call(&call(&["up", "wg0"]).env("PATH", "/usr/bin"))?;
    ensure!(
        seen.end == End::Exit(1) && seen.text().contains("nf_tables: "),
        "{seen:?}"
    );
    let mut after = place.state()?;
    let mark = "ipv4/conf/all/src_valid_mark";
    after.insert(
        mark.to_owned(),
        before.get(mark).cloned().unwrap_or_default(),
    );
    compare(&[before, after]).context("left behind")
}

// SPDX-License-Identifier: GPL-2.0-only
//! The part of `up` that leads packets into the tunnel.

use super::device;
use super::firewall;
use super::plan;
use super::settings::Routing;
use super::step::{Command, Family, Rule, Step};
use super::tunnel::Tunnel;
use super::value::Table;
use crate::model::{AllowedIp, Device, SetDevice};
use crate::say::{os_message, say, Failed};
use std::fs;
use std::net::IpAddr;

/// Has packets' marks taken into account when the reverse path is looked up.
const SRC_VALID_MARK: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
/// The exit status of an `ip` that does not understand its arguments.
const IP_USAGE: i32 = 255;

impl Tunnel<'_> {
    /// Makes the routes to what the peers may have, to this table or by policy.
    pub(super) fn add_routes(&mut self, device: &Device, index: u32) -> Result<(), Failed> {
        let allowed = device.peers.iter().flat_map(|peer| &peer.allowed_ips);
        let allowed = plan::ordered(allowed.copied());
        let table = match &self.settings.routing {
            Routing::Off => return Ok(()),
            Routing::Auto => None,
            Routing::Into(table) => Some(table.clone()),
        };
        let mut routed = None;
        let mut mark = device.fwmark;
        let mut known = None;
        for to in allowed {
            if let Some(text) = &table {
                // Not before: a hook may have registered its name.
                let table = match &mut known {
                    Some(table) => table,
                    none => match Table::find(text) {
                        Some(table) => none.insert(table),
                        None => return Err(self.no_table(to, text)),
                    },
                };
                self.step(Step::RouteAdd(to, Some(&*table)), index)?;
            } else if to.cidr == 0 {
                mark = self.add_default(to, mark, index)?;
            } else {
                let routed = match &mut routed {
                    Some(routed) => routed,
                    none => none.insert(self.routed(index)?),
                };
                if !routed.covers(to) {
                    self.step(Step::RouteAdd(to, None), index)?;
                    routed.add(to);
                }
            }
        }
        Ok(())
    }

    fn no_table(&self, to: AllowedIp, text: &str) -> Failed {
        let table = Table {
            text: text.to_owned(),
            id: 0,
        };
        let (step, name) = (Step::RouteAdd(to, Some(&table)), self.name.as_str());
        say(format_args!("[#] {}", Command { step, name }));
        say(format_args!(
            "Error: argument \"{text}\" is wrong: \"table\" value is invalid\n"
        ));
        self.options.hint(
            "write off, auto, a number, or a name in /etc/iproute2/rt_tables, which a PreUp hook \
             may add",
        );
        Failed(IP_USAGE)
    }

    /// What is routed to the interface because of its addresses, or by a hook.
    fn routed(&mut self, index: u32) -> Result<plan::Routed, Failed> {
        let mut routed = plan::Routed::default();
        for family in Family::BOTH {
            let routes = self.rtnl.routes_through(index, family);
            for to in routes.map_err(|err| self.options.die(err))? {
                routed.add(to);
            }
        }
        Ok(routed)
    }

    /// A default route: by a table of its own, for all packets that do not carry the mark which
    /// the tunnel's own ones carry. The mark.
    fn add_default(&mut self, to: AllowedIp, mark: u32, index: u32) -> Result<u32, Failed> {
        let options = self.options;
        let mark = if mark == 0 {
            let table = plan::free_table(|table| self.rtnl.table_is_empty(table))
                .map_err(|err| options.die(err))?;
            say(format_args!("[#] wg set {} fwmark {table}", self.name));
            let change = SetDevice {
                fwmark: Some(table),
                ..SetDevice::default()
            };
            device::set(options, &self.name, &change)?;
            table
        } else {
            mark
        };
        let family = Family::of(to.addr);
        let table = Table {
            text: mark.to_string(),
            id: mark,
        };
        self.step(Step::RuleAdd(family, Rule::Unmarked(mark)), index)?;
        self.step(Step::RuleAdd(family, Rule::MainButDefault), index)?;
        self.step(Step::RouteAdd(to, Some(&table)), index)?;
        let addresses = self.rtnl.addresses(index).map_err(|err| options.die(err))?;
        let of_family =
            |(address, _): &(IpAddr, u8)| (Family::of(*address) == family).then_some(*address);
        let addresses: Vec<_> = addresses.iter().filter_map(of_family).collect();
        if family == Family::V4 {
            self.heed_marks()?;
        }
        self.signals.check()?;
        firewall::add(family, &self.name, &addresses, mark, &self.signals)?;
        self.firewall_is_set = true;
        Ok(mark)
    }

    /// Without this, strict reverse path filtering drops the answers to the tunnel's packets.
    fn heed_marks(&self) -> Result<(), Failed> {
        // In containers it often is set, and cannot be.
        if fs::read(SRC_VALID_MARK).is_ok_and(|value| value.starts_with(b"1")) {
            return Ok(());
        }
        say("[#] sysctl -q net.ipv4.conf.all.src_valid_mark=1");
        fs::write(SRC_VALID_MARK, "1\n").map_err(|err| {
            let failed = self
                .options
                .die(format_args!("{SRC_VALID_MARK}: {}", os_message(&err)));
            self.options.hint(
                "set it where that is allowed: on the host, or for the container (docker run \
                 --sysctl net.ipv4.conf.all.src_valid_mark=1)",
            );
            failed
        })
    }
}

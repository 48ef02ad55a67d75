// SPDX-License-Identifier: GPL-2.0-only
//! Setting a tunnel up and taking it down.

use super::device;
use super::dns;
use super::file::File;
use super::firewall;
use super::netlink::{self, strerror};
use super::plan;
use super::process::{hook, Signals};
use super::rtnl::Rtnl;
use super::save;
use super::say::{say, Failed};
use super::settings::{Address, Fault, Mtu, Routing, Settings, Table};
use super::step::{Command, Family, Rule, Step};
use super::Options;
use crate::genl::FAMILIES;
use crate::model::{AllowedIp, Device, SetDevice};
use crate::wg;
use nix::libc;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Has packets' marks taken into account when the reverse path is looked up.
const SRC_VALID_MARK: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
/// The exit status of a failed `ip`.
const IP_FAILED: i32 = 2;

/// A tunnel, and what was done for it.
pub struct Tunnel<'a> {
    options: &'a Options,
    path: PathBuf,
    name: String,
    settings: Settings,
    rtnl: Rtnl,
    signals: Signals,
    dns_is_set: bool,
    firewall_is_set: bool,
}

/// What the settings mean, once they have been judged.
struct Plan {
    addresses: Vec<Address>,
    mtu: Option<Mtu>,
    routing: Routing,
    device: device::Configuration,
}

impl<'a> Tunnel<'a> {
    pub fn new(options: &'a Options, file: File) -> Result<Self, Failed> {
        let settings =
            Settings::parse(&file.text).map_err(|fault| options.fault(&file.path, &fault))?;
        let failed = |err: &dyn fmt::Display| options.die(err);
        Ok(Tunnel {
            options,
            path: file.path,
            name: file.name,
            settings,
            rtnl: Rtnl::open().map_err(|err| failed(&err))?,
            signals: Signals::new().map_err(|err| failed(&err))?,
            dns_is_set: false,
            firewall_is_set: false,
        })
    }

    /// Sets the tunnel up; if that fails, or is interrupted, nothing stays.
    pub fn up(&mut self) -> Result<(), Failed> {
        let options = self.options;
        match self.rtnl.link(&self.name) {
            Ok(None) => {}
            Ok(Some(_)) => return Err(options.die(format_args!("`{}' already exists", self.name))),
            Err(err) => return Err(options.die(err)),
        }
        let plan = self.plan()?;
        let index = self.add_link()?;
        let built = self.build(plan, index).and_then(|()| self.signals.check());
        if built.is_err() {
            // Its failures have been said; the first one is what matters.
            let _ = self.remove();
        }
        built
    }

    /// Takes the tunnel down.
    pub fn down(&mut self) -> Result<(), Failed> {
        self.is_wireguard()?;
        self.run_hooks(|settings| settings.hooks.pre_down.clone())?;
        if self.settings.save {
            self.save()?;
        }
        let removed = self.remove();
        let _ = dns::unset(&self.settings, &self.name, &self.signals);
        let _ = firewall::remove(&self.name, &self.signals);
        removed?;
        self.run_hooks(|settings| settings.hooks.post_down.clone())
    }

    /// Writes the tunnel as it is to its file.
    pub fn save(&mut self) -> Result<(), Failed> {
        let device = self.is_wireguard()?;
        let options = self.options;
        let failed = |err: netlink::Error| options.die(err);
        let Some(link) = self.rtnl.link(&self.name).map_err(failed)? else {
            return Err(self.not_wireguard());
        };
        let addresses = self.rtnl.addresses(link.index).map_err(failed)?;
        let dns = dns::current(&self.settings, &self.name);
        say(format_args!("[#] wg showconf {}", self.name));
        let shown = device::shown(&device);
        let around = save::Around {
            addresses: &addresses,
            dns: &dns,
            mtu: link.mtu,
        };
        let text = save::text(&self.settings, &around, &shown);
        save::replace(&self.path, &text).map_err(|err| {
            let path = self.path.display();
            options.die(format_args!(
                "Could not write configuration file `{path}': {err}"
            ))
        })
    }

    /// The configuration file without what is not wg's.
    pub fn stripped(&self) -> &Zeroizing<Vec<u8>> {
        &self.settings.stripped
    }

    /// Judges everything that can be judged before something is done.
    fn plan(&mut self) -> Result<Plan, Failed> {
        let judged = |fault: Fault| self.options.fault(&self.path, &fault);
        let settings = &self.settings;
        Ok(Plan {
            addresses: settings.addresses().map_err(judged)?,
            mtu: settings.mtu().map_err(judged)?,
            routing: settings.routing().map_err(judged)?,
            device: device::Configuration::parse(
                self.options,
                self.path.clone(),
                std::mem::take(&mut self.settings.blanked),
            )?,
        })
    }

    fn build(&mut self, plan: Plan, index: u32) -> Result<(), Failed> {
        self.run_hooks(|settings| settings.hooks.pre_up.clone())?;
        say(format_args!("[#] wg setconf {} /dev/fd/63", self.name));
        let set = self
            .signals
            .interruptible(move || plan.device.resolve())??;
        device::set(self.options, &self.name, &set)?;
        for address in &plan.addresses {
            self.step(Step::AddressAdd(address), index)?;
        }
        let device = self.device()?;
        let mtu = plan.mtu.unwrap_or_else(|| self.find_mtu(&device));
        self.step(Step::LinkUp { mtu: &mtu }, index)?;
        self.dns_is_set = dns::set(&self.settings, &self.name, &self.signals)?;
        self.add_routes(&device, &plan.routing, index)?;
        self.run_hooks(|settings| settings.hooks.post_up.clone())
    }

    /// Makes the device; its index.
    fn add_link(&mut self) -> Result<u32, Failed> {
        let kinds = match &self.options.context.family {
            Some(kind) => vec![kind.as_str()],
            // The kinds of link are called as the families are.
            None => FAMILIES.to_vec(),
        };
        let mut last = None;
        for kind in kinds {
            let step = Step::LinkAdd { kind };
            let command = Command {
                step,
                name: &self.name,
            };
            match self.rtnl.call(&command.request(0)) {
                Ok(()) => {
                    say(format_args!("[#] {command}"));
                    let found = self.rtnl.link(&self.name);
                    let index = found.ok().flatten().map(|link| link.index);
                    return index.ok_or_else(|| self.gone());
                }
                Err(err) => {
                    let is_unknown = err.errno == libc::EOPNOTSUPP;
                    // What the usual kind fails with is what people look for.
                    last.get_or_insert((command.to_string(), err));
                    if !is_unknown {
                        break;
                    }
                }
            }
        }
        let (command, err) = last.ok_or(Failed(1))?;
        say(format_args!("[#] {command}"));
        say(&err);
        if let Some(text) = device::hint(err.errno, &self.name) {
            wg::hint(&text);
        }
        Err(Failed(IP_FAILED))
    }

    fn find_mtu(&mut self, device: &Device) -> Mtu {
        // Those with a scope wg-quick passes over as well: rtnetlink has no way to ask for them.
        let endpoints: Vec<IpAddr> = device
            .peers
            .iter()
            .filter_map(|peer| peer.endpoint)
            .filter(
                |endpoint| !matches!(endpoint, std::net::SocketAddr::V6(v6) if v6.scope_id() != 0),
            )
            .map(|endpoint| endpoint.ip())
            .collect();
        let rtnl = std::cell::RefCell::new(&mut self.rtnl);
        let value = plan::mtu(
            endpoints
                .iter()
                .map(|endpoint| rtnl.borrow_mut().route_to(*endpoint)),
            || rtnl.borrow_mut().default_route().ok().flatten(),
            |link| rtnl.borrow_mut().link_mtu(link).ok().flatten(),
        );
        Mtu {
            text: value.to_string(),
            value,
        }
    }

    fn add_routes(&mut self, device: &Device, routing: &Routing, index: u32) -> Result<(), Failed> {
        if *routing == Routing::Off {
            return Ok(());
        }
        let allowed = device.peers.iter().flat_map(|peer| &peer.allowed_ips);
        let mut routed = None;
        let mut mark = device.fwmark;
        for to in plan::ordered(allowed.copied()) {
            if let Routing::Into(table) = routing {
                self.step(Step::RouteAdd(to, Some(table)), index)?;
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
        say("[#] sysctl -q net.ipv4.conf.all.src_valid_mark=1");
        // In containers it often is set, and cannot be.
        if fs::read(SRC_VALID_MARK).is_ok_and(|value| value.starts_with(b"1")) {
            return Ok(());
        }
        fs::write(SRC_VALID_MARK, "1\n")
            .map_err(|err| self.options.die(format_args!("{SRC_VALID_MARK}: {err}")))
    }

    /// Takes back everything that `up` does, as far as it is there.
    fn remove(&mut self) -> Result<(), Failed> {
        if self.dns_is_set {
            let _ = dns::unset(&self.settings, &self.name, &self.signals);
        }
        if self.firewall_is_set {
            let _ = firewall::remove(&self.name, &self.signals);
        }
        if self.settings.is_auto() {
            if let Ok(device) = device::get(self.options, &self.name) {
                let mut allowed = device.peers.iter().flat_map(|peer| &peer.allowed_ips);
                if device.fwmark != 0 && allowed.any(|ip| ip.cidr == 0) {
                    self.remove_rules(device.fwmark);
                }
            }
        }
        match self.rtnl.link(&self.name) {
            Ok(Some(link)) => self.just(Step::LinkDelete, link.index),
            _ => Err(self.gone()),
        }
    }

    fn remove_rules(&mut self, table: u32) {
        for family in Family::BOTH {
            let Ok(rules) = self.rtnl.rules(family) else {
                continue;
            };
            for (rule, priority) in plan::doomed_rules(&rules, table) {
                let _ = self.just(Step::RuleDelete(family, rule, priority), 0);
            }
        }
    }

    fn run_hooks(&self, which: impl Fn(&Settings) -> Vec<OsString>) -> Result<(), Failed> {
        for script in which(&self.settings) {
            hook(&self.signals, &script, &self.name)?;
            self.signals.check()?;
        }
        Ok(())
    }

    /// A step of `up`, which a signal ends.
    fn step(&mut self, step: Step<'_>, index: u32) -> Result<(), Failed> {
        self.signals.check()?;
        self.just(step, index)
    }

    fn just(&mut self, step: Step<'_>, index: u32) -> Result<(), Failed> {
        let command = Command {
            step,
            name: &self.name,
        };
        say(format_args!("[#] {command}"));
        self.rtnl
            .call(&command.request(index))
            .map_err(|err| Failed::saying(IP_FAILED, err))
    }

    fn device(&self) -> Result<Device, Failed> {
        let failed = |err| self.options.die(wg::os_message(&err));
        device::get(self.options, &self.name).map_err(failed)
    }

    fn is_wireguard(&self) -> Result<Device, Failed> {
        device::get(self.options, &self.name).map_err(|err| {
            if device::is_absent(&err) {
                self.not_wireguard()
            } else {
                self.options.die(wg::os_message(&err))
            }
        })
    }

    fn not_wireguard(&self) -> Failed {
        self.options
            .die(format_args!("`{}' is not a WireGuard interface", self.name))
    }

    fn gone(&self) -> Failed {
        let why = strerror(libc::ENODEV);
        Failed::saying(
            1,
            format_args!("Cannot find device \"{}\": {why}", self.name),
        )
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Setting a tunnel up and taking it down.

use super::device;
use super::dns;
use super::extension;
use super::file::File;
use super::firewall;
use super::hook;
use super::judge::Judged;
use super::plan;
use super::process::{find, run, Signals};
use super::rtnl::Rtnl;
use super::save;
use super::settings::{Key, Routing, Settings};
use super::step::{Command, Family, Step};
use super::value::Mtu;
use super::Options;
use crate::genl::{self, FAMILIES};
use crate::model::Device;
use crate::netlink;
use crate::say::{os_message, say, strerror, Failed};
use crate::wg::Voice;
use nix::libc;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The exit status of a failed `ip`.
const IP_FAILED: i32 = 2;
/// What drives interfaces in place of the kernel, unless the environment names another program.
const USER_SPACE: &str = "wireguard-go";

/// A tunnel, and what was done for it.
pub struct Tunnel<'a> {
    pub(super) options: &'a Options,
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) settings: Settings,
    /// What only our module can do.
    extension: genl::options::Options,
    pub(super) rtnl: Rtnl,
    pub(super) signals: Signals,
    pub(super) dns_is_set: bool,
    pub(super) firewall_is_set: bool,
}

impl<'a> Tunnel<'a> {
    pub fn new(options: &'a Options, file: File) -> Result<Self, Failed> {
        let settings = Settings::parse(&file.text);
        if let Some(fault) = settings.fatal() {
            return Err(options.fault(&file.path, &file.text, fault));
        }
        let failed = |err: &dyn fmt::Display| options.die(err);
        Ok(Tunnel {
            options,
            path: file.path,
            name: file.name,
            text: file.text,
            settings,
            extension: genl::options::Options::default(),
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
        let device = self.judge()?;
        let index = self.add_link()?;
        let built = self
            .build(device, index)
            .and_then(|()| self.signals.check());
        if built.is_err() {
            // Its failures have been said; the first one is what matters.
            let _ = self.remove();
        }
        built
    }

    /// Takes the tunnel down.
    pub fn down(&mut self) -> Result<(), Failed> {
        self.is_wireguard()?;
        self.run_hooks(Key::PreDown)?;
        if self.settings.save {
            self.save()?;
        }
        let removed = self.remove();
        let _ = dns::unset(&self.settings, &self.name, &self.signals);
        let _ = firewall::remove(&self.name, &self.signals);
        removed?;
        self.run_hooks(Key::PostDown)
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
                "Could not write configuration file `{path}': {}",
                os_message(&err)
            ))
        })
    }

    /// The configuration file without what is not wg's.
    pub fn stripped(&self) -> &Zeroizing<Vec<u8>> {
        &self.settings.stripped
    }

    /// Judges the file, before something is done.
    fn judge(&mut self) -> Result<device::Configuration, Failed> {
        let context = self.options.context.clone();
        let strict = context.voice == Voice::WgRs;
        let mut judged = Judged::new(std::mem::take(&mut self.settings), strict);
        if strict {
            judged = judged.with_system(&self.name);
        }
        if let Some(fault) = judged.faults.first() {
            return Err(self.options.fault(&self.path, &self.text, fault));
        }
        self.settings = judged.settings;
        if strict {
            self.extension = extension::read(&self.text).map_err(|(line, why)| {
                let path = self.path.display();
                self.options.die(format_args!("{path}:{line}: {why}"))
            })?;
        }
        Ok(device::Configuration {
            context,
            path: self.path.clone(),
            statements: judged.statements,
            text: std::mem::take(&mut self.text),
        })
    }

    fn build(&mut self, device: device::Configuration, index: u32) -> Result<(), Failed> {
        self.run_hooks(Key::PreUp)?;
        say(format_args!("[#] wg addconf {} /dev/fd/63", self.name));
        let set = self.signals.interruptible(move || device.resolve())??;
        device::set(self.options, &self.name, &set)?;
        self.set_options();
        for address in std::mem::take(&mut self.settings.addresses) {
            self.step(Step::AddressAdd(&address), index)?;
        }
        let device = self.device()?;
        let mtu = self.settings.mtu.clone();
        let mtu = mtu.unwrap_or_else(|| self.find_mtu(&device));
        self.step(Step::LinkUp { mtu: &mtu }, index)?;
        self.set_dns()?;
        self.add_routes(&device, index)?;
        self.run_hooks(Key::PostUp)
    }

    /// Sets what only our module can do. A tunnel of another driver does without.
    fn set_options(&self) {
        if self.extension == genl::options::Options::default() {
            return;
        }
        say(format_args!("[#] wg-rs options {}", self.name));
        if let Err(err) = genl::options::set(&self.name, &self.extension) {
            let why = os_message(&err);
            say(format_args!("Warning: options of wg-rs are not set: {why}"));
        }
    }

    fn set_dns(&mut self) -> Result<(), Failed> {
        let set = dns::set(&self.settings, &self.name, &self.signals);
        if set.is_err() && find("resolvconf").is_none() {
            self.options.hint(
                "DNS needs resolvconf, of the package openresolv for example, or a running \
                 systemd-resolved; or remove the line",
            );
        }
        self.dns_is_set = set?;
        Ok(())
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
        let (command, err) = last.ok_or(Failed::USUAL)?;
        say(format_args!("[#] {command}"));
        say(&err);
        if let Some(program) = user_space() {
            say("[!] Missing WireGuard kernel module. \
                 Falling back to slow userspace implementation.");
            run(&self.signals, &[&program, &self.name], b"")?;
            let found = self.rtnl.link(&self.name);
            let index = found.ok().flatten().map(|link| link.index);
            return index.ok_or_else(|| self.gone());
        }
        if let Some(text) = device::hint(err.errno, &self.name) {
            self.options.hint(&text);
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

    /// Takes back everything that `up` does, as far as it is there.
    fn remove(&mut self) -> Result<(), Failed> {
        if self.dns_is_set {
            let _ = dns::unset(&self.settings, &self.name, &self.signals);
        }
        if self.firewall_is_set {
            let _ = firewall::remove(&self.name, &self.signals);
        }
        if self.settings.routing == Routing::Auto {
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
            for (rule, priority) in plan::rules_to_delete(&rules, table) {
                let _ = self.just(Step::RuleDelete(family, rule, priority), 0);
            }
        }
    }

    fn run_hooks(&self, key: Key) -> Result<(), Failed> {
        let settings = &self.settings;
        let text = |text: &str| OsString::from(text);
        let mtu = settings.mtu.as_ref().map_or("", |mtu| &mtu.text);
        let variables = [
            ("INTERFACE", text(&self.name)),
            ("CONFIG_FILE", self.path.clone().into_os_string()),
            ("PROGRAM", text(&self.options.program)),
            ("MTU", text(mtu)),
            (
                "TABLE",
                text(if settings.routing_by_default {
                    ""
                } else {
                    settings.routing.text()
                }),
            ),
            ("DNS", text(&settings.dns.join(" "))),
            ("DNS_SEARCH", text(&settings.dns_search.join(" "))),
        ];
        for script in settings.hooks(key) {
            hook::run(&self.signals, script, &self.name, &variables)?;
            self.signals.check()?;
        }
        Ok(())
    }

    /// A step of `up`, which a signal ends.
    pub(super) fn step(&mut self, step: Step<'_>, index: u32) -> Result<(), Failed> {
        self.signals.check()?;
        self.just(step, index)
    }

    fn just(&mut self, step: Step<'_>, index: u32) -> Result<(), Failed> {
        let command = Command {
            step,
            name: &self.name,
        };
        say(format_args!("[#] {command}"));
        let done = self.rtnl.call(&command.request(index));
        done.map_err(|err| {
            say(&err);
            let family = match step {
                Step::AddressAdd(address) => Some(Family::of(address.ip)),
                Step::RouteAdd(to, _) => Some(Family::of(to.addr)),
                Step::RuleAdd(family, _) => Some(family),
                _ => None,
            };
            if family == Some(Family::V6) && self.is_ipv6_off() {
                self.options.hint(
                    "IPv6 is disabled here: remove the IPv6 addresses and ::/0 from the file, or \
                     enable it (sysctl net.ipv6.conf.all.disable_ipv6=0)",
                );
            }
            Failed(IP_FAILED)
        })
    }

    fn is_ipv6_off(&self) -> bool {
        let folder = Path::new("/proc/sys/net/ipv6/conf").join(&self.name);
        match fs::read(folder.join("disable_ipv6")) {
            Ok(value) => value.starts_with(b"1"),
            // The kernel is without.
            Err(_) => true,
        }
    }

    fn device(&self) -> Result<Device, Failed> {
        let failed = |err| self.options.die(os_message(&err));
        device::get(self.options, &self.name).map_err(failed)
    }

    fn is_wireguard(&self) -> Result<Device, Failed> {
        device::get(self.options, &self.name).map_err(|err| {
            if device::is_absent(&err) {
                self.not_wireguard()
            } else {
                self.options.die(os_message(&err))
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

/// The program to drive the interface, where the kernel has no WireGuard.
fn user_space() -> Option<String> {
    if FAMILIES
        .iter()
        .any(|name| Path::new("/sys/module").join(name).exists())
    {
        return None;
    }
    let program = env::var("WG_QUICK_USERSPACE_IMPLEMENTATION").ok();
    let program = program.filter(|name| !name.is_empty());
    let program = program.unwrap_or_else(|| USER_SPACE.to_owned());
    find(&program).map(|_| program)
}

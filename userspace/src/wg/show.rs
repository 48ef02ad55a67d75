// SPDX-License-Identifier: GPL-2.0-only
//! `show` and `showconf`.

use super::report::{kernel, perror};
use super::{pretty, Context, Out, Voice};
use crate::config;
use crate::driver::{self, Interface};
use crate::genl::{self, Wireguard};
use crate::key::{PublicKey, SecretKey};
use crate::model::{Device, Peer, ShownEndpoint};
use crate::say::{hint, say, say_bytes, CommandResult, Failed};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// The arguments of `show`.
pub const USAGE: &str =
    "{ <interface> | all | interfaces } [public-key | private-key | listen-port | \
                     fwmark | peers | preshared-keys | endpoints | allowed-ips | latest-handshakes \
                     | transfer | persistent-keepalive | dump]";

/// The fields that `show` can be asked for.
pub const FIELDS: [&str; 12] = [
    "public-key",
    "private-key",
    "listen-port",
    "fwmark",
    "peers",
    "preshared-keys",
    "endpoints",
    "allowed-ips",
    "latest-handshakes",
    "transfer",
    "persistent-keepalive",
    "dump",
];

/// The interfaces that this context speaks of.
pub fn interfaces(context: &Context) -> io::Result<Vec<Interface>> {
    driver::interfaces(context.family.as_deref())
}

/// `showconf INTERFACE`
pub fn showconf(context: &Context, interface: &OsStr) -> CommandResult {
    let device = read(context, &interface.to_string_lossy())?;
    let mut out = Out::new(context);
    // Errors are kept for `finish`.
    let _ = config::write(&device, &mut out);
    out.finish()
}

/// `show [INTERFACE | all | interfaces] [FIELD]`
pub fn show(context: &Context, interface: &OsStr, field: Option<&OsStr>) -> CommandResult {
    let usage = || {
        context.usage(OsStr::new("show"), USAGE);
        Failed::USUAL
    };
    let mut out = Out::new(context);
    match (interface.as_bytes(), field) {
        (b"all", field) => all(context, field, &mut out, &usage)?,
        (b"interfaces", Some(_)) => return Err(usage()),
        (b"interfaces", None) => {
            let links =
                interfaces(context).map_err(|error| perror("Unable to list interfaces", &error))?;
            for (index, link) in links.iter().enumerate() {
                out.put(format_args!(
                    "{}{}",
                    link.name,
                    if index + 1 < links.len() { ' ' } else { '\n' }
                ));
            }
        }
        (_, field) => {
            let mut device = read(context, &interface.to_string_lossy())?;
            match field {
                None => pretty::print(context, &mut device, &mut out),
                Some(field) => plain(&device, field, "", &mut out).map_err(|_| usage())?,
            }
        }
    }
    out.finish()
}

fn read(context: &Context, interface: &str) -> Result<Device, Failed> {
    driver::get(interface, context.family.as_deref())
        .map_err(|error| kernel(context, "Unable to access interface", interface, &error))
}

/// All interfaces. Those that cannot be read are reported and skipped; it is a failure if that is
/// all of them.
fn all(
    context: &Context,
    field: Option<&OsStr>,
    out: &mut Out,
    usage: &dyn Fn() -> Failed,
) -> CommandResult {
    let links = interfaces(context).map_err(|error| perror("Unable to list interfaces", &error))?;
    if links.is_empty() && context.voice == Voice::WgRs {
        explain_absence();
    }
    let mut result = if links.is_empty() {
        Ok(())
    } else {
        Err(Failed::USUAL)
    };
    for (index, link) in links.iter().enumerate() {
        match link.get() {
            Err(error) => {
                let _ = kernel(
                    context,
                    &format!("Unable to access interface {}", link.name),
                    &link.name,
                    &error,
                );
            }
            Ok(mut device) => {
                result = Ok(());
                match field {
                    None => {
                        pretty::print(context, &mut device, out);
                        if index + 1 < links.len() {
                            out.put(format_args!("\n"));
                        }
                    }
                    Some(field) => plain(&device, field, &format!("{}\t", link.name), out)
                        .map_err(|_| usage())?,
                }
            }
        }
    }
    result
}

/// Says so if there are no interfaces because there is no driver.
fn explain_absence() {
    let errors = genl::FAMILIES.map(|family| Wireguard::open(family).err());
    if let [Some(error), Some(_)] = errors {
        if let Some(text) = genl::explain(&error, "") {
            say("There are no WireGuard interfaces");
            hint(&text);
        }
    }
}

/// A secret, or `(none)`; never kept as text.
struct Secret<'a>(&'a Option<SecretKey>);

impl fmt::Display for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => f.write_str(&key.to_base64()),
            None => f.write_str("(none)"),
        }
    }
}

struct Public(Option<PublicKey>);

impl fmt::Display for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => key.fmt(f),
            None => f.write_str("(none)"),
        }
    }
}

struct Mark(u32);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            mark => write!(f, "{mark:#x}"),
        }
    }
}

struct Keepalive(u16);

impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            seconds => seconds.fmt(f),
        }
    }
}

struct Endpoint<'a>(&'a Peer);

impl fmt::Display for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.endpoint {
            Some(endpoint) => ShownEndpoint(endpoint).fmt(f),
            None => f.write_str("(none)"),
        }
    }
}

struct AllowedIps<'a>(&'a Peer, char);

impl fmt::Display for AllowedIps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Peer { allowed_ips, .. }, separator) = self;
        let Some((first, rest)) = allowed_ips.split_first() else {
            return f.write_str("(none)");
        };
        first.fmt(f)?;
        rest.iter().try_for_each(|ip| write!(f, "{separator}{ip}"))
    }
}

/// There is no such field.
struct NoField;

/// One field for scripts, each line after `prefix`.
fn plain(device: &Device, field: &OsStr, prefix: &str, out: &mut Out) -> Result<(), NoField> {
    let mut per_peer = |line: &dyn Fn(&mut Out, &Peer)| {
        for peer in &device.peers {
            out.put(format_args!("{prefix}"));
            line(out, peer);
        }
    };
    match field.as_bytes() {
        b"public-key" => out.put(format_args!("{prefix}{}\n", Public(device.public_key))),
        b"private-key" => out.put(format_args!("{prefix}{}\n", Secret(&device.private_key))),
        b"listen-port" => out.put(format_args!("{prefix}{}\n", device.listen_port)),
        b"fwmark" => out.put(format_args!("{prefix}{}\n", Mark(device.fwmark))),
        b"peers" => per_peer(&|out, peer| out.put(format_args!("{}\n", peer.public_key))),
        b"preshared-keys" => {
            per_peer(&|out, peer| {
                out.put(format_args!(
                    "{}\t{}\n",
                    peer.public_key,
                    Secret(&peer.preshared_key)
                ))
            });
        }
        b"endpoints" => per_peer(&|out, peer| {
            out.put(format_args!("{}\t{}\n", peer.public_key, Endpoint(peer)))
        }),
        b"allowed-ips" => per_peer(&|out, peer| {
            out.put(format_args!(
                "{}\t{}\n",
                peer.public_key,
                AllowedIps(peer, ' ')
            ))
        }),
        b"latest-handshakes" => {
            // `wg` prints it unsigned.
            per_peer(&|out, peer| {
                out.put(format_args!(
                    "{}\t{}\n",
                    peer.public_key, peer.last_handshake.sec as u64
                ))
            });
        }
        b"transfer" => {
            per_peer(&|out, peer| {
                out.put(format_args!(
                    "{}\t{}\t{}\n",
                    peer.public_key, peer.rx_bytes, peer.tx_bytes
                ))
            });
        }
        b"persistent-keepalive" => {
            per_peer(&|out, peer| {
                out.put(format_args!(
                    "{}\t{}\n",
                    peer.public_key,
                    Keepalive(peer.persistent_keepalive)
                ))
            });
        }
        b"dump" => {
            let (private, public) = (Secret(&device.private_key), Public(device.public_key));
            out.put(format_args!(
                "{prefix}{private}\t{public}\t{}\t{}\n",
                device.listen_port,
                Mark(device.fwmark)
            ));
            for peer in &device.peers {
                out.put(format_args!(
                    "{prefix}{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
                    peer.public_key,
                    Secret(&peer.preshared_key),
                    Endpoint(peer),
                    AllowedIps(peer, ','),
                    peer.last_handshake.sec as u64,
                    peer.rx_bytes,
                    peer.tx_bytes,
                    Keepalive(peer.persistent_keepalive)
                ));
            }
        }
        other => {
            say_bytes(&[b"Invalid parameter: `", other, b"'"].concat());
            return Err(NoField);
        }
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! The WireGuard device of a tunnel: what `wg` does to it.

use super::say::Failed;
use super::Options;
use crate::config::{self, CompileError, Dialect, Statement};
use crate::driver;
use crate::genl;
use crate::model::{Device, SetDevice};
use crate::wg::{self, Context, System, Voice};
use nix::libc;
use std::io;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What a file says about the device, with its names yet to be looked up.
pub struct Configuration {
    context: Context,
    path: PathBuf,
    text: Zeroizing<Vec<u8>>,
    statements: Vec<Statement>,
}

impl Configuration {
    /// Reads it; a fault in it is said, with its place.
    pub fn parse(
        options: &Options,
        path: PathBuf,
        text: Zeroizing<Vec<u8>>,
    ) -> Result<Self, Failed> {
        let context = options.context.clone();
        let dialect = Dialect {
            quick: false,
            strict: context.voice == Voice::WgRs,
        };
        let statements = config::parse(&text, dialect);
        match config::faults(&statements).first() {
            Some(fault) => Err(failed(wg::fault(&context, &path, &text, fault))),
            None => Ok(Configuration {
                context,
                path,
                text,
                statements,
            }),
        }
    }

    /// Looks names up, which may take long. Why that failed is said.
    pub fn resolve(&self) -> Result<SetDevice, Failed> {
        let mut lookup = System::new(&self.context, &self.path);
        let statements = self.statements.iter().cloned();
        config::compile(statements, SetDevice::whole(), &mut lookup).map_err(|error| match error {
            CompileError::Fault(fault) => {
                failed(wg::fault(&self.context, &self.path, &self.text, &fault))
            }
            CompileError::Reported => Failed(1),
        })
    }
}

fn failed(_: wg::Failed) -> Failed {
    Failed(1)
}

/// The device as it is.
pub fn get(options: &Options, name: &str) -> io::Result<Device> {
    driver::get(name, options.context.family.as_deref())
}

/// There is no such interface, or it is no WireGuard device.
pub fn is_absent(err: &io::Error) -> bool {
    let errors = [libc::ENODEV, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT];
    err.raw_os_error()
        .is_some_and(|errno| errors.contains(&errno))
}

/// Changes the device.
pub fn set(options: &Options, name: &str, change: &SetDevice) -> Result<(), Failed> {
    let context = &options.context;
    driver::set(name, change, context.family.as_deref()).map_err(|err| {
        failed(wg::kernel(
            context,
            "Unable to modify interface",
            name,
            &err,
        ))
    })
}

/// The device as a configuration file.
pub fn shown(device: &Device) -> Zeroizing<Vec<u8>> {
    // Room for all of it at once: what outgrows its place leaves keys behind there.
    let ips: usize = device.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let room = 512 * (1 + device.peers.len()) + 64 * ips;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    // Writing to memory does not fail.
    let _ = config::write(device, &mut *text);
    text
}

/// What to do about a device that cannot be made.
pub fn hint(errno: i32, name: &str) -> Option<String> {
    // To rtnetlink a kind of link is "not supported", to generic netlink a family.
    let errno = match errno {
        libc::EOPNOTSUPP => libc::EPROTONOSUPPORT,
        other => other,
    };
    genl::explain(&io::Error::from_raw_os_error(errno), name)
}

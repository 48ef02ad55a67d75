// SPDX-License-Identifier: GPL-2.0-only
//! The WireGuard device of a tunnel: what `wg` does to it.

use super::Options;
use crate::config::{self, CompileError, Statement};
use crate::driver;
use crate::finding::Purpose;
use crate::genl;
use crate::model::{Device, SetDevice};
use crate::say::Failed;
use crate::wg::{self, Context, System};
use nix::libc;
use std::io;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What a file says about the device, with its names yet to be looked up.
pub struct Configuration {
    /// How to speak.
    pub context: Context,
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub statements: Vec<Statement>,
    /// That as it is written.
    pub text: Zeroizing<Vec<u8>>,
}

impl Configuration {
    /// Looks names up, which may take long. Why that failed is said.
    pub fn resolve(self) -> Result<SetDevice, Failed> {
        let mut lookup = System::new(&self.context, &self.path);
        // What a hook has set, and the file does not mention, stays.
        let change = config::compile(self.statements, SetDevice::default(), &mut lookup);
        change.map_err(|error| match error {
            CompileError::Fault(fault) => {
                let purpose = Purpose::Tunnel;
                wg::fault(&self.context, &self.path, &self.text, &fault, purpose)
            }
            CompileError::Reported => Failed::USUAL,
        })
    }
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
    driver::set_whole(name, change, context.family.as_deref())
        .map_err(|err| wg::kernel(context, "Unable to modify interface", name, &err))
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

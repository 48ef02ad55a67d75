// SPDX-License-Identifier: GPL-2.0-only
//! The targets: each takes any bytes, and panics where wg-rs would break a promise.

use std::net::SocketAddr;

use wg_rs::config::{
    self, value::EndpointText, CompileError, Fault, Kind, Lookup, LookupError, Warning,
};
use wg_rs::genl;
use wg_rs::model::{Device, SetDevice};
use wg_rs::quick::Settings;

/// Resolves nothing but addresses.
struct Offline;

impl Lookup for Offline {
    fn endpoint(&mut self, endpoint: &EndpointText) -> Result<SocketAddr, LookupError> {
        endpoint
            .numeric()
            .ok_or_else(|| LookupError::Unresolved("no such name".into()))
    }

    fn port(&mut self, _: &[u8]) -> Result<u16, LookupError> {
        Ok(1)
    }

    fn warn(&mut self, warning: &Warning) {
        assert!(warning.place.line > 0 && warning.place.column > 0);
    }
}

/// A configuration: every way to read it, as wg and as wg-quick do, strictly and not.
pub fn config(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|c| *c == b'\n').collect();
    for strict in [false, true] {
        let statements = config::parse(data, strict);
        let faults = config::faults(&statements);
        for fault in &faults {
            let line = lines.get(fault.place.line - 1).expect("a fault has a line");
            let length = String::from_utf8_lossy(line).chars().count();
            assert!((1..=length + 1).contains(&fault.place.column), "{fault:?}");
            assert!(fault.place.len >= 1, "{fault:?}");
        }
        let compiled = config::compile(statements, SetDevice::whole(), &mut Offline);
        // What the kernel is asked for is what is in the file, or nothing.
        if let Ok(change) = compiled {
            assert!(faults.is_empty());
            genl::write_requests(1, genl::Link::Name("wg0"), &change, &mut |_| Ok(()))
                .expect("requests of any size");
        }
    }
    let settings = Settings::parse(data);
    assert!(settings.stripped.len() <= data.len() + 1);
    assert!(settings.blanked.len() <= data.len() + 1);
    // Taking wg-quick's lines away twice takes no more away, but for a second byte order mark.
    if !settings.stripped.starts_with(config::BYTE_ORDER_MARK) {
        let again = Settings::parse(&settings.stripped);
        assert_eq!(*again.stripped, *settings.stripped);
        assert!(again.lines.is_empty());
    }
    let mut report = Vec::new();
    wg_rs::check::report(data, "fuzz", Some(0o644), true, &mut report).expect("memory");
}

/// What the kernel says about a device: the attributes of one message after the other, each with
/// its length before it.
pub fn netlink(data: &[u8]) {
    let mut device = Device::default();
    let mut rest = data;
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        let (message, tail) = tail.split_at(length);
        if genl::read_reply(message, &mut device).is_err() {
            return;
        }
        rest = tail;
    }
    for peer in &device.peers {
        for ip in &peer.allowed_ips {
            assert!(
                ip.cidr <= if ip.addr.is_ipv4() { 32 } else { 128 },
                "{ip:?}"
            );
        }
    }
    // All that is shown of it.
    let devices = [device];
    wg_rs::json::write(&devices, true, Vec::new()).expect("memory");
    wg_rs::monitor::table(&devices);
    // showconf, and back: the file says what the device is.
    let mut file = Vec::new();
    config::write(&devices[0], &mut file).expect("memory");
    let statements = config::parse(&file, true);
    match config::compile(statements, SetDevice::whole(), &mut Offline) {
        // A scope belongs to link-local addresses only; the kernel does not mind, the resolver
        // does.
        Ok(_)
        | Err(CompileError::Fault(Fault {
            kind: Kind::Unresolved(_),
            ..
        })) => {}
        Err(error) => panic!("{error:?} in\n{}", String::from_utf8_lossy(&file)),
    }
}

/// Breaks on one word only, to which coverage leads letter by letter: a test of the harness itself.
pub fn planted(data: &[u8]) {
    let is = |at: usize, letter: u8| std::hint::black_box(data.get(at) == Some(&letter));
    if is(0, b'f') && is(1, b'u') && is(2, b'z') && is(3, b'z') {
        panic!("planted fault");
    }
}

/// Runs a target on the files that the command line names.
pub fn replay(target: fn(&[u8])) {
    let mut files = 0;
    for file in std::env::args_os().skip(1) {
        target(
            &std::fs::read(&file)
                .unwrap_or_else(|error| panic!("{}: {error}", file.to_string_lossy())),
        );
        files += 1;
    }
    println!("{files} files, no fault");
}

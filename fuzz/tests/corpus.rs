// SPDX-License-Identifier: GPL-2.0-only
//! The corpus, and what lies next to it, without a fuzzer.

use std::fs;
use std::path::Path;

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let files = fs::read_dir(folder)
        .expect("corpus")
        .map(|file| fs::read(file.expect("file").path()).expect("file"));
    let files: Vec<_> = files.collect();
    assert!(files.len() >= 5, "a corpus of {} files", files.len());
    files
}

/// Each file as it is, cut off at each length, and with each byte changed in some ways.
fn neighbours(target: fn(&[u8]), files: Vec<Vec<u8>>) {
    for file in files {
        target(&file);
        for at in 0..file.len().min(600) {
            target(&file[..at]);
            let mut copy = file.clone();
            for change in [
                0,
                0xff,
                file[at] ^ 1,
                file[at] ^ 0x20,
                file[at].wrapping_add(16),
                b'\n',
                b'=',
            ] {
                copy[at] = change;
                target(&copy);
            }
        }
    }
}

#[test]
fn configurations() {
    neighbours(wgrs_fuzz::config, corpus("config"));
}

#[test]
fn replies() {
    neighbours(wgrs_fuzz::netlink, corpus("netlink"));
}

#[test]
#[should_panic(expected = "planted fault")]
fn the_planted_fault_is_there() {
    wgrs_fuzz::planted(b"fuzz");
}

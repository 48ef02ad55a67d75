// SPDX-License-Identifier: GPL-2.0-only
//! Compiles the BPF programs of the harness, each to an object that is built into the binary.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::path::PathBuf;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in [
        "underlay", "calls", "stain", "spoil", "pass", "deny", "refusals",
    ] {
        let source = format!("bpf/{name}.bpf.c");
        println!("cargo:rerun-if-changed={source}");
        SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{name}.bpf.o")))
            // Debian keeps the per-architecture part of the user space headers here.
            .clang_args([
                "-I/usr/include/x86_64-linux-gnu",
                "-mcpu=v3",
                "-Wall",
                "-Werror",
            ])
            .build()
            .unwrap_or_else(|e| panic!("{source}: {e:#}"));
    }
}

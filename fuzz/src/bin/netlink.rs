// SPDX-License-Identifier: GPL-2.0-only
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wgrs_fuzz::netlink(data));

#[cfg(not(fuzzing))]
fn main() {
    wgrs_fuzz::replay(wgrs_fuzz::netlink);
}

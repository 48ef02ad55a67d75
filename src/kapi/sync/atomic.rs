// SPDX-License-Identifier: GPL-2.0-only

//! Atomics: Rust's own, under the one path by which `device/`, `tables/` and the rest of kapi name
//! them. `proto/` names nothing of kapi and takes them from `core` itself.
//!
//! # Why not the kernel's
//!
//! `kernel::sync::atomic` asks that Rust's atomics be avoided, for one memory model in the kernel.
//! But in a kernel compiled by gcc each of its loads and stores is a call of a
//! `rust_helper_atomic_*` function: only clang kernels can have `CONFIG_RUST_INLINE_HELPERS`. With
//! them throughout (proto included), on Linux 7.3 for x86-64 and counted in instructions:
//!
//! - 625 places call a helper, and .text grows by 1.9 %;
//! - the round trip of a ping takes 2.3 % longer, a segment of TCP 0.9 %;
//! - 3.3 % fewer datagrams of 64 bytes are sent per second.
//!
//! # Memory models
//!
//! C accesses none of our atomics; what we share with C, we access by C's own means. Between
//! themselves, our accesses rely only on what both models promise: relaxed, acquire and release
//! mean the same as `READ_ONCE()` and `WRITE_ONCE()`, `smp_load_acquire()` and
//! `smp_store_release()`. Nothing relies on a dependency, which Rust's model does not order:
//! [`RcuCell::load`](super::rcu::RcuCell::load) is an acquire. On x86-64 the instructions are the
//! same, too: `mov` for loads and stores, `xchg` for a `SeqCst` store, locked ones to read, modify
//! and write; a fence for acquire restrains only the compiler.
//!
//! # To change it
//!
//! `kernel::sync::atomic` of Linux 7.3 has all types that are exported here, and `i16`, but not
//! `u16` (which proto has). It has no `AcqRel` and `SeqCst`: `Full` is stronger than both, but not
//! for plain loads and stores, so a `SeqCst` store becomes `xchg()`. `compare_exchange()` is
//! `cmpxchg()`, `fetch_update()` a loop around it, `fence(Acquire)` before a load
//! `smp_mb(Read)`. A compiler barrier is not public there, and no atomic has a `Default`.

pub use core::sync::atomic::{
    compiler_fence, fence, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

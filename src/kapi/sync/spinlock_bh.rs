// SPDX-License-Identifier: GPL-2.0-only

//! A spin lock that is taken with bottom halves disabled.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use kernel::{
    ffi::c_char,
    sync::lock::{Backend, Lock},
};

use crate::bindings;

/// Creates a [`SpinLockBh`](crate::kapi::sync::spinlock_bh::SpinLockBh) initialiser with a new
/// lock class, named after the source location if no name is given.
#[macro_export]
macro_rules! new_spinlock_bh {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::kapi::sync::spinlock_bh::SpinLockBh::new(
            $inner, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}

/// A spin lock that disables bottom halves while it is held: for data that process context shares
/// with softirqs (timers, NAPI, transmit).
///
/// May be taken in process and softirq context, not in hard interrupts. With `PREEMPT_RT` it
/// sleeps, so it must not be taken with preemption disabled by other means.
pub type SpinLockBh<T> = Lock<T, SpinLockBhBackend>;

/// The [`Backend`] of a `spinlock_t` that is taken by `spin_lock_bh()`.
pub struct SpinLockBhBackend;

// SAFETY: `spinlock_t` ensures mutual exclusion. `relock` is the default implementation, which
// calls `lock`.
unsafe impl Backend for SpinLockBhBackend {
    type State = kernel::bindings::spinlock_t;
    type GuardState = ();

    #[inline]
    unsafe fn init(
        ptr: *mut Self::State,
        name: *const c_char,
        key: *mut kernel::bindings::lock_class_key,
    ) {
        // SAFETY: By the requirements of this function `ptr` is valid for writes, and `name` and
        // `key` are valid for read indefinitely.
        unsafe { kernel::bindings::__spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By the requirements of this function `ptr` points to an initialised spin lock.
        unsafe { bindings::wg_spin_lock_bh(ptr.cast()) }
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
        // SAFETY: By the requirements of this function the caller owns the spin lock.
        unsafe { bindings::wg_spin_unlock_bh(ptr.cast()) }
    }

    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        // SAFETY: By the requirements of this function `ptr` points to an initialised spin lock.
        let locked = unsafe { bindings::wg_spin_trylock_bh(ptr.cast()) };
        (locked != 0).then_some(())
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // C checks with lockdep only: without it, save the call.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the requirements of this function `ptr` points to an initialised spin
            // lock.
            unsafe { kernel::bindings::spin_assert_is_held(ptr) }
        }
    }
}

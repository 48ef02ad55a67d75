// SPDX-License-Identifier: GPL-2.0-only

//! Timers of objects in an [`RcuArc`].
//!
//! A pending timer holds a reference to its object, and passes it to [`TimerCallback::expired`]. So
//! an object with a pending timer stays alive, and one that is dropped has none.
//!
//! [`HasTimers`] is a safe trait: arming checks that the timer lies within the object.
//!
//! C header: [`include/linux/timer.h`](srctree/include/linux/timer.h)

use core::{marker::PhantomData, ptr};

use kernel::{prelude::*, sync::LockClassKey, types::Opaque};

use crate::{
    bindings,
    kapi::{
        sync::{
            atomic::{AtomicPtr, Ordering::Relaxed},
            rcu::RcuArc,
        },
        within,
    },
};

/// Creates a [`Timer`](crate::kapi::timer::Timer) initialiser with a new lock class.
#[macro_export]
macro_rules! new_timer {
    ($($name:literal)?) => {
        $crate::kapi::timer::Timer::new(
            ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}

/// An object with [`Timer`] fields.
pub trait HasTimers: Send + Sync + Sized + 'static {
    /// The timers. They must be part of the object itself; a timer elsewhere is never armed.
    fn timers(&self) -> &[Timer<Self>];
}

/// The callback of an object's timers.
pub trait TimerCallback: HasTimers {
    /// Called when number `index` of [`HasTimers::timers`] has expired, in softirq context, with
    /// the reference that the timer held. The timer may be armed again.
    fn expired(this: RcuArc<Self>, index: usize);
}

/// A timer, as a pinned field of the object that it belongs to. [`new_timer!`](crate::new_timer)
/// initialises it.
///
/// # Invariants
///
/// While the timer is pending, `owner` is the pointer of the reference that it holds.
#[pin_data]
#[repr(C)]
pub struct Timer<T> {
    #[pin]
    timer: Opaque<bindings::timer_list>,
    owner: AtomicPtr<T>,
    _object: PhantomData<fn(RcuArc<T>)>,
}

// SAFETY: Timers may be used by any thread, and do not contain a `T`.
unsafe impl<T> Send for Timer<T> {}
// SAFETY: All operations on a timer are thread-safe, and it does not contain a `T`.
unsafe impl<T> Sync for Timer<T> {}

impl<T: TimerCallback> Timer<T> {
    /// An idle timer. Use [`new_timer!`](crate::new_timer).
    pub fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            timer <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, `name` and `key` are static. `expired()` is
                // called for timers armed by `arm()` only, which lie in a `Timer<T>`.
                unsafe {
                    bindings::timer_init_key(
                        slot,
                        Some(Self::expired),
                        0,
                        name.as_char_ptr(),
                        key.as_ptr().cast(),
                    )
                }
            }),
            owner: AtomicPtr::new(ptr::null_mut()),
            _object: PhantomData,
        })
    }

    /// C timer number `index` of `object`, with its owner set; `None` if there is none, or if it is
    /// not within the object.
    #[inline]
    fn of(object: &RcuArc<T>, index: usize) -> Option<*mut bindings::timer_list> {
        let timer = object.timers().get(index)?;
        if !within(timer, &**object) {
            return None;
        }
        // Always the same value, as a timer never changes objects; the timer base's lock orders the
        // first store before the load in `expired()`.
        timer.owner.store(object.as_ptr().cast_mut(), Relaxed);
        Some(timer.timer.get())
    }

    /// # Safety
    ///
    /// Only the timer wheel may call it, for a timer that `arm()` armed.
    unsafe extern "C" fn expired(timer: *mut bindings::timer_list) {
        let timer: *const Self = timer.cast();
        // SAFETY: `timer` is the first field of a `Timer`, which is valid because it holds a
        // reference to the object around it.
        let owner = unsafe { (*timer).owner.load(Relaxed) };
        // SAFETY: By the type invariant this is the reference that the timer held while it was
        // pending.
        let owner = unsafe { RcuArc::from_raw(owner) };
        let index = owner
            .timers()
            .iter()
            .position(|candidate| ptr::eq(candidate, timer));
        if let Some(index) = index {
            T::expired(owner, index);
        }
    }
}

/// (Re)arms timer number `index` of the object to expire in `delay_ms` milliseconds, rounded up to
/// jiffies, plus up to one jiffy. Any context.
pub fn arm<T: TimerCallback>(object: &RcuArc<T>, index: usize, delay_ms: u32) {
    let Some(timer) = Timer::<T>::of(object, index) else {
        return;
    };
    // Taken before the timer is armed: it may expire at once.
    let owned = object.clone().into_raw();
    // SAFETY: The timer was initialised by `Timer::new()`, and the reference keeps it in place
    // until it expires or is cancelled.
    let was_pending = unsafe { bindings::wg_mod_timer_ms(timer, delay_ms) };
    if was_pending {
        // It had a reference already.
        // SAFETY: The pointer comes from `into_raw()`, and the timer has not taken it.
        drop(unsafe { RcuArc::from_raw(owned) });
    }
}

/// Cancels all timers of the object. A callback may still be running. Any context.
pub fn cancel_all<T: TimerCallback>(object: &RcuArc<T>) {
    for index in 0..object.timers().len() {
        if let Some(timer) = Timer::<T>::of(object, index) {
            // SAFETY: The timer is initialised, and `object` keeps it in place.
            let was_pending = unsafe { bindings::timer_delete(timer) } != 0;
            release(object, was_pending);
        }
    }
}

/// As [`cancel_all`], and waits for running callbacks. Process context. A callback must not rearm a
/// timer, nor take a lock that the caller holds.
pub fn cancel_all_sync<T: TimerCallback>(object: &RcuArc<T>) {
    for index in 0..object.timers().len() {
        if let Some(timer) = Timer::<T>::of(object, index) {
            // SAFETY: The timer is initialised, and `object` keeps it in place.
            let was_pending = unsafe { bindings::timer_delete_sync(timer) } != 0;
            release(object, was_pending);
        }
    }
}

/// Drops the reference of a timer that has been cancelled.
fn release<T: TimerCallback>(object: &RcuArc<T>, was_pending: bool) {
    if was_pending {
        // SAFETY: A pending timer holds a reference to its object. As this one no longer expires,
        // nobody else drops that.
        drop(unsafe { RcuArc::from_raw(object.as_ptr()) });
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Timers of objects in an [`RcuArc`].
//!
//! A pending timer holds a reference to its object and gives it to [`TimerCallback::expired`]. So
//! an object with a pending timer stays alive, and one that is dropped has none.
//!
//! [`HasTimer`] is a safe trait for the same reason as [`HasWork`](super::workqueue::HasWork).
//!
//! C header: [`include/linux/timer.h`](srctree/include/linux/timer.h)

use core::{
    marker::PhantomData,
    ptr,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
};

use kernel::{prelude::*, sync::LockClassKey, types::Opaque};

use crate::{
    bindings,
    kapi::{sync::rcu::RcuArc, within},
};

/// Creates a [`Timer`](crate::kapi::timer::Timer) initialiser with a new lock class.
#[macro_export]
macro_rules! new_timer {
    ($($name:literal)?) => {
        $crate::kapi::timer::Timer::new(
            ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}

/// Says which field of an object is a timer of it:
///
/// ```ignore
/// impl_has_timer! {
///     impl HasTimer<Self, 1> for Peer { self.keepalive_timer }
/// }
/// ```
#[macro_export]
macro_rules! impl_has_timer {
    ($(impl HasTimer<$timer:ty $(, $id:tt)?> for $self:ty { self.$($field:ident).+ })*) => {$(
        impl $crate::kapi::timer::HasTimer<$($id)?> for $self {
            #[inline(always)]
            fn timer(&self) -> &$crate::kapi::timer::Timer<$timer $(, $id)?> {
                &self.$($field).+
            }
        }
    )*};
}

/// What happens when a timer expires.
pub trait TimerCallback<const ID: u64 = 0>: Send + Sync + Sized + 'static {
    /// The timer has expired. Softirq context. It may be armed again, here or elsewhere. `this` is
    /// the reference that the timer held.
    fn expired(this: RcuArc<Self>);
}

/// An object with a [`Timer`] field. Implemented by [`impl_has_timer!`](crate::impl_has_timer).
pub trait HasTimer<const ID: u64 = 0>: Sized {
    /// The field. It must be part of the object itself; a timer elsewhere is never armed.
    fn timer(&self) -> &Timer<Self, ID>;
}

/// A timer, as a pinned field of the object that it belongs to. [`new_timer!`](crate::new_timer)
/// initialises it.
///
/// # Invariants
///
/// While the timer is pending, `owner` is the pointer of the reference that it holds.
#[pin_data]
#[repr(C)]
pub struct Timer<T, const ID: u64 = 0> {
    #[pin]
    timer: Opaque<bindings::timer_list>,
    owner: AtomicPtr<T>,
    _object: PhantomData<fn(RcuArc<T>)>,
}

// SAFETY: Timers may be used by any thread, and there is no `T` in one.
unsafe impl<T, const ID: u64> Send for Timer<T, ID> {}
// SAFETY: As above.
unsafe impl<T, const ID: u64> Sync for Timer<T, ID> {}

impl<T: TimerCallback<ID> + HasTimer<ID>, const ID: u64> Timer<T, ID> {
    /// An idle timer. Use [`new_timer!`](crate::new_timer).
    pub fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            timer <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, `name` and `key` are static; and `expired()`
                // is only called for timers that were armed by us, hence lie in a `Timer<T, ID>`.
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

    /// The C timer of `object`, with its owner set; `None` if it is not part of the object.
    #[inline]
    fn of(object: &RcuArc<T>) -> Option<*mut bindings::timer_list> {
        let timer = object.timer();
        if !within(timer, &**object) {
            return None;
        }
        // The timer never changes objects, so that this writes the same again each time; the timer
        // base's lock orders it before the read in `expired()`.
        timer.owner.store(object.as_ptr().cast_mut(), Relaxed);
        Some(timer.timer.get())
    }

    /// # Safety
    ///
    /// Called by the timer wheel for a timer that `arm()` has armed.
    unsafe extern "C" fn expired(timer: *mut bindings::timer_list) {
        let timer: *const Self = timer.cast();
        // SAFETY: `timer` is the first field of a `Timer`, which is valid as it holds a reference
        // to the object around it.
        let owner = unsafe { (*timer).owner.load(Relaxed) };
        // SAFETY: By the type invariant this is the reference that the timer held while it was
        // pending.
        T::expired(unsafe { RcuArc::from_raw(owner) });
    }
}

/// Lets the timer expire in `delay_ms` milliseconds (rounded up to jiffies, plus up to one),
/// whether or not it was pending. Any context.
pub fn arm<T: TimerCallback<ID> + HasTimer<ID>, const ID: u64>(object: &RcuArc<T>, delay_ms: u32) {
    let Some(timer) = Timer::<T, ID>::of(object) else {
        return;
    };
    // Taken before it is armed: it may expire before we are back here.
    let owned = object.clone().into_raw();
    // SAFETY: The timer was initialised by `Timer::new()`, and the reference keeps it in place
    // until it expires or is cancelled.
    let was_pending = unsafe { bindings::wg_mod_timer_ms(timer, delay_ms) };
    if was_pending {
        // It has a reference already.
        // SAFETY: The pointer comes from `into_raw()`; nobody else took it.
        drop(unsafe { RcuArc::from_raw(owned) });
    }
}

/// Cancels the timer. True if it was pending. Its callback may still be running. Any context.
pub fn cancel<T: TimerCallback<ID> + HasTimer<ID>, const ID: u64>(object: &RcuArc<T>) -> bool {
    let Some(timer) = Timer::<T, ID>::of(object) else {
        return false;
    };
    // SAFETY: The timer is initialised, and `object` keeps it in place.
    let was_pending = unsafe { bindings::timer_delete(timer) } != 0;
    release::<T, ID>(object, was_pending)
}

/// As [`cancel`], and waits until its callback has ended. Process context; the callback must not arm
/// the timer again, nor want a lock that the caller holds.
pub fn cancel_sync<T: TimerCallback<ID> + HasTimer<ID>, const ID: u64>(object: &RcuArc<T>) -> bool {
    let Some(timer) = Timer::<T, ID>::of(object) else {
        return false;
    };
    // SAFETY: The timer is initialised, and `object` keeps it in place.
    let was_pending = unsafe { bindings::timer_delete_sync(timer) } != 0;
    release::<T, ID>(object, was_pending)
}

/// Drops the reference of a timer that has been cancelled.
fn release<T: TimerCallback<ID> + HasTimer<ID>, const ID: u64>(
    object: &RcuArc<T>,
    was_pending: bool,
) -> bool {
    if was_pending {
        // SAFETY: A pending timer holds a reference to its object, and as it will not expire,
        // nobody else takes that.
        drop(unsafe { RcuArc::from_raw(object.as_ptr()) });
    }
    was_pending
}

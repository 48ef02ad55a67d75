// SPDX-License-Identifier: GPL-2.0

//! A lock-free place for one owned value.

use core::{
    ffi::c_void,
    marker::PhantomData,
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use kernel::types::ForeignOwnable;

/// A lock-free `Option<T>` for values that are one pointer wide: CPUs hand them to each other
/// through it.
///
/// What happened before a [`put`](Slot::put) is visible after the [`take`](Slot::take) that gets
/// the value. Usable in any context.
///
/// # Invariants
///
/// The pointer is null or comes from [`ForeignOwnable::into_foreign`], and then the slot owns the
/// value.
pub struct Slot<T: ForeignOwnable> {
    pointer: AtomicPtr<c_void>,
    _owns: PhantomData<T>,
}

// SAFETY: A slot is an `Option<T>` that gives out its value as a whole, never by reference.
unsafe impl<T: ForeignOwnable + Send> Send for Slot<T> {}
// SAFETY: As above: sharing a slot only moves values between threads.
unsafe impl<T: ForeignOwnable + Send> Sync for Slot<T> {}

// The value moves into and out of its slot as a pointer.
impl<T: ForeignOwnable> Unpin for Slot<T> {}

impl<T: ForeignOwnable> Slot<T> {
    /// A slot without a value.
    pub const fn empty() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            pointer: AtomicPtr::new(ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// Whether there was no value a moment ago.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pointer.load(Acquire).is_null()
    }

    /// Puts a value in and gives back the one that was there.
    #[inline]
    pub fn put(&self, value: T) -> Option<T> {
        self.swap(value.into_foreign())
    }

    /// Takes the value out, if there is one.
    #[inline]
    pub fn take(&self) -> Option<T> {
        // An empty slot stays untouched in the cache of whoever fills it.
        if self.pointer.load(Relaxed).is_null() {
            return None;
        }
        self.swap(ptr::null_mut())
    }

    #[inline]
    fn swap(&self, new: *mut c_void) -> Option<T> {
        // INVARIANT: Both callers pass null or the pointer of a value that they own.
        let old = self.pointer.swap(new, AcqRel);
        // SAFETY: By the invariant `old` is null or comes from `into_foreign()`, and this exchange
        // is the only one that got it.
        unsafe { T::try_from_foreign(old.cast()) }
    }
}

impl<T: ForeignOwnable> Drop for Slot<T> {
    fn drop(&mut self) {
        drop(self.swap(ptr::null_mut()));
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Data that a lock elsewhere guards.

use core::cell::UnsafeCell;

/// Data that whoever has a certain `U` to itself may change; the `U` is what a lock protects.
///
/// As [`kernel::sync::LockedBy`](srctree/rust/kernel/sync/locked_by.rs), but to come with another
/// `U` is refused, not a panic.
pub struct LockedBy<T, U> {
    owner: *const U,
    data: UnsafeCell<T>,
}

// SAFETY: `owner` is only compared; `data` may be sent as it is.
unsafe impl<T: Send, U> Send for LockedBy<T, U> {}
// SAFETY: As above; `data` is reached only by whoever has the owner to itself, that is, by one
// thread at a time, and each sees what those before have done, for they have passed it on.
unsafe impl<T: Send, U> Sync for LockedBy<T, U> {}

impl<T, U> LockedBy<T, U> {
    /// Data that goes with `owner`, which must stay where it is to be of use.
    pub fn new(owner: &U, data: T) -> Self {
        const {
            assert!(size_of::<U>() != 0, "owners need addresses of their own");
        }
        Self {
            owner,
            data: UnsafeCell::new(data),
        }
    }

    /// The data, for whoever has the owner; `None` if `owner` is another one.
    #[inline]
    pub fn access_mut<'a>(&'a self, owner: &'a mut U) -> Option<&'a mut T> {
        if !core::ptr::eq(self.owner, owner) {
            return None;
        }
        // SAFETY: There is one exclusive reference to what lies at this address at a time, and it
        // is borrowed for as long as the data.
        Some(unsafe { &mut *self.data.get() })
    }
}

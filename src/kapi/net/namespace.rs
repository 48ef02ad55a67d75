// SPDX-License-Identifier: GPL-2.0-only

//! Network namespaces.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use core::{
    ops::Deref,
    ptr::{self, NonNull},
};

use kernel::{alloc::flags::GFP_KERNEL, prelude::*, types::Opaque};

use crate::bindings;

/// Bytes of an interface's name at most, with the zero at its end.
pub const IFNAMSIZ: usize = bindings::IFNAMSIZ as usize;

/// A network namespace, borrowed: the kernel's `struct net`.
///
/// # Invariants
///
/// The namespace's memory is valid.
#[repr(transparent)]
pub struct Net(Opaque<bindings::net>);

// SAFETY: A namespace is not tied to a thread or CPU.
unsafe impl Send for Net {}
// SAFETY: All methods may be called concurrently.
unsafe impl Sync for Net {}

impl Net {
    /// Borrows a namespace of C.
    ///
    /// # Safety
    ///
    /// The namespace must be valid during `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(net: *mut bindings::net) -> &'a Self {
        // CAST: `Self` is a transparent wrapper.
        // SAFETY: By the requirement of this function.
        unsafe { &*net.cast() }
    }

    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// A number that is unique to this namespace until the next boot.
    pub fn cookie(&self) -> u64 {
        // SAFETY: The namespace is valid by the type invariant.
        unsafe { bindings::wg_net_cookie(self.as_raw()) }
    }

    /// The index of the interface of this name, which is padded with zeros, and at least one. Any
    /// context.
    pub fn ifindex_of(&self, name: &[u8; IFNAMSIZ]) -> Option<u32> {
        if name.last() != Some(&0) {
            return None;
        }
        // SAFETY: The namespace is valid by the type invariant, and the name ends with a zero.
        let ifindex = unsafe { bindings::wg_net_ifindex(self.as_raw(), name.as_ptr().cast()) };
        u32::try_from(ifindex).ok().filter(|index| *index != 0)
    }

    /// Whether the current task has `CAP_NET_ADMIN` in the user namespace that owns this one.
    /// Process context.
    pub fn caller_is_admin(&self) -> bool {
        // SAFETY: The namespace is valid by the type invariant.
        unsafe { bindings::wg_net_admin(self.as_raw()) }
    }
}

/// Compares by identity.
impl PartialEq for Net {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

/// A reference that keeps a namespace from exiting. Nothing whose life ends with the namespace may
/// keep one: the namespace would never exit.
///
/// # Invariants
///
/// The handle owns a reference (`get_net()`).
pub struct NetRef(NonNull<Net>);

// SAFETY: A namespace is not tied to a thread or CPU.
unsafe impl Send for NetRef {}
// SAFETY: All methods of `Net` may be called concurrently.
unsafe impl Sync for NetRef {}

impl Deref for NetRef {
    type Target = Net;

    #[inline]
    fn deref(&self) -> &Net {
        // SAFETY: The reference that the handle owns by the type invariant keeps the namespace
        // valid.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for NetRef {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant there is a reference already.
        unsafe { bindings::wg_get_net(self.as_raw()) };
        // INVARIANT: Just taken.
        Self(self.0)
    }
}

impl Drop for NetRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { bindings::wg_put_net(self.as_raw()) };
    }
}

/// A weak pointer to a namespace, which is cleared when that exits.
///
/// # Invariants
///
/// The heap object is valid and on the list that [`clear_weak_pointers_to`] walks.
pub struct WeakNet(NonNull<bindings::wg_weak_net>);

// SAFETY: The object is only accessed through functions that lock, or read under RCU.
unsafe impl Send for WeakNet {}
// SAFETY: The object is only accessed through functions that lock, or read under RCU.
unsafe impl Sync for WeakNet {}

impl WeakNet {
    /// Points to `net`. Process context.
    pub fn new(net: &Net) -> Result<Self> {
        let weak = KBox::new(bindings::wg_weak_net::default(), GFP_KERNEL)?;
        let weak = NonNull::from(KBox::leak(weak));
        // SAFETY: Both are valid, and `weak` is on no list yet.
        // INVARIANT: Now it is on the list.
        unsafe { bindings::wg_weak_net_add(weak.as_ptr(), net.as_raw()) };
        Ok(Self(weak))
    }

    /// A reference to the namespace, unless it has exited or is about to.
    pub fn get(&self) -> Option<NetRef> {
        // SAFETY: The object is valid and on the list by the type invariant.
        let net = unsafe { bindings::wg_weak_net_get(self.0.as_ptr()) };
        // INVARIANT: The reference was just taken for us.
        NonNull::new(net.cast()).map(NetRef)
    }

    /// Whether this points to `net`.
    pub fn is(&self, net: &Net) -> bool {
        // SAFETY: The object is valid by the type invariant.
        let here = unsafe { bindings::wg_weak_net_peek(self.0.as_ptr()) };
        ptr::eq(here, net.as_raw())
    }

    /// Clears the pointer.
    pub fn clear(&self) {
        // SAFETY: The object is valid and on the list by the type invariant.
        unsafe { bindings::wg_weak_net_clear(self.0.as_ptr()) };
    }
}

impl Drop for WeakNet {
    fn drop(&mut self) {
        // SAFETY: The object is valid and on the list by the type invariant. It comes from a
        // `KBox`, and nobody can find it once it is off the list.
        unsafe {
            bindings::wg_weak_net_del(self.0.as_ptr());
            drop(KBox::from_raw(self.0.as_ptr()));
        }
    }
}

/// Clears all [`WeakNet`]s that point to `net`, which is exiting.
pub(super) fn clear_weak_pointers_to(net: &Net) {
    // SAFETY: The namespace is valid by the type invariant of `Net`.
    unsafe { bindings::wg_weak_nets_clear(net.as_raw()) };
}

// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use core::{
    ops::Deref,
    ptr::{self, NonNull},
};

use kernel::{alloc::flags::GFP_KERNEL, prelude::*, types::Opaque};

use crate::bindings;

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

    /// A number that no other namespace has or will have before the next boot.
    pub fn cookie(&self) -> u64 {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_net_cookie(self.as_raw()) }
    }

    /// Whether the current task has `CAP_NET_ADMIN` in the user namespace that owns this one.
    /// Process context.
    pub fn caller_is_admin(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_net_admin(self.as_raw()) }
    }
}

/// Compares by identity.
impl PartialEq for Net {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

/// A reference that keeps a namespace from exiting. Not to be kept by anything that lives in the
/// namespace: it would never end.
///
/// # Invariants
///
/// The handle owns a reference (`get_net()`).
pub struct NetRef(NonNull<Net>);

// SAFETY: A namespace is not tied to a thread or CPU.
unsafe impl Send for NetRef {}
// SAFETY: As above.
unsafe impl Sync for NetRef {}

impl Deref for NetRef {
    type Target = Net;

    #[inline]
    fn deref(&self) -> &Net {
        // SAFETY: By the type invariant.
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

/// A pointer to a namespace that does not keep it, and becomes empty when it exits.
///
/// # Invariants
///
/// The heap object is on the list that [`clear_weak_pointers_to`] goes through.
pub struct WeakNet(NonNull<bindings::wg_weak_net>);

// SAFETY: The object is only accessed through functions that lock, or read under RCU.
unsafe impl Send for WeakNet {}
// SAFETY: As above.
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

    /// A reference to the namespace, unless it is gone or going.
    pub fn get(&self) -> Option<NetRef> {
        // SAFETY: By the type invariant.
        let net = unsafe { bindings::wg_weak_net_get(self.0.as_ptr()) };
        // INVARIANT: The reference was just taken for us.
        NonNull::new(net.cast()).map(NetRef)
    }

    /// Whether this points to `net`.
    pub fn is(&self, net: &Net) -> bool {
        // SAFETY: By the type invariant.
        let here = unsafe { bindings::wg_weak_net_peek(self.0.as_ptr()) };
        ptr::eq(here, net.as_raw())
    }

    /// Whether the namespace has exited, or the pointer has been cleared.
    pub fn is_none(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_weak_net_peek(self.0.as_ptr()) }.is_null()
    }

    /// Points to nothing from now on.
    pub fn clear(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_weak_net_clear(self.0.as_ptr()) };
    }
}

impl Drop for WeakNet {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the object comes from a `KBox` and nobody can find it
        // once it is off the list.
        unsafe {
            bindings::wg_weak_net_del(self.0.as_ptr());
            drop(KBox::from_raw(self.0.as_ptr()));
        }
    }
}

/// Empties all [`WeakNet`]s that point to `net`, which is exiting.
pub(super) fn clear_weak_pointers_to(net: &Net) {
    // SAFETY: By the type invariant of `Net`.
    unsafe { bindings::wg_weak_nets_clear(net.as_raw()) };
}

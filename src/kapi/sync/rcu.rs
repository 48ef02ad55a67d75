// SPDX-License-Identifier: GPL-2.0-only

//! Reference-counted objects that RCU readers may find, and places that publish them.
//!
//! - [`RcuArc`]: like `kernel::sync::Arc`, but the object lives until a grace period after its
//!   last reference is gone.
//! - [`RcuCell`]: a place that publishes an [`RcuArc`] to RCU readers.
//! - [`RcuRef`]: what a reader gets: a borrow that lasts as long as its [`Guard`], and that can be
//!   upgraded to an [`RcuArc`] while others exist.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::{
    marker::PhantomData,
    mem::{offset_of, ManuallyDrop},
    ops::Deref,
    pin::Pin,
    ptr::{self, NonNull},
};

use kernel::{
    alloc::{AllocError, Flags},
    prelude::*,
    sync::Refcount,
    types::Opaque,
};

pub use kernel::sync::rcu::{read_lock, Guard};

use crate::{
    bindings,
    kapi::sync::atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

/// The number of objects, of all types, that are not freed yet; [`drain`] waits for zero.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Waits until all callbacks that were queued before the call have run. Sleeps.
pub fn barrier() {
    kernel::sync::rcu::rcu_barrier();
}

/// Waits until all RCU readers and all packet processing that began before the call have ended.
/// Sleeps; with RTNL held it is expedited.
pub fn synchronize_net() {
    // SAFETY: No requirements beyond the context.
    unsafe { bindings::synchronize_net() };
}

/// Waits until every object is freed and no callback of this module is left to run. Sleeps.
///
/// To be called before the module's code is freed. Freeing an object may drop others, which need a
/// grace period of their own, so this repeats while their number falls. Objects that remain have
/// leaked; that is logged.
pub fn drain() {
    const PATIENCE: usize = 100;
    let mut rounds = PATIENCE;
    let mut before = usize::MAX;
    while rounds > 0 {
        barrier();
        let live = LIVE.load(Acquire);
        if live == 0 {
            // The callback that freed the last object may still be about to return.
            barrier();
            return;
        }
        rounds = if live < before {
            PATIENCE
        } else {
            rounds.saturating_sub(1)
        };
        before = live;
    }
    pr_err!("{before} objects leaked\n");
}

/// The allocation of an [`RcuArc`].
#[pin_data]
#[repr(C)]
struct Inner<T> {
    /// Used once the last reference is gone.
    head: Opaque<bindings::callback_head>,
    refcount: Refcount,
    #[pin]
    data: T,
}

impl<T> Inner<T> {
    /// The allocation that `data` lies in.
    ///
    /// # Safety
    ///
    /// `data` must point to the `data` field of an `Inner<T>`.
    #[inline]
    unsafe fn from_data(data: *const T) -> NonNull<Self> {
        // SAFETY: By the requirement of this function the result is within the allocation.
        let inner = unsafe { data.byte_sub(offset_of!(Self, data)) };
        // SAFETY: The start of an allocation is not null.
        unsafe { NonNull::new_unchecked(inner.cast_mut().cast()) }
    }

    /// Frees the object, a grace period after its last reference was dropped.
    ///
    /// # Safety
    ///
    /// Called once, by RCU, with the `head` of an `Inner<T>` whose reference count is zero.
    unsafe extern "C" fn free(head: *mut bindings::callback_head) {
        // `head` is the first field.
        let inner: *mut Self = head.cast();
        // SAFETY: `inner` comes from `KBox::leak()`. Its count is zero and a grace period has
        // passed since, so nobody has a pointer to it any more.
        drop(unsafe { KBox::from_raw(inner) });
        LIVE.fetch_sub(1, AcqRel);
    }
}

/// A reference to an object that RCU readers may find.
///
/// When the last reference is dropped, the object is dropped and freed after a grace period, in
/// softirq context or in a kernel thread: its destructor must not sleep. References themselves may
/// be dropped in any context.
///
/// The object is pinned.
///
/// # Invariants
///
/// The pointer is to an [`Inner`] whose reference count is not zero, one of it ours.
#[repr(transparent)]
pub struct RcuArc<T> {
    inner: NonNull<Inner<T>>,
    _owns: PhantomData<Inner<T>>,
}

// SAFETY: Sending an `RcuArc` shares the object, which is why it is `Sync`; dropping the last one
// drops the object where RCU callbacks run, which is why it is `Send`.
unsafe impl<T: Send + Sync> Send for RcuArc<T> {}
// SAFETY: A shared `RcuArc` can be cloned, which shares the object and may drop it elsewhere: it is
// `Send` and `Sync`.
unsafe impl<T: Send + Sync> Sync for RcuArc<T> {}

// The object is pinned, the reference to it is not.
impl<T> Unpin for RcuArc<T> {}

impl<T: Send + Sync + 'static> RcuArc<T> {
    /// Allocates an object.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        let inner = KBox::new(
            Inner {
                head: Opaque::uninit(),
                refcount: Refcount::new(1),
                data: value,
            },
            flags,
        )?;
        Ok(Self::from_box(inner))
    }

    /// Allocates an object and initialises it in place.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or the error of `init`.
    pub fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self>
    where
        Error: From<E>,
    {
        let inner = KBox::try_pin_init(
            try_pin_init!(Inner {
                head: Opaque::uninit(),
                refcount: Refcount::new(1),
                data <- init,
            }? Error),
            flags,
        )?;
        // SAFETY: An `RcuArc` gives out no mutable reference, so the object stays pinned.
        Ok(Self::from_box(unsafe { Pin::into_inner_unchecked(inner) }))
    }

    fn from_box(inner: KBox<Inner<T>>) -> Self {
        LIVE.fetch_add(1, Relaxed);
        // INVARIANT: The count is one: ours.
        Self {
            inner: NonNull::from(KBox::leak(inner)),
            _owns: PhantomData,
        }
    }
}

impl<T> RcuArc<T> {
    /// Whether the two refer to the same object.
    #[inline]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.inner == other.inner
    }

    /// Converts the reference into a pointer to the object, for [`Self::from_raw`].
    #[inline]
    pub fn into_raw(self) -> *const T {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariant the pointer is to an `Inner<T>`.
        unsafe { &raw const (*this.inner.as_ptr()).data }
    }

    /// The pointer that [`Self::into_raw`] would return; the reference is kept.
    #[inline]
    pub fn as_ptr(&self) -> *const T {
        // SAFETY: By the type invariant the pointer is to an `Inner<T>`.
        unsafe { &raw const (*self.inner.as_ptr()).data }
    }

    /// Takes back a reference.
    ///
    /// # Safety
    ///
    /// `data` must come from [`Self::into_raw`]; each such pointer may be passed here once.
    #[inline]
    pub unsafe fn from_raw(data: *const T) -> Self {
        // INVARIANT: The reference that `into_raw()` gave up is ours now.
        Self {
            // SAFETY: `into_raw()` returns a pointer to the `data` field of an `Inner<T>`.
            inner: unsafe { Inner::from_data(data) },
            _owns: PhantomData,
        }
    }
}

impl<T> Clone for RcuArc<T> {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant the object is alive.
        unsafe { (*self.inner.as_ptr()).refcount.inc() };
        // INVARIANT: The new reference owns the increment.
        Self {
            inner: self.inner,
            _owns: PhantomData,
        }
    }
}

impl<T> Deref for RcuArc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariant the object is alive.
        unsafe { &(*self.inner.as_ptr()).data }
    }
}

impl<T> Drop for RcuArc<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant the object is alive.
        if unsafe { (*self.inner.as_ptr()).refcount.dec_and_test() } {
            // Never lazily: the removal of a device waits for all that refers to it.
            //
            // SAFETY: The count is zero now, so this happens once; `head` is valid until `free()`,
            // which is that of the object's type, is called. The constructors require that the
            // object may be dropped elsewhere and later (`Send`, `'static`).
            unsafe {
                bindings::wg_call_rcu_hurry(
                    (*self.inner.as_ptr()).head.get(),
                    Some(Inner::<T>::free),
                );
            }
        }
    }
}

/// A borrowed object: what a reader loads from an [`RcuCell`], for as long as its [`Guard`] lives.
///
/// # Invariants
///
/// The pointer is to an [`Inner`] that is not freed before the end of `'g`. Its reference count
/// may be zero.
pub struct RcuRef<'g, T> {
    inner: NonNull<Inner<T>>,
    _borrows: PhantomData<&'g Inner<T>>,
}

// SAFETY: An `RcuRef` is a shared reference that can become an `RcuArc`, which is `Send`.
unsafe impl<T: Send + Sync> Send for RcuRef<'_, T> {}
// SAFETY: An `RcuRef` is a shared reference that can become an `RcuArc`, which is `Sync`.
unsafe impl<T: Send + Sync> Sync for RcuRef<'_, T> {}

impl<'g, T> RcuRef<'g, T> {
    /// Borrows from a pointer that was kept in C.
    ///
    /// # Safety
    ///
    /// `data` must come from [`RcuArc::into_raw`] or [`RcuArc::as_ptr`], and the object must not be
    /// freed before the end of `'g`: either a reference is held until then, or the caller is an RCU
    /// reader until then that found the object.
    #[inline]
    pub unsafe fn from_raw(data: *const T) -> Self {
        // INVARIANT: The caller promises that the object is not freed before the end of `'g`.
        Self {
            // SAFETY: `data` comes from an `RcuArc`: it points to the `data` field of an
            // `Inner<T>`.
            inner: unsafe { Inner::from_data(data) },
            _borrows: PhantomData,
        }
    }

    /// The object, borrowed for as long as the guard, not just as `self`.
    #[inline]
    pub fn get(self) -> &'g T {
        // SAFETY: By the type invariant the object is not freed before the end of `'g`.
        unsafe { &(*self.inner.as_ptr()).data }
    }

    /// Takes a reference. `None` if the last one is gone already, and the object only waits for its
    /// readers.
    #[inline]
    pub fn upgrade(self) -> Option<RcuArc<T>> {
        // SAFETY: By the type invariant the object is not freed yet.
        let refcount = unsafe { &raw const (*self.inner.as_ptr()).refcount };
        // SAFETY: `Refcount` is a transparent wrapper of `refcount_t`, which is meant to be shared.
        let taken = unsafe { bindings::wg_refcount_inc_not_zero(refcount.cast_mut().cast()) };
        // INVARIANT: The count was not zero, and the increment is ours.
        taken.then(|| RcuArc {
            inner: self.inner,
            _owns: PhantomData,
        })
    }

    /// Whether both refer to the same object.
    #[inline]
    pub fn ptr_eq(self, other: &RcuArc<T>) -> bool {
        self.inner == other.inner
    }
}

impl<T> Clone for RcuRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RcuRef<'_, T> {}

impl<T> Deref for RcuRef<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.get()
    }
}

/// A pointer that publishes an object, or nothing, to RCU readers.
///
/// Each exchange is atomic; writers that need more than that must be serialised by the user.
///
/// # Invariants
///
/// The pointer is null or to an [`Inner`] one reference of which is ours. That reference is dropped
/// only after the pointer has been replaced.
pub struct RcuCell<T> {
    pointer: AtomicPtr<Inner<T>>,
    _owns: PhantomData<RcuArc<T>>,
}

// SAFETY: A cell owns an `RcuArc`, which is `Send`.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}
// SAFETY: A shared cell gives out references to its object and clones of its `RcuArc`, which is
// `Send` and `Sync`.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}

impl<T> RcuCell<T> {
    /// A cell without an object.
    pub const fn empty() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            pointer: AtomicPtr::new(ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// A cell that holds `value`.
    pub fn new(value: Option<RcuArc<T>>) -> Self {
        // INVARIANT: The reference of `value` is the cell's now.
        Self {
            pointer: AtomicPtr::new(Self::into_pointer(value)),
            _owns: PhantomData,
        }
    }

    /// Whether the cell was empty a moment ago.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.pointer.load(Relaxed).is_null()
    }

    /// The object, for as long as the RCU read lock is held.
    #[inline]
    pub fn load<'g>(&'g self, _guard: &'g Guard) -> Option<RcuRef<'g, T>> {
        // `rcu_dereference()`. Rust has no weaker order that suffices; on x86 it is a plain load.
        let inner = NonNull::new(self.pointer.load(Acquire))?;
        // INVARIANT: The cell had a reference while the read lock was held, so the object is not
        // freed before the read lock is released.
        Some(RcuRef {
            inner,
            _borrows: PhantomData,
        })
    }

    /// A reference to the object. Any context.
    #[inline]
    pub fn get(&self) -> Option<RcuArc<T>> {
        let guard = read_lock();
        // If the object has lost its last reference, another has taken its place in the cell.
        loop {
            if let Some(arc) = self.load(&guard)?.upgrade() {
                return Some(arc);
            }
            core::hint::spin_loop();
        }
    }

    /// Publishes `value` and returns the previous one. Readers may still use that: it lasts until
    /// they are done, even if the caller drops the reference.
    pub fn swap(&self, value: Option<RcuArc<T>>) -> Option<RcuArc<T>> {
        // INVARIANT: The cell owns the reference that it takes from `value`.
        let old = self.pointer.swap(Self::into_pointer(value), AcqRel);
        // INVARIANT: The cell's reference is the caller's now.
        NonNull::new(old).map(|inner| RcuArc {
            inner,
            _owns: PhantomData,
        })
    }

    fn into_pointer(value: Option<RcuArc<T>>) -> *mut Inner<T> {
        value.map_or(ptr::null_mut(), |arc| ManuallyDrop::new(arc).inner.as_ptr())
    }
}

impl<T> Default for RcuCell<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        drop(self.swap(None));
    }
}

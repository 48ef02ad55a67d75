// SPDX-License-Identifier: GPL-2.0

//! Reference-counted objects that RCU readers may find, and places that publish them.
//!
//! - [`RcuArc`]: like `kernel::sync::Arc`, but the object lives until a grace period after its
//!   last reference is gone.
//! - [`RcuCell`]: a place that publishes an [`RcuArc`] to RCU readers.
//! - [`RcuRef`]: what a reader gets: a borrow that lasts as long as its [`Guard`], and that can be
//!   made an [`RcuArc`] while there are others.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::{
    marker::PhantomData,
    mem::{offset_of, ManuallyDrop},
    ops::Deref,
    pin::Pin,
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use kernel::{
    alloc::{AllocError, Flags},
    prelude::*,
    sync::Refcount,
    types::Opaque,
};

pub use kernel::sync::rcu::{read_lock, Guard};

use crate::bindings;

/// Objects of all types that are not freed yet; [`drain`] waits for zero.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Waits until all callbacks that were queued before the call have run. Sleeps.
pub fn barrier() {
    kernel::sync::rcu::rcu_barrier();
}

/// Waits until all RCU readers and all packet processing that began before the call have ended.
/// Sleeps; with RTNL held it is expedited.
pub fn synchronize_net() {
    // SAFETY: Only the context matters.
    unsafe { bindings::synchronize_net() };
}

/// Waits until every object is freed and no callback of this module is left to run. Sleeps.
///
/// For the end of the module: its code must not go away before. Freeing an object may release
/// others, which need a grace period of their own, so this goes on for as long as their number
/// falls; if some remain even so, they have leaked, and a line in the log says so.
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

/// The allocation behind [`RcuArc`].
#[pin_data]
#[repr(C)]
struct Inner<T> {
    /// Used when the last reference is gone.
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
        // SAFETY: `inner` comes from `KBox::into_raw()`. Its count is zero and a grace period has
        // passed since, so that nobody can have a pointer to it any more.
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

// SAFETY: Sending an `RcuArc` shares the object, hence `Sync`; whoever drops the last one drops the
// object wherever RCU callbacks run, hence `Send`.
unsafe impl<T: Send + Sync> Send for RcuArc<T> {}
// SAFETY: As above: a shared `RcuArc` can be cloned.
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
    /// `ENOMEM`, or what `init` says.
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
        // INVARIANT: The count is still one, and that one is ours.
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

    /// A number that tells this object from all others that live.
    #[inline]
    pub fn as_ptr_id(&self) -> usize {
        self.inner.as_ptr().addr()
    }

    /// The number of references a moment ago.
    pub fn ref_count(&self) -> usize {
        // SAFETY: By the type invariant the object is alive.
        let refcount = unsafe { &(*self.inner.as_ptr()).refcount };
        let count = refcount.as_atomic().load(kernel::sync::atomic::Acquire);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// Gives up the reference for a pointer to the object, from which [`Self::from_raw`] makes it
    /// again.
    #[inline]
    pub fn into_raw(self) -> *const T {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariant the pointer is to an `Inner<T>`.
        unsafe { &raw const (*this.inner.as_ptr()).data }
    }

    /// The pointer that [`Self::into_raw`] would give, without giving up the reference.
    #[inline]
    pub fn as_ptr(&self) -> *const T {
        // SAFETY: By the type invariant the pointer is to an `Inner<T>`.
        unsafe { &raw const (*self.inner.as_ptr()).data }
    }

    /// Takes back a reference.
    ///
    /// # Safety
    ///
    /// `data` must come from [`Self::into_raw`], and each pointer from there be used here at most
    /// once.
    #[inline]
    pub unsafe fn from_raw(data: *const T) -> Self {
        // INVARIANT: The reference that `into_raw()` gave up is ours now.
        Self {
            // SAFETY: By the requirement of this function.
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
            // SAFETY: The count is zero now, so that this happens once, and `head` is valid until
            // `free()` is called, which fits the type of the object. The constructors have seen
            // to it that the object may be dropped elsewhere and later (`Send`, `'static`).
            unsafe {
                bindings::call_rcu((*self.inner.as_ptr()).head.get(), Some(Inner::<T>::free));
            }
        }
    }
}

/// A borrowed object: what a reader gets out of an [`RcuCell`] for as long as its [`Guard`] lives.
///
/// # Invariants
///
/// The pointer is to an [`Inner`] that is not freed before the end of `'g`. Its reference count
/// may be zero.
pub struct RcuRef<'g, T> {
    inner: NonNull<Inner<T>>,
    _borrows: PhantomData<&'g Inner<T>>,
}

// SAFETY: An `RcuRef` is a shared reference that can become an `RcuArc`.
unsafe impl<T: Send + Sync> Send for RcuRef<'_, T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuRef<'_, T> {}

impl<'g, T> RcuRef<'g, T> {
    /// Borrows from a pointer that C code kept.
    ///
    /// # Safety
    ///
    /// `data` must come from [`RcuArc::into_raw`] or [`RcuArc::as_ptr`], and the object must not
    /// be freed before the end of `'g`: somebody holds a reference, or RCU readers may still find
    /// it and the caller is one until then.
    #[inline]
    pub unsafe fn from_raw(data: *const T) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            // SAFETY: By the requirements of this function.
            inner: unsafe { Inner::from_data(data) },
            _borrows: PhantomData,
        }
    }

    /// The object, borrowed for as long as the guard rather than as `self`.
    #[inline]
    pub fn get(self) -> &'g T {
        // SAFETY: By the type invariant the object is not freed before the end of `'g`.
        unsafe { &(*self.inner.as_ptr()).data }
    }

    /// Takes a reference. `None` if the last one is gone already, so that the object only waits
    /// for its readers.
    #[inline]
    pub fn upgrade(self) -> Option<RcuArc<T>> {
        // SAFETY: By the type invariant the object is not freed yet.
        let refcount = unsafe { &raw const (*self.inner.as_ptr()).refcount };
        // SAFETY: `Refcount` is a transparent wrapper of `refcount_t`, and made to be shared.
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

    /// As [`RcuArc::as_ptr_id`].
    #[inline]
    pub fn as_ptr_id(self) -> usize {
        self.inner.as_ptr().addr()
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

/// One place that publishes an object to RCU readers, or nothing.
///
/// Readers may load at any time. Writers may race too, in the sense that each exchange is atomic;
/// whoever needs more than that serialises them.
///
/// # Invariants
///
/// The pointer is null or to an [`Inner`] one reference of which is ours. That reference is dropped
/// only after the pointer has been replaced.
pub struct RcuCell<T> {
    pointer: AtomicPtr<Inner<T>>,
    _owns: PhantomData<RcuArc<T>>,
}

// SAFETY: A cell owns an `RcuArc` and gives clones of it to whoever shares it.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}

impl<T> RcuCell<T> {
    /// A place without an object.
    pub const fn empty() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            pointer: AtomicPtr::new(ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// A place that holds `value`.
    pub fn new(value: Option<RcuArc<T>>) -> Self {
        // INVARIANT: The reference of `value` is the cell's now.
        Self {
            pointer: AtomicPtr::new(Self::into_pointer(value)),
            _owns: PhantomData,
        }
    }

    /// Whether there was nothing a moment ago.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.pointer.load(Relaxed).is_null()
    }

    /// What is there, for as long as the RCU read lock is held.
    #[inline]
    pub fn load<'g>(&'g self, _guard: &'g Guard) -> Option<RcuRef<'g, T>> {
        // `rcu_dereference()`; free on x86, and Rust has no weaker order that suffices.
        let inner = NonNull::new(self.pointer.load(Acquire))?;
        // INVARIANT: The cell had a reference when the read lock was held already, so the object
        // is not freed before the read lock is released.
        Some(RcuRef {
            inner,
            _borrows: PhantomData,
        })
    }

    /// A reference to what is there. Any context.
    #[inline]
    pub fn get(&self) -> Option<RcuArc<T>> {
        let guard = read_lock();
        // If the object has lost its last reference, the cell has been given another since.
        loop {
            if let Some(arc) = self.load(&guard)?.upgrade() {
                return Some(arc);
            }
            core::hint::spin_loop();
        }
    }

    /// Publishes `value` and gives what was there. Readers may still use that: it lasts until
    /// they are done, whatever the caller does with the reference.
    pub fn swap(&self, value: Option<RcuArc<T>>) -> Option<RcuArc<T>> {
        // INVARIANT: The cell owns the reference that it takes from `value`.
        let old = self.pointer.swap(Self::into_pointer(value), AcqRel);
        // INVARIANT: The reference that the cell had is the caller's now.
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

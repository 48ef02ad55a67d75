// SPDX-License-Identifier: GPL-2.0

//! Work queues, and work items that belong to objects in an [`RcuArc`].
//!
//! `kernel::workqueue` can enqueue, but neither make queues of its own nor flush or cancel; and its
//! items want an `Arc`. Here an item takes a reference to its object when it is queued and gives it
//! to [`WorkItem::run`].
//!
//! Unlike there, [`HasWork`] is a safe trait: instead of trusting an offset, queueing checks that
//! the item lies within the object. With [`impl_has_work!`](crate::impl_has_work) the compiler
//! sees that it does and removes the check.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{marker::PhantomData, ops::BitOr, ptr::NonNull, sync::atomic::AtomicPtr};

use kernel::{prelude::*, sync::LockClassKey, types::Opaque};

use crate::{
    bindings,
    kapi::{sync::rcu::RcuArc, within},
};

/// Creates a [`Work`](crate::kapi::workqueue::Work) initialiser with a new lock class.
#[macro_export]
macro_rules! new_work {
    ($($name:literal)?) => {
        $crate::kapi::workqueue::Work::new(
            ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}

/// Says which field of an object is a work item of it:
///
/// ```ignore
/// impl_has_work! {
///     impl HasWork<Self, 1> for Peer { self.send_work }
/// }
/// ```
#[macro_export]
macro_rules! impl_has_work {
    ($(impl HasWork<$work:ty $(, $id:tt)?> for $self:ty { self.$($field:ident).+ })*) => {$(
        impl $crate::kapi::workqueue::HasWork<$($id)?> for $self {
            #[inline(always)]
            fn work(&self) -> &$crate::kapi::workqueue::Work<$work $(, $id)?> {
                &self.$($field).+
            }
        }
    )*};
}

/// What a [`Workqueue`] is like; combine with `|`. The meaning is that of the C constants.
#[derive(Clone, Copy)]
pub struct WqFlags(u32);

impl WqFlags {
    /// Items run long on their CPU: other per-CPU items do not wait for them.
    pub const CPU_INTENSIVE: Self = Self(bindings::wq_flags_WQ_CPU_INTENSIVE);
    /// Items stop during suspend.
    pub const FREEZABLE: Self = Self(bindings::wq_flags_WQ_FREEZABLE);
    /// Progress is guaranteed when memory is short.
    pub const MEM_RECLAIM: Self = Self(bindings::wq_flags_WQ_MEM_RECLAIM);
    /// Items run on the CPU that they were queued on. Say this or [`Self::UNBOUND`].
    pub const PERCPU: Self = Self(bindings::wq_flags_WQ_PERCPU);
    /// Items run wherever the scheduler likes.
    pub const UNBOUND: Self = Self(bindings::wq_flags_WQ_UNBOUND);
}

impl BitOr for WqFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A work queue of our own.
///
/// Dropping it waits for the items in it and those that they queue, and sleeps: it must not be
/// owned by an object that is dropped in atomic context, such as that of an [`RcuArc`].
///
/// # Invariants
///
/// The pointer is to a valid `workqueue_struct` that we own.
pub struct Workqueue(NonNull<bindings::workqueue_struct>);

// SAFETY: Work queues may be used and destroyed by any thread.
unsafe impl Send for Workqueue {}
// SAFETY: All operations on a work queue are thread-safe.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    /// Makes a work queue. `name` is what `ps` shows of it; up to 31 bytes count. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn alloc(name: &CStr, flags: WqFlags) -> Result<Self> {
        // SAFETY: The format asks for one string, which is copied. 0 stands for the default limit
        // of concurrent items.
        let wq = unsafe {
            bindings::alloc_workqueue_noprof(c"%s".as_char_ptr(), flags.0, 0, name.as_char_ptr())
        };
        // INVARIANT: The queue is new, and ours.
        NonNull::new(wq).map(Self).ok_or(ENOMEM)
    }

    /// Queues an item on this CPU, or anywhere if the queue is [`WqFlags::UNBOUND`]. Any context.
    ///
    /// False if it is queued already, here or in another queue; that item has not begun to run
    /// then, and sees everything that the caller did before.
    #[inline]
    pub fn queue<T: WorkItem<ID> + HasWork<ID>, const ID: u64>(&self, object: &RcuArc<T>) -> bool {
        self.queue_on::<T, ID>(u32::MAX, object)
    }

    /// As [`Self::queue`], on CPU number `cpu`; if there is no such CPU, or it is not online, on
    /// this one.
    pub fn queue_on<T: WorkItem<ID> + HasWork<ID>, const ID: u64>(
        &self,
        cpu: u32,
        object: &RcuArc<T>,
    ) -> bool {
        let Some(work) = Work::of(object) else {
            return false;
        };
        // Taken before it is queued: it may run before we are back here.
        let owned = object.clone().into_raw();
        // SAFETY: The queue is valid by the type invariant. The item was initialised by
        // `Work::new()`, and the reference keeps it in place until it runs or is cancelled.
        let queued = unsafe { bindings::wg_queue_work_on(cpu, self.0.as_ptr(), work) };
        if !queued {
            // SAFETY: The pointer comes from `into_raw()`; nobody else took it.
            drop(unsafe { RcuArc::from_raw(owned) });
        }
        queued
    }

    /// Waits for all items that were queued before the call. Sleeps.
    pub fn flush(&self) {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) };
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: The queue is valid and ours by the type invariant. Items hold references to their
        // objects until they have run, and this waits for them.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// What an item does.
pub trait WorkItem<const ID: u64 = 0>: Send + Sync + Sized + 'static {
    /// Runs the item, in process context. It may be queued again meanwhile. `this` is the reference
    /// that was taken when it was queued.
    fn run(this: RcuArc<Self>);
}

/// An object with a [`Work`] field. Implemented by [`impl_has_work!`](crate::impl_has_work).
pub trait HasWork<const ID: u64 = 0>: Sized {
    /// The field. It must be part of the object itself; an item elsewhere is never queued.
    fn work(&self) -> &Work<Self, ID>;
}

/// A work item, as a pinned field of the object that it belongs to. [`new_work!`](crate::new_work)
/// initialises it.
///
/// # Invariants
///
/// While the item is queued, `owner` is the pointer of the reference that it holds.
#[pin_data]
#[repr(C)]
pub struct Work<T, const ID: u64 = 0> {
    #[pin]
    work: Opaque<bindings::work_struct>,
    owner: AtomicPtr<T>,
    _object: PhantomData<fn(RcuArc<T>)>,
}

// SAFETY: Work items may be used by any thread, and there is no `T` in one.
unsafe impl<T, const ID: u64> Send for Work<T, ID> {}
// SAFETY: As above.
unsafe impl<T, const ID: u64> Sync for Work<T, ID> {}

impl<T: WorkItem<ID> + HasWork<ID>, const ID: u64> Work<T, ID> {
    /// An idle item. Use [`new_work!`](crate::new_work).
    pub fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, `name` and `key` are static; and `run()` is
                // only called for items that were queued by us, hence lie in a `Work<T, ID>`.
                unsafe {
                    bindings::wg_init_work(
                        slot,
                        Some(Self::run),
                        name.as_char_ptr(),
                        key.as_ptr().cast(),
                    )
                }
            }),
            owner: AtomicPtr::new(core::ptr::null_mut()),
            _object: PhantomData,
        })
    }

    /// The C item of `object`, with its owner set; `None` if it is not part of the object.
    #[inline]
    fn of(object: &RcuArc<T>) -> Option<*mut bindings::work_struct> {
        let item = object.work();
        if !within(item, &**object) {
            return None;
        }
        // The item never changes objects, so that this writes the same again each time; queueing
        // orders it before the read in `run()`.
        item.owner.store(
            object.as_ptr().cast_mut(),
            core::sync::atomic::Ordering::Relaxed,
        );
        Some(item.work.get())
    }

    /// # Safety
    ///
    /// Called by the work queue for an item that `queue_on()` has queued.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        let item: *const Self = work.cast();
        // SAFETY: `work` is the first field of an item, which is valid as it holds a reference to
        // the object around it.
        let owner = unsafe { (*item).owner.load(core::sync::atomic::Ordering::Relaxed) };
        // SAFETY: By the type invariant this is the reference that the item holds, and no longer
        // does.
        T::run(unsafe { RcuArc::from_raw(owner) });
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Work queues of our own, and work items of objects in an [`RcuArc`].
//!
//! Items and their traits are those of [`kernel::workqueue`]. What it lacks is here: making a
//! queue, queueing on a certain CPU, cancelling, and items whose pointer is an [`RcuArc`].
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{
    ops::{BitOr, Deref},
    ptr::NonNull,
};

use kernel::{
    prelude::*,
    workqueue::{Queue, RawWorkItem, WorkItemPointer},
};

use crate::{bindings, kapi::sync::rcu::RcuArc};

pub use kernel::workqueue::{impl_has_work, new_work, HasWork, Work, WorkItem};

/// Flags of a [`Workqueue`], combined with `|`: the C constants of these names.
#[derive(Clone, Copy)]
pub struct WqFlags(u32);

impl WqFlags {
    /// Items may run long without delaying other per-CPU items of their CPU.
    pub const CPU_INTENSIVE: Self = Self(bindings::wq_flags_WQ_CPU_INTENSIVE);
    /// Items do not run during suspend.
    pub const FREEZABLE: Self = Self(bindings::wq_flags_WQ_FREEZABLE);
    /// Items make progress under memory pressure.
    pub const MEM_RECLAIM: Self = Self(bindings::wq_flags_WQ_MEM_RECLAIM);
    /// Items run on the CPU that they were queued on. Either this or [`Self::UNBOUND`] is required.
    pub const PERCPU: Self = Self(bindings::wq_flags_WQ_PERCPU);
    /// Items run on any CPU.
    pub const UNBOUND: Self = Self(bindings::wq_flags_WQ_UNBOUND);
}

impl BitOr for WqFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// An owned work queue.
///
/// Dropping it waits for its items and those that they queue. That sleeps: no object that is
/// dropped in atomic context, such as that of an [`RcuArc`], may own a queue.
///
/// # Invariants
///
/// The pointer is to a valid `workqueue_struct` that this object owns.
pub struct Workqueue(NonNull<bindings::workqueue_struct>);

// SAFETY: Work queues may be used and destroyed by any thread.
unsafe impl Send for Workqueue {}
// SAFETY: All operations on a work queue are thread-safe.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    /// Makes a work queue. Of `name`, which `ps` shows, up to 31 bytes count. At most `max_active`
    /// items run at once, on each CPU if the queue is a per-CPU one; 0 stands for the kernel's
    /// default. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn alloc(name: &CStr, flags: WqFlags, max_active: u16) -> Result<Self> {
        // SAFETY: The format takes one string, which is copied.
        let wq = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                flags.0,
                max_active.into(),
                name.as_char_ptr(),
            )
        };
        // INVARIANT: The queue is new, and ours.
        NonNull::new(wq).map(Self).ok_or(ENOMEM)
    }

    /// As [`Queue::enqueue`], on CPU number `cpu`; if there is no such CPU, or it is not online, on
    /// this one. Any context.
    pub fn enqueue_on<W, const ID: u64>(&self, cpu: u32, item: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: The queue is valid by the type invariant, and `__enqueue` keeps the item valid
        // until it runs. The C function fails only if the item is queued already; `W` is `Send`
        // and has no lifetime.
        unsafe {
            item.__enqueue(|work| bindings::wg_queue_work_on(cpu, self.0.as_ptr(), work.cast()))
        }
    }
}

impl Deref for Workqueue {
    type Target = Queue;

    #[inline]
    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariant the queue is valid for as long as `self`.
        unsafe { Queue::from_raw(self.0.as_ptr().cast()) }
    }
}

/// Takes an item off the queue that it is on. True if it was on one, and will not run now; false if
/// it was not, but it may be running. Any context.
pub fn cancel<T, const ID: u64>(object: &RcuArc<T>) -> bool
where
    T: WorkItem<ID, Pointer = RcuArc<T>> + HasWork<T, ID>,
{
    // SAFETY: `object` keeps the object valid.
    let work = unsafe { Work::raw_get(T::raw_get_work(object.as_ptr().cast_mut())) };
    // SAFETY: The item was initialised with the object, and `object` keeps it in place.
    let was_queued = unsafe { bindings::cancel_work(work.cast()) };
    if was_queued {
        // SAFETY: The queue owned a reference to the object of a queued item; as the item does not
        // run, nobody else takes that back.
        drop(unsafe { RcuArc::from_raw(object.as_ptr()) });
    }
    was_queued
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the queue is valid and ours. Items hold references to
        // their objects until they run, and this waits for them.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

// SAFETY: `__enqueue` gives out the item in a `Work<T, ID>`, which `Work::new` has initialised with
// the `run` of `T::Pointer`: this one.
unsafe impl<T, const ID: u64> WorkItemPointer<ID> for RcuArc<T>
where
    T: WorkItem<ID, Pointer = Self> + HasWork<T, ID>,
{
    unsafe extern "C" fn run(work: *mut kernel::bindings::work_struct) {
        // CAST: `Work` is a transparent wrapper.
        let work: *mut Work<T, ID> = work.cast();
        // SAFETY: By the requirements of this function `work` comes from `__enqueue`, which had it
        // from `raw_get_work()` of a `T`.
        let object = unsafe { T::work_container_of(work) };
        // SAFETY: The pointer comes from `into_raw()` in `__enqueue`. The queue had the reference,
        // and gives it back by this call.
        T::run(unsafe { Self::from_raw(object) });
    }
}

// SAFETY: The item is part of an object that the reference keeps valid. The queue owns that until
// the item runs, unless it was queued already.
unsafe impl<T, const ID: u64> RawWorkItem<ID> for RcuArc<T>
where
    T: WorkItem<ID, Pointer = Self> + HasWork<T, ID>,
{
    /// False if the item is queued already, here or in another queue. It has not begun to run then,
    /// and will see everything that the caller did before.
    type EnqueueOutput = bool;

    #[inline]
    unsafe fn __enqueue<F>(self, queue_work_on: F) -> Self::EnqueueOutput
    where
        F: FnOnce(*mut kernel::bindings::work_struct) -> bool,
    {
        let object = self.into_raw().cast_mut();
        // SAFETY: The reference that was given up keeps the object valid.
        let work = unsafe { Work::raw_get(T::raw_get_work(object)) };
        let queued = queue_work_on(work);
        if !queued {
            // SAFETY: The pointer comes from `into_raw()`, and the queue has not taken it.
            drop(unsafe { Self::from_raw(object) });
        }
        queued
    }
}

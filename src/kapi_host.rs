// SPDX-License-Identifier: GPL-2.0-only

//! `std` stand-ins for the few types of [`crate::kapi`] that `tables/` needs on the host.
//!
//! Names and signatures are those of the kernel side. They are thread-safe and fast enough for
//! tests. With `--cfg loom` the synchronisation primitives are loom's; memory is not reclaimed
//! then.

#![allow(unsafe_code)]
// Some items are used only by tests, others only by loom models or the tables.
#![allow(dead_code)]

/// Allocation: every function that can fail in the kernel can be made to fail here.
pub mod alloc {
    use core::{
        cell::Cell,
        ops::{Deref, DerefMut},
        pin::Pin,
    };

    /// Allocation flags; ignored here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags(());

    /// For process context.
    pub const GFP_KERNEL: Flags = Flags(());
    /// For any context.
    pub const GFP_ATOMIC: Flags = Flags(());

    /// Out of memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AllocError;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Makes the allocations of this thread fail after the next `n`; [`None`] ends that.
    pub fn fail_after(n: Option<usize>) {
        LEFT.set(n);
    }

    pub(super) fn allocate(_flags: Flags) -> Result<(), AllocError> {
        match LEFT.get() {
            Some(0) => Err(AllocError),
            left => {
                LEFT.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }

    /// A vector that grows only through fallible calls.
    pub struct KVVec<T>(Vec<T>);

    impl<T> KVVec<T> {
        /// An empty vector with room for `capacity` elements.
        pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
            allocate(flags)?;
            Ok(Self(Vec::with_capacity(capacity)))
        }

        /// Appends an element if there is room.
        pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
            if self.0.len() == self.0.capacity() {
                return Err(value);
            }
            self.0.push(value);
            Ok(())
        }
    }

    impl<T> Deref for KVVec<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }

    impl<T> DerefMut for KVVec<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.0
        }
    }

    /// A box.
    pub struct KBox<T>(Box<T>);

    /// Allocates and initialises in one step; on the host an initialiser is a value.
    pub trait InPlaceInit<T>: Sized {
        /// Allocates a pinned box.
        fn pin_init(value: T, flags: Flags) -> Result<Pin<Self>, AllocError>;
    }

    impl<T> InPlaceInit<T> for KBox<T> {
        fn pin_init(value: T, flags: Flags) -> Result<Pin<Self>, AllocError> {
            allocate(flags)?;
            let boxed = Self(Box::new(value));
            // SAFETY: The box owns its value, and gives out no mutable reference to it.
            Ok(unsafe { Pin::new_unchecked(boxed) })
        }
    }

    impl<T> Deref for KBox<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}

/// An ordered map whose nodes are allocated before they are inserted.
pub mod rbtree {
    use std::collections::{btree_map::RangeMut, BTreeMap};

    use super::alloc::{allocate, AllocError, Flags};

    /// The map.
    pub struct RBTree<K, V>(BTreeMap<K, V>);

    /// An entry that is in no map.
    pub struct RBTreeNode<K, V>(K, V);

    /// Memory for an entry.
    pub struct RBTreeNodeReservation(());

    /// A position in a map.
    pub struct Cursor<'a, K, V>(&'a K, &'a V);

    /// A position in a map and all that follow.
    pub struct CursorMut<'a, K, V>((&'a K, &'a mut V), RangeMut<'a, K, V>);

    impl<K, V> RBTreeNode<K, V> {
        /// Allocates an entry.
        pub fn new(key: K, value: V, flags: Flags) -> Result<Self, AllocError> {
            allocate(flags)?;
            Ok(Self(key, value))
        }

        /// Drops the content of an entry and keeps its memory.
        pub fn into_reservation(self) -> RBTreeNodeReservation {
            RBTreeNodeReservation(())
        }
    }

    impl RBTreeNodeReservation {
        /// Makes an entry.
        pub fn into_node<K, V>(self, key: K, value: V) -> RBTreeNode<K, V> {
            RBTreeNode(key, value)
        }
    }

    impl<K, V> Cursor<'_, K, V> {
        /// The entry.
        pub fn current(&self) -> (&K, &V) {
            (self.0, self.1)
        }
    }

    impl<K, V> CursorMut<'_, K, V> {
        /// The entry.
        pub fn current(&self) -> (&K, &V) {
            let (key, value) = &self.0;
            (key, value)
        }

        /// Moves to the next entry.
        pub fn move_next(mut self) -> Option<Self> {
            let next = self.1.next()?;
            Some(Self(next, self.1))
        }
    }

    impl<K: Ord, V> RBTree<K, V> {
        /// An empty map.
        pub fn new() -> Self {
            Self(BTreeMap::new())
        }

        /// Inserts an entry and returns the one that it replaces, if any.
        pub fn insert(&mut self, node: RBTreeNode<K, V>) -> Option<RBTreeNode<K, V>> {
            let RBTreeNode(key, value) = node;
            let old = self.0.remove_entry(&key);
            self.0.insert(key, value);
            old.map(|(key, value)| RBTreeNode(key, value))
        }

        /// The value of a key.
        pub fn get(&self, key: &K) -> Option<&V> {
            self.0.get(key)
        }

        /// The value of a key.
        pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
            self.0.get_mut(key)
        }

        /// Removes the entry of a key and returns its value.
        pub fn remove(&mut self, key: &K) -> Option<V> {
            self.0.remove(key)
        }

        /// Removes the entry of a key and returns it.
        pub fn remove_node(&mut self, key: &K) -> Option<RBTreeNode<K, V>> {
            let (key, value) = self.0.remove_entry(key)?;
            Some(RBTreeNode(key, value))
        }

        /// The first entry whose key is `key` or greater.
        pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
            let (key, value) = self.0.range(key..).next()?;
            Some(Cursor(key, value))
        }

        /// The same, to iterate from there.
        pub fn cursor_lower_bound_mut(&mut self, key: &K) -> Option<CursorMut<'_, K, V>> {
            let mut rest = self.0.range_mut(key..);
            Some(CursorMut(rest.next()?, rest))
        }
    }

    impl<K: Ord, V> Default for RBTree<K, V> {
        fn default() -> Self {
            Self::new()
        }
    }
}

/// Keyed hashes.
pub mod siphash {
    use core::hash::Hasher;
    use std::hash::DefaultHasher;

    use super::sync::plain_atomic::{AtomicU64, Ordering::Relaxed};

    /// A key. Not random here, so that tests are repeatable.
    pub struct SipKey(u64);

    impl SipKey {
        /// A new key.
        pub fn random() -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            Self(NEXT.fetch_add(1, Relaxed))
        }

        /// The hash of `data`.
        pub fn hash(&self, data: &[u8]) -> u64 {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(self.0);
            hasher.write(data);
            hasher.finish()
        }
    }
}

#[path = "kapi/sync/locked_by.rs"]
pub mod locked_by;

/// Synchronisation.
pub mod sync {
    pub use super::locked_by;

    #[cfg(not(loom))]
    pub use core::sync::atomic;
    pub(super) use core::sync::atomic as plain_atomic;
    #[cfg(loom)]
    pub use loom::sync::atomic;
    // The loom models do not check reference counting.
    pub use std::sync::Arc;

    /// A lock.
    pub mod spinlock_bh {
        #[cfg(loom)]
        use loom::sync::{Mutex, MutexGuard};
        #[cfg(not(loom))]
        use std::sync::{Mutex, MutexGuard};

        /// A mutex on the host.
        pub struct SpinLockBh<T>(Mutex<T>);

        impl<T> SpinLockBh<T> {
            /// Use `new_spinlock_bh!`.
            pub fn new(value: T) -> Self {
                Self(Mutex::new(value))
            }

            /// Acquires the lock. Poisoning is ignored.
            pub fn lock(&self) -> MutexGuard<'_, T> {
                self.0
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
            }
        }

        /// Makes a lock.
        #[macro_export]
        macro_rules! new_spinlock_bh {
            ($value:expr) => {
                $crate::kapi::sync::spinlock_bh::SpinLockBh::new($value)
            };
        }
    }

    /// RCU: an object is freed when all readers that may have found it are done.
    pub mod rcu {
        use core::{
            cell::Cell,
            marker::PhantomData,
            ops::Deref,
            ptr::{self, NonNull},
        };
        use std::{collections::BTreeMap, collections::VecDeque, sync::Mutex};

        use super::atomic::{
            fence, AtomicPtr,
            Ordering::{AcqRel, Acquire, Relaxed},
        };
        // The loom models do not check reference counting.
        use super::plain_atomic::AtomicUsize;
        use crate::kapi::alloc::{allocate, AllocError, Flags};

        /// The state of this RCU: its clock advances with each deferred drop.
        struct Rcu {
            now: u64,
            /// The number of active readers by start time.
            readers: BTreeMap<u64, usize>,
            /// What to run once all active readers started after this time.
            deferred: VecDeque<(u64, Box<dyn FnOnce() + Send>)>,
            /// The number of threads that run deferred work.
            running: usize,
        }

        static RCU: Mutex<Rcu> = Mutex::new(Rcu {
            now: 0,
            readers: BTreeMap::new(),
            deferred: VecDeque::new(),
            running: 0,
        });

        thread_local! {
            /// This thread already runs deferred work: work deferred meanwhile only gets queued.
            static RUNNING: Cell<bool> = const { Cell::new(false) };
        }

        impl Rcu {
            fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
                f(&mut RCU.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
            }

            fn ready(&mut self) -> Option<Box<dyn FnOnce() + Send>> {
                let &(when, _) = self.deferred.front()?;
                match self.readers.first_key_value() {
                    Some((&began, _)) if began <= when => None,
                    _ => {
                        self.running += 1;
                        self.deferred.pop_front().map(|(_, f)| f)
                    }
                }
            }

            fn run() {
                if cfg!(loom) || RUNNING.replace(true) {
                    return;
                }
                while let Some(f) = Self::with(Self::ready) {
                    f();
                    Self::with(|rcu| rcu.running -= 1);
                }
                RUNNING.set(false);
            }
        }

        /// Waits until everything that has been deferred so far is done.
        pub fn barrier() {
            let now = Rcu::with(|rcu| rcu.now);
            let done = |rcu: &mut Rcu| {
                rcu.running == 0 && rcu.deferred.front().is_none_or(|&(when, _)| when >= now)
            };
            while !Rcu::with(done) {
                Rcu::run();
                std::thread::yield_now();
            }
        }

        /// A read-side critical section.
        pub struct Guard {
            began: u64,
            not_send: PhantomData<*const ()>,
        }

        /// Enters a read-side critical section.
        pub fn read_lock() -> Guard {
            let began = if cfg!(loom) {
                0
            } else {
                Rcu::with(|rcu| {
                    *rcu.readers.entry(rcu.now).or_default() += 1;
                    rcu.now
                })
            };
            Guard {
                began,
                not_send: PhantomData,
            }
        }

        impl Drop for Guard {
            fn drop(&mut self) {
                if cfg!(loom) {
                    return;
                }
                Rcu::with(|rcu| {
                    let count = rcu.readers.get_mut(&self.began).expect("counted");
                    *count -= 1;
                    if *count == 0 {
                        rcu.readers.remove(&self.began);
                    }
                });
                Rcu::run();
            }
        }

        struct Inner<T> {
            count: AtomicUsize,
            value: T,
        }

        /// A shared object that is freed one grace period after its last reference is dropped.
        pub struct RcuArc<T: Send + Sync + 'static>(NonNull<Inner<T>>);

        // SAFETY: As for `std::sync::Arc`.
        unsafe impl<T: Send + Sync + 'static> Send for RcuArc<T> {}
        // SAFETY: As for `std::sync::Arc`.
        unsafe impl<T: Send + Sync + 'static> Sync for RcuArc<T> {}

        impl<T: Send + Sync + 'static> RcuArc<T> {
            /// Allocates an object.
            pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
                allocate(flags)?;
                let count = AtomicUsize::new(1);
                Ok(Self(NonNull::from(Box::leak(Box::new(Inner {
                    count,
                    value,
                })))))
            }

            /// Whether the two are the same object.
            pub fn ptr_eq(this: &Self, other: &Self) -> bool {
                this.0 == other.0
            }

            /// The number of references, which may be outdated at once.
            pub fn ref_count(&self) -> usize {
                self.inner().count.load(Acquire)
            }

            fn inner(&self) -> &Inner<T> {
                // SAFETY: We hold a reference.
                unsafe { self.0.as_ref() }
            }
        }

        impl<T: Send + Sync + 'static> Clone for RcuArc<T> {
            fn clone(&self) -> Self {
                self.inner().count.fetch_add(1, Relaxed);
                Self(self.0)
            }
        }

        impl<T: Send + Sync + 'static> Deref for RcuArc<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.inner().value
            }
        }

        impl<T: Send + Sync + 'static> Drop for RcuArc<T> {
            fn drop(&mut self) {
                if self.inner().count.fetch_sub(1, AcqRel) != 1 || cfg!(loom) {
                    return;
                }
                struct Last<T>(NonNull<Inner<T>>);
                // SAFETY: `T` is `Send`, and this is all that is left of its references.
                unsafe impl<T: Send> Send for Last<T> {}
                impl<T> Last<T> {
                    fn free(self) {
                        // SAFETY: It came from a box, the count is zero and no reader is left.
                        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
                    }
                }
                let last = Last(self.0);
                Rcu::with(|rcu| {
                    rcu.deferred.push_back((rcu.now, Box::new(|| last.free())));
                    rcu.now += 1;
                });
                Rcu::run();
            }
        }

        /// An object that a reader found: valid as long as its [`Guard`].
        pub struct RcuRef<'g, T: Send + Sync + 'static>(NonNull<Inner<T>>, PhantomData<&'g T>);

        impl<T: Send + Sync + 'static> Clone for RcuRef<'_, T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T: Send + Sync + 'static> Copy for RcuRef<'_, T> {}

        impl<'g, T: Send + Sync + 'static> RcuRef<'g, T> {
            /// The object, for as long as the guard lives.
            pub fn get(self) -> &'g T {
                // SAFETY: The reader keeps it from being freed.
                unsafe { &(*self.0.as_ptr()).value }
            }

            /// Takes a reference unless the last one is gone.
            pub fn upgrade(self) -> Option<RcuArc<T>> {
                // SAFETY: The reader keeps it from being freed.
                let count = unsafe { &(*self.0.as_ptr()).count };
                count
                    .fetch_update(AcqRel, Acquire, |n| (n != 0).then(|| n + 1))
                    .ok()
                    .map(|_| RcuArc(self.0))
            }

            /// Whether the two are the same object.
            pub fn ptr_eq(self, other: &RcuArc<T>) -> bool {
                self.0 == other.0
            }
        }

        impl<T: Send + Sync + 'static> Deref for RcuRef<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                self.get()
            }
        }

        /// A pointer to an object, or none, that readers follow.
        pub struct RcuCell<T: Send + Sync + 'static>(AtomicPtr<Inner<T>>, PhantomData<RcuArc<T>>);

        impl<T: Send + Sync + 'static> RcuCell<T> {
            /// An empty cell.
            #[cfg(not(loom))]
            pub const fn empty() -> Self {
                Self(AtomicPtr::new(ptr::null_mut()), PhantomData)
            }

            /// An empty cell.
            #[cfg(loom)]
            pub fn empty() -> Self {
                Self(AtomicPtr::new(ptr::null_mut()), PhantomData)
            }

            /// A cell with this object.
            pub fn new(value: Option<RcuArc<T>>) -> Self {
                let cell = Self::empty();
                cell.swap(value);
                cell
            }

            /// The current object.
            pub fn load<'g>(&'g self, _guard: &'g Guard) -> Option<RcuRef<'g, T>> {
                let found = NonNull::new(self.0.load(Relaxed))?;
                // An acquire only for non-null pointers, as the kernel's address dependency gives.
                fence(Acquire);
                Some(RcuRef(found, PhantomData))
            }

            /// A reference to the current object.
            pub fn get(&self) -> Option<RcuArc<T>> {
                let guard = read_lock();
                loop {
                    if let Some(found) = self.load(&guard)?.upgrade() {
                        return Some(found);
                    }
                }
            }

            /// Replaces the object and returns the old one.
            pub fn swap(&self, value: Option<RcuArc<T>>) -> Option<RcuArc<T>> {
                let new = value.map_or(ptr::null_mut(), |value| {
                    let pointer = value.0.as_ptr();
                    core::mem::forget(value);
                    pointer
                });
                NonNull::new(self.0.swap(new, AcqRel)).map(RcuArc)
            }

            /// Whether the cell is empty.
            pub fn is_none(&self) -> bool {
                self.0.load(Relaxed).is_null()
            }
        }

        impl<T: Send + Sync + 'static> Drop for RcuCell<T> {
            fn drop(&mut self) {
                if !cfg!(loom) {
                    self.swap(None);
                }
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Notifications of suspend and of virtual machine forks.
//!
//! C headers: [`include/linux/suspend.h`](srctree/include/linux/suspend.h),
//! [`include/linux/random.h`](srctree/include/linux/random.h),
//! [`include/linux/notifier.h`](srctree/include/linux/notifier.h)

use core::marker::PhantomData;

use kernel::{
    alloc::KBox,
    error::to_result,
    ffi::{c_int, c_ulong, c_void},
    prelude::*,
    types::Opaque,
};

use crate::bindings;

/// Whether this kernel is meant to suspend all the time, as phones do: then keys that are wiped
/// at each suspend would be of no use.
pub const SUSPENDS_CONSTANTLY: bool =
    cfg!(CONFIG_PM_AUTOSLEEP) || cfg!(CONFIG_PM_USERSPACE_AUTOSLEEP);

/// What the power management announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PmEvent {
    /// About to hibernate.
    HibernationPrepare,
    /// Awake from hibernation, or it has failed.
    PostHibernation,
    /// About to suspend.
    SuspendPrepare,
    /// Awake from suspend, or it has failed.
    PostSuspend,
    /// About to restore a hibernated system.
    RestorePrepare,
    /// The restore has failed.
    PostRestore,
}

impl PmEvent {
    fn from_c(action: c_ulong) -> Option<Self> {
        match u32::try_from(action).ok()? {
            bindings::PM_HIBERNATION_PREPARE => Some(Self::HibernationPrepare),
            bindings::PM_POST_HIBERNATION => Some(Self::PostHibernation),
            bindings::PM_SUSPEND_PREPARE => Some(Self::SuspendPrepare),
            bindings::PM_POST_SUSPEND => Some(Self::PostSuspend),
            bindings::PM_RESTORE_PREPARE => Some(Self::RestorePrepare),
            bindings::PM_POST_RESTORE => Some(Self::PostRestore),
            _ => None,
        }
    }
}

/// Receives [`PmEvent`]s.
pub trait PmCallback: 'static {
    /// Process context; may sleep. The next event waits until it returns.
    fn notify(event: PmEvent);
}

/// Receives news of virtual machine forks.
pub trait VmForkCallback: 'static {
    /// This machine has been cloned or restored from a snapshot, and the random number generator
    /// has been reseeded. Process context; may sleep.
    fn notify();
}

/// A [`PmCallback`] is called while this exists.
pub type PmNotifier<T> = Registration<Pm<T>>;
/// A [`VmForkCallback`] is called while this exists.
pub type VmForkNotifier<T> = Registration<VmFork<T>>;

/// One of the kernel's notifier chains, with a receiver.
///
/// # Safety
///
/// `register` and `unregister` must be those of one chain, which calls back in process context
/// and waits in `unregister` until calls have ended.
pub unsafe trait Chain: 'static {
    /// The receiver, called by C.
    ///
    /// # Safety
    ///
    /// Only for the chain to call.
    unsafe extern "C" fn call(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        data: *mut c_void,
    ) -> c_int;

    /// Puts a block on the chain.
    ///
    /// # Safety
    ///
    /// `block` must be valid until it is unregistered.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// Takes a block off the chain.
    ///
    /// # Safety
    ///
    /// `block` must be on the chain.
    unsafe fn unregister(block: *mut bindings::notifier_block) -> c_int;
}

/// The chain of the power management.
pub struct Pm<T>(PhantomData<T>);
/// The chain of virtual machine forks. Without `CONFIG_VMGENID` nothing is ever called.
pub struct VmFork<T>(PhantomData<T>);

// SAFETY: Both functions are of the power management's chain, a blocking one: its lock, taken by
// `unregister`, is held during calls.
unsafe impl<T: PmCallback> Chain for Pm<T> {
    unsafe extern "C" fn call(
        _block: *mut bindings::notifier_block,
        action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        if let Some(event) = PmEvent::from_c(action) {
            T::notify(event);
        }
        0
    }

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The caller keeps the block valid.
        unsafe { bindings::wg_register_pm_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The caller has registered the block.
        unsafe { bindings::wg_unregister_pm_notifier(block) }
    }
}

// SAFETY: Both functions are of the chain of VM forks, a blocking one: its lock, taken by
// `unregister`, is held during calls.
unsafe impl<T: VmForkCallback> Chain for VmFork<T> {
    unsafe extern "C" fn call(
        _block: *mut bindings::notifier_block,
        _action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        T::notify();
        0
    }

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The caller keeps the block valid.
        unsafe { bindings::wg_register_vmfork_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The caller has registered the block.
        unsafe { bindings::wg_unregister_vmfork_notifier(block) }
    }
}

/// A receiver is on a notifier chain while this exists.
///
/// # Invariants
///
/// The block is on the chain.
pub struct Registration<C: Chain> {
    block: KBox<Opaque<bindings::notifier_block>>,
    _chain: PhantomData<C>,
}

// SAFETY: A block may be taken off its chain by any thread; it has no other use.
unsafe impl<C: Chain> Send for Registration<C> {}
// SAFETY: A shared registration can do nothing.
unsafe impl<C: Chain> Sync for Registration<C> {}

impl<C: Chain> Registration<C> {
    /// Puts the receiver on the chain. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        let block = KBox::new(
            Opaque::new(bindings::notifier_block {
                notifier_call: Some(C::call),
                ..Default::default()
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The block stays in its box until it is unregistered.
        to_result(unsafe { C::register(block.get()) })?;
        // INVARIANT: Just put there.
        Ok(Self {
            block,
            _chain: PhantomData,
        })
    }
}

impl<C: Chain> Drop for Registration<C> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the block is on the chain. The only error would be that it
        // is not.
        unsafe { C::unregister(self.block.get()) };
    }
}

// SPDX-License-Identifier: GPL-2.0-only

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

/// Whether this kernel is configured to suspend all the time, as phones do: wiping keys at each
/// suspend would leave them unusable.
pub const SUSPENDS_CONSTANTLY: bool =
    cfg!(CONFIG_PM_AUTOSLEEP) || cfg!(CONFIG_PM_USERSPACE_AUTOSLEEP);

/// An event of the power management.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PmEvent {
    /// About to hibernate.
    HibernationPrepare,
    /// Resumed from hibernation, or hibernation failed.
    PostHibernation,
    /// About to suspend.
    SuspendPrepare,
    /// Resumed from suspend, or suspend failed.
    PostSuspend,
    /// About to restore a hibernated system.
    RestorePrepare,
    /// The restore failed.
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
    /// Called for each event. Process context; may sleep, which delays the event.
    fn notify(event: PmEvent);
}

/// Receives virtual machine forks.
pub trait VmForkCallback: 'static {
    /// This machine has been cloned or restored from a snapshot, and the random number generator
    /// has been reseeded. Process context; may sleep.
    fn notify();
}

/// Delivers power management events to `T` while it exists.
pub type PmNotifier<T> = Registration<Pm<T>>;
/// Delivers virtual machine forks to `T` while it exists.
pub type VmForkNotifier<T> = Registration<VmFork<T>>;

/// A notifier chain of the kernel, together with a receiver.
///
/// # Safety
///
/// `register` and `unregister` must be those of one chain, which calls back in process context,
/// and whose `unregister` waits for running calls.
pub unsafe trait Chain: 'static {
    /// The receiver, called from C.
    ///
    /// # Safety
    ///
    /// Only the chain may call it.
    unsafe extern "C" fn call(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        data: *mut c_void,
    ) -> c_int;

    /// Registers a block.
    ///
    /// # Safety
    ///
    /// `block` must be valid until it is unregistered.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// Unregisters a block.
    ///
    /// # Safety
    ///
    /// `block` must be registered.
    unsafe fn unregister(block: *mut bindings::notifier_block) -> c_int;
}

/// The power management's chain.
pub struct Pm<T>(PhantomData<T>);
/// The chain of virtual machine forks. Never called without `CONFIG_VMGENID`.
pub struct VmFork<T>(PhantomData<T>);

// SAFETY: Both functions belong to the power management's chain, which is a blocking one:
// `unregister` takes the lock that is held during calls.
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

// SAFETY: Both functions belong to the chain of VM forks, which is a blocking one: `unregister`
// takes the lock that is held during calls.
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

/// The registration of a receiver on a notifier chain. Dropping it unregisters the receiver.
///
/// # Invariants
///
/// The block is registered.
pub struct Registration<C: Chain> {
    block: KBox<Opaque<bindings::notifier_block>>,
    _chain: PhantomData<C>,
}

// SAFETY: Any thread may unregister a block, and nothing else can be done with it.
unsafe impl<C: Chain> Send for Registration<C> {}
// SAFETY: Nothing can be done with a shared registration.
unsafe impl<C: Chain> Sync for Registration<C> {}

impl<C: Chain> Registration<C> {
    /// Registers the receiver. Sleeps.
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
        // INVARIANT: Just registered.
        Ok(Self {
            block,
            _chain: PhantomData,
        })
    }
}

impl<C: Chain> Drop for Registration<C> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the block is registered; that it is not would be the only
        // error.
        unsafe { C::unregister(self.block.get()) };
    }
}

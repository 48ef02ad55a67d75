// SPDX-License-Identifier: GPL-2.0-only

//! NAPI: contexts that hand received packets to the network stack, merging them (GRO).
//!
//! A context is a field of a reference-counted object:
//!
//! ```ignore
//! #[pin_data]
//! struct Receiver { #[pin] napi: Napi<Receiver>, … }
//! impl_has_napi! { impl HasNapi for Receiver { self.napi } }
//! impl NapiPoll for Receiver { fn poll(&self, napi: &NapiScope, budget: usize) -> usize { … } }
//! ```
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use core::{cell::UnsafeCell, ffi::c_int, marker::PhantomPinned};

use kernel::{prelude::*, types::Opaque};

use super::{
    netdevice::{NetDevice, NetDeviceRef},
    skbuff::SkBuff,
};
use crate::{
    bindings,
    kapi::{
        sync::{
            atomic::{AtomicU32, Ordering},
            rcu::RcuArc,
        },
        within,
    },
};

/// Not added to a device yet, and not to be scheduled.
const IDLE: u32 = 0;
/// Being added, or being removed.
const CHANGING: u32 = 1;
/// Enabled.
const ENABLED: u32 = 2;
/// Removed; a context is added once only.
const REMOVED: u32 = 3;

/// A NAPI context of an object of type `T`.
///
/// # Invariants
///
/// While `state` is [`ENABLED`], the C part is added to the device in `owner` and enabled, and
/// `owner` has a reference to the object that this is a field of. `owner` is written in state
/// [`CHANGING`] only, which one thread at a time can be in.
#[pin_data]
pub struct Napi<T> {
    #[pin]
    napi: Opaque<bindings::napi_struct>,
    state: AtomicU32,
    owner: UnsafeCell<Option<(RcuArc<T>, NetDeviceRef)>>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: The C part synchronises itself; `owner` is guarded by `state`.
unsafe impl<T: Send + Sync> Send for Napi<T> {}
// SAFETY: The C part synchronises itself; `owner` is guarded by `state`.
unsafe impl<T: Send + Sync> Sync for Napi<T> {}

/// An object with a [`Napi`] field. Implemented by [`impl_has_napi!`](crate::impl_has_napi).
pub trait HasNapi: Sized {
    /// The field. It must be part of the object itself; a context elsewhere is never added.
    fn napi(&self) -> &Napi<Self>;
}

/// Implements [`HasNapi`](crate::kapi::net::napi::HasNapi) for the type of an object.
#[macro_export]
macro_rules! impl_has_napi {
    (impl HasNapi for $type:ty { self.$field:ident }) => {
        impl $crate::kapi::net::napi::HasNapi for $type {
            #[inline(always)]
            fn napi(&self) -> &$crate::kapi::net::napi::Napi<Self> {
                &self.$field
            }
        }
    };
}

/// Initialises a [`Napi`](crate::kapi::net::napi::Napi).
#[macro_export]
macro_rules! new_napi {
    () => {
        $crate::kapi::net::napi::Napi::new()
    };
}

/// What a context does.
pub trait NapiPoll: HasNapi + Send + Sync + 'static {
    /// Hands on up to `budget` packets and returns how many there were. Fewer than `budget` means
    /// that there are no more: the context sleeps until [`Napi::schedule`] is called again. To
    /// return `budget` calls for another poll. Softirq context.
    fn poll(&self, napi: &NapiScope, budget: usize) -> usize;
}

impl<T: NapiPoll> Napi<T> {
    /// Initialises a context, which is of no use until it is added to a device.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            napi <- Opaque::zeroed(),
            state: AtomicU32::new(IDLE),
            owner: UnsafeCell::new(None),
            _pin: PhantomPinned,
        })
    }

    /// Adds an object's context to a device, and enables it. From now on the context owns a
    /// reference to its object and a handle to the device, until [`Napi::remove`]. Process
    /// context. A context that has been added before is left alone.
    pub fn add(this: &RcuArc<T>, dev: &NetDevice) {
        let napi = this.napi();
        // Only as a part of the object is it pinned, and kept alive by what `owner` refers to.
        if !within(napi, &**this) || !napi.change(IDLE) {
            return;
        }
        // SAFETY: The state is `CHANGING`, by us.
        unsafe { *napi.owner.get() = Some((this.clone(), dev.handle())) };
        // SAFETY: The C part is zeroed and stays where it is; the device is valid.
        unsafe {
            bindings::wg_napi_add(dev.as_raw(), napi.napi.get(), Some(Self::poll));
            bindings::napi_enable(napi.napi.get());
        }
        // INVARIANT: As just done.
        napi.state.store(ENABLED, Ordering::Release);
    }

    fn change(&self, from: u32) -> bool {
        self.state
            .compare_exchange(from, CHANGING, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Schedules a poll of the context, if it is added. Any context but hard interrupts.
    #[inline]
    pub fn schedule(&self) {
        if self.state.load(Ordering::Acquire) == ENABLED {
            // SAFETY: It has been added. If it is being disabled meanwhile, nothing happens.
            unsafe { bindings::wg_napi_schedule(self.napi.get()) };
        }
    }

    /// Disables the context and removes it from its device; a poll that is running ends first.
    /// Sleeps.
    pub fn remove(&self) {
        if !self.change(ENABLED) {
            return;
        }
        // SAFETY: By the type invariant it has been added and enabled, and only we change that.
        unsafe {
            bindings::napi_disable(self.napi.get());
            bindings::wg_napi_del(self.napi.get());
        }
        // SAFETY: The state is `CHANGING`, by us.
        let owner = unsafe { (*self.owner.get()).take() };
        self.state.store(REMOVED, Ordering::Release);
        // Perhaps the last reference, but the object outlives the caller's borrow of it.
        drop(owner);
    }

    /// # Safety
    ///
    /// For C, as the `poll` of a context that [`Napi::add`] has added.
    unsafe extern "C" fn poll(napi: *mut bindings::napi_struct, budget: c_int) -> c_int {
        // CAST: `Opaque` is transparent.
        // SAFETY: C polls what `add()` has added: the C part of a `Napi<T>`.
        let this = unsafe { &*kernel::container_of!(napi.cast::<Opaque<_>>(), Self, napi) };
        // SAFETY: `add()` has written it before it enabled the context, and `remove()` takes it
        // only after the last poll has ended.
        let Some((this, _)) = (unsafe { &*this.owner.get() }) else {
            return 0;
        };
        // Polls without budget are netpoll's, for transmission only.
        let Ok(budget @ 1..) = usize::try_from(budget) else {
            return 0;
        };
        let scope = NapiScope { napi };
        let done = this.poll(&scope, budget).min(budget);
        let done_c = done as c_int;
        if done < budget {
            // SAFETY: This is the context's poll.
            unsafe { bindings::napi_complete_done(napi, done_c) };
        }
        done_c
    }
}

/// A context that is being polled.
///
/// # Invariants
///
/// The pointer is valid, and this CPU polls it.
pub struct NapiScope {
    napi: *mut bindings::napi_struct,
}

impl NapiScope {
    /// Hands a packet to the network stack, as received by the context's device, perhaps merged
    /// with others.
    #[inline]
    pub fn gro_receive(&self, skb: SkBuff) {
        // SAFETY: This CPU polls the context by the type invariant; the packet is given away.
        unsafe { bindings::wg_napi_gro_receive(self.napi, skb.into_raw()) };
    }
}

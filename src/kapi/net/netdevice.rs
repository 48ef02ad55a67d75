// SPDX-License-Identifier: GPL-2.0-only

//! Network devices.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use core::{fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

use kernel::{prelude::*, str::CStr, sync::Completion, types::Opaque};

use crate::{
    bindings,
    kapi::{
        net::{namespace::Net, rtnl::RtnlGuard},
        sync::{
            atomic::{AtomicUsize, Ordering},
            bh::BhGuard,
            rcu,
        },
    },
};

/// A network device: the kernel's [`struct net_device`], borrowed.
///
/// # Invariants
///
/// The device is one of a [`LinkRegistration`](super::rtnl::LinkRegistration) of this module, its
/// memory is valid, and its private area has been initialised.
///
/// [`struct net_device`]: srctree/include/linux/netdevice.h
#[repr(transparent)]
pub struct NetDevice(Opaque<bindings::net_device>);

// SAFETY: A device is not tied to a thread or CPU.
unsafe impl Send for NetDevice {}
// SAFETY: All methods may be called concurrently.
unsafe impl Sync for NetDevice {}

impl NetDevice {
    /// Borrows a device of C.
    ///
    /// # Safety
    ///
    /// The type invariants must hold during `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(dev: *mut bindings::net_device) -> &'a Self {
        // CAST: `Self` is a transparent wrapper.
        // SAFETY: By the requirements of this function.
        unsafe { &*dev.cast() }
    }

    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::net_device {
        self.0.get()
    }

    /// A counted handle: the device's memory stays valid until the handle is dropped.
    pub fn handle(&self) -> NetDeviceRef {
        self.holders().count.fetch_add(1, Ordering::Relaxed);
        // INVARIANT: Just counted.
        NetDeviceRef(NonNull::from(self))
    }

    fn holders(&self) -> &Holders {
        // SAFETY: The device and its private area are valid by the type invariant. Every private
        // area of ours starts with a `Holders`.
        unsafe { &*bindings::wg_netdev_priv(self.as_raw()).cast() }
    }

    /// A copy of the device's current name, which may be torn by a concurrent rename.
    pub fn name(&self) -> DeviceName {
        let mut name = [0; bindings::IFNAMSIZ as usize];
        // SAFETY: The device is valid by the type invariant; there is room for a name.
        unsafe { bindings::wg_netdev_copy_name(self.as_raw(), name.as_mut_ptr()) };
        DeviceName(name)
    }

    /// The device's index in its namespace.
    pub fn ifindex(&self) -> i32 {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_ifindex(self.as_raw()) }
    }

    /// MTU in bytes.
    #[inline]
    pub fn mtu(&self) -> u32 {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_mtu(self.as_raw()) }
    }

    /// The namespace that the device is in, `None` if the device is not registered. The device may
    /// be moved to another at any time.
    #[inline]
    pub fn net<'rcu>(&'rcu self, _rcu: &'rcu rcu::Guard) -> Option<&'rcu Net> {
        // SAFETY: The device is valid by the type invariant, and this is an RCU read section.
        let net = NonNull::new(unsafe { bindings::wg_netdev_net_rcu(self.as_raw()) })?;
        // SAFETY: The namespace stays valid until the end of the read section. Whoever takes the
        // device out of it, `__dev_change_net_namespace()` or `unregister_netdevice_many()`, sets
        // `nd_net` or `reg_state` and then calls `synchronize_net()`, all under RTNL, which
        // `cleanup_net()` takes (`default_device_exit_batch()`) before it frees the namespace.
        Some(unsafe { Net::from_raw(net.as_ptr()) })
    }

    /// The device, if it is registered, until the end of the RCU read section at least.
    #[inline]
    pub fn registered<'a>(&'a self, _bh: &'a BhGuard) -> Option<RegisteredDevice<'a>> {
        // SAFETY: The device is valid by the type invariant.
        let registered = unsafe { bindings::wg_netdev_registered(self.as_raw()) };
        // INVARIANT: As just seen. Unregistering waits for a grace period before it goes on.
        registered.then_some(RegisteredDevice(self, PhantomData))
    }

    /// Clears the carrier: the link is down.
    pub fn carrier_off(&self, _rtnl: &RtnlGuard) {
        // SAFETY: The device is valid by the type invariant, and RTNL is held by that of the guard.
        unsafe { bindings::netif_carrier_off(self.as_raw()) };
    }

    /// Disables ICMP redirects and IPv6 link-local addresses for the device; the former in its
    /// namespace's "all", too, because either setting alone would enable them.
    pub fn disable_redirects_and_addrgen(&self, _rtnl: &RtnlGuard) {
        // SAFETY: The device is valid by the type invariant, and RTNL is held by that of the guard.
        unsafe { bindings::wg_netdev_no_redirects_no_addrgen(self.as_raw()) };
    }

    /// Counts received packets and the bytes in all of them, in this CPU's counters; does nothing
    /// unless the device is registered.
    #[inline]
    pub fn sw_rx_add(&self, _bh: &BhGuard, packets: usize, bytes: usize) {
        // SAFETY: The device is valid by the type invariant. With BH disabled this CPU's counters
        // are ours, and this is an RCU read section, which keeps those of a registered device.
        unsafe { bindings::wg_netdev_sw_rx_add(self.as_raw(), packets, bytes) };
    }

    /// Counts packets that were dropped before transmission, as a queue was full or there was no
    /// session. Any context, as for all counters below.
    pub fn add_tx_dropped(&self, packets: usize) {
        if packets != 0 {
            // SAFETY: The device is valid by the type invariant.
            unsafe { bindings::wg_netdev_add_tx_dropped(self.as_raw(), packets) };
        }
    }

    /// Counts a packet that could not be sent.
    pub fn inc_tx_errors(&self) {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_inc_tx_errors(self.as_raw()) };
    }

    /// Counts received packets that were dropped because a queue was full.
    pub fn add_rx_dropped(&self, count: usize) {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_add_rx_dropped(self.as_raw(), count) };
    }

    /// Whether received packets may be put together (GRO).
    #[inline]
    pub fn may_gro(&self) -> bool {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_may_gro(self.as_raw()) }
    }

    /// Counts a bad packet received.
    pub fn inc_rx_errors(&self) {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_inc_rx_errors(self.as_raw()) };
    }

    /// Counts a received packet with a framing error.
    pub fn inc_rx_frame_errors(&self) {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_inc_rx_frame_errors(self.as_raw()) };
    }

    /// Counts a received packet with a length error.
    pub fn inc_rx_length_errors(&self) {
        // SAFETY: The device is valid by the type invariant.
        unsafe { bindings::wg_netdev_inc_rx_length_errors(self.as_raw()) };
    }
}

/// A device whose per-CPU counters are there.
///
/// # Invariants
///
/// During `'a` bottom halves are disabled and the device has its counters, as it was registered
/// when that began.
#[derive(Clone, Copy)]
pub struct RegisteredDevice<'a>(&'a NetDevice, PhantomData<&'a BhGuard>);

impl Deref for RegisteredDevice<'_> {
    type Target = NetDevice;

    #[inline]
    fn deref(&self) -> &NetDevice {
        self.0
    }
}

/// The name of a device.
pub struct DeviceName([u8; bindings::IFNAMSIZ as usize]);

impl Deref for DeviceName {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// Compares by identity.
impl PartialEq for NetDevice {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl fmt::Debug for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().to_str().unwrap_or("?"))
    }
}

/// How many transmit functions of devices are nested on this CPU (with `PREEMPT_RT`, in this
/// thread): more than one means tunnels within tunnels, on a stack that does not grow.
///
/// Any context. Outside of a transmit function, with preemption, it may be another CPU's.
pub fn xmit_depth() -> u32 {
    // SAFETY: Reads one counter, without requirements.
    u32::try_from(unsafe { bindings::wg_xmit_depth() }).unwrap_or(u32::MAX)
}

/// The count of those who refer to a device. At the start of every private area.
///
/// Not `netdev_hold()`: the core waits for its references before it calls the destructor, which is
/// where the driver drops the handles.
#[pin_data]
pub(super) struct Holders {
    /// [`NetDeviceRef`]s, and one for the registration.
    count: AtomicUsize,
    #[pin]
    gone: Completion,
}

impl Holders {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            count: AtomicUsize::new(1),
            gone <- Completion::new(),
        })
    }

    fn put(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gone.complete_all();
        }
    }

    /// Gives up the registration's share and waits for all others. Sleeps.
    pub(super) fn put_and_wait(&self) {
        self.put();
        self.gone.wait_for_completion();
    }
}

/// A counted handle to a device: its memory stays valid, even after it has been unregistered.
///
/// The device's destructor waits until the last handle is dropped: nothing that outlives the
/// driver's state of the device may keep one.
///
/// # Invariants
///
/// The handle is counted in the device's [`Holders`].
pub struct NetDeviceRef(NonNull<NetDevice>);

// SAFETY: A device is not tied to a thread or CPU.
unsafe impl Send for NetDeviceRef {}
// SAFETY: All methods of `NetDevice` may be called concurrently.
unsafe impl Sync for NetDeviceRef {}

impl Deref for NetDeviceRef {
    type Target = NetDevice;

    #[inline]
    fn deref(&self) -> &NetDevice {
        // SAFETY: By the type invariant the device's memory is valid.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for NetDeviceRef {
    fn clone(&self) -> Self {
        self.handle()
    }
}

impl Drop for NetDeviceRef {
    fn drop(&mut self) {
        self.holders().put();
    }
}

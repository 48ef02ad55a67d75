// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use core::{
    fmt,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

use kernel::{prelude::*, str::CStr, sync::Completion, types::Opaque};

use crate::{bindings, kapi::net::namespace::Net};

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

    /// A handle that may be kept: the device's memory stays until it is dropped.
    pub fn handle(&self) -> NetDeviceRef {
        self.holders().count.fetch_add(1, Ordering::Relaxed);
        // INVARIANT: Just counted.
        NetDeviceRef(NonNull::from(self))
    }

    fn holders(&self) -> &Holders {
        // SAFETY: By the type invariant. Every private area of ours starts with a `Holders`.
        unsafe { &*bindings::wg_netdev_priv(self.as_raw()).cast() }
    }

    /// The device's name at the moment; a rename may tear it.
    pub fn name(&self) -> &CStr {
        // CAST: Both are bytes.
        // SAFETY: By the type invariant; the name is an array of this length in the device.
        let name: &[u8; bindings::IFNAMSIZ as usize] =
            unsafe { &*bindings::wg_netdev_name(self.as_raw()).cast() };
        CStr::from_bytes_until_nul(name).unwrap_or(c"")
    }

    /// The device's index in its namespace.
    pub fn ifindex(&self) -> i32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_ifindex(self.as_raw()) }
    }

    /// MTU in bytes.
    #[inline]
    pub fn mtu(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_mtu(self.as_raw()) }
    }

    /// Whether the device is up.
    #[inline]
    pub fn is_up(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_is_up(self.as_raw()) }
    }

    /// The namespace that the device is in now. It may move: keep RTNL while this matters.
    pub fn net(&self) -> &Net {
        // SAFETY: By the type invariant. A device's namespace outlives its stay there.
        unsafe { Net::from_raw(bindings::wg_netdev_net(self.as_raw())) }
    }

    /// Says that the link has lost its carrier. RTNL.
    pub fn carrier_off(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::netif_carrier_off(self.as_raw()) };
    }

    /// Switches ICMP redirects and IPv6 link-local addresses off for the device; the former for
    /// its namespace's "all" too, as either setting alone would permit them. RTNL.
    pub fn disable_redirects_and_addrgen(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_no_redirects_no_addrgen(self.as_raw()) };
    }

    /// Counts received packets and the bytes in all of them, unless the device is on its way out.
    /// BH disabled (and by that under RCU, which keeps the counters that are checked for).
    #[inline]
    pub fn sw_rx_add(&self, packets: usize, bytes: usize) {
        // SAFETY: By the type invariant; the helper sees to it that the counters exist.
        unsafe { bindings::wg_netdev_sw_rx_add(self.as_raw(), packets, bytes) };
    }

    /// Counts packets that were not sent for lack of room or of a session.
    pub fn add_tx_dropped(&self, packets: usize) {
        if packets != 0 {
            // SAFETY: By the type invariant.
            unsafe { bindings::wg_netdev_add_tx_dropped(self.as_raw(), packets) };
        }
    }

    /// Counts a packet that could not be sent.
    pub fn inc_tx_errors(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_inc_tx_errors(self.as_raw()) };
    }

    /// Counts good packets received that there was no room for.
    pub fn add_rx_dropped(&self, count: usize) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_add_rx_dropped(self.as_raw(), count) };
    }

    /// Counts a bad packet received.
    pub fn inc_rx_errors(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_inc_rx_errors(self.as_raw()) };
    }

    /// Counts a received packet of a bad kind.
    pub fn inc_rx_frame_errors(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_inc_rx_frame_errors(self.as_raw()) };
    }

    /// Counts a received packet of a bad length.
    pub fn inc_rx_length_errors(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_netdev_inc_rx_length_errors(self.as_raw()) };
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

/// How many devices the current packet has been sent by on its way down the stack: more than one
/// means tunnels within tunnels, on a stack that does not grow. BH disabled.
pub fn xmit_depth() -> u32 {
    // SAFETY: Reads a counter of this CPU or thread.
    u32::try_from(unsafe { bindings::wg_xmit_depth() }).unwrap_or(u32::MAX)
}

/// Who still refers to a device that is to be freed. At the start of every private area.
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
/// Whoever destroys the device waits for the last one to be dropped, so that none may be kept by
/// anything that outlives the device's owner.
///
/// # Invariants
///
/// The handle is counted in the device's [`Holders`].
pub struct NetDeviceRef(NonNull<NetDevice>);

// SAFETY: A device is not tied to a thread or CPU.
unsafe impl Send for NetDeviceRef {}
// SAFETY: As above.
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

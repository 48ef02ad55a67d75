// SPDX-License-Identifier: GPL-2.0-only

//! Link kinds: drivers of virtual network devices that `ip link add type …` makes.
//!
//! A driver implements [`LinkDriver`] and registers it with [`LinkRegistration`]. Its state of one
//! device, [`LinkDriver::Device`], is reference counted; the network device's private area owns
//! one reference from [`LinkDriver::new_link`] to [`LinkDriver::destroy`].
//!
//! C headers: [`include/net/rtnetlink.h`](srctree/include/net/rtnetlink.h),
//! [`include/linux/rtnetlink.h`](srctree/include/linux/rtnetlink.h)

use core::{
    any::TypeId,
    ffi::{c_int, c_void},
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{self, NonNull},
};

use kernel::{
    alloc::flags::GFP_KERNEL,
    error::{from_result, to_result},
    prelude::*,
    str::CStr,
    types::NotThreadSafe,
};

use super::{
    namespace::{self, Net},
    netdevice::{Holders, NetDevice},
    skbuff::SkBuff,
};
use crate::{
    bindings,
    kapi::sync::{
        atomic::{AtomicPtr, Ordering},
        rcu::RcuArc,
    },
};

/// Evidence that the RTNL mutex is held.
///
/// # Invariants
///
/// This thread holds the mutex while the guard exists.
pub struct RtnlGuard {
    /// Whether dropping the guard unlocks.
    owned: bool,
    _thread: NotThreadSafe,
}

/// Takes the RTNL mutex. Sleeps.
pub fn lock() -> RtnlGuard {
    // SAFETY: No requirements beyond the context.
    unsafe { bindings::rtnl_lock() };
    // INVARIANT: Just taken.
    RtnlGuard {
        owned: true,
        _thread: NotThreadSafe,
    }
}

impl RtnlGuard {
    /// The guard of a lock that a caller in C holds.
    ///
    /// # Safety
    ///
    /// RTNL must be held for as long as the guard exists.
    pub(crate) unsafe fn assume_held() -> Self {
        // INVARIANT: By the requirement of this function.
        Self {
            owned: false,
            _thread: NotThreadSafe,
        }
    }

    /// The state of the device of `D` with an index in a namespace.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such device, `EOPNOTSUPP` if it is not one of `D`.
    pub fn device_by_index<D: LinkDriver>(
        &self,
        net: &Net,
        ifindex: i32,
    ) -> Result<RcuArc<D::Device>> {
        // SAFETY: RTNL is held. The device cannot go while it is.
        unsafe { state_of::<D>(bindings::__dev_get_by_index(net.as_raw(), ifindex)) }
    }

    /// As [`RtnlGuard::device_by_index`], by name.
    ///
    /// # Errors
    ///
    /// As [`RtnlGuard::device_by_index`].
    pub fn device_by_name<D: LinkDriver>(
        &self,
        net: &Net,
        name: &CStr,
    ) -> Result<RcuArc<D::Device>> {
        // SAFETY: RTNL is held. The device cannot go while it is.
        unsafe {
            state_of::<D>(bindings::__dev_get_by_name(
                net.as_raw(),
                name.as_char_ptr(),
            ))
        }
    }
}

impl Drop for RtnlGuard {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: This thread holds RTNL by the type invariant, and the guard is the owner.
            unsafe { bindings::rtnl_unlock() };
        }
    }
}

/// A link kind.
///
/// All functions run in process context under RTNL, if they do not say otherwise.
pub trait LinkDriver: Sized + 'static {
    /// The driver's state of one device.
    type Device: Send + Sync + 'static;

    /// MTU of a new device in bytes.
    const MTU: u32;
    /// Greatest MTU that may be set.
    const MAX_MTU: u32;
    /// Headroom that the driver needs, in bytes.
    const HEADROOM: u16;
    /// Tailroom that the driver needs, in bytes.
    const TAILROOM: u16;

    /// Makes the state of a device that is about to be registered. `link_net` is the namespace
    /// that the request came from, or the one it named as the link's; the device itself may be
    /// made in another.
    fn new_link(dev: &NetDevice, link_net: &Net) -> Result<RcuArc<Self::Device>>;

    /// The device has been registered: it is visible.
    fn registered(_device: &RcuArc<Self::Device>) {}

    /// The device could not be registered. As [`LinkDriver::destroy`], but RTNL is held.
    fn abandoned(device: RcuArc<Self::Device>);

    /// The device goes up.
    fn open(device: &RcuArc<Self::Device>, rtnl: &RtnlGuard) -> Result;

    /// The device goes down.
    fn stop(device: &RcuArc<Self::Device>);

    /// The stack sends a packet. Softirq context or BH disabled, under RCU; RTNL is not held.
    ///
    /// # Errors
    ///
    /// The error is returned to the sender, if that is local.
    fn xmit(device: &Self::Device, skb: SkBuff) -> Result;

    /// The device has been unregistered; tears its state down. RTNL is not held. The caller then
    /// waits for the last [`NetDeviceRef`](super::netdevice::NetDeviceRef).
    fn destroy(device: RcuArc<Self::Device>);

    /// The last [`NetDeviceRef`](super::netdevice::NetDeviceRef) has been dropped; the device is
    /// about to be freed. RTNL is not held.
    fn destroyed(_dev: &NetDevice) {}

    /// A namespace exits, not necessarily that of the device.
    fn namespace_exit(_device: &RcuArc<Self::Device>, _net: &Net, _rtnl: &RtnlGuard) {}
}

/// The private area of a device.
///
/// # Invariants
///
/// `device` is set from [`LinkDriver::new_link`] until the device is destroyed. While the device
/// is on the list of devices, RTNL guards `next`.
#[pin_data]
#[repr(C)]
struct Private<D: LinkDriver> {
    /// First: [`NetDevice`] looks for it there without knowing the driver.
    #[pin]
    holders: Holders,
    device: Option<RcuArc<D::Device>>,
    dev: *mut bindings::net_device,
    next: *mut Private<D>,
}

/// What C knows of the registered kind.
#[repr(C)]
struct Kind {
    ops: bindings::rtnl_link_ops,
    pernet: bindings::pernet_operations,
    devtype: bindings::device_type,
    /// The type of the driver.
    driver: TypeId,
    /// The first `Private` of the list of devices. RTNL.
    devices: *mut c_void,
}

/// The kind of this module, if it is registered. There is one at a time, as C's callbacks are
/// not given anything that would tell several apart.
static KIND: AtomicPtr<Kind> = AtomicPtr::new(ptr::null_mut());

/// The registered kind, if it is that of `D`.
fn kind_of<D: LinkDriver>() -> Option<NonNull<Kind>> {
    let kind = NonNull::new(KIND.load(Ordering::Acquire))?;
    // SAFETY: The registration frees it after it has cleared `KIND` and all devices, and with them
    // the callers, are gone.
    (unsafe { kind.as_ref() }.driver == TypeId::of::<D>()).then_some(kind)
}

/// Borrows a device if it is one of `D`.
///
/// # Safety
///
/// `dev` must be null or valid during `'a`.
unsafe fn ours<'a, D: LinkDriver>(dev: *mut bindings::net_device) -> Option<&'a NetDevice> {
    let kind = kind_of::<D>()?;
    if dev.is_null() {
        return None;
    }
    // SAFETY: By the requirement of this function.
    let ops = unsafe { bindings::wg_netdev_link_ops(dev) };
    // CAST: `ops` is the first field.
    if !ptr::eq(ops, kind.as_ptr().cast()) {
        return None;
    }
    // SAFETY: The device is valid by the requirement of this function; one of ours that can be
    // found has been through `new_link()`.
    Some(unsafe { NetDevice::from_raw(dev) })
}

/// The driver's state of a device.
///
/// # Safety
///
/// `dev` must be null or a registered device; RTNL must be held.
unsafe fn state_of<D: LinkDriver>(dev: *mut bindings::net_device) -> Result<RcuArc<D::Device>> {
    if dev.is_null() {
        return Err(ENODEV);
    }
    // SAFETY: By the requirements of this function.
    let dev = unsafe { ours::<D>(dev) }.ok_or(EOPNOTSUPP)?;
    // SAFETY: A device of ours.
    unsafe { (*private::<D>(dev.as_raw())).device.clone() }.ok_or(ENODEV)
}

/// Calls `f` for each device of `D`.
pub fn for_each_device<D: LinkDriver>(_rtnl: &RtnlGuard, mut f: impl FnMut(&RcuArc<D::Device>)) {
    let Some(kind) = kind_of::<D>() else { return };
    // SAFETY: RTNL is held, which guards the list; all on it are of `D`.
    unsafe {
        let mut next: *mut Private<D> = (*kind.as_ptr()).devices.cast();
        while let Some(private) = next.as_ref() {
            if let Some(device) = &private.device {
                f(device);
            }
            next = private.next;
        }
    }
}

/// The private area of a device of `D`.
///
/// # Safety
///
/// `dev` must be a valid device that was allocated for `D`.
#[inline]
unsafe fn private<D: LinkDriver>(dev: *mut bindings::net_device) -> *mut Private<D> {
    const { assert!(align_of::<Private<D>>() <= 32) };
    // SAFETY: By the requirement of this function. The area is as big as `priv_size` says, and
    // aligned to `NETDEV_ALIGN`, 32.
    unsafe { bindings::wg_netdev_priv(dev).cast() }
}

/// The functions that C calls, for the driver `D`.
struct Thunks<D>(PhantomData<D>);

impl<D: LinkDriver> Thunks<D> {
    const NETDEV_OPS: bindings::net_device_ops = bindings::net_device_ops {
        ndo_open: Some(Self::open),
        ndo_stop: Some(Self::stop),
        ndo_start_xmit: Some(Self::xmit),
        // SAFETY: All fields are pointers or integers, for which zeros are good.
        ..unsafe { MaybeUninit::zeroed().assume_init() }
    };

    /// # Safety
    ///
    /// `dev` must be a device of `D` between `new_link()` and `destroy()`.
    #[inline]
    unsafe fn device<'a>(dev: *mut bindings::net_device) -> Result<&'a RcuArc<D::Device>> {
        // SAFETY: By the requirement of this function.
        unsafe { (*private::<D>(dev)).device.as_ref() }.ok_or(ENODEV)
    }

    /// Initialises a device that is being allocated.
    ///
    /// # Safety
    ///
    /// For C, as `rtnl_link_ops::setup` of `D`.
    unsafe extern "C" fn setup(dev: *mut bindings::net_device) {
        let Some(kind) = kind_of::<D>() else { return };
        // SAFETY: The device is being allocated by the link operations of `D`. The strings and
        // tables live as long as the registration, hence longer than the device.
        unsafe {
            bindings::wg_netdev_setup_l3(
                dev,
                &Self::NETDEV_OPS,
                &raw const (*kind.as_ptr()).devtype,
                D::MTU,
                D::MAX_MTU,
                D::HEADROOM,
                D::TAILROOM,
            );
        }
    }

    /// Makes a link of a device that has been set up. RTNL.
    ///
    /// # Safety
    ///
    /// For C, as `rtnl_link_ops::newlink` of `D`.
    unsafe extern "C" fn new_link(
        dev: *mut bindings::net_device,
        params: *mut bindings::rtnl_newlink_params,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        from_result(|| {
            // SAFETY: C calls this once for a device that `setup()` has seen.
            unsafe { Self::make_link(dev, params) }?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::new_link`].
    unsafe fn make_link(
        dev: *mut bindings::net_device,
        params: *mut bindings::rtnl_newlink_params,
    ) -> Result {
        let kind = kind_of::<D>().ok_or(ENODEV)?;
        // SAFETY: The device is new: its private area is ours to initialise.
        let private = unsafe { private::<D>(dev) };
        let init = pin_init!(Private {
            holders <- Holders::new(),
            device: None,
            dev,
            next: ptr::null_mut(),
        });
        // SAFETY: The private area is ours to initialise, and stays where it is until the device is
        // freed.
        unsafe { pin_init::raw_init(private, init) };
        // SAFETY: The private area has been initialised.
        let netdev = unsafe { NetDevice::from_raw(dev) };
        // SAFETY: `params` is valid; the namespace is kept by C during the call.
        let link_net = unsafe { Net::from_raw(bindings::wg_newlink_link_net(params)) };
        let device = D::new_link(netdev, link_net).inspect_err(|_| {
            // What was made so far may hold handles that go with RCU callbacks.
            // SAFETY: The private area has been initialised.
            unsafe { (*private).holders.put_and_wait() };
        })?;
        // SAFETY: Nobody else can see the device yet.
        unsafe { (*private).device = Some(device.clone()) };
        // SAFETY: The device is set up; RTNL is held.
        if let Err(error) = to_result(unsafe { bindings::register_netdevice(dev) }) {
            // SAFETY: It is unregistered, or never was: nobody looks at the private area now.
            unsafe { (*private).device = None };
            D::abandoned(device);
            // SAFETY: The private area is initialised until C frees the device, after the call.
            unsafe { (*private).holders.put_and_wait() };
            return Err(error);
        }
        // SAFETY: RTNL is held, which guards the list. The destructor is set only now, so that a
        // failed registration does not call it.
        unsafe {
            (*private).next = (*kind.as_ptr()).devices.cast();
            (*kind.as_ptr()).devices = private.cast();
            bindings::wg_netdev_set_destructor(dev, Some(Self::destructor));
        }
        D::registered(&device);
        Ok(())
    }

    /// Called when the device is unregistered and the stack has no references to it any more. RTNL
    /// is not held. C frees the device afterwards.
    ///
    /// # Safety
    ///
    /// For C, as `net_device::priv_destructor` of a device of `D`.
    unsafe extern "C" fn destructor(dev: *mut bindings::net_device) {
        // SAFETY: A device of ours.
        let private = unsafe { private::<D>(dev) };
        {
            let _rtnl = lock();
            // SAFETY: RTNL guards the list.
            unsafe { Self::unlist(private) };
        }
        // SAFETY: Nobody looks at the private area now but those who have handles.
        if let Some(device) = unsafe { (*private).device.take() } {
            D::destroy(device);
        }
        // SAFETY: The private area is valid until C frees the device.
        unsafe { (*private).holders.put_and_wait() };
        // SAFETY: The device is valid until C frees it.
        D::destroyed(unsafe { NetDevice::from_raw(dev) });
    }

    /// # Safety
    ///
    /// RTNL must be held.
    unsafe fn unlist(private: *mut Private<D>) {
        let Some(kind) = kind_of::<D>() else { return };
        // SAFETY: By the requirement of this function.
        unsafe {
            let mut link: *mut *mut Private<D> = (&raw mut (*kind.as_ptr()).devices).cast();
            while !(*link).is_null() {
                if *link == private {
                    *link = (*private).next;
                    return;
                }
                link = &raw mut (**link).next;
            }
        }
    }

    /// # Safety
    ///
    /// For C, as `ndo_open` of a device of `D`.
    unsafe extern "C" fn open(dev: *mut bindings::net_device) -> c_int {
        from_result(|| {
            // SAFETY: The device is registered, and C holds RTNL during the call.
            let (device, rtnl) = unsafe { (Self::device(dev)?, RtnlGuard::assume_held()) };
            D::open(device, &rtnl)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For C, as `ndo_stop` of a device of `D`.
    unsafe extern "C" fn stop(dev: *mut bindings::net_device) -> c_int {
        // SAFETY: The device is registered.
        if let Ok(device) = unsafe { Self::device(dev) } {
            D::stop(device);
        }
        0
    }

    /// # Safety
    ///
    /// For C, as `ndo_start_xmit` of a device of `D`.
    unsafe extern "C" fn xmit(
        skb: *mut bindings::sk_buff,
        dev: *mut bindings::net_device,
    ) -> bindings::netdev_tx_t {
        let Some(skb) = NonNull::new(skb) else {
            return 0;
        };
        // SAFETY: The stack gives the packet away.
        let skb = unsafe { SkBuff::from_raw(skb) };
        // SAFETY: The device is registered.
        let sent = unsafe { Self::device(dev) }.and_then(|device| D::xmit(device, skb));
        // `NETDEV_TX_OK`, or an error as the stack passes it up.
        match sent {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// For C, as `pernet_operations::exit_rtnl` of the kind of `D`.
    unsafe extern "C" fn exit_rtnl(net: *mut bindings::net, _kill: *mut bindings::list_head) {
        // SAFETY: The namespace is valid, RTNL is held.
        let (net, rtnl) = unsafe { (Net::from_raw(net), RtnlGuard::assume_held()) };
        for_each_device::<D>(&rtnl, |device| D::namespace_exit(device, net, &rtnl));
        namespace::clear_weak_pointers_to(net);
    }
}

/// The registration of a link kind. Dropping it removes all devices of the kind.
///
/// # Invariants
///
/// `kind` is what [`KIND`] points to, and registered.
pub struct LinkRegistration<D: LinkDriver> {
    kind: NonNull<Kind>,
    _driver: PhantomData<D>,
}

// SAFETY: The registration only holds what C looks at under locks of its own.
unsafe impl<D: LinkDriver> Send for LinkRegistration<D> {}
// SAFETY: The registration only holds what C looks at under locks of its own.
unsafe impl<D: LinkDriver> Sync for LinkRegistration<D> {}

impl<D: LinkDriver> LinkRegistration<D> {
    /// Registers the kind `kind`, which is the DEVTYPE of the devices' uevents, too. Process
    /// context, without RTNL.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is such a kind already, `EBUSY` if this module has registered one.
    pub fn register(kind_name: &'static CStr) -> Result<Self> {
        // SAFETY: The fields of the C types are pointers and integers, for which zeros are good.
        let (mut ops, mut pernet, mut devtype): (
            bindings::rtnl_link_ops,
            bindings::pernet_operations,
            bindings::device_type,
        ) = unsafe {
            (
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
            )
        };
        ops.kind = kind_name.as_char_ptr();
        ops.priv_size = size_of::<Private<D>>();
        ops.setup = Some(Thunks::<D>::setup);
        ops.newlink = Some(Thunks::<D>::new_link);
        pernet.exit_rtnl = Some(Thunks::<D>::exit_rtnl);
        devtype.name = kind_name.as_char_ptr();
        let kind = KBox::new(
            Kind {
                ops,
                pernet,
                devtype,
                driver: TypeId::of::<D>(),
                devices: ptr::null_mut(),
            },
            GFP_KERNEL,
        )?;
        let kind = NonNull::from(KBox::leak(kind));
        let free = |error| {
            // SAFETY: It comes from the box above and is not registered.
            drop(unsafe { KBox::from_raw(kind.as_ptr()) });
            error
        };
        KIND.compare_exchange(
            ptr::null_mut(),
            kind.as_ptr(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        )
        .map_err(|_| free(EBUSY))?;
        let unpublish = |error| {
            KIND.store(ptr::null_mut(), Ordering::Release);
            free(error)
        };
        // SAFETY: The operations stay where they are until they are unregistered.
        to_result(unsafe { bindings::register_pernet_device(&raw mut (*kind.as_ptr()).pernet) })
            .map_err(unpublish)?;
        // SAFETY: The operations stay where they are until they are unregistered.
        to_result(unsafe { bindings::rtnl_link_register(&raw mut (*kind.as_ptr()).ops) }).map_err(
            |error| {
                // SAFETY: It has just been registered.
                unsafe { bindings::unregister_pernet_device(&raw mut (*kind.as_ptr()).pernet) };
                unpublish(error)
            },
        )?;
        // INVARIANT: As just done.
        Ok(Self {
            kind,
            _driver: PhantomData,
        })
    }
}

impl<D: LinkDriver> Drop for LinkRegistration<D> {
    fn drop(&mut self) {
        // SAFETY: The kind is registered by the type invariant. Unregistering removes all devices
        // and returns when their destructors have run, so nobody looks at the kind after it.
        unsafe {
            bindings::rtnl_link_unregister(&raw mut (*self.kind.as_ptr()).ops);
            bindings::unregister_pernet_device(&raw mut (*self.kind.as_ptr()).pernet);
            KIND.store(ptr::null_mut(), Ordering::Release);
            drop(KBox::from_raw(self.kind.as_ptr()));
        }
    }
}

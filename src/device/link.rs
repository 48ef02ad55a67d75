// SPDX-License-Identifier: GPL-2.0

//! Links as RTNL sees them: made, brought up and down, moved, destroyed; and the events that come
//! from outside: suspend, VM fork, the end of a namespace.

use core::sync::atomic::Ordering::SeqCst;

use kernel::{alloc::flags::GFP_KERNEL, prelude::*, sync::Arc};

use crate::{
    device::{limiter::Limiter, netlink, peer::Peer, Device, Shared, SharedHandle, SHARED},
    kapi::{
        debug::{self, DevEvent},
        net::{
            genetlink,
            namespace::Net,
            netdevice::NetDevice,
            rtnl::{self, LinkDriver, LinkRegistration},
            skbuff::{SkBuff, MESSAGE_HEADROOM},
        },
        notifier::{
            PmCallback, PmEvent, PmNotifier, VmForkCallback, VmForkNotifier, SUSPENDS_CONSTANTLY,
        },
        sync::rcu::{self, RcuArc},
        time,
    },
    proto::{
        consts::{PADDING_MULTIPLE, TAG_LEN},
        messages::DATA_MIN_LEN,
    },
};

/// All that the module has registered, in the order in which it is taken back.
pub(crate) struct Registration {
    _netlink: genetlink::Registration,
    _vm_fork: VmForkNotifier<WireGuardLink>,
    _pm: PmNotifier<WireGuardLink>,
    _link: LinkRegistration<WireGuardLink>,
    _shared: SharedRegistration,
}

impl Registration {
    /// Registers everything; what was registered is taken back if a later step fails.
    ///
    /// # Errors
    ///
    /// `EEXIST` if somebody else provides WireGuard.
    pub(crate) fn new(coexist: bool) -> Result<Self> {
        let kind = if coexist {
            c"wireguard_rs"
        } else {
            c"wireguard"
        };
        let shared = SharedRegistration::new()?;
        let link = LinkRegistration::register(kind)?;
        Ok(Self {
            _shared: shared,
            _link: link,
            _pm: PmNotifier::new()?,
            _vm_fork: VmForkNotifier::new()?,
            _netlink: netlink::register(coexist)?,
        })
    }
}

/// [`Shared`] is there for new devices while this exists.
struct SharedRegistration(Option<Arc<Shared>>);

impl SharedRegistration {
    fn new() -> Result<Self> {
        let shared = Arc::new(Shared::new()?, GFP_KERNEL)?;
        SHARED.swap(Some(RcuArc::new(SharedHandle(shared.clone()), GFP_KERNEL)?));
        Ok(Self(Some(shared)))
    }
}

impl Drop for SharedRegistration {
    fn drop(&mut self) {
        SHARED.swap(None);
        if let Some(shared) = &self.0 {
            Limiter::stop(&shared.limiter);
        }
        // Devices hold it too, and go where nobody may sleep: they must be gone before. Each has
        // been let go of already.
        rcu::barrier();
        self.0 = None;
        rcu::drain();
    }
}

impl PmCallback for WireGuardLink {
    fn notify(event: PmEvent) {
        let suspending = matches!(event, PmEvent::SuspendPrepare | PmEvent::HibernationPrepare);
        if suspending && !SUSPENDS_CONSTANTLY {
            rtnl::for_each_device::<Self>(&rtnl::lock(), Self::suspend);
            rcu::barrier();
        }
    }
}

impl VmForkCallback for WireGuardLink {
    fn notify() {
        rtnl::for_each_device::<Self>(&rtnl::lock(), Self::vm_fork);
    }
}

/// What a packet grows by at most, padding aside: our header and tag, UDP, IPv6.
const OVERHEAD: u32 = DATA_MIN_LEN as u32 + 8 + 40;

/// The link kind.
pub(crate) struct WireGuardLink;

impl LinkDriver for WireGuardLink {
    type Device = Device;

    const MTU: u32 = 1500 - OVERHEAD;
    const MAX_MTU: u32 =
        i32::MAX as u32 / PADDING_MULTIPLE as u32 * PADDING_MULTIPLE as u32 - OVERHEAD;
    const HEADROOM: u16 = MESSAGE_HEADROOM as u16;
    const TAILROOM: u16 = (PADDING_MULTIPLE + TAG_LEN) as u16;

    fn new_link(netdev: &NetDevice, link_net: &Net) -> Result<RcuArc<Device>> {
        let shared = SHARED.get().ok_or(ENODEV)?;
        Device::new(netdev, link_net, shared.0.clone())
    }

    fn registered(device: &RcuArc<Device>) {
        debug::dev(device.netdev(), DevEvent::Created);
    }

    fn abandoned(device: RcuArc<Device>) {
        Device::dismantle(&device);
    }

    fn open(device: &RcuArc<Device>) -> Result {
        device.netdev().disable_redirects_and_addrgen();
        let update = Device::lock_update(device);
        // First, so that what the first packet starts is not refused.
        device.up.store(true, SeqCst);
        Device::open_sockets(device, device.port())
            .inspect_err(|_| device.up.store(false, SeqCst))?;
        update.for_each_peer(Peer::resume);
        Ok(())
    }

    fn stop(device: &RcuArc<Device>) {
        let update = Device::lock_update(device);
        device.up.store(false, SeqCst);
        update.for_each_peer(Peer::stop_timers);
        device.handshakes.clear();
        device.close_sockets();
        // Nothing new comes in or starts now. What is under way ends here: it must not leave keys
        // behind that have just been erased, nor count on a link that is gone.
        device.shared().queues.flush();
        update.for_each_peer(|peer| {
            peer.purge_staged();
            Peer::clear_handshake(peer);
            peer.keypairs.clear(peer);
        });
    }

    fn xmit(device: &Device, skb: SkBuff) -> Result {
        device.xmit(skb)
    }

    fn destroy(device: RcuArc<Device>) {
        Device::dismantle(&device);
        debug::dev(device.netdev(), DevEvent::Destroyed);
    }

    fn namespace_exit(device: &RcuArc<Device>, net: &Net) {
        if !device.creating_net.is(net) {
            return;
        }
        debug::dev(device.netdev(), DevEvent::NetnsExit);
        device.netdev().carrier_off();
        let update = Device::lock_update(device);
        device.creating_net.clear();
        device.close_sockets();
        update.for_each_peer(|peer| peer.clear_source());
    }
}

impl WireGuardLink {
    /// Erases what a thief of the sleeping machine could use.
    fn suspend(device: &RcuArc<Device>) {
        let update = Device::lock_update(device);
        update.for_each_peer(|peer| {
            peer.timer_state.forget_keys();
            Peer::clear_handshake(peer);
            peer.keypairs.clear(peer);
        });
    }

    /// Another machine may have the same state now: nothing may be sent with it any more.
    fn vm_fork(device: &RcuArc<Device>) {
        let update = Device::lock_update(device);
        update.for_each_peer(Peer::stop_sending);
    }
}

impl Device {
    /// Ends a device that is no longer registered, and waits until nobody refers to it. Process
    /// context, without RTNL.
    pub(crate) fn dismantle(this: &RcuArc<Self>) {
        {
            let mut update = Device::lock_update(this);
            this.up.store(false, SeqCst);
            this.creating_net.clear();
            this.close_sockets();
            update.remove_all_peers();
            this.identity.swap(None);
        }
        this.handshakes.clear();
        this.shared().queues.flush();
        let contexts = core::mem::replace(&mut *this.rx_contexts.lock(), KVec::new());
        for context in &contexts {
            context.stop();
        }
        drop(contexts);
        this.handshakes.stop();
        let mut rounds: u32 = 0;
        while RcuArc::ref_count(this) > 1 {
            rcu::barrier();
            rounds = rounds.saturating_add(1);
            if rounds == 1000 {
                pr_err!(
                    "{}: still {} references\n",
                    this.netdev.name(),
                    RcuArc::ref_count(this)
                );
            }
            if rounds > 10 {
                time::sleep_ms(1);
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Links as RTNL sees them: created, brought up and down, moved, destroyed; and what suspend and a
//! VM fork do to one.

use kernel::{alloc::flags::GFP_KERNEL, new_mutex, prelude::*, sync::Arc};

use crate::{
    device::{
        config::{self, Config},
        counters::DeviceCounters,
        delivery::RxContext,
        events::Events,
        handshake,
        handshake_queue::HandshakeQueue,
        packet,
        peer::Peer,
        queueing::CryptQueue,
        random_secret, send,
        sessions::{self, Sessions},
        socket, timers, Device, Shared, SHARED,
    },
    kapi::{
        cpu,
        debug::{self, DevEvent},
        net::{
            ip,
            namespace::{Net, WeakNet},
            netdevice::NetDevice,
            rtnl::{LinkDriver, RtnlGuard},
            skbuff::SkBuff,
        },
        sync::{
            atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
            rcu::{RcuArc, RcuCell},
        },
        time,
    },
    new_spinlock_bh,
    proto::{
        consts::{PADDING_MULTIPLE, TAG_LEN},
        cookie::CookieChecker,
        messages::DATA_MIN_LEN,
    },
    tables::{allowedips::AllowedIps, peerlookup::PubkeyTable},
};

/// Receive contexts that a device has at most. Peers are spread over them, so that neither one
/// peer nor ten thousand of them need one each.
const MAX_RX_CONTEXTS: u32 = 8;

/// What a packet grows by at most, padding aside: our header and tag, UDP, IPv6.
const OVERHEAD: u32 = (DATA_MIN_LEN + ip::UDP_HEADER_LEN + ip::IPV6_HEADER_LEN) as u32;

/// The link kind.
pub(crate) struct WireGuardLink;

impl LinkDriver for WireGuardLink {
    type Device = Device;

    const MTU: u32 = 1500 - OVERHEAD;
    const MAX_MTU: u32 =
        i32::MAX as u32 / PADDING_MULTIPLE as u32 * PADDING_MULTIPLE as u32 - OVERHEAD;
    const HEADROOM: u16 = packet::HEADROOM as u16;
    const TAILROOM: u16 = (PADDING_MULTIPLE + TAG_LEN) as u16;

    fn new_link(netdev: &NetDevice, link_net: &Net) -> Result<RcuArc<Device>> {
        let shared = SHARED.get().ok_or(ENODEV)?;
        new_device(netdev, link_net, shared.0.clone())
    }

    fn registered(device: &RcuArc<Device>) {
        debug::dev(device.netdev(), DevEvent::Created);
    }

    fn abandoned(device: RcuArc<Device>) {
        dismantle(&device);
    }

    fn open(device: &RcuArc<Device>, rtnl: &RtnlGuard) -> Result {
        device.netdev().disable_redirects_and_addrgen(rtnl);
        let update = config::lock(device);
        // First, so that what the first packet starts is not refused.
        device.up.store(true, SeqCst);
        socket::open(device, device.port(), &update.binding())
            .inspect_err(|_| device.up.store(false, SeqCst))?;
        update.for_each_peer(|peer| {
            timers::resume(peer);
            config::begin_if_eager(peer);
        });
        Ok(())
    }

    fn stop(device: &RcuArc<Device>) {
        let update = config::lock(device);
        device.up.store(false, SeqCst);
        update.for_each_peer(Peer::stop_timers);
        socket::close(device);
        // Nothing is waited for here: what is under way finds that its peer may not run, and is
        // refused where it would commit a handshake, a session or a packet.
        device.handshakes.clear(device);
        device.crypt.give_up();
        update.for_each_peer(|peer| {
            Peer::cancel_work(peer);
            peer.purge_staged();
            handshake::clear(peer);
            sessions::clear(peer);
        });
    }

    fn xmit(device: &Device, skb: SkBuff) -> Result {
        send::xmit(device, skb)
    }

    fn destroy(device: RcuArc<Device>) {
        dismantle(&device);
    }

    fn destroyed(netdev: &NetDevice) {
        debug::dev(netdev, DevEvent::Destroyed);
    }

    fn namespace_exit(device: &RcuArc<Device>, net: &Net, rtnl: &RtnlGuard) {
        if !device.creating_net.is(net) {
            return;
        }
        debug::dev(device.netdev(), DevEvent::NetnsExit);
        device.netdev().carrier_off(rtnl);
        let update = config::lock(device);
        device.creating_net.clear();
        socket::close(device);
        update.for_each_peer(|peer| peer.clear_source());
    }
}

/// Creates a device for a link that is about to be registered. Under RTNL.
fn new_device(netdev: &NetDevice, link_net: &Net, shared: Arc<Shared>) -> Result<RcuArc<Device>> {
    let (allowed_ips, writer) = AllowedIps::new(GFP_KERNEL)?;
    let peers_by_key = PubkeyTable::new(GFP_KERNEL)?;
    let sessions = Sessions::new(GFP_KERNEL)?;
    let handshakes = HandshakeQueue::new()?;
    let crypt = CryptQueue::new()?;
    let counters = DeviceCounters::new()?;
    let creating_net = WeakNet::new(link_net)?;
    let checker = CookieChecker::new(random_secret(), time::boottime_coarse_ns());
    let checker = RcuArc::new(checker, GFP_KERNEL)?;
    let netdev_ref = netdev.handle();
    let bulk = shared.bulk;
    let device = RcuArc::pin_init(
        try_pin_init!(Device {
            netdev: netdev_ref,
            creating_net,
            shared,
            up: AtomicBool::new(false),
            bulk: AtomicBool::new(bulk),
            copy_dscp: AtomicBool::new(false),
            eager: AtomicBool::new(false),
            port: AtomicU32::new(0),
            fwmark: AtomicU32::new(0),
            identity: RcuCell::empty(),
            cookie_checker: RcuCell::new(Some(checker)),
            checker_writer <- new_mutex!(()),
            sockets: RcuCell::empty(),
            events: Events::new(),
            counters,
            peers_by_key,
            sessions,
            allowed_ips,
            handshakes,
            crypt,
            rx_contexts <- new_spinlock_bh!(KVec::new()),
            update <- new_mutex!(Config::new(writer)),
        }? Error),
        GFP_KERNEL,
    )?;
    let started = start_contexts(&device)
        .and_then(|()| device.handshakes.start(&device))
        .and_then(|()| device.crypt.start(&device));
    match started {
        Ok(()) => Ok(device),
        Err(error) => {
            dismantle(&device);
            Err(error)
        }
    }
}

/// Creates the receive contexts. Those created before an error are kept, to be dismantled.
fn start_contexts(device: &Device) -> Result {
    let count = cpu::nr_ids().min(MAX_RX_CONTEXTS);
    let mut contexts = KVec::with_capacity(count as usize, GFP_KERNEL)?;
    let made = (0..count).try_for_each(|_| {
        let context = RxContext::new(&device.netdev)?;
        contexts.push_within_capacity(context).map_err(|_| ENOMEM)
    });
    *device.rx_contexts.lock() = contexts;
    made
}

/// Erases what a thief of the sleeping machine could use.
pub(crate) fn suspend(device: &RcuArc<Device>) {
    let update = config::lock(device);
    update.for_each_peer(|peer| {
        peer.timer_state.forget_keys();
        handshake::clear(peer);
        sessions::clear(peer);
    });
}

/// Another machine may have the same state now: nothing may be sent with it any more.
pub(crate) fn vm_fork(device: &RcuArc<Device>) {
    let update = config::lock(device);
    update.for_each_peer(handshake::stop_sending);
}

/// Ends a device that is not registered: all that refers to it is dropped, or will be after a grace
/// period. Process context.
fn dismantle(device: &RcuArc<Device>) {
    {
        let mut update = config::lock(device);
        device.up.store(false, SeqCst);
        device.creating_net.clear();
        socket::close(device);
        update.remove_all_peers();
        device.identity.swap(None);
    }
    device.handshakes.stop(device);
    device.crypt.stop();
    let contexts = core::mem::replace(&mut *device.rx_contexts.lock(), KVec::new());
    for context in &contexts {
        context.stop();
    }
    drop(contexts);
}

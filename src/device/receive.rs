// SPDX-License-Identifier: GPL-2.0

//! From the wire to the network stack: sorting, decryption, acceptance, delivery.

use core::sync::atomic::Ordering::Relaxed;

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::{
        keypairs::{IndexEntry, Keypair},
        peer::Peer,
        queueing::{enqueue, Direction},
        send, Device,
    },
    kapi::{
        debug::{self, PeerEvent, SkbEvent},
        net::{
            endpoint::Endpoint,
            napi::{Napi, NapiPoll, NapiScope},
            netdevice::NetDevice,
            skbuff::{RxError, SkBuff, Skb, SkbList},
        },
        sync::{
            bh,
            rcu::{self, RcuArc},
            spinlock_bh::SpinLockBh,
        },
        time,
    },
    new_napi, new_spinlock_bh,
    proto::{
        messages::{DataHeader, MessageType, DATA_MIN_LEN},
        timers::Event,
    },
    tables::runqueue::Claim,
};

/// Packets that may wait for one receive context's poll; more are dropped.
const MAX_QUEUED_DELIVERIES: usize = 8192;

/// Takes a datagram from one of the device's sockets. Softirq context.
pub(crate) fn receive(device: &Device, mut skb: SkBuff) {
    if skb.prepare_received().is_err() {
        debug::skb(device.netdev(), SkbEvent::InvalidHeader, &skb);
        return;
    }
    let kind = skb
        .data()
        .first_chunk()
        .and_then(|header| MessageType::classify(*header, skb.len()).ok());
    match kind {
        Some(MessageType::Data) => receive_data(device, skb),
        Some(_) => device.queue_handshake(skb),
        None => debug::skb(device.netdev(), SkbEvent::InvalidHeader, &skb),
    }
}

/// Finds the session of transport data and decrypts, here or on a worker.
fn receive_data(device: &Device, mut skb: SkBuff) {
    let Ok((header, _)) = DataHeader::read_from_prefix(skb.data()) else {
        return;
    };
    let ds = skb.outer_dsfield();
    let cb = skb.cb_mut();
    cb.nonce = header.counter();
    cb.ds = ds;

    let guard = rcu::read_lock();
    let entry = device.sessions().lookup(&guard, header.receiver_index());
    let Some(IndexEntry::Session { peer, keypair }) = entry else {
        return;
    };
    if peer.is_dead() {
        return;
    }
    let claim = if peer.rx_inline.take(time::jiffies() as u32) {
        Claim::idle(&peer.rx)
    } else {
        None
    };
    let Some(claim) = claim else {
        enqueue(peer, keypair, Direction::Decrypt, SkbList::from(skb));
        return;
    };
    let now = time::boottime_coarse_ns();
    if keypair.may_receive(now) && open(keypair, &mut skb) {
        accept_run(peer, keypair, SkbList::from(skb));
    }
    drop(claim);
}

fn open(keypair: &Keypair, packet: &mut Skb) -> bool {
    let nonce = packet.cb().nonce;
    packet.open(keypair.receiving_key().expose(), nonce).is_ok()
}

/// Decrypts a run in place; what does not authenticate is dropped.
pub(crate) fn decrypt(keypair: &Keypair, packets: &mut SkbList) {
    if keypair.may_receive(time::boottime_coarse_ns()) {
        packets.retain_mut(|packet| open(keypair, packet));
    } else {
        *packets = SkbList::new();
    }
}

/// What happens to packets that have authenticated: replay check, confirmation of the key,
/// roaming, the checks of what they carry, timers, delivery. The caller has the receive FIFO to
/// itself.
pub(crate) fn accept_run(peer: &RcuArc<Peer>, keypair: &RcuArc<Keypair>, mut packets: SkbList) {
    let _bh = bh::disable();
    keypair.accept_counters(&mut packets, |nonce, max| {
        debug::invalid_nonce(peer.netdev(), nonce, max);
    });
    if packets.is_empty() {
        return;
    }
    peer.tx_inline.renew();
    let confirmed = peer.keypairs.confirm(peer, keypair);
    if confirmed {
        peer.note_completed();
        Peer::on(peer, Event::SessionConfirmed);
    }
    let mut event = Event::KeepaliveReceived;
    let mut sender = None;
    let mut counted = Counted::default();
    packets.retain_mut(|packet| {
        let Some(endpoint) = Endpoint::from_skb(packet) else {
            return false;
        };
        if sender != Some(endpoint) {
            peer.roam(&endpoint);
            sender = Some(endpoint);
        }
        packet.reset_decapsulated();
        // As the counters see it, a packet is as long as its message was.
        let message_len = packet.len().saturating_add(DATA_MIN_LEN);
        if packet.len() == 0 {
            counted.add(message_len);
            debug::peer(
                peer.netdev(),
                PeerEvent::RecvKeepalive,
                peer.id(),
                sender.as_ref(),
            );
            return false;
        }
        event = Event::DataReceived;
        let accepted = acceptable(peer, &endpoint, packet);
        if accepted {
            counted.add(message_len);
        }
        accepted
    });
    if confirmed {
        // Only now, so that what waited for the session goes to where the packets came from.
        send::send_staged(peer);
    }
    Peer::on(peer, event);
    renew_if_old(peer);
    peer.count_received(counted);
    peer.rx_context().deliver(peer.netdev(), packets);
}

/// Checks what a packet carries: a whole IP packet whose source is the peer's.
fn acceptable(peer: &RcuArc<Peer>, endpoint: &Endpoint, packet: &mut Skb) -> bool {
    let netdev = peer.netdev();
    let ds = packet.cb().ds;
    if let Err(error) = packet.finish_receive(netdev, ds) {
        let event = match error {
            RxError::Size => {
                netdev.inc_rx_length_errors();
                PeerEvent::InvalidSize
            }
            RxError::Type => {
                netdev.inc_rx_frame_errors();
                PeerEvent::InvalidType
            }
        };
        netdev.inc_rx_errors();
        debug::peer(netdev, event, peer.id(), Some(endpoint));
        return false;
    }
    let guard = rcu::read_lock();
    let owner = packet
        .src_addr()
        .and_then(|addr| peer.device().allowed_ips().lookup(&guard, addr));
    if !owner.is_some_and(|owner| owner.ptr_eq(peer)) {
        netdev.inc_rx_errors();
        netdev.inc_rx_frame_errors();
        debug::unallowed_src(netdev, packet, peer.id(), endpoint);
        return false;
    }
    true
}

/// Messages that count as received.
#[derive(Default)]
pub(crate) struct Counted {
    messages: usize,
    bytes: usize,
}

impl Counted {
    pub(crate) fn add(&mut self, len: usize) {
        self.messages = self.messages.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(len);
    }
}

/// Starts a new handshake when the session is about to end and nothing was sent that would have
/// done so; once per session.
fn renew_if_old(peer: &RcuArc<Peer>) {
    if !peer.timer_state.last_minute_is_due() {
        return;
    }
    let now = time::boottime_coarse_ns();
    if peer
        .keypairs
        .with_current(|keypair| keypair.rekey_after_receive(now))
        && peer.timer_state.claim_last_minute()
    {
        Peer::request_handshake(peer);
    }
}

impl Peer {
    /// Counts messages for the peer and the device. BH is disabled.
    pub(crate) fn count_received(&self, counted: Counted) {
        if counted.messages != 0 {
            self.netdev().sw_rx_add(counted.messages, counted.bytes);
            self.rx_bytes.fetch_add(counted.bytes as u64, Relaxed);
        }
    }
}

/// A receive context: hands accepted packets to the network stack through NAPI, which merges
/// them (GRO). A device has a few, whatever the number of its peers.
#[pin_data]
pub(crate) struct RxContext {
    #[pin]
    ready: SpinLockBh<SkbList>,
    #[pin]
    napi: Napi<RxContext>,
}

crate::impl_has_napi! {
    impl HasNapi for RxContext { self.napi }
}

impl RxContext {
    /// Makes a context for a device that is being set up, and switches it on.
    pub(crate) fn new(netdev: &NetDevice) -> Result<RcuArc<Self>> {
        let context = RcuArc::pin_init(
            pin_init!(Self {
                ready <- new_spinlock_bh!(SkbList::new()),
                napi <- new_napi!(),
            }),
            GFP_KERNEL,
        )?;
        Napi::add(&context, netdev);
        Ok(context)
    }

    /// Hands packets on, or drops and counts them when too many wait already. Any context but hard
    /// interrupts.
    fn deliver(&self, netdev: &NetDevice, mut packets: SkbList) {
        if packets.is_empty() {
            return;
        }
        {
            let mut ready = self.ready.lock();
            if ready.len() >= MAX_QUEUED_DELIVERIES {
                netdev.add_rx_dropped(packets.len());
                return;
            }
            ready.append(&mut packets);
        }
        self.napi.schedule();
    }

    /// Switches the context off. Sleeps.
    pub(crate) fn stop(&self) {
        self.napi.remove();
        *self.ready.lock() = SkbList::new();
    }
}

impl NapiPoll for RxContext {
    fn poll(&self, napi: &NapiScope, budget: usize) -> usize {
        let mut packets = self.ready.lock().split_front(budget);
        let count = packets.len();
        while let Some(skb) = packets.pop_front() {
            napi.gro_receive(skb);
        }
        count
    }
}

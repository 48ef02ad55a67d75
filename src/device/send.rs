// SPDX-License-Identifier: GPL-2.0

//! From the network stack to the wire: staging, nonces, encryption, transmission.

use kernel::prelude::*;

use crate::{
    device::{
        keypairs::Keypair,
        peer::Peer,
        queueing::{enqueue, Direction, INLINE_PACKETS},
        Device,
    },
    kapi::{
        cpu,
        debug::{self, PeerEvent, SkbEvent},
        net::{
            icmp, netdevice,
            skbuff::{SkBuff, SkbList},
        },
        sync::rcu::{self, RcuArc},
        time,
    },
    proto::{consts::MAX_STAGED_PACKETS, messages::DATA_MIN_LEN, timers::Event},
    tables::runqueue::Claim,
};

impl Device {
    /// Takes a packet of the network stack. BH is disabled.
    ///
    /// # Errors
    ///
    /// The error reaches the sender of the packet: `EPROTONOSUPPORT`, `ENOKEY` without a peer for
    /// the destination, `EDESTADDRREQ` without an endpoint, or why segmentation failed.
    pub(crate) fn xmit(&self, skb: SkBuff) -> Result {
        if !skb.is_valid_ip_packet() {
            debug::skb(&self.netdev, SkbEvent::InvalidIp, &skb);
            self.netdev.inc_tx_errors();
            return Err(EPROTONOSUPPORT);
        }
        let guard = rcu::read_lock();
        let peer = skb
            .dst_addr()
            .and_then(|addr| self.allowed_ips.lookup(&guard, addr));
        let Some(peer) = peer.and_then(|peer| peer.upgrade()) else {
            debug::skb(&self.netdev, SkbEvent::NoPeer, &skb);
            return Err(self.refuse(skb, ENOKEY));
        };
        drop(guard);
        if !peer.has_endpoint() {
            debug::peer(&self.netdev, PeerEvent::NoEndpoint, peer.id(), None);
            return Err(self.refuse(skb, EDESTADDRREQ));
        }
        let mtu = skb.dst_mtu().unwrap_or(self.netdev.mtu());
        let mut packets = match skb.segment() {
            Ok(packets) => packets,
            Err((skb, error)) => return Err(self.refuse(skb, error)),
        };
        for packet in packets.iter_mut() {
            packet.cb_mut().mtu = mtu;
        }
        self.stage(&peer, packets);
        send_staged(&peer);
        Ok(())
    }

    /// Tells the sender that the packet cannot be delivered.
    fn refuse(&self, skb: SkBuff, error: Error) -> Error {
        icmp::unreachable(&skb);
        self.netdev.inc_tx_errors();
        error
    }

    /// Appends to the packets that wait for a session. Those over the limit go, oldest first,
    /// before the new ones come: segments of one packet are not torn apart.
    fn stage(&self, peer: &Peer, mut packets: SkbList) {
        let mut excess = SkbList::new();
        let mut staged = peer.staged.lock();
        while staged.len() > MAX_STAGED_PACKETS {
            match staged.pop_front() {
                Some(skb) => excess.push_back(skb),
                None => break,
            }
        }
        staged.append(&mut packets);
        drop(staged);
        self.netdev.add_tx_dropped(excess.len());
    }
}

/// Sends what waits for a session if there is one, and asks for one otherwise.
pub(crate) fn send_staged(peer: &RcuArc<Peer>) {
    let mut packets = core::mem::replace(&mut *peer.staged.lock(), SkbList::new());
    if packets.is_empty() {
        return;
    }
    let keypair = peer.keypairs.current();
    let Some(keypair) = keypair.filter(|keypair| assign_nonces(keypair, &mut packets)) else {
        // Waiting must not keep the sending sockets' buffers full.
        for packet in packets.iter_mut() {
            packet.orphan();
        }
        let mut staged = peer.staged.lock();
        packets.append(&mut staged);
        *staged = packets;
        drop(staged);
        Peer::request_handshake(peer);
        return;
    };
    if peer.is_dead() {
        return;
    }
    let claim = if may_be_inline(peer, &packets) {
        Claim::idle(&peer.tx)
    } else {
        None
    };
    let Some(claim) = claim else {
        enqueue(peer, &keypair, Direction::Encrypt, packets);
        return;
    };
    encrypt(&keypair, &mut packets);
    transmit(peer, packets);
    drop(claim);
}

/// Whether encrypting the run here costs less than handing it to a worker. With one CPU it always
/// does, and the sender is slowed to what can be sent, rather than to fill queues that overflow.
/// Not in a tunnel within a tunnel, for the stack's sake.
fn may_be_inline(peer: &Peer, packets: &SkbList) -> bool {
    packets.len() <= INLINE_PACKETS
        && netdevice::xmit_depth() <= 1
        && (cpu::online_count() == 1 || peer.tx_inline.take(time::jiffies() as u32))
}

/// Gives each packet its nonce and its outer traffic class. False if the key must not be used
/// for that many more.
fn assign_nonces(keypair: &Keypair, packets: &mut SkbList) -> bool {
    let Ok(nonces) = keypair.reserve(packets.len(), time::boottime_coarse_ns()) else {
        return false;
    };
    for (packet, nonce) in packets.iter_mut().zip(nonces) {
        let ds = packet.ecn_encap_ds();
        let cb = packet.cb_mut();
        cb.nonce = nonce.consume();
        cb.ds = ds;
    }
    true
}

/// Encrypts a run in place. What cannot be encrypted, for want of memory, is dropped; its nonce
/// is lost, which does no harm.
pub(crate) fn encrypt(keypair: &Keypair, packets: &mut SkbList) {
    packets.retain_mut(|packet| {
        let nonce = packet.cb().nonce;
        packet
            .seal(
                keypair.sending_key().expose(),
                keypair.remote_index(),
                nonce,
            )
            .is_ok()
    });
}

/// Sends encrypted packets to the peer. The caller has the transmit FIFO to itself.
pub(crate) fn transmit(peer: &RcuArc<Peer>, packets: SkbList) {
    if packets.is_empty() {
        return;
    }
    let has_data = packets.iter().any(|packet| packet.len() != DATA_MIN_LEN);
    Peer::on(peer, Event::Sending);
    peer.rx_inline.renew();
    let sent = peer.send(packets, |packet| packet.cb().ds);
    if has_data && sent != 0 {
        Peer::on(peer, Event::DataSent);
    }
    let now = time::boottime_coarse_ns();
    if peer
        .keypairs
        .with_current(|keypair| keypair.rekey_after_send(now))
    {
        Peer::request_handshake(peer);
    }
}

impl Peer {
    /// Sends what is staged, or an empty packet when nothing is. Any context but hard interrupts.
    pub(crate) fn send_keepalive(this: &RcuArc<Self>) {
        if this.staged.lock().is_empty() {
            let Ok(mut skb) = SkBuff::keepalive(this.device().netdev()) else {
                return;
            };
            skb.cb_mut().mtu = this.device().netdev().mtu();
            this.staged.lock().push_back(skb);
            debug::peer(
                this.device().netdev(),
                PeerEvent::SendKeepalive,
                this.id(),
                Some(&this.endpoint()),
            );
        }
        send_staged(this);
    }

    /// Throws away what is staged.
    pub(crate) fn purge_staged(&self) {
        let staged = core::mem::replace(&mut *self.staged.lock(), SkbList::new());
        self.device().netdev().add_tx_dropped(staged.len());
    }
}

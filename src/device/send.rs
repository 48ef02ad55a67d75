// SPDX-License-Identifier: GPL-2.0-only

//! From the network stack to the wire: staging, nonces, encryption, transmission.

use core::mem;

use kernel::prelude::*;

use crate::{
    device::{
        keypair::Keypair,
        packet::{self, PacketCb},
        peer::{Direction, Peer},
        queueing::{self, enqueue, INLINE_PACKETS, MAY_BE_INLINE},
        socket, Device,
    },
    kapi::{
        debug::{self, PeerEvent, SkbEvent},
        net::{
            icmp, netdevice,
            skbuff::{SkBuff, Skb, SkbList},
        },
        sync::{
            atomic::Ordering::Relaxed,
            rcu::{self, RcuArc},
        },
        time,
    },
    proto::{messages::DATA_MIN_LEN, timers::Event, Rejection},
    tables::runqueue::{Claim, Packets},
};

/// Messages that are sent together lie in whole in pages, of which there may be only single ones.
const MAX_BULK_MESSAGE: u32 = 4000;

/// Takes a packet of the network stack. BH is disabled.
///
/// # Errors
///
/// The error reaches the sender of the packet: `EPROTONOSUPPORT`, `ENOKEY` without a peer for
/// the destination, `EDESTADDRREQ` without an endpoint, or why segmentation failed.
pub(crate) fn xmit(device: &Device, skb: SkBuff) -> Result {
    if !skb.is_valid_ip_packet() {
        debug::skb(&device.netdev, SkbEvent::InvalidIp, &skb);
        device.netdev.inc_tx_errors();
        device.discard(Rejection::NotIp, skb);
        return Err(EPROTONOSUPPORT);
    }
    let guard = rcu::read_lock();
    let peer = skb
        .dst_addr()
        .and_then(|addr| device.allowed_ips.lookup(&guard, addr));
    let Some(peer) = peer.and_then(|peer| peer.upgrade()) else {
        debug::skb(&device.netdev, SkbEvent::NoPeer, &skb);
        tell_sender(device, &skb);
        device.discard(Rejection::NoAllowedIp, skb);
        return Err(ENOKEY);
    };
    drop(guard);
    if !peer.has_endpoint() {
        debug::peer(&device.netdev, PeerEvent::NoEndpoint, peer.id(), None);
        tell_sender(device, &skb);
        peer.discard_one(Rejection::NoEndpoint, skb);
        return Err(EDESTADDRREQ);
    }
    let mtu = skb.dst_mtu().unwrap_or(device.netdev.mtu());
    let mut skb = skb;
    let limit = peer.bulk_limit();
    if limit != 0 && peer.tx.staged.is_empty() {
        match try_send_whole(&peer, skb, mtu, limit) {
            Ok(()) => return Ok(()),
            Err(refused) => skb = refused,
        }
    }
    let mut packets = match skb.segment(limit != 0) {
        Ok(packets) => packets,
        Err((skb, error)) => {
            tell_sender(device, &skb);
            peer.discard_one(Rejection::CannotSegment, skb);
            return Err(error);
        }
    };
    for packet in packets.iter_mut() {
        *packet.cb_mut() = PacketCb {
            mtu,
            ..PacketCb::default()
        };
    }
    if peer.tx.staged.is_empty() {
        match try_send(&peer, packets) {
            Ok(()) => return Ok(()),
            Err(refused) => packets = refused,
        }
    }
    let excess = peer.tx.staged.append(packets);
    if !excess.is_empty() {
        device.netdev.add_tx_dropped(excess.len());
        peer.discard_all(Rejection::StagedOverflow, excess);
    }
    send_staged(&peer);
    Ok(())
}

/// Encrypts and sends a packet that stands for segments; it is cut as it is encrypted. Gives it
/// back if it is none, if they may not be sent together, or if there is no session for so many.
fn try_send_whole(
    peer: &RcuArc<Peer>,
    mut skb: SkBuff,
    mtu: u32,
    limit: u32,
) -> Result<(), SkBuff> {
    let Some(segments) = skb.segments() else {
        return Err(skb);
    };
    let Ok(messages) = u16::try_from(segments.count()) else {
        return Err(skb);
    };
    let longest = segments.header_len.saturating_add(segments.size);
    if messages < 2 || packet::message_len(longest, mtu) > limit.min(MAX_BULK_MESSAGE) as usize {
        return Err(skb);
    }
    skb.drop_dst();
    *skb.cb_mut() = PacketCb {
        mtu,
        messages,
        ..PacketCb::default()
    };
    match try_send(peer, SkbList::from(skb)) {
        Ok(()) => Ok(()),
        Err(mut refused) => refused.pop_front().map_or(Ok(()), Err),
    }
}

/// Tells the sender that the packet cannot be delivered.
fn tell_sender(device: &Device, skb: &SkBuff) {
    icmp::unreachable(skb);
    device.netdev.inc_tx_errors();
}

/// Sends what waits for a session if there is one, and asks for one otherwise.
pub(crate) fn send_staged(peer: &RcuArc<Peer>) {
    let packets = peer.tx.staged.take();
    if packets.is_empty() {
        return;
    }
    let Err(mut packets) = try_send(peer, packets) else {
        return;
    };
    // Waiting must not keep the sending sockets' buffers full.
    for packet in packets.iter_mut() {
        packet.orphan();
    }
    peer.tx.staged.put_back(packets);
    Peer::request_handshake(peer);
}

/// Encrypts and sends packets, here or on a worker. Gives them back if there is no session, or none
/// for so many.
fn try_send(peer: &RcuArc<Peer>, mut packets: SkbList) -> Result<(), SkbList> {
    let keypair = peer.keypairs.current();
    let copy_dscp = peer.device().copy_dscp.load(Relaxed);
    let assigned = |keypair: &RcuArc<Keypair>| assign_nonces(keypair, &mut packets, copy_dscp);
    let Some(keypair) = keypair.filter(assigned) else {
        return Err(packets);
    };
    if peer.is_dead() {
        peer.discard_all(Rejection::SendGoingAway, packets);
        return Ok(());
    }
    let claim = if may_be_inline(peer, &packets) {
        Claim::idle(&peer.tx.fifo, Some(queueing::caller()))
    } else {
        None
    };
    let Some(claim) = claim else {
        enqueue(peer, &keypair, Direction::Encrypt, packets);
        return Ok(());
    };
    encrypt(peer, &keypair, &mut packets);
    transmit_run(peer, packets);
    drop(claim);
    Ok(())
}

/// Whether the run is encrypted here, which is the quickest for it. What follows it at once is left
/// to a worker instead, which sends it together; a socket's send buffer slows its sender to that.
/// Not in a tunnel within a tunnel, for the stack's sake.
fn may_be_inline(peer: &Peer, packets: &SkbList) -> bool {
    MAY_BE_INLINE
        && packets.count() <= INLINE_PACKETS
        && netdevice::xmit_depth() <= 1
        && peer.tx.inline.take(time::jiffies() as u32)
}

/// Gives each packet its nonce and its outer traffic class. False if the key must not be used
/// for that many more.
fn assign_nonces(keypair: &Keypair, packets: &mut SkbList, copy_dscp: bool) -> bool {
    let Ok(mut nonces) = keypair.reserve(packets.count(), time::boottime_coarse_ns()) else {
        return false;
    };
    for packet in packets.iter_mut() {
        let ds = packet.encap_ds(copy_dscp);
        let cb: &mut PacketCb = packet.cb_mut();
        let Some(nonce) = nonces.take_front(cb.messages.max(1).into()) else {
            return false;
        };
        cb.nonce = nonce;
        cb.ds = ds;
    }
    true
}

/// Encrypts a run, and puts messages together that may be sent together. What cannot be encrypted,
/// for want of memory, is dropped; its nonce is lost, which does no harm.
pub(crate) fn encrypt(peer: &Peer, keypair: &Keypair, packets: &mut SkbList) {
    let limit = peer.bulk_limit().min(MAX_BULK_MESSAGE) as usize;
    let (key, index) = (keypair.sending_key(), keypair.remote_index());
    let mut plain = mem::take(packets);
    while let Some(mut skb) = plain.pop_front() {
        if skb.cb::<PacketCb>().messages > 1 {
            encrypt_whole(peer, keypair, skb, packets);
            continue;
        }
        if packet::sealed_len(&skb) <= limit && goes_together(&skb, plain.front()) {
            encrypt_bulk(peer, keypair, skb, &mut plain, packets);
        } else if packet::seal(&mut skb, peer.netdev(), key, index).is_ok() {
            packets.push_back(skb);
        } else {
            peer.discard(Rejection::SendNoMemory, skb);
        }
    }
}

/// Whether `next`, which follows `first`, may be sent in the same packet.
fn goes_together(first: &Skb, next: Option<&Skb>) -> bool {
    next.is_some_and(|next| {
        next.cb::<PacketCb>().ds == first.cb::<PacketCb>().ds
            && next.cb::<PacketCb>().messages <= 1
            && packet::sealed_len(next) <= packet::sealed_len(first)
            && !next.wants_timestamp()
            && !first.wants_timestamp()
    })
}

/// Makes one packet of `first` and those of `rest` that may be sent together with it.
fn encrypt_bulk(
    peer: &Peer,
    keypair: &Keypair,
    first: SkBuff,
    rest: &mut SkbList,
    sealed: &mut SkbList,
) {
    let mut skb = first;
    let PacketCb { ds, .. } = *skb.cb();
    let len = packet::sealed_len(&skb);
    let Ok(mut bulk) = packet::begin_bulk(&mut skb, len, peer.netdev()) else {
        peer.discard(Rejection::SendNoMemory, skb);
        return;
    };
    loop {
        let (key, index) = (keypair.sending_key(), keypair.remote_index());
        if packet::seal_into(&mut bulk, &mut skb, key, index).is_err() {
            peer.refuse(Rejection::SendNoMemory, 1);
        }
        let next = rest.front().filter(|next| {
            goes_together(&skb, Some(*next)) && bulk.takes(packet::sealed_len(next))
        });
        if next.is_none() {
            break;
        }
        let Some(next) = rest.pop_front() else { break };
        mem::replace(&mut skb, next).consume();
    }
    skb.consume();
    add_bulk(bulk, ds, sealed);
}

/// Makes packets of the segments that a packet stands for.
fn encrypt_whole(peer: &Peer, keypair: &Keypair, mut skb: SkBuff, sealed: &mut SkbList) {
    let PacketCb { ds, mtu, .. } = *skb.cb();
    let Some(segments) = skb.segments() else {
        peer.discard(Rejection::CannotSegment, skb);
        return;
    };
    let longest = segments.header_len.saturating_add(segments.size);
    let len = packet::message_len(longest, mtu);
    let (key, index) = (keypair.sending_key(), keypair.remote_index());
    let mut bulk: Option<packet::Bulk> = None;
    for n in 0..segments.count() {
        let part = segments.part(n);
        let part_len = part.end.saturating_sub(part.start);
        let part_len = packet::message_len(segments.header_len.saturating_add(part_len), mtu);
        if !bulk.as_ref().is_some_and(|bulk| bulk.takes(part_len)) {
            let next = packet::begin_bulk(&mut skb, len, peer.netdev()).ok();
            if let Some(full) = mem::replace(&mut bulk, next) {
                add_bulk(full, ds, sealed);
            }
        }
        let added = bulk
            .as_mut()
            .is_some_and(|bulk| packet::seal_segment(bulk, &skb, &segments, n, key, index).is_ok());
        if !added {
            peer.refuse(Rejection::SendNoMemory, 1);
        }
    }
    if let Some(mut last) = bulk {
        last.take_charge(&mut skb);
        add_bulk(last, ds, sealed);
    }
    skb.consume();
}

/// Adds messages that are sent together to a run; `ds` as in [`PacketCb`].
fn add_bulk(bulk: packet::Bulk, ds: u8, sealed: &mut SkbList) {
    let messages = bulk.count();
    if let Some(mut skb) = bulk.finish() {
        *skb.cb_mut() = PacketCb {
            messages,
            ds,
            ..PacketCb::default()
        };
        sealed.push_back(skb);
    }
}

/// Transmits an encrypted run to the peer, and notes what follows from that. The caller has the
/// transmit FIFO to itself.
pub(crate) fn transmit_run(peer: &RcuArc<Peer>, packets: SkbList) {
    // Nothing goes to a peer that has been removed, whatever was under way for it.
    if packets.is_empty() {
        return;
    }
    if !peer.may_run() {
        peer.discard_all(Rejection::SendGoingAway, packets);
        return;
    }
    let has_data = packets.iter().any(|packet| packet.len() != DATA_MIN_LEN);
    Peer::note(peer, Event::Sending);
    peer.rx.inline.renew();
    let sent = socket::send_to_peer(peer, packets, |skb| skb.cb::<PacketCb>().ds);
    if has_data && sent != 0 {
        Peer::note(peer, Event::DataSent);
    }
    let now = time::boottime_coarse_ns();
    if peer
        .keypairs
        .with_current(|keypair| keypair.rekey_after_send(now))
    {
        Peer::request_handshake(peer);
    }
}

/// Sends what is staged, or an empty packet when nothing is. Any context but hard interrupts.
pub(crate) fn send_keepalive(peer: &RcuArc<Peer>) {
    if peer.tx.staged.is_empty() {
        let Ok(skb) = packet::keepalive(peer.netdev().mtu()) else {
            return;
        };
        peer.tx.staged.push_if_empty(skb);
        debug::peer(
            peer.netdev(),
            PeerEvent::SendKeepalive,
            peer.id(),
            Some(peer.endpoint().remote()),
        );
    }
    send_staged(peer);
}

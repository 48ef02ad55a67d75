// SPDX-License-Identifier: GPL-2.0-only

//! From the wire to the network stack: sorting, decryption, acceptance, delivery.

use core::{mem, ops::Range};

use kernel::prelude::*;

use crate::{
    device::{
        counters::{drop_reason, Happening},
        endpoint::Endpoint,
        handshake_queue,
        joining::{Added, Joining},
        keypair::Keypair,
        packet::{self, Malformed, PacketCb},
        peer::{Counted, Direction, Peer},
        queueing::{enqueue, MAY_BE_INLINE},
        send,
        sessions::{self, IndexEntry},
        Device,
    },
    kapi::{
        debug::{self, PeerEvent, SkbEvent},
        net::{
            skbuff::{Fate, SkBuff, Skb, SkbList},
            udp_tunnel::UdpReceive,
        },
        sync::{
            bh::{self, BhGuard},
            rcu::{self, RcuArc, RcuRef},
        },
        time,
    },
    proto::{
        messages::{DataHeader, MessageType, DATA_HEADER_LEN, DATA_MIN_LEN},
        noise::Role,
        timers::Event,
        Rejection,
    },
    tables::runqueue::Claim,
};

/// Messages that may come in one packet: as many as Linux lets a sender put together
/// (`UDP_MAX_SEGMENTS`). Each may have to be copied in the softirq.
const MAX_PIECES: usize = 128;

impl UdpReceive for Device {
    fn receive(this: RcuRef<'_, Self>, skb: SkBuff) {
        receive(&this, skb);
    }
}

/// Takes what one of the device's sockets received: a message, or several of one sender. Softirq
/// context.
fn receive(device: &Device, mut skb: SkBuff) {
    let pieces = skb.pieces();
    let count = pieces.remaining();
    if count == 0 {
        receive_message(device, skb);
        return;
    }
    if count > MAX_PIECES || pieces.piece_len() < DATA_MIN_LEN as u32 {
        debug::skb(device.netdev(), SkbEvent::InvalidHeader, &skb);
        device.note_refused(None, Rejection::BadLength, Some(&skb), count);
        return;
    }
    let ds = skb.outer_dsfield();
    *skb.cb_mut() = PacketCb {
        messages: count as u16,
        ds,
        ..PacketCb::default()
    };
    let Err(skb) = receive_bulk(device, skb) else {
        return;
    };
    for piece in pieces {
        match SkBuff::copy_piece(&skb, &piece) {
            Ok(message) => receive_message(device, message),
            Err(_) => device.refuse(Rejection::NoMemory, 1),
        }
    }
    skb.consume();
}

/// Has a worker decrypt several messages, if the first is transport data of a session of ours; most
/// likely all are. Gives them back otherwise.
fn receive_bulk(device: &Device, skb: SkBuff) -> Result<(), SkBuff> {
    let first = skb.pieces().next().unwrap_or_default();
    let start: [u8; DATA_HEADER_LEN] = skb.bytes_at(first.start).unwrap_or_default();
    let Some(header) = data_header(&start, first.end.saturating_sub(first.start) as usize) else {
        return Err(skb);
    };
    let guard = rcu::read_lock();
    let entry = device.sessions().lookup(&guard, header.receiver_index());
    let Some(IndexEntry::Session { peer, keypair }) = entry else {
        return Err(skb);
    };
    if peer.is_dead() {
        peer.discard(Rejection::GoingAway, skb);
    } else {
        enqueue(peer, keypair, Direction::Decrypt, SkbList::from(skb));
    }
    Ok(())
}

/// The header of a message of `len` bytes that starts with `start`, if it is transport data.
fn data_header(start: &[u8], len: usize) -> Option<DataHeader> {
    let kind = MessageType::classify(*start.first_chunk()?, len).ok()?;
    let (header, _) = DataHeader::read_from_prefix(start).ok()?;
    (kind == MessageType::Data).then_some(header)
}

/// Takes a message. Softirq context, or BH disabled.
fn receive_message(device: &Device, mut skb: SkBuff) {
    if packet::pull_message(&mut skb).is_err() {
        device.discard(Rejection::NoMemory, skb);
        return;
    }
    let kind = skb
        .data()
        .first_chunk()
        .ok_or(Rejection::BadLength)
        .and_then(|header| MessageType::classify(*header, skb.len()));
    match kind {
        Ok(MessageType::Data) => receive_data(device, skb),
        Ok(_) => handshake_queue::queue(device, skb),
        Err(reason) => {
            debug::skb(device.netdev(), SkbEvent::InvalidHeader, &skb);
            device.discard(reason, skb);
        }
    }
}

/// Finds the session of transport data and decrypts, here or on a worker.
fn receive_data(device: &Device, mut skb: SkBuff) {
    let Ok((header, _)) = DataHeader::read_from_prefix(skb.data()) else {
        device.discard(Rejection::BadLength, skb);
        return;
    };
    let nonce = header.counter();
    let ds = skb.outer_dsfield();
    *skb.cb_mut() = PacketCb {
        nonce,
        ds,
        ..PacketCb::default()
    };
    let guard = rcu::read_lock();
    let entry = device.sessions().lookup(&guard, header.receiver_index());
    let Some(IndexEntry::Session { peer, keypair }) = entry else {
        device.discard(Rejection::UnknownIndex, skb);
        return;
    };
    if peer.is_dead() {
        peer.discard(Rejection::GoingAway, skb);
        return;
    }
    let claim = if MAY_BE_INLINE && peer.rx.inline.take(time::jiffies() as u32) {
        Claim::idle(&peer.rx.fifo, None)
    } else {
        None
    };
    let Some(claim) = claim else {
        enqueue(peer, keypair, Direction::Decrypt, SkbList::from(skb));
        return;
    };
    let now = time::boottime_coarse_ns();
    match keypair.may_receive(now) {
        Ok(()) if open(peer, keypair, &mut skb) => accept_run(peer, keypair, SkbList::from(skb)),
        Ok(()) => {}
        Err(reason) => peer.discard(reason, skb),
    }
    drop(claim);
}

/// Decrypts a message. False, and counted, if that fails.
// Not inlined: vtime-calls-silent-discard has a probe on it.
#[inline(never)]
fn open(peer: &Peer, keypair: &Keypair, skb: &mut Skb) -> bool {
    let Err(error) = packet::open(skb, keypair.receiving_key()) else {
        return true;
    };
    let reason = if error == ENOMEM {
        Rejection::NoMemory
    } else {
        Rejection::InvalidData
    };
    peer.refuse_packet(reason, skb);
    false
}

/// Decrypts a run; what does not authenticate is dropped.
pub(crate) fn decrypt(peer: &Peer, keypair: &Keypair, packets: &mut SkbList) {
    let mut sealed = mem::take(packets);
    if let Err(reason) = keypair.may_receive(time::boottime_coarse_ns()) {
        peer.discard_all(reason, sealed);
        return;
    }
    while let Some(mut skb) = sealed.pop_front() {
        if skb.cb::<PacketCb>().messages != 0 {
            open_pieces(peer, keypair, skb, packets);
        } else if open(peer, keypair, &mut skb) {
            packets.push_back(skb);
        }
    }
}

/// Decrypts several messages into packets of their own, each or some together: the memory that they
/// lie in may be anybody's.
fn open_pieces(peer: &Peer, keypair: &Keypair, skb: SkBuff, opened: &mut SkbList) {
    let ds = skb.cb::<PacketCb>().ds;
    let may_join = peer.netdev().may_gro();
    let mut may_join_udp = may_join;
    let mut joining: Option<Joining> = None;
    for piece in skb.pieces() {
        if let Some(current) = &mut joining {
            match join(current, keypair, &skb, &piece) {
                Added::Joined => continue,
                Added::Forged => {
                    peer.refuse(Rejection::InvalidData, 1);
                    continue;
                }
                Added::Apart => {}
            }
        }
        if let Some(done) = joining.take() {
            opened.push_back(done.finish());
        }
        let Ok(mut message) = SkBuff::copy_piece(&skb, &piece) else {
            peer.refuse(Rejection::NoMemory, 1);
            continue;
        };
        let header = data_header(message.data(), message.len())
            .filter(|header| header.receiver_index() == keypair.local_index());
        let Some(header) = header else {
            // Whoever knows the sender's address may have put it among the others.
            let _bh = bh::disable();
            receive_message(peer.device(), message);
            continue;
        };
        *message.cb_mut() = PacketCb {
            nonce: header.counter(),
            ds,
            ..PacketCb::default()
        };
        if !open(peer, keypair, &mut message) {
            continue;
        }
        if may_join {
            match Joining::new(message, peer.netdev(), &mut may_join_udp) {
                Ok(first) => joining = Some(first),
                Err(message) => opened.push_back(message),
            }
        } else {
            opened.push_back(message);
        }
    }
    if let Some(done) = joining {
        opened.push_back(done.finish());
    }
    skb.consume();
}

/// Joins a message to those before, if it is transport data of their session.
fn join(current: &mut Joining, keypair: &Keypair, skb: &Skb, piece: &Range<u32>) -> Added {
    let len = piece.end.saturating_sub(piece.start) as usize;
    let start: [u8; DATA_HEADER_LEN] = skb.bytes_at(piece.start).unwrap_or_default();
    match data_header(&start, len) {
        Some(header) if header.receiver_index() == keypair.local_index() => {
            current.add(skb, piece, header.counter(), keypair.receiving_key())
        }
        _ => Added::Apart,
    }
}

/// What happens to packets that have authenticated: replay check, confirmation of the key,
/// roaming, the checks of what they carry, timers, delivery. The caller has the receive FIFO to
/// itself.
pub(crate) fn accept_run(peer: &RcuArc<Peer>, keypair: &RcuArc<Keypair>, mut packets: SkbList) {
    // Nothing comes from a peer that has been removed, whatever was under way from it.
    if packets.is_empty() {
        return;
    }
    if !peer.may_run() {
        peer.discard_all(Rejection::GoingAway, packets);
        return;
    }
    let bh = bh::disable();
    let refused = |nonce, max| {
        peer.refuse(Rejection::ReplayedData, 1);
        debug::invalid_nonce(peer.netdev(), nonce, max);
    };
    let mut apart = keypair.accept_counters(&mut packets, refused);
    if !packets.is_empty() {
        accept_packets(peer, keypair, packets, None, &bh);
    }
    while let Some(packet) = apart.pop_front() {
        let from = Endpoint::from_skb(&packet);
        let mut packets = packet::take_apart(packet);
        // None of them came in several messages.
        let _ = keypair.accept_counters(&mut packets, refused);
        if !packets.is_empty() {
            accept_packets(peer, keypair, packets, from, &bh);
        }
    }
}

/// What happens to packets that are not replayed. They come `from` there, or from where their outer
/// headers say.
fn accept_packets(
    peer: &RcuArc<Peer>,
    keypair: &RcuArc<Keypair>,
    mut packets: SkbList,
    from: Option<Endpoint>,
    bh: &BhGuard,
) {
    peer.tx.inline.renew();
    let confirmed = sessions::confirm(peer, keypair);
    if confirmed {
        peer.note_completed();
        Peer::note(peer, Event::SessionConfirmed);
    }
    let mut event = Event::KeepaliveReceived;
    let mut sender = None;
    let mut counted = Counted::default();
    packets.retain_mut(|packet| {
        let Some(endpoint) = from.or_else(|| Endpoint::from_skb(packet)) else {
            peer.refuse_packet(Rejection::InvalidInner, packet);
            return Fate::Drop(drop_reason(Rejection::InvalidInner));
        };
        if sender != Some(endpoint) {
            // Without memory it stays where it was until its next message.
            let _ = peer.follow(&endpoint);
            sender = Some(endpoint);
        }
        if from.is_none() {
            packet.reset_decapsulated();
        }
        // As the counters see it, a packet is as long as its messages were.
        let (messages, bytes) = match *packet.cb() {
            PacketCb {
                messages, bytes, ..
            } if bytes != 0 => (messages.into(), bytes as usize),
            _ => (1, packet.len().saturating_add(DATA_MIN_LEN)),
        };
        if packet.len() == 0 {
            counted.add(messages, bytes);
            peer.counters.note(Happening::KeepaliveReceived);
            debug::peer(
                peer.netdev(),
                PeerEvent::RecvKeepalive,
                peer.id(),
                Some(endpoint.remote()),
            );
            return Fate::Consume;
        }
        event = Event::DataReceived;
        match check_inner(peer, &endpoint, packet) {
            Ok(()) => {
                counted.add(messages, bytes);
                Fate::Keep
            }
            Err(reason) => Fate::Drop(drop_reason(reason)),
        }
    });
    if confirmed {
        peer.tell_completed(Some(keypair.id()), Role::Responder);
        // Only now, so that what waited for the session goes to where the packets came from.
        send::send_staged(peer);
    }
    Peer::note(peer, event);
    renew_if_old(peer);
    peer.count_received(bh, counted);
    Peer::deliver(peer, packets);
}

/// Checks what a packet carries: a whole IP packet whose source is the peer's. Counts it otherwise.
fn check_inner(peer: &RcuArc<Peer>, endpoint: &Endpoint, skb: &mut Skb) -> Result<(), Rejection> {
    let netdev = peer.netdev();
    if let Err(error) = packet::finish_receive(skb) {
        let event = match error {
            Malformed::Size => {
                netdev.inc_rx_length_errors();
                PeerEvent::InvalidSize
            }
            Malformed::Type => {
                netdev.inc_rx_frame_errors();
                PeerEvent::InvalidType
            }
        };
        netdev.inc_rx_errors();
        peer.refuse_packet(Rejection::InvalidInner, skb);
        debug::peer(netdev, event, peer.id(), Some(endpoint.remote()));
        return Err(Rejection::InvalidInner);
    }
    let guard = rcu::read_lock();
    let owner = skb
        .src_addr()
        .and_then(|addr| peer.device().allowed_ips().lookup(&guard, addr));
    if !owner.is_some_and(|owner| owner.ptr_eq(peer)) {
        peer.refuse_packet(Rejection::SourceNotAllowed, skb);
        for _ in 0..packet::messages(skb) {
            netdev.inc_rx_errors();
            netdev.inc_rx_frame_errors();
        }
        debug::unallowed_src(netdev, skb, peer.id(), endpoint.remote());
        return Err(Rejection::SourceNotAllowed);
    }
    Ok(())
}

/// Starts a new handshake when the session is about to end and nothing was sent that would have
/// done so; once per session.
fn renew_if_old(peer: &RcuArc<Peer>) {
    if !peer.timer_state.receive_rekey_is_due() {
        return;
    }
    let now = time::boottime_coarse_ns();
    if peer
        .keypairs
        .with_current(|keypair| keypair.rekey_after_receive(now))
        && peer.timer_state.claim_receive_rekey()
    {
        Peer::request_handshake(peer);
    }
}

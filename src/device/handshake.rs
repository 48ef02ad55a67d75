// SPDX-License-Identifier: GPL-2.0-only

//! Handshake messages, in and out. All of it in process context, on the handshake work queues:
//! a Diffie-Hellman is too long for anything else.
//!
//! Functions that handle secrets are not inlined: the frames stay small, and lie where
//! [`burn_stack`], called at the end of the work, overwrites them.

use kernel::prelude::*;

use crate::{
    device::{
        admission::admit,
        counters::Happening,
        endpoint::Endpoint,
        events,
        keypair::Keypair,
        peer::{Counted, Handshake, Peer},
        random_secret, send,
        sessions::{self, IndexEntry},
        socket, Device,
    },
    kapi::{
        crypto::KernelCrypto,
        debug::{self, PeerEvent, SkbEvent},
        net::skbuff::SkBuff,
        sync::{
            bh,
            rcu::{self, RcuArc},
        },
        time,
        workqueue::WorkItem,
    },
    proto::{
        consts::HANDSHAKE_TOS,
        crypto::burn_stack,
        handshake::ReleasedIndex,
        messages::{CookieReply, HandshakeMessage, Initiation, Message, Response},
        noise::{self, Established, Identity, Role},
        tai64n::Tai64n,
        timers::Event,
        Rejection,
    },
};

/// Sends an initiation.
impl WorkItem<0> for Peer {
    type Pointer = RcuArc<Self>;

    fn run(this: RcuArc<Self>) {
        send_initiation(&this);
        burn_stack();
    }
}

/// Erases handshake and keypairs.
impl WorkItem<1> for Peer {
    type Pointer = RcuArc<Self>;

    fn run(this: RcuArc<Self>) {
        clear(&this);
        sessions::clear(&this);
    }
}

/// Handles a received handshake message.
#[inline(never)]
pub(crate) fn receive(device: &Device, skb: &SkBuff) {
    match Message::parse(skb.data()) {
        Ok(Message::Initiation(message)) => {
            if admit(device, skb, message) {
                receive_initiation(device, skb, message);
            }
        }
        Ok(Message::Response(message)) => {
            if admit(device, skb, message) {
                receive_response(device, skb, message);
            }
        }
        Ok(Message::CookieReply(message)) => receive_cookie_reply(device, skb, message),
        Ok(Message::Data(..)) => device.refuse_packet(Rejection::UnknownType, skb),
        Err(reason) => device.refuse_packet(reason, skb),
    }
}

fn receive_cookie_reply(device: &Device, skb: &SkBuff, message: &CookieReply) {
    debug::skb(device.netdev(), SkbEvent::RecvCookie, skb);
    let guard = rcu::read_lock();
    let peer = device.sessions().lookup(&guard, message.receiver_index());
    let Some(peer) = peer.map(|entry| entry.peer().clone()) else {
        device.refuse_packet(Rejection::UnknownIndex, skb);
        return;
    };
    drop(guard);
    let now = time::boottime_coarse_ns();
    let consumed = peer
        .cookies
        .lock()
        .consume_reply::<KernelCrypto>(message, now);
    match consumed {
        Ok(()) => peer.counters.note(Happening::CookieReceived),
        Err(reason) => {
            peer.note_refused(reason, Some(skb), 1);
            let reason = reason.as_str();
            debug::skb(device.netdev(), SkbEvent::InvalidCookie { reason }, skb);
        }
    }
}

/// A handshake message that is refused, and whose it is, if that is known.
struct Refused(Option<RcuArc<Peer>>, Rejection);

impl Refused {
    fn note(&self, device: &Device, skb: &SkBuff) {
        match self {
            Refused(Some(peer), reason) => peer.note_refused(*reason, Some(skb), 1),
            Refused(None, reason) => device.refuse_packet(*reason, skb),
        }
    }
}

impl From<Rejection> for Refused {
    fn from(reason: Rejection) -> Self {
        Refused(None, reason)
    }
}

fn receive_initiation(device: &Device, skb: &SkBuff, message: &Initiation) {
    let (peer, response) = match consume_initiation(device, skb, message) {
        Ok(accepted) => accepted,
        Err(refused) => {
            refused.note(device, skb);
            let reason = refused.1.as_str();
            debug::skb(device.netdev(), SkbEvent::InvalidInitiation { reason }, skb);
            return;
        }
    };
    let endpoint = roam_to_sender(&peer, skb);
    debug::peer(
        device.netdev(),
        PeerEvent::RecvInitiation,
        peer.id(),
        endpoint.as_ref().map(Endpoint::remote),
    );
    if let Ok(response) = response {
        send_response(&peer, response);
    }
    peer.counters.note(Happening::InitiationReceived);
    count_handshake(&peer, skb.len());
    Peer::note(&peer, Event::InitiationReceived);
}

/// Authenticates an initiation, puts it into its peer's slot and answers it: all under the
/// slot's lock, so that an initiation of our own cannot come in between and void the answer.
#[inline(never)]
fn consume_initiation(
    device: &Device,
    skb: &SkBuff,
    message: &Initiation,
) -> Result<(RcuArc<Peer>, Result<Response, Rejection>), Refused> {
    let identity = device.identity.get().ok_or(Rejection::NoIdentity)?;
    let opened = noise::open_initiation::<KernelCrypto>(&identity, message)?;
    let Some(peer) = device.find_peer(opened.remote_static()) else {
        if let Some(from) = Endpoint::from_skb(skb) {
            events::unknown_initiator(device, opened.remote_static(), &from);
        }
        return Err(Rejection::UnknownPeer.into());
    };
    let mut handshake = peer.handshake.lock();
    let now = time::boottime_coarse_ns();
    opened
        .finish::<KernelCrypto>(&handshake.keys)
        .and_then(|consumed| {
            // The private key may have been replaced since; then the slot is not for this message.
            // Whoever ends the peer, or takes the device down, clears the slot afterwards, under
            // the same mutex.
            if !peer.may_run() || !device.is_identity(&identity) {
                return Err(Rejection::Superseded);
            }
            handshake.slot.accept_initiation(consumed, now)
        })
        .map_err(|reason| Refused(Some(peer.clone()), reason))?;
    peer.timer_state.note_handshake_sent(now);
    let response = create_response(&peer, &mut handshake);
    drop(handshake);
    Ok((peer, response))
}

fn receive_response(device: &Device, skb: &SkBuff, message: &Response) {
    let peer = match consume_response(device, message) {
        Ok(peer) => peer,
        Err(refused) => {
            refused.note(device, skb);
            let reason = refused.1.as_str();
            debug::skb(device.netdev(), SkbEvent::InvalidResponse { reason }, skb);
            return;
        }
    };
    let endpoint = roam_to_sender(&peer, skb);
    debug::peer(
        device.netdev(),
        PeerEvent::RecvResponse,
        peer.id(),
        endpoint.as_ref().map(Endpoint::remote),
    );
    peer.counters.note(Happening::ResponseReceived);
    peer.note_completed();
    let session = peer.keypairs.current().map(|keypair| keypair.id());
    peer.tell_completed(session, Role::Initiator);
    Peer::note(&peer, Event::ResponseReceived);
    // Confirms the session at once, with data if there is any.
    send::send_keepalive(&peer);
    count_handshake(&peer, skb.len());
}

/// Authenticates a response and begins the session that comes of it.
#[inline(never)]
fn consume_response(device: &Device, message: &Response) -> Result<RcuArc<Peer>, Refused> {
    let identity = device.identity.get().ok_or(Rejection::NoIdentity)?;
    let peer = {
        let guard = rcu::read_lock();
        match device.sessions().lookup(&guard, message.receiver_index()) {
            Some(IndexEntry::Handshake(peer)) => peer.clone(),
            _ => return Err(Rejection::UnknownIndex.into()),
        }
    };
    let mut handshake = peer.handshake.lock();
    handshake
        .slot
        .initiator()
        .and_then(|initiator| {
            let psk = &handshake.psk;
            noise::consume_response::<KernelCrypto>(&identity, &initiator, psk, message)
        })
        .and_then(|established| {
            if !device.is_identity(&identity) {
                return Err(Rejection::Superseded);
            }
            begin_session(&peer, &mut handshake, established)
        })
        .map_err(|reason| Refused(Some(peer.clone()), reason))?;
    drop(handshake);
    Ok(peer)
}

fn roam_to_sender(peer: &Peer, skb: &SkBuff) -> Option<Endpoint> {
    let endpoint = Endpoint::from_skb(skb)?;
    // Without memory it stays where it was until its next message.
    let _ = peer.follow(&endpoint);
    Some(endpoint)
}

fn count_handshake(peer: &Peer, len: usize) {
    let mut counted = Counted::default();
    counted.add(1, len);
    peer.count_received(&bh::disable(), counted);
}

/// Makes and sends an initiation, at most one in five seconds. Process context.
#[inline(never)]
pub(crate) fn send_initiation(peer: &RcuArc<Peer>) {
    let now = time::boottime_coarse_ns();
    if !peer.may_run() || !peer.timer_state.claim_initiation(now) {
        return;
    }
    debug::peer(
        peer.netdev(),
        PeerEvent::SendInitiation,
        peer.id(),
        Some(peer.endpoint().remote()),
    );
    let Ok(mut message) = create_initiation(peer) else {
        return;
    };
    peer.counters.note(Happening::InitiationSent);
    add_macs_and_send(peer, &mut message);
}

#[inline(never)]
fn create_initiation(peer: &RcuArc<Peer>) -> Result<Initiation, Rejection> {
    let device = peer.device();
    let mut handshake = peer.handshake.lock();
    let identity = device.identity.get().ok_or(Rejection::NoIdentity)?;
    let index = sessions::new_index(peer)?;
    let (secs, nanos) = time::real();
    let created = noise::create_initiation::<KernelCrypto>(
        &identity,
        &handshake.keys,
        random_secret(),
        Tai64n::new(secs, nanos),
        index,
    );
    match created {
        // Who ends a peer or takes the device down clears the slot afterwards, under this mutex.
        Ok((message, initiator)) if peer.may_run() => {
            let released = handshake.slot.commit_initiation(initiator);
            sessions::release_index(peer, released);
            // Still under the mutex: a change of the identity, which voids this initiation, also
            // permits the next one at once.
            Peer::note(peer, Event::InitiationSent);
            Ok(message)
        }
        Ok(_) => {
            sessions::release_index(peer, ReleasedIndex(Some(index)));
            Err(Rejection::GoingAway)
        }
        Err(reason) => {
            sessions::release_index(peer, ReleasedIndex(Some(index)));
            Err(reason)
        }
    }
}

/// Sends the response to an initiation. Process context.
fn send_response(peer: &RcuArc<Peer>, mut response: Response) {
    debug::peer(
        peer.netdev(),
        PeerEvent::SendResponse,
        peer.id(),
        Some(peer.endpoint().remote()),
    );
    Peer::note(peer, Event::ResponseSent);
    peer.counters.note(Happening::ResponseSent);
    add_macs_and_send(peer, &mut response);
}

/// Makes the response to the initiation in the slot, and begins the session.
#[inline(never)]
fn create_response(peer: &RcuArc<Peer>, handshake: &mut Handshake) -> Result<Response, Rejection> {
    let responder = handshake.slot.responder()?;
    let index = sessions::new_index(peer)?;
    let created =
        noise::create_response::<KernelCrypto>(&responder, random_secret(), &handshake.psk, index)
            .and_then(|(message, established)| {
                begin_session(peer, handshake, established)?;
                Ok(message)
            });
    if created.is_err() {
        sessions::release_index(peer, ReleasedIndex(Some(index)));
    }
    created
}

/// Turns a finished handshake into a session and puts that to use.
#[inline(never)]
fn begin_session(
    peer: &RcuArc<Peer>,
    handshake: &mut Handshake,
    established: Established,
) -> Result<(), Rejection> {
    let (session, released) = handshake.slot.establish(established)?;
    sessions::release_index(peer, released);
    let (index, role) = (session.local_index, session.role);
    let Ok(keypair) = Keypair::new(session, time::boottime_coarse_ns()) else {
        sessions::release_index(peer, ReleasedIndex(Some(index)));
        return Err(Rejection::NoMemory);
    };
    sessions::install(peer, keypair, role)
}

fn add_macs_and_send<M: HandshakeMessage>(peer: &Peer, message: &mut M) {
    let now = time::boottime_coarse_ns();
    peer.cookies
        .lock()
        .add_macs::<KernelCrypto, M>(message, now);
    let _ = socket::send_message(peer, message.as_bytes(), HANDSHAKE_TOS);
}

/// Erases the handshake in progress. Process context.
pub(crate) fn clear(peer: &RcuArc<Peer>) {
    let released = peer.handshake.lock().slot.clear();
    sessions::release_index(peer, released);
}

/// Follows a change of the device's identity: the shared point is computed again, the
/// handshake in progress is void, and the sessions there are may only receive.
pub(crate) fn follow_identity(peer: &RcuArc<Peer>, identity: Option<&Identity>) {
    let released = {
        let mut handshake = peer.handshake.lock();
        handshake.keys.set_identity::<KernelCrypto>(identity);
        peer.timer_state.forget_handshake_sent();
        handshake.slot.clear()
    };
    sessions::release_index(peer, released);
    peer.keypairs.stop_sending();
}

/// The sessions there are may only receive, the handshake in progress is void, and the next
/// may start at once. Process context.
pub(crate) fn stop_sending(peer: &RcuArc<Peer>) {
    clear(peer);
    peer.timer_state.forget_handshake_sent();
    peer.keypairs.stop_sending();
}

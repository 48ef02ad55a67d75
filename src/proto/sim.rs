// SPDX-License-Identifier: GPL-2.0-only

//! Two peers in virtual time, connected by a link that may delay, drop and reorder.
//!
//! [`Node`] is a miniature driver, with the real protocol and real cryptography, but with timers,
//! clock and packets as plain data. Each node logs what it does, and the scenarios in
//! `sim_tests.rs` check the logs.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use zerocopy::IntoBytes;

use super::consts::{MAX_STAGED_PACKETS, NS_PER_MS, NS_PER_SEC, TAG_LEN};
use super::cookie::{CookieChecker, CookieJar, MacState, Source};
use super::crypto::{Crypto, PublicKey, SecretKey, SymmetricKey};
use super::handshake::HandshakeSlot;
use super::host_crypto::HostCrypto;
use super::keypair::{Keypair, Keypairs};
use super::messages::{DataHeader, HandshakeMessage, Initiation, Message, MessageType, Response};
use super::noise::{
    consume_response, create_initiation, create_response, open_initiation, Identity, PeerStatic,
    Role, Session,
};
use super::replay::ReplayWindow;
use super::tai64n::Tai64n;
use super::timers::{Actions, Arm, Event, Timer, TimerState};
use super::Rejection;

type C = HostCrypto;

/// The wall clock when virtual time is zero.
const EPOCH_SECS: i64 = 1_700_000_000;
/// Virtual time starts here, as on a machine that has been up for a while.
const START: u64 = 1000 * NS_PER_SEC;

/// What a node did or saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Sent a handshake message.
    Sent(MessageType),
    /// Sent transport data with a payload of this many bytes.
    SentData(usize),
    /// Received transport data with this payload.
    Received(Vec<u8>),
    /// Received a keepalive.
    ReceivedKeepalive,
    /// Installed a session.
    Session(Role),
    /// Dropped a received message.
    Dropped(Rejection),
    /// Dropped this many staged packets.
    Purged(usize),
    /// Erased all keys.
    Zeroed,
    /// Cleared the cached source address.
    ClearedSource,
}

/// A session with its replay window.
pub struct Pair {
    pub keypair: Keypair,
    window: RefCell<ReplayWindow>,
}

#[derive(Clone)]
enum Indexed {
    Handshake,
    Keypair(Rc<Pair>),
}

/// One device with one peer.
pub struct Node {
    identity: Identity,
    peer: PeerStatic,
    psk: SymmetricKey,
    source: Source,
    pub under_load: bool,
    pub up: bool,
    /// Seconds that this node's wall clock is ahead.
    pub clock_skew: i64,
    checker: CookieChecker,
    jar: CookieJar,
    slot: HandshakeSlot,
    pub keypairs: Keypairs<Rc<Pair>>,
    indices: HashMap<u32, Indexed>,
    pub timers: TimerState,
    /// When the driver's timers fire.
    armed: [Option<u64>; Timer::COUNT],
    /// How often the driver's timers were armed.
    pub armings: usize,
    staged: VecDeque<Vec<u8>>,
    random: u64,
    outgoing: Vec<Vec<u8>>,
    pub log: Vec<(u64, Record)>,
}

impl Node {
    fn new(private: [u8; 32], peer: PublicKey, psk: [u8; 32], seed: u64) -> Self {
        let identity = identity(private);
        let peer = PeerStatic::new::<C>(Some(&identity), peer);
        let mut checker = CookieChecker::new(SecretKey::from_bytes([seed as u8; 32]), START);
        checker.set_identity::<C>(Some(identity.public()));
        Self {
            jar: CookieJar::new::<C>(peer.public()),
            identity,
            peer,
            psk: SymmetricKey::from_bytes(psk),
            source: Source::v4([192, 0, 2, seed as u8], [1, 2]),
            under_load: false,
            up: true,
            clock_skew: 0,
            checker,
            slot: HandshakeSlot::new(),
            keypairs: Keypairs::new(),
            indices: HashMap::new(),
            timers: TimerState::new(),
            armed: [None; Timer::COUNT],
            armings: 0,
            staged: VecDeque::new(),
            random: seed,
            outgoing: Vec::new(),
            log: Vec::new(),
        }
    }

    fn write(&mut self, now: u64, record: Record) {
        self.log.push((now - START, record));
    }

    fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn random_secret(&mut self) -> SecretKey {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random().to_le_bytes());
        }
        SecretKey::take(&mut bytes)
    }

    fn note(&mut self, event: Event, now: u64) {
        let random = self.random();
        let arm = self
            .timers
            .note(event, now, |max| (random % u64::from(max)) as u32);
        self.arm(arm, now);
    }

    fn arm(&mut self, arm: Arm, now: u64) {
        if self.up {
            for (timer, ms) in arm.iter() {
                self.armings += 1;
                self.armed[timer.index()] = Some(now + u64::from(ms) * NS_PER_MS);
            }
        }
    }

    fn expired(&mut self, timer: Timer, now: u64) {
        let actions = self.timers.expired(timer, now);
        self.perform(actions, now);
    }

    fn perform(&mut self, actions: Actions, now: u64) {
        self.arm(actions.arm, now);
        if actions.clear_source() {
            self.write(now, Record::ClearedSource);
        }
        if actions.purge_staged() {
            let staged = self.staged.len();
            self.staged.clear();
            self.write(now, Record::Purged(staged));
        }
        if actions.zero_keys() {
            self.zero(now);
        }
        if actions.send_initiation() {
            self.send_initiation(now);
        }
        if actions.send_keepalive() {
            self.send_keepalive(now);
        }
    }

    fn zero(&mut self, now: u64) {
        let released = self.slot.clear();
        self.forget(released.0);
        for pair in self.keypairs.clear() {
            self.forget(Some(pair.keypair.local_index()));
        }
        self.write(now, Record::Zeroed);
    }

    fn forget(&mut self, index: Option<u32>) {
        if let Some(index) = index {
            self.indices.remove(&index);
        }
    }

    /// Hands a packet to the interface.
    pub fn send(&mut self, packet: &[u8], now: u64) {
        if self.staged.len() >= MAX_STAGED_PACKETS {
            self.staged.pop_front();
        }
        self.staged.push_back(packet.to_vec());
        self.flush(now);
    }

    pub fn send_keepalive(&mut self, now: u64) {
        if self.staged.is_empty() {
            self.staged.push_back(Vec::new());
        }
        self.flush(now);
    }

    /// Sends the staged packets, or starts a handshake if there is no usable session.
    fn flush(&mut self, now: u64) {
        let count = self.staged.len() as u64;
        if count == 0 {
            return;
        }
        let reserved = self.keypairs.current.clone().and_then(|pair| {
            let nonces = pair.keypair.reserve(count, now).ok()?;
            Some((pair, nonces))
        });
        let Some((pair, nonces)) = reserved else {
            self.request_initiation(now);
            return;
        };
        let run = std::mem::take(&mut self.staged);
        let has_data = run.iter().any(|packet| !packet.is_empty());
        self.note(Event::Sending, now);
        for (packet, nonce) in run.into_iter().zip(nonces) {
            let nonce = nonce.consume();
            let header = DataHeader::new(pair.keypair.remote_index(), nonce);
            let mut sealed = vec![0; packet.len() + TAG_LEN];
            assert!(C::seal(
                &mut sealed,
                &packet,
                &[],
                nonce,
                pair.keypair.sending_key()
            ));
            self.outgoing.push([header.as_bytes(), &sealed].concat());
            self.write(now, Record::SentData(packet.len()));
        }
        if has_data {
            self.note(Event::DataSent, now);
        }
        if pair.keypair.rekey_after_send(now) {
            self.request_initiation(now);
        }
    }

    fn request_initiation(&mut self, now: u64) {
        if self.timers.request_initiation(now) {
            self.send_initiation(now);
        }
    }

    fn send_initiation(&mut self, now: u64) {
        if !self.up || !self.timers.claim_initiation(now) {
            return;
        }
        let elapsed = now - START;
        let time = Tai64n::new(
            EPOCH_SECS + (elapsed / NS_PER_SEC) as i64 + self.clock_skew,
            (elapsed % NS_PER_SEC) as u32,
        );
        let (ephemeral, index) = (self.random_secret(), self.random() as u32);
        let made = create_initiation::<C>(&self.identity, &self.peer, ephemeral, time, index);
        let Ok((mut message, handshake)) = made else {
            return;
        };
        let released = self.slot.commit_initiation(handshake);
        self.forget(released.0);
        self.indices.insert(index, Indexed::Handshake);
        self.jar.add_macs::<C, _>(&mut message, now);
        self.outgoing.push(message.as_bytes().to_vec());
        self.write(now, Record::Sent(MessageType::Initiation));
        self.note(Event::InitiationSent, now);
    }

    fn send_response(&mut self, now: u64) -> Result<(), Rejection> {
        self.timers.note_handshake_sent(now);
        let (ephemeral, index) = (self.random_secret(), self.random() as u32);
        let handshake = self.slot.responder()?;
        let (mut message, established) =
            create_response::<C>(&handshake, ephemeral, &self.psk, index)?;
        self.jar.add_macs::<C, _>(&mut message, now);
        let (session, released) = self.slot.establish(established)?;
        self.forget(released.0);
        self.install(session, now);
        self.outgoing.push(message.as_bytes().to_vec());
        self.write(now, Record::Sent(MessageType::Response));
        self.note(Event::ResponseSent, now);
        Ok(())
    }

    fn install(&mut self, session: Session, now: u64) {
        let (index, role) = (session.local_index, session.role);
        let pair = Rc::new(Pair {
            keypair: Keypair::new(session, now),
            window: RefCell::new(ReplayWindow::new()),
        });
        self.indices.insert(index, Indexed::Keypair(pair.clone()));
        for pair in self.keypairs.install(pair, role) {
            self.forget(Some(pair.keypair.local_index()));
        }
        self.write(now, Record::Session(role));
    }

    fn receive(&mut self, from: &Source, bytes: &[u8], now: u64) {
        if !self.up {
            return;
        }
        let result = Message::parse(bytes).and_then(|message| match message {
            Message::Initiation(message) => {
                self.check_macs(message, from, now)?;
                self.receive_initiation(message, now)
            }
            Message::Response(message) => {
                self.check_macs(message, from, now)?;
                self.receive_response(message, now)
            }
            Message::CookieReply(reply) => match self.indices.get(&reply.receiver_index()) {
                Some(_) => self.jar.consume_reply::<C>(reply, now),
                None => Err(Rejection::UnknownIndex),
            },
            Message::Data(header, sealed) => self.receive_data(header, sealed, now),
        });
        if let Err(reason) = result {
            self.write(now, Record::Dropped(reason));
        }
    }

    fn check_macs<M: HandshakeMessage>(
        &mut self,
        message: &M,
        from: &Source,
        now: u64,
    ) -> Result<(), Rejection> {
        if self.under_load && self.checker.needs_rotation(now) {
            let secret = self.random_secret();
            self.checker.rotate(secret, now);
        }
        match self
            .checker
            .validate_macs::<C, M>(message, from, self.under_load, now)
        {
            MacState::ValidWithCookie => Ok(()),
            MacState::ValidMac1 if !self.under_load => Ok(()),
            MacState::ValidMac1 => {
                let nonce = [self.random() as u8; 24];
                let reply = self
                    .checker
                    .create_reply::<C, M>(message, from, nonce, now)?;
                self.outgoing.push(reply.as_bytes().to_vec());
                self.write(now, Record::Sent(MessageType::CookieReply));
                Err(Rejection::CookieRequired)
            }
            MacState::Invalid => Err(Rejection::InvalidMac1),
        }
    }

    fn receive_initiation(&mut self, message: &Initiation, now: u64) -> Result<(), Rejection> {
        let consumed = open_initiation::<C>(&self.identity, message)?.finish::<C>(&self.peer)?;
        self.slot.accept_initiation(consumed, now)?;
        self.send_response(now)?;
        self.note(Event::InitiationReceived, now);
        Ok(())
    }

    fn receive_response(&mut self, message: &Response, now: u64) -> Result<(), Rejection> {
        match self.indices.get(&message.receiver_index()) {
            Some(Indexed::Handshake) => {}
            _ => return Err(Rejection::UnknownIndex),
        }
        let handshake = self.slot.initiator()?;
        let established = consume_response::<C>(&self.identity, &handshake, &self.psk, message)?;
        let (session, _) = self.slot.establish(established)?;
        self.install(session, now);
        self.note(Event::ResponseReceived, now);
        self.send_keepalive(now);
        Ok(())
    }

    fn receive_data(
        &mut self,
        header: &DataHeader,
        sealed: &[u8],
        now: u64,
    ) -> Result<(), Rejection> {
        let Some(Indexed::Keypair(pair)) = self.indices.get(&header.receiver_index()).cloned()
        else {
            return Err(Rejection::UnknownIndex);
        };
        let counter = header.counter();
        let received = pair.window.borrow().next();
        pair.keypair.check_receive(received, now)?;
        let mut packet = vec![
            0;
            sealed
                .len()
                .checked_sub(TAG_LEN)
                .ok_or(Rejection::BadLength)?
        ];
        if !C::open(
            &mut packet,
            sealed,
            &[],
            counter,
            pair.keypair.receiving_key(),
        ) {
            return Err(Rejection::InvalidData);
        }
        if !pair.window.borrow_mut().check_and_update(counter) {
            return Err(Rejection::ReplayedData);
        }

        if let Some(retired) = self.keypairs.confirm(|next| Rc::ptr_eq(next, &pair)) {
            for pair in retired {
                self.forget(Some(pair.keypair.local_index()));
            }
            self.note(Event::SessionConfirmed, now);
            self.flush(now);
        }
        if self.timers.receive_rekey_is_due() {
            let due = |pair: &Rc<Pair>| pair.keypair.rekey_after_receive(now);
            if self.keypairs.current.as_ref().is_some_and(due) && self.timers.claim_receive_rekey()
            {
                self.request_initiation(now);
            }
        }
        if packet.is_empty() {
            self.note(Event::KeepaliveReceived, now);
            self.write(now, Record::ReceivedKeepalive);
        } else {
            self.note(Event::DataReceived, now);
            self.write(now, Record::Received(packet));
        }
        Ok(())
    }

    /// Brings the interface up or down.
    fn set_up(&mut self, up: bool, now: u64) {
        self.up = up;
        if up {
            let actions = self.timers.up();
            self.perform(actions, now);
            self.flush(now);
        } else {
            self.staged.clear();
            self.timers.down();
            self.armed = [None; Timer::COUNT];
            self.zero(now);
        }
    }

    /// The times of the log records that `wanted` matches, in milliseconds.
    pub fn times(&self, wanted: impl Fn(&Record) -> bool) -> Vec<u64> {
        self.log
            .iter()
            .filter(|(_, record)| wanted(record))
            .map(|(time, _)| time / NS_PER_MS)
            .collect()
    }

    /// The times at which a handshake message was sent, in milliseconds.
    pub fn sent(&self, kind: MessageType) -> Vec<u64> {
        self.times(|record| *record == Record::Sent(kind))
    }

    /// The times at which keepalives were sent, in milliseconds.
    pub fn keepalives(&self) -> Vec<u64> {
        self.times(|record| *record == Record::SentData(0))
    }

    /// The packets received, in order.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.log
            .iter()
            .filter_map(|(_, record)| match record {
                Record::Received(packet) => Some(packet.clone()),
                _ => None,
            })
            .collect()
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&self, reason: Rejection) -> usize {
        self.times(|record| *record == Record::Dropped(reason))
            .len()
    }
}

fn identity(private: [u8; 32]) -> Identity {
    Identity::new::<C>(SecretKey::from_bytes(private)).unwrap()
}

/// What the link does with a message, given its sender, the time (ms) and its bytes. Returns the
/// delay in milliseconds of each copy that arrives; none if it is lost.
pub type Link = Box<dyn FnMut(usize, u64, &[u8]) -> Vec<u64>>;

/// Something that the user of a node does.
pub type Step = Box<dyn FnOnce(&mut Node, u64)>;

enum Happening {
    Arrives { to: usize, bytes: Vec<u8> },
    Does { node: usize, step: Step },
}

/// Two nodes, a link, and the agenda.
pub struct World {
    pub nodes: [Node; 2],
    pub link: Link,
    now: u64,
    /// By time, then by order of creation.
    agenda: BTreeMap<(u64, u64), Happening>,
    made: u64,
}

/// A link that takes 20 ms and loses nothing.
pub fn good_link() -> Link {
    Box::new(|_, _, _| vec![20])
}

impl World {
    pub fn new(psk: [u8; 32]) -> Self {
        let (a, b) = ([0x11; 32], [0x22; 32]);
        let public = |private| *identity(private).public();
        Self {
            nodes: [
                Node::new(a, public(b), psk, 1),
                Node::new(b, public(a), psk, 2),
            ],
            link: good_link(),
            now: START,
            agenda: BTreeMap::new(),
            made: 0,
        }
    }

    fn plan(&mut self, time: u64, happening: Happening) {
        self.made += 1;
        self.agenda.insert((time, self.made), happening);
    }

    /// Has `node` do something `ms` after the start.
    pub fn at(&mut self, ms: u64, node: usize, step: impl FnOnce(&mut Node, u64) + 'static) {
        let step = Box::new(step);
        self.plan(START + ms * NS_PER_MS, Happening::Does { node, step });
    }

    /// Has `node` send a packet `ms` after the start.
    pub fn send_at(&mut self, ms: u64, node: usize, packet: &[u8]) {
        let packet = packet.to_vec();
        self.at(ms, node, move |node, now| node.send(&packet, now));
    }

    /// Brings `node` up or down `ms` after the start.
    pub fn set_up_at(&mut self, ms: u64, node: usize, up: bool) {
        self.at(ms, node, move |node, now| node.set_up(up, now));
    }

    /// Lets time pass until `ms` after the start.
    pub fn run_until(&mut self, ms: u64) {
        let end = START + ms * NS_PER_MS;
        loop {
            self.carry();
            let timer = (0..2)
                .flat_map(|node| Timer::ALL.map(|timer| (node, timer)))
                .filter_map(|(node, timer)| {
                    let time = self.nodes[node].armed[timer.index()]?;
                    Some((time, node, timer))
                })
                .min_by_key(|(time, ..)| *time);
            let planned = self.agenda.keys().next().map(|(time, _)| *time);
            match (timer, planned) {
                (Some((time, node, timer)), planned)
                    if time <= end && planned.is_none_or(|planned| time < planned) =>
                {
                    self.now = time;
                    self.nodes[node].armed[timer.index()] = None;
                    self.nodes[node].expired(timer, time);
                }
                (_, Some(time)) if time <= end => {
                    self.now = time;
                    match self.agenda.pop_first() {
                        Some((_, Happening::Arrives { to, bytes })) => {
                            let from = self.nodes[1 - to].source;
                            self.nodes[to].receive(&from, &bytes, time);
                        }
                        Some((_, Happening::Does { node, step })) => {
                            step(&mut self.nodes[node], time);
                        }
                        None => {}
                    }
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Puts the messages that the nodes have sent on the link.
    fn carry(&mut self) {
        for from in 0..2 {
            for bytes in std::mem::take(&mut self.nodes[from].outgoing) {
                let sent = (self.now - START) / NS_PER_MS;
                for delay in (self.link)(from, sent, &bytes) {
                    let time = self.now + delay * NS_PER_MS;
                    let bytes = bytes.clone();
                    self.plan(
                        time,
                        Happening::Arrives {
                            to: 1 - from,
                            bytes,
                        },
                    );
                }
            }
        }
    }
}

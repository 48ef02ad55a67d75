// SPDX-License-Identifier: GPL-2.0-only

//! The configuration of a device, as netlink changes it: port, mark, keys, peers, allowed IPs.

use core::net::IpAddr;

use kernel::{
    alloc::{flags::GFP_KERNEL, Flags},
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::lock::{mutex::MutexBackend, Guard},
};

use crate::{
    device::{
        admission,
        binding::Binding,
        events, handshake,
        peer::Peer,
        send, sessions,
        socket::{self, Sockets},
        Device,
    },
    kapi::{
        crypto::KernelCrypto,
        mm,
        sync::{
            atomic::Ordering::Relaxed,
            rcu::{self, RcuArc},
        },
    },
    proto::{
        consts::MAX_PEERS,
        crypto::{Crypto as _, PublicKey, SecretKey, SymmetricKey},
        noise::Identity,
    },
    tables::allowedips::{AllowedIpsWriter, Prefix, Prefixes},
};

/// What the update lock guards.
pub(crate) struct Config {
    /// All peers, by their ids: in the order they were added.
    peers: RBTree<u64, RcuArc<Peer>>,
    num_peers: usize,
    allowed_ips: AllowedIpsWriter<Peer>,
    /// Changes with every change of the allowed IPs.
    allowed_ips_version: u64,
    /// Changes with every change of the configuration, so that a dump notices. Never 0.
    generation: u32,
    /// What the sockets are bound to.
    binding: Binding,
    /// What stands for the private key while there is none: a new one like it changes nothing.
    no_key: SecretKey,
    /// Peers were removed since the last [`UpdateGuard::settle`].
    peers_removed: bool,
    /// The generation in which a peer was last removed; 0 if none was.
    removed_in: u32,
}

impl Config {
    pub(crate) fn new(allowed_ips: AllowedIpsWriter<Peer>) -> Self {
        Self {
            peers: RBTree::new(),
            num_peers: 0,
            allowed_ips,
            allowed_ips_version: 0,
            generation: 1,
            binding: Binding::NONE,
            no_key: SecretKey::zeroed(),
            peers_removed: false,
            removed_in: 0,
        }
    }
}

/// The update lock, held: the only way to change the configuration.
pub(crate) struct UpdateGuard<'a> {
    device: &'a RcuArc<Device>,
    config: Guard<'a, Config, MutexBackend>,
    /// How memory is asked for.
    flags: Flags,
}

/// Takes the update lock. Process context, under RTNL when the call comes from userspace.
pub(crate) fn lock(device: &RcuArc<Device>) -> UpdateGuard<'_> {
    UpdateGuard {
        device,
        config: device.update.lock(),
        flags: GFP_KERNEL,
    }
}

/// What a change needs that may be refused, opened or created before anything has changed.
pub(crate) struct Prepared {
    /// Sockets on another port, if the device is up.
    sockets: Option<RcuArc<Sockets>>,
    /// Peers that are new, in the order in which they come; those that are not needed in the end
    /// are dropped.
    peers: KVVec<RcuArc<Peer>>,
    /// How many of them have been used or passed by.
    used: usize,
}

impl Prepared {
    pub(crate) fn new() -> Self {
        Self {
            sockets: None,
            peers: KVVec::new(),
            used: 0,
        }
    }

    /// Makes room for so many peers.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn reserve_peers(&mut self, count: usize) -> Result {
        self.peers = KVVec::with_capacity(count, GFP_KERNEL)?;
        Ok(())
    }

    /// Takes a peer that was prepared, in the order of [`UpdateGuard::prepare_peer`].
    pub(crate) fn take_peer(&mut self, public_key: &PublicKey) -> Option<RcuArc<Peer>> {
        loop {
            let peer = self.peers.get(self.used)?;
            self.used = self.used.saturating_add(1);
            if peer.public_key() == public_key {
                return Some(peer.clone());
            }
        }
    }

    /// How many peers were prepared.
    pub(crate) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Gives up what would not go by itself. Sleeps.
    pub(crate) fn give_up(self) {
        if let Some(sockets) = self.sockets {
            sockets.release();
        }
    }
}

impl UpdateGuard<'_> {
    /// Counts configuration changes; what a dump compares.
    pub(crate) fn generation(&self) -> u32 {
        self.config.generation
    }

    /// Notes a change of the configuration.
    pub(crate) fn bump_generation(&mut self) {
        self.config.generation = self.config.generation.wrapping_add(1).max(1);
    }

    /// Counts changes of the allowed IPs.
    pub(crate) fn allowed_ips_version(&self) -> u64 {
        self.config.allowed_ips_version
    }

    /// From now on memory is waited for, so that no change fails for want of it.
    pub(crate) fn wait_for_memory(&mut self) {
        self.flags = mm::gfp_never_fails();
    }

    /// How memory is asked for.
    pub(crate) fn memory_flags(&self) -> Flags {
        self.flags
    }

    /// How many peers there are.
    pub(crate) fn num_peers(&self) -> usize {
        self.config.num_peers
    }

    /// Opens sockets on another port for [`UpdateGuard::apply_port`], if the device is up.
    ///
    /// # Errors
    ///
    /// As [`UpdateGuard::set_port`].
    pub(crate) fn prepare_port(&self, port: u16, prepared: &mut Prepared) -> Result {
        if self.device.port() != port && self.device.is_up() {
            let sockets = socket::prepare(self.device, port, &self.config.binding)?;
            prepared.sockets = Some(sockets);
        }
        Ok(())
    }

    /// Sets the port that was prepared.
    pub(crate) fn apply_port(&mut self, port: u16, prepared: &mut Prepared) {
        if self.device.port() == port {
            return;
        }
        self.clear_sources();
        match prepared.sockets.take() {
            Some(sockets) => socket::install(self.device, sockets),
            None => self.device.port.store(port.into(), Relaxed),
        }
    }

    /// Creates a peer for [`UpdateGuard::add_prepared`], to have this identity as its own side.
    /// There must be room for it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn prepare_peer(
        &self,
        public_key: &PublicKey,
        identity: Option<&Identity>,
        prepared: &mut Prepared,
    ) -> Result {
        // A peer whose allowed IPs are in several places of the request.
        if prepared
            .peers
            .last()
            .is_some_and(|last| last.public_key() == public_key)
        {
            return Ok(());
        }
        let psk = SymmetricKey::default();
        let peer = Peer::new(self.device, *public_key, &psk, identity)?;
        prepared
            .peers
            .push_within_capacity(peer)
            .map_err(|_| ENOMEM)
    }

    /// Adds a peer that was prepared.
    ///
    /// # Errors
    ///
    /// As [`UpdateGuard::add_peer`].
    pub(crate) fn add_prepared(&mut self, peer: &RcuArc<Peer>) -> Result {
        let node = RBTreeNode::new(peer.id(), peer.clone(), self.flags)?;
        let key = *peer.public_key();
        let device = self.device;
        if !device.peers_by_key.insert(key, peer.clone(), self.flags)? {
            return Err(EEXIST);
        }
        self.config.peers.insert(node);
        self.config.num_peers = self.config.num_peers.saturating_add(1);
        self.touch(peer);
        events::peer_added(device, peer.public_key());
        Ok(())
    }

    /// Sets the mark of the packets we send; they find their routes anew.
    pub(crate) fn set_fwmark(&mut self, fwmark: u32) -> Result {
        self.device.fwmark.store(fwmark, Relaxed);
        self.clear_sources();
        Ok(())
    }

    /// Sets the port to listen on, 0 for any; at once if the device is up.
    ///
    /// # Errors
    ///
    /// If the sockets cannot be opened; those there are stay then.
    pub(crate) fn set_port(&mut self, port: u16) -> Result {
        if self.device.port() == port {
            return Ok(());
        }
        self.clear_sources();
        if self.device.is_up() {
            socket::open(self.device, port, &self.config.binding)
        } else {
            self.device.port.store(port.into(), Relaxed);
            Ok(())
        }
    }

    /// What the sockets are bound to.
    pub(crate) fn binding(&self) -> Binding {
        self.config.binding
    }

    /// Sets what the sockets are bound to; at once if the device is up.
    ///
    /// # Errors
    ///
    /// If sockets cannot be opened so; they are as before then.
    pub(crate) fn set_binding(&mut self, binding: &Binding) -> Result {
        let before = core::mem::replace(&mut self.config.binding, *binding);
        if !self.device.is_up() || before == *binding {
            return Ok(());
        }
        // First, as there cannot be two sockets on the port.
        socket::close(self.device);
        self.clear_sources();
        let port = self.device.port();
        socket::open(self.device, port, binding).inspect_err(|_| {
            self.config.binding = before;
            // Whatever goes wrong here has been said in the kernel log.
            let _ = socket::open(self.device, port, &before);
        })
    }

    fn clear_sources(&self) {
        self.for_each_peer(|peer| peer.clear_source());
    }

    /// Sets the private key, all zeros for none. A peer that has our own public key goes. The
    /// same key again changes nothing.
    #[inline(never)]
    pub(crate) fn set_private_key(&mut self, private: &[u8; 32]) -> Result {
        let device = self.device;
        // As stored, that is clamped; so the same key unclamped counts as another one.
        let same = match device.identity.get() {
            Some(identity) => KernelCrypto::ct_eq(identity.private().expose(), private),
            None => KernelCrypto::ct_eq(self.config.no_key.expose(), private),
        };
        if same {
            return Ok(());
        }
        let identity = match Identity::new::<KernelCrypto>(SecretKey::from_bytes(*private)) {
            Some(identity) => Some(RcuArc::new(identity, GFP_KERNEL)?),
            None => None,
        };
        // The last step that can fail: nothing has changed yet.
        admission::change_checker(device, |checker| {
            checker.set_identity::<KernelCrypto>(identity.as_deref().map(Identity::public));
        })?;
        if let Some(own) = identity
            .as_ref()
            .and_then(|identity| self.find_peer(identity.public()))
        {
            self.remove_peer(&own);
        }
        if identity.is_none() {
            // The in-tree driver clamps these zeros, too, and compares the next key with that.
            self.config.no_key.clamp();
        }
        let first = device.identity.swap(identity.clone()).is_none() && identity.is_some();
        let identity = identity.as_deref();
        self.for_each_peer(|peer| {
            handshake::follow_identity(peer, identity);
            if first && device.is_up() {
                send::send_staged(peer);
            }
        });
        Ok(())
    }

    /// Adds a peer, at the end of the list. `None` for our own public key: nothing to talk to.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when there are too many peers.
    #[inline(never)]
    pub(crate) fn add_peer(
        &mut self,
        public_key: &PublicKey,
        psk: &SymmetricKey,
    ) -> Result<Option<RcuArc<Peer>>> {
        let device = self.device;
        if device
            .identity
            .get()
            .is_some_and(|identity| identity.public() == public_key)
        {
            return Ok(None);
        }
        if self.num_peers() >= MAX_PEERS {
            return Err(ENOMEM);
        }
        let identity = device.identity.get();
        let peer = Peer::new(device, *public_key, psk, identity.as_deref())?;
        self.add_prepared(&peer)?;
        Ok(Some(peer))
    }

    /// Removes a peer. What is under way for it ends by itself; see [`UpdateGuard::settle`].
    pub(crate) fn remove_peer(&mut self, peer: &RcuArc<Peer>) {
        self.config.peers_removed = true;
        self.config.removed_in = self.config.generation;
        self.config.allowed_ips.remove_by_peer(peer);
        self.touch_allowed_ips();
        self.config.peers.remove(&peer.id());
        self.config.num_peers = self.config.num_peers.saturating_sub(1);
        self.device.peers_by_key.remove(peer.public_key(), peer);
        end_peer(peer);
        events::peer_removed(self.device, peer.public_key());
    }

    /// Removes all peers.
    pub(crate) fn remove_all_peers(&mut self) {
        self.config.allowed_ips.remove_all();
        self.touch_allowed_ips();
        while let Some(peer) = self.first_peer() {
            self.remove_peer(&peer);
        }
    }

    /// Ends a command: if it removed peers, waits until nobody sends to them any more. One grace
    /// period, however many they were.
    pub(crate) fn settle(mut self) {
        let removed = core::mem::take(&mut self.config.peers_removed);
        drop(self);
        if removed {
            rcu::synchronize_net();
        }
    }

    /// The peer with this public key.
    pub(crate) fn find_peer(&self, public_key: &PublicKey) -> Option<RcuArc<Peer>> {
        self.device.find_peer(public_key)
    }

    pub(crate) fn first_peer(&self) -> Option<RcuArc<Peer>> {
        self.peer_after(0)
    }

    /// The first peer whose id is greater than `id`; ids ascend in the order of addition.
    pub(crate) fn peer_after(&self, id: u64) -> Option<RcuArc<Peer>> {
        let cursor = self
            .config
            .peers
            .cursor_lower_bound(&id.saturating_add(1))?;
        let (_, peer) = cursor.current();
        Some(peer.clone())
    }

    /// The generation in which a peer was last removed, if one was.
    pub(crate) fn removed_in(&self) -> Option<u32> {
        match self.config.removed_in {
            0 => None,
            generation => Some(generation),
        }
    }

    /// Notes that this change is about the settings of a peer.
    pub(crate) fn touch(&self, peer: &Peer) {
        peer.note_changed(self.config.generation);
    }

    /// Writes the first peers whose ids are greater than `id` to `peers`.
    pub(crate) fn peers_after(&mut self, id: u64, peers: &mut [Option<RcuArc<Peer>>]) {
        let from = id.saturating_add(1);
        let mut cursor = self.config.peers.cursor_lower_bound_mut(&from);
        for place in peers {
            let Some(here) = cursor else { return };
            let (_, peer) = here.current();
            *place = Some(peer.clone());
            cursor = here.move_next();
        }
    }

    pub(crate) fn for_each_peer(&self, mut action: impl FnMut(&RcuArc<Peer>)) {
        for peer in self.config.peers.values() {
            action(peer);
        }
    }

    /// Gives a prefix to a peer, at the end of its list, whoever had it before.
    pub(crate) fn insert_allowed_ip(
        &mut self,
        peer: &RcuArc<Peer>,
        addr: IpAddr,
        cidr: u8,
    ) -> Result {
        let prefix = Prefix::new(addr, cidr).ok_or(EINVAL)?;
        let before = self.config.allowed_ips.insert(prefix, peer, self.flags)?;
        if let Some(before) = before {
            self.touch(&before);
        }
        self.touch_allowed_ips();
        Ok(())
    }

    /// Takes a prefix from a peer; nothing happens if it has not got it.
    pub(crate) fn remove_allowed_ip(
        &mut self,
        peer: &RcuArc<Peer>,
        addr: IpAddr,
        cidr: u8,
    ) -> Result {
        let prefix = Prefix::new(addr, cidr).ok_or(EINVAL)?;
        self.config.allowed_ips.remove(prefix, peer);
        self.touch_allowed_ips();
        Ok(())
    }

    /// Takes all prefixes from a peer.
    pub(crate) fn remove_allowed_ips(&mut self, peer: &RcuArc<Peer>) {
        self.config.allowed_ips.remove_by_peer(peer);
        self.touch_allowed_ips();
    }

    fn touch_allowed_ips(&mut self) {
        self.config.allowed_ips_version = self.config.allowed_ips_version.wrapping_add(1);
    }

    /// The prefixes of a peer from a place in its list on, with their places.
    pub(crate) fn allowed_ips_from(&mut self, peer: &Peer, seq: u64) -> Prefixes<'_> {
        self.config.allowed_ips.prefixes_from(peer, seq)
    }
}

/// Ends a peer that is in no table any more. Nothing starts after this; what is queued or under way
/// sees the mark, ends and drops its reference.
fn end_peer(peer: &RcuArc<Peer>) {
    peer.mark_dead();
    sessions::clear(peer);
    Peer::stop_timers(peer);
    Peer::cancel_work(peer);
    handshake::clear(peer);
    peer.purge_staged();
}

/// Sets the seconds between persistent keepalives; the first goes out at once if there were none
/// before.
pub(crate) fn set_keepalive(peer: &RcuArc<Peer>, seconds: u16) {
    if peer.timer_state.set_persistent_keepalive_interval(seconds) && peer.device().is_up() {
        send::send_keepalive(peer);
    }
}

/// Asks for a handshake with a peer whose endpoint is known, if handshakes begin at once here and
/// there is no session.
pub(crate) fn begin_if_eager(peer: &RcuArc<Peer>) {
    let device = peer.device();
    if device.is_eager()
        && device.is_up()
        && peer.has_endpoint()
        && peer.keypairs.current().is_none()
    {
        Peer::request_handshake(peer);
    }
}

/// Sets after how many seconds without data a peer is told of; 0 for never.
pub(crate) fn set_silence(peer: &RcuArc<Peer>, seconds: u16) {
    peer.silence.set_limit(seconds);
    Peer::arm_silence(peer);
}

/// The last step of configuring a peer: what is staged may go.
pub(crate) fn flush_staged(peer: &RcuArc<Peer>) {
    if peer.device().is_up() {
        send::send_staged(peer);
    }
}

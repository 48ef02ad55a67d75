// SPDX-License-Identifier: GPL-2.0

//! Socket buffers: packets on their way through the network stack.
//!
//! - [`SkBuff`] owns a packet: it is passed on by value and freed when dropped.
//! - [`Skb`] is the packet itself, borrowed from its owner.
//! - [`SkbList`] owns a run of packets.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use core::{
    fmt,
    mem::ManuallyDrop,
    net::IpAddr,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    slice,
};

use kernel::{error::to_result, prelude::*, types::Opaque};

use crate::{
    bindings,
    kapi::net::{ip, netdevice::NetDevice},
};

mod aead;
mod list;
mod receive;

pub use self::{
    ip::IpVersion,
    list::{Iter, IterMut, SkbList},
    receive::RxError,
};

/// Bytes to leave free before a message that is to be sent: IPv6 and UDP headers, what an
/// Ethernet device needs, and the data message's own header.
pub const MESSAGE_HEADROOM: usize = 128;

/// What the driver notes on a packet, in the bytes that the stack leaves to a packet's owner
/// (`skb->cb`). They hold whatever the owner before wrote until they are set.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct PacketCb {
    /// The nonce that the packet is, or is to be, encrypted with.
    pub nonce: u64,
    /// The MTU of the packet's path in bytes, which bounds the padding; 0 is no bound.
    pub mtu: u32,
    /// Traffic class of the outer header.
    pub ds: u8,
    _reserved: [u8; 3],
}

/// A packet: the kernel's [`struct sk_buff`], borrowed.
///
/// It has no size, so that the contents of two packets cannot be exchanged behind the backs of
/// their owners.
///
/// # Invariants
///
/// The buffer is valid and this is the only reference to it (`skb->users` is one); packet data
/// may be shared with clones. `head..tail` is initialised, `data` lies within.
///
/// [`struct sk_buff`]: srctree/include/linux/skbuff.h
#[repr(C)]
pub struct Skb {
    inner: Opaque<bindings::sk_buff>,
    _unsized: [()],
}

// SAFETY: A packet is not tied to a thread or CPU.
unsafe impl Send for Skb {}
// SAFETY: Shared references only read.
unsafe impl Sync for Skb {}

impl Skb {
    /// The reference type to a packet that C gave us. The caller adds the borrow.
    #[inline]
    fn cast(skb: *mut bindings::sk_buff) -> *mut Self {
        // CAST: `Self` starts with the transparent wrapper of `sk_buff`; its tail is empty.
        ptr::slice_from_raw_parts_mut(skb.cast::<()>(), 0) as *mut Self
    }

    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::sk_buff {
        self.inner.get()
    }

    #[inline]
    fn raw(&self) -> &bindings::sk_buff {
        // SAFETY: By the type invariant the packet is valid, and it is not changed while it is
        // borrowed: functions of C that change it are called with `&mut self`.
        unsafe { &*self.as_raw() }
    }

    /// The fields that travel with the packet's headers.
    #[inline]
    fn headers(&self) -> &bindings::sk_buff__bindgen_ty_4__bindgen_ty_2 {
        // SAFETY: The union's members have the same layout and only hold integers.
        unsafe { self.raw().__bindgen_anon_4.headers.as_ref() }
    }

    /// Length of the packet in bytes, from [`Skb::data`] on.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.raw().len as usize
    }

    /// Bytes of the packet that lie in the linear buffer.
    #[inline]
    fn head_len(&self) -> u32 {
        self.raw().len.wrapping_sub(self.raw().data_len)
    }

    #[inline]
    fn is_linear(&self) -> bool {
        self.raw().data_len == 0
    }

    /// Whether the packet stands for many, to be cut by segmentation offload.
    #[inline]
    pub fn is_gso(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_skb_is_gso(self.as_raw()) }
    }

    /// The protocol of the packet's first header (`ETH_P_*`), in network byte order.
    #[inline]
    pub fn protocol_be(&self) -> u16 {
        self.headers().protocol
    }

    /// Index of the interface that the packet came in by, 0 for none.
    #[inline]
    pub fn iif(&self) -> i32 {
        self.headers().skb_iif
    }

    /// The part of the packet that lies in the linear buffer.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: By the type invariant `data` and the `head_len()` bytes from there on are
        // initialised. Clones do not change shared data.
        unsafe { slice::from_raw_parts(self.raw().data, self.head_len() as usize) }
    }

    /// The linear buffer from `offset` (counted from `head`) to the end of the linear data.
    #[inline]
    fn linear_from(&self, offset: u16) -> &[u8] {
        let skb = self.raw();
        match skb.tail.checked_sub(offset.into()) {
            // SAFETY: `head + offset` is not after the tail, and all before that is initialised.
            Some(len) => unsafe {
                slice::from_raw_parts(skb.head.add(offset.into()), len as usize)
            },
            None => &[],
        }
    }

    /// The linear data from the network header on, empty if that is not within the buffer.
    #[inline]
    pub fn network(&self) -> &[u8] {
        self.linear_from(self.headers().network_header)
    }

    /// The linear data from the transport header on, empty if that is not within the buffer.
    #[inline]
    pub fn transport(&self) -> &[u8] {
        self.linear_from(self.headers().transport_header)
    }

    /// The version of the IP header at the network header, if there is a whole one.
    #[inline]
    pub fn ip_version(&self) -> Option<IpVersion> {
        IpVersion::parse(self.network())
    }

    /// Whether there is an IP header at the network header, of the version that the packet's
    /// protocol field says. Packet sockets can send others.
    #[inline]
    pub fn is_valid_ip_packet(&self) -> bool {
        self.ip_version()
            .is_some_and(|version| version.protocol_be() == self.protocol_be())
    }

    /// Destination in the IP header.
    #[inline]
    pub fn dst_addr(&self) -> Option<IpAddr> {
        ip::destination(self.network())
    }

    /// Source in the IP header.
    #[inline]
    pub fn src_addr(&self) -> Option<IpAddr> {
        ip::source(self.network())
    }

    /// MTU of the route that the packet has taken so far, if it has a real one.
    #[inline]
    pub fn dst_mtu(&self) -> Option<u32> {
        // SAFETY: By the type invariant.
        match unsafe { bindings::wg_skb_dst_mtu(self.as_raw()) } {
            0 => None,
            mtu => Some(mtu),
        }
    }

    /// Gives up the packet's route.
    #[inline]
    pub fn drop_dst(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_skb_dst_drop(self.as_raw()) };
    }

    /// Takes the packet off the account of the socket that sent it.
    #[inline]
    pub fn orphan(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::wg_skb_orphan(self.as_raw()) };
    }

    /// Traffic class (DSCP and ECN) of the IP header at the network header; 0 without one.
    #[inline]
    pub fn outer_dsfield(&self) -> u8 {
        ip::dsfield(self.network(), self.protocol_be())
    }

    /// Traffic class for the outer header of the packet: no DSCP, and ECN as RFC 6040 has it in
    /// compatibility mode, where a congestion mark is not copied outwards.
    #[inline]
    pub fn ecn_encap_ds(&self) -> u8 {
        ip::ecn_encapsulate(self.outer_dsfield())
    }

    /// What the driver noted on the packet.
    #[inline]
    pub fn cb(&self) -> &PacketCb {
        const { assert!(size_of::<PacketCb>() <= 48) };
        // SAFETY: `cb` is 48 bytes, aligned to 8, and ours while we own the packet; `PacketCb` is
        // valid for any content.
        unsafe { &*self.raw().cb.as_ptr().cast() }
    }

    /// What the driver notes on the packet.
    #[inline]
    pub fn cb_mut(&mut self) -> &mut PacketCb {
        // SAFETY: As in `cb()`, and `&mut self` makes the access exclusive.
        unsafe { &mut *(&raw mut (*self.as_raw()).cb).cast() }
    }

    /// The next packet of the list that this one is on.
    #[inline]
    fn next_ptr(&self) -> *mut *mut bindings::sk_buff {
        // SAFETY: By the type invariant; the reference is only made to a field.
        unsafe { &raw mut (*self.as_raw()).__bindgen_anon_1.__bindgen_anon_1.next }
    }
}

/// A packet that is ours: dropping it counts as dropping the packet.
///
/// # Invariants
///
/// The pointer is to a valid packet that is on no list and that nobody else refers to.
#[repr(transparent)]
pub struct SkBuff(NonNull<bindings::sk_buff>);

// SAFETY: A packet is not tied to a thread or CPU.
unsafe impl Send for SkBuff {}
// SAFETY: Shared references only read.
unsafe impl Sync for SkBuff {}

impl SkBuff {
    /// Takes over a packet of C.
    ///
    /// # Safety
    ///
    /// `skb` must be valid and the caller must have the only reference to it, which it gives up.
    #[inline]
    pub(crate) unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: The caller promises all but that it is on no list, which this says to those
        // who look at `next`.
        let skb = Self(skb);
        // SAFETY: By the type invariant.
        unsafe { *skb.next_ptr() = ptr::null_mut() };
        skb
    }

    /// Hands the packet over to C.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut bindings::sk_buff {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Allocates an empty packet with room for `len` bytes behind `headroom`. Any context.
    pub fn alloc(headroom: usize, len: usize) -> Result<Self> {
        let size = u32::try_from(headroom.checked_add(len).ok_or(EMSGSIZE)?)?;
        // SAFETY: No requirements; -1 is `NUMA_NO_NODE`.
        let skb = unsafe { bindings::__alloc_skb(size, bindings::GFP_ATOMIC, 0, -1) };
        let skb = NonNull::new(skb).ok_or(ENOMEM)?;
        // SAFETY: The packet has just been made for us.
        let skb = unsafe { Self::from_raw(skb) };
        // SAFETY: There are at least `headroom` bytes, and none of them is in use yet.
        unsafe {
            let raw = skb.as_raw();
            (*raw).data = (*raw).data.add(headroom);
            (*raw).tail = (*raw).tail.wrapping_add(headroom as u32);
            bindings::wg_skb_set_inner_network_header(raw);
        }
        Ok(skb)
    }

    /// Allocates a packet that holds a message to be sent to a peer. Any context.
    pub fn with_payload(message: &[u8]) -> Result<Self> {
        let mut skb = Self::alloc(MESSAGE_HEADROOM, message.len())?;
        skb.put_slice(message)?;
        Ok(skb)
    }

    /// Allocates an empty packet that is to be sealed, as if `dev` had got it to transmit, with
    /// its MTU noted on it. Any context. As others that `dev` transmits, it must not outlive it.
    pub fn keepalive(dev: &NetDevice) -> Result<Self> {
        let mut skb = Self::alloc(MESSAGE_HEADROOM, aead::TAG_LEN)?;
        // Its flow is looked into, by rules that may belong to the device's namespace.
        // SAFETY: The packet is ours and the device valid.
        unsafe { bindings::wg_skb_set_dev(skb.as_raw(), dev.as_raw()) };
        *skb.cb_mut() = PacketCb {
            mtu: dev.mtu(),
            ..PacketCb::default()
        };
        Ok(skb)
    }

    /// Frees a packet that has served its purpose, which is no drop to those who watch for them.
    #[inline]
    pub fn consume(self) {
        // SAFETY: The packet is ours and now theirs.
        unsafe { bindings::consume_skb(self.into_raw()) };
    }

    /// Cuts a segmentation offload packet into its segments; any other makes a list of one. None
    /// of them shares its `struct sk_buff` or has a route. What the driver noted is gone.
    ///
    /// # Errors
    ///
    /// Gives back the packet if it cannot be cut.
    pub fn segment(self) -> Result<SkbList, (Self, Error)> {
        if !self.is_gso() {
            let mut list = SkbList::new();
            list.push_unshared(self.into_raw());
            return Ok(list);
        }
        // SAFETY: By the type invariant.
        let segments = unsafe { bindings::wg_skb_gso_segment(self.as_raw()) };
        let segments = match kernel::error::from_err_ptr(segments) {
            Ok(segments) => segments,
            Err(error) => return Err((self, error)),
        };
        if segments.is_null() {
            // "Needs no cutting", which cannot be, as we offer no features.
            return Err((self, EINVAL));
        }
        self.consume();
        let mut list = SkbList::new();
        let mut next = segments;
        while let Some(segment) = NonNull::new(next) {
            // SAFETY: The segments are a chain of packets that are ours.
            next = unsafe { (*segment.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.next };
            list.push_unshared(segment.as_ptr());
        }
        Ok(list)
    }
}

impl Drop for SkBuff {
    #[inline]
    fn drop(&mut self) {
        // `kfree_skb()`.
        // SAFETY: By the type invariant the packet is ours, and it is not used again.
        unsafe {
            bindings::sk_skb_reason_drop(
                ptr::null(),
                self.0.as_ptr(),
                bindings::skb_drop_reason_SKB_DROP_REASON_NOT_SPECIFIED,
            )
        };
    }
}

impl Deref for SkBuff {
    type Target = Skb;

    #[inline]
    fn deref(&self) -> &Skb {
        // SAFETY: By the type invariant.
        unsafe { &*Skb::cast(self.0.as_ptr()) }
    }
}

impl DerefMut for SkBuff {
    #[inline]
    fn deref_mut(&mut self) -> &mut Skb {
        // SAFETY: By the type invariant.
        unsafe { &mut *Skb::cast(self.0.as_ptr()) }
    }
}

impl fmt::Debug for SkBuff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the contents: they may be secret.
        f.debug_struct("SkBuff").field("len", &self.len()).finish()
    }
}

impl Skb {
    /// Appends bytes to a linear packet.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if the buffer is too small, or the packet is not linear.
    pub fn put_slice(&mut self, bytes: &[u8]) -> Result {
        let room = self.put(bytes.len())?;
        room.copy_from_slice(bytes);
        Ok(())
    }

    /// Appends `len` bytes of whatever the buffer holds; the caller overwrites all of them.
    fn put(&mut self, len: usize) -> Result<&mut [u8]> {
        let len32 = u32::try_from(len)?;
        let skb = self.raw();
        if !self.is_linear() || skb.end.wrapping_sub(skb.tail) < len32 {
            return Err(EMSGSIZE);
        }
        let start = skb.tail as usize;
        let raw = self.as_raw();
        // SAFETY: The bytes are within the buffer. They are filled before they are handed out,
        // for the buffer is not initialised there.
        unsafe {
            (*raw).tail = (*raw).tail.wrapping_add(len32);
            (*raw).len = (*raw).len.wrapping_add(len32);
            let start = (*raw).head.add(start);
            ptr::write_bytes(start, 0, len);
            Ok(slice::from_raw_parts_mut(start, len))
        }
    }

    /// Moves the start of the packet forward.
    fn pull(&mut self, len: u32) -> Result {
        if len > self.head_len() {
            return Err(EMSGSIZE);
        }
        // SAFETY: The bytes are in the linear part.
        unsafe { bindings::skb_pull(self.as_raw(), len) };
        Ok(())
    }

    /// Sees to it that at least the first `len` bytes are linear. May move the buffer.
    fn may_pull(&mut self, len: u32) -> Result {
        let head_len = self.head_len();
        if len <= head_len {
            return Ok(());
        }
        if len > self.raw().len {
            return Err(EMSGSIZE);
        }
        let missing = i32::try_from(len.wrapping_sub(head_len))?;
        // SAFETY: By the type invariant; `missing` bytes follow the linear part.
        if unsafe { bindings::__pskb_pull_tail(self.as_raw(), missing) }.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Cuts the packet off after `len` bytes, if it is longer.
    fn trim(&mut self, len: u32) -> Result {
        if len >= self.raw().len {
            return Ok(());
        }
        if self.is_linear() {
            // SAFETY: The packet is linear.
            unsafe { bindings::skb_trim(self.as_raw(), len) };
            return Ok(());
        }
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::___pskb_trim(self.as_raw(), len) })
    }
}

// SPDX-License-Identifier: GPL-2.0-only

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
    ops::{Deref, DerefMut, Range},
    ptr::{self, NonNull},
    slice,
};

use kernel::{error::to_result, prelude::*, types::Opaque};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    bindings,
    kapi::net::ip::{self, IpVersion},
    proto::segment::Segments,
};

/// Bytes of `skb->cb`.
const CB_LEN: usize = 48;
/// Fragments of a packet; the kernel can be built with a limit of 17 or more.
const MAX_FRAGS: u8 = 16;

mod bulk;
mod growing;
mod joined;
mod list;
mod private;

pub use self::{
    bulk::UdpBulk,
    growing::FragPool,
    joined::Joined,
    list::{Fate, SkbList},
    private::PrivateSkb,
};

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
        // SAFETY: The packet is valid by the type invariant.
        unsafe { bindings::wg_skb_is_gso(self.as_raw()) }
    }

    /// The datagrams that a packet of a UDP socket consists of, by place; none if it is just one
    /// (UDP GRO). All are of one sender, and have the same IP header but for the length.
    #[inline]
    pub fn pieces(&self) -> Pieces {
        // SAFETY: The packet is valid by the type invariant.
        let piece_len = unsafe { bindings::wg_skb_piece_len(self.as_raw()) };
        Pieces {
            piece_len,
            rest: 0..if piece_len == 0 { 0 } else { self.raw().len },
        }
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

    /// The `N` bytes from `offset` on, wherever they lie, if there are so many.
    #[inline]
    pub fn bytes_at<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let (Ok(offset), Ok(len)) = (i32::try_from(offset), i32::try_from(N)) else {
            return None;
        };
        let to = bytes.as_mut_ptr().cast();
        // SAFETY: The packet is valid by the type invariant; there is room for `N` bytes.
        let error = unsafe { bindings::skb_copy_bits(self.as_raw(), offset, to, len) };
        (error == 0).then_some(bytes)
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
        // SAFETY: The packet is valid by the type invariant.
        match unsafe { bindings::wg_skb_dst_mtu(self.as_raw()) } {
            0 => None,
            mtu => Some(mtu),
        }
    }

    /// How to cut the packet, if it stands for segments that consist of its headers and a part of
    /// its payload each, and nobody cares when they are sent.
    #[inline]
    pub fn segments(&self) -> Option<Segments> {
        let mut raw = bindings::wg_segments::default();
        // SAFETY: The packet is valid by the type invariant.
        if !unsafe { bindings::wg_skb_segments(self.as_raw(), &mut raw) } {
            return None;
        }
        let header_len = raw.header_len as usize;
        Some(Segments {
            is_v4: raw.v4,
            is_tcp: raw.tcp,
            fixed_id: raw.fixed_id,
            keeps_cwr: raw.keeps_cwr,
            header_len,
            payload_len: self.len().saturating_sub(header_len),
            size: raw.size.into(),
        })
    }

    /// Whether somebody wants to be told when the packet is sent.
    #[inline]
    pub fn wants_timestamp(&self) -> bool {
        // SAFETY: The packet is valid by the type invariant.
        unsafe { bindings::wg_skb_wants_timestamp(self.as_raw()) }
    }

    /// Gives up the packet's route.
    #[inline]
    pub fn drop_dst(&mut self) {
        // SAFETY: The packet is valid by the type invariant, and exclusively borrowed.
        unsafe { bindings::wg_skb_dst_drop(self.as_raw()) };
    }

    /// Takes the packet off the account of the socket that sent it, and gives its pages back, if
    /// there is memory for a copy.
    #[inline]
    pub fn orphan(&mut self) {
        // SAFETY: The packet is valid by the type invariant, and exclusively borrowed.
        unsafe { bindings::wg_skb_orphan(self.as_raw()) };
    }

    /// Traffic class (DSCP and ECN) of the IP header at the network header; 0 without one.
    #[inline]
    pub fn outer_dsfield(&self) -> u8 {
        ip::dsfield(self.network(), self.protocol_be())
    }

    /// Traffic class for the outer header of the packet: no DSCP, or the packet's, and ECN as RFC
    /// 6040 has it in compatibility mode, where a congestion mark is not copied outwards.
    #[inline]
    pub fn encap_ds(&self, copy_dscp: bool) -> u8 {
        let inner = self.outer_dsfield();
        let ecn = ip::ecn_encapsulate(inner);
        if copy_dscp {
            ip::dscp_of(inner) | ecn
        } else {
            ecn
        }
    }

    /// What the packet's owner keeps on it: `skb->cb`, which holds whatever the owner before wrote
    /// until it is set.
    #[inline]
    pub fn cb<T: FromBytes + Immutable>(&self) -> &T {
        const { assert!(size_of::<T>() <= CB_LEN && align_of::<T>() <= align_of::<u64>()) };
        // SAFETY: `cb` is large enough and aligned to 8 bytes, it is initialised and ours while we
        // own the packet, and any content is a valid `T`.
        unsafe { &*self.raw().cb.as_ptr().cast() }
    }

    /// The same, to be changed.
    #[inline]
    pub fn cb_mut<T: FromBytes + IntoBytes>(&mut self) -> &mut T {
        const { assert!(size_of::<T>() <= CB_LEN && align_of::<T>() <= align_of::<u64>()) };
        // SAFETY: `cb` is large enough and aligned to 8 bytes, it is initialised and ours while we
        // own the packet, any content is a valid `T`, and a `T` leaves no byte uninitialised;
        // `&mut self` makes the access exclusive.
        unsafe { &mut *(&raw mut (*self.as_raw()).cb).cast() }
    }

    /// The next packet of the list that this one is on.
    #[inline]
    fn next_ptr(&self) -> *mut *mut bindings::sk_buff {
        // SAFETY: The packet is valid by the type invariant; no reference is made.
        unsafe { &raw mut (*self.as_raw()).__bindgen_anon_1.__bindgen_anon_1.next }
    }
}

/// Iterator of [`Skb::pieces`].
pub struct Pieces {
    piece_len: u32,
    rest: Range<u32>,
}

impl Pieces {
    /// Bytes of each but the last.
    #[inline]
    pub fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// How many are left.
    #[inline]
    pub fn remaining(&self) -> usize {
        let len = self.rest.end.saturating_sub(self.rest.start);
        let whole = len.checked_div(self.piece_len).unwrap_or(0);
        let partial = whole.wrapping_mul(self.piece_len) != len;
        (whole as usize).wrapping_add(partial.into())
    }
}

impl Iterator for Pieces {
    type Item = Range<u32>;

    #[inline]
    fn next(&mut self) -> Option<Range<u32>> {
        let Range { start, end } = self.rest;
        if start >= end {
            return None;
        }
        let next = start.saturating_add(self.piece_len).min(end);
        self.rest.start = next;
        Some(start..next)
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
        // SAFETY: The packet is valid by the type invariant, and ours.
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

    /// Allocates a packet that holds `bytes` behind `headroom`. Any context.
    pub fn from_bytes(headroom: usize, bytes: &[u8]) -> Result<Self> {
        let mut skb = Self::alloc(headroom, bytes.len())?;
        PrivateSkb::of_new(&mut skb)
            .put_zeros(bytes.len())?
            .copy_from_slice(bytes);
        Ok(skb)
    }

    /// Copies a piece of a packet that a UDP socket received into a packet of its own, with the IP
    /// header, without options, and the UDP header before it. Any context but hard interrupts.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also if there are not so many bytes or the headers are not linear.
    pub fn copy_piece(from: &Skb, piece: &Range<u32>) -> Result<Self> {
        let len = piece.end.saturating_sub(piece.start);
        // SAFETY: The packet is valid by its type invariant.
        let copy = unsafe { bindings::wg_skb_copy_piece(from.as_raw(), piece.start, len) };
        let copy = NonNull::new(copy).ok_or(ENOMEM)?;
        // SAFETY: The packet has just been made for us.
        Ok(unsafe { Self::from_raw(copy) })
    }

    /// Frees a packet that has been processed: not a drop to `drop_monitor` and the like.
    #[inline]
    pub fn consume(self) {
        // SAFETY: The packet is ours and now theirs.
        unsafe { bindings::wg_consume_skb(self.into_raw()) };
    }

    /// Drops a packet for a reason.
    pub fn discard(self, reason: DropReason) {
        // SAFETY: The packet is ours, and given up.
        unsafe { free(ManuallyDrop::new(self).0, reason) };
    }

    /// Cuts a segmentation offload packet into its segments; any other makes a list of one. None
    /// of them shares its `struct sk_buff` or has a route. What the driver noted is gone. If they
    /// are to be copied anyway, `scattered` saves work: what they carry then stays where it is, and
    /// their checksums are left to be filled in.
    ///
    /// # Errors
    ///
    /// Gives back the packet if it cannot be cut.
    pub fn segment(self, scattered: bool) -> Result<SkbList, (Self, Error)> {
        if !self.is_gso() {
            let mut list = SkbList::new();
            // SAFETY: The packet is ours, and given up.
            unsafe { list.push_unshared(self.into_raw()) };
            return Ok(list);
        }
        // SAFETY: The packet is valid by the type invariant, and ours.
        let segments = unsafe { bindings::wg_skb_gso_segment(self.as_raw(), scattered) };
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
            // SAFETY: The segment is valid and ours, and given up.
            unsafe { list.push_unshared(segment.as_ptr()) };
        }
        Ok(list)
    }
}

/// Why a packet is dropped, as `drop_monitor` and the like are told (`enum skb_drop_reason`).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DropReason {
    /// No reason of the kernel's fits.
    NotSpecified = bindings::skb_drop_reason_SKB_DROP_REASON_NOT_SPECIFIED,
    /// No memory.
    NoMemory = bindings::skb_drop_reason_SKB_DROP_REASON_NOMEM,
    /// A queue is full.
    FullRing = bindings::skb_drop_reason_SKB_DROP_REASON_FULL_RING,
    /// A queue is emptied.
    QueuePurge = bindings::skb_drop_reason_SKB_DROP_REASON_QUEUE_PURGE,
    /// The IP header is wrong.
    IpHeader = bindings::skb_drop_reason_SKB_DROP_REASON_IP_INHDR,
    /// The device is down or going away.
    DeviceNotReady = bindings::skb_drop_reason_SKB_DROP_REASON_DEV_READY,
    /// Segmentation failed.
    Segmentation = bindings::skb_drop_reason_SKB_DROP_REASON_SKB_GSO_SEG,
    /// There is nobody to send it to.
    NoTarget = bindings::skb_drop_reason_SKB_DROP_REASON_NO_TX_TARGET,
    /// The protocol is not known.
    UnhandledProtocol = bindings::skb_drop_reason_SKB_DROP_REASON_UNHANDLED_PROTO,
}

impl Drop for SkBuff {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant the packet is ours, and it is not used again.
        unsafe { free(self.0, DropReason::NotSpecified) };
    }
}

/// `kfree_skb_reason()`.
///
/// # Safety
///
/// The packet is valid, and the caller gives it up.
#[inline]
unsafe fn free(skb: NonNull<bindings::sk_buff>, reason: DropReason) {
    // SAFETY: By the requirement of this function.
    unsafe { bindings::sk_skb_reason_drop(ptr::null(), skb.as_ptr(), reason as u32) };
}

impl Deref for SkBuff {
    type Target = Skb;

    #[inline]
    fn deref(&self) -> &Skb {
        // SAFETY: The packet is valid by the type invariant, which is that of `Skb` too.
        unsafe { &*Skb::cast(self.0.as_ptr()) }
    }
}

impl DerefMut for SkBuff {
    #[inline]
    fn deref_mut(&mut self) -> &mut Skb {
        // SAFETY: The packet is valid by the type invariant, which is that of `Skb` too; `&mut
        // self` makes the access exclusive.
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
    /// Moves the start of the packet forward.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if fewer than `len` bytes are linear.
    #[inline]
    pub fn pull(&mut self, len: u32) -> Result {
        if len > self.head_len() {
            return Err(EMSGSIZE);
        }
        let raw = self.as_raw();
        // SAFETY: The packet is valid and exclusively borrowed; the bytes are in its linear part.
        unsafe {
            (*raw).data = (*raw).data.add(len as usize);
            (*raw).len = (*raw).len.wrapping_sub(len);
        }
        Ok(())
    }

    /// Makes at least the first `len` bytes linear. May move the buffer.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if the packet is shorter, `ENOMEM`.
    pub fn may_pull(&mut self, len: u32) -> Result {
        let head_len = self.head_len();
        if len <= head_len {
            return Ok(());
        }
        if len > self.raw().len {
            return Err(EMSGSIZE);
        }
        let missing = i32::try_from(len.wrapping_sub(head_len))?;
        // SAFETY: The packet is valid and exclusively borrowed; `missing` bytes follow its linear
        // part.
        if unsafe { bindings::__pskb_pull_tail(self.as_raw(), missing) }.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Cuts the packet off after `len` bytes, if it is longer.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the packet is not linear.
    #[inline]
    pub fn trim(&mut self, len: u32) -> Result {
        let Some(excess @ 1..) = self.raw().len.checked_sub(len) else {
            return Ok(());
        };
        let raw = self.as_raw();
        if self.is_linear() {
            // SAFETY: The packet is valid, exclusively borrowed and linear, so that its last
            // `excess` bytes are those before the tail.
            unsafe {
                (*raw).len = len;
                (*raw).tail = (*raw).tail.wrapping_sub(excess);
            }
            return Ok(());
        }
        // SAFETY: The packet is valid and exclusively borrowed, and longer than `len`.
        to_result(unsafe { bindings::___pskb_trim(raw, len) })
    }

    /// Makes an encapsulated packet look as if it had just been made: nothing is left of the inner
    /// packet's device, route, mark and connection, which may belong to another namespace; all
    /// headers start at the data. The flow hash is kept, for queueing disciplines.
    #[inline]
    pub fn reset_encapsulated(&mut self) {
        // SAFETY: The packet is valid and exclusively borrowed.
        unsafe { bindings::wg_skb_renew(self.as_raw(), true) };
    }

    /// The same for a decapsulated packet: nothing is left of the outer packet but what is in
    /// [`Skb::cb`].
    #[inline]
    pub fn reset_decapsulated(&mut self) {
        // SAFETY: The packet is valid and exclusively borrowed.
        unsafe { bindings::wg_skb_renew(self.as_raw(), false) };
    }

    /// Makes a decapsulated packet one of `version` whose checksums have all been verified.
    #[inline]
    pub fn set_verified(&mut self, version: IpVersion) {
        // SAFETY: The packet is valid and exclusively borrowed.
        unsafe { bindings::wg_skb_set_verified(self.as_raw(), version.protocol_be()) };
    }
}

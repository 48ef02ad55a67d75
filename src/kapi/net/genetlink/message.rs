// SPDX-License-Identifier: GPL-2.0-only

//! Writing messages.
//!
//! C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h)

use core::{
    marker::PhantomData,
    mem::{size_of, ManuallyDrop},
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use kernel::{
    error::to_result,
    ffi::{c_int, c_void},
    prelude::*,
};

use super::attr::F_NESTED;
use crate::bindings;

/// Attributes begin at multiples of this, and so do their payloads.
const ALIGNMENT: usize = bindings::NLA_ALIGNTO as usize;
const HEADER: usize = size_of::<bindings::nlattr>();

/// Appends attributes to a netlink buffer.
///
/// Every method fails with [`EMSGSIZE`], and changes nothing, when there is no room left.
///
/// # Invariants
///
/// For `'a`, `skb` is a valid, linear buffer that nobody else uses.
pub struct AttrWriter<'a> {
    skb: NonNull<bindings::sk_buff>,
    _buffer: PhantomData<&'a mut bindings::sk_buff>,
}

impl AttrWriter<'_> {
    /// Starts to write to a C buffer.
    ///
    /// # Safety
    ///
    /// For the lifetime that the caller gives the result, `skb` must be a valid, linear buffer that
    /// nobody else uses.
    unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: The requirement of this function.
        Self {
            skb,
            _buffer: PhantomData,
        }
    }

    /// The bytes in the buffer.
    fn len(&self) -> u32 {
        // SAFETY: The buffer is valid by the type invariant.
        unsafe { (*self.skb.as_ptr()).len }
    }

    /// A pointer to the `T` at `offset`, if it lies within the buffer.
    fn at<T>(&mut self, offset: u32) -> Option<NonNull<T>> {
        let end = usize::try_from(offset).ok()?.checked_add(size_of::<T>())?;
        if end > usize::try_from(self.len()).ok()? {
            return None;
        }
        // SAFETY: The buffer is valid and linear by the type invariant, so that its first `len`
        // bytes are one allocation; the `T` ends within them.
        NonNull::new(unsafe { (*self.skb.as_ptr()).data.add(offset as usize) }.cast())
    }

    /// Removes what was written after `offset`.
    fn trim(&mut self, offset: u32) {
        // SAFETY: The buffer is valid and ours by the type invariant. An `offset` beyond its end
        // has no effect.
        unsafe { bindings::skb_trim(self.skb.as_ptr(), offset) };
    }

    /// Appends an attribute.
    #[inline]
    pub fn put(&mut self, attr_type: u16, payload: &[u8]) -> Result {
        let len = payload.len().saturating_add(HEADER);
        let nla_len = u16::try_from(len).map_err(|_| EMSGSIZE)?;
        let padding = len.wrapping_neg() % ALIGNMENT;
        let place = self.extend(len.saturating_add(padding))?;
        let header = bindings::nlattr {
            nla_len,
            nla_type: attr_type,
        };
        // SAFETY: The `len` + `padding` bytes from `place` on are in the buffer, and ours; the
        // header and the payload are `len` bytes.
        unsafe {
            place.cast::<bindings::nlattr>().write_unaligned(header);
            let after = place.add(HEADER);
            after.copy_from_nonoverlapping(NonNull::from(payload).cast(), payload.len());
            after.add(payload.len()).write_bytes(0, padding);
        }
        Ok(())
    }

    /// Makes the buffer `len` bytes longer, and returns where they begin. They are not initialised.
    #[inline]
    fn extend(&mut self, len: usize) -> Result<NonNull<u8>> {
        let len = u32::try_from(len).map_err(|_| EMSGSIZE)?;
        // SAFETY: The buffer is valid and nobody else uses it, by the type invariant.
        let skb = unsafe { self.skb.as_mut() };
        let end = skb.tail.checked_add(len).ok_or(EMSGSIZE)?;
        if end > skb.end {
            return Err(EMSGSIZE);
        }
        // SAFETY: The buffer is linear by the type invariant: what lies between `head` and `end` is
        // one allocation, and what lies behind `tail` is free.
        let place = unsafe { skb.head.add(skb.tail as usize) };
        skb.tail = end;
        skb.len = skb.len.saturating_add(len);
        NonNull::new(place).ok_or(EMSGSIZE)
    }

    /// Appends a number of 8 bits.
    pub fn put_u8(&mut self, attr_type: u16, value: u8) -> Result {
        self.put(attr_type, &value.to_ne_bytes())
    }

    /// Appends a number of 16 bits in host byte order.
    pub fn put_u16(&mut self, attr_type: u16, value: u16) -> Result {
        self.put(attr_type, &value.to_ne_bytes())
    }

    /// Appends a number of 32 bits in host byte order.
    pub fn put_u32(&mut self, attr_type: u16, value: u32) -> Result {
        self.put(attr_type, &value.to_ne_bytes())
    }

    /// Appends a number of 64 bits in host byte order. Where the architecture needs it aligned, it
    /// is preceded by an empty attribute of type `pad_type`.
    pub fn put_u64(&mut self, attr_type: u16, value: u64, pad_type: u16) -> Result {
        if cfg!(CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS) {
            return self.put(attr_type, &value.to_ne_bytes());
        }
        // SAFETY: The buffer is valid and ours by the type invariant, `value` has eight bytes.
        to_result(unsafe {
            bindings::nla_put_64bit(
                self.skb.as_ptr(),
                c_int::from(attr_type),
                size_of::<u64>() as c_int,
                (&raw const value).cast::<c_void>(),
                c_int::from(pad_type),
            )
        })
    }

    /// Appends a string with its terminating zero.
    pub fn put_str(&mut self, attr_type: u16, value: &CStr) -> Result {
        self.put(attr_type, value.to_bytes_with_nul())
    }

    /// Opens a nest: what is written through the guard becomes the payload of one attribute.
    pub fn nest(&mut self, attr_type: u16) -> Result<Nest<'_>> {
        let start = self.len();
        self.put(attr_type | F_NESTED, &[])?;
        // SAFETY: The invariant of `self` holds for the new writer, which borrows `self`.
        let writer = unsafe { AttrWriter::from_raw(self.skb) };
        Ok(Nest { writer, start })
    }
}

/// An open nest. Dropping it removes the nest with all that was written to it;
/// [`Nest::end`] keeps it.
pub struct Nest<'a> {
    writer: AttrWriter<'a>,
    /// Offset of the nest's header in the buffer.
    start: u32,
}

impl Nest<'_> {
    /// Closes the nest. If it is too long for an attribute, it is removed: [`EMSGSIZE`].
    pub fn end(mut self) -> Result {
        let len = self.writer.len().saturating_sub(self.start);
        let len = u16::try_from(len).map_err(|_| EMSGSIZE)?;
        let header = self
            .writer
            .at::<bindings::nlattr>(self.start)
            .ok_or(EMSGSIZE)?;
        // SAFETY: `at` gives a place within the buffer, which is ours.
        unsafe { (&raw mut (*header.as_ptr()).nla_len).write_unaligned(len) };
        let _kept = ManuallyDrop::new(self);
        Ok(())
    }
}

impl Drop for Nest<'_> {
    fn drop(&mut self) {
        self.writer.trim(self.start);
    }
}

impl<'a> Deref for Nest<'a> {
    type Target = AttrWriter<'a>;

    fn deref(&self) -> &AttrWriter<'a> {
        &self.writer
    }
}

impl<'a> DerefMut for Nest<'a> {
    fn deref_mut(&mut self) -> &mut AttrWriter<'a> {
        &mut self.writer
    }
}

/// An open message. Dropping it removes the message with all that was written to it;
/// [`Message::end`] keeps it.
pub struct Message<'a> {
    writer: AttrWriter<'a>,
    /// Offset of the message's header in the buffer.
    start: u32,
}

impl Message<'_> {
    /// Appends the headers of a message that answers the request `info`.
    ///
    /// # Safety
    ///
    /// For the lifetime that the caller gives the result, `skb` must be a valid, linear buffer that
    /// nobody else uses. During the call, `info` must be valid.
    pub(super) unsafe fn reply(
        skb: NonNull<bindings::sk_buff>,
        info: &bindings::genl_info,
        flags: u16,
        cmd: u8,
    ) -> Result<Self> {
        // SAFETY: By the requirement of this function.
        let writer = unsafe { AttrWriter::from_raw(skb) };
        let start = writer.len();
        // SAFETY: The buffer is valid and ours; the family of a request is valid while it is
        // served.
        let header = unsafe {
            bindings::genlmsg_put(
                skb.as_ptr(),
                info.snd_portid,
                info.snd_seq,
                info.family,
                c_int::from(flags),
                cmd,
            )
        };
        if header.is_null() {
            return Err(EMSGSIZE);
        }
        Ok(Self { writer, start })
    }

    /// Appends the headers of a message that nobody has asked for.
    ///
    /// # Safety
    ///
    /// For the lifetime that the caller gives the result, `skb` must be a valid, linear buffer that
    /// nobody else uses. `family` must be registered.
    pub(super) unsafe fn unrequested(
        skb: NonNull<bindings::sk_buff>,
        family: *const bindings::genl_family,
        cmd: u8,
    ) -> Result<Self> {
        // SAFETY: By the requirement of this function.
        let writer = unsafe { AttrWriter::from_raw(skb) };
        let start = writer.len();
        // SAFETY: The buffer is valid and ours, the family is valid.
        let header = unsafe { bindings::genlmsg_put(skb.as_ptr(), 0, 0, family, 0, cmd) };
        if header.is_null() {
            return Err(EMSGSIZE);
        }
        Ok(Self { writer, start })
    }

    fn header(&mut self) -> Option<NonNull<bindings::nlmsghdr>> {
        self.writer.at(self.start)
    }

    /// Sets `flags` in the message's header.
    pub(super) fn add_flags(&mut self, flags: u16) {
        if let Some(header) = self.header() {
            // May be unaligned: a dump's buffer has the length of the reader's, and the core places
            // it at the end of its allocation.
            // SAFETY: `at` gives a place within the buffer, which is ours and initialised.
            unsafe {
                let place = &raw mut (*header.as_ptr()).nlmsg_flags;
                place.write_unaligned(place.read_unaligned() | flags);
            };
        }
    }

    /// Closes the message.
    pub fn end(mut self) {
        let len = self.writer.len().saturating_sub(self.start);
        if let Some(header) = self.header() {
            // SAFETY: `at` gives a place within the buffer, which is ours and initialised.
            unsafe { (&raw mut (*header.as_ptr()).nlmsg_len).write_unaligned(len) };
            let _kept = ManuallyDrop::new(self);
        }
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        self.writer.trim(self.start);
    }
}

impl<'a> Deref for Message<'a> {
    type Target = AttrWriter<'a>;

    fn deref(&self) -> &AttrWriter<'a> {
        &self.writer
    }
}

impl<'a> DerefMut for Message<'a> {
    fn deref_mut(&mut self) -> &mut AttrWriter<'a> {
        &mut self.writer
    }
}

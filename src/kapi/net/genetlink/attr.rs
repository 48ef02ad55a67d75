// SPDX-License-Identifier: GPL-2.0-only

//! Views of the attributes in a request.
//!
//! A payload is a slice of [`Cell`]s: a command may erase key material in the request while other
//! views of the same bytes exist. Values that are read are copies.
//!
//! C header: [`include/net/netlink.h`](srctree/include/net/netlink.h)

use core::{cell::Cell, mem::size_of};

use kernel::prelude::*;

use crate::{
    bindings,
    kapi::sync::atomic::{compiler_fence, Ordering},
};

/// Length of an attribute's header in bytes: its length (header included) and its type.
const HEADER_LEN: usize = size_of::<bindings::nlattr>();

/// The alignment of attributes in a stream.
const ALIGN_TO: usize = bindings::NLA_ALIGNTO as usize;

/// The payload is a stream of attributes.
pub(super) const F_NESTED: u16 = bindings::NLA_F_NESTED as u16;

/// The payload is in network byte order.
const F_NET_BYTEORDER: u16 = bindings::NLA_F_NET_BYTEORDER as u16;

/// One attribute of a request.
#[derive(Clone, Copy)]
pub struct Attr<'a> {
    /// The type, flags included.
    raw_type: u16,
    payload: &'a [Cell<u8>],
}

impl<'a> Attr<'a> {
    /// Makes a view of a C attribute.
    ///
    /// # Safety
    ///
    /// For `'a`, `ptr` is valid for reads and writes of `nla_len` bytes (at least a header), and
    /// only this thread writes to them.
    pub(super) unsafe fn from_raw(ptr: *mut bindings::nlattr) -> Self {
        // SAFETY: By the requirement of this function the header is readable.
        let bindings::nlattr { nla_len, nla_type } = unsafe { ptr.read_unaligned() };
        let len = usize::from(nla_len).saturating_sub(HEADER_LEN);
        // SAFETY: The payload follows the header, within `nla_len` bytes.
        let data = unsafe { ptr.cast::<u8>().add(HEADER_LEN) };
        Self {
            raw_type: nla_type,
            // SAFETY: By the requirement of this function the bytes are valid for 'a. `Cell<u8>`
            // has the layout of `u8`, allows other views to write, and confines all of them to this
            // thread.
            payload: unsafe { core::slice::from_raw_parts(data.cast::<Cell<u8>>(), len) },
        }
    }

    /// The attribute itself, to say which one is meant.
    pub(super) fn as_raw(&self) -> *const bindings::nlattr {
        // The payload follows the header.
        self.payload
            .as_ptr()
            .cast::<u8>()
            .wrapping_sub(HEADER_LEN)
            .cast()
    }

    /// How long the payload is, in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// The type, without the flags.
    pub fn attr_type(&self) -> u16 {
        self.raw_type & !(F_NESTED | F_NET_BYTEORDER)
    }

    /// The payload, if it has exactly `N` bytes.
    pub fn bytes<const N: usize>(&self) -> Option<[u8; N]> {
        if self.payload.len() == N {
            self.head()
        } else {
            None
        }
    }

    /// The first `N` bytes of the payload, if it has that many.
    pub fn head<const N: usize>(&self) -> Option<[u8; N]> {
        let cells = self.payload.first_chunk::<N>()?;
        let mut bytes = [0; N];
        for (byte, cell) in bytes.iter_mut().zip(cells) {
            *byte = cell.get();
        }
        Some(bytes)
    }

    /// The string up to its first zero byte, padded with zeros. `None` if there is no zero byte in
    /// the first `N` bytes of the payload.
    pub fn nul_string<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (byte, cell) in bytes.iter_mut().zip(self.payload) {
            *byte = cell.get();
            if *byte == 0 {
                return Some(bytes);
            }
        }
        None
    }

    /// The payload as a number of 8 bits.
    pub fn u8(&self) -> Option<u8> {
        self.bytes().map(u8::from_ne_bytes)
    }

    /// The payload as a number of 16 bits in host byte order.
    pub fn u16(&self) -> Option<u16> {
        self.bytes().map(u16::from_ne_bytes)
    }

    /// The payload as a number of 32 bits in host byte order.
    pub fn u32(&self) -> Option<u32> {
        self.bytes().map(u32::from_ne_bytes)
    }

    /// Overwrites the payload with zeros, in the request itself: for key material, which must
    /// neither remain in a freed buffer nor be sent back with the request in an error message.
    pub fn erase(&self) {
        for cell in self.payload {
            // SAFETY: A cell is valid for writes; volatile, so that the compiler keeps the store.
            unsafe { cell.as_ptr().write_volatile(0) };
        }
        compiler_fence(Ordering::SeqCst);
    }

    /// The attributes in the payload of an array: a nest of attributes whose types have no meaning.
    ///
    /// Like `nla_for_each_nested()`, this ends at the first malformed attribute.
    pub fn elements(&self) -> Elements<'a> {
        Elements { rest: self.payload }
    }

    /// The attributes in the payload by type; of a type that occurs twice, the last one.
    ///
    /// As strict as `nla_parse_nested()` without a policy: [`EINVAL`] if this is not marked as a
    /// nest, for a type that is zero or not less than `N`, and for bytes after the last attribute.
    pub fn nested<const N: usize>(&self) -> Result<Attrs<'a, N>> {
        if self.raw_type & F_NESTED == 0 {
            return Err(EINVAL);
        }
        let mut attrs = Attrs { table: [None; N] };
        let mut elements = self.elements();
        for attr in &mut elements {
            let attr_type = usize::from(attr.attr_type());
            let slot = attrs.table.get_mut(attr_type).ok_or(EINVAL)?;
            if attr_type == 0 {
                return Err(EINVAL);
            }
            *slot = Some(attr);
        }
        if elements.rest.is_empty() {
            Ok(attrs)
        } else {
            Err(EINVAL)
        }
    }
}

/// Iterator over the attributes in a payload, made by [`Attr::elements`].
pub struct Elements<'a> {
    rest: &'a [Cell<u8>],
}

impl Elements<'_> {
    /// The attributes in `len` bytes from `start` on.
    ///
    /// # Safety
    ///
    /// As long as the value or what it gives exists, `len` bytes are valid there for reads and
    /// writes, and only this thread writes to them.
    pub(super) unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        Self {
            // SAFETY: By the requirement of this function; `Cell<u8>` has the layout of `u8`.
            rest: unsafe { core::slice::from_raw_parts(start.cast::<Cell<u8>>(), len) },
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let [len_low, len_high, type_low, type_high] = self.rest.first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_ne_bytes([len_low.get(), len_high.get()]));
        let raw_type = u16::from_ne_bytes([type_low.get(), type_high.get()]);
        let payload = self.rest.get(HEADER_LEN..len)?;
        // The last attribute may lack its padding.
        self.rest = self
            .rest
            .get(len.next_multiple_of(ALIGN_TO)..)
            .unwrap_or_default();
        Some(Attr { raw_type, payload })
    }
}

/// The attributes of one level, by their type.
pub struct Attrs<'a, const N: usize> {
    table: [Option<Attr<'a>>; N],
}

impl<'a, const N: usize> Attrs<'a, N> {
    /// The attribute of that type, if the request has it.
    pub fn get(&self, attr_type: u16) -> Option<Attr<'a>> {
        self.table.get(usize::from(attr_type)).copied().flatten()
    }
}

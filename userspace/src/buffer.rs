// SPDX-License-Identifier: GPL-2.0-only
//! A buffer for what may be secret.

use std::ops::{Deref, DerefMut};
use zeroize::Zeroize;

/// A vector that is zeroed as far as it was written to. A large one that is hardly used costs
/// nothing, unlike one in [`zeroize::Zeroizing`], all of whose capacity is zeroed.
///
/// Who uses it keeps it within its capacity, or grows it with [`Buffer::append`], and wipes rather
/// than shortens it.
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty buffer.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Adds bytes; where they do not fit, all moves to a larger place, and nothing stays behind.
    pub fn append(&mut self, bytes: &[u8]) {
        let length = self.0.len() + bytes.len();
        if length > self.0.capacity() {
            let mut larger = Self::with_capacity(length.next_power_of_two());
            larger.0.extend_from_slice(&self.0);
            *self = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    /// Empties it.
    pub fn wipe(&mut self) {
        self.0.as_mut_slice().zeroize();
        self.0.clear();
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.wipe();
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! Packets that wait for a session.

use kernel::prelude::*;

use crate::{
    kapi::{
        net::skbuff::{SkBuff, SkbList},
        sync::{
            atomic::{AtomicBool, Ordering::Relaxed},
            spinlock_bh::SpinLockBh,
        },
    },
    new_spinlock_bh,
    proto::consts::MAX_STAGED_PACKETS,
};

/// The packets of one peer that wait for a session, oldest first.
#[pin_data]
pub(crate) struct Staged {
    #[pin]
    packets: SpinLockBh<SkbList>,
    /// Whether there are any; changed under the lock, read without it.
    any: AtomicBool,
}

impl Staged {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            packets <- new_spinlock_bh!(SkbList::new()),
            any: AtomicBool::new(false),
        })
    }

    /// Whether nothing waited a moment ago.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Relaxed)
    }

    /// Appends packets. Gives those over the limit, oldest first, from before the new ones came:
    /// segments of one packet are not torn apart.
    pub(crate) fn append(&self, mut packets: SkbList) -> SkbList {
        let mut excess = SkbList::new();
        let mut staged = self.packets.lock();
        while staged.len() > MAX_STAGED_PACKETS {
            match staged.pop_front() {
                Some(skb) => excess.push_back(skb),
                None => break,
            }
        }
        staged.append(&mut packets);
        self.any.store(!staged.is_empty(), Relaxed);
        excess
    }

    /// Appends a packet unless another waits.
    pub(crate) fn push_if_empty(&self, skb: SkBuff) {
        let mut staged = self.packets.lock();
        if staged.is_empty() {
            staged.push_back(skb);
            self.any.store(true, Relaxed);
        }
    }

    /// Takes all.
    pub(crate) fn take(&self) -> SkbList {
        let mut staged = self.packets.lock();
        self.any.store(false, Relaxed);
        core::mem::replace(&mut *staged, SkbList::new())
    }

    /// Puts back what was taken, before what came since.
    pub(crate) fn put_back(&self, mut packets: SkbList) {
        let mut staged = self.packets.lock();
        packets.append(&mut staged);
        *staged = packets;
        self.any.store(!staged.is_empty(), Relaxed);
    }
}

// SPDX-License-Identifier: GPL-2.0-only

//! What the workers do with a run: ties the run queues to [`send`] and [`receive`].

use core::mem;

use crate::{
    device::{
        peer::{fifo, Direction, Run},
        queueing, receive, send,
    },
    kapi::{net::skbuff::SkbList, sync::spinlock_bh::SpinLockBh},
    tables::runqueue::{self, Body, Caller, Fifo},
};

impl runqueue::Run for Run {
    type Packets = SkbList;

    #[inline]
    fn body(&self) -> &SpinLockBh<Body<Self>> {
        &self.body
    }

    #[inline]
    fn fifo(&self) -> &SpinLockBh<Fifo<Self>> {
        fifo(&self.peer, self.direction)
    }

    fn work(&self, packets: &mut SkbList) {
        if !self.peer.may_run() {
            self.lose(mem::take(packets));
            return;
        }
        match self.direction {
            Direction::Encrypt => send::encrypt(&self.peer, &self.keypair, packets),
            Direction::Decrypt => receive::decrypt(&self.peer, &self.keypair, packets),
        }
    }

    fn deliver(&self, packets: SkbList) {
        match self.direction {
            Direction::Encrypt => send::transmit_run(&self.peer, packets),
            Direction::Decrypt => receive::accept_run(&self.peer, &self.keypair, packets),
        }
    }

    fn lose(&self, packets: SkbList) {
        self.peer.discard_all(self.reason_of_loss(), packets);
    }

    #[inline]
    fn caller(&self) -> Option<Caller> {
        match self.direction {
            Direction::Encrypt => Some(queueing::caller()),
            // Accepted packets go on within the delivery, as far as the socket.
            Direction::Decrypt => None,
        }
    }

    fn defer(&self, cpu: Option<u32>) -> bool {
        queueing::defer(self, cpu)
    }
}

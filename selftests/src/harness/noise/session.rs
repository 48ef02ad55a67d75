// SPDX-License-Identifier: GPL-2.0-only
//! Transport data (whitepaper, section 5.4.6), without any of its rules.

use super::crypto::{open, seal};
use crate::wgdev::Key;
use crate::wire::word;
use anyhow::{ensure, Context, Result};

/// A session's keys and indices.
#[derive(Clone, Debug)]
pub struct Session {
    /// Encrypts what we send.
    pub send: Key,
    /// Decrypts what we get.
    pub receive: Key,
    /// Our index: the receiver index of what we get.
    pub own: u32,
    /// The peer's index: the receiver index of what we send.
    pub peer: u32,
    /// The counter of the next [`Session::data`].
    pub counter: u64,
}

impl Session {
    /// `packet` padded to a multiple of 16 bytes, under the next counter. Empty: a keepalive.
    pub fn data(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut plain = packet.to_vec();
        plain.resize(packet.len().next_multiple_of(16), 0);
        let counter = self.counter;
        self.counter += 1;
        self.seal(counter, &plain)
    }

    /// Exactly `plain`, no padding, under `counter`.
    pub fn seal(&self, counter: u64, plain: &[u8]) -> Vec<u8> {
        let mut message = vec![4, 0, 0, 0];
        message.extend_from_slice(&self.peer.to_le_bytes());
        message.extend_from_slice(&counter.to_le_bytes());
        message.extend(seal(&self.send, counter, plain, &[]));
        message
    }

    /// The counter and the (padded) plaintext of a message to us.
    pub fn open(&self, message: &[u8]) -> Result<(u64, Vec<u8>)> {
        ensure!(word(message, 0) == Some(4), "not transport data");
        ensure!(word(message, 4) == Some(self.own), "not to our index");
        let counter = message.get(8..).and_then(|rest| rest.first_chunk());
        let counter = u64::from_le_bytes(*counter.context("counter")?);
        let plain = open(&self.receive, counter, &message[16..], &[]);
        Ok((counter, plain.context("the data does not authenticate")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> [Session; 2] {
        let one = Session {
            send: [1; 32],
            receive: [2; 32],
            own: 11,
            peer: 22,
            counter: 0,
        };
        let two = Session {
            send: [2; 32],
            receive: [1; 32],
            own: 22,
            peer: 11,
            counter: 0,
        };
        [one, two]
    }

    #[test]
    fn data_is_padded_and_counted() {
        let [mut one, two] = pair();
        assert_eq!(one.data(b"").len(), 32);
        let message = one.data(&[5; 17]);
        assert_eq!(message.len(), 16 + 32 + 16);
        let (counter, plain) = two.open(&message).unwrap();
        assert_eq!((counter, plain.len()), (1, 32));
        assert_eq!(plain[..17], [5; 17]);
    }

    #[test]
    fn anything_can_be_sealed() {
        let [one, mut two] = pair();
        let message = one.seal(u64::MAX, b"odd");
        assert_eq!(two.open(&message).unwrap(), (u64::MAX, b"odd".to_vec()));
        two.own = 23;
        assert!(two.open(&message).is_err());
    }
}

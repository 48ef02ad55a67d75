// SPDX-License-Identifier: GPL-2.0

//! The replay window (whitepaper, section 5.4.6), after RFC 6479: a ring of words that is
//! advanced by clearing whole words, never by shifting.

use super::consts::{REJECT_AFTER_MESSAGES, REPLAY_BITS, REPLAY_WINDOW};

/// Words in the ring: a power of two.
const WORDS: usize = (REPLAY_BITS / u64::BITS as u64) as usize;
const _: () = assert!(WORDS.is_power_of_two());

/// Which counters of a session were received. 1 KiB.
///
/// With m the greatest counter accepted so far, an unseen counter is accepted if it is at least
/// m - 8128. Ask only after the packet has authenticated, or a forged counter would move the
/// window. The driver keeps it under the keypair's receive lock.
pub struct ReplayWindow {
    /// One more than the greatest counter accepted; 0 before the first.
    next: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Nothing received yet.
    pub const fn new() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }

    /// One more than the greatest counter accepted; 0 before the first.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Whether the greatest possible counter was received, so that the session is at its end.
    pub const fn is_exhausted(&self) -> bool {
        self.next >= REJECT_AFTER_MESSAGES
    }

    /// Accepts `counter` and remembers it, or refuses it: seen before, behind the window, or
    /// not below [`REJECT_AFTER_MESSAGES`].
    #[must_use]
    pub fn check_and_update(&mut self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES {
            return false;
        }
        if counter >= self.next {
            self.advance_to(counter);
        } else if counter.saturating_add(REPLAY_WINDOW).saturating_add(1) < self.next {
            return false;
        }
        let bit = 1u64 << (counter % u64::BITS as u64);
        match self.word_mut(word_of(counter)) {
            Some(word) => {
                let unseen = *word & bit == 0;
                *word |= bit;
                unseen
            }
            None => false,
        }
    }

    /// Clears the words that come into the window and makes `counter` the greatest.
    fn advance_to(&mut self, counter: u64) {
        let newest = word_of(self.next.saturating_sub(1));
        // A jump past the whole ring clears each word once.
        let fresh = word_of(counter).saturating_sub(newest).min(WORDS as u64);
        for offset in 1..=fresh {
            if let Some(word) = self.word_mut(newest.wrapping_add(offset)) {
                *word = 0;
            }
        }
        self.next = counter.saturating_add(1);
    }

    fn word_mut(&mut self, word: u64) -> Option<&mut u64> {
        self.seen.get_mut(word as usize % WORDS)
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

const fn word_of(counter: u64) -> u64 {
    counter / u64::BITS as u64
}

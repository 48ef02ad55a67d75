// SPDX-License-Identifier: GPL-2.0-only

//! The replay window (whitepaper, section 5.4.6), after RFC 6479: a ring of words that is
//! advanced by clearing whole words, never by shifting.

use super::consts::{REJECT_AFTER_MESSAGES, REPLAY_BITS, REPLAY_WINDOW};

/// Words in the ring: a power of two.
const WORDS: usize = (REPLAY_BITS / u64::BITS as u64) as usize;
const _: () = assert!(WORDS.is_power_of_two());

/// Which counters of a session were received. 1 KiB.
///
/// With m the greatest counter accepted so far, an unseen counter is accepted if it is at least
/// m - 8128. Update the window only with packets that have authenticated, or a forged counter
/// would move it. The driver keeps it under the keypair's receive lock.
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

    /// Whether the greatest possible counter was received, so that the session is exhausted.
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
        } else if self.is_behind(counter) {
            return false;
        }
        let bit = 1u64 << (counter % u64::from(u64::BITS));
        match self.word_mut(word_of(counter)) {
            Some(word) => {
                let unseen = *word & bit == 0;
                *word |= bit;
                unseen
            }
            None => false,
        }
    }

    /// Accepts `count` counters from `first` on, if each would be accepted; else none.
    #[must_use]
    pub fn check_and_update_all(&mut self, first: u64, count: u64) -> bool {
        let Some(end) = first.checked_add(count) else {
            return false;
        };
        if end > REJECT_AFTER_MESSAGES || (first < self.next && self.is_behind(first)) {
            return false;
        }
        if (first..end.min(self.next)).any(|counter| self.is_seen(counter)) {
            return false;
        }
        // If they are more than the window, the first is behind it when the last has come.
        (first..end).fold(true, |all, counter| all & self.check_and_update(counter))
    }

    /// Whether a counter less than [`ReplayWindow::next`] is behind the window.
    fn is_behind(&self, counter: u64) -> bool {
        counter.saturating_add(REPLAY_WINDOW).saturating_add(1) < self.next
    }

    /// Whether a counter was received that is less than [`ReplayWindow::next`] and not behind the
    /// window.
    fn is_seen(&self, counter: u64) -> bool {
        let bit = 1u64 << (counter % u64::from(u64::BITS));
        let word = self.seen.get(word_of(counter) as usize % WORDS);
        word.is_none_or(|word| word & bit != 0)
    }

    /// Clears the words that enter the window and makes `counter` the greatest.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same semantics, implemented with a set.
    #[derive(Default)]
    struct Oracle(BTreeSet<u64>);

    impl Oracle {
        fn check_and_update(&mut self, counter: u64) -> bool {
            let behind = match self.0.last() {
                Some(greatest) => greatest.checked_sub(counter).is_some_and(|gap| gap > 8128),
                None => false,
            };
            counter < u64::MAX - 8129 && !behind && self.0.insert(counter)
        }
    }

    proptest! {
        /// Ranges are accepted as a whole or not at all, as single counters would be.
        #[test]
        fn ranges(script in proptest::collection::vec((0u64..20_000, 1u64..70), 1..60)) {
            let mut window = ReplayWindow::new();
            let mut oracle = Oracle::default();
            for (first, count) in script {
                let fits = {
                    let mut trial = Oracle(oracle.0.clone());
                    (first..first + count).all(|counter| trial.check_and_update(counter))
                };
                prop_assert_eq!(window.check_and_update_all(first, count), fits);
                if fits {
                    oracle.0.extend(first..first + count);
                } else {
                    // One by one, as the driver goes on.
                    for counter in first..first + count {
                        let accepted = oracle.check_and_update(counter);
                        prop_assert_eq!(window.check_and_update(counter), accepted);
                    }
                }
            }
        }
    }

    #[test]
    fn ranges_end_before_the_limit() {
        let mut window = ReplayWindow::new();
        assert!(!window.check_and_update_all(REJECT_AFTER_MESSAGES - 3, 4));
        assert!(!window.check_and_update_all(u64::MAX - 1, 4));
        assert_eq!(window.next(), 0);
        assert!(window.check_and_update_all(REJECT_AFTER_MESSAGES - 3, 3));
        assert!(window.is_exhausted());
    }

    #[test]
    fn edges() {
        let limit = REJECT_AFTER_MESSAGES;
        let window = REPLAY_WINDOW;
        for script in [
            &[
                (0, true),
                (0, false),
                (1, true),
                (1, false),
                (9, true),
                (8, true),
                (7, true),
            ][..],
            &[(7, true), (0, true), (0, false), (7, false), (3, true)],
            // The far edge, for greatest counters that start, end and split a word.
            &[(window, true), (0, true), (0, false)],
            &[
                (window + 1, true),
                (1, true),
                (0, false),
                (2, true),
                (1, false),
            ],
            &[
                (window + 63, true),
                (63, true),
                (62, false),
                (64, true),
                (63, false),
            ],
            &[(window + 64, true), (64, true), (63, false), (65, true)],
            &[
                (0, true),
                (window + 64, true),
                (64, true),
                (0, false),
                (63, false),
            ],
            // A bit of the ring that was set a whole ring ago is clear again.
            &[
                (5, true),
                (5 + 8192, true),
                (5, false),
                (5 + 64, true),
                (5 + 8192, false),
            ],
            &[
                (0, true),
                (8191, true),
                (63, true),
                (62, false),
                (8192, true),
                (63, false),
            ],
            // Far jumps clear everything.
            &[
                (1, true),
                (1 << 40, true),
                ((1 << 40) - window, true),
                ((1 << 40) - 1, true),
            ],
            &[
                (100, true),
                ((1 << 40) + 100, true),
                ((1 << 40) + 99, true),
                (100, false),
            ],
            // The end of the counters.
            &[(limit, false), (u64::MAX, false), (0, true)],
            &[
                (limit - 1, true),
                (limit - 1, false),
                (limit - 2, true),
                (limit, false),
            ],
            &[
                (limit - 1, true),
                (limit - 1 - window, true),
                (limit - 2 - window, false),
            ],
        ] {
            let mut replay = ReplayWindow::new();
            let mut oracle = Oracle::default();
            for &(counter, accepted) in script {
                assert_eq!(
                    replay.check_and_update(counter),
                    accepted,
                    "{counter} of {script:?}"
                );
                assert_eq!(
                    oracle.check_and_update(counter),
                    accepted,
                    "oracle: {counter}"
                );
            }
        }
    }

    #[test]
    fn a_whole_window_in_reverse() {
        let mut replay = ReplayWindow::new();
        for counter in (0..=REPLAY_WINDOW).rev() {
            assert!(replay.check_and_update(counter));
        }
        for counter in 0..=REPLAY_WINDOW {
            assert!(!replay.check_and_update(counter));
        }
        assert_eq!(replay.next(), REPLAY_WINDOW + 1);
        assert!(!replay.is_exhausted());
    }

    #[test]
    fn exhaustion() {
        let mut replay = ReplayWindow::new();
        assert!(replay.check_and_update(REJECT_AFTER_MESSAGES - 2));
        assert!(!replay.is_exhausted());
        assert!(replay.check_and_update(REJECT_AFTER_MESSAGES - 1));
        assert!(replay.is_exhausted());
    }

    /// Steps that stay near the greatest counter, near the edges of the window and of the ring,
    /// or jump.
    fn step() -> impl Strategy<Value = i64> {
        prop_oneof![
            8 => -5i64..6,
            3 => -8300i64..100,
            2 => -8132i64..-8124,
            2 => -66i64..66,
            1 => 8120i64..8200,
            1 => 0i64..100_000,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 200,
            failure_persistence: None,
            rng_seed: proptest::test_runner::RngSeed::Fixed(0x5eed),
            ..ProptestConfig::default()
        })]

        #[test]
        fn agrees_with_a_set(
            start in prop_oneof![Just(0u64), 0u64..20_000, (u64::MAX - 60_000)..=u64::MAX],
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let mut replay = ReplayWindow::new();
            let mut oracle = Oracle::default();
            prop_assert_eq!(replay.check_and_update(start), oracle.check_and_update(start));
            for step in steps {
                let counter = oracle.0.last().unwrap_or(&start).saturating_add_signed(step);
                prop_assert_eq!(
                    replay.check_and_update(counter),
                    oracle.check_and_update(counter),
                    "{}", counter
                );
            }
        }
    }
}

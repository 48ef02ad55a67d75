// SPDX-License-Identifier: GPL-2.0

//! Who may do without a worker.

use crate::kapi::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Runs that an [`InlineBudget`] allows in each jiffy.
const INLINE_RUNS: u32 = 4;

/// How many runs of a peer may be worked on right where they come from, which saves the way over
/// a worker. A trickle may, and what answers a packet the other way; of a one-way stream only the
/// first few of each jiffy, the rest goes in longer runs, to all CPUs.
///
/// Kept without a lock: a miscount only means that a packet takes the other way.
pub struct InlineBudget {
    jiffy: AtomicU32,
    used: AtomicU32,
}

impl InlineBudget {
    /// A full budget.
    pub fn new() -> Self {
        Self {
            jiffy: AtomicU32::new(0),
            used: AtomicU32::new(0),
        }
    }

    /// Whether one more run may be worked on inline, in this jiffy.
    #[inline]
    pub fn take(&self, jiffy: u32) -> bool {
        if self.jiffy.load(Relaxed) != jiffy {
            self.jiffy.store(jiffy, Relaxed);
            self.used.store(1, Relaxed);
            return true;
        }
        let used = self.used.load(Relaxed);
        if used >= INLINE_RUNS {
            return false;
        }
        self.used.store(used.wrapping_add(1), Relaxed);
        true
    }

    /// Something went the other way: what comes now may well be the answer.
    #[inline]
    pub fn renew(&self) {
        if self.used.load(Relaxed) != 0 {
            self.used.store(0, Relaxed);
        }
    }
}

impl Default for InlineBudget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_few_in_each_jiffy_and_again_after_an_answer() {
        let budget = InlineBudget::new();
        let all = |jiffy| (0..10).filter(|_| budget.take(jiffy)).count() as u32;
        for jiffy in [0, 1, 2, u32::MAX, 0] {
            assert_eq!(all(jiffy), INLINE_RUNS);
            assert_eq!(all(jiffy), 0);
            budget.renew();
            assert_eq!(all(jiffy), INLINE_RUNS);
        }
    }
}

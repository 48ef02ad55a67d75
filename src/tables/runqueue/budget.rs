// SPDX-License-Identifier: GPL-2.0-only

//! Limits how many runs bypass the workers.

use crate::kapi::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Runs that an [`InlineBudget`] allows in each jiffy.
const INLINE_RUNS: u32 = 4;

/// How many runs of a peer may be processed inline, where they arrive, which saves the hop to a
/// worker. Sparse traffic is, and so are answers to packets of the other direction. Of a one-way
/// stream only the first few runs of each jiffy are; the rest is batched and spread over the CPUs.
///
/// Not locked: a miscount only sends a run the other way.
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

    /// Whether one more run may be processed inline, in this jiffy.
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

    /// Resets the budget: a packet went in the other direction, and the next may be its answer.
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

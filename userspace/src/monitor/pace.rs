// SPDX-License-Identifier: GPL-2.0-only
//! How often news may cause work: the first is looked at immediately, what follows soon after it
//! together.

use std::time::{Duration, Instant};

/// The least time between two looks.
const GAP: Duration = Duration::from_millis(100);
/// After some work, news waits for this many times the work's duration,
const REST: u32 = 9;
/// but no longer than this.
const LONGEST: Duration = Duration::from_secs(1);

/// When news may be looked at.
pub struct Pace(Instant);

impl Pace {
    /// From now on.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// From when on.
    pub fn opens(&self) -> Instant {
        self.0
    }

    /// Something was read and drawn in this time.
    pub fn worked(&mut self, begin: Instant, end: Instant) {
        let rest = end.saturating_duration_since(begin) * REST;
        self.0 = end + rest.clamp(GAP, LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_causes_little_work() {
        // There is news at any time; each look takes so long.
        for (millis, most) in [(1, 99), (10, 91), (50, 20), (1000, 5)] {
            let (start, cost) = (Instant::now(), Duration::from_millis(millis));
            let mut pace = Pace::new(start);
            let (mut now, mut looks) = (start, 0);
            while now < start + Duration::from_secs(10) {
                assert_eq!(looks == 0, pace.opens() <= start);
                pace.worked(now, now + cost);
                looks += 1;
                now = pace.opens();
            }
            assert!((most - 1..=most + 1).contains(&looks), "{millis}: {looks}");
        }
    }

    #[test]
    fn after_a_quiet_time_news_does_not_wait() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(pace.opens() <= start);
        pace.worked(start, start + Duration::from_millis(1));
        assert!(pace.opens() <= start + Duration::from_millis(101));
    }
}

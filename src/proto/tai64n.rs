// SPDX-License-Identifier: GPL-2.0-only

//! TAI64N timestamps, which make each initiation of a peer newer than the one before
//! (whitepaper, section 5.1; <https://cr.yp.to/libtai/tai64.html>).

use super::consts::{INITIATIONS_PER_SECOND, NS_PER_SEC, TIMESTAMP_LEN};

/// The TAI64 label of the Unix epoch: 2^62 seconds plus the ten seconds that TAI led UTC by then.
const EPOCH: u64 = (1 << 62) + 10;

/// Nanoseconds are rounded down to a multiple of this power of two, the greatest one below the
/// interval at which initiations are accepted, so that no more of the clock is revealed than the
/// protocol needs.
const GRAIN: u32 = 1 << (NS_PER_SEC / INITIATIONS_PER_SECOND).ilog2();

/// Twelve bytes whose lexicographic order is the order in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tai64n([u8; TIMESTAMP_LEN]);

impl Tai64n {
    /// Before every real time: the value for a peer from which nothing was received yet.
    pub const ZERO: Self = Self([0; TIMESTAMP_LEN]);

    /// The time `secs` seconds and `nanos` nanoseconds after the start of the Unix epoch, with
    /// the nanoseconds rounded down. `secs` is negative before the epoch.
    pub fn new(secs: i64, nanos: u32) -> Self {
        let mut bytes = [0; TIMESTAMP_LEN];
        let seconds = EPOCH.wrapping_add_signed(secs).to_be_bytes();
        let nanos = (nanos & !(GRAIN - 1)).to_be_bytes();
        for (to, from) in bytes.iter_mut().zip(seconds.iter().chain(&nanos)) {
            *to = *from;
        }
        Self(bytes)
    }

    /// A timestamp from an initiation: any bytes are valid.
    pub const fn from_bytes(bytes: [u8; TIMESTAMP_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes that go into an initiation.
    pub const fn as_bytes(&self) -> &[u8; TIMESTAMP_LEN] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        assert_eq!(GRAIN, 1 << 24);
        // The epoch, and the example of the TAI64 page: 1992-06-02 08:07:09 UTC.
        assert_eq!(
            Tai64n::new(0, 0).as_bytes(),
            &[0x40, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0]
        );
        assert_eq!(
            Tai64n::new(-10, 0).as_bytes(),
            &[0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            Tai64n::new(1_700_000_000, 999_999_999).as_bytes(),
            &[0x40, 0, 0, 0, 0x65, 0x53, 0xf1, 0x0a, 0x3b, 0, 0, 0]
        );
    }

    #[test]
    fn nanoseconds_are_rounded_down() {
        let grain = 1 << 24;
        assert_eq!(Tai64n::new(5, 0), Tai64n::new(5, grain - 1));
        assert!(Tai64n::new(5, grain - 1) < Tai64n::new(5, grain));
        assert_eq!(Tai64n::new(5, grain), Tai64n::new(5, 2 * grain - 1));
    }

    #[test]
    fn bytes_are_ordered_as_time_is() {
        let times = [
            Tai64n::ZERO,
            Tai64n::new(-1, 999_999_999),
            Tai64n::new(0, 0),
            Tai64n::new(0, 1 << 24),
            Tai64n::new(255, 0),
            Tai64n::new(256, 0),
            Tai64n::new(i64::from(u32::MAX), 999_999_999),
            Tai64n::new(1 << 32, 0),
        ];
        for pair in times.windows(2) {
            assert!(pair[0] < pair[1]);
        }
    }

    #[test]
    fn no_input_panics() {
        let _ = Tai64n::new(i64::MIN, u32::MAX);
        let _ = Tai64n::new(i64::MAX, u32::MAX);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Floods of initiations with a right mac1 and random content at the hub of a [`Star`], from an
//! address that is no peer's.
//!
//! Under load either driver answers each such message that it takes from its queue with a cookie
//! reply, so the datagrams that the hub sends are the messages that it has handled.

use super::star::Star;
use anyhow::Result;
use harness::flood::{Flooder, BURST};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Messages under way at most, of those that are handled: more than make a device be under load
/// (512), fewer than it drops any of (4096; the in-tree driver: 2048, when CPUs get in each other's
/// way).
const WINDOW: u64 = 2000;
/// How often the replies are counted.
const PAUSE: Duration = Duration::from_micros(200);
/// Messages that are not answered for so long while no other is either have been lost.
const LOST: Duration = Duration::from_millis(20);

/// The messages that the hub handles per second. The sender waits for replies when [`WINDOW`] is
/// full: it takes no time from the device to send what would be dropped.
pub fn handled(star: &Star, time: Duration) -> Result<f64> {
    let mut rt = star.ns[0].rtnl()?;
    let from = SocketAddr::new(Star::stranger(), 0);
    let mut flooder = Flooder::new(&star.ns[1], from, star.outside(), &star.key)?;
    let mut answered = star.sent(&mut rt)?;
    let mut sent = answered;
    let (start, mut progress, mut opened) = (Instant::now(), Instant::now(), None);
    loop {
        let (now, count) = (Instant::now(), star.sent(&mut rt)?);
        if count != answered {
            (answered, progress) = (count, now);
        } else if now - progress > LOST {
            sent = answered;
        }
        match opened {
            None if now - start >= time / 10 => opened = Some((now, count)),
            Some((open, before)) if now - start >= time => {
                return Ok((count - before) as f64 / (now - open).as_secs_f64());
            }
            _ => {}
        }
        while sent.saturating_sub(answered) + BURST as u64 <= WINDOW && flooder.burst() {
            sent += BURST as u64;
        }
        sleep(PAUSE);
    }
}

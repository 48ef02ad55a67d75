// SPDX-License-Identifier: GPL-2.0-only
//! The two MACs at the end of handshake messages, and cookie replies (whitepaper, sections 5.4.4
//! and 5.4.7).

use super::crypto::{hash, mac, xopen, xseal};
use crate::wgdev::Key;
use anyhow::{ensure, Context, Result};

/// Bytes of a cookie reply.
pub const REPLY: usize = 64;

/// The first MAC of a message that is `body` up to there, for the holder of `receiver`.
pub fn mac1(body: &[u8], receiver: &Key) -> [u8; 16] {
    mac(&hash(&[b"mac1----", receiver]), &[body])
}

/// The second MAC of a message that is `body` up to there (mac1 included).
pub fn mac2(body: &[u8], cookie: &[u8; 16]) -> [u8; 16] {
    mac(cookie, &[body])
}

/// Computes both MACs of a whole, altered handshake message anew, so that only the alteration is
/// wrong about it. Without a cookie mac2 is zeros.
pub fn repair_macs(message: &mut [u8], receiver: &Key, cookie: Option<&[u8; 16]>) {
    let at = message.len() - 32;
    let first = mac1(&message[..at], receiver);
    message[at..at + 16].copy_from_slice(&first);
    let second = cookie.map(|cookie| mac2(&message[..at + 16], cookie));
    message[at + 16..].copy_from_slice(&second.unwrap_or_default());
}

/// The first MAC as it stands in a whole handshake message.
pub fn mac1_of(message: &[u8]) -> Option<[u8; 16]> {
    let at = message.len().checked_sub(32)?;
    message.get(at..)?.first_chunk().copied()
}

/// True if mac1 of a whole handshake message to the holder of `own` is right.
pub fn mac1_is_right(message: &[u8], own: &Key) -> bool {
    let at = message.len().saturating_sub(32);
    mac1_of(message) == Some(mac1(&message[..at], own))
}

/// The cookie in `reply`, which the holder of `peer` sent to our handshake message `to`.
pub fn open_reply(reply: &[u8], peer: &Key, to: &[u8]) -> Result<[u8; 16]> {
    ensure!(reply.len() == REPLY, "length {}", reply.len());
    ensure!(reply[..4] == [3, 0, 0, 0], "not a cookie reply");
    ensure!(reply[4..8] == to[4..8], "not to our index");
    let nonce = reply[8..].first_chunk().context("nonce")?;
    let mac1 = mac1_of(to).context("mac1")?;
    let cookie = xopen(&hash(&[b"cookie--", peer]), nonce, &reply[32..], &mac1);
    let cookie = cookie.context("the cookie reply does not authenticate")?;
    Ok(*cookie.first_chunk().context("cookie")?)
}

/// A reply with `cookie` to the handshake message `to`, by the holder of `own`.
pub fn reply(own: &Key, to: &[u8], cookie: &[u8; 16]) -> Vec<u8> {
    let nonce: [u8; 24] = rand::random();
    let mut reply = vec![3, 0, 0, 0];
    reply.extend_from_slice(&to[4..8]);
    reply.extend_from_slice(&nonce);
    let mac1 = mac1_of(to).expect("a handshake message");
    reply.extend(xseal(&hash(&[b"cookie--", own]), &nonce, cookie, &mac1));
    reply
}

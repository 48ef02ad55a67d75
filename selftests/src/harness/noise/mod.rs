// SPDX-License-Identifier: GPL-2.0-only
//! A WireGuard protocol client of the tests' own: what an attacker, or a very odd peer, can send.
//!
//! Written from the whitepaper (sections 5.4 to 5.4.7), for tests only: it keeps no rules, has no
//! timers and leaves nothing out of the caller's hands. It shares no code with the module.
//!
//! - [`handshake`]: both roles of the handshake, any field of a message replaced ([`Tweak`]);
//! - [`cookie`]: mac1, mac2, cookie replies;
//! - [`session`]: transport data with any counter and any plaintext;
//! - [`packet`]: inner IP packets, and outer frames with any source address;
//! - [`client`]: a UDP socket with keys, that does the common things.
//!
//! A client as the peer of a device in namespace `a`, whose underlay's other end is `b`:
//!
//! ```ignore
//! let keys = Keys::random(); // its public key is a peer of the device
//! let client = Client::new(&b, keys, device_public, from, to)?;
//! let mut session = client.handshake()?; // as initiator
//! client.ping(&mut session, inner(false, 1), inner(false, 0))?;
//!
//! // The same message a second time: nothing may come of it.
//! let message = session.data(&packet::echo(inner(false, 1), inner(false, 0), 1, b"once"));
//! client.send(&message)?;
//! client.wait_data(&session, SECOND)?; // the reply
//! client.send(&message)?;
//! client.silence(SECOND)?;
//!
//! // An initiation with a wrong mac1.
//! let tweak = Tweak { mac1: Some([0; 16]), ..Tweak::default() };
//! client.initiate(&tweak)?;
//! client.silence(SECOND)?;
//! ```

pub mod client;
pub mod cookie;
pub mod crypto;
pub mod handshake;
pub mod packet;
pub mod session;

pub use client::Client;
pub use handshake::{Keys, Pending, Received, Tweak};
pub use session::Session;

// SPDX-License-Identifier: GPL-2.0-only
//! Listens to the events of our module.

use super::netlink::{attrs, group_id, Netlink};
use super::netns::Netns;
use super::pace::slow;
use super::wgdev::Key;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wireguard_rs::proto::extension::{attr, GROUP_EVENTS};

/// An event comes within this time.
const LIMIT: Duration = Duration::from_secs(10);

/// An event as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub kind: u8,
    /// Its attributes.
    pub attrs: BTreeMap<u16, Vec<u8>>,
}

impl Event {
    /// A 32-bit attribute.
    pub fn u32(&self, kind: u16) -> Option<u32> {
        let value = self.attrs.get(&kind)?;
        value.as_slice().try_into().ok().map(u32::from_ne_bytes)
    }

    /// The public key.
    pub fn key(&self) -> Option<Key> {
        self.attrs
            .get(&attr::PUBLIC_KEY)?
            .as_slice()
            .try_into()
            .ok()
    }

    /// The port in an endpoint.
    pub fn port(&self, kind: u16) -> Option<u16> {
        let value = self.attrs.get(&kind)?.get(2..4)?;
        value.try_into().ok().map(u16::from_be_bytes)
    }
}

/// A socket in the multicast group.
pub struct Listener(Netlink);

impl Listener {
    /// Joins the group in a namespace; `family` is the name of ours.
    pub fn open(ns: &Netns, family: &str) -> Result<Self> {
        ns.run(|| Ok(Self::join(family)?))
    }

    /// Joins the group in this namespace.
    pub fn join(family: &str) -> Result<Self, Errno> {
        let mut socket = Netlink::generic()?;
        let group = group_id(&mut socket, family, GROUP_EVENTS)?;
        socket.join(group)?;
        Ok(Self(socket))
    }

    /// The next event, waited for.
    pub fn hear(&mut self) -> Result<Event> {
        self.0.wait_at_most(slow(LIMIT))?;
        self.heard(true)?.context("no event")
    }

    /// The next event of that kind; those before it are passed over.
    pub fn wait(&mut self, kind: u8) -> Result<Event> {
        let begin = Instant::now();
        let mut before = Vec::new();
        while begin.elapsed() < slow(LIMIT) {
            match self.hear() {
                Ok(event) if event.kind == kind => return Ok(event),
                Ok(event) => before.push(event.kind),
                Err(error) => return Err(error.context(format!("after events {before:?}"))),
            }
        }
        bail!("no event {kind}, but {before:?}")
    }

    /// All that have come.
    pub fn drain(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.heard(false)? {
            events.push(event);
        }
        Ok(events)
    }

    /// As [`Listener::drain`], but true if some were lost.
    pub fn drain_lossy(&mut self) -> Result<(Vec<Event>, bool)> {
        let (mut events, mut lost) = (Vec::new(), false);
        loop {
            match self.heard(false) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return Ok((events, lost)),
                Err(Errno::ENOBUFS) => lost = true,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Room for so many bytes of events.
    pub fn set_room(&self, bytes: usize) -> Result<()> {
        Ok(self.0.set_room(bytes)?)
    }

    fn heard(&mut self, wait: bool) -> Result<Option<Event>, Errno> {
        let Some(body) = self.0.heard(wait)? else {
            return Ok(None);
        };
        let (header, rest) = body.split_first_chunk::<4>().ok_or(Errno::EBADMSG)?;
        Ok(Some(Event {
            kind: header[0],
            attrs: attrs(rest).into_iter().collect(),
        }))
    }
}

/// Checks that the events are numbered one by one.
pub fn ensure_numbered(events: &[Event]) -> Result<()> {
    let numbers: Option<Vec<u32>> = events.iter().map(|e| e.u32(attr::SEQUENCE)).collect();
    let numbers = numbers.context("an event without a number")?;
    let steps = numbers
        .windows(2)
        .all(|pair| pair[1] == pair[0].wrapping_add(1));
    ensure!(steps, "the numbers of events: {numbers:?}");
    Ok(())
}

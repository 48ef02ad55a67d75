// SPDX-License-Identifier: GPL-2.0-only
//! Secrets are erased from memory when they are no longer needed. Each is first found in memory,
//! so that the search is known to work, and must then be gone.

use super::{drop_in_vtime, Test};
use anyhow::{ensure, Context, Result};
use harness::modules::unload_all;
use harness::noise::crypto::{dh, public};
use harness::noise::{handshake, Received, Session, Tweak};
use harness::ram;
use harness::rig::{conf, inside, Rig, WAIT};
use harness::runner::{Ctx, Subject};
use harness::suspend::rehearse;
use harness::topo::inner;
use harness::wgdev::{random_key, uapi, DeviceConf, Key};
use harness::wire::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in_vtime(list, "attack-zeroization-sessions", 1800, sessions);
    drop_in_vtime(list, "attack-zeroization-suspend", 900, suspend);
    drop_in_vtime(list, "attack-zeroization-hibernation", 900, hibernation);
    drop_in_vtime(list, "attack-zeroization-key-change", 900, key_change);
    drop_in_vtime(list, "attack-zeroization-link-down", 900, link_down);
    drop_in_vtime(list, "attack-zeroization-rmmod", 900, rmmod);
}

/// Enough for an RCU grace period and for work queues.
const SOON: Duration = Duration::from_secs(2);

/// Where secrets were found, by name.
type Found = BTreeMap<String, Vec<u64>>;

/// Secrets by name, and handshakes that the device has initiated and that await a response.
#[derive(Default)]
struct Secrets {
    keys: Vec<(String, Key)>,
    open: Vec<(String, Received)>,
    /// Where they have been found.
    places: BTreeSet<u64>,
}

impl Secrets {
    fn one(name: &str, key: Key) -> Self {
        let mut secrets = Secrets::default();
        secrets.add(name, key);
        secrets
    }

    fn add(&mut self, name: &str, key: Key) {
        self.keys.push((name.to_owned(), key));
    }

    fn session(&mut self, name: &str, session: &Session) {
        self.add(&format!("{name}: receiving key"), session.send);
        self.add(&format!("{name}: sending key"), session.receive);
    }

    fn handshake(&mut self, name: &str, received: &Received) {
        self.add(&chain_of(name), received.chain());
        self.open.push((name.to_owned(), received.clone()));
    }

    /// Adds the ephemeral private keys of the handshakes, which are stored near the chaining keys.
    fn add_ephemerals(&mut self, found: &Found) -> Result<()> {
        for (name, received) in std::mem::take(&mut self.open) {
            let places = found.get(&chain_of(&name)).context("no chaining key")?;
            let key = ephemeral(places, &received.ephemeral)?;
            let key = key.with_context(|| format!("{name}: no ephemeral key near the chain's"))?;
            self.add(&format!("{name}: ephemeral key"), key);
        }
        Ok(())
    }
}

fn chain_of(name: &str) -> String {
    format!("{name}: chaining key")
}

/// The private key of `wanted`, if it is near one of these places.
fn ephemeral(places: &[u64], wanted: &Key) -> Result<Option<Key>> {
    const NEAR: usize = 512;
    for place in places {
        let bytes = ram::around(*place, NEAR)?;
        let keys = bytes.windows(32).step_by(4).map(Key::try_from);
        let clamped = |key: &Key| key[0] & 7 == 0 && key[31] & 0xc0 == 0x40;
        let mut keys = keys.flatten().filter(clamped);
        if let Some(key) = keys.find(|key| public(key) == *wanted) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// A device whose private key was never dumped.
struct Memory<'a> {
    ctx: &'a Ctx,
    scene: Rig,
    key: Key,
}

impl<'a> Memory<'a> {
    fn new(ctx: &'a Ctx, clients: usize) -> Result<Self> {
        ram::keep_pages()?;
        let mut memory = Memory {
            ctx,
            scene: Rig::fenced(ctx, clients)?,
            key: [0; 32],
        };
        memory.change_key()?;
        Ok(memory)
    }

    /// Gives the device another private key.
    fn change_key(&mut self) -> Result<()> {
        self.key = random_key();
        let conf = DeviceConf {
            private_key: Some(self.key),
            ..DeviceConf::default()
        };
        self.scene.end.set(&self.scene.link, &conf)?;
        let public = public(&self.key);
        for client in &mut self.scene.clients {
            client.peer = public;
        }
        Ok(())
    }

    fn own_key(&self) -> Secrets {
        Secrets::one("the private key", self.key)
    }

    /// Gives the device and client `k` another preshared key.
    fn change_psk(&mut self, k: usize) -> Result<Key> {
        let psk = rand::random();
        self.scene.clients[k].psk = psk;
        let conf = conf(k, &self.scene.clients[k]);
        self.scene.end.set_peer(&self.scene.link, conf)?;
        Ok(psk)
    }

    fn remove(&mut self, k: usize) -> Result<()> {
        let mut gone = conf(k, &self.scene.clients[k]);
        gone.flags = uapi::peer::F_REMOVE_ME;
        gone.preshared_key = None;
        self.scene.end.set_peer(&self.scene.link, gone)
    }

    /// The device's handshakes with the clients `who`, which do not answer: their state is kept for
    /// a while after the last retry.
    fn open<const N: usize>(&mut self, who: [usize; N]) -> Result<[Received; N]> {
        for k in who {
            self.scene.initiation(k)?;
        }
        sleep(Duration::from_secs(130));
        let mut open = Vec::new();
        for k in who {
            let client = &self.scene.clients[k];
            let mut last = None;
            while let Some((message, _)) = client.receive(Duration::ZERO)? {
                last = Some(message);
            }
            let last = last.context("the device did not retry")?;
            open.push(handshake::receive(&client.keys, &last)?);
        }
        open.try_into().ok().context("as many as clients")
    }

    /// Client `k` responds. The device confirms the session with a keepalive, since it has nothing
    /// left to send.
    fn answer(&self, k: usize, open: &Received) -> Result<Session> {
        let client = &self.scene.clients[k];
        let (mut session, response) = open.respond(&client.psk, &Tweak::default());
        let own = session.own;
        client.send(&response)?;
        client.wait(
            WAIT,
            "a keepalive",
            |message, _| matches!(message, Message::Data { receiver, .. } if *receiver == own),
        )?;
        client.ping(&mut session, inside(false, k), inner(false, 0))?;
        Ok(session)
    }

    /// All kinds of sessions: the current and the previous one with client 0 as initiator; one with
    /// client 1 as the responder to `open`; and an unconfirmed one with client 2.
    fn sessions(&self, open: &Received) -> Result<Secrets> {
        let mut secrets = Secrets::default();
        secrets.session("previous session", &self.scene.session(0)?);
        secrets.session("session", &self.scene.session(0)?);
        secrets.session("the device's session", &self.answer(1, open)?);
        secrets.session("unconfirmed session", &self.scene.clients[2].handshake()?);
        Ok(secrets)
    }

    /// Checks that all of these are in memory.
    fn all_there<const N: usize>(&self, when: &str, sets: [&mut Secrets; N]) -> Result<()> {
        let keys: Vec<_> = sets.iter().flat_map(|set| set.keys.clone()).collect();
        let found = self.search(when, &keys, &[])?;
        for set in sets {
            set.add_ephemerals(&found)?;
            set.places.extend(found.values().flatten());
        }
        Ok(())
    }

    /// Checks that secrets `gone` are not in memory and secrets `there` are. The in-tree driver
    /// leaves copies on the stacks of kernel workers until they are overwritten: for it, only
    /// copies where they were found before count.
    fn all_gone(&self, when: &str, gone: &Secrets, there: &mut Secrets) -> Result<()> {
        let found = self.search(when, &there.keys, &gone.keys)?;
        there.places.extend(found.values().flatten());
        let strict = self.ctx.subject == Subject::Rs;
        let counts = |place: &u64| strict || gone.places.contains(place);
        let is_left = |secret: &&(String, Key)| {
            let places = found.get(&secret.0);
            places.is_some_and(|places| places.iter().any(counts))
        };
        let left: Vec<_> = gone.keys.iter().filter(is_left).map(|s| &s.0).collect();
        for place in left.iter().filter_map(|name| found.get(*name)).flatten() {
            self.ctx.note(ram::describe(*place));
        }
        ensure!(
            left.is_empty(),
            "{when}: still in memory: {left:?} ({found:x?})"
        );
        Ok(())
    }

    /// Where all these are; each of `there` must be found.
    fn search(&self, when: &str, there: &[(String, Key)], gone: &[(String, Key)]) -> Result<Found> {
        let found = ram::find(&[there, gone].concat())?;
        let halves = |secret: &(String, Key)| found.get(&secret.0).map_or(0, Vec::len);
        self.ctx.note(format!(
            "{when}: {} halves of {} secrets; {} of {} others",
            there.iter().map(halves).sum::<usize>(),
            there.len(),
            gone.iter().map(halves).sum::<usize>(),
            gone.len()
        ));
        let absent = |secret: &&(String, Key)| !found.contains_key(&secret.0);
        let absent: Vec<_> = there.iter().filter(absent).map(|s| &s.0).collect();
        ensure!(absent.is_empty(), "{when}: not in memory: {absent:?}");
        Ok(found)
    }
}

/// After rekeys, a peer's removal, a finished handshake and a change of the preshared key, secrets
/// are gone soon; those that only expire, after 540 s.
fn sessions(ctx: &Ctx) -> Result<()> {
    let mut memory = Memory::new(ctx, 7)?;
    let [mut soon, mut later] = [Secrets::default(), Secrets::default()];

    let psk = memory.change_psk(1)?;
    soon.add("removed: preshared key", psk);
    let shared = dh(&memory.key, &memory.scene.clients[1].keys.public);
    soon.add("removed: shared secret of the static keys", shared);
    let [answered, removed, given_up] = memory.open([4, 5, 6])?;
    soon.handshake("answered", &answered);
    soon.handshake("removed", &removed);
    later.handshake("given up", &given_up);

    let scene = &memory.scene;
    soon.session("rekeyed twice", &scene.session(0)?);
    soon.session("removed", &scene.session(1)?);
    later.session("expired", &scene.session(2)?);
    soon.session("never confirmed", &scene.clients[3].handshake()?);
    soon.add("replaced preshared key", memory.change_psk(2)?);
    memory.all_there("at the start", [&mut soon, &mut later])?;

    // After two more handshakes the first session is not even the previous one any more; an
    // unconfirmed session is replaced by the next one at once.
    let scene = &memory.scene;
    later.session("rekeyed", &scene.session(0)?);
    later.session("in use", &scene.session(0)?);
    later.session("unconfirmed", &scene.clients[3].handshake()?);
    later.session("the device's", &memory.answer(4, &answered)?);
    memory.remove(1)?;
    memory.remove(5)?;
    later.add("preshared key", memory.change_psk(2)?);
    sleep(SOON);
    memory.all_gone("after their ends", &soon, &mut later)?;

    // The device retries for 90 s, then it gives up; the keys are kept for 540 s.
    later.keys.retain(|(name, _)| name != "preshared key");
    sleep(Duration::from_secs(800));
    memory.all_gone("after their time", &later, &mut memory.own_key())
}

fn suspend(ctx: &Ctx) -> Result<()> {
    sleeping(ctx, "freeze")
}

fn hibernation(ctx: &Ctx) -> Result<()> {
    sleeping(ctx, "disk")
}

/// When the machine suspends there is no time to wait: sessions and handshakes in progress are
/// gone once it has.
fn sleeping(ctx: &Ctx, how: &str) -> Result<()> {
    let mut memory = Memory::new(ctx, 4)?;
    let psk = memory.change_psk(0)?;
    let mut stay = memory.own_key();
    stay.add("a preshared key", psk);
    let [answered, pending] = memory.open([1, 3])?;
    let mut go = memory.sessions(&answered)?;
    go.handshake("handshake", &pending);
    memory.all_there(&format!("before {how}"), [&mut stay, &mut go])?;
    rehearse(how)?;
    memory.all_gone(&format!("after {how}"), &go, &mut stay)
}

/// A new private key, set while the link is up, erases the old one, everything derived from it,
/// and the handshakes in progress. (Sessions may still receive.)
fn key_change(ctx: &Ctx) -> Result<()> {
    let mut memory = Memory::new(ctx, 1)?;
    let mut go = Secrets::one("the old private key", memory.key);
    let shared = dh(&memory.key, &memory.scene.clients[0].keys.public);
    go.add("a shared secret of the static keys", shared);
    let [pending] = memory.open([0])?;
    go.handshake("handshake", &pending);
    memory.all_there("before the key is changed", [&mut go])?;
    memory.change_key()?;
    sleep(SOON);
    memory.all_gone("after the key was changed", &go, &mut memory.own_key())
}

/// When the link goes down, all sessions and the handshakes in progress are erased.
fn link_down(ctx: &Ctx) -> Result<()> {
    let mut memory = Memory::new(ctx, 4)?;
    let psk = memory.change_psk(0)?;
    let mut stay = memory.own_key();
    stay.add("a preshared key", psk);
    let [answered, pending] = memory.open([1, 3])?;
    let mut go = memory.sessions(&answered)?;
    go.handshake("handshake", &pending);
    memory.all_there("before the link goes down", [&mut stay, &mut go])?;
    memory.scene.link.rt(0).set_up("wg0", false)?;
    sleep(SOON);
    memory.all_gone("after the link went down", &go, &mut stay)
}

/// Unloading the module erases everything.
fn rmmod(ctx: &Ctx) -> Result<()> {
    let mut memory = Memory::new(ctx, 4)?;
    let psk = memory.change_psk(0)?;
    let [answered, pending] = memory.open([1, 3])?;
    let mut go = memory.sessions(&answered)?;
    go.handshake("handshake", &pending);
    go.add("a preshared key", psk);
    go.add("the private key", memory.key);
    memory.all_there("before rmmod", [&mut go])?;
    unload_all()?;
    // Without the module, the search must still find something: a file's content in the page cache.
    let marker: Key = rand::random();
    let path = "/run/wgrs-marker";
    std::fs::write(path, marker)?;
    let mut file = Secrets::one("a file's content", marker);
    let searched = memory.all_gone("after rmmod", &go, &mut file);
    std::fs::remove_file(path)?;
    searched
}

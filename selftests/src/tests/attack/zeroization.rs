// SPDX-License-Identifier: GPL-2.0
//! Secrets leave the machine's memory when they are done with. Each is first seen in it, so that
//! the search is known to work, and must then be gone.

use super::scene::{conf, inside, Scene, WAIT};
use super::{drop_in_vtime, Test};
use crate::harness::modules::unload_all;
use crate::harness::noise::crypto::dh;
use crate::harness::noise::{handshake, Received, Session, Tweak};
use crate::harness::ram;
use crate::harness::runner::Ctx;
use crate::harness::topo::inner;
use crate::harness::wgdev::{random_key, uapi, DeviceConf, Key};
use crate::harness::wire::Message;
use anyhow::{ensure, Result};
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in_vtime(list, "attack-zeroization", 1800, zeroization);
}

/// Secrets by name.
#[derive(Default)]
struct Secrets(Vec<(String, Key)>);

impl Secrets {
    fn add(&mut self, name: &str, key: Key) {
        self.0.push((name.to_owned(), key));
    }

    fn session(&mut self, name: &str, session: &Session) {
        self.add(&format!("{name}: receiving key"), session.send);
        self.add(&format!("{name}: sending key"), session.receive);
    }

    /// All must be in memory somewhere.
    fn are_there(&self, ctx: &Ctx, when: &str) -> Result<()> {
        let found = ram::find(&self.0)?;
        let count: usize = found.values().map(Vec::len).sum();
        ctx.note(format!(
            "{when}: {count} halves of {} secrets",
            self.0.len()
        ));
        let absent = |(name, _): &&(String, Key)| !found.contains_key(name);
        let absent: Vec<_> = self.0.iter().filter(absent).map(|(name, _)| name).collect();
        ensure!(absent.is_empty(), "{when}: not in memory: {absent:?}");
        Ok(())
    }

    /// None may be in memory but `control`, which must.
    fn are_gone(&self, when: &str, control: &(String, Key)) -> Result<()> {
        let mut all = self.0.clone();
        all.push(control.clone());
        let mut found = ram::find(&all)?;
        let seen = found.remove(&control.0).is_some();
        ensure!(seen, "{when}: the search does not find {}", control.0);
        ensure!(found.is_empty(), "{when}: still in memory: {found:x?}");
        Ok(())
    }
}

/// The last of the device's tries to make a session with client `k`, which does not answer: its
/// state stays for a while.
fn last_initiation(scene: &mut Scene, k: usize) -> Result<Received> {
    let mut last = scene.initiation(k)?;
    sleep(Duration::from_secs(130));
    let client = &scene.clients[k];
    while let Some((message, _)) = client.receive(Duration::ZERO)? {
        last = message;
    }
    handshake::receive(&client.keys, &last)
}

/// After two rekeys, a peer's removal, 540 s, a finished handshake; after the link went down and
/// the private key changed; and after rmmod.
fn zeroization(ctx: &Ctx) -> Result<()> {
    ram::keep_pages()?;
    let mut scene = Scene::new(ctx, 5)?;
    let mut first = Secrets::default();
    // A device's private key that no dump has told.
    let key = random_key();
    let set_key = |scene: &mut Scene, key| {
        let conf = DeviceConf {
            private_key: Some(key),
            ..DeviceConf::default()
        };
        scene.end.set(&scene.link, &conf)
    };
    set_key(&mut scene, key)?;
    let public = crate::harness::noise::crypto::public(&key);
    for client in &mut scene.clients {
        client.peer = public;
    }
    let psk: Key = rand::random();
    scene.clients[1].psk = psk;
    let conf1 = conf(1, &scene.clients[1]);
    scene.end.set_peer(&scene.link, conf1)?;
    first.add("a preshared key", psk);
    let shared = dh(&key, &scene.clients[1].keys.public);
    first.add("the shared secret of the static keys", shared);

    let received = last_initiation(&mut scene, 4)?;
    first.add("the chaining key", received.chain());
    first.session("rekeyed", &scene.session(0)?);
    first.session("removed", &scene.session(1)?);
    first.session("expired", &scene.session(2)?);
    first.session("unconfirmed", &scene.clients[3].handshake()?);
    first.are_there(ctx, "at the start")?;

    // Two more handshakes: the first session is not even the previous one any more.
    scene.session(0)?;
    let third = scene.session(0)?;
    let (mut answered, response) = received.respond(&[0; 32], &Tweak::default());
    let client = &scene.clients[4];
    client.send(&response)?;
    // The device has nothing left to send, so it confirms the session by a keepalive.
    client.wait(
        WAIT,
        "a keepalive",
        |message, _| matches!(message, Message::Data { receiver, .. } if *receiver == answered.own),
    )?;
    client.ping(&mut answered, inside(false, 4), inner(false, 0))?;
    let mut gone = conf(1, &scene.clients[1]);
    gone.flags = uapi::PEER_REMOVE_ME;
    gone.preshared_key = None;
    scene.end.set_peer(&scene.link, gone)?;
    first.session("expired, third", &third);
    first.session("expired, initiator", &answered);
    // The device's handshakes go on for 90 s, then it gives up; the keys have 540 s.
    sleep(Duration::from_secs(800));
    let control = ("the private key".to_owned(), key);
    first.are_gone("after their ends", &control)?;

    let mut second = Secrets::default();
    let received = last_initiation(&mut scene, 4)?;
    second.add("the chaining key", received.chain());
    second.session("down", &scene.session(0)?);
    second.add(&control.0, key);
    second.are_there(ctx, "before down and a new key")?;
    scene.link.rt(0).set_up("wg0", false)?;
    let key = random_key();
    set_key(&mut scene, key)?;
    sleep(Duration::from_secs(1));
    let control = ("the new private key".to_owned(), key);
    second.are_gone("after down and a new key", &control)?;

    scene.link.rt(0).set_up("wg0", true)?;
    let public = crate::harness::noise::crypto::public(&key);
    for client in &mut scene.clients {
        client.peer = public;
    }
    let mut third = Secrets::default();
    let received = last_initiation(&mut scene, 4)?;
    third.add("the chaining key", received.chain());
    third.session("rmmod", &scene.session(0)?);
    let psk: Key = rand::random();
    scene.clients[2].psk = psk;
    let conf2 = conf(2, &scene.clients[2]);
    scene.end.set_peer(&scene.link, conf2)?;
    third.add("a preshared key", psk);
    third.add(&control.0, key);
    third.are_there(ctx, "before rmmod")?;
    unload_all()?;
    // What the search must still find, with no module there: a file's content in the page cache.
    let marker: Key = rand::random();
    let path = "/run/wgrs-marker";
    std::fs::write(path, marker)?;
    let searched = third.are_gone("after rmmod", &("a file's content".to_owned(), marker));
    std::fs::remove_file(path)?;
    searched
}

// SPDX-License-Identifier: GPL-2.0-only
//! The devices that the monitor watches. Those of the module `wireguard_rs` tell of their changes,
//! and no more than these is read; of others everything is read each time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::SystemTime;

use nix::errno::Errno;

use super::news::{take, Need};
use super::reading::DeviceReading;
use crate::driver::Interface;
use crate::genl::events::{Event, Heard, Listener, Sequence};
use crate::genl::extension::Extension;
use crate::genl::{Link, LinkListener};

/// So many datagrams are looked at before something is drawn.
const AT_ONCE: usize = 4096;

/// The devices.
pub struct Watch<'a> {
    names: &'a [String],
    family: Option<&'a str>,
    /// The module, while it has devices here.
    module: Option<Module>,
    /// Tells of new devices; none if that fails.
    links: Option<LinkListener>,
    /// Devices may have come or gone.
    rescan: bool,
    watched: Vec<Watched>,
}

/// What the module is asked and heard by.
struct Module {
    extension: Extension,
    /// None without the right to listen.
    events: Option<Listener>,
    sequence: Sequence,
}

struct Watched {
    link: Interface,
    is_ours: bool,
    need: Need,
    reading: DeviceReading,
}

impl<'a> Watch<'a> {
    /// Begins to listen, and reads the devices of these names, or all.
    ///
    /// # Errors
    ///
    /// As [`chosen`](super::chosen).
    pub fn new(names: &'a [String], family: Option<&'a str>) -> io::Result<Self> {
        let mut watch = Self {
            names,
            family,
            module: None,
            links: LinkListener::open().ok(),
            rescan: true,
            watched: Vec::new(),
        };
        watch.rescan()?;
        Ok(watch)
    }

    /// What is known.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceReading> + Clone {
        self.watched.iter().map(|watched| &watched.reading)
    }

    /// All changes are heard of.
    pub fn has_events(&self) -> bool {
        let listens = |module: &Module| module.events.is_some();
        self.watched.iter().all(|watched| watched.is_ours)
            && (self.watched.is_empty() || self.module.as_ref().is_some_and(listens))
    }

    /// Readable when there is news.
    pub fn sources(&self) -> Vec<BorrowedFd<'_>> {
        let events = self.module.as_ref().and_then(|m| m.events.as_ref());
        let links = self.links.as_ref().map(AsFd::as_fd);
        events.map(AsFd::as_fd).into_iter().chain(links).collect()
    }

    /// Reads all counters, and what else is needed.
    ///
    /// # Errors
    ///
    /// As [`chosen`](super::chosen).
    pub fn tick(&mut self) -> io::Result<()> {
        self.hear()?;
        let least = match &self.module {
            // Nobody tells of peers that have moved.
            Some(module) if module.events.is_none() => Need::Everything,
            _ => Need::Peers,
        };
        for watched in &mut self.watched {
            watched.need = watched.need.max(least);
        }
        self.rescan()
    }

    /// Looks at the news, and reads what it makes necessary; true if there is something to show.
    ///
    /// # Errors
    ///
    /// As [`chosen`](super::chosen).
    pub fn news(&mut self) -> io::Result<bool> {
        self.hear()?;
        let changed = self.rescan || self.watched.iter().any(|w| w.need != Need::Nothing);
        for watched in &mut self.watched {
            match watched.read(&mut self.module) {
                // It has just gone.
                Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {
                    self.rescan = true;
                }
                result => result?,
            }
        }
        if self.rescan {
            self.rescan()?;
        }
        Ok(changed)
    }

    /// Finds the devices there are, and reads of each what is needed; of new ones, everything.
    fn rescan(&mut self) -> io::Result<()> {
        self.rescan = false;
        let (module, watched) = (&mut self.module, &mut self.watched);
        // The kernel tries to load a module that it is asked for: only a new device is a reason.
        let mut asked = module.is_some();
        let watched = super::chosen(self.names, self.family, |link| {
            let known = watched.iter().position(|known| is_same(&known.link, link));
            let mut watching = match known {
                Some(at) => watched.swap_remove(at),
                None => {
                    if !std::mem::replace(&mut asked, true) {
                        *module = Module::open()?;
                    }
                    Watched::new(link, module.as_ref())
                }
            };
            watching.link = link.clone();
            watching.reading.name.clone_from(&link.name);
            watching.read(module).map(|()| watching)
        })?;
        self.watched = watched;
        if !self.watched.iter().any(|watched| watched.is_ours) {
            // It may be unloaded, and the next one has other numbers.
            self.module = None;
        }
        if let Some(module) = &mut self.module {
            let devices = &self.watched;
            let stays = |index| devices.iter().any(|w| w.reading.ifindex == index);
            module.sequence.retain(stays);
        }
        Ok(())
    }

    /// Takes in what has come.
    fn hear(&mut self) -> io::Result<()> {
        if let Some(links) = &mut self.links {
            let heard = links.hear(AT_ONCE)?;
            self.rescan |= heard.as_ref().is_none_or(|found| !found.is_empty());
            for watched in &mut self.watched {
                let index = watched.reading.ifindex;
                // An interface that goes up may have chosen a port.
                if heard.as_ref().is_none_or(|found| found.contains(&index)) {
                    watched.need = watched.need.max(Need::Settings);
                }
            }
        }
        let Some(module) = &mut self.module else {
            return Ok(());
        };
        let Some(listener) = &mut module.events else {
            return Ok(());
        };
        for _ in 0..AT_ONCE {
            match listener.hear_waiting()? {
                None => break,
                Some(Heard::Lost) => {
                    for watched in &mut self.watched {
                        watched.need = Need::Everything;
                    }
                }
                Some(Heard::Events(events)) => {
                    for event in events {
                        told(&event, &mut module.sequence, &mut self.watched);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Takes in an event.
fn told(event: &Event, sequence: &mut Sequence, watched: &mut [Watched]) {
    let missing = sequence.missing(event);
    let of = |watched: &&mut Watched| watched.reading.ifindex == event.ifindex;
    let Some(watched) = watched.iter_mut().find(of) else {
        return;
    };
    let need = take(event, missing, &mut watched.reading, SystemTime::now());
    watched.need = watched.need.max(need);
}

/// Whether both are the same device, whatever its name is now.
fn is_same(one: &Interface, other: &Interface) -> bool {
    match (one.of_kernel(), other.of_kernel()) {
        (Some((one, _)), Some((other, _))) => one == other,
        (None, None) => one.name == other.name,
        _ => false,
    }
}

impl Module {
    /// `None` if it is not loaded.
    fn open() -> io::Result<Option<Self>> {
        match Extension::open() {
            Ok(extension) => Ok(Some(Self {
                extension,
                events: Listener::open().ok(),
                sequence: Sequence::default(),
            })),
            Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Watched {
    fn new(link: &Interface, module: Option<&Module>) -> Self {
        let of_kernel = link.of_kernel();
        let kind = module.map(|module| module.extension.kind());
        let reading = DeviceReading {
            ifindex: of_kernel.map_or(0, |(index, _)| index),
            ..DeviceReading::default()
        };
        Self {
            link: link.clone(),
            is_ours: of_kernel.is_some_and(|(_, family)| Some(family) == kind),
            need: Need::Everything,
            reading,
        }
    }

    /// Reads what is needed.
    fn read(&mut self, module: &mut Option<Module>) -> io::Result<()> {
        let need = std::mem::take(&mut self.need);
        if need <= Need::Draw {
            return Ok(());
        }
        match module {
            Some(module) if self.is_ours => self.ask(&mut module.extension, need),
            _ => {
                self.reading = DeviceReading::new(&self.link.get()?);
                Ok(())
            }
        }
    }

    fn ask(&mut self, extension: &mut Extension, need: Need) -> io::Result<()> {
        let link = Link::Index(self.reading.ifindex);
        let mut since = self.reading.generation;
        if need == Need::Everything {
            since = None;
        }
        if need >= Need::Peers {
            let counters = extension.counters(link)?;
            let generation = counters.generation;
            self.reading.count(counters);
            if since.is_some() && generation == since {
                return Ok(());
            }
        }
        let settings = extension.settings(link, since)?;
        self.reading.set(settings);
        Ok(())
    }
}

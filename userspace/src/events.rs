// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs events`: what happens, as it happens, a line for each event.

use crate::genl::events::{Event, Heard, Listener, Sequence};
use crate::model::ShownEndpoint;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::time::SystemTime;

/// Writes events to `out` until that cannot be written to. Only those of `interfaces`, unless there
/// are none; `json`: as JSON, an object a line.
///
/// # Errors
///
/// As [`Listener::open`] and [`Listener::hear`] have them, and those of `out`.
pub fn run(interfaces: &[String], json: bool, out: &mut impl Write) -> io::Result<()> {
    let mut listener = Listener::open()?;
    let mut sequence = Sequence::default();
    loop {
        let heard = listener.hear()?;
        for line in lines(heard, interfaces, &mut sequence) {
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            let stamped = Stamped {
                time: time.to_string(),
                line,
            };
            if json {
                serde_json::to_writer(&mut *out, &stamped)?;
                writeln!(out)?;
            } else {
                writeln!(out, "{stamped}")?;
            }
        }
        out.flush()?;
    }
}

/// What a line tells.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Event(Event),
    /// So many events of an interface did not come, or of any, if it is not known how many.
    Lost(Option<(String, u32)>),
}

/// The lines for what was heard.
fn lines(heard: Heard, interfaces: &[String], sequence: &mut Sequence) -> Vec<Line> {
    let Heard::Events(events) = heard else {
        return vec![Line::Lost(None)];
    };
    let mut lines = Vec::new();
    for event in events {
        let missing = sequence.missing(&event);
        if !interfaces.is_empty() && !interfaces.contains(&event.interface) {
            continue;
        }
        if missing != 0 {
            lines.push(Line::Lost(Some((event.interface.clone(), missing))));
        }
        lines.push(Line::Event(event));
    }
    lines
}

struct Stamped {
    time: String,
    line: Line,
}

impl Display for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.time)?;
        let event = match &self.line {
            Line::Event(event) => event,
            Line::Lost(None) => return write!(f, "- events-lost"),
            Line::Lost(Some((interface, count))) => {
                return write!(f, "{interface} events-lost count {count}");
            }
        };
        write!(f, "{} {}", event.interface, event.name)?;
        let mut word = |name: &str, value: Option<&dyn Display>| match value {
            Some(value) => write!(f, " {name} {value}"),
            None => Ok(()),
        };
        word("peer", event.public_key.as_ref().map(|key| key as _))?;
        let [endpoint, old] = [event.endpoint, event.old_endpoint].map(|e| e.map(ShownEndpoint));
        word("endpoint", endpoint.as_ref().map(|e| e as _))?;
        word("was", old.as_ref().map(|e| e as _))?;
        word("role", event.role.as_ref().map(|role| role as _))?;
        word("session", event.session.as_ref().map(|n| n as _))?;
        word("attempts", event.attempts.as_ref().map(|n| n as _))?;
        let changed = event.changed.as_ref().map(|names| names.join(","));
        word("changed", changed.as_ref().map(|names| names as _))?;
        word("seconds", event.seconds.as_ref().map(|n| n as _))?;
        let load = event.under_load.map(|load| if load { "on" } else { "off" });
        word("load", load.as_ref().map(|load| load as _))
    }
}

impl Serialize for Stamped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &self.time)?;
        let event = match &self.line {
            Line::Event(event) => event,
            Line::Lost(lost) => {
                map.serialize_entry("event", "events-lost")?;
                if let Some((interface, count)) = lost {
                    map.serialize_entry("interface", interface)?;
                    map.serialize_entry("count", count)?;
                }
                return map.end();
            }
        };
        map.serialize_entry("event", &event.name)?;
        map.serialize_entry("interface", &event.interface)?;
        map.serialize_entry("ifindex", &event.ifindex)?;
        map.serialize_entry("sequence", &event.sequence)?;
        let shown = |endpoint| ShownEndpoint(endpoint).to_string();
        optional(
            &mut map,
            "publicKey",
            event.public_key.map(|key| key.to_string()),
        )?;
        optional(&mut map, "endpoint", event.endpoint.map(shown))?;
        optional(&mut map, "oldEndpoint", event.old_endpoint.map(shown))?;
        optional(&mut map, "role", event.role)?;
        optional(&mut map, "session", event.session)?;
        optional(&mut map, "attempts", event.attempts)?;
        optional(&mut map, "changed", event.changed.as_ref())?;
        optional(&mut map, "seconds", event.seconds)?;
        optional(&mut map, "underLoad", event.under_load)?;
        map.end()
    }
}

fn optional<M: SerializeMap>(
    map: &mut M,
    name: &'static str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(name, &value),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    fn event(interface: &str, ifindex: u32, sequence: u32) -> Event {
        Event {
            name: "peer-added".into(),
            ifindex,
            interface: interface.into(),
            sequence,
            ..Event::default()
        }
    }

    #[test]
    fn gaps_are_told() {
        let mut sequence = Sequence::default();
        let only = ["wg0".to_owned()];
        let mut hear = |events: Vec<Event>| lines(Heard::Events(events), &only, &mut sequence);
        let (first, other) = (event("wg0", 1, 40), event("wg1", 2, 0));
        assert_eq!(hear(vec![first.clone(), other]), [Line::Event(first)]);
        let later = event("wg0", 1, 43);
        assert_eq!(
            hear(vec![event("wg1", 2, 9), later.clone()]),
            [Line::Lost(Some(("wg0".into(), 2))), Line::Event(later)]
        );
        assert_eq!(lines(Heard::Lost, &only, &mut sequence), [Line::Lost(None)]);
    }

    #[test]
    fn lines_for_people_and_for_programs() {
        let full = Event {
            name: "endpoint-changed".into(),
            public_key: Some(PublicKey::new([0; 32])),
            endpoint: Some(([192, 0, 2, 1], 51820).into()),
            old_endpoint: Some("[2001:db8::1]:7".parse().unwrap()),
            changed: Some(vec!["endpoint", "allowed-ips"]),
            under_load: Some(true),
            ..event("wg0", 1, 2)
        };
        let stamped = |line| Stamped {
            time: "NOW".into(),
            line,
        };
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let line = stamped(Line::Event(full));
        assert_eq!(
            line.to_string(),
            format!(
                "NOW wg0 endpoint-changed peer {key} endpoint 192.0.2.1:51820 was [2001:db8::1]:7 \
                 changed endpoint,allowed-ips load on"
            )
        );
        let json = [
            r#"{"time":"NOW","event":"endpoint-changed","interface":"wg0","ifindex":1,"sequence":2,"#,
            &format!(r#""publicKey":"{key}","endpoint":"192.0.2.1:51820","#),
            r#""oldEndpoint":"[2001:db8::1]:7","changed":["endpoint","allowed-ips"],"#,
            r#""underLoad":true}"#,
        ];
        assert_eq!(serde_json::to_string(&line).unwrap(), json.concat());
        let lost = stamped(Line::Lost(Some(("wg0".into(), 2))));
        assert_eq!(lost.to_string(), "NOW wg0 events-lost count 2");
        assert_eq!(
            serde_json::to_string(&stamped(Line::Lost(None))).unwrap(),
            r#"{"time":"NOW","event":"events-lost"}"#
        );
    }
}

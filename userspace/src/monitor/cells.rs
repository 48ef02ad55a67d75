// SPDX-License-Identifier: GPL-2.0-only
//! The text of a row's cells.

use super::bar::Bars;
use super::reading::{Handshake, Traffic};
use super::rows::{Of, Row};
use crate::model::ShownEndpoint;

/// The columns' headings; bars have none.
pub const HEADINGS: [&str; 11] = [
    "DEVICE",
    "PEER",
    "ENDPOINT",
    "HANDSHAKE",
    "RX/s",
    "",
    "TX/s",
    "",
    "RX",
    "TX",
    "KEEPALIVE",
];

/// The cells of a row. `bars`: what they are made of, and the rate that fills one.
pub fn cells(row: &Row, bars: Option<(Bars, u64)>) -> [String; HEADINGS.len()] {
    let none = || "-".to_owned();
    let device = printable(&row.device);
    let [head, endpoint, handshake, keepalive] = match row.of {
        Of::Device { listen_port, peers } => {
            let port = match listen_port {
                0 => none(),
                port => format!("port:{port}"),
            };
            [format!("peers:{peers}"), port, none(), none()]
        }
        Of::Peer {
            public_key,
            endpoint,
            handshake,
            keepalive,
            ..
        } => [
            public_key.to_string(),
            endpoint.map_or_else(none, |e| ShownEndpoint(e).to_string()),
            self::handshake(handshake),
            match keepalive {
                0 => none(),
                seconds => format!("{seconds}s"),
            },
        ],
    };
    let speed = |of: fn(Traffic) -> u64| row.rate.map_or_else(none, |r| bytes(of(r)) + "/s");
    // Those of a device would dwarf those of its peers.
    let is_peer = matches!(row.of, Of::Peer { .. });
    let bar = |of: fn(Traffic) -> u64| match bars {
        Some((bars, largest)) => {
            let rate = row.rate.filter(|_| is_peer);
            bars.draw(rate.map_or(0, of), largest)
        }
        None => String::new(),
    };
    [
        device,
        head,
        endpoint,
        handshake,
        speed(|t| t.rx),
        bar(|t| t.rx),
        speed(|t| t.tx),
        bar(|t| t.tx),
        bytes(row.total.rx),
        bytes(row.total.tx),
        keepalive,
    ]
}

/// What else there is to say of a row: names without spaces, separated by commas; empty if nothing.
/// `equals` stands between a reason and its count.
pub fn notes(row: &Row, equals: char, separator: &str) -> String {
    let trouble = match row.of {
        Of::Peer { trouble, .. } => trouble.map(str::to_owned),
        Of::Device { .. } => None,
    };
    let refused = row.refused.iter();
    let refused = refused.map(|(reason, count)| format!("{}{equals}{count}", reason.name()));
    let notes: Vec<_> = trouble.into_iter().chain(refused).collect();
    notes.join(separator)
}

/// The kernel lets control characters into an interface's name; a terminal must not see them.
fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn handshake(handshake: Handshake) -> String {
    match handshake {
        Handshake::Never => "never".into(),
        Handshake::InTheFuture => "future".into(),
        Handshake::Ago(age) => span(age.as_secs()),
    }
}

/// Seconds as "42s", "3m05s", "2h10m", "5d03h".
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A number of bytes in at most four digits and a unit.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1023.95 {
        value /= 1024.0;
        unit = units.next();
    }
    format!("{value:.1}{}", unit.unwrap_or(&"EiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_stay_short() {
        for (value, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1_048_524, "1023.9KiB"),
            (1_048_575, "1.0MiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (7800, "2h10m"),
            (443_000, "5d03h"),
        ] {
            assert_eq!(span(value), text);
        }
    }
}

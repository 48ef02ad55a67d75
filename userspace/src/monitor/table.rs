// SPDX-License-Identifier: GPL-2.0-only
//! Rows into lines of text: the plain table, and the one that has to fit a terminal.

use std::time::Duration;

use super::reading::{Handshake, Row, Traffic};
use crate::model::ShownEndpoint;

/// How a line looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    Heading,
    Device,
    /// A session can be in use: the last handshake is younger than what a key may live.
    Alive,
    Idle,
}

/// Sessions end 180 s after their handshake.
const SESSION: Duration = Duration::from_secs(180);

const HEADINGS: [&str; 9] = [
    "DEVICE",
    "PEER",
    "ENDPOINT",
    "HANDSHAKE",
    "RX/s",
    "TX/s",
    "RX",
    "TX",
    "KEEPALIVE",
];
const PEER: usize = 1;
const ENDPOINT: usize = 2;
/// Columns that a narrow terminal does without, the first to go first.
const DISPENSABLE: [usize; 3] = [8, 7, 6];
/// Below this many characters a key or an endpoint says nothing.
const SHORTEST: usize = 9;

/// A table: cells as text, each row with its look, the headings first.
pub struct Table {
    rows: Vec<(Look, Vec<String>)>,
}

impl Table {
    pub fn new(rows: &[Row]) -> Self {
        let headings = HEADINGS.map(String::from).to_vec();
        let rows = rows.iter().map(|row| (look(row), cells(row)));
        Self {
            rows: std::iter::once((Look::Heading, headings))
                .chain(rows)
                .collect(),
        }
    }

    /// The lines, nothing shortened, columns aligned.
    pub fn plain(&self) -> Vec<String> {
        self.lines(usize::MAX)
            .into_iter()
            .map(|(_, line)| line)
            .collect()
    }

    /// The lines with their looks, none longer than `width` characters.
    pub fn lines(&self, width: usize) -> Vec<(Look, String)> {
        let mut widths: Vec<usize> = (0..HEADINGS.len())
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|(_, row)| row.get(column))
                    .map(|c| c.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let whole = |widths: &[usize]| {
            widths
                .iter()
                .filter(|w| **w > 0)
                .map(|w| w + 2)
                .sum::<usize>()
                .saturating_sub(2)
        };
        let mut excess = whole(&widths).saturating_sub(width);
        // First the key gives way: a dozen characters of it tell peers apart.
        shorten(&mut widths, PEER, 13, &mut excess);
        for column in DISPENSABLE {
            if excess > 0 {
                widths[column] = 0;
                excess = whole(&widths).saturating_sub(width);
            }
        }
        shorten(&mut widths, ENDPOINT, SHORTEST, &mut excess);
        shorten(&mut widths, PEER, SHORTEST, &mut excess);
        self.rows
            .iter()
            .map(|(look, row)| (*look, line(row, &widths, width)))
            .collect()
    }
}

/// Takes up to `excess` characters from a column, down to `least`.
fn shorten(widths: &mut [usize], column: usize, least: usize, excess: &mut usize) {
    let cut = widths[column].saturating_sub(least).min(*excess);
    widths[column] -= cut;
    *excess -= cut;
}

fn line(row: &[String], widths: &[usize], width: usize) -> String {
    let mut line = String::new();
    for (column, (cell, room)) in row
        .iter()
        .zip(widths)
        .enumerate()
        .filter(|(_, (_, room))| **room > 0)
    {
        if !line.is_empty() {
            line.push_str("  ");
        }
        let cell = clip(cell, *room);
        let space = " ".repeat(room.saturating_sub(cell.chars().count()));
        // Words to the left, numbers to the right.
        if column <= ENDPOINT {
            line.push_str(&cell);
            line.push_str(&space);
        } else {
            line.push_str(&space);
            line.push_str(&cell);
        }
    }
    clip(line.trim_end(), width)
}

/// At most `room` characters, the last one an ellipsis if some had to go.
fn clip(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars()
        .take(room.saturating_sub(1))
        .chain((room > 0).then_some('…'))
        .collect()
}

fn look(row: &Row) -> Look {
    match row {
        Row::Device { .. } => Look::Device,
        Row::Peer(peer) => match peer.handshake {
            Handshake::Ago(age) if age < SESSION => Look::Alive,
            _ => Look::Idle,
        },
    }
}

fn cells(row: &Row) -> Vec<String> {
    let speed = |rate: Option<Traffic>| match rate {
        Some(rate) => [rate.rx, rate.tx].map(|r| bytes(r) + "/s"),
        None => ["-", "-"].map(String::from),
    };
    let (head, rate, total, keepalive) = match row {
        Row::Device {
            name,
            listen_port,
            peers,
            total,
            rate,
        } => {
            let port = if *listen_port == 0 {
                "-".into()
            } else {
                format!("port:{listen_port}")
            };
            (
                [printable(name), format!("peers:{peers}"), port, "-".into()],
                rate,
                total,
                "-".into(),
            )
        }
        Row::Peer(peer) => {
            let endpoint = peer
                .endpoint
                .map_or("-".into(), |e| ShownEndpoint(e).to_string());
            let keepalive = if peer.keepalive == 0 {
                "-".into()
            } else {
                format!("{}s", peer.keepalive)
            };
            let head = [
                printable(&peer.device),
                peer.public_key.to_string(),
                endpoint,
                handshake(peer.handshake),
            ];
            (head, &peer.rate, &peer.total, keepalive)
        }
    };
    head.into_iter()
        .chain(speed(*rate))
        .chain([total.rx, total.tx].map(bytes))
        .chain([keepalive])
        .collect()
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
    use crate::key::PublicKey;
    use crate::monitor::reading::PeerRow;

    fn peer(device: &str, key: u8, age: Handshake) -> Row {
        Row::Peer(PeerRow {
            device: device.into(),
            public_key: PublicKey::new([key; 32]),
            endpoint: Some(([192, 0, 2, 1], 51820).into()),
            handshake: age,
            total: Traffic { rx: 1536, tx: 10 },
            rate: Some(Traffic { rx: 3 << 20, tx: 0 }),
            keepalive: 25,
        })
    }

    fn table() -> Table {
        let device = Row::Device {
            name: "w\u{1b}g".into(),
            listen_port: 51820,
            peers: 2,
            total: Traffic { rx: 1, tx: 2 },
            rate: None,
        };
        Table::new(&[
            device,
            peer("wg0", 0, Handshake::Ago(Duration::from_secs(179))),
            peer("wg0", 9, Handshake::Never),
        ])
    }

    #[test]
    fn plain_lines_say_everything() {
        let lines = table().plain();
        let words: Vec<Vec<&str>> = lines
            .iter()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(words[0], HEADINGS);
        assert_eq!(
            words[1],
            [
                "w?g",
                "peers:2",
                "port:51820",
                "-",
                "-",
                "-",
                "1B",
                "2B",
                "-"
            ]
        );
        let key = PublicKey::new([0; 32]).to_string();
        assert_eq!(
            words[2],
            [
                "wg0",
                &key,
                "192.0.2.1:51820",
                "2m59s",
                "3.0MiB/s",
                "0B/s",
                "1.5KiB",
                "10B",
                "25s"
            ]
        );
        assert_eq!(words[3][3], "never");
        // Columns are aligned: all lines end where the last column does.
        assert_eq!(lines[2].len(), lines[3].len());
    }

    #[test]
    fn every_width_is_kept() {
        for width in 0..200 {
            for (_, line) in table().lines(width) {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
        }
        // A usual terminal has room for all but the least important, and for enough of the key.
        let lines = table().lines(80);
        assert!(
            lines[2].1.contains("AAAAAAAAAAAA…") && lines[2].1.contains("192.0.2.1:51820"),
            "{lines:?}"
        );
        assert!(lines[2].1.contains("3.0MiB/s"), "{lines:?}");
    }

    #[test]
    fn looks_tell_living_sessions() {
        let looks: Vec<_> = table()
            .lines(80)
            .into_iter()
            .map(|(look, _)| look)
            .collect();
        assert_eq!(
            looks,
            [Look::Heading, Look::Device, Look::Alive, Look::Idle]
        );
    }

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

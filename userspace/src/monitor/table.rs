// SPDX-License-Identifier: GPL-2.0-only
//! Rows into lines of text: the plain table, and the one that has to fit a terminal.

use std::time::Duration;

use super::bar::Bars;
use super::cells::{cells, notes, HEADINGS};
use super::reading::Handshake;
use super::rows::{Of, Row};

/// How a line looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    Heading,
    Device,
    /// A session can be in use: the last handshake is younger than what a key may live.
    Alive,
    Idle,
    /// What there is to say of the line above.
    Note,
}

/// Sessions end 180 s after their handshake.
const SESSION: Duration = Duration::from_secs(180);

const PEER: usize = 1;
const ENDPOINT: usize = 2;
const BARS: [usize; 2] = [5, 7];
/// The heading of notes in the plain table, where they are a column.
const NOTES: &str = "NOTES";
/// Columns that a narrow terminal does without, the first to go first.
const DISPENSABLE: [&[usize]; 4] = [&[10], &BARS, &[9], &[8]];
/// Below this many characters a key or an endpoint says nothing.
const SHORTEST: usize = 9;

/// A table: cells as text, each row with its look, the headings first.
pub struct Table {
    rows: Vec<(Look, Vec<String>)>,
    /// A line below each row, if not empty.
    notes: Vec<String>,
}

impl Table {
    /// For a terminal: with bars, and notes below the rows.
    pub fn live(rows: &[Row], bars: Bars) -> Self {
        let peers = rows.iter().filter(|row| matches!(row.of, Of::Peer { .. }));
        let rates = peers.filter_map(|row| row.rate);
        let largest = rates.map(|rate| rate.rx.max(rate.tx)).max().unwrap_or(0);
        let notes = rows.iter().map(|row| notes(row, ' ', ", "));
        Self {
            notes: std::iter::once(String::new()).chain(notes).collect(),
            rows: with_headings(rows, Some((bars, largest))),
        }
    }

    /// The lines of a table for programs: nothing shortened, columns aligned, those who have notes
    /// with a last column of them.
    pub fn plain(rows: &[Row]) -> Vec<String> {
        let mut table = with_headings(rows, None);
        let notes: Vec<_> = rows.iter().map(|row| notes(row, ':', ",")).collect();
        if notes.iter().any(|note| !note.is_empty()) {
            let notes = std::iter::once(NOTES.to_owned()).chain(notes);
            for ((_, cells), note) in table.iter_mut().zip(notes) {
                cells.push(note);
            }
        }
        let table = Self {
            rows: table,
            notes: Vec::new(),
        };
        let lines = table.lines(usize::MAX).into_iter();
        lines.map(|(_, line)| line).collect()
    }

    /// The lines with their looks, none longer than `width` characters.
    pub fn lines(&self, width: usize) -> Vec<(Look, String)> {
        let columns = self.rows.first().map_or(0, |(_, row)| row.len());
        let mut widths: Vec<usize> = (0..columns)
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
        for columns in DISPENSABLE {
            if excess > 0 {
                columns.iter().for_each(|column| widths[*column] = 0);
                excess = whole(&widths).saturating_sub(width);
            }
        }
        shorten(&mut widths, ENDPOINT, SHORTEST, &mut excess);
        shorten(&mut widths, PEER, SHORTEST, &mut excess);
        let notes = self.notes.iter().map(String::as_str);
        let mut lines = Vec::with_capacity(self.rows.len());
        for ((look, row), note) in self.rows.iter().zip(notes.chain(std::iter::repeat(""))) {
            lines.push((*look, line(row, &widths, width)));
            if !note.is_empty() {
                lines.push((Look::Note, clip(&format!("    {note}"), width)));
            }
        }
        lines
    }
}

fn with_headings(rows: &[Row], bars: Option<(Bars, u64)>) -> Vec<(Look, Vec<String>)> {
    let headings = (Look::Heading, HEADINGS.map(String::from).to_vec());
    let rows = rows
        .iter()
        .map(|row| (look(row), cells(row, bars).to_vec()));
    std::iter::once(headings).chain(rows).collect()
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
        // Words and bars to the left, numbers to the right.
        let is_number = (ENDPOINT + 1..HEADINGS.len()).contains(&column);
        if is_number && !BARS.contains(&column) {
            line.push_str(&space);
            line.push_str(&cell);
        } else {
            line.push_str(&cell);
            line.push_str(&space);
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
    match row.of {
        Of::Device { .. } => Look::Device,
        Of::Peer {
            handshake: Handshake::Ago(age),
            trouble: None,
            ..
        } if age < SESSION => Look::Alive,
        Of::Peer { .. } => Look::Idle,
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::Traffic;
    use super::*;
    use crate::key::PublicKey;
    use wireguard_rs::proto::Rejection::{InvalidData, ReplayedData};

    fn peer(device: &str, key: u8, handshake: Handshake) -> Row {
        Row {
            device: device.into(),
            of: Of::Peer {
                public_key: PublicKey::new([key; 32]),
                endpoint: Some(([192, 0, 2, 1], 51820).into()),
                handshake,
                keepalive: 25,
                trouble: None,
            },
            total: Traffic { rx: 1536, tx: 10 },
            rate: Some(Traffic { rx: 3 << 20, tx: 0 }),
            refused: Vec::new(),
        }
    }

    fn rows() -> Vec<Row> {
        let device = Row {
            device: "w\u{1b}g".into(),
            of: Of::Device {
                listen_port: 51820,
                peers: 2,
            },
            total: Traffic { rx: 1, tx: 2 },
            rate: None,
            refused: Vec::new(),
        };
        vec![
            device,
            peer("wg0", 0, Handshake::Ago(Duration::from_secs(179))),
            peer("wg0", 9, Handshake::Never),
        ]
    }

    /// The same, where something was refused and a session has expired.
    fn troubled() -> Vec<Row> {
        let mut rows = rows();
        rows[0].refused = vec![(ReplayedData, 7)];
        rows[1].refused = vec![(InvalidData, 2), (ReplayedData, 1)];
        if let Of::Peer { trouble, .. } = &mut rows[1].of {
            *trouble = Some("session-expired");
        }
        rows
    }

    fn words(lines: &[String]) -> Vec<Vec<&str>> {
        let lines = lines.iter();
        lines.map(|l| l.split_whitespace().collect()).collect()
    }

    #[test]
    fn plain_lines_say_everything() {
        let lines = Table::plain(&rows());
        let words = words(&lines);
        let headings = "DEVICE PEER ENDPOINT HANDSHAKE RX/s TX/s RX TX KEEPALIVE";
        assert_eq!(words[0].join(" "), headings);
        assert_eq!(words[1].join(" "), "w?g peers:2 port:51820 - - - 1B 2B -");
        let key = PublicKey::new([0; 32]).to_string();
        assert_eq!(
            words[2].join(" "),
            format!("wg0 {key} 192.0.2.1:51820 2m59s 3.0MiB/s 0B/s 1.5KiB 10B 25s")
        );
        assert_eq!(words[3][3], "never");
        // Columns are aligned: all lines end where the last column does.
        assert_eq!(lines[2].len(), lines[3].len());
    }

    #[test]
    fn reasons_are_the_last_column_of_a_plain_table() {
        let lines = Table::plain(&troubled());
        let words = words(&lines);
        assert_eq!(words[0][9], "NOTES");
        assert_eq!(words[1][9], "replayed-data:7");
        assert_eq!(
            words[2][9],
            "session-expired,invalid-data:2,replayed-data:1"
        );
        assert_eq!(words[3].len(), 9);
    }

    #[test]
    fn reasons_stand_below_their_peer_on_a_terminal() {
        let lines = Table::live(&troubled(), Bars::Blocks).lines(200);
        let looks: Vec<_> = lines.iter().map(|(look, _)| *look).collect();
        let wanted = [
            Look::Heading,
            Look::Device,
            Look::Note,
            Look::Idle,
            Look::Note,
            Look::Idle,
        ];
        assert_eq!(looks, wanted);
        assert_eq!(lines[2].1, "    replayed-data 7");
        let of_peer = "    session-expired, invalid-data 2, replayed-data 1";
        assert_eq!(lines[4].1, of_peer);
    }

    #[test]
    fn bars_show_rates_beside_the_largest() {
        let mut rows = rows();
        rows[2].rate = Some(Traffic {
            rx: 3 << 19,
            tx: 3 << 18,
        });
        let lines = Table::live(&rows, Bars::Ascii).lines(200);
        for (line, bars) in [
            (2, ["3.0MiB/s  ######", "0B/s        "]),
            (3, ["1.5MiB/s  ###   ", "768.0KiB/s  #     "]),
        ] {
            for bar in bars {
                assert!(lines[line].1.contains(bar), "{bar} in {lines:?}");
            }
        }
        assert!(!lines[1].1.contains('#'));
    }

    #[test]
    fn every_width_is_kept() {
        let table = Table::live(&troubled(), Bars::Blocks);
        for width in 0..200 {
            for (_, line) in table.lines(width) {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
        }
        // A usual terminal has room for all but the least important, and for enough of the key.
        let lines = Table::live(&rows(), Bars::Blocks).lines(80);
        assert!(
            lines[2].1.contains("AAAAAAAAAAAA…") && lines[2].1.contains("192.0.2.1:51820"),
            "{lines:?}"
        );
        assert!(lines[2].1.contains("3.0MiB/s"), "{lines:?}");
        // Somewhat more has room for bars, but not for the keepalive.
        let lines = Table::live(&rows(), Bars::Blocks).lines(95);
        assert!(lines[2].1.contains("█████"), "{lines:?}");
        assert!(!lines[2].1.contains("25s"), "{lines:?}");
    }

    #[test]
    fn looks_tell_living_sessions() {
        let lines = Table::live(&rows(), Bars::Blocks).lines(80);
        let looks: Vec<_> = lines.into_iter().map(|(look, _)| look).collect();
        assert_eq!(
            looks,
            [Look::Heading, Look::Device, Look::Alive, Look::Idle]
        );
    }
}

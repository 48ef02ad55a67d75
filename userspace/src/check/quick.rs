// SPDX-License-Identifier: GPL-2.0-only
//! The values of wg-quick's keys, judged by what `up` makes of them.

use super::report::{quoted, Finding};
use crate::config::{quick_lines, Place, QuickKey, Statement};
use crate::quick::Settings;

/// What `up` would refuse.
pub fn findings(statements: &[Statement]) -> Vec<Finding> {
    quick_lines(statements)
        .flat_map(|(key, value, place)| line(key, value, place))
        .collect()
}

/// The faults of one line. Each line is given to `Settings` as a file of its own, so that none
/// hides another.
fn line(key: QuickKey, value: &str, place: Place) -> Vec<Finding> {
    let head = format!("{}=", key.name());
    let whole =
        |message: String, help: &str| vec![Finding::error(place, message, Some(help.into()))];
    let text = quoted(value.as_bytes()).unwrap_or_else(|| "this".into());
    let may_be_empty = matches!(
        key,
        QuickKey::PreUp | QuickKey::PostUp | QuickKey::PreDown | QuickKey::PostDown
    );
    if value.is_empty() && !may_be_empty {
        return whole(
            format!("{} has no value", key.name()),
            "give it one, or take the line away",
        );
    }
    let Ok(settings) = Settings::parse(format!("[Interface]\n{head}{value}").as_bytes()) else {
        return match key {
            QuickKey::SaveConfig => whole(
                format!("{text} is neither true nor false"),
                "write true or false",
            ),
            _ => whole(
                format!("{} cannot be read", key.name()),
                "is this a text file?",
            ),
        };
    };
    if settings.mtu().is_err() {
        return whole(
            format!("{text} is no number of bytes"),
            "take the line away for a fitting one",
        );
    }
    if settings.routing().is_err() {
        return whole(
            format!("{text} is no routing table"),
            "write off, auto, a number, or a name in rt_tables",
        );
    }
    let mut found = Vec::new();
    for word in &settings.addresses {
        let alone = Settings {
            addresses: vec![word.clone()],
            ..Settings::default()
        };
        if alone.addresses().is_err() {
            let column = place.column + word.column.saturating_sub(head.len() + 1);
            let text = quoted(word.text.as_bytes()).unwrap_or_else(|| "this".into());
            let place = Place {
                column,
                len: word.text.chars().count(),
                ..place
            };
            let help = "write ADDRESS/LENGTH, several separated by commas";
            found.push(Finding::error(
                place,
                format!("{text} is no IP address"),
                Some(help.into()),
            ));
        }
    }
    found
}

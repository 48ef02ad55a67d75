// SPDX-License-Identifier: GPL-2.0-only
//! Bars for rates, of blocks where the terminal has them.

/// Characters of a bar.
pub const WIDTH: usize = 6;

/// What bars are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bars {
    /// Blocks of Unicode, which divide a character by eight.
    Blocks,
    /// Plain characters.
    Ascii,
}

impl Bars {
    /// What the locale can show; `variable` looks up an environment variable.
    pub fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(variable)
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Self::Blocks
        } else {
            Self::Ascii
        }
    }

    /// A bar of [`WIDTH`] characters for `value`, where `largest` fills it. What is not 0 is seen.
    pub fn draw(self, value: u64, largest: u64) -> String {
        const PARTS: [char; 8] = ['█', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
        let steps = match self {
            Self::Blocks => PARTS.len(),
            Self::Ascii => 1,
        };
        let length = length(value, largest, WIDTH * steps);
        let (whole, part) = (length / steps, length % steps);
        let full = match self {
            Self::Blocks => '█',
            Self::Ascii => '#',
        };
        let bar = std::iter::repeat_n(full, whole);
        let bar = bar.chain((part != 0).then(|| PARTS[part]));
        bar.chain(std::iter::repeat(' ')).take(WIDTH).collect()
    }
}

/// The share of `room` that `value` is of `largest`, rounded down, but at least 1 unless it is 0.
fn length(value: u64, largest: u64, room: usize) -> usize {
    let share = u128::from(value.min(largest)) * room as u128;
    let share = share.checked_div(largest.into()).unwrap_or(0);
    // At most `room`.
    (share as usize).max(usize::from(value != 0 && largest != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_rates_are_large() {
        for (value, blocks, ascii) in [
            (0, "      ", "      "),
            (1, "▏     ", "#     "),
            (100, "▌     ", "#     "),
            (500, "███   ", "###   "),
            (999, "█████▉", "##### "),
            (1000, "██████", "######"),
            (2000, "██████", "######"),
        ] {
            assert_eq!(Bars::Blocks.draw(value, 1000), blocks);
            assert_eq!(Bars::Ascii.draw(value, 1000), ascii);
        }
        assert_eq!(Bars::Blocks.draw(0, 0), "      ");
        assert_eq!(Bars::Blocks.draw(5, 0), "      ");
        assert_eq!(Bars::Ascii.draw(u64::MAX, u64::MAX), "######");
        for value in 0..=64 {
            assert_eq!(Bars::Blocks.draw(value, 64).chars().count(), WIDTH);
        }
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        for (set, wanted) in [
            (&[("LANG", "C.UTF-8")][..], Bars::Blocks),
            (&[("LANG", "de_DE.utf8"), ("LC_ALL", "")], Bars::Blocks),
            (&[("LANG", "C.UTF-8"), ("LC_ALL", "C")], Bars::Ascii),
            (&[("LC_CTYPE", "en_US.UTF-8"), ("LANG", "C")], Bars::Blocks),
            (&[("LANG", "de_DE.ISO-8859-1")], Bars::Ascii),
            (&[], Bars::Ascii),
        ] {
            let variable = |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(Bars::of_locale(variable), wanted, "{set:?}");
        }
    }
}

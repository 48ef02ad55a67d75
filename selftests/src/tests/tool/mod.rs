// SPDX-License-Identifier: GPL-2.0-only
//! wg-rs in place of the ordinary tools: called as `wg` and as `wg-quick` it does and prints the
//! same.

mod bad;
mod call;
mod clock;
mod events;
mod forms;
mod generate;
mod generated;
mod hints;
mod live;
mod monitor;
mod program;
mod quick;
mod reresolve;
mod scale;
mod sides;
mod terminal;
mod words;

use super::{drop_in, Test};

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "tool-wg-forms", 600, generated::every_form);
    drop_in(list, "tool-wg-generated", 600, generated::generated);
    drop_in(list, "tool-wg-live", 120, live::live);
    drop_in(list, "tool-wg-scale", 240, scale::thousand);
    drop_in(list, "tool-bad-input", 300, bad::bad_input);
    drop_in(list, "tool-hidden-keys", 60, bad::hidden_keys);
    events::register(list);
    hints::register(list);
    monitor::register(list);
    program::register(list);
    quick::register(list);
    drop_in(list, "tool-reresolve", 90, reresolve::reresolve);
}

// SPDX-License-Identifier: GPL-2.0-only
//! Minimises a failing list of requests: fewer requests, fewer attributes, shorter payloads.

use super::message::{Message, Value};
use anyhow::Result;

/// Shrinks the list as long as `fails` says that it still fails, in at most `budget` attempts.
pub fn shrink(
    mut messages: Vec<Message>,
    budget: usize,
    fails: &mut dyn FnMut(&[Message]) -> Result<bool>,
) -> Result<Vec<Message>> {
    let mut left = budget;
    let mut attempt = |candidate: &[Message]| -> Result<bool> {
        if left == 0 {
            return Ok(false);
        }
        left -= 1;
        fails(candidate)
    };
    loop {
        let before = messages.clone();
        messages = fewer(messages, &mut attempt)?;
        for n in 0..messages.len() {
            simpler(&mut messages, n, &mut attempt)?;
        }
        if messages == before {
            return Ok(messages);
        }
    }
}

/// Drops runs of messages, from long runs to single messages, early ones first.
fn fewer(
    mut messages: Vec<Message>,
    fails: &mut dyn FnMut(&[Message]) -> Result<bool>,
) -> Result<Vec<Message>> {
    let mut run = messages.len().next_power_of_two();
    while run > 0 {
        let mut at = 0;
        // The last message is what shows the failure, and an empty list shows nothing.
        while at < messages.len() && messages.len() > 1 {
            let end = messages.len().min(at + run);
            let mut candidate = messages.clone();
            candidate.drain(at..end);
            if !candidate.is_empty() && fails(&candidate)? {
                messages = candidate;
            } else {
                at = end;
            }
        }
        run /= 2;
    }
    Ok(messages)
}

/// Removes from message `n` whatever the failure does not need.
fn simpler(
    messages: &mut Vec<Message>,
    n: usize,
    fails: &mut dyn FnMut(&[Message]) -> Result<bool>,
) -> Result<()> {
    let mut keep = |messages: &mut Vec<Message>, change: &dyn Fn(&mut Message)| -> Result<bool> {
        let mut candidate = messages.clone();
        change(&mut candidate[n]);
        if candidate[n] == messages[n] || !fails(&candidate)? {
            return Ok(false);
        }
        *messages = candidate;
        Ok(true)
    };
    let mut at = 0;
    while at < messages[n].edits.len() {
        let gone = keep(messages, &|m| {
            m.edits.remove(at);
        })?;
        at += usize::from(!gone);
    }
    keep(messages, &|m| m.header.1 = 1)?;
    keep(messages, &|m| m.header.2 = 0)?;
    // Outer attributes first: they take the inner ones with them.
    let mut at = 0;
    while let Some(path) = messages[n].paths().get(at).cloned() {
        let gone = keep(messages, &|m| {
            if let Some((list, at)) = m.list_at(&path) {
                list.remove(at);
            }
        })?;
        at += usize::from(!gone);
    }
    for path in messages[n].paths() {
        keep(messages, &|m| {
            if let Some((list, at)) = m.list_at(&path) {
                (list[at].lie, list[at].bare) = (None, false);
            }
        })?;
        for shorter in [0, 1, 2, 4, 8, 16, 28, 32] {
            let cut = keep(messages, &|m| {
                if let Some((list, at)) = m.list_at(&path) {
                    if let Value::Bytes(data) = &mut list[at].value {
                        data.truncate(shorter);
                    }
                }
            })?;
            if cut {
                break;
            }
        }
        keep(messages, &|m| {
            if let Some((list, at)) = m.list_at(&path) {
                if let Value::Bytes(data) = &mut list[at].value {
                    data.fill(0);
                }
            }
        })?;
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-only
//! Standard output through a buffer that is zeroed: what is shown may be a key.

use super::{Context, Voice};
use crate::buffer::Buffer;
use crate::say::{os_message, say, CommandResult, Failed};
use crate::signals::end_by_broken_pipe;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

const SIZE: usize = 64 * 1024;

/// Buffered standard output. Nothing is written until the buffer is full or [`Out::finish`] is
/// called.
pub struct Out {
    buffer: Buffer,
    error: Option<io::Error>,
    lenient: bool,
}

impl Out {
    /// An empty buffer.
    pub fn new(context: &Context) -> Self {
        Self {
            buffer: Buffer::with_capacity(SIZE),
            error: None,
            lenient: context.voice == Voice::Wg,
        }
    }

    /// Writes a text and is done.
    pub fn print(context: &Context, text: &[u8]) -> CommandResult {
        let mut out = Self::new(context);
        out.put(format_args!("{}", String::from_utf8_lossy(text)));
        out.finish()
    }

    /// Writes what `write!` wrote; errors are kept for [`Out::finish`].
    pub fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // `write` below never fails.
        let _ = self.write_fmt(text);
    }

    /// Writes what is left. A closed pipe ends the program, as it does to `wg`; other errors are
    /// reported (`wg` ignores them).
    pub fn finish(mut self) -> CommandResult {
        self.drain();
        if let Some(io::ErrorKind::BrokenPipe) = self.error.as_ref().map(io::Error::kind) {
            end_by_broken_pipe();
        }
        match self.error.take() {
            Some(error) if !self.lenient => {
                say(format_args!("Unable to write: {}", os_message(&error)));
                Err(Failed::USUAL)
            }
            _ => Ok(()),
        }
    }

    fn drain(&mut self) {
        if self.error.is_none() {
            // Not through std's own buffer, which is not zeroed.
            let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
            self.error = stdout
                .and_then(|mut stdout| stdout.write_all(&self.buffer))
                .err();
        }
        self.buffer.wipe();
    }
}

impl Write for Out {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == SIZE {
            self.drain();
        }
        let count = text.len().min(SIZE - self.buffer.len());
        self.buffer.extend_from_slice(&text[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain();
        Ok(())
    }
}

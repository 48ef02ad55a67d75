// SPDX-License-Identifier: GPL-2.0-only
//! The terminal while the table is on it: taken over as a whole, and given back as it was, however
//! the monitor ends.

use std::io::{self, Stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};
use crossterm::{cursor, execute, queue, terminal};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};

use super::table::Look;

/// How soon a signal is noticed.
const SLICE: Duration = Duration::from_millis(200);

/// What the user wants.
#[derive(Debug, PartialEq)]
pub enum Wish {
    /// The time is over: read the devices again.
    Refresh,
    /// There is news of the devices.
    News,
    /// Draw again: another size, or another part of the table.
    Redraw,
    Quit,
}

/// An alternate screen in raw mode; dropping it restores the terminal.
pub struct Screen {
    out: Stdout,
    /// The number of the last signal that asks the monitor to end.
    signal: Arc<AtomicUsize>,
    /// The first line of the table that is shown.
    top: usize,
    colour: bool,
}

impl Screen {
    pub fn new(colour: bool) -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            signal_hook::flag::register_usize(
                number,
                signal.clone(),
                number.unsigned_abs() as usize,
            )?;
        }
        let mut screen = Self {
            out: io::stdout(),
            signal,
            top: 0,
            colour,
        };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&mut self) -> io::Result<()> {
        terminal::enable_raw_mode()?;
        execute!(
            self.out,
            terminal::EnterAlternateScreen,
            terminal::DisableLineWrap,
            cursor::Hide
        )
    }

    /// Every step is tried, also when an earlier one failed.
    fn leave(&mut self) -> io::Result<()> {
        let shown = execute!(
            self.out,
            cursor::Show,
            terminal::EnableLineWrap,
            terminal::LeaveAlternateScreen
        );
        terminal::disable_raw_mode().and(shown)
    }

    /// Draws a title and as much of the table as fits; `table` makes its lines for a width,
    /// headings first.
    pub fn draw(
        &mut self,
        title: &str,
        table: impl FnOnce(usize) -> Vec<(Look, String)>,
    ) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let (width, height) = (usize::from(width), usize::from(height));
        let mut lines = table(width).into_iter();
        let headings = lines.next();
        let lines: Vec<_> = lines.collect();
        // The title, the headings, and a line that tells what is not shown.
        let mut room = height.saturating_sub(2);
        if lines.len() > room {
            room = room.saturating_sub(1);
        }
        self.top = self.top.min(lines.len().saturating_sub(room));
        let below = lines.len().saturating_sub(self.top + room);
        queue!(
            self.out,
            terminal::BeginSynchronizedUpdate,
            cursor::MoveTo(0, 0)
        )?;
        let mut row = 0;
        self.line(
            &mut row,
            height,
            None,
            &title.chars().take(width).collect::<String>(),
        )?;
        for (look, text) in headings
            .iter()
            .chain(lines.iter().skip(self.top).take(room))
        {
            self.line(&mut row, height, Some(*look), text)?;
        }
        if self.top + below > 0 {
            let text = format!("… {} lines above, {below} below", self.top);
            self.line(
                &mut row,
                height,
                None,
                &text.chars().take(width).collect::<String>(),
            )?;
        }
        if row < height {
            queue!(
                self.out,
                terminal::Clear(terminal::ClearType::FromCursorDown)
            )?;
        }
        execute!(self.out, terminal::EndSynchronizedUpdate)
    }

    fn line(
        &mut self,
        row: &mut usize,
        height: usize,
        look: Option<Look>,
        text: &str,
    ) -> io::Result<()> {
        let Some(y) = u16::try_from(*row).ok().filter(|_| *row < height) else {
            return Ok(());
        };
        *row += 1;
        queue!(self.out, cursor::MoveTo(0, y))?;
        match look.filter(|_| self.colour) {
            Some(Look::Heading) => queue!(self.out, SetAttribute(Attribute::Reverse))?,
            Some(Look::Device) => queue!(self.out, SetAttribute(Attribute::Bold))?,
            Some(Look::Alive) => queue!(self.out, SetForegroundColor(Color::Green))?,
            Some(Look::Note) => queue!(self.out, SetForegroundColor(Color::Yellow))?,
            Some(Look::Idle) | None => {}
        }
        queue!(
            self.out,
            Print(text),
            SetAttribute(Attribute::Reset),
            terminal::Clear(terminal::ClearType::UntilNewLine)
        )?;
        queue!(self.out, cursor::MoveToNextLine(1))
    }

    /// Waits for a key, another size, a signal, or `until`; from `opens` on, also for one of
    /// `sources` to be readable.
    pub fn wait(
        &mut self,
        until: Instant,
        opens: Instant,
        sources: &[BorrowedFd<'_>],
    ) -> io::Result<Wish> {
        loop {
            if self.signal.load(Ordering::Relaxed) != 0 {
                return Ok(Wish::Quit);
            }
            let now = Instant::now();
            if now >= until {
                return Ok(Wish::Refresh);
            }
            if event::poll(Duration::ZERO)? {
                match event::read()? {
                    Event::Resize(..) => return Ok(Wish::Redraw),
                    Event::Key(key) if key.kind == KeyEventKind::Press => match self.key(key)? {
                        None => {}
                        Some(wish) => return Ok(wish),
                    },
                    _ => {}
                }
                continue;
            }
            let (sources, end) = match now < opens {
                true => (&[][..], until.min(opens)),
                false => (sources, until),
            };
            match ready(sources, end.saturating_duration_since(now))? {
                Ready::Nothing => {}
                Ready::News => return Ok(Wish::News),
                Ready::Gone => return Ok(Wish::Quit),
            }
        }
    }

    fn key(&mut self, key: KeyEvent) -> io::Result<Option<Wish>> {
        let page = usize::from(terminal::size()?.1.saturating_sub(4)).max(1);
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        self.top = match key.code {
            KeyCode::Char('c') if control => return Ok(Some(Wish::Quit)),
            KeyCode::Char('z') if control => {
                self.leave()?;
                signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
                self.enter()?;
                return Ok(Some(Wish::Refresh));
            }
            KeyCode::Char('q') | KeyCode::Esc => return Ok(Some(Wish::Quit)),
            KeyCode::Char(' ') => return Ok(Some(Wish::Refresh)),
            KeyCode::Up | KeyCode::Char('k') => self.top.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.top.saturating_add(1),
            KeyCode::PageUp => self.top.saturating_sub(page),
            KeyCode::PageDown => self.top.saturating_add(page),
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX / 2,
            _ => return Ok(None),
        };
        Ok(Some(Wish::Redraw))
    }

    /// Gives the terminal back; if a signal ended the monitor, it now takes its usual effect.
    pub fn close(self) -> io::Result<()> {
        let signal = self.signal.clone();
        drop(self);
        match i32::try_from(signal.load(Ordering::Relaxed)) {
            Ok(number) if number != 0 => signal_hook::low_level::emulate_default_handler(number),
            _ => Ok(()),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = self.leave();
    }
}

/// What a slice of time has brought.
enum Ready {
    /// Perhaps a key or a signal.
    Nothing,
    News,
    /// There is no terminal any more.
    Gone,
}

/// Waits for input, for one of `sources`, or for a signal.
fn ready(sources: &[BorrowedFd<'_>], limit: Duration) -> io::Result<Ready> {
    let stdin = io::stdin();
    let mut fds = vec![PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    fds.extend(sources.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
    // Rounded up: none of it is spent in a loop.
    let limit = limit.min(SLICE) + Duration::from_micros(999);
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, limit) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut heard = fds
        .iter()
        .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    if heard.next().is_some_and(|input| input.intersects(gone)) {
        return Ok(Ready::Gone);
    }
    Ok(match heard.any(|source| !source.is_empty()) {
        true => Ready::News,
        false => Ready::Nothing,
    })
}

//! The terminal: the one file that knows crossterm.
//!
//! A serial line does not say how large it is, and nobody may be there who answers a question: the size is then that of a VT100,
//! and nothing is ever asked of the terminal. Sequences of keys that a slow line has torn apart are put together.

use super::input::Key;
use landfall_image::{Error, Result};
use ratatui::Frame;
use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{execute, terminal};
use ratatui::layout::{Position, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Stdout};
use std::os::fd::AsFd;
use std::time::Duration;

/// Of a VT100.
const USUAL: Size = Size { width: 80, height: 24 };
/// What a terminal says that nobody could read on, or that is no size.
const LEAST: Size = Size { width: 40, height: 10 };
const MOST: Size = Size { width: 500, height: 200 };
/// The rest of a key's sequence follows its beginning within this time, on a line with 9600 bits per second, too.
const TORN: Duration = Duration::from_millis(25);
/// Letters of the longest sequence that is put together.
const SEQUENCE: usize = 6;

/// The terminal in its special mode, until it is dropped.
pub struct Terminal {
    inner: ratatui::Terminal<Line>,
    /// Keys that were read, and belong to no sequence.
    keys: VecDeque<Key>,
    /// Somebody has called the program: then it can be left.
    can_stop: bool,
}

fn gone(error: io::Error) -> Error {
    Error::io("the terminal cannot be used any longer", error)
}

impl Terminal {
    /// Takes the terminal that standard input and output are.
    ///
    /// # Errors
    /// Refused where they are none; I/O.
    pub fn open() -> Result<Terminal> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(Error::refused("the console needs a terminal")
                .hint("it is started by landfall-console@tty1.service, or in a terminal on the appliance"));
        }
        let can_stop = rustix::termios::ttyname(io::stdin(), Vec::new())
            .is_ok_and(|name| name.to_string_lossy().starts_with("/dev/pts/"));
        let inner = ratatui::Terminal::new(Line(CrosstermBackend::new(io::stdout()))).map_err(gone)?;
        let mut opened = Terminal { inner, keys: VecDeque::new(), can_stop };
        terminal::enable_raw_mode().map_err(gone)?;
        execute!(io::stdout(), terminal::DisableLineWrap).map_err(gone)?;
        opened.forget_screen()?;
        Ok(opened)
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// I/O
    pub fn draw(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.inner.draw(view).map(drop).map_err(gone)
    }

    /// Has the next frame drawn whole.
    ///
    /// # Errors
    /// I/O
    pub fn forget_screen(&mut self) -> Result<()> {
        self.inner.clear().map_err(gone)
    }

    /// The next key, where there is one in time.
    ///
    /// # Errors
    /// I/O, where the terminal has hung up, too.
    pub fn key(&mut self, within: Duration) -> Result<Option<Key>> {
        if let Some(key) = self.keys.pop_front() {
            return Ok(Some(key));
        }
        let Some(key) = self.read(within)? else { return Ok(None) };
        if key != Key::Escape {
            return Ok(Some(key));
        }
        let Some(Key::Char(first @ ('[' | 'O'))) = self.peek(0)? else { return Ok(Some(key)) };
        let mut sequence = String::from(first);
        while sequence.len() < SEQUENCE {
            let Some(Key::Char(next)) = self.peek(sequence.len())? else { break };
            sequence.push(next);
            if let Some(whole) = named(&sequence) {
                self.keys.drain(..sequence.len().min(self.keys.len()));
                return Ok(Some(whole));
            }
        }
        Ok(Some(key))
    }

    /// The key of that number behind the one that was taken; it stays there.
    fn peek(&mut self, number: usize) -> Result<Option<Key>> {
        while self.keys.len() <= number {
            match self.read(TORN)? {
                Some(key) => self.keys.push_back(key),
                None => return Ok(None),
            }
        }
        Ok(self.keys.get(number).copied())
    }

    fn read(&mut self, within: Duration) -> Result<Option<Key>> {
        for wait in [Duration::ZERO, within] {
            wait_for(wait)?;
            while event::poll(Duration::ZERO).map_err(gone)? {
                match event::read().map_err(gone)? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        if let Some(key) = self.meant(key) {
                            return Ok(Some(key));
                        }
                    }
                    Event::Paste(text) => self.keys.extend(text.chars().map(Key::Char)),
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    fn meant(&self, key: KeyEvent) -> Option<Key> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') if self.can_stop => Some(Key::Stop),
                KeyCode::Char('l') => Some(Key::Redraw),
                KeyCode::Char('u') => Some(Key::Kill),
                // Backspace of a VT100, and the end of a pasted line.
                KeyCode::Char('h') => Some(Key::Backspace),
                KeyCode::Char('j' | 'm') => Some(Key::Enter),
                _ => None,
            };
        }
        Some(match key.code {
            KeyCode::Char(letter) if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() => {
                Key::Char(letter)
            }
            KeyCode::F(number) => Key::Function(number),
            KeyCode::Enter => Key::Enter,
            KeyCode::Esc => Key::Escape,
            KeyCode::Tab => Key::Next,
            KeyCode::BackTab => Key::Previous,
            KeyCode::Up => Key::Up,
            KeyCode::Down => Key::Down,
            KeyCode::Left => Key::Left,
            KeyCode::Right => Key::Right,
            KeyCode::Home => Key::Home,
            KeyCode::End => Key::End,
            KeyCode::PageUp => Key::PageUp,
            KeyCode::PageDown => Key::PageDown,
            KeyCode::Backspace => Key::Backspace,
            KeyCode::Delete => Key::Delete,
            _ => return None,
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where it is gone, nobody misses this.
        let _ = self.inner.clear();
        let _ = execute!(io::stdout(), terminal::EnableLineWrap);
        let _ = self.inner.show_cursor();
        let _ = terminal::disable_raw_mode();
    }
}

/// What the rest of a sequence behind Escape means (console_codes(4); DEC's VT100 and VT220).
fn named(sequence: &str) -> Option<Key> {
    Some(match sequence {
        "[A" | "OA" => Key::Up,
        "[B" | "OB" => Key::Down,
        "[C" | "OC" => Key::Right,
        "[D" | "OD" => Key::Left,
        "[H" | "OH" | "[1~" | "[7~" => Key::Home,
        "[F" | "OF" | "[4~" | "[8~" => Key::End,
        "[Z" => Key::Previous,
        "[3~" => Key::Delete,
        "[5~" => Key::PageUp,
        "[6~" => Key::PageDown,
        "[[A" | "OP" | "[11~" => Key::Function(1),
        "[[B" | "OQ" | "[12~" => Key::Function(2),
        "[[C" | "OR" | "[13~" => Key::Function(3),
        "[[D" | "OS" | "[14~" => Key::Function(4),
        "[[E" | "[15~" => Key::Function(5),
        "[17~" => Key::Function(6),
        "[18~" => Key::Function(7),
        "[19~" => Key::Function(8),
        _ => return None,
    })
}

/// Waits until something was typed; crossterm would wait forever on a line that has hung up.
fn wait_for(within: Duration) -> Result<()> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let within = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(1),
        tv_nsec: within.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&within)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(gone(error.into())),
    }
    let [fd] = &fds;
    match fd.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        true => Err(gone(io::ErrorKind::BrokenPipe.into())),
        false => Ok(()),
    }
}

/// The line to the terminal: as crossterm speaks to it, but nothing is asked of it.
struct Line(CrosstermBackend<Stdout>);

impl Line {
    fn measured() -> Size {
        let said = rustix::termios::tcgetwinsize(io::stdout().as_fd());
        said.ok().map_or(USUAL, |said| usable(Size { width: said.ws_col, height: said.ws_row }))
    }
}

fn usable(said: Size) -> Size {
    match said.width < LEAST.width || said.height < LEAST.height {
        true => USUAL,
        false => Size { width: said.width.min(MOST.width), height: said.height.min(MOST.height) },
    }
}

impl Backend for Line {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        self.0.draw(content)
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.0.hide_cursor()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.0.show_cursor()
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.0.set_cursor_position(position)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.0.clear()
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        self.0.clear_region(region)
    }

    fn size(&self) -> io::Result<Size> {
        Ok(Line::measured())
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: Line::measured(), pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        Backend::flush(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_none_is_that_of_a_vt100() {
        for (width, height) in [(0, 0), (80, 0), (1, 1), (39, 24)] {
            assert_eq!(usable(Size { width, height }), USUAL);
        }
        assert_eq!(usable(Size { width: 132, height: 43 }), Size { width: 132, height: 43 });
        assert_eq!(usable(Size { width: u16::MAX, height: u16::MAX }), MOST);
    }

    #[test]
    fn torn_sequences_are_known() {
        assert_eq!((named("[A"), named("[["), named("[[A")), (Some(Key::Up), None, Some(Key::Function(1))));
        assert_eq!((named("[1"), named("[15~"), named("O")), (None, Some(Key::Function(5)), None));
    }
}

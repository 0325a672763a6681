//! The appliance's console: what stands on its screen and on its serial line.
//!
//! ```text
//! helper, service, files ──> ask (threads) ──news──> state ──> view ──> terminal
//!                                          <─orders─       <── key ───
//! ```
//! Drawing never waits for an answer: threads ask and send what they hear. [`state`] decides what a key does, [`change`] makes
//! requests of what was typed, [`view`] makes frames of the state; none of them knows the terminal.
//!
//! Made for the kernel's own terminal and for a VT100 on a serial line: no colours, no mouse, no characters but ASCII of its own.
//! Deliberately absent: a shell, passwords, and whatever changes machines or points, which has the API.

mod ask;
mod change;
mod input;
mod state;
mod terminal;
mod text;
mod view;

use crate::ops::appliance::console::Places;
use ask::Asker;
use input::Key;
use landfall_image::Result;
use landfall_image::convert::Cancel;
use state::State;
use std::time::{Duration, Instant};
use terminal::Terminal;

/// Between two looks whether something was heard.
const LOOK: Duration = Duration::from_millis(100);
/// Between two frames that are drawn whole: the kernel may have written into them.
const WHOLE: Duration = Duration::from_secs(60);

/// Shows the console until `cancel`.
///
/// # Errors
/// Where there is no terminal, or it goes away. It is left usable.
pub fn run(cancel: &Cancel) -> Result<()> {
    let mut terminal = Terminal::open()?;
    let mut state = State::new(Instant::now());
    // Before anything is asked.
    terminal.draw(|frame| _ = view::draw(frame, &state, Instant::now()))?;
    let asker = Asker::start(&Places::default())?;
    let mut whole = Instant::now();
    let mut shown = state.screen;
    while !cancel.is_cancelled() {
        let now = Instant::now();
        while let Ok(news) = asker.news.try_recv() {
            state.news(news, now);
        }
        state.tick(now);
        // On a serial line another screen is written whole as well: what it has in common with the last one may have been lost.
        if now.duration_since(whole) >= WHOLE || shown != state.screen {
            shown = state.screen;
            terminal.forget_screen()?;
            whole = now;
        }
        let mut most = 0;
        terminal.draw(|frame| most = view::draw(frame, &state, now))?;
        state.scrolled_at_most(most);
        match terminal.key(LOOK)? {
            None => {}
            Some(Key::Stop) => break,
            Some(Key::Redraw) => terminal.forget_screen()?,
            Some(key) => {
                let now = Instant::now();
                if state.is_quiet(now) {
                    terminal.forget_screen()?;
                    whole = now;
                }
                if let Some(order) = state.key(key, now) {
                    asker.order(order);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! What is shown, and what a key does to it.

use super::ask::{Done, News, Order};
use super::change;
use super::input::{Form, Key, Outcome};
use crate::ops::appliance::console::{Local, Machine, Problem, Protection, Request};
use std::time::{Duration, Instant};

/// After this long without a key it is the first screen again: whoever comes next has not seen the others.
const IDLE: Duration = Duration::from_secs(300);
/// After this long without a key somebody else may sit there: a serial line shows no more than what has changed since.
const QUIET: Duration = Duration::from_secs(10);
/// What was heard is old after this long.
const STALE: Duration = Duration::from_secs(15);
/// Lines of a page.
const PAGE: usize = 15;

/// The screens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    Status,
    Network,
    Time,
    Disks,
    Keys,
    Bundle,
    Log,
    Power,
    /// The first token.
    Welcome,
}

/// The screens with their letters and names; F1 is the first.
pub const MENU: [(Screen, char, &str); 9] = [
    (Screen::Status, 's', "Status"),
    (Screen::Network, 'n', "Network"),
    (Screen::Time, 't', "Time"),
    (Screen::Disks, 'd', "Disks"),
    (Screen::Keys, 'k', "Keys"),
    (Screen::Bundle, 'b', "Bundle"),
    (Screen::Log, 'l', "Log"),
    (Screen::Power, 'p', "Power"),
    (Screen::Welcome, 'w', "Welcome"),
];

/// What was heard of something, and when.
pub struct Known<T> {
    heard: Option<(Result<T, Problem>, Instant)>,
}

impl<T> Known<T> {
    fn nothing() -> Known<T> {
        Known { heard: None }
    }

    fn hear(&mut self, what: Result<T, Problem>, now: Instant) {
        self.heard = Some((what, now));
    }

    /// What is known; `None` where nothing was heard yet.
    pub fn get(&self) -> Option<Result<&T, &Problem>> {
        self.heard.as_ref().map(|(what, _)| what.as_ref())
    }

    /// It, where there is one.
    pub fn here(&self) -> Option<&T> {
        self.get()?.ok()
    }

    /// How old it is, where it is so old that this matters.
    pub fn stale(&self, now: Instant) -> Option<Duration> {
        let age = now.duration_since(self.heard.as_ref()?.1);
        (age >= STALE).then_some(age)
    }
}

/// A question before something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirm {
    pub title: String,
    pub lines: Vec<String>,
    /// What is done, in words.
    pub doing: String,
    pub request: Request,
}

/// What lies over the screen.
pub enum Over {
    Nothing,
    Form(Form),
    /// A question, and the form that it came from.
    Confirm(Confirm, Option<Form>),
    /// What is being done, and the form that it came from.
    Working(String, Option<Form>),
    /// What came of it, and the form that is to be corrected.
    Message {
        title: String,
        lines: Vec<String>,
        problem: Option<Problem>,
        form: Option<Form>,
    },
}

/// All of it.
pub struct State {
    pub screen: Screen,
    /// The row that is chosen.
    pub row: usize,
    /// Lines that are above the screen.
    pub scroll: usize,
    pub local: Option<Local>,
    pub machine: Known<Box<Machine>>,
    pub protection: Known<Box<Protection>>,
    pub log: Known<Vec<String>>,
    pub over: Over,
    /// A change is under way; true where it forgets the first token.
    pending: Option<bool>,
    /// The first token was noted: it may lie there for some moments still.
    is_noted: bool,
    last_key: Instant,
}

impl State {
    pub fn new(now: Instant) -> State {
        State {
            screen: Screen::Status,
            row: 0,
            scroll: 0,
            local: None,
            machine: Known::nothing(),
            protection: Known::nothing(),
            log: Known::nothing(),
            over: Over::Nothing,
            pending: None,
            is_noted: false,
            last_key: now,
        }
    }

    /// The first token, while it is to be shown.
    pub fn token(&self) -> Option<&str> {
        let token = self.local.as_ref()?.token.as_ref()?;
        (!self.is_noted).then(|| token.as_str())
    }

    /// Hears something.
    pub fn news(&mut self, news: News, now: Instant) {
        match news {
            News::Local(local) => {
                let had = self.token().is_some();
                self.local = Some(*local);
                match (had, self.token().is_some()) {
                    (false, true) if self.screen == Screen::Status && matches!(self.over, Over::Nothing) => {
                        self.go(Screen::Welcome);
                    }
                    // Another console was quicker.
                    (true, false) if self.screen == Screen::Welcome => self.go(Screen::Status),
                    _ => {}
                }
            }
            News::Machine(machine) => self.machine.hear(machine, now),
            News::Protection(protection) => self.protection.hear(protection, now),
            News::Log(log) => {
                // Its end is what is looked for, now that there is one.
                if self.screen == Screen::Log && self.log.get().is_none() {
                    self.scroll = usize::MAX;
                }
                self.log.hear(log, now);
            }
            News::Done(done) => self.done(done),
            News::Down(done) => self.tell(done),
        }
        let rows = self.rows();
        self.row = self.row.min(rows.saturating_sub(1));
    }

    fn done(&mut self, done: Done) {
        let is_token = self.pending.take().unwrap_or(false);
        match done {
            Ok(_) if is_token => {
                self.is_noted = true;
                self.go(Screen::Status);
                self.tell(Ok(change::token_is_noted()));
            }
            done => self.tell(done),
        }
    }

    /// Tells what came of an order.
    fn tell(&mut self, done: Done) {
        let form = match std::mem::replace(&mut self.over, Over::Nothing) {
            Over::Working(_, form) => form.filter(|_| done.is_err()),
            Over::Form(form) => Some(form),
            Over::Message { form, .. } | Over::Confirm(_, form) => form,
            Over::Nothing => None,
        };
        self.over = match done {
            Ok(lines) => Over::Message { title: "Done".to_owned(), lines, problem: None, form },
            Err(problem) => Over::Message {
                title: "Not done".to_owned(),
                lines: Vec::new(),
                problem: Some(problem),
                form,
            },
        };
    }

    /// The time goes on.
    pub fn tick(&mut self, now: Instant) {
        if now.duration_since(self.last_key) < IDLE {
            return;
        }
        let home = if self.token().is_some() { Screen::Welcome } else { Screen::Status };
        if self.screen != home || !matches!(self.over, Over::Nothing) {
            self.over = Over::Nothing;
            self.go(home);
        }
    }

    /// Whoever presses a key now may not have seen what is shown.
    pub fn is_quiet(&self, now: Instant) -> bool {
        now.duration_since(self.last_key) >= QUIET
    }

    /// The frame that was drawn has so many lines above its end.
    pub fn scrolled_at_most(&mut self, most: usize) {
        self.scroll = self.scroll.min(most);
    }

    /// How many rows there are to choose from.
    pub fn rows(&self) -> usize {
        let Some(machine) = self.machine.here() else { return 0 };
        match self.screen {
            Screen::Network => change::cards(machine).len(),
            Screen::Disks => machine.disks.len(),
            Screen::Keys => machine.settings.ssh_keys.iter().flatten().count(),
            _ => 0,
        }
    }

    fn go(&mut self, screen: Screen) {
        self.screen = screen;
        self.row = 0;
        // The newest lines are the last.
        self.scroll = if screen == Screen::Log { usize::MAX } else { 0 };
    }

    /// Does what a key does here.
    pub fn key(&mut self, key: Key, now: Instant) -> Option<Order> {
        self.last_key = now;
        match std::mem::replace(&mut self.over, Over::Nothing) {
            Over::Nothing => self.screen_key(key),
            Over::Form(mut form) => {
                match form.key(key) {
                    Outcome::Cancelled => {}
                    Outcome::Stays => self.over = Over::Form(form),
                    Outcome::Check => self.check(form),
                }
                None
            }
            Over::Confirm(confirm, form) => match key {
                Key::Char('y' | 'Y') => self.begin(confirm, form),
                Key::Char('n' | 'N') | Key::Enter | Key::Escape => {
                    self.over = form.map_or(Over::Nothing, Over::Form);
                    None
                }
                Key::Up | Key::Down | Key::PageUp | Key::PageDown => {
                    self.over = Over::Confirm(confirm, form);
                    self.scroll_by(key);
                    None
                }
                _ => {
                    self.over = Over::Confirm(confirm, form);
                    None
                }
            },
            Over::Working(says, form) => {
                if key != Key::Escape {
                    self.over = Over::Working(says, form);
                }
                None
            }
            Over::Message { title, lines, problem, form } => {
                self.over = match key {
                    Key::Enter | Key::Escape => form.map_or(Over::Nothing, Over::Form),
                    _ => Over::Message { title, lines, problem, form },
                };
                None
            }
        }
    }

    fn check(&mut self, mut form: Form) {
        let checked = match self.machine.here() {
            Some(machine) => change::check(&form, machine),
            None => Err(Problem::new("the helper cannot be asked", "wait until it answers: the status says")),
        };
        self.scroll = 0;
        self.over = match checked {
            Ok(confirm) => Over::Confirm(confirm, Some(form)),
            Err(problem) => {
                form.trouble = Some(problem);
                Over::Form(form)
            }
        };
    }

    fn begin(&mut self, confirm: Confirm, form: Option<Form>) -> Option<Order> {
        let goes_down = confirm.request.goes_down();
        if self.pending.is_some() && !goes_down {
            self.over = Over::Message {
                title: "Not done".to_owned(),
                lines: Vec::new(),
                problem: Some(Problem::new(
                    "another change is under way",
                    "wait until it has come to its end",
                )),
                form,
            };
            return None;
        }
        if !goes_down {
            self.pending = Some(confirm.request == Request::ForgetToken {});
        }
        self.over = Over::Working(confirm.doing, form);
        Some(Order::Change(confirm.request))
    }

    fn scroll_by(&mut self, key: Key) {
        self.scroll = match key {
            Key::Up => self.scroll.saturating_sub(1),
            Key::Down => self.scroll.saturating_add(1),
            Key::PageUp => self.scroll.saturating_sub(PAGE),
            Key::PageDown => self.scroll.saturating_add(PAGE),
            Key::Home => 0,
            Key::End => usize::MAX,
            _ => self.scroll,
        };
    }

    fn screen_key(&mut self, key: Key) -> Option<Order> {
        let chosen = match key {
            Key::Char(letter) => MENU
                .iter()
                .find(|(_, own, _)| *own == letter.to_ascii_lowercase())
                .map(|(screen, ..)| *screen),
            Key::Function(number) => usize::from(number)
                .checked_sub(1)
                .and_then(|number| MENU.get(number))
                .map(|(screen, ..)| *screen),
            Key::Escape => Some(Screen::Status),
            _ => None,
        };
        if let Some(screen) = chosen.filter(|screen| *screen != Screen::Welcome || self.token().is_some()) {
            self.go(screen);
            return (screen == Screen::Log).then_some(Order::Log);
        }
        let rows = self.rows();
        match key {
            Key::Up if rows > 0 => self.row = self.row.saturating_sub(1),
            Key::Down if rows > 0 => self.row = (self.row + 1).min(rows - 1),
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => self.scroll_by(key),
            Key::Enter | Key::Char('1'..='9') => return self.act(key),
            _ => {}
        }
        None
    }

    /// Enter, or the number of what a screen can do.
    fn act(&mut self, key: Key) -> Option<Order> {
        match (self.screen, key) {
            (Screen::Log, Key::Enter) => {
                self.scroll = usize::MAX;
                return Some(Order::Log);
            }
            (Screen::Welcome, Key::Enter) if self.token().is_some() => {
                self.scroll = 0;
                self.over = Over::Confirm(change::forget_token(), None);
                return None;
            }
            (Screen::Power, Key::Char(number)) => {
                if let Some(confirm) = change::power(number, self.pending.is_some()) {
                    self.over = Over::Confirm(confirm, None);
                }
                return None;
            }
            _ => {}
        }
        let machine = self.machine.here()?;
        let row = self.row;
        let over = match (self.screen, key) {
            (Screen::Network, Key::Enter) => change::card_form(machine, row).map(Over::Form),
            (Screen::Network, Key::Char('1')) => Some(Over::Form(change::host_name_form(machine))),
            (Screen::Network, Key::Char('2')) => Some(Over::Confirm(change::network_back(machine), None)),
            (Screen::Time, Key::Char('1')) => Some(Over::Form(change::servers_form(machine))),
            (Screen::Time, Key::Char('2')) => Some(Over::Form(change::clock_form(machine))),
            (Screen::Disks, Key::Enter) => change::disk_form(machine, row).map(|form| match form {
                Ok(form) => Over::Form(form),
                Err(problem) => Over::Message {
                    title: "This disk cannot be taken".to_owned(),
                    lines: Vec::new(),
                    problem: Some(problem),
                    form: None,
                },
            }),
            (Screen::Disks, Key::Char('1')) => Some(Over::Confirm(change::grow(), None)),
            (Screen::Keys, Key::Char('1')) => Some(Over::Form(change::key_form())),
            (Screen::Keys, Key::Enter) => {
                change::remove_key(machine, row).map(|confirm| Over::Confirm(confirm, None))
            }
            _ => None,
        };
        if let Some(over) = over {
            self.scroll = 0;
            self.over = over;
        }
        None
    }
}

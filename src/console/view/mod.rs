//! Frames. Each screen makes a page of lines from the state; here they are put between the bars that say where one is, and what
//! keys do.
//!
//! ```text
//! landfall 0.1.0  Status                          dr1.example.org      reversed
//!
//! lines of the page, as many as fit
//!
//! Up Down  more lines      what keys do on this page
//! S Status  N Network  ...                                             reversed
//! ```
//! All text goes through [`Page`], which takes out of it what could steer a terminal.

mod more;
mod settings;
mod status;

use super::input::{Form, Value};
use super::state::{MENU, Over, Screen, State};
use super::text::{clean, cut, wrapped};
use crate::ops::appliance::console::Problem;
use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use std::time::Instant;

/// Columns of labels.
const LABEL: usize = 13;

/// Lines that are made one after another.
pub struct Page {
    lines: Vec<Line<'static>>,
    /// The line that has to be seen.
    chosen: Option<usize>,
    /// Where one types: a line, and a column of it.
    cursor: Option<(usize, usize)>,
    /// What keys do here.
    keys: &'static str,
    width: usize,
}

impl Page {
    fn new(width: usize, keys: &'static str) -> Page {
        Page { lines: Vec::new(), chosen: None, cursor: None, keys, width }
    }

    fn line(&mut self, text: &str, style: Style) {
        self.lines.push(Line::from(Span::styled(cut(text, self.width), style)));
    }

    /// An empty line.
    fn blank(&mut self) {
        self.line("", Style::new());
    }

    /// What the lines below are about.
    fn head(&mut self, text: &str) {
        self.line(&format!(" {}", clean(text)), Style::new().add_modifier(Modifier::BOLD));
    }

    /// Words, in as many lines as they need.
    fn text(&mut self, text: &str) {
        self.pair_at(0, "", text, Style::new());
    }

    /// Words about the row above.
    fn below(&mut self, text: &str) {
        self.pair_at(5, "", text, Style::new());
    }

    /// Words that have to be seen.
    fn strong(&mut self, text: &str) {
        self.pair_at(0, "", text, Style::new().add_modifier(Modifier::BOLD));
    }

    /// A label, and words behind it.
    fn pair(&mut self, label: &str, text: &str) {
        self.pair_at(LABEL, label, text, Style::new());
    }

    /// As it is, cut where it is too long.
    fn exactly(&mut self, text: &str) {
        self.line(&format!(" {}", clean(text)), Style::new());
    }

    fn pair_at(&mut self, indent: usize, label: &str, text: &str, style: Style) {
        for line in wrapped(label, indent, text, self.width.saturating_sub(2)) {
            self.line(&format!(" {line}"), style);
        }
    }

    /// A row that can be chosen, which a mark says besides the style.
    fn row(&mut self, is_chosen: bool, text: &str) {
        let mark = if is_chosen { ">" } else { " " };
        let style = if is_chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        if is_chosen {
            self.chosen = Some(self.lines.len());
        }
        let text = cut(text, self.width.saturating_sub(4));
        self.line(&format!(" {mark} {text}"), style);
    }

    /// What is wrong, and what fixes it.
    fn problem(&mut self, problem: &Problem) {
        self.pair_at(2, "-", &problem.says, Style::new());
        if !problem.fix.is_empty() {
            self.pair_at(7, "  fix:", &problem.fix, Style::new());
        }
    }

    /// Why something is not known.
    fn unknown(&mut self, label: &str, who: &str, problem: Option<&Problem>) {
        match problem {
            None => self.pair(label, &format!("... {who} is being asked")),
            Some(problem) => {
                self.pair(label, &format!("not known: {}", problem.says));
                if !problem.fix.is_empty() {
                    self.pair("", &format!("fix: {}", problem.fix));
                }
            }
        }
    }
}

/// Draws the state; how many lines there are above those that fit at the most.
pub fn draw(frame: &mut Frame<'_>, state: &State, now: Instant) -> usize {
    let area = frame.area();
    let width = usize::from(area.width);
    let (title, page) = page(state, now, width);
    bar(frame, area, 0, &head(state, &title, width));
    let bottom = area.height.saturating_sub(1);
    bar(frame, area, bottom, &menu(state, width));
    // A line below the upper bar, the keys above the lower one.
    let room = usize::from(area.height.saturating_sub(4));
    let most = page.lines.len().saturating_sub(room);
    let from = match page.chosen {
        // The line below a chosen one belongs to it, mostly.
        Some(line) => (line + 2).saturating_sub(room).min(most),
        None => state.scroll.min(most),
    };
    let keys = match (from > 0 || most > 0, page.chosen) {
        (true, None) => format!(
            " {}   Up/Down: more ({}-{}/{})",
            page.keys,
            from + 1,
            (from + room).min(page.lines.len()),
            page.lines.len()
        ),
        _ => format!(" {}", page.keys),
    };
    put(frame, area, area.height.saturating_sub(2), &Line::from(cut(&keys, width)));
    for (line, at) in page.lines.iter().skip(from).take(room).zip(2..) {
        put(frame, area, at, line);
    }
    if let Some((line, column)) = page.cursor
        && let (Some(line), Ok(column)) =
            (line.checked_sub(from).filter(|line| *line < room), u16::try_from(column))
        && let Ok(line) = u16::try_from(line)
    {
        let position = Position::new(column.min(area.width.saturating_sub(1)), line.saturating_add(2));
        frame.set_cursor_position(position);
    }
    most
}

fn put(frame: &mut Frame<'_>, area: Rect, at: u16, line: &Line<'_>) {
    if at < area.height {
        frame.render_widget(line, Rect { y: area.y + at, height: 1, ..area });
    }
}

fn bar(frame: &mut Frame<'_>, area: Rect, at: u16, text: &str) {
    let width = usize::from(area.width);
    let text = format!("{:<width$}", cut(text, width));
    put(frame, area, at, &Line::from(Span::styled(text, Style::new().add_modifier(Modifier::REVERSED))));
}

fn head(state: &State, title: &str, width: usize) -> String {
    let left = format!(" landfall {}  {}", env!("CARGO_PKG_VERSION"), clean(title));
    let name = match (state.machine.here(), &state.local) {
        (Some(machine), _) => machine.hostname.as_str(),
        (None, Some(local)) => local.hostname.as_str(),
        (None, None) => "",
    };
    let name = cut(name, width.saturating_sub(left.chars().count() + 3));
    let gap = width.saturating_sub(left.chars().count() + name.chars().count() + 1);
    format!("{left}{}{name} ", " ".repeat(gap))
}

fn menu(state: &State, width: usize) -> String {
    if !matches!(state.over, Over::Nothing) {
        return String::new();
    }
    let items = MENU.iter().filter(|(screen, ..)| *screen != Screen::Welcome || state.token().is_some());
    let items: Vec<String> =
        items.map(|(_, letter, name)| format!("{} {name}", letter.to_ascii_uppercase())).collect();
    let whole = format!(" {}", items.join("  "));
    if whole.chars().count() <= width { whole } else { items.join(" ") }
}

fn page(state: &State, now: Instant, width: usize) -> (String, Page) {
    match &state.over {
        Over::Nothing => {}
        Over::Form(form) => return (form.title.clone(), form_page(form, width)),
        Over::Confirm(confirm, _) => {
            let mut page = Page::new(width, "Y: do it   N, Enter or Esc: leave it as it is");
            page.strong(&confirm.title);
            page.blank();
            for line in &confirm.lines {
                match line.contains("  ->  ") {
                    true => change_line(&mut page, line),
                    false => page.text(line),
                }
            }
            page.blank();
            page.strong("Do it? y/N");
            return (confirm.title.clone(), page);
        }
        Over::Working(says, _) => {
            let mut page = Page::new(width, "Esc: back; it goes on, and you are told of its end");
            page.strong(&format!("{says} ..."));
            return ("Please wait".to_owned(), page);
        }
        Over::Message { title, lines, problem, form } => {
            let keys = match form {
                Some(_) => "Enter or Esc: back to what was typed",
                None => "Enter or Esc: back",
            };
            let mut page = Page::new(width, keys);
            page.strong(title);
            page.blank();
            lines.iter().for_each(|line| page.text(line));
            if let Some(problem) = problem {
                page.problem(problem);
            }
            return (title.clone(), page);
        }
    }
    let (title, page) = match state.screen {
        Screen::Status => ("Status", status::page(state, now, width)),
        Screen::Network => ("Network", settings::network(state, width)),
        Screen::Time => ("Time", settings::time(state, width)),
        Screen::Disks => ("Disks", settings::disks(state, width)),
        Screen::Keys => ("Keys for SSH", settings::keys(state, width)),
        Screen::Bundle => ("Support bundle", more::bundle(state, width)),
        Screen::Log => ("Log of the service", more::log(state, width)),
        Screen::Power => ("Restart and power off", more::power(state, width)),
        Screen::Welcome => ("First start", more::welcome(state, width)),
    };
    (title.to_owned(), page)
}

/// `label  before  ->  after`, in two lines where it is long.
fn change_line(page: &mut Page, line: &str) {
    let line = clean(line);
    match (line.chars().count() + 2 > page.width, line.split_once("  ->  ")) {
        (true, Some((before, after))) => {
            page.pair_at(
                LABEL,
                before.get(..LABEL).unwrap_or_default().trim_end(),
                before.get(LABEL..).unwrap_or(before),
                Style::new(),
            );
            page.pair_at(LABEL, "        ->", after, Style::new());
        }
        _ => page.exactly(&line),
    }
}

fn form_page(form: &Form, width: usize) -> Page {
    let keys = match form.fields.get(form.at).map(|field| &field.value) {
        Some(Value::Choice { .. }) => {
            "Space: another choice   Tab: next field   Enter: go on   Esc: back, unchanged"
        }
        _ if form.fields.len() > 1 => {
            "Tab: next field   Ctrl-U: empty it   Enter: go on   Esc: back, unchanged"
        }
        _ => "Ctrl-U: empty the field   Enter: go on   Esc: back, unchanged",
    };
    let mut page = Page::new(width, keys);
    page.strong(&form.title);
    form.about.iter().for_each(|line| page.text(line));
    page.blank();
    for (number, field) in form.fields.iter().enumerate() {
        let is_chosen = number == form.at;
        // Mark, label, colon.
        let indent = 4 + LABEL;
        let room = width.saturating_sub(indent + 2).max(1);
        let (text, column) = match &field.value {
            Value::Choice { options, at } => (format!("< {} >", options.get(*at).unwrap_or(&"")), 2),
            Value::Text { text, cursor } => {
                let from = (cursor + 1).saturating_sub(room);
                (text.iter().skip(from).take(room).collect(), cursor - from.min(*cursor))
            }
        };
        if is_chosen {
            page.cursor = Some((page.lines.len(), indent + column));
            page.chosen = Some(page.lines.len());
        }
        let mark = if is_chosen { ">" } else { " " };
        let label = format!(" {mark} {:<LABEL$}:", field.label);
        let style = if is_chosen { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        page.lines.push(Line::from(vec![Span::styled(label, style), Span::raw(clean(&text))]));
    }
    page.blank();
    if let Some(field) = form.fields.get(form.at) {
        page.text(field.help);
    }
    if let Some(problem) = &form.trouble {
        page.blank();
        page.strong("This cannot be done:");
        page.problem(problem);
    }
    page
}

//! Keys, and forms that are filled in with them.

use crate::ops::appliance::console::{Card, Problem};

/// The longest key for SSH with its comment, and some more.
const TYPED_AT_MOST: usize = 9000;

/// A key, or what stands for it on another keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A letter, digit or sign.
    Char(char),
    /// F1 is 1.
    Function(u8),
    Enter,
    Escape,
    Next,
    Previous,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    Backspace,
    Delete,
    /// Empties a field.
    Kill,
    /// The screen is to be drawn anew.
    Redraw,
    /// The program is to end; there is no such key on the appliance's own lines.
    Stop,
}

/// What a form is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A card: its entry in the settings, where it has one, and how one is to name it, where it has none.
    Nic {
        entry: Option<usize>,
        card: Card,
        title: String,
    },
    HostName,
    TimeServers,
    Clock,
    AddKey,
    /// A disk, by its name and serial number.
    Claim {
        disk: String,
        serial: String,
    },
}

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub label: &'static str,
    /// What can be typed, in a line.
    pub help: &'static str,
    pub value: Value,
}

/// What is in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Anything; the cursor stands before the letter of that number.
    Text { text: Vec<char>, cursor: usize },
    /// One of several.
    Choice { options: &'static [&'static str], at: usize },
}

/// A form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub title: String,
    pub about: Vec<String>,
    pub fields: Vec<Field>,
    /// The field that is typed into.
    pub at: usize,
    /// Why it cannot be done as it is.
    pub trouble: Option<Problem>,
    pub subject: Subject,
}

/// What becomes of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stays,
    Cancelled,
    /// It is to be looked at as a whole.
    Check,
}

impl Field {
    /// One with a text in it, the cursor behind that.
    pub fn text(label: &'static str, help: &'static str, text: &str) -> Field {
        let text: Vec<char> = text.chars().filter(|letter| !letter.is_control()).collect();
        Field { label, help, value: Value::Text { cursor: text.len(), text } }
    }

    /// One of several.
    pub fn choice(
        label: &'static str,
        help: &'static str,
        options: &'static [&'static str],
        at: usize,
    ) -> Field {
        Field { label, help, value: Value::Choice { options, at } }
    }

    fn key(&mut self, key: Key) {
        match &mut self.value {
            Value::Choice { options, at } => {
                let last = options.len().saturating_sub(1);
                match key {
                    Key::Right | Key::Char(' ') => *at = if *at >= last { 0 } else { *at + 1 },
                    Key::Left => *at = if *at == 0 { last } else { *at - 1 },
                    _ => {}
                }
            }
            Value::Text { text, cursor } => {
                *cursor = (*cursor).min(text.len());
                match key {
                    Key::Char(letter) if text.len() < TYPED_AT_MOST && !letter.is_control() => {
                        text.insert(*cursor, letter);
                        *cursor += 1;
                    }
                    Key::Backspace if *cursor > 0 => {
                        *cursor -= 1;
                        text.remove(*cursor);
                    }
                    Key::Delete if *cursor < text.len() => drop(text.remove(*cursor)),
                    Key::Left => *cursor = cursor.saturating_sub(1),
                    Key::Right => *cursor = (*cursor + 1).min(text.len()),
                    Key::Home => *cursor = 0,
                    Key::End => *cursor = text.len(),
                    Key::Kill => {
                        text.clear();
                        *cursor = 0;
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Form {
    pub fn key(&mut self, key: Key) -> Outcome {
        let last = self.fields.len().saturating_sub(1);
        match key {
            Key::Escape => return Outcome::Cancelled,
            Key::Enter => return Outcome::Check,
            Key::Next | Key::Down => self.at = if self.at >= last { 0 } else { self.at + 1 },
            Key::Previous | Key::Up => self.at = if self.at == 0 { last } else { self.at - 1 },
            key => {
                if let Some(field) = self.fields.get_mut(self.at) {
                    field.key(key);
                    self.trouble = None;
                }
            }
        }
        Outcome::Stays
    }

    /// What is typed into the field of that number, without blanks around it.
    pub fn typed(&self, number: usize) -> String {
        match self.fields.get(number).map(|field| &field.value) {
            Some(Value::Text { text, .. }) => text.iter().collect::<String>().trim().to_owned(),
            _ => String::new(),
        }
    }

    /// What is chosen in it.
    pub fn chosen(&self, number: usize) -> usize {
        match self.fields.get(number).map(|field| &field.value) {
            Some(Value::Choice { at, .. }) => *at,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_typed_into_and_corrected() {
        let fields = vec![Field::text("a", "", "10.0"), Field::choice("b", "", &["x", "y"], 0)];
        let mut form = Form {
            title: String::new(),
            about: Vec::new(),
            fields,
            at: 0,
            trouble: None,
            subject: Subject::HostName,
        };
        for key in [
            Key::Backspace,
            Key::Char('1'),
            Key::Home,
            Key::Delete,
            Key::Char('2'),
            Key::End,
            Key::Char('\u{7}'),
        ] {
            assert_eq!(form.key(key), Outcome::Stays);
        }
        assert_eq!(form.typed(0), "20.1");
        form.key(Key::Next);
        form.key(Key::Char(' '));
        assert_eq!((form.chosen(1), form.typed(1)), (1, String::new()));
        form.key(Key::Right);
        assert_eq!(form.chosen(1), 0);
        form.key(Key::Next);
        form.key(Key::Kill);
        assert_eq!((form.at, form.typed(0)), (0, String::new()));
        for _ in 0..TYPED_AT_MOST + 5 {
            form.key(Key::Char('x'));
        }
        assert_eq!(form.typed(0).len(), TYPED_AT_MOST);
        assert_eq!((form.key(Key::Enter), form.key(Key::Escape)), (Outcome::Check, Outcome::Cancelled));
    }
}

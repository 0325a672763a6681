//! YAML with the place of every value, for reading and for changing single values.
//!
//! Also what the program reads its own appliance's YAML with. Read event by event with bounds on depth and size, aliases left out: a file cannot make the reader grow.

use saphyr_parser::{Event, Parser, Span};
use std::ops::Range;

const DEPTH_AT_MOST: usize = 32;
const EVENTS_AT_MOST: usize = 200_000;

/// A value and where it stands: bytes of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// A scalar, whatever it looks like.
    Text(String, Range<usize>),
    /// A sequence.
    List(Vec<Value>, Range<usize>),
    /// A mapping.
    Map(Vec<Entry>, Range<usize>),
}

/// Of a map.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key; empty where that is no scalar.
    pub key: String,
    /// Where the key stands.
    pub place: Range<usize>,
    /// Its value.
    pub value: Value,
}

impl Value {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }
    /// The entry of a key; the last one, where it is there twice.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().rev().find(|entry| entry.key == key)
    }
    /// Of a mapping; none otherwise.
    pub fn entries(&self) -> &[Entry] {
        match self {
            Value::Map(entries, _) => entries,
            _ => &[],
        }
    }
    /// Of a sequence; none otherwise.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::List(items, _) => items,
            _ => &[],
        }
    }
    /// Of a scalar.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text, _) => Some(text),
            _ => None,
        }
    }
    /// Where it stands.
    pub fn range(&self) -> &Range<usize> {
        match self {
            Value::Text(_, range) | Value::List(_, range) | Value::Map(_, range) => range,
        }
    }
    /// Where it ends: of what is written by indentation, its last value.
    pub fn end(&self, file: &str) -> usize {
        let is_flow = file.get(self.range().clone()).is_some_and(|text| text.starts_with(['[', '{']));
        let last = match self {
            Value::List(items, _) if !is_flow => items.last(),
            Value::Map(entries, _) if !is_flow => entries.last().map(|entry| &entry.value),
            _ => None,
        };
        last.map_or(self.range().end, |last| last.end(file))
    }
}

/// The first document.
///
/// # Errors
/// Where it is no YAML, nested too deep or too long: why.
pub fn parse(text: &str) -> std::result::Result<Value, String> {
    /// An open list or map with its start; of a map, the key that waits for its value.
    enum Open {
        List(Vec<Value>, usize),
        Map(Vec<Entry>, Option<(String, Range<usize>)>, usize),
    }
    let offsets = Offsets::new(text);
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let empty = Value::Map(Vec::new(), 0..0);
    for _ in 0..EVENTS_AT_MOST {
        let (event, span) = match parser.next_event() {
            None => return Ok(empty),
            Some(Err(error)) => return Err(format!("it is no YAML: {error}")),
            Some(Ok(next)) => next,
        };
        let range = closed(text, offsets.range(&span));
        let done = match event {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new(), range.start));
                None
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Vec::new(), None, range.start));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list, start)) => Some(Value::List(list, start..range.end.max(start))),
                Some(Open::Map(map, _, start)) => Some(Value::Map(map, start..range.end.max(start))),
                None => None,
            },
            Event::Scalar(text, ..) => Some(Value::Text(text.into_owned(), range)),
            Event::Alias(_) => Some(Value::Text(String::new(), range)),
            Event::StreamEnd | Event::DocumentEnd => return Ok(empty),
            _ => None,
        };
        if open.len() > DEPTH_AT_MOST {
            return Err(format!("it is nested deeper than {DEPTH_AT_MOST}"));
        }
        let Some(value) = done else { continue };
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::List(list, _)) => list.push(value),
            Some(Open::Map(map, key, _)) => match key.take() {
                None => {
                    *key = Some(match value {
                        Value::Text(text, range) => (text, range),
                        other => (String::new(), other.range().clone()),
                    })
                }
                Some((key, place)) => map.push(Entry { key, place, value }),
            },
        }
    }
    Err(format!("it has more than {EVENTS_AT_MOST} parts"))
}

/// Of what stands in quotes, the range up to the closing one: the parser goes on to the next token.
fn closed(text: &str, range: Range<usize>) -> Range<usize> {
    let slice = text.get(range.clone()).unwrap_or("");
    let Some(quote) = slice.chars().next().filter(|first| ['"', '\''].contains(first)) else { return range };
    let mut rest = slice.char_indices().skip(1).peekable();
    while let Some((at, char)) = rest.next() {
        let is_pair = quote == '\'' && char == quote && rest.peek().is_some_and(|(_, next)| *next == quote);
        if char == '\\' && quote == '"' || is_pair {
            rest.next();
        } else if char == quote {
            return range.start..range.start + at + 1;
        }
    }
    range
}

/// The parser counts characters, edits count bytes.
struct Offsets {
    /// Byte of each character, where they differ.
    bytes: Vec<usize>,
    length: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let bytes = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(at, _)| at).collect(),
        };
        Offsets { bytes, length: text.len() }
    }
    fn at(&self, index: usize) -> usize {
        match self.bytes.is_empty() {
            true => index.min(self.length),
            false => self.bytes.get(index).copied().unwrap_or(self.length),
        }
    }
    fn range(&self, span: &Span) -> Range<usize> {
        let start = self.at(span.start.index());
        start..self.at(span.end.index()).max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_yaml_is_refused_or_read_but_never_grows() {
        let bomb = format!("a: &a [x,x]\n{}", "b: &b [*a,*a,*a]\n".repeat(1000));
        assert!(parse(&bomb).is_ok());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse("a: [b").is_err());
        assert!(parse("").is_ok());
    }

    #[test]
    fn values_are_where_they_say() {
        for text in [
            "a: é\nb:\n  - 'x y' # c\n  - \"z\"\nc: [1, {d: 2}]\ne:\n  f:\n    - g: h\n\nlast: end\n",
            "a: é\r\nb:\r\n  - 'x y' # c\r\n  - \"z\"\r\nc: [1, {d: 2}]\r\ne:\r\n  f:\r\n    - g: h\r\n\r\nlast: end",
        ] {
            let root = parse(text).unwrap();
            let slice = |value: &Value| &text[value.range().start..value.end(text)];
            let b = root.get("b").unwrap();
            assert_eq!(slice(root.get("a").unwrap()), "é");
            assert_eq!((slice(&b.items()[0]), slice(&b.items()[1])), ("'x y'", "\"z\""));
            assert_eq!(slice(root.get("c").unwrap()), "[1, {d: 2}]");
            assert!(slice(root.get("e").unwrap()).ends_with('h'));
            assert_eq!(&text[root.entry("last").unwrap().place.clone()], "last");
            assert_eq!(slice(root.get("last").unwrap()), "end");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-zé:\\[\\]{}&*!|>'\"#,\n -]{0,60}") {
            if let Ok(value) = parse(&text) {
                prop_assert!(text.get(value.range().start..value.end(&text).max(value.range().start)).is_some());
            }
        }
    }
}

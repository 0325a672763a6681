//! YAML with the place of every value, for reading and for changing single values.
//!
//! Also what the program reads its own appliance's YAML with. Read event by event with bounds on depth and size; aliases are left out, or
//! copied within a bound: a file cannot make the reader grow.

use saphyr_parser::{Event, Parser, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const DEPTH_AT_MOST: usize = 32;
const EVENTS_AT_MOST: usize = 200_000;
/// Values and letters that are copied for aliases.
const COPIED_AT_MOST: usize = 200_000;

/// A value and where it stands: bytes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A scalar, whatever it looks like.
    Text(String, Range<usize>),
    /// A sequence.
    List(Vec<Value>, Range<usize>),
    /// A mapping.
    Map(Vec<Entry>, Range<usize>),
}

/// Of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The first document; an alias is an empty text, since what it stands for is written elsewhere and cannot be changed here.
///
/// # Errors
/// Where it is no YAML, nested too deep or too long: why.
pub fn parse(text: &str) -> std::result::Result<Value, String> {
    read(text, None)
}

/// The first document with what aliases and merges (`<<`) stand for, which is where its anchor is: for reading alone.
///
/// # Errors
/// As [`parse`], and where aliases stand for too much or for themselves.
pub fn resolved(text: &str) -> std::result::Result<Value, String> {
    read(text, Some(BTreeMap::new()))
}

/// `anchors` have what aliases stand for, by the parser's numbers; without them aliases stand for nothing.
fn read(text: &str, mut anchors: Option<BTreeMap<usize, Value>>) -> std::result::Result<Value, String> {
    /// An open list or map with its start and its anchor, 0 without one; of a map, the key that waits for its value.
    enum Open {
        List(Vec<Value>, usize, usize),
        Map(Vec<Entry>, Option<(String, Range<usize>)>, usize, usize),
    }
    let mut copied = 0;
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
        let mut anchor = 0;
        let done = match event {
            Event::SequenceStart(id, _) => {
                open.push(Open::List(Vec::new(), range.start, id));
                None
            }
            Event::MappingStart(id, _) => {
                open.push(Open::Map(Vec::new(), None, range.start, id));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list, start, id)) => {
                    anchor = id;
                    Some(Value::List(list, start..range.end.max(start)))
                }
                Some(Open::Map(map, _, start, id)) => {
                    anchor = id;
                    let map = if anchors.is_some() { merged(map)? } else { map };
                    Some(Value::Map(map, start..range.end.max(start)))
                }
                None => None,
            },
            Event::Scalar(text, _, id, _) => {
                anchor = id;
                Some(Value::Text(text.into_owned(), range))
            }
            Event::Alias(id) => Some(match &anchors {
                Some(anchors) => {
                    // The parser knows an anchor from its beginning on.
                    let value = anchors.get(&id).ok_or("an alias stands for what it is itself in")?;
                    copy(value, open.len(), &mut copied)?
                }
                None => Value::Text(String::new(), range),
            }),
            Event::StreamEnd | Event::DocumentEnd => return Ok(empty),
            _ => None,
        };
        if open.len() > DEPTH_AT_MOST {
            return Err(too_deep());
        }
        let Some(value) = done else { continue };
        if anchor != 0
            && let Some(anchors) = &mut anchors
        {
            anchors.insert(anchor, copy(&value, open.len(), &mut copied)?);
        }
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::List(list, ..)) => list.push(value),
            Some(Open::Map(map, key, ..)) => match key.take() {
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

fn too_deep() -> String {
    format!("it is nested deeper than {DEPTH_AT_MOST}")
}

/// A copy below `above` lists and maps. Its size counts before it is made: a few lines of aliases stand for billions of values.
fn copy(value: &Value, above: usize, copied: &mut usize) -> std::result::Result<Value, String> {
    let (weight, depth) = extent(value);
    *copied += weight;
    if *copied > COPIED_AT_MOST {
        return Err(format!("its aliases stand for more than {COPIED_AT_MOST} values and letters"));
    }
    if above + depth > DEPTH_AT_MOST {
        return Err(too_deep());
    }
    Ok(value.clone())
}

/// Values and letters, and how deep they are nested.
fn extent(value: &Value) -> (usize, usize) {
    let with = |(weight, depth): (usize, usize), key: usize, value: &Value| {
        let (more, below) = extent(value);
        (weight + key + more, depth.max(below + 1))
    };
    match value {
        Value::Text(text, _) => (1 + text.len(), 0),
        Value::List(items, _) => items.iter().fold((1, 1), |sum, item| with(sum, 0, item)),
        Value::Map(entries, _) => {
            entries.iter().fold((1, 1), |sum, entry| with(sum, entry.key.len(), &entry.value))
        }
    }
}

/// A map with what its `<<` stands for (YAML's type "merge"), where it does not say so itself; of several maps the first counts.
fn merged(entries: Vec<Entry>) -> std::result::Result<Vec<Entry>, String> {
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    if merges.is_empty() {
        return Ok(own);
    }
    let mut known: BTreeSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    let maps = merges.into_iter().flat_map(|merge| match merge.value {
        Value::List(items, _) => items,
        one => vec![one],
    });
    for map in maps {
        let Value::Map(entries, _) = map else { return Err("<< stands for what is no map".to_owned()) };
        own.extend(entries.into_iter().filter(|entry| known.insert(entry.key.clone())));
    }
    Ok(own)
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
    fn aliases_are_what_they_stand_for_within_bounds() {
        let text = "a: &a [x, &b 'y']\nm: &m {k: 1, l: 2}\nn: &n {l: 3, o: 4}\nc: *a\nd: [*b, *a]\n\
            e: {<<: *m, k: 5}\nf:\n  <<: [*m, *n]\n";
        let root = resolved(text).unwrap();
        let texts = |value: &Value| {
            value.items().iter().filter_map(Value::text).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(texts(root.get("c").unwrap()), ["x", "y"]);
        let d = root.get("d").unwrap().items();
        assert_eq!((d[0].text(), texts(&d[1])), (Some("y"), vec!["x".to_owned(), "y".to_owned()]));
        let of = |map: &str, key: &str| root.get(map)?.get(key)?.text();
        assert_eq!((of("e", "k"), of("e", "l"), of("e", "<<")), (Some("5"), Some("2"), None));
        assert_eq!((of("f", "k"), of("f", "l"), of("f", "o")), (Some("1"), Some("2"), Some("4")));
        // Where files are changed they stay what they are.
        let root = parse(text).unwrap();
        assert_eq!(root.get("c").unwrap().text(), Some(""));
        assert!(root.get("e").unwrap().get("<<").is_some());

        let lines = |one: &dyn Fn(usize) -> String| (1..40).map(one).collect::<String>();
        let laughs = lines(&|at| {
            let below = format!("*l{}, ", at - 1).repeat(9);
            format!("l{at}: &l{at} [{below}]\n")
        });
        let deeper = lines(&|at| format!("l{at}: &l{at} [*l{}]\n", at - 1));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), "*a, ".repeat(10_000));
        for (text, says) in [
            (format!("l0: &l0 x\n{laughs}"), "aliases stand for more than"),
            (long, "aliases stand for more than"),
            (format!("l0: &l0 x\n{deeper}"), "nested deeper"),
            ("a: &a [*a]\n".to_owned(), "stands for what it is itself in"),
            ("a: *b\n".to_owned(), "no YAML"),
            ("a: {<<: x}\n".to_owned(), "no map"),
        ] {
            let why = resolved(&text).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
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
            let _ = resolved(&text);
            if let Ok(value) = parse(&text) {
                prop_assert!(text.get(value.range().start..value.end(&text).max(value.range().start)).is_some());
            }
        }
    }
}

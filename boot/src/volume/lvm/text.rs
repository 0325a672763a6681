//! The text of LVM metadata (lvm2: `lib/format_text`, `libdm/libdm-config.c`; `man lvm.conf` has the grammar):
//!
//! ```text
//! vg0 {                        # a section
//!     seqno = 3                # a number
//!     id = "Zb5x…"             # a string; \" and \\ are escapes
//!     stripes = ["pv0", 0]     # a list
//! }
//! ```

use crate::{Error, Result, limits};
use std::collections::BTreeMap;

/// A value, or a section of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `{ … }`
    Section(Section),
    /// A whole number.
    Number(i64),
    /// A string, or a number with a fraction (which no field that is read here has).
    Text(String),
    /// `[ … ]`
    List(Vec<Value>),
}

/// A section's entries by name.
pub type Section = BTreeMap<String, Value>;

impl Value {
    /// The section, if it is one.
    pub fn section(&self) -> Option<&Section> {
        if let Value::Section(section) = self { Some(section) } else { None }
    }
    /// The number, if it is one that is not negative.
    pub fn number(&self) -> Option<u64> {
        if let Value::Number(number) = self { u64::try_from(*number).ok() } else { None }
    }
    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }
    /// The list; a single value is a list of one, as for LVM.
    pub fn list(&self) -> &[Value] {
        if let Value::List(list) = self { list } else { std::slice::from_ref(self) }
    }
}

/// Parses a whole metadata text. `left` values may be kept, and are counted down.
pub fn parse(text: &str, left: &mut usize) -> Result<Section> {
    let mut parser = Parser { text, at: 0, left };
    let section = parser.section(0)?;
    parser.blank();
    if parser.at < text.len() {
        return Err(parser.wrong("a name"));
    }
    Ok(section)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    left: &'a mut usize,
}

impl<'a> Parser<'a> {
    /// Before another value is kept.
    fn count(&mut self) -> Result<()> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| {
            Error::refused(format!(
                "LVM metadata: more than {} values on this machine's disks, at byte {} of these",
                limits::LVM_VALUES,
                self.at
            ))
        })?;
        Ok(())
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn wrong(&self, wanted: &str) -> Error {
        let found: String = self.rest().chars().take(20).collect();
        Error::corrupt(format!("LVM metadata: {wanted} is expected at byte {}, not {found:?}", self.at))
    }

    /// Skips space and comments.
    fn blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\0']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: char) -> bool {
        self.blank();
        let next = self.peek() == Some(token);
        if next {
            self.at += token.len_utf8();
        }
        next
    }

    fn while_matches(&mut self, matches: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|letter| !matches(letter)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// The entries up to the closing brace or the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section> {
        if depth > limits::LVM_DEPTH {
            return Err(Error::refused(format!(
                "LVM metadata: sections are nested deeper than {} at byte {}",
                limits::LVM_DEPTH,
                self.at
            )));
        }
        let mut section = Section::new();
        loop {
            self.blank();
            if matches!(self.peek(), None | Some('}')) {
                return Ok(section);
            }
            let name = match self.peek() {
                Some('"') => self.string()?,
                _ => self
                    .while_matches(|letter| letter.is_ascii_alphanumeric() || "._-+/@".contains(letter))
                    .to_owned(),
            };
            if name.is_empty() {
                return Err(self.wrong("a name"));
            }
            self.count()?;
            let value = if self.take('{') {
                let inner = self.section(depth + 1)?;
                if !self.take('}') {
                    return Err(self.wrong("a closing brace"));
                }
                Value::Section(inner)
            } else if self.take('=') {
                self.value()?
            } else {
                return Err(self.wrong("= or {"));
            };
            section.insert(name, value);
        }
    }

    fn value(&mut self) -> Result<Value> {
        if !self.take('[') {
            return self.scalar();
        }
        let mut list = Vec::new();
        while !self.take(']') {
            self.count()?;
            list.push(self.scalar()?);
            if !self.take(',') && {
                self.blank();
                self.peek()
            } != Some(']')
            {
                return Err(self.wrong("a comma or ]"));
            }
        }
        Ok(Value::List(list))
    }

    fn scalar(&mut self) -> Result<Value> {
        self.blank();
        if self.peek() == Some('"') {
            return self.string().map(Value::Text);
        }
        let before = self.at;
        let digits = self.while_matches(|letter| letter.is_ascii_digit() || "+-.".contains(letter));
        if digits.is_empty() {
            return Err(self.wrong("a value"));
        }
        if let Ok(number) = digits.parse() {
            return Ok(Value::Number(number));
        }
        if digits.parse::<f64>().is_ok() && digits.contains('.') {
            return Ok(Value::Text(digits.to_owned()));
        }
        self.at = before;
        Err(self.wrong("a number of 64 bits"))
    }

    fn string(&mut self) -> Result<String> {
        let mut out = String::new();
        let mut letters = self.rest().char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at += at + 1;
                    return Ok(out);
                }
                '\\' => out.extend(letters.next().map(|(_, letter)| letter)),
                letter => out.push(letter),
            }
        }
        Err(self.wrong("a closing quote"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Section> {
        super::parse(text, &mut 1000)
    }

    #[test]
    fn values_are_counted_for_all_texts() {
        let mut left = 5;
        super::parse("a { b = [1, 2] }", &mut left).unwrap();
        assert_eq!(left, 1);
        let error = super::parse("a = 1 a = 2", &mut left).unwrap_err();
        assert_eq!((left, error.kind()), (0, crate::Kind::Refused));
    }

    #[test]
    fn the_grammar_of_metadata() {
        let text = "# made by\nvg-0 {\n id = \"a\\\"b\\\\\"\n seqno=3\nflags = []\nstripes = [\n\"pv0\", 0,\n\"pv1\", -7\n]\n\
                    inner { x = 1.5 } }\ncreation_time = 1700000000\t# Tue\n\0";
        let parsed = parse(text).unwrap();
        let group = parsed["vg-0"].section().unwrap();
        assert_eq!(group["id"].text(), Some("a\"b\\"));
        assert_eq!(group["seqno"].number(), Some(3));
        assert!(group["flags"].list().is_empty());
        assert_eq!(group["stripes"].list().len(), 4);
        assert_eq!(group["stripes"].list()[3].number(), None, "negative");
        assert_eq!(parsed["creation_time"].number(), Some(1_700_000_000));
    }

    #[test]
    fn broken_text_is_an_error() {
        for text in [
            "a",
            "a =",
            "a = [",
            "a = [1 2]",
            "a {",
            "}",
            "a = \"x",
            "= 1",
            "a = 99999999999999999999",
            "a = \"\\",
            "ä = 1",
            "a = [[1]]",
        ] {
            assert_eq!(parse(text).unwrap_err().kind(), crate::Kind::Corrupt, "{text}");
        }
        let nested = |depth: usize| format!("{}{}", "a{".repeat(depth), "}".repeat(depth));
        assert!(parse(&nested(limits::LVM_DEPTH)).is_ok());
        assert_eq!(parse(&nested(limits::LVM_DEPTH + 1)).unwrap_err().kind(), crate::Kind::Refused);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z{}\\[\\]=\"\\\\,#\n0-9 .-]{0,80}") {
            let _ = parse(&text);
        }
    }
}

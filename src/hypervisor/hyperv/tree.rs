//! The tree of keys that every Hyper-V configuration is, whether it lies in the binary store of 2016 and later or in the
//! XML of 2008 to 2012 R2.
//!
//! The XML has one element for each key; its attribute `type` tells `integer`, `string`, `bool`, `bytes` (base64) or
//! `double`, and an element without it holds other keys. Two keys of one parent may have the same name (`metric`).

use crate::hypervisor::xml::Element;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::{Error, Result};

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Other keys.
    #[default]
    Keys,
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    UInt(u64),
    /// A number with a fraction.
    Double(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Yes or no.
    Bool(bool),
}

/// A key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its name, without its parents'.
    pub name: String,
    /// What it holds.
    pub value: Value,
    /// The keys in it, in the order in which they were made.
    pub children: Vec<Node>,
}

impl Node {
    /// The first key of that name in it. Names differ in case between versions (`instance` is written either way).
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|child| child.name.eq_ignore_ascii_case(name))
    }

    /// The key at the end of a path: `settings/memory`.
    pub fn at(&self, path: &str) -> Option<&Node> {
        path.split('/').try_fold(self, |node, name| node.child(name))
    }

    /// The text at the end of a path, where it is there and not empty.
    pub fn text(&self, path: &str) -> Option<&str> {
        match &self.at(path)?.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The number at the end of a path; `None` for none, a negative one, or something else.
    pub fn number(&self, path: &str) -> Option<u64> {
        match self.at(path)?.value {
            Value::Int(number) => u64::try_from(number).ok(),
            Value::UInt(number) => Some(number),
            _ => None,
        }
    }

    /// True where the key at the end of a path says so.
    pub fn flag(&self, path: &str) -> bool {
        self.at(path).is_some_and(|node| node.value == Value::Bool(true))
    }

    /// The bytes at the end of a path.
    pub fn bytes(&self, path: &str) -> Option<&[u8]> {
        match &self.at(path)?.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The keys in it that are called `word` and a number, by the number: `drive0`, `drive1`.
    pub fn numbered(&self, word: &str) -> Vec<(u32, &Node)> {
        let number = |node: &Node| {
            let (start, rest) = node.name.split_at_checked(word.len())?;
            start.eq_ignore_ascii_case(word).then(|| rest.parse().ok())?
        };
        let mut found: Vec<(u32, &Node)> =
            self.children.iter().filter_map(|node| Some((number(node)?, node))).collect();
        found.sort_by_key(|(number, _)| *number);
        found
    }

    /// A value as people write it; `None` for a key with other keys in it.
    pub fn shown(&self) -> Option<String> {
        match &self.value {
            Value::Keys => None,
            Value::Int(number) => Some(number.to_string()),
            Value::UInt(number) => Some(number.to_string()),
            Value::Double(number) => Some(number.to_string()),
            Value::Text(text) => Some(text.clone()),
            Value::Bytes(bytes) => Some(format!("{} bytes", bytes.len())),
            Value::Bool(yes) => Some(yes.to_string()),
        }
    }

    /// The tree of an XML configuration. The names and the depth are as bounded as [`Element::parse`] has them.
    ///
    /// # Errors
    /// Corrupt where a value is not of the type that it is said to be.
    pub fn from_xml(element: &Element) -> Result<Node> {
        let name = element.name.clone();
        let text = element.text.as_str();
        let bad = |kind: &str| Error::corrupt(format!("{name} = {text:?}, which is no {kind}"));
        let value = match element.attribute("type") {
            None => Value::Keys,
            Some("integer") => match text.parse() {
                Ok(number) => Value::Int(number),
                Err(_) => Value::UInt(text.parse().map_err(|_| bad("integer"))?),
            },
            Some("bool") => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => return Err(bad("bool")),
            },
            Some("double") => Value::Double(text.parse().map_err(|_| bad("double"))?),
            Some("bytes") => {
                let packed: String = text.split_ascii_whitespace().collect();
                Value::Bytes(STANDARD.decode(packed).map_err(|_| bad("base64"))?)
            }
            Some(_) => Value::Text(text.to_owned()),
        };
        let children = element.children.iter().map(Node::from_xml).collect::<Result<_>>()?;
        Ok(Node { name, value, children })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_their_type() {
        let xml = "<configuration><a type='integer'>-5</a><b type='bool'>True</b><c type='bytes'>AA\nEC</c><d><e10 type='string'>x</e10>\
                   <e2 type='string'/></d><f type='integer'>18446744073709551615</f></configuration>";
        let tree = Node::from_xml(&Element::parse(xml.as_bytes()).unwrap()).unwrap();
        assert_eq!(tree.at("a").unwrap().value, Value::Int(-5));
        assert_eq!(tree.number("a"), None);
        assert_eq!(tree.number("f"), Some(u64::MAX));
        assert!(tree.flag("b") && !tree.flag("a"));
        assert_eq!(tree.bytes("c"), Some(&[0, 1, 2][..]));
        let names: Vec<_> =
            tree.child("d").unwrap().numbered("E").iter().map(|(n, e)| (*n, e.name.as_str())).collect();
        assert_eq!(names, [(2, "e2"), (10, "e10")]);
        assert_eq!((tree.text("d/e10"), tree.text("d/e2")), (Some("x"), None));
        for bad in [
            "<a type='integer'>x</a>",
            "<a type='bool'>x</a>",
            "<a type='bytes'>?</a>",
            "<a type='double'>x</a>",
        ] {
            assert!(Node::from_xml(&Element::parse(bad.as_bytes()).unwrap()).is_err(), "{bad}");
        }
    }
}

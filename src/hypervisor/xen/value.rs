//! Values of XML-RPC, as xapi writes them: text, structs and arrays. Numbers and truth values are text with a type around it,
//! which some writers leave out.

use crate::hypervisor::xml::{self, Element};
use landfall_image::{Error, Result};

/// A reference to nothing.
pub(super) const NULL: &str = "OpaqueRef:NULL";

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Text, and what is written as text.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A number with a fraction, by its digits.
    Double(&'static str),
    /// A moment.
    Date(&'static str),
    /// Members by name, in order.
    Struct(Vec<(String, Value)>),
    /// Values in order.
    Array(Vec<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// A struct of texts.
    pub(super) fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Value {
        Value::Struct(pairs.into_iter().map(|(name, text)| (name.to_owned(), Value::Text(text))).collect())
    }

    /// The value of a `<value>` element. How deep it may go, the document's reader bounds.
    pub(super) fn read(element: &Element) -> Result<Value> {
        let inner = match element.children.as_slice() {
            [] => return Ok(Value::Text(element.text.clone())),
            [inner] => inner,
            _ => return Err(Error::corrupt("ova.xml has a value that is several")),
        };
        Ok(match inner.name.as_str() {
            "struct" => {
                let mut members = Vec::new();
                for member in inner.all("member") {
                    let name = member.child("name").map_or("", |name| name.text.as_str());
                    let value = member.child("value").map_or(Ok(Value::text("")), Value::read)?;
                    members.push((name.to_owned(), value));
                }
                Value::Struct(members)
            }
            "array" => {
                let values = inner.child("data").into_iter().flat_map(|data| data.all("value"));
                Value::Array(values.map(Value::read).collect::<Result<_>>()?)
            }
            "boolean" => Value::Bool(matches!(inner.text.as_str(), "1" | "true")),
            _ => Value::Text(inner.text.clone()),
        })
    }

    /// A member of a struct.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Struct(members) => members.iter().find(|(own, _)| own == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A member's text, where it is not empty.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A member's truth; what is not there is false.
    pub(super) fn is(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::Bool(is)) => *is,
            Some(Value::Text(text)) => text == "1" || text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }

    /// The values of a member that is an array.
    pub(super) fn list(&self, name: &str) -> &[Value] {
        match self.get(name) {
            Some(Value::Array(values)) => values,
            _ => &[],
        }
    }

    /// The members of a struct.
    pub(super) fn members(&self) -> &[(String, Value)] {
        match self {
            Value::Struct(members) => members,
            _ => &[],
        }
    }

    /// True for what says nothing: no text, no members, false, a reference to nothing.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Value::Text(text) => matches!(text.as_str(), "" | NULL | "Ref:NULL" | "0" | "false"),
            Value::Bool(is) => !is,
            Value::Double(digits) => *digits == "0",
            Value::Date(_) => true,
            Value::Struct(members) => members.is_empty(),
            Value::Array(values) => values.is_empty(),
        }
    }

    /// Adds the `<value>` element, without a space: some readers take spaces for text.
    pub(super) fn write(&self, out: &mut String) {
        let typed = |out: &mut String, kind: &str, text: &str| {
            *out += &format!("<value><{kind}>{text}</{kind}></value>");
        };
        match self {
            Value::Text(text) if text.is_empty() => *out += "<value/>",
            Value::Text(text) => *out += &format!("<value>{}</value>", xml::escape(&xml::holdable(text))),
            Value::Bool(is) => typed(out, "boolean", if *is { "1" } else { "0" }),
            Value::Double(digits) => typed(out, "double", digits),
            Value::Date(moment) => typed(out, "dateTime.iso8601", moment),
            Value::Struct(members) if members.is_empty() => *out += "<value><struct/></value>",
            Value::Struct(members) => {
                *out += "<value><struct>";
                for (name, value) in members {
                    *out += &format!("<member><name>{}</name>", xml::escape(&xml::holdable(name)));
                    value.write(out);
                    *out += "</member>";
                }
                *out += "</struct></value>";
            }
            Value::Array(values) if values.is_empty() => *out += "<value><array><data/></array></value>",
            Value::Array(values) => {
                *out += "<value><array><data>";
                for value in values {
                    value.write(out);
                }
                *out += "</data></array></value>";
            }
        }
    }
}

//! Paths into JSON whose producers do not agree on the writing of names, and a note of what was looked at.

use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A value in a document.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    value: &'a Value,
    seen: &'a RefCell<BTreeSet<*const Value>>,
}

impl<'a> Fields<'a> {
    /// The root of a document.
    pub fn root(value: &'a Value, seen: &'a RefCell<BTreeSet<*const Value>>) -> Fields<'a> {
        Fields { value, seen }
    }

    /// The value at the end of the first path that leads to one: `spec/name`. `null` is none.
    pub fn at(&self, paths: &[&str]) -> Option<Fields<'a>> {
        let found = paths.iter().find_map(|path| {
            path.split('/')
                .try_fold(self.value, |value, name| value.get(name))
                .filter(|value| !value.is_null())
        })?;
        self.seen.borrow_mut().insert(found);
        Some(Fields { value: found, seen: self.seen })
    }

    /// The text there: a string, or a number as it is written.
    pub fn text(&self, paths: &[&str]) -> Option<String> {
        match self.at(paths)?.value {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The number there.
    pub fn number(&self, paths: &[&str]) -> Option<u64> {
        self.at(paths)?.value.as_u64()
    }

    /// Whether it is true there.
    pub fn is(&self, paths: &[&str]) -> bool {
        self.at(paths).is_some_and(|found| found.value.as_bool().unwrap_or(false))
    }

    /// The elements of the list there.
    pub fn list(&self, paths: &[&str]) -> Vec<Fields<'a>> {
        let Some(found) = self.at(paths) else { return Vec::new() };
        let elements = found.value.as_array().map(Vec::as_slice).unwrap_or_default();
        elements.iter().map(|value| Fields { value, seen: self.seen }).collect()
    }

    /// Whether it is true.
    pub fn truth(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// The string that it is.
    pub fn word(&self) -> Option<&'a str> {
        self.seen.borrow_mut().insert(self.value);
        self.value.as_str()
    }

    /// Names and strings in it.
    pub fn pairs(&self) -> Vec<(&'a str, &'a str)> {
        let fields = self.value.as_object().into_iter().flatten();
        let pairs = fields.filter_map(|(name, value)| {
            self.seen.borrow_mut().insert(value);
            Some((name.as_str(), value.as_str()?))
        });
        pairs.collect()
    }

    /// Marks what is in here as read, where it was not looked at by its name.
    pub fn know(&self, paths: &[&str]) {
        for path in paths {
            self.at(&[path]);
        }
    }

    /// Marks everything in here as read.
    pub fn know_all(&self) {
        mark(self.value, &mut self.seen.borrow_mut());
    }

    /// Paths of what holds something and was not looked at: `spec/resources/gpu_list`. Elements of lists have no numbers.
    pub fn unseen(&self) -> Vec<String> {
        let mut out = BTreeSet::new();
        collect(self.value, "", &self.seen.borrow(), &mut out);
        out.into_iter().collect()
    }
}

fn mark(value: &Value, seen: &mut BTreeSet<*const Value>) {
    seen.insert(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| mark(value, seen)),
        Value::Array(list) => list.iter().for_each(|value| mark(value, seen)),
        _ => {}
    }
}

/// serde_json reads 127 levels at most, so that this ends.
fn collect(value: &Value, path: &str, seen: &BTreeSet<*const Value>, out: &mut BTreeSet<String>) {
    let is_leaf = !value.is_object() && !value.is_array();
    if is_leaf && seen.contains(&std::ptr::from_ref(value)) {
        return;
    }
    let has_nothing = match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
    };
    match value {
        _ if has_nothing => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                collect(value, &path, seen, out);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, path, seen, out)),
        _ => {
            out.insert(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_at_is_named() {
        let value = serde_json::json!({ "a": { "b": 1, "c": "x", "d": null, "e": [] }, "list": [{ "f": 1, "g": 2 }, { "g": 3 }] });
        let seen = RefCell::default();
        let root = Fields::root(&value, &seen);
        assert_eq!(root.number(&["a/x", "a/b"]), Some(1));
        assert_eq!(
            root.list(&["list"]).iter().map(|one| one.number(&["f"])).collect::<Vec<_>>(),
            [Some(1), None]
        );
        assert_eq!((root.text(&["a/b"]).as_deref(), root.text(&["a/d"])), (Some("1"), None));
        assert_eq!(root.unseen(), ["a/c", "list/g"]);
    }
}

//! Paths into JSON whose producers do not agree on the writing of names, and a note of what was looked at.

use landfall_image::{Error, Result};
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
        Some(Fields { value: self.look(paths, |_| true)?.1, seen: self.seen })
    }

    /// The value at the end of the first path that leads to one, and that path. It is marked as read where it is `fine`: a value of another
    /// type than the one that is wanted stays among the unread.
    fn look<'p>(&self, paths: &[&'p str], fine: fn(&Value) -> bool) -> Option<(&'p str, &'a Value)> {
        let find = |path: &&'p str| {
            let found = path.split('/').try_fold(self.value, |value, name| value.get(name));
            found.filter(|value| !value.is_null()).map(|value| (*path, value))
        };
        let (path, found) = paths.iter().find_map(find)?;
        if fine(found) {
            self.seen.borrow_mut().insert(found);
        }
        Some((path, found))
    }

    /// The text there: a string, or a number as it is written.
    pub fn text(&self, paths: &[&str]) -> Option<String> {
        match self.look(paths, |value| value.is_string() || value.is_number())?.1 {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The whole number there; some programs put it in quotes, or write it with a fraction of zero.
    ///
    /// # Errors
    /// Corrupt where something else is there: a machine with a number left out would be another one.
    pub fn number(&self, paths: &[&str]) -> Result<Option<u64>> {
        let Some((path, value)) = self.look(paths, |_| true) else { return Ok(None) };
        let text = match value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.trim().to_owned(),
            _ => String::new(),
        };
        let whole = text.strip_suffix(".0").unwrap_or(&text).parse().ok();
        let wrong = || Error::corrupt(format!("{path} = {value}, where a whole number is wanted"));
        whole.map(Some).ok_or_else(wrong)
    }

    /// Whether it is true there.
    pub fn is(&self, paths: &[&str]) -> bool {
        self.look(paths, Value::is_boolean).is_some_and(|(_, value)| value.as_bool().unwrap_or(false))
    }

    /// The elements of the list there.
    pub fn list(&self, paths: &[&str]) -> Vec<Fields<'a>> {
        let Some((_, found)) = self.look(paths, Value::is_array) else { return Vec::new() };
        let elements = found.as_array().map(Vec::as_slice).unwrap_or_default();
        elements.iter().map(|value| Fields { value, seen: self.seen }).collect()
    }

    /// Whether it is true.
    pub fn truth(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// The string that it is. It counts as read once [`Fields::known`] says so.
    pub fn word(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// Marks it as read.
    pub fn known(&self) {
        self.seen.borrow_mut().insert(self.value);
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
        assert_eq!(root.number(&["a/x", "a/b"]).unwrap(), Some(1));
        assert_eq!(
            root.list(&["list"]).iter().map(|one| one.number(&["f"]).unwrap()).collect::<Vec<_>>(),
            [Some(1), None]
        );
        assert_eq!((root.text(&["a/b"]).as_deref(), root.text(&["a/d"])), (Some("1"), None));
        assert_eq!(root.unseen(), ["a/c", "list/g"]);
    }

    /// What has another type than is wanted is not lost: it is refused where a number is wanted, and else named.
    #[test]
    fn other_types_are_not_passed_over() {
        let value =
            serde_json::json!({ "a": "1024", "b": 2.0, "c": 1.5, "d": [1], "e": "x,y", "f": "yes", "g": -1 });
        let seen = RefCell::default();
        let root = Fields::root(&value, &seen);
        assert_eq!((root.number(&["a"]).unwrap(), root.number(&["b"]).unwrap()), (Some(1024), Some(2)));
        for wrong in ["c", "d", "e", "g"] {
            let error = root.number(&[wrong]).unwrap_err();
            assert!(error.to_string().contains("where a whole number is wanted"), "{error}");
        }
        let other = RefCell::default();
        let root = Fields::root(&value, &other);
        assert!(root.list(&["e"]).is_empty() && !root.is(&["f"]) && root.text(&["d"]).is_none());
        assert_eq!(root.unseen(), ["a", "b", "c", "d", "e", "f", "g"]);
    }
}

//! One hive while a plan grows: reads see what was already planned, every change is an edit with what was there before.
//!
//! Paths of keys are below the hive's root, with `\` between names, in any case: `ControlSet001\Services\viostor`.

use super::data::Data;
use crate::Result;
use crate::patch::{RegistryChange, RegistryEdit};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name; empty for the key's default value.
    pub name: String,
    /// Its data.
    pub data: Data,
}

/// The keys of a hive. An absent key has no subkeys and no values.
pub trait Keys {
    /// True where there is such a key.
    fn exists(&self, key: &str) -> Result<bool>;
    /// Names of the keys directly below, sorted as Windows sorts them.
    fn subkeys(&self, key: &str) -> Result<Vec<String>>;
    /// Values, in their order.
    fn values(&self, key: &str) -> Result<Vec<Value>>;
    /// One value; names are compared without their case.
    fn value(&self, key: &str, name: &str) -> Result<Option<Data>>;
    /// Makes a key, with those above it.
    fn create(&mut self, key: &str) -> Result<()>;
    /// Sets a value, and makes its key where it is absent. An existing name keeps its case.
    fn set(&mut self, key: &str, name: &str, data: &Data) -> Result<()>;
    /// Removes a value; absent is fine.
    fn delete_value(&mut self, key: &str, name: &str) -> Result<()>;
    /// Removes a key with all below it; absent is fine.
    fn delete(&mut self, key: &str) -> Result<()>;
}

/// Does to a hive what an edit says.
///
/// # Errors
/// As the hive's own: damaged keys on the way, bounds.
pub fn apply(keys: &mut dyn Keys, edit: &RegistryEdit) -> Result<()> {
    match &edit.change {
        RegistryChange::Create => keys.create(&edit.key),
        RegistryChange::Set { name, data, .. } => keys.set(&edit.key, name, data),
        RegistryChange::DeleteValue { name, .. } => keys.delete_value(&edit.key, name),
        RegistryChange::Delete { .. } => keys.delete(&edit.key),
    }
}

/// A key and a value of it, or the key itself: what a plan settled. Lower case.
pub type Decided = (String, Option<String>);

/// A hive and the edits so far.
pub struct Registry {
    keys: Box<dyn Keys>,
    edits: Vec<RegistryEdit>,
    decided: BTreeSet<Decided>,
    /// For errors.
    file: Option<PathBuf>,
}

impl Registry {
    /// Nothing edited yet.
    pub fn new(keys: Box<dyn Keys>) -> Registry {
        Registry { keys, edits: Vec::new(), decided: BTreeSet::new(), file: None }
    }

    /// That of a file, which errors of edits name.
    pub fn of_file(keys: Box<dyn Keys>, path: &str) -> Registry {
        Registry { file: Some(path.into()), ..Registry::new(keys) }
    }

    /// True where there is such a key.
    pub fn exists(&self, key: &str) -> Result<bool> {
        self.keys.exists(key)
    }
    /// Names of the keys directly below; none where it is absent.
    pub fn subkeys(&self, key: &str) -> Result<Vec<String>> {
        self.keys.subkeys(key)
    }
    /// Its values; none where it is absent.
    pub fn values(&self, key: &str) -> Result<Vec<Value>> {
        self.keys.values(key)
    }
    /// One value.
    pub fn value(&self, key: &str, name: &str) -> Result<Option<Data>> {
        self.keys.value(key, name)
    }
    /// A number; `None` where it is absent or none.
    pub fn dword(&self, key: &str, name: &str) -> Result<Option<u32>> {
        Ok(self.value(key, name)?.and_then(|data| data.as_dword()))
    }
    /// A text; `None` where it is absent or none.
    pub fn text(&self, key: &str, name: &str) -> Result<Option<String>> {
        Ok(self.value(key, name)?.and_then(|data| data.as_text()))
    }
    /// Texts; none where they are absent.
    pub fn texts(&self, key: &str, name: &str) -> Result<Vec<String>> {
        Ok(self.value(key, name)?.and_then(|data| data.as_texts()).unwrap_or_default())
    }

    /// Makes a key, if it is not there.
    pub fn create(&mut self, key: &str, why: &str) -> Result<()> {
        self.decide(key, None);
        if !self.keys.exists(key)? {
            self.edit(key, RegistryChange::Create, why)?;
        }
        Ok(())
    }

    /// The value becomes this, if it is not so already. Missing keys are made.
    pub fn set(&mut self, key: &str, name: &str, data: Data, why: &str) -> Result<()> {
        self.decide(key, Some(name));
        let was = self.keys.value(key, name)?;
        if was.as_ref() == Some(&data) {
            return Ok(());
        }
        self.edit(key, RegistryChange::Set { name: name.to_owned(), data, was }, why)
    }

    /// Removes a value, if it is there.
    pub fn delete_value(&mut self, key: &str, name: &str, why: &str) -> Result<()> {
        self.decide(key, Some(name));
        match self.keys.value(key, name)? {
            Some(was) => self.edit(key, RegistryChange::DeleteValue { name: name.to_owned(), was }, why),
            None => Ok(()),
        }
    }

    /// Removes a key with all below it, if it is there.
    pub fn delete(&mut self, key: &str, why: &str) -> Result<()> {
        self.decide(key, None);
        if !self.keys.exists(key)? {
            return Ok(());
        }
        let values = self.keys.values(key)?.into_iter();
        let was = values.map(|value| (value.name, value.data)).take(VALUES_SHOWN).collect();
        self.edit(key, RegistryChange::Delete { was }, why)
    }

    /// The edits so far.
    pub fn edits(&self) -> &[RegistryEdit] {
        &self.edits
    }

    /// What the plan settled so far, also where it was so already and there is no edit of it.
    pub fn decided(&self) -> &BTreeSet<Decided> {
        &self.decided
    }

    /// The edits.
    pub fn finish(self) -> Vec<RegistryEdit> {
        self.edits
    }

    fn decide(&mut self, key: &str, name: Option<&str>) {
        self.decided.insert((key.to_lowercase(), name.map(str::to_lowercase)));
    }

    fn edit(&mut self, key: &str, change: RegistryChange, why: &str) -> Result<()> {
        let edit = RegistryEdit { key: key.to_owned(), change, why: why.to_owned() };
        apply(&mut *self.keys, &edit).map_err(|error| match &self.file {
            Some(file) => error.in_file(file),
            None => error,
        })?;
        self.edits.push(edit);
        Ok(())
    }
}

/// Of a key that is removed, so many of its values are told of.
const VALUES_SHOWN: usize = 32;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Keys in memory, for tests of what plans.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct MemKeys(BTreeMap<String, (String, Vec<Value>)>);

    fn fold(key: &str) -> String {
        key.trim_matches('\\').to_lowercase()
    }

    impl MemKeys {
        /// With values: `("Select", "Current", Data::dword(1))`.
        pub(crate) fn of(values: &[(&str, &str, Data)]) -> MemKeys {
            let mut keys = MemKeys::default();
            for (key, name, data) in values {
                keys.set(key, name, data).unwrap();
            }
            keys
        }
    }

    impl Keys for MemKeys {
        fn exists(&self, key: &str) -> Result<bool> {
            Ok(key.is_empty() || self.0.contains_key(&fold(key)))
        }
        fn subkeys(&self, key: &str) -> Result<Vec<String>> {
            let above = fold(key);
            let below = self.0.iter().filter(|(path, _)| match path.rsplit_once('\\') {
                Some((parent, _)) => parent == above,
                None => above.is_empty(),
            });
            Ok(below.map(|(_, (name, _))| name.clone()).collect())
        }
        fn values(&self, key: &str) -> Result<Vec<Value>> {
            Ok(self.0.get(&fold(key)).map(|(_, values)| values.clone()).unwrap_or_default())
        }
        fn value(&self, key: &str, name: &str) -> Result<Option<Data>> {
            let found = self.values(key)?.into_iter().find(|value| value.name.eq_ignore_ascii_case(name));
            Ok(found.map(|value| value.data))
        }
        fn create(&mut self, key: &str) -> Result<()> {
            let key = key.trim_matches('\\');
            let ends = key.match_indices('\\').map(|(at, _)| at).chain([key.len()]);
            for end in ends {
                let path = &key[..end];
                let name = path.rsplit('\\').next().unwrap_or(path).to_owned();
                self.0.entry(fold(path)).or_insert((name, Vec::new()));
            }
            Ok(())
        }
        fn set(&mut self, key: &str, name: &str, data: &Data) -> Result<()> {
            self.create(key)?;
            let (_, values) = self.0.get_mut(&fold(key)).unwrap();
            match values.iter_mut().find(|value| value.name.eq_ignore_ascii_case(name)) {
                Some(value) => value.data = data.clone(),
                None => values.push(Value { name: name.to_owned(), data: data.clone() }),
            }
            Ok(())
        }
        fn delete_value(&mut self, key: &str, name: &str) -> Result<()> {
            if let Some((_, values)) = self.0.get_mut(&fold(key)) {
                values.retain(|value| !value.name.eq_ignore_ascii_case(name));
            }
            Ok(())
        }
        fn delete(&mut self, key: &str) -> Result<()> {
            let path = fold(key);
            self.0.retain(|other, _| *other != path && !other.starts_with(&format!("{path}\\")));
            Ok(())
        }
    }

    #[test]
    fn reads_see_edits_and_what_is_so_already_is_none() {
        let mut registry = Registry::new(Box::new(MemKeys::of(&[("A\\b", "x", Data::dword(1))])));
        registry.set("a\\B", "X", Data::dword(1), "").unwrap();
        registry.set("A\\c", "y", Data::text("t"), "why").unwrap();
        assert_eq!(registry.text("a\\C", "Y").unwrap().as_deref(), Some("t"));
        assert_eq!(registry.subkeys("A").unwrap(), ["b", "c"]);
        registry.delete("A\\b", "").unwrap();
        registry.delete("A\\b", "").unwrap();
        registry.delete_value("A\\c", "none", "").unwrap();
        assert_eq!(registry.dword("A\\b", "x").unwrap(), None);
        let edits = registry.finish();
        assert_eq!(edits.len(), 2);
        assert_eq!(edits[1].change, RegistryChange::Delete { was: vec![("x".into(), Data::dword(1))] });
    }
}

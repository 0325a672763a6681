//! Lists of filter drivers, `UpperFilters` and `LowerFilters`, of device classes and of single devices.
//!
//! A filter that is named and does not load keeps every device of its class from starting, the disk among them (stop error
//! 7B). So names go out of the lists before their drivers are switched off, and come back after those are on again.

use crate::Result;
use crate::windows::before::Place;
use crate::windows::data::Data;
use crate::windows::draft::Draft;

const VALUES: [&str; 2] = ["UpperFilters", "LowerFilters"];

/// One list.
pub(super) struct List {
    /// Below the control set.
    key: String,
    value: &'static str,
    /// As they stand there.
    pub names: Vec<String>,
    /// As they stood before landfall took some out.
    before: Vec<String>,
}

/// Every list of the guest that names a filter, or did.
pub(super) fn lists(draft: &mut Draft<'_>) -> Result<Vec<List>> {
    let mut keys = Vec::new();
    for class in below(draft, "Control\\Class")? {
        keys.push(class);
    }
    // Enum\PCI\VEN_…\instance
    for bus in below(draft, "Enum")? {
        for device in below(draft, &bus)? {
            keys.extend(below(draft, &device)?);
        }
    }
    let mut lists = Vec::new();
    for key in keys {
        for value in VALUES {
            let place = Place::Control(&key, value);
            let texts = |data: Option<Data>| data.and_then(|data| data.as_texts()).unwrap_or_default();
            let names = texts(place.now(draft)?);
            let before = texts(place.before(draft)?.flatten());
            if !names.is_empty() || !before.is_empty() {
                lists.push(List { key: key.clone(), value, names, before });
            }
        }
    }
    Ok(lists)
}

fn below(draft: &Draft<'_>, key: &str) -> Result<Vec<String>> {
    let names = draft.registry.subkeys(&draft.system.key(key))?;
    Ok(names.into_iter().map(|name| format!("{key}\\{name}")).collect())
}

fn has(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn at(names: &[String], name: &str) -> Option<usize> {
    names.iter().position(|other| other.eq_ignore_ascii_case(name))
}

/// Puts those of `filters` into a list that stand in `others` and not in it, each behind the one that it stands behind there.
fn insert(names: &mut Vec<String>, others: &[String], filters: &[&str]) {
    for (index, filter) in others.iter().enumerate() {
        if !has(filters, filter) || at(names, filter).is_some() {
            continue;
        }
        let above = others.iter().take(index).rev().find_map(|name| at(names, name));
        names.insert(above.map_or(0, |above| above + 1), filter.clone());
    }
}

impl List {
    fn place(&self) -> Place<'_> {
        Place::Control(&self.key, self.value)
    }

    /// Takes `filters` out. True where one stood there.
    pub fn take_out(&mut self, draft: &mut Draft<'_>, filters: &[&str], why: &str) -> Result<bool> {
        let rest: Vec<String> = self.names.iter().filter(|name| !has(filters, name)).cloned().collect();
        if rest.len() == self.names.len() {
            return Ok(false);
        }
        if self.before.is_empty() {
            let was = self.place().now(draft)?;
            self.place().keep(draft, was)?;
            self.before.clone_from(&self.names);
        } else {
            // What an earlier pass took out has its place there already; what came since gets one.
            let mut before = self.before.clone();
            insert(&mut before, &self.names, filters);
            if before != self.before {
                self.place().keep(draft, Some(Data::texts(&before)))?;
                self.before = before;
            }
        }
        let data = (!rest.is_empty()).then(|| Data::texts(&rest));
        self.place().put(draft, data, why)?;
        self.names = rest;
        Ok(true)
    }

    /// Puts those of `filters` back that landfall took out. True where one came back.
    pub fn put_back(&mut self, draft: &mut Draft<'_>, filters: &[&str], why: &str) -> Result<bool> {
        if self.before.is_empty() {
            return Ok(false);
        }
        let mut names = self.names.clone();
        insert(&mut names, &self.before, filters);
        let is_changed = names != self.names;
        if is_changed {
            let kept = self.place().before(draft)?.flatten().filter(|_| names == self.before);
            self.place().put(draft, Some(kept.unwrap_or_else(|| Data::texts(&names))), why)?;
            self.names = names;
        }
        if self.before.iter().all(|name| at(&self.names, name).is_some()) {
            self.place().forget(draft)?;
            self.before.clear();
        }
        Ok(is_changed)
    }
}

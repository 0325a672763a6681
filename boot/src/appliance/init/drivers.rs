//! Which drivers the hardware at hand wants, and loading them.

use super::super::initrd;
use super::super::pattern::matches;
use crate::linux::kmod;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

/// The modules of the initrd.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    /// What each needs, in the order of loading.
    needs: BTreeMap<String, Vec<String>>,
    aliases: Vec<(String, String)>,
    always: Vec<String>,
    loaded: BTreeSet<String>,
    /// Names by which devices asked and that have been answered.
    answered: BTreeSet<String>,
    trouble: Vec<String>,
}

impl Drivers {
    /// From the list in the initrd (see [`initrd`]).
    pub(super) fn read(list: &str) -> Drivers {
        let mut drivers = Drivers::default();
        for line in list.lines() {
            let mut words = line.split_ascii_whitespace().map(str::to_owned);
            match (words.next().as_deref(), words.next()) {
                (Some("module"), Some(name)) => {
                    drivers.needs.insert(name, words.collect());
                }
                (Some("alias"), Some(pattern)) => {
                    drivers.aliases.extend(words.next().map(|name| (pattern, name)));
                }
                (Some("always"), Some(name)) => drivers.always.push(name),
                _ => {}
            }
        }
        drivers
    }

    /// Loads what the devices that are there by now want and have not got.
    pub(super) fn load_wanted(&mut self) {
        let mut wanted: Vec<String> = std::mem::take(&mut self.always);
        for alias in modaliases(Path::new("/sys/bus")) {
            if self.answered.insert(alias.clone()) {
                wanted.extend(self.matching(&alias));
            }
        }
        for name in wanted {
            self.load(&kmod::normal(&name));
        }
    }

    /// The modules that drive a device of this name.
    fn matching(&self, alias: &str) -> Vec<String> {
        self.aliases
            .iter()
            .filter(|(pattern, _)| matches(pattern, alias))
            .map(|(_, name)| name.clone())
            .collect()
    }

    fn load(&mut self, name: &str) {
        let needs = self.needs.get(name).cloned().unwrap_or_default();
        for name in needs.iter().map(String::as_str).chain([name]) {
            if !self.loaded.insert(name.to_owned()) {
                continue;
            }
            let path = format!("{}/{name}.ko", initrd::MODULES);
            let loaded = File::open(&path).and_then(|file| {
                Ok(rustix::system::finit_module(&file, c"", 0).or_else(|e| match e {
                    rustix::io::Errno::EXIST => Ok(()),
                    // A driver that finds no hardware of its own.
                    rustix::io::Errno::NODEV => Ok(()),
                    e => Err(e),
                })?)
            });
            if let Err(error) = loaded {
                self.trouble.push(format!("the driver {name} cannot be loaded: {error}"));
            }
        }
    }

    /// What could not be loaded.
    pub(super) fn trouble(&self) -> Vec<String> {
        self.trouble.clone()
    }

    /// Controllers without a driver here, as the kernel names them.
    pub(super) fn unanswered(&self) -> Vec<String> {
        // PCI base class 01: mass storage.
        let storage = modaliases(Path::new("/sys/bus"))
            .into_iter()
            .filter(|alias| alias.starts_with("pci:") && alias.contains("bc01"));
        storage.filter(|alias| self.matching(alias).is_empty()).collect()
    }
}

/// What the devices of the machine call themselves.
fn modaliases(buses: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for bus in fs::read_dir(buses).into_iter().flatten().flatten() {
        for device in fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten() {
            if let Ok(name) = fs::read_to_string(device.path().join("modalias")) {
                names.insert(name.trim_end().to_owned());
            }
        }
    }
    names.remove("");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_drives_what() {
        let drivers =
            Drivers::read("module a b c\nmodule b\nalias pci:v1* a\nalways b\nnonsense\n\nalias x\n");
        assert_eq!(drivers.matching("pci:v1d2"), ["a"]);
        assert_eq!(drivers.needs["a"], ["b", "c"]);
        assert_eq!(drivers.always, ["b"]);
        assert!(drivers.matching("pci:v2").is_empty());
    }
}

//! What is installed, as the guest's package manager has it: dpkg's, apk's and pacman's databases are read.
//!
//! RPM's is not, on purpose. It is binary, in three formats by release (Berkeley DB, ndb, SQLite), and holds 30 to 200
//! MiB on a server, all of which would come through the sandbox. Everything that a plan asks of it is told as surely by
//! a file that no other package brings; whoever asks by name names such files, too.

use super::dpkg::{self, Package};
use crate::Result;
use crate::tree::{GuestTree, GuestTreeExt};
use landfall_image::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The database of a desktop with everything installed is some 10 MiB long, with apk's lists of files 40.
const DATABASE_AT_MOST: Bytes = Bytes::mib(64);

/// More packages than any distribution has.
const PACKAGES_AT_MOST: usize = 1 << 17;

/// A package manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum World {
    /// Debian, Ubuntu.
    #[default]
    Dpkg,
    /// Red Hat, Fedora, SUSE.
    Rpm,
    /// Alpine.
    Apk,
    /// Arch.
    Pacman,
}

impl World {
    /// Where its database lies.
    pub fn database(self) -> &'static str {
        match self {
            World::Dpkg => dpkg::STATUS,
            World::Rpm => "/var/lib/rpm",
            World::Apk => "/lib/apk/db/installed",
            World::Pacman => "/var/lib/pacman/local",
        }
    }

    /// The order of two kernels' versions.
    pub fn order(self) -> fn(&str, &str) -> Ordering {
        match self {
            World::Dpkg => dpkg::compare_part,
            World::Rpm | World::Apk | World::Pacman => compare_segments,
        }
    }
}

/// Every installed package by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages {
    world: World,
    installed: BTreeMap<String, Package>,
}

impl Packages {
    /// Reads the guest's database; empty where there is none, and for RPM.
    pub fn read(world: World, tree: &dyn GuestTree) -> Result<Self> {
        let path = world.database();
        let installed = match world {
            World::Dpkg => dpkg::stanzas(&tree.read(path, DATABASE_AT_MOST)?.unwrap_or_default()),
            World::Apk => apk(&tree.read(path, DATABASE_AT_MOST)?.unwrap_or_default()),
            World::Pacman => {
                tree.names(path)?.iter().take(PACKAGES_AT_MOST).filter_map(|name| pacman(name)).collect()
            }
            World::Rpm => BTreeMap::new(),
        };
        Ok(Packages { world, installed })
    }

    /// From the text of dpkg's database, for tests. What is not understood is left out: a corrupt stanza hides only itself.
    #[cfg(test)]
    pub fn parse(status: &[u8]) -> Self {
        Packages { world: World::Dpkg, installed: dpkg::stanzas(status) }
    }

    /// Whose they are.
    pub fn world(&self) -> World {
        self.world
    }

    /// False where the database could have been read and was not, or lacks the package manager itself.
    pub fn is_sound(&self) -> bool {
        match self.world {
            World::Dpkg => self.has("dpkg"),
            World::Rpm => true,
            World::Apk => self.has("apk-tools"),
            World::Pacman => self.has("pacman"),
        }
    }

    /// The package, if it is installed.
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.installed.get(name)
    }

    /// True where it is known to be installed.
    pub fn has(&self, name: &str) -> bool {
        self.installed.contains_key(name)
    }

    /// True where it is known to be installed in this version or a later one.
    pub fn has_at_least(&self, name: &str, version: &str) -> bool {
        self.get(name).is_some_and(|package| dpkg::compare(&package.version, version) != Ordering::Less)
    }
}

/// apk's database: stanzas of one-letter fields, `P:` the name, `V:` the version, `A:` the architecture; the files below.
fn apk(database: &[u8]) -> BTreeMap<String, Package> {
    let text = String::from_utf8_lossy(database);
    let mut packages = BTreeMap::new();
    let (mut name, mut version, mut architecture) = ("", "", "");
    for line in text.lines().chain([""]) {
        match line.split_once(':') {
            Some(("P", value)) => name = value.trim(),
            Some(("V", value)) => version = value.trim(),
            Some(("A", value)) => architecture = value.trim(),
            None if line.trim().is_empty() => {
                if !name.is_empty() && !version.is_empty() {
                    let package =
                        Package { version: version.to_owned(), architecture: architecture.to_owned() };
                    packages.insert(name.to_owned(), package);
                }
                (name, version, architecture) = ("", "", "");
            }
            _ => {}
        }
    }
    packages
}

/// pacman has a folder for each package: `linux-lts-6.6.58-1` is `linux-lts`, version `6.6.58-1`.
fn pacman(folder: &str) -> Option<(String, Package)> {
    let (rest, release) = folder.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    let package = Package { version: format!("{version}-{release}"), architecture: String::new() };
    (!name.is_empty()).then(|| (name.to_owned(), package))
}

/// The order of versions as RPM and pacman have it: segments of digits and of letters, whatever is between; a number is
/// newer than letters, `~` sorts before the end and `^` right after it.
pub fn compare_segments(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let skip = |text: &mut &[u8]| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"~^".contains(byte);
            let start = text.iter().position(plain).unwrap_or(text.len());
            *text = text.get(start..).unwrap_or_default();
        };
        skip(&mut a);
        skip(&mut b);
        for (mark, without) in [(b'~', Ordering::Greater), (b'^', Ordering::Less)] {
            match (a.first() == Some(&mark), b.first() == Some(&mark)) {
                (true, true) | (false, false) => {}
                // A caret loses to anything but the end.
                (true, false) if mark == b'^' && !b.is_empty() => return Ordering::Less,
                (false, true) if mark == b'^' && !a.is_empty() => return Ordering::Greater,
                (true, false) => return without.reverse(),
                (false, true) => return without,
            }
        }
        if a.first().is_some_and(|byte| b"~^".contains(byte)) {
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
            continue;
        }
        let (Some(first), false) = (a.first(), b.is_empty()) else { return a.len().cmp(&b.len()) };
        let numeric = first.is_ascii_digit();
        let segment = |text: &[u8]| {
            let same = |byte: &u8| if numeric { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
            text.iter().position(|byte| !same(byte)).unwrap_or(text.len())
        };
        let ((one, rest_a), (two, rest_b)) = (a.split_at(segment(a)), b.split_at(segment(b)));
        if two.is_empty() {
            return if numeric { Ordering::Greater } else { Ordering::Less };
        }
        let order = match numeric {
            true => {
                let strip = |text: &'_ [u8]| text.iter().take_while(|byte| **byte == b'0').count();
                let (one, two) = (one.get(strip(one)..), two.get(strip(two)..));
                one.map(<[u8]>::len).cmp(&two.map(<[u8]>::len)).then_with(|| one.cmp(&two))
            }
            false => one.cmp(two),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;
    use proptest::prelude::*;

    #[test]
    fn text_databases_are_read() {
        let tree = MemTree::new()
            .file(
                "/lib/apk/db/installed",
                "C:Q1abc=\nP:apk-tools\nV:2.14.4-r1\nA:x86_64\nF:sbin\nR:apk\nZ:Q1x=\n\nP:qemu-guest-agent\nV:9.1.2-r1\nA:x86_64\n\nP:broken\n",
            )
            .dir("/var/lib/pacman/local/pacman-7.0.0.r3.g7736133-1")
            .dir("/var/lib/pacman/local/linux-lts-6.6.58-1")
            .file("/var/lib/pacman/local/ALPM_DB_VERSION", "9\n");
        let apk = Packages::read(World::Apk, &tree).unwrap();
        assert!(apk.is_sound() && apk.has("qemu-guest-agent") && !apk.has("broken"));
        assert_eq!(apk.get("apk-tools").unwrap().architecture, "x86_64");
        let pacman = Packages::read(World::Pacman, &tree).unwrap();
        assert!(pacman.is_sound() && !pacman.has("linux") && !pacman.has("ALPM_DB_VERSION"));
        assert_eq!(pacman.get("linux-lts").unwrap().version, "6.6.58-1");
        let none = MemTree::new();
        assert!(!Packages::read(World::Apk, &none).unwrap().is_sound());
        assert!(Packages::read(World::Rpm, &none).unwrap().is_sound());
    }

    #[test]
    fn kernels_of_rpm_sort_by_segments() {
        let sorted = [
            "5.14.0-427.el9.x86_64",
            "5.14.0-427.13.1.el9_4.x86_64",
            "5.14.0-427.40.1.el9_4.x86_64",
            "5.14.0-503.el9.x86_64",
            "6.11.5-arch1-1",
            "6.12.0-1",
        ];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(compare_segments(a, b), at.cmp(&other), "{a} {b}");
            }
        }
    }

    /// rpm itself is the judge.
    #[test]
    fn rpm_agrees() {
        let Some(rpm) = crate::testing::tool("rpm") else { return };
        let texts = [
            "1.0",
            "1.0~rc1",
            "1.0^git1",
            "1.0^git1~x",
            "1.0.1",
            "1.0a",
            "1a",
            "1",
            "01",
            "1_1",
            "a",
            "el9",
            "9",
        ];
        for a in texts {
            for b in texts {
                let ask = format!("%{{lua:print(rpm.vercmp('{a}', '{b}'))}}");
                let out = std::process::Command::new(&rpm).args(["--eval", &ask]).output().unwrap();
                let said = String::from_utf8_lossy(&out.stdout).trim().parse::<i32>().unwrap();
                assert_eq!(compare_segments(a, b), said.cmp(&0), "{a:?} {b:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn order_is_antisymmetric(a in "[0-9a-c.~^-]{0,12}", b in "[0-9a-c.~^-]{0,12}") {
            prop_assert_eq!(compare_segments(&a, &b), compare_segments(&b, &a).reverse());
            apk(a.as_bytes());
            pacman(&b);
        }
    }
}

//! The package database of dpkg, and its order of versions.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Where the database lies.
pub const STATUS: &str = "/var/lib/dpkg/status";

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// `1:2.02-1`
    pub version: String,
    /// `amd64`, `all`
    pub architecture: String,
}

/// The installed packages in the database's text. What is not understood is left out: a corrupt stanza hides only itself.
pub(super) fn stanzas(status: &[u8]) -> BTreeMap<String, Package> {
    let text = String::from_utf8_lossy(status);
    let mut packages = BTreeMap::new();
    let (mut name, mut version, mut architecture, mut installed) = ("", "", "", false);
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if installed && !name.is_empty() {
                let package = Package { version: version.to_owned(), architecture: architecture.to_owned() };
                packages.insert(name.to_owned(), package);
            }
            (name, version, architecture, installed) = ("", "", "", false);
        } else if let Some((field, value)) = line.split_once(':') {
            let value = value.trim();
            match field {
                "Package" => name = value,
                "Version" => version = value,
                "Architecture" => architecture = value,
                // Wanted, flag, state: `install ok installed`, `hold ok installed`.
                "Status" => {
                    installed = value.ends_with(" installed") || value.contains(" triggers-");
                }
                _ => {}
            }
        }
    }
    packages
}

/// The order of versions of deb-version(7): epoch, upstream, revision; `~` sorts before the end.
pub fn compare(a: &str, b: &str) -> Ordering {
    let split = |version: &str| -> (u64, String, String) {
        let (epoch, rest) = match version.split_once(':') {
            Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
                (epoch.parse().unwrap_or(u64::MAX), rest)
            }
            _ => (0, version),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| compare_part(&a.1, &b.1)).then_with(|| compare_part(&a.2, &b.2))
}

/// The order of two texts by turns of non-digits and numbers, as dpkg compares each part of a version.
pub fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        // The run of non-digits: letters before everything else, `~` before even the end.
        loop {
            let digit = |text: &[u8]| text.first().is_none_or(u8::is_ascii_digit);
            if digit(a) && digit(b) {
                break;
            }
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (number_a, rest_a) = number(a);
        let (number_b, rest_b) = number(b);
        let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// The number at the start without leading zeros, as digits of any length.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let zeros = text.iter().take_while(|byte| **byte == b'0').count();
    let text = text.get(zeros..).unwrap_or_default();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::packages::Packages;
    use proptest::prelude::*;

    #[test]
    fn versions_sort_as_dpkg_sorts_them() {
        let sorted = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+deb12u1",
            "1.0-2",
            "1.0a-1",
            "1.0+b-1",
            "1.2-1",
            "1.10-1",
            "1:0.1-1",
            "2:0-0",
        ];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} {b}");
            }
        }
        let kernels =
            ["4.19.0-27-amd64", "5.10.0-9-amd64", "5.10.0-32-amd64", "6.1.0-43-amd64", "6.12.9+deb13-amd64"];
        assert!(kernels.windows(2).all(|pair| compare_part(pair[0], pair[1]) == Ordering::Less));
    }

    /// dpkg itself is the judge.
    #[test]
    fn dpkg_agrees() {
        let pairs = [
            ("6.1.0-43-amd64", "6.1.0-9-amd64"),
            ("1.0~~", "1.0~"),
            ("1.0~", "1.0"),
            ("1.0", "1.0+"),
            ("0:1", "1"),
            ("1.00", "1.0"),
            ("1.0-0", "1.0"),
            ("a", "1"),
            ("1a", "1+"),
            ("3.0.1-rc2", "3.0.1-rc10"),
            ("99999999999999999999", "1"),
        ];
        for (a, b) in pairs {
            let ask = |relation: &str| {
                std::process::Command::new("dpkg")
                    .args(["--compare-versions", a, relation, b])
                    .stderr(std::process::Stdio::null())
                    .status()
            };
            let Ok(less) = ask("lt") else {
                eprintln!("SKIPPED: dpkg is not installed, so its order of versions was not compared");
                return;
            };
            let equal = ask("eq").unwrap().success();
            let expected = match (less.success(), equal) {
                (true, _) => Ordering::Less,
                (_, true) => Ordering::Equal,
                _ => Ordering::Greater,
            };
            assert_eq!(compare(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_installed_packages_count() {
        let packages = Packages::parse(
            b"Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21.22\nDescription: x\n long \xff text\n\n\
              Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: held\nStatus: hold ok installed\nVersion: 2",
        );
        assert_eq!(packages.get("dpkg").unwrap().architecture, "amd64");
        assert!(
            !packages.has("gone")
                && packages.has_at_least("held", "2")
                && !packages.has_at_least("held", "2.1")
        );
    }

    proptest! {
        #[test]
        fn order_is_antisymmetric(a in "[0-9a-z.+~:-]{0,12}", b in "[0-9a-z.+~:-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            Packages::parse(a.as_bytes());
        }
    }
}

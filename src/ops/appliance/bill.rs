//! The bill of materials: which packages and libraries are in the image, each with its version and digest.
//!
//! Source: SPDX 2.3 (ISO/IEC 5962), JSON form. Licence texts: each Debian package's own `copyright` stays in
//! `/usr/share/doc`, where those of the libraries in the program lie as well: gathered from their sources by `tools/licences.sh`.

use super::build::Parts;
use super::fetch::hex;
use landfall_boot::appliance::root::Root;
use landfall_image::{Error, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Where it lies in the root.
pub const PLACE: &str = "/usr/share/landfall/sbom.spdx.json";

/// The licences of the libraries in the program: a list, then the texts.
const LICENCES: &[u8] = include_bytes!("../../../packaging/appliance/licences.txt.zst");
/// Where they lie in the root.
const LICENCES_PLACE: &str = "/usr/share/doc/landfall/licences.txt";

/// The libraries that the program was built with, as cargo locked them.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Puts the bill and the program's licences into the root.
pub fn put(root: &mut Root, parts: &Parts) -> Result<()> {
    for (name, text) in [
        ("LICENSE-MIT", include_str!("../../../LICENSE-MIT")),
        ("LICENSE-APACHE", include_str!("../../../LICENSE-APACHE")),
    ] {
        root.file(&format!("/usr/share/landfall/{name}"), 0o444, text);
    }
    root.file(LICENCES_PLACE, 0o444, licences()?);
    root.file(PLACE, 0o444, bill(parts)?);
    Ok(())
}

fn licences() -> Result<String> {
    let damaged = |e: std::io::Error| Error::io("cannot unpack the libraries' licences", e);
    String::from_utf8(zstd::decode_all(LICENCES).map_err(damaged)?)
        .map_err(|e| Error::corrupt(format!("the libraries' licences are no text: {e}")))
}

/// What libraries declare, by `NAME vVERSION`: the list at the beginning of the licences.
fn declared(licences: &str) -> BTreeMap<&str, String> {
    let lines = licences.lines().take_while(|line| !line.starts_with("---"));
    lines
        .filter_map(|line| {
            let mut parts = line.split("  ");
            // Cargo's old way to write it.
            Some((parts.next()?, parts.next()?.replace('/', " OR ")))
        })
        .collect()
}

/// The bill, as a file.
///
/// # Errors
/// Where the moment of the list is none.
pub fn bill(parts: &Parts) -> Result<Vec<u8>> {
    let snapshot = &parts.list.snapshot;
    let created = moment(snapshot)
        .ok_or_else(|| Error::corrupt(format!("the package list's moment {snapshot:?} is none")))?;
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-landfall",
        "name": "landfall",
        "versionInfo": env!("CARGO_PKG_VERSION"),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "MIT OR Apache-2.0",
        "licenseDeclared": "MIT OR Apache-2.0",
        "copyrightText": "NOASSERTION",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": hex(&Sha256::digest(&parts.program)) }],
    })];
    packages.extend(parts.list.packages.iter().map(|package| {
        let version = package.version.replace('+', "%2B").replace(':', "%3A");
        json!({
            "SPDXID": id("deb", &package.name, &package.version),
            "name": package.name,
            "versionInfo": package.version,
            "supplier": "Organization: Debian",
            "downloadLocation": format!("http://snapshot.debian.org/archive/{}/{snapshot}/{}", package.archive, package.path),
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "licenseComments": format!("/usr/share/doc/{}/copyright in the image", package.name),
            "copyrightText": "NOASSERTION",
            "checksums": [{ "algorithm": "SHA256", "checksumValue": package.sha256 }],
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:deb/debian/{}@{version}?arch=amd64", package.name),
            }],
        })
    }));
    let licences = licences()?;
    let declared = declared(&licences);
    packages.extend(crates(LOCK).map(|(name, version, checksum)| {
        let licence = declared.get(&*format!("{name} v{version}")).map_or("NOASSERTION", String::as_str);
        let mut package = json!({
            "SPDXID": id("crate", name, version),
            "name": name,
            "versionInfo": version,
            "downloadLocation": format!("https://crates.io/crates/{name}/{version}"),
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence,
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:cargo/{name}@{version}"),
            }],
        });
        if let Some(sum) = checksum {
            package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sum }]);
        }
        package
    }));
    let contained: Vec<Value> = packages
        .iter()
        .skip(1)
        .map(|package| {
            json!({
                "spdxElementId": "SPDXRef-landfall",
                "relationshipType": if package["supplier"].is_null() { "CONTAINS" } else { "DEPENDS_ON" },
                "relatedSpdxElement": package["SPDXID"],
            })
        })
        .collect();
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-landfall",
    })];
    relationships.extend(contained);
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "landfall-appliance",
        "documentNamespace": format!(
            "https://landfall.invalid/spdx/{}-{}",
            env!("CARGO_PKG_VERSION"),
            hex(&Sha256::digest(&parts.program))
        ),
        "creationInfo": { "created": created, "creators": [concat!("Tool: landfall-", env!("CARGO_PKG_VERSION"))] },
        "packages": packages,
        "relationships": relationships,
    });
    serde_json::to_vec_pretty(&document)
        .map_err(|e| Error::corrupt(format!("the bill of materials cannot be written: {e}")))
}

/// `20261130T000000Z` as `2026-11-30T00:00:00Z`.
fn moment(snapshot: &str) -> Option<String> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", snapshot).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// An identifier: letters, digits, `.` and `-`.
fn id(kind: &str, name: &str, version: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    };
    format!("SPDXRef-{kind}-{}-{}", plain(name), plain(version))
}

/// Name, version and SHA-256 of the libraries in a lock file; our own have no digest and are left out.
fn crates(lock: &str) -> impl Iterator<Item = (&str, &str, Option<&str>)> {
    lock.split("[[package]]").skip(1).filter_map(|entry| {
        let value = |key: &str| {
            entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        value("source")?;
        Some((value("name")?, value("version")?, value("checksum")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_boot::appliance::package::List;

    #[test]
    fn the_bill_names_packages_and_libraries() {
        let list = List::parse(super::super::files::PACKAGES).unwrap();
        let packages = list.packages.len();
        let parts = Parts { list, program: b"x".to_vec(), update_key: None, level: 3 };
        let one = bill(&parts).unwrap();
        assert_eq!(one, bill(&parts).unwrap());
        let document: Value = serde_json::from_slice(&one).unwrap();
        let listed = document["packages"].as_array().unwrap();
        assert!(listed.len() > packages + 100, "{}", listed.len());
        let mut ids: Vec<&str> = listed.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
        let rustls = listed.iter().find(|package| package["name"] == "rustls").unwrap();
        assert_eq!(rustls["licenseDeclared"], "Apache-2.0 OR ISC OR MIT");
        let mut root = Root::default();
        put(&mut root, &parts).unwrap();
        let text = String::from_utf8(root.read(LICENCES_PLACE).unwrap().to_vec()).unwrap();
        assert!(text.contains("Permission is hereby granted") && text.contains("Apache License"));
        assert!(!listed.iter().any(|package| package["name"] == "landfall-image"));
    }
}

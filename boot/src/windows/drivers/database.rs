//! The driver database of Windows 8 and newer: a package is added as Windows adds one. Nothing of it is documented; what is
//! written here was read from databases that Windows wrote (VMware's and VirtualBox's packages in hives of 8.1 and 10, and
//! virtio-win's in images of other converters).
//!
//! ```text
//! DriverDatabase                         in SYSTEM for classes that a start needs, else in the hive System32\config\DRIVERS
//!   OemInfMap                            a bit for each oemN.inf, the first one the highest; in SYSTEM for both
//!   DriverInfFiles\oem3.inf              (default) labels, Active label, Configurations names
//!   DeviceIds\PCI\VEN_…                  oem3.inf = [1 the hardware id, 2 a compatible one] [feature score] [which one u16]
//!   DeviceIds\{class}                    oem3.inf = nothing
//!   DriverPackages\<label>               (default) oem3.inf, Catalog, InfName, Provider, SignerName, SignerScore, StatusFlags
//!     Version                            00 ff, architecture u16, 0 u32, class GUID, day as FILETIME, version u64, 0 u64
//!     Configurations\<install>           Service, ConfigFlags, ConfigScope; Device, Driver and Services hold their values
//!     Descriptors\PCI\VEN_…              Configuration, Description, Manufacturer
//!     Strings                            texts of %tokens%, in lower case
//! label: viostor.inf_amd64_<16 hex>
//! ```
//! Windows makes the hexadecimal part from the package by a way of its own; here it is the start of a SHA-256 over it
//! ([`Chosen::identity`]): only its form matters, and the same package always has the same. Left out, as old packages have
//! none: the day of import, the folder it came from, its size.

use super::choose::Chosen;
use super::inf::decoration;
use super::inf::install::{Install, Package};
use super::inf::registry;
use super::service::{self, Place};
use crate::Result;
use crate::tree::GuestTreeExt;
use crate::windows::data::{Data, REG_NONE};
use crate::windows::draft::{Draft, Version};
use crate::windows::registry::Registry;
use crate::windows::services;

/// Catalogues of drivers are kept below this folder, by the number of the system's policy for them.
const CATALOGUES: &str = "System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";

/// Numbers of oemN.inf that are tried; Windows itself stops at five digits.
const OEM_AT_MOST: u32 = 65_536;

const DATABASE: &str = "DriverDatabase";

/// Signed by Microsoft for the manufacturer, in the scores of 8 and of 10, and signed by someone else.
const SCORE_WHQL: u32 = 0x0d00_0004;
const SCORE_WHQL_TEN: u32 = 0x0d00_0005;
const SCORE_AUTHENTICODE: u32 = 0x0f00_0000;

/// Imported, and its devices are in the database.
const STATUS: u32 = 0x12;

/// The hive that holds the package: SYSTEM, or the one of drivers that no start needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    System,
    Drivers,
}

fn drivers_hive(draft: &Draft<'_>) -> String {
    draft.system.path("System32/config/DRIVERS")
}

fn open<'d>(draft: &'d mut Draft<'_>, home: Home) -> Result<&'d mut Registry> {
    let path = drivers_hive(draft);
    match home {
        Home::System => Ok(&mut draft.registry),
        Home::Drivers => draft.hive(&path)?.ok_or_else(|| crate::Error::corrupt(format!("{path} is gone"))),
    }
}

/// Windows keeps the classes that it starts from in SYSTEM: those whose own INF files are there.
fn home(draft: &Draft<'_>, package: &Package) -> Result<Home> {
    let class = format!("{DATABASE}\\DeviceIds\\{}", class(package));
    Ok(match draft.registry.exists(&class)? || !draft.scene.tree.exists(&drivers_hive(draft))? {
        true => Home::System,
        false => Home::Drivers,
    })
}

fn class(package: &Package) -> String {
    package.class.braced().to_string()
}

/// A package of the same name and provider that the guest has.
struct Known {
    label: String,
    oem: String,
    version: u64,
    date: u64,
}

/// Adds a package, and gives the path of its INF file in the guest.
pub(super) fn register(draft: &mut Draft<'_>, chosen: &Chosen) -> Result<String> {
    let home = home(draft, &chosen.package)?;
    let known = known(draft, chosen, home)?;
    let (version, date) = (packed(chosen.package.version), filetime(chosen.package.date));
    let newer = known.iter().find(|known| (known.date, known.version) > (date, version));
    if let Some(newer) = newer
        && keep(draft, chosen, newer)?
    {
        return Ok(repository(draft, &newer.label, chosen.driver.inf()));
    }
    let same = known.iter().find(|known| (known.date, known.version) == (date, version));
    let (label, oem) = match same {
        Some(same) => (same.label.clone(), same.oem.clone()),
        None => (label(draft, chosen), next_oem(draft)?),
    };
    let place = Place {
        package: format!("System32\\DriverStore\\FileRepository\\{label}"),
        owner: Some(&oem),
        runs_from_store: true,
    };
    files(draft, chosen, &label, &oem)?;
    for install in &chosen.package.installs {
        service::copy_files(draft, chosen, install, &place)?;
        service::write(draft, chosen, install, &place)?;
        lock(draft, chosen, install, &place)?;
    }
    let system = draft.system.version;
    let architecture = architecture(draft);
    let registry = open(draft, home)?;
    describe(registry, chosen, &label, &oem, (system, architecture))?;
    devices(registry, chosen, &oem)?;
    if home == Home::System {
        configurations(registry, chosen, &label, &oem, system)?;
    }
    mark_oem(&mut draft.registry, &oem)?;
    Ok(repository(draft, &label, chosen.driver.inf()))
}

/// A newer package stays, if what it needs at the start is there; else the older one is put beside it.
fn keep(draft: &mut Draft<'_>, chosen: &Chosen, newer: &Known) -> Result<bool> {
    let Some((_, function)) = chosen.function() else { return Ok(false) };
    let key = draft.system.key(&format!("Services\\{}", function.name));
    if chosen.driver.is_storage() {
        if !services::is_installed(&draft.registry, &draft.system, draft.scene.tree, &function.name)? {
            return Ok(false);
        }
        let why = format!("Windows starts from disks of the driver {}.", function.name);
        draft.registry.set(&key, "Start", Data::dword(0), &why)?;
        draft.registry.delete(&format!("{key}\\StartOverride"), &why)?;
    }
    service::is_newer(
        draft,
        &format!("The package {}", newer.label),
        unpacked(newer.version),
        chosen.package.version,
    );
    Ok(true)
}

fn repository(draft: &Draft<'_>, label: &str, file: &str) -> String {
    draft.system.path(&format!("System32/DriverStore/FileRepository/{label}/{file}"))
}

fn label(draft: &Draft<'_>, chosen: &Chosen) -> String {
    format!("{}_{}_{}", chosen.driver.inf(), decoration::architecture(&draft.system), chosen.identity())
}

/// The number of the processor's architecture (winnt.h).
fn architecture(draft: &Draft<'_>) -> u16 {
    match draft.system.architecture.as_str() {
        "x86_64" => 9,
        "aarch64" => 12,
        _ => 0,
    }
}

fn packed(version: [u16; 4]) -> u64 {
    version.iter().fold(0, |packed, part| packed << 16 | u64::from(*part))
}

fn unpacked(version: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = version.to_be_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_be_bytes)
}

/// A day, in tenths of microseconds since 1601.
fn filetime((year, month, day): (u16, u8, u8)) -> u64 {
    // Days of the proleptic Gregorian calendar, years from March on.
    let (month, day) = (u64::from(month), u64::from(day));
    let year = u64::from(year) - u64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year;
    // 1601-01-01 by the same count.
    const START: u64 = 584_694;
    days.saturating_sub(START) * 86_400 * 10_000_000
}

fn known(draft: &mut Draft<'_>, chosen: &Chosen, home: Home) -> Result<Vec<Known>> {
    let prefix = format!("{}_{}_", chosen.driver.inf(), decoration::architecture(&draft.system));
    let registry = open(draft, home)?;
    let packages = format!("{DATABASE}\\DriverPackages");
    let mut known = Vec::new();
    for label in registry.subkeys(&packages)? {
        if !label.to_lowercase().starts_with(&prefix) {
            continue;
        }
        let key = format!("{packages}\\{label}");
        let text = |name: &str| registry.text(&key, name);
        let is_ours = text("Provider")?.is_some_and(|provider| provider == chosen.package.provider);
        let bytes = registry.value(&key, "Version")?.map(|data| data.bytes).unwrap_or_default();
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if let (true, Some(oem), Some(date), Some(version)) = (is_ours, text("")?, number(24), number(32)) {
            known.push(Known { label, oem, version, date });
        }
    }
    known.sort_by_key(|known| std::cmp::Reverse((known.date, known.version)));
    Ok(known)
}

/// Bytes of the map of numbers that are taken.
fn oem_map(registry: &Registry) -> Result<Vec<u8>> {
    Ok(registry.value(DATABASE, "OemInfMap")?.map(|data| data.bytes).unwrap_or_default())
}

fn is_taken(map: &[u8], number: u32) -> bool {
    let byte = usize::try_from(number / 8).ok().and_then(|at| map.get(at));
    byte.is_some_and(|byte| byte & (0x80 >> (number % 8)) != 0)
}

fn oem_number(name: &str) -> Option<u32> {
    let folded = name.to_lowercase();
    folded.strip_prefix("oem")?.strip_suffix(".inf")?.parse().ok().filter(|number| *number < OEM_AT_MOST)
}

/// The first number that neither the map, nor the database, nor the folder of INF files knows.
fn next_oem(draft: &mut Draft<'_>) -> Result<String> {
    let mut taken: Vec<u32> = Vec::new();
    let mut maps = vec![oem_map(&draft.registry)?];
    let mut names = draft.registry.subkeys(&format!("{DATABASE}\\DriverInfFiles"))?;
    if draft.scene.tree.exists(&drivers_hive(draft))? {
        let drivers = open(draft, Home::Drivers)?;
        maps.push(oem_map(drivers)?);
        names.extend(drivers.subkeys(&format!("{DATABASE}\\DriverInfFiles"))?);
    }
    let folder = draft.system.path("INF");
    names.extend(draft.scene.tree.names(&folder)?);
    taken.extend(names.iter().filter_map(|name| oem_number(name)));
    taken.sort_unstable();
    let is_free =
        |number: &u32| taken.binary_search(number).is_err() && !maps.iter().any(|map| is_taken(map, *number));
    let free = (0..OEM_AT_MOST).find(is_free);
    let free = free
        .ok_or_else(|| crate::Error::refused(format!("all {OEM_AT_MOST} numbers of oemN.inf are taken")))?;
    Ok(format!("oem{free}.inf"))
}

fn mark_oem(registry: &mut Registry, oem: &str) -> Result<()> {
    let Some(number) = oem_number(oem) else { return Ok(()) };
    let mut map = oem_map(registry)?;
    let at = usize::try_from(number / 8).unwrap_or(0);
    if map.len() <= at {
        map.resize(at + 1, 0);
    }
    if let Some(byte) = map.get_mut(at) {
        *byte |= 0x80 >> (number % 8);
    }
    let why = "Windows knows by it that the number of the INF file is taken.";
    registry.set(DATABASE, "OemInfMap", Data::binary(map), why)
}

/// The package in the store, its INF file and its catalogue where Windows looks for them.
fn files(draft: &mut Draft<'_>, chosen: &Chosen, label: &str, oem: &str) -> Result<()> {
    let driver = chosen.driver.folder();
    for file in &chosen.files {
        let path = repository(draft, label, &file.path);
        let why = format!("Windows installs devices of the driver {driver} from its store.");
        service::write_absent(draft, &path, &file.bytes, &why)?;
    }
    let stem = oem.strip_suffix(".inf").unwrap_or(oem);
    let places = [
        (format!("INF/{oem}"), chosen.files.first(), "Windows finds the driver by its INF file."),
        (
            format!("{CATALOGUES}/{stem}.cat"),
            chosen.files.get(1),
            "Windows finds the signature of the driver's files in it.",
        ),
    ];
    for (path, file, why) in places {
        if let Some(file) = file {
            service::write_absent(draft, &draft.system.path(&path), &file.bytes, why)?;
        }
    }
    Ok(())
}

/// Locks the files that the installation copies, as its INF file asks.
fn lock(draft: &mut Draft<'_>, chosen: &Chosen, install: &Install, place: &Place<'_>) -> Result<()> {
    let locked = if chosen.package.is_locked { install.copies.as_slice() } else { &[] };
    for copy in locked {
        let (Some(target), Some(owner)) = (place.target(copy), place.owner) else { continue };
        let key =
            format!("Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles\\%SystemRoot%/{target}");
        let source = format!("%SystemRoot%\\{}\\{}", place.package, copy.from.replace('/', "\\"));
        let why = "Windows guards the file, as the driver's INF file asks.";
        draft.software.set(&key, "Class", Data::dword(4), why)?;
        draft.software.set(&key, "Owners", Data::texts([owner]), why)?;
        draft.software.set(&key, "Source", Data::expand(&source), why)?;
    }
    Ok(())
}

/// Sets a value that is not there: what Windows itself wrote stays.
fn add(registry: &mut Registry, key: &str, name: &str, data: Data, why: &str) -> Result<()> {
    match registry.value(key, name)? {
        Some(_) => Ok(()),
        None => registry.set(key, name, data, why),
    }
}

const WHY: &str = "The driver database lists the package, as if Windows had added it.";

/// The package itself, and its INF file.
fn describe(
    registry: &mut Registry,
    chosen: &Chosen,
    label: &str,
    oem: &str,
    (system, architecture): (Version, u16),
) -> Result<()> {
    let package = &chosen.package;
    let key = format!("{DATABASE}\\DriverPackages\\{label}");
    let signer = chosen.catalogue.signer.clone().unwrap_or_default();
    let score = match signer.contains("Microsoft Windows Hardware Compatibility") {
        true if system >= Version::TEN => SCORE_WHQL_TEN,
        true => SCORE_WHQL,
        false => SCORE_AUTHENTICODE,
    };
    let mut version = vec![0, 0xff];
    version.extend(architecture.to_le_bytes());
    version.extend([0; 4]);
    version.extend(package.class.to_bytes_le());
    version.extend(filetime(package.date).to_le_bytes());
    version.extend(packed(package.version).to_le_bytes());
    version.extend([0; 8]);
    for (name, data) in [
        ("", Data::text(oem)),
        ("Catalog", Data::text(&package.catalogue)),
        ("InfName", Data::text(chosen.driver.inf())),
        ("Provider", Data::text(&package.provider)),
        ("SignerName", Data::text(&signer)),
        ("SignerScore", Data::dword(score)),
        ("StatusFlags", Data::dword(STATUS)),
        ("Version", Data::binary(version)),
    ] {
        add(registry, &key, name, data, WHY)?;
    }
    let key = format!("{DATABASE}\\DriverInfFiles\\{oem}");
    let mut labels = registry.texts(&key, "")?;
    if !labels.iter().any(|other| other.eq_ignore_ascii_case(label)) {
        labels.push(label.to_owned());
        registry.set(&key, "", Data::texts(labels), WHY)?;
    }
    registry.set(&key, "Active", Data::text(label), WHY)
}

/// The devices that the package is for.
fn devices(registry: &mut Registry, chosen: &Chosen, oem: &str) -> Result<()> {
    let package = &chosen.package;
    let nothing = Data { kind: REG_NONE, bytes: Vec::new() };
    registry.set(&format!("{DATABASE}\\DeviceIds\\{}", class(package)), oem, nothing, WHY)?;
    let mut seen: Vec<&str> = Vec::new();
    for device in &package.devices {
        let score = package.installs.get(device.install).map_or(0xff, |install| install.feature_score);
        for (id, index) in device.ids.iter().zip(0u16..) {
            // The first mention counts.
            if seen.iter().any(|other| other.eq_ignore_ascii_case(id)) {
                continue;
            }
            seen.push(id);
            let [low, high] = index.saturating_sub(1).to_le_bytes();
            let data = Data::binary([if index == 0 { 1 } else { 2 }, score, low, high]);
            registry.set(&format!("{DATABASE}\\DeviceIds\\{id}"), oem, data, WHY)?;
        }
    }
    Ok(())
}

/// How its devices are set up, for those that Windows must have before it can install anything.
fn configurations(
    registry: &mut Registry,
    chosen: &Chosen,
    label: &str,
    oem: &str,
    system: Version,
) -> Result<()> {
    const WHY: &str = "Windows sets the device up by it before it can install anything.";
    let package = &chosen.package;
    let key = format!("{DATABASE}\\DriverPackages\\{label}");
    let mut names: Vec<&str> = Vec::new();
    for install in &package.installs {
        names.push(&install.name);
        let key = format!("{key}\\Configurations\\{}", install.name);
        let service = install.function().map_or("", |service| service.name.as_str());
        add(registry, &key, "ConfigFlags", Data::dword(0), WHY)?;
        if system >= Version::TEN {
            let scope = if install.device.is_empty() { 5 } else { 7 };
            add(registry, &key, "ConfigScope", Data::dword(scope), WHY)?;
        }
        if !install.includes.is_empty() {
            add(registry, &key, "IncludedInfs", Data::texts(&install.includes), WHY)?;
        }
        add(registry, &key, "Service", Data::text(service), WHY)?;
        registry::apply(&install.device, registry, &format!("{key}\\Device"), WHY)?;
        registry::apply(&install.driver, registry, &format!("{key}\\Driver"), WHY)?;
        for service in &install.services {
            registry::apply(&service.entries, registry, &format!("{key}\\Services\\{}", service.name), WHY)?;
        }
    }
    let listed = format!("{DATABASE}\\DriverInfFiles\\{oem}");
    registry.set(&listed, "Configurations", Data::texts(&names), WHY)?;
    let mut strings: Vec<(String, String)> = Vec::new();
    for device in &package.devices {
        let Some(install) = package.installs.get(device.install) else { continue };
        for id in &device.ids {
            let key = format!("{key}\\Descriptors\\{id}");
            add(registry, &key, "Configuration", Data::text(&install.name), WHY)?;
            for (name, written) in
                [("Description", &device.description), ("Manufacturer", &device.manufacturer)]
            {
                let token = written.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
                let text = match token.and_then(|token| Some((token, chosen.inf.string(token)?))) {
                    Some((token, text)) => {
                        strings.push((token.to_lowercase(), text.to_owned()));
                        written.to_lowercase()
                    }
                    None => chosen.inf.expand(written)?,
                };
                add(registry, &key, name, Data::text(&text), WHY)?;
            }
        }
    }
    for (token, text) in strings {
        add(registry, &format!("{key}\\Strings"), &token, Data::text(&text), WHY)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days and versions as Windows wrote them (VMware's packages, virtio-win's).
    #[test]
    fn days_and_versions_are_those_of_windows() {
        let read = |hex: [u8; 8]| u64::from_le_bytes(hex);
        assert_eq!(filetime((2019, 7, 11)), read([0, 0x80, 0x24, 0x95, 0x7b, 0x37, 0xd5, 1]));
        assert_eq!(filetime((2021, 12, 2)), read([0, 0xc0, 0x97, 0x8c, 0x0f, 0xe7, 0xd7, 1]));
        assert_eq!(filetime((2020, 2, 29)) + 864_000_000_000, filetime((2020, 3, 1)));
        assert_eq!(filetime((1601, 1, 1)), 0);
        assert_eq!(packed([100, 90, 104, 21500]), read([0xfc, 0x53, 0x68, 0, 0x5a, 0, 0x64, 0]));
        assert_eq!(unpacked(packed([9, 8, 16, 0])), [9, 8, 16, 0]);
    }

    #[test]
    fn numbers_are_taken_from_the_highest_bit_on() {
        let taken = |map: &[u8]| (0..24).filter(|number| is_taken(map, *number)).collect::<Vec<_>>();
        assert_eq!(taken(&[0xe0]), [0, 1, 2]);
        assert_eq!(taken(&[0xff, 0xf0]), (0..12).collect::<Vec<_>>());
        assert_eq!(oem_number("OEM12.INF"), Some(12));
        assert_eq!(oem_number("oem.inf"), None);
        assert_eq!(oem_number("oem99999999999.inf"), None);
    }
}

//! What a Windows guest is: version, edition, architecture, name, drivers.
//!
//! Sources: `SOFTWARE\Microsoft\Windows NT\CurrentVersion` and `SYSTEM\Select` (Microsoft, "Select"), compared with real hives.

use super::boot::letters::Letter;
use super::draft::{System, Version};
use super::hardware;
use super::registry::Registry;
use super::services::{self, Start};
use crate::Result;
use crate::guest::Fact;
use crate::tree::{GuestTree, GuestTreeExt, NodeKind};
use landfall_image::Bytes;
use serde::Serialize;

/// What is known of a Windows guest beyond what every guest has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Windows {
    /// `EditionID`: `Professional`, `ServerStandard`.
    pub edition: Fact<String>,
    /// Version with build and revision: `10.0.19045.3803`.
    pub build: Fact<String>,
    /// The control set that the next start takes: `ControlSet001`.
    pub control_set: Fact<String>,
    /// The clock that it expects in hardware is in universal time, else in local time.
    pub clock_is_universal: Fact<bool>,
    /// Its drive letters.
    pub letters: Vec<Letter>,
    /// Drivers of disks and network cards that it has, of those that matter to a move.
    pub drivers: Vec<Driver>,
}

/// A driver of a disk controller or a network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Driver {
    /// Its service: `storahci`.
    pub name: String,
    /// When it starts, overrides counted.
    pub start: Start,
    /// Its file: `/Windows/System32/drivers/storahci.sys`; `None` where the path leads elsewhere.
    pub file: Option<String>,
    /// The file is there.
    pub is_there: bool,
}

const CURRENT_VERSION: &str = "Microsoft\\Windows NT\\CurrentVersion";

/// Folders of a root that are looked into for a system.
const FOLDERS_AT_MOST: usize = 32;

/// The folders of Windows on a volume, as they are called there: `/Windows`. A folder counts that holds the SYSTEM hive; those
/// of other names than the usual ones only where there is none of these.
pub fn folders(tree: &dyn GuestTree) -> Result<Vec<String>> {
    let entries = tree.list("/")?.unwrap_or_default();
    let all = entries.into_iter().filter(|entry| entry.kind == NodeKind::Dir).map(|entry| entry.name);
    let is_usual = |name: &String| ["windows", "winnt"].iter().any(|usual| name.eq_ignore_ascii_case(usual));
    let (usual, others): (Vec<String>, Vec<String>) = all.partition(is_usual);
    let mut found = Vec::new();
    for names in [usual, others] {
        for name in names.into_iter().take(FOLDERS_AT_MOST) {
            let hive = tree.metadata(&format!("/{name}/System32/config/SYSTEM"))?;
            if hive.is_some_and(|meta| meta.kind == NodeKind::File) {
                found.push(format!("/{name}"));
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// What every part that plans has to know; `None` where the hives do not tell which control set starts.
pub fn system(
    tree: &dyn GuestTree,
    folder: &str,
    registry: &Registry,
    software: &Registry,
) -> Result<Option<System>> {
    let Some(number) = control_set(registry)? else { return Ok(None) };
    let mut system = System {
        folder: folder.to_owned(),
        version: version(software)?,
        architecture: String::new(),
        is_server: false,
        control: format!("ControlSet{number:03}"),
    };
    if !registry.exists(&system.control)? {
        return Ok(None);
    }
    let product = registry.text(&system.key("Control\\ProductOptions"), "ProductType")?;
    system.is_server = product.is_some_and(|kind| !kind.eq_ignore_ascii_case("WinNT"));
    system.architecture = architecture(tree, registry, &system)?;
    Ok(Some(system))
}

/// The control set that the next start takes: `Default`; `Current` is that of the last one.
fn control_set(registry: &Registry) -> Result<Option<u32>> {
    for name in ["Default", "Current"] {
        if let Some(number) = registry.dword("Select", name)?.filter(|number| (1..=999).contains(number)) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn version(software: &Registry) -> Result<Version> {
    let number = |text: Option<String>| text.and_then(|text| text.trim().parse::<u32>().ok());
    let build = match number(software.text(CURRENT_VERSION, "CurrentBuildNumber")?) {
        Some(build) => build,
        None => number(software.text(CURRENT_VERSION, "CurrentBuild")?).unwrap_or(0),
    };
    let major = software.dword(CURRENT_VERSION, "CurrentMajorVersionNumber")?;
    let minor = software.dword(CURRENT_VERSION, "CurrentMinorVersionNumber")?;
    if let (Some(major), Some(minor)) = (major, minor) {
        return Ok(Version { major, minor, build });
    }
    // Before Windows 10: `6.1`.
    let text = software.text(CURRENT_VERSION, "CurrentVersion")?.unwrap_or_default();
    let (major, minor) = text.trim().split_once('.').unwrap_or_default();
    Ok(Version { major: major.parse().unwrap_or(0), minor: minor.parse().unwrap_or(0), build })
}

/// The first of a program's bytes, in which its machine type is told (Microsoft, "PE Format": `e_lfanew`, `Machine`).
const KERNEL_AT_MOST: Bytes = Bytes::mib(64);

fn architecture(tree: &dyn GuestTree, registry: &Registry, system: &System) -> Result<String> {
    let key = system.key("Control\\Session Manager\\Environment");
    let name = registry.text(&key, "PROCESSOR_ARCHITECTURE")?.unwrap_or_default();
    let known = match name.to_ascii_uppercase().as_str() {
        "AMD64" => Some("x86_64"),
        "X86" => Some("i686"),
        "ARM64" => Some("aarch64"),
        _ => None,
    };
    if let Some(known) = known {
        return Ok(known.to_owned());
    }
    let kernel = tree.read(&system.path("System32/ntoskrnl.exe"), KERNEL_AT_MOST)?.unwrap_or_default();
    let at = kernel.get(0x3c..0x40).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let at = at.and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX);
    let machine = at.checked_add(4).and_then(|at| kernel.get(at..at.checked_add(2)?));
    Ok(match machine {
        Some([0x64, 0x86]) => "x86_64",
        Some([0x4c, 0x01]) => "i686",
        Some([0x64, 0xaa]) => "aarch64",
        _ => "",
    }
    .to_owned())
}

/// Its name for people, with what proves it: `Windows 11 Pro 23H2`.
pub fn name(software: &Registry, system: &System) -> Result<Fact<String>> {
    let proof = system.path("System32/config/SOFTWARE");
    let mut name = software.text(CURRENT_VERSION, "ProductName")?.unwrap_or_default();
    // Windows 11 still calls itself 10 here.
    if system.version >= Version::ELEVEN && !system.is_server {
        name = name.replace("Windows 10", "Windows 11");
    }
    if name.trim().is_empty() {
        name = format!("Windows {}.{}", system.version.major, system.version.minor);
    }
    let more = ["DisplayVersion", "CSDVersion"];
    for value in more {
        if let Some(more) = software.text(CURRENT_VERSION, value)?.filter(|more| !more.trim().is_empty()) {
            name = format!("{name} {more}");
            break;
        }
    }
    Ok(Fact::new(shown(&name), proof))
}

/// The name that the machine calls itself by.
pub fn host_name(registry: &Registry, system: &System) -> Result<Option<Fact<String>>> {
    let proof = system.path("System32/config/SYSTEM");
    let parameters = registry.text(&system.key("Services\\Tcpip\\Parameters"), "Hostname")?;
    let name = match parameters.filter(|name| !name.trim().is_empty()) {
        Some(name) => Some(name),
        None => registry.text(&system.key("Control\\ComputerName\\ComputerName"), "ComputerName")?,
    };
    Ok(name.filter(|name| !name.trim().is_empty()).map(|name| Fact::new(shown(&name), proof)))
}

/// What is its own.
pub fn windows(
    tree: &dyn GuestTree,
    registry: &Registry,
    software: &Registry,
    system: &System,
    letters: Vec<Letter>,
) -> Result<Windows> {
    let of_software = system.path("System32/config/SOFTWARE");
    let of_system = system.path("System32/config/SYSTEM");
    let Version { major, minor, build } = system.version;
    let mut text = format!("{major}.{minor}.{build}");
    if let Some(revision) = software.dword(CURRENT_VERSION, "UBR")? {
        text = format!("{text}.{revision}");
    }
    let zone = system.key("Control\\TimeZoneInformation");
    let universal = registry.dword(&zone, "RealTimeIsUniversal")?.is_some_and(|number| number != 0);
    let edition = software.text(CURRENT_VERSION, "EditionID")?.unwrap_or_default();
    let mut drivers = Vec::new();
    for name in hardware::drivers_of_interest() {
        let Some(start) = services::effective_start(registry, system, name)? else { continue };
        let file = services::image(registry, system, name)?;
        let is_there = match &file {
            Some(file) => tree.exists(file)?,
            None => false,
        };
        drivers.push(Driver { name: name.to_owned(), start, file, is_there });
    }
    Ok(Windows {
        edition: Fact::new(shown(&edition), of_software.clone()),
        build: Fact::new(text, of_software),
        control_set: Fact::new(system.control.clone(), of_system.clone()),
        clock_is_universal: Fact::new(universal, of_system),
        letters,
        drivers,
    })
}

/// A name of the guest's, of sane length and without what steers a terminal.
fn shown(name: &str) -> String {
    name.trim().chars().filter(|letter| !letter.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::super::data::Data;
    use super::super::registry::tests::MemKeys;
    use super::*;
    use crate::tree::mem::MemTree;

    fn registry(values: &[(&str, &str, Data)]) -> Registry {
        Registry::new(Box::new(MemKeys::of(values)))
    }

    fn software(values: &[(&str, Data)]) -> Registry {
        let values: Vec<_> =
            values.iter().map(|(name, data)| (CURRENT_VERSION, *name, data.clone())).collect();
        registry(&values)
    }

    #[test]
    fn versions_are_told_apart() {
        let seven = software(&[
            ("CurrentVersion", Data::text("6.1")),
            ("CurrentBuildNumber", Data::text("7601")),
            ("ProductName", Data::text("Windows 7 Professional")),
            ("CSDVersion", Data::text("Service Pack 1")),
        ]);
        let eleven = software(&[
            ("CurrentVersion", Data::text("6.3")),
            ("CurrentMajorVersionNumber", Data::dword(10)),
            ("CurrentMinorVersionNumber", Data::dword(0)),
            ("CurrentBuild", Data::text("22631")),
            ("ProductName", Data::text("Windows 10 Pro\n")),
            ("DisplayVersion", Data::text("23H2")),
        ]);
        let tree = MemTree::new();
        for (software, version, name) in [
            (seven, Version { build: 7601, ..Version::SEVEN }, "Windows 7 Professional Service Pack 1"),
            (eleven, Version { build: 22631, ..Version::TEN }, "Windows 11 Pro 23H2"),
            (software(&[]), Version::default(), "Windows 0.0"),
        ] {
            let registry = registry(&[
                ("Select", "Current", Data::dword(1)),
                ("Select", "Default", Data::dword(2)),
                ("ControlSet002\\Control\\ProductOptions", "ProductType", Data::text("WinNT")),
            ]);
            let system = system(&tree, "/Windows", &registry, &software).unwrap().unwrap();
            assert_eq!((system.version, system.control.as_str()), (version, "ControlSet002"));
            assert_eq!(super::name(&software, &system).unwrap().value, name);
        }
    }

    #[test]
    fn a_hive_that_names_no_control_set_is_no_guests() {
        let tree = MemTree::new();
        let none = software(&[]);
        for values in [
            vec![],
            vec![("Select", "Default", Data::dword(1))],
            vec![("Select", "Default", Data::dword(4_000_000)), ("ControlSet4000000", "x", Data::dword(1))],
        ] {
            assert_eq!(system(&tree, "/Windows", &registry(&values), &none).unwrap(), None);
        }
    }

    #[test]
    fn the_kernel_tells_the_architecture_where_the_environment_does_not() {
        let mut kernel = vec![0; 0x80];
        kernel[0x3c] = 0x40;
        kernel[0x40..0x46].copy_from_slice(b"PE\0\0\x64\xaa");
        let select =
            [("Select", "Default", Data::dword(1)), ("ControlSet001\\Services", "x", Data::dword(1))];
        for (kernel, found) in [(kernel, "aarch64"), (vec![0xff; 0x40], ""), (vec![], "")] {
            let tree = MemTree::new().file("/WINNT/System32/ntoskrnl.exe", kernel);
            let system = system(&tree, "/WINNT", &registry(&select), &software(&[])).unwrap().unwrap();
            assert_eq!(system.architecture, found);
        }
    }

    #[test]
    fn installations_are_found_by_what_is_in_them() {
        let hive = |folder: &str| format!("/{folder}/System32/config/SYSTEM");
        let tree =
            MemTree::new().file(&hive("Windows"), "").file("/Windows.old/Windows/System32/config/SYSTEM", "");
        assert_eq!(folders(&tree).unwrap(), ["/Windows"]);
        assert_eq!(folders(&MemTree::new().file(&hive("WIN2K3"), "")).unwrap(), ["/WIN2K3"]);
        let two = MemTree::new().file(&hive("WINDOWS"), "").file(&hive("winnt"), "").file(&hive("Other"), "");
        assert_eq!(folders(&two).unwrap(), ["/WINDOWS", "/winnt"]);
        assert!(folders(&MemTree::new().dir("/Windows/System32/config/SYSTEM")).unwrap().is_empty());
    }
}

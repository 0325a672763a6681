//! INF files of others, and databases that Windows wrote.

use super::*;
use inf::Inf;
use inf::install::Package;

fn find(names: &[&str]) -> Option<Vec<u8>> {
    let found = names.iter().find_map(|name| std::fs::read(name).ok());
    if found.is_none() {
        eprintln!("SKIPPED: none of {names:?} is installed");
    }
    found
}

/// QEMU's INF file of its serial cards: for both processors, without a program of its own.
#[test]
fn an_inf_file_of_qemu_is_read() {
    let Some(bytes) = find(&["/usr/share/doc/qemu-system-data/qemupciserial.inf"]) else { return };
    let inf = Inf::parse(&bytes).unwrap();
    let package = Package::read(&inf, &ten()).unwrap();
    assert_eq!(package.class.to_string(), "4d36e971-e325-11ce-bfc1-08002be10318");
    let ids: Vec<&str> = package.devices.iter().map(|device| device.ids[0].as_str()).collect();
    assert_eq!(ids, ["PCI\\VEN_1B36&DEV_0002", "PCI\\VEN_1B36&DEV_0003", "PCI\\VEN_1B36&DEV_0004"]);
    // The one with four ports: three values for each.
    let install = &package.installs[package.devices[2].install];
    assert_eq!((install.device.len(), install.includes.as_slice()), (12, &["mf.inf".to_owned()][..]));
    assert_eq!(install.device[11].name, "ResourceMap");
    assert!(package.catalogue.is_empty());
}

/// Wine's own file of all that it registers, some thousand lines long.
#[test]
fn an_inf_file_of_wine_is_read() {
    let Some(bytes) = find(&["/usr/share/wine/wine/wine.inf", "/usr/share/wine/wine.inf"]) else { return };
    let inf = Inf::parse(&bytes).unwrap();
    assert!(inf.names().count() > 70);
    assert_eq!(inf.value("Version", "signature").unwrap().as_deref(), Some("$CHICAGO$"));
    let sections = inf.values("DefaultInstall", "AddReg").unwrap();
    assert!(sections.len() > 10 && sections.iter().all(|name| inf.spelled(name).is_some()), "{sections:?}");
}

/// Where a value of a driver database is, without the names that differ from package to package.
fn shape(key: &str, name: &str) -> Option<String> {
    let parts: Vec<&str> = key.trim_matches('\\').split('\\').collect();
    Some(match parts.as_slice() {
        ["DriverDatabase"] => name.to_owned(),
        ["DriverDatabase", "DriverInfFiles", _] => format!("DriverInfFiles: {name}"),
        ["DriverDatabase", "DeviceIds", class] if class.starts_with('{') => "DeviceIds: class".to_owned(),
        ["DriverDatabase", "DeviceIds", ..] => "DeviceIds: id".to_owned(),
        ["DriverDatabase", "DriverPackages", _] => format!("package: {name}"),
        ["DriverDatabase", "DriverPackages", _, "Configurations", _] => format!("configuration: {name}"),
        ["DriverDatabase", "DriverPackages", _, "Descriptors", ..] => format!("descriptor: {name}"),
        ["DriverDatabase", "DriverPackages", _, "Strings"] => "string".to_owned(),
        ["DriverDatabase", "DriverPackages", _, "Configurations", _, "Services", _, below @ ..] => {
            format!("service {}: {name}", below.join("\\"))
        }
        ["DriverDatabase", "DriverPackages", _, "Configurations", _, "Device", below @ ..] => {
            format!("device {}: {name}", below.join("\\"))
        }
        _ => return None,
    })
}

/// Everything that is planned for a driver database is at places, and of types, that Windows itself has in the SYSTEM hive
/// of a Windows 10, which another program reads.
#[test]
fn what_is_written_has_the_shape_of_what_windows_wrote() {
    let (Some(corpus), Some(tool)) = (crate::testing::corpus(), crate::testing::tool("hivexregedit")) else {
        return;
    };
    let Some(packed) = find(&[corpus.join("hives/regipy/SYSTEM_WIN_10_1709.zst").to_str().unwrap()]) else {
        return;
    };
    let mut hive = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut hive, &zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    let exported = std::process::Command::new(tool)
        .args(["--export".as_ref(), hive.path().as_os_str(), "\\DriverDatabase".as_ref()])
        .output()
        .unwrap();
    let mut windows = std::collections::BTreeSet::new();
    let mut key = String::new();
    for line in String::from_utf8_lossy(&exported.stdout).lines() {
        if let Some(name) = line.strip_prefix("[\\").and_then(|rest| rest.strip_suffix(']')) {
            key = name.to_owned();
        }
        let (name, data) = match line.strip_prefix('@') {
            Some(rest) => ("", rest),
            None => match line.strip_prefix('"').and_then(|rest| rest.split_once("\"=")) {
                Some((name, data)) => (name, data),
                None => continue,
            },
        };
        let data = data.trim_start_matches('=');
        let kind = match data.strip_prefix("hex(").and_then(|rest| rest.split_once(')')) {
            Some((kind, _)) => u32::from_str_radix(kind, 16).unwrap(),
            None if data.starts_with("dword") => 4,
            None => 1,
        };
        windows.extend(shape(&key, name).map(|shape| (shape, kind)));
    }
    assert!(windows.len() > 100);
    let (_, plan) = Guest::ten().plan(Some(&forge::tree()), &[Driver::Viostor, Driver::Balloon]);
    let edit = plan.edits.iter().find(|edit| edit.path.ends_with("SYSTEM")).unwrap();
    let Action::Registry(edits) = &edit.action else { panic!() };
    let mut seen = 0;
    for edit in &edits.0 {
        if let RegistryChange::Set { name, data, .. } = &edit.change
            && edit.key.starts_with("DriverDatabase")
        {
            let Some(shape) = shape(&edit.key, name) else { panic!("{}", edit.key) };
            assert!(
                windows.contains(&(shape.clone(), data.kind)),
                "{shape} of type {}: {}",
                data.kind,
                edit.key
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

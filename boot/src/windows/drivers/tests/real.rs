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
    assert!(
        package.devices.iter().any(|device| device.ids[0] == "PCI\\VEN_1b36&DEV_0003&CC_0700"),
        "{package:?}"
    );
    assert!(package.devices.len() > 1);
    let install = &package.installs[package.devices[0].install];
    assert!(install.name.to_lowercase().contains("install"), "{}", install.name);
}

/// Wine's own file of all that it registers, some thousand lines long.
#[test]
fn an_inf_file_of_wine_is_read() {
    let Some(bytes) = find(&["/usr/share/wine/wine/wine.inf", "/usr/share/wine/wine.inf"]) else { return };
    let inf = Inf::parse(&bytes).unwrap();
    assert!(inf.names().count() > 100);
    assert_eq!(inf.value("Version", "signature").unwrap().as_deref(), Some("$CHICAGO$"));
    let sections = inf.values("DefaultInstall", "AddReg").unwrap();
    assert!(sections.len() > 20 && sections.iter().all(|name| inf.spelled(name).is_some()), "{sections:?}");
}

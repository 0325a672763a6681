//! Plans of drivers over a made tree of virtio-win, in memory, in a folder and in images.

mod choice;
pub(in crate::windows) mod forge;
mod hostile;
mod real;

use super::*;
use crate::family::Scene;
use crate::patch::{Action, PatchPlan, RegistryChange};
use crate::target::Request;
use crate::tree::mem::MemTree;
use crate::windows::data::Data;
use crate::windows::draft::System;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::registry::Registry;
use crate::windows::registry::tests::MemKeys;
use forge::{MemSource, Recipe};

type Values<'v> = Vec<(&'v str, &'v str, Data)>;

const DRIVERS: &str = "/Windows/System32/config/DRIVERS";

fn seven() -> System {
    System { version: Version { build: 7601, ..Version::SEVEN }, ..ten() }
}

fn server(version: Version) -> System {
    System { version, is_server: true, ..ten() }
}

/// SYSTEM of a Windows with a driver database, of which `oem0` is taken.
fn database() -> Values<'static> {
    vec![
        ("DriverDatabase", "OemInfMap", Data::binary([0x80])),
        (
            "DriverDatabase\\DeviceIds\\{4d36e97b-e325-11ce-bfc1-08002be10318}",
            "c_scsiadapter.inf",
            Data { kind: 0, bytes: vec![] },
        ),
        (
            "DriverDatabase\\DeviceIds\\{4d36e97d-e325-11ce-bfc1-08002be10318}",
            "c_system.inf",
            Data { kind: 0, bytes: vec![] },
        ),
        ("ControlSet001\\Services\\disk", "Start", Data::dword(0)),
    ]
}

fn files() -> MemTree {
    MemTree::new().dir("/Windows/INF").dir("/Windows/System32/drivers").file(DRIVERS, "hive")
}

/// A guest, and what is planned for it.
struct Guest {
    system: System,
    tree: MemTree,
    registry: MemKeys,
    software: MemKeys,
    drivers: MemKeys,
}

impl Guest {
    fn new(system: System, registry: &Values<'_>) -> Guest {
        let (software, drivers) = (MemKeys::default(), MemKeys::default());
        Guest { system, tree: files(), registry: MemKeys::of(registry), software, drivers }
    }

    fn ten() -> Guest {
        Guest::new(ten(), &database())
    }

    fn plan(&self, source: Option<&dyn DriverSource>, wanted: &[Driver]) -> (Installed, PatchPlan) {
        let scene = Scene { tree: &self.tree, volumes: &[], mounts: &[] };
        let request = Request::default();
        let keys = |keys: &MemKeys| Registry::new(Box::new(keys.clone()));
        let mut draft = draft(&scene, &request, self.system.clone(), &[], &[]);
        draft.put_hive(DRIVERS, keys(&self.drivers));
        (draft.registry, draft.software) = (keys(&self.registry), keys(&self.software));
        let installed = super::plan(&mut draft, source, wanted).unwrap();
        (installed, draft.finish())
    }

    /// As it is after the plan.
    fn apply(&mut self, plan: &PatchPlan) {
        for edit in &plan.edits {
            match &edit.action {
                Action::Write { contents, .. } => {
                    self.tree = std::mem::take(&mut self.tree).file(&edit.path, &contents.0);
                }
                Action::Registry(edits) => {
                    let keys = match edit.path.rsplit('/').next().unwrap() {
                        "SYSTEM" => &mut self.registry,
                        "SOFTWARE" => &mut self.software,
                        _ => &mut self.drivers,
                    };
                    for edit in &edits.0 {
                        crate::windows::registry::apply(keys, edit).unwrap();
                    }
                }
                action => panic!("{action:?}"),
            }
        }
    }
}

fn one(recipe: &Recipe, folder: &str) -> MemSource {
    let mut source = MemSource::default();
    recipe.put(&mut source, folder);
    source
}

fn ids(plan: &PatchPlan) -> Vec<&'static str> {
    plan.findings.iter().map(|finding| finding.id).collect()
}

/// A value as the plan sets it, in the hive of that name.
fn set<'p>(plan: &'p PatchPlan, hive: &str, key: &str, name: &str) -> Option<&'p Data> {
    let edit = plan.edits.iter().find(|edit| edit.path.ends_with(hive))?;
    let Action::Registry(edits) = &edit.action else { panic!("{hive}") };
    edits.0.iter().rev().find_map(|edit| match &edit.change {
        RegistryChange::Set { name: own, data, .. } if own == name && edit.key.eq_ignore_ascii_case(key) => {
            Some(data)
        }
        _ => None,
    })
}

fn show(installed: &Installed, plan: &PatchPlan) -> String {
    let mut lines = vec![format!("usable: {:?}", installed.usable)];
    lines.extend(installed.packages.iter().map(|path| format!("package: {path}")));
    lines.extend(
        plan.findings.iter().map(|finding| format!("{}: {} {}", finding.id, finding.says, finding.remedy)),
    );
    for edit in &plan.edits {
        match &edit.action {
            Action::Write { contents, .. } => {
                lines.push(format!("{}: {} bytes. {}", edit.path, contents.0.len(), edit.why))
            }
            Action::Registry(edits) => {
                lines.push(format!("{}:", edit.path));
                for edit in &edits.0 {
                    let what = match &edit.change {
                        RegistryChange::Create => String::new(),
                        RegistryChange::Set { name, data, .. } => format!(" {name:?} = {data}"),
                        other => format!(" {other:?}"),
                    };
                    lines.push(format!("  {}{what}  ({})", edit.key, edit.why));
                }
            }
            action => panic!("{action:?}"),
        }
    }
    lines.join("\n")
}

#[test]
fn windows_10_gets_packages_as_windows_adds_them() {
    let guest = Guest::ten();
    let source = forge::tree();
    let (installed, plan) = guest.plan(Some(&source), Driver::ALL);
    insta::assert_snapshot!(show(&installed, &plan));
}

#[test]
fn windows_7_gets_critical_devices_and_a_folder_to_search() {
    let values = [("ControlSet001\\Services\\disk", "Start", Data::dword(0))];
    let mut guest = Guest::new(seven(), &values.to_vec());
    guest.software = MemKeys::of(&[(
        "Microsoft\\Windows\\CurrentVersion",
        "DevicePath",
        Data::expand("%SystemRoot%\\inf"),
    )]);
    let source = forge::tree();
    let (installed, plan) = guest.plan(Some(&source), &[Driver::Viostor, Driver::Netkvm]);
    insta::assert_snapshot!(show(&installed, &plan));
    guest.apply(&plan);
    assert_eq!(guest.plan(Some(&source), &[Driver::Viostor, Driver::Netkvm]).1, PatchPlan::default());
}

#[test]
fn a_second_pass_changes_nothing() {
    let mut guest = Guest::ten();
    let source = forge::tree();
    let (first, plan) = guest.plan(Some(&source), Driver::ALL);
    assert!(!plan.edits.is_empty());
    guest.apply(&plan);
    assert_eq!(guest.plan(Some(&source), Driver::ALL), (first, PatchPlan::default()));
}

/// What the user's hands and other programs do to a driver afterwards is undone where the machine would not start.
#[test]
fn a_boot_driver_is_made_to_start_again() {
    let mut guest = Guest::ten();
    let source = forge::tree();
    let wanted = [Driver::Vioscsi, Driver::Balloon, Driver::Netkvm];
    guest.apply(&guest.plan(Some(&source), &wanted).1);
    let keys = &mut guest.registry;
    use crate::windows::registry::Keys;
    for service in ["vioscsi", "BALLOON", "netkvm"] {
        let key = format!("ControlSet001\\Services\\{service}");
        keys.set(&key, "Start", &Data::dword(4)).unwrap();
        keys.set(&format!("{key}\\StartOverride"), "0", &Data::dword(3)).unwrap();
    }
    let (_, plan) = guest.plan(Some(&source), &wanted);
    let Action::Registry(edits) = &plan.edits[0].action else { panic!() };
    let keys: Vec<&str> = edits.0.iter().map(|edit| edit.key.as_str()).collect();
    let services = "ControlSet001\\Services";
    let expected = ["vioscsi", "vioscsi\\StartOverride", "netkvm"].map(|key| format!("{services}\\{key}"));
    assert_eq!(keys, expected);
    assert_eq!(set(&plan, "SYSTEM", &expected[2], "Start"), Some(&Data::dword(3)));
}

/// The same driver in another version: the newer one wins, whichever it is.
#[test]
fn an_older_version_is_updated_and_a_newer_one_kept() {
    let mut guest = Guest::ten();
    let old = Recipe::ten(Driver::Viostor);
    let new = Recipe { version: [100, 95, 104, 26200], date: "01/15/2025", ..old.clone() };
    let (old, new) = (one(&old, "viostor/w10/amd64"), one(&new, "viostor/w10/amd64"));
    guest.apply(&guest.plan(Some(&old), &[Driver::Viostor]).1);
    let (installed, plan) = guest.plan(Some(&new), &[Driver::Viostor]);
    assert_eq!(installed.usable, [Driver::Viostor]);
    assert!(plan.findings.is_empty());
    let written: Vec<&str> = plan.edits.iter().map(|edit| edit.path.as_str()).collect();
    assert!(
        written.contains(&"/Windows/System32/drivers/viostor.sys")
            && written.contains(&"/Windows/INF/oem2.inf")
    );
    assert_eq!(set(&plan, "SYSTEM", "DriverDatabase", "OemInfMap"), Some(&Data::binary([0xe0])));
    guest.apply(&plan);
    let (installed, plan) = guest.plan(Some(&old), &[Driver::Viostor]);
    assert_eq!((installed.usable, ids(&plan)), (vec![Driver::Viostor], vec!["windows-driver-newer"]));
    assert!(plan.edits.is_empty());
    assert!(
        plan.findings[0].says.contains("100.95.104.26200")
            && plan.findings[0].says.contains("100.90.104.21500")
    );
    // A newer one whose program is gone starts nothing.
    guest.tree = files();
    let (installed, plan) = guest.plan(Some(&old), &[Driver::Viostor]);
    assert_eq!((installed.usable, ids(&plan)), (vec![Driver::Viostor], vec![]));
    assert!(plan.edits.iter().any(|edit| edit.path == "/Windows/System32/drivers/viostor.sys"));
}

/// Windows itself has added the same package, under its own label: that one is completed, and what Windows wrote stays.
#[test]
fn a_package_that_windows_added_is_completed() {
    let mut values = database();
    let package = "DriverDatabase\\DriverPackages\\viostor.inf_amd64_520417bbc533faba";
    let version = [
        0, 0xff, 9, 0, 0, 0, 0, 0, 0x7b, 0xe9, 0x36, 0x4d, 0x25, 0xe3, 0xce, 0x11, 0xbf, 0xc1, 8, 0, 0x2b,
        0xe1, 3, 0x18, 0, 0xc0, 0x97, 0x8c, 0x0f, 0xe7, 0xd7, 1, 0xfc, 0x53, 0x68, 0, 0x5a, 0, 0x64, 0, 0, 0,
        0, 0, 0, 0, 0, 0,
    ];
    values.extend([
        (package, "", Data::text("oem0.inf")),
        (package, "InfName", Data::text("viostor.inf")),
        (package, "Provider", Data::text("Red Hat, Inc.")),
        (package, "StatusFlags", Data::dword(0x112)),
        (package, "Version", Data::binary(version)),
    ]);
    let guest = Guest::new(ten(), &values);
    let source = one(&Recipe::ten(Driver::Viostor), "viostor/w10/amd64");
    let (installed, plan) = guest.plan(Some(&source), &[Driver::Viostor]);
    assert_eq!(
        installed.packages,
        ["/Windows/System32/DriverStore/FileRepository/viostor.inf_amd64_520417bbc533faba/viostor.inf"]
    );
    assert_eq!(set(&plan, "SYSTEM", package, "StatusFlags"), None);
    assert_eq!(set(&plan, "SYSTEM", package, "Version"), None);
    let configuration = format!("{package}\\Configurations\\Install.NT");
    assert_eq!(set(&plan, "SYSTEM", &configuration, "Service"), Some(&Data::text("viostor")));
    // The same bytes as Windows wrote, where the package is new.
    let fresh = Guest::ten().plan(Some(&source), &[Driver::Viostor]).1;
    let label = installed_label(&fresh);
    assert_eq!(
        set(&fresh, "SYSTEM", &format!("DriverDatabase\\DriverPackages\\{label}"), "Version"),
        Some(&Data::binary(version))
    );
}

fn installed_label(plan: &PatchPlan) -> String {
    let path = plan.edits.iter().find_map(|edit| edit.path.split("FileRepository/").nth(1)).unwrap();
    path.split('/').next().unwrap().to_owned()
}

/// Nothing in the store moves when the same package comes from elsewhere, or when its files are listed otherwise.
#[test]
fn a_label_is_that_of_the_content() {
    let recipe = Recipe::ten(Driver::Netkvm);
    let labels: Vec<String> =
        ["NetKVM/w10/amd64", "drivers/by-os/amd64/w10", "drivers/by-driver/NetKVM/w10/amd64", "netkvm"]
            .iter()
            .map(|folder| {
                installed_label(&Guest::ten().plan(Some(&one(&recipe, folder)), &[Driver::Netkvm]).1)
            })
            .collect();
    assert!(labels.iter().all(|label| *label == labels[0]), "{labels:?}");
    let hex = labels[0].strip_prefix("netkvm.inf_amd64_").unwrap();
    assert!(
        hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    );
    let other = Recipe { version: [1, 2, 3, 4], ..recipe };
    assert_ne!(
        installed_label(&Guest::ten().plan(Some(&one(&other, "netkvm")), &[Driver::Netkvm]).1),
        labels[0]
    );
}

/// Classes that no start needs are in a hive of their own, where there is one.
#[test]
fn network_cards_are_in_the_hive_of_drivers() {
    let source = one(&Recipe::ten(Driver::Netkvm), "NetKVM/w10/amd64");
    let id = "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1000";
    let mut guest = Guest::ten();
    let (_, plan) = guest.plan(Some(&source), &[Driver::Netkvm]);
    assert_eq!(set(&plan, "DRIVERS", id, "oem1.inf"), Some(&Data::binary([2, 0xff, 0, 0])));
    assert_eq!(set(&plan, "SYSTEM", id, "oem1.inf"), None);
    assert_eq!(set(&plan, "SYSTEM", "DriverDatabase", "OemInfMap"), Some(&Data::binary([0xc0])));
    assert_eq!(set(&plan, "SYSTEM", "ControlSet001\\Services\\netkvm", "Start"), Some(&Data::dword(3)));
    guest.tree = MemTree::new().dir("/Windows/INF");
    let (_, plan) = guest.plan(Some(&source), &[Driver::Netkvm]);
    assert_eq!(set(&plan, "SYSTEM", id, "oem1.inf"), Some(&Data::binary([2, 0xff, 0, 0])));
}

/// Numbers that only a file, only the database or only a map knows are taken, too.
#[test]
fn the_next_number_is_free_everywhere() {
    let mut guest = Guest::ten();
    guest.tree = guest.tree.clone().file("/Windows/INF/OEM1.INF", "");
    guest.drivers = MemKeys::of(&[
        ("DriverDatabase\\DriverInfFiles\\oem2.inf", "Active", Data::text("x")),
        ("DriverDatabase", "OemInfMap", Data::binary([0x10])),
    ]);
    let source = one(&Recipe::ten(Driver::Viostor), "viostor/w10/amd64");
    let (_, plan) = guest.plan(Some(&source), &[Driver::Viostor]);
    assert!(plan.edits.iter().any(|edit| edit.path == "/Windows/INF/oem4.inf"));
}

/// Newer packages run their programs from the store.
#[test]
fn programs_may_stay_in_the_store() {
    let recipe = Recipe { folder: 13, ..Recipe::ten(Driver::Vioscsi) };
    let source = one(&recipe, "vioscsi/w10/amd64");
    let (_, plan) = Guest::ten().plan(Some(&source), &[Driver::Vioscsi]);
    let label = installed_label(&plan);
    assert!(!plan.edits.iter().any(|edit| edit.path.contains("System32/drivers")));
    let path = format!("System32\\DriverStore\\FileRepository\\{label}\\vioscsi.sys");
    assert_eq!(
        set(&plan, "SYSTEM", "ControlSet001\\Services\\vioscsi", "ImagePath"),
        Some(&Data::expand(&path))
    );
    assert!(!plan.edits.iter().any(|edit| edit.path.ends_with("SOFTWARE")));
}

#[test]
fn without_a_source_a_finding_says_what_comes_instead() {
    let (installed, plan) = Guest::ten().plan(None, Driver::ALL);
    assert_eq!((installed, ids(&plan)), (Installed::default(), vec!["windows-no-virtio-win"]));
    assert!(Guest::ten().plan(None, &[]).1.findings.is_empty());
}

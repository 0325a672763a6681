//! Whole plans for Windows guests: over hives that are made here, and over real ones of other machines.

use super::data::Data;
use super::drivers::Driver;
use super::drivers::tests::forge::{MemSource, Recipe};
use super::hive::Hive;
use super::planner::Windows;
use super::reg_file::RegistryFile;
use super::registry::Keys;
use crate::apply::{Change, materialise};
use crate::family::{Family, Scene};
use crate::patch::{Action, PatchPlan, RegistryChange};
use crate::target::{DiskModel, Firmware, NicModel, Platform, Request};
use crate::testing::{corpus, unpack};
use crate::tree::mem::MemTree;

type Values<'v> = &'v [(&'v str, &'v str, Data)];

/// A hive file with these values.
fn hive(values: Values<'_>) -> Vec<u8> {
    let mut hive = Hive::new();
    for (key, name, data) in values {
        Keys::set(&mut hive, key, name, data).unwrap();
    }
    hive.finish().unwrap()
}

fn service(name: &str, start: u32) -> [(String, &'static str, Data); 2] {
    let key = format!("ControlSet001\\Services\\{name}");
    let path = format!("System32\\drivers\\{name}.sys");
    [(key.clone(), "Start", Data::dword(start)), (key, "ImagePath", Data::expand(&path))]
}

/// A boot configuration whose default entry starts Windows.
fn store() -> Vec<u8> {
    const MANAGER: &str = "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
    const LOADER: &str = "{7254a080-1510-4e85-ac0f-e7fb3d444736}";
    let of_manager = |below: &str| format!("{MANAGER}\\{below}");
    let of_loader = |below: &str| format!("Objects\\{LOADER}\\{below}");
    let values = [
        (of_manager("Description"), "Type", Data::dword(0x1010_0002)),
        (of_manager("Elements\\23000003"), "Element", Data::text(LOADER)),
        (of_loader("Description"), "Type", Data::dword(0x1020_0003)),
        (of_loader("Elements\\12000002"), "Element", Data::text("\\Windows\\system32\\winload.exe")),
        (of_loader("Elements\\22000002"), "Element", Data::text("\\Windows")),
    ];
    let values: Vec<_> = values.iter().map(|(key, name, data)| (key.as_str(), *name, data.clone())).collect();
    hive(&values)
}

/// A Windows 10 with the drivers that are inbox there, as one that ran on VMware's LSI SAS leaves them.
fn ten() -> MemTree {
    ten_of("AMD64")
}

/// The same of another processor.
fn ten_of(processor: &str) -> MemTree {
    let mut values = vec![
        ("Select".to_owned(), "Default", Data::dword(1)),
        ("ControlSet001\\Control\\ProductOptions".to_owned(), "ProductType", Data::text("WinNT")),
        (
            "ControlSet001\\Control\\Session Manager\\Environment".to_owned(),
            "PROCESSOR_ARCHITECTURE",
            Data::text(processor),
        ),
        (
            "DriverDatabase\\DeviceIds\\PCI\\VEN_8086&DEV_10D3".to_owned(),
            "x.inf",
            Data::binary([1, 255, 0, 0]),
        ),
    ];
    let mut tree = MemTree::new().file("/bootmgr", "").file("/Windows/System32/winload.exe", "");
    let inbox =
        ["storahci", "stornvme", "LSI_SAS", "atapi", "intelide", "pciide", "vmbus", "storvsc", "netvsc"];
    for name in inbox {
        values.extend(service(name, if name == "netvsc" { 3 } else { 0 }));
        if !["LSI_SAS", "netvsc"].contains(&name) {
            let key = format!("ControlSet001\\Services\\{name}\\StartOverride");
            values.push((key, "0", Data::dword(3)));
        }
        tree = tree.file(&format!("/Windows/System32/drivers/{name}.sys"), "MZ");
    }
    let values: Vec<_> = values.iter().map(|(key, name, data)| (key.as_str(), *name, data.clone())).collect();
    let version = "Microsoft\\Windows NT\\CurrentVersion";
    let software = [
        (version, "CurrentMajorVersionNumber", Data::dword(10)),
        (version, "CurrentMinorVersionNumber", Data::dword(0)),
        (version, "CurrentBuildNumber", Data::text("19045")),
        (version, "UBR", Data::dword(3803)),
        (version, "ProductName", Data::text("Windows 10 Pro")),
        (version, "DisplayVersion", Data::text("22H2")),
        (version, "EditionID", Data::text("Professional")),
    ];
    tree.file("/Windows/System32/config/SYSTEM", hive(&values))
        .file("/Boot/BCD", store())
        .file("/:esp/EFI/Microsoft/Boot/BCD", store())
        .file("/:esp/EFI/Microsoft/Boot/bootmgfw.efi", "MZ")
        .file("/Windows/System32/config/SOFTWARE", hive(&software))
}

/// SOFTWARE of a Windows before 10.
fn software(version: &str) -> Vec<u8> {
    let key = "Microsoft\\Windows NT\\CurrentVersion";
    hive(&[(key, "CurrentVersion", Data::text(version)), (key, "CurrentBuildNumber", Data::text("1"))])
}

fn plan(tree: &MemTree, request: &Request) -> PatchPlan {
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let guest = Windows.recognise(&scene).unwrap().unwrap();
    Windows.plan(&scene, &guest, request).unwrap()
}

fn to(platform: Platform, firmware: Firmware) -> Request {
    Request { platform, firmware, ..Request::default() }
}

/// Keys whose values are set, with what they become: `Services\atapi Start 0`.
fn edits(plan: &PatchPlan) -> Vec<String> {
    let mut all = Vec::new();
    for edit in &plan.edits {
        let Action::Registry(edits) = &edit.action else { continue };
        for edit in &edits.0 {
            if let RegistryChange::Set { name, data, .. } = &edit.change {
                let key = edit.key.trim_start_matches("ControlSet001\\");
                all.push(format!("{key} {name} {}", data.as_dword().unwrap_or(99)));
            }
        }
    }
    all
}

#[test]
fn the_facts_of_a_guest() {
    let tree = ten();
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let guest = Windows.recognise(&scene).unwrap().unwrap();
    insta::assert_json_snapshot!(guest);
}

#[test]
fn every_target_gets_devices_that_the_guest_drives() {
    let tree = ten();
    use DiskModel::{Ide, Lsi, Nvme, Sata, Vmbus};
    use NicModel::{E1000, E1000e, Netvsc};
    for (platform, firmware, disks, cards) in [
        (Platform::Kvm, Firmware::Bios, vec![Sata, Ide], vec![E1000e]),
        (Platform::Kvm, Firmware::Uefi, vec![Sata], vec![E1000e]),
        (Platform::Ahv, Firmware::Uefi, vec![Sata], vec![E1000]),
        (Platform::Esxi, Firmware::Bios, vec![Sata, Nvme, Lsi, Ide], vec![E1000e]),
        (Platform::Hyperv, Firmware::Bios, vec![Vmbus, Ide], vec![Netvsc]),
        (Platform::Hyperv, Firmware::Uefi, vec![Vmbus], vec![Netvsc]),
        (Platform::Azure, Firmware::Uefi, vec![Vmbus], vec![Netvsc]),
        (Platform::Xen, Firmware::Bios, vec![Ide], vec![E1000]),
    ] {
        let plan = plan(&tree, &to(platform, firmware));
        assert_eq!((plan.devices.disks.clone(), plan.devices.cards.clone()), (disks, cards), "{platform:?}");
        assert!(!plan.is_blocked(), "{platform:?}: {:?}", plan.findings);
        let edits = edits(&plan);
        for driver in ["storahci", "atapi", "intelide", "vmbus", "storvsc", "stornvme"] {
            assert!(edits.contains(&format!("Services\\{driver}\\StartOverride 0 0")), "{driver}: {edits:?}");
        }
    }
    // Before Windows 8 LSI SAS is driven better than AHCI.
    let seven = tree.file("/Windows/System32/config/SOFTWARE", software("6.1"));
    let plan = plan(&seven, &to(Platform::Esxi, Firmware::Bios));
    assert_eq!(plan.devices.disks, [Lsi, Sata, Nvme, Ide]);
}

/// What is put in is not in the guest yet, and the machine gets its devices all the same. Windows adds the packages once more.
#[test]
fn drivers_that_are_put_in_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = MemSource::default();
    for driver in Driver::ALL {
        Recipe::ten(*driver).put(&mut source, &format!("{}/w10/amd64", driver.folder()));
    }
    source.write(folder.path());
    let request = Request { virtio_win: Some(folder.path().to_owned()), ..to(Platform::Kvm, Firmware::Uefi) };
    let plan = plan(&ten(), &request);
    assert!(!plan.is_blocked(), "{:?}", plan.findings);
    assert_eq!(plan.devices.disks, [DiskModel::VirtioBlk, DiskModel::VirtioScsi, DiskModel::Sata]);
    assert_eq!(plan.devices.cards, [NicModel::VirtioNet, NicModel::E1000e]);
    let steps: Vec<String> = plan
        .edits
        .iter()
        .filter_map(|edit| match &edit.action {
            Action::Write { contents, .. } if edit.path.contains("/step") => {
                Some(String::from_utf8_lossy(&contents.0).into_owned())
            }
            _ => None,
        })
        .collect();
    let adds = steps.iter().filter(|step| step.contains("pnputil.exe /add-driver"));
    assert_eq!(adds.count(), Driver::ALL.len());
    assert_eq!(steps.iter().filter(|step| step.contains("/v SanPolicy")).count(), 2);
}

/// Also over what other parts have planned.
#[test]
fn what_a_user_says_wins() {
    let text = "Windows Registry Editor Version 5.00\r\n\r\n\
        [HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\storahci\\StartOverride]\r\n\"0\"=dword:3\r\n";
    let registry = Some(RegistryFile::parse(text.as_bytes(), "site.reg").unwrap());
    let plan = plan(&ten(), &Request { registry, ..to(Platform::Kvm, Firmware::Bios) });
    assert_eq!(edits(&plan).last().unwrap(), "Services\\storahci\\StartOverride 0 3");
    assert!(plan.findings.iter().any(|finding| finding.id == "windows-registry-conflict"));
}

/// Without its file no driver counts, whatever the registry says.
#[test]
fn a_guest_without_drivers_is_blocked() {
    let mut tree = ten();
    let gone: Vec<Change> = ["storahci", "intelide"]
        .iter()
        .map(|name| Change::Remove { path: format!("/Windows/System32/drivers/{name}.sys") })
        .collect();
    tree.apply(&gone).unwrap();
    let plan = plan(&tree, &to(Platform::Kvm, Firmware::Bios));
    assert!(plan.is_blocked());
    assert_eq!(plan.findings[0].id, "windows-no-disk-driver");
}

#[test]
fn a_second_pass_finds_nothing_to_do_and_another_target_starts_from_the_first() {
    let mut tree = ten();
    let request = to(Platform::Hyperv, Firmware::Bios);
    let first = plan(&tree, &request);
    // Where nothing has to be done in the running guest, nothing of ours is left there to run.
    assert!(first.edits.iter().all(|edit| matches!(edit.action, Action::Registry(_))), "{:?}", first.edits);
    let changes = materialise(&first, &tree).unwrap();
    assert!(changes.iter().any(|change| change.path().ends_with("/SYSTEM")));
    tree.apply(&changes).unwrap();
    assert_eq!(plan(&tree, &request).edits, []);
    let back = plan(&tree, &to(Platform::Esxi, Firmware::Bios));
    assert_eq!(edits(&back), Vec::<String>::new(), "the first pass made every inbox driver start");
}

#[test]
fn what_is_not_taken_is_named() {
    for (bytes, request, id) in [
        (software("5.2"), to(Platform::Kvm, Firmware::Bios), "windows-too-old"),
        (software("6.0"), to(Platform::Kvm, Firmware::Bios), "windows-old"),
        (software("6.1"), to(Platform::Hyperv, Firmware::Uefi), "windows-no-second-generation"),
        (hive(&[]), to(Platform::Kvm, Firmware::Bios), "windows-version-unknown"),
        (b"regf".to_vec(), to(Platform::Kvm, Firmware::Bios), "windows-registry-unreadable"),
    ] {
        let tree = ten().file("/Windows/System32/config/SOFTWARE", bytes);
        let plan = plan(&tree, &request);
        let finding = plan.findings.iter().find(|finding| finding.id == id);
        let finding = finding.unwrap_or_else(|| panic!("{id}: {:?}", plan.findings));
        // Which of the two is damaged cannot be guessed.
        if id == "windows-registry-unreadable" {
            assert!(finding.says.contains("config/SOFTWARE"), "{}", finding.says);
        }
    }
    // The firmware of generation 2 has 64 bits.
    for (processor, is_taken) in [("x86", false), ("AMD64", true)] {
        let plan = plan(&ten_of(processor), &to(Platform::Hyperv, Firmware::Uefi));
        let told = plan.findings.iter().any(|finding| finding.id == "windows-no-second-generation");
        assert_eq!((told, plan.devices.disks.is_empty()), (!is_taken, !is_taken), "{processor}");
    }
}

/// Only what denies counts, and only where it is on.
#[test]
fn a_policy_against_new_devices_is_told_of() {
    let version = "Microsoft\\Windows NT\\CurrentVersion";
    let policy = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions";
    for (name, value, is_told) in [
        ("DenyUnspecified", 1, true),
        ("denydeviceclasses", 1, true),
        ("DenyDeviceIDs", 0, false),
        ("AllowDeviceIDs", 1, false),
        ("DenyDeviceIDsRetroactive", 1, false),
    ] {
        let software = hive(&[
            (version, "CurrentVersion", Data::text("6.3")),
            (version, "CurrentBuildNumber", Data::text("9600")),
            (policy, name, Data::dword(value)),
        ]);
        let tree = ten().file("/Windows/System32/config/SOFTWARE", software);
        let plan = plan(&tree, &to(Platform::Kvm, Firmware::Bios));
        let told = plan.findings.iter().find(|finding| finding.id == "windows-device-restrictions");
        assert_eq!(told.is_some(), is_told, "{name}");
        assert!(told.is_none_or(|finding| finding.says.to_lowercase().contains(&name.to_lowercase())));
        assert!(!plan.is_blocked());
    }
}

#[test]
fn a_trial_keeps_a_stop_error_on_the_screen_and_changes_nothing_else() {
    let trial =
        |tree: &MemTree| super::planner::plan_trial(&Scene { tree, volumes: &[], mounts: &[] }).unwrap();
    let plan = trial(&ten());
    assert_eq!(edits(&plan), ["Control\\CrashControl AutoReboot 0"]);
    assert_eq!((plan.edits.len(), plan.findings.len()), (1, 0));
    let mut tree = ten();
    tree.apply(&materialise(&plan, &tree).unwrap()).unwrap();
    assert_eq!(trial(&tree).edits, []);
    // What cannot be read is tried as it is.
    for tree in [MemTree::new(), ten().file("/Windows/System32/config/SOFTWARE", "regf")] {
        assert_eq!(trial(&tree).edits, []);
    }
}

/// The card of QEMU and that of VMware have one name and two ids.
#[test]
fn a_package_counts_for_the_card_that_the_target_has() {
    let database = |id: &str| {
        let values = [
            ("Select", "Default", Data::dword(1)),
            (
                "ControlSet001\\Control\\Session Manager\\Environment",
                "PROCESSOR_ARCHITECTURE",
                Data::text("AMD64"),
            ),
        ];
        let key = format!("DriverDatabase\\DeviceIds\\PCI\\{id}");
        let mut all = values.to_vec();
        all.push((&key, "nete1g3e.inf", Data::binary([1, 255, 0, 0])));
        ten().file("/Windows/System32/config/SYSTEM", hive(&all))
    };
    let (qemu, vmware) = (database("VEN_8086&DEV_100E"), database("VEN_8086&DEV_100F"));
    for (tree, platform, has) in [
        (&qemu, Platform::Ahv, true),
        (&qemu, Platform::Xen, true),
        (&qemu, Platform::Esxi, false),
        (&vmware, Platform::Esxi, true),
        (&vmware, Platform::Kvm, false),
    ] {
        let plan = plan(tree, &to(platform, Firmware::Bios));
        let lacks = plan.findings.iter().any(|finding| finding.id == "windows-no-nic-driver");
        assert_eq!(lacks, !has, "{platform:?}");
    }
    // Since Windows 8.1 most of the database lies apart; where that is damaged, nothing is known of it.
    let key = "DriverDatabase\\DeviceIds\\PCI\\VEN_8086&DEV_100E";
    let apart = hive(&[(key, "nete1g3e.inf", Data::binary([1, 255, 0, 0]))]);
    for (drivers, has) in [(apart, true), (hive(&[]), false), (b"regf".to_vec(), false)] {
        let is_damaged = drivers.len() == 4;
        let tree = ten().file("/Windows/System32/config/DRIVERS", drivers);
        let plan = plan(&tree, &to(Platform::Ahv, Firmware::Bios));
        let told = |id| plan.findings.iter().any(|finding| finding.id == id);
        assert_eq!((told("windows-no-nic-driver"), told("windows-hive-unreadable")), (!has, is_damaged));
    }
}

/// Whichever hive it is; and what cannot be done to one names its file.
#[test]
fn a_hive_that_was_replayed_is_told_of() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = "/Windows/System32/config/DRIVERS";
    let mut tree = ten();
    for ending in ["", ".LOG1", ".LOG2"] {
        let name = format!("SYSTEM_B{ending}");
        let bytes =
            std::fs::read(unpack(&corpus.join("hives/regipy/SYSTEM_B"), &name, folder.path())).unwrap();
        tree = tree.file(&format!("{path}{ending}"), bytes);
    }
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let request = Request::default();
    let mut draft = super::draft::tests::draft(&scene, &request, super::draft::tests::ten(), &[], &[]);
    let drivers = draft.hive(path).unwrap().unwrap();
    let error = drivers.create(&"k".repeat(300), "").unwrap_err();
    assert!(error.to_string().contains(path), "{error}");
    let findings = draft.finish().findings;
    assert_eq!(findings[0].id, "windows-registry-replayed");
    assert!(findings[0].says.starts_with(path), "{}", findings[0].says);
}

/// Real SYSTEM hives: what a move to KVM without virtio-win changes in them.
#[test]
fn real_hives_are_planned_for() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let regipy = corpus.join("hives/regipy");
    for (name, at, minor) in [("SYSTEM", regipy.clone(), 1), ("SYSTEM_B", regipy.join("SYSTEM_B"), 0)] {
        let read = |name: &str| std::fs::read(unpack(&at, name, folder.path())).unwrap();
        let system = read(name);
        let version = "Microsoft\\Windows NT\\CurrentVersion";
        let text = if minor == 1 { "6.1" } else { "10.0" };
        let build = if minor == 1 { "7601" } else { "16299" };
        let software = hive(&[
            (version, "CurrentVersion", Data::text(text)),
            (version, "CurrentBuildNumber", Data::text(build)),
        ]);
        let mut tree = MemTree::new()
            .file("/bootmgr", "")
            .file("/Boot/BCD", store())
            .file("/Windows/System32/config/SYSTEM", &system)
            .file("/Windows/System32/config/SOFTWARE", software);
        if minor == 0 {
            for log in ["LOG1", "LOG2"] {
                tree = tree
                    .file(&format!("/Windows/System32/config/SYSTEM.{log}"), read(&format!("{name}.{log}")));
            }
        }
        for driver in super::hardware::drivers_of_interest() {
            for file in [driver, "vmstorfl", "E1G60I32", "e1i65x64"] {
                tree = tree.file(&format!("/Windows/System32/drivers/{file}.sys"), "MZ");
                tree = tree.file(&format!("/Windows/system32/drivers/{file}.sys"), "MZ");
                tree = tree.file(&format!("/Windows/system32/DRIVERS/{file}.sys"), "MZ");
                let lower = file.to_lowercase();
                tree = tree.file(&format!("/Windows/system32/drivers/{lower}.sys"), "MZ");
                tree = tree.file(&format!("/Windows/System32/drivers/{lower}.sys"), "MZ");
            }
        }
        let plan = plan(&tree, &to(Platform::Kvm, Firmware::Bios));
        insta::assert_json_snapshot!(format!("real_{name}"), plan);
        let changes = materialise(&plan, &tree).unwrap();
        let of_system = changes.iter().find(|change| change.path().ends_with("/SYSTEM"));
        let Some(Change::Put { bytes, .. }) = of_system else { panic!("{}", changes.len()) };
        assert!(bytes.len() >= system.len() - 4096);
        // What was written is whole, and asks for nothing more.
        tree.apply(&changes).unwrap();
        assert_eq!(self::plan(&tree, &to(Platform::Kvm, Firmware::Bios)).edits, []);
    }
}

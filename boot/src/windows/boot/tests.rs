use super::bcd::{BOOT_MANAGER, Device};
use super::identity::Partition;
use super::*;
use crate::family::Scene;
use crate::guest::Mount;
use crate::patch::{Action, PatchPlan};
use crate::target::{Clock, Platform, Request};
use crate::tree::mem::MemTree;
use crate::volume::{Content, Volume, VolumeId};
use crate::windows::data::Data;
use crate::windows::draft::System;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::registry::Registry;
use crate::windows::registry::tests::MemKeys;
use landfall_image::Bytes;
use proptest::prelude::*;

pub(super) const GUID: &str = "8e0f2c38-e4ea-47ba-b7fc-9d8c74dccf0b";
const LOADER: &str = "{733b62e5-f608-11eb-825c-c112f60133ab}";

pub(super) fn volume(id: &str, disk: usize, part_uuid: &str, offset: u64) -> Volume {
    Volume {
        id: VolumeId(id.into()),
        size: Bytes::gib(1),
        content: Content::Unknown,
        uuid: None,
        label: None,
        part_uuid: Some(part_uuid.into()),
        part_label: None,
        part_type: None,
        disk,
        partition: Some(1),
        offset: Some(Bytes(offset)),
        device_names: Vec::new(),
        free: None,
        on: Vec::new(),
    }
}

/// An element that names a partition, as a real store has it.
fn device(partition: &[u8; 16], style: u32, disk: &[u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    for number in [6u32, 0, 0x48, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(partition);
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(style.to_le_bytes());
    bytes.extend(disk);
    bytes.extend([0; 16]);
    bytes
}

fn gpt_device() -> Vec<u8> {
    let guid = uuid::Uuid::try_parse(GUID).unwrap();
    device(&guid.to_bytes_le(), 0, &[7; 16])
}

fn mbr_device() -> Vec<u8> {
    let (mut partition, mut disk) = ([0; 16], [0; 16]);
    partition[..8].copy_from_slice(&0x10_0000u64.to_le_bytes());
    disk[..4].copy_from_slice(&0x5cbe_a03eu32.to_le_bytes());
    device(&partition, 1, &disk)
}

fn element(id: &str, number: u32) -> (String, &'static str) {
    (format!("Objects\\{id}\\Elements\\{number:08x}"), "Element")
}

fn store(extra: &[(String, &'static str, Data)]) -> Registry {
    let at = |(key, name), data| (key, name, data);
    let mut values = vec![
        (format!("Objects\\{BOOT_MANAGER}\\Description"), "Type", Data::dword(0x1010_0002)),
        at(element(BOOT_MANAGER, 0x2300_0003), Data::text(&LOADER.to_uppercase())),
        at(element(BOOT_MANAGER, 0x2400_0001), Data::texts([LOADER, LOADER])),
        (format!("Objects\\{LOADER}\\Description"), "Type", Data::dword(0x1020_0003)),
        at(element(LOADER, 0x1200_0002), Data::text("\\Windows\\system32\\winload.efi")),
        at(element(LOADER, 0x1200_0004), Data::text("Windows 10")),
        at(element(LOADER, 0x2200_0002), Data::text("\\Windows")),
        at(element(LOADER, 0x2100_0001), Data::binary(gpt_device())),
    ];
    values.extend_from_slice(extra);
    let values: Vec<_> = values.iter().map(|(key, name, data)| (key.as_str(), *name, data.clone())).collect();
    Registry::new(Box::new(MemKeys::of(&values)))
}

#[test]
fn devices_are_read_as_windows_wrote_them() {
    let guid = uuid::Uuid::try_parse(GUID).unwrap();
    assert_eq!(Device::parse(&gpt_device()), Some(Device::Partition(Partition::Gpt { guid })));
    let mbr = Partition::Mbr { signature: 0x5cbe_a03e, offset: 0x10_0000 };
    assert_eq!(Device::parse(&mbr_device()), Some(Device::Partition(mbr)));
    // A file in memory: that of a recovery environment, shortened by its path.
    let mut disk = vec![0; 16];
    for number in [0u32, 1, 0x34 + 0x48, 0, 3, 0, 0, 0, 0, 0, 1, 0x60, 5] {
        disk.extend(number.to_le_bytes());
    }
    disk.extend(&gpt_device()[16..]);
    assert_eq!(Device::parse(&disk), Some(Device::RamDisk(Partition::Gpt { guid })));
    // A partition of a virtual disk that is a file.
    let mut inner = gpt_device();
    inner[0x30] = 6;
    assert_eq!(Device::parse(&inner), Some(Device::Other));
    for cut in 0..gpt_device().len() {
        assert_eq!(Device::parse(&gpt_device()[..cut]), None, "{cut}");
    }
}

#[test]
fn entries_are_found_through_what_they_inherit() {
    let at = |(key, name), data| (key, name, data);
    let (a, b) = ("{aaaaaaaa-0000-0000-0000-000000000000}", "{bbbbbbbb-0000-0000-0000-000000000000}");
    let registry = store(&[
        at(element(LOADER, 0x1400_0006), Data::texts([a])),
        at(element(a, 0x1400_0006), Data::texts([b, LOADER])),
        // In a circle.
        at(element(b, 0x1400_0006), Data::texts([a, b])),
        at(element(b, 0x1600_0049), Data::binary([1])),
        at(element(b, 0x2500_00f0), Data::binary([1, 0, 0, 0, 0, 0, 0, 0])),
        at(element(b, 0x2500_0080), Data::binary([])),
    ]);
    let volumes = [volume("disk0p3", 0, GUID, 0)];
    let entries = Store::read(&registry).unwrap().entries(&volumes);
    insta::assert_json_snapshot!("entries", entries);
}

#[test]
fn recovery_counts_where_it_is_allowed() {
    let at = |(key, name), data| (key, name, data);
    for (allowed, count) in [(None, 1), (Some(1), 1), (Some(0), 0)] {
        let mut extra = vec![at(element(LOADER, 0x1400_0008), Data::texts([BOOT_MANAGER]))];
        extra.extend(allowed.map(|allowed| at(element(LOADER, 0x1600_0009), Data::binary([allowed]))));
        let entries = Store::read(&store(&extra)).unwrap().entries(&[]);
        assert_eq!(entries[0].recovery.len(), count, "{allowed:?}");
    }
}

#[test]
fn a_store_without_end_is_refused() {
    assert!(Store::read(&Registry::new(Box::new(MemKeys::default()))).is_err());
    let values: Vec<_> =
        (0..5000).map(|number| (format!("Objects\\{{{number}}}"), "", Data::dword(0))).collect();
    let values: Vec<_> = values.iter().map(|(key, name, data)| (key.as_str(), *name, data.clone())).collect();
    let error = Store::read(&Registry::new(Box::new(MemKeys::of(&values)))).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}

fn system_of(architecture: &str) -> System {
    System { architecture: architecture.into(), ..ten() }
}

struct Case<'c> {
    tree: MemTree,
    firmware: Firmware,
    store: Option<Registry>,
    volumes: &'c [Volume],
    system: &'c [(&'c str, &'c str, Data)],
}

impl Case<'_> {
    fn plan(self) -> PatchPlan {
        let request = Request { firmware: self.firmware, platform: Platform::Kvm, ..Request::default() };
        let mounts = [Mount {
            at: "/".into(),
            volume: VolumeId("disk0p3".into()),
            file_system: "ntfs".into(),
            subvolume: None,
            spec: None,
        }];
        let scene = Scene { tree: &self.tree, volumes: self.volumes, mounts: &mounts };
        let software = [("Microsoft\\Windows NT\\CurrentVersion", "SystemRoot", Data::text("C:\\Windows"))];
        let mut draft = draft(&scene, &request, system_of("x86_64"), self.system, &software);
        if let Some(store) = self.store {
            let path = store_path(&draft).unwrap().unwrap();
            draft.put_hive(&path, store);
        }
        plan(&mut draft).unwrap();
        draft.finish()
    }
}

fn ids(plan: &PatchPlan) -> Vec<&'static str> {
    plan.findings.iter().map(|finding| finding.id).collect()
}

fn uefi() -> MemTree {
    MemTree::new()
        .file("/:esp/EFI/Microsoft/Boot/BCD", "regf")
        .file("/:esp/EFI/Microsoft/Boot/bootmgfw.efi", pe([10, 0, 19041, 1], "Microsoft Corporation"))
}

#[test]
fn a_uefi_guest_starts_on_empty_firmware() {
    let volumes = [volume("disk0p3", 0, GUID, 0)];
    let at = |(key, name), data| (key, name, data);
    let plan = Case {
        tree: uefi(),
        firmware: Firmware::Uefi,
        store: Some(store(&[at(element(LOADER, GRAPHICS_OFF), Data::binary([1]))])),
        volumes: &volumes,
        system: &[
            (
                "MountedDevices",
                "\\DosDevices\\C:",
                Data::binary([b"DMIO:ID:".as_slice(), &gpt_device()[32..48]].concat()),
            ),
            ("ControlSet001\\Control\\Session Manager\\Power", "HiberbootEnabled", Data::dword(1)),
            ("ControlSet001\\Services\\partmgr\\Parameters", "SanPolicy", Data::dword(4)),
        ],
    }
    .plan();
    assert_eq!(plan.clock, Some(Clock::LocalTime));
    insta::assert_json_snapshot!("uefi", plan);
}

#[test]
fn the_fallback_loader_is_replaced_only_by_a_newer_one_of_its_own() {
    let fallback = "/:esp/EFI/Boot/bootx64.efi";
    let own = || pe([10, 0, 19041, 1], "Microsoft Corporation");
    for (there, copied, finding) in [
        (own(), false, false),
        (pe([10, 0, 17763, 9], "Microsoft Corporation"), true, false),
        (pe([10, 0, 22621, 1], "Microsoft Corporation"), false, false),
        (pe([1, 0, 0, 0], "Somebody Else"), false, true),
        (b"MZ shim".to_vec(), false, true),
    ] {
        let plan = Case {
            tree: uefi().file(fallback, there),
            firmware: Firmware::Uefi,
            store: Some(store(&[])),
            volumes: &[volume("disk0p3", 0, GUID, 0)],
            system: &[],
        }
        .plan();
        let edit = plan.edits.iter().find(|edit| edit.path == fallback);
        assert_eq!(edit.is_some(), copied);
        assert!(edit.is_none_or(
            |edit| matches!(&edit.action, Action::Copy { from } if from.ends_with("bootmgfw.efi"))
        ));
        assert_eq!(ids(&plan).contains(&"windows-fallback-loader"), finding);
    }
}

#[test]
fn the_fallback_loader_is_named_after_the_processor() {
    let (tree, request) = (uefi(), Request { firmware: Firmware::Uefi, ..Request::default() });
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    for (architecture, name) in [("x86_64", "x64"), ("aarch64", "aa64"), ("i686", "ia32")] {
        let mut draft = draft(&scene, &request, system_of(architecture), &[], &[]);
        loader::fallback(&mut draft).unwrap();
        assert_eq!(draft.finish().edits[0].path, format!("/:esp/EFI/Boot/boot{name}.efi"));
    }
}

#[test]
fn firmware_and_disk_have_to_agree() {
    let bios = || MemTree::new().file("/:boot/Boot/BCD", "").file("/:boot/bootmgr", "");
    let bare = |tree: MemTree, firmware| Case { tree, firmware, store: None, volumes: &[], system: &[] };
    for (tree, firmware, expected) in [
        (bios(), Firmware::Uefi, "windows-firmware-bios"),
        (uefi(), Firmware::Bios, "windows-firmware-uefi"),
        (MemTree::new(), Firmware::Uefi, "windows-boot-files-missing"),
        (MemTree::new(), Firmware::Bios, "windows-boot-files-missing"),
    ] {
        let plan = bare(tree, firmware).plan();
        assert_eq!(ids(&plan), [expected]);
        assert!(plan.is_blocked());
    }
    // Files in Windows' own volume, and no loader of UEFI.
    let tree = MemTree::new().file("/Boot/BCD", "").file("/bootmgr", "");
    let volumes = [volume("disk0p3", 0, "5cbea03e-01", 0x10_0000)];
    let at = |(key, name), data| (key, name, data);
    let exe = at(element(LOADER, 0x1200_0002), Data::text("\\Windows\\system32\\winload.exe"));
    let mbr = at(element(LOADER, 0x2100_0001), Data::binary(mbr_device()));
    let graphics_off = at(element(LOADER, GRAPHICS_OFF), Data::binary([1]));
    let store = Some(store(&[exe, mbr, graphics_off]));
    let plan = Case { tree, firmware: Firmware::Bios, store, volumes: &volumes, system: &[] }.plan();
    assert!(ids(&plan).is_empty(), "{:?}", plan.findings);
    // BIOS has a display without graphics, too: the store stays as it is.
    assert!(plan.edits.iter().all(|edit| !edit.path.ends_with("BCD")), "{:?}", plan.edits);
}

#[test]
fn an_entry_that_cannot_start_is_told_of() {
    let at = |(key, name), data| (key, name, data);
    let odd = [
        at(element(LOADER, 0x1200_0002), Data::text("\\Windows\\system32\\winload.exe")),
        at(element(LOADER, 0x2500_0080), Data::binary([0; 8])),
    ];
    let plan =
        Case { tree: uefi(), firmware: Firmware::Uefi, store: Some(store(&odd)), volumes: &[], system: &[] }
            .plan();
    assert_eq!(ids(&plan), ["windows-boot-device-missing", "windows-boot-path", "windows-boot-safe-mode"]);
}

#[test]
fn an_entry_for_another_windows_is_told_of() {
    for (id, expected) in [("disk0p3", &[][..]), ("disk0p4", &["windows-boot-other-volume"])] {
        let volumes = [volume(id, 0, GUID, 0)];
        let store = Some(store(&[]));
        let plan =
            Case { tree: uefi(), firmware: Firmware::Uefi, store, volumes: &volumes, system: &[] }.plan();
        assert_eq!(ids(&plan), expected);
    }
}

fn mbr_letter(signature: u32, offset: u64) -> Data {
    Data::binary([signature.to_le_bytes().as_slice(), &offset.to_le_bytes()].concat())
}

#[test]
fn letters_are_those_of_volumes() {
    let text = |text: &str| Data::binary(text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    let keys = MemKeys::of(&[
        ("MountedDevices", "\\DosDevices\\D:", text("\\??\\IDE#CdRomNECVMWar#5&1")),
        ("MountedDevices", "\\DosDevices\\c:", mbr_letter(0x5cbe_a03e, 0x10_0000)),
        ("MountedDevices", "\\DosDevices\\E:", mbr_letter(0x5cbe_a03e, 0x20_0000)),
        ("MountedDevices", "\\DosDevices\\F:", Data::binary([1, 2, 3])),
        ("MountedDevices", "\\DosDevices\\G:", Data::binary(b"DMIO:ID:short".to_vec())),
        ("MountedDevices", "\\DosDevices\\HH:", mbr_letter(1, 2)),
        ("MountedDevices", "\\??\\Volume{656b1715-ecf6-11df-92e6-806e6f6e6963}", mbr_letter(1, 2)),
    ]);
    let volumes = [volume("disk0p1", 0, "5cbea03e-01", 0x10_0000)];
    let letters = letters::letters(&Registry::new(Box::new(keys)), &volumes).unwrap();
    insta::assert_json_snapshot!("letters", letters);
}

/// A disk that got another signature when it was copied: Windows would call itself by a letter that is nobody's.
#[test]
fn a_letter_of_the_system_that_is_on_no_disk_is_told_of() {
    let volumes = [volume("disk0p3", 0, "5cbea03e-01", 0x10_0000)];
    for (letter, is_told) in [(mbr_letter(0x5cbe_a03e, 0x10_0000), false), (mbr_letter(7, 0x10_0000), true)] {
        let system = [("MountedDevices", "\\DosDevices\\C:", letter)];
        let tree = MemTree::new();
        let plan =
            Case { tree, firmware: Firmware::Bios, store: None, volumes: &volumes, system: &system }.plan();
        assert_eq!(ids(&plan).contains(&"windows-system-letter"), is_told);
    }
}

/// The boot configuration and the letters name the partition; Windows lies in what was opened there.
#[test]
fn an_opened_partition_stands_for_what_lies_in_it() {
    let container = |scheme: &str| Volume {
        content: Content::Encrypted { scheme: scheme.into() },
        ..volume("disk0p3", 0, GUID, 0)
    };
    let inner = Volume { partition: None, part_uuid: None, ..volume("disk0p3:bitlocker", 0, "", 0) };
    let partition = Partition::Gpt { guid: uuid::Uuid::try_parse(GUID).unwrap() };
    let found = |volumes: &[Volume]| partition.find(volumes).map(|volume| volume.id.0.clone());
    assert_eq!(found(&[container("BitLocker"), inner.clone()]).as_deref(), Some("disk0p3:bitlocker"));
    assert_eq!(found(&[container("BitLocker")]).as_deref(), Some("disk0p3"));
    assert_eq!(found(&[inner]), None);
}

#[test]
fn copies_of_disks_are_told_of() {
    let volumes = [
        volume("disk0p3", 0, "5cbea03e-01", 0x10_0000),
        volume("disk1p1", 1, "5cbea03e-01", 0x10_0000),
        volume("disk2p1", 2, GUID, 0),
        volume("disk3p1", 3, GUID, 0),
        volume("disk4p1", 4, "00000000-01", 0),
        volume("disk5p1", 5, "00000000-01", 0),
    ];
    let bios = MemTree::new();
    let system = [
        (
            "MountedDevices",
            "\\DosDevices\\C:",
            Data::binary([b"DMIO:ID:".as_slice(), &gpt_device()[32..48]].concat()),
        ),
        ("MountedDevices", "\\DosDevices\\X:", mbr_letter(7, 7)),
    ];
    let plan =
        Case { tree: bios, firmware: Firmware::Bios, store: None, volumes: &volumes, system: &system }.plan();
    assert_eq!(
        ids(&plan),
        [
            "windows-boot-files-missing",
            "windows-system-letter",
            "windows-disk-signature-twice",
            "windows-disk-signature-twice",
            "windows-letter-missing"
        ]
    );
}

/// A program with one section, which holds a version resource.
fn pe(version: [u16; 4], vendor: &str) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let le = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    const RVA: u32 = 0x1000;
    let mut resource = [vec![0, 0, 52, 0, 0, 0], utf16("VS_VERSION_INFO\0"), vec![0, 0]].concat();
    let [a, b, c, d] = version.map(u32::from);
    resource.extend(le(&[0xfeef_04bd, 0x1_0000, a << 16 | b, c << 16 | d]));
    resource.extend([0; 36]);
    resource.extend(utf16(vendor));
    // Three folders with one entry each, then where the data lies.
    let mut section = Vec::new();
    for (id, next) in [(16u32, 0x8000_0018u32), (1, 0x8000_0030), (1033, 0x48)] {
        section.extend(le(&[0, 0, 0, 0x1_0000, id, next]));
    }
    section.extend(le(&[RVA + 0x58, u32::try_from(resource.len()).unwrap(), 0, 0]));
    section.extend(resource);
    section.resize(section.len().next_multiple_of(512), 0);
    let len = u32::try_from(section.len()).unwrap();
    let mut file = vec![0; 64];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 64;
    file.extend(b"PE\0\0");
    file.extend([0x64, 0x86, 1, 0]);
    file.extend(le(&[0, 0, 0]));
    file.extend([240, 0, 0x22, 0x20]);
    let optional = file.len();
    file.extend([0x0b, 0x02]);
    file.resize(optional + 240, 0);
    let mut put = |at: usize, number: u32| {
        file[optional + at..optional + at + 4].copy_from_slice(&number.to_le_bytes())
    };
    put(32, 0x1000);
    put(36, 0x200);
    put(56, 0x3000);
    put(60, 0x200);
    put(108, 16);
    put(112 + 16, RVA);
    put(112 + 20, len);
    file.extend(b".rsrc\0\0\0");
    file.extend(le(&[len, RVA, len, 0x200, 0, 0, 0, 0x4000_0040]));
    file.resize(0x200, 0);
    file.extend(section);
    file
}

#[test]
fn versions_are_read_from_programs() {
    let file = pe([10, 0, 19041, 1], "Microsoft Corporation");
    assert_eq!(loader::version(&file).unwrap().to_string(), "10.0.19041.1");
    assert!(loader::version(&pe([1, 2, 3, 4], "Somebody Else")).is_none());
    for cut in 0..file.len() - 512 {
        assert!(loader::version(&file[..cut]).is_none(), "{cut}");
    }
}

proptest! {
    #[test]
    fn hostile_elements_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Device::parse(&bytes);
        let mut program = pe([1, 2, 3, 4], "Microsoft Corporation");
        for (at, byte) in bytes.iter().enumerate() {
            let at = usize::from(*byte) * 7 + at * 3;
            if let Some(place) = program.get_mut(at) {
                *place ^= byte;
            }
        }
        let _ = loader::version(&program);
    }
}

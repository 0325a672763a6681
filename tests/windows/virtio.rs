//! virtio drivers from a folder and from an ISO image of virtio-win, by the real program. The packages are made here in the manner of
//! the real ones: INF files with their syntax, programs that are a PE header, catalogues that OpenSSL signs. hivexregedit, ntfscat and
//! ntfsls read what the guest has afterwards. None of the drivers runs: that Windows loads them is not proven here.

use super::{Guest, convert, findings, have, machine, to_raw, values, volume};
use crate::boots::{fingerprint, landfall, place, text};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder, INF file, service, class, ids of the older and the newer device.
const DRIVERS: &[[&str; 7]] = &[
    [
        "viostor",
        "viostor",
        "viostor",
        "SCSIAdapter",
        "4d36e97b",
        "1001&SUBSYS_00021AF4",
        "1042&SUBSYS_11001AF4",
    ],
    [
        "vioscsi",
        "vioscsi",
        "vioscsi",
        "SCSIAdapter",
        "4d36e97b",
        "1004&SUBSYS_00081AF4",
        "1048&SUBSYS_11001AF4",
    ],
    ["NetKVM", "netkvm", "netkvm", "Net", "4d36e972", "1000&SUBSYS_00011AF4", "1041&SUBSYS_11001AF4"],
    ["Balloon", "balloon", "BALLOON", "System", "4d36e97d", "1002&SUBSYS_00051AF4", "1045&SUBSYS_11001AF4"],
    [
        "vioserial",
        "vioser",
        "VirtioSerial",
        "System",
        "4d36e97d",
        "1003&SUBSYS_00031AF4",
        "1043&SUBSYS_11001AF4",
    ],
];

fn inf([_, stem, service, class, guid, old, new]: &[&str; 7]) -> String {
    let (start, more) = match *class {
        "SCSIAdapter" => (0, "LoadOrderGroup = SCSI miniport\r\n"),
        _ => (3, ""),
    };
    format!(
        "; {stem}.inf\r\n[Version]\r\nSignature=\"$Windows NT$\"\r\nClass={class}\r\n\
         ClassGUID={{{guid}-e325-11ce-bfc1-08002be10318}}\r\nProvider=%VENDOR%\r\n\
         DriverVer=09/04/2023,100.94.104.24800 ; stamped\r\nCatalogFile={stem}.cat\r\nPnpLockdown=1\r\n\r\n\
         [SourceDisksNames]\r\n1 = %DiskId1%,,,\"\"\r\n[SourceDisksFiles]\r\n{stem}.sys = 1,,\r\n\
         [DestinationDirs]\r\nFiles_Driver = 12\r\n\r\n\
         [Manufacturer]\r\n%VENDOR%   = Virtio,NTamd64.10.0...14393\r\n\
         [Virtio.NTamd64.10.0...14393]\r\n\
         %Virtio.DeviceDesc% = inst, PCI\\VEN_1AF4&DEV_{old}&REV_00, PCI\\VEN_1AF4&DEV_{}\r\n\
         %Virtio.DeviceDesc% = inst, PCI\\VEN_1AF4&DEV_{new}&REV_01, PCI\\VEN_1AF4&DEV_{}\r\n\
         [Files_Driver]\r\n{stem}.sys,,,2\r\n[inst]\r\nCopyFiles=Files_Driver\r\n\
         [inst.Services]\r\nAddService = {service}, 0x00000002 , Service_Inst\r\n\
         [Service_Inst]\r\nServiceType = %SERVICE_KERNEL_DRIVER%\r\nStartType = {start}\r\nErrorControl = 1\r\n\
         ServiceBinary  = %12%\\{stem}.sys\r\n{more}\
         [Strings]\r\nVENDOR = \"Somebody\"\r\nDiskId1 = \"Disk\"\r\nVirtio.DeviceDesc = \"VirtIO {stem}\"\r\n\
         SERVICE_KERNEL_DRIVER = 1\r\n",
        &old[..4],
        &new[..4],
    )
}

/// A PE header for x86_64, and what tells one driver from the next.
fn program(stem: &str) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
    bytes[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
    bytes[0x400..0x400 + stem.len()].copy_from_slice(stem.as_bytes());
    bytes
}

/// A signed list of the hashes of files, by OpenSSL.
fn catalogue(files: &[&[u8]], scratch: &Path) -> Vec<u8> {
    let at = |name: &str| scratch.join(name).display().to_string();
    let run = |arguments: &[&str]| {
        let out = Command::new("openssl").args(arguments).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", text(&out));
    };
    if !scratch.join("key").exists() {
        let (key, certificate) = (at("key"), at("certificate"));
        let subject = ["-subj", "/CN=Microsoft Windows Hardware Compatibility Publisher", "-days", "9"];
        let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &certificate];
        run(&[&made[..], &subject].concat());
    }
    let list: Vec<u8> = files.iter().flat_map(Sha256::digest).collect();
    fs::write(scratch.join("list"), list).unwrap();
    let kind = ["-nodetach", "-binary", "-md", "sha256", "-econtent_type", "1.3.6.1.4.1.311.10.1"];
    let (list, certificate, key, signed) = (at("list"), at("certificate"), at("key"), at("signed"));
    let with = ["-in", &list, "-signer", &certificate, "-inkey", &key, "-outform", "DER", "-out", &signed];
    run(&[&["cms", "-sign"][..], &kind, &with].concat());
    fs::read(signed).unwrap()
}

/// The drivers for Server 2019 in the layout of the image.
fn virtio_win(folder: &Path) -> PathBuf {
    let scratch = folder.join("signing");
    fs::create_dir_all(&scratch).unwrap();
    let root = folder.join("virtio-win");
    for driver in DRIVERS {
        let [name, stem, ..] = driver;
        let (inf, sys) = (inf(driver).into_bytes(), program(stem));
        let at = root.join(name).join("2k19/amd64");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join(format!("{stem}.cat")), catalogue(&[&inf, &sys], &scratch)).unwrap();
        fs::write(at.join(format!("{stem}.inf")), inf).unwrap();
        fs::write(at.join(format!("{stem}.sys")), sys).unwrap();
    }
    root
}

/// A file of C:.
pub(super) fn cat(volume: &Path, name: &str) -> Vec<u8> {
    let out = Command::new("ntfscat").arg("-f").arg(volume).arg(name).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// The names in a folder of C:.
fn names(volume: &Path, folder: &str) -> Vec<String> {
    let out = Command::new("ntfsls").args(["-f", "-a", "-p", folder]).arg(volume).output().unwrap();
    assert!(out.status.success(), "{folder}: {}", String::from_utf8_lossy(&out.stderr));
    text(&out).lines().map(|line| line.trim().to_owned()).collect()
}

/// What the guest has of the drivers: its hives, and every file of each package wherever Windows looks for it.
fn check(converted: &Path, virtio_win: &Path, scratch: &Path) {
    let definition = fs::read_to_string(converted.join("domain.xml")).unwrap();
    assert!(definition.contains("bus=\"virtio\""), "{definition}");
    assert!(definition.contains("<model type=\"virtio\""), "{definition}");
    assert!(!definition.contains("bus=\"sata\"") && !definition.contains("e1000e"), "{definition}");

    let raw = scratch.join("virtio.raw");
    to_raw(&converted.join("disk0.qcow2"), &raw);
    let volume = volume(&raw, scratch);
    let hive = |name: &str| {
        let path = scratch.join(name);
        fs::write(&path, cat(&volume, &format!("Windows/System32/config/{name}"))).unwrap();
        values(&path)
    };
    let (system, drivers) = (hive("SYSTEM"), hive("DRIVERS"));
    // Of names that differ in their case only, Windows finds one.
    for (folder, name) in
        [("Windows", "inf"), ("Windows/System32", "catroot"), ("Windows/System32", "driverstore")]
    {
        let same = names(&volume, folder).into_iter().filter(|other| other.eq_ignore_ascii_case(name));
        assert_eq!(same.count(), 1, "{folder}/{name}");
    }
    let mut numbers = Vec::new();
    for [folder, stem, service, class, _, old, _] in DRIVERS {
        let is_storage = *class == "SCSIAdapter";
        // The class of disks is in SYSTEM, those that no start needs are in a hive of their own.
        let database = if is_storage { &system } else { &drivers };
        let prefix = format!("DriverDatabase\\DriverPackages\\{stem}.inf_amd64_");
        let label = database.keys().find_map(|key| key.strip_prefix(&prefix)).expect(stem);
        let label = format!("{stem}.inf_amd64_{}", label.split([' ', '\\']).next().unwrap());
        let own = format!("DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_{} \"oem", &old[..4]);
        let number = database.keys().find_map(|key| key.strip_prefix(&own)).expect(stem);
        let number: u32 = number.trim_end_matches(".inf\"").parse().unwrap();
        assert!(number > 0, "oem0.inf is taken");
        numbers.push(number);
        let packed = |ending: &str| {
            fs::read(virtio_win.join(folder).join("2k19/amd64").join(format!("{stem}.{ending}"))).unwrap()
        };
        let store = format!("Windows/System32/DriverStore/FileRepository/{label}/{stem}");
        for ending in ["inf", "sys", "cat"] {
            assert_eq!(cat(&volume, &format!("{store}.{ending}")), packed(ending), "{stem}.{ending}");
        }
        assert_eq!(cat(&volume, &format!("Windows/INF/oem{number}.inf")), packed("inf"));
        let catalogues = "Windows/System32/catroot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";
        assert_eq!(cat(&volume, &format!("{catalogues}/oem{number}.cat")), packed("cat"));
        let service = format!("ControlSet001\\Services\\{service} \"Start\"");
        if is_storage {
            assert_eq!(cat(&volume, &format!("Windows/System32/drivers/{stem}.sys")), packed("sys"));
            assert_eq!(system[&service], "dword:00000000");
        } else {
            assert_eq!(system[&service], "dword:00000003");
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), DRIVERS.len(), "each has a number of its own");
    assert_eq!(system["DriverDatabase \"OemInfMap\""], "hex(3):fc", "six numbers are taken");
    let script = String::from_utf8(cat(&volume, "Windows/landfall/firstboot.cmd")).unwrap();
    assert!(script.contains("10.20.30.40") && script.contains("rem driver netkvm"), "{script}");
    fs::remove_file(volume).unwrap();
    fs::remove_file(raw).unwrap();
}

#[test]
fn a_machine_gets_the_drivers_of_virtio_win() {
    let tools = ["mkntfs", "ntfs-3g", "ntfscat", "ntfsls", "hivexregedit", "sfdisk", "qemu-system-x86_64"];
    if !have(&tools) || !have(&["openssl", "xorriso", "qemu-img"]) {
        return;
    }
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let Some(vmx) = machine(folder.path(), Guest::WithDatabase) else { return };
    let source = fingerprint(&at("vm"));
    let drivers = virtio_win(folder.path());
    let image = at("virtio-win.iso");
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-r", "-J", "-V", "virtio-win", "-o"])
        .args([&image, &drivers])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));

    let (of_folder, report) = convert(&vmx, "kvm", &at("folder"), Some(&drivers));
    let odd = |report: &Value| {
        let about_drivers = |id: &&str| id.starts_with("windows-driver") || id.contains("virtio");
        findings(report).into_iter().filter(about_drivers).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(odd(&report), Vec::<String>::new(), "{report:#}");
    check(&of_folder, &drivers, folder.path());
    let (of_image, report) = convert(&vmx, "kvm", &at("image"), Some(&image));
    assert_eq!(odd(&report), Vec::<String>::new(), "{report:#}");
    check(&of_image, &drivers, folder.path());

    // Nothing is left to do, from whichever of the two.
    for path in [&drivers, &image] {
        let again = landfall()
            .args(["inspect", "--to", "kvm", "--json", "--virtio-win"])
            .args([path, &of_folder.join("domain.xml")])
            .output()
            .unwrap();
        assert!(again.status.success(), "{}", text(&again));
        let again: Value = serde_json::from_slice(&again.stdout).unwrap();
        assert_eq!(again["edits"].as_array().unwrap().len(), 0, "{:#}", again["edits"]);
    }
    assert_eq!(fingerprint(&at("vm")), source, "the source stays as it was");
}

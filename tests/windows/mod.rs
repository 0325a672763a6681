//! A Windows machine goes from VMware to KVM, to Hyper-V and back to VMware, by the real program: an NTFS disk from
//! `tools/make-windows-disk.sh` with hives that are made here. hivexregedit and ntfscat, which share no code with landfall, read what
//! came of it. Nothing of Windows runs: that is what these tests cannot prove.

mod installer;
mod virtio;

use crate::boots::{fingerprint, landfall, place, text};
use landfall_boot::windows::data::Data;
use landfall_boot::windows::hive::Hive;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CLASS: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";
const ADAPTER: &str = "{08BA0CD8-E98C-475C-BADF-65130C043BD6}";
const MANAGER: &str = "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
const LOADER: &str = "{7254a080-1510-4e85-ac0f-e7fb3d444736}";

fn have(tools: &[&str]) -> bool {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let lacks =
        tools.iter().find(|tool| !std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
    if let Some(tool) = lacks {
        eprintln!("SKIPPED: {tool} is not here: run make test, which installs it");
    }
    lacks.is_none()
}

/// Writes a hive with these values.
fn hive(path: &Path, values: &[(&str, &str, Data)]) {
    let mut hive = Hive::new();
    for (key, name, data) in values {
        let key = hive.create_key(key).unwrap();
        hive.set(key, name, data).unwrap();
    }
    fs::write(path, hive.finish().unwrap()).unwrap();
}

/// Where the guest keeps account of its drivers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guest {
    /// As Windows 7 does.
    Plain,
    /// In the database of Windows 8 and newer, of which `oem0.inf` is taken.
    WithDatabase,
}

/// SYSTEM of a Windows Server 2019 that runs on VMware's paravirtual devices, with an address of its own.
fn system(path: &Path, guest: Guest) {
    let services = "ControlSet001\\Services";
    let control = "ControlSet001\\Control";
    let mut values = vec![
        ("Select".to_owned(), "Default", Data::dword(1)),
        ("Select".to_owned(), "Current", Data::dword(1)),
        (format!("{control}\\ProductOptions"), "ProductType", Data::text("ServerNT")),
        (format!("{control}\\Session Manager\\Environment"), "PROCESSOR_ARCHITECTURE", Data::text("AMD64")),
        (format!("{control}\\Session Manager\\Power"), "HiberbootEnabled", Data::dword(1)),
        (format!("{services}\\partmgr\\Parameters"), "SanPolicy", Data::dword(3)),
        (format!("{services}\\VMTools"), "Start", Data::dword(2)),
        (format!("{services}\\VMTools"), "Type", Data::dword(0x10)),
        (format!("{services}\\vmxnet3ndis6"), "Start", Data::dword(3)),
        (format!("{services}\\netvsc"), "Start", Data::dword(3)),
        (format!("{services}\\e1i65x64"), "Start", Data::dword(3)),
    ];
    for driver in ["pvscsi", "storahci", "stornvme", "atapi", "intelide", "pciide", "vmbus", "storvsc"] {
        values.push((format!("{services}\\{driver}"), "Start", Data::dword(0)));
        values.push((format!("{services}\\{driver}"), "Type", Data::dword(1)));
        if driver != "pvscsi" {
            values.push((format!("{services}\\{driver}\\StartOverride"), "0", Data::dword(3)));
        }
    }
    let connection = format!("{control}\\Network\\{CLASS}\\{ADAPTER}\\Connection");
    values.push((connection.clone(), "Name", Data::text("Ethernet0")));
    let device = "PCI\\VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01\\FF56500000AABBCC00";
    values.push((connection, "PnpInstanceID", Data::text(device)));
    let address = format!("{services}\\Tcpip\\Parameters\\Interfaces\\{ADAPTER}");
    for (name, data) in [
        ("EnableDHCP", Data::dword(0)),
        ("IPAddress", Data::texts(["10.20.30.40"])),
        ("SubnetMask", Data::texts(["255.255.255.0"])),
        ("DefaultGateway", Data::texts(["10.20.30.1"])),
        ("NameServer", Data::text("10.20.30.2")),
    ] {
        values.push((address.clone(), name, data));
    }
    if guest == Guest::WithDatabase {
        let class = "DriverDatabase\\DeviceIds\\{4d36e97b-e325-11ce-bfc1-08002be10318}";
        values.push(("DriverDatabase".to_owned(), "OemInfMap", Data::binary([0x80])));
        values.push((class.to_owned(), "c_scsiadapter.inf", Data::binary([])));
    }
    // The partition of C: as MountedDevices has it: the first three fields of a GUID are little-endian.
    let guid = [0x54, 0x2c, 0x9a, 0x6e, 0x1b, 0x3f, 0x7a, 0x4d, 0x9c, 0x80, 0, 0, 0, 0, 0, 3];
    let letter = [b"DMIO:ID:".as_slice(), &guid].concat();
    values.push(("MountedDevices".to_owned(), "\\DosDevices\\C:", Data::binary(letter)));
    let values: Vec<_> = values.iter().map(|(key, name, data)| (key.as_str(), *name, data.clone())).collect();
    hive(path, &values);
}

fn software(path: &Path) {
    let version = "Microsoft\\Windows NT\\CurrentVersion";
    hive(
        path,
        &[
            (version, "CurrentMajorVersionNumber", Data::dword(10)),
            (version, "CurrentMinorVersionNumber", Data::dword(0)),
            (version, "CurrentBuildNumber", Data::text("17763")),
            (version, "ProductName", Data::text("Windows Server 2019 Standard")),
            (version, "EditionID", Data::text("ServerStandard")),
            (version, "SystemRoot", Data::text("C:\\Windows")),
        ],
    );
}

fn store(path: &Path) {
    let manager = |below: &str| format!("{MANAGER}\\{below}");
    let loader = |below: &str| format!("Objects\\{LOADER}\\{below}");
    let values = [
        (manager("Description"), "Type", Data::dword(0x1010_0002)),
        (manager("Elements\\23000003"), "Element", Data::text(LOADER)),
        (loader("Description"), "Type", Data::dword(0x1020_0003)),
        (loader("Elements\\12000002"), "Element", Data::text("\\Windows\\system32\\winload.efi")),
        (loader("Elements\\12000004"), "Element", Data::text("Windows Server")),
        (loader("Elements\\22000002"), "Element", Data::text("\\Windows")),
    ];
    let values: Vec<_> = values.iter().map(|(key, name, data)| (key.as_str(), *name, data.clone())).collect();
    hive(path, &values);
}

/// `vm/win01.vmx` with the disk beside it.
fn machine(folder: &Path, guest: Guest) -> Option<PathBuf> {
    let hives = folder.join("hives");
    let vm = folder.join("vm");
    fs::create_dir_all(&hives).unwrap();
    fs::create_dir_all(&vm).unwrap();
    system(&hives.join("SYSTEM"), guest);
    hive(&hives.join("DRIVERS"), &[("DriverDatabase", "Version", Data::dword(1))]);
    software(&hives.join("SOFTWARE"));
    store(&hives.join("BCD"));
    fs::write(hives.join("driver"), "MZ").unwrap();
    let at = |path: &str, file: &str| format!("{path}={}", hives.join(file).display());
    let made = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/make-windows-disk.sh"))
        .arg("uefi")
        .arg(vm.join("win01-flat.vmdk"))
        .arg(at("Windows/System32/config/SYSTEM", "SYSTEM"))
        .arg(at("Windows/System32/config/SOFTWARE", "SOFTWARE"))
        .args((guest == Guest::WithDatabase).then(|| at("Windows/System32/config/DRIVERS", "DRIVERS")))
        .arg(at(":esp/EFI/Microsoft/Boot/BCD", "BCD"))
        .arg(at("Windows/System32/drivers/pvscsi.sys", "driver"))
        .arg(at("Windows/System32/drivers/vmxnet3ndis6.sys", "driver"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !made.status.success() {
        eprintln!("SKIPPED: no disk of Windows: {}", text(&made));
        return None;
    }
    let sectors = fs::metadata(vm.join("win01-flat.vmdk")).unwrap().len() / 512;
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n\
         RW {sectors} FLAT \"win01-flat.vmdk\" 0\n"
    );
    fs::write(vm.join("win01.vmdk"), descriptor).unwrap();
    let vmx = "config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"win01\"\nmemSize = \"4096\"\nfirmware = \"efi\"\n\
               guestOS = \"windows2019srv-64\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\n\
               scsi0:0.fileName = \"win01.vmdk\"\nethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n\
               ethernet0.addressType = \"static\"\nethernet0.address = \"00:50:56:aa:bb:cc\"\n";
    let path = vm.join("win01.vmx");
    fs::write(&path, vmx).unwrap();
    Some(path)
}

/// Converts, with these drivers; the folder that was written, and the report.
fn convert(source: &Path, to: &str, into: &Path, virtio_win: Option<&Path>) -> (PathBuf, Value) {
    let mut command = landfall();
    command.args(["convert", "--to", to, "--json", "-o"]).arg(into);
    if let Some(drivers) = virtio_win {
        command.arg("--virtio-win").arg(drivers);
    }
    let output = command.arg(source).output().unwrap();
    assert!(output.status.success(), "{to}: {}", text(&output));
    (into.join("win01"), serde_json::from_slice(&output.stdout).unwrap())
}

fn findings(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect()
}

fn to_raw(disk: &Path, raw: &Path) {
    let out = Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(disk).arg(raw).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
}

/// C: of a raw disk.
fn volume(raw: &Path, scratch: &Path) -> PathBuf {
    let table = Command::new("sfdisk")
        .arg("-d")
        .arg(raw)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    let table = text(&table);
    let line = table.lines().find(|line| line.contains("Basic data partition")).expect("C:");
    let number = |key: &str| -> u64 {
        let rest = line.split(key).nth(1).unwrap().trim_start_matches([' ', '=']);
        rest.split(',').next().unwrap().trim().parse().unwrap()
    };
    let volume = scratch.join("volume");
    let bytes = fs::read(raw).unwrap();
    let (start, len) = (number("start=") * 512, number("size=") * 512);
    let range = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
    fs::write(&volume, &bytes[range]).unwrap();
    volume
}

/// A file of C: as ntfscat reads it from a raw disk.
fn file(raw: &Path, name: &str, scratch: &Path) -> PathBuf {
    let volume = volume(raw, scratch);
    let out = Command::new("ntfscat").arg("-f").arg(&volume).arg(name).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    let path = scratch.join(name.rsplit('/').next().unwrap());
    fs::write(&path, out.stdout).unwrap();
    path
}

/// All values of a hive as hivexregedit exports them, by key and name.
fn values(hive: &Path) -> BTreeMap<String, String> {
    let out = Command::new("hivexregedit")
        .args(["--export", "--prefix", "H"])
        .arg(hive)
        .arg("\\")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let exported = String::from_utf8(out.stdout).unwrap();
    let (mut all, mut key) = (BTreeMap::new(), String::new());
    for line in exported.lines() {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => key = name.trim_start_matches("H\\").to_owned(),
            None => {
                if let Some((name, value)) = line.split_once('=') {
                    all.insert(format!("{key} {name}"), value.to_owned());
                }
            }
        }
    }
    all
}

/// What differs: `-` as it was, `+` as it is.
fn differences(before: &Path, after: &Path) -> String {
    let (before, after) = (values(before), values(after));
    let mut lines = Vec::new();
    for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))) {
        let (old, new) = (before.get(key), after.get(key));
        if old != new {
            lines.extend(old.map(|old| format!("- {key} = {old}")));
            lines.extend(new.map(|new| format!("+ {key} = {new}")));
        }
    }
    lines.join("\n")
}

#[test]
fn a_machine_goes_round() {
    if !have(&["mkntfs", "ntfs-3g", "ntfscat", "hivexregedit", "sfdisk", "qemu-system-x86_64"]) {
        return;
    }
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let Some(vmx) = machine(folder.path(), Guest::Plain) else { return };
    let source = fingerprint(&at("vm"));

    let (kvm, report) = convert(&vmx, "kvm", &at("kvm"), None);
    assert!(findings(&report).contains(&"windows-no-virtio-win"), "{report:#}");
    let definition = fs::read_to_string(kvm.join("domain.xml")).unwrap();
    assert!(definition.contains("bus=\"sata\"") && definition.contains("e1000e"), "{definition}");
    assert!(
        definition.contains("<clock offset=\"localtime\""),
        "Windows takes the clock for local time: {definition}"
    );
    let raw = at("kvm.raw");
    to_raw(&kvm.join("disk0.qcow2"), &raw);
    let system = file(&raw, "Windows/System32/config/SYSTEM", folder.path());
    insta::assert_snapshot!("kvm_system", differences(&at("hives/SYSTEM"), &system));
    let script = fs::read_to_string(file(&raw, "Windows/landfall/firstboot.cmd", folder.path())).unwrap();
    assert!(script.contains("10.20.30.40") && script.contains("00-50-56-aa-bb-cc"), "{script}");

    // On to Hyper-V: the first pass made its drivers start, too.
    let (hyperv, report) = convert(&kvm, "hyperv", &at("hyperv"), None);
    assert!(hyperv.join("register.ps1").is_file());
    assert!(!report["edits"].to_string().contains("StartOverride"), "{:#}", report["edits"]);

    // Back to VMware: its tools are given back, and its own controller, which has its driver.
    let (esxi, report) = convert(&kvm, "esxi", &at("esxi"), None);
    let vmx_back = fs::read_to_string(esxi.join("win01.vmx")).unwrap();
    assert!(vmx_back.contains("pvscsi") && vmx_back.contains("vmxnet3"), "{vmx_back}");
    to_raw(&esxi.join("disk0-flat.vmdk"), &raw);
    let system = file(&raw, "Windows/System32/config/SYSTEM", folder.path());
    let differences = differences(&at("hives/SYSTEM"), &system);
    assert!(!differences.contains("VMTools"), "it starts as it did: {differences}\n{:#}", report["edits"]);

    // Nothing is left to do.
    let again =
        landfall().args(["inspect", "--to", "esxi", "--json"]).arg(esxi.join("win01.vmx")).output().unwrap();
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["edits"].as_array().unwrap().len(), 0, "{:#}", again["edits"]);
    assert_eq!(fingerprint(&at("vm")), source, "the source stays as it was");
}

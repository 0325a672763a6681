//! Hyper-V configurations against what dissect.hypervisor reads in them, and hostile ones.

use super::corpus;
use landfall::hypervisor::hyperv::tree::{Node, Value};
use landfall::hypervisor::hyperv::{read, vmcx};
use landfall::hypervisor::{self, Choice};
use landfall::machine::Bus;
use landfall_boot::target::Firmware;
use landfall_image::Kind;
use std::path::PathBuf;

fn files(ending: &str) -> Vec<PathBuf> {
    let Some(corpus) = corpus() else { return Vec::new() };
    let mut files: Vec<_> = std::fs::read_dir(corpus.join("hyperv"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|has| has == ending))
        .collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    files
}

/// As the corpus has dissect's reading: bytes as hexadecimal digits below `bytes_hex`.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Keys => node.children.iter().map(|child| (child.name.clone(), json(child))).collect(),
        Value::Int(number) => (*number).into(),
        Value::UInt(number) => (*number).into(),
        Value::Double(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Bytes(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "bytes_hex": hex })
        }
    }
}

/// Every key and value of every store is what dissect finds: none more, none less.
#[test]
fn every_key_is_read_as_dissect_reads_it() {
    for path in files("vmcx") {
        let tree = vmcx::parse(&std::fs::read(&path).unwrap()).unwrap();
        let theirs = std::fs::read(path.with_extension("vmcx.dissect.json")).unwrap();
        let theirs: serde_json::Value = serde_json::from_slice(&theirs).unwrap();
        assert_eq!(json(&tree), theirs, "{}", path.display());
    }
}

#[test]
fn the_machines_of_the_corpus() {
    let mut seen = Vec::new();
    for path in files("vmcx").into_iter().chain(files("xml")) {
        let bytes = std::fs::read(&path).unwrap();
        let ending = path.extension().unwrap().to_str().unwrap();
        let reader = hypervisor::reader(ending, &bytes).unwrap();
        assert_eq!(reader.name, if ending == "xml" { "hyperv-xml" } else { "vmcx" });
        if path.file_stem().unwrap() == "data" {
            let error = (reader.parse)(&bytes, &Choice::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(
                error.hint_text().unwrap().contains("4C57771A-3230-4B92-B029-D63F96518E70.vmcx"),
                "{error}"
            );
            continue;
        }
        let parsed = (reader.parse)(&bytes, &Choice::default()).unwrap();
        assert_eq!(parsed.unread, Vec::<String>::new(), "{}", path.display());
        let machine = parsed.machine;
        let second = machine.name == "Default Generation 2";
        assert!(second || machine.name == "Default Generation 1");
        let firmware = if second { Firmware::Uefi } else { Firmware::Bios };
        assert_eq!((machine.firmware, machine.secure_boot, machine.tpm), (firmware, second, false));
        assert_eq!(machine.memory.0 >> 20, if ending == "xml" { 512 } else { 1024 });
        assert_eq!((machine.cpus.count, machine.nics.len(), machine.disks.len()), (1, 1, 1));
        let disk = &machine.disks[0];
        let (slot, bus) = if second { ("SCSI 0:0", Bus::Vmbus) } else { ("IDE 0:0", Bus::Ide) };
        assert_eq!((disk.slot.as_str(), disk.bus), (slot, bus));
        assert_eq!(disk.file, format!(r"C:\Disks\{}.vhdx", machine.name));
        assert_eq!(machine.nics[0].mac, None);
        assert!(!machine.nics[0].connected);
        seen.push((ending.to_owned(), second, machine.smbios.uuid.unwrap().to_string()));
    }
    if !seen.is_empty() {
        assert_eq!(seen.len(), 4);
        assert!(
            seen.contains(&("vmcx".into(), true, "d64a478e-2d03-4a47-b100-6df8e8df3aab".into())),
            "{seen:?}"
        );
    }
}

/// A cut file, and one with any bit flipped, is refused or read as it was; it never ends the program or keeps it busy. A flipped
/// bit within anything that has a sum is told.
#[test]
fn damage_is_told_or_harmless() {
    for path in files("vmcx") {
        let bytes = std::fs::read(&path).unwrap();
        let whole = vmcx::parse(&bytes).unwrap();
        for end in (0..bytes.len()).step_by(97) {
            let cut = vmcx::parse(&bytes[..end]);
            assert!(cut.is_err() || cut.is_ok_and(|tree| tree == whole), "cut at {end}");
        }
        let mut wrong = Vec::new();
        for at in (0..bytes.len()).step_by(31) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            // In a free entry, in padding, or in an old copy nothing is lost; the name of the file is not looked at.
            if vmcx::parse(&flipped).is_ok_and(|tree| tree != whole) {
                wrong.push(at);
            }
            drop(read::parse_vmcx(&flipped, &Choice::default()));
        }
        assert_eq!(wrong, Vec::<usize>::new(), "{}: flips that change the tree in silence", path.display());
    }
}

/// A folder as Export-VM writes it is a source: its one configuration, and the disk in the folder beside it.
#[test]
fn an_exported_folder_is_read_whole() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().canonicalize().unwrap().join("Default Generation 2");
    let (machines, disks) = (export.join("Virtual Machines"), export.join("Virtual Hard Disks"));
    std::fs::create_dir_all(&machines).unwrap();
    std::fs::create_dir_all(&disks).unwrap();
    let name = "993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx";
    std::fs::copy(corpus.join("hyperv").join(name), machines.join(name)).unwrap();
    let raw = folder.path().join("disk.raw");
    std::fs::write(&raw, vec![0; 8 << 20]).unwrap();
    let landfall = || assert_cmd::Command::cargo_bin("landfall").unwrap();
    let disk = disks.join("Default Generation 2.vhdx");
    landfall().args(["disk", "convert", "-O", "vhdx"]).args([&raw, &disk]).assert().success();
    for source in [&export, &machines.join(name)] {
        let output = landfall().args(["inspect", "--json", "--to", "hyperv"]).arg(source).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: serde_json::Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(report["disks"][0]["layers"][0]["path"], disk.to_str().unwrap(), "{report:#}");
        assert_eq!(report["machine"]["name"], "Default Generation 2");
        assert_eq!(report["machine"]["secure_boot"], true);
    }
    // Without its disk it says where that belongs.
    std::fs::remove_file(&disk).unwrap();
    let output = landfall().arg("inspect").arg(&export).output().unwrap();
    let says = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && says.contains("--disk 'SCSI 0:0=FILE'"), "{says}");
}

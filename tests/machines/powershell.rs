//! Scripts and templates against grammars that others wrote: tree-sitter's for PowerShell and Bicep, `sh -n` and shellcheck
//! for a shell's.

use landfall::hypervisor::{self, Networks, PlacedDisk, Placement};
use landfall::machine::{Backing, BootDevice, Bus, DiskSlot, Machine, NicSlot};
use landfall_boot::target::{Devices, DiskModel, Firmware, NicModel, Platform};
use landfall_image::Bytes;
use std::process::{Command, Stdio};
use tree_sitter::{Language, Node, Parser};

/// Fails where `text` is no PowerShell: with every place that the grammar does not take.
pub fn assert_powershell(text: &str) {
    // A byte-order mark is none of the grammar's business.
    let text = text.trim_start_matches('\u{feff}');
    let wrong = errors(text, &tree_sitter_powershell::LANGUAGE.into());
    assert!(wrong.is_empty(), "no PowerShell:\n{}\n{text}", wrong.join("\n"));
}

/// Fails where `text` is no Bicep.
pub fn assert_bicep(text: &str) {
    let wrong = errors(text, &tree_sitter_bicep::LANGUAGE.into());
    assert!(wrong.is_empty(), "no Bicep:\n{}\n{text}", wrong.join("\n"));
}

/// Fails where `text` is no script of a POSIX shell, or where shellcheck warns of it.
pub fn assert_shell(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script.sh");
    std::fs::write(&file, text).unwrap();
    let parsed = Command::new("sh").arg("-n").arg(&file).output().unwrap();
    assert!(parsed.status.success(), "{}\n{text}", String::from_utf8_lossy(&parsed.stderr));
    // SC2041: a list of one quoted file name is meant as one. SC1112: names may hold typographic quotes.
    match Command::new("shellcheck")
        .args(["-s", "sh", "-S", "warning", "-e", "SC2041,SC1112"])
        .arg(&file)
        .output()
    {
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout)),
        Err(_) => eprintln!("SKIPPED: shellcheck is not here (Debian: shellcheck)"),
    }
}

fn errors(text: &str, language: &Language) -> Vec<String> {
    let mut parser = Parser::new();
    parser.set_language(language).unwrap();
    let tree = parser.parse(text, None).unwrap();
    let mut wrong = Vec::new();
    let mut waiting = vec![tree.root_node()];
    while let Some(node) = waiting.pop() {
        if node.is_error() || node.is_missing() {
            wrong.push(shown(node, text));
        } else {
            waiting.extend((0..node.child_count()).filter_map(|n| node.child(n)));
        }
    }
    wrong
}

fn shown(node: Node<'_>, text: &str) -> String {
    let row = node.start_position().row;
    format!("line {}: {}", row + 1, text.lines().nth(row).unwrap_or_default())
}

const HOSTILE: &str =
    "x'; Remove-VM -Force * \u{2019} $(calc) `n \"@{} %USERNAME% ${name} \\ @NOTES@ \u{1b}[2J\u{202e}";

fn machines() -> Vec<Machine> {
    let mut all = Vec::new();
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let mut machine = Machine::new("web01", Bytes::gib(4));
        machine.firmware = firmware;
        machine.disks = vec![DiskSlot::new("sda", Bus::Scsi, "a")];
        all.push(machine.clone());
        machine.name = format!("web {HOSTILE}");
        machine.annotation = Some(format!("{HOSTILE}\n{HOSTILE}"));
        machine.tags = vec![format!("{HOSTILE}={HOSTILE}"), "b=c".into()];
        (machine.secure_boot, machine.tpm) = (true, true);
        machine.smbios.serial = Some(HOSTILE.into());
        machine.smbios.uuid = Some(uuid::Uuid::from_u128(77));
        machine.boot_order = vec![BootDevice::Nic(1), BootDevice::Disk, BootDevice::Cdrom];
        machine.disks = (0..4).map(|n| DiskSlot::new(n.to_string(), Bus::Scsi, "a")).collect();
        machine.disks[2].backing = Backing::Volume;
        machine.boot_disk = Some(2);
        let mut nics: Vec<NicSlot> = (0..3).map(|n| NicSlot::new(format!("{n}{HOSTILE}"))).collect();
        nics[0].mac = Some("00:50:56:00:00:01".into());
        nics[0].network = Some(HOSTILE.into());
        nics[1].vlan = Some(7);
        nics[2].connected = false;
        machine.nics = nics;
        all.push(machine);
    }
    all
}

fn placement(machine: &Machine, network: &str) -> Placement {
    let disk = |n| PlacedDisk {
        file: format!("disk{n}.vhdx"),
        virtual_size: Bytes::gib(9),
        ..PlacedDisk::default()
    };
    Placement {
        folder: format!("/out/{HOSTILE}"),
        disks: (0..machine.disks.len()).map(disk).collect(),
        networks: Networks { map: vec![(HOSTILE.into(), network.into())], rest: Some(network.into()) },
        storage: Some(HOSTILE.into()),
        ..Placement::default()
    }
}

#[test]
fn every_script_and_template_is_one() {
    let mut counts = [0; 3];
    for machine in machines() {
        for name in ["hyperv", "azure"] {
            let target = hypervisor::target(name).unwrap();
            let usual = hypervisor::attach::adapt(&machine, target.platform, &Devices::default()).unwrap();
            let mut adapted = vec![usual];
            if name == "hyperv" && machine.firmware == Firmware::Bios {
                adapted.push(hypervisor::attach::on(
                    &machine,
                    Platform::Hyperv,
                    DiskModel::Ide,
                    NicModel::Tulip,
                ));
            }
            for machine in adapted {
                for network in [HOSTILE, "/subscriptions/1/x"] {
                    let rendered = (target.render)(&machine, &placement(&machine, network)).unwrap();
                    for file in rendered.artifacts {
                        let (check, count): (fn(&str), _) = match file.name.rsplit('.').next() {
                            Some("ps1") => (assert_powershell, 0),
                            Some("bicep") => (assert_bicep, 1),
                            Some("sh") => (assert_shell, 2),
                            other => panic!("{other:?}"),
                        };
                        check(&file.text);
                        counts[count] += 1;
                    }
                }
            }
        }
    }
    assert_eq!(counts, [12, 8, 8]);
}

/// What the grammars do not take is told.
#[test]
fn the_checks_bite() {
    let fails = |check: fn(&str), text: &'static str| std::panic::catch_unwind(move || check(text)).is_err();
    assert!(fails(assert_powershell, "$x = 'it's'\nif ($x { 1 }"));
    assert!(fails(assert_bicep, "param x string = 'it's'\nresource {"));
    assert!(fails(assert_shell, "if true; then echo 'it's'"));
    assert_powershell("$x = 'it''s'; if ($x) { 1 }");
    assert_bicep("param x string = 'it\\'s'\n");
    assert_shell("#!/bin/sh\necho \"it's\"\n");
}

/// The script refuses without its tools, its login and its options, and makes nothing.
#[test]
fn the_azure_script_stops_early() {
    let machine = machines().remove(0);
    let machine = hypervisor::attach::adapt(&machine, Platform::Azure, &Devices::default()).unwrap();
    let files =
        hypervisor::azure::write::render(&machine, &placement(&machine, "net/front")).unwrap().artifacts;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("register.sh");
    std::fs::write(&script, &files[1].text).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.arg(&script).args(arguments).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&[]).contains("no resource group"));
    assert!(run(&["-g", "a"]).contains("no storage account"));
}

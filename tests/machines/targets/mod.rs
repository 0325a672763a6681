//! Definitions and scripts for targets that are not here: checked by other readers of the same text, and run against programs
//! that write down what they were given.

mod azure;
mod clouds;
mod ovirt;
mod qm;
mod xe;

use landfall::hypervisor::{self, Networks, PlacedDisk, Placement, Rendered};
use landfall::machine::{BootDevice, Bus, Clock, Cpus, DiskSlot, Machine, NicSlot};
use landfall_boot::target::{Devices, DiskModel, Firmware, NicModel};
use landfall_image::Bytes;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a script runs if anything of a definition gets out of its quotes.
const EVIL: &str = "it's $(touch PWNED) `touch PWNED`; touch PWNED; \"x\" \\ & <a> @NAME@ @OPTIONS@ ä";

/// A machine with two disks and two cards.
fn usual() -> Machine {
    let mut machine = Machine::new("web01", Bytes::mib(2000));
    machine.annotation = Some("web server\nof the shop".into());
    machine.tags = vec!["backup=daily".into(), "web".into()];
    machine.cpus = Cpus::new(4, 2, 1);
    machine.smbios.uuid = Some("7b10d7af-b932-4c66-b2c3-3996152ec465".parse().unwrap());
    machine.smbios.serial = Some("VMware-56 4d".into());
    for n in 0..2 {
        let mut disk = DiskSlot::new(format!("scsi0:{n}"), Bus::Scsi, format!("{n}.vmdk"));
        disk.serial = Some(format!("disk {n}"));
        machine.disks.push(disk);
        let mut nic = NicSlot::new(format!("ethernet{n}"));
        nic.mac = Some(format!("00:50:56:00:12:a{n}"));
        nic.network = Some(format!("net {n}"));
        machine.nics.push(nic);
    }
    machine.nics[1].connected = false;
    machine.os = Some(landfall::machine::OsId { distribution: "debian".into(), version: "12".into() });
    machine
}

/// The same with secure boot, a TPM, another boot disk, and names that want to get out.
fn hostile() -> Machine {
    let mut machine = usual();
    machine.name = EVIL.into();
    machine.annotation = Some(format!("{EVIL}\n{EVIL}\n'\ntouch PWNED\n\u{1}\u{85}"));
    machine.tags = vec![format!("a={EVIL}"), "-x".into(), EVIL.into()];
    machine.firmware = Firmware::Uefi;
    machine.secure_boot = true;
    machine.tpm = true;
    machine.clock = Clock::LocalTime;
    machine.smbios.serial = Some(EVIL.into());
    machine.smbios.manufacturer = Some(EVIL.into());
    machine.boot_disk = Some(1);
    machine.boot_order = vec![BootDevice::Nic(1), BootDevice::Disk, BootDevice::Cdrom];
    machine.disks[0].serial = Some("'$(touch PWNED)".into());
    machine.disks[1].serial = Some(EVIL.into());
    machine.nics[0].vlan = Some(12);
    machine
}

fn networks() -> Networks {
    Networks { map: vec![("net 0".into(), "lan".into()), ("net 1".into(), "dmz".into())], rest: None }
}

/// The machine as its renderer gets it, on devices that the guest can drive.
fn render(
    target: &str,
    machine: &Machine,
    disk: Option<DiskModel>,
    networks: &Networks,
    folder: &str,
) -> Rendered {
    let row = hypervisor::target(target).unwrap();
    let card = if target == "xen" { NicModel::Xen } else { NicModel::VirtioNet };
    let devices = Devices { disks: disk.into_iter().collect(), cards: vec![card] };
    let machine = hypervisor::attach::adapt(machine, row.platform, &devices).unwrap();
    let mut machine = machine;
    let mut placement =
        Placement { folder: folder.into(), networks: networks.clone(), ..Placement::default() };
    for (index, disk) in machine.disks.iter_mut().enumerate() {
        disk.file = format!("disk{index}.qcow2");
        placement.disks.push(PlacedDisk {
            file: disk.file.clone(),
            format: "qcow2".into(),
            virtual_size: Bytes((10 << 30) + 1),
            stored: Some(Bytes::mib(3)),
            below: None,
        });
    }
    (row.render)(&machine, &placement).unwrap()
}

fn text<'a>(rendered: &'a Rendered, name: &str) -> &'a str {
    let names: Vec<_> = rendered.artifacts.iter().map(|artifact| &artifact.name).collect();
    let found = rendered.artifacts.iter().find(|artifact| artifact.name == name);
    &found.unwrap_or_else(|| panic!("{name} is not among {names:?}")).text
}

/// A folder with a rendered machine, and programs that write down what they were given.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(rendered: &Rendered) -> Stage {
        let stage = Stage { folder: tempfile::tempdir().unwrap() };
        for name in ["bin", "out it's", "etc"] {
            fs::create_dir(stage.path(name)).unwrap();
        }
        for artifact in &rendered.artifacts {
            let path = stage.path("out it's").join(&artifact.name);
            fs::write(&path, &artifact.text).unwrap();
            fs::set_permissions(
                &path,
                fs::Permissions::from_mode(if artifact.executable { 0o755 } else { 0o644 }),
            )
            .unwrap();
        }
        for n in 0..2 {
            fs::write(stage.path("out it's").join(format!("disk{n}.qcow2")), "").unwrap();
        }
        stage
    }

    /// The machine's name in the script.
    fn name(&self) -> String {
        let script = fs::read_to_string(self.path("out it's").join("register.sh")).unwrap();
        let line = script.lines().find_map(|line| line.strip_prefix("name=")).unwrap();
        line.trim_matches('\'').to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program on the PATH. Its words go to a log, each with a zero behind it; `body` is what it does besides, in shell.
    fn program(&self, name: &str, body: &str) {
        let log = self.path("log");
        let text = format!(
            "#!/bin/sh\n{{ printf '%s\\0' {name} \"$@\"; printf '\\036\\0'; }} >>'{}'\n{body}\n",
            log.display()
        );
        fs::write(self.path("bin").join(name), text).unwrap();
        fs::set_permissions(self.path("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs the script; the log begins anew.
    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> Output {
        let _ = fs::remove_file(self.path("log"));
        let mut command = Command::new("sh");
        command.arg(self.path("out it's").join("register.sh")).args(words).current_dir(self.folder.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        for (name, value) in variables {
            command.env(name, value);
        }
        let output = command.output().unwrap();
        assert!(!self.path("PWNED").exists(), "a name was run");
        output
    }

    /// What was called since: program and words.
    fn calls(&self) -> Vec<Vec<String>> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let mut calls = vec![Vec::new()];
        for word in log.split('\0') {
            match word {
                "\u{1e}" => calls.push(Vec::new()),
                word => calls.last_mut().unwrap().push(word.to_owned()),
            }
        }
        calls.retain(|call| call.iter().any(|word| !word.is_empty()));
        calls
    }

    /// The calls of one program that begin with these words.
    fn calls_of(&self, start: &[&str]) -> Vec<Vec<String>> {
        self.calls().into_iter().filter(|call| call.iter().take(start.len()).eq(start.iter())).collect()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Where `tools/fetch-checkers.sh` put other readers.
pub fn checkers(part: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("LANDFALL_CHECKERS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/checkers"))
        .join(part);
    if folder.join("complete").exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {} is not here (tools/fetch-checkers.sh target)", folder.display());
    None
}

/// Runs a checker that is written in Python on files; what it says where it finds fault.
pub fn python(libraries: Option<&Path>, program: &str, words: &[&Path]) -> Option<String> {
    let mut command = Command::new("python3");
    command.arg("-c").arg(program).args(words);
    if let Some(libraries) = libraries {
        command.env("PYTHONPATH", libraries);
    }
    match command.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(said(&output)),
        Err(_) => {
            eprintln!("SKIPPED: python3 is not here");
            None
        }
    }
}

const OURS: [&str; 6] = ["proxmox", "openstack", "kubevirt", "ovirt", "ahv", "xen"];

/// Every script is one for the shell and for shellcheck, whatever the machine is called.
#[test]
fn every_script_is_clean() {
    let has_shellcheck = Command::new("shellcheck").arg("--version").output().is_ok();
    if !has_shellcheck {
        eprintln!("SKIPPED: shellcheck is not here (Debian: shellcheck)");
    }
    // One card, for which no network was chosen.
    let mut single = usual();
    single.nics.truncate(1);
    single.nics[0].network = Some("elsewhere".into());
    for target in OURS {
        for machine in [usual(), hostile(), single.clone(), Machine::new("bare", Bytes::mib(1))] {
            let rendered = render(target, &machine, None, &networks(), "/out");
            let stage = Stage::new(&rendered);
            let script = stage.path("out it's").join("register.sh");
            let checked = Command::new("sh").arg("-n").arg(&script).output().unwrap();
            assert!(checked.status.success(), "{target}: {}", said(&checked));
            if has_shellcheck {
                // As anybody calls it: what a machine's words make look wrong, the script itself excludes.
                let checked = Command::new("shellcheck").arg(&script).output().unwrap();
                assert!(checked.status.success(), "{target} {:?}: {}", machine.name, said(&checked));
            }
        }
    }
}

/// What has no place at a target is said: the machine with everything loses nothing in silence.
#[test]
fn what_a_target_does_not_hold_is_said() {
    let mut all = String::new();
    for target in OURS {
        let mut machine = usual();
        machine.smbios.manufacturer = Some("ACME".into());
        machine.clock = Clock::LocalTime;
        machine.cpus = Cpus::new(8, 2, 2);
        machine.nics[0].vlan = Some(12);
        machine.boot_disk = Some(1);
        all += &format!("{target}:\n");
        for finding in render(target, &machine, None, &networks(), "/out").findings {
            all += &format!("  {} {} {}\n", finding.id, finding.says, finding.remedy);
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn sectors_of_4096_bytes_are_refused_where_there_is_no_setting() {
    for target in OURS {
        let row = hypervisor::target(target).unwrap();
        let mut machine = hypervisor::attach::adapt(&usual(), row.platform, &Devices::default()).unwrap();
        machine.nics.clear();
        machine.disks[1].sector_size = Some(Bytes(4096));
        let placement = Placement { disks: vec![PlacedDisk::default(); 2], ..Placement::default() };
        match (row.render)(&machine, &placement) {
            Ok(rendered) if target == "kubevirt" => {
                let text = text(&rendered, "virtualmachine.yaml");
                assert_eq!(text.matches("\"logical\": 4096").count(), 1, "{text}");
            }
            Ok(_) => panic!("{target} takes it"),
            Err(error) => assert_eq!(error.kind(), landfall_image::Kind::Unsupported, "{target}: {error}"),
        }
    }
}

//! VMware's and OVF's definitions against what others make of them: the corpus, libvirt's .vmx, the DMTF's schema, tar, qemu-img,
//! shellcheck.

use super::{attributes, corpus};
use landfall::hypervisor::{self, Choice, PlacedDisk, Placement, attach, ovf, vmware};
use landfall::machine::{Backing, Machine};
use landfall_boot::target::{Devices, Platform};
use landfall_image::{Bytes, Kind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The corpus' files with that ending, by the lines of its manifest: path and what is expected.
fn listed(corpus: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let manifest = std::fs::read_to_string(corpus.join("MANIFEST.tsv")).unwrap();
    let lines = manifest.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    lines
        .filter(|fields| fields[0].ends_with(ending))
        .map(|fields| (corpus.join(fields[0]), fields[6].to_owned()))
        .collect()
}

/// `systems=1` of what the manifest expects.
fn expected(line: &str, key: &str) -> usize {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(&format!("{key}=")));
    word.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {key} in {line}"))
}

/// Descriptors that cannot be a machine, with the reason that is given.
const REFUSED: &[(&str, Kind, &str)] = &[
    ("ersatz_ovf_3.0.ovf", Kind::Unsupported, "unknown version"),
    ("empty.ovf", Kind::Unsupported, "no machine"),
    ("invalid.ovf", Kind::Corrupt, "\"nonexistent.vmdk\", which is not there"),
];

/// Every descriptor is read, in each of its configurations, or refused with its reason. Disks are counted by another hand.
#[test]
fn every_ovf_is_read_or_refused() {
    let Some(corpus) = corpus() else { return };
    let all = listed(&corpus, ".ovf");
    assert!(all.len() >= 39, "only {} are there", all.len());
    let mut refused = 0;
    for (path, line) in all {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).replace('"', "'");
        assert!(ovf::recognise(&bytes), "{name}");
        let read = |choice: &Choice| ovf::parse(&bytes, choice);
        if let Some((_, kind, says)) = REFUSED.iter().find(|(refused, ..)| *refused == name) {
            let error = read(&Choice::default()).unwrap_err();
            assert!(error.kind() == *kind && error.to_string().contains(says), "{name}: {error}");
            refused += 1;
            continue;
        }
        let files = ovf::files(&bytes).unwrap();
        assert_eq!(files.len(), expected(&line, "files"), "{name}");
        if expected(&line, "systems") > 1 {
            let error = read(&Choice::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{name}");
            for system in error.hint_text().unwrap().rsplit(": ").next().unwrap().split(", ") {
                let choice = Choice { system: Some(system.to_owned()), ..Choice::default() };
                assert!(!read(&choice).unwrap().machine.name.is_empty(), "{name} {system}");
            }
            continue;
        }
        let parsed = read(&Choice::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let options =
            attributes(&text.replace("ovf:Configuration", "Configuration"), "Configuration", "ovf:id");
        let disks = parsed.machine.disks.len();
        if options.is_empty() {
            assert_eq!(disks, expected(&line, "disk-items"), "{name}");
        } else {
            assert!(disks <= expected(&line, "disk-items"), "{name}");
        }
        for option in options {
            let choice = Choice { configuration: Some(option.clone()), ..Choice::default() };
            let machine = read(&choice).unwrap_or_else(|error| panic!("{name} {option}: {error}")).machine;
            assert!(machine.memory > Bytes(0) && machine.cpus.count > 0, "{name} {option}");
        }
        // A disk in a file is one of the files, and the place of each is its own.
        for disk in &parsed.machine.disks {
            let is_file = files.iter().any(|file| file.href == disk.file);
            assert!(is_file || disk.backing == Backing::Blank, "{name}: {disk:?}");
            assert_eq!(
                parsed.machine.disks.iter().filter(|other| other.slot == disk.slot).count(),
                1,
                "{name}"
            );
        }
    }
    assert_eq!(refused, REFUSED.len());
}

/// What stands in some of them, by eye.
#[test]
fn some_packages_in_full() {
    let Some(corpus) = corpus() else { return };
    let read = |name: &str, configuration: Option<&str>| {
        let choice = Choice { configuration: configuration.map(str::to_owned), ..Choice::default() };
        ovf::parse(&std::fs::read(corpus.join(name)).unwrap(), &choice).unwrap().machine
    };
    let machine = read("cot/input.ovf", None);
    assert_eq!((machine.cpus.count, machine.memory, machine.nics.len()), (4, Bytes::gib(4), 3));
    assert_eq!((machine.disks[0].slot.as_str(), machine.disks[0].file.as_str()), ("scsi0:0", "input.vmdk"));
    let machine = read("cot/input.ovf", Some("2CPU-2GB-1NIC"));
    assert_eq!((machine.cpus.count, machine.memory, machine.nics.len()), (2, Bytes::gib(2), 1));
    let machine = read("cot/ubuntu.2.0.ovf", None);
    assert_eq!((machine.name.as_str(), machine.os_label.as_deref()), ("ubuntu", Some("Ubuntu_64")));
    assert_eq!((machine.disks[0].slot.as_str(), machine.disks[0].size), ("sata0:0", Some(Bytes::gib(8))));
    assert_eq!(machine.nics[0].mac.as_deref(), Some("08:00:27:2a:fb:4e"));
    let machine = read("cot/v0.9.ovf", None);
    assert_eq!((machine.name.as_str(), machine.memory), ("v0.9", Bytes::gib(8)));
    assert!(machine.annotation.unwrap().starts_with("Hello world!"));
    let machine = read("govmomi/photon5.ovf", None);
    assert_eq!(machine.disks.len(), 1);
    let disks = |configuration| read("govmomi/deployment-configs.ovf", Some(configuration)).disks.len();
    assert_eq!(["small", "medium", "large"].map(disks), [1, 2, 3]);
}

fn adapted(machine: &Machine) -> Machine {
    let mut machine = attach::adapt(machine, Platform::Esxi, &Devices::default()).unwrap();
    for (index, disk) in machine.disks.iter_mut().enumerate() {
        disk.file = format!("disk{index}.vmdk");
    }
    if machine.name.trim().is_empty()
        || machine.name.chars().count() > 80
        || machine.name.chars().any(char::is_control)
    {
        machine.name = "replaced".into();
    }
    machine
}

fn placement(machine: &Machine) -> Placement {
    let disk = |n| PlacedDisk {
        file: format!("disk{n}.vmdk"),
        format: "vmdk".into(),
        virtual_size: Bytes::gib(1),
        stored: Some(Bytes(12_345)),
        below: None,
    };
    let mut placement =
        Placement { disks: (0..machine.disks.len()).map(disk).collect(), ..Placement::default() };
    let names = machine.nics.iter().filter_map(|nic| nic.network.clone());
    placement.networks.map = names.map(|name| (name.clone(), name)).collect();
    placement
}

/// Every .vmx there is, those of libvirt's own pen too, and every machine of an OVF.
fn machines(corpus: &Path) -> Vec<(String, Machine)> {
    let mut out = Vec::new();
    for folder in ["libvirt/vmx2xmldata", "libvirt/xml2vmxdata"] {
        for entry in std::fs::read_dir(corpus.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "vmx") {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let bytes = std::fs::read(&path).unwrap();
                let parsed = vmware::vmx::parse(&bytes, &Choice::default());
                out.push((name.clone(), parsed.unwrap_or_else(|error| panic!("{name}: {error}")).machine));
            }
        }
    }
    for (path, _) in listed(corpus, ".ovf") {
        if let Ok(parsed) = ovf::parse(&std::fs::read(&path).unwrap(), &Choice::default()) {
            out.push((path.file_name().unwrap().to_string_lossy().into_owned(), parsed.machine));
        }
    }
    assert!(out.len() > 170, "only {} are there", out.len());
    out
}

/// libvirt's XML, and the .vmx that libvirt wrote of it: what both say is what is read.
#[test]
fn libvirts_own_vmx_is_read_as_its_xml_says() {
    let Some(corpus) = corpus() else { return };
    let mut checked = 0;
    for entry in std::fs::read_dir(corpus.join("libvirt/xml2vmxdata")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(xml) = std::fs::read_to_string(path.with_extension("xml")) else { continue };
        if path.extension().is_none_or(|ending| ending != "vmx") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy();
        let machine = vmware::vmx::parse(&std::fs::read(&path).unwrap(), &Choice::default()).unwrap().machine;
        let xml = xml.replace('"', "'");
        let mut macs = attributes(&xml, "mac", "address");
        macs.iter_mut().for_each(|mac| *mac = mac.to_lowercase());
        let mut ours: Vec<_> = machine.nics.iter().filter_map(|nic| nic.mac.clone()).collect();
        macs.sort();
        ours.sort();
        assert_eq!(ours, macs, "{name}");
        let disks = xml.split("<disk ").skip(1).filter(|disk| {
            !disk.contains("device='cdrom'")
                && !disk.contains("device='floppy'")
                && !disk.contains("device='lun'")
        });
        assert_eq!(machine.disks.len(), disks.count(), "{name}");
        let uuid = xml.split("<uuid>").nth(1).and_then(|rest| rest.split('<').next());
        assert_eq!(machine.smbios.uuid.map(|uuid| uuid.to_string()).as_deref(), uuid, "{name}");
        checked += 1;
    }
    assert!(checked > 55, "only {checked} were there");
}

/// What is written for ESXi says the same machine as what it was read from.
#[test]
fn every_machine_comes_back_from_the_vmx_that_is_written() {
    let Some(corpus) = corpus() else { return };
    for (name, machine) in machines(&corpus) {
        let mut machine = adapted(&machine);
        let rendered = vmware::write::render(&machine, &placement(&machine)).unwrap();
        let parsed = vmware::vmx::parse(rendered.artifacts[0].text.as_bytes(), &Choice::default()).unwrap();
        let read = parsed.machine;
        assert_eq!(parsed.unread, ["disk.EnableUUID"], "{name}");
        for field in [&mut machine.os_label, &mut machine.nvram] {
            *field = None;
        }
        // ESXi makes a serial number of the UUID where there was none.
        if machine.smbios.serial.is_none() {
            machine.smbios.serial.clone_from(&read.smbios.serial);
        }
        // Each of these is a finding instead: the clock of a machine that is no Windows, and a TPM.
        machine.tpm = false;
        machine.clock = read.clock;
        // It has multiples of 4 MiB, which is a finding, too.
        let rounded = Bytes(machine.memory.0.next_multiple_of(4 << 20).max(4 << 20));
        let is_told = rendered.findings.iter().any(|finding| finding.says.contains("multiples of 4 MiB"));
        assert_eq!(is_told, machine.memory != rounded, "{name}");
        machine.memory = rounded;
        for (number, nic) in machine.nics.iter_mut().enumerate() {
            nic.slot = format!("ethernet{number}");
            nic.predictable_name = None;
            nic.network = nic.network.take().or(Some("VM Network".into()));
        }
        for disk in &mut machine.disks {
            (disk.size, disk.format, disk.serial) = (None, None, None);
            disk.backing = Backing::File;
        }
        let read = Machine { os_label: None, nvram: None, ..read };
        assert_eq!(read, machine, "{name}");
    }
}

/// Every machine, written as a package, is valid by the DMTF's schema.
#[test]
fn every_descriptor_is_valid_by_the_schema() {
    let Some(corpus) = corpus() else { return };
    if Command::new("xmllint").arg("--version").output().is_err() {
        eprintln!("SKIPPED: xmllint is not here (Debian: libxml2-utils)");
        return;
    }
    let schema = corpus.join("schemas/ovf-1.0-xsd/ovf-envelope.xsd");
    let valid = |files: &[PathBuf]| {
        let output = Command::new("xmllint")
            .args(["--nonet", "--noout", "--schema"])
            .arg(&schema)
            .args(files)
            .output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (number, (_, machine)) in machines(&corpus).into_iter().enumerate() {
        let machine = adapted(&machine);
        let mut placement = placement(&machine);
        placement.disks.iter_mut().skip(1).for_each(|disk| disk.stored = None);
        let file = folder.path().join(format!("{number}.ovf"));
        std::fs::write(&file, &ovf::write::render(&machine, &placement).unwrap().artifacts[0].text).unwrap();
        files.push(file);
    }
    let (fine, says) = valid(&files);
    assert!(
        fine,
        "{}",
        says.lines().filter(|line| !line.ends_with("validates")).collect::<Vec<_>>().join("\n")
    );
    // The check can fail: a property out of its order.
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let broken = text.replacen("<rasd:ResourceType>3</rasd:ResourceType>", "", 1).replacen(
        "<Item>",
        "<Item><rasd:ResourceType>3</rasd:ResourceType>",
        1,
    );
    assert_ne!(broken, text);
    std::fs::write(&files[0], broken).unwrap();
    assert!(!valid(&files[..1]).0);
}

/// Names of the corpus, and hostile ones, in scripts that a shell takes for what they are.
#[test]
fn shellcheck_finds_nothing_in_the_script() {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        eprintln!("SKIPPED: shellcheck is not here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for name in ["web01", "it's $(reboot) `id` \"x\" \\", "-rf *", "@FILES@"] {
        for nics in [0, 2] {
            let text = format!(
                "config.version=8\nscsi0.present=TRUE\nscsi0:0.present=TRUE\nscsi0:0.fileName=a\n{}",
                (0..nics)
                    .map(|n| format!("ethernet{n}.present=TRUE\nethernet{n}.address=00:50:56:00:00:0{n}\n"))
                    .collect::<String>()
            );
            let machine = vmware::vmx::parse(text.as_bytes(), &Choice::default()).unwrap().machine;
            let machine = adapted(&Machine { name: name.into(), ..machine });
            let rendered = vmware::write::render(&machine, &placement(&machine)).unwrap();
            let file = folder.path().join(format!("{}.sh", files.len()));
            std::fs::write(&file, &rendered.artifacts[1].text).unwrap();
            files.push(file);
        }
    }
    // What these two find are the quotes that keep a name from being run.
    let output = Command::new("shellcheck").args(&files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A govc that answers what the test wants to hear, and keeps what it was asked.
const PLAYED_GOVC: &str = r#"#!/bin/sh
printf '%s\n' "$*" >>"$PLAYED/calls"
case "$*" in *"$(cat "$PLAYED/broken")") echo 'govc: no answer' >&2; exit 1 ;; esac
case "$1 $2 $3 $4" in
"find / -type m") if [ "${5:-}" = -config.uuid ]; then cat "$PLAYED/uuids"; else cat "$PLAYED/machines"; fi ;;
# Every kind of network, the port groups of distributed switches too.
"find / -type n") printf '/ha/network/VM Network\n/ha/network/10%%25\n/ha/network/dvs%%2fone %%5c\n' ;;
"find / -type g") printf '/ha/network/dvs%%2fone %%5c\n' ;;
"object.collect "*) cat "$PLAYED/devices" ;;
"datastore.ls "*) printf 'other\n'; cat "$PLAYED/folder" ;;
"datastore.info "*) [ "$2" = ds1 ] ;;
esac
"#;

/// The script refuses whatever is taken before it changes anything, and else uploads and registers in that order.
#[test]
fn the_script_changes_nothing_where_something_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = "config.version=8\nuuid.bios=56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15\nscsi0.present=TRUE\nscsi0:0.present=TRUE\n\
                scsi0:0.fileName=a\nethernet0.present=TRUE\nethernet0.address=00:50:56:00:00:01\nethernet0.networkName=dvs/one \\\nethernet1.present=TRUE\n\
                ethernet1.networkName=10%\n";
    let machine = vmware::vmx::parse(text.as_bytes(), &Choice::default()).unwrap().machine;
    let machine = adapted(&Machine { name: "it's 100% $(x)".into(), ..machine });
    let rendered = vmware::write::render(&machine, &placement(&machine)).unwrap();
    for artifact in &rendered.artifacts {
        std::fs::write(at(&artifact.name), &artifact.text).unwrap();
    }
    std::fs::create_dir(at("bin")).unwrap();
    std::fs::write(at("bin/govc"), PLAYED_GOVC).unwrap();
    std::fs::set_permissions(at("bin/govc"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let run = |storage: &str| {
        let _ = std::fs::remove_file(at("calls"));
        let output = Command::new("sh")
            .arg(at("register.sh"))
            .arg(storage)
            .env("PATH", &path)
            .env("PLAYED", folder.path())
            .output();
        let output = output.unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), says, std::fs::read_to_string(at("calls")).unwrap_or_default())
    };
    let set = |file: &str, text: &str| std::fs::write(at(file), text).unwrap();
    let clean = || {
        for file in ["uuids", "devices", "folder"] {
            set(file, "");
        }
        set("machines", "/ha/vm/other\n");
        set("broken", "nothing");
    };
    let changes = ["mkdir", "upload", "register", "change"];
    clean();
    let (_, says, calls) = run("ds1");
    assert!(
        says.contains("disk0.vmdk is not in") && !changes.iter().any(|word| calls.contains(word)),
        "{says}"
    );
    set("disk0.vmdk", "");
    let (_, says, _) = run("ds1");
    assert!(says.contains("no image that ESXi starts from") && says.contains("vmdk-esxi"), "{says}");
    set("disk0-flat.vmdk", "");
    for (file, text, storage, word) in [
        ("machines", "/ha/vm/it's 100%25 $(x)\n", "ds1", "with the name it's 100% $(x) is here already"),
        ("uuids", "/ha/vm/twin\n", "ds1", "twin has the id 564d9bef-acd9-b4e0-c8f0-aea8b9103515"),
        ("devices", "[{\"macAddress\": \"00:50:56:00:00:01\"}]", "ds1", "address 00:50:56:00:00:01"),
        ("folder", "it_s_100____x_\n", "ds1", "exists already"),
        ("broken", "-type m", "ds1", "does not list the machines"),
        ("broken", "-config.uuid 564d9bef-acd9-b4e0-c8f0-aea8b9103515", "ds1", "does not find machines"),
        ("broken", "config.hardware.device", "ds1", "does not list the devices"),
        ("broken", "-type n", "ds1", "does not list the networks"),
        ("broken", "-type g", "ds1", "does not list the distributed"),
        ("broken", "datastore.ls -ds ds1", "ds1", "does not list the datastore"),
        ("folder", "", "nowhere", "no datastore nowhere"),
    ] {
        clean();
        set(file, text);
        let (fine, says, calls) = run(storage);
        assert!(!fine && says.contains(word) && says.contains("hint: "), "{word}: {says}");
        assert!(!changes.iter().any(|change| calls.contains(change)), "{word}: {calls}");
    }
    clean();
    let (fine, says, calls) = run("ds1");
    assert!(fine, "{says}");
    let tail: Vec<_> = calls.lines().skip_while(|call| !call.contains("mkdir")).collect();
    assert_eq!(
        tail,
        [
            "datastore.mkdir -ds ds1 it_s_100____x_",
            &format!(
                "datastore.upload -ds ds1 {}/disk0-flat.vmdk it_s_100____x_/disk0-flat.vmdk",
                folder.path().display()
            ),
            &format!(
                "datastore.upload -ds ds1 {}/disk0.vmdk it_s_100____x_/disk0.vmdk",
                folder.path().display()
            ),
            &format!(
                "datastore.upload -ds ds1 {}/it_s_100____x_.vmx it_s_100____x_/it_s_100____x_.vmx",
                folder.path().display()
            ),
            "vm.register -ds ds1 it_s_100____x_/it_s_100____x_.vmx",
            "vm.network.change -vm it's 100%25 $(x) -net dvs%2fone %5c ethernet-0",
        ]
    );
}

/// A target's name leads to what writes it, and no machine is left to a person any more.
#[test]
fn both_targets_are_written() {
    for (name, package) in [("esxi", hypervisor::Package::Folder), ("ova", hypervisor::Package::Ova)] {
        let row = hypervisor::target(name).unwrap();
        assert!(row.package == package, "{name}");
    }
}

/// A card whose network nobody named is plugged into the usual one, and memory is what vSphere takes: both are said.
#[test]
fn what_vsphere_changes_is_said() {
    let text = "config.version=8\nmemsize=1022\nethernet0.present=TRUE\nethernet0.networkName=LAN\nethernet1.present=TRUE\n\
                ethernet1.networkName=VM Network\nethernet2.present=TRUE\nethernet2.networkName=DMZ\n";
    let machine = adapted(&vmware::vmx::parse(text.as_bytes(), &Choice::default()).unwrap().machine);
    let mut placement = placement(&machine);
    placement.networks.map = vec![("DMZ".into(), "dmz".into())];
    for name in ["esxi", "ova"] {
        let rendered = (hypervisor::target(name).unwrap().render)(&machine, &placement).unwrap();
        let says: Vec<&str> = rendered.findings.iter().map(|finding| finding.says.as_str()).collect();
        let networks = says.iter().filter(|says| says.contains("it is plugged into VM Network"));
        assert_eq!(
            networks.collect::<Vec<_>>(),
            [&"ethernet0 was in the network \"LAN\"; it is plugged into VM Network."]
        );
        assert!(
            says.iter().any(|says| says.contains("1071644672 bytes") && says.contains("gets 1024 MiB")),
            "{says:?}"
        );
        assert!(rendered.artifacts[0].text.contains("1024"), "{name}");
    }
}

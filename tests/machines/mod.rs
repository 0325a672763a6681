//! Definitions against what other tools make of them.

mod domains;
mod held;
mod hyperv;
pub mod libvirtd;
mod named;
mod packages;
mod powershell;
mod proxmox;
mod qemu;
pub mod targets;
mod vmware;
mod xen;

use landfall::hypervisor::{self, Artifact, Networks, PlacedDisk, Placement};
use landfall::machine::{BootDevice, Bus, Clock, Cpus, DiskSlot, Machine, NicSlot, OsId};
use landfall_boot::target::{Devices, DiskModel, Firmware, NicModel, Platform};
use landfall_image::Bytes;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with other producers' files, where there is one.
pub fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("LANDFALL_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"));
    if folder.join("MANIFEST.tsv").exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no corpus at {} (set LANDFALL_CORPUS)", folder.display());
    None
}

/// The text of every `<tag …>` and the attribute's values in it, by plain text search: not by the code under test.
fn attributes(xml: &str, tag: &str, attribute: &str) -> Vec<String> {
    xml.split(&format!("<{tag} "))
        .skip(1)
        .filter_map(|rest| {
            let element = rest.split('>').next()?;
            let value = element.split(&format!("{attribute}='")).nth(1)?;
            Some(value.split('\'').next()?.to_owned())
        })
        .collect()
}

fn element(xml: &str, start: &str, end: &str) -> Option<String> {
    Some(xml.split(start).nth(1)?.split(end).next()?.to_owned())
}

/// libvirt's own tests hold what libvirt makes of each .vmx. The parts that both read must agree.
#[test]
fn every_vmx_is_read_as_libvirt_reads_it() {
    let Some(corpus) = corpus() else { return };
    let mut checked = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(corpus.join("libvirt/vmx2xmldata")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "vmx") {
            continue;
        }
        let Ok(xml) = std::fs::read_to_string(path.with_extension("xml")) else { continue };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let machine =
            match hypervisor::vmware::vmx::parse(&std::fs::read(&path).unwrap(), &Default::default()) {
                Ok(parsed) => parsed.machine,
                Err(error) => {
                    wrong.push(format!("{name}: refused: {error}"));
                    continue;
                }
            };
        let memory = element(&xml, "<memory unit='KiB'>", "<").unwrap().parse::<u64>().unwrap();
        // libvirt rounds memory up to 4 MiB.
        if (machine.memory.0 >> 10).next_multiple_of(4096) != memory {
            wrong.push(format!("{name}: memory {} KiB, libvirt {memory}", machine.memory.0 >> 10));
        }
        let vcpus = element(&xml, "<vcpu placement='static'", "</vcpu>").unwrap();
        if vcpus.rsplit('>').next() != Some(machine.cpus.count.to_string().as_str()) {
            wrong.push(format!("{name}: {} processors, libvirt {vcpus}", machine.cpus.count));
        }
        let title = element(&xml, "<name>", "</name>").unwrap_or_default();
        let title =
            title.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
        if title != machine.name {
            wrong.push(format!("{name}: name {:?}, libvirt {title:?}", machine.name));
        }
        if let Some(uuid) = machine.smbios.uuid
            && element(&xml, "<uuid>", "</uuid>") != Some(uuid.to_string())
        {
            wrong.push(format!("{name}: uuid {uuid}"));
        }
        let macs: Vec<String> = machine.nics.iter().filter_map(|nic| nic.mac.clone()).collect();
        let theirs: Vec<String> =
            attributes(&xml, "mac", "address").iter().map(|mac| mac.to_lowercase()).collect();
        if !macs.iter().all(|mac| theirs.contains(mac)) {
            wrong.push(format!("{name}: addresses {macs:?}, libvirt {theirs:?}"));
        }
        let files = xml
            .split("<disk ")
            .skip(1)
            .filter(|disk| {
                disk.contains("device='disk'")
                    && disk.split("</disk>").next().unwrap().to_lowercase().contains(".vmdk")
            })
            .count();
        if files != machine.disks.len() {
            wrong.push(format!("{name}: {} disks, libvirt {files}", machine.disks.len()));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 60, "only {checked} were there");
}

/// Disks of machines that [`full`] makes.
const FULL: [(usize, DiskModel); 4] =
    [(2, DiskModel::VirtioBlk), (70, DiskModel::VirtioScsi), (6, DiskModel::Sata), (4, DiskModel::Ide)];

/// A machine with something in every field, with so many disks, on devices of KVM's.
pub fn full(disks: usize, disk: DiskModel) -> Machine {
    let mut machine = Machine::new("web 'one' & <more>", Bytes::mib(512));
    machine.annotation = Some("web server\nof the \"shop\" & <co>".into());
    machine.tags = vec!["backup=daily".into(), "it's <web> & more".into()];
    machine.firmware = if disk == DiskModel::Ide { Firmware::Bios } else { Firmware::Uefi };
    machine.secure_boot = disk != DiskModel::Ide;
    machine.nvram = Some("web01.nvram".into());
    machine.tpm = true;
    machine.cpus = Cpus::new(8, 2, 2);
    machine.smbios.uuid = Some("7b10d7af-b932-4c66-b2c3-3996152ec465".parse().unwrap());
    for (value, text) in [
        (&mut machine.smbios.serial, "CZ,1234=5"),
        (&mut machine.smbios.manufacturer, "HP & 'Co', <Ltd>"),
        (&mut machine.smbios.product, "ProLiant"),
        (&mut machine.smbios.version, "G9"),
        (&mut machine.smbios.sku, "SKU-7"),
        (&mut machine.smbios.family, "Servers"),
    ] {
        *value = Some(text.into());
    }
    machine.clock = Clock::LocalTime;
    for n in 0..disks {
        let mut disk = DiskSlot::new(format!("scsi0:{n}"), Bus::Scsi, format!("{n}.vmdk"));
        disk.serial = (n != 0).then(|| format!("S_{n}.+ -x"));
        machine.disks.push(disk);
    }
    machine.boot_disk = Some(1);
    machine.boot_order = vec![BootDevice::Nic(1), BootDevice::Disk, BootDevice::Nic(0)];
    for (n, network) in ["VM Network", "tagged"].into_iter().enumerate() {
        let mut nic = NicSlot::new(format!("ethernet{n}"));
        nic.mac = Some(format!("00:50:56:00:13:a{n}"));
        nic.network = Some(network.into());
        nic.predictable_name = Some(format!("ens{n}"));
        machine.nics.push(nic);
    }
    machine.nics[1].vlan = Some(12);
    machine.nics[1].connected = false;
    machine.os_label = Some("debian12-64".into());
    machine.os = Some(OsId { distribution: "debian".into(), version: "12".into() });
    let mut machine = hypervisor::attach::on(&machine, Platform::Kvm, disk, NicModel::VirtioNet);
    if matches!(disk, DiskModel::VirtioBlk | DiskModel::VirtioScsi) {
        machine.disks[0].sector_size = Some(Bytes(4096));
    }
    machine
}

pub fn adapted(machine: &Machine) -> Machine {
    hypervisor::attach::adapt(machine, Platform::Kvm, &Devices::default()).unwrap()
}

pub fn placement(machine: &Machine, folder: &str) -> Placement {
    let disk =
        |n| PlacedDisk { file: format!("disk{n}.qcow2"), format: "qcow2".into(), ..PlacedDisk::default() };
    Placement {
        folder: folder.into(),
        disks: (0..machine.disks.len()).map(disk).collect(),
        networks: Networks {
            map: vec![("VM Network".into(), "bridge:br0".into()), ("tagged".into(), "ovs:ovsbr0".into())],
            rest: None,
        },
        ..Placement::default()
    }
}

pub fn rendered_files(machine: &Machine, placement: &Placement) -> Vec<Artifact> {
    hypervisor::libvirt::write::render(machine, placement).unwrap().artifacts
}

fn rendered(machine: &Machine) -> String {
    let machine = adapted(machine);
    rendered_files(&machine, &placement(&machine, "/srv/it's & <here>")).remove(0).text
}

/// Every machine of the corpus, written for libvirt, is valid by libvirt's own schema.
#[test]
fn every_domain_is_valid_by_libvirts_schema() {
    let Some(corpus) = corpus() else { return };
    if Command::new("xmllint").arg("--version").output().is_err() {
        eprintln!("SKIPPED: xmllint is not here (Debian: libxml2-utils)");
        return;
    }
    let schema = corpus.join("schemas/libvirt-rng/domain.rng");
    // The host's own libvirt, where there is one, must agree with it.
    let host_schema = Path::new("/usr/share/libvirt/schemas/domain.rng");
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(corpus.join("libvirt/vmx2xmldata")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "vmx") {
            continue;
        }
        let mut machine = hypervisor::vmware::vmx::parse(&std::fs::read(&path).unwrap(), &Default::default())
            .unwrap()
            .machine;
        if machine.name.is_empty() || machine.name.contains('/') {
            machine.name = "replaced".into();
        }
        for (secure_boot, tpm) in [(false, false), (true, true)] {
            machine.secure_boot = secure_boot;
            machine.tpm = tpm;
            if secure_boot {
                machine.firmware = landfall_boot::target::Firmware::Uefi;
            }
            let file =
                folder.path().join(format!("{}-{tpm}.xml", path.file_stem().unwrap().to_string_lossy()));
            std::fs::write(&file, rendered(&machine)).unwrap();
            files.push(file);
        }
        // What a guest without virtio gets.
        machine.secure_boot = false;
        for (disk, card) in [
            (DiskModel::VirtioScsi, NicModel::VirtioNet),
            (DiskModel::Sata, NicModel::E1000e),
            (DiskModel::Ide, NicModel::E1000),
        ] {
            let mut machine = hypervisor::attach::on(&machine, Platform::Kvm, disk, card);
            if let Some(slot) = machine.disks.first_mut().filter(|_| disk == DiskModel::VirtioScsi) {
                slot.sector_size = Some(landfall_image::Bytes(4096));
            }
            let xml = rendered_files(&machine, &placement(&machine, "/srv/x")).remove(0).text;
            let board = if disk == DiskModel::Ide { "machine=\"pc\"" } else { "machine=\"q35\"" };
            assert!(machine.disks.is_empty() || xml.contains(board), "{xml}");
            let name = format!("{}-{}.xml", path.file_stem().unwrap().to_string_lossy(), disk.name());
            std::fs::write(folder.path().join(&name), xml).unwrap();
            files.push(folder.path().join(name));
        }
    }
    for (disks, disk) in FULL {
        let machine = full(disks, disk);
        let xml = rendered_files(&machine, &placement(&machine, "/srv/x")).remove(0).text;
        let file = folder.path().join(format!("full-{disks}-{}.xml", disk.name()));
        std::fs::write(&file, xml).unwrap();
        files.push(file);
    }
    let output =
        Command::new("xmllint").args(["--noout", "--relaxng"]).arg(&schema).args(&files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(files.len() > 120);
    if host_schema.exists() {
        let output = Command::new("xmllint")
            .args(["--noout", "--relaxng"])
            .arg(host_schema)
            .args(&files)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // The check can fail: an element that libvirt does not know.
    let broken = folder.path().join("broken.xml");
    std::fs::write(
        &broken,
        std::fs::read_to_string(&files[0]).unwrap().replace("<devices>", "<devices><nonsense/>"),
    )
    .unwrap();
    assert!(
        !Command::new("xmllint")
            .args(["--noout", "--relaxng"])
            .arg(&schema)
            .arg(&broken)
            .output()
            .unwrap()
            .status
            .success()
    );
}

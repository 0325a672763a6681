//! libvirt's own domain XML, read: against a look at its text, against our reading of the .vmx that libvirt made it from, and
//! against the machine that it was written for.

use super::{FULL, attributes, corpus, full, placement, rendered_files};
use landfall::hypervisor::{Choice, libvirt, vmware};
use landfall::machine::Machine;
use landfall_boot::target::DiskModel;

/// The files of a tar archive that end in `.xml`.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap()).into_owned();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(header) = archive.get(at..at + 512).filter(|header| header[0] != 0) {
        let len = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap();
        let name = text(&header[..100]);
        if name.ends_with(".xml") {
            out.push((name, archive[at + 512..at + 512 + len].to_vec()));
        }
        at += 512 + len.next_multiple_of(512);
    }
    out
}

fn read(bytes: &[u8]) -> landfall_image::Result<Machine> {
    libvirt::read::parse(bytes, &Choice::default()).map(|parsed| parsed.machine)
}

/// Of hundreds of definitions, every one is read or refused with a reason; what is read has the cards of the text.
#[test]
fn every_domain_is_read_or_refused() {
    let Some(corpus) = corpus() else { return };
    let packed = std::fs::read(corpus.join("libvirt/qemuxmlconfdata-xml.tar.zst")).unwrap();
    let all = members(&zstd::decode_all(&packed[..]).unwrap());
    let (mut good, mut refused) = (0, 0);
    for (name, bytes) in &all {
        match read(bytes) {
            Err(error) => {
                assert!(
                    error.kind() != landfall_image::Kind::Io && error.says().len() > 10,
                    "{name}: {error}"
                );
                refused += 1;
            }
            Ok(machine) => {
                let text = String::from_utf8_lossy(bytes).replace('"', "'");
                let mut macs: Vec<_> = text
                    .split("<interface ")
                    .skip(1)
                    .filter_map(|one| attributes(one.split("</interface>").next()?, "mac", "address").pop())
                    .map(|mac| mac.to_lowercase())
                    .collect();
                let mut ours: Vec<_> = machine.nics.iter().filter_map(|nic| nic.mac.clone()).collect();
                macs.sort();
                ours.sort();
                assert!(ours.iter().all(|mac| macs.contains(mac)), "{name}: {ours:?}, in the text {macs:?}");
                assert!(machine.cpus.count >= 1 && machine.memory.0 > 0, "{name}");
                good += 1;
            }
        }
    }
    assert!(good > 300 && good + refused == all.len(), "{good} read, {refused} refused");
    // Cut anywhere, none of them brings the reader down.
    for (_, bytes) in all.iter().step_by(20) {
        for end in (0..bytes.len()).step_by(97) {
            let _ = read(&bytes[..end]);
        }
    }
}

/// libvirt's own writing of what it read has the disks in its order: ours is the same, whatever the order of the text.
#[test]
fn disks_are_in_libvirts_order() {
    let Some(corpus) = corpus() else { return };
    let packed = std::fs::read(corpus.join("libvirt/qemuxmlconfdata-xml.tar.zst")).unwrap();
    let all: std::collections::BTreeMap<_, _> =
        members(&zstd::decode_all(&packed[..]).unwrap()).into_iter().collect();
    // In an address it also writes what goes without saying: ports, units.
    let file = |file: String| file.split("://").next().unwrap_or_default().to_owned();
    let slots = |machine: Machine| {
        machine.disks.into_iter().map(|disk| (disk.slot, disk.bus, file(disk.file))).collect::<Vec<_>>()
    };
    let mut checked = 0;
    for (name, bytes) in &all {
        let Some(stem) = name.strip_suffix(".x86_64-latest.xml") else { continue };
        let Some(source) = all.get(&format!("{stem}.xml")) else { continue };
        let (Ok(theirs), Ok(ours)) = (read(bytes), read(source)) else { continue };
        assert_eq!(slots(ours), slots(theirs), "{name}");
        checked += 1;
    }
    assert!(checked > 200, "only {checked} were there");
}

/// libvirt's XML of a .vmx and the .vmx itself are one machine.
#[test]
fn a_vmx_and_libvirts_xml_of_it_are_one_machine() {
    let Some(corpus) = corpus() else { return };
    let mut checked = 0;
    for entry in std::fs::read_dir(corpus.join("libvirt/vmx2xmldata")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(xml) = std::fs::read(path.with_extension("xml")) else { continue };
        if path.extension().is_none_or(|ending| ending != "vmx") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // libvirt writes a drive that looks for its device at every start as a disk without any.
        if name.ends_with("-raw-auto-detect.vmx") {
            assert!(read(&xml).unwrap_err().to_string().contains("without a source"));
            continue;
        }
        let theirs = read(&xml).unwrap_or_else(|error| panic!("{name}: {error}"));
        let vmx = vmware::vmx::parse(&std::fs::read(&path).unwrap(), &Choice::default()).unwrap().machine;
        assert_eq!((&theirs.name, theirs.cpus.count), (&vmx.name, vmx.cpus.count), "{name}");
        assert_eq!(theirs.firmware, vmx.firmware, "{name}");
        // libvirt rounds memory up to 4 MiB.
        assert_eq!(theirs.memory.0, vmx.memory.0.next_multiple_of(4 << 20), "{name}");
        // A SCSI device of the host is a disk of libvirt's (a lun), and a device that is passed through of VMware's.
        let luns = String::from_utf8_lossy(&xml).matches("device='lun'").count();
        assert_eq!(theirs.disks.len(), vmx.disks.len() + luns, "{name}");
        // libvirt makes an address up for a card that has none yet.
        for nic in vmx.nics.iter().filter_map(|nic| nic.mac.as_ref()) {
            assert!(theirs.nics.iter().any(|own| own.mac.as_ref() == Some(nic)), "{name}: {nic}");
        }
        checked += 1;
    }
    assert!(checked > 60, "only {checked} were there");
}

/// What becomes of a machine with every field when it is written, by libvirt or by us, and read again: these differ by design.
/// What is of the source (places, files, models in its words) is of the target then; the UEFI variables stay there; what was
/// found on the disks becomes the label of the operating system.
pub fn at_libvirt(machine: &Machine, folder: &str) -> Machine {
    let mut machine = machine.clone();
    machine.nvram = None;
    machine.os_label = Some("http://debian.org/debian/12".into());
    machine.os = None;
    for (index, disk) in machine.disks.iter_mut().enumerate() {
        disk.controller = None;
        disk.file = format!("{folder}/disk{index}.qcow2");
        disk.format = Some("qcow2".into());
    }
    for (index, nic) in machine.nics.iter_mut().enumerate() {
        nic.slot = format!("net{index}");
        nic.model = Some("virtio".into());
        nic.network = Some(["br0", "ovsbr0"][index].into());
        nic.predictable_name = None;
    }
    machine
}

/// Nothing of a machine is lost on its way through libvirt's definition.
#[test]
fn a_machine_comes_back_as_it_was_written() {
    for (disks, disk) in FULL {
        let machine = full(disks, disk);
        let text = rendered_files(&machine, &placement(&machine, "/srv/it's & <here>")).remove(0).text;
        let parsed = libvirt::read::parse(text.as_bytes(), &Choice::default()).unwrap();
        assert_eq!(parsed.machine, at_libvirt(&machine, "/srv/it's & <here>"), "{text}");
        // What every machine gets, which is nobody's.
        let expected = [
            "cpu/@mode",
            "devices/channel",
            "devices/disk/driver/@discard",
            "devices/graphics",
            "devices/interface/virtualport",
            "devices/memballoon",
            "devices/rng",
            "devices/serial",
            "devices/video",
        ];
        assert_eq!(parsed.unread, expected);
        assert_eq!(parsed.findings, []);
    }
    // Memory that is no whole number of MiB.
    let mut machine = full(2, DiskModel::VirtioBlk);
    machine.memory.0 += 512 << 10;
    let text = rendered_files(&machine, &placement(&machine, "/x")).remove(0).text;
    assert_eq!(read(text.as_bytes()).unwrap().memory, machine.memory);
}

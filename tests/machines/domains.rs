//! libvirt's own domain XML, read: against a look at its text, and against our reading of the .vmx that libvirt made it from.

use super::{attributes, corpus};
use landfall::hypervisor::{Choice, libvirt, vmware};
use landfall::machine::Machine;

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

/// A copy of a volume that calls itself by no ending, and looks like an image: not read as the raw disk that the definition
/// has, nor as the image that a guest may have written.
#[test]
fn a_copy_that_looks_like_an_image_is_not_read_as_raw() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let xml = "<domain type='kvm'><name>a</name><memory>524288</memory><os><type arch='x86_64'>hvm</type></os><devices>\
        <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/a'/><target dev='vda' bus='virtio'/></disk>\
        </devices></domain>";
    std::fs::write(at("a.xml"), xml).unwrap();
    std::fs::File::create(at("empty.raw")).unwrap().set_len(8 << 20).unwrap();
    let landfall = || assert_cmd::Command::cargo_bin("landfall").unwrap();
    landfall().args(["disk", "convert"]).args([at("empty.raw"), at("copy.qcow2")]).assert().success();
    std::fs::copy(at("copy.qcow2"), at("copy")).unwrap();
    let size = |file: &str| {
        let disk = format!("vda={}", at(file).display());
        let output =
            landfall().args(["inspect", "--json", "--disk", &disk]).arg(at("a.xml")).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (
            report["disks"][0]["virtual_size"].as_u64(),
            report["error"]["text"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(size("copy.qcow2").0, Some(8 << 20));
    assert_eq!(size("empty.raw").0, Some(8 << 20));
    let (none, says) = size("copy");
    assert!(none.is_none() && says.contains("looks like qcow2"), "{says}");
}

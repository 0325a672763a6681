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

/// libvirt's own writing of what it read has the disks in its order: ours is the same, whatever the order of the text.
#[test]
fn disks_are_in_libvirts_order() {
    let Some(corpus) = corpus() else { return };
    let packed = std::fs::read(corpus.join("libvirt/qemuxmlconfdata-xml.tar.zst")).unwrap();
    let all: std::collections::BTreeMap<_, _> =
        members(&zstd::decode_all(&packed[..]).unwrap()).into_iter().collect();
    let slots = |machine: Machine| {
        machine.disks.into_iter().map(|disk| (disk.slot, disk.bus, disk.file)).collect::<Vec<_>>()
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

fn landfall() -> assert_cmd::Command {
    assert_cmd::Command::cargo_bin("landfall").unwrap()
}

/// A domain with disks: format, source's type and attribute.
fn domain(disks: &[(&str, &str, &str)]) -> String {
    let disk = |(number, (format, kind, source)): (usize, &(&str, &str, &str))| {
        format!(
            "<disk type='{kind}' device='disk'><driver name='qemu' type='{format}'/><source {source}/>\
             <target dev='vd{}' bus='virtio'/></disk>",
            ['a', 'b'][number]
        )
    };
    let disks: String = disks.iter().enumerate().map(disk).collect();
    format!(
        "<domain type='kvm'><name>a</name><memory>524288</memory><os><type arch='x86_64'>hvm</type></os>\
         <devices>{disks}</devices></domain>"
    )
}

/// The copy of a disk that the user names: read as what it is, or not at all.
#[test]
fn a_copy_is_read_as_what_it_is_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::File::create(at("empty.raw")).unwrap().set_len(8 << 20).unwrap();
    landfall().args(["disk", "convert"]).args([at("empty.raw"), at("copy.qcow2")]).assert().success();
    for name in ["copy", "copy.img", "copy.raw"] {
        std::fs::copy(at("copy.qcow2"), at(name)).unwrap();
    }
    std::fs::copy(at("empty.raw"), at("empty.img")).unwrap();
    let size = |format: &str, file: &str| {
        std::fs::write(at("a.xml"), domain(&[(format, "block", "dev='/dev/vg/a'")])).unwrap();
        let disk = format!("vda={}", at(file).display());
        let output =
            landfall().args(["inspect", "--json", "--disk", &disk]).arg(at("a.xml")).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let says = report["error"]["text"].as_str().unwrap_or_default().to_owned();
        (report["disks"][0]["virtual_size"].as_u64(), says)
    };
    for (format, file) in [
        ("raw", "copy.qcow2"),
        ("raw", "empty.raw"),
        ("raw", "empty.img"),
        ("qcow2", "copy.img"),
        ("qcow2", "copy"),
    ] {
        assert_eq!(size(format, file).0, Some(8 << 20), "{format} {file}");
    }
    for (format, file) in [("raw", "copy"), ("raw", "copy.img"), ("qcow2", "copy.raw")] {
        let (none, says) = size(format, file);
        assert!(none.is_none() && says.contains("looks like qcow2"), "{format} {file}: {says}");
    }
}

/// Two disks of two places that end alike are two disks; and nobody connects to where a definition says.
#[test]
fn a_definition_leads_to_no_other_disk_than_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::File::create(at("web.raw")).unwrap().set_len(8 << 20).unwrap();
    let inspect = |disks: &[(&str, &str, &str)]| {
        std::fs::write(at("a.xml"), domain(disks)).unwrap();
        let output = landfall().arg("inspect").arg(at("a.xml")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, says) =
        inspect(&[("raw", "file", "file='/one/web.raw'"), ("raw", "file", "file='/two/web.raw'")]);
    assert!(code == Some(1) && says.contains("another disk of the machine already"), "{says}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = format!("protocol='nbd' name='x'><host name='127.0.0.1' port='{port}'/></source><x");
    let (code, says) = inspect(&[("raw", "network", &source)]);
    assert!(code == Some(1) && says.contains("--disk vda=nbd"), "{says}");
    assert!(listener.accept().is_err(), "nobody came");
}

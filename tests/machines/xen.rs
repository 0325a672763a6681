//! XVAs of another program's making, read here; XVAs of ours, read by others: dissect.archive, tar, and the digests of Python.

use super::targets::{checkers, python};
use landfall::hypervisor::{self, Choice, PlacedDisk, Placement, attach, xen};
use landfall::machine::{Bus, DiskSlot, Machine};
use landfall_boot::target::{Devices, Platform};
use landfall_image::convert;
use landfall_image::create::{CreateOptions, FileOptions};
use landfall_image::testing::{self, MemDisk, noise_bytes};
use landfall_image::xva::{Archive, XvaWriter};
use landfall_image::{Bytes, Disk};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn landfall(words: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_landfall")).args(words).args(paths).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

const MIB: usize = 1 << 20;

/// Two disks: one sparse with a short end, one of less than a block.
fn disks() -> [Vec<u8>; 2] {
    let mut large = vec![0; 9 * MIB + 1536];
    for (at, seed) in [(1, 1), (4, 2), (5, 3), (9, 4)] {
        let end = (at * MIB + MIB).min(large.len());
        let noise = noise_bytes(seed, end - at * MIB);
        large[at * MIB..end].copy_from_slice(&noise);
    }
    [large, noise_bytes(9, 5120)]
}

/// An export as XenServer makes it, with its raw disks beside it. `None` without Python.
fn made(folder: &Path, kind: &str) -> Option<PathBuf> {
    let out = folder.join("x.xva");
    let mut raws = Vec::new();
    for (name, bytes) in ["a.raw", "b.raw"].iter().zip(disks()) {
        std::fs::write(folder.join(name), bytes).unwrap();
        raws.push(folder.join(name));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines/xen/make.py");
    match Command::new("python3").arg(script).arg(&out).arg(kind).args(raws).output() {
        Ok(output) => assert!(output.status.success(), "{}", said(&output)),
        Err(_) => {
            eprintln!("SKIPPED: python3 is not here");
            return None;
        }
    }
    Some(out)
}

#[test]
fn exports_of_another_program_are_read() {
    for kind in ["checksum", "xxhash"] {
        let folder = tempfile::tempdir().unwrap();
        let Some(xva) = made(folder.path(), kind) else { return };
        for (name, raw) in [("Ref:17", "a.raw"), ("Ref:107", "b.raw")] {
            let (disk, out) = (xva.join(name), folder.path().join("out.raw"));
            let done = landfall(&["disk", "convert", "--replace"], &[&disk, &out]);
            assert!(done.status.success(), "{}", said(&done));
            assert!(
                std::fs::read(&out).unwrap() == std::fs::read(folder.path().join(raw)).unwrap(),
                "{name}"
            );
        }
        let checked = landfall(&["disk", "check"], &[&xva.join("Ref:17")]);
        assert!(checked.status.success(), "{}", said(&checked));

        let output = landfall(&["inspect", "--json"], &[&xva]);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        let machine = &report["machine"];
        assert_eq!((&machine["name"], &machine["annotation"]), (&"db 01".into(), &"the <shop>".into()));
        assert_eq!((&machine["firmware"], &machine["secure_boot"]), (&"uefi".into(), &true.into()));
        assert_eq!((&machine["cpus"]["count"], &machine["cpus"]["cores_per_socket"]), (&4.into(), &2.into()));
        assert_eq!((&machine["clock"], &machine["tags"][0]), (&"local-time".into(), &"prod".into()));
        // The guest's order, not the archive's.
        assert_eq!(
            (&machine["disks"][0]["file"], &machine["disks"][1]["file"]),
            (&"Ref:107".into(), &"Ref:17".into())
        );
        assert_eq!(report["disks"][1]["virtual_size"], (9 * MIB + 1536) as u64);
        assert_eq!(machine["nics"][1]["mac"], "00:50:56:00:12:a1");
        assert_eq!(machine["nics"][0]["network"], "LAN");
        let text = report["findings"].to_string();
        for wanted in
            ["VM.PCI_bus", "VM.platform.strange", "before", "MTU of 9000", "CD drive", "1.0 GiB to 2.0 GiB"]
        {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        // A damaged block is told, and nothing is written.
        let mut bytes = std::fs::read(&xva).unwrap();
        let wanted = disks()[0][4 * MIB + 100..4 * MIB + 164].to_vec();
        let at = bytes.windows(64).position(|part| part == wanted).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&xva, bytes).unwrap();
        let out = folder.path().join("new.raw");
        let failed = landfall(&["disk", "convert"], &[&xva.join("Ref:17"), &out]);
        assert!(
            !failed.status.success() && said(&failed).contains("the export recorded"),
            "{}",
            said(&failed)
        );
        assert!(!out.exists());
    }
}

/// A machine with three disks in an archive, as `convert --to xen` writes it.
fn written(path: &Path, disks: &[&dyn Disk]) {
    let mut machine = Machine::new("web01", Bytes::gib(2));
    let mut placement = Placement::default();
    for (index, disk) in disks.iter().enumerate() {
        let file = xen::disk_name(index);
        machine.disks.push(DiskSlot::new(format!("vd{index}"), Bus::VirtioBlk, file.clone()));
        placement.disks.push(PlacedDisk {
            file,
            format: "xva".into(),
            virtual_size: disk.size(),
            stored: None,
            below: None,
        });
    }
    let machine = attach::adapt(&machine, Platform::Xen, &Devices::default()).unwrap();
    let rendered = (hypervisor::target("xen").unwrap().render)(&machine, &placement).unwrap();
    let mut writer = XvaWriter::create(path, &rendered.artifacts[0].text, FileOptions::default()).unwrap();
    let kind = landfall_image::formats::kind("xva").unwrap();
    for (index, disk) in disks.iter().enumerate() {
        let mut options = CreateOptions::default();
        let at = writer.disk(&xen::disk_name(index), &mut options).unwrap();
        let sink = (kind.create)(&at, disk.size(), &options).unwrap();
        convert::convert(*disk, sink, &convert::Options::default()).unwrap();
        writer.disk_done().unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn archives_of_ours_are_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web01.xva");
    // Its last block is of zeros, which dissect.archive 1.8 reads for the last one whatever it holds.
    let sparse = MemDisk::new(Bytes::mib(40))
        .data(7 << 20, noise_bytes(1, 3 * MIB + 5))
        .data(33 << 20, noise_bytes(2, 9));
    let odd = testing::mixed(3, Bytes((12 << 20) + 512));
    let small = MemDisk::new(Bytes(4096)).data(0, noise_bytes(4, 4096));
    let disks: [&dyn Disk; 3] = [&sparse, &odd, &small];
    written(&path, &disks);
    // Our own reader, first.
    let archive = Archive::open(&path).unwrap();
    let parsed = xen::read::parse(&archive.definition().unwrap(), &Choice::default()).unwrap();
    for (index, (slot, disk)) in parsed.machine.disks.iter().zip(disks).enumerate() {
        let mut raw = testing::read_all(disk).unwrap();
        raw.resize(raw.len().next_multiple_of(MIB), 0);
        assert!(testing::read_all(&*archive.disk(&slot.file).unwrap().disk).unwrap() == raw, "{}", slot.slot);
        std::fs::write(folder.path().join(format!("{index}.raw")), raw).unwrap();
    }
    match Command::new("tar").arg("-tf").arg(&path).output() {
        Ok(listed) => {
            assert!(listed.status.success() && listed.stderr.is_empty(), "{}", said(&listed));
            let text = said(&listed);
            assert!(
                text.starts_with(
                    "ova.xml\nRef:1000/00000000\nRef:1000/00000000.checksum\nRef:1000/00000007\n"
                ),
                "{text}"
            );
            assert!(text.contains("Ref:1000/00000039\n") && !text.contains("Ref:1000/00000020\n"), "{text}");
        }
        Err(_) => eprintln!("SKIPPED: tar is not here"),
    }
    let digests = "import sys, tarfile, hashlib\n\
                   tar = tarfile.open(sys.argv[1])\n\
                   names = tar.getnames()[1:]\n\
                   read = lambda name: tar.extractfile(name).read()\n\
                   assert len(names) > 20 and all(b == a + '.checksum' for a, b in zip(names[::2], names[1::2]))\n\
                   assert all(hashlib.sha1(read(a)).hexdigest().encode() == read(a + '.checksum') for a in names[::2])\n";
    assert_eq!(python(None, digests, &[&path]), None);
    let Some(dissect) = checkers("dissect") else { return };
    let program = "import sys\n\
                   from dissect.archive.xva import XVA\n\
                   xva = XVA(open(sys.argv[1], 'rb'))\n\
                   assert xva.disks() == ['Ref:1000', 'Ref:1001', 'Ref:1002'], xva.disks()\n\
                   for n, ref in enumerate(xva.disks()[:2]):\n\
                   \x20   raw, stream = open(sys.argv[2 + n], 'rb').read(), xva.open(ref)\n\
                   \x20   assert stream.size == len(raw), (stream.size, len(raw))\n\
                   \x20   last = len(raw) - (1 << 20)\n\
                   \x20   got = stream.read(len(raw))\n\
                   \x20   assert got[:last] == raw[:last], ref\n\
                   \x20   # It never gives away the last block of a disk; a release that does is noticed.\n\
                   \x20   assert not any(got[last:]), 'dissect reads the last block now: compare all'\n\
                   \x20   assert n or got == raw\n";
    let raws = [folder.path().join("0.raw"), folder.path().join("1.raw")];
    assert_eq!(python(Some(&dissect), program, &[&path, &raws[0], &raws[1]]), None);
}

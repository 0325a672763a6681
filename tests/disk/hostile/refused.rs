//! What is recognised and not read says so by name: encrypted disks, and formats of others.

use super::build::{be32, be64, descriptor, le32, luks, qcow2, qcow2_with, save, sparse, tar, vdi};
use super::{Case, refused, run_all};
use landfall_image::testing::noise_bytes;

/// Ciphertext is never passed off as data where landfall knows that it is some.
#[test]
fn what_is_encrypted_is_never_read_as_data() {
    run_all(&[
        refused("qcow2, method 1", &["is encrypted (AES)"], |vm| {
            let mut bytes = qcow2(9);
            be32(&mut bytes, 32, 1);
            save(vm, "a.qcow2", &bytes)
        })
        .hint("decrypt it"),
        refused("qcow2, method 2 without a header", &["is encrypted with LUKS"], |vm| {
            let mut bytes = qcow2(9);
            be32(&mut bytes, 32, 2);
            save(vm, "a.qcow2", &bytes)
        }),
        refused("qcow2, method 2", &["is encrypted (LUKS version 1", "no key was given"], |vm| {
            let place = [2048u64.to_be_bytes(), (3u64 << 20).to_be_bytes()].concat();
            let mut bytes = qcow2_with(0x0537_be77, &place);
            be32(&mut bytes, 32, 2);
            bytes.extend(luks());
            save(vm, "a.qcow2", &bytes)
        })
        .hint("--key-file"),
        refused("qcow2, a method of the future", &["is encrypted (method 3)"], |vm| {
            let mut bytes = qcow2(9);
            be32(&mut bytes, 32, 3);
            save(vm, "a.qcow2", &bytes)
        })
        .hint("decrypt it"),
        refused("LUKS, asked for as LUKS", &["is encrypted (LUKS version 1", "no key was given"], |vm| {
            save(vm, "a.img", &luks())
        })
        .with(&["-f", "luks"])
        .hint("--key-file"),
        refused("LUKS of the future", &["is LUKS version 3"], |vm| {
            let mut bytes = luks();
            bytes[7] = 3;
            save(vm, "a.img", &bytes)
        })
        .with(&["-f", "luks"]),
        refused("vmdk by vSphere", &["is encrypted"], |vm| {
            save(vm, "x.raw", &[0; 512]);
            let lines = "RW 1 VMFS \"x.raw\"\nddb.iofilters = \"vmwarevmcrypt\"";
            save(vm, "a.vmdk", descriptor("vmfs", lines).as_bytes())
        })
        .hint("decrypt the disk on the source"),
        refused("vmdk by Workstation", &["is encrypted"], |vm| {
            save(vm, "x.raw", &[0; 512]);
            let lines = "RW 1 FLAT \"x.raw\" 0\nencryptionKeys=\"vmware:key/list/(x)\"";
            save(vm, "a.vmdk", descriptor("monolithicFlat", lines).as_bytes())
        })
        .hint("decrypt the disk on the source"),
    ]);
}

/// A raw disk of noise, but for these bytes at its start.
fn starts(name: &'static str, file: &'static str, magic: &'static [u8]) -> Case {
    refused(file, &[name], move |vm| {
        let mut bytes = noise_bytes(3, 1 << 20);
        bytes[..magic.len()].copy_from_slice(magic);
        save(vm, file, &bytes)
    })
}

/// As raw disks they would be wrong disks, and nobody would notice before the guest does not boot.
#[test]
fn formats_of_others_are_refused_by_name() {
    let mut cases = vec![
        starts("QED", "a.qed", b"QED\0"),
        starts("qcow version 1", "a.qcow", b"QFI\xfb\0\0\0\x01"),
        starts("Parallels", "a.hdd", b"WithoutFreeSpace"),
        starts("Parallels", "b.hds", b"WithouFreSpacExt"),
        starts(
            "Parallels",
            "DiskDescriptor.xml",
            b"<?xml version='1.0'?>\n<Parallels_disk_image Version=\"1.0\">",
        ),
        starts("Bochs", "a.bochs", b"Bochs Virtual HD Image"),
        starts("E01", "a.E01", b"EVF\x09\x0d\x0a\xff\x00"),
        starts("sparseimage", "a.sparseimage", b"sprs\0\0\0\x03"),
        refused("a.dmg", &["dmg"], |vm| {
            let mut bytes = noise_bytes(3, 1 << 20);
            let at = bytes.len() - 512;
            bytes[at..at + 4].copy_from_slice(b"koly");
            save(vm, "a.dmg", &bytes)
        }),
    ];
    cases = cases.into_iter().map(|case| case.hint("qemu-img convert")).collect();
    for case in [
        starts("gzip", "a.raw.gz", b"\x1f\x8b\x08"),
        starts("xz", "a.img.xz", b"\xfd7zXZ\0"),
        starts("Zstandard", "a.zst", b"\x28\xb5\x2f\xfd"),
        starts("bzip2", "a.bz2", b"BZh91AY&SY"),
        starts("lz4", "a.lz4", b"\x04\x22\x4d\x18"),
        starts("zip", "a.zip", b"PK\x03\x04"),
        starts("7z", "a.7z", b"7z\xbc\xaf\x27\x1c"),
        starts("rar", "a.rar", b"Rar!\x1a\x07"),
        // Whatever its name says.
        starts("gzip", "a.img", b"\x1f\x8b\x08"),
        starts("xz", "a.qcow2", b"\xfd7zXZ\0"),
        starts("gzip", "a.ova", b"\x1f\x8b\x08"),
    ] {
        cases.push(case.hint("unpack it first"));
    }
    cases.extend([
        starts("Windows Imaging", "a.wim", b"MSWIM\0\0\0").hint("apply it to a disk"),
        starts("partclone", "a.pcl", b"partclone-image\0").hint("partclone.restore"),
        starts("Proxmox", "a.vma", b"VMA\0\0\0\0\x01").hint("vma extract"),
        starts("gzip", "a.xva", b"\x1f\x8b\x08").hint("gunzip -c"),
        refused("blocks of no disk", &["whose size its ova.xml does not tell"], |vm| {
            save(vm, "a.xva", &tar(&[("ova.xml", b"<value/>"), ("Ref:1/00000000", &[1; 4096])]))
        }),
        refused("VHD set", &["VHD set"], |vm| save(vm, "a.vhds", &noise_bytes(3, 256 << 10))).hint(".avhdx"),
        refused("RDM, physical", &["is a raw device mapping"], |vm| {
            let line = "RW 2048 VMFSRDM \"a-rdmp.vmdk\"";
            save(vm, "a.vmdk", descriptor("vmfsPassthroughRawDeviceMap", line).as_bytes())
        })
        .hint("convert it to a virtual disk on the source"),
        refused("RDM, virtual", &["is a raw device mapping"], |vm| {
            let line = "RW 2048 VMFSRDM \"a-rdm.vmdk\"";
            save(vm, "a.vmdk", descriptor("vmfsRawDeviceMap", line).as_bytes())
        })
        .hint("convert it to a virtual disk on the source"),
        refused("a device as a partition of a vmdk", &["leads outside"], |vm| {
            save(vm, "a.vmdk", descriptor("fullDevice", "RW 2048 FLAT \"/dev/zero\" 0").as_bytes())
        })
        .hint("--allow"),
        refused("VDI 2", &["version 2.0"], |vm| {
            let mut bytes = vdi(1);
            le32(&mut bytes, 68, 0x2_0000);
            save(vm, "a.vdi", &bytes)
        }),
        refused("VDI, undo", &["the image type is 3"], |vm| save(vm, "a.vdi", &vdi(3))),
        refused("qcow2 4", &["is qcow version 4"], |vm| {
            let mut bytes = qcow2(9);
            be32(&mut bytes, 4, 4);
            save(vm, "a.qcow2", &bytes)
        }),
        refused("qcow2 with a feature of the future", &["features that are not handled"], |vm| {
            let mut bytes = qcow2(9);
            be64(&mut bytes, 72, 1 << 40);
            save(vm, "a.qcow2", &bytes)
        })
        .hint("qemu-img convert"),
        refused("vmdk extent of the future", &["unknown type"], |vm| {
            save(vm, "a.vmdk", descriptor("custom", "RW 2048 VSANSPARSE \"vsan://x\"").as_bytes())
        }),
        refused("vmdk, a piece", &["is a piece of a disk"], |vm| {
            let mut bytes = sparse(&[], 0);
            // Neither a descriptor nor compressed.
            bytes[28..44].fill(0);
            bytes[77] = 0;
            le32(&mut bytes, 8, 1);
            save(vm, "a-s001.vmdk", &bytes)
        })
        .hint("open the disk's descriptor"),
    ]);
    // Its name says what it was before it was cut off.
    for name in ["a.qcow2", "a.vmdk", "a.vhdx", "a.vhd", "a.vdi", "a.luks", "a.ova"] {
        cases.push(
            refused(&format!("noise called {name}"), &["is named as"], move |vm| {
                save(vm, name, &noise_bytes(3, 1 << 20))
            })
            .hint("cut off"),
        );
    }
    run_all(&cases);
}

/// Who knows better is believed: a format that is given is not looked for.
#[test]
fn what_is_said_to_be_raw_is_raw() {
    for magic in [&b"\x1f\x8b\x08"[..], b"QED\0", b"PK\x03\x04", b"ova.xml\0"] {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = noise_bytes(3, 1 << 20);
        bytes[..magic.len()].copy_from_slice(magic);
        let image = save(folder.path(), "a.gz", &bytes);
        let target = folder.path().join("out.raw");
        let told = super::bounded(&["disk", "convert", "-f", "raw"], &[&image, &target]).unwrap();
        assert_eq!(told.code, Some(0), "{}", told.says);
        assert!(std::fs::read(&target).unwrap() == bytes);
    }
}

//! Against the kernel's partition names, lvm2's own tools, and damaged disks.

use super::*;
use crate::testing::{self, Tool};
use crate::volume::md::superblock::tests::{New, old as superblock_old};
use landfall_image::Bytes;
use std::path::Path;

fn scan_files(files: &[&Path]) -> Scan {
    let disks: Vec<Arc<dyn DiskMut>> =
        files.iter().map(|file| testing::overlay(file) as Arc<dyn DiskMut>).collect();
    scan(&disks).unwrap()
}

fn ids(scan: &Scan) -> Vec<String> {
    scan.volumes.iter().map(|volume| volume.id.0.clone()).collect()
}

#[test]
fn partitions_and_what_lies_in_them() {
    let needed = ["sgdisk", "sfdisk", "mke2fs", "mkfs.vfat", "mkswap"];
    if needed.iter().any(|name| testing::tool(name).is_none()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (gpt, mbr, part) = (dir.path().join("gpt"), dir.path().join("mbr"), dir.path().join("part"));
    testing::sparse(&gpt, 128 << 20);
    let line = "sgdisk -n 1:2048:+32M -t 1:ef00 -n 2:0:+64M -n 5:0:0 -t 5:8200 -u 2:11111111-2222-3333-4444-555555555555";
    Tool::line(&format!("{line} {}", gpt.display())).run();
    let put = |into: &Path, sector: u64, mib: u64, command: &str| {
        testing::sparse(&part, mib << 20);
        Tool::line(&command.replace("IMG", part.to_str().unwrap())).run();
        testing::patch(into, sector * 512, &std::fs::read(&part).unwrap());
    };
    put(&gpt, 2048, 32, "mkfs.vfat -i cafebabe IMG");
    put(&gpt, 2048 + (32 << 11), 64, "mke2fs -q -F -t ext4 -U 0a0b0c0d-0000-1111-2222-333344445555 IMG");
    put(&gpt, 2048 + (96 << 11), 8, "mkswap -q IMG");
    testing::sparse(&mbr, 64 << 20);
    let table = b"label-id: 0x1234abcd\n2048,16M,83,*\n,,5\n,8M,83\n,8M,83\n";
    Tool::line(&format!("sfdisk -q {}", mbr.display())).input(table).run();

    let found = scan_files(&[&gpt, &mbr]);
    assert_eq!(ids(&found), ["disk0p1", "disk0p2", "disk0p5", "disk1p1", "disk1p5", "disk1p6"]);
    let volume = |index: usize| &found.volumes[index];
    assert_eq!(volume(0).uuid.as_deref(), Some("CAFE-BABE"));
    assert_eq!(volume(1).uuid.as_deref(), Some("0a0b0c0d-0000-1111-2222-333344445555"));
    assert_eq!(volume(1).part_uuid.as_deref(), Some("11111111-2222-3333-4444-555555555555"));
    assert_eq!(volume(1).content, Content::FileSystem { name: "ext4".into() });
    assert_eq!(volume(2).content, Content::Swap { hibernated: false });
    assert_eq!(volume(4).part_uuid.as_deref(), Some("1234abcd-05"));
    assert_eq!((volume(3).part_type.as_deref(), volume(3).disk), (Some("0x83"), 1));
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    // A view is a disk of its own.
    let view = found.view(&VolumeId("disk0p2".into())).unwrap();
    assert!(crate::tree::ext4::Ext4Tree::open(view).is_ok());

    // A disk cut short: the last partition is clipped and reported.
    std::fs::File::options().write(true).open(&mbr).unwrap().set_len(20 << 20).unwrap();
    let found = scan_files(&[&mbr]);
    assert_eq!(ids(&found), ["disk0p1", "disk0p5"]);
    assert!(found.findings.iter().any(|finding| finding.id == "partition-table-odd"), "{:?}", found.findings);
    assert!(found.volumes.iter().all(|volume| volume.size.0 <= 20 << 20));
}

#[test]
fn a_whole_disk_and_an_empty_one() {
    let Some(_) = testing::tool("mke2fs") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (whole, empty) = (dir.path().join("whole"), dir.path().join("empty"));
    testing::sparse(&whole, 8 << 20);
    testing::sparse(&empty, 1 << 20);
    Tool::line(&format!("mke2fs -q -F -t ext4 {}", whole.display())).run();
    let found = scan_files(&[&whole, &empty]);
    assert_eq!(ids(&found), ["disk0", "disk1"]);
    assert_eq!(found.volumes[0].content, Content::FileSystem { name: "ext4".into() });
    assert_eq!(found.volumes[1].content, Content::Unknown);
    // Boot code in front of it, as GRUB's, is no partition table.
    testing::patch(&whole, 0, b"\xeb\x63\x90");
    testing::patch(&whole, 510, b"\x55\xaa");
    let found = scan_files(&[&whole]);
    assert_eq!(ids(&found), ["disk0"]);
    assert_eq!(found.volumes[0].content, Content::FileSystem { name: "ext4".into() });
}

/// Two of a kind are two findings; thousands are not.
#[test]
fn findings_of_a_kind_are_bounded() {
    let finding = |n: usize| Finding::new("lvm-not-opened", n.to_string(), "nothing");
    let mut all: Vec<Finding> = (0..limits::ALIKE).map(finding).collect();
    all.insert(3, Finding::new("luks-locked", "x", "nothing"));
    assert_eq!(without_repetition(all.clone()), all);
    all.extend((0..1000).map(finding));
    let kept = without_repetition(all.clone());
    assert_eq!(kept.len(), limits::ALIKE + 1);
    assert_eq!(kept.last().unwrap().says, format!("{} (and 1000 more like this)", limits::ALIKE - 1));
    assert_eq!(kept[..limits::ALIKE], all[..limits::ALIKE]);
}

/// A disk that is mirrored as a whole has the mirror's partition table, and its superblock behind the partitions.
#[test]
fn partitions_of_a_mirrored_disk_are_those_of_the_array() {
    if ["sfdisk", "mke2fs"].iter().any(|name| testing::tool(name).is_none()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (disk, part) = (dir.path().join("disk"), dir.path().join("part"));
    let size = 32_u64 << 20;
    let old = |level: u32| (size - (64 << 10), superblock_old(true, &[(7, level), (8, 20 << 10), (10, 3)]));
    let new = |level: i32| {
        let at = size - 8192;
        let sectors = 40 << 10;
        let new = New { at, level, disks: 3, size_sectors: sectors, data: (0, sectors), ..New::default() };
        (at, new.bytes())
    };
    for (table, (at, superblock), expected) in [
        // Behind the last partition: the disk's. Inside it: the partition's.
        ("2048,16M\n", old(5), vec!["disk0"]),
        ("2048,\n", old(5), vec!["disk0p1"]),
        ("2048,16M\n", new(5), vec!["disk0"]),
        ("2048,\n", new(5), vec!["disk0"]),
        ("2048,16M\n", old(1), vec!["disk0", "md3p1"]),
        ("2048,\n", old(1), vec!["disk0p1", "md3"]),
        ("2048,16M\n", new(1), vec!["disk0", "md0p1"]),
    ] {
        testing::sparse(&disk, size);
        Tool::line(&format!("sfdisk -q {}", disk.display())).input(table.as_bytes()).run();
        testing::sparse(&part, 16 << 20);
        Tool::line(&format!("mke2fs -q -F -t ext4 {}", part.display())).run();
        testing::patch(&disk, 1 << 20, &std::fs::read(&part).unwrap());
        testing::patch(&disk, at, &superblock);
        let found = scan_files(&[&disk]);
        assert_eq!(ids(&found), expected, "{table} {:?}", found.findings);
        assert_eq!(found.volumes[0].content, Content::Member { of: "linux-raid".into() }, "{table}");
        let is_said = found.findings.iter().any(|finding| finding.id == "disk-in-array");
        assert_eq!(is_said, expected == ["disk0"]);
        let Some(array) = found.volumes.get(1) else { continue };
        assert_eq!(array.content, Content::FileSystem { name: "ext4".into() }, "{table}");
        assert_eq!((array.partition, array.part_uuid.is_some()), (None, expected[1].ends_with("p1")));
        assert_eq!(array.on, [found.volumes[0].id.clone()]);
        let noted = &found.arrays[0];
        assert_eq!((noted.level.as_str(), &noted.on, noted.opened), ("RAID1", &array.on, true));
    }
    // A damaged superblock is no member, and no array.
    let (at, mut superblock) = new(1);
    superblock[80] ^= 1;
    testing::patch(&disk, at, &superblock);
    let found = scan_files(&[&disk]);
    let said: Vec<_> = found.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(
        (ids(&found), said),
        (vec!["disk0".to_owned()], vec!["array-member-damaged", "disk-in-array"])
    );
}

#[test]
fn pools_are_named_and_left_alone() {
    let bcachefs = {
        let mut raw = vec![0; 1 << 20];
        raw[4096 + 24..4096 + 40]
            .copy_from_slice(b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef");
        raw[4096 + 56..4096 + 72].fill(0xab);
        raw
    };
    let zfs = {
        let mut raw = vec![0; 2 << 20];
        for block in 0..4 {
            raw[(128 << 10) + block * 1024..][..8].copy_from_slice(&0x00ba_b10c_u64.to_le_bytes());
        }
        raw
    };
    for (raw, of) in [(bcachefs, "bcachefs"), (zfs, "zfs")] {
        let disk: Arc<dyn DiskMut> = Arc::new(testing::Memory::new(raw));
        let found = scan(&[disk]).unwrap();
        assert_eq!(found.volumes[0].content, Content::Member { of: of.into() });
        assert_eq!(found.findings.len(), 1);
        assert_eq!(found.findings[0].id, "storage-not-opened");
        assert!(found.findings[0].says.contains(of), "{:?}", found.findings);
    }
}

/// btrfs over two devices: neither is mounted alone.
#[test]
fn btrfs_over_several_devices_is_named() {
    let Some(_) = testing::tool("mkfs.btrfs") else { return };
    let dir = tempfile::tempdir().unwrap();
    let files = [dir.path().join("a"), dir.path().join("b")];
    for file in &files {
        testing::sparse(file, 128 << 20);
    }
    Tool::line(&format!("mkfs.btrfs -q -d raid1 -m raid1 {} {}", files[0].display(), files[1].display()))
        .run();
    let found = scan_files(&[&files[0], &files[1]]);
    let said: Vec<_> = found.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(said, ["storage-not-opened", "storage-not-opened"]);
    assert!(found.findings[0].says.contains("btrfs"), "{:?}", found.findings);
}

/// Loop devices over files, given back at the end.
struct Loops(Vec<String>);

impl Loops {
    fn over(files: &[&Path]) -> Option<Loops> {
        let mut loops = Loops(Vec::new());
        for file in files {
            let out = std::process::Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
            if !out.status.success() {
                eprintln!("SKIPPED: loop devices need root: {}", String::from_utf8_lossy(&out.stderr));
                return None;
            }
            loops.0.push(String::from_utf8_lossy(&out.stdout).trim().to_owned());
        }
        Some(loops)
    }

    /// An lvm2 command that sees these devices only and does without the kernel's device-mapper.
    fn lvm(&self, command: &str) -> String {
        let filter: Vec<String> = self.0.iter().map(|device| format!("\"a|^{device}$|\"")).collect();
        let config = format!(
            "devices{{use_devicesfile=0 scan=\"/dev\" filter=[{},\"r|.*|\"]}} global{{use_lvmpolld=0}} backup{{backup=0 archive=0}}",
            filter.join(",")
        );
        let mut words = command.split_whitespace();
        let out = std::process::Command::new(words.next().unwrap())
            .args(["--driverloaded", "n", "--config", &config])
            .args(words)
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .output()
            .unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for device in &self.0 {
            let _ = std::process::Command::new("losetup").args(["-d", device]).status();
        }
    }
}

/// Four bytes at each 64 KiB that say where on which disk they are.
fn marked(path: &Path, disk: u8) {
    for at in (1 << 20..200_u64 << 20).step_by(64 << 10) {
        let mut mark = u32::try_from(at >> 16).unwrap().to_be_bytes();
        mark[0] = disk;
        testing::patch(path, at, &mark);
    }
}

/// (name, first byte, places as (disk, byte), stripe size)
type Layout = (String, u64, Vec<(usize, u64)>, u64);

/// What lvm2 says of every logical volume: (name, segments as (first byte, [(disk, byte)], stripe size)).
fn layout_by_lvs(loops: &Loops, group: &str) -> Vec<Layout> {
    let text = loops.lvm(&format!(
        "lvs --noheadings --units b --nosuffix --separator ; -o lv_name,seg_start,devices,stripe_size {group}"
    ));
    let extent = 4 << 20;
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.trim().split(';').collect();
            let places = fields[2].split(',').map(|place| {
                let (device, first) = place.trim_end_matches(')').split_once('(').unwrap();
                let disk = loops.0.iter().position(|known| known == device).unwrap();
                (disk, (1 << 20) + first.parse::<u64>().unwrap() * extent)
            });
            (fields[0].into(), fields[1].parse().unwrap(), places.collect(), fields[3].parse().unwrap())
        })
        .collect()
}

#[test]
fn logical_volumes_lie_where_lvm_says() {
    if ["pvcreate", "lvcreate", "losetup"].iter().any(|name| testing::tool(name).is_none()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    testing::sparse(&a, 200 << 20);
    testing::sparse(&b, 200 << 20);
    let Some(loops) = Loops::over(&[&a, &b]) else { return };
    let (dev_a, dev_b) = (&loops.0[0], &loops.0[1]);
    loops.lvm(&format!("pvcreate -q {dev_a} {dev_b}"));
    loops.lvm(&format!("vgcreate -q vg-a {dev_a} {dev_b}"));
    loops.lvm(&format!("lvcreate -q -an -Zn -Wn -y -L 40M -n root-1 vg-a {dev_b}"));
    loops.lvm("lvcreate -q -an -Zn -Wn -y -i 2 -I 64k -L 64M -n striped vg-a");
    loops.lvm(&format!("lvextend -q -L +20M vg-a/root-1 {dev_a}"));
    let mut layout = layout_by_lvs(&loops, "vg-a");
    layout.sort();
    let uuids = loops.lvm("lvs --noheadings -o lv_uuid vg-a/root-1").trim().to_owned();
    let group_uuid = loops.lvm("vgs --noheadings -o vg_uuid vg-a").trim().to_owned();
    let sizes = loops.lvm("vgs --noheadings --nosuffix --units b -o vg_size,vg_free vg-a");
    let sizes: Vec<_> = sizes.split_whitespace().map(|size| Some(Bytes(size.parse().unwrap()))).collect();
    drop(loops);
    marked(&a, 0xa0);
    marked(&b, 0xb0);

    let found = scan_files(&[&a, &b]);
    assert_eq!(ids(&found), ["disk0", "disk1", "vg-a/root-1", "vg-a/striped"]);
    assert_eq!(found.volumes[0].content, Content::LvmPhysical { group: "vg-a".into() });
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let [group] = found.groups.as_slice() else { panic!("{:?}", found.groups) };
    assert_eq!((group.name.as_str(), &group.uuid), ("vg-a", &group_uuid));
    assert_eq!(vec![group.size, group.free], sizes);
    assert_eq!((&group.on, group.missing.len()), (&found.volumes[2].on, 0));
    let root = &found.volumes[2];
    assert_eq!(root.on, [VolumeId("disk0".into()), VolumeId("disk1".into())]);
    assert_eq!((root.size.0, root.disk), (60 << 20, 1));
    assert!(root.device_names.contains(&"/dev/mapper/vg--a-root--1".to_owned()));
    let plain = |uuid: &str| uuid.replace('-', "");
    let by_uuid = format!("/dev/disk/by-id/dm-uuid-LVM-{}{}", plain(&group_uuid), plain(&uuids));
    assert!(root.device_names.contains(&by_uuid), "{:?}", root.device_names);
    let mut checked = 0;
    for (index, (name, start, places, stripe)) in layout.iter().enumerate() {
        let next = layout.get(index + 1).filter(|next| next.0 == *name).map(|next| next.1);
        let view = found.view(&VolumeId(format!("vg-a/{name}"))).unwrap();
        for at in (*start..next.unwrap_or(view.size().0)).step_by(64 << 10) {
            let inside = at - start;
            let (disk, place) = match places.as_slice() {
                [(disk, base)] => (*disk, base + inside),
                places => {
                    let chunk = inside / stripe;
                    let (disk, base) = places[usize::try_from(chunk).unwrap() % places.len()];
                    (disk, base + chunk / places.len() as u64 * stripe + inside % stripe)
                }
            };
            let mut mark = [0; 4];
            view.read_at(GuestOffset(at), &mut mark).unwrap();
            let mut expected = u32::try_from(place >> 16).unwrap().to_be_bytes();
            expected[0] = [0xa0, 0xb0][disk];
            assert_eq!(mark, expected, "{name} at {at:#x}");
            checked += 1;
        }
    }
    assert_eq!(checked, (60 + 64) << 4);

    // One disk alone: the group is known, what lies on the other disk is not opened.
    let found = scan_files(&[&b]);
    assert_eq!(ids(&found), ["disk0", "vg-a/root-1", "vg-a/striped"]);
    assert!(found.findings.iter().any(|finding| finding.id == "lvm-missing-pv"));
    assert_eq!((found.groups[0].missing.len(), vec![found.groups[0].size, found.groups[0].free]), (1, sizes));
    for name in ["vg-a/root-1", "vg-a/striped"] {
        assert!(found.view(&VolumeId(name.into())).is_none());
        assert!(found.closed(&VolumeId(name.into())).unwrap().contains("not on the machine's disks"));
    }
    // A disk and its copy.
    let copy = dir.path().join("copy");
    std::fs::copy(&a, &copy).unwrap();
    let found = scan_files(&[&a, &b, &copy]);
    assert!(found.findings.iter().any(|finding| finding.id == "lvm-duplicate-pv"), "{:?}", found.findings);
    assert!(found.view(&VolumeId("vg-a/striped".into())).is_none());
}

#[test]
fn two_groups_of_one_name_are_told_apart() {
    if ["pvcreate", "lvcreate", "losetup"].iter().any(|name| testing::tool(name).is_none()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for file in [&a, &b] {
        testing::sparse(file, 64 << 20);
        let Some(loops) = Loops::over(&[file]) else { return };
        loops.lvm(&format!("pvcreate -q {}", loops.0[0]));
        loops.lvm(&format!("vgcreate -q vg0 {}", loops.0[0]));
        loops.lvm("lvcreate -q -an -Zn -Wn -y -L 8M -n root vg0");
    }
    let found = scan_files(&[&a, &b]);
    assert_eq!(ids(&found).len(), 4);
    assert!(
        found.volumes[2].id.0 == "vg0/root" && found.volumes[3].id.0.starts_with("vg0@"),
        "{:?}",
        ids(&found)
    );
    assert!(found.findings.iter().any(|finding| finding.id == "lvm-duplicate-name"));
    // The name then leads to neither.
    let meant = super::super::Names::default().resolve("/dev/vg0/root", "auto", &found.volumes);
    assert!(matches!(meant, super::super::Meant::Unsure(several) if several.len() == 2));
}

/// Metadata that lvm2 accepts, with kinds of volumes that cannot be made without device-mapper.
#[test]
fn other_kinds_of_logical_volumes_are_named_and_left_alone() {
    if ["pvcreate", "vgcfgrestore", "losetup"].iter().any(|name| testing::tool(name).is_none()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    testing::sparse(&disk, 200 << 20);
    let Some(loops) = Loops::over(&[&disk]) else { return };
    loops.lvm(&format!("pvcreate -q {}", loops.0[0]));
    loops.lvm(&format!("vgcreate -q vg0 {}", loops.0[0]));
    for (name, mib) in [("plain", 8), ("origin", 16), ("store", 8), ("merged", 8), ("mstore", 8)] {
        loops.lvm(&format!("lvcreate -q -an -Zn -Wn -y -L {mib}M -n {name} vg0"));
    }
    let backup = dir.path().join("backup");
    loops.lvm(&format!("vgcfgbackup -q -f {} vg0", backup.display()));
    let text = std::fs::read_to_string(&backup).unwrap();
    let extra = |name: &str, id: &str, body: &str| {
        format!(
            "{name} {{ id = \"{id}\" status = [\"READ\", \"WRITE\", \"VISIBLE\"] flags = [] segment_count = 1\n\
             segment1 {{ start_extent = 0\n {body} }} }}\n"
        )
    };
    let snapshot = |store: &str, origin: &str, key: &str| {
        format!(
            "extent_count = 2\n type = \"snapshot\" chunk_size = 8 origin = \"{origin}\" {key} = \"{store}\""
        )
    };
    let added = [
        extra("snapshot0", "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa", &snapshot("store", "origin", "cow_store")),
        extra("snapshot1", "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb", &snapshot("mstore", "merged", "merging_store")),
        extra("nothing", "cccccc-cccc-cccc-cccc-cccc-cccc-cccccc", "extent_count = 1\n type = \"error\""),
    ]
    .concat()
    .replace("snapshot0 { id = \"aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa\" status = [\"READ\", \"WRITE\", \"VISIBLE\"]",
        "snapshot0 { id = \"aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa\" status = [\"READ\", \"WRITE\"]")
    .replace("snapshot1 { id = \"bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb\" status = [\"READ\", \"WRITE\", \"VISIBLE\"]",
        "snapshot1 { id = \"bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb\" status = [\"READ\", \"WRITE\"]");
    std::fs::write(&backup, text.replace("logical_volumes {", &format!("logical_volumes {{\n{added}")))
        .unwrap();
    loops.lvm(&format!("vgcfgrestore -q -f {} vg0", backup.display()));
    let expected: Vec<String> = loops
        .lvm("lvs --noheadings -o lv_name -O lv_name vg0")
        .lines()
        .map(|name| format!("vg0/{}", name.trim()))
        .collect();
    drop(loops);

    let found = scan_files(&[&disk]);
    assert_eq!(ids(&found)[1..], expected);
    let closed = |name: &str| found.closed(&VolumeId(format!("vg0/{name}"))).map(str::to_owned);
    assert_eq!(closed("plain"), None);
    assert_eq!(closed("origin"), None, "reading it is sound");
    assert_eq!(found.snapshots(&VolumeId("vg0/origin".into())), ["store"]);
    assert_eq!(closed("store").as_deref(), Some("it is a snapshot of origin"));
    assert_eq!(closed("merged").as_deref(), Some("the snapshot mstore is being merged into it"));
    assert_eq!(closed("nothing").as_deref(), Some("its segment type is error"));
    let content = |name: &str| found.volume(&VolumeId(format!("vg0/{name}"))).unwrap().content.clone();
    assert_eq!(content("store"), Content::Member { of: "lvm-snapshot".into() });
}

#[test]
fn the_corpus_volume_group_is_found() {
    let Some(corpus) = testing::corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = testing::unpack(&corpus.join("dfvfs/raw"), "lvm.raw", dir.path());
    let found = scan_files(&[&image]);
    assert_eq!(
        ids(&found),
        ["disk0", "test_volume_group/test_logical_volume1", "test_volume_group/test_logical_volume2"]
    );
    assert!(
        matches!(&found.volumes[1].content, Content::FileSystem { name } if name == "ext2"),
        "{:?}",
        found.volumes
    );

    // Damage to label, area or text: fewer volumes and a finding, no panic.
    let raw = std::fs::read(&image).unwrap();
    let mut state = 0x1234_5678_9abc_def1_u64;
    for _ in 0..400 {
        let mut bad = raw.clone();
        for _ in 0..3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(512 + state % 16384).unwrap();
            bad[at] = bad[at].wrapping_add(u8::try_from(state >> 56).unwrap() | 1);
        }
        let disk: Arc<dyn DiskMut> = Arc::new(testing::Memory::new(bad));
        let _ = scan(&[disk]).unwrap();
    }
}

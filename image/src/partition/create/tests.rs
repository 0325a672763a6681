use super::*;
use crate::Composed;
use crate::error::Kind;
use crate::partition::{self, Scheme, TypeId};
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;
const EFI: Uuid = Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
const DATA: Uuid = Uuid::from_u128(0x0fc63daf_8483_4772_8e79_3d69d8477de4);

fn mib(from: u64, to: u64) -> GuestRange {
    GuestRange::between(GuestOffset(from * MIB), GuestOffset(to * MIB))
}

fn layout(sector_size: u64) -> GptLayout {
    let partition = |n: u128, name: &str, type_guid, range, attributes| NewPartition {
        name: name.into(),
        type_guid,
        guid: Uuid::from_u128(n),
        range,
        attributes,
    };
    GptLayout {
        disk_guid: Uuid::from_u128(0x1111_2222),
        sector_size: Bytes(sector_size),
        boot_code: vec![0x90; BOOT_CODE],
        partitions: vec![
            partition(1, "EFI system", EFI, mib(1, 9), 1),
            partition(2, "Größe", DATA, mib(20, 40), 0),
            partition(3, "", DATA, mib(9, 20), 1 << 2 | 1 << 60),
        ],
    }
}

/// A disk with the layout on it.
fn disk(layout: &GptLayout, size: u64) -> Composed {
    let mut disk = Composed::new(Bytes(size));
    for (at, bytes) in layout.areas(Bytes(size)).unwrap() {
        disk.put(at, bytes).unwrap();
    }
    disk
}

/// The same as a file of `size`, with what `areas` say written over it.
fn file(folder: &Path, disk: &dyn Disk, size: u64, areas: &[Area]) -> std::path::PathBuf {
    use std::os::unix::fs::FileExt;
    let path = folder.join("disk");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(size).unwrap();
    for extent in disk.extents(GuestRange::new(GuestOffset(0), disk.size()), usize::MAX).unwrap() {
        if extent.kind == crate::ExtentKind::Data {
            let mut bytes = vec![0; index(extent.range.len().0)];
            disk.read_at(extent.range.start(), &mut bytes).unwrap();
            file.write_all_at(&bytes, extent.range.start().0).unwrap();
        }
    }
    for (at, bytes) in areas {
        file.write_all_at(bytes, at.0).unwrap();
    }
    path
}

fn open(path: &Path) -> std::sync::Arc<dyn Disk> {
    let options = crate::OpenOptions { format: Some(crate::Format::Raw), ..Default::default() };
    crate::formats::open(path, &options).unwrap().disk
}

/// What a tool prints of a disk; `None` (and a loud word) where it is missing.
fn told(tool: &str, arguments: &[&str], path: &Path) -> Option<String> {
    match Command::new(tool).env("LC_ALL", "C.UTF-8").args(arguments).arg(path).output() {
        Ok(output) => {
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            Some(String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
        }
        Err(e) => {
            eprintln!("SKIPPED: {tool}: {e}");
            None
        }
    }
}

/// Both tables are whole and agree, by `sgdisk` and by the crate `gpt`.
fn assert_sound(path: &Path, sector_size: u64) {
    if sector_size == 512
        && let Some(verdict) = told("sgdisk", &["-v"], path)
    {
        assert!(verdict.contains("No problems found"), "{verdict}");
    }
    let lb_size = if sector_size == 512 {
        ::gpt::disk::LogicalBlockSize::Lb512
    } else {
        ::gpt::disk::LogicalBlockSize::Lb4096
    };
    let file = std::fs::File::open(path).unwrap();
    let other = ::gpt::GptConfig::new().logical_block_size(lb_size).open_from_device(file).unwrap();
    assert_eq!(other.primary_header().unwrap().backup_lba, other.backup_header().unwrap().current_lba);
    assert_eq!(other.primary_header().unwrap().crc32_parts, other.backup_header().unwrap().crc32_parts);
}

#[test]
fn a_new_table_is_what_others_read() {
    for sector_size in [512, 4096] {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(sector_size);
        let path = file(folder.path(), &disk(&layout, 64 * MIB), 64 * MIB, &[]);
        let table = partition::read(&*open(&path)).unwrap().unwrap();
        assert_eq!(table.notes, [""; 0]);
        assert_eq!((table.scheme, table.sector_size), (Scheme::Gpt, Bytes(sector_size)));
        assert_eq!(table.disk_id, layout.disk_guid.to_string());
        assert_eq!(table.entries.len(), 3);
        for (number, (entry, wanted)) in (1..).zip(table.entries.iter().zip(&layout.partitions)) {
            assert_eq!((entry.number, entry.range, &entry.name), (number, wanted.range, &wanted.name));
            assert_eq!((entry.kind, entry.attributes), (TypeId::Gpt(wanted.type_guid), wanted.attributes));
            assert_eq!(entry.part_uuid, wanted.guid.to_string());
        }
        assert!(table.entries[2].bootable);
        assert_sound(&path, sector_size);
        if sector_size == 512
            && let Some(dump) = told("sfdisk", &["--dump"], &path)
        {
            assert!(dump.contains("first-lba: 34\nlast-lba: 131038\n"), "{dump}");
            assert!(dump.contains("label-id: 00000000-0000-0000-0000-000011112222"), "{dump}");
            assert!(dump.contains("start=       40960, size=       40960"), "{dump}");
            assert!(dump.contains("attrs=\"LegacyBIOSBootable GUID:60\""), "{dump}");
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..BOOT_CODE], layout.boot_code);
        let sectors = u32::try_from(64 * MIB / sector_size - 1).unwrap();
        assert_eq!(
            bytes[446..462],
            [&[0, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0], &sectors.to_le_bytes()[..]].concat()
        );
        assert_eq!(layout.areas(Bytes(64 * MIB)).unwrap(), layout.areas(Bytes(64 * MIB)).unwrap());
    }
}

/// The backup alone must do as well.
#[test]
fn each_of_the_two_tables_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let wiped = [(GuestOffset(512), vec![0; 512])];
    let path = file(folder.path(), &disk(&layout(512), 64 * MIB), 64 * MIB, &wiped);
    let table = partition::read(&*open(&path)).unwrap().unwrap();
    assert_eq!(table.entries.len(), 3);
    assert!(table.notes[0].contains("the backup at sector 131071 was read"), "{:?}", table.notes);
}

#[test]
fn a_disk_beyond_32_bits_of_sectors_is_protected_as_far_as_they_go() {
    let size = 3 << 40;
    let areas = layout(512).areas(Bytes(size)).unwrap();
    assert_eq!(areas[0].0.0 + areas[0].1.len() as u64, size);
    assert_eq!(areas[1].1[458..462], [255; 4]);
    let table = partition::read(&disk(&layout(512), size)).unwrap().unwrap();
    assert_eq!((table.entries.len(), table.notes.len()), (3, 0));
}

#[test]
fn one_step_beyond_each_bound_is_refused() {
    let size = Bytes(40 * MIB + 33 * 512);
    let refused = |what: &str, change: &dyn Fn(&mut GptLayout)| {
        let mut changed = layout(512);
        change(&mut changed);
        let error = changed.areas(size).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{what}");
        assert!(error.says().contains(what), "{what}: {error}");
    };
    layout(512).areas(size).unwrap();
    assert!(layout(512).areas(Bytes(size.0 - 512)).is_err());
    assert!(layout(512).areas(Bytes(size.0 + 1)).is_err());
    refused("sectors of 1024", &|l| l.sector_size = Bytes(1024));
    refused("boot code of 441", &|l| l.boot_code.push(0));
    refused("there twice", &|l| l.partitions[0].guid = l.partitions[1].guid);
    refused("there twice", &|l| l.partitions[0].guid = l.disk_guid);
    refused("nil", &|l| l.disk_guid = Uuid::nil());
    refused("no type", &|l| l.partitions[1].type_guid = Uuid::nil());
    refused("units", &|l| l.partitions[1].name = "ö".repeat(37));
    refused("units", &|l| l.partitions[1].name = "💾".repeat(18) + "x");
    refused("units", &|l| l.partitions[1].name = "a\0b".into());
    refused("overlap", &|l| {
        l.partitions[1].range = GuestRange::between(GuestOffset(20 * MIB - 512), GuestOffset(30 * MIB));
    });
    refused("whole sectors", &|l| l.partitions[0].range = GuestRange::new(GuestOffset(MIB), Bytes(513)));
    refused("whole sectors", &|l| l.partitions[0].range = GuestRange::new(GuestOffset(MIB), Bytes(0)));
    refused("are free", &|l| l.partitions[0].range = GuestRange::new(GuestOffset(33 * 512), Bytes(512)));
    refused("are free", &|l| {
        l.partitions[1].range = GuestRange::between(GuestOffset(20 * MIB), GuestOffset(40 * MIB + 512));
    });
    let mut most = layout(512);
    most.partitions = (0..129)
        .map(|n| NewPartition {
            guid: Uuid::from_u128(1 + u128::from(n)),
            range: GuestRange::new(GuestOffset((34 + n) * 512), Bytes(512)),
            name: "💾".repeat(18),
            ..layout(512).partitions[0].clone()
        })
        .collect();
    assert!(most.areas(size).unwrap_err().says().contains("129 partitions"));
    most.partitions.pop();
    most.boot_code.clear();
    assert_eq!(partition::read(&disk(&most, size.0)).unwrap().unwrap().entries.len(), 128);
    // 2 sectors, the entries twice, the backup header, and one sector for use.
    assert!(GptLayout::usable(Bytes(512), Bytes(68 * 512)).is_ok());
    assert!(GptLayout::usable(Bytes(512), Bytes(67 * 512)).is_err());
    assert!(GptLayout::usable(Bytes(4096), Bytes(12 * 4096)).is_ok());
    assert!(GptLayout::usable(Bytes(4096), Bytes(11 * 4096)).is_err());
    assert!(GptLayout::usable(Bytes(4096), Bytes(0)).is_err());
}

#[test]
fn a_table_grows_with_its_disk() {
    for sector_size in [512, 4096] {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(sector_size);
        let disk = disk(&layout, 41 * MIB);
        assert_eq!(grown(&disk).unwrap(), None);
        let size = 100 * MIB + 4096;
        let path = file(folder.path(), &disk, size, &[]);
        let grown_now = grown(&*open(&path)).unwrap().unwrap();
        // The last on the disk is the second in the table.
        assert_eq!((grown_now.number, grown_now.range), (2, mib(20, 99)));
        let stale = grown_now.areas.last().unwrap();
        assert_eq!(stale.0.0 + stale.1.len() as u64, 41 * MIB);
        let path = file(folder.path(), &disk, size, &grown_now.areas);
        let table = partition::read(&*open(&path)).unwrap().unwrap();
        assert_eq!(table.notes, [""; 0]);
        let ranges: Vec<_> = table.entries.iter().map(|entry| (entry.number, entry.range)).collect();
        assert_eq!(ranges, [(1, mib(1, 9)), (2, mib(20, 99)), (3, mib(9, 20))]);
        assert_eq!(table.disk_id, layout.disk_guid.to_string());
        assert_sound(&path, sector_size);
        assert_eq!(std::fs::read(&path).unwrap()[..BOOT_CODE], layout.boot_code);
        assert_eq!(grown(&*open(&path)).unwrap(), None);
        // Wherever the writing stops, a table can be read, and what is missing is made up for.
        for done in 0..grown_now.areas.len() {
            let mut some = grown_now.areas[..done].to_vec();
            if let Some((at, bytes)) = grown_now.areas.get(done) {
                some.push((*at, bytes[..bytes.len() / 2].to_vec()));
            }
            let path = file(folder.path(), &disk, size, &some);
            assert_eq!(partition::read(&*open(&path)).unwrap().unwrap().entries.len(), 3, "{done}");
        }
    }
}

/// Few sectors more: the new backup lies on the old one, and the partition keeps its end.
#[test]
fn a_table_grows_by_a_sector() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(&layout(512), 40 * MIB + 33 * 512);
    for more in [1, 32, 33, 34, 2047, 2048] {
        let size = 40 * MIB + (33 + more) * 512;
        let path = file(folder.path(), &disk, size, &[]);
        let now = grown(&*open(&path)).unwrap().unwrap();
        assert_eq!(now.range, mib(20, if more == 2048 { 41 } else { 40 }));
        let path = file(folder.path(), &disk, size, &now.areas);
        assert_sound(&path, 512);
        assert_eq!(grown(&*open(&path)).unwrap(), None, "{more}");
    }
}

/// A table of `sgdisk`, with its own place for the entries.
#[test]
fn tables_of_others_grow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    let arguments = ["-S=200", "-j=64", "-n=1:2048:+3M", "-n=7:+0:+4M", "-c=7:last", "-t=7:8300"];
    if told("sgdisk", &arguments, &path).is_none() {
        return;
    }
    std::fs::File::options().write(true).open(&path).unwrap().set_len(128 * MIB).unwrap();
    let now = grown(&*open(&path)).unwrap().unwrap();
    let start = |path: &Path| {
        let mut start = vec![0; 64 * 512];
        open(path).read_at(GuestOffset(0), &mut start).unwrap();
        start
    };
    let before = start(&path);
    for (at, bytes) in &now.areas {
        crate::testing::poke(&path, &[(at.0, bytes)]);
    }
    assert_sound(&path, 512);
    let table = partition::read(&*open(&path)).unwrap().unwrap();
    assert_eq!((table.entries[1].number, table.entries[1].name.as_str()), (7, "last"));
    assert_eq!((table.entries[1].range, table.notes.len()), (mib(4, 127), 0));
    // Between header and entries nothing was touched.
    assert_eq!(start(&path)[1024..], before[1024..]);
}

#[test]
fn what_cannot_grow_is_told_so() {
    let kind = |disk: &dyn Disk| grown(disk).unwrap_err().kind();
    assert_eq!(kind(&Composed::new(Bytes(MIB))), Kind::Refused);
    let mut none = layout(512);
    none.partitions.clear();
    assert_eq!(kind(&disk(&none, 64 * MIB)), Kind::Refused);
    let folder = tempfile::tempdir().unwrap();
    let made = disk(&layout(512), 64 * MIB);
    let wiped = [(GuestOffset(512), vec![0; 512])];
    assert_eq!(kind(&*open(&file(folder.path(), &made, 64 * MIB, &wiped))), Kind::Corrupt);
    let hybrid = [(GuestOffset(466), vec![0, 0, 0, 0, 0x83, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0])];
    assert_eq!(kind(&*open(&file(folder.path(), &made, 80 * MIB, &hybrid))), Kind::Refused);
}

use super::*;
use crate::Kind;
use crate::testing::MemDisk;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn open(path: &Path) -> std::sync::Arc<dyn Disk> {
    let options = crate::OpenOptions { format: Some(crate::Format::Raw), ..Default::default() };
    crate::formats::open(path, &options).unwrap().disk
}

/// Runs a partitioning tool on a new file of `size`; `None` (and a loud word) where it is missing.
fn made_by(tool: &str, arguments: &[&str], input: &str, size: u64) -> Option<(tempfile::TempDir, PathBuf)> {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let child =
        Command::new(tool).args(arguments).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => {
            eprintln!("SKIPPED: {tool}: {e}");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{tool} {arguments:?}");
    Some((dir, path))
}

/// What `sfdisk` says: a line for each partition, with first sector, sectors, type, identity, name, active.
fn sfdisk_reading(path: &Path) -> Option<Vec<String>> {
    let output = match Command::new("sfdisk").env("LC_ALL", "C.UTF-8").arg("--dump").arg(path).output() {
        Ok(output) => output,
        Err(e) => {
            eprintln!("SKIPPED: sfdisk: {e}");
            return None;
        }
    };
    let name = path.to_str().unwrap();
    // It writes names beyond ASCII in its own way.
    let text = String::from_utf8(output.stdout).unwrap().replace(r"Gr\xc3\xb6\xc3\x9fe", "Größe");
    let field = |line: &str, key: &str| {
        let at = line.find(key)? + key.len();
        Some(line[at..].split(',').next().unwrap().trim().trim_matches('"').to_owned())
    };
    Some(
        text.lines()
            .filter_map(|line| line.strip_prefix(name))
            .map(|line| {
                let number = line.split(':').next().unwrap().trim();
                let get = |key| field(line, key).unwrap_or_default();
                format!(
                    "{number} {} {} {} {} {} {}",
                    get("start="),
                    get("size="),
                    get("type=").to_lowercase(),
                    get("uuid=").to_lowercase(),
                    get("name="),
                    line.contains("bootable") || line.contains("LegacyBIOSBootable")
                )
            })
            .collect(),
    )
}

/// Our own reading in the same words.
fn own_reading(table: &Table) -> Vec<String> {
    table
        .entries
        .iter()
        .map(|entry| {
            let (kind, uuid) = match entry.kind {
                TypeId::Mbr(kind) => (format!("{kind:x}"), String::new()),
                TypeId::Gpt(kind) => (kind.to_string(), entry.part_uuid.clone()),
            };
            format!(
                "{} {} {} {kind} {uuid} {} {}",
                entry.number,
                entry.range.start().0 / table.sector_size.0,
                entry.range.len().0 / table.sector_size.0,
                entry.name,
                entry.bootable
            )
        })
        .collect()
}

const MIB: u64 = 1 << 20;

#[test]
fn mbr_with_logical_partitions_as_sfdisk_reads_it() {
    let script = "label: dos\nlabel-id: 0x1234abcd\n\
        size=10M, type=83, bootable\nsize=5M, type=82\nsize=60M, type=5\nsize=3M, type=8e\n\
        size=4M, type=83\nsize=5M, type=7\nsize=6M, type=fd\n";
    let Some((_dir, path)) = made_by("sfdisk", &["--quiet"], script, 100 * MIB) else { return };
    let table = read(&*open(&path)).unwrap().unwrap();
    assert_eq!((table.scheme, table.disk_id.as_str()), (Scheme::Mbr, "0x1234abcd"));
    assert_eq!(own_reading(&table), sfdisk_reading(&path).unwrap());
    assert_eq!(table.entries.len(), 7);
    assert_eq!(table.entries[6].part_uuid, "1234abcd-07");
    assert!(table.entries[2].is_extended());
    assert_eq!(table.notes, [""; 0]);
}

fn gpt_disk(size: u64) -> Option<(tempfile::TempDir, PathBuf)> {
    made_by(
        "sgdisk",
        &[
            "-U=11111111-2222-3333-4444-555555555555",
            "-n=1:2048:+3M",
            "-t=1:ef00",
            "-c=1:EFI system",
            "-n=5:+1M:+4M",
            "-t=5:8300",
            "-c=5:Größe",
            "-A=5:set:2",
            "-n=2:+0:+2M",
            "-t=2:8200",
        ],
        "",
        size,
    )
}

#[test]
fn gpt_as_sfdisk_reads_it() {
    let Some((_dir, path)) = gpt_disk(64 * MIB) else { return };
    let table = read(&*open(&path)).unwrap().unwrap();
    assert_eq!(table.scheme, Scheme::Gpt);
    assert_eq!(table.disk_id, "11111111-2222-3333-4444-555555555555");
    assert_eq!(own_reading(&table), sfdisk_reading(&path).unwrap());
    assert_eq!(table.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(table.entries[2].name, "Größe");
    assert_eq!(table.notes, [""; 0]);
}

fn poke(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn a_damaged_primary_gpt_is_read_from_its_backup() {
    for at in [512, 512 + 24, 512 + 40, 512 + 80, 1024 + 5] {
        let Some((_dir, path)) = gpt_disk(64 * MIB) else { return };
        let whole = read(&*open(&path)).unwrap().unwrap();
        poke(&path, at, &[0xee]);
        let table = read(&*open(&path)).unwrap().unwrap();
        assert_eq!(table.entries, whole.entries);
        assert!(table.notes[0].contains("backup"), "{:?}", table.notes);
        // A damaged backup beside an intact primary is a note; both damaged is an error.
        poke(&path, 64 * MIB - 512 + 30, &[0xee]);
        let error = read(&*open(&path)).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.hint_text().is_some());
    }
    let Some((_dir, path)) = gpt_disk(64 * MIB) else { return };
    poke(&path, 64 * MIB - 512 + 30, &[0xee]);
    let table = read(&*open(&path)).unwrap().unwrap();
    assert!(table.notes[0].starts_with("the backup partition table"), "{:?}", table.notes);
    assert_eq!(table.entries.len(), 3);
}

#[test]
fn an_enlarged_disk_keeps_its_table_and_a_cut_one_does_not_hide_it() {
    let Some((_dir, path)) = gpt_disk(64 * MIB) else { return };
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(80 * MIB).unwrap();
    let table = read(&*open(&path)).unwrap().unwrap();
    assert_eq!(table.entries.len(), 3);
    assert!(table.notes[0].contains("enlarged"), "{:?}", table.notes);
    file.set_len(40 * MIB).unwrap();
    assert_eq!(read(&*open(&path)).unwrap_err().kind(), Kind::Corrupt);
}

/// A GPT in 4096-byte sectors, made by the crate `gpt`, inside a format that cannot record the sector size.
#[test]
fn gpt_with_sectors_of_4096_bytes() {
    let size = 64 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let mut file = std::fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.set_len(size).unwrap();
    let lba_size = ::gpt::disk::LogicalBlockSize::Lb4096;
    ::gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(size / 4096 - 1).unwrap())
        .overwrite_lba0(&mut file)
        .unwrap();
    let mut disk = ::gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(lba_size)
        .create_from_device(file, None)
        .unwrap();
    let kind = ::gpt::partition_types::LINUX_FS;
    disk.add_partition("root", 8 * MIB, kind, 0, None).unwrap();
    disk.add_partition("more", 4 * MIB, ::gpt::partition_types::EFI, 4, None).unwrap();
    let wanted: Vec<_> = disk
        .partitions()
        .iter()
        .map(|(number, p)| (*number, p.first_lba * 4096, p.name.clone(), p.part_guid.to_string()))
        .collect();
    disk.write().unwrap();
    let table = read(&*open(&path)).unwrap().unwrap();
    assert_eq!(table.sector_size, Bytes(4096));
    let got: Vec<_> = table
        .entries
        .iter()
        .map(|e| (e.number, e.range.start().0, e.name.clone(), e.part_uuid.clone()))
        .collect();
    assert_eq!(got, wanted);
    assert_eq!(table.entries[0].range.len(), Bytes(8 * MIB));
    assert!(table.entries[1].bootable);
    assert_eq!(table.notes, [""; 0]);
}

#[test]
fn hybrid_tables_are_gpt_and_say_so() {
    let Some((_dir, path)) = gpt_disk(64 * MIB) else { return };
    let status = Command::new("sgdisk").arg("-h=1:2").arg(&path).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let table = read(&*open(&path)).unwrap().unwrap();
    assert_eq!((table.scheme, table.entries.len()), (Scheme::Gpt, 3));
    assert!(table.notes[0].contains("hybrid"), "{:?}", table.notes);
}

/// An entry of a boot record.
fn slot(kind: u8, first: u32, sectors: u32) -> Vec<u8> {
    let mut slot = vec![0, 0, 0, 0, kind, 0, 0, 0];
    slot.extend(first.to_le_bytes());
    slot.extend(sectors.to_le_bytes());
    slot
}

fn record(slots: &[Vec<u8>]) -> Vec<u8> {
    let mut sector = vec![0; 446];
    sector.extend(slots.concat());
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

#[test]
fn chains_that_run_in_a_circle_or_away_end() {
    let read = |disk: MemDisk| read(&disk).unwrap().unwrap();
    // The second record points back to the first.
    let circle = MemDisk::new(Bytes(10 * MIB))
        .data(0, record(&[slot(5, 100, 10_000)]))
        .data(100 * 512, record(&[slot(0x83, 8, 50), slot(5, 200, 100)]))
        .data(300 * 512, record(&[slot(0x83, 8, 50), slot(5, 0, 100)]));
    let table = read(circle);
    assert_eq!(table.entries.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 5, 6]);
    assert!(table.notes[0].contains("circle"), "{:?}", table.notes);
    // A record that is behind the end, and one that is none.
    for (next, sectors) in [(4_000_000_000, 20_000u32), (5000, 20_000)] {
        let broken = MemDisk::new(Bytes(10 * MIB))
            .data(0, record(&[slot(15, 100, sectors)]))
            .data(100 * 512, record(&[slot(0x83, 8, 50), slot(5, next, 100)]));
        let table = read(broken);
        assert_eq!(table.entries.len(), 2);
        assert!(table.notes[0].contains("broken"), "{:?}", table.notes);
    }
    // A chain with more links than there are partitions anywhere.
    let mut endless = MemDisk::new(Bytes(10 * MIB)).data(0, record(&[slot(5, 100, 20_000)]));
    for n in 0..300u32 {
        let ebr = record(&[slot(0x83, 1, 1), slot(5, (n + 1) * 4, 4)]);
        endless = endless.data(u64::from(100 + n * 4) * 512, ebr);
    }
    let table = read(endless);
    assert_eq!(table.entries.len(), crate::limits::PARTITIONS);
    assert!(table.notes[0].contains("longer"), "{:?}", table.notes);
}

#[test]
fn partitions_behind_the_end_are_cut_and_noted() {
    let disk = MemDisk::new(Bytes(MIB))
        .data(0, record(&[slot(0x83, 1, 100), slot(0x83, 50, 4000), slot(0x83, 5000, 10)]));
    let table = read(&disk).unwrap().unwrap();
    assert_eq!(table.entries.len(), 2);
    assert_eq!(table.entries[1].range.end().0, MIB);
    let notes = table.notes.join("\n");
    for part in ["partition 2 has", "partition 3 begins", "1 and 2 overlap"] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn a_gpt_that_asks_for_too_much_is_refused() {
    let Some((_dir, path)) = gpt_disk(64 * MIB) else { return };
    let mut header = vec![0; 512];
    open(&path).read_at(GuestOffset(512), &mut header).unwrap();
    let with = |at: usize, value: u32| {
        let mut header = header.clone();
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        header[16..20].fill(0);
        let mut crc = flate2::Crc::new();
        crc.update(&header[..92]);
        header[16..20].copy_from_slice(&crc.sum().to_le_bytes());
        gpt::parse(&header)
    };
    let most = u32::try_from(crate::limits::PARTITION_ARRAY.0 / 128).unwrap();
    assert!(with(80, most).is_ok());
    assert!(with(80, most + 1).is_err());
    assert!(with(80, u32::MAX).is_err());
    for size in [0, 64, 127, 129] {
        assert!(with(84, size).is_err(), "{size}");
    }
    use super::gpt;
}

/// Boot sectors of file systems on the whole disk end like a boot record and are none.
#[test]
fn a_file_system_is_no_partition_table() {
    for arguments in [vec!["-F", "12"], vec!["-F", "16"], vec!["-F", "32"]] {
        let Some((_dir, path)) = made_by("mkfs.fat", &arguments, "", 40 * MIB) else { return };
        assert_eq!(read(&*open(&path)).unwrap(), None, "{arguments:?}");
    }
    assert_eq!(read(&MemDisk::new(Bytes(MIB))).unwrap(), None);
    assert_eq!(read(&MemDisk::new(Bytes(100))).unwrap(), None);
}

#[test]
fn real_tables_as_sfdisk_reads_them() {
    // They lie in one folder, which comes with any of them.
    let Some(row) = crate::corpus::rows("raw-mbr").into_iter().find(|row| row.path.contains("dfvfs")) else {
        return;
    };
    let unpacked = row.unpack();
    for (name, scheme, partitions) in [
        ("mbr", Some(Scheme::Mbr), 3),
        ("gpt", Some(Scheme::Gpt), 2),
        ("gpt_non_sequential", Some(Scheme::Gpt), 2),
        ("gpt_empty_with_mbr", Some(Scheme::Mbr), 1),
        ("fat12", None, 0),
        ("ntfs", None, 0),
        ("ext4", None, 0),
        ("lvm", None, 0),
        ("xfs", None, 0),
        ("luks1", None, 0),
        ("iso9660", None, 0),
    ] {
        let path = unpacked.path.with_file_name(format!("{name}.raw"));
        let table = read(&*open(&path)).unwrap();
        assert_eq!(table.as_ref().map(|table| table.scheme), scheme, "{name}");
        let Some(table) = table else { continue };
        assert_eq!(table.entries.len(), partitions, "{name}: {table:?}");
        if let Some(wanted) = sfdisk_reading(&path) {
            assert_eq!(own_reading(&table), wanted, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever the sectors say: no panic, no end of memory, and every partition inside of the disk.
    #[test]
    fn hostile_tables_do_no_harm(
        slots in prop::collection::vec((any::<u8>(), 0..3000u32, any::<u32>()), 0..=4),
        chain in prop::collection::vec((0..3000u64, any::<u32>(), any::<u32>(), 0..3000u32), 0..5),
        header in prop::collection::vec(any::<u8>(), 92..512),
    ) {
        let slots: Vec<_> = slots.iter().map(|&(kind, first, len)| slot(kind, first, len)).collect();
        let mut sectors = std::collections::BTreeMap::from([(0, record(&slots)), (1, header)]);
        for (at, first, len, next) in chain {
            sectors.insert(at, record(&[slot(0x83, first, len), slot(5, next, len)]));
        }
        let disk = sectors.into_iter().fold(MemDisk::new(Bytes(MIB)), |disk, (at, bytes)| {
            if (at + 1) * 512 <= MIB { disk.data(at * 512, bytes) } else { disk }
        });
        if let Ok(Some(table)) = read(&disk) {
            for entry in table.entries {
                prop_assert!(!entry.range.is_empty() && entry.range.end().0 <= MIB);
            }
        }
    }
}

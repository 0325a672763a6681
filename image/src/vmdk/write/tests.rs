//! What is written, against the suite, against other readers, and against what VMware is known to want.

#![allow(clippy::cast_possible_truncation, reason = "small numbers chosen here")]

use crate::convert::{Options, convert};
use crate::corpus;
use crate::create::{Compression, CreateOptions, FileOptions, Preallocation};
use crate::disk::Disk;
use crate::error::{Kind, Result};
use crate::formats::{self, OpenOptions};
use crate::gate::Gate;
use crate::sink::{Piece, Sink};
use crate::source::Source;
use crate::testing::{self, MemDisk};
use crate::units::{Bytes, GuestOffset, GuestRange};
use crate::vmdk;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

type Create = fn(&Path, Bytes, &CreateOptions) -> Result<Box<dyn Sink>>;

/// Every kind: its name, what makes it, its `createType`.
const KINDS: [(&str, Create, &str); 6] = [
    ("vmdk", vmdk::create_sparse, "monolithicSparse"),
    ("vmdk-stream", vmdk::create_stream, "streamOptimized"),
    ("vmdk-flat", vmdk::create_flat, "monolithicFlat"),
    ("vmdk-split", vmdk::create_split, "twoGbMaxExtentSparse"),
    ("vmdk-split-flat", vmdk::create_split_flat, "twoGbMaxExtentFlat"),
    ("vmdk-esxi", vmdk::create_esxi, "vmfs"),
];

fn open(path: &Path) -> Result<Arc<dyn Disk>> {
    let options = OpenOptions { format: Some(formats::Format::Vmdk), ..OpenOptions::default() };
    Ok(formats::open(path, &options)?.disk)
}

fn write(disk: &dyn Disk, create: Create, path: &Path, options: &CreateOptions) {
    let sink = create(path, disk.size(), options).unwrap();
    convert(disk, sink, &Options::default()).unwrap();
}

fn suite(create: Create, options: &CreateOptions) {
    crate::suite::check_sink(
        |path, size, files: FileOptions| create(path, size, &CreateOptions { files, ..options.clone() }),
        open,
    );
}

#[test]
fn sparse_passes_the_suite() {
    suite(vmdk::create_sparse, &CreateOptions::default());
    suite(
        vmdk::create_sparse,
        &CreateOptions { block_size: Some(Bytes::kib(8)), ..CreateOptions::default() },
    );
}

#[test]
fn stream_passes_the_suite() {
    suite(vmdk::create_stream, &CreateOptions::default());
}

#[test]
fn split_passes_the_suite() {
    suite(vmdk::create_split, &CreateOptions::default());
    suite(vmdk::create_split, &CreateOptions { block_size: Some(Bytes::mib(2)), ..CreateOptions::default() });
}

#[test]
fn the_flat_kinds_pass_the_suite() {
    suite(vmdk::create_flat, &CreateOptions::default());
    suite(vmdk::create_split_flat, &CreateOptions::default());
    suite(vmdk::create_esxi, &CreateOptions::default());
}

/// Something of everything in four extents of a split disk, three tables of a stream, with an odd end.
fn large() -> MemDisk {
    const MIB: u64 = 1 << 20;
    let size = 4500 * MIB + 1536;
    MemDisk::new(Bytes(size))
        .data(0, testing::text_bytes(1, 3 << 20))
        .data(40 * MIB - 512, testing::noise_bytes(2, 2 << 20))
        .data(2046 * MIB + 512, testing::text_bytes(3, 3 << 20))
        .data(4090 * MIB, testing::noise_bytes(4, 6 << 20))
        .data(4200 * MIB, vec![0; 1 << 20])
        .data(size - 512, vec![9; 512])
}

#[test]
fn other_readers_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let disk = large();
    let raw = dir.path().join("disk.raw");
    convert(
        &disk,
        crate::raw::create(&raw, disk.size(), &CreateOptions::default()).unwrap(),
        &Options::default(),
    )
    .unwrap();
    for (name, create, create_type) in KINDS {
        let image = format!("{name}.vmdk");
        write(&disk, create, &dir.path().join(&image), &CreateOptions::default());
        let opened = formats::open(&dir.path().join(&image), &OpenOptions::default()).unwrap();
        assert_eq!(opened.layers[0].variant, create_type);
        assert!(
            crate::convert::compare(&disk, &*opened.disk, &Options::default()).unwrap().is_same_content()
        );
        // qemu-img 7.2 does not check flat kinds; it says so with an exit status of its own.
        if !name.contains("flat") && !name.contains("esxi") {
            corpus::run(dir.path(), "qemu-img", &["check", &image]);
        }
        corpus::run(dir.path(), "qemu-img", &["compare", "-f", "raw", "-F", "vmdk", "disk.raw", &image]);
        if let Some(info) = corpus::run(dir.path(), "qemu-img", &["info", &image]) {
            assert!(info.contains(&format!("create type: {create_type}")), "{info}");
            assert!(info.contains(&disk.size().0.to_string()), "{info}");
        }
        if let Some(info) = corpus::run(dir.path(), "vmdkinfo", &[&image]) {
            assert!(info.contains(&format!("({} bytes)", disk.size().0)), "{info}");
        }
    }
}

/// Where the data of [`large`] begins and ends, and the awkward places between, in pieces that are quick to read.
const SPOTS: [(u64, usize); 7] = [
    (0, 4 << 20),
    ((40 << 20) - 65_536, 3 << 20),
    (2046 << 20, 4 << 20),
    (3000 << 20, 1 << 20),
    (4090 << 20, 7 << 20),
    (4200 << 20, 2 << 20),
    ((4500 << 20) + 1536 - 70_000, 70_000),
];

/// libvmdk reads each kind as we do, through its Python module.
#[test]
fn libvmdk_reads_the_same() {
    const SCRIPT: &str = "import hashlib, pyvmdk, sys\n\
        disk = pyvmdk.handle()\n\
        disk.open(sys.argv[1])\n\
        disk.open_extent_data_files()\n\
        print(disk.media_size)\n\
        for spot in sys.argv[2:]:\n    \
            at, left = map(int, spot.split('+'))\n    \
            digest = hashlib.sha256()\n    \
            while left:\n        \
                piece = disk.read_buffer_at_offset(min(left, 1 << 20), at)\n        \
                assert piece, 'a short read'\n        \
                digest.update(piece)\n        \
                at += len(piece)\n        \
                left -= len(piece)\n    \
            print(digest.hexdigest())\n";
    let python = "/usr/bin/python3";
    let there = std::process::Command::new(python).args(["-c", "import pyvmdk"]).output();
    if !there.is_ok_and(|out| out.status.success()) {
        eprintln!("SKIPPED: python3-libvmdk is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = large();
    let mut wanted = vec![disk.size().0.to_string()];
    for (at, len) in SPOTS {
        use sha2::Digest;
        let mut ours = vec![0; len];
        disk.read_at(GuestOffset(at), &mut ours).unwrap();
        wanted.push(format!("{:x}", sha2::Sha256::digest(&ours)));
    }
    for (name, create, _) in KINDS {
        let image = format!("{name}.vmdk");
        write(&disk, create, &dir.path().join(&image), &CreateOptions::default());
        let spots: Vec<String> = SPOTS.iter().map(|(at, len)| format!("{at}+{len}")).collect();
        let mut arguments = vec!["-c", SCRIPT, &image];
        arguments.extend(spots.iter().map(String::as_str));
        let out = corpus::run(dir.path(), python, &arguments).unwrap();
        assert_eq!(out.lines().collect::<Vec<_>>(), wanted, "{name}");
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + N].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Reads a stream as an importer does: from front to back, once.
#[test]
fn a_stream_is_what_an_importer_wants() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a stream.vmdk");
    let size = (70u64 << 20) + 1536;
    let disk = MemDisk::new(Bytes(size))
        .data(0, testing::noise_bytes(1, 1 << 20))
        .data((32 << 20) - 65_536, testing::text_bytes(2, 1 << 20))
        .data(40 << 20, vec![0; 1 << 20])
        .data(size - 512, vec![7; 512]);
    write(&disk, vmdk::create_stream, &path, &CreateOptions::default());
    let file = std::fs::read(&path).unwrap();
    let sectors = |at: usize| number::<8>(&file, at);
    assert_eq!(&file[..4], b"KDMV");
    assert_eq!((number::<4>(&file, 4), number::<4>(&file, 8)), (3, 0x3_0001), "version and flags");
    assert_eq!((sectors(12), sectors(20)), (size / 512, 128), "capacity and grain");
    assert_eq!((number::<4>(&file, 44), sectors(48), sectors(56), sectors(64)), (512, 0, u64::MAX, 128));
    assert_eq!(&file[72..79], b"\0\n \r\n\x01\0");
    let text = std::str::from_utf8(&file[512..512 + 512 * sectors(36) as usize]).unwrap();
    let text = text.trim_end_matches('\0');
    for line in [
        "# Disk DescriptorFile",
        "version=1",
        "parentCID=ffffffff",
        "createType=\"streamOptimized\"",
        "RDONLY 143363 SPARSE \"a stream.vmdk\"",
        "ddb.adapterType = \"lsilogic\"",
        "ddb.geometry.cylinders = \"70\"",
        "ddb.geometry.heads = \"64\"",
        "ddb.geometry.sectors = \"32\"",
        "ddb.toolsVersion = \"2147483647\"",
        "ddb.virtualHWVersion = \"4\"",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in {text}");
    }
    let mut guest = vec![0; (size as usize).next_multiple_of(65_536)];
    let (mut at, mut last, mut tables) = (128 * 512, None, vec![0u64; 3]);
    let mut entries: Vec<(u64, u64)> = Vec::new();
    loop {
        let (value, len, kind) = (sectors(at), number::<4>(&file, at + 8), number::<4>(&file, at + 12));
        if len > 0 {
            assert!(last < Some(value) && value % 128 == 0, "grains come in the order of the disk");
            last = Some(value);
            let mut grain = Vec::new();
            let data = &file[at + 12..at + 12 + len as usize];
            flate2::read::ZlibDecoder::new(data).read_to_end(&mut grain).unwrap();
            assert_eq!(grain.len(), 65_536, "every grain is whole");
            assert!(grain.iter().any(|&byte| byte != 0), "no grain of zeros");
            let next = (at + 12 + len as usize).next_multiple_of(512);
            assert!(next - at <= 129 * 512, "what VMware's reader has room for");
            assert!(file[at + 12 + len as usize..next].iter().all(|&byte| byte == 0));
            guest[value as usize * 512..][..65_536].copy_from_slice(&grain);
            entries.push((value / 128, at as u64 / 512));
            at = next;
            continue;
        }
        assert!(file[at + 16..at + 512].iter().all(|&byte| byte == 0));
        at += 512;
        match kind {
            1 => {
                assert_eq!(value, 4);
                let table = entries[0].0 / 512;
                for slot in 0..512 {
                    let wanted = entries.iter().find(|(grain, _)| *grain == table * 512 + slot);
                    let entry = number::<4>(&file, at + slot as usize * 4);
                    assert_eq!(entry, wanted.map_or(0, |(_, lies_at)| *lies_at));
                }
                assert!(
                    entries.iter().all(|(grain, _)| grain / 512 == table),
                    "behind all grains of it alone"
                );
                tables[table as usize] = at as u64 / 512;
                entries.clear();
            }
            2 => {
                assert_eq!(value, 1);
                for (table, place) in tables.iter().enumerate() {
                    assert_eq!(number::<4>(&file, at + table * 4), *place);
                }
                tables = vec![at as u64 / 512];
            }
            3 => {
                assert_eq!(value, 1);
                assert_eq!(sectors(at + 56), tables[0], "the footer knows the directory");
                assert_eq!((&file[at..at + 56], &file[at + 64..at + 512]), (&file[..56], &file[64..512]));
            }
            0 => {
                assert_eq!((value, at), (0, file.len()), "the end is the end");
                break;
            }
            other => panic!("marker {other}"),
        }
        at += value as usize * 512;
    }
    assert!(entries.is_empty());
    assert!(guest[..size as usize] == testing::read_all(&disk).unwrap());
}

/// What is written has no problem that our own check knows.
#[test]
fn what_is_written_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let disk = large();
    for (name, create, _) in KINDS {
        let path = dir.path().join(format!("{name}.vmdk"));
        write(&disk, create, &path, &CreateOptions::default());
        let checked = vmdk::check(Source::open(&path).unwrap(), &Gate::own_folder()).unwrap();
        assert_eq!(checked.counts, [0; 3], "{name}: {checked:?}");
    }
}

#[test]
fn options_are_honoured_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemDisk::new(Bytes(3 << 20)).data(0, testing::text_bytes(1, 2 << 20));
    let path = dir.path().join("a.vmdk");
    let len_at = |level| {
        let options =
            CreateOptions { level, compression: Some(Compression::Zlib), ..CreateOptions::default() };
        write(&disk, vmdk::create_stream, &path, &options);
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::remove_file(&path).unwrap();
        len
    };
    assert!(len_at(Some(12)) < len_at(Some(1)));
    assert_eq!(len_at(None), len_at(Some(1)));
    let refused = |create: Create, options: CreateOptions, size| {
        let error = create(&path, Bytes(size), &options).err().expect("refused");
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    for level in [-1, 0, 13] {
        refused(vmdk::create_stream, CreateOptions { level: Some(level), ..CreateOptions::default() }, 512);
    }
    let zstd = CreateOptions { compression: Some(Compression::Zstd), ..CreateOptions::default() };
    let falloc = CreateOptions { preallocation: Preallocation::Falloc, ..CreateOptions::default() };
    let grain = |size| CreateOptions { block_size: Some(Bytes(size)), ..CreateOptions::default() };
    refused(vmdk::create_stream, zstd.clone(), 512);
    refused(vmdk::create_sparse, zstd, 512);
    refused(vmdk::create_sparse, falloc, 512);
    refused(vmdk::create_sparse, grain(4096), 512);
    refused(vmdk::create_sparse, grain(4 << 20), 512);
    refused(vmdk::create_stream, grain(65_536), 512);
    for (_, create, _) in KINDS {
        refused(create, CreateOptions::default(), 0);
        refused(create, CreateOptions::default(), u64::MAX);
    }
    let adapter = Some(crate::create::Adapter::Ide);
    for (name, create, _) in KINDS {
        write(&disk, create, &path, &CreateOptions { adapter, ..CreateOptions::default() });
        let opened = formats::open(&path, &OpenOptions::default()).unwrap();
        assert!(opened.layers[0].details.contains(&("adapterType".into(), "ide".into())), "{name}");
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    // More files than a reader takes.
    refused(vmdk::create_split, CreateOptions::default(), 64 << 40);
}

#[test]
fn a_disk_for_esxi_says_whether_it_is_thin() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = MemDisk::new(Bytes(8 << 20)).data(1 << 20, testing::noise_bytes(1, 4096));
    for (preallocation, thin) in
        [(Preallocation::Off, true), (Preallocation::Falloc, false), (Preallocation::Full, false)]
    {
        let path = dir.path().join("web 01.vmdk");
        let files = FileOptions { replace: true, ..FileOptions::default() };
        let options = CreateOptions { preallocation, files, ..CreateOptions::default() };
        write(&disk, vmdk::create_esxi, &path, &options);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.contains("ddb.thinProvisioned = \"1\"\n"), thin, "{text}");
        assert!(text.contains("createType=\"vmfs\"\n"));
        assert!(text.contains("RW 16384 VMFS \"web 01-flat.vmdk\"\n"));
        let flat = std::fs::metadata(dir.path().join("web 01-flat.vmdk")).unwrap();
        assert_eq!(flat.len(), 8 << 20);
        assert_eq!(flat.blocks() * 512 < 8 << 20, thin);
        assert!(
            crate::convert::compare(&disk, &*open(&path).unwrap(), &Options::default())
                .unwrap()
                .is_identical()
        );
    }
}

#[test]
fn names_come_back_from_the_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let disk = testing::mixed(1, Bytes(6 << 20));
    for name in ["a \"quoted\" | piped.vmdk", "größe|22.VMDK", "no ending", ".vmdk"] {
        for (_, create, _) in KINDS {
            let path = dir.path().join(name);
            write(&disk, create, &path, &CreateOptions::default());
            let image = open(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(crate::convert::compare(&disk, &*image, &Options::default()).unwrap().is_same_content());
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
    }
    use std::os::unix::ffi::OsStrExt;
    let path = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.vmdk"));
    for (_, create, _) in KINDS {
        assert_eq!(create(&path, Bytes(512), &CreateOptions::default()).err().unwrap().kind(), Kind::Refused);
    }
}

/// What a resumed run finds is anything: no byte of it comes through but what was stored.
#[test]
fn old_content_does_not_show() {
    let dir = tempfile::tempdir().unwrap();
    let disk = testing::mixed(1, Bytes((6 << 20) + 512));
    let contents = |folder: &Path| {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    for (name, create, _) in KINDS {
        let path = dir.path().join("a.vmdk");
        write(&disk, create, &path, &CreateOptions::default());
        let fresh = contents(dir.path());
        for (path, _) in &fresh {
            let partial = format!(".{}.landfall-partial", path.file_name().unwrap().to_str().unwrap());
            std::fs::write(dir.path().join(partial), vec![0xff; 9 << 20]).unwrap();
            std::fs::remove_file(path).unwrap();
        }
        let files = FileOptions { resume: true, ..FileOptions::default() };
        write(&disk, create, &path, &CreateOptions { files, ..CreateOptions::default() });
        assert!(contents(dir.path()) == fresh, "{name}");
        for (path, _) in fresh {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn an_old_descriptor_is_never_left_with_new_extents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.vmdk");
    let (old, new) = (testing::mixed(1, Bytes(6 << 20)), testing::mixed(2, Bytes(6 << 20)));
    write(&old, vmdk::create_flat, &path, &CreateOptions::default());
    let files = FileOptions { replace: true, ..FileOptions::default() };
    let options = CreateOptions { files, ..CreateOptions::default() };
    write(&new, vmdk::create_flat, &path, &options);
    assert!(
        crate::convert::compare(&new, &*open(&path).unwrap(), &Options::default()).unwrap().is_identical()
    );
    // The extent cannot take its name: neither it nor the descriptor is there afterwards.
    std::fs::remove_file(dir.path().join("a-flat.vmdk")).unwrap();
    let sink = vmdk::create_flat(&path, new.size(), &options).unwrap();
    std::fs::create_dir(dir.path().join("a-flat.vmdk")).unwrap();
    assert_eq!(convert(&new, sink, &Options::default()).unwrap_err().kind(), Kind::Refused);
    assert!(!path.exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only what stood in the way");
}

#[test]
fn nothing_lies_where_tables_cannot_point() {
    let dir = tempfile::tempdir().unwrap();
    let grain = |index: u64, len| GuestRange::new(GuestOffset(index << 16), Bytes(len));
    let sink =
        vmdk::create_stream(&dir.path().join("a.vmdk"), Bytes(1 << 40), &CreateOptions::default()).unwrap();
    let piece = [Piece { len: 1 << 31, verbatim: false }];
    let error = (0..2000).find_map(|index| sink.place(grain(index, 1 << 16), &piece).err()).unwrap();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    let options = CreateOptions { block_size: Some(Bytes::mib(2)), ..CreateOptions::default() };
    let sink = vmdk::create_sparse(&dir.path().join("b.vmdk"), Bytes(4 << 40), &options).unwrap();
    let step = 1 << 30;
    let error =
        (0..3000).find_map(|n| sink.place(GuestRange::new(GuestOffset(n * step), Bytes(step)), &[]).err());
    let error = error.unwrap();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.hint_text().unwrap().contains("vmdk-split"));
}

/// Sixteen empty tebibytes take no room, and are mapped without their tables being read.
#[test]
fn emptiness_is_cheap() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = MemDisk::new(Bytes(16 << 40)).data(9 << 40, vec![1; 4096]);
    let path = dir.path().join("a.vmdk");
    for create in [vmdk::create_sparse, vmdk::create_stream] {
        let files = FileOptions { replace: true, ..FileOptions::default() };
        write(&disk, create, &path, &CreateOptions { files, ..CreateOptions::default() });
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 8 << 20);
        let written = open(&path).unwrap();
        let extents = written.extents(GuestRange::new(GuestOffset(0), written.size()), 10).unwrap();
        let ends: Vec<u64> = extents.iter().map(|extent| extent.range.end().0).collect();
        assert_eq!(ends, [9 << 40, (9 << 40) + 65_536, 16 << 40]);
    }
}

//! Archives made here, byte for byte: what is right, and what is not. Those of another program's making are in the program's
//! tests (tests/machines/xen.rs).

use super::read::sha1;
use super::*;
use crate::convert::{self, Cancel};
use crate::create::{CreateOptions, FileOptions};
use crate::disk::{Disk, ExtentKind};
use crate::error::Kind;
use crate::formats;
use crate::testing::{self, MemDisk, noise_bytes};
use crate::units::{GuestOffset, GuestRange};
use twox_hash::XxHash64;

const MIB: usize = 1 << 20;

/// An archive under construction.
struct Tar(Vec<u8>);

impl Tar {
    fn new(sizes: &[(&str, u64)]) -> Tar {
        let mut tar = Tar(Vec::new());
        tar.add(DEFINITION, definition(sizes).as_bytes());
        tar
    }

    fn add(&mut self, name: &str, content: &[u8]) {
        self.0.extend(tar::header(name, Bytes(content.len() as u64)).unwrap());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// A block with its SHA-1.
    fn block(&mut self, disk: &str, number: u64, content: &[u8]) {
        self.add(&format!("{disk}/{number:08}"), content);
        self.add(&format!("{disk}/{number:08}.checksum"), sha1(content).as_bytes());
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn definition(sizes: &[(&str, u64)]) -> String {
    let objects: String = sizes
        .iter()
        .map(|(id, size)| {
            format!(
                "<value><struct><member><name>class</name><value>VDI</value></member><member><name>id</name><value>{id}\
                 </value></member><member><name>snapshot</name><value><struct><member><name>virtual_size</name><value>{size}\
                 </value></member></struct></value></member></struct></value>"
            )
        })
        .collect();
    format!(
        "<value><struct><member><name>objects</name><value><array><data>{objects}</data></array></value></member></struct>\
         </value>"
    )
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("a.xva")
    }

    fn put(&self, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(), bytes).unwrap();
        self.path()
    }

    fn opened(&self, bytes: &[u8]) -> Result<Image> {
        self.put(bytes);
        formats::open(&self.path(), &OpenOptions::default())
    }
}

/// What a disk holds where, in MiB.
fn kinds(disk: &dyn Disk) -> Vec<(ExtentKind, u64, u64)> {
    let all = disk.extents(GuestRange::new(GuestOffset(0), disk.size()), 100).unwrap();
    all.iter().map(|e| (e.kind, e.range.start().0 >> 20, e.range.end().0 >> 20)).collect()
}

#[test]
fn blocks_lie_where_their_numbers_say() {
    let (a, b, c) = (noise_bytes(1, MIB), noise_bytes(2, MIB), noise_bytes(3, MIB / 2));
    let size = (9 * MIB + MIB / 2) as u64;
    let mut tar = Tar::new(&[("Ref:9", size)]);
    tar.block("Ref:9", 0, &a);
    tar.block("Ref:9", 1, &b);
    tar.block("Ref:9", 5, &a);
    tar.block("Ref:9", 9, &c);
    let place = Place::new();
    let image = place.opened(&tar.end()).unwrap();
    use ExtentKind::{Data, Zero};
    assert_eq!(image.disk.size().0, size);
    assert_eq!(kinds(&*image.disk), [(Data, 0, 2), (Zero, 2, 5), (Data, 5, 6), (Zero, 6, 9), (Data, 9, 9)]);
    let mut wanted = vec![0; 9 * MIB + MIB / 2];
    for (at, block) in [(0, &a), (1, &b), (5, &a), (9, &c)] {
        wanted[at * MIB..at * MIB + block.len()].copy_from_slice(block);
    }
    assert!(testing::read_all(&*image.disk).unwrap() == wanted);
    // Parts of blocks, over their borders too.
    for (at, len) in [(0, 1), (MIB - 3, 7), (2 * MIB - 1, 3 * MIB + 2), (4 * MIB, 10), (9 * MIB + 7, 1000)] {
        let mut part = vec![1; len];
        image.disk.read_at(GuestOffset(at as u64), &mut part).unwrap();
        assert!(part == wanted[at..at + len], "{at} {len}");
    }
    assert!(image.disk.read_at(GuestOffset(size - 1), &mut [0; 2]).is_err());
    let inner =
        image.disk.extents(GuestRange::new(GuestOffset(MIB as u64 / 2), Bytes(MIB as u64)), 9).unwrap();
    assert_eq!((inner.len(), inner[0].range.len()), (1, Bytes(MIB as u64)));
    assert_eq!(image.disk.extents(GuestRange::new(GuestOffset(0), image.disk.size()), 2).unwrap().len(), 2);
}

/// A block of no bytes keeps a connection alive: it takes a number and no place.
#[test]
fn empty_blocks_shift_the_numbers_behind_them() {
    let (a, b) = (noise_bytes(1, MIB), noise_bytes(2, MIB));
    let mut tar = Tar::new(&[("Ref:9", 4 << 20)]);
    tar.block("Ref:9", 0, &a);
    tar.block("Ref:9", 2, &[]);
    // Number 3 is the third MiB, not the fourth.
    tar.block("Ref:9", 3, &b);
    tar.block("Ref:9", 4, &a);
    let image = Place::new().opened(&tar.end());
    let disk = image.unwrap().disk;
    let got = testing::read_all(&*disk).unwrap();
    assert!(got[..MIB] == a && got[MIB..2 * MIB].iter().all(|byte| *byte == 0));
    assert!(got[2 * MIB..3 * MIB] == b && got[3 * MIB..] == a);
}

/// What is skipped is counted in blocks of the first one's length.
#[test]
fn the_first_block_tells_the_unit() {
    let a = noise_bytes(1, 4096);
    let mut tar = Tar::new(&[("Ref:9", 4 * 4096)]);
    tar.block("Ref:9", 0, &a);
    tar.block("Ref:9", 3, &a);
    let disk = Place::new().opened(&tar.end()).unwrap().disk;
    let got = testing::read_all(&*disk).unwrap();
    assert!(got[..4096] == a && got[4096..12288].iter().all(|byte| *byte == 0) && got[12288..] == a);
}

#[test]
fn both_digests_are_compared() {
    let block = noise_bytes(7, MIB);
    let xxh = |block: &[u8], lower: bool| match lower {
        true => format!("{:016x}", XxHash64::oneshot(0, block)),
        false => format!("{:016X}", XxHash64::oneshot(0, block)),
    };
    // The test vector of the specification.
    assert_eq!(xxh(b"", true), "ef46db3751d8e999");
    for (ending, sum) in
        [("checksum", sha1(&block)), ("xxhash", xxh(&block, false)), ("xxhash", xxh(&block, true))]
    {
        let mut tar = Tar::new(&[("Ref:9", MIB as u64)]);
        tar.add("Ref:9/00000000", &block);
        let at = tar.0.len() - 5;
        tar.add(&format!("Ref:9/00000000.{ending}"), sum.as_bytes());
        let mut bytes = tar.end();
        let place = Place::new();
        let disk = place.opened(&bytes).unwrap().disk;
        assert!(testing::read_all(&*disk).unwrap() == block);
        bytes[at] ^= 1;
        let damaged = place.opened(&bytes).unwrap().disk;
        // The whole block, and a part that is not damaged itself.
        for len in [MIB, 1] {
            let error = damaged.read_at(GuestOffset(0), &mut vec![0; len]).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(
                text.contains("a.xva") && text.contains(&sum[..16]) && error.hint_text().is_some(),
                "{text}"
            );
        }
        let checked = formats::check(&place.path(), &OpenOptions::default()).unwrap().remove(0).2.unwrap();
        checked.must_say(Severity::Corrupt, "Ref:9: block 0: the block at 0x0 of Ref:9 has the digest");
        bytes[at] ^= 1;
        place.put(&bytes);
        let checked = formats::check(&place.path(), &OpenOptions::default()).unwrap().remove(0).2.unwrap();
        assert_eq!((checked.counts, checked.allocated), ([0; 3], Bytes(MIB as u64)));
    }
}

/// A part is compared once; then parts are read alone.
#[test]
fn a_block_that_was_compared_is_not_read_whole_again() {
    let block = noise_bytes(7, MIB);
    let mut tar = Tar::new(&[("Ref:9", MIB as u64)]);
    tar.block("Ref:9", 0, &block);
    let mut bytes = tar.end();
    let place = Place::new();
    let disk = place.opened(&bytes).unwrap().disk;
    disk.read_at(GuestOffset(9), &mut [0; 1]).unwrap();
    let end = bytes.len() - 4096;
    bytes[end] ^= 1;
    std::fs::write(place.path(), &bytes).unwrap();
    disk.read_at(GuestOffset(9), &mut [0; 1]).unwrap();
    assert!(disk.read_at(GuestOffset(0), &mut vec![0; MIB]).is_err(), "a whole one is compared each time");
}

#[test]
fn one_of_several_disks_is_named() {
    let (a, b) = (noise_bytes(1, MIB), noise_bytes(2, MIB));
    let mut tar = Tar::new(&[("Ref:9", MIB as u64), ("Ref:10", MIB as u64), ("Ref:11", 7)]);
    tar.block("Ref:10", 0, &b);
    tar.block("Ref:9", 0, &a);
    tar.add("readme", b"x");
    let place = Place::new();
    let error = place.opened(&tar.end()).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.hint_text().unwrap().contains("a.xva/Ref:10"), "{error}");
    for (name, wanted) in [("Ref:9", &a), ("Ref:10", &b)] {
        let image = formats::open(&place.path().join(name), &OpenOptions::default()).unwrap();
        assert_eq!((image.layers[0].format, image.layers.len()), (Format::Xva, 1));
        assert!(&testing::read_all(&*image.disk).unwrap() == wanted);
    }
    let archive = Archive::open(&place.path()).unwrap();
    assert_eq!(archive.disks().collect::<Vec<_>>(), ["Ref:10", "Ref:9"]);
    assert_eq!(archive.strangers(), ["readme"]);
    assert!(testing::read_all(&*archive.disk("Ref:9").unwrap().disk).unwrap() == a);
    let failed = |name: &str| archive.disk(name).err().unwrap();
    assert_eq!(failed("Ref:11").kind(), Kind::Unsupported, "its data is not there");
    assert_eq!(failed("../x").kind(), Kind::Refused);
    assert!(formats::open(&place.path().join("Ref:1"), &OpenOptions::default()).is_err());
    // A file beside it that has such a name is itself.
    assert!(inside(&place.path()).unwrap().is_none());
}

#[test]
fn exports_without_data_are_told() {
    let place = Place::new();
    let error = place.opened(&Tar::new(&[("Ref:9", 1)]).end()).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(
        error.says().contains("metadata") && error.hint_text().unwrap().contains("xe vm-export"),
        "{error}"
    );
}

#[test]
fn compressed_exports_are_refused_with_the_command() {
    for (magic, command) in [(&b"\x1f\x8b\x08\0"[..], "gunzip -c"), (&b"\x28\xb5\x2f\xfd"[..], "zstd -dc")] {
        let place = Place::new();
        let error = Archive::open(&place.put(&[magic, &[0; 1000]].concat())).err().unwrap();
        assert_eq!(error.kind(), Kind::Unsupported);
        let hint = error.hint_text().unwrap();
        assert!(hint.contains(command) && hint.contains("> 'a-unpacked.xva'"), "{hint}");
    }
    let place = Place::new();
    assert_eq!(Archive::open(&place.put(&[0; 4096])).err().unwrap().kind(), Kind::Unsupported);
    assert!(Archive::open(&place.put(b"x")).is_err());
    // Named so, and nothing of the kind.
    assert_eq!(place.opened(&[1; 4096]).err().unwrap().kind(), Kind::Corrupt);
}

#[test]
fn damaged_archives_are_refused() {
    let a = noise_bytes(1, MIB);
    let size = 3 << 20;
    let build = |add: &dyn Fn(&mut Tar)| {
        let mut tar = Tar::new(&[("Ref:9", size)]);
        add(&mut tar);
        tar.end()
    };
    let good = build(&|tar| {
        tar.block("Ref:9", 0, &a);
        tar.block("Ref:9", 2, &a);
    });
    let place = Place::new();
    place.opened(&good).unwrap();
    type Add<'a> = &'a dyn Fn(&mut Tar);
    let cases: &[(&str, Add<'_>)] = &[
        ("blocks are missing", &|tar| tar.block("Ref:9", 1, &a)),
        ("incomplete", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.block("Ref:9", 1, &a);
        }),
        ("has blocks up to 0x400000 of a disk of 3145728 bytes", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.block("Ref:9", 3, &a);
        }),
        ("follows number 2: numbers have to rise", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.block("Ref:9", 2, &a);
            tar.block("Ref:9", 2, &a);
        }),
        ("numbers have to rise", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.block("Ref:9", 2, &a);
            tar.block("Ref:9", 1, &a);
        }),
        ("lies beyond the largest disk", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.add("Ref:9/999999999999999999", &a);
        }),
        ("lies beyond the largest disk", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.add("Ref:9/300000000", &a);
        }),
        ("blocks are missing", &|tar| tar.block("Ref:9", 0, b"")),
        ("follows no block of it", &|tar| tar.add("Ref:9/00000000.checksum", &[b'0'; 40])),
        ("follows no block of it", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.add("Ref:9/00000001.checksum", &[b'0'; 40]);
        }),
        ("follows no block of it", &|tar| {
            tar.block("Ref:9", 0, &a);
            tar.add("Ref:9/00000000.xxhash", &[b'0'; 16]);
        }),
        ("has 39 bytes, not 40", &|tar| {
            tar.add("Ref:9/00000000", &a);
            tar.add("Ref:9/00000000.checksum", &[b'0'; 39]);
        }),
        ("ova.xml twice", &|tar| tar.add(DEFINITION, b"<a/>")),
        ("at most 16777216 are read", &|tar| tar.add("Ref:9/00000000", &vec![0; 16 * MIB + 1])),
        ("whose size its ova.xml does not tell", &|tar| tar.block("Ref:8", 0, &a)),
    ];
    for (says, add) in cases {
        let error = place.opened(&build(add)).err().unwrap_or_else(|| panic!("{says}"));
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    // Cut off anywhere, it is refused, and says where it ends.
    for len in (600..good.len() - 2048).step_by(99_991).chain([MIB + 4000, 2 * MIB]) {
        let error = place.opened(&good[..len]).err().unwrap_or_else(|| panic!("{len}"));
        assert_eq!(error.kind(), Kind::Corrupt, "{len}: {error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{len:#x}")) && error.hint_text().is_some(), "{len}: {text}");
    }
    // The end marker alone is nobody's loss.
    place.opened(&good[..good.len() - 1024]).unwrap();
    let mut links = good.clone();
    links[156] = b'2';
    assert!(place.opened(&links).is_err());
}

#[test]
fn long_names_and_extended_headers_are_read() {
    let a = noise_bytes(1, MIB);
    let mut tar = Tar::new(&[("Ref:9", MIB as u64)]);
    let mut pax = tar::header("PaxHeader", Bytes(27)).unwrap();
    pax[156] = b'x';
    pax[148..156].fill(b' ');
    let sum: u64 = pax.iter().copied().map(u64::from).sum();
    pax[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    for name in ["Ref:9/00000000", "Ref:9/00000000.checksum"] {
        tar.0.extend(pax);
        tar.0.extend(b"27 mtime=1700000000.123456\n");
        tar.0.resize(tar.0.len().next_multiple_of(512), 0);
        match name.ends_with("checksum") {
            true => tar.add(name, sha1(&a).as_bytes()),
            false => tar.add(name, &a),
        }
    }
    let disk = Place::new().opened(&tar.end()).unwrap().disk;
    assert!(testing::read_all(&*disk).unwrap() == a);
}

/// Writes disks into an archive.
fn written(path: &Path, disks: &[(&str, &dyn Disk)]) -> Result<Receipt> {
    let sizes: Vec<_> =
        disks.iter().map(|(name, disk)| (*name, disk.size().0.max(1).next_multiple_of(BLOCK))).collect();
    let files = FileOptions { replace: true, ..FileOptions::default() };
    let mut writer = XvaWriter::create(path, &definition(&sizes), files)?;
    for (name, disk) in disks {
        let mut options = CreateOptions::default();
        let place = writer.disk(name, &mut options)?;
        convert::convert(*disk, create(&place, disk.size(), &options)?, &Default::default())?;
        writer.disk_done()?;
    }
    writer.finish()
}

use crate::sink::Receipt;

#[test]
fn what_is_written_is_read_back() {
    let place = Place::new();
    let sparse = MemDisk::new(Bytes(300 << 20)).data(77 << 20, noise_bytes(5, 3000));
    let zeros = MemDisk::new(Bytes(5 << 20));
    let small = MemDisk::new(Bytes(512)).data(0, noise_bytes(6, 512));
    let empty = MemDisk::new(Bytes(0));
    let one = MemDisk::new(Bytes(4096));
    let mixed = testing::mixed(1, Bytes((20 << 20) + 512));
    let disks: [(&str, &dyn Disk); 6] = [
        ("Ref:1000", &sparse),
        ("Ref:1001", &zeros),
        ("Ref:1002", &small),
        ("Ref:1003", &mixed),
        ("Ref:1004", &empty),
        ("Ref:1005", &one),
    ];
    written(&place.path(), &disks).unwrap();
    assert!(std::fs::metadata(place.path()).unwrap().len().is_multiple_of(10240));
    let archive = Archive::open(&place.path()).unwrap();
    for (name, disk) in disks {
        let image = archive.disk(name).unwrap();
        assert_eq!(image.disk.size().0, disk.size().0.max(1).next_multiple_of(BLOCK));
        let mut wanted = testing::read_all(disk).unwrap();
        wanted.resize(usize::try_from(image.disk.size().0).unwrap(), 0);
        assert!(testing::read_all(&*image.disk).unwrap() == wanted, "{name}");
    }
    use ExtentKind::{Data, Zero};
    let map = |name: &str| kinds(&*archive.disk(name).unwrap().disk);
    let sparse = [(Data, 0, 1), (Zero, 1, 77), (Data, 77, 78), (Zero, 78, 299), (Data, 299, 300)];
    assert_eq!(map("Ref:1000"), sparse, "the first and the last block are there, and no other of zeros");
    assert_eq!(map("Ref:1001"), [(Data, 0, 1), (Zero, 1, 4), (Data, 4, 5)]);
    assert_eq!(map("Ref:1002"), [(Data, 0, 1)]);
    assert_eq!(map("Ref:1005"), [(Data, 0, 1)], "the first and the last are one");
}

/// The same bytes whatever the number of threads.
#[test]
fn threads_change_nothing() {
    let place = Place::new();
    let disk = testing::mixed(3, Bytes(70 << 20));
    let mut files = Vec::new();
    for threads in [1, 7] {
        let files_options = FileOptions { replace: true, ..FileOptions::default() };
        let mut writer =
            XvaWriter::create(&place.path(), &definition(&[("a", 70 << 20)]), files_options).unwrap();
        let mut options = CreateOptions::default();
        let at = writer.disk("a", &mut options).unwrap();
        let how = convert::Options { jobs: threads, ..convert::Options::default() };
        convert::convert(&disk, create(&at, disk.size(), &options).unwrap(), &how).unwrap();
        writer.disk_done().unwrap();
        writer.finish().unwrap();
        files.push(std::fs::read(place.path()).unwrap());
    }
    assert!(files[0] == files[1]);
}

#[test]
fn an_archive_that_was_not_finished_leaves_nothing() {
    let place = Place::new();
    let mut writer = XvaWriter::create(&place.path(), "<a/>", FileOptions::default()).unwrap();
    let mut options = CreateOptions::default();
    let at = writer.disk("Ref:1001", &mut options).unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    let stopped = convert::Options { cancel, ..convert::Options::default() };
    let disk = testing::mixed(1, Bytes(9 << 20));
    assert!(convert::convert(&disk, create(&at, disk.size(), &options).unwrap(), &stopped).is_err());
    assert!(writer.disk("Ref:1002", &mut options).is_err(), "the one before is not done");
    drop(writer);
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn names_that_an_importer_would_not_take_are_refused() {
    let place = Place::new();
    let mut writer = XvaWriter::create(&place.path(), "<a/>", FileOptions::default()).unwrap();
    let mut options = CreateOptions::default();
    for bad in ["", "a/b", "a b", "ä", &"a".repeat(90)] {
        assert_eq!(writer.disk(bad, &mut options).unwrap_err().kind(), Kind::Refused, "{bad}");
    }
    let place_of = |writer: &mut XvaWriter, name: &str| {
        let mut options = CreateOptions::default();
        let at = writer.disk(name, &mut options)?;
        create(&at, Bytes(0), &options)?.finish()?;
        writer.disk_done()
    };
    assert_eq!(place_of(&mut writer, "Ref:9").unwrap().0, (BLOCK + 3 * 512));
    assert_eq!(place_of(&mut writer, "Ref:10").unwrap_err().kind(), Kind::Refused, "text, not numbers");
    let alone = create(&place.path(), Bytes(1), &CreateOptions::default()).err().unwrap();
    assert!(alone.kind() == Kind::Refused && alone.hint_text().unwrap().contains("--to xen"), "{alone}");
}

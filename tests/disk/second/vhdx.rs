//! vhdx: fixed and dynamic VHDXs of up to 4 GiB.

use super::{Exception, Opened, Outcome, Second, read, still, write_plain};
use landfall_image::testing::{self, MemDisk};
use landfall_image::{Bytes, Disk, Format, GuestOffset, OpenOptions, formats};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const CHUNKS: &str =
    "it takes a chunk for twice its length, so that what lies behind 4 GiB comes from the wrong entry";

pub(super) const SECOND: Second = Second {
    name: "vhdx",
    format: Format::Vhdx,
    open,
    may_write: true,
    loads_all: false,
    except_written: &[
        Exception { names: "vhdx, plain, large", comes_to: Outcome::OtherContent, because: CHUNKS },
        Exception { names: "vhdx-fixed, plain, large", comes_to: Outcome::OtherContent, because: CHUNKS },
    ],
    except_corpus: &[
        Exception {
            names: "dfvfs/ntfs-diff-vhdx/ntfs-differential.vhdx",
            comes_to: Outcome::Panicked,
            because: "it has no differencing disks",
        },
        Exception {
            names: "qemu/iotest-dirtylog-10G-4M.vhdx",
            comes_to: Outcome::Panicked,
            because: "it has no tables of more than one chunk, which it takes for 8 GiB",
        },
    ],
};

/// Of open(2).
const O_ACCMODE: u32 = 3;
const O_RDWR: u32 = 2;

struct Vhdx(::vhdx::Vhdx);

fn open(path: &Path) -> Result<Box<dyn Opened>, String> {
    Ok(Box::new(Vhdx(::vhdx::Vhdx::load(path))))
}

impl Opened for Vhdx {
    fn size(&mut self) -> Result<u64, String> {
        self.0.reader().seek(SeekFrom::End(0)).map_err(|e| e.to_string())
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), String> {
        let mut reader = self.0.reader();
        reader.seek(SeekFrom::Start(at)).and_then(|_| reader.read_exact(buf)).map_err(|e| e.to_string())
    }
}

/// A log with one entry, which writes what is there anyway, into an image whose log is empty.
fn make_dirty(path: &Path) {
    const LOG_GUID: [u8; 16] = *b"a log in progres";
    const SECTOR: usize = 4096;
    let file = File::options().read(true).write(true).open(path).unwrap();
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let sealed = |mut bytes: Vec<u8>| {
        bytes[4..8].fill(0);
        let sum = crc32c::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    let (mut log_at, mut log_len) = (0, 0);
    for at in [64 << 10, 128 << 10] {
        let mut header = read(at, SECTOR);
        header[48..64].copy_from_slice(&LOG_GUID);
        log_len = u64::from(u32::from_le_bytes(header[68..72].try_into().unwrap()));
        log_at = u64::from_le_bytes(header[72..80].try_into().unwrap());
        file.write_all_at(&sealed(header), at).unwrap();
    }
    // Of the sector behind the log, as it stands.
    let (len, sequence) = (file.metadata().unwrap().len(), 1u64);
    let behind = log_at + log_len;
    let there = read(behind, SECTOR);
    let mut entry = vec![0; 2 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"loge");
    put(8, &8192u32.to_le_bytes());
    put(16, &sequence.to_le_bytes());
    put(24, &1u32.to_le_bytes());
    put(32, &LOG_GUID);
    put(48, &len.to_le_bytes());
    put(56, &len.to_le_bytes());
    put(64, b"desc");
    put(68, &there[SECTOR - 4..]);
    put(72, &there[..8]);
    put(80, &behind.to_le_bytes());
    put(88, &sequence.to_le_bytes());
    put(SECTOR, b"data");
    put(SECTOR + 8, &there[8..SECTOR - 4]);
    put(2 * SECTOR - 4, &1u32.to_le_bytes());
    file.write_all_at(&sealed(entry), log_at).unwrap();
}

/// How this process has a file open: the flags of open(2).
fn open_flags(path: &Path) -> Vec<u32> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        if std::fs::read_link(entry.path()).is_ok_and(|target| target == path) {
            let about = Path::new("/proc/self/fdinfo").join(entry.file_name());
            let about = std::fs::read_to_string(about).unwrap();
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            out.push(u32::from_str_radix(flags.trim(), 8).unwrap());
        }
    }
    out
}

#[test]
fn its_defects_are_still_there() {
    const GIB: u64 = 1 << 30;
    let folder = tempfile::tempdir().unwrap();
    let reading = folder.path().join("reading");
    let path = folder.path().canonicalize().unwrap().join("disk.vhdx");

    // Right in front of 4 GiB, zeros behind it.
    let (before, behind) = ((4 * GIB - 4096, 4096), (4 * GIB, 1 << 20));
    let disk = MemDisk::new(Bytes(5 * GIB))
        .data(before.0, testing::noise_bytes(1, 4096))
        .data(behind.0, testing::noise_bytes(2, 1 << 20));
    write_plain(&disk, "vhdx", &path);
    let ranges = [before, behind];
    let own = formats::open(&path, &OpenOptions::default()).unwrap();
    let read_at = |disk: &dyn Disk, (at, len): (u64, u64)| {
        let mut buf = vec![0; usize::try_from(len).unwrap()];
        disk.read_at(GuestOffset(at), &mut buf).unwrap();
        buf
    };
    assert!(read_at(&*own.disk, behind) == read_at(&disk, behind), "by our own reader");
    let read = read(&SECOND, &path, Some(&ranges), &reading);
    assert_eq!(read.outcome, Outcome::Right, "{}", read.says);
    let copy =
        formats::open(&read.copy, &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() });
    let copy = copy.unwrap().disk;
    assert!(read_at(&*copy, before) == read_at(&disk, before));
    let is_zeros = read_at(&*copy, behind).iter().all(|&byte| byte == 0);
    still(is_zeros, &SECOND, "what lies behind 4 GiB reads as zeros");
    std::fs::remove_file(&path).unwrap();

    write_plain(&MemDisk::new(Bytes(12 * GIB)), "vhdx", &path);
    let read = super::read(&SECOND, &path, Some(&[(0, 512)]), &reading);
    still(read.outcome == Outcome::Panicked, &SECOND, "a disk of 12 GiB is a panic");
    std::fs::remove_file(&path).unwrap();

    let disk = testing::mixed(1, Bytes::mib(6));
    let content = testing::read_all(&disk).unwrap();
    write_plain(&disk, "vhdx", &path);
    let opened = ::vhdx::Vhdx::load(&path);
    let flags = open_flags(&path);
    assert_eq!(flags.len(), 1, "the file is open");
    still(flags[0] & O_ACCMODE == O_RDWR, &SECOND, "it opens images for writing");
    drop(opened);

    make_dirty(&path);
    let own = formats::open(&path, &OpenOptions::default()).unwrap();
    assert!(testing::read_all(&*own.disk).unwrap() == content, "by our own reader, with its log");
    let read = super::read_within(Duration::from_secs(2), &SECOND, &path, None, &reading);
    still(read.outcome == Outcome::Hung, &SECOND, "a log that is to be replayed has no end");
}

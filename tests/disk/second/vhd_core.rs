//! vhd-core: fixed and dynamic VHDs.

use super::{Exception, Opened, Outcome, Second, read, still, write_nothing_over, write_plain};
use landfall_image::create::Base;
use landfall_image::testing::{self, MemDisk};
use landfall_image::{Bytes, Format, OpenOptions, formats};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const SECOND: Second = Second {
    name: "vhd-core",
    format: Format::Vhd,
    open,
    may_write: false,
    loads_all: true,
    except_written: &[],
    except_corpus: &[
        Exception {
            names: "dfvfs/ntfs-diff-vhd/ntfs-differential.vhd",
            comes_to: Outcome::Refused,
            because: "it has no differencing disks",
        },
        Exception {
            names: "qemu/virtualpc-dynamic.vhd",
            comes_to: Outcome::OtherContent,
            because: "Virtual PC goes by the geometry, which is smaller; it by the size",
        },
    ],
};

struct Vhd(::vhd::VhdReader);

fn open(path: &Path) -> Result<Box<dyn Opened>, String> {
    Ok(Box::new(Vhd(::vhd::VhdReader::open(path).map_err(|e| e.to_string())?)))
}

impl Opened for Vhd {
    fn size(&mut self) -> Result<u64, String> {
        Ok(self.0.virtual_disk_size())
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), String> {
        self.0.seek(SeekFrom::Start(at)).and_then(|_| self.0.read_exact(buf)).map_err(|e| e.to_string())
    }
}

/// Counts what is read of a file.
struct Counted(File, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(buf)?;
        self.1.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn its_defects_are_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let reading = folder.path().join("reading");
    let base = folder.path().join("base.vhd");
    let disk = testing::mixed(1, Bytes::mib(8));
    write_plain(&disk, "vhd", &base);
    let opened = formats::open(&base, &OpenOptions::default()).unwrap();
    let size = opened.disk.size();

    // A differencing disk.
    let over = Base {
        path: "base.vhd".into(),
        format: Format::Vhd,
        size,
        identity: opened.layers[0].identity.clone(),
    };
    let child = folder.path().join("child.vhd");
    write_nothing_over(over, "vhd", size, &child);
    let own = formats::open(&child, &OpenOptions::default()).unwrap();
    assert!(testing::read_all(&*own.disk).unwrap() == testing::read_all(&*opened.disk).unwrap());
    let differencing = read(&SECOND, &child, None, &reading);
    assert!([Outcome::Refused, Outcome::Right].contains(&differencing.outcome), "{}", differencing.says);
    still(differencing.outcome == Outcome::Refused, &SECOND, "no differencing disks");

    // The footer of a dynamic disk is there twice. The one at the end is lost where a write was cut off.
    let mut bytes = std::fs::read(&base).unwrap();
    let end = bytes.len() - 512;
    bytes[end..].fill(0);
    let cut = folder.path().join("cut.vhd");
    std::fs::write(&cut, bytes).unwrap();
    let own = formats::open(&cut, &OpenOptions::default()).unwrap();
    assert!(testing::read_all(&*own.disk).unwrap() == testing::read_all(&*opened.disk).unwrap());
    let cut = read(&SECOND, &cut, None, &reading);
    assert!([Outcome::Refused, Outcome::Right].contains(&cut.outcome), "{}", cut.says);
    still(cut.outcome == Outcome::Refused, &SECOND, "the copy of the footer is of no use to it");

    // Opening takes the whole file into memory.
    let fixed = folder.path().join("fixed.vhd");
    write_plain(&MemDisk::new(Bytes::mib(64)), "vhd-fixed", &fixed);
    let count = Arc::new(AtomicU64::new(0));
    let file = Counted(File::open(&fixed).unwrap(), count.clone());
    ::vhd::VhdReader::open_reader(Box::new(file)).unwrap();
    still(count.load(Ordering::Relaxed) > 64 << 20, &SECOND, "it reads the whole file to open it");
}

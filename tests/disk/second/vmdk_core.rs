//! vmdk-core: VMDKs of all kinds; its plain reader takes a snapshot for a whole disk.

use super::{Opened, Outcome, Second, read, still, write_plain};
use landfall_image::testing::{self, MemDisk};
use landfall_image::{Bytes, Format, OpenOptions, formats};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

pub(super) const SECOND: Second = Second {
    name: "vmdk-core",
    format: Format::Vmdk,
    open,
    may_write: false,
    loads_all: false,
    except_written: &[],
    except_corpus: &[],
};

struct Vmdk(::vmdk::VmdkFileReader);

fn open(path: &Path) -> Result<Box<dyn Opened>, String> {
    Ok(Box::new(Vmdk(::vmdk::VmdkReader::open_path(path).map_err(|e| e.to_string())?)))
}

impl Opened for Vmdk {
    fn size(&mut self) -> Result<u64, String> {
        Ok(self.0.virtual_disk_size())
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), String> {
        self.0.seek(SeekFrom::Start(at)).and_then(|_| self.0.read_exact(buf)).map_err(|e| e.to_string())
    }
}

#[test]
fn its_defects_are_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let (base, child) = (folder.path().join("base.vmdk"), folder.path().join("child.vmdk"));
    let disk = testing::mixed(1, Bytes::mib(6));
    let content = testing::read_all(&disk).unwrap();
    write_plain(&disk, "vmdk", &base);
    let identity = formats::open(&base, &OpenOptions::default()).unwrap().layers[0].identity.clone();

    // A snapshot with nothing of its own: an empty disk, whose descriptor is told of the base.
    write_plain(&MemDisk::new(Bytes::mib(6)), "vmdk", &child);
    let mut bytes = std::fs::read(&child).unwrap();
    let parent = format!("parentCID={}\nparentFileNameHint=\"base.vmdk\"", identity.unwrap());
    let start = bytes.windows(20).position(|window| window == b"# Disk DescriptorFil").unwrap();
    let end = start + bytes[start..].iter().position(|&byte| byte == 0).unwrap();
    let text = std::str::from_utf8(&bytes[start..end]).unwrap();
    let text = text.replace("parentCID=ffffffff", &parent);
    bytes[start..start + text.len()].copy_from_slice(text.as_bytes());
    std::fs::write(&child, bytes).unwrap();
    let read_chain = || -> Result<Vec<u8>, String> {
        let mut chain = ::vmdk::VmdkChainReader::open(&child).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        chain.read_to_end(&mut out).map_err(|e| e.to_string())?;
        Ok(out)
    };
    let own = formats::open(&child, &OpenOptions::default()).unwrap();
    assert!(testing::read_all(&*own.disk).unwrap() == content);
    assert!(read_chain().unwrap() == content, "its reader of chains is right");

    let plain = read(&SECOND, &child, None, &folder.path().join("reading"));
    assert!([Outcome::Refused, Outcome::Right].contains(&plain.outcome), "{}", plain.says);
    let is_empty =
        plain.outcome == Outcome::Right && std::fs::read(plain.copy).unwrap().iter().all(|&b| b == 0);
    still(is_empty, &SECOND, "its plain reader takes a snapshot for a whole disk");

    // The base was written to after the snapshot was taken.
    std::fs::remove_file(&base).unwrap();
    let other = testing::mixed(2, Bytes::mib(6));
    write_plain(&other, "vmdk", &base);
    assert!(formats::open(&child, &OpenOptions::default()).is_err(), "another base");
    let other = testing::read_all(&other).unwrap();
    still(read_chain() == Ok(other), &SECOND, "its reader of chains takes any base for the right one");
}

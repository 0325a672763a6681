//! vmdk-core: VMDKs of all kinds; its plain reader takes a snapshot for a whole disk.

use super::{Opened, Second};
use landfall_image::Format;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

pub(super) const SECOND: Second = Second {
    name: "vmdk-core",
    format: Format::Vmdk,
    open,
    may_write: false,
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

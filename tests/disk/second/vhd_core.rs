//! vhd-core: fixed and dynamic VHDs.

use super::{Opened, Second};
use landfall_image::Format;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

pub(super) const SECOND: Second = Second {
    name: "vhd-core",
    format: Format::Vhd,
    open,
    may_write: false,
    except_written: &[],
    except_corpus: &[],
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

//! vhdx: fixed and dynamic VHDXs of up to 4 GiB.

use super::{Opened, Second};
use landfall_image::Format;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

pub(super) const SECOND: Second = Second {
    name: "vhdx",
    format: Format::Vhdx,
    open,
    may_write: true,
    except_written: &[],
    except_corpus: &[],
};

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

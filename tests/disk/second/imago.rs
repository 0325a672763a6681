//! imago: qcow2 without zstd and extended L2 entries.

use super::{Opened, Second};
use ::imago::file::File;
use ::imago::qcow2::Qcow2;
use ::imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use landfall_image::Format;
use std::path::Path;

pub(super) const SECOND: Second = Second {
    name: "imago",
    format: Format::Qcow2,
    open,
    may_write: false,
    except_written: &[],
    except_corpus: &[],
};

struct Image(FormatAccess<File>);

fn open(path: &Path) -> Result<Box<dyn Opened>, String> {
    let image = Qcow2::<File>::builder_path(path).open(PermissiveImplicitOpenGate::default());
    Ok(Box::new(Image(FormatAccess::new(image.map_err(|e| e.to_string())?))))
}

impl Opened for Image {
    fn size(&mut self) -> Result<u64, String> {
        Ok(self.0.size())
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), String> {
        self.0.read(buf, at).map_err(|e| e.to_string())
    }
}

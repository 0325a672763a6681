//! imago: qcow2 without zstd and extended L2 entries.

use super::{Exception, Opened, Outcome, Second, read, still};
use crate::disk::pairs;
use ::imago::file::File;
use ::imago::qcow2::Qcow2;
use ::imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use landfall_image::create::{Compression, CreateOptions};
use landfall_image::{Bytes, Format, formats, testing};
use std::path::Path;

pub(super) const SECOND: Second = Second {
    name: "imago",
    format: Format::Qcow2,
    open,
    may_write: false,
    loads_all: false,
    except_written: &[
        Exception {
            names: "qcow2, zstd",
            comes_to: Outcome::Refused,
            because: "it does not know the incompatible feature of another compression",
        },
        Exception {
            names: "qcow2, extended L2",
            comes_to: Outcome::Refused,
            because: "it does not know the incompatible feature of extended L2 entries",
        },
    ],
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

#[test]
fn its_defects_are_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let disk = testing::mixed(1, Bytes::mib(6));
    let plain = CreateOptions::default;
    for (what, options) in [
        ("no zstd", CreateOptions { compression: Some(Compression::Zstd), ..plain() }),
        ("no extended L2 entries", CreateOptions { extended_l2: true, ..plain() }),
    ] {
        let path = folder.path().join("disk.qcow2");
        pairs::write(&disk, formats::kind("qcow2").unwrap(), &options, &path);
        let read = read(&SECOND, &path, None, &folder.path().join("reading"));
        // Refused, not read as something else: that would be worse than before.
        assert!([Outcome::Refused, Outcome::Right].contains(&read.outcome), "{what}: {}", read.says);
        still(read.outcome == Outcome::Refused, &SECOND, what);
        std::fs::remove_file(path).unwrap();
    }
}

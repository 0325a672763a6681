//! Real images, other readers, forged logs and hostile bytes.

mod blocks;
mod chain;
mod check;
mod forge;
mod hostile;
mod log;
mod write;

use crate::corpus;
use crate::formats::{self, Format, OpenOptions};
use std::path::Path;

#[test]
fn the_corpus_reads_as_its_manifest_says() {
    for row in corpus::rows("vhdx") {
        let unpacked = row.unpack();
        let before = std::fs::read(&unpacked.path).unwrap();
        let image = formats::open(&unpacked.path, &OpenOptions::default()).unwrap();
        assert_eq!(image.layers[0].format, Format::Vhdx, "{}", row.path);
        row.compare(&*image.disk);
        assert!(std::fs::read(&unpacked.path).unwrap() == before, "{} was changed", row.path);
        eprintln!("{}: {} {:?}", row.path, image.layers[0].variant, image.layers[0].details);
    }
}

fn open(path: &Path) -> formats::Image {
    formats::open(path, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_qemu_img_writes_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    for (name, size) in [("base", 64 << 20), ("odd", 10_489_344)] {
        let raw = format!("{name}.raw");
        corpus::write_pattern(&dir.path().join(&raw), size);
        let base = formats::open(
            &dir.path().join(&raw),
            &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() },
        )
        .unwrap();
        for options in [
            "subformat=dynamic,block_size=1M",
            "subformat=dynamic,block_size=8M",
            "subformat=dynamic,block_size=32M",
            "subformat=dynamic,block_size=256M",
            "subformat=dynamic,block_state_zero=off",
            "subformat=dynamic,log_size=4M",
            "subformat=fixed",
        ] {
            let arguments = ["convert", "-O", "vhdx", "-o", options, &raw, "x.vhdx"];
            let Some(_) = corpus::run(dir.path(), "qemu-img", &arguments) else { return };
            let image = open(&dir.path().join("x.vhdx"));
            corpus::assert_same(&*image.disk, &*base.disk, &format!("{name} {options}"));
        }
    }
}

fn raw(path: &Path) -> std::sync::Arc<dyn crate::Disk> {
    formats::open(path, &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() }).unwrap().disk
}

//! Real images, other readers and hostile bytes.

mod check;
mod forge;
mod forged;
mod write;

use crate::corpus;
use crate::error::Kind;
use crate::formats::{self, Format, OpenOptions};
use std::path::Path;

#[test]
fn the_corpus_reads_as_its_manifest_says() {
    for row in corpus::rows("vhd-") {
        let unpacked = row.unpack();
        if row.expected.starts_with("refuse") {
            let error = formats::open(&unpacked.path, &OpenOptions::default()).map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{}: {error}", row.path);
            eprintln!("{error}");
            continue;
        }
        if row.expected == "-" || row.expected.is_empty() {
            continue;
        }
        let before = std::fs::read(&unpacked.path).unwrap();
        let image = formats::open(&unpacked.path, &OpenOptions::default()).unwrap();
        assert_eq!(image.layers[0].format, Format::Vhd, "{}", row.path);
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
        for options in
            ["dynamic,force_size=on", "dynamic,force_size=off", "fixed,force_size=on", "fixed,force_size=off"]
        {
            let arguments = ["convert", "-O", "vpc", "-o", &format!("subformat={options}"), &raw, "x.vhd"];
            let Some(_) = corpus::run(dir.path(), "qemu-img", &arguments) else { return };
            // With force_size=off the disk is rounded up to a geometry: QEMU's own reading is what counts.
            corpus::run(dir.path(), "qemu-img", &["convert", "-f", "vpc", "-O", "raw", "x.vhd", "back.raw"]);
            let image = open(&dir.path().join("x.vhd"));
            let back = formats::open(
                &dir.path().join("back.raw"),
                &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() },
            );
            assert_eq!(image.layers[0].variant, options.split(',').next().unwrap());
            corpus::assert_same(&*image.disk, &*back.unwrap().disk, &format!("{name} {options}"));
        }
    }
}

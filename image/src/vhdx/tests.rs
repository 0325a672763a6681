//! Real images, other readers, forged logs and hostile bytes.

use crate::corpus;
use crate::formats::{self, Format, OpenOptions};

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

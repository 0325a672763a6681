//! What is written, against the suite, against other readers, and against what VMware is known to want.

#![allow(clippy::cast_possible_truncation, reason = "small numbers chosen here")]

use crate::convert::{Options, convert};
use crate::corpus;
use crate::create::{CreateOptions, FileOptions};
use crate::disk::Disk;
use crate::error::Result;
use crate::formats::{self, OpenOptions};
use crate::sink::Sink;
use crate::testing::{self, MemDisk};
use crate::units::Bytes;
use crate::vmdk;
use std::path::Path;
use std::sync::Arc;

type Create = fn(&Path, Bytes, &CreateOptions) -> Result<Box<dyn Sink>>;

/// Every kind: its name, what makes it, its `createType`.
const KINDS: [(&str, Create, &str); 6] = [
    ("vmdk", vmdk::create_sparse, "monolithicSparse"),
    ("vmdk-stream", vmdk::create_stream, "streamOptimized"),
    ("vmdk-flat", vmdk::create_flat, "monolithicFlat"),
    ("vmdk-split", vmdk::create_split, "twoGbMaxExtentSparse"),
    ("vmdk-split-flat", vmdk::create_split_flat, "twoGbMaxExtentFlat"),
    ("vmdk-esxi", vmdk::create_esxi, "vmfs"),
];

fn open(path: &Path) -> Result<Arc<dyn Disk>> {
    let options = OpenOptions { format: Some(formats::Format::Vmdk), ..OpenOptions::default() };
    Ok(formats::open(path, &options)?.disk)
}

fn write(disk: &dyn Disk, create: Create, path: &Path, options: &CreateOptions) {
    let sink = create(path, disk.size(), options).unwrap();
    convert(disk, sink, &Options::default()).unwrap();
}

fn suite(create: Create, options: &CreateOptions) {
    crate::suite::check_sink(
        |path, size, files: FileOptions| create(path, size, &CreateOptions { files, ..options.clone() }),
        open,
    );
}

#[test]
fn sparse_passes_the_suite() {
    suite(vmdk::create_sparse, &CreateOptions::default());
    suite(
        vmdk::create_sparse,
        &CreateOptions { block_size: Some(Bytes::kib(8)), ..CreateOptions::default() },
    );
}

#[test]
fn stream_passes_the_suite() {
    suite(vmdk::create_stream, &CreateOptions::default());
}

#[test]
fn split_passes_the_suite() {
    suite(vmdk::create_split, &CreateOptions::default());
    suite(vmdk::create_split, &CreateOptions { block_size: Some(Bytes::mib(2)), ..CreateOptions::default() });
}

#[test]
fn the_flat_kinds_pass_the_suite() {
    suite(vmdk::create_flat, &CreateOptions::default());
    suite(vmdk::create_split_flat, &CreateOptions::default());
    suite(vmdk::create_esxi, &CreateOptions::default());
}

/// Something of everything in four extents of a split disk, three tables of a stream, with an odd end.
fn large() -> MemDisk {
    const MIB: u64 = 1 << 20;
    let size = 4500 * MIB + 1536;
    MemDisk::new(Bytes(size))
        .data(0, testing::text_bytes(1, 3 << 20))
        .data(40 * MIB - 512, testing::noise_bytes(2, 2 << 20))
        .data(2046 * MIB + 512, testing::text_bytes(3, 3 << 20))
        .data(4090 * MIB, testing::noise_bytes(4, 6 << 20))
        .data(4200 * MIB, vec![0; 1 << 20])
        .data(size - 512, vec![9; 512])
}

#[test]
fn other_readers_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let disk = large();
    let raw = dir.path().join("disk.raw");
    convert(
        &disk,
        crate::raw::create(&raw, disk.size(), &CreateOptions::default()).unwrap(),
        &Options::default(),
    )
    .unwrap();
    for (name, create, create_type) in KINDS {
        let image = format!("{name}.vmdk");
        write(&disk, create, &dir.path().join(&image), &CreateOptions::default());
        let opened = formats::open(&dir.path().join(&image), &OpenOptions::default()).unwrap();
        assert_eq!(opened.layers[0].variant, create_type);
        assert!(
            crate::convert::compare(&disk, &*opened.disk, &Options::default()).unwrap().is_same_content()
        );
        // qemu-img 7.2 does not check flat kinds; it says so with an exit status of its own.
        if !name.contains("flat") && !name.contains("esxi") {
            corpus::run(dir.path(), "qemu-img", &["check", &image]);
        }
        corpus::run(dir.path(), "qemu-img", &["compare", "-f", "raw", "-F", "vmdk", "disk.raw", &image]);
        if let Some(info) = corpus::run(dir.path(), "qemu-img", &["info", &image]) {
            assert!(info.contains(&format!("create type: {create_type}")), "{info}");
            assert!(info.contains(&disk.size().0.to_string()), "{info}");
        }
        if let Some(info) = corpus::run(dir.path(), "vmdkinfo", &[&image]) {
            assert!(info.contains(&format!("({} bytes)", disk.size().0)), "{info}");
        }
    }
}

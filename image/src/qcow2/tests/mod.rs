//! Against independent readers and writers: QEMU's tools, and real files of the corpus.

mod check;
mod hostile;
mod read;
mod write;

use crate::disk::{Disk, Extent, ExtentKind};
use crate::formats::{self, Image, OpenOptions};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::path::{Path, PathBuf};
use std::process::Command;

/// True where every one of `tools` can be started; else says loudly that `test` is skipped.
fn have(test: &str, tools: &[&str]) -> bool {
    for tool in tools {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("SKIPPED: {test}: {tool} is not installed");
            return false;
        }
    }
    true
}

/// Runs `command` in `folder`; its output, or a panic with what it said.
fn run(folder: &Path, command: &str) -> String {
    let output = Command::new("bash").args(["-c", command]).current_dir(folder).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    said
}

fn open(path: &Path) -> crate::Result<Image> {
    formats::open(path, &OpenOptions::default())
}

/// All extents of a disk, after checking that they cover it without a gap or an overlap.
fn extents(disk: &dyn Disk) -> crate::Result<Vec<Extent>> {
    let mut out = Vec::new();
    let mut here = GuestOffset(0);
    while here.0 < disk.size().0 {
        let some = disk.extents(GuestRange::between(here, GuestOffset(disk.size().0)), 7)?;
        assert!(!some.is_empty() && some.len() <= 7);
        for extent in some {
            assert_eq!(extent.range.start(), here);
            assert!(!extent.range.is_empty());
            here = extent.range.end();
            out.push(extent);
        }
    }
    assert_eq!(here.0, disk.size().0);
    Ok(out)
}

/// The content in pieces of `step` bytes, after checking it against the map.
fn content(disk: &dyn Disk, step: usize) -> crate::Result<Vec<u8>> {
    let mut out = vec![0xee; disk.size().to_usize().unwrap()];
    for (index, part) in out.chunks_mut(step).enumerate() {
        disk.read_at(GuestOffset((index * step) as u64), part)?;
    }
    for extent in extents(disk)? {
        if extent.kind != ExtentKind::Data {
            let range = Bytes(extent.range.start().0).to_usize().unwrap()
                ..Bytes(extent.range.end().0).to_usize().unwrap();
            assert!(out[range].iter().all(|&byte| byte == 0), "{extent:?} does not read as zeros");
        }
    }
    Ok(out)
}

/// What QEMU reads from the image, as raw.
fn qemu_reads(folder: &Path, image: &str) -> Vec<u8> {
    run(folder, &format!("qemu-img convert -O raw {image} {image}.as-raw"));
    let raw = folder.join(format!("{image}.as-raw"));
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::remove_file(raw).unwrap();
    bytes
}

/// A range that covers a disk, for short tests.
fn whole(disk: &dyn Disk) -> GuestRange {
    GuestRange::new(GuestOffset(0), Bytes(disk.size().0))
}

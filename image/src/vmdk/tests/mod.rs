//! Against real files, other programs, and hostile input.

mod build;
mod check;
mod corpus;
mod hostile;
mod kinds;
mod qemu;

use crate::disk::{Disk, Extent, ExtentKind};
use crate::formats::{Image, OpenOptions};
use crate::units::{GuestOffset, GuestRange};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Opens an image with its parents.
fn open(path: &Path) -> crate::Result<Image> {
    crate::formats::open(path, &OpenOptions::default())
}

/// The map of the whole disk, gathered in steps of `at_most` extents, neighbours of one kind merged. Checks what
/// [`Disk::extents`] promises.
fn map(disk: &dyn Disk, at_most: usize) -> Vec<Extent> {
    let end = GuestOffset(disk.size().0);
    let mut out: Vec<Extent> = Vec::new();
    let mut here = GuestOffset(0);
    while here < end {
        let some = disk.extents(GuestRange::between(here, end), at_most).unwrap();
        assert!(!some.is_empty() && some.len() <= at_most);
        for extent in some {
            assert_eq!(extent.range.start(), here, "extents are contiguous");
            assert!(!extent.range.is_empty() && extent.range.end() <= end);
            here = extent.range.end();
            match out.last_mut() {
                Some(last) if last.kind == extent.kind => {
                    last.range = GuestRange::between(last.range.start(), here);
                }
                _ => out.push(extent),
            }
        }
    }
    out
}

/// SHA-256 of the whole content, read in pieces of `step` bytes without a look at the map.
fn sha256(disk: &dyn Disk, step: usize) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0xa5; step];
    let mut here = 0;
    while here < disk.size().0 {
        let len = usize::try_from((disk.size().0 - here).min(step as u64)).unwrap();
        disk.read_at(GuestOffset(here), &mut buf[..len]).unwrap();
        hash.update(&buf[..len]);
        here += len as u64;
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole content of a small disk, read in pieces of `step` bytes.
fn content(disk: &dyn Disk, step: usize) -> Vec<u8> {
    let mut out = vec![0xa5; usize::try_from(disk.size().0).unwrap()];
    for (index, piece) in out.chunks_mut(step).enumerate() {
        disk.read_at(GuestOffset((index * step) as u64), piece).unwrap();
    }
    out
}

/// What every image must do: the map agrees with itself and with the bytes.
fn check_consistency(disk: &dyn Disk) {
    let whole = map(disk, 1000);
    assert_eq!(whole, map(disk, 1));
    assert_eq!(whole, map(disk, 3));
    let mut buf = vec![0xa5; 1 << 20];
    for extent in whole.iter().filter(|extent| extent.kind != ExtentKind::Data) {
        // The ends of what reads as zeros, where a mistake by one would show.
        let len = usize::try_from(extent.range.len().0).unwrap_or(usize::MAX).min(buf.len());
        for at in [extent.range.start().0, extent.range.end().0 - len as u64] {
            buf.fill(0xa5);
            disk.read_at(GuestOffset(at), &mut buf[..len]).unwrap();
            assert!(buf[..len].iter().all(|&byte| byte == 0), "{extent:?}");
        }
    }
    let size = disk.size().0;
    assert!(disk.read_at(GuestOffset(size), &mut [0]).is_err());
    assert!(disk.read_at(GuestOffset(u64::MAX), &mut [0]).is_err());
    assert!(disk.read_at(GuestOffset(size), &mut []).is_ok());
    assert!(disk.extents(GuestRange::new(GuestOffset(size), crate::Bytes(1)), 1).unwrap().is_empty());
}

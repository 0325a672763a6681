//! Images made by hand, small enough to see what is wrong with them.

use landfall_image::convert::{self, Options};
use landfall_image::create::{Base, CreateOptions};
use landfall_image::testing::{MemDisk, noise_bytes};
use landfall_image::{Disk, Format, OpenOptions, formats};
use std::path::{Path, PathBuf};

pub fn save(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

pub fn be32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub fn be64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

pub fn le32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub fn le64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// An image that landfall writes, changed.
pub fn written(folder: &Path, kind: &str, name: &str, change: impl Fn(&mut Vec<u8>)) -> PathBuf {
    let path = folder.join(name);
    let disk = MemDisk::from_bytes(noise_bytes(1, 4 << 20));
    write(&disk, kind, &CreateOptions::default(), &path);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn write(disk: &MemDisk, kind: &str, options: &CreateOptions, path: &Path) {
    let sink = (formats::kind(kind).unwrap().create)(path, disk.size(), options).unwrap();
    convert::convert(disk, sink, &Options::default()).unwrap();
}

/// A differencing image over one that was called `base` when it was written, and is at `moved` now.
pub fn differencing(folder: &Path, kind: &str, name: &str, base: &str, moved: Option<&Path>) -> PathBuf {
    let disk = MemDisk::from_bytes(noise_bytes(1, 4 << 20));
    let base_path = folder.join(base);
    write(&disk, kind, &CreateOptions::default(), &base_path);
    let opened = formats::open(&base_path, &OpenOptions::default()).unwrap();
    let top = &opened.layers[0];
    let base =
        Base { path: base.into(), format: top.format, size: disk.size(), identity: top.identity.clone() };
    let path = folder.join(name);
    // Empty: all of it is the base's, so that one that is read is noticed.
    let options = CreateOptions { base: Some(base), ..CreateOptions::default() };
    let sink = (formats::kind(kind).unwrap().create)(&path, disk.size(), &options).unwrap();
    convert::convert_with(&disk, Some(&*opened.disk), sink, None, &Options::default()).unwrap();
    match moved {
        Some(moved) => std::fs::rename(&base_path, moved).unwrap(),
        None => std::fs::remove_file(&base_path).unwrap(),
    }
    path
}

/// Replaces text in UTF-16, in either order of bytes, by other text of that length.
pub fn rename_utf16(path: &Path, from: &str, to: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    assert_eq!(from.encode_utf16().count(), to.encode_utf16().count());
    let mut found = 0;
    type Order = fn(u16) -> [u8; 2];
    let orders: [Order; 2] = [u16::to_le_bytes, u16::to_be_bytes];
    for order in orders {
        let units = |text: &str| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let (from, to) = (units(from), units(to));
        for at in 0..bytes.len().min(8 << 20) - from.len() {
            if bytes[at..].starts_with(&from) {
                bytes[at..at + to.len()].copy_from_slice(&to);
                found += 1;
            }
        }
    }
    assert!(found > 0, "{from:?} is not in {}", path.display());
    std::fs::write(path, bytes).unwrap();
}

/// A qcow2 image, version 3: header, L1 table, refcount table, refcount block, one cluster each. One L1 entry's disk.
pub fn qcow2(cluster_bits: u32) -> Vec<u8> {
    let cluster = 1usize << cluster_bits;
    let mut bytes = vec![0; 4 * cluster];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    be32(&mut bytes, 4, 3);
    be32(&mut bytes, 20, cluster_bits);
    be64(&mut bytes, 24, (cluster as u64 / 8) << cluster_bits);
    be32(&mut bytes, 36, 1);
    be64(&mut bytes, 40, cluster as u64);
    be64(&mut bytes, 48, 2 * cluster as u64);
    be32(&mut bytes, 56, 1);
    be32(&mut bytes, 96, 4);
    be32(&mut bytes, 100, 112);
    be64(&mut bytes, 2 * cluster, 3 * cluster as u64);
    for n in 0..4 {
        bytes[3 * cluster + 2 * n + 1] = 1;
    }
    bytes
}

/// The same, over a backing file of this name.
pub fn qcow2_over(backing: &str) -> Vec<u8> {
    let mut bytes = qcow2(9);
    be64(&mut bytes, 8, 0x80);
    be32(&mut bytes, 16, u32::try_from(backing.len()).unwrap());
    bytes[0x80..0x80 + backing.len()].copy_from_slice(backing.as_bytes());
    bytes
}

/// One with a header extension.
pub fn qcow2_with(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = qcow2(9);
    be32(&mut bytes, 112, kind);
    be32(&mut bytes, 116, u32::try_from(data.len()).unwrap());
    bytes[120..120 + data.len()].copy_from_slice(data);
    bytes
}

/// A VMDK's descriptor with these lines in it.
pub fn descriptor(create_type: &str, lines: &str) -> String {
    let parent = if lines.contains("parentCID") { "" } else { "parentCID=ffffffff\n" };
    format!("# Disk DescriptorFile\nversion=1\nCID=11223344\n{parent}createType=\"{create_type}\"\n{lines}\n")
}

/// Where a [`sparse`] image has its grain.
pub const GRAIN_AT: usize = 32 * 512;

/// A compressed sparse VMDK: header, descriptor, directory, one table, and one grain of these bytes behind a marker that
/// says it is `len` long. 32 MiB.
pub fn sparse(grain: &[u8], len: u32) -> Vec<u8> {
    let text = descriptor("streamOptimized", "RDONLY 65536 SPARSE \"a.vmdk\"");
    let mut bytes = vec![0; GRAIN_AT];
    bytes[..4].copy_from_slice(b"KDMV");
    le32(&mut bytes, 4, 3);
    le32(&mut bytes, 8, 0x3_0001);
    le64(&mut bytes, 12, 65536);
    le64(&mut bytes, 20, 128);
    le64(&mut bytes, 28, 1);
    le64(&mut bytes, 36, 20);
    le32(&mut bytes, 44, 512);
    le64(&mut bytes, 56, 21);
    le64(&mut bytes, 64, 32);
    bytes[73..77].copy_from_slice(b"\n \r\n");
    bytes[77] = 1;
    bytes[512..512 + text.len()].copy_from_slice(text.as_bytes());
    le32(&mut bytes, 21 * 512, 22);
    le32(&mut bytes, 22 * 512, 32);
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(grain);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Makes the checksum of a VHD's footer or header at `at` right again.
pub fn vhd_sum(bytes: &mut [u8], at: usize, len: usize, field: usize) {
    be32(bytes, at + field, 0);
    let sum: u32 = bytes[at..at + len].iter().map(|byte| u32::from(*byte)).sum();
    be32(bytes, at + field, !sum);
}

/// Changes both footers of a dynamic VHD, or the only one of a fixed one.
pub fn vhd_footers(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    let end = bytes.len() - 512;
    for at in [0, end] {
        if bytes[at..].starts_with(b"conectix") {
            change(&mut bytes[at..at + 512]);
            vhd_sum(bytes, at, 512, 64);
        }
    }
}

/// An empty VDI of 4 MiB: type 1 dynamic, 4 differencing.
pub fn vdi(kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    bytes[..39].copy_from_slice(b"<<< Oracle VM VirtualBox Disk Image >>>");
    le32(&mut bytes, 64, 0xbeda_107f);
    le32(&mut bytes, 68, 0x1_0001);
    le32(&mut bytes, 72, 400);
    le32(&mut bytes, 76, kind);
    le32(&mut bytes, 340, 0x200);
    le32(&mut bytes, 344, 0x400);
    le32(&mut bytes, 360, 512);
    le64(&mut bytes, 368, 4 << 20);
    le32(&mut bytes, 376, 1 << 20);
    le32(&mut bytes, 384, 4);
    bytes[392..408].fill(7);
    bytes[408..424].fill(8);
    bytes[0x200..0x210].fill(0xff);
    bytes
}

/// A LUKS 1 header with one key slot, and a payload of noise.
pub fn luks() -> Vec<u8> {
    let mut bytes = noise_bytes(1, 4 << 20);
    bytes[..592].fill(0);
    bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    for (at, text) in [(8, "aes"), (40, "xts-plain64"), (72, "sha256"), (168, "a-uuid")] {
        bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    be32(&mut bytes, 104, 4096);
    be32(&mut bytes, 108, 64);
    be32(&mut bytes, 164, 1000);
    for slot in 0..8 {
        let at = 208 + 48 * slot;
        be32(&mut bytes, at, if slot == 0 { 0x00ac_71f3 } else { 0x0000_dead });
        be32(&mut bytes, at + 4, 1000);
        be32(&mut bytes, at + 40, 8 + 508 * u32::try_from(slot).unwrap());
        be32(&mut bytes, at + 44, 4000);
    }
    bytes
}

/// A tar archive of these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend(block);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Opens an image and gives its content.
pub fn content(path: &Path, format: Format) -> Vec<u8> {
    let options = OpenOptions { format: Some(format), ..OpenOptions::default() };
    landfall_image::testing::read_all(&*formats::open(path, &options).unwrap().disk).unwrap()
}

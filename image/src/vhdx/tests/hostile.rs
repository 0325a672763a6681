//! Every byte of every structure changed, and the file cut everywhere: an error or an answer, never a panic, a hang or
//! other bytes in silence.

use super::forge::*;
use super::open;
use crate::error::Kind;
use crate::formats::{self, OpenOptions};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A differencing disk with a log, a bitmap and its parent beside it: all structures there are.
pub fn write_set(folder: &Path) {
    let mut base = Forge::new(3 * MIB, MIB, 512);
    base.put_block(0, FULLY, vec![0x11; MIB as usize]);
    base.write(&folder.join("base.vhdx"));
    let mut child = base.clone();
    child.bat.clear();
    child.bytes.clear();
    child.file_len = Forge::new(3 * MIB, MIB, 512).file_len;
    child.data_write_guid = uuid::Uuid::from_u128(3);
    child.parent = Some(vec![
        ("parent_linkage", format!("{{{}}}", base.data_write_guid)),
        ("relative_path", ".\\base.vhdx".into()),
    ]);
    child.put_block(0, PARTIALLY, vec![0x22; MIB as usize]);
    child.put_block(1, FULLY, vec![0x33; MIB as usize]);
    child.put_bitmap(0, vec![0x5A; 256]);
    let mut entry = Entry::new(
        4,
        0,
        vec![
            Change::Zero(child.file_len - 3 * MIB, 8192),
            Change::Sector(METADATA_AT + 0x4000, vec![0; 4096]),
        ],
    );
    (entry.flushed, entry.last) = (child.file_len, child.file_len);
    child.log = Some(ring(MIB as usize, &[(0, entry.bytes())]));
    child.write(&folder.join("child.vhdx"));
}

/// Opens the image and reads around in it, bounded.
fn try_all(path: &Path) -> crate::Result<Vec<u8>> {
    let disk = formats::open(path, &OpenOptions::default())?.disk;
    let size = disk.size().0;
    if size < 3 * MIB {
        return Ok(Vec::new());
    }
    let mut at = 0;
    for _ in 0..100 {
        if at >= size {
            break;
        }
        for extent in disk.extents(GuestRange::new(GuestOffset(at), Bytes(size - at)), 50)? {
            assert_eq!(extent.range.start().0, at);
            assert!(!extent.range.is_empty());
            at = extent.range.end().0;
        }
    }
    let mut buf = vec![0; 16 << 10];
    for (n, part) in buf.chunks_mut(4 << 10).enumerate() {
        disk.read_at(GuestOffset((n as u64 * MIB).min(size - part.len() as u64)), part)?;
    }
    Ok(buf)
}

#[test]
fn no_changed_byte_brings_it_down() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path());
    let path = dir.path().join("child.vhdx");
    let right = try_all(&path).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    // Place, bytes that are changed, and the length that a checksum at byte 4 covers.
    let structures: &[(u64, usize, Option<usize>)] = &[
        (0, 16, None),
        (64 << 10, 88, Some(4096)),
        (128 << 10, 88, Some(4096)),
        (192 << 10, 96, Some(64 << 10)),
        (256 << 10, 96, Some(64 << 10)),
        (LOG_AT, 136, Some(8192)),
        (LOG_AT + 4096, 8, None),
        (METADATA_AT, 32 + 6 * 32, None),
        (METADATA_AT + (64 << 10), 300, None),
        (BAT_AT, 24, None),
        (BAT_AT + 4096 * 8, 8, None),
    ];
    let mut read_wrong = 0;
    for &(start, len, sealed_len) in structures {
        let whole = read(start, sealed_len.unwrap_or(len));
        for at in 0..len {
            for change in [|b: u8| b ^ 1, |b: u8| !b, |_| 0xFF] {
                for seal in [false, true] {
                    if seal && sealed_len.is_none() {
                        continue;
                    }
                    let mut bytes = whole.clone();
                    bytes[at] = change(bytes[at]);
                    let bytes = if seal { sealed(bytes) } else { bytes };
                    file.write_all_at(&bytes, start).unwrap();
                    match try_all(&path) {
                        Ok(found) => {
                            // Behind an intact checksum nothing but the truth may come out.
                            if sealed_len.is_some() && !seal {
                                assert!(found == right, "byte {at} of {start:#x}");
                            }
                            read_wrong += usize::from(found != right);
                        }
                        Err(error) => assert!(
                            matches!(
                                error.kind(),
                                Kind::Corrupt | Kind::Unsupported | Kind::Refused | Kind::Io
                            ),
                            "{error}"
                        ),
                    }
                }
            }
        }
        file.write_all_at(&whole, start).unwrap();
    }
    assert!(try_all(&path).unwrap() == right);
    // Table entries, sizes and log content have no checksum of their own: some changes must come through.
    assert!(read_wrong > 0);
}

#[test]
fn a_cut_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path());
    let path = dir.path().join("child.vhdx");
    let right = try_all(&path).unwrap();
    let len = std::fs::metadata(&path).unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    let mut cuts: Vec<u64> = (0..len).step_by(64 << 10).collect();
    for edge in [0, 8, 520, 64 << 10, 128 << 10, 192 << 10, 256 << 10, MIB, LOG_AT, METADATA_AT, BAT_AT, len]
    {
        cuts.extend([edge.saturating_sub(1), edge + 1]);
    }
    // Without its signature it is a raw file like any other.
    cuts.retain(|cut| (8..len).contains(cut));
    cuts.sort_unstable();
    for cut in cuts.into_iter().rev() {
        file.set_len(cut).unwrap();
        match try_all(&path) {
            Ok(found) => assert!(found == right, "cut at {cut:#x}"),
            // Without its signature it is probed as another format, whose end it may not reach.
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Corrupt | Kind::Io), "cut at {cut:#x}: {error}")
            }
        }
    }
    write_set(dir.path());
    assert!(open(&path).layers.len() == 2);
}

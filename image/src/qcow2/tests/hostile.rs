//! Images that lie: every byte of every structure changed, every structure cut off.

use super::*;
use crate::Kind;
use crate::chain::Layer;
use crate::source::Source;
use std::os::unix::fs::FileExt;

/// Small images with every kind of entry, by name.
fn specimens(folder: &Path) -> Vec<PathBuf> {
    let create = |name: &str, options: &str, compressed: u32| {
        run(
            folder,
            &format!(
                "qemu-img create -q -f qcow2 -o {options} {name} 256k && qemu-io -c 'write -c -P 7 65536 {compressed}' \
                 -c 'write -P 1 3000 9000' -c 'write -z 32768 16384' -c 'write -P 3 140000 20000' {name} && \
                 qemu-img snapshot -c one {name} && qemu-io -c 'write -P 5 200000 512' {name}"
            ),
        );
        folder.join(name)
    };
    vec![
        create("v3.qcow2", "cluster_size=4k", 8192),
        create("v2.qcow2", "compat=0.10,cluster_size=512", 8192),
        create("ext.qcow2", "extended_l2=on,cluster_size=16k,compression_type=zstd", 16384),
    ]
}

fn layer(path: &Path) -> crate::Result<Layer> {
    crate::qcow2::open(Source::open(path)?, &OpenOptions::default())
}

/// Reads what a converter would: the map, and what is stored, up to a bound.
fn exercise(path: &Path) -> crate::Result<()> {
    let disk = layer(path)?.disk;
    let mut here = GuestOffset(0);
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..256 {
        let some = disk.extents(GuestRange::between(here, GuestOffset(disk.size().0)), 16)?;
        for extent in &some {
            let len = buffer.len().min(extent.range.len().to_usize().unwrap());
            disk.read_at(extent.range.start(), &mut buffer[..len])?;
        }
        match some.last() {
            Some(last) => here = last.range.end(),
            None => break,
        }
    }
    Ok(())
}

#[test]
fn no_changed_byte_panics_or_hangs() {
    if !have("no_changed_byte_panics_or_hangs", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for path in specimens(dir.path()) {
        exercise(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut refused = 0;
        for (at, &byte) in good.iter().enumerate() {
            // Guest data and free space say nothing; the header's padding is long.
            if byte == 0 && at % 8 != 0 && at > 128 || [1, 3, 5, 7].contains(&byte) && at % 64 != 0 {
                continue;
            }
            for value in [byte ^ 1, byte ^ 0x80, 0xff] {
                file.write_all_at(&[value], at as u64).unwrap();
                if let Err(error) = exercise(&path) {
                    refused += 1;
                    assert_eq!(error.path(), Some(&*path), "{error}");
                    assert_ne!(error.kind(), Kind::Interrupted);
                }
            }
            file.write_all_at(&[byte], at as u64).unwrap();
        }
        assert!(refused > 200, "{}: only {refused} changes were noticed", path.display());
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
}

/// A shorter file is refused, or nothing that the guest sees was in the missing part.
#[test]
fn every_truncation_is_refused_or_harmless() {
    if !have("every_truncation_is_refused_or_harmless", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for path in specimens(dir.path()) {
        let good = content(&*layer(&path).unwrap().disk, 1 << 16).unwrap();
        let len = std::fs::metadata(&path).unwrap().len();
        let cut = dir.path().join("cut.qcow2");
        std::fs::copy(&path, &cut).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&cut).unwrap();
        let mut refused = 0;
        for shorter in (0..len).rev().step_by(509) {
            file.set_len(shorter).unwrap();
            let read = layer(&cut).and_then(|layer| content(&*layer.disk, 1 << 16));
            match read {
                Ok(read) => assert!(read == good, "{} cut at {shorter} reads differently", path.display()),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused as u64 > len / 509 * 2 / 3, "{refused} of {} cuts", len / 509);
    }
}

/// Entries that no flipped bit makes: the same table twice, the L1 table as an L2 table, data behind the file's end.
#[test]
fn entries_that_point_astray_are_refused() {
    if !have("entries_that_point_astray_are_refused", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    run(dir.path(), "qemu-img create -q -f qcow2 a.qcow2 1G && qemu-io -c 'write -P 1 0 64k' a.qcow2");
    let good = std::fs::read(&path).unwrap();
    let at = |offset: usize| u64::from_be_bytes(good[offset..offset + 8].try_into().unwrap());
    let offset = |entry: u64| usize::try_from(entry & 0x00ff_ffff_ffff_fe00).unwrap();
    let l1 = offset(at(crate::qcow2::header::at::L1_OFFSET));
    let l2 = offset(at(l1));
    let end = (good.len() as u64).next_multiple_of(65536);
    for (place, entry, says) in [
        (l1 + 8, l2 as u64, "same L2 table"),
        (l1 + 8, l1 as u64, "the L1 table itself"),
        (l1 + 8, end, "the file ends at"),
        (l1 + 8, l2 as u64 + 512, "points into a cluster"),
        (l1 + 8, 1, "reserved"),
        (l2 + 8, end, "the data file"),
        (l2 + 8, 0x50200, "points into a cluster"),
        (l2 + 8, 4, "reserved"),
        (l2 + 8, 1 << 62 | end, "compressed bytes up to"),
        (l2 + 8, 1 << 62 | 255 << 54 | (end - 512), "compressed bytes up to"),
        (l2 + 8, 1 << 62 | 1 << 54 | (end - 1024), "not a deflate stream"),
    ] {
        let mut bad = good.clone();
        bad.resize(usize::try_from(end).unwrap(), 0xff);
        bad[place..place + 8].copy_from_slice(&entry.to_be_bytes());
        std::fs::write(&path, bad).unwrap();
        let error = layer(&path)
            .and_then(|layer| layer.disk.read_at(GuestOffset(65536), &mut [0; 512]))
            .expect_err(says);
        assert!(error.says().contains(says), "{says}: {error}");
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.offset().is_some() && error.path() == Some(&*path), "{error}");
    }
}

#[test]
fn a_data_file_that_is_short_or_absent_is_an_error() {
    if !have("a_data_file_that_is_short_or_absent_is_an_error", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for raw in ["on", "off"] {
        run(
            dir.path(),
            &format!(
                "rm -f a.qcow2 data; qemu-img create -q -f qcow2 -o data_file=data,data_file_raw={raw} a.qcow2 4M && \
                 qemu-io -c 'write -P 1 1M 1M' a.qcow2"
            ),
        );
        let path = dir.path().join("a.qcow2");
        exercise(&path).unwrap();
        let data = std::fs::OpenOptions::new().write(true).open(dir.path().join("data")).unwrap();
        data.set_len(data.metadata().unwrap().len() / 3).unwrap();
        let error = exercise(&path).unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.says().contains("the data file"), "{error}");
        std::fs::remove_file(dir.path().join("data")).unwrap();
        assert_eq!(exercise(&path).unwrap_err().kind(), Kind::Io);
    }
}

#[test]
fn limits_hold_one_step_beyond() {
    use crate::qcow2::header::at;
    if !have("limits_hold_one_step_beyond", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, options: &str, spoil: &[(usize, &[u8])], kind: Kind, says: &str| {
        run(dir.path(), &format!("qemu-img create -q -f qcow2 -o {options} {name} 1M"));
        let path = dir.path().join(name);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (at, bytes) in spoil {
            file.write_all_at(bytes, *at as u64).unwrap();
        }
        let error = layer(&path).err().unwrap_or_else(|| panic!("{name} was opened"));
        assert!(error.says().contains(says) && error.kind() == kind, "{name}: {error}");
    };
    let beyond = (crate::limits::DISK_SIZE.0 + 1).to_be_bytes();
    refused("size.qcow2", "compat=1.1", &[(at::SIZE, &beyond)], Kind::Refused, "the limit is 256.0 TiB");
    // 512-byte clusters: 32 KiB under each of 4194304 entries.
    let entries = 4_194_305u32.to_be_bytes();
    let size = (4_194_305u64 << 15).to_be_bytes();
    refused(
        "l1.qcow2",
        "cluster_size=512",
        &[(at::SIZE, &size), (at::L1_ENTRIES, &entries)],
        Kind::Refused,
        "needs an L1 table of 32.0 MiB",
    );
    let few = 0u32.to_be_bytes();
    refused("few.qcow2", "compat=1.1", &[(at::L1_ENTRIES, &few)], Kind::Corrupt, "has 0 entries");
    let many = 65_537u32.to_be_bytes();
    let table = 65_536u64.to_be_bytes();
    refused(
        "snap.qcow2",
        "compat=1.1",
        &[(at::SNAPSHOTS, &many), (at::SNAPSHOTS_OFFSET, &table)],
        Kind::Refused,
        "65537 internal snapshots",
    );
}

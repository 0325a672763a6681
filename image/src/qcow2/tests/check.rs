//! What our check finds, against what `qemu-img check` finds.

use super::*;
use crate::check::{Checked, Severity};
use crate::gate::Gate;
use crate::source::Source;
use std::os::unix::fs::FileExt;

fn check(path: &Path) -> crate::Result<Checked> {
    crate::qcow2::check(Source::open(path)?, &Gate::own_folder())
}

/// Corruptions and leaks as QEMU counts them; `None` where it cannot check at all.
fn qemu(folder: &Path, image: &str) -> Option<(u64, u64)> {
    let output = Command::new("qemu-img")
        .args(["check", "-f", "qcow2", "--output=json", image])
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| {
        let rest = text.split_once(&format!("\"{name}\": "))?.1;
        rest.split([',', '\n']).next()?.trim().parse().ok()
    };
    field("total-clusters")?;
    // Neither number is there where it is 0.
    (field("check-errors") == Some(0))
        .then(|| (field("corruptions").unwrap_or(0), field("leaks").unwrap_or(0)))
}

const OPTIONS: [&str; 7] = [
    "compat=1.1",
    "compat=0.10,cluster_size=4k",
    "cluster_size=512",
    "refcount_bits=1",
    "refcount_bits=64",
    "extended_l2=on,cluster_size=128k,compression_type=zstd",
    "cluster_size=2M",
];

/// An image with everything that takes clusters.
fn specimen(folder: &Path, options: &str) -> PathBuf {
    // A count of one bit cannot count what snapshots share.
    let snapshots = if options.contains("refcount_bits=1") {
        ""
    } else {
        "&& qemu-img snapshot -c one a.qcow2 && qemu-io -c 'write -P 5 200000 512' a.qcow2 && qemu-img snapshot -c two a.qcow2"
    };
    let compressed = if options.contains("refcount_bits=1") { "" } else { "-c 'write -c -P 9 4M 2M'" };
    let bitmap = if options.contains("0.10") { "" } else { "&& qemu-img bitmap --add a.qcow2 b" };
    run(
        folder,
        &format!(
            "rm -f a.qcow2; qemu-img create -q -f qcow2 -o {options} a.qcow2 64M && qemu-io {compressed} \
             -c 'write -P 1 3000 9000' -c 'write -z 327680 65536' -c 'write -P 3 1400000 200000' a.qcow2 \
             {snapshots} {bitmap} && qemu-io -c 'write -P 7 50M 100k' a.qcow2"
        ),
    );
    folder.join("a.qcow2")
}

#[test]
fn sound_images_are_found_sound() {
    if !have("sound_images_are_found_sound", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options in OPTIONS {
        let path = specimen(dir.path(), options);
        let checked = check(&path).unwrap();
        assert_eq!(checked.counts, [0, 0, 0], "{options}: {:?}", checked.problems);
        assert!(checked.allocated.0 > 0);
        assert_eq!(qemu(dir.path(), "a.qcow2"), Some((0, 0)), "{options}");
    }
    for row in crate::corpus::rows("").into_iter().filter(|row| row.path.contains(".qcow2")) {
        let file = row.unpack();
        let folder = file.path.parent().unwrap();
        let checked = check(&file.path).unwrap();
        let name = file.path.file_name().unwrap().to_str().unwrap();
        let found = (checked.count(Severity::Corrupt), checked.count(Severity::Leak));
        assert_eq!(Some(found), qemu(folder, name), "{}: {:?}", row.path, checked.problems);
    }
}

/// Every table entry changed in several ways: what QEMU calls corrupt or a leak, we do; and the same number of leaks.
#[test]
fn damage_is_found_where_qemu_finds_it() {
    if !have("damage_is_found_where_qemu_finds_it", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut compared, mut corrupt, mut leaking) = (0, 0, 0);
    for options in OPTIONS {
        let path = specimen(dir.path(), options);
        let good = std::fs::read(&path).unwrap();
        let u64_at = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap());
        let offset = |entry: u64| usize::try_from(entry & 0x00ff_ffff_ffff_fe00).unwrap();
        let cluster = 1usize << u32::from_be_bytes(good[20..24].try_into().unwrap());
        let (l1, refcounts) = (offset(u64_at(40)), offset(u64_at(48)));
        let l2 = offset(u64_at(l1));
        let entry = if options.contains("extended") { 16 } else { 8 };
        let stored = |at: &usize| u64_at(*at) >> 62 & 1 == 0 && offset(u64_at(*at)) != 0;
        let used = (0..cluster / entry).map(|n| l2 + n * entry).find(stored).unwrap();
        let mut changes: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut entry_as = |at: usize, value: u64| changes.push((at, value.to_be_bytes().to_vec()));
        entry_as(used, 0);
        entry_as(used, u64_at(used) & !(1 << 63));
        entry_as(used, u64_at(used) + cluster as u64);
        entry_as(used, u64_at(used) | 512);
        entry_as(used, 1 << 63 | l2 as u64);
        entry_as(used, 1 << 63 | (good.len() as u64 + 64).next_multiple_of(cluster as u64));
        entry_as(l1, 0);
        entry_as(l1, u64_at(l1) ^ 1 << 63);
        entry_as(l1, 1 << 63 | refcounts as u64);
        entry_as(refcounts, 0);
        entry_as(refcounts + 8, 1 << 40);
        let block = offset(u64_at(refcounts));
        for at in [0, 1, 2, 7, 9, 16, 40] {
            for value in [0u8, 1, 2, 0xff] {
                changes.push((block + at, vec![value]));
            }
        }
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (at, bytes) in changes {
            let mut changed = good.clone();
            changed.resize(changed.len().max(at + bytes.len()), 0);
            if changed[at..at + bytes.len()] == bytes[..] {
                continue;
            }
            changed[at..at + bytes.len()].copy_from_slice(&bytes);
            file.set_len(0).unwrap();
            file.write_all_at(&changed, 0).unwrap();
            let checked = check(&path).unwrap();
            let Some((corruptions, leaks)) = qemu(dir.path(), "a.qcow2") else { continue };
            let what = format!(
                "{options}: {at:#x} is {bytes:x?}: QEMU {corruptions}, {leaks}: {:?}",
                checked.problems
            );
            if corruptions > 0 {
                assert!(checked.count(Severity::Corrupt) > 0, "{what}");
                corrupt += 1;
            } else {
                // Nothing that is sound is called corrupt, but for what QEMU does not look at.
                assert_eq!(checked.count(Severity::Corrupt), 0, "{what}");
                leaking += u64::from(leaks > 0);
            }
            assert_eq!(checked.count(Severity::Leak), leaks, "{what}");
            compared += 1;
        }
    }
    assert!(compared > 150 && corrupt > 80 && leaking > 20, "{compared} {corrupt} {leaking}");
}

/// No byte of a header or table makes the check panic or run away.
#[test]
fn no_changed_byte_stops_the_check() {
    if !have("no_changed_byte_stops_the_check", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options in ["cluster_size=512", "extended_l2=on,cluster_size=16k"] {
        let path = specimen(dir.path(), options);
        let good = std::fs::read(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let step = good.len() / 20_000 + 1;
        for (at, &byte) in good.iter().enumerate() {
            if at > 1024 && (at % step != 0 || byte == 0) {
                continue;
            }
            for value in [byte ^ 1, 0xff] {
                file.write_all_at(&[value], at as u64).unwrap();
                let _ = check(&path);
            }
            file.write_all_at(&[byte], at as u64).unwrap();
        }
        assert_eq!(check(&path).unwrap().counts, [0, 0, 0]);
        for len in (0..good.len() as u64).rev().step_by(good.len() / 200) {
            file.set_len(len).unwrap();
            let _ = check(&path);
        }
    }
}

/// What the clusters of the writer share and leave free is counted right: no leak at all.
#[test]
fn what_we_write_has_no_leak() {
    use crate::convert::{self, Options};
    use crate::create::{Compression, CreateOptions};
    let dir = tempfile::tempdir().unwrap();
    for compression in [None, Some(Compression::Zlib), Some(Compression::Zstd)] {
        for cluster_size in [512, 65536, 2 << 20] {
            let path = dir.path().join("a.qcow2");
            let disk = crate::testing::mixed(3, Bytes(70 << 20));
            let options = CreateOptions {
                compression,
                block_size: Some(Bytes(cluster_size)),
                ..CreateOptions::default()
            };
            let sink = crate::qcow2::create(&path, disk.size(), &options).unwrap();
            convert::convert(&disk, sink, &Options::default()).unwrap();
            let checked = check(&path).unwrap();
            assert_eq!(checked.counts, [0, 0, 0], "{options:?}: {:?}", checked.problems);
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// An image that is refused when it is opened can be checked all the same.
#[test]
fn what_cannot_be_opened_is_checked() {
    if !have("what_cannot_be_opened_is_checked", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = specimen(dir.path(), "compat=1.1");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[2], 79).unwrap();
    assert!(open(&path).err().unwrap().says().contains("marked this image as corrupt"));
    let checked = formats::check(&path, &OpenOptions::default()).unwrap();
    let [(_, _, Some(checked))] = &checked[..] else { panic!("{checked:?}") };
    assert_eq!(checked.counts, [0, 0, 1], "{:?}", checked.problems);
    file.write_all_at(&[1], 79).unwrap();
    let checked = formats::check(&path, &OpenOptions::default()).unwrap();
    assert_eq!(checked[0].2.as_ref().unwrap().counts, [1, 0, 0], "not closed, which is only noted");
}

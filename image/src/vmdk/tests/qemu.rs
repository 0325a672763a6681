//! Images that qemu-img writes, compared with what it was given and with what it reads back.

use super::{check_consistency, content, map, open};
use crate::disk::ExtentKind;
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// True where the tools are there.
pub(super) fn tools() -> bool {
    let there = ["qemu-img", "qemu-io"]
        .iter()
        .all(|tool| Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success()));
    if !there {
        eprintln!("SKIPPED: qemu-img and qemu-io are not installed");
    }
    there
}

fn run(dir: &Path, command: &[&str]) {
    let out = Command::new(command[0]).args(&command[1..]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A disk of `size` with text, noise, single sectors and long runs of zeros.
fn pattern(path: &Path, size: u64) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    let text: Vec<u8> = b"landfall ".iter().copied().cycle().take(300_000).collect();
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(1 << 20)
    .collect();
    for (at, bytes) in
        [(1_000_448, &text), (3 << 20, &noise), (size - 512, &vec![7; 512]), (size / 2, &vec![9; 512])]
    {
        if at + bytes.len() as u64 <= size {
            file.write_all_at(bytes, at).unwrap();
        }
    }
}

/// The disk that the image is of, by qemu-img.
pub(super) fn as_raw(dir: &Path, image: &str) -> Vec<u8> {
    run(dir, &["qemu-img", "convert", "-O", "raw", image, "out.raw"]);
    std::fs::read(dir.join("out.raw")).unwrap()
}

#[test]
fn every_kind_that_qemu_writes() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (size, raw) in [(64 << 20, "base.raw"), (10_489_344, "odd.raw")] {
        pattern(&dir.path().join(raw), size);
        let wanted = std::fs::read(dir.path().join(raw)).unwrap();
        for options in [
            "subformat=monolithicSparse",
            "subformat=monolithicFlat",
            "subformat=twoGbMaxExtentSparse",
            "subformat=twoGbMaxExtentFlat",
            "subformat=streamOptimized",
            "subformat=monolithicSparse,zeroed_grain=on",
            "subformat=monolithicSparse,compat6=on,adapter_type=lsilogic",
        ] {
            let name = format!("{}-{size}.vmdk", options.replace(['=', ','], "-"));
            run(dir.path(), &["qemu-img", "convert", "-O", "vmdk", "-o", options, raw, &name]);
            let image = open(&dir.path().join(&name)).unwrap();
            assert_eq!(image.disk.size(), Bytes(size), "{options}");
            for step in [1 << 20, 65536, 4096, 512 * 129, 1_000_003] {
                assert!(content(&*image.disk, step) == wanted, "{options} in steps of {step}");
            }
            check_consistency(&*image.disk);
            let info = &image.layers[0];
            assert!(options.contains(&info.variant), "{}", info.variant);
            let detail = |name: &str| info.details.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
            assert_eq!(detail("CID").map(str::len), Some(8));
            assert_eq!(detail("compressed"), Some(if options.contains("stream") { "zlib" } else { "no" }));
        }
    }
}

#[test]
fn zeroed_grains_hide_nothing_and_cost_nothing() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["qemu-img", "create", "-f", "vmdk", "-o", "zeroed_grain=on", "z.vmdk", "64M"]);
    run(dir.path(), &["qemu-io", "-c", "write -P 0x21 0 131072", "-c", "write -z 65536 65536", "z.vmdk"]);
    let image = open(&dir.path().join("z.vmdk")).unwrap();
    let kinds: Vec<_> = map(&*image.disk, 10).iter().map(|e| (e.range.end().0, e.kind)).collect();
    assert_eq!(
        kinds,
        [(65536, ExtentKind::Data), (131_072, ExtentKind::Zero), (64 << 20, ExtentKind::Unallocated)]
    );
    assert!(content(&*image.disk, 4096) == as_raw(dir.path(), "z.vmdk"));
}

#[test]
fn snapshots_read_through_to_their_base() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    pattern(&dir.path().join("base.raw"), 64 << 20);
    run(dir.path(), &["qemu-img", "convert", "-O", "vmdk", "base.raw", "base.vmdk"]);
    run(dir.path(), &["qemu-img", "create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "d1.vmdk"]);
    run(
        dir.path(),
        &["qemu-io", "-c", "write -P 0x31 0 65536", "-c", "write -P 0x32 41943040 512", "d1.vmdk"],
    );
    run(
        dir.path(),
        &[
            "qemu-img",
            "create",
            "-f",
            "vmdk",
            "-o",
            "zeroed_grain=on",
            "-b",
            "d1.vmdk",
            "-F",
            "vmdk",
            "d2.vmdk",
        ],
    );
    run(dir.path(), &["qemu-io", "-c", "write -z 0 65536", "-c", "write -P 0x33 3145728 512", "d2.vmdk"]);
    let image = open(&dir.path().join("d2.vmdk")).unwrap();
    assert_eq!(image.layers.len(), 3);
    assert!(content(&*image.disk, 1 << 20) == as_raw(dir.path(), "d2.vmdk"));
    check_consistency(&*image.disk);
    // The base changes behind the snapshot's back: its content id does, too.
    run(dir.path(), &["qemu-io", "-c", "write -P 0x99 0 512", "base.vmdk"]);
    let error = open(&dir.path().join("d2.vmdk")).err().expect("a changed base is found");
    assert_eq!(error.kind(), crate::Kind::Corrupt, "{error}");
    assert!(error.path().is_some_and(|path| path.ends_with("base.vmdk")), "{error}");
}

#[test]
fn a_split_disk_is_one_disk() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run(
        dir.path(),
        &["qemu-img", "create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "s.vmdk", "5G"],
    );
    run(
        dir.path(),
        &[
            "qemu-io",
            "-c",
            "write -P 0x41 2147418112 131072",
            "-c",
            "write -P 0x42 4294967296 4096",
            "-c",
            "write -P 0x43 5368708608 512",
            "s.vmdk",
        ],
    );
    let image = open(&dir.path().join("s.vmdk")).unwrap();
    assert_eq!(image.disk.size(), Bytes::gib(5));
    assert_eq!(image.layers[0].files.len(), 3);
    let mut buf = vec![0; 131_072 + 1024];
    image.disk.read_at(GuestOffset(2_147_418_112 - 512), &mut buf).unwrap();
    assert!(buf[..512].iter().chain(&buf[buf.len() - 512..]).all(|&byte| byte == 0));
    assert!(buf[512..buf.len() - 512].iter().all(|&byte| byte == 0x41));
    image.disk.read_at(GuestOffset(5_368_708_608), &mut buf[..512]).unwrap();
    assert!(buf[..512].iter().all(|&byte| byte == 0x43));
    check_consistency(&*image.disk);
    // A hole of gigabytes is one extent, for a handful of reads.
    let hole = image.disk.extents(GuestRange::new(GuestOffset(0), Bytes::gib(5)), 1).unwrap();
    assert_eq!(hole.len(), 1);
    assert!(hole[0].range.len() >= Bytes::gib(1), "{hole:?}");
}

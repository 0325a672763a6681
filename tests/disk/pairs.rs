//! Every kind that is written, from every kind that is read, as independent readers see it.
//!
//! All of it walks `formats::KINDS`: a new kind inherits it.

use super::readers;
use landfall_image::check::Severity;
use landfall_image::convert::{self, Options};
use landfall_image::create::{Compression, CreateOptions, Preallocation};
use landfall_image::formats::{self, KINDS, KindRow};
use landfall_image::testing::{self, MemDisk};
use landfall_image::{Bytes, Disk, Format, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Disks of every sort, small ones: their names and contents.
pub(super) fn contents() -> Vec<(&'static str, MemDisk)> {
    vec![
        ("mixed, of an odd size", testing::mixed(1, Bytes(7 * MIB + 512))),
        ("empty", MemDisk::new(Bytes(9 * MIB))),
        ("full to its last byte, in the middle of every block", {
            MemDisk::from_bytes(testing::noise_bytes(2, 3 * 512 + (1 << 20)))
        }),
        ("text", MemDisk::from_bytes(testing::text_bytes(3, 3 << 20))),
        ("only its last sector", MemDisk::new(Bytes(5 * MIB)).data(5 * MIB - 512, [9; 512])),
    ]
}

/// Every choice that a kind takes, each alone, by what it is called here.
pub(super) fn variants(kind: &KindRow) -> Vec<(String, CreateOptions)> {
    let plain = CreateOptions::default;
    let mut all = vec![
        ("plain".to_owned(), plain()),
        ("zlib".to_owned(), CreateOptions { compression: Some(Compression::Zlib), ..plain() }),
        ("zstd".to_owned(), CreateOptions { compression: Some(Compression::Zstd), ..plain() }),
        ("extended L2".to_owned(), CreateOptions { extended_l2: true, ..plain() }),
        ("preallocated".to_owned(), CreateOptions { preallocation: Preallocation::Metadata, ..plain() }),
    ];
    for bits in [9, 12, 16, 20, 21, 25, 28] {
        let block_size = Some(Bytes(1 << bits));
        all.push((format!("blocks of {} bytes", 1u64 << bits), CreateOptions { block_size, ..plain() }));
    }
    let folder = tempfile::tempdir().unwrap();
    let taken = |options: &CreateOptions| {
        (kind.create)(&folder.path().join(file_name(kind)), Bytes(5 * MIB), options).is_ok()
    };
    all.retain(|(_, options)| taken(options));
    assert!(!all.is_empty(), "{} takes not even the defaults", kind.name);
    all
}

/// A name with the ending of the kind.
pub(super) fn file_name(kind: &KindRow) -> String {
    format!("disk.{}", kind.ending)
}

/// The image as readers of images want it: that of a package is taken out of it, by tar. `None`, after a loud word,
/// where there is no tar.
pub(super) fn unpacked(kind: &KindRow, path: &Path) -> Option<PathBuf> {
    if kind.name != "ova" {
        return Some(path.to_owned());
    }
    let folder = path.parent().unwrap();
    let tar = Command::new("tar").arg("-xf").arg(path).arg("-C").arg(folder).status();
    let Ok(status) = tar else {
        eprintln!("SKIPPED: tar is not installed");
        return None;
    };
    assert!(status.success(), "tar -xf {}", path.display());
    let stem = path.file_stem().unwrap().to_str().unwrap();
    Some(folder.join(format!("{stem}-disk1.vmdk")))
}

/// Writes `disk` as `path` and gives all files of the image.
pub(super) fn write(disk: &dyn Disk, kind: &KindRow, options: &CreateOptions, path: &Path) -> Vec<PathBuf> {
    let sink = (kind.create)(path, disk.size(), options).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
    let converted = convert::convert(disk, sink, &Options::default());
    converted.unwrap_or_else(|e| panic!("{}: {e}", kind.name)).receipt.files
}

/// What is wrong with an image, by our own check.
fn own_check(path: &Path, format: Format) -> Result<(), String> {
    let options = OpenOptions { format: Some(format), ..OpenOptions::default() };
    for (path, _, checked) in formats::check(path, &options).map_err(|e| e.to_string())? {
        let Some(checked) = checked else { continue };
        if checked.count(Severity::Corrupt) + checked.count(Severity::Leak) > 0 {
            return Err(format!("disk check {}: {:?}", path.display(), checked.problems));
        }
    }
    Ok(())
}

/// What libqcow says of itself that it does not read. It must not be read wrongly all the same.
fn libyal_may_refuse(format: Format, variant: &str) -> bool {
    format == Format::Qcow2 && ["zstd", "extended L2"].contains(&variant)
}

/// Every kind, in every variant, of every content: sound, and the same, to qemu-img, to libyal, and to ourselves.
#[test]
fn independent_readers_read_what_is_written() {
    let has_qemu = readers::have_qemu();
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (n, (what, disk)) in contents().into_iter().enumerate() {
        let content = testing::read_all(&disk).unwrap();
        let raw = folder.path().join("content.raw");
        std::fs::write(&raw, &content).unwrap();
        let mut images = Vec::new();
        for kind in KINDS {
            for (variant, options) in variants(kind) {
                let own = folder.path().join(format!("{n}-{}-{variant}", kind.name));
                std::fs::create_dir(&own).unwrap();
                let path = own.join(file_name(kind));
                write(&disk, kind, &options, &path);
                let name = format!("{}, {variant}, {what}", kind.name);
                let mut object = |objection: Result<(), String>| {
                    if let Err(says) = objection {
                        wrong.push(format!("{name}: {says}"));
                    }
                };
                object(own_check(&path, kind.format));
                let unpacked = unpacked(kind, &path);
                if let Some(path) = unpacked.as_deref().filter(|_| has_qemu) {
                    object(readers::qemu_objects(path, kind.format, &raw));
                }
                let opened = formats::open(&path, &OpenOptions::default());
                let read = opened.and_then(|image| testing::read_all(&*image.disk));
                object(match read {
                    Ok(read) if same(&read, &content) => Ok(()),
                    Ok(_) => Err("reads as something else".into()),
                    Err(error) => Err(error.to_string()),
                });
                if let (Format::Qcow2 | Format::Vmdk | Format::Vhd | Format::Vhdx, Some(path)) =
                    (kind.format, unpacked)
                {
                    images.push((name, kind, variant, path));
                }
            }
        }
        let list: Vec<_> = images.iter().map(|(_, kind, _, path)| (kind.format, path.clone())).collect();
        for ((name, kind, variant, _), reading) in
            images.iter().zip(readers::libyal(&list).into_iter().flatten())
        {
            match reading {
                Ok((size, hash)) if hash == readers::sha256_padded(&content, size) => {}
                Err(_) if libyal_may_refuse(kind.format, variant) => {}
                other => wrong.push(format!("{name}: libyal: {other:?}")),
            }
        }
        for (.., path) in images {
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{} objections:\n{}", wrong.len(), wrong.join("\n"));
}

/// The content, and zeros behind it where a kind rounds up.
fn same(read: &[u8], content: &[u8]) -> bool {
    read.len() >= content.len()
        && read[..content.len()] == *content
        && read[content.len()..].iter().all(|&byte| byte == 0)
}

/// Every kind that qemu-img writes: the arguments for it.
const QEMU_WRITES: &[(&str, &str)] = &[
    ("qcow2", "compat=0.10"),
    ("qcow2", "compat=1.1"),
    ("qcow2", "cluster_size=512"),
    ("qcow2", "cluster_size=2M"),
    ("qcow2", "extended_l2=on"),
    ("qcow2", "refcount_bits=1"),
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "subformat=twoGbMaxExtentFlat"),
    ("vmdk", "subformat=streamOptimized"),
    ("vmdk", "zeroed_grain=on"),
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=fixed"),
    ("vdi", "static=off"),
    ("vdi", "static=on"),
];

/// Whatever a disk is read from, the same image is written: one that was shown to be right.
#[test]
fn every_pair_of_kinds_gives_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let disk = testing::mixed(4, Bytes(7 * MIB));
    let content = testing::read_all(&disk).unwrap();
    let raw = folder.path().join("content.raw");
    std::fs::write(&raw, &content).unwrap();

    // By us, and by QEMU.
    let mut sources = Vec::new();
    for kind in KINDS {
        for (variant, options) in variants(kind) {
            let name = format!("{} {variant}", kind.name);
            let own = folder.path().join(&name);
            std::fs::create_dir(&own).unwrap();
            let path = own.join(file_name(kind));
            write(&disk, kind, &options, &path);
            sources.push((name, path));
        }
    }
    if readers::have_qemu() {
        for (format, options) in QEMU_WRITES {
            let compress: &[&str] = if *format == "qcow2" { &["-c", ""] } else { &[""] };
            for c in compress {
                let name = format!("QEMU {format} {options} {c}");
                let own = folder.path().join(name.replace('/', "-"));
                std::fs::create_dir(&own).unwrap();
                let path = own.join(format!("disk.{}", if *format == "vpc" { "vhd" } else { format }));
                let mut arguments = vec!["convert", "-f", "raw", "-O", format, "-o", options];
                arguments.extend((!c.is_empty()).then_some(*c));
                readers::qemu_img(&arguments, &[&raw, &path]);
                sources.push((name, path));
            }
        }
    }

    let mut wrong = Vec::new();
    let target = folder.path().join("target");
    for kind in KINDS {
        std::fs::create_dir(&target).unwrap();
        let path = target.join(file_name(kind));
        let bytes = |files: &[PathBuf]| -> Vec<blake3::Hash> {
            files.iter().map(|file| blake3::hash(&std::fs::read(file).unwrap())).collect()
        };
        let expected = bytes(&write(&disk, kind, &CreateOptions::default(), &path));
        for (name, source) in &sources {
            std::fs::remove_dir_all(&target).unwrap();
            std::fs::create_dir(&target).unwrap();
            let image = formats::open(source, &OpenOptions::default());
            let image = image.unwrap_or_else(|e| panic!("{name}: {e}"));
            let files = write(&*image.disk, kind, &CreateOptions::default(), &path);
            // A kind that rounds up gives a larger disk: then only its content can be the same.
            let is_same = if image.disk.size() == disk.size() {
                bytes(&files) == expected
            } else {
                let copy = formats::open(&path, &OpenOptions::default()).unwrap();
                same(&testing::read_all(&*copy.disk).unwrap(), &content)
            };
            if !is_same {
                wrong.push(format!("{name} to {}", kind.name));
            }
        }
        std::fs::remove_dir_all(&target).unwrap();
    }
    eprintln!("{} sources, {} targets", sources.len(), KINDS.len());
    assert!(wrong.is_empty(), "{} pairs give another image:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where an image is cut off, its reader says so, or what is gone did not matter: never is other content read.
#[test]
fn a_cut_image_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let disk = testing::mixed(5, Bytes(6 * MIB + 512));
    let content = testing::read_all(&disk).unwrap();
    let (mut wrong, mut found, mut harmless) = (Vec::new(), 0, 0);
    // A raw disk has nothing that says how long it was.
    for kind in KINDS.iter().filter(|kind| kind.format != Format::Raw) {
        for (variant, options) in variants(kind) {
            // Little but one empty block.
            if options.block_size.is_some_and(|size| size > Bytes::mib(2)) {
                continue;
            }
            let own = folder.path().join("image");
            std::fs::create_dir(&own).unwrap();
            let path = own.join(file_name(kind));
            for file in write(&disk, kind, &options, &path) {
                let whole = std::fs::read(&file).unwrap();
                // A part of the places does for what differs in little.
                let step = if variant == "plain" { 1 } else { 5 };
                for cut in cuts(whole.len()).into_iter().step_by(step) {
                    std::fs::write(&file, &whole[..cut]).unwrap();
                    let opened = formats::open(&path, &OpenOptions::default());
                    match opened.and_then(|image| testing::read_all(&*image.disk)) {
                        Ok(read) if same(&read, &content) => harmless += 1,
                        Err(error) if error.kind() == landfall_image::Kind::Corrupt => found += 1,
                        Err(error) => wrong.push(format!(
                            "{} {variant} cut to {cut} of {}: {:?}: {error}",
                            kind.name,
                            whole.len(),
                            error.kind()
                        )),
                        Ok(_) => wrong.push(format!(
                            "{} {variant}: {} cut to {cut} of {} is read as something else",
                            kind.name,
                            file.display(),
                            whole.len()
                        )),
                    }
                }
                std::fs::write(&file, &whole).unwrap();
            }
            std::fs::remove_dir_all(&own).unwrap();
        }
    }
    eprintln!("{found} cuts were found out, {harmless} took nothing away");
    // Zeros at the end, a copy of what stands at the beginning, the rest of a large block.
    assert!(found > 3 * harmless, "{found} were found, {harmless} read: what is cut does not matter");
    assert!(wrong.is_empty(), "{} cuts:\n{}", wrong.len(), wrong.join("\n"));
}

/// Around every power of two, which is where structures begin, and over the whole length.
fn cuts(len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..64).map(|n| len / 64 * n + 77).collect();
    let mut boundary = 512;
    while boundary < len {
        cuts.extend([boundary - 1, boundary, boundary + 1, boundary + boundary / 2]);
        boundary *= 2;
    }
    cuts.extend([1, 3, 8, 24, 64, 104, 511].iter().map(|less| len.saturating_sub(*less)));
    cuts.extend((1..6).map(|n| len.saturating_sub(512 * n)));
    cuts.extend([0, 1, 4, 8, 72, 104]);
    cuts.retain(|&cut| cut < len);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Round trips, a fault at every operation, a stop at every step, the same bytes for any number of workers.
#[test]
fn every_kind_passes_the_suite() {
    // Each on its own, since most of it is waiting for one worker.
    std::thread::scope(|scope| {
        for kind in KINDS {
            scope.spawn(move || {
                landfall_image::suite::check_sink(
                    |path, size, files| {
                        (kind.create)(path, size, &CreateOptions { files, ..CreateOptions::default() })
                    },
                    |path| {
                        let options = OpenOptions { format: Some(kind.format), ..OpenOptions::default() };
                        Ok(formats::open(path, &options)?.disk)
                    },
                );
            });
        }
    });
}

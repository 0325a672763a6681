//! Every image of the corpus: read as recorded, refused with a clear word, or converted by the program.

use landfall_image::convert::{self, Converted, Options};
use landfall_image::create::{Compression, CreateOptions};
use landfall_image::formats;
use landfall_image::{Bytes, Disk, Error, ExtentKind, Format, GuestOffset, GuestRange, Kind, OpenOptions};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Disks up to this size are hashed whole; larger ones by their blocks that are not zeros.
const HASHED_WHOLE: u64 = 2 << 30;

/// What the manifest says of an image.
pub(super) struct Row {
    pub path: String,
    pub expected: Expected,
}

pub(super) enum Expected {
    /// Reads as this.
    Content { size: u64, sha256: String, nz4k: Option<String> },
    /// Must be refused.
    Refusal(String),
    /// May be refused; if it is read, then as this.
    Either { size: u64, nz4k: Option<String> },
}

/// The images, unpacked as they are asked for.
pub(super) struct Corpus {
    root: PathBuf,
    unpacked: tempfile::TempDir,
    done: HashSet<PathBuf>,
}

impl Corpus {
    pub fn open() -> Option<(Corpus, Vec<Row>)> {
        let root = crate::machines::corpus()?;
        let manifest = std::fs::read_to_string(root.join("MANIFEST.tsv")).unwrap();
        let rows: Vec<Row> = manifest.lines().filter_map(row).collect();
        assert!(rows.len() > 40, "{} images in the manifest", rows.len());
        Some((Corpus { root, unpacked: tempfile::tempdir().unwrap(), done: HashSet::new() }, rows))
    }

    /// The image of a row, unpacked, with what lies in its folder where that is a set.
    pub fn image(&mut self, row: &Row) -> PathBuf {
        let stored = self.root.join(&row.path);
        // The upstream's own folder is no set; a folder below it is.
        if Path::new(&row.path).components().count() > 2 {
            let folder = stored.parent().unwrap().to_owned();
            for entry in std::fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap().path();
                if entry.is_file() {
                    self.unpack(&entry);
                }
            }
        }
        self.unpack(&stored)
    }

    fn unpack(&mut self, stored: &Path) -> PathBuf {
        let relative = stored.strip_prefix(&self.root).unwrap();
        let name = relative.to_str().unwrap();
        let target = self.unpacked.path().join(name.strip_suffix(".zst").unwrap_or(name));
        if self.done.insert(target.clone()) {
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            let file = File::open(stored).unwrap();
            if name.ends_with(".zst") {
                expand(zstd::Decoder::new(file).unwrap(), &target);
            } else {
                expand(file, &target);
            }
        }
        target
    }
}

/// The row of a disk image; others, and the parts of a set that are no image, are left out.
fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split('\t').collect();
    let field = |at: usize| *fields.get(at).unwrap_or(&"");
    let kinds = ["vmdk", "qcow2", "vhd", "vhdx", "raw", "other-format"];
    let kind = field(1);
    if !kinds.iter().any(|known| kind == *known || kind.starts_with(&format!("{known}-"))) {
        return None;
    }
    let size = field(5).parse().unwrap_or(0);
    let nz4k = (!field(7).is_empty()).then(|| field(7).to_owned());
    let expected = field(6);
    let expected = if let Some(sha256) = expected.strip_prefix("raw:") {
        Expected::Content { size, sha256: sha256.to_owned(), nz4k }
    } else if let Some(why) = expected.strip_prefix("refuse:") {
        Expected::Refusal(why.trim().to_owned())
    } else if expected.starts_with("refuse-or-warn") {
        Expected::Either { size, nz4k }
    } else {
        assert_eq!(expected, "-", "{line}");
        return None;
    };
    Some(Row { path: field(0).to_owned(), expected })
}

/// Writes a file with holes for zeros.
fn expand(mut from: impl Read, target: &Path) {
    let mut file = File::create(target).unwrap();
    let mut block = Vec::new();
    while from.by_ref().take(1 << 16).read_to_end(&mut block).unwrap() > 0 {
        if block.iter().all(|&byte| byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap())).unwrap();
        } else {
            file.write_all(&block).unwrap();
        }
        block.clear();
    }
    let len = file.stream_position().unwrap();
    file.set_len(len).unwrap();
}

fn hex(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}

/// SHA-256 of every byte, without a look at the map.
fn sha256(disk: &dyn Disk) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.size().0 {
        let len = usize::try_from(disk.size().0 - at).unwrap().min(buf.len());
        disk.read_at(GuestOffset(at), &mut buf[..len])?;
        hash.update(&buf[..len]);
        at += len as u64;
    }
    Ok(hex(hash))
}

/// SHA-256 over offset and content of each block of 4 KiB that is not zeros, reading what the map calls data.
fn nz4k(disk: &dyn Disk) -> Result<String, Error> {
    let size = disk.size().0;
    let mut hash = Sha256::new();
    let mut buf = vec![0; 4096];
    let (mut at, mut hashed) = (0, 0);
    while at < size {
        let extents = disk.extents(GuestRange::between(GuestOffset(at), GuestOffset(size)), 512)?;
        assert!(!extents.is_empty(), "the map ends at {at:#x}");
        for extent in extents {
            assert_eq!(extent.range.start().0, at, "a gap in the map");
            assert!(!extent.range.is_empty());
            at = extent.range.end().0;
            if extent.kind != ExtentKind::Data {
                continue;
            }
            let mut block = (extent.range.start().0 & !4095).max(hashed);
            while block < at {
                let len = usize::try_from(size - block).unwrap().min(4096);
                disk.read_at(GuestOffset(block), &mut buf[..len])?;
                if buf[..len].iter().any(|&byte| byte != 0) {
                    hash.update(block.to_le_bytes());
                    hash.update(&buf[..len]);
                }
                block += 4096;
            }
            hashed = block;
        }
    }
    Ok(hex(hash))
}

/// Size, hash of all (of a small disk), and hash of the blocks that are not zeros.
pub(super) type Reading = Result<(u64, Option<String>, String), Error>;

/// Size and hashes of an image. Small disks are hashed whole, and all by their map.
pub(super) fn reading(path: &Path) -> Reading {
    reading_with(path, &OpenOptions::default())
}

/// [`reading`], opened with these options.
pub(super) fn reading_with(path: &Path, options: &OpenOptions) -> Reading {
    let image = formats::open(path, options)?;
    let size = image.disk.size().0;
    let whole = if size <= HASHED_WHOLE { Some(sha256(&*image.disk)?) } else { None };
    Ok((size, whole, nz4k(&*image.disk)?))
}

/// What is wrong with a reading, if anything.
pub(super) fn verdict(expected: &Expected, reading: &Reading) -> Result<(), String> {
    let content =
        |wanted_size: u64, wanted_whole: Option<&String>, wanted_nz4k: Option<&String>| match reading {
            Err(error) => Err(format!("refused: {error}")),
            Ok((size, ..)) if *size != wanted_size => Err(format!("has {size} bytes, not {wanted_size}")),
            Ok((_, whole, nz4k)) => {
                if whole.is_some() && wanted_whole.is_some() && whole.as_ref() != wanted_whole {
                    return Err("other content, hashed whole".into());
                }
                if wanted_nz4k.is_some_and(|wanted| wanted != nz4k) {
                    return Err("other content, hashed by its blocks".into());
                }
                Ok(())
            }
        };
    match expected {
        Expected::Content { size, sha256, nz4k } => content(*size, Some(sha256), nz4k.as_ref()),
        Expected::Either { size, nz4k } => match reading {
            Err(error) => clear(error),
            Ok(_) => content(*size, None, nz4k.as_ref()),
        },
        Expected::Refusal(why) => match reading {
            Ok(_) => Err(format!("was read, though: {why}")),
            Err(error) => clear(error),
        },
    }
}

/// A refusal that a person can use: not a bare failure of the host, with a path and words.
fn clear(error: &Error) -> Result<(), String> {
    let absent = error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
    if error.kind() == Kind::Interrupted || (error.kind() == Kind::Io && !absent) {
        return Err(format!("{:?} is no refusal: {error}", error.kind()));
    }
    if error.path().is_none() || error.says().len() < 10 {
        return Err(format!("says too little: {error}"));
    }
    Ok(())
}

#[test]
fn every_image_reads_as_recorded_or_is_refused() {
    let Some((mut corpus, rows)) = Corpus::open() else { return };
    let mut wrong = Vec::new();
    for row in &rows {
        let image = corpus.image(row);
        let before = std::fs::metadata(&image).unwrap().modified().unwrap();
        if let Err(what) = verdict(&row.expected, &reading(&image)) {
            wrong.push(format!("{}: {what}", row.path));
        }
        assert_eq!(std::fs::metadata(&image).unwrap().modified().unwrap(), before, "{}", row.path);
    }
    assert!(wrong.is_empty(), "{} of {} images:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// A copy in every format that can be written is the content, has the digest of it, and is the same to qemu-img.
#[test]
fn every_image_converts_to_its_content_1() {
    converts(0);
}

#[test]
fn every_image_converts_to_its_content_2() {
    converts(1);
}

#[test]
fn every_image_converts_to_its_content_3() {
    converts(2);
}

/// One image of three, beginning with that one: they take long, and run beside each other.
fn converts(first: usize) {
    let Some((mut corpus, rows)) = Corpus::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default();
    let targets = formats::KINDS.iter().flat_map(|kind| {
        let compressed = kind.format == Format::Qcow2;
        [None].into_iter().chain(compressed.then_some(Some(Compression::Zstd))).map(move |c| (kind, c))
    });
    let targets: Vec<_> = targets.collect();
    let mut wrong = Vec::new();
    for row in rows.iter().skip(first).step_by(3) {
        let Expected::Content { .. } = row.expected else { continue };
        let Ok(image) = formats::open(&corpus.image(row), &OpenOptions::default()) else { continue };
        let raw = folder.path().join("copy.raw");
        let sink = landfall_image::raw::create(&raw, image.disk.size(), &CreateOptions::default()).unwrap();
        convert::convert(&*image.disk, sink, &options).unwrap();
        for (kind, compression) in &targets {
            // More than a VHD can hold.
            if kind.format == Format::Vhd && image.disk.size() > landfall_image::limits::VHD_WRITTEN {
                continue;
            }
            let target = folder.path().join("copy");
            let create = CreateOptions { compression: *compression, ..CreateOptions::default() };
            let what = (kind.create)(&target, image.disk.size(), &create)
                .and_then(|sink| convert::convert(&*image.disk, sink, &options))
                .map_err(|error| error.to_string())
                .and_then(|converted| check_copy(&target, kind, row, converted, &raw));
            if let Err(what) = what {
                wrong.push(format!("{} to {} {compression:?}: {what}", row.path, kind.name));
            }
            for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
                if entry.path() != raw {
                    std::fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        std::fs::remove_file(&raw).unwrap();
    }
    assert!(wrong.is_empty(), "{} copies:\n{}", wrong.len(), wrong.join("\n"));
}

fn check_copy(
    path: &Path,
    kind: &formats::KindRow,
    row: &Row,
    converted: Converted,
    raw: &Path,
) -> Result<(), String> {
    let format = kind.format;
    let open = OpenOptions { format: Some(format), ..OpenOptions::default() };
    let copy = formats::open(path, &open).map_err(|error| error.to_string())?;
    // Rounded up with zeros, which qemu-img passes over.
    let is_rounded = kind.name == "vhd-azure" && copy.disk.size().0 != std::fs::metadata(raw).unwrap().len();
    if !is_rounded {
        let whole = (copy.disk.size().0 <= HASHED_WHOLE).then(|| sha256(&*copy.disk).unwrap());
        verdict(&row.expected, &nz4k(&*copy.disk).map(|nz4k| (copy.disk.size().0, whole, nz4k)))?;
        let digest = convert::digest(&*copy.disk, &Options::default()).map_err(|error| error.to_string())?;
        if digest != converted.digest {
            return Err("other digest".into());
        }
    }
    if let Some(path) = super::pairs::unpacked(kind, path).filter(|_| format != Format::Raw) {
        let compare = Command::new("qemu-img")
            .args(["compare", "-f", "raw", "-F", if format == Format::Vhd { "vpc" } else { format.name() }])
            .args([raw, &path])
            .output();
        match compare {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stdout).into_owned()),
            Err(error) => eprintln!("SKIPPED: qemu-img: {error}"),
        }
    }
    Ok(())
}

/// Whatever bytes are changed or missing, a reader neither panics nor runs without end, and its map is sound.
#[test]
fn damaged_images_do_no_harm() {
    let Some((mut corpus, rows)) = Corpus::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below.max(1)
    };
    let (mut refused, mut read) = (0, 0);
    for row in &rows {
        let image = corpus.image(row);
        let len = std::fs::metadata(&image).unwrap().len();
        if row.path.contains("/raw/") || len > 64 << 20 {
            continue;
        }
        let mut bytes = std::fs::read(&image).unwrap();
        bytes.truncate(4 << 20);
        for round in 0..24 {
            let mut damaged = bytes.clone();
            // Bytes of the structures at both ends, or a part of the file.
            for _ in 0..1 + round % 4 {
                let from_start = next(2) == 0;
                let at = next((damaged.len() as u64).min(if round % 2 == 0 { 1024 } else { 1 << 20 }));
                let at = usize::try_from(at).unwrap();
                let at = if from_start { at } else { damaged.len() - 1 - at };
                let values = [0, 0xff, 0x80, 1, u8::try_from(next(256)).unwrap()];
                let value = values[usize::try_from(next(5)).unwrap()];
                damaged[at] = value;
            }
            if round % 5 == 4 {
                damaged.truncate(usize::try_from(next(damaged.len() as u64)).unwrap());
            }
            let path = folder.path().join(image.file_name().unwrap());
            std::fs::write(&path, &damaged).unwrap();
            match harmless(&path) {
                Ok(()) => read += 1,
                Err(error) => {
                    assert!(!error.says().is_empty(), "{}", row.path);
                    refused += 1;
                }
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
    assert!(refused > 100 && read > 100, "{refused} refused, {read} read: the damage is of no use");
}

/// Walks a good part of the map and reads some of the data.
fn harmless(path: &Path) -> Result<(), Error> {
    let image = formats::open(path, &OpenOptions::default())?;
    let size = image.disk.size().0;
    let mut buf = vec![0; 1 << 16];
    let (mut at, mut reads) = (0, 0);
    for _ in 0..200 {
        if at >= size {
            break;
        }
        let extents = image.disk.extents(GuestRange::between(GuestOffset(at), GuestOffset(size)), 64)?;
        assert!(!extents.is_empty(), "{}: the map ends at {at:#x}", path.display());
        for extent in extents {
            assert_eq!(extent.range.start().0, at, "{}: a gap in the map", path.display());
            assert!(!extent.range.is_empty() && extent.range.end().0 <= size, "{}", path.display());
            if extent.kind == ExtentKind::Data && reads < 64 {
                reads += 1;
                let len = usize::try_from(extent.range.len().0).unwrap().min(buf.len());
                image.disk.read_at(GuestOffset(at), &mut buf[..len])?;
            }
            at = extent.range.end().0;
        }
    }
    let tail = Bytes(size).0.saturating_sub(512);
    let len = usize::try_from(size - tail).unwrap();
    image.disk.read_at(GuestOffset(tail), &mut buf[..len])
}

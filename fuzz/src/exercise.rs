//! What is done with an input.

use crate::sparse::{self, Sparse};
use crate::{limit_memory, repair};
use landfall_boot::windows::reg_file::RegistryFile;
use landfall_boot::windows::draft::{System, Version};
use landfall_boot::windows::drivers::inf::{Inf, install};
use landfall_boot::windows::drivers::signature;
use landfall_image::iso::Iso;
use landfall_image::luks::Secret;
use landfall_image::{
    Bytes, Disk, Error, ExtentKind, Format, GuestOffset, GuestRange, OpenOptions, Source, formats, ova, partition,
    xva,
};
use std::fs::{File, OpenOptions as FileOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Calls of `extents` per input, and the extents of each.
const WALKS: usize = 64;
const EXTENTS: usize = 64;
/// Reads per input, and bytes of each.
const READS: usize = 32;
const READ: usize = (20 << 10) + 512;

/// Of the real volumes in the corpus.
const PASSPHRASE: &[u8] = b"luksde-TEST";

struct Place {
    folder: tempfile::TempDir,
    file: File,
}

/// A folder in memory with the input in it, beside a base, an extent and a parent that it may name.
fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        for name in ["base", "base.raw", "disk-flat.vmdk", "disk-s001.vmdk", "parent.vhd", "parent.vhdx"] {
            let bytes: Vec<u8> = (0u32..200_000).map(|n| n.to_le_bytes()[0] | 1).collect();
            std::fs::write(folder.path().join(name), bytes).expect("a file in it");
        }
        let path = folder.path().join("disk");
        let file = FileOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        limit_memory();
        Place { file: file.expect("the file of the input"), folder }
    })
}

/// Writes the input as a file and says where it lies.
pub fn write(input: &[u8]) -> PathBuf {
    let place = place();
    let sparse = Sparse::decode(input);
    // A full temporary file system is not what is looked for.
    let _ = sparse.write(&place.file);
    if sparse.repair {
        repair::all(&place.file);
    }
    place.folder.path().join("disk")
}

/// The input as an image of that format, or of the one that it says it is: opened, walked, read, checked.
pub fn image(input: &[u8], format: Format) {
    let path = write(input);
    let is_probed = input.first().is_some_and(|flags| flags & sparse::PROBE != 0);
    let format = (!is_probed).then_some(format);
    // How slow a hostile key derivation may be is bounded, but not by what a fuzzer has time for.
    let is_quick = input.first().is_some_and(|flags| flags & sparse::REPAIR != 0);
    let key = (is_quick && is_luks(&path)).then(|| Secret::new(PASSPHRASE.to_vec()));
    let options = OpenOptions { format, key, ..OpenOptions::default() };
    if let Ok(image) = formats::open(&path, &options) {
        let _ = disk(&*image.disk);
    }
    let _ = formats::check(&path, &options);
    // The check itself, of what cannot be opened or whose parent is not there, too.
    if let (Some(check), Ok(source)) = (format.and_then(|format| format.row().check), Source::open(&path)) {
        let _ = check(source, &options.gate);
    }
}

fn is_luks(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"LUKS"
}

/// The input as a disk with a partition table.
pub fn partitions(input: &[u8]) {
    let path = write(input);
    let options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    if let Ok(image) = formats::open(&path, &options) {
        let _ = partition::read(&*image.disk);
    }
}

/// The input as a configuration of Hyper-V, which is read whole.
pub fn hyperv(input: &[u8]) {
    place();
    let _ = landfall::hypervisor::hyperv::read::parse_vmcx(input, &Default::default());
}

/// The input as the definition in an archive of XCP-ng's.
pub fn xen(input: &[u8]) {
    let _ = landfall::hypervisor::xen::read::parse(input, &Default::default());
}

/// The input as a file of regedit's.
pub fn registry_file(input: &[u8]) {
    let Ok(file) = RegistryFile::parse(input, "") else { return };
    assert!(file.changes.iter().all(|change| change.line > 0 && !change.key.starts_with('\\')));
}

/// The input as an archive of XCP-ng's.
pub fn archive(input: &[u8]) {
    let path = write(input);
    let Ok(source) = Source::open(&path) else { return };
    let _ = xva::check(source, &Default::default());
    let Ok(archive) = xva::Archive::open(&path) else { return };
    for name in archive.disks() {
        if let Ok(image) = archive.disk(name) {
            let _ = disk(&*image.disk);
        }
    }
}

/// The input as the INF file of a driver, for each machine that there is; as its catalogue and its program.
pub fn inf(input: &[u8]) {
    let _ = signature::Catalogue::parse(input);
    let _ = signature::Program::parse(input);
    let _ = signature::lists(input, input);
    let Ok(inf) = Inf::parse(input) else { return };
    for (architecture, is_server) in [("x86_64", false), ("i686", false), ("aarch64", true)] {
        let system = System {
            folder: "/Windows".into(),
            version: Version { build: 20348, ..Version::TEN },
            architecture: architecture.into(),
            is_server,
            control: "ControlSet001".into(),
        };
        let Ok(package) = install::Package::read(&inf, &system) else { continue };
        let copies = package.installs.iter().flat_map(|install| &install.copies);
        for path in package.files.iter().chain(copies.map(|copy| &copy.to)) {
            assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
        }
    }
}

/// The input as an optical disc: its folders to some depth, and their files.
pub fn iso(input: &[u8]) {
    let path = write(input);
    let Ok(iso) = Source::open(&path).and_then(Iso::open) else { return };
    let mut folders = vec![iso.root().clone()];
    for _ in 0..WALKS {
        let Some(folder) = folders.pop() else { break };
        let Ok(entries) = iso.list(&folder) else { continue };
        for entry in entries.into_iter().take(EXTENTS) {
            let _ = iso.read(&entry, Bytes::kib(64));
            let _ = iso.find(&entry.name);
            folders.push(entry);
        }
    }
}

/// The input as a package.
pub fn package(input: &[u8]) {
    let path = write(input);
    let Ok(package) = ova::Package::open(&path) else { return };
    let _ = package.descriptor();
    let _ = package.verify(&landfall_image::convert::Cancel::default());
    for name in package.disks() {
        let _ = package.disk(name);
        if let Ok(image) = formats::open(&path.join(name), &OpenOptions::default()) {
            let _ = disk(&*image.disk);
        }
    }
}

/// Walks a good part of the map and reads some of the data; panics where the disk contradicts itself.
pub fn disk(disk: &dyn Disk) -> Result<(), Error> {
    walk(disk, true)
}

/// [`disk`], of one that may answer differently each time: only the shape of its answers counts.
pub fn shape(disk: &dyn Disk) -> Result<(), Error> {
    walk(disk, false)
}

fn walk(disk: &dyn Disk, is_constant: bool) -> Result<(), Error> {
    let size = disk.size().0;
    let mut buf = vec![0; READ];
    let (mut at, mut reads) = (0, 0);
    for _ in 0..WALKS {
        if at >= size {
            break;
        }
        let extents = disk.extents(GuestRange::between(GuestOffset(at), GuestOffset(size)), EXTENTS)?;
        assert!(!extents.is_empty(), "the map ends at {at:#x}");
        for extent in extents {
            assert_eq!(extent.range.start().0, at, "a gap in the map");
            assert!(!extent.range.is_empty() && extent.range.end().0 <= size, "{extent:?}");
            if reads < READS {
                reads += 1;
                let len = usize::try_from(extent.range.len().0).unwrap_or(READ).min(READ);
                disk.read_at(GuestOffset(at), &mut buf[..len])?;
                if is_constant && extent.kind == ExtentKind::Data {
                    twice(disk, at, &buf[..len])?;
                } else if is_constant {
                    assert!(buf[..len].iter().all(|&byte| byte == 0), "data where the map says {extent:?}");
                }
            }
            at = extent.range.end().0;
        }
    }
    // Off every boundary, at the end, and past it.
    for at in [size / 2 + 1, size.saturating_sub(513)] {
        let len = usize::try_from(size.saturating_sub(at)).unwrap_or(READ).min(READ);
        disk.read_at(GuestOffset(at.min(size)), &mut buf[..len])?;
    }
    assert!(disk.read_at(GuestOffset(size), &mut [0]).is_err(), "a byte past the end");
    Ok(())
}

/// A part of what was read is read again, at another length.
fn twice(disk: &dyn Disk, at: u64, bytes: &[u8]) -> Result<(), Error> {
    let from = bytes.len() / 3;
    let mut again = vec![0; (bytes.len() - from) / 2];
    disk.read_at(GuestOffset(at + from as u64), &mut again)?;
    assert!(again == bytes[from..from + again.len()], "another content the second time, at {at:#x}");
    Ok(())
}

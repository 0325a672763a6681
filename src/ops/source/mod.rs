//! A machine as the user names it: a definition on the host, and the disks that it names; a disk image alone; or a recovery point.

mod definition;
mod image;
mod layers;
mod place;
pub mod point;
mod raw;
mod variables;

pub use definition::{Definition, read_alone};
pub use image::Hardware;
pub use place::{open_as, said};
pub use variables::beside as variables_beside;

use super::{Context, packaged, state};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::text::shell_word;
use crate::hypervisor::{self, Beside, Choice, Variables};
use crate::machine::{DiskSlot, Machine};
use crate::moment::Moment;
use landfall_boot::check::Finding;
use landfall_image::formats::Image;
use landfall_image::{Bytes, Disk, Error, Extent, GuestOffset, GuestRange, Kind, Overlay, Result, partition};
use place::Origin;
use point::PointName;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No definition is longer.
const DEFINITION_AT_MOST: u64 = 16 << 20;

/// A definition that was read, with its disks open for reading.
pub struct Loaded {
    /// The machine. Its name is never empty.
    pub machine: Machine,
    /// What it is called at the source, by which a network map knows it.
    pub source_name: String,
    /// The definition's file.
    pub path: PathBuf,
    /// Which hypervisor's definition it is; `image` for none.
    pub hypervisor: &'static str,
    /// Its disks, in the machine's order.
    pub images: Vec<Image>,
    /// Its UEFI variables, where their file lies here.
    pub variables: Option<Variables>,
    /// BLAKE3 of the definition.
    pub digest: String,
    /// What is to be said of the definition.
    pub findings: Vec<Finding>,
}

impl Loaded {
    /// The machine has another name at the target.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.machine.name);
    }

    /// The disks, each with an overlay in `scratch` that takes all writes.
    pub fn overlays(&self, scratch: &Path) -> Result<Vec<Arc<Overlay>>> {
        self.images.iter().map(|image| Overlay::new(Arc::clone(&image.disk), scratch).map(Arc::new)).collect()
    }

    /// The state of the source, as a digest: of its definition, and of its disks by their files. `None` where a disk is none
    /// in a file, so that it can change unseen.
    pub fn state(&self) -> Option<String> {
        // A point never changes.
        let files = match self.hypervisor {
            point::HYPERVISOR => Vec::new(),
            _ => state::of(self.images.iter().flat_map(Image::files))?,
        };
        let variables =
            self.variables.as_ref().map(|variables| blake3::hash(&variables.bytes).to_hex().to_string());
        let text = serde_json::json!({ "definition": self.digest, "files": files, "variables": variables })
            .to_string();
        Some(blake3::hash(text.as_bytes()).to_hex().to_string())
    }

    /// The definition and every file of its disks, parents and extents too, by their real paths.
    pub fn files(&self) -> Vec<PathBuf> {
        let layers = self.images.iter().flat_map(|image| &image.layers);
        let disks = layers.flat_map(|layer| layer.files.iter().chain([&layer.path]));
        disks.chain([&self.path]).filter_map(|path| path.canonicalize().ok()).collect()
    }
}

/// What of a source is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Which machine or state of its definition.
    pub choice: Choice,
    /// Images that lie elsewhere than the definition says: slot and path.
    pub disks: Vec<(String, PathBuf)>,
    /// Slots of disks that are left out.
    pub skipped: Vec<String>,
    /// The file of its UEFI variables.
    pub variables: Option<PathBuf>,
    /// What a definition would say, for an image without one.
    pub hardware: Hardware,
}

/// Reads the source at `path` (a definition, a folder that Hyper-V exported, a disk image, or `point:MACHINE@AT`) and opens its disks.
pub fn load(context: &Context<'_>, path: &Path, wanted: &Wanted) -> Result<Loaded> {
    load_with(context, path, wanted, How { digests: true, unreadable: &mut |_, error| Err(error) })
}

/// What [`load_with`] does beyond the ordinary.
pub struct How<'a> {
    /// Compare the digests of a package with its manifest: that reads all of it.
    pub digests: bool,
    /// Decides about a disk, by its place in the list, that cannot be opened: with `Ok` its place is taken by [`Nothing`].
    pub unreadable: &'a mut dyn FnMut(usize, Error) -> Result<()>,
}

/// As [`load`], otherwise as `how` says.
pub fn load_with(context: &Context<'_>, path: &Path, wanted: &Wanted, mut how: How<'_>) -> Result<Loaded> {
    let named = path.to_str().map_or(Ok(None), |text| PointName::of_source(text, Moment::now()));
    if let Some(name) = named.map_err(|e| e.in_file(path))? {
        context.observer.event(Event::Step(format!("Opening {} of {}", name.at, name.machine)));
        return point::load(context, &name, wanted, &mut how);
    }
    let path = &super::exported::definition(path)?;
    context.observer.event(Event::Step(format!("Reading {}", path.display())));
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
    let is_image = image::is_one(path, &ending)?;
    let Read { mut machine, mut findings, archive, beside, hypervisor, bytes } = match is_image {
        true => image::read(path, wanted)?,
        false => read(context, path, &ending, wanted, how.digests)?,
    };
    if machine.name.trim().is_empty() {
        machine.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    }
    if machine.disks.is_empty() {
        return Err(Error::unsupported("has no disk: there is nothing to bring ashore").in_file(path));
    }
    let named = wanted.disks.iter().map(|(slot, _)| slot).chain(&wanted.skipped);
    for slot in named {
        if !machine.disks.iter().any(|disk| disk.slot == *slot) {
            let slots: Vec<_> = machine.disks.iter().map(|disk| disk.slot.as_str()).collect();
            return Err(Error::refused(format!("has no disk {slot:?}"))
                .in_file(path)
                .hint(format!("its disks are {}", slots.join(", "))));
        }
    }
    skip(&mut machine, &wanted.skipped).map_err(|e| e.in_file(path))?;
    let from = Origin {
        context,
        definition: path,
        archive: archive.as_deref(),
        beside,
        snapshot: wanted.choice.snapshot.as_deref().filter(|_| is_image),
    };
    let mut images: Vec<Image> = Vec::new();
    for disk in &mut machine.disks {
        let named = wanted.disks.iter().find(|(slot, _)| *slot == disk.slot);
        // The image itself is named by the source.
        let named = named.map(|(_, file)| file.as_path());
        let file = named.or(is_image.then_some(path.as_path()));
        let raw = raw::kind(&from, disk);
        findings.extend(raw.as_deref().and_then(|kind| raw::finding(disk, kind, &findings)));
        let opened = from.open(disk, file).and_then(|image| only_once(disk, image, &images));
        let opened = opened.map_err(|error| match raw.filter(|_| named.is_none()) {
            Some(kind) => raw::refused(disk, &kind, &error),
            None if is_image && named.is_none() => error,
            None => with_another_file(error, &disk.slot),
        });
        let image = match opened {
            Ok(image) => image,
            Err(error) => {
                (how.unreadable)(images.len(), error)?;
                images.push(Image { disk: Arc::new(Nothing), layers: Vec::new() });
                continue;
            }
        };
        findings.extend(other_size(disk, image.disk.size()));
        disk.size = disk.size.map(|_| image.disk.size());
        disk.sector_size = sector_size(&*image.disk);
        images.push(image);
    }
    findings.extend(layers::findings(&machine, &images));
    if let Some(first) = images.first().filter(|_| is_image) {
        findings.extend(image::settle(&mut machine, &*first.disk, &wanted.hardware));
    }
    let variables = variables::find(&from, &machine, wanted.variables.as_deref())?;
    Ok(Loaded {
        variables,
        source_name: machine.name.clone(),
        machine,
        path: path.to_owned(),
        hypervisor,
        images,
        digest: blake3::hash(&bytes).to_hex().to_string(),
        findings,
    })
}

/// A source that was read, before its disks are opened.
struct Read {
    machine: Machine,
    findings: Vec<Finding>,
    archive: Option<Box<dyn packaged::Archive>>,
    beside: Beside,
    hypervisor: &'static str,
    /// The definition.
    bytes: Vec<u8>,
}

/// Reads a definition and what lies around it.
fn read(context: &Context<'_>, path: &Path, ending: &str, wanted: &Wanted, digests: bool) -> Result<Read> {
    if wanted.hardware != Hardware::default() {
        return Err(Error::refused(
            "is a definition, which says itself what --memory, --cpus, --firmware and --nic say of an image",
        )
        .in_file(path)
        .hint("leave them out; a map (--map) changes the memory, processors and addresses of a machine"));
    }
    let (archive, bytes) = match packaged::open(context, path, ending, digests)? {
        Some((archive, bytes)) => (Some(archive), bytes),
        None => (None, read_definition(path)?),
    };
    let Some(reader) = hypervisor::reader(ending, &bytes) else {
        return Err(Error::unsupported(
            "is neither a machine definition that landfall reads nor a disk image",
        )
        .in_file(path)
        .hint(image::kinds_hint()));
    };
    let mut parsed = (reader.parse)(&bytes, &wanted.choice).map_err(|e| e.in_file(path))?;
    if archive.is_none() {
        let definition = (path, bytes.as_slice());
        packaged::beside(context, reader.beside, definition, &wanted.choice, digests, &mut parsed)?;
    }
    let strangers = archive.as_ref().map(|archive| archive.strangers()).unwrap_or_default();
    parsed.unread.extend(strangers.iter().map(|name| format!("member {name}")));
    let findings = parsed.all_findings();
    Ok(Read {
        machine: parsed.machine,
        findings,
        archive,
        beside: reader.beside,
        hypervisor: reader.name,
        bytes,
    })
}

/// The option that says where a disk lies, to be copied: places of Hyper-V have a blank in them.
pub fn disk_option(slot: &str, file: &str) -> String {
    format!("--disk {}", shell_word(&format!("{slot}={file}")))
}

/// The option that leaves a disk out.
pub fn skip_option(slot: &str) -> String {
    format!("--skip-disk {}", shell_word(slot))
}

/// The failure to open a disk, with the way out that is always there.
pub fn with_another_file(error: Error, slot: &str) -> Error {
    let another = format!("name a good copy with {}", disk_option(slot, "FILE"));
    match error.hint_text().map(str::to_owned) {
        _ if error.kind() == Kind::Interrupted => error,
        Some(hint) if hint.contains("--disk") => error,
        Some(hint) => error.hint(format!("{hint}; or {another}")),
        None => error.hint(format!("copy it from the source again, or {another}")),
    }
}

/// Refuses an image that is another disk of the machine already: names of two datastores can end alike, and only one of the
/// files lies beside the definition.
fn only_once(disk: &DiskSlot, image: Image, others: &[Image]) -> Result<Image> {
    let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    // Disks of one archive have its path, and other details: which member each is.
    let top = |image: &Image| image.layers.first().map(|layer| (real(&layer.path), layer.details.clone()));
    match top(&image).filter(|own| others.iter().any(|other| top(other).as_ref() == Some(own))) {
        None => Ok(image),
        Some((path, _)) => Err(Error::refused(format!(
            "{} is {:?} in the definition, and the file of that name here is another disk of the machine already",
            disk.slot, disk.file
        ))
        .in_file(&path)
        .hint(format!("name the file of each with --disk: {}", disk_option(&disk.slot, "FILE")))),
    }
}

/// That the definition gives the disk another size than its image has.
fn other_size(disk: &DiskSlot, size: Bytes) -> Option<Finding> {
    // Definitions round, to MiB at most.
    let said = disk.size.filter(|said| said.0.abs_diff(size.0) >= 1 << 20)?;
    Some(finding::DISK_SIZE.finding(
        format!(
            "{} has {} in the definition, and its image {}: the image's size is what counts.",
            disk.slot, said, size
        ),
        "Look whether it is the right image.",
    ))
}

/// A disk without a byte, in the place of one that cannot be read.
pub struct Nothing;

impl Disk for Nothing {
    fn size(&self) -> Bytes {
        Bytes(0)
    }

    fn extents(&self, _range: GuestRange, _at_most: usize) -> Result<Vec<Extent>> {
        Ok(Vec::new())
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        match buf.is_empty() {
            true => Ok(()),
            false => Err(Error::refused(format!("the disk has no byte at {:#x}", at.0))),
        }
    }
}

/// The logical sectors that the guest sees, where they are not of 512 bytes: as the image says, or, for one that cannot say,
/// as its partition table counts.
fn sector_size(disk: &dyn Disk) -> Option<Bytes> {
    // A table that cannot be read is told where the volumes are looked for.
    let table = partition::read(disk).ok().flatten().map_or(Bytes(0), |table| table.sector_size);
    Some(disk.sector_size().max(table)).filter(|size| size.0 != USUAL_SECTOR)
}

const USUAL_SECTOR: u64 = 512;

/// The machine without the disks of those slots.
fn skip(machine: &mut Machine, slots: &[String]) -> Result<()> {
    let is_skipped = |disk: &DiskSlot| slots.contains(&disk.slot);
    if let Some(boot) = machine.disks.get(machine.boot_disk()).filter(|disk| is_skipped(disk)) {
        return Err(Error::refused(format!("{} is the disk that the machine starts from", boot.slot))
            .hint("leave out disks with data only"));
    }
    if let Some(boot) = machine.boot_disk {
        machine.boot_disk = Some(machine.disks.iter().take(boot).filter(|disk| !is_skipped(disk)).count());
    }
    machine.disks.retain(|disk| !is_skipped(disk));
    Ok(())
}

fn read_definition(path: &Path) -> Result<Vec<u8>> {
    let source = landfall_image::Source::open(path)?;
    if source.len().0 > DEFINITION_AT_MOST {
        return Err(Error::refused(format!(
            "has {}; a definition has at most {} bytes",
            source.len(),
            DEFINITION_AT_MOST
        ))
        .in_file(path)
        .hint(image::kinds_hint()));
    }
    source.head(usize::try_from(source.len().0).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::testing::MemDisk;

    /// What is to be copied is one word for a shell, whatever the definition calls a place.
    #[test]
    fn options_can_be_copied() {
        assert_eq!(super::disk_option("scsi0:0", "FILE"), "--disk scsi0:0=FILE");
        assert_eq!(super::disk_option("SCSI 0:0", "FILE"), "--disk 'SCSI 0:0=FILE'");
        assert_eq!(super::skip_option("a'$(id)"), r"--skip-disk 'a'\''$(id)'");
    }

    fn crc32(bytes: &[u8]) -> [u8; 4] {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
            })
        };
        (!bytes.iter().fold(u32::MAX, step)).to_le_bytes()
    }

    /// A disk with a GPT of one partition of that type, in sectors of that size.
    pub(super) fn gpt(sector: usize, kind: [u8; 16]) -> Vec<u8> {
        let sectors = 1024_u32;
        let mut disk = vec![0; sector * 1024];
        disk[446 + 4] = 0xee;
        disk[446 + 8] = 1;
        disk[446 + 12..446 + 16].copy_from_slice(&(sectors - 1).to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut array = vec![0; 128 * 128];
        array[..16].copy_from_slice(&kind);
        array[16..32].fill(7);
        array[32..40].copy_from_slice(&100_u64.to_le_bytes());
        array[40..48].copy_from_slice(&200_u64.to_le_bytes());
        disk[2 * sector..2 * sector + array.len()].copy_from_slice(&array);
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        for (at, value) in [(24, 1), (32, u64::from(sectors) - 1), (40, 40), (48, 900), (72, 2)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[80..88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
        header[88..].copy_from_slice(&crc32(&array));
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum);
        disk[sector..sector + 92].copy_from_slice(&header);
        disk
    }

    #[test]
    fn disks_are_left_out_and_the_boot_disk_stays() {
        let mut machine = Machine::new("a", Bytes::gib(1));
        for name in ["a", "b", "c"] {
            machine.disks.push(DiskSlot::new(name, crate::machine::Bus::Scsi, name));
        }
        machine.boot_disk = Some(2);
        assert!(skip(&mut machine, &["c".into()]).is_err(), "it starts from that one");
        skip(&mut machine, &["a".into()]).unwrap();
        let left: Vec<_> = machine.disks.iter().map(|disk| disk.slot.as_str()).collect();
        assert_eq!((left, machine.boot_disk), (vec!["b", "c"], Some(1)));
    }

    #[test]
    fn sectors_are_as_the_partition_table_counts() {
        assert_eq!(sector_size(&MemDisk::from_bytes(gpt(4096, [7; 16]))), Some(Bytes(4096)));
        assert_eq!(sector_size(&MemDisk::from_bytes(gpt(512, [7; 16]))), None);
        assert_eq!(sector_size(&MemDisk::from_bytes(vec![0; 8192])), None);
    }
}

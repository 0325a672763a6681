//! The appliance's image, from packages to a disk: what `landfall appliance build` does.
//!
//! ```text
//! packages -> root -> squashfs --------------+
//!          -> kernel, initrd -> ISO 9660 ----+-> GPT disk -> converter -> qcow2, vmdk, vhdx, raw, ova
//!          -> shim, GRUB -> ESP (FAT) -------+-> disc (super::disc)
//!          -> GRUB's core, boot code --------+-> update (super::update)
//! ```
//! The same list, the same program and the same key give the same bytes: nothing here asks for the time, a random number or the
//! order in which threads end.

use super::fetch::{Packages, hex};
use super::files;
use crate::event::Event;
use crate::ops::Context;
use landfall_boot::appliance::layout::{self, Choice, Medium, Slot};
use landfall_boot::appliance::modules::Modules;
use landfall_boot::appliance::package::{self, List, Package, Placed, What};
use landfall_boot::appliance::root::{Kind, Node, Root};
use landfall_boot::appliance::{grub, initrd};
use landfall_image::composed::Composed;
use landfall_image::fat::{FatOptions, FatVolume};
use landfall_image::iso::create::{IsoOptions, NewIso};
use landfall_image::partition::create::{GptLayout, NewPartition};
use landfall_image::{Bytes, Disk, Error, Gate, GuestOffset, GuestRange, Result, Source, squashfs};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Packages of which parts start the machine; nothing of theirs is in the root.
const LOADERS: [&str; 3] = ["grub-pc-bin", "grub-efi-amd64-signed", "shim-signed"];

/// Bytes of the root's compressed blocks: large ones pack better, small ones are read faster.
const BLOCK: Bytes = Bytes::kib(256);

/// What an image is made of.
pub struct Parts {
    /// The list and its packages' versions.
    pub list: List,
    /// The program inside.
    pub program: Vec<u8>,
    /// The key that updates must be signed with, where there is one.
    pub update_key: Option<Vec<u8>>,
    /// Of the root's compression: 1 to 22.
    pub level: i32,
}

/// A system: what one slot holds.
pub struct System {
    /// The kernel, as the distribution signed it.
    pub kernel: Vec<u8>,
    /// What it starts from.
    pub initrd: Vec<u8>,
    /// What it starts from on a disc, where one is wanted.
    pub disc_initrd: Option<Vec<u8>>,
    /// The compressed root.
    pub root: File,
    /// Its length.
    pub root_size: Bytes,
    /// The kernel's release.
    pub release: String,
    /// What starts the machine: paths on the ESP.
    pub(super) loaders: Loaders,
    /// When the list was made, in seconds since 1970: the time of every file.
    pub(super) time: u32,
}

/// What starts the machine.
pub(super) struct Loaders {
    pub shim: Vec<u8>,
    pub grub: Vec<u8>,
    /// GRUB's parts for BIOS firmware, by their names.
    pub bios: BTreeMap<String, Vec<u8>>,
}

/// Makes the system of the parts. `disc`: with what it needs to start from one.
///
/// # Errors
/// What packages cannot be had, or do not fit together.
pub fn system(context: &Context<'_>, parts: &Parts, packages: &Packages, disc: bool) -> Result<System> {
    let step = |says: &str| context.observer.event(Event::Step(says.to_owned()));
    step(&format!("Fetching {} packages of {}", parts.list.packages.len(), parts.list.snapshot));
    let patterns = files::left_out(files::LEFT_OUT);
    let mut loaders = BTreeMap::new();
    let mut root = Root::default();
    let laid: Result<Vec<(&Package, Vec<Placed>)>> = parts
        .list
        .packages
        .par_iter()
        .map(|package| {
            let deb = packages.get(&parts.list, package, &context.cancel)?;
            let placed = package::data(&deb).and_then(|tar| package::files(&tar));
            Ok((package, placed.map_err(|e| e.in_file(Path::new(package.file_name())))?))
        })
        .collect();
    step("Laying out the root");
    // Those links stand where some packages still have folders.
    files::put(&mut root);
    for (package, placed) in laid? {
        if LOADERS.contains(&package.name.as_str()) {
            loaders.extend(placed.into_iter().filter_map(|placed| match placed.what {
                What::File(content) => Some((placed.path, content)),
                _ => None,
            }));
            continue;
        }
        root.lay(placed, |path| files::wanted(path, &patterns))?;
    }
    // And again: what is our own counts more.
    files::put(&mut root);
    root.file("/usr/bin/landfall", 0o755, parts.program.clone());
    root.file(super::SNAPSHOT, 0o444, format!("{}\n", parts.list.snapshot));
    if let Some(key) = &parts.update_key {
        root.file(super::UPDATE_KEY, 0o444, key.clone());
    }
    step("Indexing the kernel's modules");
    let mut modules = Modules::read(&root)?;
    let unusable = modules.prune();
    root.remove(|path| unusable.iter().any(|gone| gone == path));
    for (name, content) in modules.indexes()? {
        root.file(&format!("{}/{name}", modules.folder), 0o644, content);
    }
    let kernel =
        root.read(&format!("/boot/vmlinuz-{}", modules.release()))
            .map(|content| content.to_vec())
            .ok_or_else(|| Error::corrupt(format!("the packages hold no kernel {}", modules.release())))?;
    super::bill::put(&mut root, parts)?;
    check(&root)?;
    step("Compressing the initrd and the root");
    let losetup = disc.then(|| root.program(initrd::LOSETUP)).transpose()?;
    let (initrd, disc_initrd) = rayon::join(
        || initrd::build(&modules, &parts.program, None),
        || losetup.as_ref().map(|files| initrd::build(&modules, &parts.program, Some(files))).transpose(),
    );
    let (initrd, disc_initrd) = (initrd?, disc_initrd?);
    let release = modules.release().to_owned();
    drop(modules);
    let time = moment(&parts.list.snapshot)?;
    let mut file = tempfile::tempfile_in(&context.scratch)
        .map_err(|e| Error::io("cannot make a scratch file", e).in_file(&context.scratch))?;
    let root_size = compress(root, &mut file, time, parts.level)?;
    if root_size > layout::ROOT_SIZE {
        return Err(Error::refused(format!(
            "the root has {root_size}, and its partition only {}",
            layout::ROOT_SIZE
        )));
    }
    let take = |loaders: &mut BTreeMap<String, Vec<u8>>, path: &str| {
        loaders.remove(path).ok_or_else(|| Error::corrupt(format!("the packages hold no {path}")))
    };
    let shim = take(&mut loaders, "/usr/lib/shim/shimx64.efi.signed")?;
    let grub = take(&mut loaders, "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")?;
    let bios = loaders
        .into_iter()
        .filter_map(|(path, content)| {
            Some((path.strip_prefix("/usr/lib/grub/i386-pc/")?.to_owned(), content))
        })
        .collect();
    let loaders = Loaders { shim, grub, bios };
    Ok(System { kernel, initrd, disc_initrd, root: file, root_size, release, loaders, time })
}

/// Programs without their libraries, and units that are started and not there, are found here and not at the recovery site.
fn check(root: &Root) -> Result<()> {
    let missing = root.missing_libraries();
    if !missing.is_empty() {
        return Err(Error::corrupt(format!("libraries are missing in the root: {}", missing.join(", ")))
            .hint("add their packages to packaging/appliance/wanted.txt, or leave their users out"));
    }
    let dangling: Vec<String> =
        root.dangling("/etc/systemd/").into_iter().filter(|link| !link.ends_with("/dev/null")).collect();
    if !dangling.is_empty() {
        return Err(Error::corrupt(format!("the root has links to nothing: {}", dangling.join(", "))));
    }
    Ok(())
}

/// `20261130T000000Z` in seconds since 1970.
fn moment(snapshot: &str) -> Result<u32> {
    let wrong = || {
        Error::corrupt(format!("the package list's moment {snapshot:?} is none"))
            .hint("it is written 20261130T000000Z")
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", snapshot).map_err(|_| wrong())?;
    let time = jiff::tz::Offset::UTC.to_timestamp(time).map_err(|_| wrong())?;
    u32::try_from(time.as_second()).map_err(|_| wrong())
}

fn compress(root: Root, out: &mut File, time: u32, level: i32) -> Result<Bytes> {
    let meta = |node: &Node| squashfs::Meta {
        mode: u16::try_from(node.mode & 0o7777).unwrap_or(0o755),
        uid: node.owner.0,
        gid: node.owner.1,
    };
    let mut tree = squashfs::Tree::new(squashfs::Meta { mode: 0o755, uid: 0, gid: 0 });
    for (path, node) in root.nodes() {
        match &node.kind {
            Kind::Folder => tree.dir(path, meta(node))?,
            Kind::File(content) => tree.file(path, meta(node), content.to_vec())?,
            Kind::Link(target) => tree.symlink(path, meta(node), target)?,
        }
    }
    drop(root);
    tree.write(out, squashfs::SquashOptions { block_size: BLOCK, level, time })
}

/// The identity of something in the image: the same for the same content.
fn identity(system: &System, what: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(what);
    hash.update(Sha256::digest(&system.kernel));
    hash.update(Sha256::digest(&system.initrd));
    hash.update(system.root_size.0.to_le_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid()
}

/// The disk with that system in its first slot.
///
/// # Errors
/// Where the parts do not fit into their places.
pub fn disk(system: &System) -> Result<Composed> {
    let size = layout::image_size();
    let place = |name: &str| {
        let found = layout::partitions().find(|(_, partition, _)| partition.name == name);
        found.map(|(_, _, range)| range).ok_or_else(|| Error::corrupt(format!("the layout has no {name}")))
    };
    let (bios, esp) = (place(layout::BIOS_BOOT_NAME)?, place(layout::ESP_NAME)?);
    let disk_guid = identity(system, "disk");
    let core_sector = bios.start().0 / 512;
    let parts = |name: &str| system.loaders.bios.get(name).map(Vec::as_slice);
    let core = grub::core(&parts, grub::From::Disk { sector: core_sector }, &layout::grub_prefix())?;
    if core.len() as u64 > bios.len().0 {
        return Err(Error::refused(format!(
            "GRUB's core has {} bytes, and its partition {}",
            core.len(),
            bios.len()
        )));
    }
    let partitions = layout::partitions().map(|(number, partition, range)| NewPartition {
        name: partition.name.to_owned(),
        type_guid: partition.kind,
        guid: identity(system, &format!("partition {number}")),
        range,
        attributes: 0,
    });
    let table = GptLayout {
        disk_guid,
        sector_size: Bytes(512),
        boot_code: grub::boot_code(&parts, core_sector)?,
        partitions: partitions.collect(),
    };
    let mut disk = Composed::new(size);
    for (at, bytes) in table.areas(size)? {
        disk.put(at, bytes)?;
    }
    disk.put(bios.start(), core)?;
    disk.put(esp.start(), self::esp(system, esp, disk_guid)?)?;
    disk.put(place(Slot::A.boot_name())?.start(), boot_volume(system)?)?;
    disk.put(place(Slot::A.root_name())?.start(), root_disk(system)?)?;
    Ok(disk)
}

/// What the loader starts of a slot, as its partition has it.
///
/// # Errors
/// `Refused` where it is larger than that.
pub fn boot_volume(system: &System) -> Result<Arc<dyn Disk>> {
    let options = IsoOptions { volume: "KERNEL".into(), time: system.time, bios: None, efi: None };
    let mut iso = NewIso::new(options)?;
    iso.file("vmlinuz", system.kernel.as_slice())?;
    iso.file("initrd", system.initrd.as_slice())?;
    let volume = iso.finish()?.disk;
    if volume.size() > layout::BOOT_SIZE {
        return Err(Error::refused(format!(
            "kernel and initrd take {}; a slot has room for {}",
            volume.size(),
            layout::BOOT_SIZE
        )));
    }
    Ok(Arc::new(volume))
}

/// The compressed root, as a disk.
///
/// # Errors
/// `Io`
pub fn root_disk(system: &System) -> Result<Arc<dyn Disk>> {
    let file = system.root.try_clone().map_err(|e| Error::io("cannot read the compressed root", e))?;
    let place = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let layer = landfall_image::raw::open(Source::open(Path::new(&place))?, &Gate::own_folder())?;
    Ok(layer.disk)
}

fn esp(system: &System, range: GuestRange, disk: Uuid) -> Result<Arc<dyn Disk>> {
    let id = identity(system, "esp").as_u128();
    let mut volume = FatVolume::new(FatOptions {
        size: range.len(),
        serial: u32::try_from(id & 0xffff_ffff).unwrap_or_default(),
        label: "LANDFALL".into(),
        hidden_sectors: u32::try_from(range.start().0 / 512).unwrap_or_default(),
        time: system.time,
    })?;
    let config = |rest: &str| format!("configfile {rest}\n").into_bytes();
    let choice = Choice { slot: Slot::A, trial: None, deployment: None };
    for (path, content) in [
        ("EFI/BOOT/BOOTX64.EFI", system.loaders.shim.clone()),
        ("EFI/BOOT/grubx64.efi", system.loaders.grub.clone()),
        ("EFI/debian/grub.cfg", config("/landfall/grub.cfg")),
        ("grub/grub.cfg", config("/landfall/grub.cfg")),
        ("landfall/grub.cfg", layout::grub_configuration(Medium::Disk(disk)).into_bytes()),
        (layout::ENVIRONMENT, choice.render()),
    ] {
        volume.file(path, content)?;
    }
    Ok(volume.finish()?.disk)
}

/// The digest of everything that a slot holds, in hexadecimal digits.
///
/// # Errors
/// Where the root cannot be read.
pub fn digest(system: &System) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(Sha256::digest(&system.kernel));
    hash.update(Sha256::digest(&system.initrd));
    each(root_disk(system)?.as_ref(), system.root_size, |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    Ok(hex(&hash.finalize()))
}

/// The first `size` bytes of a disk, piece by piece.
///
/// # Errors
/// Where it cannot be read, and those of `take`.
pub fn each(disk: &dyn Disk, size: Bytes, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size.0 {
        let len = usize::try_from((size.0 - at).min(1 << 20)).unwrap_or(1 << 20);
        let Some(part) = buffer.get_mut(..len) else { break };
        disk.read_at(GuestOffset(at), part)?;
        take(part)?;
        at += len as u64;
    }
    Ok(())
}

/// Writes a small file beside an image.
///
/// # Errors
/// `Io`
pub fn beside(path: &Path, content: &[u8], is_script: bool) -> Result<()> {
    let failed = |e| Error::io("cannot write", e).in_file(path);
    let mut file = File::create(path).map_err(failed)?;
    let mode = if is_script { 0o755 } else { 0o644 };
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

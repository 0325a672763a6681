//! Boot files: whether there are some for the machine's firmware, and the loader that UEFI firmware starts when it remembers
//! nothing.
//!
//! A machine at another hypervisor has empty UEFI variables. Firmware then starts `\EFI\Boot\boot{x64,ia32,aa64}.efi`, which
//! Windows' own setup writes, too, but does not always keep up to date.
//!
//! Source: UEFI specification, 3.5.1.1 (removable media boot behaviour); the version resource is Microsoft's
//! VS_VERSIONINFO.

use super::super::{BOOT, ESP};
use super::stores;
use crate::patch::Action;
use crate::target::Firmware;
use crate::tree::{GuestTree, GuestTreeExt};
use crate::windows::draft::Draft;
use crate::{Kind, Result};
use landfall_image::Bytes;
use object::pe::{ImageNtHeaders32, ImageNtHeaders64};
use object::read::pe::{ImageNtHeaders, PeFile, ResourceDirectoryEntryData};
use object::{FileKind, LittleEndian as LE};

/// The largest loader that is looked into; real ones have 1 to 3 MB.
const LOADER_AT_MOST: Bytes = Bytes::mib(16);

/// Windows' own, on the EFI system partition.
fn own() -> String {
    format!("{ESP}/EFI/Microsoft/Boot/bootmgfw.efi")
}

fn first_of(tree: &dyn GuestTree, paths: Vec<String>) -> Result<Option<String>> {
    for path in paths {
        if tree.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The boot manager that the firmware starts; `None` where it, or its store, is not there.
///
/// # Errors
/// As the guest's files'.
pub fn manager(tree: &dyn GuestTree, firmware: Firmware) -> Result<Option<String>> {
    if first_of(tree, stores(firmware))?.is_none() {
        return Ok(None);
    }
    let managers = match firmware {
        Firmware::Uefi => vec![own()],
        Firmware::Bios => vec![format!("{BOOT}/bootmgr"), "/bootmgr".to_owned()],
    };
    first_of(tree, managers)
}

/// True where the disk has what the request's firmware starts from; else there is a finding that blocks.
pub(super) fn is_there(draft: &mut Draft<'_>) -> Result<bool> {
    let has = |firmware| Ok::<_, crate::Error>(manager(draft.scene.tree, firmware)?.is_some());
    let (uefi, bios) = (has(Firmware::Uefi)?, has(Firmware::Bios)?);
    match (draft.request.firmware, uefi, bios) {
        (Firmware::Uefi, true, _) | (Firmware::Bios, _, true) => return Ok(true),
        (Firmware::Uefi, false, true) => draft.find(
            "windows-firmware-bios",
            "The machine starts by UEFI, and Windows on its disks is set up to start by BIOS.",
            "Set the source machine's firmware to BIOS (--firmware bios for a disk image), or run `mbr2gpt /convert /allowFullOS` in the running guest first.",
        ),
        (Firmware::Bios, true, false) => draft.find(
            "windows-firmware-uefi",
            "The machine starts by BIOS, and Windows on its disks is set up to start by UEFI.",
            "Set the source machine's firmware to UEFI (--firmware uefi for a disk image).",
        ),
        (_, false, false) => draft.find(
            "windows-boot-files-missing",
            "Windows' boot manager and boot configuration are on none of the given disks.",
            "Give all disks of the machine, or write them anew in the source machine with `bcdboot C:\\Windows`.",
        ),
    }
    Ok(false)
}

/// Sees that firmware without variables starts Windows.
pub(super) fn fallback(draft: &mut Draft<'_>) -> Result<()> {
    if draft.request.firmware != Firmware::Uefi {
        return Ok(());
    }
    let name = match draft.system.architecture.as_str() {
        "x86_64" => "bootx64.efi",
        "aarch64" => "bootaa64.efi",
        _ => "bootia32.efi",
    };
    let path = format!("{ESP}/EFI/Boot/{name}");
    let why = "Firmware that remembers nothing starts this file; Windows' own boot manager is put there.";
    let tree = draft.scene.tree;
    if !tree.exists(&path)? {
        return draft.copy_if_absent(&path, &own(), why);
    }
    let read = |path: &str| match tree.read(path, LOADER_AT_MOST) {
        Err(error) if error.kind() == Kind::Refused => Ok(None),
        other => other,
    };
    let (there, own) = (read(&path)?.unwrap_or_default(), read(&own())?.unwrap_or_default());
    if there == own {
        return Ok(());
    }
    match (version(&there), version(&own)) {
        (Some(there), Some(new)) if there < new => draft.push(
            &path,
            Action::Copy { from: self::own() },
            &format!("Firmware that remembers nothing starts this file; it was Windows' boot manager {there}, older than {new}."),
        ),
        (Some(_), _) => {}
        (None, _) => draft.find(
            "windows-fallback-loader",
            format!("Firmware that remembers nothing starts {}, and that is another system's loader, not Windows'.", path.trim_start_matches(ESP)),
            "Choose Windows Boot Manager in the firmware's menu at the first start at the target; Windows then enters itself.",
        ),
    }
    Ok(())
}

/// A file's version: four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileVersion([u16; 4]);

impl std::fmt::Display for FileVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

/// The version of a program of Microsoft's; `None` for anybody else's, and for what is damaged.
pub(super) fn version(file: &[u8]) -> Option<FileVersion> {
    match FileKind::parse(file).ok()? {
        FileKind::Pe64 => of_resource(version_resource::<ImageNtHeaders64>(file)?),
        FileKind::Pe32 => of_resource(version_resource::<ImageNtHeaders32>(file)?),
        _ => None,
    }
}

/// The first version resource: type 16, any name, any language.
fn version_resource<Pe: ImageNtHeaders>(file: &[u8]) -> Option<&[u8]> {
    const VERSION: u16 = 16;
    let pe = PeFile::<Pe>::parse(file).ok()?;
    let sections = pe.section_table();
    let resources = pe.data_directories().resource_directory(file, &sections).ok()??;
    let root = resources.root().ok()?;
    let of_type = root.entries.iter().find(|entry| entry.name_or_id().id() == Some(VERSION))?;
    let ResourceDirectoryEntryData::Table(names) = of_type.data(resources).ok()? else { return None };
    let ResourceDirectoryEntryData::Table(languages) = names.entries.first()?.data(resources).ok()? else {
        return None;
    };
    let ResourceDirectoryEntryData::Data(entry) = languages.entries.first()?.data(resources).ok()? else {
        return None;
    };
    let (at, len) = (entry.offset_to_data.get(LE), usize::try_from(entry.size.get(LE)).ok()?);
    sections.pe_data_at(file, at)?.get(..len)
}

/// `length, length of the value, type, "VS_VERSION_INFO", padding, fixed part …`
fn of_resource(resource: &[u8]) -> Option<FileVersion> {
    const FIXED: usize = 40;
    const MAGIC: u32 = 0xfeef_04bd;
    let field = |at: usize| {
        let bytes = resource.get(FIXED + at..FIXED + at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if field(0)? != MAGIC {
        return None;
    }
    let vendor: Vec<u8> = "Microsoft Corporation".encode_utf16().flat_map(u16::to_le_bytes).collect();
    resource.windows(vendor.len()).find(|window| *window == vendor)?;
    let halves = |number: u32| [(number >> 16) as u16, (number & 0xffff) as u16];
    let ([a, b], [c, d]) = (halves(field(8)?), halves(field(12)?));
    Some(FileVersion([a, b, c, d]))
}

//! What Windows starts from: its boot configuration ([`bcd`]), boot files ([`loader`]), drive letters ([`letters`]), and
//! settings of the first start on other hardware ([`settings`]).
//!
//! ```text
//! UEFI: /:esp/EFI/Microsoft/Boot/bootmgfw.efi + BCD -> default entry -> \Windows\System32\winload.efi
//! BIOS: boot sector -> /bootmgr (or /:boot/bootmgr) + Boot/BCD       -> \Windows\System32\winload.exe
//! ```
//! Disk signatures, partitions and their offsets stay as they are, so that what these stores say of them stays true.
//!
//! Deliberately absent: making boot files for a firmware that the disk has none for (that is `mbr2gpt`'s, in the running
//! guest), and boot managers of before Vista.

pub mod bcd;
pub mod identity;
pub mod letters;
pub mod loader;
pub mod settings;

use super::draft::Draft;
use super::{BOOT, ESP};
use crate::target::Firmware;
use crate::tree::GuestTreeExt;
use crate::{Kind, Result};
use bcd::{BootEntry, Store};

/// Element of an entry that switches graphics off: a display of UEFI has nothing else.
const GRAPHICS_OFF: u32 = 0x1600_0046;

/// The file of the boot configuration for the request's firmware; `None` where the guest has none for it.
///
/// # Errors
/// As its files'.
pub fn store_path(draft: &Draft<'_>) -> Result<Option<String>> {
    for path in stores(draft.request.firmware) {
        if draft.scene.tree.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn stores(firmware: Firmware) -> Vec<String> {
    match firmware {
        Firmware::Uefi => vec![format!("{ESP}/EFI/Microsoft/Boot/BCD")],
        Firmware::Bios => vec![format!("{BOOT}/Boot/BCD"), "/Boot/BCD".to_owned()],
    }
}

/// The entries of the boot configuration that the request's firmware uses: facts.
///
/// # Errors
/// Where its hive cannot be read.
pub fn entries(draft: &mut Draft<'_>) -> Result<Vec<BootEntry>> {
    let Some(path) = store_path(draft)? else { return Ok(Vec::new()) };
    let volumes = draft.scene.volumes;
    match draft.hive(&path)? {
        Some(hive) => Ok(Store::read(hive)?.entries(volumes)),
        None => Ok(Vec::new()),
    }
}

/// Boot files and boot configuration for the request's firmware, drive letters, settings.
pub fn plan(draft: &mut Draft<'_>) -> Result<()> {
    if loader::is_there(draft)? {
        loader::fallback(draft)?;
        store(draft)?;
    }
    letters::plan(draft)?;
    settings::plan(draft)
}

/// The default entry.
fn store(draft: &mut Draft<'_>) -> Result<()> {
    let Some(path) = store_path(draft)? else { return Ok(()) };
    let entries = match entries(draft) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Refused) => {
            draft.find(
                "windows-boot-store-unreadable",
                format!("The boot configuration {path} cannot be read: {error}"),
                "Repair it in the source machine (`bootrec /rebuildbcd` of its recovery environment), then convert again.",
            );
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Some(entry) = entries.iter().find(|entry| entry.is_default) else {
        draft.find(
            "windows-boot-entry-missing",
            format!("The boot configuration {path} has no default entry that starts Windows."),
            "Choose one in the source machine with `bcdedit /default`, or rebuild it with `bcdboot C:\\Windows`.",
        );
        return Ok(());
    };
    about(draft, entry);
    if draft.request.firmware == Firmware::Uefi
        && let Some(hive) = draft.hive(&path)?
    {
        hive.delete(
            &format!("Objects\\{}\\Elements\\{GRAPHICS_OFF:08x}", entry.id),
            "With graphics switched off the display of other UEFI firmware stays black.",
        )?;
    }
    Ok(())
}

/// What of the default entry a person must know.
fn about(draft: &mut Draft<'_>, entry: &BootEntry) {
    let name = &entry.description;
    if let (Some(device), None) = (&entry.device, &entry.volume) {
        draft.find(
            "windows-boot-device-missing",
            format!("The boot entry {name:?} starts Windows from {device}, which is on none of the given disks."),
            "Give all disks of the machine, or rebuild the boot configuration in the source machine with `bcdboot C:\\Windows`.",
        );
    }
    let own = draft.scene.mounts.iter().find(|mount| mount.at == "/").map(|mount| &mount.volume);
    if let (Some(volume), Some(own)) = (&entry.volume, own)
        && volume != own
    {
        draft.find(
            "windows-boot-other-volume",
            format!(
                "The boot entry {name:?} starts Windows from {}, and this plan is for the one on {}.",
                volume.0, own.0
            ),
            "Make this Windows the default in the source machine with `bcdedit /default`, or choose the other one with --root.",
        );
    }
    let ends = match draft.request.firmware {
        Firmware::Uefi => ".efi",
        Firmware::Bios => ".exe",
    };
    if !entry.path.is_empty() && !entry.path.to_ascii_lowercase().ends_with(ends) {
        draft.find(
            "windows-boot-path",
            format!(
                "The boot entry {name:?} starts {}, which is not for this machine's firmware.",
                entry.path
            ),
            "Rebuild the boot configuration in the source machine with `bcdboot C:\\Windows`.",
        );
    }
    if entry.safe_mode {
        draft.find(
            "windows-boot-safe-mode",
            format!("The boot entry {name:?} starts Windows in safe mode, in which drivers and services of ours do not start."),
            "Take that back in the source machine with `bcdedit /deletevalue {default} safeboot`, then convert again.",
        );
    }
    if entry.hypervisor == Some(true) {
        draft.find(
            "windows-hypervisor-starts",
            format!("The boot entry {name:?} starts Windows' own hypervisor, below which machines and protected memory run."),
            "Offer the processor's virtualisation to the machine at the target if it needs that; Windows starts without it, too.",
        );
    }
    if entry.test_signing {
        draft.find(
            "windows-test-signing",
            format!(
                "The boot entry {name:?} lets drivers with test signatures in; with secure boot it does not."
            ),
            "Take that back with `bcdedit /set testsigning off` unless drivers of the machine need it.",
        );
    }
}

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;

//! The appliance as a disc, for whoever has nothing but a drive: a hypervisor that takes ISO images only, the virtual drive of a server's
//! management controller, a CD.
//!
//! ```text
//! BIOS from a drive     El Torito -> landfall/bios.img: GRUB -> landfall/grub.cfg -----------------+
//! BIOS from a disk      boot record -> landfall/disk.img: GRUB -> landfall/grub.cfg ---------------+-> landfall/cd/vmlinuz, initrd
//! UEFI from either      El Torito or the one partition -> landfall/efi.img: shim -> GRUB ->        |     -> landfall/root.squashfs
//!                       EFI/BOOT/grub.cfg: looks for the volume by its name -> landfall/grub.cfg --+
//! ```
//! The same file boots from a USB stick that it was copied to (`dd if=landfall.iso of=/dev/sdX`).
//!
//! Deliberately absent: slots and updates. A newer disc is the update; what is to outlive it lies on the data disk.

use super::build::{self, System};
use landfall_boot::appliance::layout::Medium;
use landfall_boot::appliance::{grub, layout};
use landfall_image::composed::Composed;
use landfall_image::fat::{FatOptions, FatVolume};
use landfall_image::iso::create::{IsoImage, IsoOptions, NewIso};
use landfall_image::{Bytes, Disk, Error, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// What a BIOS starts from a drive.
const BIOS: &str = "landfall/bios.img";
/// What the boot record starts from a disk.
const CORE: &str = "landfall/disk.img";
/// What UEFI firmware starts.
const EFI: &str = "landfall/efi.img";
/// Shim and GRUB have 4 MiB. The catalog of what boots can say the length of less than 32 MiB only.
const EFI_SIZE: Bytes = Bytes::mib(8);

/// For whoever looks into it.
const README: &str = concat!(
    "landfall ",
    env!("CARGO_PKG_VERSION"),
    ": the machine of a recovery site. Start a machine from this disc, with an empty disk of 2 GiB or more attached:\n",
    "settings, certificates and the vault are kept there.\n"
);

/// The disc with that system.
///
/// # Errors
/// Where the system was not made for a disc, or its parts are not as they are expected.
pub fn disc(system: &System) -> Result<Composed> {
    let initrd = system.disc_initrd.as_ref();
    let initrd = initrd.ok_or_else(|| Error::refused("the system was not made for a disc"))?;
    let id = identity(system, initrd)?;
    let volume = layout::disc_volume(id);
    let start = layout::grub_disc_start(&volume).into_bytes();
    let serial = u32::try_from(id.as_u128() & 0xffff_ffff).unwrap_or_default();
    let efi = efi(system, serial, &start)?;
    let root = build::root_disk(system)?;
    let parts = |name: &str| system.loaders.bios.get(name).map(Vec::as_slice);
    let bios = grub::core(&parts, grub::From::Cd, "/landfall")?;
    let with_core = |sector: u64| -> Result<IsoImage> {
        let mut iso = NewIso::new(IsoOptions {
            volume: volume.clone(),
            time: system.time,
            bios: Some(BIOS.into()),
            efi: Some(EFI.into()),
        })?;
        iso.file("README.txt", README.as_bytes().to_vec())?;
        iso.file("EFI/BOOT/grub.cfg", start.clone())?;
        iso.file("landfall/grub.cfg", layout::grub_configuration(Medium::Disc(&volume)).into_bytes())?;
        iso.file(BIOS, bios.clone())?;
        iso.file(CORE, grub::core(&parts, grub::From::Disk { sector }, "/landfall")?)?;
        iso.file(EFI, efi.clone())?;
        iso.file(&format!("{}/vmlinuz", layout::DISC_FOLDER), system.kernel.as_slice())?;
        iso.file(&format!("{}/initrd", layout::DISC_FOLDER), initrd.as_slice())?;
        iso.file(layout::DISC_ROOT, root.clone())?;
        iso.finish()
    };
    // Where it lies does not depend on what it says of that.
    let place = with_core(0)?.files.get(CORE).map(|range| range.start().0 / 512);
    let sector = place.ok_or_else(|| Error::corrupt("the disc has no core of GRUB's"))?;
    let mut image = with_core(sector)?;
    image.boot_from_disk(&grub::boot_code(&parts, sector)?, serial, EFI)?;
    Ok(image.disk)
}

fn identity(system: &System, initrd: &[u8]) -> Result<Uuid> {
    let mut hash = Sha256::new();
    hash.update("disc");
    hash.update(build::digest(system)?);
    hash.update(Sha256::digest(initrd));
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    Ok(uuid::Builder::from_custom_bytes(id).into_uuid())
}

fn efi(system: &System, serial: u32, start: &[u8]) -> Result<Arc<dyn Disk>> {
    let mut volume = FatVolume::new(FatOptions {
        size: EFI_SIZE,
        serial,
        label: "LANDFALL".into(),
        hidden_sectors: 0,
        time: system.time,
    })?;
    volume.file("EFI/BOOT/BOOTX64.EFI", system.loaders.shim.clone())?;
    volume.file("EFI/BOOT/grubx64.efi", system.loaders.grub.clone())?;
    // Which of them GRUB reads depends on what its firmware calls the volume.
    for folder in ["EFI/BOOT", "EFI/debian"] {
        volume.file(&format!("{folder}/grub.cfg"), start.to_vec())?;
    }
    Ok(volume.finish()?.disk)
}

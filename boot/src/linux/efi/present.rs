//! What lies in the fallback's place already, and whether the guest can start by it.
//!
//! The source's firmware started a boot entry, which named a loader in the distribution's folder, and had no reason to look
//! at the fallback. Its entries are lost in the move, so the target's firmware starts the fallback, whatever that is: a
//! loader that another system left there, or a GRUB that is older than the modules it loads. What such a machine started
//! before the move lies in the distribution's folder, so a copy of that takes the place, as `grub-install --removable` would
//! put it there; what was there before stays beside it under another name, and a finding says so. Nothing is replaced where
//! it is not certain that it cannot start this guest:
//!
//! * a copy of the guest's own loaders, an older shim of the same vendor, or a GRUB that leads to the same configuration and
//!   has all modules in itself (which is what a signed one is) start the guest;
//! * shim beside its own restorer (`fbx64.efi`) makes the boot entries anew from the distribution's list;
//! * a program that is not known may be what the owner starts the machine with: it stays, and is reported.

use super::super::grub_image;
use super::super::loader::pe::Pe;
use super::{Names, PROGRAM_AT_MOST, Vendor, built};
use crate::Result;
use crate::linux::facts;
use crate::tree::GuestTree;

/// What the program in the fallback's place is to this guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The guest starts by it.
    Own,
    /// It starts something else, or nothing: in words.
    Other(String),
    /// It cannot be told.
    Unknown,
}

/// A boot program.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// With the name that its maker has in its list of generations (SBAT), which shims have since 2021.
    Shim(Option<String>),
    /// With the place where it looks for its files.
    Grub(String),
    SystemdBoot,
    Windows,
    Unknown,
}

impl Kind {
    fn of(program: &[u8]) -> Kind {
        let Some(pe) = Pe::parse(program) else { return Kind::Unknown };
        let has = |text: &[u8]| program.windows(text.len()).any(|window| window == text);
        if let Some(built) = pe.section("mods").and_then(grub_image::modules) {
            return Kind::Grub(built.prefix.unwrap_or_default());
        }
        if has(b"UEFI SHIM") {
            return Kind::Shim(pe.section(".sbat").and_then(maker));
        }
        if has(b"#### LoaderInfo: systemd-boot ") {
            return Kind::SystemdBoot;
        }
        // Its own name, in its version resource.
        let name: Vec<u8> = "bootmgfw.efi".encode_utf16().flat_map(u16::to_le_bytes).collect();
        if has(&name) { Kind::Windows } else { Kind::Unknown }
    }

    fn read(tree: &dyn GuestTree, path: &str) -> Result<Kind> {
        Ok(match tree.read(path, PROGRAM_AT_MOST) {
            Ok(Some(program)) => Kind::of(&program),
            _ => Kind::Unknown,
        })
    }
}

/// True for any shim.
pub(super) fn is_shim(tree: &dyn GuestTree, path: &str) -> Result<bool> {
    Ok(matches!(Kind::read(tree, path)?, Kind::Shim(_)))
}

/// `debian` of the line `shim.debian,1,Debian,…`.
fn maker(sbat: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(sbat);
    let name = text.lines().find_map(|line| line.strip_prefix("shim.")?.split(',').next());
    name.map(|name| name.trim_end_matches('\0').to_owned())
}

/// Judges for a guest that starts by GRUB, with or without shim.
pub(super) fn for_grub(
    tree: &dyn GuestTree,
    names: &Names,
    boot: &str,
    present: &str,
    vendor: &Vendor,
    uses_grub: bool,
) -> Result<Verdict> {
    for own in vendor.shim.iter().chain(&vendor.grub) {
        if super::same(tree, own, present)? {
            return Ok(Verdict::Own);
        }
    }
    let whose = &vendor.folder;
    Ok(match Kind::read(tree, present)? {
        Kind::Shim(maker) => {
            for name in names.restore {
                if vendor.has_list && facts::find_name(tree, boot, name)?.is_some() {
                    return Ok(Verdict::Own);
                }
            }
            let own = match &vendor.shim {
                Some(shim) => Kind::read(tree, shim)?,
                None => Kind::Unknown,
            };
            match (maker, own) {
                (Some(maker), Kind::Shim(Some(own))) if maker == own => Verdict::Own,
                (Some(maker), Kind::Shim(Some(_))) => Verdict::Other(format!("the shim of {maker}")),
                _ => Verdict::Unknown,
            }
        }
        Kind::Grub(prefix) => {
            let own = vendor.grub.as_ref().map_or(Ok(None), |grub| built(tree, grub))?;
            let own = own.and_then(|built| built.prefix).unwrap_or_default();
            let other_folder = prefix
                .to_ascii_lowercase()
                .strip_prefix("/efi/")
                .filter(|folder| *folder != "boot" && !own.eq_ignore_ascii_case(&prefix))
                .map(str::to_owned);
            match other_folder {
                Some(folder) => Verdict::Other(format!("the GRUB of EFI/{folder}")),
                None if prefix.is_empty() || !own.eq_ignore_ascii_case(&prefix) => Verdict::Unknown,
                // Without shim GRUB loads its modules from the guest, and they have to be of its own version.
                None if vendor.shim.is_none() => {
                    Verdict::Other(format!("another build of GRUB than the one in {whose}"))
                }
                None => Verdict::Own,
            }
        }
        Kind::SystemdBoot if uses_grub => {
            Verdict::Other("systemd-boot, and the guest starts by GRUB".to_owned())
        }
        Kind::SystemdBoot => Verdict::Own,
        Kind::Windows => Verdict::Other("the boot manager of Windows".to_owned()),
        Kind::Unknown => Verdict::Unknown,
    })
}

/// Judges for a guest that starts by systemd-boot.
pub(super) fn for_systemd_boot(
    tree: &dyn GuestTree,
    names: &Names,
    boot: &str,
    present: &str,
    program: &str,
) -> Result<Verdict> {
    if super::same(tree, program, present)? {
        return Ok(Verdict::Own);
    }
    Ok(match Kind::read(tree, present)? {
        // Any version of it reads the same entries.
        Kind::SystemdBoot => Verdict::Own,
        // Shim starts what is called like GRUB, which may be systemd-boot.
        Kind::Shim(_) => {
            for name in names.grub {
                if let Some(name) = facts::find_name(tree, boot, name)?
                    && Kind::read(tree, &format!("{boot}/{name}"))? == Kind::SystemdBoot
                {
                    return Ok(Verdict::Own);
                }
            }
            Verdict::Unknown
        }
        Kind::Grub(_) => Verdict::Other("GRUB, and the guest starts by systemd-boot".to_owned()),
        Kind::Windows => Verdict::Other("the boot manager of Windows".to_owned()),
        Kind::Unknown => Verdict::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs as distributions have them, where they are installed.
    #[test]
    fn programs_of_the_loaders_own_packages() {
        let root = std::env::var_os("LANDFALL_LOADERS").map_or("/".into(), std::path::PathBuf::from);
        for (path, expected) in [
            ("usr/lib/shim/shimx64.efi.signed", Kind::Shim(Some("debian".into()))),
            ("usr/lib/shim/mmx64.efi.signed", Kind::Unknown),
            ("usr/lib/shim/fbx64.efi.signed", Kind::Unknown),
            ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", Kind::Grub("/EFI/debian".into())),
            ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", Kind::SystemdBoot),
            ("usr/lib/systemd/boot/efi/linuxx64.efi.stub", Kind::Unknown),
        ] {
            match std::fs::read(root.join(path)) {
                Ok(program) => assert_eq!(Kind::of(&program), expected, "{path}"),
                Err(_) => eprintln!("SKIPPED: {path} is not installed"),
            }
        }
    }
}

//! syslinux and extlinux: `LABEL` with `LINUX` (or `KERNEL`) and `APPEND`, and what Debian's and Alpine's update-extlinux
//! write them from. Commands are the same in upper and lower case.

use super::super::device::Devices;
use super::super::draft::Draft;
use super::super::text;
use super::parameters;
use crate::Result;
use crate::tree::GuestTreeExt;

/// Configurations, by what has them.
pub(super) const CONFIGS: &[(&str, &str)] = &[
    ("/boot/extlinux/extlinux.conf", "extlinux"),
    ("/boot/extlinux/linux.cfg", "extlinux"),
    ("/boot/extlinux/memdisk.cfg", "extlinux"),
    ("/boot/extlinux.conf", "extlinux"),
    ("/extlinux.conf", "extlinux"),
    ("/boot/syslinux/extlinux.conf", "extlinux"),
    ("/boot/syslinux/syslinux.cfg", "syslinux"),
    ("/boot/syslinux.cfg", "syslinux"),
    ("/boot/efi/EFI/syslinux/syslinux.cfg", "syslinux"),
    ("/boot/EFI/syslinux/syslinux.cfg", "syslinux"),
    ("/efi/EFI/syslinux/syslinux.cfg", "syslinux"),
];

/// `root=` and default parameters of update-extlinux: Alpine's, then Debian's.
const SOURCES: &[&str] = &["/etc/update-extlinux.conf", "/etc/default/extlinux"];

/// Every entry and every source of the next ones names devices by UUID. What was found, if anything.
pub(super) fn plan(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<Option<&'static str>> {
    let mut found = None;
    for (path, loader) in CONFIGS {
        if draft.scene.tree.exists(path)? {
            found = Some(*loader);
            parameters::entries(draft, devices, path)?;
        }
    }
    for path in SOURCES {
        let why = "The next update-extlinux keeps naming devices by UUID.";
        parameters::plain_file(draft, devices, path, why)?;
    }
    Ok(found)
}

/// Path of the kernel that starts by default.
pub(super) fn default_image(draft: &mut Draft<'_>) -> Result<Option<String>> {
    let mut all = Vec::new();
    for (path, _) in CONFIGS {
        all.extend(draft.read(path)?.unwrap_or_default());
        all.push(b'\n');
    }
    Ok(image(&all))
}

/// `DEFAULT` (or `ONTIMEOUT`) names a label; without one, the first label starts.
fn image(config: &[u8]) -> Option<String> {
    let mut default: Option<String> = None;
    let mut first: Option<String> = None;
    let mut label = String::new();
    let mut images: Vec<(String, String)> = Vec::new();
    for (body, _) in text::lines(config) {
        let (Some(command), Some(value)) = (text::word(body, 0), text::word(body, 1)) else { continue };
        match command.to_ascii_lowercase().as_str() {
            "default" | "ontimeout" if !value.ends_with(".c32") => default = Some(value.to_owned()),
            "label" => {
                label = value.to_owned();
                first.get_or_insert_with(|| label.clone());
            }
            // `menu default` within a label is stronger than `default`.
            "menu" if value.eq_ignore_ascii_case("default") && !label.is_empty() => {
                default = Some(label.clone());
            }
            "linux" | "kernel" if !value.ends_with(".c32") => images.push((label.clone(), value.to_owned())),
            _ => {}
        }
    }
    let wanted = default.or(first)?;
    images.into_iter().find(|(label, _)| *label == wanted).map(|(_, image)| image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_label() {
        let config = "DEFAULT menu.c32\nPROMPT 0\nLABEL lts\n  MENU DEFAULT\n  LINUX vmlinuz-lts\n  INITRD initramfs-lts\n\
            LABEL virt\n LINUX vmlinuz-virt\n";
        assert_eq!(image(config.as_bytes()).as_deref(), Some("vmlinuz-lts"));
        let config = "default l1\nlabel l0\n\tlinux /a\nlabel l1\n\tkernel /vmlinuz-6.1.0-9-amd64\n";
        assert_eq!(image(config.as_bytes()).as_deref(), Some("/vmlinuz-6.1.0-9-amd64"));
        assert_eq!(image(b"label x\nkernel /b\n").as_deref(), Some("/b"));
        assert_eq!(image(b"default gone\nlabel x\nkernel /b\n"), None);
    }
}

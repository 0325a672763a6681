//! GRUB legacy (0.97): `menu.lst`, which Red Hat calls `grub.conf`, with `title`, `root (hd0,0)`, `kernel` and `initrd`.

use super::super::device::Devices;
use super::super::draft::Draft;
use super::super::{facts, text};
use super::parameters;
use crate::Result;
use crate::tree::GuestTreeExt;

pub(super) const CONFIGS: &[&str] = &["/boot/grub/menu.lst", "/boot/grub/grub.conf"];

/// The configurations that are there; the second is mostly a link to the first, or the reverse.
pub(super) fn configs(draft: &Draft<'_>) -> Result<Vec<String>> {
    let tree = draft.scene.tree;
    let mut found = Vec::new();
    for path in CONFIGS {
        if tree.exists(path)?
            && (tree.read_link(path)?.is_none() || !super::is_link_into(tree, path, CONFIGS)?)
        {
            found.push((*path).to_owned());
        }
    }
    // RHEL 6 on UEFI.
    if let Some(esp) = facts::esp_folder(tree, draft.scene.mounts)?
        && let Some(path) = facts::find_path(tree, &esp, &["EFI", "redhat", "grub.conf"])?
    {
        found.push(path);
    }
    Ok(found)
}

/// Every entry names devices by UUID. True where the loader is there.
pub(super) fn plan(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<bool> {
    let configs = configs(draft)?;
    for path in &configs {
        parameters::entries(draft, devices, path)?;
        let config = draft.read_text(path)?.unwrap_or_default();
        let other_disk = config.lines().map(str::trim).find(|line| {
            ["root", "rootnoverify", "kernel"].iter().any(|command| {
                let value = line.strip_prefix(command).map_or("", str::trim_start);
                value
                    .strip_prefix("(hd")
                    .is_some_and(|disk| !disk.starts_with("0,") && !disk.starts_with("0)"))
            })
        });
        if let Some(line) = other_disk {
            draft.find(
                "linux-grub-by-disk-order",
                format!(
                    "{path} finds its files by the number of the disk (`{line}`), which is not the first."
                ),
                "Keep the disks in the order of the source, with the same disk to boot from.",
            );
        }
    }
    Ok(!configs.is_empty())
}

/// Path of the kernel that starts by default.
pub(super) fn default_image(draft: &mut Draft<'_>) -> Result<Option<String>> {
    for path in configs(draft)? {
        let config = draft.read(&path)?.unwrap_or_default();
        // `savedefault` keeps the number in a file of its own, before a line of warnings.
        let saved = draft.read_text("/boot/grub/default")?.unwrap_or_default();
        let saved = saved.lines().next().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
        if let Some(image) = image(&config, saved) {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

fn image(config: &[u8], saved: usize) -> Option<String> {
    let mut default = 0;
    let mut images: Vec<Option<String>> = Vec::new();
    for (body, _) in text::lines(config) {
        let line = std::str::from_utf8(body).unwrap_or("").trim();
        let (command, value) = line
            .split_once(|letter: char| letter.is_ascii_whitespace() || letter == '=')
            .unwrap_or((line, ""));
        let value = value.trim_start_matches(|letter: char| letter.is_ascii_whitespace() || letter == '=');
        match command {
            "default" if images.is_empty() => {
                default = if value.trim() == "saved" { saved } else { value.trim().parse().unwrap_or(0) };
            }
            "title" => images.push(None),
            // Under Xen the kernel is a module.
            "kernel" | "module" => {
                let path = value.split_ascii_whitespace().find(|word| !word.starts_with("--"));
                let file = path.and_then(|path| path.rsplit('/').next()).unwrap_or("");
                let is_kernel = !file.starts_with("xen") && !file.starts_with("initr");
                if let (Some(path), true, Some(image)) = (path, is_kernel, images.last_mut()) {
                    image.get_or_insert_with(|| path.to_owned());
                }
            }
            _ => {}
        }
    }
    images.into_iter().nth(default).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_title() {
        let config = "# kopt=root=x\ndefault=1\ntimeout 5\ntitle A\nroot (hd0,0)\nkernel /vmlinuz-2.6.32-754.el6 ro\n\
            title Xen\nkernel /xen.gz-2.6.18 dom0_mem=1\nmodule /vmlinuz-2.6.18-419.el5xen ro\nmodule /initrd\n";
        assert_eq!(image(config.as_bytes(), 0).as_deref(), Some("/vmlinuz-2.6.18-419.el5xen"));
        let config = "default saved\ntitle A\nkernel (hd0,0)/vmlinuz-1 ro\ntitle B\nkernel --no-mem-option /vmlinuz-2\n";
        assert_eq!(image(config.as_bytes(), 1).as_deref(), Some("/vmlinuz-2"));
        assert_eq!(image(config.as_bytes(), 0).as_deref(), Some("(hd0,0)/vmlinuz-1"));
        assert_eq!(image(b"default 7\ntitle A\nkernel /x\n", 0), None);
    }
}

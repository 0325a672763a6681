//! systemd-boot: which of its entries starts by default. The entries themselves are `bls`'s, images `uki`'s.

use super::super::draft::Draft;
use super::super::{facts, text};
use super::bls::{self, Entry};
use super::uki::{self, Image};
use crate::Result;

/// The folder of systemd-boot itself or of its configuration, where it is installed.
pub(super) fn find(draft: &Draft<'_>) -> Result<Option<String>> {
    for root in facts::boot_folders(draft.scene.tree, draft.scene.mounts)? {
        for names in [&["EFI", "systemd"][..], &["loader", "loader.conf"]] {
            if let Some(path) = facts::find_path(draft.scene.tree, &root, names)? {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Version of the kernel that starts where the firmware's memory of choices is lost, as it is after a move. Where both
/// entries and images are there and no pattern says which, there is no answer.
pub(super) fn default_kernel(
    draft: &mut Draft<'_>,
    entries: &[Entry],
    images: &[Image],
) -> Result<Option<String>> {
    let images: Vec<&Image> = images.iter().filter(|image| image.is_listed).collect();
    let mut pattern = None;
    for root in facts::boot_folders(draft.scene.tree, draft.scene.mounts)? {
        let path = facts::find_path(draft.scene.tree, &root, &["loader", "loader.conf"])?;
        let Some(path) = path else { continue };
        let config = draft.read(&path)?.unwrap_or_default();
        for (body, _) in text::lines(&config) {
            if text::word(body, 0) == Some("default") {
                pattern = text::word(body, 1).map(str::to_lowercase);
            }
        }
    }
    // `@saved` is in the firmware's memory.
    let pattern = pattern.filter(|pattern| !pattern.starts_with('@'));
    let fits = |id: &str| pattern.as_ref().is_some_and(|pattern| text::glob(pattern, &id.to_lowercase()));
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| bls::order(a, b));
    if let Some(entry) = sorted.iter().find(|entry| fits(&format!("{}.conf", entry.id)) || fits(&entry.id)) {
        return Ok(entry.kernel_version());
    }
    if let Some(image) = images.iter().find(|image| fits(image.id())) {
        return Ok(image.version.clone());
    }
    Ok(match (sorted.first(), images.as_slice()) {
        (Some(entry), []) => entry.kernel_version(),
        (None, images) => uki::newest(images).and_then(|image| image.version.clone()),
        (Some(_), _) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::tree::mem::MemTree;

    #[test]
    fn the_default_by_pattern_and_by_order() {
        let entry = |version: &str| format!("title x\nversion {version}\nlinux /6f/{version}/linux\n");
        let tree = MemTree::new()
            .file("/efi/EFI/systemd/systemd-bootx64.efi", "")
            .file("/efi/loader/entries/6f-6.1.0-9.conf", entry("6.1.0-9"))
            .file("/efi/loader/entries/6f-6.1.0-43.conf", entry("6.1.0-43"));
        let default = |loader: &str| {
            let tree = tree.clone().file("/efi/loader/loader.conf", loader);
            let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
            let copies = super::super::Copies::read(&tree, &[]).unwrap();
            super::super::default_kernel(&mut Draft::new(&scene), &copies).unwrap()
        };
        assert_eq!(default("timeout 3\n").as_deref(), Some("6.1.0-43"));
        assert_eq!(default("default @saved\n").as_deref(), Some("6.1.0-43"));
        assert_eq!(default("default 6F-6.1.0-9*\n").as_deref(), Some("6.1.0-9"));
        assert_eq!(default("default 6f-6.1.0-9.conf\n").as_deref(), Some("6.1.0-9"));
        assert_eq!(default("#default 6f-6.1.0-9\n").as_deref(), Some("6.1.0-43"));
    }
}

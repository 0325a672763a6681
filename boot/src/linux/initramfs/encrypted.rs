//! Names of encrypted volumes in the lists that an initramfs has of them: each tool copies crypttab in a form of its own, and
//! some copy a device name as it stands there.
//!
//! Deliberately absent: making such a list, or adding to one. Which volumes are opened early is the tool's decision.

use super::Rewritten;
use super::content::Content;
use super::cpio;
use crate::Result;
use crate::linux::text;

/// initramfs-tools since cryptsetup 2.0.3, before that, and dracut and mkinitcpio.
const LISTS: &[&str] =
    &["cryptroot/crypttab", "conf/conf.d/cryptroot", "etc/crypttab", "etc/crypttab.initramfs"];

/// Replaces device names, old and new, in every list.
pub(super) fn rename(
    content: &mut Content<'_>,
    renames: &[(String, String)],
    new: &mut Rewritten,
) -> Result<()> {
    if renames.is_empty() {
        return Ok(());
    }
    for path in LISTS {
        let Some(file) = content.get(path.as_bytes())?.filter(|file| file.is(cpio::REGULAR)) else {
            continue;
        };
        let (mode, old) = (file.mode & 0o7777, file.data.to_vec());
        if let Some(changed) = text::map_lines(&old, |body| renamed(body, renames)) {
            content.put(path.as_bytes(), mode, changed)?;
            new.changed = true;
        }
    }
    Ok(())
}

/// A line with the names replaced where they stand alone, or behind `source=`.
fn renamed(body: &[u8], renames: &[(String, String)]) -> Option<Vec<u8>> {
    if text::is_comment(body) {
        return None;
    }
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
    let mut changed = false;
    let mut line = Vec::with_capacity(body.len());
    for part in body.split_inclusive(|byte| is_between(byte)) {
        let word = part
            .strip_suffix(part.last().filter(|byte| is_between(byte)).map_or(&[][..], std::slice::from_ref))
            .unwrap_or(part);
        let name = word.strip_prefix(b"source=").unwrap_or(word);
        match renames.iter().find(|(old, _)| old.as_bytes() == name) {
            Some((_, new)) => {
                changed = true;
                line.extend_from_slice(word.get(..word.len() - name.len()).unwrap_or_default());
                line.extend_from_slice(new.as_bytes());
                line.extend_from_slice(part.get(word.len()..).unwrap_or_default());
            }
            None => line.extend_from_slice(part),
        }
    }
    changed.then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_where_they_stand_alone() {
        let renames = [("/dev/sda3".to_owned(), "UUID=1uk5".to_owned())];
        for (old, expected) in [
            ("root /dev/sda3 none luks,discard", Some("root UUID=1uk5 none luks,discard")),
            ("root\t/dev/sda3", Some("root\tUUID=1uk5")),
            (
                "target=root,source=/dev/sda3,key=none,lvm=vg",
                Some("target=root,source=UUID=1uk5,key=none,lvm=vg"),
            ),
            ("root /dev/sda30 /keys/dev/sda3 luks", None),
            ("# root /dev/sda3", None),
            ("", None),
        ] {
            let found = renamed(old.as_bytes(), &renames);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{old}");
        }
    }
}

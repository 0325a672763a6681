//! Drivers that a kernel parameter forbids, as `/etc/modprobe.d` can: the guest's owner decided so, and is told where the
//! target needs one of them.

use super::super::draft::Draft;
use super::super::{kmod, text};
use crate::Result;

/// The kernel's own, kmod's, dracut's (and its older name), initramfs-tools'. Each has names separated by commas.
const PARAMETERS: &[&str] =
    &["module_blacklist", "modprobe.blacklist", "rd.driver.blacklist", "rdblacklist", "blacklist"];

/// Looks into every file of `paths`.
pub(super) fn report(draft: &mut Draft<'_>, paths: &[String], needed: &[&str]) -> Result<()> {
    for path in paths {
        let contents = draft.read(path)?.unwrap_or_default();
        for (parameter, module) in found(&contents, needed) {
            draft.find(
                "linux-driver-forbidden",
                format!(
                    "{path} keeps the driver {module} from being loaded ({parameter}=), and the target needs it."
                ),
                format!("Remove {module} from {parameter}= in {path} in the guest, and convert again."),
            );
        }
    }
    Ok(())
}

/// The parameters that forbid one of `needed`, each with its module.
pub(super) fn found(contents: &[u8], needed: &[&str]) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (body, _) in text::lines(contents).filter(|(body, _)| !text::is_comment(body)) {
        for (parameter, range) in text::values(body, PARAMETERS) {
            let value = String::from_utf8_lossy(body.get(range).unwrap_or_default()).into_owned();
            for module in value.split(',').map(|name| kmod::normal(name.trim())) {
                let forbids = needed.contains(&module.as_str());
                if forbids && !found.contains(&(parameter, module.clone())) {
                    found.push((parameter, module));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_that_forbids() {
        let needed = ["virtio_pci", "virtio_blk"];
        for (line, expected) in [
            (
                "linux /vmlinuz root=UUID=1 modprobe.blacklist=nouveau,virtio-blk ro",
                "modprobe.blacklist virtio_blk",
            ),
            ("options root=x module_blacklist=virtio_pci", "module_blacklist virtio_pci"),
            ("GRUB_CMDLINE_LINUX=\"rd.driver.blacklist=virtio_blk quiet\"", "rd.driver.blacklist virtio_blk"),
            ("kernelopts=root=x rdblacklist=virtio_blk", "rdblacklist virtio_blk"),
            ("append ro blacklist=virtio_blk", "blacklist virtio_blk"),
            ("linux /vmlinuz modprobe.blacklist=nouveau", ""),
            ("# linux /vmlinuz modprobe.blacklist=virtio_blk", ""),
            ("linux /vmlinuz virtio_blk.x=1", ""),
        ] {
            let says: Vec<_> = found(line.as_bytes(), &needed)
                .iter()
                .map(|(key, module)| format!("{key} {module}"))
                .collect();
            assert_eq!(says.join(" "), expected, "{line}");
        }
    }
}

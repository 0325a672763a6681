//! Raw device mappings and physical disks: what a VMDK's descriptor tells, whatever the machine's definition says. ESXi's .vmx
//! names such a disk as it names any other.

use super::place::Origin;
use super::{disk_option, skip_option};
use crate::finding;
use crate::machine::{Backing, DiskSlot};
use landfall_boot::check::Finding;
use landfall_image::{Error, Source, vmdk};

/// Kinds of VMDK whose data is on a device of the source's host.
const KINDS: &[&str] =
    &["vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap", "vmfsRaw", "fullDevice", "partitionedDevice"];

/// Which of them the disk is, by the image that its definition names. `None` for any other disk.
pub(super) fn kind(from: &Origin<'_>, disk: &DiskSlot) -> Option<String> {
    if from.archive.is_some() || disk.backing != Backing::File {
        return None;
    }
    let source = Source::open(&from.beside_it(disk).ok()?).ok()?;
    vmdk::create_type(&source).filter(|kind| KINDS.iter().any(|known| known.eq_ignore_ascii_case(kind)))
}

/// What is to be said of such a disk, unless the definition's reader has said it.
pub(super) fn finding(disk: &DiskSlot, kind: &str, told: &[Finding]) -> Option<Finding> {
    let is_this = |finding: &Finding| finding.says.split_whitespace().next() == Some(disk.slot.as_str());
    (!told.iter().any(|finding| finding.id == finding::DISK_RAW.id && is_this(finding))).then(|| {
        finding::DISK_RAW.finding(
            format!(
                "{} is a raw device mapping or a physical disk, as its descriptor says ({kind}); at the target it is an ordinary disk.",
                disk.slot
            ),
            "Take agents of the storage array out of the guest.",
        )
    })
}

/// Why it cannot be read by its descriptor, and the ways out.
pub(super) fn refused(disk: &DiskSlot, kind: &str, error: &Error) -> Error {
    let slot = &disk.slot;
    let refused = Error::unsupported(format!(
        "{slot} is a raw device mapping or a physical disk ({kind}): its data is on a device of the source's host, not in files"
    ));
    let refused = match error.path() {
        Some(path) => refused.in_file(path),
        None => refused,
    };
    refused.hint(format!(
        "connect that device to this host and name it: {}; or convert it to a virtual disk at the source \
         (vmkfstools -i, or a migration of its storage) and copy that; or leave it out with {}",
        disk_option(slot, "/dev/DEVICE"),
        skip_option(slot)
    ))
}

//! Roots that a boot loader names and that nobody has seen: encrypted, on storage that is not opened, not readable. While
//! there is one, another root that was found is not taken for what the machine starts.

use super::readers::MOUNTABLE;
use super::roots::{LoaderRoot, Looked, describe};
use crate::Finding;
use crate::volume::device_name::{Name, classify};
use crate::volume::names::is_plain;
use crate::volume::{Content, Meant, Names, Scan, Volume, VolumeId};

/// What stands against taking one of `candidates`, which hold a root file system each. `named` says that a loader names
/// one of them, `list` who they are, for people.
pub(super) fn objection<'l>(
    loader_roots: impl Iterator<Item = &'l LoaderRoot>,
    looked: &[Looked],
    scan: &Scan,
    candidates: &[&Volume],
    named: bool,
    list: &str,
) -> Option<Finding> {
    let hidden: Vec<&Volume> = scan.volumes.iter().filter(|volume| is_hidden(volume, looked, scan)).collect();
    let is_hidden = |id: &VolumeId| hidden.iter().any(|volume| volume.id == *id);
    let mut roots: Vec<&LoaderRoot> = loader_roots.collect();
    roots.sort();
    roots.dedup();
    let why = roots.into_iter().find_map(|root| {
        let why = match Names::default().resolve(&root.spec, "auto", &scan.volumes) {
            Meant::Volume(volume) if candidates.iter().any(|candidate| candidate.id == volume.id) => None,
            // As in fstab, the order of the disks may have been another.
            Meant::Volume(volume) if is_by_order(&root.spec, volume, candidates) => None,
            Meant::Volume(volume) if is_hidden(&volume.id) => {
                let what = scan.closed(&volume.id).map_or_else(|| describe(&volume.content), str::to_owned);
                Some(format!("{} ({what}), which cannot be seen into", volume.id.0))
            }
            Meant::Volume(volume) if !named && !volume.is_opened_in(&scan.volumes) => Some(format!(
                "{} ({}), where no root file system was found",
                volume.id.0,
                describe(&volume.content)
            )),
            Meant::Absent | Meant::NoDevice if !named && !hidden.is_empty() => {
                let names: Vec<&str> = hidden.iter().take(8).map(|volume| volume.id.0.as_str()).collect();
                Some(format!("none of those that are seen; it may lie in {}", names.join(" or ")))
            }
            _ => None,
        };
        why.map(|why| (root, why))
    });
    let (root, why) = why?;
    let spec: String = root.spec.chars().filter(|letter| !letter.is_control()).take(100).collect();
    Some(Finding::new(
        "root-not-seen",
        format!("a boot loader starts root={spec}, which is {why}; there is another root: {list}"),
        "give its key (--key-file FILE, or --passphrase-file FILE), name all disks of the machine, install the sandbox; or choose the other one with --root",
    ))
}

/// A name by the order of the disks, which one of the candidates has in another order.
fn is_by_order(spec: &str, volume: &Volume, candidates: &[&Volume]) -> bool {
    matches!(classify(spec), Name::Disk { .. } | Name::Path { .. })
        && is_plain(volume)
        && candidates.iter().any(|candidate| is_plain(candidate) && candidate.partition == volume.partition)
}

/// True where a root could lie that was not seen.
fn is_hidden(volume: &Volume, looked: &[Looked], scan: &Scan) -> bool {
    match &volume.content {
        // No root lies on FAT.
        Content::FileSystem { name } if name == "vfat" => false,
        Content::FileSystem { name } => {
            MOUNTABLE.contains(&name.as_str()) && !looked.iter().any(|seen| seen.id == volume.id)
        }
        Content::Encrypted { .. } | Content::Member { .. } | Content::LvmPhysical { .. } => {
            !volume.is_opened_in(&scan.volumes)
        }
        Content::Swap { .. } | Content::Unknown => false,
    }
}

//! Disks that are made of several images: snapshots, linked clones, differencing disks. All of their images are read; it is
//! told which they are, because a clone's template lies elsewhere.

use crate::finding;
use crate::machine::Machine;
use landfall_boot::check::Finding;
use landfall_image::formats::{Image, LayerInfo};

/// Images of one disk that a finding names.
const NAMED: usize = 4;

/// What is to be said of a machine's disks, which `images` are in order.
pub(super) fn findings(machine: &Machine, images: &[Image]) -> Vec<Finding> {
    let disks = || machine.disks.iter().zip(images).filter(|(_, image)| image.layers.len() > 1);
    let mut out = Vec::new();
    let told: Vec<String> =
        disks().map(|(disk, image)| format!("{} is {}", disk.slot, chain(&image.layers))).collect();
    if !told.is_empty() {
        out.push(finding::DISK_LINKED.finding(
            format!(
                "Disks of snapshots, linked clones or differencing images: {}. At the target each is one image that needs no other.",
                told.join("; ")
            ),
            "",
        ));
    }
    for (disk, image) in disks() {
        for parent in image.layers.iter().filter(|layer| layer.by_name) {
            out.push(finding::DISK_PARENT.finding(
                format!(
                    "{}: {} was taken for an image that lies elsewhere by its name; nothing in the image above tells whether it is the right one.",
                    disk.slot,
                    parent.path.display()
                ),
                "Compare it with the one at the source.",
            ));
        }
    }
    out
}

/// `web-000002.vmdk over web-000001.vmdk over /templates/base.vmdk`: a folder where it is another than that of the image above.
fn chain(layers: &[LayerInfo]) -> String {
    let mut names = Vec::new();
    let mut folder = layers.first().and_then(|layer| layer.path.parent());
    for layer in layers.iter().take(NAMED) {
        let name = layer.path.file_name().filter(|_| layer.path.parent() == folder);
        names.push(
            name.map_or_else(|| layer.path.display().to_string(), |name| name.to_string_lossy().into_owned()),
        );
        folder = layer.path.parent();
    }
    let more = layers.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" over {more} more") } else { String::new() };
    format!("{}{more}", names.join(" over "))
}

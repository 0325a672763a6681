//! Disks, and what stands on them, as trees.

use super::kinds;
use super::line::{kept, shown};
use super::tree::Node;
use crate::report::images::{Partition, PartitionTable};
use crate::report::{Inspected, SourceDisk};
use landfall_boot::volume::{Array, Content, Volume, VolumeGroup, VolumeId};
use landfall_image::Bytes;
use landfall_image::formats::LayerInfo;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Runs between partitions up to this are alignment, and not shown.
const GAP: u64 = 1 << 20;

/// A tree per disk, and one for whatever stands on nothing that is here.
pub fn trees(report: &Inspected) -> Vec<Node> {
    let map = Map { report, placed: RefCell::new(BTreeSet::new()) };
    let mut trees: Vec<Node> =
        report.disks.iter().enumerate().map(|(index, disk)| map.disk(index, disk)).collect();
    let left = report.volumes.iter().filter(|volume| !map.placed.borrow().contains(&volume.id));
    let left: Vec<Node> =
        left.collect::<Vec<_>>().into_iter().map(|volume| map.volume(volume, Vec::new())).collect();
    if !left.is_empty() {
        trees.push(Node { name: "elsewhere".into(), children: left, ..Node::default() });
    }
    trees
}

/// What a map is drawn of.
struct Map<'a> {
    report: &'a Inspected,
    /// Volumes that were drawn: each is once, whatever a hostile disk says.
    placed: RefCell<BTreeSet<VolumeId>>,
}

impl<'a> Map<'a> {
    fn disk(&self, index: usize, disk: &SourceDisk) -> Node {
        let mut node =
            Node { name: format!("disk{index}"), size: Some(disk.virtual_size), ..Node::default() };
        let id = VolumeId(node.name.clone());
        let mut details = vec![self.slot(index)];
        details.extend(chain(&disk.layers));
        if let Some(why) = &disk.unreadable {
            node.size = self.report.machine.disks.get(index).and_then(|slot| slot.size);
            node.what = "CANNOT BE READ".into();
            details.push(shown(&why.says));
            details.extend(why.hint.as_ref().map(|hint| format!("fix: {}", shown(hint))));
            return Node { details, ..node };
        }
        // A table that is an array's, or boot code in front of a file system, is not the disk's own.
        if let Some(volume) = self.report.volumes.iter().find(|volume| volume.id == id) {
            let whole = self.volume(volume, details);
            return Node { name: node.name, ..whole };
        }
        node.what = match (&disk.partitions, &disk.partition_error) {
            (Some(table), _) => {
                details.push(format!(
                    "id {}, sectors of {} bytes",
                    shown(&table.disk_id),
                    table.sector_size.0
                ));
                node.children = self.partitions(index, disk.virtual_size, table);
                format!("{} partitions", scheme(table))
            }
            (None, Some(error)) => {
                details.push(shown(error));
                "DAMAGED PARTITION TABLE".into()
            }
            (None, None) => "empty".into(),
        };
        Node { details, ..node }
    }

    /// Where the machine has the disk.
    fn slot(&self, index: usize) -> String {
        let machine = &self.report.machine;
        let Some(slot) = machine.disks.get(index) else { return String::new() };
        let mut out = shown(&slot.slot);
        if let Some(controller) = &slot.controller {
            out.push_str(&format!(" on {}", shown(controller)));
        }
        if index == machine.boot_disk() {
            out.push_str(", the machine starts from it");
        }
        if let Some(serial) = &slot.serial {
            out.push_str(&format!(", serial {}", shown(serial)));
        }
        out
    }

    /// The partitions of a disk in the order of their places, logical ones in theirs, with what no partition has.
    fn partitions(&self, disk: usize, size: Bytes, table: &PartitionTable) -> Vec<Node> {
        let mut entries: Vec<&Partition> = table.entries.iter().collect();
        entries.sort_by_key(|entry| (entry.start, !entry.extended, entry.number));
        let (outer, inner): (Vec<&Partition>, Vec<&Partition>) =
            entries.iter().copied().partition(|entry| !is_logical(entry, &entries));
        let mut out = Vec::new();
        let mut end = 0;
        for entry in outer {
            out.extend(gap(end, entry.start.0));
            let own_end = entry.start.0.saturating_add(entry.length.0);
            end = end.max(own_end);
            if !entry.extended {
                out.push(self.partition(disk, entry, table));
                continue;
            }
            let mut children = Vec::new();
            let mut inner_end = entry.start.0;
            for logical in inner.iter().filter(|logical| is_inside(logical, entry)) {
                children.extend(gap(inner_end, logical.start.0));
                inner_end = inner_end.max(logical.start.0.saturating_add(logical.length.0));
                children.push(self.partition(disk, logical, table));
            }
            children.extend(gap(inner_end, own_end));
            out.push(Node {
                name: format!("disk{disk}p{}", entry.number),
                size: Some(entry.length),
                what: "extended partition".into(),
                details: vec![place(entry, table)],
                children,
                ..Node::default()
            });
        }
        out.extend(gap(end, size.0));
        out
    }

    fn partition(&self, disk: usize, entry: &Partition, table: &PartitionTable) -> Node {
        let id = VolumeId(format!("disk{disk}p{}", entry.number));
        let details = vec![place(entry, table)];
        match self.report.volumes.iter().find(|volume| volume.id == id) {
            Some(volume) => self.volume(volume, details),
            None => Node {
                name: id.0,
                size: Some(entry.length),
                what: "not looked at".into(),
                details,
                ..Node::default()
            },
        }
    }

    /// A volume with what stands on it. `details` are what is known of its place.
    fn volume(&self, volume: &'a Volume, mut details: Vec<String>) -> Node {
        if !self.placed.borrow_mut().insert(volume.id.clone()) {
            return Node { name: shown(&volume.id.0), what: "(above)".into(), ..Node::default() };
        }
        let mut about = Vec::new();
        about.extend(volume.part_label.as_ref().map(|name| kept(&format!("named \"{}\"", shown(name)))));
        about.extend(volume.label.as_ref().map(|label| kept(&format!("label \"{}\"", shown(label)))));
        about.extend(volume.uuid.as_ref().map(|uuid| kept(&format!("UUID {}", shown(uuid)))));
        if !about.is_empty() {
            // Where the partition lies and what it holds go into one line, if it is one.
            let about = about.join(", ");
            match details.as_mut_slice() {
                [place] if volume.partition.is_some() => place.push_str(&format!(", {about}")),
                _ => details.push(about),
            }
        }
        let mut node = Node {
            name: shown(&volume.id.0),
            size: Some(volume.size),
            free: volume.free,
            at: self.mounts(volume),
            ..Node::default()
        };
        node.what = match &volume.content {
            Content::FileSystem { name } => shown(name),
            Content::Swap { hibernated: false } => "swap".into(),
            Content::Swap { hibernated: true } => "swap, HIBERNATED".into(),
            Content::LvmPhysical { group } => {
                node.children.extend(self.groups_on(volume));
                match group.is_empty() {
                    true => "LVM, in no group".into(),
                    false => format!("LVM, part of {}", shown(group)),
                }
            }
            Content::Encrypted { scheme } => self.encrypted(volume, scheme, &mut node.children, &mut details),
            Content::Member { of } if of == "linux-raid" => {
                node.children.extend(self.arrays_on(volume));
                match self.report.arrays.iter().find(|array| array.on.contains(&volume.id)) {
                    Some(array) => format!("RAID, part of {}", shown(&array.name)),
                    None => "RAID, not opened".into(),
                }
            }
            Content::Member { of } => format!("{}, not opened", shown(of)),
            Content::Unknown => match volume.part_type.as_deref() {
                Some(kind) if kinds::is_bare(kind) => "no file system".into(),
                _ => "nothing known".into(),
            },
        };
        node.children.extend(self.subvolumes(volume));
        Node { details, ..node }
    }

    fn encrypted(
        &self,
        volume: &Volume,
        scheme: &str,
        children: &mut Vec<Node>,
        details: &mut Vec<String>,
    ) -> String {
        let inner = self.report.volumes.iter().find(|inner| inner.on.as_slice() == [volume.id.clone()]);
        if let Some(inner) = inner {
            children.push(self.volume(inner, Vec::new()));
            return format!("{}, opened", shown(scheme));
        }
        details.push(match scheme.starts_with("LUKS") {
            true => {
                "opens with --passphrase-file FILE (its first line) or --key-file FILE (all of it)".to_owned()
            }
            false => {
                format!("landfall has no key option for {}: decrypt it in the source machine", shown(scheme))
            }
        });
        format!("{}, LOCKED", shown(scheme))
    }

    /// Volume groups that have this one as their first.
    fn groups_on(&self, volume: &Volume) -> Vec<Node> {
        let groups = self.report.groups.iter().filter(|group| group.on.first() == Some(&volume.id));
        groups.map(|group| self.group(group)).collect()
    }

    fn group(&self, group: &VolumeGroup) -> Node {
        let logical = self.report.volumes.iter().filter(|volume| volume.on == group.on);
        let mut details = Vec::new();
        if group.on.len() > 1 {
            details.push(format!("on {}", names(&group.on)));
        }
        if !group.missing.is_empty() {
            let missing: Vec<String> = group.missing.iter().map(|uuid| shown(uuid)).collect();
            details.push(format!("MISSING: physical volumes {}", missing.join(", ")));
        }
        Node {
            name: shown(&group.name),
            size: group.size,
            what: "volume group".into(),
            free: group.free,
            details,
            children: logical.map(|volume| self.volume(volume, Vec::new())).collect(),
            ..Node::default()
        }
    }

    /// Arrays that have this volume as their first member.
    fn arrays_on(&self, volume: &Volume) -> Vec<Node> {
        let arrays = self.report.arrays.iter().filter(|array| array.on.first() == Some(&volume.id));
        arrays.map(|array| self.array(array)).collect()
    }

    fn array(&self, array: &Array) -> Node {
        let mut details =
            vec![format!("{} of {} disks, here {}", shown(&array.level), array.disks, names(&array.on))];
        let on: Vec<&Volume> = self.report.volumes.iter().filter(|volume| volume.on == array.on).collect();
        match on.as_slice() {
            [whole] if whole.id.0 == array.name => self.volume(whole, details),
            parts => {
                let what = match (array.opened, parts.is_empty()) {
                    (false, _) => "NOT OPENED",
                    (true, true) => "empty",
                    (true, false) => "partitions",
                };
                if !array.opened {
                    details.push("the findings say why".to_owned());
                }
                Node {
                    name: shown(&array.name),
                    what: format!("{}, {what}", shown(&array.level)),
                    details,
                    children: parts.iter().map(|part| self.volume(part, Vec::new())).collect(),
                    ..Node::default()
                }
            }
        }
    }

    /// Where the guest mounts all of a volume.
    fn mounts(&self, volume: &Volume) -> String {
        let mounts = self.report.guest.iter().flat_map(|guest| &guest.mounts);
        let mounts = mounts.filter(|mount| mount.volume == volume.id && mount.subvolume.is_none());
        mounts.map(|mount| shown(&mount.at)).collect::<Vec<_>>().join(", ")
    }

    /// Subvolumes that the guest mounts.
    fn subvolumes(&self, volume: &Volume) -> Vec<Node> {
        let mounts = self.report.guest.iter().flat_map(|guest| &guest.mounts);
        let mounts = mounts.filter(|mount| mount.volume == volume.id);
        let node = |mount: &landfall_boot::guest::Mount| {
            let name = shown(mount.subvolume.as_deref()?);
            Some(Node { name, what: "subvolume".into(), at: shown(&mount.at), ..Node::default() })
        };
        mounts.filter_map(node).collect()
    }
}

/// What no partition has, where it is more than alignment.
fn gap(from: u64, to: u64) -> Option<Node> {
    let len = to.checked_sub(from).filter(|len| *len > GAP)?;
    Some(Node { name: "unused".into(), size: Some(Bytes(len)), ..Node::default() })
}

fn is_inside(inner: &Partition, outer: &Partition) -> bool {
    let end = |entry: &Partition| entry.start.0.saturating_add(entry.length.0);
    inner.start >= outer.start && end(inner) <= end(outer)
}

fn is_logical(entry: &Partition, all: &[&Partition]) -> bool {
    !entry.extended && all.iter().any(|outer| outer.extended && is_inside(entry, outer))
}

/// Where a partition lies and what it is for.
fn place(entry: &Partition, table: &PartitionTable) -> String {
    let sector = table.sector_size.0.max(1);
    let (first, end) = (entry.start.0 / sector, entry.start.0.saturating_add(entry.length.0) / sector);
    let mut out = format!("sectors {first} to {}", end.saturating_sub(1));
    out.push_str(&match (kinds::name(&entry.kind), entry.kind.starts_with("0x")) {
        (Some(name), true) => format!(", type {name} ({})", entry.kind),
        (Some(name), false) => format!(", type {name}"),
        (None, _) => format!(", type {}", shown(&entry.kind)),
    });
    if entry.bootable {
        out.push_str(", active");
    }
    out
}

fn scheme(table: &PartitionTable) -> &'static str {
    match table.scheme {
        landfall_image::partition::Scheme::Mbr => "MBR",
        landfall_image::partition::Scheme::Gpt => "GPT",
    }
}

fn names(ids: &[VolumeId]) -> String {
    ids.iter().map(|id| shown(&id.0)).collect::<Vec<_>>().join(", ")
}

/// The files of an image, each on the next.
fn chain(layers: &[LayerInfo]) -> Vec<String> {
    let mut out = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let name = layer.path.file_name().unwrap_or(layer.path.as_os_str()).to_string_lossy();
        let variant = match layer.format.name() == layer.variant {
            true => String::new(),
            false => format!(" {}", shown(&layer.variant)),
        };
        out.push(format!(
            "{}{}: {}{variant}, {} on the host",
            if index == 0 { "" } else { "on " },
            shown(&name),
            layer.format.name(),
            layer.allocated
        ));
        for (name, value) in &layer.details {
            if name.contains("snapshot") {
                out.push(format!("  {}: {}", shown(name), shown(value)));
            }
        }
    }
    out
}

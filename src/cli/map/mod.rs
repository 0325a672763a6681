//! The map of a machine that `landfall inspect` prints: what it is made of, its cards, and its disks as trees of what
//! stands on what.
//!
//! ```text
//! disk -> partition -> LUKS -> physical volume -> volume group -> logical volume -> file system -> mount
//!                   -> member of an array -> array -> …
//! ```
//!
//! [`machine`] has what is no disk, [`disks`] makes the trees, [`tree`] draws them, [`line`] keeps every line to a width and
//! every name harmless, [`kinds`] names types of partitions. Deliberately absent: what only a program needs, which `--json`
//! has: exact bytes, GUIDs of partitions, names of devices.

mod disks;
mod kinds;
pub mod line;
mod machine;
mod tree;

use crate::report::Inspected;

/// The machine, its cards and its disks.
pub fn text(report: &Inspected) -> String {
    let mut lines = machine::lines(&report.machine);
    lines.push(String::new());
    lines.push("Disks".to_owned());
    lines.extend(tree::lines(&disks::trees(report)));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests;

//! VMware virtual disks (VMDK), every kind.
//!
//! ```text
//! monolithicSparse, streamOptimized                 one file: KDMV header, embedded descriptor, grains
//! monolithicFlat, twoGbMaxExtentFlat, vmfs          descriptor + files that hold the bytes of the disk
//! twoGbMaxExtentSparse                              descriptor + files with KDMV header and grains
//! vmfsSparse, seSparse                              descriptor + a COWD or 0xcafebabe file: ESXi snapshots
//! fullDevice, partitionedDevice, custom             descriptor + devices or any of the above
//! ```
//! Source: VMware, Virtual Disk Format 5.0. The kind is read from each extent, not from `createType`, which is
//! only told to the user. [`descriptor`] reads the text; [`hosted`], [`cowd`] and [`sesparse`] the headers;
//! [`sparse`] and [`inflate`] the grains; [`joined`] puts extents behind each other.
//!
//! A chain's link is the content id: [`Layer::identity`] is the CID as eight lower-case hexadecimal digits.
//!
//! Deliberately absent: raw device mappings (their data is on a LUN, not in the file), encrypted disks, journal
//! replay for seSparse, COWD version 3 (Workstation 3), changed block tracking files.

mod cache;
mod check;
mod cowd;
mod descriptor;
mod field;
mod hosted;
mod inflate;
mod joined;
mod layout;
mod open;
mod sesparse;
mod sparse;
mod write;

use crate::chain::Layer;
use crate::error::Result;
use crate::gate::Gate;
use crate::source::Source;

/// True where the file says that it is a VMDK: a descriptor, or any sparse extent.
pub fn probe(source: &Source) -> Result<bool> {
    let head = source.head(4096)?;
    Ok(open::magic(&head).is_some() || descriptor::probe(&head))
}

/// Opens one layer: a descriptor, or a sparse extent with its descriptor inside. A bare piece of a disk (`-s001`,
/// `-delta`) is refused with the hint to open its descriptor.
pub fn open(source: Source, gate: &Gate) -> Result<Layer> {
    open::open(source, gate)
}

/// What kind of disk a descriptor says it is (`createType`): `vmfsRawDeviceMap`. `None` where `source` has no descriptor that
/// can be read. Nothing that it names is opened.
pub fn create_type(source: &Source) -> Option<String> {
    open::described(source).ok().map(|described| described.text.create_type)
}

pub use check::check;
pub use write::{
    COMPRESSIONS, create_esxi, create_flat, create_sparse, create_split, create_split_flat, create_stream,
};

/// Raises the process's limit of open files, as far as the system allows it, for an image of that many files: a disk
/// of 2 TiB in pieces of 2 GiB is over a thousand, and 1024 is the usual limit.
fn allow_open_files(count: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const OTHERS: u64 = 256;
    let limit = getrlimit(Resource::Nofile);
    let wanted = (count as u64).saturating_add(OTHERS);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = Some(
            limit.maximum.map_or(wanted.saturating_mul(2), |maximum| maximum.min(wanted.saturating_mul(2))),
        );
        // Where that is refused, opening the files will say so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum });
    }
}

#[cfg(test)]
mod tests;

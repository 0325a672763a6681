//! Bytes to disks and back: every disk-image format that landfall reads or writes, and what composes them.
//!
//! ```text
//! file -> Source -> format reader -> Layer (a Disk + the name of its parent) -> chain -> Overlay -> convert -> Sink
//! ```
//!
//! A format never imports another format; they meet through [`disk::Disk`]. This crate names no operating
//! system: it knows partitions, but not what lies in them.

pub mod bitlk;
pub mod blocks;
pub mod chain;
pub mod check;
pub mod composed;
pub mod convert;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod corpus;
pub mod create;
mod deflate;
pub mod delta;
pub mod digest;
pub mod disk;
pub mod error;
pub mod fat;
mod foreign;
pub mod formats;
pub mod gate;
pub mod iso;
pub mod limits;
pub mod location;
pub mod luks;
pub mod nbd;
pub mod ova;
pub mod overlay;
pub mod pages;
mod parent;
pub mod partial;
pub mod partition;
pub mod qcow2;
pub mod raw;
pub mod sink;
pub mod source;
pub mod squashfs;
pub mod suite;
mod tar;
pub mod testing;
pub mod units;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
pub mod xva;

pub use composed::Composed;
pub use create::CreateOptions;
pub use disk::{Disk, DiskMut, Extent, ExtentKind};
pub use error::{Error, Kind, Result};
pub use formats::{Format, OpenOptions};
pub use gate::Gate;
pub use location::Location;
pub use overlay::Overlay;
pub use sink::{Receipt, Sink};
pub use source::Source;
pub use units::{Bytes, FileOffset, GuestOffset, GuestRange, Sectors};

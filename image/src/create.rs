//! How a new image is made: one set of options for all formats. What a format cannot honour it refuses by name.

use crate::convert::Cancel;
use crate::error::{Error, Result};
use crate::formats::Format;
use crate::partial::Within;
use crate::units::Bytes;
use std::path::{Path, PathBuf};

/// How image data is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Deflate: read everywhere.
    Zlib,
    /// Zstandard: smaller and much faster, read by QEMU 5.1 and later.
    Zstd,
}

impl Compression {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        }
    }
}

/// What of a new image's room is taken before there is data for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preallocation {
    /// Nothing: the image grows with its data.
    #[default]
    Off,
    /// Tables for the whole disk, each block with its place; the host's file stays sparse.
    Metadata,
    /// As `Metadata`, and the host's file system reserves the room.
    Falloc,
    /// As `Falloc`, with zeros written, so that nothing is left for the file system to do later.
    Full,
}

/// The image that a differencing image is made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// As the new image names it.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Its size as a disk.
    pub size: Bytes,
    /// What a child has to name to be its child (see [`Layer::identity`](crate::chain::Layer::identity)).
    pub identity: Option<String>,
}

/// What is done with the files of a new image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// Replace files that are there. They stay until the new ones are complete.
    pub replace: bool,
    /// Open what an interrupted run left under the partial names, with its content, instead of removing it.
    pub resume: bool,
    /// Wait until everything is on stable storage before the image takes its name. A choice of the caller, where the
    /// design has every sink sync: a machine that is brought ashore waits, one image does not unless asked to, as with
    /// cp and qemu-img, since the wait takes twice as long as the copy.
    pub sync: bool,
}

/// The disk controller that a VMDK's descriptor says it is made for, with the geometry that belongs to it; in an OVA
/// package, the one that its disk hangs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adapter {
    /// SCSI, and what VMware's tools also write into a disk for SATA and NVMe.
    #[default]
    LsiLogic,
    /// The SCSI controller of old guests.
    BusLogic,
    /// IDE.
    Ide,
    /// Paravirtual SCSI: in a descriptor the same as `LsiLogic`, since that has no word for it.
    PvScsi,
}

/// How an image is made.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// Compress the data.
    pub compression: Option<Compression>,
    /// The compressor's level: 1 to 12 for zlib, negative to 22 for zstd. Without it, the format's choice.
    pub level: Option<i32>,
    /// The unit of allocation: cluster of a qcow2, block of a VHDX or VHD, grain of a VMDK.
    pub block_size: Option<Bytes>,
    /// qcow2: allocate in thirty-seconds of a cluster (extended L2 entries).
    pub extended_l2: bool,
    /// What is reserved.
    pub preallocation: Preallocation,
    /// Make a differencing image over this one.
    pub base: Option<Base>,
    /// VMDK and OVA: the controller that the disk will hang on, `LsiLogic` unless it is told.
    pub adapter: Option<Adapter>,
    /// What is done with the files.
    pub files: FileOptions,
    /// Write the image into another file that is under way, as its last part so far.
    pub within: Option<Within>,
    /// Stops what takes long when the image is completed: the digests of an OVA's manifest.
    pub cancel: Cancel,
}

/// Which of the options a kind of image takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Takes {
    /// [`CreateOptions::compression`]: these.
    pub compression: &'static [Compression],
    /// [`CreateOptions::block_size`]: powers of two in this range of bytes.
    pub block_size: Option<(u64, u64)>,
    /// [`CreateOptions::extended_l2`]
    pub extended_l2: bool,
    /// [`CreateOptions::preallocation`]: these besides `Off`.
    pub preallocation: &'static [Preallocation],
    /// [`CreateOptions::base`]
    pub base: bool,
    /// [`CreateOptions::within`]
    pub within: bool,
    /// [`CreateOptions::adapter`]
    pub adapter: bool,
}

/// Refuses a compression that `kind` does not take.
pub(crate) fn takes_compression(
    kind: &str,
    wanted: Option<Compression>,
    takes: &[Compression],
) -> Result<()> {
    match wanted.filter(|compression| !takes.contains(compression)) {
        None => Ok(()),
        Some(compression) => {
            Err(Error::refused(format!("{kind} cannot be compressed with {}", compression.name()))
                .hint("qcow2 takes zlib and zstd, vmdk-stream and ova zlib"))
        }
    }
}

impl CreateOptions {
    /// Refuses ([`Kind::Refused`](crate::Kind::Refused)) the first option that `kind` does not take.
    pub fn check(&self, path: &Path, kind: &str, takes: &Takes) -> Result<()> {
        let refused =
            |says: String, hint: &str| Err(Error::refused(says).in_file(path).hint(hint.to_owned()));
        takes_compression(kind, self.compression, takes.compression).map_err(|e| e.in_file(path))?;
        if self.level.is_some() && takes.compression.is_empty() {
            return refused(format!("{kind} is not compressed and takes no level"), "leave the level out");
        }
        match (self.block_size, takes.block_size) {
            (Some(_), None) => {
                return refused(
                    format!("{kind} has no unit of allocation to choose"),
                    "leave the block size out",
                );
            }
            (Some(size), Some((least, most)))
                if !size.0.is_power_of_two() || !(least..=most).contains(&size.0) =>
            {
                let says = format!("{kind} in units of {} bytes", size.0);
                return refused(says, &format!("powers of two from {least} to {most} are possible"));
            }
            _ => {}
        }
        if self.extended_l2 && !takes.extended_l2 {
            return refused(format!("{kind} has no extended L2 entries"), "qcow2 has");
        }
        if self.preallocation != Preallocation::Off && !takes.preallocation.contains(&self.preallocation) {
            let what = format!("{:?}", self.preallocation).to_lowercase();
            let possible: Vec<_> =
                takes.preallocation.iter().map(|how| format!("{how:?}").to_lowercase()).collect();
            let hint = match possible.is_empty() {
                true => "leave the preallocation out".to_owned(),
                false => format!("possible: {}", possible.join(", ")),
            };
            return refused(format!("{kind} cannot be preallocated as {what}"), &hint);
        }
        if self.adapter.is_some() && !takes.adapter {
            return refused(
                format!("{kind} names no disk controller"),
                "leave the adapter out; the kinds of vmdk and ova take one",
            );
        }
        if self.within.is_some() && !takes.within {
            let says = format!("{kind} cannot be written into a package");
            return refused(says, "disks of an OVA are written as vmdk-stream");
        }
        if self.base.is_some() && !takes.base {
            return refused(
                format!("{kind} cannot be a differencing image"),
                "qcow2, vhdx and vhd can be made over a base",
            );
        }
        Ok(())
    }
}

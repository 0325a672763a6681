//! The grammar of `landfall disk`.

use super::Compression;
use crate::ops::parse_size;
use clap::{Args, Subcommand, ValueEnum};
use landfall_image::{Bytes, Format};
use std::path::PathBuf;

/// `landfall disk …`
#[derive(Debug, Subcommand)]
pub enum DiskVerb {
    /// Show what an image is, its layers and partitions
    Info {
        /// The image
        #[command(flatten)]
        image: ImageArgs,
        /// Read all of it and print its content digest
        #[arg(long)]
        digest: bool,
    },
    /// Show which runs of a disk hold data
    Map {
        /// The image
        #[command(flatten)]
        image: ImageArgs,
    },
    /// Convert images into another format
    Convert(DiskConvert),
    /// Check the structures of an image and its parents; repair nothing
    Check {
        /// The images
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// Their format, instead of what their bytes say
        #[arg(short = 'f', long, value_parser = parse_format, value_name = "FORMAT")]
        format: Option<Format>,
        /// Read all data too: finds bad sectors and damaged compressed data
        #[arg(long)]
        read: bool,
    },
    /// Serve a disk to NBD clients, read-only, until stopped
    Serve {
        /// The image
        #[command(flatten)]
        image: ImageArgs,
        /// Serve on this Unix socket, for this user alone
        #[arg(long, value_name = "PATH", conflicts_with = "listen")]
        socket: Option<PathBuf>,
        /// Serve on this address and port; other machines reach it only with --tls-cert
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10809")]
        listen: std::net::SocketAddr,
        /// The export's name
        #[arg(long, value_name = "NAME", default_value = "")]
        export: String,
        /// Stop when the last client has left
        #[arg(long)]
        once: bool,
    },
    /// Compare two images by what a guest reads from them
    Compare {
        /// One image
        first: PathBuf,
        /// The other
        second: PathBuf,
        /// The first one's format, instead of what its bytes say
        #[arg(short = 'f', long, value_parser = parse_format, value_name = "FORMAT")]
        format: Option<Format>,
        /// The second one's format
        #[arg(short = 'F', long, value_parser = parse_format, value_name = "FORMAT")]
        second_format: Option<Format>,
        /// Count a different size as a difference, even where only zeros follow
        #[arg(long)]
        strict: bool,
    },
}

/// One image to be read.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// The image: a file, a block device, or an NBD export (nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH)
    pub image: PathBuf,
    /// Its format, instead of what its bytes say
    #[arg(short = 'f', long, value_parser = parse_format, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Read this internal snapshot, by its name or id (qcow2)
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
}

/// `landfall disk convert`
#[derive(Debug, Args)]
#[command(after_help = kinds_help(), override_usage = "landfall disk convert [OPTIONS] <SOURCE>... <TARGET>")]
pub struct DiskConvert {
    /// The images to read, then the image to write; its ending gives the kind where -O does not. With several images to
    /// read, or with a folder at the end, the results get their names in that folder
    // Two at least, counted when all are there: options may stand between them.
    #[arg(required = true, num_args = 1.., value_names = ["SOURCE", "TARGET"])]
    pub paths: Vec<PathBuf>,
    /// The sources' format, instead of what their bytes say
    #[arg(short = 'f', long, value_parser = parse_format, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Read this internal snapshot, by its name or id (qcow2)
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// The kind of image to write, as listed at the end
    #[arg(short = 'O', long, value_parser = kind_names(), hide_possible_values = true, value_name = "KIND")]
    pub output_format: Option<String>,
    /// Compress (qcow2 with either method; vmdk-stream and ova are always zlib)
    #[arg(long, value_enum, value_name = "METHOD")]
    pub compress: Option<Compression>,
    /// Compress this much: 1 to 12 for zlib, 1 to 22 for zstd [default: fast; about QEMU's size, a VMDK stream a tenth more]
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true)]
    pub level: Option<i32>,
    /// Allocate in units of this size: 64K, 2M (cluster, grain or block) [default: the format's usual one]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub block_size: Option<Bytes>,
    /// Allocate in thirty-seconds of a cluster (qcow2; QEMU 5.2 and later)
    #[arg(long)]
    pub extended_l2: bool,
    /// Reserve room before there is data for it
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Preallocate::Off)]
    pub preallocate: Preallocate,
    /// Make the disk for this controller (the kinds of vmdk and ova) [default: lsilogic]
    #[arg(long, value_enum, value_name = "CONTROLLER")]
    pub adapter: Option<Adapter>,
    /// Write a differencing image: store only what differs from this image (qcow2, vhdx, vhd)
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<PathBuf>,
    /// The base's format, instead of what its bytes say
    #[arg(short = 'F', long, value_parser = parse_format, value_name = "FORMAT", requires = "base")]
    pub base_format: Option<Format>,
    /// Continue an interrupted conversion, after checking what it left
    #[arg(long)]
    pub resume: bool,
    /// Replace a target that exists
    #[arg(long)]
    pub replace: bool,
    /// Return when the image is on stable storage, not when it is handed to the system
    #[arg(long)]
    pub sync: bool,
}

/// What is reserved of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preallocate {
    /// Nothing: the image grows with its data
    Off,
    /// Tables for the whole disk (qcow2)
    Metadata,
    /// All of it, without writing it (raw, qcow2)
    Falloc,
    /// All of it, written with zeros (raw, qcow2)
    Full,
}

impl From<Preallocate> for landfall_image::create::Preallocation {
    fn from(what: Preallocate) -> Self {
        match what {
            Preallocate::Off => Self::Off,
            Preallocate::Metadata => Self::Metadata,
            Preallocate::Falloc => Self::Falloc,
            Preallocate::Full => Self::Full,
        }
    }
}

/// The controller that a disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Adapter {
    /// SCSI: LSI Logic, parallel
    LsiLogic,
    /// SCSI of old guests
    BusLogic,
    /// IDE
    Ide,
    /// Paravirtual SCSI; the disk itself says lsilogic, as VMware's do
    PvScsi,
}

impl From<Adapter> for landfall_image::create::Adapter {
    fn from(adapter: Adapter) -> Self {
        match adapter {
            Adapter::LsiLogic => Self::LsiLogic,
            Adapter::BusLogic => Self::BusLogic,
            Adapter::Ide => Self::Ide,
            Adapter::PvScsi => Self::PvScsi,
        }
    }
}

fn kind_names() -> clap::builder::PossibleValuesParser {
    let kinds = landfall_image::formats::KINDS.iter();
    kinds.map(|kind| clap::builder::PossibleValue::new(kind.name)).collect::<Vec<_>>().into()
}

fn kinds_help() -> String {
    use std::fmt::Write as _;
    let mut help = String::from("Kinds of image (-O):\n");
    for kind in landfall_image::formats::KINDS {
        let _ = writeln!(help, "  {:<16} {}", kind.name, kind.says);
    }
    help
}

fn parse_format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| {
        let names: Vec<_> = landfall_image::formats::TABLE.iter().map(|row| row.name).collect();
        format!("known formats are {}", names.join(", "))
    })
}

//! The grammar of `landfall receive`.

use super::AtService;
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::ExportName;
use crate::receive::digest::Sum;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `landfall receive …`
#[derive(Debug, Subcommand)]
pub enum ReceiveVerb {
    /// Take an RBD diff (rbd export-diff) or image (rbd export --export-format 2) into a machine's disk; one point for each of its snapshots
    ///
    /// A difference is taken only where it begins at the snapshot that the disk is at; what is wrong is said with the command that makes the
    /// right one, and nothing is changed. A machine or disk that is not there yet is made by a whole diff.
    ///
    /// The stream's SHA-256 is compared where it is known: --sha256, or the file FILE.sha256 beside FILE. Where it differs, nothing is applied
    /// (exit code 1); where there is none, the point says that it is unverified.
    Rbd(ReceiveRbd),
    /// Pull the disks of a machine from NBD exports: a backup that libvirt has begun (virsh backup-begin), or disks of any server
    ///
    /// With --since only what the export's dirty bitmap says has changed is read; where the bitmap cannot be trusted for what the vault holds,
    /// all of the disk is read and compared, and it is said why. What is the same is not written. The service itself reads the exports: name
    /// them as it reaches them.
    Pull(ReceivePull),
    /// Look at a watched folder now: take the drops in it that are sealed, and say what became of each
    ///
    /// The service looks at its folders by itself ([[folder]] in its file). With --vault, any folder can be looked at.
    ///
    /// Exit codes: 0 nothing was refused, 1 a drop was refused, 2 one could not be taken.
    Folder(ReceiveFolder),
    /// Seal a drop where it is made: write landfall.json with the digests of all that lies in the folder
    Seal(ReceiveSeal),
    /// Take a seed that landfall send MACHINE --to FOLDER has written, from a disk that was carried here
    ///
    /// It is as if the point had been sent over the line: from then on, landfall send brings what has changed since. A seed that is damaged
    /// or not complete is refused, with the file and the offset, and nothing of it is offered.
    Seed(ReceiveSeed),
    /// Give up a send of another landfall that has not come to its end: the disks go back to what they held before
    GiveUp(ReceiveGiveUp),
}

/// `landfall receive seed`
#[derive(Debug, Args)]
pub struct ReceiveSeed {
    /// The seed, or the folder that it lies in
    pub folder: PathBuf,
    /// Call the machine by this name here [default: as it is called there]
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<Name>,
    /// The machine of that name here may be another one: it becomes this one, and keeps its points
    #[arg(long)]
    pub replace: bool,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall receive give-up`
#[derive(Debug, Args)]
pub struct ReceiveGiveUp {
    /// The machine
    pub name: Name,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall receive rbd`
#[derive(Debug, Args)]
pub struct ReceiveRbd {
    /// The disk that it is for
    #[arg(value_name = "MACHINE/DISK", value_parser = parse_export)]
    pub disk: ExportName,
    /// The stream; - for standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Further disks of the same moment, each with its stream: web01/sdb sdb.diff
    #[arg(value_name = "MACHINE/DISK FILE")]
    pub more: Vec<String>,
    /// The stream's SHA-256 (64 hexadecimal digits) [default: what FILE.sha256 says, where it is there]
    #[arg(long, value_name = "HEX", value_parser = parse_sum, conflicts_with = "more")]
    pub sha256: Option<Sum>,
    /// Let a whole diff take the place of all that the disk holds; earlier points stay
    #[arg(long)]
    pub replace: bool,
    /// Its moment, and where to
    #[command(flatten)]
    pub into: ReceiveInto,
}

/// Where what is received goes, and which moment it is of.
#[derive(Debug, Args)]
pub struct ReceiveInto {
    /// Leave the machine's other disks as they are, though they are of another moment
    #[arg(long)]
    pub apart: bool,
    /// The moment that it is of: 2026-11-29T14:03:05Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = super::service::parse_moment)]
    pub taken_at: Option<Moment>,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall receive pull`
#[derive(Debug, Args)]
pub struct ReceivePull {
    /// The machine
    pub name: Name,
    /// Its disks and their exports, all of one moment: sda=nbd://kvm1/vda
    #[arg(required = true, value_name = "DISK=NBD-URI", value_parser = parse_pulled)]
    pub disk: Vec<(Name, String)>,
    /// What this moment is called at the source (libvirt's checkpoint): the next pull can begin at it
    #[arg(long, value_name = "NAME")]
    pub checkpoint: Option<String>,
    /// The exports have bitmaps of what has changed since this checkpoint
    #[arg(long, value_name = "NAME")]
    pub since: Option<String>,
    /// A disk's bitmap has this name [default: backup-EXPORT, as libvirt calls it]
    #[arg(long, value_name = "DISK=NAME", value_parser = parse_bitmap, requires = "since")]
    pub bitmap: Vec<(Name, String)>,
    /// The applications had written down what they had in memory (a quiesced backup)
    #[arg(long)]
    pub application: bool,
    /// Its moment, and where to
    #[command(flatten)]
    pub into: ReceiveInto,
}

/// `landfall receive folder`
#[derive(Debug, Args)]
pub struct ReceiveFolder {
    /// The folder
    pub folder: PathBuf,
    /// Take only drops with a manifest [default with a service: as its file says]
    #[arg(long)]
    pub manifest: bool,
    /// Leave drops in their place, with DONE.txt in them [default: move them to .done; with a service, as its file says]
    #[arg(long)]
    pub keep: bool,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall receive seal`
#[derive(Debug, Args)]
pub struct ReceiveSeal {
    /// The drop: the folder with the machine's files
    pub drop: PathBuf,
    /// The machine, where that is to be checked
    #[arg(long, value_name = "NAME")]
    pub machine: Option<Name>,
    /// The moment that it is of: 2026-11-29T14:03:05Z
    #[arg(long, value_name = "TIME", value_parser = super::service::parse_moment)]
    pub taken_at: Option<Moment>,
    /// The applications had written down what they had in memory
    #[arg(long)]
    pub application: bool,
    /// Call its point so: it is kept until the name is taken back
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
}

fn parse_export(text: &str) -> Result<ExportName, String> {
    ExportName::parse(text).ok_or_else(|| format!("{text:?} is no MACHINE/DISK; write it like web01/sda"))
}

fn parse_sum(text: &str) -> Result<Sum, String> {
    Sum::parse(text).map_err(super::service::said)
}

fn parse_pulled(text: &str) -> Result<(Name, String), String> {
    let (disk, uri) = pair(text, "write DISK=NBD-URI: sda=nbd://kvm1/vda")?;
    landfall_image::nbd::Uri::parse(&uri).map_err(super::service::said)?;
    Ok((disk, uri))
}

fn parse_bitmap(text: &str) -> Result<(Name, String), String> {
    pair(text, "write DISK=NAME: sda=backup-vda")
}

fn pair(text: &str, how: &str) -> Result<(Name, String), String> {
    let (disk, value) = text.split_once('=').ok_or_else(|| how.to_owned())?;
    let disk = disk.parse().map_err(super::service::said)?;
    if value.is_empty() { Err(how.to_owned()) } else { Ok((disk, value.to_owned())) }
}

//! The grammar of the service's verbs.

use crate::moment::Moment;
use crate::name::Name;
use crate::ops::source::point::PointName;
use crate::trust::Thumbprint;
use clap::{Args, Subcommand, ValueEnum};
use landfall_image::Bytes;
use std::path::PathBuf;

/// `landfall serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The service's file (TOML; landfall schema serve-file) [default: /etc/landfall/landfall.toml where it is there]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only look whether the file can be used, and say what it means
    #[arg(long)]
    pub check: bool,
    /// Write the log in this form
    #[arg(long, value_enum, value_name = "FORM", default_value_t = LogForm::Text)]
    pub log: LogForm,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Lines for people
    Text,
    /// A JSON document in each line
    Json,
}

/// Which service is asked.
#[derive(Debug, Args)]
pub struct AtService {
    /// Ask this service: https://HOST:8470, with a token in LANDFALL_TOKEN; or the path of its socket [default: LANDFALL_SERVICE,
    /// or /run/landfall/api.sock]
    #[arg(long, value_name = "URL")]
    pub service: Option<String>,
}

/// `landfall status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this machine, with its disks
    pub machine: Option<Name>,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall protect`
#[derive(Debug, Args)]
pub struct Protect {
    /// The machine's name at the service
    pub name: Name,
    /// Its definition (.vmx, .ovf, libvirt's or Hyper-V's .xml, .vmcx, Proxmox' .conf, AHV's .json …); its disks are not opened
    pub definition: Option<PathBuf>,
    /// A disk and its size: sda=40G. Beside a definition, the size of a disk for which it says none
    #[arg(long, value_name = "NAME=SIZE", value_parser = parse_disk)]
    pub disk: Vec<(Name, Bytes)>,
    /// This disk of the definition is that one of those that are protected already: scsi0:0=sda [default: where the definition calls them
    /// otherwise, in their order]
    #[arg(long = "as", value_name = "SLOT=NAME", value_parser = parse_placed, requires = "definition")]
    pub placed: Vec<(String, Name)>,
    /// Its disks have logical sectors of this many bytes [default: as the definition says, or 512]
    #[arg(long, value_name = "BYTES", value_parser = ["512", "4096"])]
    pub sector_size: Option<String>,
    /// Leave this disk of the definition out: scsi0:2
    #[arg(long, value_name = "SLOT", requires = "definition")]
    pub skip_disk: Vec<String>,
    /// Take this disk out of a machine that is protected; its earlier points keep it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["definition", "disk", "nvram"])]
    pub drop_disk: Vec<Name>,
    /// It is to be protected again, where it was promoted by landfall recover commit: its source sends a whole copy
    #[arg(long, conflicts_with_all = ["definition", "disk", "nvram", "drop_disk"])]
    pub resume: bool,
    /// Keep the UEFI variables in FILE: NAME_VARS.fd of OVMF, .nvram of VMware [default: those that the definition names, where
    /// their file lies here]
    #[arg(long, value_name = "FILE")]
    pub nvram: Option<PathBuf>,
    /// Take this machine, where the definition has several
    #[arg(long, value_name = "ID", requires = "definition")]
    pub system: Option<String>,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall unprotect`
#[derive(Debug, Args)]
pub struct Unprotect {
    /// The machine
    pub name: Name,
    /// All of its recovery points may go; without, it is only said what would be lost
    #[arg(long)]
    pub delete_points: bool,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall ready`
#[derive(Debug, Args)]
pub struct Ready {
    /// The machine
    pub name: Name,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall points …`
#[derive(Debug, Subcommand)]
pub enum PointsVerb {
    /// List the points of a machine, the newest last
    List {
        /// The machine
        name: Name,
        /// Show every point; without, long runs of points of which there is nothing to say are one line each
        #[arg(long)]
        all: bool,
        /// Only points of this moment and later: 2026-11-29T14:03:05Z, 2026-11-29 14:03 (without a zone it is UTC), -15m
        #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_since)]
        since: Option<Moment>,
        /// Only points of this moment and before
        #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_until)]
        until: Option<Moment>,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Show a point: its disks, where they are read, the machine's definition
    Show {
        /// Which
        #[command(flatten)]
        point: PointArg,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Set a point now, on a machine and on all of its group
    Create {
        /// The machine
        name: Name,
        /// Call it so: it is kept until the name is taken back
        #[arg(long, value_name = "NAME")]
        tag: Option<String>,
        /// The applications have written down what they had in memory (a quiesced snapshot, a freeze of file systems)
        #[arg(long)]
        application: bool,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Read a point as a whole, check its checksums, and compare it with what it was
    ///
    /// Exit codes: 0 it matched, 1 it differed, 2 nobody knows: it could not be read as a whole.
    Verify {
        /// Which
        #[command(flatten)]
        point: PointArg,
        /// Have it done in the background; ask again later with --last
        #[arg(long, conflicts_with = "last")]
        background: bool,
        /// Only show what came of the last time, or how far it is
        #[arg(long)]
        last: bool,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Export a disk as it was at a point as an RBD diff, or its difference to an earlier point, for rbd import-diff and merge-diff
    Export(PointsExport),
    /// Show what trial boots of a machine's points showed; each piece is signed, and names the one before it
    ///
    /// What is shown was checked. With --output, all of it goes into a file, which --check reads where no service is. Note the key down elsewhere:
    /// whoever has the vault could sign another history.
    Evidence {
        /// The machine
        #[arg(required_unless_present = "check", conflicts_with = "check")]
        name: Option<Name>,
        /// Write it into FILE, to be shown to others
        #[arg(short, long, value_name = "FILE", conflicts_with = "check")]
        output: Option<PathBuf>,
        /// Check what was written into FILE
        #[arg(long, value_name = "FILE")]
        check: Option<PathBuf>,
        /// It has to be signed with this key
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Give a point a name, by which it is kept; or take its name back
    ///
    /// Two points of a machine do not get one name by hand. Where deltas brought two of one name, the name means the newest.
    #[command(
        override_usage = "landfall points tag [OPTIONS] MACHINE POINT <NAME|--remove>\n       landfall points tag [OPTIONS] MACHINE@AT <NAME|--remove>"
    )]
    Tag {
        /// The machine; MACHINE@AT names the point, too
        #[arg(value_name = "MACHINE")]
        name: String,
        /// The point: its number, latest, tag:NAME (the newest of that name), a time (2026-11-29T14:03:05Z, 2026-11-29 14:03; without a
        /// zone it is UTC), or how long ago (-15m)
        #[arg(allow_hyphen_values = true)]
        point: Option<String>,
        /// The name
        #[arg(value_name = "NAME", conflicts_with = "remove")]
        tag: Option<String>,
        /// Take its name back
        #[arg(long)]
        remove: bool,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Give a point up before its time
    Delete {
        /// The machine; MACHINE@NUMBER names the point, too
        #[arg(value_name = "MACHINE")]
        name: String,
        /// The point's number
        #[arg(value_name = "NUMBER", allow_hyphen_values = true)]
        point: Option<String>,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
}

/// `landfall points export`
#[derive(Debug, Args)]
pub struct PointsExport {
    /// The point: web01@latest, @NUMBER, @2026-11-29T14:03:05Z, @-15m, @tag:NAME
    #[arg(value_name = "MACHINE@AT", value_parser = parse_point)]
    pub point: PointName,
    /// The disk
    pub disk: Name,
    /// Only what differs from this earlier point of the machine: a number, latest, a time, -15m, tag:NAME
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Write the diff into FILE, and its digest into FILE.sha256; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The snapshot that it leads to has this name [default: that of the RBD snapshot that it is, else landfall-NUMBER]
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// The snapshot that it begins at has this name [default: likewise]
    #[arg(long, value_name = "NAME", requires = "since")]
    pub since_snapshot: Option<String>,
    /// Its notation: v1 for rbd import-diff and merge-diff
    #[arg(long, value_parser = ["v1", "v2"], default_value = "v1")]
    pub format: String,
    /// Replace a file that is there
    #[arg(long)]
    pub replace: bool,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// A point of a machine.
#[derive(Debug, Args)]
pub struct PointArg {
    /// The machine; MACHINE@AT names the point, too
    #[arg(value_name = "MACHINE")]
    pub name: String,
    /// The point: its number, latest, tag:NAME (the newest of that name), a time (2026-11-29T14:03:05Z, 2026-11-29 14:03; without a zone it
    /// is UTC; the newest until then), or how long ago (-15m) [default: latest]
    #[arg(allow_hyphen_values = true)]
    pub point: Option<String>,
}

impl PointArg {
    /// Machine and point, as they are named.
    ///
    /// # Errors
    /// As [`PointName::of_words`].
    pub fn named(&self) -> landfall_image::Result<PointName> {
        PointName::of_words(&self.name, self.point.as_deref(), Moment::now())
    }
}

/// `landfall alarms`
#[derive(Debug, Args)]
pub struct AlarmsArgs {
    /// Show alarms that began and ended, too: the last N [default: 100]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub history: Option<u32>,
    /// Which service
    #[command(flatten)]
    pub at: AtService,
}

/// `landfall token …`
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token, and show its secret this once
    Add {
        /// Whom it is given to
        name: String,
        /// What it allows: to look; to do everything but hand out tokens; everything
        #[arg(long, value_parser = ["read", "operate", "admin"], default_value = "read")]
        role: String,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// List the tokens
    List {
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Take a token back
    Remove {
        /// Its name
        name: String,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
}

/// `landfall certificate …`
#[derive(Debug, Subcommand)]
pub enum CertificateVerb {
    /// Fetch the certificate of the service's authority, which --tls-ca takes from then on
    ///
    /// Nothing vouches for it the first time but its SHA-256, which the appliance shows on its console: without --fingerprint, what the service
    /// has is shown, and nothing is written.
    Trust {
        /// The service: https://HOST:8470
        #[arg(value_name = "URL")]
        service: String,
        /// The SHA-256 on the console of the appliance
        #[arg(long, value_name = "HEX", value_parser = Thumbprint::parse)]
        fingerprint: Option<Thumbprint>,
        /// The file
        #[arg(short, long, value_name = "FILE", default_value = "ca-cert.pem")]
        output: PathBuf,
    },
    /// Hand out a certificate: that of the authority, its own and its key, as files of a folder
    ///
    /// The files have the names that QEMU looks for (tls-creds-x509, endpoint=client, dir=FOLDER); landfall takes them with --tls-ca,
    /// --tls-cert and --tls-key. Nobody keeps the key.
    Add {
        /// Whose it will be: 1 to 64 letters, digits, dots, - and _
        name: String,
        /// It may write to machines whose names fit this pattern; to all without one [default: without --recover]
        #[arg(long, value_name = "PATTERN", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
        send: Vec<String>,
        /// It may read the recovery points of machines whose names fit this pattern; of all without one
        #[arg(long, value_name = "PATTERN", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
        recover: Vec<String>,
        /// The folder [default: one of its name, here]
        #[arg(short, long, value_name = "FOLDER")]
        output: Option<PathBuf>,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// List the certificates that were handed out
    List {
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
    /// Take a certificate back: nobody is let in with it any longer, and who is there with it is sent away
    Remove {
        /// Its name
        name: String,
        /// Which service
        #[command(flatten)]
        at: AtService,
    },
}

fn parse_disk(text: &str) -> Result<(Name, Bytes), String> {
    crate::ops::service::wanted_disk(text).map_err(said)
}

fn parse_placed(text: &str) -> Result<(String, Name), String> {
    let (slot, name) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} is no SLOT=NAME: vda=sda"))?;
    Ok((slot.to_owned(), name.parse().map_err(said)?))
}

fn parse_point(text: &str) -> Result<PointName, String> {
    PointName::parse(text, Moment::now()).map_err(said)
}

fn parse_since(text: &str) -> Result<Moment, String> {
    crate::ops::source::point::since(text, Moment::now()).map_err(said)
}

fn parse_until(text: &str) -> Result<Moment, String> {
    crate::ops::source::point::until(text, Moment::now()).map_err(said)
}

pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    text.parse().map_err(said)
}

/// An error and its hint in one line.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn said(error: landfall_image::Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

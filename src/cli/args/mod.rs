//! The command line's grammar.

mod appliance;
mod disk;
mod receive;
mod recover;
mod send;
mod service;

pub use appliance::{ApplianceBuild, ApplianceVerb, StartStep};
pub use disk::{DiskConvert, DiskVerb, ImageArgs};
pub use receive::{
    ReceiveFolder, ReceiveGiveUp, ReceivePull, ReceiveRbd, ReceiveSeal, ReceiveSeed, ReceiveVerb,
};
pub use recover::{Recover, RecoverCommit, RecoverList, RecoverMode, RecoverPlace, RecoverVerb};
pub use send::Send;
pub use service::{
    AlarmsArgs, AtService, CertificateVerb, LogForm, PointArg, PointsExport, PointsVerb, Protect, Ready,
    Serve, StatusArgs, TokenVerb, Unprotect,
};

use crate::ops::parse_size;
use crate::proof::hardware::Hardware;
use crate::trust::Thumbprint;
use clap::{Args, Parser, Subcommand, ValueEnum};
use landfall_boot::target::Firmware;
use landfall_image::Bytes;
use std::path::PathBuf;

/// Brings virtual machines ashore on another hypervisor
///
/// landfall reads a virtual machine's definition and disks, patches the guest offline so that it boots on the target's
/// virtual hardware, converts the disks in parallel, and writes a machine that is ready to register. The source is
/// never altered.
///
/// Exit codes: 0 done, 1 refused (the reason and the remedy are printed), 2 failed.
#[derive(Debug, Parser)]
#[command(name = "landfall", version, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// What every verb takes.
    #[command(flatten)]
    pub common: Common,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Common {
    /// Print one JSON document instead of text (landfall schema has its schema)
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log what happens inside; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Let images name files in this folder too (backing files, extents); by default only in their own. Parents of snapshots
    /// and linked clones, which images name by a path of another host, are looked for in it by their names
    #[arg(long, global = true, value_name = "FOLDER")]
    pub allow: Vec<PathBuf>,
    /// Work with the vault in this folder, on which no service works: look at it (status, points), take recovery points
    /// (point:MACHINE@latest) out of it, receive into it [default: the service on this machine does so]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub vault: Option<PathBuf>,
    /// Work with this many threads [default: one per processor]
    #[arg(short, long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Read at most this many bytes per second: 50M, 1G
    #[arg(long, global = true, value_name = "BYTES", value_parser = parse_size)]
    pub rate_limit: Option<Bytes>,
    /// Open encrypted images and volumes with the content of this file, all of it
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub key_file: Option<PathBuf>,
    /// Open encrypted images and volumes with the first line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Trust NBD servers (nbds://), NBD clients and a service (https://) with certificates of this authority
    #[arg(long, global = true, value_name = "PEM")]
    pub tls_ca: Option<PathBuf>,
    /// Show this certificate to NBD servers and clients
    #[arg(long, global = true, value_name = "PEM", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, global = true, value_name = "PEM", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Convert a virtual machine: read, patch, convert its disks, define
    Convert(Box<Convert>),
    /// Show facts, findings and the patch plan of a virtual machine; change nothing
    Inspect(Inspect),
    /// Convert many machines at once, as a file says; run it again to go on where it ended
    Batch(Batch),
    /// Work with a map of the recovery site
    #[command(subcommand)]
    Map(MapVerb),
    /// Boot a converted machine in isolation and keep the evidence
    Prove(Prove),
    /// Register a converted machine with a running hypervisor: libvirt, vCenter or ESXi
    ///
    /// Looks first at everything that could stand in the way, and changes nothing at the hypervisor where something does: a
    /// name, an id, a network address or a disk that another machine has, a network or storage that is not there. What
    /// fails half-way is taken back, and what could not be is said.
    ///
    /// User name and password for vSphere come from --credentials, from LANDFALL_USER and LANDFALL_PASSWORD, or from the
    /// keyring (secret-tool; attributes service=landfall, host, user) where the address names the user. libvirt has files of its
    /// own for them.
    Register(Register),
    /// Run the service of the recovery site: receive replicated disks over NBD, keep recovery points
    ///
    /// Programs on this machine reach it through sockets in /run/landfall (receive.sock for disks that come in, points.sock for
    /// points that are read, api.sock); others over TLS, as its file says. SIGTERM ends it in good order; after any other end
    /// it goes on where it was.
    Serve(Serve),
    /// Show how well machines are protected, and what is wrong
    ///
    /// Exit codes: 0 all is protected, 1 something is at risk or unprotected, an alarm is on, or there is no such machine; 2 the service
    /// cannot be asked.
    Status(StatusArgs),
    /// Protect a machine: make room for its disks at the service, and say where they are to be sent
    ///
    /// The service receives the disks as NBD exports; the source mirrors into them (QEMU's blockdev-mirror, virsh blockcopy). The
    /// definition is kept with each point, so that a recovered machine has its own processors, memory and cards. Done again, it changes what
    /// is protected: further disks, larger ones, another definition.
    Protect(Protect),
    /// Take a machine out of the vault, with all of its recovery points
    ///
    /// Nothing may be sent to it any longer, and no recovered machine may live on one of its points. The machine itself is not touched.
    Unprotect(Unprotect),
    /// Say that all disks of a machine are copied, where nobody else could tell
    Ready(Ready),
    /// Send a machine's recovery point to another landfall, and keep it up to date there
    ///
    /// The other side gets what has changed since the point that it holds; where both have none in common, digests are compared, and
    /// what differs is sent. It is packed, and read back there before it is offered as a point. The point stays as it is here. A send that
    /// was cut off goes on where it ended, with the same command. The other side knows this one by its certificate (--tls-cert, --tls-key; --tls-ca
    /// names the authority of the other's), or by a token in LANDFALL_TOKEN, as it is set up.
    ///
    /// With a folder as the place, a seed is written into it: all of the point, for a disk that is carried there (landfall receive seed). Later
    /// sends over the line bring what has changed since.
    ///
    /// Exit codes: 0 it is there, and was read back; 1 refused, or what was read back differed; 2 it failed, or could not be read back.
    Send(Box<Send>),
    /// Receive deltas of machines that are not mirrored: RBD diffs, pulled backups, drops in a watched folder
    ///
    /// Each is taken as a whole or not at all: the machine's disks go from one moment of the source to the next, and a point is set there.
    /// The service does the work; without one, --vault names the vault's folder.
    #[command(subcommand)]
    Receive(ReceiveVerb),
    /// Work with the recovery points of a machine
    #[command(subcommand)]
    Points(PointsVerb),
    /// Show what is wrong now, and what was
    Alarms(AlarmsArgs),
    /// Hand out tokens for the service's API, and take them back
    #[command(subcommand)]
    Token(TokenVerb),
    /// Hand out certificates to those who send machines to the service, or recover them from another machine
    #[command(subcommand)]
    Certificate(CertificateVerb),
    /// Bring a machine back from a recovery point, in seconds: its disks are not copied
    ///
    /// The machine runs from the point: what is changed for the target, and what it writes itself, goes into a delta for each of
    /// its disks, and all else is read from the point, which stays as it is. A test runs in an isolated network and is removed with
    /// recover remove. A live recovery is kept with recover commit, which makes its disks whole while it runs, or thrown away with
    /// recover rollback. A command that was stopped goes on when it is run again.
    ///
    /// For other targets than kvm: landfall convert point:MACHINE@latest --to TARGET
    Recover(Box<Recover>),
    /// Make the bootable machine of a recovery site
    #[command(subcommand)]
    Appliance(ApplianceVerb),
    /// Work with one disk image
    #[command(subcommand)]
    Disk(DiskVerb),
    /// Explain a finding, and what to do about it
    Explain(Explain),
    /// Print the JSON Schema of what --json prints
    Schema(SchemaArgs),
}

/// `landfall convert`
#[derive(Debug, Args)]
pub struct Convert {
    /// The machine: its definition (.vmx, .ovf, .ova, .xva, libvirt's or Hyper-V's .xml, .vmcx, Proxmox' .conf, AHV's .json), a folder that Hyper-V
    /// exported, a disk image alone (.qcow2, .vmdk, .vhdx, .raw, nbd://…), or a recovery point (point:MACHINE@latest, @NUMBER, @TIME, @-15m, @tag:NAME)
    pub source: PathBuf,
    /// Where it will run
    #[arg(long, value_name = "TARGET", value_parser = target_names())]
    pub to: String,
    /// Write the machine into a folder of its name in this one
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Call the machine by this name at the target
    #[arg(long)]
    pub name: Option<String>,
    /// Compress its disks (qcow2)
    #[arg(long, value_enum, value_name = "METHOD")]
    pub compress: Option<Compression>,
    /// How it is there
    #[command(flatten)]
    pub at: TargetArgs,
    /// Replace an earlier result of the same name
    #[arg(long)]
    pub replace: bool,
    /// What is done with services of platforms
    #[command(flatten)]
    pub services: ServiceArgs,
    /// How the guest is found and read
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Register it with this hypervisor afterwards, as landfall register does: qemu:///system, vsphere://VCENTER
    #[arg(id = "register", long, value_name = "URI")]
    pub register: Option<String>,
    /// Where there
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `landfall register`
#[derive(Debug, Args)]
pub struct Register {
    /// A folder that convert wrote
    pub machine: PathBuf,
    /// The hypervisor: qemu:///system, qemu+ssh://root@HOST/system, vsphere://[USER@]VCENTER, esxi://[USER@]HOST
    #[arg(id = "register", long = "at", value_name = "URI")]
    pub at: String,
    /// Look only: print what would be done, and what stands in the way
    #[arg(long)]
    pub dry_run: bool,
    /// Where there
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Where at a hypervisor a machine goes, and how it is spoken to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registering")]
pub struct PlaceArgs {
    /// Log in with the user and password in this file of yours alone (TOML: user = 'NAME', password = 'PASSWORD')
    #[arg(long, value_name = "FILE", requires = "register")]
    pub credentials: Option<PathBuf>,
    /// Trust servers that these authorities vouch for [default: the system's authorities]
    #[arg(long, value_name = "PEM", requires = "register")]
    pub register_ca: Option<PathBuf>,
    /// Trust the server with this certificate and no other (SHA-256 or SHA-1, in hexadecimal digits)
    #[arg(long, value_name = "HEX", requires = "register", conflicts_with = "register_ca", value_parser = Thumbprint::parse)]
    pub thumbprint: Option<Thumbprint>,
    /// vSphere: put it into this datacenter [default: the only one]
    #[arg(long, value_name = "NAME", requires = "register")]
    pub datacenter: Option<String>,
    /// vSphere: let this host or cluster run it [default: the only one]
    #[arg(long, value_name = "NAME", requires = "register")]
    pub host: Option<String>,
    /// vSphere: put it into this resource pool [default: the host's or cluster's own]
    #[arg(long, value_name = "NAME", requires = "register")]
    pub pool: Option<String>,
    /// vSphere: put its disks into this datastore [default: the only one]
    #[arg(long, value_name = "NAME", requires = "register")]
    pub datastore: Option<String>,
    /// vSphere: file it under this folder of machines, such as web/test [default: the datacenter's]
    #[arg(long, value_name = "PATH", requires = "register")]
    pub register_folder: Option<String>,
    /// libvirt: copy its disks into this folder first [default: they stay where they lie]
    #[arg(long, value_name = "FOLDER", requires = "register")]
    pub register_storage: Option<PathBuf>,
    /// Start it when it is registered
    #[arg(long, requires = "register")]
    pub start: bool,
}

/// `landfall batch`
#[derive(Debug, Args)]
pub struct Batch {
    /// The fleet: a TOML file that names machines (see the README)
    pub fleet: PathBuf,
    /// Write the machines into folders of their names in this one [default: the file's output]
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Where machines run for which the file says nothing else
    #[arg(long, value_name = "TARGET", value_parser = target_names())]
    pub to: Option<String>,
    /// Convert this many machines at once [default: the file's machines_at_once, or one per processor, up to 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub machines: Option<u16>,
    /// Print every plan and the space that is needed; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace earlier results that were made of another state of the source, or with other options
    #[arg(long)]
    pub replace: bool,
    /// Register every machine with this hypervisor once it is converted, as landfall register does: qemu:///system,
    /// vsphere://VCENTER; what stands in the way there is looked for before the first is converted
    #[arg(id = "register", long, value_name = "URI")]
    pub register: Option<String>,
    /// Where there
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `landfall map …`
#[derive(Debug, Subcommand)]
pub enum MapVerb {
    /// Check a map, and say what its rules do
    Check(MapCheck),
}

/// `landfall map check`
#[derive(Debug, Args)]
pub struct MapCheck {
    /// The map: a TOML file (see the README)
    pub map: PathBuf,
}

/// `landfall inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// The machine: as for convert
    pub source: PathBuf,
    /// Plan for this target
    #[arg(long, value_name = "TARGET", value_parser = target_names(), default_value = "kvm")]
    pub to: String,
    /// What is done with services of platforms
    #[command(flatten)]
    pub services: ServiceArgs,
    /// How it is there
    #[command(flatten)]
    pub at: TargetArgs,
    /// How the guest is found and read
    #[command(flatten)]
    pub guest: GuestArgs,
}

/// How a machine is at the target.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Write its disks as this kind of image [default: the target's usual one]
    #[arg(short = 'O', long, value_name = "KIND", value_parser = disk_kinds())]
    pub disk_format: Option<String>,
    /// Plug cards of the network SOURCE into TARGET there; for kvm a libvirt network, bridge:NAME or ovs:NAME
    #[arg(long, value_name = "SOURCE=TARGET", value_parser = parse_pair)]
    pub map_network: Vec<(String, String)>,
    /// Plug all other cards into this network [default for kvm: default]
    #[arg(long, value_name = "TARGET")]
    pub network: Option<String>,
    /// Change names, networks, storage, limits and hardware addresses of machines, and addresses, gateways, name servers and
    /// routes in the guest, as this file says (TOML; see the README)
    #[arg(long, visible_alias = "network-map", value_name = "FILE")]
    pub map: Option<PathBuf>,
    /// Give a Windows guest the virtio drivers of this folder or ISO image (virtio-win), where the target has virtio devices
    #[arg(long, value_name = "PATH")]
    pub virtio_win: Option<PathBuf>,
    /// Put this installer of the target's agent into a Windows guest, which runs it at its first start (setup64.exe of VMware
    /// Tools, qemu-ga-x86_64.msi, virtio-win-guest-tools.exe, …); of several, each guest gets the one that is for it
    #[arg(long, value_name = "FILE")]
    pub agent_installer: Vec<PathBuf>,
    /// Change a Windows guest's registry as this file of regedit's says (.reg); inspect shows each edit with the previous value
    #[arg(long, value_name = "FILE")]
    pub registry: Option<PathBuf>,
}

/// Services that a user wants otherwise than landfall would do it.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Leave this agent (or cloud-init) as it is
    #[arg(long, value_name = "NAME", value_parser = service_names())]
    pub keep: Vec<String>,
    /// Switch this agent (or cloud-init) off, though it is the target's own
    #[arg(long, value_name = "NAME", value_parser = service_names(), hide_possible_values = true)]
    pub drop: Vec<String>,
}

/// Options of verbs that open a guest.
#[derive(Debug, Args)]
pub struct GuestArgs {
    /// Take the system on this volume, where there are several (inspect names them): disk0p1, vg0/root
    #[arg(long, value_name = "VOLUME")]
    pub root: Option<String>,
    /// Let a hibernated Windows (by Fast Startup, too) lose what it has in memory: hiberfil.sys is removed from the copy
    #[arg(long)]
    pub discard_hibernation: bool,
    /// Read this disk of the machine from FILE, which lies elsewhere than its definition says: scsi0:0=/backup/web01.vmdk; or,
    /// beside a disk image that is the source, add FILE: disk1=/backup/data.vmdk
    #[arg(long, value_name = "SLOT=FILE", value_parser = parse_pair)]
    pub disk: Vec<(String, String)>,
    /// Leave this disk of the machine out: scsi0:2
    #[arg(long, value_name = "SLOT")]
    pub skip_disk: Vec<String>,
    /// Take the UEFI variables from FILE, which lies elsewhere than the definition says: NAME_VARS.fd of OVMF, .nvram of VMware
    #[arg(long, value_name = "FILE")]
    pub nvram: Option<PathBuf>,
    /// Take the machine as it was in this snapshot, where its definition holds them
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// Take this machine, where the definition has several
    #[arg(long, value_name = "ID")]
    pub system: Option<String>,
    /// Take this deployment option of an OVF
    #[arg(long, value_name = "ID")]
    pub configuration: Option<String>,
    /// What a definition would say
    #[command(flatten)]
    pub hardware: HardwareArgs,
}

/// What a definition would say, for a source that is a disk image.
#[derive(Debug, Args)]
pub struct HardwareArgs {
    /// The machine's memory: 4G, 512M [default: 4G]
    #[arg(long, help_heading = IMAGES, value_name = "BYTES", value_parser = parse_size)]
    pub memory: Option<Bytes>,
    /// Its processors [default: 2]
    #[arg(long, help_heading = IMAGES, value_name = "N")]
    pub cpus: Option<u32>,
    /// How it starts [default: as its first disk tells]
    #[arg(long, help_heading = IMAGES, value_name = "bios|uefi", value_parser = parse_firmware)]
    pub firmware: Option<Firmware>,
    /// A network card with this hardware address, or new for one that the target chooses; once for each card
    #[arg(long, help_heading = IMAGES, value_name = "ADDRESS", value_parser = parse_nic)]
    pub nic: Vec<String>,
}

/// Heading of options that say what a definition would.
const IMAGES: &str = "A disk image without a definition";

/// `landfall prove`
#[derive(Debug, Args)]
pub struct Prove {
    /// A folder that convert wrote; a recovery point (point:NAME@AT), as its recovery will be; or a source machine, as it is, on the
    /// target's virtual hardware
    pub machine: PathBuf,
    /// The target's virtual hardware, where MACHINE is a source
    #[arg(long, value_name = "TARGET", value_parser = target_names(), default_value = "kvm")]
    pub to: String,
    /// Boot it on these devices instead: DISK or DISK,NIC. Disks: virtio-blk, virtio-scsi, pvscsi, lsi, sata, ide, nvme; cards:
    /// virtio-net, vmxnet3, e1000e, e1000 [default: the target's own]
    #[arg(long, value_name = "DISK[,NIC]", value_parser = parse_hardware)]
    pub hardware: Option<Hardware>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
    /// Keep the evidence in this folder [default: MACHINE/proof, or ./NAME-proof for a source]
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Succeed if the machine does NOT boot: shows that a test is worth something
    #[arg(long)]
    pub expect_failure: bool,
    /// How the guest is found and read
    #[command(flatten)]
    pub guest: GuestArgs,
}

/// `landfall explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// Id of a finding, as printed in brackets; without it all are listed
    pub id: Option<String>,
}

/// `landfall schema`
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Which document; without it all are listed
    #[arg(value_parser = schema_names())]
    pub name: Option<String>,
}

fn schema_names() -> clap::builder::PossibleValuesParser {
    crate::schema::TABLE.iter().map(|row| row.name).collect::<Vec<_>>().into()
}

/// How data is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Read everywhere
    Zlib,
    /// Faster and smaller; QEMU 5.1 and later
    Zstd,
}

impl From<Compression> for landfall_image::create::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Zlib => Self::Zlib,
            Compression::Zstd => Self::Zstd,
        }
    }
}

fn disk_kinds() -> clap::builder::PossibleValuesParser {
    crate::hypervisor::disk_kinds().into()
}

fn service_names() -> clap::builder::PossibleValuesParser {
    landfall_boot::family::agents().into()
}

fn parse_hardware(text: &str) -> Result<Hardware, String> {
    Hardware::parse(text)
}

fn target_names() -> clap::builder::PossibleValuesParser {
    crate::hypervisor::target_names().into()
}

/// The word for a card whose address the target chooses.
pub const NEW: &str = "new";

fn parse_firmware(text: &str) -> Result<Firmware, String> {
    match text {
        "bios" => Ok(Firmware::Bios),
        "uefi" => Ok(Firmware::Uefi),
        _ => Err("write bios or uefi".to_owned()),
    }
}

fn parse_nic(text: &str) -> Result<String, String> {
    match text {
        NEW => Ok(NEW.to_owned()),
        _ => crate::machine::parse_mac(text).ok_or_else(|| format!("write 52:54:00:12:34:56, or {NEW}")),
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((source, target)) if !source.is_empty() && !target.is_empty() => {
            Ok((source.into(), target.into()))
        }
        _ => Err("write it with = between the two, both not empty".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("50M"), Ok(Bytes::mib(50)));
        assert_eq!(parse_size("2GiB"), Ok(Bytes::gib(2)));
        assert_eq!(parse_size("4096"), Ok(Bytes(4096)));
        for bad in ["", "0", "-1", "1.5.5G", "M", "1X", "99999999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}

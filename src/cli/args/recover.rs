//! The grammar of `landfall recover`.

use super::{GuestArgs, ServiceArgs, TargetArgs, target_names};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `landfall recover`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Recover {
    /// What comes after a recovery.
    #[command(subcommand)]
    pub verb: Option<RecoverVerb>,
    /// The machine, by the name under which it is protected; MACHINE@AT names the point, too
    #[arg(value_name = "MACHINE", required = true)]
    pub machine: Option<String>,
    /// The machine as it was then: latest, a point's number, a time (2026-11-29T14:03:05Z; without a zone it is UTC), how long ago
    /// (-15m, -1h30m), tag:NAME, or prepared: the newest that was patched ahead. Of a time the newest point that is not younger
    /// [default: latest]
    #[arg(long, value_name = "AT", allow_hyphen_values = true)]
    pub at: Option<String>,
    /// Where it will run
    #[arg(long, value_name = "TARGET", value_parser = target_names(), default_value = "kvm")]
    pub to: String,
    /// What for: test, in an isolated network and under the name MACHINE-test (MACHINE as it is protected), to be removed again; or live
    #[arg(long, value_enum, value_name = "MODE", required_unless_present = "prepare")]
    pub mode: Option<RecoverMode>,
    /// Patch the point ahead only, so that a recovery of it starts at once
    #[arg(long, conflicts_with_all = ["mode", "register", "serve", "name", "new_uuid", "emulated", "network", "map_network"])]
    pub prepare: bool,
    /// Write the machine into a folder of its name in this one [default: the recoveries of this host or user]
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Register it with this libvirt, and start it: qemu:///system
    #[arg(long, value_name = "URI")]
    pub register: Option<String>,
    /// Call the machine by this name there
    #[arg(long)]
    pub name: Option<String>,
    /// Give it another UUID, where the machine that it is of runs on the same host; licences in the guest may go by it
    #[arg(long)]
    pub new_uuid: bool,
    /// Emulate its processors, slowly, though the host could do better [default: where it cannot]
    #[arg(long)]
    pub emulated: bool,
    /// With --vault: stay, and serve the point to the machine as long as it runs
    #[arg(long)]
    pub serve: bool,
    /// Recover it live though its source still sends: two of it will run
    #[arg(long)]
    pub source_runs: bool,
    /// How it is there
    #[command(flatten)]
    pub target: TargetArgs,
    /// What is done with services of platforms
    #[command(flatten)]
    pub services: ServiceArgs,
    /// How the guest is found and read
    #[command(flatten)]
    pub guest: GuestArgs,
}

/// What a machine is recovered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecoverMode {
    /// To see whether it works
    Test,
    /// In earnest
    Live,
}

impl From<RecoverMode> for crate::recovery::Mode {
    fn from(mode: RecoverMode) -> Self {
        match mode {
            RecoverMode::Test => Self::Test,
            RecoverMode::Live => Self::Live,
        }
    }
}

/// What comes after a recovery.
#[derive(Debug, Subcommand)]
pub enum RecoverVerb {
    /// Show the recoveries that there are, and the points that were prepared
    List(RecoverList),
    /// Keep a live recovery: make its disks whole, so that it needs its recovery point no more
    ///
    /// The machine may run meanwhile, where it was registered with recover --register. Run it again to go on where it was
    /// stopped. From then on the vault takes nothing of the machine's source any longer, until landfall protect MACHINE --resume.
    Commit(RecoverCommit),
    /// Throw a live recovery away, with all that its machine wrote
    Rollback(RecoverPlace),
    /// Remove a test, with its machine and its network
    Remove(RecoverPlace),
    /// Let a recovered machine go on that is off, or was paused because its point could not be read for a while
    Resume(RecoverPlace),
}

/// `landfall recover list`
#[derive(Debug, Args)]
pub struct RecoverList {
    /// In this folder [default: the recoveries of this host or user]
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
}

/// `landfall recover commit`
#[derive(Debug, Args)]
pub struct RecoverCommit {
    /// Which
    #[command(flatten)]
    pub place: RecoverPlace,
    /// Commit it though its source still sends: two of it run
    #[arg(long)]
    pub source_runs: bool,
}

/// A recovery that is there.
#[derive(Debug, Args)]
pub struct RecoverPlace {
    /// Its folder, or its name: among the recoveries of this host or user, else among those that hold a point
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

//! What the program does, one module per verb. Called by the command line and the service; prints nothing, reads no
//! environment.

pub mod appliance;
pub mod batch;
pub mod certificate;
mod clock;
pub mod convert;
mod define;
pub mod disk;
mod exported;
pub mod folder;
pub mod inspect;
pub mod map;
mod packaged;
mod packing;
pub mod prove;
pub mod receive;
pub mod recover;
pub mod register;
mod registry;
pub mod send;
pub mod serve;
pub mod service;
pub mod source;
mod state;
pub(crate) mod toml_file;

use crate::event::Observer;
use crate::machine::is_folder_name;
use landfall_boot::check::Finding;
pub use landfall_boot::sandbox::Settings;
use landfall_boot::target::Platform;
use landfall_boot::windows::agents::AgentInstaller;
use landfall_boot::windows::reg_file::RegistryFile;
use landfall_image::convert::{Cancel, Options, RateLimit};
use landfall_image::luks::Secret;
use landfall_image::nbd::ClientOptions;
use landfall_image::{Bytes, Error, Gate, Kind};
pub use registry::load as load_registry;
use source::point::Points;
use std::path::PathBuf;
use std::sync::Arc;

/// What every operation is given.
pub struct Context<'a> {
    /// Files that images may name.
    pub gate: Gate,
    /// Worker threads; `None` for as many as the machine runs at once.
    pub jobs: Option<usize>,
    /// Bytes of data read per second, at most, by all that runs at once.
    pub rate_limit: Option<RateLimit>,
    /// Set by Ctrl-C.
    pub cancel: Cancel,
    /// Folder for short-lived scratch files.
    pub scratch: PathBuf,
    /// Where the patch sandbox finds its parts.
    pub sandbox: Settings,
    /// How NBD servers are spoken to.
    pub nbd: ClientOptions,
    /// Opens encrypted images.
    pub key: Option<Secret>,
    /// Who has recovery points; `None` where no vault is named.
    pub points: Option<Arc<dyn Points>>,
    /// Who is told.
    pub observer: &'a dyn Observer,
}

impl Context<'_> {
    /// Fresh options for one copy, with counters of its own.
    pub fn copy_options(&self) -> Options {
        let mut options = Options {
            rate_limit: self.rate_limit.clone(),
            cancel: self.cancel.clone(),
            ..Options::default()
        };
        if let Some(jobs) = self.jobs {
            options.jobs = jobs;
        }
        options
    }

    /// The same for somebody else to watch.
    pub fn watched_by<'b>(&self, observer: &'b dyn Observer) -> Context<'b> {
        Context {
            gate: self.gate.clone(),
            jobs: self.jobs,
            rate_limit: self.rate_limit.clone(),
            cancel: self.cancel.clone(),
            scratch: self.scratch.clone(),
            sandbox: self.sandbox.clone(),
            nbd: self.nbd.clone(),
            key: self.key.clone(),
            points: self.points.clone(),
            observer,
        }
    }

    /// [`Kind::Interrupted`] once the user asked to stop.
    pub fn check_cancelled(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// What [`parse_size`] takes, as a regular expression.
pub(crate) const SIZE: &str = r"^\s*[0-9]*[1-9][0-9]*([kKmMgGtT]([iI]?[bB])?|[bB])?\s*$";

/// `50M`, `1G`, `4096`: bytes, with a binary unit.
pub fn parse_size(text: &str) -> Result<Bytes, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("{text:?} is no size: units are K, M, G and T")),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).filter(|&n| n > 0);
    let wanted = "a whole number above 0 with K, M, G or T is wanted";
    bytes.map(Bytes).ok_or_else(|| format!("{text:?} is no size: {wanted}"))
}

/// How a guest is found on a machine's disks, and what is wanted of it.
#[derive(Clone, Debug, Default)]
pub struct GuestChoice {
    /// The volume with its root file system, where the user has chosen.
    pub root: Option<String>,
    /// A hibernated Windows loses what it has in memory; without, it is refused.
    pub discard_hibernation: bool,
    /// Services that are left as they are.
    pub keep: Vec<String>,
    /// Services that are switched off.
    pub drop: Vec<String>,
    /// Which machine of the source it is, and where its disks lie.
    pub source: source::Wanted,
    /// What becomes of it and its network at the target.
    pub map: Option<map::MapFile>,
    /// Where the drivers of virtio devices for Windows are: a folder or an ISO image.
    pub virtio_win: Option<PathBuf>,
    /// Installers of agents for Windows guests.
    pub agent_installers: Vec<AgentInstaller>,
    /// What is changed in a Windows guest's registry.
    pub registry: Option<RegistryFile>,
}

impl GuestChoice {
    /// What the map makes of a machine on its way to `platform`.
    /// `name` is the one that was chosen for it.
    pub fn mapped(&self, loaded: &source::Loaded, name: Option<&str>, platform: Platform) -> map::Mapped {
        let none = map::MapFile::default();
        let map = self.map.as_ref().unwrap_or(&none);
        map.place(&loaded.source_name, name, &loaded.machine, platform)
    }

    /// Refuses what contradicts itself, or names no service that is known.
    pub fn check(&self) -> Result<(), Error> {
        let known = landfall_boot::family::agents();
        if let Some(name) = self.keep.iter().chain(&self.drop).find(|name| !known.contains(&name.as_str())) {
            return Err(Error::refused(format!("{name:?} is no service that is known"))
                .hint(format!("known are {}", known.join(", "))));
        }
        match self.keep.iter().find(|name| self.drop.contains(name)) {
            Some(name) => Err(Error::refused(format!("{name} cannot be kept and dropped"))
                .hint("name it in one of the two lists")),
            None => Ok(()),
        }
    }
}

/// Why an operation did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Findings stand in the way; nothing was written.
    Findings(Vec<Finding>),
    /// It failed.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl Failure {
    /// The program's exit code: 1 where the input was refused, 2 where something failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Findings(_) => 1,
            Failure::Error(error) => match error.kind() {
                Kind::Corrupt | Kind::Unsupported | Kind::Refused => 1,
                Kind::Io | Kind::Interrupted => 2,
            },
        }
    }
}

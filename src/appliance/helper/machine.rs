//! What the helper does to the machine, behind an interface: tests have a double, and [`System`](super::system::System) is Linux.

use super::status::Status;
use crate::appliance::kept::Loaded;
use crate::moment::Moment;
use landfall_image::Result;
use std::io::Read;

/// What of the settings has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Cards, servers of names, domains.
    Network,
    /// What the machine is called.
    HostName,
    /// Servers of time.
    TimeServers,
    /// Who may come in with SSH.
    SshKeys,
}

/// The machine. All that is given to it was checked. Methods that change something are called one at a time, but for `restart` and
/// `power_off`.
pub trait Machine: Send + Sync {
    /// How it is, with the settings that were kept. What cannot be found out is left out, and is among its problems.
    fn status(&self, kept: &Loaded) -> Result<Status>;

    /// Puts settings into effect that have just been kept.
    ///
    /// # Errors
    /// Where the system does not take them: they are kept all the same.
    fn apply(&self, part: Part) -> Result<()>;

    /// Sets the clock. Says what else is to be known, for people.
    fn set_clock(&self, to: Moment) -> Result<Vec<String>>;

    /// Makes a disk with nothing on it the one for the vault. `disk` is its name in `/dev`; `serial` has to be its serial number, or
    /// empty where it has none. Says what was done.
    ///
    /// # Errors
    /// Refused where there is something on it, it has another serial number, or there is a vault's disk already.
    fn claim_disk(&self, disk: &str, serial: &str) -> Result<Vec<String>>;

    /// Lets the vault's file system have all of its disk, after that has grown. Says what was done.
    fn grow_disk(&self) -> Result<Vec<String>>;

    /// Says why there are no updates here.
    ///
    /// # Errors
    /// Refused on a disc.
    fn can_update(&self) -> Result<()>;

    /// Writes a signed update into the slot that does not run, and lets the next start try it. `update` ends where the update
    /// ends; an error of it is one of the connection, after which nothing may have become of the update. Says what was done.
    fn update(&self, update: &mut dyn Read) -> Result<Vec<String>>;

    /// Gives texts for the support bundle one by one: a name for a file, and what is in it. What cannot be had is a text that says
    /// so. Secrets are taken out of them by who takes them, but none is looked for.
    ///
    /// # Errors
    /// Those of `take`.
    fn support(&self, take: &mut dyn FnMut(&str, &[u8]) -> Result<()>) -> Result<()>;

    /// Forgets the first token: it was noted. Where it is gone already, that is as well.
    ///
    /// # Errors
    /// I/O where it cannot be kept that it is to be shown no more: it is still there then.
    fn forget_token(&self) -> Result<()>;

    /// Starts the machine again. Returns before it goes down.
    fn restart(&self) -> Result<()>;

    /// Switches it off. Returns before it goes down.
    fn power_off(&self) -> Result<()>;

    /// Starts the service again.
    fn restart_service(&self) -> Result<()>;
}

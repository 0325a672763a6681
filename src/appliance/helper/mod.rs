//! The one privileged program of the appliance besides the system's own, and how it is spoken to.
//!
//! ```text
//! console (user landfall-console) ── /run/landfall-helper/helper.sock ──> Server ──> trait Machine
//!                                    one request, one answer                          System: /sys, /proc, systemctl
//! ```
//!
//! [`protocol`] is the interface's documentation, and its types. The server looks who asks, checks all of what is asked,
//! keeps settings, and has the [`Machine`] do the rest. Deliberately absent: any way to run something that is not listed
//! in [`system`], to name a file, to read the vault, and to set a password.

mod bundle;
mod client;
mod machine;
pub mod protocol;
mod server;
mod status;
mod stream;
pub mod system;

pub use client::Client;
pub use machine::{Machine, Part};
pub use server::{Server, listener, user};
pub use status::{
    CardStatus, DiskRole, DiskStatus, Memory, NetworkStatus, NextSystem, Status, SystemStatus, TimeStatus,
};

use super::kept::{FOLDER, Kept};
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// Nobody asks for so long: the process ends, and its socket waits.
const IDLE: Duration = Duration::from_secs(60);

/// Answers on the listening socket that is standard input, until nobody asks any longer. Users by their names, besides root.
///
/// # Errors
/// Refused where standard input is none, or there is no such user.
pub fn run(users: &[String], cancel: &Cancel) -> Result<()> {
    let passwd = Path::new("/etc/passwd");
    let text = std::fs::read_to_string(passwd).map_err(|e| Error::io("cannot read", e).in_file(passwd))?;
    let allowed: Result<Vec<u32>> = users.iter().map(|name| user(&text, name)).collect();
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("standard input cannot be used", e))?;
    Server::new(Box::new(system::System::default()), Kept::new(Path::new(FOLDER)), allowed?).run(
        &listener(socket)?,
        IDLE,
        cancel,
    )
}

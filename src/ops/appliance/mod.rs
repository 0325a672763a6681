//! `landfall appliance`: the image of a recovery site's machine, made from a distribution's packages and this program; and
//! what its console asks ([`console`]).

mod bill;
pub mod build;
pub mod console;
mod define;
mod disc;
mod fetch;
mod files;
mod image;
mod readme;
mod update;

pub use console::{install, restart, support, support_file};
pub use fetch::{MIRRORS, Packages};
pub use image::{Built, Wanted, build};
pub use update::make_key;

use landfall_boot::appliance::package::List;
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use std::os::fd::AsFd;
use std::path::Path;

/// Where the key lies in the root that updates must be signed with.
pub const UPDATE_KEY: &str = "/usr/share/landfall/update-key.pub";

/// Where the moment of its packages stands in the root.
pub const SNAPSHOT: &str = "/usr/share/landfall/snapshot";

/// Runs the trial that the service asks for on the connection that is standard input.
///
/// # Errors
/// As [`crate::service::drills::serve`].
pub fn trial(cancel: &Cancel) -> Result<()> {
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("standard input cannot be used", e))?;
    crate::service::drills::serve(socket.into(), cancel)
}

/// The list of packages: of a file, else the one that this program was made with.
///
/// # Errors
/// `Io` and `Corrupt`
pub fn list(path: Option<&Path>) -> Result<List> {
    match path {
        None => List::parse(files::PACKAGES),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|e| Error::io("cannot read", e).in_file(path))?;
            List::parse(&text).map_err(|e| e.in_file(path))
        }
    }
}

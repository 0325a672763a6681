//! Disks that are being copied: what they hold now is no state that the machine was ever in.
//!
//! It is said in the journal itself, in its order: behind the record that says so and before the one that takes it back no checkpoint is
//! set, whatever happens to the service meanwhile.

use super::{Journal, State};
use landfall_image::{Error, Result};
use std::collections::BTreeMap;

/// What the names of such attachments begin with; the disk's name follows.
const PREFIX: &str = "copying/";

impl State {
    /// The disks that are being copied, by name, with the reason.
    pub fn copying(&self) -> BTreeMap<String, String> {
        let all = self.attachments.range(PREFIX.to_owned()..);
        let all = all.map_while(|(name, why)| Some((name.strip_prefix(PREFIX)?, why)));
        let of_disk = |name: &str| self.disks.values().any(|info| info.name == name);
        all.filter(|(name, _)| of_disk(name))
            .map(|(name, why)| (name.to_owned(), String::from_utf8_lossy(why).into_owned()))
            .collect()
    }

    /// Refuses where a disk is being copied.
    pub(super) fn check_copied(&self) -> Result<()> {
        match self.copying().first_key_value() {
            None => Ok(()),
            Some((disk, why)) => Err(Error::refused(format!("no point can be set: {disk} is being copied ({why})"))
                .hint("wait for the copy to end; where it has, and nobody could tell, say so: landfall ready MACHINE")),
        }
    }
}

impl Journal {
    /// Says that a disk is being copied, and why; or, with `None`, that it is a state of the machine again.
    ///
    /// # Errors
    /// As [`attach`](Journal::attach).
    pub fn set_copying(&self, disk: &str, why: Option<&str>) -> Result<()> {
        // An empty attachment is none.
        let why = why.map_or("", |why| if why.is_empty() { "copied" } else { why });
        self.attach(&format!("{PREFIX}{disk}"), why.as_bytes())
    }
}

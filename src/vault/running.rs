//! Whether the service before this one ended in order, was killed, or went with the host's power.
//!
//! The file `running` is there from the moment when a vault is opened until it is closed in order, and says in which boot of the host
//! that was: one that is found says that the service was killed, or, where the host has started since, that its page cache is gone.

use super::journal::start::Ended;
use super::storage::Storage;
use super::{read_json, write_json};
use crate::name::Name;
use landfall_image::{Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const FILE: &str = "running";

/// What the file says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Running {
    /// The boot of the host that the service runs in; `None` where it ended in order.
    pub boot_id: Option<String>,
    /// Machines that could not be opened since the host lost its power: nobody knows yet what they lost.
    #[serde(default)]
    pub without_power: BTreeSet<Name>,
}

/// Which boot of the host this is. Where it does not say that, every start looks like one after a loss of power.
pub(super) fn boot_id() -> String {
    let said = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    said.map_or_else(|_| uuid::Uuid::new_v4().to_string(), |said| said.trim().to_owned())
}

impl Running {
    /// `None` where the last service ended in order, or there was none.
    pub fn read(storage: &dyn Storage) -> Result<Option<Running>> {
        if !storage.list("")?.iter().any(|name| name == FILE) {
            return Ok(None);
        }
        match read_json(storage, FILE) {
            // It ran, and nobody knows when.
            Err(error) if error.kind() == Kind::Corrupt => {
                Ok(Some(Running { boot_id: Some(String::new()), ..Running::default() }))
            }
            other => other.map(Some),
        }
    }

    /// Durably. Where there is nothing to say, there is no file.
    pub fn write(&self, storage: &dyn Storage) -> Result<()> {
        match self.boot_id.is_none() && self.without_power.is_empty() {
            true => {
                storage.remove(FILE)?;
                storage.sync_dir("")
            }
            false => write_json(storage, "", FILE, self),
        }
    }

    /// How the service ended, as far as it is about that machine.
    pub fn ended(&self, machine: &Name, boot_id: &str) -> Ended {
        match &self.boot_id {
            _ if self.without_power.contains(machine) => Ended::WithThePower,
            None => Ended::InOrder,
            Some(other) if other == boot_id => Ended::Killed,
            Some(_) => Ended::WithThePower,
        }
    }
}

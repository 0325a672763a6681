//! What a machine of the vault is: a replica, which its source writes to; or one that was promoted, and runs somewhere else now.
//!
//! ```text
//! MACHINE/role.json   { "epoch": 2, "promoted": { "at": …, "point": 1234, "holder": "/var/lib/landfall/recovered/web01" } }
//! ```
//! A source that comes back after its machine was promoted, or whose network does, would mix its writes with what is the past of the promoted
//! machine: nothing is taken of it. Each change begins a new epoch.

use super::storage::Storage;
use super::{read_json, write_json};
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const FILE: &str = "role.json";

/// A machine's role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// From 1; each change begins another one.
    pub epoch: u64,
    /// Since it runs somewhere else; `None` for a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Promotion>,
}

/// How a machine came to run somewhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// From which point.
    pub point: u64,
    /// What it became: the folder of the recovered machine.
    pub holder: String,
}

/// The role of a machine, and where it is kept.
#[derive(Debug)]
pub struct Roles {
    storage: Arc<dyn Storage>,
    dir: String,
    role: Mutex<Role>,
    /// As in the role: asked with each write.
    is_promoted: AtomicBool,
}

impl Roles {
    /// Reads the role in a machine's folder.
    ///
    /// # Errors
    /// Corrupt where it cannot be read: to go on without could mix two machines.
    pub fn open(storage: &Arc<dyn Storage>, dir: &str) -> Result<Roles> {
        let path = if dir.is_empty() { FILE.to_owned() } else { format!("{dir}/{FILE}") };
        let role = match storage.list(dir)?.iter().any(|name| name == FILE) {
            true => read_json::<Role>(&**storage, &path)?,
            false => Role { epoch: 1, promoted: None },
        };
        let is_promoted = AtomicBool::new(role.promoted.is_some());
        Ok(Roles { storage: Arc::clone(storage), dir: dir.to_owned(), role: Mutex::new(role), is_promoted })
    }

    fn role(&self) -> MutexGuard<'_, Role> {
        self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The role.
    pub fn now(&self) -> Role {
        self.role().clone()
    }

    /// Changes it, durably. To be what it is already is no change. The role that it has then.
    ///
    /// # Errors
    /// As the storage's; it stays what it was.
    pub fn change(&self, promoted: Option<Promotion>) -> Result<Role> {
        let mut role = self.role();
        let is_same = match (&role.promoted, &promoted) {
            (Some(was), Some(new)) => was.holder == new.holder,
            (was, new) => was.is_none() && new.is_none(),
        };
        if !is_same {
            let new = Role { epoch: role.epoch + 1, promoted };
            write_json(&*self.storage, &self.dir, FILE, &new)?;
            self.is_promoted.store(new.promoted.is_some(), Ordering::Release);
            *role = new;
        }
        Ok(role.clone())
    }

    /// Refuses what is to be written to a machine that was promoted.
    ///
    /// # Errors
    /// Refused then.
    pub fn check(&self, machine: &str) -> Result<()> {
        if !self.is_promoted.load(Ordering::Acquire) {
            return Ok(());
        }
        let role = self.now();
        let what =
            role.promoted.map_or_else(String::new, |it| format!(" from point {} ({})", it.point, it.holder));
        Err(Error::refused(format!(
            "{machine} was promoted{what}, and takes nothing of its source any longer (epoch {})",
            role.epoch
        ))
        .hint(format!(
            "see that only one of the two runs; where the source is to be protected again: landfall protect {machine} --resume"
        )))
    }
}

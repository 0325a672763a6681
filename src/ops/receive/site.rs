//! A vault that no service works on at the time, with its ways in. A service does the same with its own vault, see [`Incoming`].

use crate::moment::Moment;
use crate::name::Name;
use crate::ops::Context;
use crate::receive::batch::Target;
use crate::receive::content::Effort;
use crate::receive::folder::{self, Hands, Watcher};
use crate::receive::incoming::{Finished, Incoming};
use crate::receive::pull;
use crate::receive::rbd::{self, Policy};
use crate::receive::spool::Upload;
use crate::vault::{Troubles, Vault};
use landfall_image::{Error, Result};
use std::path::Path;

/// A vault with its ways in.
#[derive(Debug)]
pub struct Site {
    vault: Vault,
    incoming: Incoming,
}

/// What was found when a vault was opened.
#[derive(Debug)]
pub struct Opened {
    /// The vault.
    pub site: Site,
    /// Machines with something to be told of.
    pub troubles: Troubles,
    /// What is wrong with uploads that were left over.
    pub uploads: Vec<Error>,
    /// What had been cut off.
    pub finished: Vec<Finished>,
}

impl Site {
    /// Opens the vault in a folder, and finishes what was cut off. `watchers` are the folders that are watched for it.
    ///
    /// # Errors
    /// As [`Vault::open`] and [`Incoming::open`].
    pub fn open(context: &Context<'_>, root: &Path, watchers: &[Watcher]) -> Result<Opened> {
        let (vault, troubles) = Vault::open(root)?;
        let (incoming, uploads) = Incoming::open(root)?;
        let site = Site { vault, incoming };
        let finished = site.incoming.finish(&site.hands(context), watchers)?;
        Ok(Opened { site, troubles, uploads, finished })
    }

    fn hands<'h>(&'h self, context: &'h Context<'h>) -> Hands<'h> {
        Hands { vault: &self.vault, batches: &self.incoming.batches, context, now: Moment::now().0 }
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The ways in.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// Takes uploads, all for one machine, as [`rbd::take`]. What is refused stays in the spool.
    ///
    /// # Errors
    /// As [`rbd::take`].
    pub fn take(&self, context: &Context<'_>, uploads: &[Upload], policy: Policy) -> Result<rbd::Outcome> {
        let Some(first) = uploads.first() else {
            return Err(Error::refused("there is no stream to take").hint("name one"));
        };
        let target = Target::of(&self.vault, &first.request.machine);
        let ids: Vec<_> = uploads.iter().map(|upload| upload.id).collect();
        let Incoming { batches, spool, .. } = &self.incoming;
        rbd::take(batches, spool, target, &ids, policy, Moment::now().0, &effort(context))
    }

    /// Looks at a watched folder once.
    ///
    /// # Errors
    /// As [`Watcher::scan`].
    pub fn scan(&self, context: &Context<'_>, watcher: &Watcher) -> Result<Vec<folder::Outcome>> {
        watcher.scan(&self.hands(context))
    }

    /// Pulls the disks of a machine.
    ///
    /// # Errors
    /// As [`pull::pull`].
    pub fn pull(
        &self,
        context: &Context<'_>,
        machine: &Name,
        request: &pull::Request,
    ) -> Result<pull::Outcome> {
        let target = Target::of(&self.vault, machine);
        pull::pull(&self.incoming.batches, target, request, &context.nbd, Moment::now().0, &effort(context))
    }
}

fn effort(context: &Context<'_>) -> Effort {
    let mut effort = Effort { cancel: context.cancel.clone(), ..Effort::default() };
    if let Some(jobs) = context.jobs {
        effort.jobs = jobs;
    }
    effort
}

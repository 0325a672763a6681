//! A vault that is open in this process as the one that receives: what a seed is put into where no service runs.

use super::{Fault, Replica};
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::batch::Target;
use crate::receive::content::Effort;
use crate::receive::incoming::Incoming;
use crate::receive::send::{Begin, Begun, Commit, Committed, Held, Question, Taken};
use crate::vault::Vault;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::{Error, Kind};
use uuid::Uuid;

/// See the module.
pub struct Here<'v> {
    /// The vault.
    pub vault: &'v Vault,
    /// Its ways in.
    pub incoming: &'v Incoming,
}

fn told(error: Error) -> Fault {
    match error.kind() {
        Kind::Interrupted => Fault::Gone(error),
        _ => Fault::Told(error),
    }
}

impl Replica for Here<'_> {
    fn place(&self) -> &str {
        "the vault of this machine"
    }

    fn held(&self, machine: &Name) -> Result<Held, Fault> {
        match self.vault.machines().get(machine) {
            Some(found) => self.incoming.desk.holds(&self.incoming.batches, found).map_err(told),
            None => Ok(Held::none(machine)),
        }
    }

    fn begin(&self, machine: &Name, begin: &Begin) -> Result<Begun, Fault> {
        let found = Target::of(self.vault, machine);
        self.incoming
            .desk
            .begin(&self.incoming.batches, &found, begin, "this machine", Moment::now().0)
            .map_err(told)
    }

    fn digests(&self, machine: &Name, disk: &Name, question: &Question) -> Result<Vec<u8>, Fault> {
        self.incoming.desk.digests(machine, disk, question, &Effort::default()).map_err(told)
    }

    fn take(&self, machine: &Name, disk: &Name, session: Uuid, body: &[u8]) -> Result<Taken, Fault> {
        self.incoming.desk.take(machine, session, disk, body).map_err(told)
    }

    fn commit(&self, machine: &Name, commit: &Commit) -> Result<Committed, Fault> {
        let variables = commit.variables.as_ref().map(|text| {
            STANDARD
                .decode(text)
                .map_err(|error| Error::refused(format!("the variables are not in Base64: {error}")))
        });
        self.incoming.desk.commit(machine, commit, variables.transpose()?.as_deref()).map_err(told)
    }

    fn give_up(&self, machine: &Name) -> Result<(), Fault> {
        let found = self.vault.machine(machine)?;
        self.incoming.desk.give_up(&self.incoming.batches, &found, &Effort::default()).map(drop).map_err(told)
    }
}

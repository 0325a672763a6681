//! Who writes into a machine: streams, which are whole at every moment, and batches, which are whole only when they are done.
//!
//! ```text
//! NBD connection  -> stream(machine, disk)    many at once; a point may be cut at any time
//! RBD diff, drop  -> batch(machine, disks)    alone on its disks; no point of the machine is cut while it runs
//! every checkpoint -> while_whole(machines)    runs when no batch is half done, and holds the next one up
//! ```
//!
//! A batch that was cut off (the service was killed, the medium was full) keeps its machine until it is finished or taken back: half of
//! it is on the disks, and neither a point may be cut nor may anything else be written.

use crate::name::Name;
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Who writes where. One for a vault; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Leases(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    machines: Mutex<BTreeMap<Name, Held>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// Streams by their disk.
    streams: BTreeMap<Name, usize>,
    batch: Option<Running>,
    /// Points that are being cut.
    cuts: usize,
}

#[derive(Clone, Debug)]
struct Running {
    disks: Vec<Name>,
    says: String,
    is_cut_off: bool,
}

impl Held {
    fn is_free(&self) -> bool {
        self.streams.is_empty() && self.batch.is_none() && self.cuts == 0
    }
}

impl Leases {
    fn machines(&self) -> MutexGuard<'_, BTreeMap<Name, Held>> {
        self.0.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, machine: &Name, work: impl FnOnce(&mut Held)) {
        let mut machines = self.machines();
        let held = machines.entry(machine.clone()).or_default();
        work(held);
        if held.is_free() {
            machines.remove(machine);
        }
        self.0.changed.notify_all();
    }

    /// The right to write to a disk as a stream does, for as long as the answer lives. Several may have it for one disk.
    ///
    /// # Errors
    /// Refused while a batch writes to that disk, and on the whole machine where one was cut off.
    pub fn stream(&self, machine: &Name, disk: &Name) -> Result<StreamLease> {
        let mut machines = self.machines();
        let held = machines.entry(machine.clone()).or_default();
        if let Some(batch) =
            held.batch.as_ref().filter(|batch| batch.is_cut_off || batch.disks.contains(disk))
        {
            return Err(batch.in_the_way(machine));
        }
        *held.streams.entry(disk.clone()).or_default() += 1;
        Ok(StreamLease { leases: self.clone(), machine: machine.clone(), disk: disk.clone() })
    }

    /// True where a stream has the right to write to a disk.
    pub fn is_streamed(&self, machine: &Name, disk: &Name) -> bool {
        self.machines().get(machine).is_some_and(|held| held.streams.contains_key(disk))
    }

    /// The right to write a batch to these disks, alone. Waits for a point that is being cut. `says` names the batch for people: "the RBD
    /// diff db.diff".
    ///
    /// # Errors
    /// Refused where a stream writes to one of the disks, or another batch into the machine.
    pub fn batch(&self, machine: &Name, disks: &[Name], says: &str) -> Result<BatchLease> {
        let mut machines = self.machines();
        loop {
            let held = machines.entry(machine.clone()).or_default();
            if let Some(batch) = &held.batch {
                return Err(batch.in_the_way(machine));
            }
            if let Some(disk) = disks.iter().find(|disk| held.streams.contains_key(*disk)) {
                return Err(Error::refused(format!("{machine}/{disk} is being written to over NBD"))
                    .hint("end the mirror at the source first, or give the disk to only one of the two"));
            }
            if held.cuts == 0 {
                held.batch =
                    Some(Running { disks: disks.to_vec(), says: says.to_owned(), is_cut_off: false });
                return Ok(BatchLease { leases: self.clone(), machine: machine.clone(), is_done: false });
            }
            machines = self.0.changed.wait(machines).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The right of who takes a machine away: as [`batch`](Self::batch), and also where one was cut off (`true`).
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub fn alone(&self, machine: &Name, disks: &[Name], says: &str) -> Result<(BatchLease, bool)> {
        match self.running(machine) {
            Some((_, true)) => Ok((self.take_over(machine)?, true)),
            _ => Ok((self.batch(machine, disks, says)?, false)),
        }
    }

    /// Runs `cut` when no batch is half done on any of these machines, and holds up the next one meanwhile. `None` where one is: these
    /// machines are between two moments, and there is no point to be cut.
    pub fn while_whole<T>(&self, machines: &[Name], cut: impl FnOnce() -> T) -> Option<T> {
        let cutting = {
            let mut all = self.machines();
            let is_whole = |name: &Name| all.get(name).is_none_or(|held| held.batch.is_none());
            if !machines.iter().all(is_whole) {
                return None;
            }
            for machine in machines {
                all.entry(machine.clone()).or_default().cuts += 1;
            }
            Cutting { leases: self, machines }
        };
        let done = cut();
        drop(cutting);
        Some(done)
    }

    /// What writes a batch into a machine now, or was cut off in the middle of it (`true`).
    pub fn running(&self, machine: &Name) -> Option<(String, bool)> {
        let machines = self.machines();
        let batch = machines.get(machine)?.batch.as_ref()?;
        Some((batch.says.clone(), batch.is_cut_off))
    }

    /// Machines into which a batch was cut off.
    pub fn cut_off(&self) -> Vec<Name> {
        let machines = self.machines();
        let is_cut_off = |held: &Held| held.batch.as_ref().is_some_and(|batch| batch.is_cut_off);
        machines.iter().filter(|(_, held)| is_cut_off(held)).map(|(name, _)| name.clone()).collect()
    }

    /// Takes over a batch that was cut off.
    ///
    /// # Errors
    /// Refused where there is none.
    pub(crate) fn take_over(&self, machine: &Name) -> Result<BatchLease> {
        let mut machines = self.machines();
        let batch = machines.get_mut(machine).and_then(|held| held.batch.as_mut());
        match batch.filter(|batch| batch.is_cut_off) {
            Some(batch) => {
                batch.is_cut_off = false;
                Ok(BatchLease { leases: self.clone(), machine: machine.clone(), is_done: false })
            }
            None => Err(Error::refused(format!("nothing was cut off in {machine}"))),
        }
    }

    /// Keeps a machine for a batch that was cut off before the service started.
    pub(super) fn set_cut_off(&self, machine: &Name, disks: Vec<Name>, says: String) {
        self.change(machine, |held| held.batch = Some(Running { disks, says, is_cut_off: true }));
    }
}

impl Running {
    fn in_the_way(&self, machine: &Name) -> Error {
        match self.is_cut_off {
            true => Error::refused(format!("{} was cut off while it was written into {machine}", self.says))
                .hint(
                    "it is finished when the service starts (what stands in its way is in the service's log); what another landfall sent goes on when it sends again, or is given up: landfall receive give-up MACHINE",
                ),
            false => Error::refused(format!("{} is being written into {machine}", self.says))
                .hint("try again when it is done; landfall status shows whether it is"),
        }
    }
}

struct Cutting<'l> {
    leases: &'l Leases,
    machines: &'l [Name],
}

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        self.machines.iter().for_each(|machine| self.leases.change(machine, |held| held.cuts -= 1));
    }
}

/// The right to write to a disk as a stream does.
#[derive(Debug)]
pub struct StreamLease {
    leases: Leases,
    machine: Name,
    disk: Name,
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.leases.change(&self.machine, |held| {
            if let Some(count) = held.streams.get_mut(&self.disk) {
                *count -= 1;
                if *count == 0 {
                    held.streams.remove(&self.disk);
                }
            }
        });
    }
}

/// The right to write a batch. Dropped before [`end`](Self::end), it counts as cut off.
#[derive(Debug)]
pub struct BatchLease {
    leases: Leases,
    machine: Name,
    is_done: bool,
}

impl BatchLease {
    /// It is for these disks now, and is called so.
    pub(super) fn widen(&self, disks: &[Name], says: &str) {
        self.leases.change(&self.machine, |held| {
            if let Some(batch) = &mut held.batch {
                (batch.disks, batch.says) = (disks.to_vec(), says.to_owned());
            }
        });
    }

    /// The batch is done, or nothing of it is on the disks.
    pub fn end(mut self) {
        self.is_done = true;
    }
}

impl Drop for BatchLease {
    fn drop(&mut self) {
        self.leases.change(&self.machine, |held| match self.is_done {
            true => held.batch = None,
            false => held.batch.iter_mut().for_each(|batch| batch.is_cut_off = true),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn says(error: &Error) -> String {
        format!("{error}; {}", error.hint_text().unwrap())
    }

    #[test]
    fn a_batch_is_alone_on_its_disks() {
        let leases = Leases::default();
        let (web, db, sda, sdb) = (name("web01"), name("db"), name("sda"), name("sdb"));
        let first = leases.stream(&web, &sda).unwrap();
        let second = leases.stream(&web, &sda).unwrap();
        drop(first);
        let error = leases.batch(&web, &[sdb.clone(), sda.clone()], "the diff").unwrap_err();
        assert!(says(&error).contains("web01/sda is being written to over NBD"), "{error}");
        drop(second);
        let batch = leases.batch(&web, std::slice::from_ref(&sda), "the diff").unwrap();
        let error = leases.stream(&web, &sda).unwrap_err();
        assert!(says(&error).contains("the diff is being written into web01"), "{error}");
        // Other disks and machines go on; a second batch does not.
        drop(leases.stream(&web, &sdb).unwrap());
        leases.batch(&db, std::slice::from_ref(&sda), "another").unwrap().end();
        assert!(leases.batch(&web, &[sdb], "another").is_err());
        batch.end();
        drop(leases.stream(&web, &sda).unwrap());
        assert!(leases.machines().is_empty());
    }

    #[test]
    fn what_was_cut_off_keeps_its_machine() {
        let leases = Leases::default();
        let (web, sda, sdb) = (name("web01"), name("sda"), name("sdb"));
        drop(leases.batch(&web, std::slice::from_ref(&sda), "the diff").unwrap());
        assert_eq!(leases.running(&web), Some(("the diff".to_owned(), true)));
        let error = leases.stream(&web, &sdb).unwrap_err();
        assert!(says(&error).contains("cut off"), "{error}");
        assert!(leases.batch(&web, std::slice::from_ref(&sdb), "another").is_err());
        assert_eq!(leases.while_whole(std::slice::from_ref(&web), || ()), None);
        leases.take_over(&web).unwrap().end();
        assert!(leases.take_over(&web).is_err());
        assert_eq!(leases.while_whole(std::slice::from_ref(&web), || 7), Some(7));
        leases.set_cut_off(&web, vec![sda], "an old one".into());
        assert!(leases.stream(&web, &sdb).is_err());
        leases.take_over(&web).unwrap().end();
        assert!(leases.machines().is_empty());
    }

    /// No point is cut while a batch runs, and none begins while one is cut.
    #[test]
    fn points_and_batches_exclude_each_other() {
        let leases = Leases::default();
        let (web, db, sda) = (name("web01"), name("db"), name("sda"));
        let batch = leases.batch(&web, std::slice::from_ref(&sda), "the diff").unwrap();
        let group = [db.clone(), web.clone()];
        assert_eq!(leases.while_whole(&group, || ()), None);
        assert_eq!(leases.while_whole(&group[..1], || ()), Some(()));
        batch.end();
        let (begun, began) = mpsc::channel();
        std::thread::scope(|scope| {
            leases.while_whole(&group, || {
                scope.spawn(|| {
                    leases.batch(&web, &[sda], "the diff").unwrap().end();
                    begun.send(()).unwrap();
                });
                assert!(began.recv_timeout(Duration::from_millis(200)).is_err());
            });
            began.recv().unwrap();
        });
        assert!(leases.machines().is_empty());
    }
}

//! What was received, kept so that any moment of it can be recovered.
//!
//! ```text
//! writes -> journal (in order, checksummed) -> rewritten with fewer records where points are given up -> base (oldest point)
//!                     |
//! recovery point = a checkpoint in the journal: base + journal up to it = a Disk
//! ```
//!
//! ```text
//! VAULT/vault.json                   format, when it was made
//! VAULT/lock                         held by the one service that works on it
//! VAULT/running                      there from opening to closing in order, with the host's boot: did the power go, or only the service?
//! VAULT/machines/NAME/machine.json   the machine's own number, which its journal carries
//! VAULT/machines/NAME/journal/       segments: every write, in order
//! VAULT/machines/NAME/bases/         each disk at the oldest point
//! VAULT/machines/NAME/holds.json     points that a recovered machine lives on
//! VAULT/machines/NAME/role.json      where it was promoted: that it takes nothing any longer
//! VAULT/machines/NAME/gone           the machine was taken out of the vault: what is left of it goes
//! ```
//!
//! The files tell everything that a recovery needs: which disks there were, the machine's definition, the points. Nothing else has to
//! survive with them.

pub mod base;
mod cache;
pub mod compact;
pub mod handles;
pub mod holds;
pub mod journal;
pub mod machine;
mod removal;
pub mod retention;
pub mod role;
pub mod room;
mod running;
pub mod storage;
pub mod upkeep;

#[cfg(test)]
pub(crate) mod tests;

use crate::name::Name;
use handles::Handles;
use journal::start::{Ended, Found};
use journal::{Home, Limits, Mark};
use landfall_image::{Error, Result};
use machine::Machine;
use room::Room;
use running::Running;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use storage::{Folder, Storage};
use uuid::Uuid;

/// The format that is written and read.
const FORMAT: u32 = 1;
/// Files of segments that are kept open.
const HANDLES: usize = 512;
/// Records in memory, of all machines, above which those with the most close their segment: 48 bytes each.
const RECORDS_IN_MEMORY: usize = 2 << 20;

/// What the vault's folder needs.
pub(crate) const WRITABLE: &str = "name a folder that the service's user can make and write (vault = …); of systemd's unit, one outside of /var/lib/landfall needs ReadWritePaths= (systemctl edit landfall)";

/// Names that may be in a folder which becomes a vault.
fn is_ours(name: &std::ffi::OsStr) -> bool {
    ["lock", "vault.json.new", "lost+found"].iter().any(|own| name == *own)
}

/// Refuses a folder that holds something else.
fn check_empty(root: &Path) -> Result<()> {
    let mut entries =
        std::fs::read_dir(root).map_err(|error| Error::io("cannot list", error).in_file(root))?;
    match entries.any(|entry| entry.is_ok_and(|entry| !is_ours(&entry.file_name()))) {
        true => Err(Error::refused("the folder is not empty, and no vault")
            .in_file(root)
            .hint("name an empty folder, or the vault's own")),
        false => Ok(()),
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    landfall_vault: u32,
    id: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    id: Uuid,
}

/// A vault.
#[derive(Debug)]
pub struct Vault {
    storage: Arc<dyn Storage>,
    handles: Arc<Handles>,
    in_memory: Arc<AtomicUsize>,
    room: Arc<Room>,
    /// One at a time begins a machine, or takes one out: nobody else has its files open meanwhile.
    changing: Mutex<()>,
    machines: RwLock<BTreeMap<Name, Arc<Machine>>>,
    limits: Limits,
    /// How the service before this one ended, and on which machines nobody has looked for its traces yet.
    before: Option<Running>,
    boot_id: String,
    unjudged: RwLock<BTreeSet<Name>>,
    /// Released by the kernel, however the process ends.
    _lock: Option<std::fs::File>,
}

/// What became of a machine, when the vault was opened.
#[derive(Debug)]
pub enum Trouble {
    /// Its files cannot be read: the machine is not there. Nothing of it was changed.
    Unreadable(Error),
    /// Writes that were acknowledged may be missing: those since its last point, where the host lost its power, or more, where files are
    /// damaged. The machine is there, and so are its points from before. Its disks have to be compared with their source by digests,
    /// and what differs to be written, before a new point may be offered: until [`Journal::caught_up`](journal::Journal::caught_up)
    /// was called, no checkpoint can be set. It is behind after each start until then.
    Behind(Found),
}

/// Machines with something to be told of.
pub type Troubles = BTreeMap<Name, Trouble>;

/// A program that is being started has the files of whoever starts it for a moment, locks included; and one that was killed still has its own.
const LOCK_WITHIN: Duration = Duration::from_secs(1);
/// Between two tries.
const LOCK_LOOKS: Duration = Duration::from_millis(20);

impl Vault {
    /// Opens a vault, or makes one in an empty folder.
    ///
    /// # Errors
    /// Refused where another process works on it, or the folder holds something else; unsupported where a later version wrote it. A single
    /// machine that cannot be read is no error: it is among the troubles.
    pub fn open(root: &Path) -> Result<(Vault, Troubles)> {
        let failed = |doing| move |error| Error::io(doing, error).in_file(root);
        std::fs::create_dir_all(root)
            .map_err(|error| failed("cannot make the vault's folder")(error).hint(WRITABLE))?;
        if !root.join("vault.json").exists() {
            check_empty(root)?;
        }
        let lock =
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock"));
        let lock = lock.map_err(failed("cannot make the lock"))?;
        let end = Instant::now() + LOCK_WITHIN;
        while rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > end {
                return Err(Error::refused("another process works on this vault")
                    .in_file(root)
                    .hint("ask that one (landfall status), or stop it: systemctl stop landfall"));
            }
            std::thread::sleep(LOCK_LOOKS);
        }
        let storage: Arc<dyn Storage> = Arc::new(Folder::new(root));
        let size = storage.room()?.map_or(u64::MAX, |(_, size)| size);
        Vault::on(storage, Limits::of_room(size), Some(lock), &running::boot_id())
    }

    /// Looks whether this user can open a vault there, or make one, and leaves all as it is. Another process may work on it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn check(root: &Path) -> Result<()> {
        use rustix::fs::{Access, access};
        let failed = |doing| move |error| Error::io(doing, error).in_file(root).hint(WRITABLE);
        if root.join("vault.json").exists() {
            let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            return access(root, all).map_err(|error| failed("the vault cannot be written to")(error.into()));
        }
        if root.exists() {
            check_empty(root)?;
        }
        // Whether a folder can be made is not told by its rights alone: /proc has none for anybody's.
        let there = root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let trial = there.join(format!(".landfall-check-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&trial).map_err(failed("the vault's folder cannot be made or written"))?;
        std::fs::remove_dir(&trial).map_err(failed("what was made to try cannot be removed"))
    }

    /// As [`open`](Self::open), on any storage; `boot_id` is the host's, which changes whenever it starts.
    fn on(
        storage: Arc<dyn Storage>,
        limits: Limits,
        lock: Option<std::fs::File>,
        boot_id: &str,
    ) -> Result<(Vault, Troubles)> {
        match storage.list("")?.iter().any(|name| name == "vault.json") {
            true => {
                let header: Header = read_json(&*storage, "vault.json")?;
                if header.landfall_vault != FORMAT {
                    return Err(Error::unsupported(format!(
                        "a vault of format {}; this program knows {FORMAT}",
                        header.landfall_vault
                    ))
                    .in_file(&storage.place("vault.json"))
                    .hint("use the version of landfall that wrote it, or a later one"));
                }
            }
            false => write_json(
                &*storage,
                "",
                "vault.json",
                &Header { landfall_vault: FORMAT, id: Uuid::new_v4() },
            )?,
        }
        storage.make_dir("machines")?;
        let vault = Vault {
            before: Running::read(&*storage)?,
            room: Arc::new(Room::new(&storage)),
            changing: Mutex::default(),
            storage,
            handles: Arc::new(Handles::new(HANDLES)),
            in_memory: Arc::default(),
            machines: RwLock::default(),
            limits,
            boot_id: boot_id.to_owned(),
            unjudged: RwLock::default(),
            _lock: lock,
        };
        let mut troubles = Troubles::new();
        for name in vault.storage.list("machines")? {
            let Ok(name) = name.parse::<Name>() else { continue };
            let is_going = vault.finish_removal(&name);
            if matches!(is_going, Ok(true)) {
                continue;
            }
            match is_going.and_then(|_| vault.open_machine(&name)) {
                Ok((machine, found)) if machine.journal().is_behind() => {
                    troubles.insert(name, Trouble::Behind(found));
                }
                Ok(_) => {}
                Err(error) => {
                    if vault.ended(&name) == Ended::WithThePower {
                        vault.unjudged.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
                    }
                    troubles.insert(name, Trouble::Unreadable(error));
                }
            }
        }
        // From here on it is this service that a loss of power meets; what the last one met is written down.
        vault.running(Some(boot_id)).write(&*vault.storage)?;
        Ok((vault, troubles))
    }

    /// Ends the work in order: nothing more is taken, and all that was is on the medium.
    ///
    /// # Errors
    /// As the medium's; then the next service looks for what is missing as after a loss of power.
    pub fn close(&self) -> Result<()> {
        for machine in self.machines().values() {
            machine.journal().shut()?;
        }
        self.running(None).write(&*self.storage)
    }

    fn running(&self, boot_id: Option<&str>) -> Running {
        let unjudged = self.unjudged.read().unwrap_or_else(PoisonError::into_inner);
        Running { boot_id: boot_id.map(str::to_owned), without_power: unjudged.clone() }
    }

    fn ended(&self, name: &Name) -> Ended {
        self.before.as_ref().map_or(Ended::InOrder, |before| before.ended(name, &self.boot_id))
    }

    fn open_machine(&self, name: &Name) -> Result<(Arc<Machine>, Found)> {
        let dir = dir(name);
        let identity = match self.storage.list(&dir)?.iter().any(|file| file == "machine.json") {
            true => read_json(&*self.storage, &format!("{dir}/machine.json"))?,
            false => {
                let identity = Identity { id: Uuid::new_v4() };
                self.storage.make_dir(&dir)?;
                write_json(&*self.storage, &dir, "machine.json", &identity)?;
                identity
            }
        };
        let home = Home {
            storage: Arc::clone(&self.storage),
            handles: Arc::clone(&self.handles),
            dir: format!("{dir}/journal").into(),
            machine: identity.id,
            in_memory: Arc::clone(&self.in_memory),
            room: Arc::clone(&self.room),
        };
        let (machine, found) =
            Machine::open(name.as_str(), &home, &format!("{dir}/bases"), self.limits, self.ended(name))?;
        let machine = Arc::new(machine);
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        machines.insert(name.clone(), Arc::clone(&machine));
        self.unjudged.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok((machine, found))
    }

    /// Ends the removal of a machine that was cut off; true where there was one.
    fn finish_removal(&self, name: &Name) -> Result<bool> {
        let is_going = removal::has_begun(&*self.storage, &dir(name))?;
        if is_going {
            removal::finish(&*self.storage, &dir(name))?;
        }
        Ok(is_going)
    }

    /// Takes a machine out of the vault, with all of its points. Whatever happens meanwhile, it is there as a whole or not at all.
    ///
    /// # Errors
    /// Refused where one of its points is read or held, and as the storage's: it stays as it was. Where it is not among the
    /// [machines](Self::machines) any longer, only some of its files could not be removed, which go when the vault is opened again.
    pub fn remove(&self, name: &Name) -> Result<()> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = self.machine(name)?;
        let Some(floor) = machine.withdraw() else {
            return Err(Error::refused(format!("points of {name} are in use"))
                .hint("wait until they are not, and try again: landfall recover list shows recovered machines; a trial, a verification and a send read points, too"));
        };
        let dir = dir(name);
        if let Err(error) = removal::begin(&*self.storage, &dir) {
            machine.restore(floor);
            return Err(error);
        }
        self.machines.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        // Whoever still has it finds it shut, and cannot touch the files of another machine of that name; upkeep ends early.
        let _never_read_again = machine.journal().shut();
        let _upkeep = machine.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        machine.journal().forget();
        self.handles.forget_all_in(&dir);
        removal::finish(&*self.storage, &dir)
    }

    /// The machines by their names.
    pub fn machines(&self) -> BTreeMap<Name, Arc<Machine>> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A machine.
    ///
    /// # Errors
    /// Refused where there is none of that name.
    pub fn machine(&self, name: &Name) -> Result<Arc<Machine>> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.get(name).cloned().ok_or_else(|| {
            Error::refused(format!("the vault has no machine {:?}", name.as_str()))
                .hint("landfall status shows those that it has")
        })
    }

    /// A machine, begun where there is none.
    ///
    /// # Errors
    /// As the storage's.
    pub fn machine_or_new(&self, name: &Name) -> Result<Arc<Machine>> {
        let is_there = || self.machines.read().unwrap_or_else(PoisonError::into_inner).contains_key(name);
        if !is_there() {
            let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_there() {
                self.finish_removal(name)?;
                self.open_machine(name)?;
            }
        }
        self.machine(name)
    }

    /// Sets one checkpoint on all of these machines at the same moment: no write to one of them is in it that came after a write to
    /// another which is not. Returns when it is durable everywhere, with its time and its record in each machine's journal.
    ///
    /// # Errors
    /// As [`journal::Journal::sync`], and refused where writes to one of them may be missing ([`Trouble::Behind`]); then it is on none,
    /// as far as anybody is told.
    pub fn cut(&self, machines: &[Arc<Machine>], time: u64, mark: &Mark) -> Result<(u64, Vec<u64>)> {
        // Always in one order, so that two cuts cannot wait for one another.
        let mut order: Vec<usize> = (0..machines.len()).collect();
        order.sort_by_key(|at| machines[*at].name());
        let group = (machines.len() > 1).then(Uuid::new_v4);
        let mark = Mark { group, ..mark.clone() };
        let mut sequences = vec![0; machines.len()];
        let time = {
            let mut held = Vec::with_capacity(order.len());
            for at in &order {
                held.push((*at, machines[*at].journal().hold()));
            }
            // On all or on none, and with one time.
            held.iter().try_for_each(|(_, held)| held.check())?;
            let time = held.iter().map(|(_, held)| held.earliest()).fold(time, u64::max);
            for (at, held) in &mut held {
                sequences[*at] = held.checkpoint(time, &mark)?;
            }
            time
        };
        // Nobody is told of it before it is durable on all.
        for machine in machines {
            machine.journal().sync_quietly()?;
        }
        for (machine, sequence) in machines.iter().zip(&sequences) {
            machine.journal().publish(*sequence);
        }
        self.relieve();
        Ok((time, sequences))
    }

    /// True where content was refused for want of room, and there is no more since.
    pub fn is_full(&self) -> bool {
        self.room.is_full()
    }

    /// Closes segments of those that hold the most in memory, where all together hold too much.
    pub fn relieve(&self) {
        if self.in_memory.load(Ordering::Relaxed) <= RECORDS_IN_MEMORY {
            return;
        }
        let mut machines: Vec<Arc<Machine>> = self.machines().into_values().collect();
        machines.sort_by_key(|machine| std::cmp::Reverse(machine.journal().records_in_active()));
        for machine in machines.iter().take(machines.len().div_ceil(4)) {
            machine.journal().close_segment();
        }
    }
}

/// A machine's folder.
fn dir(name: &Name) -> String {
    format!("machines/{name}")
}

fn read_json<T: serde::de::DeserializeOwned>(storage: &dyn Storage, path: &str) -> Result<T> {
    let file = storage.open(path)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(1 << 20);
    let mut raw = vec![0; len];
    file.read_at(0, &mut raw)?;
    serde_json::from_slice(&raw)
        .map_err(|error| Error::corrupt(format!("cannot be read: {error}")).in_file(&storage.place(path)))
}

fn write_json(storage: &dyn Storage, dir: &str, name: &str, value: &impl Serialize) -> Result<()> {
    let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    let raw = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
    let new = format!("{path}.new");
    storage.remove(&new)?;
    let file = storage.create(&new)?;
    file.write_at(0, &[&raw])?;
    file.sync()?;
    storage.rename(&new, &path)?;
    storage.sync_dir(dir)
}

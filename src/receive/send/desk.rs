//! The receiver's side: sends that are under way, one for each machine.

use super::frame::{self, Frame};
use super::tree::{self, CHUNKS, Digest};
use super::{
    ASKED_AT_MOST, Begin, Begun, Commit, Committed, DEFINITION, DISKS_AT_MOST, Held, Job, Question, Sent,
    SentDisk, Taken, Unit, VARIABLES, WAY, check_own, held,
};
use crate::name::Name;
use crate::receive::batch::{Batch, Batches, Intent, Target, Work};
use crate::receive::content::{self, Effort};
use crate::receive::digest::Verdict;
use crate::receive::position::{self, Position};
use crate::vault::journal::Mark;
use crate::vault::machine::{Live, Machine};
use landfall_image::{Bytes, Disk, Error, GuestRange, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// So long a question for digests may be worked on: the answer comes while the sender still waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nodes of which the chunks' digests are kept, until they are asked for: 32 KiB each.
const KEPT: usize = 64;

/// Sends that are under way. One for a vault.
#[derive(Debug, Default)]
pub struct Desk {
    open: Mutex<BTreeMap<Name, Arc<Mutex<Option<Session>>>>>,
}

#[derive(Debug)]
struct Session {
    id: Uuid,
    batch: Batch,
    job: Job,
    disks: BTreeMap<Name, Incoming>,
    /// When the sender said something last.
    heard: Instant,
}

/// A disk that is being sent.
#[derive(Debug)]
struct Incoming {
    live: Live,
    size: Bytes,
    sector: u64,
    /// Bytes that were read back and are right.
    checked: u64,
    /// Where they were not, and what could not be read.
    wrong: Option<(Verdict, String)>,
    /// Digests of chunks, by the node, as long as nothing is written.
    nodes: BTreeMap<u64, Vec<Digest>>,
}

/// Bytes of a point's name, as everywhere.
const TAG_AT_MOST: usize = 200;
/// UEFI variables are a few hundred KiB.
const VARIABLES_AT_MOST: usize = 4 << 20;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sends that are cut off, of a vault.
fn cut_off(batches: &Batches, machine: &Machine) -> Result<Option<(Intent, Job)>> {
    for intent in batches.unfinished()? {
        if intent.machine.as_str() == machine.name()
            && let Work::Send(job) = &intent.work
        {
            let job = job.clone();
            return Ok(Some((intent, job)));
        }
    }
    Ok(None)
}

impl Desk {
    fn place(&self, machine: &Name) -> Arc<Mutex<Option<Session>>> {
        Arc::clone(locked(&self.open).entry(machine.clone()).or_default())
    }

    /// What a machine holds.
    ///
    /// # Errors
    /// Where the journal or an intent cannot be read.
    pub fn holds(&self, batches: &Batches, machine: &Arc<Machine>) -> Result<Held> {
        let name: Name = machine.name().parse()?;
        let place = self.place(&name);
        let open = locked(&place);
        let point = machine.points()?.last().map(|point| point.sequence);
        let mut told = Held { machine: name, holds: None, why: None, unfinished: None, point };
        let job = match &*open {
            Some(session) => Some(session.job.clone()),
            None => cut_off(batches, machine)?.map(|(_, job)| job),
        };
        match job {
            Some(job) => {
                told.why = job
                    .base
                    .is_none()
                    .then(|| "what it held before the send that is under way is not known".to_owned());
                (told.holds, told.unfinished) = (job.base, Some(job.target));
            }
            None => match held(machine, u64::MAX)? {
                Ok(sent) => told.holds = Some(sent),
                Err(why) => told.why = Some(why),
            },
        }
        Ok(told)
    }

    /// Begins a send, or goes on with the one that was cut off; a machine that is not there is made. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// Refused where the machine is another's, holds a later point, or something else writes to it; as the vault's.
    pub fn begin(
        &self,
        batches: &Batches,
        target: &Target<'_>,
        begin: &Begin,
        by: &str,
        now: u64,
    ) -> Result<Begun> {
        check_disks(&begin.disks)?;
        if begin.target.tag.as_ref().is_some_and(|tag| {
            tag.trim().is_empty() || tag.len() > TAG_AT_MOST || tag.chars().any(char::is_control)
        }) {
            return Err(Error::refused("this cannot be a point's name")
                .hint("use 1 to 200 bytes without control characters"));
        }
        let machine = &target.made()?;
        let name: Name = machine.name().parse()?;
        let place = self.place(&name);
        let mut open = locked(&place);
        // What another connection of this sender has begun is gone on with; that one is told when it says something more.
        let before = match open.take() {
            Some(session) => Some((session.batch, session.job)),
            None => match cut_off(batches, machine)? {
                Some((intent, job)) => Some((batches.resume(machine, intent)?, job)),
                None => None,
            },
        };
        let (mut batch, job, resumed) = match before {
            Some((batch, job)) if job.target.is_of(&begin.target) => {
                let resumed = job.target.clone();
                (batch, Job { base: job.base, target: begin.target.clone() }, Some(resumed))
            }
            // Dropped, it is kept for its own sender.
            Some((_, job)) => {
                return Err(Error::refused(format!("the send of {} is under way into {name}", job.target))
                    .hint("let that one come to its end, or give it up: landfall receive give-up MACHINE"));
            }
            None => {
                let (batch, job) = begun(batches, machine, begin, by, now)?;
                (batch, job, None)
            }
        };
        let opened = (|| -> Result<_> {
            let wanted: Vec<Name> = begin.disks.iter().map(|disk| disk.name.clone()).collect();
            batch.widen(&wanted, &says(&begin.target, by), Work::Send(job.clone()))?;
            let (mut disks, mut new) = (BTreeMap::new(), Vec::new());
            for SentDisk { name, size, sector } in &begin.disks {
                if machine.disk_number(name.as_str()).is_none() {
                    new.push(name.clone());
                }
                let live = batch.disk(name, Bytes(*size), *sector)?;
                let incoming = Incoming {
                    live,
                    size: Bytes(*size),
                    sector: u64::from(*sector),
                    checked: 0,
                    wrong: None,
                    nodes: BTreeMap::new(),
                };
                disks.insert(name.clone(), incoming);
            }
            machine.journal().sync()?;
            Ok((disks, new))
        })();
        let (disks, new) = opened?;
        let session = Session { id: Uuid::new_v4(), batch, job: job.clone(), disks, heard: Instant::now() };
        let begun = Begun { session: session.id, base: job.base, resumed, new };
        *open = Some(session);
        Ok(begun)
    }

    /// For how long the sender of a send that is under way has said nothing; `None` where there is none. Not asked while it is worked for.
    pub fn silent(&self, machine: &Name) -> Option<Duration> {
        let place = locked(&self.open).get(machine).cloned()?;
        match place.try_lock() {
            Ok(open) => open.as_ref().map(|session| session.heard.elapsed()),
            Err(_) => Some(Duration::ZERO),
        }
    }

    /// Does something with a send that is under way.
    fn with<T>(&self, machine: &Name, id: Uuid, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        self.with_place(machine, id, |open| match open {
            Some(session) => work(session),
            None => Err(Error::refused("there is no send under way")),
        })
    }

    /// As [`with`](Self::with), and may end it.
    fn with_place<T>(
        &self,
        machine: &Name,
        id: Uuid,
        work: impl FnOnce(&mut Option<Session>) -> Result<T>,
    ) -> Result<T> {
        let place = locked(&self.open).get(machine).cloned();
        let gone = || {
            Error::new(Kind::Interrupted, format!("no send into {machine} is under way under this number"))
                .hint("begin it again: what has arrived stays")
        };
        let place = place.ok_or_else(gone)?;
        let mut open = locked(&place);
        match &*open {
            None => Err(gone()),
            Some(session) if session.id != id => {
                Err(Error::refused(format!("another send into {machine} has begun since"))
                    .hint("let one of the two come to its end"))
            }
            Some(_) => {
                let done = work(&mut open);
                if let Some(session) = &mut *open {
                    session.heard = Instant::now();
                }
                done
            }
        }
    }

    /// Digests of what a disk holds now, 32 bytes each: of the first that were asked for, as many as could be had in a while.
    ///
    /// # Errors
    /// Refused where it is asked for too many or for what is not there; interrupted where there is no such send; as the disk's.
    pub fn digests(
        &self,
        machine: &Name,
        disk: &Name,
        question: &Question,
        effort: &Effort,
    ) -> Result<Vec<u8>> {
        if question.numbers.len() > ASKED_AT_MOST {
            return Err(Error::refused(format!(
                "asks for {} digests; {ASKED_AT_MOST} are the most",
                question.numbers.len()
            )));
        }
        self.with(machine, question.session, |session| {
            let incoming = session.disk(disk)?;
            let (began, mut answer) = (Instant::now(), Vec::new());
            for number in &question.numbers {
                if !answer.is_empty() && began.elapsed() > PATIENCE {
                    break;
                }
                answer.extend_from_slice(&match question.of {
                    Unit::Nodes => incoming.node(*number, effort)?,
                    Unit::Chunks => incoming.chunk(*number)?,
                });
            }
            Ok(answer)
        })
    }

    /// Takes a body of frames for a disk. All of it is looked at before the first byte is written.
    ///
    /// # Errors
    /// Corrupt where it is no sound body; interrupted where there is no such send; as the vault's.
    pub fn take(&self, machine: &Name, id: Uuid, disk: &Name, body: &[u8]) -> Result<Taken> {
        self.with(machine, id, |session| session.disk(disk)?.take(body))
    }

    /// Cuts the point: takes out the disks that the sender has no more, and keeps what belongs to the machine.
    ///
    /// # Errors
    /// Refused where not all was read back that was to be, or it differed; interrupted where there is no such send; as the vault's. Then the
    /// send is still under way.
    pub fn commit(&self, machine: &Name, commit: &Commit, variables: Option<&[u8]>) -> Result<Committed> {
        self.with_place(machine, commit.session, |open| {
            let Some(session) = &mut *open else { return Err(Error::refused("there is nothing to commit")) };
            let committed = session.commit(commit, variables)?;
            match open.take() {
                Some(session) => session.batch.finish().map(|()| committed),
                None => Ok(committed),
            }
        })
    }

    /// Gives up a send: the disks go back to what they held before it began. False where there was none.
    ///
    /// # Errors
    /// As the vault's; then it stays.
    pub fn give_up(&self, batches: &Batches, machine: &Arc<Machine>, effort: &Effort) -> Result<bool> {
        let name: Name = machine.name().parse()?;
        let place = self.place(&name);
        let mut open = locked(&place);
        let batch = match open.take() {
            Some(session) => Some(session.batch),
            None => match cut_off(batches, machine)? {
                Some((intent, _)) => Some(batches.resume(machine, intent)?),
                None => None,
            },
        };
        match batch {
            Some(batch) => batch.take_back(effort).map(|()| true),
            None => Ok(false),
        }
    }
}

fn check_disks(disks: &[SentDisk]) -> Result<()> {
    let names: BTreeSet<&Name> = disks.iter().map(|disk| &disk.name).collect();
    if disks.is_empty() || disks.len() > DISKS_AT_MOST || names.len() < disks.len() {
        return Err(Error::refused(format!(
            "a machine of {} disks under {} names cannot be sent",
            disks.len(),
            names.len()
        ))
        .hint(format!("a machine has 1 to {DISKS_AT_MOST} disks, each with a name of its own")));
    }
    for disk in disks {
        if ![512, 4096].contains(&disk.sector)
            || disk.size == 0
            || !disk.size.is_multiple_of(u64::from(disk.sector))
        {
            return Err(Error::refused(format!(
                "{} has {} bytes in sectors of {}",
                disk.name, disk.size, disk.sector
            ))
            .hint("a disk has whole sectors of 512 or 4096 bytes, and at least one"));
        }
    }
    Ok(())
}

/// What it is called where it stands in the way.
fn says(target: &Sent, by: &str) -> String {
    format!("the send of {target} by {by}")
}

/// A send that goes on with no other.
fn begun(
    batches: &Batches,
    machine: &Arc<Machine>,
    begin: &Begin,
    by: &str,
    now: u64,
) -> Result<(Batch, Job)> {
    if !begin.replace {
        check_own(machine, &begin.target)?;
    }
    let base = held(machine, u64::MAX)?.ok().filter(|base| base.is_of(&begin.target));
    if let Some(base) =
        base.as_ref().filter(|base| base.number >= begin.target.number || base.at >= begin.target.at)
    {
        let says = match base.is(&begin.target) {
            true => format!("{} holds {base} already", machine.name()),
            false => format!("{} holds {base}, which is later than {}", machine.name(), begin.target),
        };
        return Err(
            Error::refused(says).hint("send a later point; or send this one under another name (--as NAME)")
        );
    }
    let known = machine.journal().with_state(|state| state.disks.clone());
    let mut all: BTreeSet<Name> = begin.disks.iter().map(|disk| disk.name.clone()).collect();
    for info in known.values() {
        all.insert(info.name.parse()?);
    }
    let all: Vec<Name> = all.into_iter().collect();
    let job = Job { base: base.clone(), target: begin.target.clone() };
    let batch = batches.begin(machine, &all, &says(&begin.target, by), Work::Send(job.clone()), now)?;
    // What was true before the lease may have changed. The point to go back to is of what the disks hold.
    let then = batch.intent().before.unwrap_or_default();
    let is_still = match &base {
        Some(base) => held(machine, then)?.is_ok_and(|held| held.is(base)),
        None => true,
    };
    match is_still {
        true => Ok((batch, job)),
        false => {
            batch.finish()?;
            Err(Error::new(
                Kind::Interrupted,
                format!("something else was written to {} at this moment", machine.name()),
            )
            .hint("begin again"))
        }
    }
}

impl Session {
    fn disk(&mut self, name: &Name) -> Result<&mut Incoming> {
        let target = &self.job.target;
        self.disks.get_mut(name).ok_or_else(|| {
            Error::refused(format!("{target} has no disk {name}"))
                .hint("name a disk that the send began with")
        })
    }

    fn commit(&mut self, commit: &Commit, variables: Option<&[u8]>) -> Result<Committed> {
        for (name, disk) in &self.disks {
            if let Some((verdict, says)) = &disk.wrong {
                let kind = if *verdict == Verdict::Differed { Kind::Corrupt } else { Kind::Io };
                return Err(Error::new(kind, format!("{name} does not hold what was sent: {says}")).hint(
                    "no point is cut of it; send again, and look at the medium of the receiver's vault",
                ));
            }
            let wanted = commit.checked.get(name).copied().unwrap_or_default();
            if disk.checked < wanted {
                return Err(Error::refused(format!(
                    "{} of {wanted} bytes of {name} were read back",
                    disk.checked
                ))
                .hint("a part of the send has not arrived: send again"));
            }
        }
        let variables = variables.unwrap_or_default();
        if variables.len() > VARIABLES_AT_MOST {
            return Err(Error::refused(format!(
                "{} bytes of UEFI variables; {} are the most",
                variables.len(),
                VARIABLES_AT_MOST
            )));
        }
        let definition = match &commit.definition {
            Some(definition) => serde_json::to_vec(definition)
                .map_err(|error| Error::refused(format!("the definition cannot be written down: {error}")))?,
            None => Vec::new(),
        };
        let machine = Arc::clone(self.batch.machine());
        let gone: Vec<String> = machine.journal().with_state(|state| {
            let is_gone = |name: &str| !self.disks.keys().any(|kept| kept.as_str() == name);
            state.disks.values().map(|info| info.name.clone()).filter(|name| is_gone(name)).collect()
        });
        for name in &gone {
            self.batch.remove(&name.parse()?)?;
            machine.journal().attach(&position::attachment(WAY, name), &[])?;
        }
        let id = self.batch.intent().id;
        let position = |_: &Name| Position {
            batch: id,
            part: 0,
            verdict: Verdict::Matched,
            is_unverified: false,
            point: None,
            has_ended: false,
            source: self.job.target.clone(),
        };
        let positions: Vec<(&str, &Name, Position<Sent>)> =
            self.disks.keys().map(|name| (WAY, name, position(name))).collect();
        let target = &self.job.target;
        let mark = Mark { consistency: target.consistency, tag: target.tag.clone(), ..Mark::default() };
        let attachments = [(DEFINITION, definition.as_slice()), (VARIABLES, variables)];
        let point = self.batch.point(target.at.0, &mark, &positions, &attachments)?;
        Ok(Committed { point, verdict: Verdict::Matched })
    }
}

impl Incoming {
    fn node(&mut self, number: u64, effort: &Effort) -> Result<Digest> {
        if let Some(chunks) = self.nodes.get(&number) {
            return Ok(tree::node(chunks));
        }
        let chunks = tree::chunks(&self.live, number, effort)?;
        let digest = tree::node(&chunks);
        while self.nodes.len() >= KEPT {
            self.nodes.pop_first();
        }
        self.nodes.insert(number, chunks);
        Ok(digest)
    }

    fn chunk(&self, number: u64) -> Result<Digest> {
        let kept = self.nodes.get(&(number / CHUNKS));
        let kept = kept.and_then(|chunks| chunks.get(usize::try_from(number % CHUNKS).ok()?));
        kept.map_or_else(|| tree::chunk(&self.live, number), |digest| Ok(*digest))
    }

    fn take(&mut self, body: &[u8]) -> Result<Taken> {
        let frames = frame::parse(body, self.size, self.sector)?;
        let mut room = Vec::new();
        for frame in &frames {
            frame::unpacked(frame, &mut room)?;
        }
        let (mut taken, mut is) = (Taken::default(), Vec::new());
        for frame in &frames {
            match frame {
                Frame::Data { range, .. } => {
                    self.forget(*range);
                    let wanted = frame::unpacked(frame, &mut room)?;
                    is.resize(wanted.len(), 0);
                    self.live.read_at(range.start(), &mut is)?;
                    taken.add(content::put(&self.live, range.start(), &is, wanted)?);
                }
                Frame::Zeros { range } => {
                    self.forget(*range);
                    taken.add(content::clear(&self.live, *range)?);
                }
                Frame::Check { range, digest } => {
                    is.resize(range.len().to_usize().unwrap_or(0), 0);
                    match self.live.read_at(range.start(), &mut is) {
                        Ok(()) if frame::agrees(*range, &is, digest) => {
                            taken.checked += range.len().0;
                            self.checked += range.len().0;
                        }
                        Ok(()) => {
                            let says = format!("what was read back at {} differs", range.start().0);
                            taken.differs.get_or_insert(range.start().0);
                            self.wrong.get_or_insert((Verdict::Differed, says));
                        }
                        Err(error) => {
                            taken.unread.get_or_insert(error.to_string());
                            self.wrong.get_or_insert((Verdict::CouldNotRun, error.to_string()));
                        }
                    }
                }
            }
        }
        Ok(taken)
    }

    /// What a run held is not what it is going to hold.
    fn forget(&mut self, range: GuestRange) {
        let (first, last) = (range.start().0 / super::NODE, (range.end().0 - 1) / super::NODE);
        (first..=last).for_each(|node| drop(self.nodes.remove(&node)));
    }
}

impl Taken {
    fn add(&mut self, counts: content::Counts) {
        self.written += counts.written;
        self.zeroed += counts.zeroed;
    }
}

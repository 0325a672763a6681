//! Sends a machine to another landfall: brings its disks there to a point that this side has.
//!
//! ```text
//! what do you hold? -> a point that is here, too -> where the two points differ (journal) -> read, compared, sent     (pieces)
//!                   -> anything else             -> digests of nodes, of chunks           -> what differs is sent
//! each piece is read back there -> commit -> a point there
//! ```
//! The source is a recovery point, which nobody changes: of a vault's folder, or of the service on this machine. It is read as long as
//! somebody reads it, and let go with that, whatever ends it. Lines break: what does not come through is said again for a while, and a later
//! send goes on where this one ended.
//!
//! Absent: what the receiver does with it ([`receive::send`](crate::receive::send)), and when a machine is sent.

mod here;
mod lane;
mod line;
pub mod seed;
#[cfg(test)]
mod tests;

pub use here::Here;

use crate::event::{Event, Observer};
use crate::name::Name;
use crate::ops::source::point::{At, PointName, PointSource, Points};
use crate::receive::content::Effort;
use crate::receive::digest::Verdict;
use crate::receive::send::{Begin, Begun, Commit, Committed, Held, Question, Sent, SentDisk, Taken};
use crate::report::VERSION;
use crate::report::sending::{Sending, SentDisk as Disk, Way};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::convert::{Progress, RateLimit};
use landfall_image::{Bytes, Error, Kind, Result};
use lane::{How, Lane};
use line::Line;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Attempts in a row of which the receiver takes nothing: it ends each of them.
const FRUITLESS_AT_MOST: u32 = 5;

/// Why the receiver did not do what was asked.
#[derive(Debug)]
pub enum Fault {
    /// It did not answer, or is too busy: it may do so in a moment.
    Lost(Error),
    /// It has no such send under way (any more): begin it again.
    Gone(Error),
    /// It will not.
    Told(Error),
}

impl Fault {
    /// What it says.
    pub fn into_error(self) -> Error {
        match self {
            Fault::Lost(error) | Fault::Gone(error) | Fault::Told(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Told(error)
    }
}

/// Whoever receives, see [`Desk`](crate::receive::send::Desk).
pub trait Replica: Sync {
    /// Where it is, for people.
    fn place(&self) -> &str;
    /// What a machine holds there.
    ///
    /// # Errors
    /// As the receiver's; so for all that follow.
    fn held(&self, machine: &Name) -> Result<Held, Fault>;
    /// Begins, or goes on.
    ///
    /// # Errors
    /// See above.
    fn begin(&self, machine: &Name, begin: &Begin) -> Result<Begun, Fault>;
    /// Digests of what a disk holds there.
    ///
    /// # Errors
    /// See above.
    fn digests(&self, machine: &Name, disk: &Name, question: &Question) -> Result<Vec<u8>, Fault>;
    /// Takes a body of frames.
    ///
    /// # Errors
    /// See above.
    fn take(&self, machine: &Name, disk: &Name, session: Uuid, body: &[u8]) -> Result<Taken, Fault>;
    /// Cuts the point.
    ///
    /// # Errors
    /// See above.
    fn commit(&self, machine: &Name, commit: &Commit) -> Result<Committed, Fault>;
    /// Gives up what is under way.
    ///
    /// # Errors
    /// See above.
    fn give_up(&self, machine: &Name) -> Result<(), Fault>;
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// The point.
    pub point: PointName,
    /// The machine's name at the receiver.
    pub name: Name,
    /// The machine there may be another one.
    pub replace: bool,
    /// Bytes per second on the line.
    pub limit: Option<RateLimit>,
    /// How long it is tried again where nothing comes through.
    pub patience: Duration,
}

/// What has been done, over all attempts.
#[derive(Debug, Default)]
struct Tally {
    wire: u64,
    fruitless: u32,
    disks: BTreeMap<Name, lane::Counts>,
}

/// Sends a point, and says what came of it. A verdict that is not "matched" is no error: nothing was offered at the receiver then.
///
/// # Errors
/// Where there is no such point, or the receiver refuses; I/O where nothing came through for too long.
pub fn send(
    effort: &Effort,
    observer: &dyn Observer,
    points: &dyn Points,
    request: &Request,
    to: &dyn Replica,
) -> Result<Sending> {
    let line = Line::new(to, &effort.cancel, request.patience);
    let mut tally = Tally::default();
    let mut at = request.point.at.clone();
    // Why what the receiver says that it holds is not believed.
    let mut distrust = None;
    let mut held = to.held(&request.name).map_err(Fault::into_error)?;
    loop {
        let source = points.open(&request.point.machine, &at)?;
        // It stays that point, however long it takes.
        at = At::Number(source.number);
        let sender = Sender {
            effort,
            observer,
            points,
            request,
            line: &line,
            source: &source,
            distrust: distrust.as_deref(),
        };
        let wire = tally.wire;
        match sender.attempt(&held, &mut tally) {
            Ok(Sending { verdict: Verdict::Differed, says, .. }) if distrust.is_none() => {
                observer.event(Event::Step(format!("{says}: all is compared by digests")));
                distrust = Some(says);
            }
            Ok(done) => return Ok(done),
            Err(Fault::Gone(error)) => {
                tally.fruitless = if tally.wire > wire { 0 } else { tally.fruitless + 1 };
                if tally.fruitless >= FRUITLESS_AT_MOST {
                    return Err(error);
                }
                line.pause(error).map_err(Fault::into_error)?;
            }
            Err(fault) => return Err(fault.into_error()),
        }
        held = line.say(|to| to.held(&request.name)).map_err(Fault::into_error)?;
    }
}

/// One attempt.
struct Sender<'s> {
    effort: &'s Effort,
    observer: &'s dyn Observer,
    points: &'s dyn Points,
    request: &'s Request,
    line: &'s Line<'s>,
    source: &'s PointSource,
    distrust: Option<&'s str>,
}

impl Sender<'_> {
    fn attempt(&self, held: &Held, tally: &mut Tally) -> Result<Sending, Fault> {
        let target = self.source.sent();
        if let Some(holds) =
            held.holds.as_ref().filter(|holds| holds.is(&target) && held.unfinished.is_none())
        {
            let says = format!("{} holds {holds}: there is nothing to send", self.request.name);
            return Ok(self.report(tally, Verdict::Matched, says, held.point, held.holds.clone()));
        }
        let mut disks = Vec::new();
        for disk in &self.source.disks {
            disks.push(SentDisk {
                name: disk.name.parse()?,
                size: disk.image.disk.size().0,
                sector: disk.sector,
            });
        }
        let begin = Begin { target: target.clone(), disks, replace: self.request.replace };
        let begun = self.line.say(|to| to.begin(&self.request.name, &begin))?;
        let old = self.old(&begun, held);
        let mut commit = Commit {
            session: begun.session,
            checked: BTreeMap::new(),
            definition: self.source.machine.clone(),
            variables: None,
        };
        commit.variables = self.source.kept_variables.as_ref().map(|kept| STANDARD.encode(kept));
        for (disk, sent) in self.source.disks.iter().zip(&begin.disks) {
            let (how, why) = self.how(disk, &begun, &old);
            let progress = Progress::default();
            let shown = format!("{}/{}", self.request.name, disk.name);
            self.observer.event(Event::CopyStarted { disk: shown, progress: progress.clone() });
            let lane = Lane {
                line: self.line,
                machine: &self.request.name,
                name: &sent.name,
                session: begun.session,
                new: &*disk.image.disk,
                how: &how,
                limit: self.request.limit.as_ref(),
                effort: self.effort,
                progress: &progress,
            };
            let counts = tally.disks.entry(sent.name.clone()).or_default();
            (counts.size, counts.way, counts.why) = (disk.image.disk.size(), how.way(), why);
            let done = lane.run(counts, &mut tally.wire);
            self.observer.event(Event::CopyFinished);
            let done = done?;
            commit.checked.insert(sent.name.clone(), done.checked);
            if let Some((verdict, says)) = done.wrong {
                let says = format!("{shown_name}: {says}", shown_name = disk.name);
                return Ok(self.report(tally, verdict, says, None, begun.base));
            }
        }
        let committed = self.line.say(|to| to.commit(&self.request.name, &commit))?;
        let says = format!("what {} holds was read back, and is {target}", self.request.name);
        Ok(self.report(tally, committed.verdict, says, Some(committed.point), begun.base))
    }

    /// The point that the receiver's disks begin at, as it is here; otherwise why that is of no use.
    fn old(&self, begun: &Begun, held: &Held) -> std::result::Result<PointSource, String> {
        if let Some(why) = self.distrust {
            return Err(why.to_owned());
        }
        let Some(base) = &begun.base else {
            return Err(held
                .why
                .clone()
                .unwrap_or_else(|| "nobody knows what the receiver holds".to_owned()));
        };
        let old = self.still_there(base, "the receiver holds")?;
        // What was on its way there came from between the two points.
        match &begun.resumed {
            Some(was) if was.number > self.source.number => {
                Err(format!("a send of {was}, which is later, was cut off"))
            }
            Some(was) if was.number < self.source.number => {
                self.still_there(was, "a send was cut off of").map(|_| old)
            }
            _ => Ok(old),
        }
    }

    fn still_there(&self, point: &Sent, says: &str) -> std::result::Result<PointSource, String> {
        match self.points.open(&self.request.point.machine, &At::Number(point.number)) {
            Ok(old) if old.at == point.at && old.id == point.id => Ok(old),
            Ok(_) => Err(format!(
                "{says} {point}, and point {} is another one here: this vault was set back",
                point.number
            )),
            Err(error) => {
                tracing::info!(%error, "the point cannot be had");
                Err(format!("{says} {point}, which this side has no more"))
            }
        }
    }

    /// How a disk is sent, and why not by its differences.
    fn how(
        &self,
        disk: &crate::ops::source::point::PointDisk,
        begun: &Begun,
        old: &std::result::Result<PointSource, String>,
    ) -> (How, Option<String>) {
        if begun.new.iter().any(|name| name.as_str() == disk.name) {
            return (How::Whole, Some("the receiver did not have it".to_owned()));
        }
        let old = match old {
            Ok(old) => old,
            Err(why) => return (How::Digests { within: None }, Some(why.clone())),
        };
        let was = old.disks.iter().find(|was| was.name == disk.name);
        let changed = self.points.changed(&self.source.name, &disk.name, old.number, self.source.number);
        match (was, changed) {
            (Some(was), Ok(changed)) if begun.resumed.is_none() => {
                (How::Differences { old: std::sync::Arc::clone(&was.image.disk), changed }, None)
            }
            (Some(_), Ok(changed)) => (
                How::Digests { within: Some(changed) },
                Some("a send was cut off: a part of it is there".to_owned()),
            ),
            (_, Err(error)) => (How::Digests { within: None }, Some(error.to_string())),
            (None, _) => {
                (How::Digests { within: None }, Some(format!("point {} did not have it", old.number)))
            }
        }
    }

    fn report(
        &self,
        tally: &Tally,
        verdict: Verdict,
        says: String,
        point: Option<u64>,
        base: Option<Sent>,
    ) -> Sending {
        let disk = |(name, counts): (&Name, &lane::Counts)| Disk {
            name: name.clone(),
            size: counts.size,
            way: counts.way,
            why: counts.why.clone(),
            looked_at: Bytes(counts.looked_at),
            content: Bytes(counts.content),
            checked: Bytes(counts.checked),
        };
        Sending {
            version: VERSION,
            machine: self.request.name.clone(),
            to: self.line.to.place().to_owned(),
            source: self.source.sent(),
            base,
            verdict,
            says,
            point,
            disks: tally.disks.iter().map(disk).collect(),
            line: Bytes(tally.wire),
            tries: self.line.tries(),
        }
    }
}

/// The exit code that a verdict has.
pub fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Matched => 0,
        Verdict::Differed => 1,
        Verdict::CouldNotRun => 2,
    }
}

impl How {
    fn way(&self) -> Way {
        match self {
            How::Differences { .. } => Way::Differences,
            How::Digests { .. } => Way::Digests,
            How::Whole => Way::Whole,
        }
    }
}

/// That a receiver's answer makes no sense.
fn senseless(says: &str) -> Fault {
    Fault::Told(
        Error::new(Kind::Unsupported, format!("the receiver's answer makes no sense: {says}"))
            .hint("use one version of landfall on both sides"),
    )
}

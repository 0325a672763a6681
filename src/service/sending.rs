//! Machines that are sent to other landfalls by the clock, as `[[send]]` of the service's file says.
//!
//! ```text
//! for each [[send]], in a thread of its own: machine that is due -> its newest point -> ops::send -> what came of it -> alarms
//! ```
//! The point that another landfall holds is kept here, whatever the rules say, so that the next send has two points to compare. It
//! is in the catalog; where that is lost, digests are compared once.

use super::alarms::Wrong;
use super::config::Sends;
use super::watched::Watched;
use super::{Service, now};
use crate::event::Silent;
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::send::{Request, send};
use crate::ops::service::{Access, Service as Other};
use crate::ops::source::point::{self, At, HeldPoint, PointName, PointSource, Points};
use crate::receive::content::{Changed, Effort};
use crate::receive::digest::Verdict;
use crate::report::protection::{Evidence, Gravity, SendStatus};
use crate::report::sending::Sending;
use crate::vault::role::Promotion;
use landfall_image::convert::Cancel;
use landfall_image::nbd::TlsFiles;
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How often it is looked at whose send is due.
const TICK: Duration = Duration::from_millis(100);
/// How long one send tries again where nothing comes through: then others have their turn.
const PATIENCE: Duration = Duration::from_secs(60);
/// Secrets of tokens are short.
const TOKEN_AT_MOST: u64 = 4096;

/// What came of the sends since the service started.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    sends: Mutex<BTreeMap<(usize, Name), Last>>,
    pub cancel: Cancel,
}

/// The last send of a machine by a rule.
#[derive(Clone, Debug)]
struct Last {
    /// When the last one came to its end, in milliseconds since 1970; at first, when the machine was seen first.
    good: u64,
    /// Why the last one did not.
    failed: Option<String>,
    /// It arrived, and was something else when it was read back.
    has_differed: bool,
}

/// The points of this service, in this process.
struct Own<'s>(&'s Service);

impl Points for Own<'_> {
    fn open(&self, name: &Name, at: &At) -> Result<PointSource> {
        let watched = self.0.machine(name)?;
        let points = watched.points();
        let chosen = match at {
            At::Number(number) => points.iter().find(|point| point.sequence == *number),
            _ => points.last(),
        };
        let chosen = chosen.ok_or_else(|| Error::refused(format!("{name} has no such point")))?;
        let mut source = point::source(name, watched.machine(), chosen, None)?;
        // Names that were given later are the catalog's.
        let tags = self.0.catalog.tags(&watched.machine().home().machine)?;
        source.tag = tags.get(&chosen.sequence).cloned().or(source.tag).filter(|tag| !tag.is_empty());
        Ok(source)
    }

    fn reach(&self) -> Result<()> {
        Ok(())
    }

    fn hold(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.0.hold(machine, number, holder)
    }

    fn release(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.0.release(machine, number, holder)
    }

    fn holds(&self) -> Result<Vec<HeldPoint>> {
        Ok(point::holds(&self.0.vault))
    }

    fn promote(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        let promotion = Promotion { at: now(), point: number, holder: holder.to_owned() };
        self.0.machine(machine)?.machine().roles().change(Some(promotion)).map(drop)
    }

    fn attach(&self, machine: &Name, number: u64, evidence: &Evidence) -> Result<()> {
        self.0.attach_proof(machine, number, evidence)
    }

    fn changed(&self, machine: &Name, disk: &str, since: u64, to: u64) -> Result<Changed> {
        point::changed(self.0.machine(machine)?.machine(), disk, since, to)
    }
}

impl Service {
    /// Sends machines until the service stops. Takes a thread, and one for each rule.
    pub fn send_machines(&self) {
        std::thread::scope(|scope| {
            for (number, sends) in self.config.sends.iter().enumerate() {
                let started = std::thread::Builder::new().name(format!("send-{number}")).spawn_scoped(
                    scope,
                    move || {
                        self.send_by(number, sends);
                    },
                );
                if let Err(error) = started {
                    tracing::error!(to = sends.to, %error, "no thread can be started: nothing is sent there");
                }
            }
            while !self.is_stopping() {
                std::thread::sleep(TICK);
            }
        });
    }

    fn send_by(&self, number: usize, sends: &Sends) {
        let mut due: BTreeMap<Name, Instant> = BTreeMap::new();
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            for (name, watched) in self.watched() {
                if !sends.is_for(&name) || self.is_stopping() {
                    continue;
                }
                let began = Instant::now();
                if due.get(&name).is_some_and(|due| *due > began) {
                    continue;
                }
                // Those that were missed are not made up for.
                due.insert(name.clone(), began + sends.every);
                self.seen(number, &name, |_| {});
                if watched.points().is_empty() {
                    continue;
                }
                let done = self.send_one(sends, &name);
                if self.is_stopping() {
                    return;
                }
                self.sent(number, sends, &name, &watched, done);
            }
        }
    }

    fn send_one(&self, sends: &Sends, name: &Name) -> Result<Sending> {
        let access = Access {
            service: Some(sends.to.clone()),
            token: sends.token.as_deref().map(token).transpose()?,
            ca: sends.tls.ca.clone(),
        };
        let own = TlsFiles { ca: None, ..sends.tls.clone() };
        let to = Other::with_certificate(&access, &own)?;
        let request = Request {
            point: PointName { machine: name.clone(), at: At::Latest },
            name: name.clone(),
            replace: false,
            limit: sends.limit.clone(),
            patience: PATIENCE,
        };
        let effort = Effort { jobs: 2, cancel: self.outgoing.cancel.clone() };
        send(&effort, &Silent, &Own(self), &request, &to)
    }

    fn seen(&self, number: usize, name: &Name, change: impl FnOnce(&mut Last)) {
        let mut sends = self.outgoing.sends.lock().unwrap_or_else(PoisonError::into_inner);
        let last = sends.entry((number, name.clone()));
        change(last.or_insert_with(|| Last { good: now(), failed: None, has_differed: false }));
    }

    fn sent(&self, number: usize, sends: &Sends, name: &Name, watched: &Watched, done: Result<Sending>) {
        match done {
            Ok(done) if done.verdict == Verdict::Matched => {
                tracing::info!(machine = %name, to = sends.to, point = done.source.number, line = done.line.0, "a machine is sent");
                let id = &watched.machine().home().machine;
                if let Err(error) = self.catalog.set_sent(id, &sends.to, done.source.number) {
                    tracing::error!(%error, "that a point is needed for the next send cannot be kept");
                }
                self.seen(number, name, |last| {
                    *last = Last { good: now(), failed: None, has_differed: false }
                });
            }
            Ok(done) => {
                tracing::error!(machine = %name, to = sends.to, says = done.says, "a machine was sent, and is not what it was there");
                let has_differed = done.verdict == Verdict::Differed;
                self.seen(number, name, |last| {
                    (last.failed, last.has_differed) = (Some(done.says), has_differed)
                });
            }
            Err(error) => {
                tracing::warn!(machine = %name, to = sends.to, %error, "a machine cannot be sent");
                self.seen(number, name, |last| last.failed = Some(error.to_string()));
            }
        }
    }

    /// The points that the next sends begin at.
    pub(super) fn points_of_sends(&self, watched: &Watched) -> Result<Vec<u64>> {
        let sent = self.catalog.sent(&watched.machine().home().machine)?;
        let is_wanted = |place: &String| self.config.sends.iter().any(|sends| sends.to == *place);
        Ok(sent.into_iter().filter(|(place, _)| is_wanted(place)).map(|(_, (point, _))| point).collect())
    }

    /// Where a machine is sent to, and what has arrived there.
    pub(super) fn sends_of(&self, name: &Name, watched: &Watched, at: Moment) -> Vec<SendStatus> {
        let rules: Vec<_> =
            self.config.sends.iter().enumerate().filter(|(_, rule)| rule.is_for(name)).collect();
        if rules.is_empty() {
            return Vec::new();
        }
        let held = self.catalog.sent(&watched.machine().home().machine).unwrap_or_else(|error| {
            tracing::error!(machine = %name, %error, "what has arrived elsewhere cannot be read");
            BTreeMap::new()
        });
        let sends = self.outgoing.sends.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |(number, rule): (usize, &Sends)| {
            let last = sends.get(&(number, name.clone()));
            let arrived = held.get(&rule.to);
            SendStatus {
                to: rule.to.clone(),
                point: arrived.map(|(point, _)| *point),
                at: arrived.map(|(_, at)| *at),
                failed: last.and_then(|last| last.failed.clone()),
                late: last.is_some_and(|last| at.since(Moment(last.good)) > rule.late),
            }
        };
        rules.into_iter().map(status).collect()
    }

    /// What is wrong with sends.
    pub(super) fn wrong_with_sends(&self, at: Moment) -> Vec<Wrong> {
        let sends = self.outgoing.sends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut found, machines) = (Vec::new(), self.watched());
        for ((number, name), last) in sends.into_iter().filter(|((_, name), _)| machines.contains_key(name)) {
            let Some(rule) = self.config.sends.get(number) else { continue };
            let why = last.failed.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let mut put = |id, gravity, says, remedy: &str| {
                found.push(Wrong {
                    id,
                    gravity,
                    machine: Some(name.to_string()),
                    says,
                    remedy: remedy.to_owned(),
                });
            };
            if last.has_differed {
                put(
                    "send-differed",
                    Gravity::Critical,
                    format!("{name} was sent to {}, and is something else there{why}.", rule.to),
                    "Look at the medium of the other landfall's vault. Its earlier points are as they were.",
                );
            }
            if at.since(Moment(last.good)) > rule.late {
                put(
                    "send-late",
                    Gravity::Warning,
                    format!("{name} was last brought to {} at {}{why}.", rule.to, Moment(last.good)),
                    "Look whether the other landfall answers, and at the log of both. A send goes on where the last one ended.",
                );
            }
        }
        found
    }
}

/// The secret in a file.
fn token(path: &Path) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| {
            std::io::Read::read_to_string(&mut std::io::Read::take(file, TOKEN_AT_MOST), &mut text)
        })
        .map_err(|error| Error::io("the token cannot be read", error).in_file(path))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

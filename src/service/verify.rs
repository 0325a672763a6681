//! Whether points are what was written: each is read as a whole, which checks all of its checksums, and digested.
//!
//! ```text
//! asked for -> waiting -> (one at a time) sealed, read, digested, compared with the first digests of this point -> verdict -> catalog
//! ```
//! Three verdicts: matched, differed, could not run. A point never changes, whatever is done with its journal and base in the background, and
//! so its digests never do.
//!
//! Absent: whether a point boots, which is what a proof is for.

use super::Service;
use crate::moment::Moment;
use crate::name::Name;
use crate::report::VERSION;
use crate::report::api::{
    Damage, Verdict, Verification, VerificationProgress, VerificationState, VerifiedDisk, Verify,
};
use crate::vault::journal::DiskInfo;
use crate::vault::machine::{Point, PointDisk};
use landfall_image::convert::{self, Cancel, Options, Progress, RateLimit};
use landfall_image::{Bytes, Disk, Error, ExtentKind, GuestOffset, GuestRange, Kind, Result};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Those that wait. Nobody waits for the thousandth.
const WAITING_AT_MOST: usize = 1000;
/// Damaged places that are told of one disk.
const DAMAGE_AT_MOST: usize = 100;
/// How closely damage is looked at: what one checksum of the journal is over.
const CLOSE: u64 = 64 << 10;
/// Extents that are asked for at once.
const EXTENTS: usize = 256;

/// What is to be verified, and what is.
#[derive(Debug, Default)]
pub(super) struct Verifications {
    jobs: Mutex<Jobs>,
    wake: Condvar,
    cancel: Cancel,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    running: Option<(Job, Moment, Watch)>,
}

#[derive(Clone, Debug)]
struct Job {
    machine: Name,
    point: u64,
    rate_limit: Option<RateLimit>,
}

/// How far a job is.
#[derive(Clone, Debug, Default)]
struct Watch {
    disk: String,
    number: usize,
    disks: usize,
    progress: Progress,
}

impl Job {
    fn is(&self, machine: &Name, point: u64) -> bool {
        self.machine == *machine && self.point == point
    }

    fn document(&self, state: VerificationState, says: &str) -> Verification {
        Verification {
            version: VERSION,
            machine: self.machine.to_string(),
            point: self.point,
            state,
            verdict: None,
            says: says.to_owned(),
            progress: None,
            began: None,
            ended: None,
            compared_with: None,
            disks: Vec::new(),
        }
    }
}

impl Verifications {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.cancel.cancel();
        self.wake.notify_all();
    }

    /// The one of that point that waits or runs.
    fn under_way(&self, machine: &Name, point: u64) -> Option<Verification> {
        let jobs = self.jobs();
        if let Some((job, began, watch)) = jobs.running.as_ref().filter(|(job, ..)| job.is(machine, point)) {
            let seen = watch.progress.snapshot();
            let mut document = job.document(VerificationState::Running, "it is being read");
            document.began = Some(*began);
            document.progress = Some(VerificationProgress {
                disk: watch.disk.clone(),
                number: watch.number,
                disks: watch.disks,
                read: seen.read,
                total: seen.total,
            });
            return Some(document);
        }
        let before = jobs.waiting.iter().position(|job| job.is(machine, point))?;
        let says = format!("it waits; others before it: {}", before + usize::from(jobs.running.is_some()));
        Some(jobs.waiting[before].document(VerificationState::Waiting, &says))
    }

    /// The next job, once there is one; `None` when the service stops.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs();
        loop {
            if self.cancel.is_cancelled() {
                return None;
            }
            if let Some(job) = jobs.waiting.pop_front() {
                jobs.running = Some((job.clone(), Moment::now(), Watch::default()));
                return Some(job);
            }
            let waited = self.wake.wait_timeout(jobs, Duration::from_secs(1));
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn watch(&self, watch: Watch) {
        if let Some((.., running)) = &mut self.jobs().running {
            *running = watch;
        }
    }
}

impl Service {
    /// Has a point verified in the background; one that waits or runs already goes on.
    ///
    /// # Errors
    /// Refused where there is no such point, or too many wait.
    pub fn verify(&self, name: &Name, number: u64, how: &Verify) -> Result<Verification> {
        self.point(name, &super::Which::Number(number))?;
        if let Some(there) = self.verifications.under_way(name, number) {
            return Ok(there);
        }
        let rate_limit = how.rate_limit.filter(|rate| *rate > 0).map(|rate| RateLimit::new(Bytes(rate)));
        let job = Job { machine: name.clone(), point: number, rate_limit };
        let waits = job.document(VerificationState::Waiting, "it waits");
        {
            let mut jobs = self.verifications.jobs();
            if jobs.waiting.len() >= WAITING_AT_MOST {
                return Err(Error::refused(format!("{WAITING_AT_MOST} points wait for their verification"))
                    .hint("wait until some are done"));
            }
            jobs.waiting.push_back(job);
        }
        self.verifications.wake.notify_one();
        Ok(self.verifications.under_way(name, number).unwrap_or(waits))
    }

    /// The verification of a point that is under way, or else the last one.
    ///
    /// # Errors
    /// Refused where it was never verified.
    pub fn verification(&self, name: &Name, number: u64) -> Result<Verification> {
        // Asked first: what ends meanwhile is found in the catalog.
        if let Some(there) = self.verifications.under_way(name, number) {
            return Ok(there);
        }
        let machine = self.machine(name)?.machine().home().machine;
        let last = self.catalog.verifications(&machine, number)?.pop();
        last.ok_or_else(|| {
            Error::refused(format!("point {number} of {name} was never verified"))
                .hint(format!("landfall points verify {name} {number}"))
        })
    }

    /// Verifies what is asked for until the service stops. Takes a thread.
    pub fn verify_points(&self) {
        // After a defect, the one that it was found with is over.
        self.verifications.jobs().running = None;
        while let Some(job) = self.verifications.next() {
            let began = Moment::now();
            let mut done = self.read_point(&job);
            done.state = VerificationState::Done;
            done.began = Some(began);
            done.ended = Some(Moment::now());
            let verdict = done.verdict.unwrap_or(Verdict::CouldNotRun);
            match verdict {
                Verdict::Matched => {
                    tracing::info!(machine = %job.machine, point = job.point, "a point was verified")
                }
                _ => {
                    tracing::error!(machine = %job.machine, point = job.point, verdict = verdict.name(), "{}", done.says)
                }
            }
            if let Err(error) = self.keep_verdict(&job, &done, verdict) {
                tracing::error!(%error, "what came of a verification cannot be written down");
            }
            self.verifications.jobs().running = None;
        }
    }

    fn keep_verdict(&self, job: &Job, done: &Verification, verdict: Verdict) -> Result<()> {
        let watched = self.machine(&job.machine)?;
        watched.judged(job.point, verdict);
        self.catalog.add_verification(&watched.machine().home().machine, done, verdict)
    }

    fn read_point(&self, job: &Job) -> Verification {
        let mut done = job.document(VerificationState::Done, "");
        let failed = |mut done: Verification, error: &Error| {
            done.verdict = Some(verdict_of(error));
            done.says = error.to_string();
            done
        };
        let (machine, earlier) = match self.before(job) {
            Ok(before) => before,
            Err(error) => return failed(done, &error),
        };
        // What is not sealed has no sums to be read by; sealing reads it back.
        machine.journal().close_segment();
        let sealed = machine.journal().seal();
        let point = match machine.at(job.point) {
            Ok(point) => point,
            Err(error) => return failed(done, &error),
        };
        match sealed {
            Err(error) if !point.is_checked() => return failed(done, &error),
            Ok(()) if !point.is_checked() => {
                let error = Error::new(Kind::Io, "a part of its journal is not complete yet: ask again");
                return failed(done, &error);
            }
            _ => {}
        }
        let disks = &point.state().disks;
        for (place, (number, info)) in disks.iter().enumerate() {
            let options = Options {
                rate_limit: job.rate_limit.clone(),
                cancel: self.verifications.cancel.clone(),
                ..Options::default()
            };
            self.verifications.watch(Watch {
                disk: info.name.clone(),
                number: place + 1,
                disks: disks.len(),
                progress: options.progress.clone(),
            });
            let read = read_disk(&point, *number, info, &options);
            done.disks.push(compared(read, earlier.as_ref()));
        }
        let of = |verdict| done.disks.iter().filter(move |disk| disk.verdict == verdict);
        let first_of = |verdict| of(verdict).next().map(|disk| (disk.name.clone(), because(disk)));
        let (verdict, says) = match (first_of(Verdict::Differed), first_of(Verdict::CouldNotRun)) {
            (Some((name, why)), _) => (Verdict::Differed, format!("{name}: {why}")),
            (None, Some((name, why))) => (Verdict::CouldNotRun, format!("{name}: {why}")),
            (None, None) => (
                Verdict::Matched,
                match &earlier {
                    Some(earlier) => format!(
                        "all of it was read, every checksum is right, and its digests are those of {}",
                        earlier.ended.unwrap_or_default()
                    ),
                    None => "all of it was read, and every checksum is right; these are its first digests"
                        .to_owned(),
                },
            ),
        };
        done.verdict = Some(verdict);
        done.says = says;
        done.compared_with = earlier.and_then(|earlier| earlier.ended);
        done
    }

    /// The machine of a job, and the verification that its digests are compared with.
    fn before(
        &self,
        job: &Job,
    ) -> Result<(std::sync::Arc<crate::vault::machine::Machine>, Option<Verification>)> {
        let machine = std::sync::Arc::clone(self.machine(&job.machine)?.machine());
        let earlier = self.catalog.verifications(&machine.home().machine, job.point)?;
        let earlier = earlier.into_iter().find(|one| one.verdict == Some(Verdict::Matched));
        Ok((machine, earlier))
    }
}

/// Damage is a verdict; that somebody could not look is none.
fn verdict_of(error: &Error) -> Verdict {
    match error.kind() {
        Kind::Corrupt => Verdict::Differed,
        Kind::Unsupported | Kind::Refused | Kind::Io | Kind::Interrupted => Verdict::CouldNotRun,
    }
}

fn because(disk: &VerifiedDisk) -> String {
    match (&disk.error, &disk.earlier) {
        (Some(error), _) => error.clone(),
        (None, Some(earlier)) => format!(
            "its checksums are right, and it is not what it was: the digest was {earlier}, and is {}",
            disk.digest.as_deref().unwrap_or_default()
        ),
        (None, None) => String::new(),
    }
}

fn read_disk(point: &Point, number: u32, info: &DiskInfo, options: &Options) -> VerifiedDisk {
    let mut done = VerifiedDisk {
        name: info.name.clone(),
        size: Bytes(info.size),
        verdict: Verdict::Matched,
        digest: None,
        earlier: None,
        error: None,
        damage: Vec::new(),
        more_damage: 0,
    };
    let disk = match point.disk(number) {
        Ok(disk) => disk,
        Err(error) => {
            return VerifiedDisk { verdict: verdict_of(&error), error: Some(error.to_string()), ..done };
        }
    };
    match convert::digest(&disk, options) {
        Ok(digest) => done.digest = Some(digest.to_hex().to_string()),
        Err(error) => {
            done.verdict = verdict_of(&error);
            if done.verdict == Verdict::Differed {
                (done.damage, done.more_damage) = damage(&disk, &options.cancel);
            }
            done.error = Some(error.to_string());
        }
    }
    done
}

fn compared(mut disk: VerifiedDisk, earlier: Option<&Verification>) -> VerifiedDisk {
    let before = earlier.and_then(|earlier| earlier.disks.iter().find(|before| before.name == disk.name));
    if let (Some(digest), Some(before)) = (&disk.digest, before.and_then(|before| before.digest.as_ref()))
        && digest != before
    {
        disk.earlier = Some(before.clone());
        disk.verdict = Verdict::Differed;
    }
    disk
}

/// Where a disk is damaged: the first places, and how many there are besides.
fn damage(disk: &PointDisk, cancel: &Cancel) -> (Vec<Damage>, usize) {
    let mut found: Vec<Damage> = Vec::new();
    let mut more = 0;
    let mut put = |offset: u64, length: u64, says: String| {
        let count = found.len();
        match found.last_mut().filter(|last| last.offset + last.length == offset) {
            Some(last) => last.length += length,
            None if count < DAMAGE_AT_MOST => found.push(Damage { offset, length, says }),
            None => more += 1,
        }
    };
    let size = disk.size().0;
    let mut buf = vec![0; usize::try_from(CLOSE).unwrap_or(0)];
    let mut at = 0;
    while at < size && !cancel.is_cancelled() {
        let rest = GuestRange::between(GuestOffset(at), GuestOffset(size));
        let extents = match disk.extents(rest, EXTENTS) {
            Ok(extents) if !extents.is_empty() => extents,
            Ok(_) => break,
            Err(error) => {
                put(at, size - at, error.to_string());
                break;
            }
        };
        for extent in extents {
            at = extent.range.end().0;
            let mut here = extent.range.start().0;
            while extent.kind == ExtentKind::Data && here < at && !cancel.is_cancelled() {
                let len = (CLOSE - here % CLOSE).min(at - here);
                let buf = &mut buf[..usize::try_from(len).unwrap_or(0)];
                if let Err(error) = disk.read_at(GuestOffset(here), buf) {
                    put(here, len, error.to_string());
                }
                here += len;
            }
        }
    }
    (found, more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::protection::Gravity;
    use crate::service::Wanted;
    use crate::service::config::Config;
    use landfall_image::DiskMut;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    const SIZE: u64 = 8 << 20;

    fn open(dir: &Path) -> Arc<Service> {
        Service::open(Config::parse("vault = \"vault\"\nsockets = \".\"", dir).unwrap()).unwrap()
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..len).map(|_| next()).collect()
    }

    /// A machine with two disks and the numbers of two points, the first of which is in the base, as far as it can be.
    fn machine(service: &Service) -> [u64; 2] {
        let name: Name = "web01".parse().unwrap();
        let disk = |name: &str| Wanted { name: name.parse().unwrap(), size: SIZE, sector: 512 };
        service.protect(&name, &[disk("sda"), disk("sdb")], None, None).unwrap();
        let watched = service.machine(&name).unwrap();
        let write = |disk: &str, at: u64, seed: u64| {
            let live = watched.machine().live(disk).unwrap();
            live.write_at(GuestOffset(at), &noise(seed, 1 << 20)).unwrap();
        };
        write("sda", 0, 1);
        write("sda", 2 << 20, 2);
        write("sdb", 5 << 20, 3);
        let first = service.ready(&name).unwrap().number;
        // Into the base: all but the newest point is given up.
        watched.machine().journal().close_segment();
        let upkeep = |now: u64| {
            let retention = "1s every 1s".parse().unwrap();
            crate::vault::upkeep::run(watched.machine(), &retention, &Default::default(), now, &|_| Ok(()))
                .unwrap()
        };
        write("sda", 1 << 20, 4);
        let second = service.ready(&name).unwrap().number;
        watched.machine().journal().close_segment();
        let done = upkeep(u64::MAX / 2);
        assert!(done.folded > 0, "{done:?}");
        watched.refresh().unwrap();
        write("sdb", 0, 5);
        let third = service.ready(&name).unwrap().number;
        assert!(first < second);
        [second, third]
    }

    fn verified(service: &Service, point: u64) -> Verification {
        let name: Name = "web01".parse().unwrap();
        service.verify(&name, point, &Verify::default()).unwrap();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // One job; then as when the service stops, but for this test only.
                let job = service.verifications.next().unwrap();
                let mut done = service.read_point(&job);
                done.ended = Some(Moment::now());
                service.keep_verdict(&job, &done, done.verdict.unwrap()).unwrap();
                service.verifications.jobs().running = None;
            });
            worker.join().unwrap();
        });
        service.verification(&name, point).unwrap()
    }

    fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => out.extend(files(&entry, ending)),
                false if entry.to_string_lossy().ends_with(ending) => out.push(entry),
                false => {}
            }
        }
        out.sort();
        out
    }

    fn flip(path: &Path, at: u64) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    #[test]
    fn what_was_written_matches_again_and_again_whatever_is_done_in_the_background() {
        let dir = tempfile::tempdir().unwrap();
        let service = open(dir.path());
        let [older, newer] = machine(&service);
        let first = verified(&service, newer);
        assert_eq!(first.verdict, Some(Verdict::Matched), "{first:?}");
        assert_eq!(first.compared_with, None);
        assert_eq!(first.disks.len(), 2);
        // The digest is the one that everybody else makes of the same bytes.
        let name: Name = "web01".parse().unwrap();
        let live = service.machine(&name).unwrap().machine().live("sda").unwrap();
        let wanted = convert::digest(&live, &Options::default()).unwrap().to_hex().to_string();
        assert_eq!(first.disks[0].digest.as_deref(), Some(wanted.as_str()));
        assert_eq!(verified(&service, older).verdict, Some(Verdict::Matched));
        let shown = service.points(&name).unwrap();
        assert!(
            shown.iter().all(|point| point.verified.is_some_and(|seen| seen.verdict == Verdict::Matched))
        );
        // Rewritten in the background, and after a restart.
        drop((live, service));
        let service = open(dir.path());
        let machine = Arc::clone(service.machine(&name).unwrap().machine());
        machine.live("sda").unwrap().write_at(GuestOffset(0), &[7; 4096]).unwrap();
        service.ready(&name).unwrap();
        machine.journal().close_segment();
        let retention = "1s every 1s".parse().unwrap();
        let kept = crate::vault::upkeep::Wishes { kept: [newer].into(), ..Default::default() };
        crate::vault::upkeep::run(&machine, &retention, &kept, u64::MAX / 2, &|_| Ok(())).unwrap();
        let again = verified(&service, newer);
        assert_eq!(again.verdict, Some(Verdict::Matched), "{again:?}");
        assert_eq!(again.compared_with, first.ended);
        assert_eq!(again.disks, first.disks);
    }

    #[test]
    fn a_flipped_bit_is_found_and_told_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let service = open(dir.path());
        let [older, newer] = machine(&service);
        service.machine(&"web01".parse().unwrap()).unwrap().machine().journal().seal().unwrap();
        // In the base: both points stand on it. 2 MiB are a data block of sda.
        let base = &files(dir.path(), ".raw")[0];
        flip(base, (2 << 20) + 10_000);
        for point in [older, newer] {
            let seen = verified(&service, point);
            assert_eq!(seen.verdict, Some(Verdict::Differed), "{seen:?}");
            let sda = &seen.disks[0];
            assert_eq!((sda.verdict, &sda.digest), (Verdict::Differed, &None));
            assert!(
                (sda.damage[0].offset..sda.damage[0].offset + sda.damage[0].length)
                    .contains(&((2 << 20) + 10_000))
            );
            assert_eq!((sda.damage.len(), sda.more_damage), (1, 0));
            assert!(sda.damage[0].says.contains(".raw"), "{}", sda.damage[0].says);
            // The other disk is not held to be damaged.
            assert_eq!(seen.disks[1].verdict, Verdict::Matched);
        }
        flip(base, (2 << 20) + 10_000);
        let differed = |service: &Service| {
            let found = service.wrong(Moment::now()).into_iter().find(|wrong| wrong.id == "point-differed");
            found.map(|wrong| (wrong.gravity, wrong.says))
        };
        let says = format!("Points {older} and {newer} of web01 are not what was written");
        assert!(differed(&service).is_some_and(|it| it.0 == Gravity::Critical && it.1.contains(&says)));
        assert_eq!(verified(&service, newer).verdict, Some(Verdict::Matched), "the control");
        assert_eq!(verified(&service, older).verdict, Some(Verdict::Matched), "the control");
        assert_eq!(differed(&service), None);
        // In the journal, behind the older point: only the newer one has it.
        let segments = files(dir.path(), ".seg");
        let last = segments.last().unwrap();
        flip(last, std::fs::metadata(last).unwrap().len() / 2);
        assert_eq!(verified(&service, older).verdict, Some(Verdict::Matched));
        let seen = verified(&service, newer);
        assert_eq!(
            (seen.verdict, seen.disks[1].verdict),
            (Some(Verdict::Differed), Verdict::Differed),
            "{seen:?}"
        );
        let name: Name = "web01".parse().unwrap();
        let shown = service.points(&name).unwrap();
        assert_eq!(shown.last().unwrap().verified.unwrap().verdict, Verdict::Differed);
        // It is wrong as long as the point is there, also for the next service.
        let says = format!("Point {newer} of web01 is not what was written");
        assert!(differed(&service).is_some_and(|it| it.1.contains(&says)), "{:?}", differed(&service));
        drop(service);
        let service = open(dir.path());
        assert!(differed(&service).is_some_and(|it| it.1.contains(&says)), "{:?}", differed(&service));
        // One that was given up is none.
        service.machine(&name).unwrap().judged(newer + 1000, Verdict::Differed);
        assert!(differed(&service).is_some_and(|it| it.1.contains(&says)), "{:?}", differed(&service));
    }

    /// Not all that is lost leaves a wrong checksum behind: a part of a file that became a hole reads as zeros.
    #[test]
    fn a_part_that_became_a_hole_is_found() {
        use rustix::fs::{FallocateFlags, fallocate};
        let dir = tempfile::tempdir().unwrap();
        let service = open(dir.path());
        let [older, _] = machine(&service);
        let base = std::fs::OpenOptions::new().write(true).open(&files(dir.path(), ".raw")[0]).unwrap();
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&base, flags, 2 << 20, 1 << 20).unwrap();
        let seen = verified(&service, older);
        assert_eq!(seen.verdict, Some(Verdict::Differed), "{seen:?}");
        assert_eq!((seen.disks[0].damage[0].offset, seen.disks[0].damage[0].length), (2 << 20, 1 << 20));
    }

    #[test]
    fn sums_that_were_lost_with_their_content_are_found_by_the_digest_of_before() {
        use rustix::fs::{FallocateFlags, fallocate};
        let dir = tempfile::tempdir().unwrap();
        let service = open(dir.path());
        let [older, _] = machine(&service);
        let first = verified(&service, older);
        assert_eq!(first.verdict, Some(Verdict::Matched));
        // All of sda's base, content and sums: nothing in the base says that it was ever there.
        for ending in [".raw", ".sum"] {
            let file = std::fs::OpenOptions::new().write(true).open(&files(dir.path(), ending)[0]).unwrap();
            let len = file.metadata().unwrap().len();
            fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, len).unwrap();
        }
        let seen = verified(&service, older);
        assert_eq!(seen.verdict, Some(Verdict::Differed), "{seen:?}");
        let sda = &seen.disks[0];
        assert_eq!(sda.earlier, first.disks[0].digest);
        assert!(sda.damage.is_empty() && sda.digest.is_some());
        assert_eq!(seen.compared_with, first.ended);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_said_to_be_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let service = open(dir.path());
        let [older, newer] = machine(&service);
        let name: Name = "web01".parse().unwrap();
        assert!(service.verify(&name, 999_999, &Verify::default()).is_err());
        assert!(service.verify(&"other".parse().unwrap(), older, &Verify::default()).is_err());
        assert!(service.verification(&name, older).unwrap_err().hint_text().unwrap().contains("verify"));
        // The point goes while the job waits.
        service.verify(&name, older, &Verify::default()).unwrap();
        let waiting = service.verification(&name, older).unwrap();
        assert_eq!(waiting.state, VerificationState::Waiting);
        let watched = service.machine(&name).unwrap();
        watched.machine().journal().close_segment();
        let retention = "1s every 1s".parse().unwrap();
        crate::vault::upkeep::run(watched.machine(), &retention, &Default::default(), u64::MAX / 2, &|_| {
            Ok(())
        })
        .unwrap();
        let job = service.verifications.next().unwrap();
        let seen = service.read_point(&job);
        assert_eq!(seen.verdict, Some(Verdict::CouldNotRun), "{seen:?}");
        service.verifications.jobs().running = None;
        // The service stops.
        service.verify(&name, newer, &Verify::default()).unwrap();
        let job = service.verifications.next().unwrap();
        service.stop();
        let seen = service.read_point(&job);
        assert_eq!(seen.verdict, Some(Verdict::CouldNotRun), "{seen:?}");
        assert!(seen.disks.iter().all(|disk| disk.verdict == Verdict::CouldNotRun));
        assert!(service.verifications.next().is_none());
    }
}

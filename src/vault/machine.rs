//! A machine in the vault: its journal and its base, and the disks that they make, as they are now and as they were at a point.

use super::base::Base;
use super::holds::{Hold, Holds, gone};
use super::journal::map::{Run, Source};
use super::journal::start::{Ended, Found};
use super::journal::{Checkpoint, DiskInfo, Home, Journal, Limits, Mark, Segments, State, View};
use super::role::Roles;
use super::upkeep;
use landfall_image::{
    Bytes, Disk, DiskMut, Error, Extent, ExtentKind, GuestOffset, GuestRange, Kind, Result,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A machine that is protected.
#[derive(Debug)]
pub struct Machine {
    name: String,
    journal: Journal,
    base: Base,
    home: Home,
    pins: Mutex<Pins>,
    holds: Holds,
    roles: Roles,
    /// What changes the journal's past: one at a time.
    pub(super) upkeep: Mutex<()>,
}

#[derive(Debug, Default)]
struct Pins {
    /// Points that somebody reads: how often each, and since when.
    points: BTreeMap<u64, (usize, Instant)>,
    /// Points up to here are in the base, or are going there: they cannot be read any more.
    floor: u64,
}

impl Machine {
    /// Opens or begins what the vault has of a machine. `home.dir` is its journal's folder, `bases` its base's.
    ///
    /// # Errors
    /// As [`Journal::open`] and [`Base::open`].
    pub fn open(
        name: &str,
        home: &Home,
        bases: &str,
        limits: Limits,
        ended: Ended,
    ) -> Result<(Machine, Found)> {
        let (base, begun) = Base::open(&home.storage, bases)?;
        let (journal, found) = Journal::open(home.clone(), limits, base.through() + 1, ended)?;
        let dir = bases.rsplit_once('/').map_or("", |(dir, _)| dir);
        let holds = Holds::open(&home.storage, dir)?;
        let roles = Roles::open(&home.storage, dir)?;
        let pins = Pins { floor: begun.unwrap_or_else(|| base.through()), ..Pins::default() };
        let machine = Machine {
            name: name.to_owned(),
            journal,
            base,
            home: home.clone(),
            pins: Mutex::new(pins),
            holds,
            roles,
            upkeep: Mutex::new(()),
        };
        if let Some(through) = begun
            && let Err(error) = upkeep::fold_again(&machine, through, &|_| Ok(()))
            // There may be no room for it now: upkeep does it, and tells; the points behind it are there.
            && error.kind() != Kind::Io
        {
            return Err(error);
        }
        Ok((machine, found))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The base.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Where its journal lies.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The number of a disk by its name.
    pub fn disk_number(&self, name: &str) -> Option<u32> {
        self.journal.disk_number(name)
    }

    /// A disk as it is now, to be read and written.
    ///
    /// # Errors
    /// Where the machine has none of that name.
    pub fn live(self: &Arc<Self>, name: &str) -> Result<Live> {
        let number = self.disk_number(name).ok_or_else(|| {
            Error::refused(format!("{} has no disk {name:?}", self.name))
                .hint("landfall status shows the disks of a machine")
        })?;
        Ok(Live { machine: Arc::clone(self), number })
    }

    /// Sets a checkpoint and returns when it is durable. `time` is in milliseconds since 1970.
    ///
    /// # Errors
    /// As [`Journal::sync`].
    pub fn checkpoint(&self, time: u64, mark: &Mark) -> Result<u64> {
        let sequence = self.journal.hold().checkpoint(time, mark)?;
        self.journal.sync()?;
        Ok(sequence)
    }

    /// The points that can be recovered, oldest first: those that are durable and not given up.
    ///
    /// # Errors
    /// As [`Journal::checkpoints`].
    pub fn points(&self) -> Result<Vec<Checkpoint>> {
        let mut points = self.journal.checkpoints()?;
        let (durable, floor) = (self.journal.durable(), self.pins().floor);
        points.retain(|point| floor < point.sequence && point.sequence <= durable);
        Ok(points)
    }

    /// The machine as it was at a point, for as long as the answer lives.
    ///
    /// # Errors
    /// Where there is no such point (any more).
    pub fn at(self: &Arc<Self>, point: u64) -> Result<Point> {
        {
            let mut pins = self.pins();
            if point <= pins.floor {
                return Err(gone(&self.name, point));
            }
            // From here on the base stays behind it.
            pins.points.entry(point).or_insert_with(|| (0, Instant::now())).0 += 1;
        }
        let pin = Pin { machine: Arc::clone(self), point };
        let view = self.journal.view(point)?;
        Ok(Point(Arc::new(Inner { view, pin })))
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The points that somebody reads.
    pub fn pinned(&self) -> Vec<u64> {
        self.pins().points.keys().copied().collect()
    }

    /// The oldest point that somebody reads, and for how long: nothing behind it goes into the base.
    pub fn read_for(&self) -> Option<(u64, Duration)> {
        self.pins().points.first_key_value().map(|(point, (_, since))| (*point, since.elapsed()))
    }

    /// Keeps a point, whatever the rules say and whoever reads it, until [`release`](Self::release); across restarts. To hold what is
    /// held by the same holder is no error.
    ///
    /// # Errors
    /// Refused where there is no such point (any more); as the storage's.
    pub fn hold(&self, point: u64, holder: &str) -> Result<()> {
        if !self.points()?.iter().any(|other| other.sequence == point) {
            return Err(gone(&self.name, point));
        }
        // Nobody gives it up meanwhile.
        let pins = self.pins();
        let is_there = point > pins.floor && self.holds.add(Hold { point, holder: holder.to_owned() })?;
        if is_there { Ok(()) } else { Err(gone(&self.name, point)) }
    }

    /// Takes a hold back. One that is not there is no error.
    ///
    /// # Errors
    /// As the storage's.
    pub fn release(&self, point: u64, holder: &str) -> Result<()> {
        self.holds.remove(&Hold { point, holder: holder.to_owned() })
    }

    /// Whether it is a replica still.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Points that somebody needs.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Gives up all points, where nobody reads or holds one: how far they were given up before.
    pub(super) fn withdraw(&self) -> Option<u64> {
        let floor = self.pins().floor;
        self.give_up(u64::MAX).then_some(floor)
    }

    /// Takes [`withdraw`](Self::withdraw) back.
    pub(super) fn restore(&self, floor: u64) {
        self.pins().floor = floor;
    }

    /// Gives up the points up to a record; false where somebody reads or holds one of them.
    pub(super) fn give_up(&self, through: u64) -> bool {
        let mut pins = self.pins();
        let is_held = self.holds.points().range(..=through).next().is_some();
        if is_held || pins.points.range(..=through).next().is_some() {
            return false;
        }
        pins.floor = pins.floor.max(through);
        true
    }
}

/// Keeps a point from being given up.
#[derive(Debug)]
struct Pin {
    machine: Arc<Machine>,
    point: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.machine.pins();
        if let Some((count, _)) = pins.points.get_mut(&self.point) {
            *count -= 1;
            if *count == 0 {
                pins.points.remove(&self.point);
            }
        }
    }
}

/// A machine as it was at a point.
#[derive(Clone, Debug)]
pub struct Point(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    view: View,
    pin: Pin,
}

impl Point {
    /// Its disks and attachments.
    pub fn state(&self) -> &State {
        &self.0.view.state
    }

    /// True where every byte that is read of it is checked: its part of the journal is sealed.
    pub fn is_checked(&self) -> bool {
        self.0.view.is_sealed()
    }

    /// One of its disks, by its number.
    ///
    /// # Errors
    /// Where it had no such disk.
    pub fn disk(&self, number: u32) -> Result<PointDisk> {
        let info = self.state().disks.get(&number).cloned().ok_or_else(|| {
            Error::refused(format!("{} had no disk number {number}", self.0.pin.machine.name))
        })?;
        Ok(PointDisk { point: self.clone(), number, info })
    }
}

/// A disk as it was at a point. Nobody can write to it.
#[derive(Clone, Debug)]
pub struct PointDisk {
    point: Point,
    number: u32,
    info: DiskInfo,
}

impl Disk for PointDisk {
    fn size(&self) -> Bytes {
        Bytes(self.info.size)
    }

    fn sector_size(&self) -> Bytes {
        Bytes(u64::from(self.info.sector))
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let (view, base) = (&self.point.0.view, &self.point.0.pin.machine.base);
        let range = landfall_image::disk::clip(range, self.size());
        extents(range, at_most, |range| view.locate(self.number, range), base, self.number)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        landfall_image::disk::check_bounds(self.size(), at, buf.len())?;
        let (view, base) = (&self.point.0.view, &self.point.0.pin.machine.base);
        let (runs, rest) = view.locate(self.number, at.0..at.0 + buf.len() as u64)?;
        let read = |segment, place, buf: &mut [u8]| view.read(segment, place, buf);
        fill(at.0, buf, &runs, &rest, read, base, self.number)
    }
}

/// The runs that the journal has of a range, and the parts that it says nothing about.
type Located = (Vec<Run>, Vec<Range<u64>>);

/// A disk as it is now.
#[derive(Clone, Debug)]
pub struct Live {
    machine: Arc<Machine>,
    number: u32,
}

impl Live {
    fn info(&self) -> Option<DiskInfo> {
        self.machine.journal.disk_info(self.number)
    }

    fn locate(&self, range: Range<u64>) -> Result<(Located, Segments)> {
        let (search, segments) = self.machine.journal.locate(self.number, range)?;
        Ok((search.finish(), segments))
    }
}

impl Disk for Live {
    fn size(&self) -> Bytes {
        Bytes(self.info().map_or(0, |info| info.size))
    }

    fn sector_size(&self) -> Bytes {
        Bytes(self.info().map_or(512, |info| u64::from(info.sector)))
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = landfall_image::disk::clip(range, self.size());
        let locate = |range| self.locate(range).map(|(located, _)| located);
        extents(range, at_most, locate, &self.machine.base, self.number)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        landfall_image::disk::check_bounds(self.size(), at, buf.len())?;
        let ((runs, rest), segments) = self.locate(at.0..at.0 + buf.len() as u64)?;
        let journal = &self.machine.journal;
        let read = |segment, place, buf: &mut [u8]| journal.read(&segments, segment, place, buf);
        fill(at.0, buf, &runs, &rest, read, &self.machine.base, self.number)
    }
}

impl DiskMut for Live {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.machine.journal.write(self.number, at.0, data)
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        self.machine.journal.zero(self.number, range.start().0, range.len().0)
    }

    fn flush(&self) -> Result<()> {
        self.machine.journal.sync().map(|_| ())
    }
}

fn fill(
    at: u64,
    buf: &mut [u8],
    runs: &[Run],
    rest: &[Range<u64>],
    read: impl Fn(u64, u64, &mut [u8]) -> Result<()>,
    base: &Base,
    disk: u32,
) -> Result<()> {
    let inside = |range: &Range<u64>| index(range.start - at)..index(range.end - at);
    for run in runs {
        let buf = &mut buf[inside(&run.range)];
        match run.source {
            Source::Zero => buf.fill(0),
            Source::Stored { segment, at } => read(segment, at, buf)?,
        }
    }
    rest.iter().try_for_each(|range| base.read(disk, range.start, &mut buf[inside(range)]))
}

/// Bytes of a disk that are looked through for extents at once.
const WINDOW: u64 = 64 << 20;

fn extents(
    range: GuestRange,
    at_most: usize,
    locate: impl Fn(Range<u64>) -> Result<Located>,
    base: &Base,
    disk: u32,
) -> Result<Vec<Extent>> {
    let mut found: Vec<Extent> = Vec::new();
    let mut push = |range: Range<u64>, kind: ExtentKind| {
        let range = GuestRange::between(GuestOffset(range.start), GuestOffset(range.end));
        match found.last_mut().filter(|last| last.kind == kind && last.range.end() == range.start()) {
            Some(last) => last.range = GuestRange::between(last.range.start(), range.end()),
            None => found.push(Extent { range, kind }),
        }
        found.len()
    };
    let (mut at, end) = (range.start().0, range.end().0);
    while at < end {
        let until = end.min(at.saturating_add(WINDOW));
        let (runs, rest) = locate(at..until)?;
        let kind = |run: &Run| if run.source == Source::Zero { ExtentKind::Zero } else { ExtentKind::Data };
        let mut parts: Vec<(Range<u64>, ExtentKind)> =
            runs.iter().map(|run| (run.range.clone(), kind(run))).collect();
        for range in rest {
            let mut here = range.start;
            while here < range.end {
                let data = base.next_data(disk, here)?.filter(|data| data.start < range.end);
                let Some(data) = data else {
                    parts.push((here..range.end, ExtentKind::Zero));
                    break;
                };
                if data.start > here {
                    parts.push((here..data.start, ExtentKind::Zero));
                }
                here = data.end.min(range.end);
                parts.push((data.start..here, ExtentKind::Data));
            }
        }
        parts.sort_by_key(|(range, _)| range.start);
        for (range, kind) in parts {
            if push(range, kind) > at_most.max(1) {
                found.pop();
                return Ok(found);
            }
        }
        at = until;
    }
    Ok(found)
}

/// A length inside of one buffer.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

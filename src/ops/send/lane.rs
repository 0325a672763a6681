//! One disk on its way: which pieces of it are looked at, what of them is sent, and how it goes out.
//!
//! ```text
//! pieces (up to 1 MiB) -> read, compared, packed by several threads -> frames in order -> bodies -> the line (rate limit)
//! ```

use super::line::Line;
use super::{Fault, senseless};
use crate::name::Name;
use crate::receive::content::{BLOCK, Changed, Effort, each_extent};
use crate::receive::digest::Verdict;
use crate::receive::send::frame::{BODY_AT_MOST, Body, Ready};
use crate::receive::send::tree::{self, CHUNKS, Digest};
use crate::receive::send::{ASKED_AT_MOST, CHUNK, NODE, Question, Unit};
use crate::report::sending::Way;
use landfall_image::convert::{Progress, RateLimit};
use landfall_image::disk::clip;
use landfall_image::{Bytes, Disk, Error, ExtentKind, GuestOffset, GuestRange, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Pieces that are worked on at once: their content and frames are in memory.
const GROUP: usize = 16;
/// Nodes of one question.
const NODES: u64 = 8;
/// Bodies are as long as takes about this on the line.
const BODY_TAKES: Duration = Duration::from_secs(2);
/// At first, and at least.
const BODY: usize = 4 << 20;
const BODY_AT_LEAST: usize = 256 << 10;

/// How a disk is sent.
pub(super) enum How {
    /// What differs between two points that are here.
    Differences {
        /// As the receiver has it.
        old: Arc<dyn Disk>,
        /// Where the two may differ.
        changed: Changed,
    },
    /// What differs by the digests of what the receiver holds.
    Digests {
        /// Only there; without, anywhere.
        within: Option<Changed>,
    },
    /// All that it has: the receiver's holds nothing.
    Whole,
}

/// What was done with a disk, in bytes.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub size: Bytes,
    pub way: Way,
    pub why: Option<String>,
    /// Read here, and compared.
    pub looked_at: u64,
    /// Differed, and was sent.
    pub content: u64,
    /// Read back by the receiver, and right.
    pub checked: u64,
}

/// How a disk has come to its end.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Bytes that the receiver was to read back.
    pub checked: u64,
    /// What it found otherwise, or could not read.
    pub wrong: Option<(Verdict, String)>,
}

/// See the module.
pub(super) struct Lane<'l> {
    pub line: &'l Line<'l>,
    pub machine: &'l Name,
    pub name: &'l Name,
    pub session: Uuid,
    pub new: &'l dyn Disk,
    pub how: &'l How,
    pub limit: Option<&'l RateLimit>,
    pub effort: &'l Effort,
    pub progress: &'l Progress,
}

/// A body that is ready to go.
struct Load {
    body: Vec<u8>,
    content: u64,
    checks: u64,
}

/// Puts frames into bodies.
struct Packer<'p> {
    body: Body,
    content: u64,
    out: SyncSender<Load>,
    at_most: &'p AtomicUsize,
    looked_at: &'p Mutex<u64>,
}

impl Packer<'_> {
    fn put(&mut self, frames: &[Ready]) -> Result<(), Fault> {
        for frame in frames {
            if !self.body.has_room(frame, self.at_most.load(Ordering::Relaxed)) {
                self.ship()?;
            }
            self.body.put(frame);
            self.content += frame.brings();
        }
        Ok(())
    }

    fn ship(&mut self) -> Result<(), Fault> {
        let body = std::mem::take(&mut self.body);
        if body.is_empty() {
            return Ok(());
        }
        let load =
            Load { checks: body.checked(), content: std::mem::take(&mut self.content), body: body.finish() };
        // Whoever takes them out has ended: it says why itself.
        self.out.send(load).map_err(|_| Fault::Told(Error::interrupted()))
    }
}

impl Lane<'_> {
    /// Sends the disk.
    pub fn run(&self, counts: &mut Counts, wire: &mut u64) -> Result<Done, Fault> {
        let (out, loads) = sync_channel(1);
        let at_most = AtomicUsize::new(self.limit.map_or(BODY, |limit| {
            usize::try_from(limit.per_second().0).unwrap_or(BODY).clamp(BODY_AT_LEAST, BODY)
        }));
        let looked_at = Mutex::new(0);
        let done = std::thread::scope(|scope| {
            let making = scope.spawn(|| {
                let mut packer = Packer {
                    body: Body::default(),
                    content: 0,
                    out,
                    at_most: &at_most,
                    looked_at: &looked_at,
                };
                self.produce(&mut packer).and_then(|()| packer.ship())
            });
            let shipped = self.consume(loads, &at_most, counts, wire);
            let made = making
                .join()
                .unwrap_or_else(|_| Err(Fault::Told(Error::corrupt("a thread that read has ended"))));
            match shipped {
                // What it stopped for.
                Ok(done) if done.wrong.is_some() => Ok(done),
                Ok(done) => made.map(|()| done),
                Err(fault) => Err(fault),
            }
        });
        counts.looked_at += looked_at.into_inner().unwrap_or_else(PoisonError::into_inner);
        done
    }

    fn consume(
        &self,
        loads: Receiver<Load>,
        at_most: &AtomicUsize,
        counts: &mut Counts,
        wire: &mut u64,
    ) -> Result<Done, Fault> {
        let mut done = Done::default();
        for load in loads {
            if let Some(limit) = self.limit {
                limit.pause(Bytes(load.body.len() as u64), &self.effort.cancel)?;
            }
            let began = Instant::now();
            let taken = self.line.say(|to| to.take(self.machine, self.name, self.session, &load.body))?;
            self.pace(at_most, began.elapsed());
            *wire += load.body.len() as u64;
            counts.content += load.content;
            counts.checked += taken.checked;
            done.checked += load.checks;
            if let Some(offset) = taken.differs {
                done.wrong = Some((
                    Verdict::Differed,
                    format!("what the receiver reads back at {offset} is not what was sent"),
                ));
            } else if let Some(why) = taken.unread {
                done.wrong = Some((
                    Verdict::CouldNotRun,
                    format!("the receiver cannot read back what was sent: {why}"),
                ));
            } else if taken.checked < load.checks {
                return Err(senseless("it has read back less than was asked"));
            }
            if done.wrong.is_some() {
                break;
            }
        }
        Ok(done)
    }

    /// Longer bodies where the line is fast, shorter ones where it is slow: each is said again as a whole.
    fn pace(&self, at_most: &AtomicUsize, took: Duration) {
        let most = self.limit.map_or(BODY_AT_MOST, |limit| {
            usize::try_from(limit.per_second().0).unwrap_or(BODY_AT_MOST).clamp(BODY_AT_LEAST, BODY_AT_MOST)
        });
        let now = at_most.load(Ordering::Relaxed);
        let next = match took {
            took if took < BODY_TAKES / 2 => now * 2,
            took if took > BODY_TAKES * 2 => now / 2,
            _ => now,
        };
        at_most.store(next.clamp(BODY_AT_LEAST, most), Ordering::Relaxed);
    }

    fn produce(&self, packer: &mut Packer<'_>) -> Result<(), Fault> {
        let size = self.new.size();
        match self.how {
            How::Differences { old, changed } => {
                let total = changed.ranges().map(|range| range.end - range.start).sum();
                self.progress.start(Bytes(total));
                self.all(changed.ranges().flat_map(pieces), Some(&**old), packer)
            }
            How::Whole => {
                self.progress.start(size);
                let mut at = GuestOffset(0);
                while at.0 < size.0 {
                    // A node at a time, so that the map of a large disk is never there as a whole.
                    let node = clip(GuestRange::new(at, Bytes(NODE)), size);
                    let mut data: Vec<Range<u64>> = Vec::new();
                    each_extent(self.new, node, |extent| {
                        if extent.kind == ExtentKind::Data {
                            data.push(extent.range.start().0..extent.range.end().0);
                        }
                        Ok(())
                    })?;
                    let there: u64 = data.iter().map(|range| range.end - range.start).sum();
                    self.progress.advance(Bytes(node.len().0 - there));
                    self.all(data.into_iter().flat_map(pieces), None, packer)?;
                    at = node.end();
                }
                Ok(())
            }
            How::Digests { within: None } => {
                self.progress.start(size);
                let nodes = size.0.div_ceil(NODE);
                let mut first = 0;
                while first < nodes {
                    let numbers: Vec<u64> = (first..nodes.min(first + NODES)).collect();
                    first += self.compare_nodes(&numbers, packer)?;
                }
                Ok(())
            }
            How::Digests { within: Some(changed) } => {
                let total = changed.ranges().map(|range| range.end - range.start).sum();
                self.progress.start(Bytes(total));
                // By chunk, each once.
                let mut last = None;
                let mut chunks = changed
                    .ranges()
                    .flat_map(|range| range.start / CHUNK as u64..range.end.div_ceil(CHUNK as u64))
                    .filter(move |number| last.replace(*number) != Some(*number));
                loop {
                    let numbers: Vec<u64> = chunks.by_ref().take(ASKED_AT_MOST / 4).collect();
                    if numbers.is_empty() {
                        return Ok(());
                    }
                    let own = self.effort.mapped(&numbers, |number| tree::chunk(self.new, *number))?;
                    let theirs = self.ask(Unit::Chunks, &numbers)?;
                    let differ: Vec<u64> = differing(&numbers, &own, &theirs).collect();
                    self.look(numbers.len() as u64 * CHUNK as u64, packer);
                    let runs = parts(changed, &differ);
                    let same = numbers.len() - differ.len();
                    self.progress.advance(Bytes((same * CHUNK) as u64));
                    self.all(runs.into_iter(), None, packer)?;
                }
            }
        }
    }

    /// Compares nodes, and sends what differs in those that do; gives how many were compared.
    fn compare_nodes(&self, numbers: &[u64], packer: &mut Packer<'_>) -> Result<u64, Fault> {
        // Both sides read at the same time.
        let (own, theirs) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| self.ask_once(Unit::Nodes, numbers));
            let own: Result<Vec<Vec<Digest>>> =
                numbers.iter().map(|node| tree::chunks(self.new, *node, self.effort)).collect();
            let theirs = asking.join().unwrap_or_else(|_| Err(senseless("a thread has ended")));
            (own, theirs)
        });
        let (own, theirs) = (own?, theirs?);
        for ((node, own), theirs) in numbers.iter().zip(&own).zip(&theirs) {
            let run = tree::node_run(*node, self.new.size());
            self.look(run.len().0, packer);
            if tree::node(own) == *theirs {
                self.progress.advance(run.len());
                continue;
            }
            let chunks: Vec<u64> = (0..own.len() as u64).map(|at| node * CHUNKS + at).collect();
            let theirs = self.ask(Unit::Chunks, &chunks)?;
            let differ: Vec<Range<u64>> = differing(&chunks, own, &theirs)
                .map(|number| tree::chunk_run(number, self.new.size()))
                .map(|run| run.start().0..run.end().0)
                .collect();
            let bytes: u64 = differ.iter().map(|range| range.end - range.start).sum();
            self.progress.advance(Bytes(run.len().0 - bytes));
            self.all(differ.into_iter(), None, packer)?;
        }
        Ok(theirs.len() as u64)
    }

    fn look(&self, bytes: u64, packer: &Packer<'_>) {
        *packer.looked_at.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
    }

    /// Digests of the first of these, as many as the receiver had at once: at least one.
    fn ask_once(&self, of: Unit, numbers: &[u64]) -> Result<Vec<Digest>, Fault> {
        let question = Question { session: self.session, of, numbers: numbers.to_vec() };
        let answer = self.line.say(|to| to.digests(self.machine, self.name, &question))?;
        let (digests, rest) = answer.as_chunks::<32>();
        match digests.is_empty() || !rest.is_empty() || digests.len() > numbers.len() {
            true => Err(senseless("digests of another number were wanted")),
            false => Ok(digests.to_vec()),
        }
    }

    /// Digests of all of these.
    fn ask(&self, of: Unit, numbers: &[u64]) -> Result<Vec<Digest>, Fault> {
        let mut all: Vec<Digest> = Vec::with_capacity(numbers.len());
        while all.len() < numbers.len() {
            let next =
                self.ask_once(of, &numbers[all.len()..numbers.len().min(all.len() + ASKED_AT_MOST)])?;
            all.extend(next);
        }
        Ok(all)
    }

    /// Reads pieces, and puts what is to be sent of them into bodies, in their order.
    fn all(
        &self,
        mut pieces: impl Iterator<Item = Range<u64>>,
        old: Option<&dyn Disk>,
        packer: &mut Packer<'_>,
    ) -> Result<(), Fault> {
        loop {
            let group: Vec<Range<u64>> = pieces.by_ref().take(GROUP).collect();
            if group.is_empty() {
                return Ok(());
            }
            let made = self.effort.mapped(&group, |piece| self.frames(piece, old))?;
            for (piece, frames) in group.iter().zip(&made) {
                self.progress.advance(Bytes(piece.end - piece.start));
                if old.is_some() || matches!(self.how, How::Whole) {
                    self.look(piece.end - piece.start, packer);
                }
                packer.put(frames)?;
            }
        }
    }

    /// The frames of a piece: what differs from `old`, or all of it; and that it is to be read back.
    fn frames(&self, piece: &Range<u64>, old: Option<&dyn Disk>) -> Result<Vec<Ready>> {
        let Some(old) = old else { return content_frames(self.new, piece) };
        let (at, new) = read(self.new, piece)?;
        // What lies behind the older one's end was zeros to whoever has it.
        let mut was = vec![0; new.len()];
        let there =
            clip(GuestRange::new(at, Bytes(new.len() as u64)), old.size()).len().to_usize().unwrap_or(0);
        if there > 0 {
            old.read_at(at, &mut was[..there])?;
        }
        let run = |run: Range<usize>| Ready::content(GuestOffset(piece.start + run.start as u64), &new[run]);
        let mut frames: Vec<Ready> = runs(&new, &was).into_iter().map(run).collect();
        frames.push(Ready::check(at, &new));
        Ok(frames)
    }
}

fn read(disk: &dyn Disk, piece: &Range<u64>) -> Result<(GuestOffset, Vec<u8>)> {
    let at = GuestOffset(piece.start);
    let mut content = vec![0; usize::try_from(piece.end - piece.start).unwrap_or(CHUNK)];
    disk.read_at(at, &mut content)?;
    Ok((at, content))
}

/// All of a piece, and that it is to be read back.
pub(super) fn content_frames(disk: &dyn Disk, piece: &Range<u64>) -> Result<Vec<Ready>> {
    let (at, content) = read(disk, piece)?;
    Ok(vec![Ready::content(at, &content), Ready::check(at, &content)])
}

/// Runs of blocks that differ.
fn runs(new: &[u8], old: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (number, (is, was)) in new.chunks(BLOCK).zip(old.chunks(BLOCK)).enumerate() {
        if is == was {
            continue;
        }
        let here = number * BLOCK..number * BLOCK + is.len();
        match found.last_mut().filter(|last| last.end == here.start) {
            Some(last) => last.end = here.end,
            None => found.push(here),
        }
    }
    found
}

/// A run in pieces of up to a chunk, on multiples of it.
pub(super) fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let next = |at: u64| (at / CHUNK as u64 + 1) * CHUNK as u64;
    std::iter::successors(Some(range.start), move |at| Some(next(*at)))
        .take_while(move |at| *at < range.end)
        .map(move |at| at..next(at).min(range.end))
}

/// The changed parts of these chunks.
fn parts(changed: &Changed, chunks: &[u64]) -> Vec<Range<u64>> {
    let mut wanted = chunks.iter().copied().peekable();
    let mut found = Vec::new();
    for piece in changed.ranges().flat_map(pieces) {
        let number = piece.start / CHUNK as u64;
        while wanted.next_if(|chunk| *chunk < number).is_some() {}
        match wanted.peek() {
            Some(chunk) if *chunk == number => found.push(piece),
            Some(_) => {}
            None => break,
        }
    }
    found
}

fn differing<'d>(
    numbers: &'d [u64],
    own: &'d [Digest],
    theirs: &'d [Digest],
) -> impl Iterator<Item = u64> + 'd {
    numbers
        .iter()
        .zip(own.iter().zip(theirs))
        .filter(|(_, (own, theirs))| own != theirs)
        .map(|(number, _)| *number)
}

impl Effort {
    /// Does something with each of them, by several threads, and gives what came of it in their order.
    pub(super) fn mapped<I: Sync, T: Send>(
        &self,
        items: &[I],
        work: impl Fn(&I) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let found: Mutex<Vec<Option<T>>> = Mutex::new(items.iter().map(|_| None).collect());
        let run = || -> Result<()> {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return Ok(()) };
                if self.cancel.is_cancelled() {
                    return Err(Error::interrupted());
                }
                let done = work(item)?;
                found.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(done);
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.jobs.max(1).min(items.len())).map(|_| scope.spawn(run)).collect();
            let mut outcome = run();
            for other in others {
                outcome = outcome.and(
                    other.join().unwrap_or_else(|_| Err(Error::corrupt("a thread that read has ended"))),
                );
            }
            outcome
        })?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.into_iter().map(|done| done.ok_or_else(|| Error::corrupt("a piece was left out"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_on_chunks_and_runs_on_blocks() {
        let mib = 1 << 20;
        let found: Vec<Range<u64>> = pieces(mib / 2..3 * mib + 512).collect();
        assert_eq!(found, [mib / 2..mib, mib..2 * mib, 2 * mib..3 * mib, 3 * mib..3 * mib + 512]);
        assert_eq!(pieces(7..7).count(), 0);
        let old = vec![0; 5 * BLOCK + 100];
        let mut new = old.clone();
        for at in [0, BLOCK, 3 * BLOCK + 1, 5 * BLOCK + 99] {
            new[at] = 1;
        }
        assert_eq!(runs(&new, &old), [0..2 * BLOCK, 3 * BLOCK..4 * BLOCK, 5 * BLOCK..5 * BLOCK + 100]);
        let mut changed = Changed::nothing(8 * mib);
        changed.add(0..10);
        changed.add(mib - 1..mib + 1);
        changed.add(5 * mib..6 * mib);
        let unit = 64 << 10;
        assert_eq!(parts(&changed, &[1, 3, 5]), [mib..mib + unit, 5 * mib..6 * mib]);
        assert_eq!(parts(&changed, &[]), []);
        let numbers = [3, 4, 5];
        assert_eq!(differing(&numbers, &[[1; 32]; 3], &[[1; 32], [2; 32], [1; 32]]).collect::<Vec<_>>(), [4]);
    }
}

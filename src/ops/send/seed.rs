//! A seed: a machine's point in a folder, for a disk that is carried to the other side. What changes after it goes over the line.
//!
//! ```text
//! DIR/web01-1234.seed/
//!     source.json          which point it is of: written first
//!     disk0-00000.part …   one for each GiB of a disk that holds something
//!                          u32 length, body of frames | … | BLAKE3 of all before (32 bytes)
//!     seed.json            the manifest: disks, definition, variables; length and digest of each part
//!     seed.b3              BLAKE3 of seed.json, in hexadecimal digits: the seal, written when all else is on the medium
//! ```
//! No file is longer than a GiB and a little, and no name needs more than FAT32 has. What holds nothing is told by a frame of zeros, or
//! by a part that is not there. One that was cut off is gone on with: parts that are whole stay.
//!
//! Absent: what lies between two points (that is sent over the line), and encryption: whoever has the disk has the machine.

use super::lane::{content_frames, pieces};
use super::{Fault, Line, Replica};
use crate::event::{Event, Observer};
use crate::machine::Machine as Definition;
use crate::name::Name;
use crate::ops::source::point::{PointName, PointSource, Points};
use crate::receive::content::{Effort, each_extent};
use crate::receive::digest::Verdict;
use crate::receive::send::frame::{self, BODY_AT_MOST, Body, Frame, Ready};
use crate::receive::send::{Begin, Commit, NODE, Sent, SentDisk};
use crate::report::VERSION;
use crate::report::sending::{Seeded, Sending, SentDisk as Disk, Way};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::convert::Progress;
use landfall_image::disk::clip;
use landfall_image::{Bytes, Disk as _, Error, ExtentKind, FileOffset, GuestOffset, GuestRange, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format that is written and read.
const FORMAT: u32 = 1;
/// Bytes of a manifest: a definition of 16 MiB at most, and 100 bytes for each GiB.
const MANIFEST_AT_MOST: u64 = 256 << 20;
/// Bytes of a body in a part.
const BODY: usize = 4 << 20;
/// Pieces that are worked on at once.
const GROUP: usize = 16;
/// A receiver on the same machine answers, or does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// The manifest.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    landfall_seed: u32,
    source: Sent,
    disks: Vec<SeedDisk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition: Option<Definition>,
    /// In Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variables: Option<String>,
}

/// A disk in it.
#[derive(Debug, Serialize, Deserialize)]
struct SeedDisk {
    #[serde(flatten)]
    disk: SentDisk,
    /// By the number of their GiB.
    parts: BTreeMap<u64, Part>,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    bytes: u64,
    blake3: String,
}

fn part_name(disk: usize, node: u64) -> String {
    format!("disk{disk}-{node:05}.part")
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::io(doing, error).in_file(path)
}

/// Writes a file so that it is there as a whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&new, path)).map_err(failed("cannot be written", path))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| Error::refused(format!("cannot be written down: {error}")))
}

/// Writes the seed of a point into a folder of its own in `dir`.
///
/// # Errors
/// Refused where there is no such point, or the folder's name is taken by something else; as the medium's.
pub fn write(
    effort: &Effort,
    observer: &dyn Observer,
    points: &dyn Points,
    point: &PointName,
    dir: &Path,
) -> Result<Seeded> {
    let source = points.open(&point.machine, &point.at)?;
    let sent = source.sent();
    let folder = dir.join(format!("{}-{}.seed", sent.machine, sent.number));
    let mut seeded = Seeded {
        version: VERSION,
        folder: folder.display().to_string(),
        source: sent.clone(),
        disks: Vec::new(),
        files: 0,
        bytes: Bytes(0),
        kept: 0,
    };
    if let Some(there) = read_source(&folder)? {
        if !there.is(&sent) {
            return Err(Error::refused(format!("the folder is the seed of {there}"))
                .in_file(&folder)
                .hint("remove it, or name another folder"));
        }
    } else {
        std::fs::create_dir_all(&folder).map_err(failed("cannot be made", &folder))?;
        put(&folder.join("source.json"), &json(&sent)?)?;
    }
    let mut manifest = Manifest {
        landfall_seed: FORMAT,
        disks: Vec::new(),
        definition: source.machine.clone(),
        variables: source.kept_variables.as_ref().map(|kept| STANDARD.encode(kept)),
        source: sent,
    };
    for (number, disk) in source.disks.iter().enumerate() {
        let size = disk.image.disk.size();
        let progress = Progress::default();
        progress.start(size);
        observer.event(Event::CopyStarted { disk: disk.name.clone(), progress: progress.clone() });
        let writer = PartWriter { effort, disk: &*disk.image.disk, progress: &progress };
        let parts = writer.all(&folder, number, &mut seeded);
        observer.event(Event::CopyFinished);
        let sent = SentDisk { name: disk.name.parse()?, size: size.0, sector: disk.sector };
        seeded.disks.push(sent.name.clone());
        manifest.disks.push(SeedDisk { disk: sent, parts: parts? });
    }
    let text = json(&manifest)?;
    put(&folder.join("seed.json"), &text)?;
    let seal = format!("{}  seed.json\n", blake3::hash(&text).to_hex());
    put(&folder.join("seed.b3"), seal.as_bytes())?;
    File::open(&folder)
        .and_then(|file| file.sync_all())
        .map_err(failed("cannot be brought to the medium", &folder))?;
    Ok(seeded)
}

/// What the folder is the seed of; `None` where nothing is there.
fn read_source(folder: &Path) -> Result<Option<Sent>> {
    let path = folder.join("source.json");
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("cannot be listed", folder)(error)),
        Ok(true) => return Ok(None),
        Ok(false) => {}
    }
    let text = limited(&path, 1 << 20)?;
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| {
        Error::corrupt(format!("does not say what it is the seed of: {error}")).in_file(&path)
    })
}

fn limited(path: &Path, at_most: u64) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(at_most + 1).read_to_end(&mut text));
    read.map_err(failed("cannot be read", path))?;
    match text.len() as u64 > at_most {
        true => Err(Error::refused(format!("has more than {at_most} bytes")).in_file(path)),
        false => Ok(text),
    }
}

struct PartWriter<'w> {
    effort: &'w Effort,
    disk: &'w dyn landfall_image::Disk,
    progress: &'w Progress,
}

impl PartWriter<'_> {
    fn all(&self, folder: &Path, number: usize, seeded: &mut Seeded) -> Result<BTreeMap<u64, Part>> {
        let size = self.disk.size();
        let mut parts = BTreeMap::new();
        for node in 0..size.0.div_ceil(NODE) {
            let run = clip(GuestRange::new(GuestOffset(node * NODE), Bytes(NODE)), size);
            let path = folder.join(part_name(number, node));
            let part = match whole(&path)? {
                Some(part) => {
                    seeded.kept += 1;
                    Some(part)
                }
                None => self.part(run, &path)?,
            };
            if let Some(part) = part {
                seeded.files += 1;
                seeded.bytes.0 += part.bytes;
                parts.insert(node, part);
            }
            self.progress.advance(run.len());
        }
        Ok(parts)
    }

    /// Writes a part; `None` where the run holds nothing.
    fn part(&self, run: GuestRange, path: &Path) -> Result<Option<Part>> {
        let mut extents: Vec<(bool, Range<u64>)> = Vec::new();
        each_extent(self.disk, run, |extent| {
            let (is_data, range) =
                (extent.kind == ExtentKind::Data, extent.range.start().0..extent.range.end().0);
            match extents.last_mut().filter(|last| last.0 == is_data) {
                Some(last) => last.1.end = range.end,
                None => extents.push((is_data, range)),
            }
            Ok(())
        })?;
        if extents.iter().all(|(is_data, _)| !is_data) {
            return Ok(None);
        }
        let new = path.with_extension("new");
        let file = File::create(&new).map_err(failed("cannot be made", &new))?;
        let mut out = Out {
            file: BufWriter::new(file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
            body: Body::default(),
        };
        for (is_data, range) in extents {
            let written = match is_data {
                false => {
                    let zeros = GuestRange::between(GuestOffset(range.start), GuestOffset(range.end));
                    out.put(&[Ready::zeros(zeros)])
                }
                true => self.data(range, &mut out),
            };
            written.map_err(|error| error.in_file(&new))?;
        }
        let part = out.finish().map_err(failed("cannot be written", &new))?;
        std::fs::rename(&new, path).map_err(failed("cannot be given its name", path))?;
        Ok(Some(part))
    }

    fn data(&self, range: Range<u64>, out: &mut Out) -> Result<()> {
        let mut pieces = pieces(range);
        loop {
            let group: Vec<Range<u64>> = pieces.by_ref().take(GROUP).collect();
            if group.is_empty() {
                return Ok(());
            }
            for frames in self.effort.mapped(&group, |piece| content_frames(self.disk, piece))? {
                out.put(&frames)?;
            }
        }
    }
}

/// A part that is being written.
struct Out {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
    body: Body,
}

impl Out {
    fn put(&mut self, frames: &[Ready]) -> Result<()> {
        for frame in frames {
            if !self.body.has_room(frame, BODY) {
                self.ship().map_err(|error| Error::io("cannot be written", error))?;
            }
            self.body.put(frame);
        }
        Ok(())
    }

    fn ship(&mut self) -> std::io::Result<()> {
        let body = std::mem::take(&mut self.body);
        if body.is_empty() {
            return Ok(());
        }
        let body = body.finish();
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        for bytes in [&len[..], &body] {
            self.hasher.update(bytes);
            self.file.write_all(bytes)?;
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<Part> {
        self.ship()?;
        let digest = self.hasher.finalize();
        self.file.write_all(digest.as_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(Part { bytes: self.bytes + 32, blake3: digest.to_hex().to_string() })
    }
}

/// A part that was written before, as its end tells it. It got its name when all of it was on the medium; whoever takes it reads all of it.
fn whole(path: &Path) -> Result<Option<Part>> {
    use std::os::unix::fs::FileExt;
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed("cannot be opened", path))?,
    };
    let bytes = file.metadata().map_err(failed("cannot be looked at", path))?.len();
    let mut end = [0; 32];
    let Some(at) = bytes.checked_sub(32) else { return Ok(None) };
    file.read_exact_at(&mut end, at).map_err(failed("cannot be read", path))?;
    Ok(Some(Part { bytes, blake3: blake3::Hash::from_bytes(end).to_hex().to_string() }))
}

/// The seed in a folder: the folder itself, or the only one in it.
fn find(dir: &Path) -> Result<PathBuf> {
    if dir.join("source.json").exists() {
        return Ok(dir.to_owned());
    }
    let entries = std::fs::read_dir(dir).map_err(failed("cannot be listed", dir))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("source.json").exists())
        .collect();
    found.sort();
    match found.as_slice() {
        [seed] => Ok(seed.clone()),
        [] => Err(Error::refused("holds no seed")
            .in_file(dir)
            .hint("landfall send MACHINE --to FOLDER makes one")),
        all => {
            let names: Vec<String> = all.iter().map(|path| path.display().to_string()).collect();
            Err(Error::refused(format!("holds {} seeds", all.len()))
                .in_file(dir)
                .hint(format!("name one of them: {}", names.join(", "))))
        }
    }
}

fn manifest(folder: &Path) -> Result<Manifest> {
    let (path, seal) = (folder.join("seed.json"), folder.join("seed.b3"));
    if !seal.exists() {
        return Err(Error::refused("is not sealed: it was not written to its end")
            .in_file(folder)
            .hint("run landfall send again where it was made: it goes on"));
    }
    let text = limited(&path, MANIFEST_AT_MOST)?;
    let sum = limited(&seal, 4096)?;
    let found = blake3::hash(&text).to_hex();
    if sum.split(u8::is_ascii_whitespace).next() != Some(found.as_bytes()) {
        return Err(damaged(format!("does not have the digest of its seal: it has {found}"), &path, 0));
    }
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| Error::corrupt(format!("cannot be read: {error}")).in_file(&path))?;
    match manifest.landfall_seed {
        FORMAT => Ok(manifest),
        other => Err(Error::unsupported(format!("a seed of format {other}; this program knows {FORMAT}"))
            .in_file(&path)
            .hint("use the version of landfall that wrote it, or a later one")),
    }
}

fn damaged(says: String, path: &Path, at: u64) -> Error {
    Error::corrupt(says)
        .in_file(path)
        .at(FileOffset(at))
        .hint("nothing of the seed is offered; copy it again, or make it anew: parts that are whole stay")
}

/// Puts the seed in a folder into a receiver: then it is as if it had been sent.
///
/// # Errors
/// Corrupt, with the file and the offset, where the seed is damaged: what was there before is there again, then. Refused as a send.
pub fn take(
    effort: &Effort,
    observer: &dyn Observer,
    dir: &Path,
    name: Option<&Name>,
    replace: bool,
    to: &dyn Replica,
) -> Result<Sending> {
    let folder = find(dir)?;
    let manifest = manifest(&folder)?;
    let name = name.unwrap_or(&manifest.source.machine);
    let line = Line::new(to, &effort.cancel, PATIENCE);
    let taking = Taking { effort, observer, folder: &folder, manifest: &manifest, name, line: &line };
    let held = to.held(name).map_err(Fault::into_error)?;
    let mut done = taking.report();
    if held.unfinished.is_none() && held.holds.as_ref().is_some_and(|holds| holds.is(&manifest.source)) {
        (done.point, done.says) = (held.point, format!("{name} holds {} already", manifest.source));
        return Ok(done);
    }
    let disks = manifest.disks.iter().map(|disk| disk.disk.clone()).collect();
    let begin = Begin { target: manifest.source.clone(), disks, replace };
    let begun = line.say(|to| to.begin(name, &begin)).map_err(Fault::into_error)?;
    match taking.all(begun.session, &mut done) {
        Ok(()) => Ok(done),
        Err(error) if error.kind() == landfall_image::Kind::Corrupt => {
            // Half of it is of no use to anybody.
            match line.say(|to| to.give_up(name)) {
                Ok(()) => Err(error),
                Err(fault) => Err(error.hint(format!("and it cannot be given up: {}", fault.into_error()))),
            }
        }
        Err(error) => Err(error),
    }
}

struct Taking<'t> {
    effort: &'t Effort,
    observer: &'t dyn Observer,
    folder: &'t Path,
    manifest: &'t Manifest,
    name: &'t Name,
    line: &'t Line<'t>,
}

impl Taking<'_> {
    fn report(&self) -> Sending {
        Sending {
            version: VERSION,
            machine: self.name.clone(),
            to: self.line.to.place().to_owned(),
            source: self.manifest.source.clone(),
            base: None,
            verdict: Verdict::Matched,
            says: String::new(),
            point: None,
            disks: Vec::new(),
            line: Bytes(0),
            tries: 0,
        }
    }

    fn all(&self, session: uuid::Uuid, done: &mut Sending) -> Result<()> {
        let mut commit = Commit {
            session,
            checked: BTreeMap::new(),
            definition: self.manifest.definition.clone(),
            variables: self.manifest.variables.clone(),
        };
        for (number, disk) in self.manifest.disks.iter().enumerate() {
            let SentDisk { name, size, .. } = &disk.disk;
            let progress = Progress::default();
            progress.start(Bytes(*size));
            self.observer.event(Event::CopyStarted { disk: name.to_string(), progress: progress.clone() });
            let taken = self.disk(number, disk, session, &progress);
            self.observer.event(Event::CopyFinished);
            let (told, wire) = taken?;
            commit.checked.insert(name.clone(), told.checked.0);
            done.line.0 += wire;
            done.disks.push(told);
        }
        let committed = self.line.say(|to| to.commit(self.name, &commit)).map_err(Fault::into_error)?;
        done.point = Some(committed.point);
        done.verdict = committed.verdict;
        done.tries = self.line.tries();
        done.says = format!("what {} holds was read back, and is {}", self.name, self.manifest.source);
        Ok(())
    }

    /// What was done with a disk, and the bytes of the bodies.
    fn disk(
        &self,
        number: usize,
        disk: &SeedDisk,
        session: uuid::Uuid,
        progress: &Progress,
    ) -> Result<(Disk, u64)> {
        let SentDisk { name, size, sector } = &disk.disk;
        let size = Bytes(*size);
        let (mut told, mut wire) = (
            Disk {
                name: name.clone(),
                size,
                way: Way::Whole,
                why: Some("it is a seed".to_owned()),
                looked_at: Bytes(0),
                content: Bytes(0),
                checked: Bytes(0),
            },
            0,
        );
        let mut ship = |body: &[u8]| -> Result<()> {
            let taken =
                self.line.say(|to| to.take(self.name, name, session, body)).map_err(Fault::into_error)?;
            wire += body.len() as u64;
            told.checked.0 += taken.checked;
            match (taken.differs, taken.unread) {
                (Some(at), _) => Err(Error::corrupt(format!(
                    "what was read back of {name} at {at} is not what was written"
                ))
                .hint("look at the medium of the vault")),
                (None, Some(why)) => {
                    Err(Error::io("what was written cannot be read back", std::io::Error::other(why)))
                }
                (None, None) => Ok(()),
            }
        };
        let mut content = 0;
        let mut bytes = 0;
        for node in 0..size.0.div_ceil(NODE) {
            let run = clip(GuestRange::new(GuestOffset(node * NODE), Bytes(NODE)), size);
            match disk.parts.get(&node) {
                None => {
                    let mut body = Body::default();
                    body.put(&Ready::zeros(run));
                    ship(&body.finish())?;
                }
                Some(part) => {
                    let path = self.folder.join(part_name(number, node));
                    bytes += part.bytes;
                    let mut reader = PartReader::open(&path, part)?;
                    while let Some((at, body)) = reader.next()? {
                        if self.effort.cancel.is_cancelled() {
                            return Err(Error::interrupted());
                        }
                        content += checked(&body, size, u64::from(*sector), run).map_err(|error| {
                            let within = error.offset().map_or(0, |offset| offset.0);
                            damaged(error.says().to_owned(), &path, at + within)
                        })?;
                        ship(&body)?;
                    }
                }
            }
            progress.advance(run.len());
        }

        (told.content, told.looked_at) = (Bytes(content), Bytes(bytes));
        Ok((told, wire))
    }
}

/// Looks through a body before anybody gets it; gives the bytes of content that it brings. All of it lies in `within`.
fn checked(body: &[u8], size: Bytes, sector: u64, within: GuestRange) -> Result<u64> {
    let (mut room, mut content) = (Vec::new(), 0);
    for frame in frame::parse(body, size, sector)? {
        let (Frame::Data { range, .. } | Frame::Zeros { range } | Frame::Check { range, .. }) = frame;
        if range.start() < within.start() || range.end() > within.end() {
            return Err(Error::corrupt(format!(
                "a frame is about {} at {}, which is another part's",
                range.len(),
                range.start().0
            )));
        }
        if let Frame::Data { .. } = frame {
            frame::unpacked(&frame, &mut room)?;
            content += range.len().0;
        }
    }
    Ok(content)
}

/// The bodies of a part, with their offsets; at the end its digest is compared.
struct PartReader<'p> {
    file: BufReader<File>,
    path: &'p Path,
    part: &'p Part,
    hasher: blake3::Hasher,
    at: u64,
}

impl<'p> PartReader<'p> {
    fn open(path: &'p Path, part: &'p Part) -> Result<PartReader<'p>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("is not there, and the manifest names it".to_owned(), path, 0));
            }
            file => file.map_err(failed("cannot be opened", path))?,
        };
        let bytes = file.metadata().map_err(failed("cannot be looked at", path))?.len();
        if bytes != part.bytes || bytes < 32 {
            return Err(damaged(
                format!("has {bytes} bytes; the manifest says {}", part.bytes),
                path,
                bytes.min(part.bytes),
            ));
        }
        Ok(PartReader { file: BufReader::new(file), path, part, hasher: blake3::Hasher::new(), at: 0 })
    }

    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        let end = self.part.bytes - 32;
        if self.at == end {
            let mut told = [0; 32];
            self.file.read_exact(&mut told).map_err(failed("cannot be read", self.path))?;
            let found = self.hasher.finalize();
            let is_it = found.as_bytes() == &told && found.to_hex().as_str() == self.part.blake3;
            return match is_it {
                true => Ok(None),
                false => Err(damaged(
                    format!("does not have its digest: it has {}", found.to_hex()),
                    self.path,
                    end,
                )),
            };
        }
        let mut len = [0; 4];
        let at = self.at + 4;
        if at <= end {
            self.file.read_exact(&mut len).map_err(failed("cannot be read", self.path))?;
        }
        let bytes = u32::from_le_bytes(len) as usize;
        if bytes == 0 || bytes > BODY_AT_MOST || at + bytes as u64 > end {
            return Err(damaged(format!("tells of a body of {bytes} bytes"), self.path, self.at));
        }
        let mut body = vec![0; bytes];
        self.file.read_exact(&mut body).map_err(failed("cannot be read", self.path))?;
        self.hasher.update(&len);
        self.hasher.update(&body);
        self.at = at + bytes as u64;
        Ok(Some((at, body)))
    }
}

impl PointSource {
    /// It as the receiver of a send knows it.
    pub fn sent(&self) -> Sent {
        Sent {
            id: self.id,
            machine: self.name.clone(),
            number: self.number,
            at: self.at,
            consistency: self.consistency,
            tag: self.tag.clone(),
        }
    }
}

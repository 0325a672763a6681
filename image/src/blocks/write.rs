//! Writing images that store a disk in blocks: the walk over the disk, tables written on the way, and identities.

use crate::create::Base;
use crate::error::{Error, Result};
use crate::limits;
use crate::partial::PartialFile;
use crate::sink::Placed;
use crate::units::{Bytes, FileOffset, GuestRange};
use rustix::fs::FallocateFlags;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use uuid::Uuid;

/// What is written of a table at once.
const PAGE_BYTES: u64 = 64 << 10;
/// Zeros that are written where a file system cannot punch holes.
const ZEROS_BYTES: u64 = 1 << 20;

/// What a walk meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes that go into the file.
    Data,
    /// Zeros, whatever a base holds.
    Zero,
    /// What the base holds.
    Keep,
}

/// What was met in a block that the walk has passed.
#[derive(Debug, Default)]
pub struct Passed {
    /// Number of the block.
    pub block: u64,
    /// Where its data lies in the file, if it has room.
    pub at: Option<u64>,
    /// The parts that this image stores, data and zeros: rising, in bytes from the start of the block, never
    /// touching one another.
    pub stored: Vec<(u64, u64)>,
    /// Everything in the block is stored, up to the end of the disk.
    pub whole: bool,
}

/// What a format does with its blocks. Called with rising numbers.
pub trait Blocks: Send {
    /// Takes room for a block in the file; gives the place of its data.
    fn allocate(&mut self, file: &Target, block: u64) -> Result<u64>;
    /// Writes down what the walk has met in a block. Blocks of which nothing is stored are passed over. Over a base,
    /// a block may be stored without room: it is all zeros, and [`zero_needs_room`](Self::zero_needs_room) is false.
    fn pass(&mut self, file: &Target, passed: &Passed) -> Result<()>;
    /// True where, over a base, even a block of zeros needs room in the file.
    fn zero_needs_room(&self) -> bool;
}

/// The file that an image is written to, which may hold what an interrupted run left.
#[derive(Debug)]
pub struct Target {
    file: PartialFile,
    /// Up to here it may hold anything.
    stale_end: u64,
}

impl Target {
    /// `file` with what is in it.
    pub fn new(file: PartialFile) -> Result<Target> {
        let meta =
            file.file().metadata().map_err(|e| Error::io("cannot examine", e).in_file(file.target()))?;
        Ok(Target { stale_end: meta.len(), file })
    }

    /// The file.
    pub fn file(&self) -> &PartialFile {
        &self.file
    }

    /// The file, to be committed.
    pub fn into_file(self) -> PartialFile {
        self.file
    }

    /// Makes a stretch read as zeros that may hold what an interrupted run left. Free in a new file, which is zeros
    /// where nothing was written.
    pub fn clear(&self, at: u64, len: u64) -> Result<()> {
        let len = len.min(self.stale_end.saturating_sub(at));
        if len == 0 {
            return Ok(());
        }
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(self.file.file(), how, at, len).is_ok() {
            return Ok(());
        }
        self.write_zeros(at, len)
    }

    /// Writes zeros.
    pub fn write_zeros(&self, at: u64, len: u64) -> Result<()> {
        let zeros = vec![0; usize::try_from(len.min(ZEROS_BYTES)).unwrap_or(0)];
        let (mut at, end) = (at, at.saturating_add(len));
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeros.len());
            self.file.write_all_at(FileOffset(at), &zeros[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

/// The walk over a disk that is stored in blocks: a block gets its room with the first data in it, in the order of
/// the disk, and is written down once the walk has passed it.
#[derive(Debug)]
pub struct Walk<B> {
    blocks: B,
    size: u64,
    block_size: u64,
    has_base: bool,
    current: Passed,
    /// Everything before it was walked over.
    here: u64,
}

impl<B: Blocks> Walk<B> {
    /// A walk over a disk of `size` in blocks of `block_size`.
    pub fn new(blocks: B, size: Bytes, block_size: Bytes, has_base: bool) -> Walk<B> {
        Walk { blocks, size: size.0, block_size: block_size.0, has_base, current: Passed::default(), here: 0 }
    }

    /// Goes over `range`, which begins where the range before it ended. Returns the places of data.
    pub fn go(&mut self, file: &Target, range: GuestRange, what: What) -> Result<Vec<Placed>> {
        if range.start().0 != self.here || range.end().0 > self.size {
            return Err(Error::refused(format!(
                "told of {:#x} to {:#x} where {:#x} of a disk of {} bytes comes next",
                range.start().0,
                range.end().0,
                self.here,
                self.size
            )));
        }
        let mut placed: Vec<Placed> = Vec::new();
        // Without a base, zeros are what a block reads as that is not stored.
        let stores = what == What::Data || (what == What::Zero && self.has_base);
        while self.here < range.end().0 {
            let inside = self.here % self.block_size;
            let block = self.here - inside;
            let rest = range.end().0 - self.here;
            if inside == 0 && !stores && rest >= self.block_size {
                self.here += rest / self.block_size * self.block_size;
                continue;
            }
            let len = rest.min(self.block_size - inside);
            self.current.block = block / self.block_size;
            if what == What::Data && self.current.at.is_none() {
                let at = self.blocks.allocate(file, self.current.block)?;
                self.current.at = Some(at);
                file.clear(at, inside)?;
            }
            if let Some(at) = self.current.at {
                let at = at + inside;
                match (what, placed.last_mut()) {
                    (What::Data, Some(last)) if last.at.0 + last.len as u64 == at => {
                        last.len += usize::try_from(len).unwrap_or(0);
                    }
                    (What::Data, _) => {
                        let len = usize::try_from(len)
                            .map_err(|_| Error::refused(format!("a run of {len} bytes")))?;
                        placed.push(Placed { file: 0, at: FileOffset(at), len });
                    }
                    _ => file.clear(at, len)?,
                }
            }
            if stores {
                match self.current.stored.last_mut() {
                    Some(last) if last.1 == inside => last.1 += len,
                    _ => self.current.stored.push((inside, inside + len)),
                }
            }
            self.here += len;
            if self.here.is_multiple_of(self.block_size) || self.here == self.size {
                self.pass(file)?;
            }
        }
        Ok(placed)
    }

    /// The walk stands behind the current block.
    fn pass(&mut self, file: &Target) -> Result<()> {
        let mut passed = std::mem::take(&mut self.current);
        if passed.stored.is_empty() {
            return Ok(());
        }
        let used = self.block_size.min(self.size - passed.block * self.block_size);
        passed.whole = passed.stored == [(0, used)];
        match passed.at {
            Some(at) => file.clear(at + used, self.block_size - used)?,
            None if !passed.whole || self.blocks.zero_needs_room() => {
                let at = self.blocks.allocate(file, passed.block)?;
                passed.at = Some(at);
                file.clear(at, self.block_size)?;
            }
            None => {}
        }
        self.blocks.pass(file, &passed)
    }

    /// The format's part, once the whole disk was walked over.
    pub fn finish(self) -> Result<B> {
        if self.here != self.size {
            return Err(Error::refused(format!(
                "told of {} bytes of a disk of {} bytes and then to finish",
                self.here, self.size
            )));
        }
        Ok(self.blocks)
    }
}

/// A table in the file that is written from its start to its end, a page at a time.
#[derive(Debug)]
pub struct TableWriter {
    at: u64,
    /// What stands where nothing is put.
    fill: u8,
    /// Where `page` begins in the table.
    page_start: u64,
    page: Vec<u8>,
}

impl TableWriter {
    /// A table at `at`; what is not put is `fill`. With 0, that part of the file must read as zeros already.
    pub fn new(at: FileOffset, fill: u8) -> TableWriter {
        TableWriter { at: at.0, fill, page_start: 0, page: Vec::new() }
    }

    /// Puts `bytes` at `offset` in the table, which lies behind all that was put before.
    pub fn put(&mut self, file: &Target, offset: u64, bytes: &[u8]) -> Result<()> {
        self.fill_to(file, offset)?;
        self.page.extend_from_slice(bytes);
        if self.page.len() as u64 >= PAGE_BYTES {
            self.flush(file)?;
        }
        Ok(())
    }

    /// Fills the table up to `offset`.
    fn fill_to(&mut self, file: &Target, offset: u64) -> Result<()> {
        loop {
            let here = self.page_start + self.page.len() as u64;
            let Some(gap) = offset.checked_sub(here) else {
                return Err(Error::refused(format!(
                    "a table is written at {offset:#x} and stands at {here:#x}"
                )));
            };
            if gap == 0 {
                return Ok(());
            }
            if self.fill == 0 && gap >= PAGE_BYTES {
                self.flush(file)?;
                self.page_start = offset;
                return Ok(());
            }
            let room = gap.min(PAGE_BYTES - (self.page.len() as u64).min(PAGE_BYTES));
            self.page.resize(self.page.len() + usize::try_from(room).unwrap_or(0), self.fill);
            if self.page.len() as u64 >= PAGE_BYTES {
                self.flush(file)?;
            }
        }
    }

    fn flush(&mut self, file: &Target) -> Result<()> {
        file.file().write_all_at(FileOffset(self.at + self.page_start), &self.page)?;
        self.page_start += self.page.len() as u64;
        self.page.clear();
        Ok(())
    }

    /// Completes a table of `len` bytes.
    pub fn finish(mut self, file: &Target, len: Bytes) -> Result<()> {
        self.fill_to(file, len.0)?;
        self.flush(file)
    }
}

/// What the GUIDs of a new image are made of: with the same content, under the same name, they are the same; with
/// another content, never.
///
/// A GUID that children check must change with the content, or a child would be read over a base that was replaced
/// under the same name. One that a guest tells its disks apart by must differ between disks of one machine, which may
/// well have the same content: two new data disks. So it depends on the file's name, too. Where the content is not
/// known, they are random.
#[derive(Debug, Default)]
pub struct Identity {
    content: Mutex<Option<[u8; 32]>>,
}

impl Identity {
    /// The digest of the content, as soon as it is known.
    pub fn content(&self, digest: [u8; 32]) {
        *self.content.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(digest);
    }

    /// The GUID for one purpose. `facts` are all that it depends on besides the content.
    pub fn guid(&self, purpose: &str, facts: &[&[u8]]) -> Uuid {
        let content = *self.content.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(content) = content else { return Uuid::new_v4() };
        let mut hash = blake3::Hasher::new();
        for part in
            [b"landfall guid 1", purpose.as_bytes(), &content].into_iter().chain(facts.iter().copied())
        {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        hash.finalize_xof().fill(&mut bytes);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// How a base is named in an image that another system reads: with backslashes, from the image's folder and, where
/// that is known, from the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackslashNames {
    /// `.\base.vhdx`
    pub relative: String,
    /// `\vm\base.vhdx`, where the base has an absolute path.
    pub absolute: Option<String>,
}

impl BackslashNames {
    /// The names of `base` for an image at `target`. Names that are not UTF-8, or that have a backslash, are refused.
    pub fn of(base: &Base, target: &Path) -> Result<BackslashNames> {
        let text = |path: &Path| -> Result<String> {
            match path.to_str() {
                Some(text) if text.len() as u64 > limits::NAME.0 => Err(Error::refused(format!(
                    "the path of the base has {} bytes; the limit is {}",
                    text.len(),
                    limits::NAME.0
                ))
                .in_file(target)
                .hint("move both to a folder with a shorter name")),
                Some(text) if !text.contains('\\') => Ok(text.replace('/', "\\")),
                _ => Err(Error::refused(format!(
                    "the base {} cannot be named in the image: its path is not UTF-8 or has a backslash",
                    path.display()
                ))
                .in_file(target)
                .hint("rename it")),
            }
        };
        if !base.path.is_absolute() {
            let relative = text(&base.path)?;
            let relative = if relative.starts_with("..\\") { relative } else { format!(".\\{relative}") };
            return Ok(BackslashNames { relative, absolute: None });
        }
        let target =
            std::path::absolute(target).map_err(|e| Error::io("cannot resolve", e).in_file(target))?;
        let folder = target.parent().unwrap_or(&target);
        let relative = text(&relative_to(&base.path, folder))?;
        let relative = if relative.starts_with("..\\") { relative } else { format!(".\\{relative}") };
        Ok(BackslashNames { relative, absolute: Some(text(&base.path)?) })
    }
}

/// `path` as seen from `folder`, by their text alone; both are absolute.
fn relative_to(path: &Path, folder: &Path) -> PathBuf {
    let (path, folder): (Vec<Component>, Vec<Component>) =
        (path.components().collect(), folder.components().collect());
    let common = path.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder.iter().skip(common).map(|_| Component::ParentDir);
    up.chain(path.iter().skip(common).copied()).collect()
}

/// Refuses a base of another format or size than its child's, and one without an identity; gives the identity.
pub fn check_base(base: &Base, format: crate::Format, size: Bytes, target: &Path) -> Result<Uuid> {
    let refused = |says: String, hint: &str| Err(Error::refused(says).in_file(target).hint(hint));
    if base.format != format {
        return refused(
            format!("its base is a {}; it must be a {}", base.format.name(), format.name()),
            "convert the base first",
        );
    }
    if base.size != size {
        return refused(
            format!("its base has {} bytes, the disk {}; they must be the same", base.size.0, size.0),
            "convert the whole disk without a base",
        );
    }
    match base.identity.as_deref().map(str::parse) {
        Some(Ok(id)) => Ok(id),
        id => Err(Error::refused(format!("the id of its base is {id:?}, not a GUID")).in_file(target)),
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use super::*;
    use crate::create::FileOptions;

    #[test]
    fn a_base_is_named_from_the_image() {
        let names = |base: &str, target: &str| {
            let base =
                Base { path: base.into(), format: crate::Format::Vhdx, size: Bytes(0), identity: None };
            BackslashNames::of(&base, Path::new(target)).map(|names| (names.relative, names.absolute)).ok()
        };
        let some = |a: &str, b: Option<&str>| Some((a.to_owned(), b.map(str::to_owned)));
        assert_eq!(names("a.vhdx", "/vm/b.avhdx"), some(".\\a.vhdx", None));
        assert_eq!(names("../a.vhdx", "x/b.avhdx"), some("..\\a.vhdx", None));
        assert_eq!(names("/vm/a.vhdx", "/vm/b.avhdx"), some(".\\a.vhdx", Some("\\vm\\a.vhdx")));
        assert_eq!(names("/vm/p/a.vhdx", "/vm/q/r/b"), some("..\\..\\p\\a.vhdx", Some("\\vm\\p\\a.vhdx")));
        assert_eq!(names("/vm/p/a.vhdx", "/vm/b"), some(".\\p\\a.vhdx", Some("\\vm\\p\\a.vhdx")));
        assert_eq!(names("a\\b.vhdx", "/vm/b"), None);
    }

    #[test]
    fn guids_change_with_content_and_purpose() {
        let of = |content: Option<u8>, purpose| {
            let identity = Identity::default();
            if let Some(byte) = content {
                identity.content([byte; 32]);
            }
            identity.guid(purpose, &[b"a", b"b"])
        };
        assert_eq!(of(Some(1), "x"), of(Some(1), "x"));
        assert_ne!(of(Some(1), "x"), of(Some(2), "x"));
        assert_ne!(of(Some(1), "x"), of(Some(1), "y"));
        assert_ne!(of(None, "x"), of(None, "x"));
    }

    #[test]
    fn tables_are_filled_where_nothing_is_put() {
        let dir = tempfile::tempdir().unwrap();
        for fill in [0u8, 0xff] {
            let options = FileOptions { replace: true, ..FileOptions::default() };
            let file = Target::new(PartialFile::create(&dir.path().join("t"), options).unwrap()).unwrap();
            file.file().set_len(Bytes(1 << 20)).unwrap();
            let mut table = TableWriter::new(FileOffset(512), fill);
            let mut model = vec![0; 1 << 20];
            model[512..512 + 300_000].fill(fill);
            for at in [0u64, 4, 65_532, 65_536, 200_000, 262_144, 299_996] {
                table.put(&file, at, &[1, 2, 3, 4]).unwrap();
                model[512 + at as usize..][..4].copy_from_slice(&[1, 2, 3, 4]);
            }
            assert!(table.put(&file, 8, &[1]).is_err());
            table.finish(&file, Bytes(300_000)).unwrap();
            let (path, _) = file.into_file().commit().unwrap();
            assert!(std::fs::read(path).unwrap() == model, "{fill}");
        }
    }
}

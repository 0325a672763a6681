//! A file as it would read after its log was replayed. The file itself is never written.

use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::FileOffset;
use std::collections::BTreeMap;

/// Log sectors, and so patches, are of this length and alignment.
pub const SECTOR: usize = 4096;
/// The same, as a number of bytes in the file.
pub const SECTOR_BYTES: u64 = SECTOR as u64;

/// What replaces a run of the file.
enum Content {
    Zero,
    Sector(Box<[u8; SECTOR]>),
}

/// A [`Source`] under patches that do not overlap.
pub struct Patched {
    source: Source,
    /// Length of the file after the replay: bytes between the source's end and this are zeros.
    len: u64,
    /// By start: end and content.
    patches: BTreeMap<u64, (u64, Content)>,
}

impl Patched {
    /// The file as it is.
    pub fn new(source: Source) -> Patched {
        Patched { len: source.len().0, source, patches: BTreeMap::new() }
    }

    /// The file below.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Length of the file after the replay.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Makes the file at least `len` long.
    pub fn extend_to(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Replaces the sector at `at`, a multiple of [`SECTOR_BYTES`].
    pub fn patch_sector(&mut self, at: u64, content: [u8; SECTOR]) -> Result<()> {
        self.patch(at, SECTOR_BYTES, Content::Sector(Box::new(content)))
    }

    /// Makes a run zeros; start and length are multiples of [`SECTOR_BYTES`].
    pub fn patch_zero(&mut self, at: u64, len: u64) -> Result<()> {
        if len == 0 { Ok(()) } else { self.patch(at, len, Content::Zero) }
    }

    /// Since everything is aligned to sectors, a sector is replaced whole or not at all; only runs of zeros are cut.
    fn patch(&mut self, start: u64, len: u64, content: Content) -> Result<()> {
        let end = start.checked_add(len).filter(|&end| end <= i64::MAX as u64).ok_or_else(|| {
            Error::corrupt(format!("the log writes {len:#x} bytes at {start:#x}, past what a file can hold"))
        })?;
        if let Some((&before, &mut (before_end, _))) = self.patches.range_mut(..start).next_back()
            && before_end > start
        {
            self.patches.insert(before, (start, Content::Zero));
            if before_end > end {
                self.patches.insert(end, (before_end, Content::Zero));
            }
        }
        while let Some((&inner, &(inner_end, _))) = self.patches.range(start..end).next() {
            self.patches.remove(&inner);
            if inner_end > end {
                self.patches.insert(end, (inner_end, Content::Zero));
            }
        }
        self.patches.insert(start, (end, content));
        self.len = self.len.max(end);
        if self.patches.len() > limits::VHDX_LOG_PIECES {
            return Err(Error::refused(format!(
                "the log changes more than {} separate places of the file",
                limits::VHDX_LOG_PIECES
            )));
        }
        Ok(())
    }

    /// True where no patch and no extension touches the run: the file's own bytes are what counts.
    pub fn is_plain(&self, at: u64, len: u64) -> bool {
        let end = at.saturating_add(len);
        end <= self.source.len().0
            && self.patches.range(..end).next_back().is_none_or(|(_, (patch_end, _))| *patch_end <= at)
    }

    /// Fills `buf` from `at`; past the end of the replayed file the image is truncated, `Corrupt`.
    pub fn read_exact_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let source_len = self.source.len().0;
        let end = at.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|&end| end <= self.len && !self.is_plain(at, buf.len() as u64)) else {
            return self.source.read_exact_at(FileOffset(at), buf);
        };
        let inside = usize::try_from(source_len.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let (stored, beyond) = buf.split_at_mut(inside);
        if !stored.is_empty() {
            self.source.read_exact_at(FileOffset(at), stored)?;
        }
        beyond.fill(0);
        let first = self.patches.range(..=at).next_back().map_or(at, |(start, _)| *start);
        for (&start, (patch_end, content)) in self.patches.range(first..end) {
            let (from, to) = (start.max(at), (*patch_end).min(end));
            if from >= to {
                continue;
            }
            // Inside of `buf`, whose length is a usize.
            let index = |offset: u64, base: u64| usize::try_from(offset - base).unwrap_or(usize::MAX);
            let Some(target) = buf.get_mut(index(from, at)..index(to, at)) else { continue };
            match content {
                Content::Zero => target.fill(0),
                Content::Sector(sector) => {
                    if let Some(part) = sector.get(index(from, start)..index(to, start)) {
                        target.copy_from_slice(part);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    const S: u64 = SECTOR_BYTES;

    fn source(sectors: u64) -> (tempfile::NamedTempFile, Source) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for sector in 0..sectors {
            file.write_all(&[0x80 | sector as u8; S as usize]).unwrap();
        }
        let source = Source::open(file.path()).unwrap();
        (file, source)
    }

    proptest! {
        /// Against the plain model: an array that every patch is written to.
        #[test]
        fn reads_as_if_the_patches_had_been_written(
            patches in proptest::collection::vec((0u64..24, 0u64..9, any::<bool>()), 0..24),
            at in 0u64..24 * S, len in 0u64..9 * S,
        ) {
            let (_file, source) = source(16);
            let mut patched = Patched::new(source);
            let mut model: Vec<u8> = (0..16).flat_map(|n| [0x80 | n as u8; S as usize]).collect();
            for (n, (at, sectors, zero)) in patches.into_iter().enumerate() {
                let (len, byte) = if zero { (sectors, 0) } else { (1, n as u8 + 1) };
                if zero {
                    patched.patch_zero(at * S, len * S).unwrap();
                } else {
                    patched.patch_sector(at * S, [byte; S as usize]).unwrap();
                }
                let end = ((at + len) * S) as usize;
                if len > 0 {
                    model.resize(model.len().max(end), 0);
                    model[(at * S) as usize..end].fill(byte);
                }
            }
            prop_assert_eq!(patched.len(), model.len() as u64);
            let mut buf = vec![0xAA; len as usize];
            let wanted = model.get(at as usize..(at + len) as usize);
            match patched.read_exact_at(at, &mut buf) {
                Ok(()) => prop_assert_eq!(Some(&buf[..]), wanted),
                Err(_) => prop_assert!(wanted.is_none()),
            }
            if patched.is_plain(at, len) && len > 0 {
                let mut plain = vec![0; len as usize];
                patched.source().read_exact_at(FileOffset(at), &mut plain).unwrap();
                prop_assert_eq!(&plain[..], wanted.unwrap());
            }
        }
    }

    #[test]
    fn the_number_of_pieces_is_bounded() {
        let (_file, source) = source(1);
        let mut patched = Patched::new(source);
        for n in 0..limits::VHDX_LOG_PIECES as u64 {
            patched.patch_zero(n * 2 * S, S).unwrap();
        }
        assert_eq!(patched.patch_zero(1 << 40, S).unwrap_err().kind(), crate::Kind::Refused);
        assert_eq!(patched.patch_zero(i64::MAX as u64 & !0xfff, S).unwrap_err().kind(), crate::Kind::Corrupt);
    }
}
